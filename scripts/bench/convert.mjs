/**
 * `convert --no-verify` of a 4 GiB chain (the built command line, a whole process) against `qemu-img convert`, and `hash` against
 * nbdcopy of qemu-nbd into sha256sum. Ours ends when the image has reached the storage; qemu-img as it is usually called ends before
 * (its `-t unsafe`), so it is measured as it is and with `-t writeback`, which waits too. Commands take turns.
 */
import { spawnSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { closeSync, ftruncateSync, mkdirSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { cli, fixture, fixtures, hasPeer, median, run } from './tools.mjs';

const MiB = 1 << 20;
const SIZE = 4096 * MiB;
const LINKS = 3;
const ROUNDS = 5;

/** Incompressible, five eighths of it: the rest are holes, as in a disk that somebody uses. */
function makeRaw(path) {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, SIZE);
  const block = Buffer.allocUnsafe(4 * MiB);
  for (let at = 0; at < SIZE; at += 64 * MiB) {
    for (let i = 0; i < 40 * MiB; i += block.length) writeSync(fd, randomFillSync(block), 0, block.length, at + i);
  }
  closeSync(fd);
}

/** A base and links of one format, each link with 1,500 units anywhere on the disk. */
function makeChain(folder, format, raw) {
  mkdirSync(folder);
  run('qemu-img', ['convert', '-f', 'raw', '-O', format, raw, join(folder, `disk-0.${format}`)]);
  let x = 7;
  for (let link = 1; link <= LINKS; link++) {
    const name = `disk-${link}.${format}`;
    run('qemu-img', ['create', '-q', '-f', format, '-F', format, '-b', `disk-${link - 1}.${format}`, name], {
      cwd: folder,
    });
    const writes = [];
    for (let i = 0; i < 1500; i++) {
      x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
      writes.push('-c', `write -q -P ${1 + (i % 255)} ${(x % (SIZE / 65536)) * 65536} 65536`);
    }
    run('qemu-io', ['-f', format, ...writes, name], { cwd: folder });
  }
}

function seconds(program, args) {
  const started = process.hrtime.bigint();
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const taken = Number(process.hrtime.bigint() - started) / 1e9;
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} failed: ${stderr}`);
  return taken;
}

/** Medians of commands that take turns; the first round warms up. `after` runs outside of the time. */
function turns(commands, after) {
  const values = Object.fromEntries(Object.keys(commands).map((name) => [name, []]));
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [name, [program, ...args]] of Object.entries(commands)) {
      values[name].push(seconds(program, args));
      after();
    }
  }
  return Object.fromEntries(Object.entries(values).map(([name, all]) => [name, median(all.slice(1))]));
}

function convertRows(source, format, what, targets) {
  const folder = join(fixtures, `convert-out-${process.pid}`);
  mkdirSync(folder);
  const clean = () => {
    for (const name of readdirSync(folder)) rmSync(join(folder, name));
    // What one command left to be written out must not be paid by the next.
    spawnSync('sync');
  };
  try {
    return targets.flatMap((target) => {
      const out = join(folder, `out.${target}`);
      const qemu = (...more) => ['qemu-img', 'convert', '-f', format, '-O', target, ...more, source, out];
      const { ours, usual, durable } = turns(
        {
          ours: [process.execPath, cli, 'convert', '--no-verify', '--format', target, source, out],
          usual: qemu(),
          durable: qemu('-t', 'writeback'),
        },
        clean,
      );
      const row = (against, theirs) => ({
        what: `\`convert --no-verify\` of a 4 GiB ${what} to ${target}, speed`,
        against,
        ratio: theirs / ours,
        bar: 1,
        better: 'higher',
      });
      return [
        row('`qemu-img convert`, which does not wait for the storage', usual),
        row('`qemu-img convert -t writeback`', durable),
      ];
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function hashRow(source, format, what) {
  const missing = ['nbdcopy', 'qemu-nbd', 'nbdkit', 'sha256sum'].filter((peer) => !hasPeer(peer));
  if (missing.length > 0)
    return { what: `\`hash\` of a 4 GiB ${what}`, skipped: `${missing.join(', ')} not installed` };
  const pipeline = `set -o pipefail; nbdcopy -- [ qemu-nbd -r -f ${format} "$0" ] - | sha256sum`;
  const { ours, theirs } = turns(
    { ours: [process.execPath, cli, 'hash', source], theirs: ['bash', '-c', pipeline, source] },
    () => undefined,
  );
  return {
    what: `\`hash\` of a 4 GiB ${what}, speed`,
    against: '`nbdcopy [ qemu-nbd ] - | sha256sum`',
    ratio: theirs / ours,
    bar: 1,
    better: 'higher',
  };
}

export async function convert() {
  for (const peer of ['qemu-img', 'qemu-io'])
    if (!hasPeer(peer)) return [{ what: '`convert`', skipped: `${peer} is not installed` }];
  const raw = fixture('convert-raw.img', makeRaw);
  const vmdk = join(
    fixture('convert-vmdk', (folder) => makeChain(folder, 'vmdk', raw)),
    `disk-${LINKS}.vmdk`,
  );
  const qcow2 = join(
    fixture('convert-qcow2', (folder) => makeChain(folder, 'qcow2', raw)),
    `disk-${LINKS}.qcow2`,
  );
  return [
    ...convertRows(vmdk, 'vmdk', 'chain of four VMDKs', ['raw', 'qcow2']),
    ...convertRows(qcow2, 'qcow2', 'chain of four QCOW2s', ['raw', 'qcow2']),
    ...convertRows(raw, 'raw', 'raw disk', ['qcow2']),
    hashRow(vmdk, 'vmdk', 'chain of four VMDKs'),
    hashRow(raw, 'raw', 'raw disk'),
  ];
}

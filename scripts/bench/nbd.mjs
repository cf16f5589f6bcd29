/**
 * Our NBD server (the built command line) against nbdkit's file plugin and qemu-nbd on the same files: 4 KiB random reads at queue
 * depth 16 with fio's nbd engine over the whole disk, and nbdcopy to null. All servers run at once and are measured in turns,
 * so that whatever else the machine does hits all alike; an idle server costs nothing.
 */
import { spawn } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { cli, fixture, fixtures, hasPeer, median, run } from './tools.mjs';

const MiB = 1 << 20;
/** Beyond qemu's VMDK table cache, which holds 16 grain tables of 32 MiB each. */
const SIZE = 2048 * MiB;
const LINKS = 8;
const ROUNDS = 5;
const FIO_SECONDS = 3;

/** Incompressible and without a hole: nothing is spared by leaving zeros out. */
function makeRaw(path) {
  const fd = openSync(path, 'w');
  const block = Buffer.allocUnsafe(4 * MiB);
  for (let at = 0; at < SIZE; at += block.length) writeSync(fd, randomFillSync(block));
  closeSync(fd);
}

/** The raw disk as a VMDK, and eight links that each hold 1,500 grains anywhere on it. */
function makeChain(folder, raw) {
  mkdirSync(folder);
  run('qemu-img', ['convert', '-f', 'raw', '-O', 'vmdk', raw, join(folder, 'disk-0.vmdk')]);
  let x = 99;
  for (let link = 1; link <= LINKS; link++) {
    run('qemu-img', ['create', '-q', '-f', 'vmdk', '-F', 'vmdk', '-b', `disk-${link - 1}.vmdk`, `disk-${link}.vmdk`], {
      cwd: folder,
    });
    const writes = [];
    for (let i = 0; i < 1500; i++) {
      x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
      writes.push('-c', `write -q -P ${1 + (i % 255)} ${(x % (SIZE / 65536)) * 65536} 65536`);
    }
    run('qemu-io', ['-f', 'vmdk', ...writes, `disk-${link}.vmdk`], { cwd: folder });
  }
}

function accepts(path) {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** Starts a server on `socket` and waits until it accepts. */
async function serve(socket, program, args) {
  const child = spawn(program, args, { stdio: 'ignore' });
  let ended = false;
  const exit = new Promise((resolve) => {
    child.once('exit', () => {
      ended = true;
      resolve();
    });
  });
  const late = Date.now() + 20_000;
  while (!(await accepts(socket))) {
    if (ended || Date.now() > late) {
      child.kill('SIGKILL');
      throw new Error(`${program} ${args.join(' ')} does not serve`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return {
    uri: `nbd+unix:///?socket=${socket}`,
    stop() {
      child.kill('SIGTERM');
      return exit;
    },
  };
}

const ours = (image, socket) => serve(socket, process.execPath, [cli, 'nbd', image, '--socket', socket]);
const nbdkit = (image, socket) => serve(socket, 'nbdkit', ['-f', '-r', '-U', socket, 'file', image]);
const qemu = (format) => (image, socket) =>
  serve(socket, 'qemu-nbd', ['-r', '-t', '-e', '8', '-f', format, '-k', socket, image]);

function randomReads(uri, output, clients) {
  run('fio', [
    '--name=r',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--rw=randread',
    '--bs=4k',
    '--iodepth=16',
    `--numjobs=${clients}`,
    '--group_reporting',
    '--time_based',
    `--runtime=${FIO_SECONDS}`,
    `--size=${SIZE}`,
    '--output-format=json',
    `--output=${output}`,
  ]);
  return JSON.parse(readFileSync(output, 'utf8')).jobs[0].read.iops;
}

/** Copies a second. */
function copies(uri) {
  const started = process.hrtime.bigint();
  run('nbdcopy', [uri, 'null:']);
  return 1e9 / Number(process.hrtime.bigint() - started);
}

/** Medians of every measurement on every server, taken in turns; the first round warms up and does not count. */
async function compare(image, servers, measurements) {
  const folder = mkdtempSync(join(fixtures, 'nbd-'));
  const running = {};
  try {
    for (const [name, start] of Object.entries(servers))
      running[name] = await start(image, join(folder, `${name}.sock`));
    const found = {};
    for (const [what, measure] of Object.entries(measurements)) {
      const values = Object.fromEntries(Object.keys(running).map((name) => [name, []]));
      for (let round = 0; round <= ROUNDS; round++) {
        for (const [name, { uri }] of Object.entries(running))
          values[name].push(measure(uri, join(folder, 'fio.json')));
      }
      found[what] = Object.fromEntries(Object.entries(values).map(([name, all]) => [name, median(all.slice(1))]));
    }
    return found;
  } finally {
    await Promise.all(Object.values(running).map((server) => server.stop()));
    rmSync(folder, { recursive: true, force: true });
  }
}

export async function nbd() {
  const missing = ['fio', 'nbdcopy', 'nbdkit', 'qemu-nbd', 'qemu-img', 'qemu-io'].filter((peer) => !hasPeer(peer));
  if (missing.length > 0) return [{ what: 'NBD server', skipped: `${missing.join(', ')} not installed` }];
  const raw = fixture('nbd-raw.img', makeRaw);
  const chain = fixture('nbd-chain', (folder) => makeChain(folder, raw));

  const random = (uri, output) => randomReads(uri, output, 1);
  const two = (uri, output) => randomReads(uri, output, 2);
  const onRaw = await compare(raw, { ours, nbdkit, qemu: qemu('raw') }, { random, two, copies });
  const onChain = await compare(join(chain, `disk-${LINKS}.vmdk`), { ours, qemu: qemu('vmdk') }, { random, copies });
  const row = (what, against, { ours: mine, [against]: theirs }, bar) => ({
    what,
    against: { qemu: 'qemu-nbd', nbdkit: 'nbdkit file' }[against],
    ratio: mine / theirs,
    bar,
    better: 'higher',
  });
  return [
    row('4 KiB random reads over NBD, queue depth 16, raw', 'nbdkit', onRaw.random, 1),
    row('4 KiB random reads over NBD, two clients, raw', 'nbdkit', onRaw.two, 1),
    row('4 KiB random reads over NBD, queue depth 16, chain of nine VMDKs', 'qemu', onChain.random, 20),
    row('nbdcopy to null, raw', 'qemu', onRaw.copies, 1),
    row('nbdcopy to null, chain of nine VMDKs', 'qemu', onChain.copies, 5),
  ];
}

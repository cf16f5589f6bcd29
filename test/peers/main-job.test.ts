/**
 * The main job on input that nothing of ours made: a kernel-made ext4 on a disk that qemu-img keeps, in every sub-format it can
 * write and at several depths. What we scan, list, copy and hash must be what qemu-img and a kernel mount say.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { chainlift } from '../support/cli.ts';
import { describePeers, missingLoopMounts, run } from '../support/peers.ts';
import { fingerprint, scratchFolder, sha256File } from '../support/scratch.ts';

const MiB = 1 << 20;
const DISK = 80 * MiB;
const PARTITION = 1 * MiB;
const GRAIN = 65_536;

interface TrueEntry {
  readonly kind: string;
  readonly mode: number;
  readonly owner: string;
  readonly size: number;
  readonly mtime: bigint;
  readonly content: string;
}

/** Every entry below a folder of this computer, by path: the kernel's view. */
function entriesBelow(root: string): Map<string, TrueEntry> {
  const found = new Map<string, TrueEntry>();
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const stat = lstatSync(path, { bigint: true });
    found.set(path.slice(root.length), {
      kind: entry.isDirectory() ? 'directory' : entry.isSymbolicLink() ? 'symlink' : 'file',
      mode: Number(stat.mode & 0o7777n),
      owner: `${stat.uid}:${stat.gid}`,
      size: entry.isDirectory() ? 0 : Number(stat.size),
      mtime: stat.mtimeNs,
      content: entry.isFile() ? sha256File(path) : entry.isSymbolicLink() ? readlinkSync(path) : '',
    });
  }
  return found;
}

function withPartition<T>(raw: string, options: string, body: (at: string) => T): T {
  const at = `${raw}.mnt`;
  mkdirSync(at, { recursive: true });
  run('mount', ['-o', `loop,offset=${PARTITION},${options}`, raw, at]);
  try {
    return body(at);
  } finally {
    run('umount', [at]);
  }
}

describePeers(
  'the main job',
  { peers: ['qemu-img', 'qemu-io', 'mkfs.ext4', 'sfdisk', 'losetup'], reasons: [missingLoopMounts()] },
  () => {
    const scratch = scratchFolder('main-job');
    /** Raw states of the disk, oldest first, and what the kernel saw in each. */
    const states: { raw: string; entries: Map<string, TrueEntry> }[] = [];
    const STATES = 9;

    beforeAll(() => {
      const raw = join(scratch.path, 'disk.raw');
      run('truncate', ['-s', String(DISK), raw]);
      run('sfdisk', ['--quiet', raw], { input: `label: gpt\nstart=${PARTITION / 512}, type=linux\n` });
      run('mkfs.ext4', ['-q', '-F', '-E', `offset=${PARTITION}`, '-L', 'data', raw, `${(DISK - 2 * MiB) / 1024}k`]);
      for (let state = 0; state < STATES; state++) {
        withPartition(raw, 'rw', (at) => {
          const folder = join(at, `day-${state}`, 'deep', 'er');
          mkdirSync(folder, { recursive: true });
          for (let i = 0; i < 60; i++) writeFileSync(join(folder, `file ${i}.txt`), `${state} ${i} `.repeat(i * 17));
          writeFileSync(join(at, 'always.log'), Buffer.alloc(300_000 + state * 1000, state + 65));
          writeFileSync(join(at, `Grüße-${state}-日本.bin`), createHash('sha512').update(String(state)).digest());
          run('truncate', ['-s', '5M', join(folder, 'sparse')]);
          run('ln', ['-s', '../../always.log', join(folder, 'link')]);
          run('chmod', ['0640', join(at, 'always.log')]);
          run('chown', [`${1000 + state}:${2000 + state}`, join(at, 'always.log')]);
          if (state > 1) run('rm', ['-r', join(at, `day-${state - 2}`)]);
        });
        const copy = join(scratch.path, `state-${state}.raw`);
        copyFileSync(raw, copy);
        states.push({ raw: copy, entries: withPartition(copy, 'ro,noload', entriesBelow) });
      }
    });

    /** Writes where `after` differs from `before` into the link `image`, with qemu-io. */
    function writeDifference(image: string, before: string, after: string): void {
      const [a, b] = [openSync(before, 'r'), openSync(after, 'r')];
      const [old, fresh] = [Buffer.alloc(GRAIN), Buffer.alloc(GRAIN)];
      const commands: string[] = [];
      for (let at = 0; at < DISK; at += GRAIN) {
        readSync(a, old, 0, GRAIN, at);
        readSync(b, fresh, 0, GRAIN, at);
        if (old.equals(fresh)) continue;
        const piece = join(scratch.path, `piece-${at}`);
        const fd = openSync(piece, 'w');
        writeSync(fd, fresh);
        closeSync(fd);
        commands.push('-c', `write -q -s ${piece} ${at} ${GRAIN}`);
      }
      closeSync(a);
      closeSync(b);
      run('qemu-io', ['-f', 'vmdk', ...commands, image], { cwd: dirname(image) });
    }

    /** A chain of `depth` images; state n is image n. Returns their names from base to leaf. */
    function makeChain(folder: string, base: string, link: string, depth: number): string[] {
      mkdirSync(folder);
      const names = ['disk.vmdk'];
      run('qemu-img', [
        'convert',
        '-f',
        'raw',
        '-O',
        'vmdk',
        '-o',
        `subformat=${base}`,
        states[0]!.raw,
        join(folder, 'disk.vmdk'),
      ]);
      for (let n = 1; n < depth; n++) {
        const name = `disk-${String(n).padStart(6, '0')}.vmdk`;
        run(
          'qemu-img',
          ['create', '-q', '-f', 'vmdk', '-o', `subformat=${link}`, '-F', 'vmdk', '-b', names.at(-1)!, name],
          { cwd: folder },
        );
        writeDifference(join(folder, name), states[n - 1]!.raw, states[n]!.raw);
        names.push(name);
      }
      return names;
    }

    /** VM files for the chain: every image but the last is a snapshot's, the last is the present state. */
    function describeVm(folder: string, names: readonly string[]): void {
      const lines = [
        '.encoding = "UTF-8"',
        `snapshot.current = "${names.length - 1}"`,
        `snapshot.numSnapshots = "${names.length - 1}"`,
      ];
      names.slice(0, -1).forEach((name, n) => {
        const micros = BigInt(Date.UTC(2026, 10, n + 1)) * 1000n;
        lines.push(
          `snapshot${n}.uid = "${n + 1}"`,
          `snapshot${n}.displayName = "day ${n}"`,
          ...(n === 0 ? [] : [`snapshot${n}.parent = "${n}"`]),
          `snapshot${n}.createTimeHigh = "${micros >> 32n}"`,
          `snapshot${n}.createTimeLow = "${BigInt.asIntN(32, micros)}"`,
          `snapshot${n}.numDisks = "1"`,
          `snapshot${n}.disk0.fileName = "${name}"`,
          `snapshot${n}.disk0.node = "scsi0:0"`,
        );
      });
      writeFileSync(join(folder, 'files01.vmsd'), `${lines.join('\n')}\n`);
      writeFileSync(
        join(folder, 'files01.vmx'),
        `.encoding = "UTF-8"\ndisplayName = "files01"\nguestOS = "debian12-64"\nscsi0.present = "TRUE"\nscsi0:0.present = "TRUE"\nscsi0:0.fileName = "${names.at(-1)}"\n`,
      );
    }

    const subformats = ['monolithicSparse', 'monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat'];
    // Flat images can't be links; qemu-img says so.
    const cases = [
      ...subformats.map((base) => ({ base, link: 'monolithicSparse', depth: 1 })),
      ...subformats.map((base) => ({ base, link: 'monolithicSparse', depth: 3 })),
      { base: 'monolithicSparse', link: 'twoGbMaxExtentSparse', depth: 3 },
      { base: 'twoGbMaxExtentFlat', link: 'twoGbMaxExtentSparse', depth: 4 },
      { base: 'monolithicSparse', link: 'monolithicSparse', depth: STATES },
    ];

    it.each(cases)('$base with links $link, depth $depth', ({ base, link, depth }) => {
      const folder = join(scratch.path, `${base}-${link}-${depth}`);
      const names = makeChain(folder, base, link, depth);
      if (depth > 1) describeVm(folder, names);
      const before = fingerprint(folder);

      const report = JSON.parse(chainlift('scan', folder, '--json').stdout);
      expect(report.orphans).toEqual([]);
      expect(report.vms).toHaveLength(1);
      expect(report.vms[0].points).toHaveLength(depth);
      expect(chainlift('verify', folder)).toMatchObject({ code: 0, stderr: '' });

      names.forEach((name, n) => {
        const { entries } = states[n]!;
        const id: string = report.vms[0].points[n].id;
        expect(report.vms[0].points[n].disks[0].file).toBe(name);

        // The disk: qemu-img's own reading of the same link.
        const raw = join(scratch.path, 'converted.raw');
        run('qemu-img', ['convert', '-O', 'raw', join(folder, name), raw]);
        const sha256 = sha256File(raw);
        expect(sha256).toBe(sha256File(states[n]!.raw));
        expect(chainlift('hash', folder, '--point', id).stdout.split(' ')[0]).toBe(sha256);
        expect(chainlift('hash', join(folder, name)).stdout.split(' ')[0]).toBe(sha256);

        // The files: the kernel's view of the same state.
        const rows = chainlift('ls', '-l', '-R', '--json', folder, '/sda1/', '--point', id)
          .stdout.trim()
          .split('\n')
          .map((line) => JSON.parse(line));
        const listed = new Map(rows.map((row) => [row.path.slice('/sda1'.length), row]));
        expect([...listed.keys()].sort()).toEqual([...entries.keys()].sort());
        for (const [path, entry] of entries) {
          const row = listed.get(path)!;
          const mtime = BigInt(row.modified.seconds) * 1_000_000_000n + BigInt(row.modified.nanoseconds);
          expect({ path, kind: row.kind, mode: row.mode, owner: `${row.uid}:${row.gid}`, mtime }).toEqual({
            path,
            kind: entry.kind,
            mode: entry.mode,
            owner: entry.owner,
            mtime: entry.mtime,
          });
          if (entry.kind === 'file') expect(row.size).toBe(entry.size);
          if (entry.kind === 'symlink') expect(row.linkTarget).toBe(entry.content);
        }

        // And out of it, onto this computer. The first and the last state are enough for the deep chain.
        if (n > 0 && n < depth - 1) return;
        const out = join(scratch.path, `out-${base}-${link}-${depth}-${n}`);
        mkdirSync(out);
        const copy = chainlift('cp', '-r', folder, '/sda1', out, '--point', id);
        expect(copy).toMatchObject({ code: 0, stderr: '' });
        const copied = entriesBelow(join(out, 'sda1'));
        const rounded = (found: Map<string, TrueEntry>): [string, unknown][] =>
          // A double holds today's times to about a quarter of a microsecond; that is all Node can set.
          [...found]
            .map(([path, entry]) => [path, { ...entry, mtime: entry.mtime / 1_000_000n }] as [string, unknown])
            .sort();
        const close = (a: [string, unknown][], b: [string, unknown][]): void => {
          expect(a.map(([path, entry]) => [path, { ...(entry as TrueEntry), mtime: 0n }])).toEqual(
            b.map(([path, entry]) => [path, { ...(entry as TrueEntry), mtime: 0n }]),
          );
          a.forEach(([, entry], i) => {
            const difference = (entry as TrueEntry).mtime - (b[i]![1] as TrueEntry).mtime;
            expect(difference >= -1n && difference <= 1n).toBe(true);
          });
        };
        close(rounded(copied), rounded(entries));
        expect(readFileSync(join(out, 'sda1', 'always.log')).length).toBe(300_000 + n * 1000);
      });

      expect(fingerprint(folder)).toEqual(before);
    });
  },
);

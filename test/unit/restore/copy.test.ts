import { createHash } from 'node:crypto';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { nameFromBytes } from '../../../main/engine/filesystem/names.ts';
import { modeToSet, utime } from '../../../main/engine/restore/attributes.ts';
import { joinVmPath, splitVmPath } from '../../../main/engine/restore/source.ts';
import { directory, file, MemoryFileSystem, special, symlink } from '../../support/memory-file-system.ts';
import { randomBytesOf, randomFrom } from '../../support/random.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { contentsOf, copySources, copyTree, problemsOf } from './copy-helpers.ts';

const scratch = scratchFolder('copy');
const root = process.getuid?.() === 0;
let destination = '';
beforeEach(() => {
  destination = mkdtempSync(join(scratch.path, 'to-'));
});

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const at = (seconds: number, nanoseconds = 0) => ({ seconds, nanoseconds });

describe('a tree', () => {
  it('comes out whole', async () => {
    const big = randomBytesOf(randomFrom(1), (1 << 20) * 2 + 777);
    const { report, progress } = await copyTree(
      directory({
        srv: directory({
          www: directory({
            'index.php': file('<?php'),
            big: file(big),
            empty: file(''),
            img: directory({ 'a.png': file('png'), none: directory({}) }),
            'Größe 日本': file('x'),
          }),
          other: file('not asked for'),
        }),
      }),
      '/srv/www',
      { destination },
    );
    expect(contentsOf(destination)).toEqual(
      [
        'www/',
        'www/Größe 日本=x',
        `www/big=${big.length} bytes`,
        'www/empty=',
        'www/img/',
        'www/img/a.png=png',
        'www/img/none/',
        'www/index.php=<?php',
      ].sort(),
    );
    expect(readFileSync(join(destination, 'www/big')).equals(big)).toBe(true);
    expect(report).toMatchObject({ files: 5, directories: 3, links: 0, verified: 5, skipped: 0, problems: [] });
    expect(report.bytes).toBe(big.length + 5 + 3 + 1);
    expect(report.written).toEqual([join(destination, 'www')]);
    expect(report.copied.find((copied) => copied.path === '/sda1/srv/www/big')).toEqual({
      path: '/sda1/srv/www/big',
      destination: join(destination, 'www/big'),
      kind: 'file',
      bytes: big.length,
      sha256: sha256(big),
      verified: true,
    });
    expect(progress).toMatchObject({
      bytesDone: report.bytes,
      bytesTotal: report.bytes,
      itemsDone: 8,
      itemsTotal: 8,
    });
  });

  it('can be several sources, under names of their own', async () => {
    const fs = new MemoryFileSystem(directory({ a: file('1'), b: directory({ c: file('2') }) }));
    await copySources([await fs.source('/a', 'renamed'), await fs.source('/b')], { destination });
    expect(contentsOf(destination)).toEqual(['b/', 'b/c=2', 'renamed=1'].sort());
  });

  it('a whole volume is named as the volume', async () => {
    await copyTree(directory({ a: file('1') }), '/', { destination });
    expect(contentsOf(destination)).toEqual(['sda1/', 'sda1/a=1'].sort());
  });

  it('is not walked unless asked', async () => {
    const { report } = await copyTree(directory({ d: directory({ a: file('1') }), f: file('2') }), ['/d', '/f'], {
      destination,
      recursive: false,
    });
    expect(contentsOf(destination)).toEqual(['f=2']);
    expect(problemsOf(report)).toEqual([['/sda1/d', 'unsupported']]);
  });

  it('is not verified unless asked', async () => {
    const { report } = await copyTree(directory({ f: file('2') }), '/f', { destination, verify: false });
    expect(report).toMatchObject({ files: 1, verified: 0 });
    expect(report.copied[0]).toMatchObject({ verified: false, sha256: sha256(Buffer.from('2')) });
  });

  it('keeps what is a hole as a hole', async () => {
    const MiB = 1 << 20;
    const size = 40 * MiB + 5;
    const content = {
      size,
      holes: [
        { offset: 0, length: 10 * MiB },
        { offset: 11 * MiB, length: 20 * MiB },
        { offset: 32 * MiB, length: 8 * MiB + 5 },
      ],
      bytes: (offset: number, length: number) => new Uint8Array(length).fill(1 + (Math.floor(offset / MiB) % 250)),
    };
    const allHole = { size, holes: [{ offset: 0, length: size }], bytes: () => new Uint8Array(0) };
    const { report, progress } = await copyTree(
      directory({ d: directory({ mixed: file(content), nothing: file(allHole) }) }),
      '/d',
      { destination },
    );
    expect(report.problems).toEqual([]);
    const expected = Buffer.alloc(size);
    expected.fill(11, 10 * MiB, 11 * MiB);
    expected.fill(32, 31 * MiB, 32 * MiB);
    const mixed = join(destination, 'd/mixed');
    expect(readFileSync(mixed).equals(expected)).toBe(true);
    expect(statSync(mixed).blocks * 512).toBeLessThanOrEqual(2 * MiB + 65_536);
    expect(statSync(join(destination, 'd/nothing'))).toMatchObject({ size, blocks: 0 });
    expect(report.copied.map((copied) => copied.sha256)).toEqual([sha256(expected), sha256(Buffer.alloc(size))]);
    expect(progress.bytesDone).toBe(2 * size);
  });
});

describe('attributes', () => {
  it.runIf(root)("are the guest's: owner, mode, times", async () => {
    const { report } = await copyTree(
      directory({
        d: directory(
          {
            f: file('x', {
              mode: 0o4751,
              uid: 1234,
              gid: 5678,
              modified: at(1_600_000_000, 123_456_789),
              accessed: at(1_500_000_000, 999_999_999),
            }),
            'read-only': directory(
              { inside: file('y', { mode: 0o000, uid: 0, gid: 0 }) },
              { mode: 0o555, uid: 7, gid: 8, modified: at(1000) },
            ),
            l: symlink('f', { uid: 11, gid: 12, modified: at(1_400_000_000, 5000), accessed: at(1_300_000_000) }),
          },
          { mode: 0o1770, uid: 42, gid: 43, modified: at(1_200_000_000, 1_000_000) },
        ),
      }),
      '/d',
      { destination },
    );
    expect(report.problems).toEqual([]);
    expect(report.notes).toEqual([]);
    const stat = (path: string) => lstatSync(join(destination, path), { bigint: true });
    expect(stat('d/f')).toMatchObject({
      mode: 0o104751n,
      uid: 1234n,
      gid: 5678n,
      // Node sets times to the microsecond; not one less.
      mtimeNs: 1_600_000_000_123_456_000n,
      atimeNs: 1_500_000_000_999_999_000n,
    });
    expect(stat('d')).toMatchObject({ mode: 0o41770n, uid: 42n, gid: 43n, mtimeNs: 1_200_000_000_001_000_000n });
    expect(stat('d/read-only')).toMatchObject({ mode: 0o40555n, uid: 7n, gid: 8n, mtimeNs: 1_000_000_000_000n });
    expect(stat('d/read-only/inside')).toMatchObject({ mode: 0o100000n, uid: 0n });
    expect(stat('d/l')).toMatchObject({
      uid: 11n,
      gid: 12n,
      mtimeNs: 1_400_000_000_000_005_000n,
      atimeNs: 1_300_000_000_000_000_000n,
    });
  });

  it('times before 1970 and without any are kept too', async () => {
    await copyTree(
      directory({
        d: directory({
          old: file('x', { modified: at(-1, 250_000_000), accessed: at(-100) }),
          older: file('x', { modified: at(-2_000_000_000, 1000) }),
          epoch: file('x', {}),
        }),
      }),
      '/d',
      { destination },
    );
    const mtime = (name: string) => lstatSync(join(destination, 'd', name), { bigint: true }).mtimeNs;
    expect(mtime('old')).toBe(-750_000_000n);
    expect(lstatSync(join(destination, 'd/old'), { bigint: true }).atimeNs).toBe(-100_000_000_000n);
    expect(mtime('older')).toBe(-1_999_999_999_999_999_000n);
    expect(mtime('epoch')).toBe(0n);
  });

  it('any time comes out to the microsecond', async () => {
    const random = randomFrom(77);
    const stamps = Array.from({ length: 200 }, () =>
      at(Math.floor((random() - 0.4) * 4_000_000_000), Math.floor(random() * 1_000_000_000)),
    );
    await copyTree(
      directory({
        d: directory(stamps.map((modified, i): [string, ReturnType<typeof file>] => [`f${i}`, file('', { modified })])),
      }),
      '/d',
      { destination },
    );
    for (const [i, { seconds, nanoseconds }] of stamps.entries()) {
      const expected = BigInt(seconds) * 1_000_000_000n + BigInt(Math.floor(nanoseconds / 1000) * 1000);
      expect(lstatSync(join(destination, `d/f${i}`), { bigint: true }).mtimeNs).toBe(expected);
    }
    expect(utime(undefined)).toBe(0);
  });

  it.runIf(root)('an owner that means "leave it" is not taken for one', async () => {
    const { report } = await copyTree(directory({ f: file('x', { mode: 0o6755, uid: 0xffff_ffff, gid: 0 }) }), '/f', {
      destination,
    });
    expect(lstatSync(join(destination, 'f')).mode & 0o7777).toBe(0o755);
    expect(report.notes).toHaveLength(1);
  });

  it('without privileges: no owner, no set-id bits, and it says so once', async () => {
    const getuid = vi.spyOn(process, 'getuid').mockReturnValue(1000);
    try {
      const { report } = await copyTree(
        directory({
          d: directory({
            a: file('x', { mode: 0o6755, uid: 0, gid: 0 }),
            b: file('y', { mode: 0o1644, uid: 5, gid: 5 }),
          }),
        }),
        '/d',
        { destination },
      );
      expect(lstatSync(join(destination, 'd/a')).mode & 0o7777).toBe(0o755);
      expect(lstatSync(join(destination, 'd/b')).mode & 0o7777).toBe(0o1644);
      expect(lstatSync(join(destination, 'd/b')).uid).toBe(process.geteuid!());
      expect(report.notes).toEqual([{ path: '/', note: 'Owners are not carried over: only root may give files away' }]);
      expect(report.files).toBe(2);
    } finally {
      getuid.mockRestore();
    }
  });

  it.runIf(root)('a file system that takes no owners (FAT, a network mount) still gets the files', async () => {
    // Without the right to give files away, chown fails as it does there: EPERM.
    mkdirSync(join(destination, 'open'), { mode: 0o777 });
    const to = join(destination, 'open');
    for (const path of [scratch.path, destination, to]) chmodSync(path, 0o777);
    process.seteuid!(65534);
    try {
      const { report } = await copyTree(
        directory({
          d: directory({ f: file('x', { mode: 0o4755, uid: 0, gid: 0 }) }, { uid: 0, gid: 0, mode: 0o755 }),
        }),
        '/d',
        { destination: to },
      );
      expect(report.problems).toEqual([]);
      expect(report).toMatchObject({ files: 1, verified: 1 });
      expect(report.notes).toEqual([{ path: '/', note: expect.stringMatching(/^Some owners are not carried over/) }]);
    } finally {
      process.seteuid!(0);
    }
    expect(contentsOf(to)).toEqual(['d/', 'd/f=x'].sort());
    expect(lstatSync(join(to, 'd/f')).mode & 0o7777).toBe(0o755);
  });

  it('modeToSet keeps set-id bits with their owner only', () => {
    const stat = { kind: 'file', id: 1, size: 0, allocated: 0, links: 1, flags: [] } as const;
    expect(modeToSet(stat, true)).toBeUndefined();
    expect(modeToSet({ ...stat, mode: 0o7777 }, true)).toBe(0o7777);
    expect(modeToSet({ ...stat, mode: 0o7777 }, false)).toBe(0o1777);
  });
});

describe('symbolic links', () => {
  it('are made as they are, and lead nothing astray', async () => {
    const victim = join(scratch.path, 'victim');
    writeFileSync(victim, 'mine');
    const targets = {
      relative: 'f',
      absolute: '/etc/passwd',
      out: '../../../../../../etc/passwd',
      dangling: 'nowhere at all',
      victim,
      long: 'x/'.repeat(500),
    };
    const { report } = await copyTree(
      directory({
        d: directory({
          ...Object.fromEntries(
            Object.entries(targets).map(([name, target]) => [name, symlink(target, { uid: 0, gid: 0 })]),
          ),
          f: file('f'),
        }),
      }),
      '/d',
      { destination },
    );
    expect(report).toMatchObject({ links: 6, files: 1, problems: [] });
    for (const [name, target] of Object.entries(targets)) {
      expect(readlinkSync(join(destination, 'd', name))).toBe(target);
    }
    expect(readFileSync(victim, 'utf8')).toBe('mine');
    expect(report.copied.find((copied) => copied.path === '/sda1/d/out')).toMatchObject({ kind: 'symlink', bytes: 0 });
  });

  it('keep a target that is no Unicode', async () => {
    const target = Buffer.from('caf\xe9/\xff\\x80', 'latin1');
    await copyTree(directory({ l: symlink(nameFromBytes(target)) }), '/l', { destination });
    expect(readlinkSync(join(destination, 'l'), { encoding: 'buffer' })).toEqual(target);
  });

  it('that no host can have are problems of their own', async () => {
    const { report } = await copyTree(
      directory({
        d: directory({ nul: symlink('a\0b'), empty: symlink(''), 'too long': symlink('x'.repeat(5000)), f: file('f') }),
      }),
      '/d',
      { destination },
    );
    expect(problemsOf(report)).toEqual([
      ['/sda1/d/nul', 'io'],
      ['/sda1/d/empty', 'io'],
      ['/sda1/d/too long', 'io'],
    ]);
    expect(contentsOf(destination)).toEqual(['d/', 'd/f=f'].sort());
  });
});

describe('hard links and special files', () => {
  it('hard links are links again', async () => {
    const shared = file('shared content', { mode: 0o640 });
    for (const overwrite of ['refuse', 'replace', 'rename', 'skip'] as const) {
      const to = mkdtempSync(join(scratch.path, 'links-'));
      const { report, progress } = await copyTree(
        directory({
          d: directory({ a: shared, b: shared, sub: directory({ c: shared }), other: file('shared content') }),
        }),
        '/d',
        { destination: to, overwrite },
      );
      const inode = (name: string) => statSync(join(to, 'd', name)).ino;
      expect(inode('a')).toBe(inode('b'));
      expect(inode('a')).toBe(inode('sub/c'));
      expect(inode('a')).not.toBe(inode('other'));
      expect(report).toMatchObject({ files: 4, verified: 4, bytes: 28, problems: [] });
      expect(new Set(report.copied.map((copied) => copied.sha256)).size).toBe(1);
      expect(progress.bytesDone).toBe(14 * 4);
      expect(progress.bytesTotal).toBe(14 * 4);
    }
  });

  it('special files are left out, and noted', async () => {
    const { report, progress } = await copyTree(
      directory({
        d: directory({
          fifo: special('fifo'),
          socket: special('socket'),
          disk: special('block-device', { device: { major: 8, minor: 0 } }),
          null: special('character-device'),
          what: special('unknown'),
          f: file('f'),
        }),
      }),
      '/d',
      { destination },
    );
    expect(contentsOf(destination)).toEqual(['d/', 'd/f=f'].sort());
    expect(report.skipped).toBe(5);
    expect(report.notes.map(({ path }) => path)).toEqual(
      ['fifo', 'socket', 'disk', 'null', 'what'].map((name) => `/sda1/d/${name}`),
    );
    expect(report.notes[2]!.note).toContain('block device');
    expect(report.problems).toEqual([]);
    expect(progress.itemsDone).toBe(progress.itemsTotal);
  });
});

describe('paths inside a VM', () => {
  it('are split and joined', () => {
    expect(splitVmPath('/sda1')).toEqual({ volume: 'sda1', inside: '/' });
    expect(splitVmPath('//sda1/')).toEqual({ volume: 'sda1', inside: '/' });
    expect(splitVmPath('/sda1/a/b')).toEqual({ volume: 'sda1', inside: '/a/b' });
    expect(splitVmPath('/sda1/line\nfeed\u2028x')).toEqual({ volume: 'sda1', inside: '/line\nfeed\u2028x' });
    for (const path of ['', '/', '///', 'sda1/x']) expect(() => splitVmPath(path)).toThrow(/names no volume/);
    expect(joinVmPath('/sda1', 'a')).toBe('/sda1/a');
    expect(joinVmPath('/', 'sda1')).toBe('/sda1');
  });
});

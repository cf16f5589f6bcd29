/** What the ext tests put into a mounted volume, so that every way an inode can be stored is there. */
import {
  chmodSync,
  chownSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { run } from './peers.ts';

/** Bytes that can be computed from their offset: no two blocks are alike. */
export function pattern(length: number, salt = 0): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >>> 8) * 7 + (i >>> 16) * 13 + salt) & 0xff;
  return bytes;
}

function sparse(path: string, size: number, pieces: readonly (readonly [number, number])[]): void {
  const fd = openSync(path, 'w');
  try {
    for (const [at, length] of pieces) writeSync(fd, pattern(length, at), 0, length, at);
    ftruncateSync(fd, size);
  } finally {
    closeSync(fd);
  }
}

export interface FillOptions {
  /** Attribute values too large for a block (ea_inode). */
  readonly largeAttributes?: boolean;
  readonly extents?: boolean;
  /** Files in the folder `many`, enough for a hash tree with small blocks. */
  readonly many?: number;
  /** Times that only inodes with extra fields can hold. */
  readonly bigInodes?: boolean;
}

/** Fills the file system mounted at `root`. */
export function fillVolume(root: string, options: FillOptions = {}): void {
  const at = (...parts: string[]): string => join(root, ...parts);
  for (const name of [
    'sizes',
    'names',
    'links',
    'times',
    'owners',
    'sparse',
    'attributes',
    'devices',
    'many',
    'gaps',
  ]) {
    mkdirSync(at(name));
  }
  for (const size of [
    0, 1, 59, 60, 61, 100, 128, 156, 157, 200, 1023, 1024, 1025, 4095, 4096, 4097, 12288, 12289, 70_000, 300_000,
  ]) {
    writeFileSync(at('sizes', `${size}`), pattern(size, size));
  }
  writeFileSync(at('sizes', 'five-megabytes'), pattern(5 << 20));

  const names = [
    'plain',
    'with space',
    'äöü-日本語-🎉',
    'back\\slash',
    'systemd\\x2dname',
    '\\xff',
    'line\nfeed',
    '...',
    '-dash',
    'x'.repeat(255),
  ];
  for (const name of names) writeFileSync(at('names', name), name);
  for (const bytes of [[0xff, 0xfe], [0x61, 0x80, 0x62], [0xc3], [0xed, 0xa0, 0x80], [0x5c, 0x78, 0x66, 0x66, 0xff]]) {
    writeFileSync(Buffer.concat([Buffer.from(`${at('names')}/`), Buffer.from(bytes)]), Buffer.from(bytes));
  }

  writeFileSync(at('links', 'target'), 'target');
  linkSync(at('links', 'target'), at('links', 'hard'));
  linkSync(at('links', 'target'), at('links', 'hard2'));
  symlinkSync('target', at('links', 'fast'));
  symlinkSync('../names', at('links', 'folder'));
  symlinkSync('/sizes/100', at('links', 'absolute'));
  symlinkSync('loop', at('links', 'loop'));
  symlinkSync('nowhere', at('links', 'dangling'));
  for (const length of [58, 59, 60, 61, 155, 160, 900])
    symlinkSync('l'.repeat(length), at('links', `length-${length}`));
  symlinkSync(Buffer.from([0x61, 0xff, 0x2f, 0x62]), at('links', 'not-utf8'));

  const times = [
    '1950-01-02 03:04:05.123456789',
    '1969-12-31 23:59:59.5',
    '1970-01-01',
    '2024-02-29 12:00:00.000000001',
    '2037-12-31',
  ];
  if (options.bigInodes !== false)
    times.push('2038-01-19 03:14:08.9', '2106-02-07 06:28:16', '2200-06-15 00:00:00.25', '2446-05-10 22:38:55');
  times.forEach((time, i) => {
    writeFileSync(at('times', `${i}`), time);
    run('touch', ['-m', '-d', `${time} UTC`, at('times', `${i}`)]);
    run('touch', ['-a', '-d', `${times[times.length - 1 - i]} UTC`, at('times', `${i}`)]);
  });

  [0o4755, 0o2711, 0o1777, 0o000, 0o640].forEach((mode, i) => {
    writeFileSync(at('owners', mode.toString(8)), '');
    chownSync(
      at('owners', mode.toString(8)),
      [0, 1000, 65_534, 70_000, 4_000_000_000][i]!,
      [0, 33, 65_535, 80_000, 3_000_000_000][i]!,
    );
    chmodSync(at('owners', mode.toString(8)), mode);
  });
  symlinkSync('640', at('owners', 'link'));
  lchownSync(at('owners', 'link'), 1234, 5678);

  sparse(at('sparse', 'hole-then-data'), 1 << 20, [[1 << 19, 5000]]);
  sparse(at('sparse', 'only-a-hole'), 12_345_678, []);
  // With 1 KiB blocks the third level of the map begins at 64 MiB, with 4 KiB blocks at 4 GiB.
  sparse(at('sparse', 'all-levels'), 80 << 20, [
    [0, 3000],
    [100_000, 3000],
    [20 << 20, 3000],
    [75 << 20, 3000],
  ]);
  sparse(at('sparse', 'huge'), 6 * 2 ** 30, [
    [0, 1],
    [2 ** 31 - 3, 6],
    [5 * 2 ** 30, 10_000],
  ]);
  sparse(
    at('sparse', 'comb'),
    4 << 20,
    Array.from({ length: 512 }, (_, i) => [i * 8192, 100] as const),
  );
  if (options.extents !== false) {
    run('fallocate', ['-l', '500000', at('sparse', 'unwritten')]);
    run('fallocate', ['-l', '500000', at('sparse', 'half-written')]);
    const fd = openSync(at('sparse', 'half-written'), 'r+');
    writeSync(fd, pattern(100_000, 5), 0, 100_000, 131_072);
    closeSync(fd);
  }

  const attribute = (name: string, value: string, path: string): string =>
    run('setfattr', ['-h', '-n', name, '-v', value, path]);
  writeFileSync(at('attributes', 'small'), 'small');
  attribute('user.comment', 'in the inode', at('attributes', 'small'));
  attribute('user.empty', '', at('attributes', 'small'));
  writeFileSync(at('attributes', 'block'), 'block');
  for (let i = 0; i < 6; i++) attribute(`user.number${i}`, `${i}`.repeat(100), at('attributes', 'block'));
  attribute('security.chainlift', 'security', at('attributes', 'block'));
  attribute('trusted.overlay', 'y', at('attributes', 'block'));
  attribute('trusted.link', 'on a link', at('links', 'fast'));
  for (const name of ['same1', 'same2']) {
    writeFileSync(at('attributes', name), name);
    attribute('user.shared', 's'.repeat(400), at('attributes', name));
  }
  mkdirSync(at('attributes', 'folder'));
  attribute('user.folder', 'yes', at('attributes', 'folder'));
  run('setfacl', ['-m', 'u:1000:rwx,g:33:r-x,o::r', at('attributes', 'small')]);
  run('setfacl', ['-d', '-m', 'u:1000:rwx,g:33:r-x', at('attributes', 'folder')]);
  if (options.largeAttributes === true) {
    writeFileSync(at('attributes', 'large'), 'large');
    for (const length of [5000, 60_000]) {
      const value = `0x${pattern(length, 3).toString('hex')}`;
      attribute(`user.large${length}`, value, at('attributes', 'large'));
    }
  }

  run('mknod', [at('devices', 'null'), 'c', '1', '3']);
  run('mknod', [at('devices', 'sda'), 'b', '8', '0']);
  run('mknod', [at('devices', 'nvme'), 'b', '259', '70000']);
  run('mkfifo', [at('devices', 'fifo')]);

  for (let i = 0; i < (options.many ?? 300); i++) writeFileSync(at('many', `file number ${i}`), `${i}`);
  for (let i = 0; i < 120; i++) writeFileSync(at('gaps', `entry-${i}-${'n'.repeat(i)}`), '');
  for (let i = 0; i < 120; i += 3) rmSync(at('gaps', `entry-${i}-${'n'.repeat(i)}`));
  mkdirSync(at(...Array.from({ length: 30 }, (_, i) => `deep${i}`)), { recursive: true });
  run('chattr', ['+d', at('sizes', '1')]);
}

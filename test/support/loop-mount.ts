/** Kernel mounts of image files through loop devices, always undone: the truth that file system readers are compared with. */
import { createHash } from 'node:crypto';
import { closeSync, lstatSync, mkdtempSync, openSync, readdirSync, readlinkSync, readSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EntryKind, Timestamp } from '../../main/engine/filesystem/file-system.ts';
import { nameFromBytes } from '../../main/engine/filesystem/names.ts';
import type { ExpectedEntry } from '../conformance/file-system.ts';
import { run } from './peers.ts';

/** Mounts `image` while `body` runs and gives it the mount point. The loop device and the mount are released in any case. */
export function withMount<T>(image: string, options: readonly string[], body: (at: string) => T): T {
  const readOnly = options.includes('ro');
  const device = run('losetup', ['--find', '--show', ...(readOnly ? ['--read-only'] : []), image]).trim();
  try {
    const at = mkdtempSync(join(tmpdir(), 'chainlift-mount-'));
    try {
      run('mount', ['-o', options.join(','), device, at]);
      try {
        return body(at);
      } finally {
        run('umount', [at]);
      }
    } finally {
      rmdirSync(at);
    }
  } finally {
    run('losetup', ['--detach', device]);
  }
}

function kindOf(stat: {
  isFile(): boolean;
  isDirectory(): boolean;
  isSymbolicLink(): boolean;
  isFIFO(): boolean;
  isSocket(): boolean;
  isBlockDevice(): boolean;
}): EntryKind {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'directory';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isFIFO()) return 'fifo';
  if (stat.isSocket()) return 'socket';
  return stat.isBlockDevice() ? 'block-device' : 'character-device';
}

function timestamp(ns: bigint): Timestamp {
  const nanoseconds = ((ns % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return { seconds: Number((ns - nanoseconds) / 1_000_000_000n), nanoseconds: Number(nanoseconds) };
}

/** Extended attributes of everything below `root`, by path (Latin-1, as getfattr writes it), values in hex. */
function attributesBelow(root: string): Map<string, Record<string, string>> {
  const text = Buffer.from(run('getfattr', ['-R', '-P', '-h', '-d', '-m', '-', '-e', 'hex', '--absolute-names', root]));
  const result = new Map<string, Record<string, string>>();
  let current: Record<string, string> = {};
  for (const line of text.toString('utf8').split('\n')) {
    if (line.startsWith('# file: ')) {
      current = {};
      // getfattr escapes backslashes, newlines and what is not printable as \ooo.
      const raw = line.slice(8).replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
      result.set(raw, current);
    } else {
      const equals = line.indexOf('=0x');
      if (equals > 0) current[line.slice(0, equals)] = line.slice(equals + 3);
      else if (line !== '') current[line.replace(/=$/, '')] = '';
    }
  }
  return result;
}

export interface TruthOptions {
  /** statx(2) gives a birth time that is the file system's own. */
  readonly created?: boolean;
  readonly attributes?: boolean;
  /** Files above this size are not hashed. Default 128 MiB. */
  readonly hashLimit?: number;
}

/** What the kernel says of everything below `root`. */
export function kernelTruth(root: string, options: TruthOptions = {}): ExpectedEntry[] {
  const attributes = options.attributes === true ? attributesBelow(root) : undefined;
  const result: ExpectedEntry[] = [];
  const buffer = Buffer.allocUnsafe(1 << 20);
  const hashOf = (path: Buffer): string => {
    const hash = createHash('sha256');
    const fd = openSync(path, 'r');
    try {
      for (let n = readSync(fd, buffer); n > 0; n = readSync(fd, buffer)) hash.update(buffer.subarray(0, n));
    } finally {
      closeSync(fd);
    }
    return hash.digest('hex');
  };
  const visit = (folder: Buffer, shownFolder: string): void => {
    for (const name of readdirSync(folder, { encoding: 'buffer' })) {
      const path = Buffer.concat([folder, Buffer.from('/'), name]);
      const shown = `${shownFolder}/${nameFromBytes(name)}`;
      const stat = lstatSync(path, { bigint: true });
      const kind = kindOf(stat);
      const rdev = Number(stat.rdev);
      const own = attributes?.get(path.toString('latin1')) ?? attributes?.get(path.toString('utf8'));
      result.push({
        path: shown,
        kind,
        id: Number(stat.ino),
        size: Number(stat.size),
        allocated: Number(stat.blocks) * 512,
        mode: Number(stat.mode) & 0o7777,
        uid: Number(stat.uid),
        gid: Number(stat.gid),
        links: Number(stat.nlink),
        modified: timestamp(stat.mtimeNs),
        accessed: timestamp(stat.atimeNs),
        changed: timestamp(stat.ctimeNs),
        ...(options.created === true ? { created: timestamp(stat.birthtimeNs) } : {}),
        ...(kind === 'file' && stat.size <= BigInt(options.hashLimit ?? 128 << 20) ? { sha256: hashOf(path) } : {}),
        ...(kind === 'symlink' ? { linkTarget: nameFromBytes(readlinkSync(path, { encoding: 'buffer' })) } : {}),
        ...(kind === 'block-device' || kind === 'character-device'
          ? {
              device: {
                major: ((rdev >>> 8) & 0xfff) + Math.floor(rdev / 2 ** 44) * 0x1000,
                minor: (rdev & 0xff) | ((rdev >>> 12) & 0xfffff00),
              },
            }
          : {}),
        ...(attributes === undefined ? {} : { attributes: own ?? {} }),
      });
      if (kind === 'directory') visit(path, shown);
    }
  };
  visit(Buffer.from(root), '');
  return result;
}

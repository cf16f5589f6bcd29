/** What test/data/generate/ext.sh puts into the golden images, written down here by hand and not read with the code under test. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { extFileSystem } from '../../../main/engine/filesystem/ext/ext.ts';
import type { Entry, FileSystem } from '../../../main/engine/filesystem/file-system.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import type { ExpectedEntry } from '../../conformance/file-system.ts';

const folder = join(import.meta.dirname, '../../data/ext');
const unpacked = new Map<string, Buffer>();

export const goldenNames = [
  'ext2-1k',
  'ext3-4k',
  'ext4-1k',
  'ext4-inline',
  'ext4-two-groups',
  'ext4-casefold',
  'ext4-odd',
] as const;
export type GoldenName = (typeof goldenNames)[number];

/** A fresh copy of a golden image's bytes, to be changed at will. */
export function golden(name: GoldenName): Uint8Array {
  let bytes = unpacked.get(name);
  if (bytes === undefined) {
    bytes = gunzipSync(readFileSync(join(folder, `${name}.img.gz`)));
    unpacked.set(name, bytes);
  }
  return new Uint8Array(bytes);
}

export function openBytes(bytes: Uint8Array): Promise<FileSystem> {
  return extFileSystem.open(new MemorySource(bytes, 'golden'));
}

export async function listAll(fs: FileSystem, path: string): Promise<Entry[]> {
  const entries: Entry[] = [];
  for await (const batch of fs.list(await fs.entry(path))) entries.push(...batch);
  return entries;
}

const numbers = Array.from({ length: 2000 }, (_, i) => `${i + 1}\n`).join('');
const sparse = Buffer.alloc(100_000);
sparse.write('middle', 50_000);
sparse.write('end', 99_997);

const time = { seconds: 1_700_000_000, nanoseconds: 0 };

/** Everything in the golden tree. mke2fs -d keeps whole seconds. */
export function goldenTree(): ExpectedEntry[] {
  const owner = { uid: 1000, gid: 100, modified: time };
  const tree: ExpectedEntry[] = [];
  const folderAt = (path: string): void => void tree.push({ path, kind: 'directory', ...owner });
  const file = (path: string, content: string | Buffer, more: Partial<ExpectedEntry> = {}): void =>
    void tree.push({
      path,
      kind: 'file',
      ...owner,
      size: content.length,
      sha256: createHash('sha256').update(content).digest('hex'),
      ...more,
    });
  const link = (path: string, target: string): void =>
    void tree.push({ path, kind: 'symlink', ...owner, linkTarget: target, size: target.length });
  for (const path of ['/etc', '/srv', '/srv/www', '/many', '/empty', '/a', '/a/b']) folderAt(path);
  tree.push({ path: '/lost+found', kind: 'directory', uid: 0, gid: 0 });
  const hostname = { mode: 0o640, links: 2, attributes: { 'user.comment': Buffer.from('golden').toString('hex') } };
  file('/etc/hostname', 'web01\n', hostname);
  file('/etc/hostname-again', 'web01\n', hostname);
  file('/srv/www/numbers', numbers);
  file(`/srv/www/${'0'.repeat(255)}`, 'x');
  file('/srv/SLASHNAME', 'names');
  file('/srv/DOTNAME', 'names');
  file('/srv/sparse', sparse);
  link('/srv/link', '../etc/hostname');
  link('/srv/slow-link', '0'.repeat(100));
  link('/www', '/srv/www');
  link('/loop-a', 'loop-b');
  link('/loop-b', 'loop-a');
  file('/caf\\xe9', 'latin');
  file('/inline-100', '0123456789'.repeat(10), { mode: 0o4755 });
  for (let i = 0; i < 200; i++) file(`/many/file number ${i}`, '');
  return tree;
}

/** Position of a byte string in an image; it must be there once (or `nth` times before). */
export function positionOf(bytes: Uint8Array, text: string, nth = 0): number {
  let at = -1;
  for (let i = 0; i <= nth; i++)
    at = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf(text, at + 1, 'latin1');
  if (at < 0) throw new Error(`"${text}" is not in the image`);
  return at;
}

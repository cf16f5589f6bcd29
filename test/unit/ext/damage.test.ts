/** One broken byte, one expected error; then many broken bytes, and never anything but a typed error or data, in time. */
import { describe, expect, it } from 'vitest';
import { ChainliftError, CorruptError } from '../../../main/engine/errors.ts';
import { extFileSystem } from '../../../main/engine/filesystem/ext/ext.ts';
import type { FileSystem } from '../../../main/engine/filesystem/file-system.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { contentHash } from '../../conformance/file-system.ts';
import { randomFrom } from '../../support/random.ts';
import { type GoldenName, golden, goldenNames, listAll, openBytes, positionOf } from './golden.ts';

/** Byte position of an inode in a golden image with one-kibibyte blocks and a single group. */
function inodePosition(bytes: Uint8Array, number: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const table = view.getUint32(2048 + 8, true);
  return table * 1024 + (number - 1) * view.getUint16(1024 + 0x58, true);
}

/** ext2-1k has no checksums: what is broken there must be caught by looking at the values. */
describe('ext: one broken field of an inode', () => {
  const file = async (
    image: GoldenName,
    path: string,
    offset: number,
    value: readonly number[],
  ): Promise<FileSystem> => {
    const bytes = golden(image);
    const clean = await openBytes(bytes);
    const at = inodePosition(bytes, (await clean.entry(path)).id) + offset;
    bytes.set(value, at);
    return openBytes(bytes);
  };
  const numbers = '/srv/www/numbers';

  it.each([
    ['links_count 0', 0x1a, [0, 0], /inode \d+ is damaged/],
    ['no file type', 0x1, [0x31], /i_mode/],
    ['a block beyond the volume', 0x28, [0, 0, 0, 0x10], /block/],
    ['the boot block as a block', 0x28, [1, 0, 0, 0], /block/],
    ['more than a map can address', 0x6c, [0, 1, 0, 0], /i_size/],
    ['a size beyond 2^53', 0x6c, [0, 0, 0, 0xff], /i_size/],
  ] as const)('%s', async (_, offset, value, message) => {
    const fs = await file('ext2-1k', numbers, offset, value);
    const read = async (): Promise<unknown> => {
      const content = await fs.open(await fs.entry(numbers));
      return content.read(0, 1024);
    };
    await expect(read()).rejects.toThrow(message);
    await expect(read()).rejects.toBeInstanceOf(CorruptError);
  });

  it('an indirect block that points outside', async () => {
    const bytes = golden('ext2-1k');
    const clean = await openBytes(bytes);
    const at = inodePosition(bytes, (await clean.entry('/srv/sparse')).id) + 0x28 + 12 * 4;
    const view = new DataView(bytes.buffer);
    const indirect = view.getUint32(at, true);
    expect(indirect).toBeGreaterThan(0);
    for (let i = 0; i < 256; i++) view.setUint32(indirect * 1024 + i * 4, 0x7fffffff, true);
    const fs = await openBytes(bytes);
    const content = await fs.open(await fs.entry('/srv/sparse'));
    await expect(content.read(0, content.size)).rejects.toMatchObject({
      details: { structure: expect.stringMatching(/indirect/) },
    });
    expect((await content.read(0, 10)).every((byte) => byte === 0)).toBe(true);
  });

  it('a map that leads to the same block for ever', async () => {
    const bytes = golden('ext2-1k');
    const clean = await openBytes(bytes);
    const at = inodePosition(bytes, (await clean.entry('/srv/sparse')).id);
    const view = new DataView(bytes.buffer);
    const indirect = view.getUint32(at + 0x28 + 48, true);
    for (let i = 0; i < 256; i++) view.setUint32(indirect * 1024 + i * 4, indirect, true);
    // Single, double and triple indirect all lead to the block that names itself, and the file claims 16 GiB.
    for (const slot of [12, 13, 14]) view.setUint32(at + 0x28 + slot * 4, indirect, true);
    view.setUint32(at + 0x6c, 3, true);
    const fs = await openBytes(bytes);
    const content = await fs.open(await fs.entry('/srv/sparse'));
    await expect(content.runs(0, content.size)).rejects.toMatchObject({ kind: 'corrupt' });
  });

  it.each([
    ['i_checksum', 0x7c, [1, 2], /i_checksum/],
    ['a time', 0x10, [1, 2, 3, 4], /i_checksum/],
    ['the extent magic', 0x28, [0, 0], /i_checksum/],
    ['i_extra_isize', 0x80, [0xff, 0xff], /i_extra_isize/],
  ] as const)('with checksums: %s', async (_, offset, value, message) => {
    const fs = await file('ext4-1k', numbers, offset, value);
    const entry = await fs.entry(numbers);
    await expect(fs.stat(entry)).rejects.toThrow(message);
    expect((await listAll(fs, '/srv/www')).length).toBe(2);
  });
});

describe('ext: extents without checksums', () => {
  /** A golden image whose metadata_csum is taken away, so that fields are judged by themselves. */
  async function withoutChecksums(change: (view: DataView, root: number) => void): Promise<FileSystem> {
    const bytes = golden('ext4-1k');
    const view = new DataView(bytes.buffer);
    view.setUint32(1024 + 0x64, view.getUint32(1024 + 0x64, true) & ~0x400, true);
    const clean = await openBytes(bytes);
    change(view, inodePosition(bytes, (await clean.entry('/srv/sparse')).id) + 0x28);
    return openBytes(bytes);
  }
  it.each([
    ['depth 6', (v: DataView, r: number) => v.setUint16(r + 6, 6, true), /eh_depth/],
    ['magic', (v: DataView, r: number) => v.setUint16(r, 0, true), /eh_magic/],
    ['more entries than room', (v: DataView, r: number) => v.setUint16(r + 2, 5, true), /eh_entries/],
    ['room for more than fits', (v: DataView, r: number) => v.setUint16(r + 4, 5, true), /eh_max/],
    [
      'an empty index',
      (v: DataView, r: number) =>
        v.setUint32(r + 2, 0x0001_0004 * 0 + 0x0004_0000, true) ?? v.setUint16(r + 6, 1, true),
      /eh_entries/,
    ],
    ['length 0', (v: DataView, r: number) => v.setUint16(r + 12 + 4, 0, true), /ee_len/],
    ['beyond the volume', (v: DataView, r: number) => v.setUint32(r + 12 + 8, 0xfffffff0, true), /ee_start/],
    ['high bits beyond the volume', (v: DataView, r: number) => v.setUint16(r + 12 + 6, 0xffff, true), /ee_start/],
    ['overlapping the next', (v: DataView, r: number) => v.setUint16(r + 12 + 4, 1000, true), /ee_len/],
    ['out of order', (v: DataView, r: number) => v.setUint32(r + 24, 1, true), /ee_block/],
    [
      'an index that leads to no extent block',
      (v: DataView, r: number) => v.setUint16(r + 6, 1, true),
      /ei_leaf|eh_magic|ei_block/,
    ],
  ] as const)('%s', async (_, change, message) => {
    const fs = await withoutChecksums(change);
    const content = await fs.open(await fs.entry('/srv/sparse'));
    await expect(content.read(0, content.size)).rejects.toThrow(message);
    await expect(content.read(0, content.size)).rejects.toBeInstanceOf(CorruptError);
  });
  it('unwritten extents read as zeros', async () => {
    const fs = await withoutChecksums((v, r) => v.setUint16(r + 16, v.getUint16(r + 16, true) + 32768, true));
    const content = await fs.open(await fs.entry('/srv/sparse'));
    const bytes = Buffer.from(await content.read(0, content.size));
    expect(bytes.includes('middle')).toBe(false);
    expect(bytes.includes('end')).toBe(true);
  });
});

describe('ext: attributes', () => {
  it('refuses a value outside the inode', async () => {
    const bytes = golden('ext4-1k');
    const view = new DataView(bytes.buffer);
    view.setUint32(1024 + 0x64, view.getUint32(1024 + 0x64, true) & ~0x400, true);
    const name = positionOf(bytes, 'comment');
    view.setUint16(name - 16 + 2, 0xfff0, true);
    const fs = await openBytes(bytes);
    await expect(fs.extendedAttributes(await fs.entry('/etc/hostname'))).rejects.toMatchObject({
      details: { structure: expect.stringMatching(/e_value_size/) },
    });
    expect((await fs.stat(await fs.entry('/etc/hostname'))).size).toBe(6);
  });
});

/** Whole numbers below a bound, from a seed. */
function random(seed: number): (below: number) => number {
  const next = randomFrom(seed);
  return (below) => Math.floor(next() * below);
}

/** Reads all that an image gives, within bounds; anything that is thrown and is not of our families gets out. */
async function exercise(bytes: Uint8Array): Promise<'opened' | 'refused'> {
  const tolerated = async <T>(work: Promise<T>): Promise<T | undefined> =>
    work.catch((error: unknown) => {
      if (error instanceof ChainliftError) return undefined;
      throw error;
    });
  const fs = await tolerated(extFileSystem.open(new MemorySource(bytes, 'mutant')));
  if (fs === undefined) return 'refused';
  const seen = new Set<number>();
  let budget = 600;
  const visit = async (entry: Awaited<ReturnType<FileSystem['root']>>): Promise<void> => {
    if (seen.has(entry.id) || budget-- <= 0) return;
    seen.add(entry.id);
    const list = async (): Promise<void> => {
      for await (const batch of fs.list(entry)) {
        for (const child of batch) {
          expect(child.name).not.toMatch(/[/\0]/);
          expect(['', '.', '..']).not.toContain(child.name);
          const stat = await tolerated(fs.stat(child));
          if (stat === undefined) continue;
          await tolerated(fs.extendedAttributes(child));
          if (stat.kind === 'symlink') await tolerated(fs.readLink(child));
          if (stat.kind === 'directory') await visit(child);
          if (stat.kind === 'file') {
            const content = await tolerated(fs.open(child));
            if (content !== undefined) {
              await tolerated(content.read(0, Math.min(content.size, 200_000)));
              await tolerated(content.runs(0, content.size));
            }
          }
          if (budget-- <= 0) return;
        }
      }
    };
    await tolerated(list());
  };
  await visit(await fs.root());
  for (const path of ['/srv/www/numbers', '/many/file number 17', '/loop-a', '/a/b/none']) {
    await tolerated(fs.entry(path, { follow: true }));
  }
  return 'opened';
}

describe('ext: seeded mutations', () => {
  it.each(goldenNames)('%s: a typed error or data, in time', async (name) => {
    const original = golden(name);
    const next = random(0x5eed + name.length);
    // Where something is: mutating zeros far from any structure proves little.
    const used: number[] = [];
    for (let at = 0; at < original.length; at += 64) {
      if (original.subarray(at, at + 64).some((byte) => byte !== 0)) used.push(at);
    }
    let refused = 0;
    for (let round = 0; round < 80; round++) {
      const bytes = original.slice();
      // Half of the rounds take the checksums away, so that what stands behind them is reached.
      if (round % 2 === 0) bytes[1024 + 0x65] = bytes[1024 + 0x65]! & ~4;
      const changes = 1 + next(12);
      for (let i = 0; i < changes; i++) {
        const at = used[next(used.length)]! + next(64);
        bytes[at] = next(4) === 0 ? 0xff : next(256);
      }
      const start = performance.now();
      if ((await exercise(bytes)) === 'refused') refused++;
      expect(performance.now() - start, `round ${round}`).toBeLessThan(5000);
    }
    expect(refused).toBeLessThan(40);
  });
});

describe('ext: cut at every kind of place', () => {
  it.each([0, 1, 1023, 1024, 1500, 2047, 2048, 3000, 65_536, 131_073])('%d bytes', async (length) => {
    await exercise(golden('ext4-1k').subarray(0, length));
  });
});

it('hashes what the golden image holds the same through both ways of reading', async () => {
  const fs = await openBytes(golden('ext3-4k'));
  const content = await fs.open(await fs.entry('/srv/www/numbers'));
  expect(await contentHash(content, 1000)).toBe(await contentHash(content, 1 << 20));
});

/** Extent trees (https://docs.kernel.org/filesystems/ext4/ifork.html#extent-tree). */
import { Fields, hex32 } from '../../binary.ts';
import { crc32cUpdate } from '../../crc32c.ts';
import type { Io } from '../../storage/io.ts';
import { addRun, type BlockRun } from './block-map.ts';
import type { Inode } from './inode.ts';
import { extentMagic, extentMaxDepth, extentMaxLength, extentRecordSize, ino } from './layout.ts';
import type { MetadataCache } from './metadata-cache.ts';
import type { Superblock } from './superblock.ts';

/** First blocks are 32-bit numbers, so no extent begins at or after this. */
export const extentCapacity = 0x1_0000_0000;

/**
 * The runs of blocks `[first, first + count)` of an inode with extents. Unwritten extents are left out: they read as zeros.
 * @throws CorruptError for a tree that is too deep, out of order, or points outside the file system.
 */
export function* extentRuns(
  s: Superblock,
  cache: MetadataCache,
  inode: Inode,
  first: number,
  count: number,
): Io<BlockRun[]> {
  const runs: BlockRun[] = [];
  const end = first + count;
  const source = inode.fields.source;

  /**
   * One node, whose records must lie in the blocks `[low, high)` that its parent gave it. As those ranges never overlap, no
   * node can be met twice, and a hostile tree costs no more than an honest one of its size.
   */
  function* node(f: Fields, low: number, high: number, depth: number | undefined): Io<void> {
    const magic = f.u16(0);
    f.require(magic === extentMagic, 'eh_magic', 0, '0xf30a', `0x${magic.toString(16)}`);
    const entries = f.u16(2);
    const max = f.u16(4);
    const capacity = Math.floor(f.length / extentRecordSize) - 1;
    f.require(max > 0 && max <= capacity, 'eh_max', 4, `1..${capacity}`, max);
    f.require(entries <= max, 'eh_entries', 2, `at most ${max}`, entries);
    const own = f.u16(6);
    if (depth === undefined) f.require(own <= extentMaxDepth, 'eh_depth', 6, `at most ${extentMaxDepth}`, own);
    else f.require(own === depth, 'eh_depth', 6, depth, own);
    if (depth !== undefined && s.metadataChecksums) verifyTail(f, max, inode.seed);
    f.require(entries > 0 || own === 0, 'eh_entries', 2, 'at least 1 in an index', 0);

    const startOf = (i: number): number => f.u32(extentRecordSize * (i + 1));
    // The last record that begins at or before the range; records before it can't reach into it.
    let from = 0;
    for (let a = 0, b = entries - 1; a <= b; ) {
      const middle = (a + b) >> 1;
      if (startOf(middle) <= first) {
        from = middle;
        a = middle + 1;
      } else {
        b = middle - 1;
      }
    }
    for (let i = from; i < entries; i++) {
      const at = extentRecordSize * (i + 1);
      const start = f.u32(at);
      const next = i + 1 < entries ? startOf(i + 1) : high;
      f.require(start >= low && start < next, own === 0 ? 'ee_block' : 'ei_block', at, `${low}..${next - 1}`, start);
      if (start >= end) return;
      if (own === 0) leaf(f, at, start, next);
      else yield* index(f, at, start, next, own - 1);
    }
  }

  function leaf(f: Fields, at: number, start: number, next: number): void {
    const raw = f.u16(at + 4);
    const written = raw <= extentMaxLength;
    const length = written ? raw : raw - extentMaxLength;
    f.require(length > 0 && start + length <= next, 'ee_len', at + 4, `1..${next - start} blocks`, length);
    const physical = f.u16(at + 6) * 0x1_0000_0000 + f.u32(at + 8);
    f.require(
      physical > s.firstDataBlock && physical + length <= s.blocksCount,
      'ee_start',
      at + 6,
      `${length} blocks within ${s.blocksCount}`,
      `block ${physical}`,
    );
    if (!written) return;
    const from = Math.max(start, first);
    const to = Math.min(start + length, end);
    if (from < to) addRun(runs, from, physical + from - start, to - from);
  }

  function* index(f: Fields, at: number, start: number, next: number, depth: number): Io<void> {
    const block = f.u16(at + 8) * 0x1_0000_0000 + f.u32(at + 4);
    f.require(
      block > s.firstDataBlock && block < s.blocksCount,
      'ei_leaf',
      at + 4,
      `a block below ${s.blocksCount}`,
      block,
    );
    const position = block * s.blockSize;
    const bytes = yield* cache.read(position, s.blockSize);
    yield* node(new Fields(bytes, `ext extent block of inode ${inode.number}`, source, position), start, next, depth);
  }

  const root = new Fields(inode.block, `ext extent root of inode ${inode.number}`, source, inode.position + ino.block);
  yield* node(root, 0, extentCapacity, undefined);
  return runs;
}

/** struct ext4_extent_tail: the checksum of all before it, right after the room for eh_max records. */
function verifyTail(f: Fields, max: number, seed: number): void {
  const at = extentRecordSize * (max + 1);
  const stored = f.u32(at);
  const computed = crc32cUpdate(seed, f.bytes, 0, at);
  f.require(stored === computed, 'et_checksum', at, `0x${hex32(computed)}`, `0x${hex32(stored)}`);
}

/**
 * Where the blocks of an inode are: the shape of the answer, and the older of its two forms, the map of direct and indirect
 * blocks (https://docs.kernel.org/filesystems/ext4/ifork.html#direct-indirect-block-addressing).
 */
import { Fields } from '../../binary.ts';
import type { Io } from '../../storage/io.ts';
import type { Inode } from './inode.ts';
import { ino } from './layout.ts';
import type { MetadataCache } from './metadata-cache.ts';
import type { Superblock } from './superblock.ts';

/** `count` blocks of a file from `logical` lie at block `physical` of the volume. Blocks in no run are holes and read as zeros. */
export interface BlockRun {
  logical: number;
  physical: number;
  count: number;
}

/** Adds blocks to a list of runs, merging with the last where both follow on. */
export function addRun(runs: BlockRun[], logical: number, physical: number, count: number): void {
  const last = runs.at(-1);
  if (last !== undefined && last.logical + last.count === logical && last.physical + last.count === physical) {
    last.count += count;
  } else {
    runs.push({ logical, physical, count });
  }
}

const direct = 12;

/** Blocks that a block map can address. */
export function blockMapCapacity(blockSize: number): number {
  const n = blockSize / 4;
  return direct + n + n * n + n * n * n;
}

/**
 * The runs of blocks `[first, first + count)` of an inode with a block map.
 * @throws CorruptError for a block outside the file system, or a map with more blocks than the file system has.
 */
export function* blockMapRuns(
  s: Superblock,
  cache: MetadataCache,
  inode: Inode,
  first: number,
  count: number,
): Io<BlockRun[]> {
  const runs: BlockRun[] = [];
  const n = s.blockSize / 4;
  const end = first + count;
  let mapped = 0;

  const check = (f: Fields, at: number, level: number): number => {
    const block = f.u32(at);
    if (block === 0) return 0;
    f.require(
      block > s.firstDataBlock && block < s.blocksCount,
      level === 0 ? 'block' : 'indirect block',
      at,
      `a block below ${s.blocksCount}`,
      block,
    );
    return block;
  };

  /** One pointer of `level` (0: to data) that covers `span` blocks from `base`. */
  function* visit(f: Fields, at: number, level: number, base: number, span: number): Io<void> {
    const block = check(f, at, level);
    if (block === 0) return;
    if (level === 0) {
      // Different blocks of honest files never outnumber the volume's; a map that does sends its reader in circles.
      if (++mapped > s.blocksCount) {
        throw f.corrupt('block map', at, `at most ${s.blocksCount} blocks`, 'more blocks than the file system has');
      }
      addRun(runs, base, block, 1);
      return;
    }
    const position = block * s.blockSize;
    const bytes = yield* cache.read(position, s.blockSize);
    const below = new Fields(bytes, `ext indirect block of inode ${inode.number}`, f.source, position);
    const step = span / n;
    const from = Math.max(0, Math.floor((first - base) / step));
    const to = Math.min(n, Math.ceil((end - base) / step));
    if (level === 1) {
      // The innermost loop of every block-mapped read: no generator for each of its pointers.
      for (let i = from; i < to; i++) {
        const data = check(below, i * 4, 0);
        if (data === 0) continue;
        if (++mapped > s.blocksCount) {
          throw below.corrupt('block map', i * 4, `at most ${s.blocksCount} blocks`, 'more than the file system has');
        }
        addRun(runs, base + i, data, 1);
      }
      return;
    }
    for (let i = from; i < to; i++) yield* visit(below, i * 4, level - 1, base + i * step, step);
  }

  const root = new Fields(
    inode.block,
    `ext inode ${inode.number} i_block`,
    inode.fields.source,
    inode.position + ino.block,
  );
  for (let i = first; i < Math.min(end, direct); i++) yield* visit(root, i * 4, 0, i, 1);
  let base = direct;
  let span = n;
  for (let level = 1; level <= 3; level++) {
    if (first < base + span && end > base) yield* visit(root, (direct + level - 1) * 4, level, base, span);
    base += span;
    span *= n;
  }
  return runs;
}

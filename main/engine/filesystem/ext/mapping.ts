/** Block runs of any inode, whichever way it records them. */
import type { Io } from '../../storage/io.ts';
import { type BlockRun, blockMapCapacity, blockMapRuns } from './block-map.ts';
import { extentCapacity, extentRuns } from './extents.ts';
import { has, type Inode, type InodeTable } from './inode.ts';
import { ino, inodeFlag } from './layout.ts';

/** Checks that the size of an inode is one that its mapping can address. @throws CorruptError. */
export function checkMappable(table: InodeTable, inode: Inode): void {
  const { blockSize } = table.superblock;
  const capacity = has(inode, inodeFlag.extents) ? extentCapacity : blockMapCapacity(blockSize);
  inode.fields.require(
    Math.ceil(inode.size / blockSize) <= capacity,
    'i_size',
    ino.sizeLo,
    `at most ${capacity} blocks`,
    inode.size,
  );
}

/** The runs of blocks `[first, first + count)`, in order. What they leave out are holes and unwritten extents. */
export function mapBlocks(table: InodeTable, inode: Inode, first: number, count: number): Io<BlockRun[]> {
  const map = has(inode, inodeFlag.extents) ? extentRuns : blockMapRuns;
  return map(table.superblock, table.cache, inode, first, count);
}

/**
 * The block map of a VDI: one 32-bit block number for each block of the disk. Nothing of it is held: what a range needs is read
 * when it is asked for, in reads of at most 256 KiB, so opening costs the same whatever the size of the disk.
 */
import { Fields } from '../../binary.ts';
import type { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import type { RunList } from '../run-list.ts';
import { BLOCK_FREE, BLOCK_ZERO } from './layout.ts';

export interface BlockGeometry {
  readonly file: ByteSource;
  /** Bytes of the disk. */
  readonly diskSize: number;
  /** Bytes of the disk in a block; a power of two. */
  readonly blockSize: number;
  /** Bytes in front of each block's data in the file. */
  readonly blockExtra: number;
  /** Byte position of the map, which lies in the file as a whole. */
  readonly offBlocks: number;
  /** Byte position of block number 0. */
  readonly offData: number;
  /** A block that is marked free is the parent's, not zeros. */
  readonly differencing: boolean;
}

/** Entries read at a time. */
export const ENTRIES_AT_ONCE = 65_536;

export class BlockMap {
  readonly geometry: BlockGeometry;
  /** Entries that stand for a part of the disk; the map may be longer. */
  readonly entries: number;

  constructor(geometry: BlockGeometry) {
    this.geometry = geometry;
    this.entries = Math.ceil(geometry.diskSize / geometry.blockSize);
  }

  /** Byte position of the data of the block with this number. */
  position(number: number): number {
    const { offData, blockSize, blockExtra } = this.geometry;
    return offData + number * (blockSize + blockExtra) + blockExtra;
  }

  /** Bytes of the disk that entry `index` covers: less than a block at the disk's end. */
  length(index: number): number {
    const { diskSize, blockSize } = this.geometry;
    return Math.min(blockSize, diskSize - index * blockSize);
  }

  /** Whether the data of entry `index` can be the block with this number. */
  fits(index: number, number: number): boolean {
    return this.position(number) + this.length(index) <= this.geometry.file.size;
  }

  /** Entries `first` to `first + count`. */
  *read(first: number, count: number): Io<Fields> {
    const position = this.geometry.offBlocks + first * 4;
    const { file } = this.geometry;
    return new Fields(yield* readBytes(file, position, count * 4), 'VDI block map entry', file.name, position);
  }

  /** Adds to `out` what the map says of `[offset, offset + length)`. @throws CorruptError, IoError. */
  *runs(offset: number, length: number, out: RunList): Io<void> {
    if (length === 0) return;
    const { blockSize, differencing, file } = this.geometry;
    const end = offset + length;
    const last = Math.floor((end - 1) / blockSize);
    for (let first = Math.floor(offset / blockSize); first <= last; first += ENTRIES_AT_ONCE) {
      const count = Math.min(ENTRIES_AT_ONCE, last - first + 1);
      const entries = yield* this.read(first, count);
      for (let i = 0; i < count; i++) {
        const index = first + i;
        const start = Math.max(offset, index * blockSize);
        const stop = Math.min(end, (index + 1) * blockSize);
        const number = entries.u32(i * 4);
        if (number === BLOCK_ZERO || (number === BLOCK_FREE && !differencing)) out.zero(start, stop - start);
        else if (number === BLOCK_FREE) out.absent(start, stop - start);
        else if (!this.fits(index, number)) throw this.badEntry(entries, i, index);
        else out.data(start, stop - start, file, this.position(number) + (start - index * blockSize));
      }
    }
  }

  /** The error for entry `i` of `entries`, entry number `index` of the map, whose block is not in the file. */
  badEntry(entries: Fields, i: number, index: number): CorruptError {
    const { offData, blockSize, blockExtra, file } = this.geometry;
    const room = file.size - offData - blockExtra - this.length(index);
    const most = Math.floor(room / (blockSize + blockExtra));
    const expected = most < 0 ? 'no block, for the file holds none' : `a block number up to ${most}`;
    return entries.corrupt('', i * 4, expected, entries.u32(i * 4));
  }
}

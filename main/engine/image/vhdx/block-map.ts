/**
 * The block allocation table of a VHDX ([MS-VHDX] 2.5) and its sector bitmaps (2.4). The table has an entry for every payload block
 * of the disk, in chunks of as many blocks as one sector bitmap block (1 MiB, a bit for each of 2^23 sectors) describes; behind each
 * chunk stands the entry of its sector bitmap block. Nothing is held but a few pages: tables are read where they are asked for.
 *
 * What a block's state means where there is a parent, and where there is none:
 *
 *     state              differencing           fixed, dynamic
 *     NOT_PRESENT        ask the parent         zeros
 *     UNDEFINED          zeros                  zeros      (the specification allows any content; the parent's is not meant)
 *     ZERO               zeros                  zeros
 *     UNMAPPED           zeros                  zeros      (as UNDEFINED)
 *     FULLY_PRESENT      data                   data
 *     PARTIALLY_PRESENT  as the bitmap says     damaged
 */
import { Fields } from '../../binary.ts';
import { CorruptError } from '../../errors.ts';
import type { Io } from '../../storage/io.ts';
import type { LayerRun } from '../image.ts';
import { RunList } from '../run-list.ts';
import type { WalkBudget } from '../walk-budget.ts';
import * as layout from './layout.ts';
import { MIB, overlap } from './layout.ts';
import type { VhdxSource } from './overlay.ts';
import { Pages } from './pages.ts';

export interface BlockGeometry {
  readonly source: VhdxSource;
  /** Where the BAT is, and how much room it has. */
  readonly bat: { readonly position: number; readonly length: number };
  /** Stretches besides the header section that no block can be in. */
  readonly reserved: readonly { readonly position: number; readonly length: number }[];
  readonly blockSize: number;
  /** Bytes of a logical sector. */
  readonly sectorSize: number;
  readonly virtualSize: number;
  readonly hasParent: boolean;
}

/** A walk's step in blocks, and in bytes of a block that is partly there: 65,536 sectors at most in one list of runs. */
const WALK_BLOCKS = 65_536;
const WALK_BYTES = 32 * MIB;
/** Bytes of a sector bitmap looked at together: a piece of a larger block follows in the next round. */
const BITMAP_READ = 64 * 1024;

export class BlockMap {
  readonly geometry: BlockGeometry;
  /** Payload blocks per chunk. */
  readonly chunkRatio: number;
  /** Payload blocks of the disk. */
  readonly blocks: number;
  /** Entries that the BAT has to have, those of sector bitmap blocks among them. */
  readonly entries: number;
  readonly #pages: Pages;

  /** @throws CorruptError when the BAT has no room for the disk. */
  constructor(geometry: BlockGeometry) {
    const { blockSize, sectorSize, virtualSize, hasParent, bat, source } = geometry;
    this.geometry = geometry;
    this.chunkRatio = (layout.CHUNK_SECTORS * sectorSize) / blockSize;
    this.blocks = Math.ceil(virtualSize / blockSize);
    this.entries = hasParent
      ? Math.ceil(this.blocks / this.chunkRatio) * (this.chunkRatio + 1)
      : this.blocks + Math.floor((this.blocks - 1) / this.chunkRatio);
    this.#pages = new Pages(source);
    if (this.entries * layout.BAT_ENTRY_BYTES > bat.length) {
      throw new CorruptError('VHDX BAT', {
        source: source.name,
        position: bat.position,
        expected: `room for ${this.entries} entries, as the disk's ${virtualSize} bytes need`,
        found: `${bat.length} bytes`,
      });
    }
  }

  /** Index of the BAT entry of payload block `block`. */
  payloadIndex(block: number): number {
    return block + Math.floor(block / this.chunkRatio);
  }

  /** Bytes of the disk that `block` holds: less than a block at the disk's end. */
  blockLength(block: number): number {
    const { blockSize, virtualSize } = this.geometry;
    return Math.min(blockSize, virtualSize - block * blockSize);
  }

  /** Adds the runs of `[offset, offset + length)`, which lies in the disk, to `out`. @throws CorruptError, IoError. */
  *runs(offset: number, length: number, out: RunList): Io<void> {
    if (length === 0) return;
    const { blockSize } = this.geometry;
    const end = offset + length;
    const last = Math.floor((end - 1) / blockSize);
    for (let first = Math.floor(offset / blockSize); first <= last; ) {
      // Entries of one chunk stand side by side.
      const count = Math.min(last - first + 1, this.chunkRatio - (first % this.chunkRatio));
      const entries = yield* this.#entries(this.payloadIndex(first), count);
      for (let i = 0; i < count; i++) {
        const block = first + i;
        const start = Math.max(offset, block * blockSize);
        const stop = Math.min(end, (block + 1) * blockSize);
        yield* this.#answer(block, entries, i * layout.BAT_ENTRY_BYTES, start, stop, out);
      }
      first += count;
    }
  }

  /** Bytes that this layer holds itself of some blocks from number `first` on, and the first block behind them. */
  *allocatedFrom(first: number, budget: WalkBudget): Io<{ readonly bytes: number; readonly next: number }> {
    const inChunk = this.chunkRatio - (first % this.chunkRatio);
    const count = Math.min(WALK_BLOCKS, inChunk, this.blocks - first);
    const entries = yield* this.#entries(this.payloadIndex(first), count);
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      const at = i * layout.BAT_ENTRY_BYTES;
      const state = entries.u32(at) & layout.BAT_STATE_MASK;
      if (state <= layout.PAYLOAD_BLOCK_UNMAPPED) continue;
      const length = this.blockLength(first + i);
      if (state === layout.PAYLOAD_BLOCK_FULLY_PRESENT) {
        this.blockPosition(entries, at, length);
        bytes += length;
        continue;
      }
      const start = (first + i) * this.geometry.blockSize;
      for (let from = 0; from < length; from += WALK_BYTES) {
        const stop = start + Math.min(length, from + WALK_BYTES);
        const walk = this.#listed(first + i, entries, at, start + from, stop);
        for (const run of yield* budget.spend(walk, (runs) => runs.length))
          if (run.kind === 'data') bytes += run.length;
      }
    }
    return { bytes, next: first + count };
  }

  *#listed(block: number, entries: Fields, at: number, start: number, stop: number): Io<LayerRun[]> {
    const out = new RunList();
    yield* this.#answer(block, entries, at, start, stop, out);
    return out.finish();
  }

  *#entries(index: number, count: number): Io<Fields> {
    const position = this.geometry.bat.position + index * layout.BAT_ENTRY_BYTES;
    return this.entryFields(yield* this.#pages.read(position, count * layout.BAT_ENTRY_BYTES), position);
  }

  *#answer(block: number, entries: Fields, at: number, start: number, stop: number, out: RunList): Io<void> {
    const { source, blockSize, hasParent } = this.geometry;
    const state = entries.u32(at) & layout.BAT_STATE_MASK;
    switch (state) {
      case layout.PAYLOAD_BLOCK_NOT_PRESENT:
        if (hasParent) out.absent(start, stop - start);
        else out.zero(start, stop - start);
        return;
      case layout.PAYLOAD_BLOCK_UNDEFINED:
      case layout.PAYLOAD_BLOCK_ZERO:
      case layout.PAYLOAD_BLOCK_UNMAPPED:
        out.zero(start, stop - start);
        return;
      case layout.PAYLOAD_BLOCK_FULLY_PRESENT: {
        const position = this.blockPosition(entries, at, this.blockLength(block));
        out.data(start, stop - start, source, position + (start - block * blockSize));
        return;
      }
      case layout.PAYLOAD_BLOCK_PARTIALLY_PRESENT: {
        if (!hasParent) break;
        const position = this.blockPosition(entries, at, this.blockLength(block));
        yield* this.#answerPartly(block, position, start, stop, out);
        return;
      }
    }
    throw this.badState(entries, at);
  }

  /** Goes by the sector bitmap: a sector whose bit is set is here, the others are the parent's. */
  *#answerPartly(block: number, position: number, start: number, stop: number, out: RunList): Io<void> {
    const { source, blockSize, sectorSize } = this.geometry;
    const bitmap = yield* this.#bitmapPosition(Math.floor(block / this.chunkRatio));
    // Sectors are counted from the beginning of the chunk.
    const chunk = Math.floor(block / this.chunkRatio) * this.chunkRatio * blockSize;
    const last = Math.ceil((stop - chunk) / sectorSize);
    for (let from = Math.floor((start - chunk) / sectorSize); from < last; ) {
      const firstByte = Math.floor(from / 8);
      const to = Math.min(last, (firstByte + BITMAP_READ) * 8);
      const bits = yield* this.#pages.read(bitmap + firstByte, Math.ceil(to / 8) - firstByte);
      for (let sector = from; sector < to; ) {
        const present = bitAt(bits, sector - firstByte * 8);
        const next = firstByte * 8 + endOfBits(bits, sector - firstByte * 8, to - firstByte * 8, present);
        const runStart = Math.max(start, chunk + sector * sectorSize);
        const runEnd = Math.min(stop, chunk + next * sectorSize);
        if (present) out.data(runStart, runEnd - runStart, source, position + (runStart - block * blockSize));
        else out.absent(runStart, runEnd - runStart);
        sector = next;
      }
      from = to;
    }
  }

  *#bitmapPosition(chunk: number): Io<number> {
    const entry = yield* this.#entries(chunk * (this.chunkRatio + 1) + this.chunkRatio, 1);
    const state = entry.u32(0) & layout.BAT_STATE_MASK;
    if (state !== layout.SB_BLOCK_PRESENT) throw this.missingBitmap(entry, 0);
    return this.blockPosition(entry, 0, layout.SECTOR_BITMAP_BYTES);
  }

  /** The error for a chunk of partially present blocks whose sector bitmap entry, at `at` of `entries`, leads to none. */
  missingBitmap(entries: Fields, at: number): CorruptError {
    const state = entries.u32(at) & layout.BAT_STATE_MASK;
    return entries.corrupt('', at, 'a sector bitmap block, which the chunk has blocks for', `state ${state}`);
  }

  entryFields(bytes: Uint8Array, position: number): Fields {
    return new Fields(bytes, 'VHDX BAT entry', this.geometry.source.name, position);
  }

  /** Where the block of the entry at `at` is. @throws CorruptError when `length` bytes of one can't be there. */
  blockPosition(entries: Fields, at: number, length: number): number {
    const position = entryPosition(entries, at);
    if (this.#blockFits(position, length)) return position;
    throw entries.corrupt(
      '',
      at,
      `a block outside the tables and inside the file's ${this.geometry.source.size} bytes`,
      `${length} bytes at MiB ${position / MIB}`,
    );
  }

  #blockFits(position: number, length: number): boolean {
    return !this.inTables(position, length) && this.geometry.source.holds(position, length);
  }

  /** Whether the range has a byte in common with the header section, a region or the log. */
  inTables(position: number, length: number): boolean {
    const { reserved } = this.geometry;
    return (
      position < layout.HEADER_SECTION_BYTES ||
      reserved.some((region) => overlap(position, length, region.position, region.length))
    );
  }

  /** The error for an entry of a state that a block can't have, here or at all. */
  badState(entries: Fields, at: number): CorruptError {
    const state = entries.u32(at) & layout.BAT_STATE_MASK;
    const partly = state === layout.PAYLOAD_BLOCK_PARTIALLY_PRESENT;
    return entries.corrupt(
      '',
      at,
      partly ? 'a block that is whole, for the disk has no parent' : 'a state from 0 to 3, 6 or 7',
      `state ${state}`,
    );
  }
}

/** The byte position in the file that an entry records. At most 2^64: to be checked before use. */
export function entryPosition(entries: Fields, at: number): number {
  const low = entries.u32(at);
  return entries.u32(at + 4) * 0x1_0000_0000 + (low - (low % MIB));
}

function bitAt(bits: Uint8Array, index: number): boolean {
  return (bits[index >>> 3]! & (1 << (index & 7))) !== 0;
}

/** Index of the first bit from `from` on that is not `value`; `to` when there is none before it. */
function endOfBits(bits: Uint8Array, from: number, to: number, value: boolean): number {
  const whole = value ? 0xff : 0;
  let at = from;
  while (at < to) {
    if ((at & 7) === 0 && at + 8 <= to && bits[at >>> 3] === whole) at += 8;
    else if (bitAt(bits, at) === value) at++;
    else break;
  }
  return at;
}

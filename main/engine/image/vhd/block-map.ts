/**
 * The block allocation table and the sector bitmaps of dynamic and differencing disks (specification, "Block Allocation Table and
 * Data Blocks"): each entry is the sector of a block, which begins with a bitmap of its sectors.
 *
 * A sector whose bit is clear is the parent's in a differencing disk, and zeros in a dynamic one; whatever the file has in its
 * place is no content (QEMU and libvhdi show it for dynamic disks; the specification, tapdisk and VirtualBox do not). Both levels
 * are read as they are needed, so opening costs nothing whatever the size of the disk.
 */
import { Fields } from '../../binary.ts';
import type { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import type { Io } from '../../storage/io.ts';
import type { LayerRun } from '../image.ts';
import { RunList } from '../run-list.ts';
import { TableCache } from '../table-cache.ts';
import type { WalkBudget } from '../walk-budget.ts';
import { type Batmap, batmapBit } from './batmap.ts';
import { BLOCK_UNUSED, SECTOR } from './layout.ts';

/** A stretch of the file that no block may reach into. */
export interface Reserved {
  readonly what: string;
  readonly start: number;
  readonly end: number;
}

export interface BlockGeometry {
  readonly file: ByteSource;
  /** Of the disk, in bytes. */
  readonly size: number;
  readonly blockSize: number;
  readonly blocks: number;
  /** Byte position of the block allocation table. */
  readonly table: number;
  readonly bitmapBytes: number;
  /** First byte behind everything that blocks may take. */
  readonly dataEnd: number;
  /** Footer copy, header and table. */
  readonly reserved: readonly Reserved[];
  readonly differencing: boolean;
  /** Bits of a bitmap go from the lowest of each byte on (tapdisk 0.1), not from the highest. */
  readonly lowBitFirst: boolean;
  readonly batmap: Batmap | undefined;
}

/** Why a block can't be where its entry says. */
export interface BlockFault {
  readonly kind: 'out-of-file' | 'in-metadata';
  readonly expected: string;
  readonly found: string;
}

/** Bytes of the table, and of a bitmap, that are read and kept together. */
const PIECE = 4096;
/** Ceiling of the pieces that a layer keeps: a chain of 256 layers keeps 64 MiB at most. */
const CACHE_BYTES = 256 << 10;
/** Bytes of disk looked at together while counting: 65,536 sectors at most in one list of runs. */
export const WALK_BYTES = 32 << 20;

export class BlockMap {
  readonly geometry: BlockGeometry;
  readonly #cache: TableCache;

  /** The table must lie inside the file: `readTables` says so. */
  constructor(geometry: BlockGeometry) {
    this.geometry = geometry;
    this.#cache = new TableCache(geometry.file, CACHE_BYTES);
  }

  /** Memory held by the cache of tables, in bytes. */
  get cached(): number {
    return this.#cache.held;
  }

  /** Bytes of the disk that block number `block` covers: less than a block at the disk's end. */
  blockLength(block: number): number {
    const { blockSize, size } = this.geometry;
    return Math.min(blockSize, size - block * blockSize);
  }

  /** Table entries from `block` on, as many as are read together, at most `most`. */
  *entries(block: number, most: number): Io<Fields> {
    const { table, blocks, file } = this.geometry;
    const perPiece = PIECE / 4;
    const first = block - (block % perPiece);
    const count = Math.min(perPiece, blocks - first);
    const bytes = yield* this.#cache.get(table + first * 4, count * 4);
    const skip = block - first;
    const part = bytes.subarray(skip * 4, Math.min(count, skip + most) * 4);
    return tableFields(part, file.name, table + block * 4);
  }

  /** Adds the runs of `[offset, offset + length)`. @throws CorruptError when an entry leads out of the file, IoError. */
  *runs(offset: number, length: number, out: RunList): Io<void> {
    const { blockSize } = this.geometry;
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const first = Math.floor(at / blockSize);
      const entries = yield* this.entries(first, Math.ceil(end / blockSize) - first);
      for (let i = 0; i < entries.length / 4 && at < end; i++) {
        const stop = Math.min(end, (first + i + 1) * blockSize);
        const sector = entries.u32be(i * 4);
        if (sector === BLOCK_UNUSED) this.#nothing(at, stop, out);
        else yield* this.#block(first + i, entries, i, at, stop, out);
        at = stop;
      }
    }
  }

  /** What the disk has where this layer stores nothing. */
  #nothing(at: number, stop: number, out: RunList): void {
    if (this.geometry.differencing) out.absent(at, stop - at);
    else out.zero(at, stop - at);
  }

  /** Adds the runs of `[at, stop)`, which lies in block number `block`, allocated by entry `index` of `entries`. */
  *#block(block: number, entries: Fields, index: number, at: number, stop: number, out: RunList): Io<void> {
    const { bitmapBytes, blockSize, batmap, lowBitFirst } = this.geometry;
    const position = entries.u32be(index * 4) * SECTOR;
    const fault = this.blockFault(position, 0);
    if (fault !== undefined) throw badBlock(entries, index, block, fault);
    const base = block * blockSize;
    const map = batmap === undefined ? null : yield* batmap.map();
    if (map !== null && batmapBit(map, block)) {
      this.#data(block, entries, index, at, stop, out);
      return;
    }
    const lastSector = Math.ceil((stop - base) / SECTOR);
    for (let sector = Math.floor((at - base) / SECTOR); sector < lastSector; ) {
      const pieceStart = Math.floor(sector / 8 / PIECE) * PIECE;
      const piece = yield* this.#cache.get(position + pieceStart, Math.min(PIECE, bitmapBytes - pieceStart));
      const limit = Math.min(lastSector, (pieceStart + piece.length) * 8);
      while (sector < limit) {
        const set = bitOf(piece, sector - pieceStart * 8, lowBitFirst);
        const next = pieceStart * 8 + stretchEnd(piece, sector - pieceStart * 8, limit - pieceStart * 8, lowBitFirst);
        const from = Math.max(at, base + sector * SECTOR);
        const to = Math.min(stop, base + next * SECTOR);
        if (set) this.#data(block, entries, index, from, to, out);
        else this.#nothing(from, to, out);
        sector = next;
      }
    }
  }

  #data(block: number, entries: Fields, index: number, at: number, stop: number, out: RunList): void {
    const { bitmapBytes, blockSize, file, dataEnd } = this.geometry;
    const position = entries.u32be(index * 4) * SECTOR + bitmapBytes + (at - block * blockSize);
    if (position + (stop - at) > dataEnd) {
      const fault = { expected: `data within the first ${dataEnd} bytes`, found: `data up to ${position + stop - at}` };
      throw badBlock(entries, index, block, fault);
    }
    out.data(at, stop - at, file, position);
  }

  /** Why no block with `length` bytes of data can be at byte `position`; undefined when it can. */
  blockFault(position: number, length: number): BlockFault | undefined {
    const end = position + this.geometry.bitmapBytes + length;
    const { dataEnd, reserved } = this.geometry;
    return end > dataEnd
      ? {
          kind: 'out-of-file',
          expected: `a block within the first ${dataEnd} bytes`,
          found: `one from ${position} to ${end}`,
        }
      : inReserved(reserved, position, end);
  }

  /** Bytes that this layer holds itself in one piece of the table, from `block` on, and the first block behind it. */
  *allocatedFrom(block: number, budget: WalkBudget): Io<{ readonly bytes: number; readonly next: number }> {
    const entries = yield* this.entries(block, this.geometry.blocks);
    let bytes = 0;
    for (let i = 0; i < entries.length / 4; i++) {
      if (entries.u32be(i * 4) === BLOCK_UNUSED) continue;
      const start = (block + i) * this.geometry.blockSize;
      const length = this.blockLength(block + i);
      for (let at = 0; at < length; at += WALK_BYTES) {
        const walk = this.#listed(start + at, Math.min(WALK_BYTES, length - at));
        for (const run of yield* budget.spend(walk, (runs) => runs.length))
          if (run.kind === 'data') bytes += run.length;
      }
    }
    return { bytes, next: block + entries.length / 4 };
  }

  *#listed(offset: number, length: number): Io<LayerRun[]> {
    const out = new RunList();
    yield* this.runs(offset, length, out);
    return out.finish();
  }
}

/** The fault of a block from `position` to `end` that reaches into one of these places; undefined where it does not. */
export function inReserved(places: readonly Reserved[], position: number, end: number): BlockFault | undefined {
  const hit = places.find((place) => position < place.end && end > place.start);
  if (hit === undefined) return undefined;
  return {
    kind: 'in-metadata',
    expected: `a block that is not in ${hit.what}`,
    found: `one from ${position} to ${end}`,
  };
}

/** Entries of the table that begin at `position`, as fields. */
export function tableFields(bytes: Uint8Array, source: string, position: number): Fields {
  return new Fields(bytes, 'VHD block allocation table entry', source, position);
}

/** The error for entry `index` of `entries`, which leads to block number `block`. */
export function badBlock(
  entries: Fields,
  index: number,
  block: number,
  fault: { readonly expected: string; readonly found: string },
): CorruptError {
  return entries.corrupt(`of block ${block}`, index * 4, fault.expected, fault.found);
}

/** Bit number `bit` of a bitmap. */
export function bitOf(bytes: Uint8Array, bit: number, lowBitFirst: boolean): boolean {
  const byte = bytes[Math.floor(bit / 8)]!;
  return (byte & (lowBitFirst ? 1 << (bit % 8) : 0x80 >> (bit % 8))) !== 0;
}

/** The first bit from `bit` to `limit` that is not as bit number `bit` is; `limit` when all are. */
export function stretchEnd(bytes: Uint8Array, bit: number, limit: number, lowBitFirst: boolean): number {
  const set = bitOf(bytes, bit, lowBitFirst);
  const whole = set ? 0xff : 0;
  let at = bit + 1;
  while (at < limit) {
    if (at % 8 === 0) {
      while (at + 8 <= limit && bytes[at / 8] === whole) at += 8;
      if (at >= limit) break;
    }
    if (bitOf(bytes, at, lowBitFirst) !== set) return at;
    at++;
  }
  return limit;
}

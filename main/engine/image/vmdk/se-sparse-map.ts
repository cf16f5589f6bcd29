/**
 * The two-level map of an seSparse extent: a grain directory of numbers of grain tables, whose entries are numbers of grains. Tables
 * lie in one area of the file and grains in another. Nothing is held in memory: what a range needs is read when it is asked for.
 * There is no second copy; an entry that can't be true is an error.
 */
import { Fields } from '../../binary.ts';

import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import type { RunList } from '../run-list.ts';
import {
  DIRECTORY_ALLOCATED,
  GRAIN_ALLOCATED,
  GRAIN_UNALLOCATED,
  GRAIN_UNMAPPED,
  GRAIN_ZERO,
  grainNumber,
  grainType,
  isBareEntry,
  SE_ENTRY_BYTES,
} from './se-sparse-layout.ts';

export interface SeSparseGeometry {
  readonly file: ByteSource;
  /** Bytes of the disk that the extent covers. */
  readonly capacity: number;
  readonly grainBytes: number;
  readonly tableBytes: number;
  /** Byte positions of the directory, the tables and the grains. */
  readonly directory: number;
  readonly tables: number;
  readonly grains: number;
  /** How many tables and grains there is room for. */
  readonly tableRoom: number;
  readonly grainRoom: number;
}

/** Directory entries handled at a time: 32 KiB of them. */
const DIRECTORY_BATCH = 4096;
/** Neighbouring tables are read together up to this many bytes. */
const TABLE_READ = 1 << 20;
/** A walk's step is as many tables as this: 256 KiB of them. */
const WALK_TABLES = 8;

/** What a grain table entry says. */
export type SeGrain = 'absent' | 'zero' | number;

/** Entries `first` to `first + count` of directory entry `index`, whose table begins at `position`. */
interface Slice {
  readonly index: number;
  readonly position: number;
  readonly first: number;
  readonly count: number;
}

export class SeSparseMap {
  readonly geometry: SeSparseGeometry;
  readonly entriesPerTable: number;
  /** Bytes of the disk that one grain table covers. */
  readonly coverage: number;
  /** Entries of the directory that stand for something. */
  readonly directoryEntries: number;
  readonly step: number;

  constructor(geometry: SeSparseGeometry) {
    this.geometry = geometry;
    this.entriesPerTable = geometry.tableBytes / SE_ENTRY_BYTES;
    this.coverage = this.entriesPerTable * geometry.grainBytes;
    this.directoryEntries = Math.ceil(geometry.capacity / this.coverage);
    this.step = WALK_TABLES * this.coverage;
  }

  /** Entries of a table that stand for grains of the extent: the last table is often not used to its end. */
  entriesOf(index: number): number {
    const { capacity, grainBytes } = this.geometry;
    return Math.min(this.entriesPerTable, Math.ceil((capacity - index * this.coverage) / grainBytes));
  }

  /** Bytes of the disk that grain number `grain` of the disk covers: less than a grain at the extent's end. */
  grainLength(grain: number): number {
    const { capacity, grainBytes } = this.geometry;
    return Math.min(grainBytes, capacity - grain * grainBytes);
  }

  /** See `Extent.runs`. */
  *runs(offset: number, length: number, base: number, out: RunList): Io<void> {
    if (length === 0) return;
    const end = offset + length;
    const last = Math.floor((end - 1) / this.coverage);
    for (let first = Math.floor(offset / this.coverage); first <= last; first += DIRECTORY_BATCH) {
      const count = Math.min(DIRECTORY_BATCH, last - first + 1);
      const directory = yield* this.readDirectory(first, count);
      let pending: Slice[] = [];
      for (let i = 0; i < count; i++) {
        const index = first + i;
        const position = this.tablePosition(directory, i, index);
        const start = Math.max(offset, index * this.coverage);
        const stop = Math.min(end, (index + 1) * this.coverage);
        if (position === undefined) {
          yield* this.#answer(pending, offset, end, base, out);
          pending = [];
          out.absent(base + start, stop - start);
          continue;
        }
        const firstEntry = Math.floor((start - index * this.coverage) / this.geometry.grainBytes);
        const lastEntry = Math.floor((stop - 1 - index * this.coverage) / this.geometry.grainBytes);
        const slice = { index, position, first: firstEntry, count: lastEntry - firstEntry + 1 };
        if (pending.length > 0 && !continues(pending, slice)) {
          yield* this.#answer(pending, offset, end, base, out);
          pending = [];
        }
        pending.push(slice);
      }
      yield* this.#answer(pending, offset, end, base, out);
    }
  }

  /** Entries `first` to `first + count` of the directory. */
  *readDirectory(first: number, count: number): Io<Fields> {
    const { file, directory } = this.geometry;
    const at = directory + first * SE_ENTRY_BYTES;
    const bytes = yield* readBytes(file, at, count * SE_ENTRY_BYTES);
    return new Fields(bytes, 'seSparse grain directory entry', file.name, at);
  }

  /**
   * Byte position of the table that entry `i` of `directory` leads to, which is entry `index` of the whole; undefined where there is
   * none. @throws CorruptError.
   */
  tablePosition(directory: Fields, i: number, index: number): number | undefined {
    const at = i * SE_ENTRY_BYTES;
    const number = directory.u32(at);
    const high = directory.u32(at + 4);
    if (number === 0 && high === 0) return undefined;
    const { tables, tableBytes, tableRoom, file } = this.geometry;
    const position = tables + number * tableBytes;
    const fits = number < tableRoom && position + this.entriesOf(index) * SE_ENTRY_BYTES <= file.size;
    if (high === DIRECTORY_ALLOCATED && fits) return position;
    throw directory.corrupt(
      '',
      at,
      `0, or 0x1000000000000000 and the number of one of ${tableRoom} grain tables inside the file`,
      hex(directory, at),
    );
  }

  tableFields(bytes: Uint8Array, position: number): Fields {
    return new Fields(bytes, 'seSparse grain table entry', this.geometry.file.name, position);
  }

  /**
   * What the entry at byte `at` of `table` says of grain number `grain` of the disk: the byte position of its data, or that it is zero
   * or absent. @throws CorruptError.
   */
  grain(table: Fields, at: number, grain: number): SeGrain {
    const { grains, grainBytes, grainRoom, file } = this.geometry;
    switch (grainType(table, at)) {
      case GRAIN_UNALLOCATED:
        if (isBareEntry(table, at)) return 'absent';
        throw table.corrupt('', at, '0, an unallocated grain', hex(table, at));
      // What the guest has given back hides the parent's data as zeros do: QEMU reads it so. (dissect.hypervisor asks the parent,
      // which would show the guest what it had thrown away.)
      case GRAIN_UNMAPPED:
      case GRAIN_ZERO:
        return 'zero';
      case GRAIN_ALLOCATED: {
        const number = grainNumber(table, at);
        const position = grains + number * grainBytes;
        if (number < grainRoom && position + this.grainLength(grain) <= file.size) return position;
        throw table.corrupt('', at, `one of ${grainRoom} grains inside the file`, `grain ${number}`);
      }
      default:
        throw table.corrupt('', at, 'a type from 0 to 3', hex(table, at));
    }
  }

  /** Reads tables that follow each other in the file, and adds what their entries say of `[offset, end)`. */
  *#answer(slices: readonly Slice[], offset: number, end: number, base: number, out: RunList): Io<void> {
    const head = slices[0];
    const tail = slices.at(-1);
    if (head === undefined || tail === undefined) return;
    const { file, grainBytes } = this.geometry;
    const start = head.position + head.first * SE_ENTRY_BYTES;
    const stop = tail.position + (tail.first + tail.count) * SE_ENTRY_BYTES;
    const bytes = yield* readBytes(file, start, stop - start);
    for (const slice of slices) {
      const from = slice.position + slice.first * SE_ENTRY_BYTES;
      const part = bytes.subarray(from - start, from - start + slice.count * SE_ENTRY_BYTES);
      const table = this.tableFields(part, from);
      for (let i = 0; i < slice.count; i++) {
        const number = slice.index * this.entriesPerTable + slice.first + i;
        const runStart = Math.max(offset, number * grainBytes);
        const runStop = Math.min(end, (number + 1) * grainBytes);
        const grain = this.grain(table, i * SE_ENTRY_BYTES, number);
        if (grain === 'absent') out.absent(base + runStart, runStop - runStart);
        else if (grain === 'zero') out.zero(base + runStart, runStop - runStart);
        else out.data(base + runStart, runStop - runStart, file, grain + (runStart - number * grainBytes));
      }
    }
  }
}

function continues(slices: readonly Slice[], next: Slice): boolean {
  const head = slices[0]!;
  const tail = slices.at(-1)!;
  const start = head.position + head.first * SE_ENTRY_BYTES;
  const end = tail.position + (tail.first + tail.count) * SE_ENTRY_BYTES;
  const from = next.position + next.first * SE_ENTRY_BYTES;
  return from === end && from + next.count * SE_ENTRY_BYTES - start <= TABLE_READ;
}

function hex(fields: Fields, at: number): string {
  return `0x${fields.big64(at).toString(16)}`;
}

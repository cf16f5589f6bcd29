/**
 * The two-level map that hosted sparse (KDMV) and ESX Server sparse (COWD) extents share: a grain directory of sectors of grain
 * tables, whose entries are the sectors of grains. Nothing is held in memory: what a range needs is read when it is asked for,
 * neighbouring tables in one read, so opening costs nothing whatever the size of the disk.
 *
 * A hosted extent keeps both levels twice. The primary is used; where one of its directory entries can't be true (outside the file,
 * inside the header, or a table that is missing although the copy has it) the copy's entry is taken, and where one of its tables
 * can't be true `entry-block.ts` says which copy is believed. When neither can be true the answer is an error, never zeros. That
 * the copies agree is for `check` to say, since comparing costs reading both.
 *
 * Grains may be compressed; then a table leads to the marker that a grain begins with, and its run names the codec.
 */
import { Fields } from '../../binary.ts';
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import type { RunList } from '../run-list.ts';
import type { GrainCodec } from './compressed-grain.ts';
import {
  type EntryReader,
  type EntryRules,
  isDoubtful,
  type Settled,
  settleEntries,
  UNSETTLED,
} from './entry-block.ts';
import { GTE_EMPTY, GTE_ZEROED, SECTOR } from './layout.ts';

export interface GrainGeometry {
  /** `VMDK` or `COWD`: the first word of every structure's name. */
  readonly family: string;
  readonly file: ByteSource;
  /** Bytes of the disk that the extent covers. */
  readonly capacity: number;
  readonly grainBytes: number;
  readonly entriesPerTable: number;
  /** Byte position of the grain directory. */
  readonly directory: number;
  /** Byte position of the redundant grain directory, where there is one. */
  readonly redundantDirectory: number | undefined;
  /** Bytes at the front of the file (header, embedded descriptor) where no table and no grain can be. */
  readonly reserved: number;
  /** Whether entries of value 1 are zeroed grains. */
  readonly zeroedGrains: boolean;
  /** How compressed grains are unpacked; undefined where grains are stored as they are. */
  readonly codec: GrainCodec | undefined;
}

/** Directory entries handled at a time: 16 KiB of them. */
const DIRECTORY_BATCH = 4096;
/** Neighbouring tables are read together up to this many bytes. */
const TABLE_READ = 1 << 20;
/** Sectors that a file may have besides grains: headers, markers, tables. */
const SPARE_SECTORS = 65_536;
/** A walk's step is as many grains as this: 256 KiB of tables. */
const WALK_GRAINS = 65_536;

/** Entries `first` to `first + count` of the grain table number `table`, which begins at `position`. */
interface Slice {
  readonly table: number;
  readonly position: number;
  readonly first: number;
  readonly count: number;
}

export class GrainMap {
  readonly geometry: GrainGeometry;
  /** Bytes of the disk that one grain table covers. */
  readonly coverage: number;
  readonly tables: number;
  readonly step: number;

  /** The directories must lie inside the file: `checkDirectory` says so. */
  constructor(geometry: GrainGeometry) {
    this.geometry = geometry;
    this.coverage = geometry.entriesPerTable * geometry.grainBytes;
    this.tables = tableCount(geometry);
    this.step = WALK_GRAINS * geometry.grainBytes;
  }

  /** Entries of table number `table` that stand for grains of the extent: the last table is often not used to its end. */
  entriesOf(table: number): number {
    const { capacity, grainBytes, entriesPerTable } = this.geometry;
    return Math.min(entriesPerTable, Math.ceil((capacity - table * this.coverage) / grainBytes));
  }

  /** Whether a grain table of this number can be at `position`. */
  tableFits(table: number, position: number): boolean {
    return this.#fits(position, this.entriesOf(table) * 4);
  }

  /** Whether something else can be there: in the file, behind its header, and not in a directory. */
  #fits(position: number, length: number): boolean {
    const { file, reserved } = this.geometry;
    return position >= reserved && position + length <= file.size && !this.#inDirectory(position, length);
  }

  #inDirectory(position: number, length: number): boolean {
    const { directory, redundantDirectory } = this.geometry;
    const bytes = this.tables * 4;
    const end = position + length;
    if (position < directory + bytes && directory < end) return true;
    return redundantDirectory !== undefined && position < redundantDirectory + bytes && redundantDirectory < end;
  }

  /** Whether the data of grain number `grain`, at `position`, would lie in a directory. */
  grainInDirectory(grain: number, position: number): boolean {
    return this.#inDirectory(position, this.storedLength(grain));
  }

  /** Bytes of the disk that grain number `grain` covers: less than a grain at the extent's end. */
  grainLength(grain: number): number {
    const { capacity, grainBytes } = this.geometry;
    return Math.min(grainBytes, capacity - grain * grainBytes);
  }

  /** Bytes that grain number `grain` takes in the file, at least. */
  storedLength(grain: number): number {
    return this.geometry.codec?.shortest ?? this.grainLength(grain);
  }

  /** Whether the data of grain number `grain` can be at `position`. */
  grainFits(grain: number, position: number): boolean {
    return this.#fits(position, this.storedLength(grain));
  }

  /** Whether a table entry stands for data in the file, and not for nothing or a zeroed grain. */
  isData(entry: number): boolean {
    return entry !== GTE_EMPTY && !(this.geometry.zeroedGrains && entry === GTE_ZEROED);
  }

  /** How the entries of table number `table` look, from its entry number `first` on. */
  rules(table: number, first = 0): EntryRules {
    const { entriesPerTable, reserved, capacity } = this.geometry;
    const grain = table * entriesPerTable + first;
    // Twice the disk and its tables is more than any file of it takes, compressed badly or not.
    const most = (2 * capacity + reserved) / SECTOR + SPARE_SECTORS;
    return {
      plausible: (index, entry) => !this.isData(entry) || this.grainFits(grain + index, entry * SECTOR),
      possible: (entry) => !this.isData(entry) || (entry * SECTOR >= reserved && entry <= most),
    };
  }

  /** The entries of table number `table`, from both copies. */
  settle(table: number, primary: Fields, copy: Fields | undefined): Settled {
    return settleEntries(primary.length / 4, readerOf(primary), copy && readerOf(copy), this.rules(table));
  }

  /** See `Extent.runs`. */
  *runs(offset: number, length: number, base: number, out: RunList): Io<void> {
    if (length === 0) return;
    const end = offset + length;
    const last = Math.floor((end - 1) / this.coverage);
    for (let first = Math.floor(offset / this.coverage); first <= last; first += DIRECTORY_BATCH) {
      const count = Math.min(DIRECTORY_BATCH, last - first + 1);
      const positions = yield* this.#tablePositions(first, count);
      let pending: Slice[] = [];
      for (let i = 0; i < count; i++) {
        const table = first + i;
        const position = positions[i]!;
        const start = Math.max(offset, table * this.coverage);
        const stop = Math.min(end, (table + 1) * this.coverage);
        if (position === GTE_EMPTY) {
          yield* this.#answer(pending, offset, end, base, out);
          pending = [];
          out.absent(base + start, stop - start);
          continue;
        }
        const slice = this.#slice(table, position, start, stop);
        if (pending.length > 0 && !continues(pending, slice)) {
          yield* this.#answer(pending, offset, end, base, out);
          pending = [];
        }
        pending.push(slice);
      }
      yield* this.#answer(pending, offset, end, base, out);
    }
  }

  /** What is read of a table for `[start, stop)`: where there is a copy all of it, so that damage in it is seen. */
  #slice(table: number, position: number, start: number, stop: number): Slice {
    if (this.geometry.redundantDirectory !== undefined) {
      return { table, position, first: 0, count: this.entriesOf(table) };
    }
    const { grainBytes } = this.geometry;
    const first = Math.floor((start - table * this.coverage) / grainBytes);
    const last = Math.floor((stop - 1 - table * this.coverage) / grainBytes);
    return { table, position, first, count: last - first + 1 };
  }

  /** Byte positions of the tables `first` to `first + count`, 0 for one that is not there. */
  *#tablePositions(first: number, count: number): Io<number[]> {
    const { directory, redundantDirectory, file } = this.geometry;
    const primary = this.directoryFields(
      yield* readBytes(file, directory + first * 4, count * 4),
      directory + first * 4,
    );
    const positions: number[] = [];
    let doubtful = false;
    for (let i = 0; i < count; i++) {
      const position = primary.u32(i * 4) * SECTOR;
      positions.push(position);
      if (position === GTE_EMPTY || !this.tableFits(first + i, position)) doubtful = true;
    }
    if (!doubtful) return positions;
    const copy =
      redundantDirectory === undefined
        ? undefined
        : this.directoryFields(
            yield* readBytes(file, redundantDirectory + first * 4, count * 4),
            redundantDirectory + first * 4,
          );
    for (let i = 0; i < count; i++) {
      const position = positions[i]!;
      if (position !== GTE_EMPTY && this.tableFits(first + i, position)) continue;
      const other = (copy?.u32(i * 4) ?? GTE_EMPTY) * SECTOR;
      if (position === GTE_EMPTY && other === GTE_EMPTY) continue;
      if (other === GTE_EMPTY) throw this.badTable(primary, i, first + i);
      if (!this.tableFits(first + i, other)) {
        throw position === GTE_EMPTY ? this.badTable(copy!, i, first + i) : this.badTable(primary, i, first + i);
      }
      positions[i] = other;
    }
    return positions;
  }

  /** Reads tables that follow each other in the file, and adds what their entries say of `[offset, end)`. */
  *#answer(slices: readonly Slice[], offset: number, end: number, base: number, out: RunList): Io<void> {
    const head = slices[0];
    const tail = slices.at(-1);
    if (head === undefined || tail === undefined) return;
    const start = head.position + head.first * 4;
    const bytes = yield* readBytes(this.geometry.file, start, tail.position + (tail.first + tail.count) * 4 - start);
    const read = slices.map((slice) => {
      const from = slice.position + slice.first * 4;
      return { slice, fields: this.tableFields(bytes.subarray(from - start, from - start + slice.count * 4), from) };
    });
    const doubtful =
      this.geometry.redundantDirectory === undefined
        ? []
        : read.filter(({ slice, fields }) => isDoubtful(slice.count, readerOf(fields), this.rules(slice.table)));
    const copies = yield* this.#copiesOf(doubtful.map(({ slice }) => slice));
    for (const { slice, fields } of read) {
      const copy = copies.get(slice.table);
      const settled = copy === undefined ? undefined : this.settle(slice.table, fields, copy);
      this.#answerSlice(slice, fields, settled, offset, end, base, out);
    }
  }

  #answerSlice(
    slice: Slice,
    fields: Fields,
    settled: Settled | undefined,
    offset: number,
    end: number,
    base: number,
    out: RunList,
  ): void {
    const { grainBytes, entriesPerTable, file, codec } = this.geometry;
    const firstGrain = slice.table * entriesPerTable + slice.first;
    const from = Math.max(0, Math.floor(offset / grainBytes) - firstGrain);
    const to = Math.min(slice.count, Math.ceil(end / grainBytes) - firstGrain);
    for (let i = from; i < to; i++) {
      const grain = firstGrain + i;
      const start = Math.max(offset, grain * grainBytes);
      const stop = Math.min(end, (grain + 1) * grainBytes);
      const entry = settled === undefined ? fields.u32(i * 4) : settled.entries[i]!;
      if (entry === GTE_EMPTY) out.absent(base + start, stop - start);
      else if (!this.isData(entry)) out.zero(base + start, stop - start);
      else if (entry === UNSETTLED || !this.grainFits(grain, entry * SECTOR)) throw this.badGrain(fields, i, grain);
      else if (codec !== undefined) out.compressed(base + start, stop - start, file, entry * SECTOR, 0, codec);
      else out.data(base + start, stop - start, file, entry * SECTOR + (start - grain * grainBytes));
    }
  }

  /** The redundant tables of the same numbers, as far as there are any that can be read. */
  *#copiesOf(slices: readonly Slice[]): Io<Map<number, Fields>> {
    const copies = new Map<number, Fields>();
    const head = slices[0];
    if (head === undefined) return copies;
    const { redundantDirectory, file } = this.geometry;
    const at = redundantDirectory! + head.table * 4;
    const count = slices.at(-1)!.table - head.table + 1;
    const directory = this.directoryFields(yield* readBytes(file, at, count * 4), at);
    let pending: Slice[] = [];
    for (const slice of slices) {
      const position = directory.u32((slice.table - head.table) * 4) * SECTOR;
      if (position === GTE_EMPTY || position === slice.position || !this.tableFits(slice.table, position)) continue;
      const copy = { ...slice, position };
      if (pending.length > 0 && !continues(pending, copy)) {
        yield* this.#readTables(pending, copies);
        pending = [];
      }
      pending.push(copy);
    }
    yield* this.#readTables(pending, copies);
    return copies;
  }

  /** Reads tables that follow each other in the file. */
  *#readTables(slices: readonly Slice[], into: Map<number, Fields>): Io<void> {
    const head = slices[0];
    const tail = slices.at(-1);
    if (head === undefined || tail === undefined) return;
    const bytes = yield* readBytes(this.geometry.file, head.position, tail.position + tail.count * 4 - head.position);
    for (const { table, position, count } of slices) {
      const from = position - head.position;
      into.set(table, this.tableFields(bytes.subarray(from, from + count * 4), position));
    }
  }

  directoryFields(bytes: Uint8Array, position: number): Fields {
    const { family, file } = this.geometry;
    return new Fields(bytes, `${family} grain directory entry`, file.name, position);
  }

  tableFields(bytes: Uint8Array, position: number): Fields {
    const { family, file } = this.geometry;
    return new Fields(bytes, `${family} grain table entry`, file.name, position);
  }

  /** The error for directory entry `index` of `fields`, which should lead to table number `table`. */
  badTable(fields: Fields, index: number, table: number): CorruptError {
    return this.#bad(fields, index, this.entriesOf(table) * 4);
  }

  /** The error for table entry `index` of `fields`, which should lead to the data of grain number `grain`. */
  badGrain(fields: Fields, index: number, grain: number): CorruptError {
    return this.#bad(fields, index, this.storedLength(grain));
  }

  #bad(fields: Fields, index: number, length: number): CorruptError {
    const { reserved, file } = this.geometry;
    const sector = fields.u32(index * 4);
    const most = Math.floor((file.size - length) / SECTOR);
    const inside = sector * SECTOR >= reserved && sector <= most;
    const expected = inside
      ? 'a sector that is in no grain directory'
      : `a sector from ${reserved / SECTOR} to ${most}`;
    return fields.corrupt('', index * 4, expected, `sector ${sector}`);
  }
}

function readerOf(fields: Fields): EntryReader {
  return (index) => fields.u32(index * 4);
}

function continues(slices: readonly Slice[], next: Slice): boolean {
  const head = slices[0]!;
  const tail = slices.at(-1)!;
  const start = head.position + head.first * 4;
  const end = tail.position + (tail.first + tail.count) * 4;
  const from = next.position + next.first * 4;
  return from === end && from + next.count * 4 - start <= TABLE_READ;
}

/** Grain tables that an extent of this geometry has. */
export function tableCount(geometry: Pick<GrainGeometry, 'capacity' | 'entriesPerTable' | 'grainBytes'>): number {
  return Math.ceil(geometry.capacity / (geometry.entriesPerTable * geometry.grainBytes));
}

/** Whether a directory of `tables` entries at byte `position` lies inside the file and behind its header. */
export function directoryFits(file: ByteSource, position: number, tables: number, reserved: number): boolean {
  return position >= reserved && position + tables * 4 <= file.size;
}

/** The error for a directory that does not. */
export function badDirectory(
  family: string,
  field: string,
  file: ByteSource,
  fieldPosition: number,
  position: number,
  tables: number,
): CorruptError {
  return new CorruptError(`${family} ${field}`, {
    source: file.name,
    position: fieldPosition,
    expected: `a directory of ${tables} entries inside the ${file.size} bytes of the file`,
    found: `one at byte ${position}`,
  });
}

/**
 * The two-level map that hosted sparse (KDMV) and ESX Server sparse (COWD) extents share: a grain directory of sectors of grain
 * tables, whose entries are the sectors of grains. Nothing is held in memory: what a range needs is read when it is asked for,
 * neighbouring tables in one read, so opening costs nothing whatever the size of the disk.
 *
 * A hosted extent keeps both levels twice. The primary is used; where one of its entries can't be true (outside the file, inside
 * the header, or a table that is missing although the copy has it) the copy's entry is taken. When neither can be true the
 * answer is an error, never zeros. That the copies agree is for `check` to say, since comparing costs reading both.
 */
import { Fields } from '../../binary.ts';
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import type { RunList } from '../run-list.ts';
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
}

/** Directory entries handled at a time: 16 KiB of them. */
const DIRECTORY_BATCH = 4096;
/** Neighbouring tables are read together up to this many bytes. */
const TABLE_READ = 1 << 20;
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
    const { file, reserved } = this.geometry;
    return position >= reserved && position + this.entriesOf(table) * 4 <= file.size;
  }

  /** Bytes of the disk that grain number `grain` covers: less than a grain at the extent's end. */
  grainLength(grain: number): number {
    const { capacity, grainBytes } = this.geometry;
    return Math.min(grainBytes, capacity - grain * grainBytes);
  }

  /** Whether the data of grain number `grain` can be at `position`. */
  grainFits(grain: number, position: number): boolean {
    const { file, reserved } = this.geometry;
    return position >= reserved && position + this.grainLength(grain) <= file.size;
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
        const firstGrain = Math.floor((start - table * this.coverage) / this.geometry.grainBytes);
        const lastGrain = Math.floor((stop - 1 - table * this.coverage) / this.geometry.grainBytes);
        const slice = { table, position, first: firstGrain, count: lastGrain - firstGrain + 1 };
        if (pending.length > 0 && !continues(pending, slice)) {
          yield* this.#answer(pending, offset, end, base, out);
          pending = [];
        }
        pending.push(slice);
      }
      yield* this.#answer(pending, offset, end, base, out);
    }
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
    for (const slice of slices) {
      const from = slice.position + slice.first * 4;
      const entries = this.tableFields(bytes.subarray(from - start, from - start + slice.count * 4), from);
      yield* this.#answerSlice(slice, entries, offset, end, base, out);
    }
  }

  *#answerSlice(slice: Slice, entries: Fields, offset: number, end: number, base: number, out: RunList): Io<void> {
    const { grainBytes, entriesPerTable, file, zeroedGrains } = this.geometry;
    let copy: Fields | undefined;
    for (let i = 0; i < slice.count; i++) {
      const grain = slice.table * entriesPerTable + slice.first + i;
      const start = Math.max(offset, grain * grainBytes);
      const stop = Math.min(end, (grain + 1) * grainBytes);
      let entry = entries.u32(i * 4);
      if (entry !== GTE_EMPTY && !(zeroedGrains && entry === GTE_ZEROED) && !this.grainFits(grain, entry * SECTOR)) {
        copy ??= yield* this.#copyOf(slice);
        const other = copy?.u32(i * 4) ?? GTE_EMPTY;
        // A copy that says "not there" is no evidence against an entry that says there is something.
        const usable =
          (zeroedGrains && other === GTE_ZEROED) || (other !== GTE_EMPTY && this.grainFits(grain, other * SECTOR));
        if (!usable) throw this.badGrain(entries, i, grain);
        entry = other;
      }
      if (entry === GTE_EMPTY) out.absent(base + start, stop - start);
      else if (zeroedGrains && entry === GTE_ZEROED) out.zero(base + start, stop - start);
      else out.data(base + start, stop - start, file, entry * SECTOR + (start - grain * grainBytes));
    }
  }

  /** The same entries in the redundant grain table, where there is one that can be read. */
  *#copyOf(slice: Slice): Io<Fields | undefined> {
    const { redundantDirectory, file } = this.geometry;
    if (redundantDirectory === undefined) return undefined;
    const at = redundantDirectory + slice.table * 4;
    const position = this.directoryFields(yield* readBytes(file, at, 4), at).u32(0) * SECTOR;
    if (position === GTE_EMPTY || position === slice.position || !this.tableFits(slice.table, position))
      return undefined;
    const from = position + slice.first * 4;
    return this.tableFields(yield* readBytes(file, from, slice.count * 4), from);
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
    const { reserved, file } = this.geometry;
    const most = Math.floor((file.size - this.entriesOf(table) * 4) / SECTOR);
    return fields.corrupt(
      '',
      index * 4,
      `a sector from ${reserved / SECTOR} to ${most}`,
      `sector ${fields.u32(index * 4)}`,
    );
  }

  /** The error for table entry `index` of `fields`, which should lead to the data of grain number `grain`. */
  badGrain(fields: Fields, index: number, grain: number): CorruptError {
    const { reserved, file } = this.geometry;
    const most = Math.floor((file.size - this.grainLength(grain)) / SECTOR);
    return fields.corrupt(
      '',
      index * 4,
      `a sector from ${reserved / SECTOR} to ${most}`,
      `sector ${fields.u32(index * 4)}`,
    );
  }
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

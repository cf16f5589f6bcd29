/**
 * The two-level map of a QCOW2 image: an L1 table whose entries lead to L2 tables, whose entries lead to clusters. Opening reads
 * neither. What a range needs is read when it is asked for: L1 a page at a time through a small cache, L2 exactly the entries that
 * are needed, tables that follow each other in the file in one read; so opening costs nothing whatever the size of the disk.
 *
 * QEMU gives zeros for what lies beyond the end of the file. Here that is damage: a file that was cut off must not read as a disk
 * with zeros. Only what the disk needs counts: QEMU itself leaves the last cluster short where nothing of the disk is behind
 * (the end of the disk, subclusters that are not allocated), and such an image reads as whole.
 */
import { Fields } from '../../binary.ts';
import type { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import type { Codec } from '../image.ts';
import type { RunList } from '../run-list.ts';
import { TableCache } from '../table-cache.ts';
import { ClusterEntry, type EntryFormat } from './cluster-entry.ts';
import * as layout from './layout.ts';

export interface ClusterGeometry extends EntryFormat {
  readonly file: ByteSource;
  /** Where guest clusters are: `file`, or the external data file. */
  readonly data: ByteSource;
  readonly virtualSize: number;
  readonly l1Offset: number;
  readonly l1Size: number;
  /** Stretches of the file that hold metadata: no L2 table and no cluster can be there. The first is the header's cluster. */
  readonly metadata: readonly Stretch[];
  readonly codec: Codec;
}

export interface Stretch {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

/** L1 entries read and kept together: 4 KiB of them. */
const PAGE_ENTRIES = 512;
/** Bytes of L1 entries kept: 64 pages, what 64 MiB of regions of 32 MiB meet. */
const CACHE_BYTES = 256 << 10;
/** Neighbouring L2 tables are read together up to this many bytes. */
const TABLE_READ = 1 << 20;

/** Entries `first` to `first + count` of the L2 table number `table`, which begins at `position`. */
interface Slice {
  readonly table: number;
  readonly position: number;
  readonly first: number;
  readonly count: number;
}

export class ClusterMap {
  readonly geometry: ClusterGeometry;
  readonly entryBytes: number;
  readonly entriesPerTable: number;
  /** Bytes of the disk that one L2 table covers. */
  readonly coverage: number;
  /** L2 tables that stand for the disk; the L1 table may have more entries, for saved VM state. */
  readonly tables: number;
  readonly #subclusterSize: number;
  readonly #cache: TableCache;

  constructor(geometry: ClusterGeometry) {
    this.geometry = geometry;
    this.entryBytes = geometry.extendedL2 ? 16 : 8;
    this.entriesPerTable = geometry.clusterSize / this.entryBytes;
    this.coverage = this.entriesPerTable * geometry.clusterSize;
    this.tables = Math.ceil(geometry.virtualSize / this.coverage);
    this.#subclusterSize = geometry.clusterSize / layout.SUBCLUSTERS;
    this.#cache = new TableCache(geometry.file, CACHE_BYTES);
  }

  /** Entries of table number `table` that stand for clusters of the disk. */
  entriesOf(table: number): number {
    const left = Math.ceil((this.geometry.virtualSize - table * this.coverage) / this.geometry.clusterSize);
    return Math.min(this.entriesPerTable, left);
  }

  /** What is expected of an L1 entry and does not hold; undefined for one that is 0 or leads to a table. */
  tableProblem(table: number, high: number, low: number): string | undefined {
    if ((high & layout.L1_RESERVED_HIGH) !== 0 || (low & layout.L1_RESERVED_LOW) !== 0) {
      return 'reserved bits 0-8 and 56-62 of 0';
    }
    const { clusterSize, file } = this.geometry;
    const position = layout.offsetOf(high, low);
    if (position === 0) return undefined;
    if ((low & (clusterSize - 1)) !== 0) return `an offset that is a multiple of ${clusterSize}`;
    const length = Math.max(0, this.entriesOf(table)) * this.entryBytes;
    return this.placeProblem(position, length, file);
  }

  /** What is expected of the place of `length` bytes of a table or cluster in `source`, and does not hold. */
  placeProblem(position: number, length: number, source: ByteSource): string | undefined {
    if (!(position + length <= source.size)) return `${length} bytes inside the ${source.size} of ${source.name}`;
    if (source !== this.geometry.file) return undefined;
    for (const { name, start, end } of this.geometry.metadata) {
      if (position < end && start < position + length) return `a place outside the ${name}`;
    }
    return undefined;
  }

  /** Adds what this image says of `[offset, offset + length)` to `out`. @throws CorruptError, IoError. */
  *runs(offset: number, length: number, out: RunList): Io<void> {
    if (length === 0) return;
    const end = offset + length;
    const last = Math.floor((end - 1) / this.coverage);
    const entry = new ClusterEntry(this.geometry);
    let pending: Slice[] = [];
    for (let table = Math.floor(offset / this.coverage); table <= last; table++) {
      const position = yield* this.#tablePosition(table);
      const start = Math.max(offset, table * this.coverage);
      const stop = Math.min(end, (table + 1) * this.coverage);
      if (position === 0) {
        yield* this.#answer(pending, offset, end, entry, out);
        pending = [];
        out.absent(start, stop - start);
        continue;
      }
      const { clusterSize } = this.geometry;
      const first = Math.floor((start - table * this.coverage) / clusterSize);
      const count = Math.floor((stop - 1 - table * this.coverage) / clusterSize) - first + 1;
      const slice = { table, position, first, count };
      if (pending.length > 0 && !this.#continues(pending, slice)) {
        yield* this.#answer(pending, offset, end, entry, out);
        pending = [];
      }
      pending.push(slice);
    }
    yield* this.#answer(pending, offset, end, entry, out);
  }

  /** Byte position of L2 table number `table`; 0 when there is none. @throws CorruptError. */
  *#tablePosition(table: number): Io<number> {
    const page = yield* this.#page(Math.floor(table / PAGE_ENTRIES));
    const at = (table % PAGE_ENTRIES) * 8;
    const high = page.u32be(at);
    const low = page.u32be(at + 4);
    const problem = this.tableProblem(table, high, low);
    if (problem !== undefined) throw page.corrupt('', at, problem, layout.hex64(high, low));
    return layout.offsetOf(high, low);
  }

  /** Number of the first L1 entry from `first` on that is not 0; that of the tables where there is none. @throws CorruptError, IoError. */
  *nextTable(first: number): Io<number> {
    for (let table = first; table < this.tables; ) {
      const page = yield* this.#page(Math.floor(table / PAGE_ENTRIES));
      const end = Math.min(this.tables, table - (table % PAGE_ENTRIES) + PAGE_ENTRIES);
      for (; table < end; table++) {
        const at = (table % PAGE_ENTRIES) * 8;
        if (page.u32be(at) !== 0 || page.u32be(at + 4) !== 0) return table;
      }
    }
    return this.tables;
  }

  *#page(number: number): Io<Fields> {
    const { l1Offset, l1Size } = this.geometry;
    const first = number * PAGE_ENTRIES;
    const position = l1Offset + first * 8;
    const bytes = yield* this.#cache.get(position, Math.min(PAGE_ENTRIES, l1Size - first) * 8);
    return this.l1Fields(bytes, position);
  }

  l1Fields(bytes: Uint8Array, position: number): Fields {
    return new Fields(bytes, 'QCOW2 L1 table entry', this.geometry.file.name, position);
  }

  l2Fields(bytes: Uint8Array, position: number): Fields {
    return new Fields(bytes, 'QCOW2 L2 table entry', this.geometry.file.name, position);
  }

  #continues(slices: readonly Slice[], next: Slice): boolean {
    const head = slices[0]!;
    const tail = slices.at(-1)!;
    const start = head.position + head.first * this.entryBytes;
    const end = tail.position + (tail.first + tail.count) * this.entryBytes;
    const from = next.position + next.first * this.entryBytes;
    return from === end && from + next.count * this.entryBytes - start <= TABLE_READ;
  }

  /** Reads tables that follow each other in the file, and adds what their entries say of `[offset, end)`. */
  *#answer(slices: readonly Slice[], offset: number, end: number, entry: ClusterEntry, out: RunList): Io<void> {
    const head = slices[0];
    const tail = slices.at(-1);
    if (head === undefined || tail === undefined) return;
    const start = head.position + head.first * this.entryBytes;
    const stop = tail.position + (tail.first + tail.count) * this.entryBytes;
    const fields = this.l2Fields(yield* readBytes(this.geometry.file, start, stop - start), start);
    const { clusterSize } = this.geometry;
    for (const slice of slices) {
      let at = slice.position + slice.first * this.entryBytes - start;
      let cluster = slice.table * this.entriesPerTable + slice.first;
      for (const last = cluster + slice.count; cluster < last; cluster++, at += this.entryBytes) {
        entry.read(fields, at, cluster);
        const guest = cluster * clusterSize;
        this.#add(fields, at, entry, guest, Math.max(offset, guest), Math.min(end, guest + clusterSize), out);
      }
    }
  }

  /** Adds what an entry says of `[from, to)` of its cluster, which begins at `guest`. */
  #add(fields: Fields, at: number, entry: ClusterEntry, guest: number, from: number, to: number, out: RunList): void {
    if (entry.problem !== undefined) throw this.badEntry(fields, at, entry, entry.problem);
    switch (entry.kind) {
      case 'absent':
        out.absent(from, to - from);
        break;
      case 'zero':
        out.zero(from, to - from);
        break;
      case 'data':
        this.#addData(fields, at, entry, guest, from, to, out);
        break;
      case 'compressed': {
        const { file, codec } = this.geometry;
        const problem = this.compressedProblem(entry);
        if (problem !== undefined) throw this.badEntry(fields, at, entry, problem);
        const stored = Math.min(entry.stored, file.size - entry.position);
        out.compressed(from, to - from, file, entry.position, stored, codec);
        break;
      }
      case 'mixed':
        this.#addMixed(fields, at, entry, guest, from, to, out);
        break;
    }
  }

  #addData(
    fields: Fields,
    at: number,
    entry: ClusterEntry,
    guest: number,
    from: number,
    to: number,
    out: RunList,
  ): void {
    const { data } = this.geometry;
    const problem = this.placeProblem(entry.position, to - guest, data);
    if (problem !== undefined) throw this.badEntry(fields, at, entry, problem);
    out.data(from, to - from, data, entry.position + (from - guest));
  }

  #addMixed(
    fields: Fields,
    at: number,
    entry: ClusterEntry,
    guest: number,
    from: number,
    to: number,
    out: RunList,
  ): void {
    const size = this.#subclusterSize;
    for (let start = from; start < to; ) {
      const n = Math.floor((start - guest) / size);
      const kind = entry.subcluster(n);
      let next = n + 1;
      while (next < layout.SUBCLUSTERS && guest + next * size < to && entry.subcluster(next) === kind) next++;
      const stop = Math.min(to, guest + next * size);
      if (kind === 'data') this.#addData(fields, at, entry, guest, start, stop, out);
      else if (kind === 'zero') out.zero(start, stop - start);
      else out.absent(start, stop - start);
      start = stop;
    }
  }

  /**
   * What is expected of the place of compressed data and does not hold. Its stored length is an upper bound that may reach beyond
   * the end of the file, so only its first byte must be there.
   */
  compressedProblem(entry: ClusterEntry): string | undefined {
    return this.placeProblem(entry.position, 1, this.geometry.file);
  }

  /** The error for the L2 entry at byte `at` of `fields`. */
  badEntry(fields: Fields, at: number, entry: ClusterEntry, expected: string): CorruptError {
    return fields.corrupt('', at, expected, layout.hex64(entry.high, entry.low));
  }
}

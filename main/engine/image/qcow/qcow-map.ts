/**
 * The two-level map of a QCOW image of version 1. As in QCOW2 nothing is held but a small cache of L1 pages; here a table or a cluster
 * may begin at any byte, since nothing in the format says otherwise.
 *
 * What lies beyond the end of the file is damage, as in QCOW2: a file that was cut off must not read as a disk with zeros.
 */
import { Fields } from '../../binary.ts';
import type { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import type { Codec } from '../image.ts';
import { hex64 } from '../qcow2/layout.ts';
import type { RunList } from '../run-list.ts';
import { TableCache } from '../table-cache.ts';
import { COMPRESSED_HIGH, HEADER_BYTES } from './layout.ts';
import type { QcowHeader } from './qcow-header.ts';

/** L1 entries read and kept together: 4 KiB of them. */
const PAGE_ENTRIES = 512;
/** Bytes of L1 entries kept: 64 pages. */
const CACHE_BYTES = 256 << 10;

/** What an L2 entry says. */
export interface QcowEntry {
  readonly kind: 'absent' | 'data' | 'compressed';
  readonly position: number;
  /** Bytes of a compressed cluster. */
  readonly stored: number;
}

export class QcowMap {
  readonly file: ByteSource;
  readonly header: QcowHeader;
  readonly codec: Codec;
  /** Bytes of the disk that one L2 table covers. */
  readonly coverage: number;
  readonly entriesPerTable: number;
  readonly #cache: TableCache;

  constructor(file: ByteSource, header: QcowHeader, codec: Codec) {
    this.file = file;
    this.header = header;
    this.codec = codec;
    this.entriesPerTable = 2 ** header.l2Bits;
    this.coverage = this.entriesPerTable * header.clusterSize;
    this.#cache = new TableCache(file, CACHE_BYTES);
  }

  /** Entries of table number `table` that stand for clusters of the disk. */
  entriesOf(table: number): number {
    const left = Math.ceil((this.header.size - table * this.coverage) / this.header.clusterSize);
    return Math.min(this.entriesPerTable, left);
  }

  /** What is expected of the place of `length` bytes of a table or cluster, and does not hold. */
  placeProblem(position: number, length: number): string | undefined {
    if (!(position + length <= this.file.size)) return `${length} bytes inside the ${this.file.size} of the file`;
    if (position < HEADER_BYTES) return 'a place behind the header';
    const { l1Offset, l1Size } = this.header;
    if (position < l1Offset + l1Size * 8 && l1Offset < position + length) return 'a place outside the L1 table';
    return undefined;
  }

  /** Takes the L2 entry at byte `at` of a table. */
  entry(fields: Fields, at: number): QcowEntry {
    const high = fields.u32be(at);
    const low = fields.u32be(at + 4);
    if (high === 0 && low === 0) return { kind: 'absent', position: 0, stored: 0 };
    // No files of more than 2^53 bytes exist: such an offset is inexact, and found to be outside.
    if ((high & COMPRESSED_HIGH) === 0) return { kind: 'data', position: high * 0x1_0000_0000 + low, stored: 0 };
    // Bits 0 to 62 - cluster_bits are the offset, the rest below bit 63 the length in bytes.
    const offsetBits = 63 - this.header.clusterBits - 32;
    return {
      kind: 'compressed',
      position: (high & (2 ** offsetBits - 1)) * 0x1_0000_0000 + low,
      stored: (high >>> offsetBits) & (this.header.clusterSize - 1),
    };
  }

  /** What is expected of an entry of the cluster that begins at `guest`, when the disk needs it up to `to`. */
  entryProblem(entry: QcowEntry, guest: number, to: number): string | undefined {
    if (entry.kind === 'absent') return undefined;
    if (entry.kind === 'data') return this.placeProblem(entry.position, to - guest);
    if (entry.stored === 0) return 'a compressed cluster of at least one byte';
    return this.placeProblem(entry.position, entry.stored);
  }

  /** Adds what this image says of `[offset, offset + length)` to `out`. @throws CorruptError, IoError. */
  *runs(offset: number, length: number, out: RunList): Io<void> {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const table = Math.floor(at / this.coverage);
      const stop = Math.min(end, (table + 1) * this.coverage);
      const position = yield* this.#tablePosition(table);
      if (position === 0) out.absent(at, stop - at);
      else yield* this.#answer(table, position, at, stop, out);
      at = stop;
    }
  }

  *#answer(table: number, position: number, offset: number, end: number, out: RunList): Io<void> {
    const { clusterSize } = this.header;
    const base = table * this.coverage;
    const first = Math.floor((offset - base) / clusterSize);
    const last = Math.floor((end - 1 - base) / clusterSize);
    const start = position + first * 8;
    const fields = this.l2Fields(yield* readBytes(this.file, start, (last - first + 1) * 8), start);
    for (let i = first; i <= last; i++) {
      const guest = base + i * clusterSize;
      const from = Math.max(offset, guest);
      const to = Math.min(end, guest + clusterSize);
      const at = (i - first) * 8;
      const entry = this.entry(fields, at);
      const problem = this.entryProblem(entry, guest, to);
      if (problem !== undefined) throw this.badEntry(fields, at, problem);
      if (entry.kind === 'absent') out.absent(from, to - from);
      else if (entry.kind === 'data') out.data(from, to - from, this.file, entry.position + (from - guest));
      else out.compressed(from, to - from, this.file, entry.position, entry.stored, this.codec);
    }
  }

  /** Number of the first L1 entry from `first` on that is not 0; that of the tables where there is none. @throws CorruptError, IoError. */
  *nextTable(first: number): Io<number> {
    const { l1Size } = this.header;
    for (let table = first; table < l1Size; ) {
      const page = yield* this.#page(Math.floor(table / PAGE_ENTRIES));
      const end = Math.min(l1Size, table - (table % PAGE_ENTRIES) + PAGE_ENTRIES);
      for (; table < end; table++) if (this.tableAt(page, (table % PAGE_ENTRIES) * 8) !== 0) return table;
    }
    return l1Size;
  }

  *#page(number: number): Io<Fields> {
    const first = number * PAGE_ENTRIES;
    const position = this.header.l1Offset + first * 8;
    const count = Math.min(PAGE_ENTRIES, this.header.l1Size - first);
    return this.l1Fields(yield* this.#cache.get(position, count * 8), position);
  }

  /** Byte position of L2 table number `table`; 0 when there is none. @throws CorruptError. */
  *#tablePosition(table: number): Io<number> {
    const page = yield* this.#page(Math.floor(table / PAGE_ENTRIES));
    const at = (table % PAGE_ENTRIES) * 8;
    const problem = this.tableProblem(page, at, table);
    if (problem !== undefined) throw this.badEntry(page, at, problem);
    return this.tableAt(page, at);
  }

  tableAt(fields: Fields, at: number): number {
    return fields.u32be(at) * 0x1_0000_0000 + fields.u32be(at + 4);
  }

  /** What is expected of the L1 entry at byte `at`, and does not hold; undefined for one that is 0 or leads to a table. */
  tableProblem(fields: Fields, at: number, table: number): string | undefined {
    const position = this.tableAt(fields, at);
    return position === 0 ? undefined : this.placeProblem(position, this.entriesOf(table) * 8);
  }

  l1Fields(bytes: Uint8Array, position: number): Fields {
    return new Fields(bytes, 'QCOW L1 table entry', this.file.name, position);
  }

  l2Fields(bytes: Uint8Array, position: number): Fields {
    return new Fields(bytes, 'QCOW L2 table entry', this.file.name, position);
  }

  badEntry(fields: Fields, at: number, expected: string): CorruptError {
    return fields.corrupt('', at, expected, hex64(fields.u32be(at), fields.u32be(at + 4)));
  }
}

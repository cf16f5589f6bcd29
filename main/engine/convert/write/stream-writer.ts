/**
 * VMDK streamOptimized: grains are compressed by all workers at once and written in the order of the disk. A worker compresses a
 * whole stretch into memory, waits until every stretch before it knows its length, takes its place and passes the turn on.
 */
import { deflateSync } from 'node:zlib';
import { CorruptError } from '../../errors.ts';
import type { Control, StretchRecord } from '../messages.ts';
import type { Plan } from '../plan.ts';
import { ZeroFinder } from '../zeros.ts';
import { type OutputFile, putSync } from './put.ts';
import type { Gap } from './qcow2.ts';
import {
  ENTRIES_PER_TABLE,
  GRAIN_BYTES,
  MARKER_GT,
  marker,
  outOfReach,
  REACH,
  TABLE_BYTES,
  TABLE_COVERS,
} from './vmdk.ts';
import type { StretchWriter } from './writer.ts';

const SECTOR = 512;
/** Grain markers: the grain's first sector on the disk, the bytes that follow. */
const MARKER_BYTES = 12;
/** A grain that can't be compressed, with marker and padding. zlib adds 5 bytes for 16 KiB and 6 for its frame. */
const LARGEST = GRAIN_BYTES + 2 * SECTOR;

export class StreamWriter implements StretchWriter {
  readonly unit = GRAIN_BYTES;
  readonly left: readonly Gap[] = [];
  readonly #plan: Plan;
  readonly #file: OutputFile;
  readonly #control: Control;
  readonly #finder = new ZeroFinder(GRAIN_BYTES);
  readonly #out: Buffer;
  #used = 0;
  #stretch = 0;
  #turn = 0;
  #data = 0;
  /** The grain table that is being filled: its number, and for each entry the byte in `#out` plus one. */
  #table = -1;
  readonly #entries = new Uint32Array(ENTRIES_PER_TABLE);
  /** Finished tables: number, byte in `#out`. */
  #tables: [number, number][] = [];

  constructor(plan: Plan, file: OutputFile, control: Control) {
    this.#plan = plan;
    this.#file = file;
    this.#control = control;
    const tables = Math.ceil(plan.stretch / TABLE_COVERS);
    // Pages of it that no grain reaches are never touched.
    this.#out = Buffer.allocUnsafeSlow((plan.stretch / GRAIN_BYTES) * LARGEST + tables * (SECTOR + TABLE_BYTES));
  }

  begin(stretch: number, turn: number): void {
    this.#stretch = stretch;
    this.#turn = turn;
    this.#used = 0;
    this.#data = 0;
    this.#table = -1;
    this.#tables = [];
  }

  write(at: number, bytes: Buffer, length: number): void {
    this.#finder.runs(bytes, length, (first, count) => {
      for (let i = first; i < first + count; i++) {
        this.#grain(at / GRAIN_BYTES + i, bytes.subarray(i * GRAIN_BYTES, (i + 1) * GRAIN_BYTES));
      }
    });
  }

  #grain(grain: number, bytes: Buffer): void {
    const table = Math.floor(grain / ENTRIES_PER_TABLE);
    if (table !== this.#table) {
      this.#closeTable();
      this.#table = table;
    }
    const out = this.#out;
    const packed = deflateSync(bytes);
    if (MARKER_BYTES + packed.length > LARGEST) {
      throw new CorruptError('Compressed grain', { expected: `at most ${LARGEST} bytes`, found: packed.length });
    }
    const at = this.#used;
    out.writeBigUInt64LE(BigInt((grain * GRAIN_BYTES) / SECTOR), at);
    out.writeUInt32LE(packed.length, at + 8);
    out.set(packed, at + MARKER_BYTES);
    this.#entries[grain % ENTRIES_PER_TABLE] = at + 1;
    this.#data += bytes.length;
    this.#pad(at + MARKER_BYTES + packed.length);
  }

  /** The end of what is there, and zeros to the next sector. */
  #pad(end: number): void {
    this.#used = Math.ceil(end / SECTOR) * SECTOR;
    this.#out.fill(0, end, this.#used);
  }

  /** The grain table behind its grains. Its entries are positions in `#out` until the stretch has its place. */
  #closeTable(): void {
    if (this.#table < 0) return;
    const out = this.#out;
    out.set(marker(TABLE_BYTES / SECTOR, MARKER_GT), this.#used);
    const at = this.#used + SECTOR;
    for (const [i, entry] of this.#entries.entries()) out.writeUInt32LE(entry, at + i * 4);
    this.#used = at + TABLE_BYTES;
    this.#tables.push([this.#table, at]);
    this.#entries.fill(0);
    this.#table = -1;
  }

  finish(): StretchRecord | undefined {
    this.#closeTable();
    if (!this.#control.waitForTurn(this.#turn)) return undefined;
    const at = this.#control.position;
    const length = this.#used;
    this.#control.position = at + length;
    this.#control.passTurn(this.#turn + 1);
    if (at + length > REACH) throw outOfReach(this.#plan.variant);
    const directory: number[] = [];
    for (const [table, position] of this.#tables) {
      for (let i = 0; i < ENTRIES_PER_TABLE; i++) {
        const entry = this.#out.readUInt32LE(position + i * 4);
        if (entry !== 0) this.#out.writeUInt32LE((at + entry - 1) / SECTOR, position + i * 4);
      }
      directory.push(table, (at + position) / SECTOR);
    }
    if (length > 0) putSync(this.#file, this.#out.subarray(0, length), at);
    return { stretch: this.#stretch, data: this.#data, at, length, directory };
  }
}

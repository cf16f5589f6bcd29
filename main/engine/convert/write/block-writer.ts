/**
 * Dynamic VHDX: blocks of a MiB and more, placed when the first byte in them is not zero. What is zero inside a block is left out
 * too, so that the file system makes holes of it.
 */
import { UnsupportedError } from '../../errors.ts';
import type { Control, StretchRecord } from '../messages.ts';
import { HOLE_BYTES, type Layout, type Plan, stretchRange } from '../plan.ts';
import { ZeroFinder } from '../zeros.ts';
import { addPlaces, PlaceTaker } from './places.ts';
import { type OutputFile, putSync } from './put.ts';
import type { Gap } from './qcow2.ts';
import { entryAt, putEntry } from './vhdx.ts';
import type { StretchWriter } from './writer.ts';

/** Zeros written at a time over what an interrupted run left. */
const ERASER = 1 << 20;

export class BlockWriter implements StretchWriter {
  readonly unit = HOLE_BYTES;
  readonly #plan: Plan;
  readonly #layout: Extract<Layout, { kind: 'blocks' }>;
  readonly #file: OutputFile;
  readonly #finder = new ZeroFinder(HOLE_BYTES);
  readonly #taker: PlaceTaker;
  /** For each block of the stretch its place plus one; 0 for zeros. */
  readonly #entries: Uint32Array;
  #stretch = 0;
  #placed: number[] = [];
  #data = 0;

  constructor(
    plan: Plan,
    layout: Extract<Layout, { kind: 'blocks' }>,
    file: OutputFile,
    control: Control,
    gaps: readonly Gap[],
  ) {
    this.#plan = plan;
    this.#layout = layout;
    this.#file = file;
    this.#entries = new Uint32Array(plan.stretch / plan.unit);
    const tooMany = (): Error => new UnsupportedError('a VHDX file of more than 2^31 blocks');
    this.#taker = new PlaceTaker(control, gaps, 2 ** 31 - 1, tooMany);
  }

  get left(): Gap[] {
    return this.#taker.left;
  }

  begin(stretch: number): void {
    this.#stretch = stretch;
    this.#placed = [];
    this.#data = 0;
    this.#entries.fill(0);
    // One at a time: blocks are large, and few are left over.
    this.#taker.expect(1);
  }

  write(at: number, bytes: Buffer, length: number): void {
    const { unit: block } = this.#plan;
    const start = this.#stretch * this.#plan.stretch;
    this.#finder.runs(bytes, length, (first, count) => {
      const end = Math.min(length, (first + count) * HOLE_BYTES);
      for (let from = first * HOLE_BYTES; from < end; ) {
        const within = (at + from) % block;
        const to = Math.min(end, from + block - within);
        const place = this.#place((at + from - within - start) / block);
        putSync(this.#file, bytes.subarray(from, to), this.#layout.dataStart + place * block + within);
        this.#data += to - from;
        from = to;
      }
    });
  }

  #place(index: number): number {
    const known = this.#entries[index]!;
    if (known !== 0) return known - 1;
    const { start, stale } = this.#taker.take(1)[0]!;
    if (stale) {
      const { unit: block } = this.#plan;
      const zeros = Buffer.alloc(Math.min(ERASER, block));
      for (let at = 0; at < block; at += zeros.length) {
        putSync(this.#file, zeros, this.#layout.dataStart + start * block + at);
      }
    }
    this.#entries[index] = start + 1;
    addPlaces(this.#placed, start, 1);
    return start;
  }

  finish(): StretchRecord {
    const { unit: block } = this.#plan;
    const { ratio, table, dataStart } = this.#layout;
    const range = stretchRange(this.#plan, this.#stretch);
    const first = range.start / block;
    const count = Math.ceil((range.end - range.start) / block);
    // A stretch never reaches over the place of a sector bitmap's entry: those stand every 4 GiB of the disk.
    const bytes = Buffer.alloc(count * 8);
    for (let i = 0; i < count; i++) {
      const entry = this.#entries[i]!;
      putEntry(bytes, i * 8, entry === 0 ? undefined : dataStart + (entry - 1) * block);
    }
    putSync(this.#file, bytes, table + entryAt(first, ratio));
    return { stretch: this.#stretch, data: this.#data, placed: this.#placed };
  }
}

/**
 * Images whose units (clusters, grains) lie where there was room, found through tables of one entry a unit: QCOW2 and VMDK
 * monolithicSparse. A worker writes the entries of its stretch itself, so no table is ever held whole.
 */

import { UnsupportedError } from '../../errors.ts';
import type { Control, StretchRecord } from '../messages.ts';
import { type Layout, type Plan, stretchRange } from '../plan.ts';
import { ZeroFinder } from '../zeros.ts';
import { addPlaces, type Places, PlaceTaker } from './places.ts';
import { type OutputFile, putAllSync, putSync } from './put.ts';
import { ENTRIES_PER_L2, type Gap, putEntry } from './qcow2.ts';
import { outOfReach, REACH } from './vmdk.ts';
import type { StretchWriter } from './writer.ts';

const SECTOR = 512;

export interface UnitWriterOptions {
  readonly plan: Plan;
  readonly layout: Extract<Layout, { kind: 'grains' | 'clusters' }>;
  readonly file: OutputFile;
  readonly control: Control;
  readonly gaps: readonly Gap[];
  /** QCOW2: place of each L2 table plus one, shared by all workers. */
  readonly l1: Int32Array | undefined;
}

export class UnitWriter implements StretchWriter {
  readonly unit: number;
  readonly #options: UnitWriterOptions;
  readonly #finder: ZeroFinder;
  readonly #taker: PlaceTaker;
  /** For each unit of the stretch its place plus one; 0 for zeros. */
  readonly #entries: Uint32Array;
  #stretch = 0;
  #placed: number[] = [];
  #written = 0;

  constructor(options: UnitWriterOptions) {
    const { plan, layout, control, gaps } = options;
    this.#options = options;
    this.unit = plan.unit;
    this.#finder = new ZeroFinder(plan.unit);
    this.#entries = new Uint32Array(plan.stretch / plan.unit);
    const [limit, tooMany] =
      layout.kind === 'grains'
        ? [Math.floor((REACH - layout.dataStart) / plan.unit), () => outOfReach(plan.variant)]
        : [2 ** 31 - 1, () => new UnsupportedError(`a ${plan.format} file of more than 2^31 clusters`)];
    this.#taker = new PlaceTaker(control, gaps, limit, tooMany);
  }

  get left(): Gap[] {
    return this.#taker.left;
  }

  begin(stretch: number, _turn: number, expected: number): void {
    this.#stretch = stretch;
    this.#placed = [];
    this.#written = 0;
    this.#entries.fill(0);
    this.#taker.expect(Math.ceil(expected / this.unit));
  }

  write(at: number, bytes: Buffer, length: number): void {
    const { unit } = this;
    const firstEntry = at / unit - (this.#stretch * this.#options.plan.stretch) / unit;
    // Runs of units with data, as [first, count]...
    const runs: [number, number][] = [];
    let count = 0;
    this.#finder.runs(bytes, length, (first, more) => {
      runs.push([first, more]);
      count += more;
    });
    if (count === 0) return;
    this.#written += count;
    let run = 0;
    let [first, more] = runs[0]!;
    for (const places of this.#taker.take(count)) {
      addPlaces(this.#placed, places.start, places.count);
      const pieces: Uint8Array[] = [];
      for (let done = 0; done < places.count; ) {
        const taken = Math.min(places.count - done, more);
        pieces.push(bytes.subarray(first * unit, (first + taken) * unit));
        for (let i = 0; i < taken; i++) this.#entries[firstEntry + first + i] = places.start + done + i + 1;
        done += taken;
        first += taken;
        more -= taken;
        if (more === 0 && run + 1 < runs.length) [first, more] = runs[++run]!;
      }
      putAllSync(this.#options.file, pieces, this.#options.layout.dataStart + places.start * unit);
    }
  }

  finish(): StretchRecord {
    const { layout } = this.#options;
    const record = { stretch: this.#stretch, data: this.#written * this.unit, placed: this.#placed };
    if (layout.kind === 'clusters') return { ...record, tables: this.#finishClusters(layout.dataStart) };
    this.#finishGrains(layout);
    return record;
  }

  /** Number of the stretch's first unit on the disk, and how many it has. */
  #units(): { first: number; count: number } {
    const { start, end } = stretchRange(this.#options.plan, this.#stretch);
    return { first: start / this.unit, count: Math.ceil((end - start) / this.unit) };
  }

  #finishGrains(layout: Extract<Layout, { kind: 'grains' }>): void {
    const { first, count } = this.#units();
    const bytes = Buffer.alloc(count * 4);
    for (let i = 0; i < count; i++) {
      const entry = this.#entries[i]!;
      if (entry !== 0) bytes.writeUInt32LE((layout.dataStart + (entry - 1) * this.unit) / SECTOR, i * 4);
    }
    putSync(this.#options.file, bytes, layout.tables + first * 4);
    putSync(this.#options.file, bytes, layout.redundantTables + first * 4);
  }

  #finishClusters(dataStart: number): number[] {
    const { first, count } = this.#units();
    const tables: number[] = [];
    for (let from = 0; from < count; ) {
      const index = Math.floor((first + from) / ENTRIES_PER_L2);
      const to = Math.min(count, (index + 1) * ENTRIES_PER_L2 - first);
      const bytes = Buffer.alloc((to - from) * 8);
      let some = false;
      for (let i = from; i < to; i++) {
        const entry = this.#entries[i]!;
        if (entry === 0) continue;
        some = true;
        putEntry(bytes, (i - from) * 8, dataStart + (entry - 1) * this.unit);
      }
      if (some) {
        const place = this.#table(index);
        tables.push(index, place);
        const entryAt = (first + from - index * ENTRIES_PER_L2) * 8;
        putSync(this.#options.file, bytes, dataStart + place * this.unit + entryAt);
      }
      from = to;
    }
    return tables;
  }

  /** The place of an L2 table, which is made where no worker has made it yet. */
  #table(index: number): number {
    const { l1, file, layout } = this.#options;
    const known = Atomics.load(l1!, index);
    if (known !== 0) return known - 1;
    const place: Places = this.#taker.take(1)[0]!;
    // Before anybody knows of it: the entries that other stretches do not write must be zeros.
    if (place.stale) putSync(file, Buffer.alloc(this.unit), layout.dataStart + place.start * this.unit);
    const other = Atomics.compareExchange(l1!, index, 0, place.start + 1);
    if (other === 0) return place.start;
    this.#taker.giveBack(place);
    return other - 1;
  }
}

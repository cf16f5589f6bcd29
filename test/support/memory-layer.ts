/** Layers in memory whose bytes are known, for tests of what is put together from layers. */
import { CorruptError } from '../../main/engine/errors.ts';
import type { Finding, ImageLayer, LayerFile, LayerRun, ParentClaim } from '../../main/engine/image/image.ts';
import { type ByteSource, MemorySource } from '../../main/engine/storage/byte-source.ts';
import { type Io, readBytes } from '../../main/engine/storage/io.ts';
import { between, randomBytesOf } from './random.ts';

/** A range of the disk in which the layer's table is damaged. */
export interface Damage {
  readonly offset: number;
  readonly length: number;
  readonly error?: () => Error;
}

/** Answers from a function of the range; counts what it is asked. */
export class MemoryLayer implements ImageLayer {
  readonly format = 'memory';
  readonly variant = 'memory';
  readonly path: string;
  readonly name: string;
  readonly virtualSize: number;
  readonly parent: ParentClaim | undefined = undefined;
  readonly id: string | undefined = undefined;
  readonly files: readonly LayerFile[] = [];
  readonly granularity = 1;
  readonly properties = {};
  /** Every range that `runs` was asked for. */
  readonly asked: { offset: number; length: number }[] = [];
  readonly damage: Damage[] = [];
  /** Read once for every answer, as a real layer reads its table. */
  table: ByteSource = new MemorySource(new Uint8Array(1), 'table');
  closed = 0;
  readonly #answer: (offset: number, end: number) => LayerRun[];

  constructor(name: string, virtualSize: number, answer: (offset: number, end: number) => LayerRun[]) {
    this.name = name;
    this.path = `/memory/${name}`;
    this.virtualSize = virtualSize;
    this.#answer = answer;
  }

  *runs(offset: number, length: number): Io<LayerRun[]> {
    this.asked.push({ offset, length });
    if (!(offset >= 0 && length > 0 && offset + length <= this.virtualSize)) {
      throw new Error(`${this.name} was asked for ${length} bytes from ${offset}, and has ${this.virtualSize}`);
    }
    yield* readBytes(this.table, 0, 1);
    for (const bad of this.damage) {
      if (offset < bad.offset + bad.length && bad.offset < offset + length) {
        throw (
          bad.error?.() ??
          new CorruptError('Table entry', { source: this.name, position: bad.offset, expected: 'sense', found: 'none' })
        );
      }
    }
    return this.#answer(offset, offset + length);
  }

  async allocatedBytes(): Promise<number> {
    return 0;
  }
  async *check(): AsyncGenerator<Finding> {}
  async close(): Promise<void> {
    this.closed++;
  }
}

/** Cuts a list of runs to a range, as a layer answers. */
export function cutRuns(all: readonly LayerRun[], offset: number, end: number): LayerRun[] {
  const out: LayerRun[] = [];
  for (const run of all) {
    const from = Math.max(offset, run.offset);
    const to = Math.min(end, run.offset + run.length);
    if (from >= to) continue;
    out.push(
      run.kind === 'data'
        ? { ...run, offset: from, length: to - from, position: run.position + (from - run.offset) }
        : { ...run, offset: from, length: to - from },
    );
  }
  return out;
}

export interface LayerOptions {
  readonly size: number;
  readonly sources: number;
  /** Longest run. */
  readonly longest: number;
  /** Chances of data and zero; the rest is absent. */
  readonly data: number;
  readonly zero: number;
}

/** A layer of random runs of odd sizes, with its list of runs. Data lies scattered, now and then next to each other, over its sources. */
export function randomLayer(
  random: () => number,
  name: string,
  options: LayerOptions,
): { layer: MemoryLayer; runs: LayerRun[]; sources: MemorySource[] } {
  const plans: {
    offset: number;
    length: number;
    kind: 'data' | 'zero' | 'absent';
    source: number;
    position: number;
  }[] = [];
  const filled = new Array<number>(options.sources).fill(0);
  for (let at = 0; at < options.size; ) {
    const length = Math.min(options.size - at, between(random, 1, options.longest));
    const dice = random();
    const kind = dice < options.data ? 'data' : dice < options.data + options.zero ? 'zero' : 'absent';
    const source = between(random, 0, options.sources - 1);
    if (random() < 0.5) filled[source]! += between(random, 1, 100);
    plans.push({ offset: at, length, kind, source, position: filled[source]! });
    if (kind === 'data') filled[source]! += length;
    at += length;
  }
  const sources = filled.map((size, i) => new MemorySource(randomBytesOf(random, size), `${name}-${i}`));
  const runs = plans.map(({ offset, length, kind, source, position }): LayerRun => {
    return kind === 'data' ? { kind, offset, length, source: sources[source]!, position } : { kind, offset, length };
  });
  return { layer: new MemoryLayer(name, options.size, (offset, end) => cutRuns(runs, offset, end)), runs, sources };
}

/** What a chain reads as: its bytes and, for every byte, the layer it comes from (-1 for none) and whether that stores it. */
export interface ChainModel {
  readonly bytes: Uint8Array;
  readonly layer: Int16Array;
  readonly data: Uint8Array;
}

/** @param chain leaf first. */
export function chainModel(size: number, chain: readonly { runs: readonly LayerRun[] }[]): ChainModel {
  const model = { bytes: new Uint8Array(size), layer: new Int16Array(size).fill(-1), data: new Uint8Array(size) };
  for (let index = chain.length - 1; index >= 0; index--) {
    // Runs cover their layer: beyond its end are zeros, whatever is below.
    const last = chain[index]!.runs.at(-1);
    const behind = Math.min(size, last === undefined ? 0 : last.offset + last.length);
    model.layer.fill(-1, behind);
    model.data.fill(0, behind);
    model.bytes.fill(0, behind);
    for (const run of chain[index]!.runs) {
      const end = Math.min(size, run.offset + run.length);
      if (run.kind === 'absent' || run.offset >= end) continue;
      model.layer.fill(index, run.offset, end);
      model.data.fill(run.kind === 'data' ? 1 : 0, run.offset, end);
      model.bytes.fill(0, run.offset, end);
      if (run.kind === 'data') {
        const piece = new Uint8Array(end - run.offset);
        run.source.readIntoSync!(piece, run.position);
        model.bytes.set(piece, run.offset);
      }
    }
  }
  return model;
}

/**
 * A region: the merged answer of all layers for one stretch of a disk, as flat arrays over one buffer. It costs 14 bytes a run,
 * whatever the number of layers it was merged from.
 */
import { CorruptError } from '../errors.ts';
import type { Codec, ImageLayer, LayerRun } from '../image/image.ts';
import type { ByteSource } from '../storage/byte-source.ts';
import type { Io } from '../storage/io.ts';

/** `layer` of a run that no layer has an answer for. */
export const NO_LAYER = -1;
/** `target` of a run of zeros. */
export const ZEROS = -1;

/** Where runs of a disk can point: one entry for each source of each layer, and one more where it holds compressed units. */
export interface RunTarget {
  readonly source: ByteSource;
  readonly layer: number;
  /** Runs of this target are compressed units: their position is the unit's. */
  readonly codec?: Codec | undefined;
}

/** Bytes a run takes, and what a region takes besides: objects, buffer and map entry, measured on Node 20 (x64). */
const RUN_BYTES = 14;
/** Bytes more in a region that has compressed runs. */
const STORED_BYTES = 4;
const REGION_OVERHEAD = 900;

export class Region {
  /** First byte on the disk. */
  readonly start: number;
  /** End of each run, relative to `start`; ascending. */
  readonly ends: Uint32Array;
  /** Index into the disk's targets, or ZEROS. */
  readonly targets: Int16Array;
  /** Position in the target's source of the run's first byte; for ZEROS, the layer that says so or NO_LAYER. */
  readonly positions: Float64Array;
  /** For compressed runs: what `CompressedRun.stored` says. Absent in a region without any. */
  readonly stored: Uint32Array | undefined;
  /** When it was last used, in the disk's own count. */
  used = 0;

  /** Room for `count` runs, which the builder fills in; `packed` when there are compressed ones among them. */
  constructor(start: number, count: number, packed = false) {
    const buffer = new ArrayBuffer(count * RUN_BYTES);
    this.start = start;
    this.positions = new Float64Array(buffer, 0, count);
    this.ends = new Uint32Array(buffer, count * 8, count);
    this.targets = new Int16Array(buffer, count * 12, count);
    this.stored = packed ? new Uint32Array(count) : undefined;
  }

  /** Memory held, in bytes. */
  get cost(): number {
    const each = RUN_BYTES + (this.stored === undefined ? 0 : STORED_BYTES);
    return REGION_OVERHEAD + this.ends.length * each;
  }

  /**
   * Index of the run that holds the byte at `relative`. Runs of a fragmented region are mostly of one size (a grain), so the
   * place it would have if all were is tried first; that makes a fragmented map as fast to search as a whole one.
   */
  find(relative: number): number {
    const ends = this.ends;
    let low = 0;
    let high = ends.length - 1;
    if (high === 0) return 0;
    const guess = Math.min(high, Math.floor((relative / ends[high]!) * (high + 1)));
    if (ends[guess]! > relative) {
      if (guess === 0 || ends[guess - 1]! <= relative) return guess;
      high = guess - 1;
    } else {
      low = guess + 1;
    }
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (ends[middle]! > relative) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

interface Gap {
  offset: number;
  end: number;
}

/** Collects runs of one region in any order, merges neighbours that continue each other, and packs them. */
class RegionBuilder {
  readonly #runs: { offset: number; end: number; target: number; position: number; stored: number }[] = [];
  #packed = false;

  add(offset: number, end: number, target: number, position: number): void {
    this.#runs.push({ offset, end, target, position, stored: -1 });
  }

  /** A stretch of the compressed unit at `position`. */
  addPacked(offset: number, end: number, target: number, position: number, stored: number): void {
    this.#packed = true;
    this.#runs.push({ offset, end, target, position, stored });
  }

  finish(start: number, end: number): Region {
    const runs = this.#runs.sort((a, b) => a.offset - b.offset);
    let count = 0;
    let covered = start;
    for (const run of runs) {
      if (run.offset !== covered) {
        throw new CorruptError('Chain map', { position: covered, expected: 'a run', found: `one at ${run.offset}` });
      }
      covered = run.end;
      const last = count > 0 ? runs[count - 1]! : undefined;
      if (
        last !== undefined &&
        run.stored < 0 &&
        last.target === run.target &&
        run.position === (run.target === ZEROS ? last.position : last.position + (run.offset - last.offset))
      ) {
        last.end = run.end;
      } else {
        runs[count++] = run;
      }
    }
    if (covered !== end) throw new CorruptError('Chain map', { position: covered, expected: end, found: covered });
    const region = new Region(start, count, this.#packed);
    for (let i = 0; i < count; i++) {
      const run = runs[i]!;
      region.ends[i] = run.end - start;
      region.targets[i] = run.target;
      region.positions[i] = run.position;
      if (region.stored !== undefined) region.stored[i] = Math.max(0, run.stored);
    }
    return region;
  }
}

/** The runs of a layer for the hull of `gaps`; where that meets damage, for each of them, for it may lie between them. */
function* askLayer(layer: ImageLayer, gaps: readonly Gap[], from: number, to: number): Io<LayerRun[]> {
  try {
    return yield* layer.runs(from, to - from);
  } catch (error) {
    if (!(error instanceof CorruptError) || gaps.length === 1) throw error;
  }
  const runs: LayerRun[] = [];
  for (const gap of gaps) {
    const end = Math.min(gap.end, to);
    if (gap.offset >= end) break;
    for (const run of yield* layer.runs(gap.offset, end - gap.offset)) runs.push(run);
  }
  return runs;
}

/** A layer that leaves a hole in its answer would have bytes taken from the wrong place: refused, whoever is to blame. */
function incomplete(layer: ImageLayer, at: number, run: LayerRun | undefined): CorruptError {
  return new CorruptError('Layer map', {
    source: layer.name,
    expected: `a run at byte ${at} of the disk`,
    found: run === undefined ? 'none' : `one at ${run.offset}`,
  });
}

/**
 * Asks the layers, leaf first, for `[start, end)` until nothing is left open. Each layer is asked once, for the hull of what
 * the layers above left open, so a table is read once however fragmented the layers above are.
 *
 * @throws CorruptError when a table entry that is needed is damaged; what a layer above hides is not needed.
 *
 * @param targetOf index of a source of a layer among the disk's targets.
 */
export function* buildRegion(
  layers: readonly ImageLayer[],
  start: number,
  end: number,
  targetOf: (source: ByteSource, layer: number, codec?: Codec) => number,
): Io<Region> {
  const builder = new RegionBuilder();
  let gaps: Gap[] = [{ offset: start, end }];
  for (let index = 0; index < layers.length && gaps.length > 0; index++) {
    const layer = layers[index]!;
    const from = gaps[0]!.offset;
    // Beyond the end of a layer smaller than the disk are zeros, whatever is below it: who saw that layer saw no more than its
    // size, and a disk that was made smaller and larger again must not show what was cut off.
    const to = Math.min(gaps.at(-1)!.end, layer.virtualSize);
    const open: Gap[] = [];
    const runs = from < to ? yield* askLayer(layer, gaps, from, to) : [];
    let next = 0;
    for (const gap of gaps) {
      let at = gap.offset;
      while (at < gap.end) {
        while (next < runs.length && runs[next]!.offset + runs[next]!.length <= at) next++;
        const run = runs[next];
        if (run === undefined ? at < to : run.offset > at) throw incomplete(layer, at, run);
        const stop = run === undefined ? gap.end : Math.min(gap.end, run.offset + run.length);
        if (run === undefined) {
          builder.add(at, stop, ZEROS, NO_LAYER);
        } else if (run.kind === 'absent') {
          const last = open.at(-1);
          if (last !== undefined && last.end === at) last.end = stop;
          else open.push({ offset: at, end: stop });
        } else if (run.kind === 'zero') {
          builder.add(at, stop, ZEROS, index);
        } else if (run.kind === 'compressed') {
          builder.addPacked(at, stop, targetOf(run.source, index, run.codec), run.position, run.stored);
        } else {
          builder.add(at, stop, targetOf(run.source, index), run.position + (at - run.offset));
        }
        at = stop;
      }
    }
    gaps = open;
  }
  for (const gap of gaps) builder.add(gap.offset, gap.end, ZEROS, NO_LAYER);
  return builder.finish(start, end);
}

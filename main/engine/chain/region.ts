/**
 * A region: the merged answer of all layers for one stretch of a disk, as flat arrays. It costs 14 bytes a run, whatever the
 * number of layers it was merged from.
 */
import { CorruptError } from '../errors.ts';
import type { ImageLayer, LayerRun } from '../image/image.ts';
import type { ByteSource } from '../storage/byte-source.ts';
import type { Io } from '../storage/io.ts';

/** `layer` of a run that no layer has an answer for. */
export const NO_LAYER = -1;
/** `target` of a run of zeros. */
export const ZEROS = -1;

/** Where data runs of a disk can point: one entry for each source of each layer. */
export interface RunTarget {
  readonly source: ByteSource;
  readonly layer: number;
}

export class Region {
  /** First byte on the disk. */
  readonly start: number;
  /** End of each run, relative to `start`; ascending. */
  readonly ends: Uint32Array;
  /** Index into the disk's targets, or ZEROS. */
  readonly targets: Int16Array;
  /** Position in the target's source of the run's first byte; for ZEROS, the layer that says so or NO_LAYER. */
  readonly positions: Float64Array;
  /** When it was last used, in the disk's own count. */
  used = 0;

  constructor(start: number, ends: Uint32Array, targets: Int16Array, positions: Float64Array) {
    this.start = start;
    this.ends = ends;
    this.targets = targets;
    this.positions = positions;
  }

  /** Memory held, in bytes. */
  get cost(): number {
    return 160 + this.ends.length * 14;
  }

  /** Index of the run that holds the byte at `relative`. */
  find(relative: number): number {
    const ends = this.ends;
    let low = 0;
    let high = ends.length - 1;
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
  readonly #runs: { offset: number; end: number; target: number; position: number }[] = [];

  add(offset: number, end: number, target: number, position: number): void {
    this.#runs.push({ offset, end, target, position });
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
        last.target === run.target &&
        run.position === (run.target === ZEROS ? last.position : last.position + (run.offset - last.offset))
      ) {
        last.end = run.end;
      } else {
        runs[count++] = run;
      }
    }
    if (covered !== end) throw new CorruptError('Chain map', { position: covered, expected: end, found: covered });
    const ends = new Uint32Array(count);
    const targets = new Int16Array(count);
    const positions = new Float64Array(count);
    for (let i = 0; i < count; i++) {
      const run = runs[i]!;
      ends[i] = run.end - start;
      targets[i] = run.target;
      positions[i] = run.position;
    }
    return new Region(start, ends, targets, positions);
  }
}

/**
 * Asks the layers, leaf first, for `[start, end)` until nothing is left open. Each layer is asked once, for the hull of what
 * the layers above left open, so a table is read once however fragmented the layers above are.
 *
 * @param targetOf index of a source of a layer among the disk's targets.
 */
export function* buildRegion(
  layers: readonly ImageLayer[],
  start: number,
  end: number,
  targetOf: (source: ByteSource, layer: number) => number,
): Io<Region> {
  const builder = new RegionBuilder();
  let gaps: Gap[] = [{ offset: start, end }];
  for (let index = 0; index < layers.length && gaps.length > 0; index++) {
    const layer = layers[index]!;
    const from = gaps[0]!.offset;
    // A layer smaller than the disk says nothing about what lies beyond its end.
    const to = Math.min(gaps.at(-1)!.end, layer.virtualSize);
    const open: Gap[] = [];
    const runs: LayerRun[] = from < to ? yield* layer.runs(from, to - from) : [];
    let next = 0;
    for (const gap of gaps) {
      let at = gap.offset;
      while (at < gap.end) {
        while (next < runs.length && runs[next]!.offset + runs[next]!.length <= at) next++;
        const run = runs[next];
        const stop = run === undefined ? gap.end : Math.min(gap.end, run.offset + run.length);
        if (run === undefined || run.kind === 'absent') {
          const last = open.at(-1);
          if (last !== undefined && last.end === at) last.end = stop;
          else open.push({ offset: at, end: stop });
        } else if (run.kind === 'zero') {
          builder.add(at, stop, ZEROS, index);
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

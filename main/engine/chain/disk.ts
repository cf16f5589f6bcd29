/**
 * A chain of layers read as one device, at one point in time.
 *
 * The map of the chain is built lazily, a region of 32 MiB at a time, merged once across all layers and kept in a cache with a
 * ceiling. A warm read therefore costs one look-up and one read of a file, at depth 1 and at depth 64 alike, and opening costs
 * the depth of the chain, not the size of the disk.
 *
 * A region in which a table is damaged is not cached: reads there ask the layers for exactly their range, so that one bad
 * entry costs its own grain and not its neighbours.
 */
import { CorruptError, UnsupportedError } from '../errors.ts';
import type { Codec, ImageLayer } from '../image/image.ts';
import { type ByteSource, checkRange } from '../storage/byte-source.ts';
import { type Io, runAsync, runSync } from '../storage/io.ts';
import { buildRegion, NO_LAYER, type Region, type RunTarget, ZEROS } from './region.ts';
import { UNIT_CACHE_BYTES, UnitCache, type UnitPlace } from './units.ts';

/** Bytes of disk per region: what one grain table of a hosted sparse VMDK covers. Must stay below 4 GiB. */
export const REGION_BYTES = 32 << 20;
/** Default ceiling of a disk's map cache, in bytes. */
export const MAP_CACHE_BYTES = 64 << 20;

/** A stretch of the disk with one answer to "where are these bytes". */
export interface DiskRun {
  readonly offset: number;
  readonly length: number;
  /** `compressed`: a part of one compressed unit, whose place `position` is. */
  readonly kind: 'data' | 'compressed' | 'zero';
  /** Index of the layer that answers (0 is the leaf); undefined where no layer has anything. */
  readonly layer?: number;
  /** For data: the source, and the byte in it. For compressed: where the unit begins. */
  readonly source?: ByteSource;
  readonly position?: number;
}

export interface DiskOptions {
  readonly name?: string;
  /** Answer `read` on the calling thread (data workers, command line). */
  readonly synchronous?: boolean;
  /** Ceiling of the map cache in bytes. */
  readonly mapCacheBytes?: number;
  /** Ceiling of the cache of decompressed units in bytes. */
  readonly unitCacheBytes?: number;
}

export class Disk implements ByteSource {
  readonly name: string;
  readonly size: number;
  /** Leaf first. The disk owns them and closes them. */
  readonly layers: readonly ImageLayer[];
  readonly #synchronous: boolean;
  readonly #ceiling: number;
  readonly #targets: RunTarget[] = [];
  readonly #targetIndex = new Map<ByteSource, number>();
  /** Targets of compressed units, by codec and source. */
  readonly #packedIndex = new Map<Codec, Map<ByteSource, number>>();
  readonly #units: UnitCache;
  readonly #regions = new Map<number, Region>();
  readonly #building = new Map<number, Promise<Region | undefined>>();
  /** Regions with damage in their tables; see above. */
  readonly #broken = new Set<number>();
  #cached = 0;
  #tick = 0;

  /** @param layers from leaf to base; at least one. */
  constructor(layers: readonly ImageLayer[], options: DiskOptions = {}) {
    const leaf = layers[0];
    if (leaf === undefined) throw new RangeError('a disk needs a layer');
    this.layers = layers;
    this.size = leaf.virtualSize;
    this.name = options.name ?? leaf.name;
    this.#synchronous = options.synchronous ?? false;
    this.#ceiling = options.mapCacheBytes ?? MAP_CACHE_BYTES;
    this.#units = new UnitCache(options.unitCacheBytes ?? UNIT_CACHE_BYTES);
  }

  /** Memory that the map cache holds now, in bytes. */
  get mapCacheUsed(): number {
    return this.#cached;
  }

  readonly #targetOf = (source: ByteSource, layer: number, codec?: Codec): number => {
    const known = (codec === undefined ? this.#targetIndex : this.#packedIndex.get(codec))?.get(source);
    if (known !== undefined) return known;
    const index = this.#targets.length;
    if (index > 0x7fff) throw new UnsupportedError('a chain of more than 32,767 files', { source: this.name });
    let among = this.#targetIndex;
    if (codec !== undefined) {
      checkUnit(codec, source);
      among = this.#packedIndex.get(codec) ?? new Map();
      this.#packedIndex.set(codec, among);
    }
    this.#targets.push({ source, layer, codec });
    among.set(source, index);
    return index;
  };

  /** Where the compressed unit is that the byte at `at` lies in: run number `run` of the region, which is one of `target`. */
  #place(region: Region, run: number, target: RunTarget, at: number): UnitPlace {
    const codec = target.codec!;
    return {
      source: target.source,
      codec,
      position: region.positions[run]!,
      stored: region.stored![run]!,
      offset: at - (at % codec.unit),
    };
  }

  #build(index: number): Io<Region> {
    const start = index * REGION_BYTES;
    return buildRegion(this.layers, start, Math.min(start + REGION_BYTES, this.size), this.#targetOf);
  }

  #buildRange(offset: number, end: number): Io<Region> {
    return buildRegion(this.layers, offset, end, this.#targetOf);
  }

  #keep(index: number, region: Region): Region {
    region.used = ++this.#tick;
    // A synchronous read may have built it while an asynchronous one was at it.
    this.#cached += region.cost - (this.#regions.get(index)?.cost ?? 0);
    this.#regions.set(index, region);
    if (this.#cached > this.#ceiling) this.#evict(region);
    return region;
  }

  /** Drops the regions used longest ago until a quarter of the ceiling is free: seldom, so that a hit costs one store. */
  #evict(keep: Region): void {
    const byAge = [...this.#regions].sort((a, b) => a[1].used - b[1].used);
    for (const [index, region] of byAge) {
      if (this.#cached <= this.#ceiling * 0.75) break;
      if (region === keep) continue;
      this.#regions.delete(index);
      this.#cached -= region.cost;
    }
  }

  /** Remembers a region whose tables are damaged, and says whether `error` was that. */
  #noteBroken(index: number, error: unknown): boolean {
    if (!(error instanceof CorruptError)) return false;
    // A disk that is broken all over needs no longer memory than this: what is not noted is only tried again.
    if (this.#broken.size < 65_536) this.#broken.add(index);
    return true;
  }

  /** The region at `index`; undefined when its tables are damaged and exact ranges must be asked for. */
  #regionSync(index: number): Region | undefined {
    const known = this.#regions.get(index);
    if (known !== undefined) {
      known.used = ++this.#tick;
      return known;
    }
    if (this.#broken.has(index)) return undefined;
    try {
      return this.#keep(index, runSync(this.#build(index)));
    } catch (error) {
      if (this.#noteBroken(index, error)) return undefined;
      throw error;
    }
  }

  async #regionAsync(index: number): Promise<Region | undefined> {
    const known = this.#regions.get(index);
    if (known !== undefined) {
      known.used = ++this.#tick;
      return known;
    }
    if (this.#broken.has(index)) return undefined;
    let building = this.#building.get(index);
    if (building === undefined) {
      building = runAsync(this.#build(index))
        .then((region) => this.#keep(index, region))
        .catch((error: unknown) => {
          if (this.#noteBroken(index, error)) return undefined;
          throw error;
        })
        .finally(() => this.#building.delete(index));
      this.#building.set(index, building);
    }
    return building;
  }

  /** Fills `target` with the disk's bytes from `offset`, on this thread. */
  readonly readIntoSync = (target: Uint8Array, offset: number): void => {
    const end = offset + target.length;
    if (!(offset >= 0 && end <= this.size)) checkRange(this, offset, target.length);
    let at = offset;
    while (at < end) {
      const index = Math.floor(at / REGION_BYTES);
      const stop = Math.min(end, (index + 1) * REGION_BYTES);
      const region = this.#regionSync(index) ?? runSync(this.#buildRange(at, stop));
      let run = region.find(at - region.start);
      while (at < stop) {
        const runEnd = Math.min(stop, region.start + region.ends[run]!);
        const piece = runEnd - at === target.length ? target : target.subarray(at - offset, runEnd - offset);
        const to = region.targets[run]!;
        if (to === ZEROS) {
          piece.fill(0);
        } else {
          const target = this.#targets[to]!;
          if (target.codec === undefined) {
            const runStart = region.start + (run === 0 ? 0 : region.ends[run - 1]!);
            target.source.readIntoSync!(piece, region.positions[run]! + (at - runStart));
          } else {
            const place = this.#place(region, run, target, at);
            piece.set(this.#units.getSync(place).subarray(at - place.offset, runEnd - place.offset));
          }
        }
        at = runEnd;
        run++;
      }
    }
  };

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const bytes = new Uint8Array(length);
    if (this.#synchronous) {
      this.readIntoSync(bytes, offset);
      return bytes;
    }
    const reads: Promise<void>[] = [];
    for (let at = offset; at < offset + length; ) {
      const index = Math.floor(at / REGION_BYTES);
      const stop = Math.min(offset + length, (index + 1) * REGION_BYTES);
      const region = (await this.#regionAsync(index)) ?? (await runAsync(this.#buildRange(at, stop)));
      for (let run = region.find(at - region.start); at < stop; run++) {
        const end = Math.min(stop, region.start + region.ends[run]!);
        if (region.targets[run] !== ZEROS) reads.push(this.#readRun(region, run, at, end, bytes, offset));
        at = end;
      }
    }
    await settled(reads);
    return bytes;
  }

  /** Puts the disk's bytes from `at` to `end`, which lie in one run, into `bytes`, whose first is the disk's at `base`. */
  async #readRun(region: Region, run: number, at: number, end: number, bytes: Uint8Array, base: number): Promise<void> {
    const target = this.#targets[region.targets[run]!]!;
    if (target.codec !== undefined) {
      const place = this.#place(region, run, target, at);
      const unit = await this.#units.get(place);
      bytes.set(unit.subarray(at - place.offset, end - place.offset), at - base);
      return;
    }
    const runStart = region.start + (run === 0 ? 0 : region.ends[run - 1]!);
    bytes.set(await target.source.read(region.positions[run]! + (at - runStart), end - at), at - base);
  }

  *#runsOf(region: Region, offset: number, end: number): Generator<DiskRun> {
    let at = offset;
    for (let run = region.find(at - region.start); at < end; run++) {
      const stop = Math.min(end, region.start + region.ends[run]!);
      const to = region.targets[run]!;
      const position = region.positions[run]!;
      if (to === ZEROS) {
        yield position === NO_LAYER
          ? { offset: at, length: stop - at, kind: 'zero' }
          : { offset: at, length: stop - at, kind: 'zero', layer: position };
      } else {
        const target = this.#targets[to]!;
        const runStart = region.start + (run === 0 ? 0 : region.ends[run - 1]!);
        yield {
          offset: at,
          length: stop - at,
          kind: target.codec === undefined ? 'data' : 'compressed',
          layer: target.layer,
          source: target.source,
          position: target.codec === undefined ? position + (at - runStart) : position,
        };
      }
      at = stop;
    }
  }

  /**
   * The runs that cover `[offset, offset + length)`, in order, each naming its layer; neighbours that continue each other are
   * one run. Memory grows with the number of runs in the range: walk a whole disk with `walk`.
   */
  async runs(offset: number, length: number): Promise<DiskRun[]> {
    checkRange(this, offset, length);
    const out: DiskRun[] = [];
    for (let at = offset; at < offset + length; ) {
      const index = Math.floor(at / REGION_BYTES);
      const stop = Math.min(offset + length, (index + 1) * REGION_BYTES);
      const region = (await this.#regionAsync(index)) ?? (await runAsync(this.#buildRange(at, stop)));
      for (const run of this.#runsOf(region, at, stop)) append(out, run);
      at = stop;
    }
    return out;
  }

  /** As `runs`, without leaving the thread. */
  runsSync(offset: number, length: number): DiskRun[] {
    checkRange(this, offset, length);
    const out: DiskRun[] = [];
    for (let at = offset; at < offset + length; ) {
      const index = Math.floor(at / REGION_BYTES);
      const stop = Math.min(offset + length, (index + 1) * REGION_BYTES);
      const region = this.#regionSync(index) ?? runSync(this.#buildRange(at, stop));
      for (const run of this.#runsOf(region, at, stop)) append(out, run);
      at = stop;
    }
    return out;
  }

  /** All runs of the disk, a region at a time, so that memory stays bounded. */
  async *walk(offset = 0, end = this.size): AsyncIterable<DiskRun[]> {
    for (let at = offset; at < end; ) {
      const stop = Math.min(end, (Math.floor(at / REGION_BYTES) + 1) * REGION_BYTES);
      yield this.#synchronous ? this.runsSync(at, stop - at) : await this.runs(at, stop - at);
      at = stop;
    }
  }

  async close(): Promise<void> {
    this.#regions.clear();
    this.#cached = 0;
    this.#units.clear();
    await Promise.all(this.layers.map((layer) => layer.close()));
  }
}

/** Adds a run, or lengthens the last one when the new one continues it. */
export function append(runs: DiskRun[], run: DiskRun): void {
  const last = runs.at(-1);
  if (last !== undefined && continues(last, run)) runs[runs.length - 1] = { ...last, length: last.length + run.length };
  else runs.push(run);
}

function continues(a: DiskRun, b: DiskRun): boolean {
  if (a.kind !== b.kind || a.layer !== b.layer || a.offset + a.length !== b.offset) return false;
  // Each compressed unit is a run of its own, but one that two regions of the map share is one.
  if (a.kind === 'compressed') return a.source === b.source && a.position === b.position;
  return a.kind === 'zero' || (a.source === b.source && a.position! + a.length === b.position);
}

/** Waits for all of them, and throws what the first of them threw: none goes on reading when its caller has been told. */
async function settled(reads: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(reads)) if (result.status === 'rejected') throw result.reason;
}

/** A unit must lie in one region of the map, and be found from any byte in it. */
function checkUnit(codec: Codec, source: ByteSource): void {
  const { unit } = codec;
  if (Number.isInteger(Math.log2(unit)) && unit >= 512 && unit <= REGION_BYTES) return;
  throw new UnsupportedError(`compressed units of ${unit} bytes`, { source: source.name });
}

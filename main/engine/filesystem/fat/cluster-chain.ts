/**
 * The clusters of one file or directory, found as far as they are asked for and kept as extents, so that a contiguous file
 * of 4 GiB costs two numbers. A chain that returns to a cluster of its own is refused there.
 */
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { clusterPosition, type FatLayout } from './boot-sector.ts';
import { endOfChain, type FatTable } from './table.ts';

/** `count` clusters of the chain from number `index` lie at cluster `start` of the volume. */
export interface ClusterExtent {
  readonly index: number;
  readonly start: number;
  readonly count: number;
}

/** Clusters per page of the visited set: 32,768 in 4 KiB. */
const visitedPage = 1 << 15;

export class ClusterChain {
  readonly #table: FatTable;
  readonly #layout: FatLayout;
  readonly #volume: ByteSource;
  readonly #first: number;
  /** Pairs of chain index and volume cluster, one for each extent. */
  #extents = new Uint32Array(8);
  #extentCount = 0;
  #length = 0;
  #last = 0;
  #ended = false;
  #visited = new Map<number, Uint8Array>();
  #walking: Promise<void> | undefined;

  /** @param first a valid cluster number. */
  constructor(volume: ByteSource, layout: FatLayout, table: FatTable, first: number) {
    this.#volume = volume;
    this.#layout = layout;
    this.#table = table;
    this.#first = first;
  }

  /**
   * Follows the chain until it has `count` clusters or ends. @returns how many of them there are.
   * @throws CorruptError naming the FAT entry that breaks the chain before that.
   */
  async reach(count: number): Promise<number> {
    while (this.#length < count && !this.#ended) {
      this.#walking ??= this.#walk(count).finally(() => {
        this.#walking = undefined;
      });
      await this.#walking;
    }
    return Math.min(count, this.#length);
  }

  /** Clusters found so far. */
  get length(): number {
    return this.#length;
  }

  /** Position in the volume of the FAT entry of the last cluster found. */
  get lastEntryPosition(): number {
    return this.#table.position(this.#length === 0 ? this.#first : this.#last);
  }

  async #walk(count: number): Promise<void> {
    while (this.#length < count) {
      const next =
        this.#length === 0 ? this.#first : (this.#table.nextCached(this.#last) ?? (await this.#table.next(this.#last)));
      if (next === endOfChain) {
        this.#ended = true;
        this.#visited.clear();
        return;
      }
      this.#visit(next);
      this.#append(next);
    }
  }

  #visit(cluster: number): void {
    const key = Math.floor(cluster / visitedPage);
    let page = this.#visited.get(key);
    if (page === undefined) {
      page = new Uint8Array(visitedPage / 8);
      this.#visited.set(key, page);
    }
    const bit = cluster % visitedPage;
    const byte = page[bit >> 3]!;
    if ((byte & (1 << (bit & 7))) !== 0) {
      throw new CorruptError(`FAT entry ${this.#last}`, {
        source: this.#volume.name,
        position: this.#table.position(this.#last),
        expected: 'a cluster that is not in this chain yet',
        found: `a loop to cluster ${cluster}`,
      });
    }
    page[bit >> 3] = byte | (1 << (bit & 7));
  }

  #append(cluster: number): void {
    if (this.#length === 0 || cluster !== this.#last + 1) {
      if (this.#extentCount * 2 === this.#extents.length) {
        const larger = new Uint32Array(this.#extents.length * 2);
        larger.set(this.#extents);
        this.#extents = larger;
      }
      this.#extents[this.#extentCount * 2] = this.#length;
      this.#extents[this.#extentCount * 2 + 1] = cluster;
      this.#extentCount++;
    }
    this.#last = cluster;
    this.#length++;
  }

  /** The extents of `[index, index + count)`, which `reach` must have covered, in order. */
  *extents(index: number, count: number): Generator<ClusterExtent> {
    let low = 0;
    let high = this.#extentCount;
    while (low + 1 < high) {
      const middle = (low + high) >>> 1;
      if (this.#extents[middle * 2]! <= index) low = middle;
      else high = middle;
    }
    const end = index + count;
    for (let i = low; i < this.#extentCount && index < end; i++) {
      const from = this.#extents[i * 2]!;
      const to = i + 1 < this.#extentCount ? this.#extents[i * 2 + 2]! : this.#length;
      const stop = Math.min(to, end);
      yield { index, start: this.#extents[i * 2 + 1]! + index - from, count: stop - index };
      index = stop;
    }
  }

  /** Bytes `[offset, offset + length)` of the chain as stretches of the volume; `reach` must have covered them. */
  *stretches(offset: number, length: number): Generator<{ offset: number; position: number; length: number }> {
    if (length === 0) return;
    const size = this.#layout.clusterSize;
    const first = Math.floor(offset / size);
    const end = offset + length;
    for (const extent of this.extents(first, Math.ceil(end / size) - first)) {
      const from = Math.max(offset, extent.index * size);
      const to = Math.min(end, (extent.index + extent.count) * size);
      const position = clusterPosition(this.#layout, extent.start) + from - extent.index * size;
      yield { offset: from, position, length: to - from };
    }
  }
}

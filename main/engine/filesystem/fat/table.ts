/**
 * The file allocation table: which cluster follows which. Read in pages as chains touch them, so that memory stays bounded
 * however large the table is.
 *
 * Where the FATs are mirrored and the first gives an impossible answer within a chain, the others are asked: a valid answer
 * there is what the copies are for. That it was used is kept as evidence.
 *
 * Source: fatgen103, "FAT Data Structure".
 */
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type FatLayout, isCluster } from './boot-sector.ts';

/** Answer of `next` at the end of a chain. No cluster has this number. */
export const endOfChain = 0;

const pageSize = 64 * 1024;
const maxPages = 64;
const maxNotes = 20;

export class FatTable {
  readonly #volume: ByteSource;
  readonly #layout: FatLayout;
  readonly #evidence: string[];
  /** Pages by `copy * pagesPerFat + page`, least recently used first. */
  readonly #pages = new Map<number, Uint8Array>();
  readonly #pageSize: number;
  readonly #pagesPerFat: number;
  /** Bytes of a FAT that describe clusters. */
  readonly #usedSize: number;
  readonly #firstEnd: number;
  #lastPage = -1;
  #lastBytes: Uint8Array = new Uint8Array(0);
  /** Entries for which another FAT had to answer. */
  repairs = 0;
  #notes = 0;

  constructor(volume: ByteSource, layout: FatLayout, evidence: string[]) {
    this.#volume = volume;
    this.#layout = layout;
    this.#evidence = evidence;
    const { entryBits, clusterCount } = layout;
    this.#usedSize = Math.ceil(((clusterCount + 2) * (entryBits === 28 ? 32 : entryBits)) / 8);
    // FAT12 entries straddle bytes, and pages; a whole FAT12 has 6 KiB, so it is one page.
    this.#pageSize = entryBits === 12 ? this.#usedSize : pageSize;
    this.#pagesPerFat = Math.ceil(this.#usedSize / this.#pageSize);
    this.#firstEnd = entryBits === 12 ? 0xff8 : entryBits === 16 ? 0xfff8 : 0x0ffffff8;
  }

  /** The cluster after `cluster`, or `endOfChain`, when that needs no reading; undefined when it does or is damaged. */
  nextCached(cluster: number): number | undefined {
    const offset = this.#offset(cluster);
    const page = Math.floor(offset / this.#pageSize) + this.#layout.activeFat * this.#pagesPerFat;
    if (page !== this.#lastPage) return undefined;
    return this.#judge(this.#decode(this.#lastBytes, offset % this.#pageSize, cluster));
  }

  /** The cluster after `cluster`, or `endOfChain`. @throws CorruptError where the entry is no possible part of a chain. */
  async next(cluster: number): Promise<number> {
    const { activeFat, fatCount, mirrored } = this.#layout;
    const value = await this.#entry(activeFat, cluster);
    const next = this.#judge(value);
    if (next !== undefined) return next;
    const position = this.position(cluster);
    const found = this.#describe(value);
    for (let copy = 0; mirrored && copy < fatCount; copy++) {
      if (copy === activeFat) continue;
      const other = this.#judge(await this.#entry(copy, cluster));
      if (other === undefined) continue;
      this.repairs++;
      const note = `FAT entry ${cluster} at byte ${position} is damaged (${found}); FAT ${copy + 1} was used for it`;
      if (this.#notes < maxNotes && !this.#evidence.includes(note)) {
        this.#notes++;
        this.#evidence.push(note);
      }
      return other;
    }
    throw new CorruptError(`FAT entry ${cluster}`, {
      source: this.#volume.name,
      position,
      expected: `a cluster from 2 to ${this.#layout.clusterCount + 1} or the end of the chain`,
      found,
    });
  }

  /** Byte position of a cluster's entry in the active FAT. */
  position(cluster: number): number {
    return this.#layout.fatStart + this.#layout.activeFat * this.#layout.fatSize + this.#offset(cluster);
  }

  /** An entry of the active FAT as it is stored, reserved high bits of FAT32 included. */
  async raw(cluster: number): Promise<number> {
    return this.#entry(this.#layout.activeFat, cluster, 0xffffffff);
  }

  /** Clusters marked free, counted over the whole FAT: for FAT12 and FAT16, which have at most 128 KiB of it. */
  async countFree(): Promise<number> {
    let free = 0;
    let loaded = -1;
    let bytes: Uint8Array = new Uint8Array(0);
    for (let cluster = 2; cluster <= this.#layout.clusterCount + 1; cluster++) {
      const offset = this.#offset(cluster);
      const page = Math.floor(offset / this.#pageSize);
      if (page !== loaded) {
        bytes = await this.#page(this.#layout.activeFat, page);
        loaded = page;
      }
      if (this.#decode(bytes, offset % this.#pageSize, cluster) === 0) free++;
    }
    return free;
  }

  #offset(cluster: number): number {
    const { entryBits } = this.#layout;
    return entryBits === 28 ? cluster * 4 : entryBits === 16 ? cluster * 2 : cluster + (cluster >> 1);
  }

  #decode(bytes: Uint8Array, at: number, cluster: number, mask = 0x0fffffff): number {
    const low = bytes[at]! | (bytes[at + 1]! << 8);
    switch (this.#layout.entryBits) {
      case 12:
        return (cluster & 1) === 0 ? low & 0xfff : low >> 4;
      case 16:
        return low;
      case 28:
        return ((low | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) & mask) >>> 0;
    }
  }

  /** An entry as a step of a chain; undefined when it is none: free, reserved, bad, beyond the last cluster. */
  #judge(value: number): number | undefined {
    if (value >= this.#firstEnd) return endOfChain;
    return isCluster(this.#layout, value) ? value : undefined;
  }

  #describe(value: number): string {
    if (value === 0) return '0 (free)';
    if (value === this.#firstEnd - 1) return `0x${value.toString(16)} (bad cluster)`;
    return `0x${value.toString(16)}`;
  }

  async #entry(copy: number, cluster: number, mask?: number): Promise<number> {
    const offset = this.#offset(cluster);
    const bytes = await this.#page(copy, Math.floor(offset / this.#pageSize));
    return this.#decode(bytes, offset % this.#pageSize, cluster, mask);
  }

  async #page(copy: number, page: number): Promise<Uint8Array> {
    const key = copy * this.#pagesPerFat + page;
    let bytes = this.#pages.get(key);
    if (bytes === undefined) {
      const at = page * this.#pageSize;
      const length = Math.min(this.#pageSize, this.#usedSize - at);
      bytes = await this.#volume.read(this.#layout.fatStart + copy * this.#layout.fatSize + at, length);
    } else {
      this.#pages.delete(key);
    }
    this.#pages.set(key, bytes);
    if (this.#pages.size > maxPages) this.#pages.delete(this.#pages.keys().next().value!);
    if (copy === this.#layout.activeFat) {
      this.#lastPage = key;
      this.#lastBytes = bytes;
    }
    return bytes;
  }
}

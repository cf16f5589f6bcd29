/**
 * FAT volumes built in memory from Microsoft's specification, independently of the reader, so that tests know where every
 * structure is and can break it. Clusters are handed out in order, or every other one for fragmented files.
 */

export interface FatBuilderOptions {
  readonly type: 12 | 16 | 32;
  readonly clusters: number;
  readonly sectorSize?: number;
  readonly sectorsPerCluster?: number;
  readonly rootEntries?: number;
  readonly bootLabel?: string;
}

export interface FatFileOptions {
  readonly longName?: string;
  readonly attributes?: number;
  /** NT's case bits. */
  readonly caseBits?: number;
  /** DOS date and time words: modified, created, and the accessed date. */
  readonly modified?: readonly [date: number, time: number];
  readonly created?: readonly [date: number, time: number, tenMs: number];
  readonly accessed?: number;
  /** Leaves a free cluster after each one. */
  readonly fragmented?: boolean;
}

/** A directory under construction, and where its entries are. */
export interface FatFolder {
  readonly cluster: number;
  readonly clusters: number[];
  used: number;
}

/** 2021-06-15, 12:30:20. */
export const someDate = ((2021 - 1980) << 9) | (6 << 5) | 15;
export const someTime = (12 << 11) | (30 << 5) | 10;

export class FatBuilder {
  readonly image: Uint8Array;
  readonly sectorSize: number;
  readonly clusterSize: number;
  readonly fatStart: number;
  readonly fatSize: number;
  readonly rootStart: number;
  readonly dataStart: number;
  readonly root: FatFolder;
  readonly #type: 12 | 16 | 32;
  readonly #clusters: number;
  readonly #rootSize: number;
  readonly #view: DataView;
  #next: number;

  constructor(options: FatBuilderOptions) {
    const { type, clusters, sectorSize = 512, sectorsPerCluster = 1, bootLabel = 'NO NAME' } = options;
    const rootEntries = type === 32 ? 0 : (options.rootEntries ?? 512);
    const reserved = type === 32 ? 32 : 1;
    const fatSectors = Math.ceil(((clusters + 2) * type) / 8 / sectorSize);
    const rootSectors = Math.ceil((rootEntries * 32) / sectorSize);
    const sectors = reserved + 2 * fatSectors + rootSectors + clusters * sectorsPerCluster;
    this.image = new Uint8Array(sectors * sectorSize);
    this.#view = new DataView(this.image.buffer);
    this.#type = type;
    this.#clusters = clusters;
    this.#rootSize = rootEntries * 32;
    this.sectorSize = sectorSize;
    this.clusterSize = sectorsPerCluster * sectorSize;
    this.fatStart = reserved * sectorSize;
    this.fatSize = fatSectors * sectorSize;
    this.rootStart = this.fatStart + 2 * this.fatSize;
    this.dataStart = this.rootStart + rootSectors * sectorSize;
    this.#next = 2;

    const v = this.#view;
    this.image.set([0xeb, type === 32 ? 0x58 : 0x3c, 0x90]);
    this.#text(3, 'BUILDER ', 8);
    v.setUint16(11, sectorSize, true);
    v.setUint8(13, sectorsPerCluster);
    v.setUint16(14, reserved, true);
    v.setUint8(16, 2);
    v.setUint16(17, rootEntries, true);
    if (sectors < 0x10000 && type !== 32) v.setUint16(19, sectors, true);
    else v.setUint32(32, sectors, true);
    v.setUint8(21, 0xf8);
    if (type === 32) {
      v.setUint32(36, fatSectors, true);
      v.setUint32(44, 2, true);
      v.setUint16(48, 1, true);
      v.setUint16(50, 6, true);
    } else {
      v.setUint16(22, fatSectors, true);
    }
    const extended = type === 32 ? 64 : 36;
    v.setUint8(extended, 0x80);
    v.setUint8(extended + 2, 0x29);
    v.setUint32(extended + 3, 0xdeadbeef, true);
    this.#text(extended + 7, bootLabel, 11);
    this.#text(extended + 18, `FAT${type}`, 8);
    this.image[510] = 0x55;
    this.image[511] = 0xaa;
    this.setFat(0, type === 12 ? 0xff8 : type === 16 ? 0xfff8 : 0x0ffffff8);
    this.setFat(1, this.#end());
    if (type === 32) {
      this.image.copyWithin(6 * sectorSize, 0, 512);
      v.setUint32(sectorSize, 0x41615252, true);
      v.setUint32(sectorSize + 484, 0x61417272, true);
      v.setUint32(sectorSize + 488, clusters - 1, true);
      v.setUint32(sectorSize + 508, 0xaa550000, true);
      this.root = this.#folder();
    } else {
      this.root = { cluster: 0, clusters: [], used: 0 };
    }
  }

  #end(): number {
    return this.#type === 12 ? 0xfff : this.#type === 16 ? 0xffff : 0x0fffffff;
  }

  #text(at: number, text: string, width: number): void {
    this.image.set(Buffer.from(text.padEnd(width).slice(0, width), 'latin1'), at);
  }

  /** Byte position of a cluster's entry in the first FAT (of its first byte on FAT12). */
  fatEntryAt(cluster: number): number {
    return this.fatStart + (this.#type === 12 ? cluster + (cluster >> 1) : (cluster * this.#type) / 8);
  }

  /** Sets an entry in both FATs, or in one (0 or 1). */
  setFat(cluster: number, value: number, only?: number): void {
    for (const copy of only === undefined ? [0, 1] : [only]) {
      const at = this.fatEntryAt(cluster) + copy * this.fatSize;
      if (this.#type === 32) {
        this.#view.setUint32(at, value, true);
      } else if (this.#type === 16) {
        this.#view.setUint16(at, value, true);
      } else {
        const old = this.#view.getUint16(at, true);
        const odd = (cluster & 1) === 1;
        this.#view.setUint16(at, odd ? (old & 0x000f) | (value << 4) : (old & 0xf000) | value, true);
      }
    }
  }

  clusterAt(cluster: number): number {
    return this.dataStart + (cluster - 2) * this.clusterSize;
  }

  #take(fragmented: boolean): number {
    const cluster = this.#next;
    if (cluster > this.#clusters + 1) throw new Error('the volume under construction is full');
    this.#next += fragmented ? 2 : 1;
    return cluster;
  }

  /** Takes clusters and links them. */
  chain(count: number, fragmented = false): number[] {
    const clusters = Array.from({ length: count }, () => this.#take(fragmented));
    clusters.forEach((cluster, i) => {
      this.setFat(cluster, clusters[i + 1] ?? this.#end());
    });
    return clusters;
  }

  #folder(): FatFolder {
    const clusters = this.chain(1);
    return { cluster: clusters[0]!, clusters, used: 0 };
  }

  /** Position of the next 32 bytes of a folder, which grows by a cluster when it is full. */
  #slot(folder: FatFolder): number {
    const offset = folder.used * 32;
    folder.used++;
    if (folder.cluster === 0) {
      if (offset >= this.#rootSize) throw new Error('the root under construction is full');
      return this.rootStart + offset;
    }
    const index = Math.floor(offset / this.clusterSize);
    if (index === folder.clusters.length) {
      const cluster = this.#take(false);
      this.setFat(folder.clusters.at(-1)!, cluster);
      this.setFat(cluster, this.#end());
      folder.clusters.push(cluster);
    }
    return this.clusterAt(folder.clusters[index]!) + (offset % this.clusterSize);
  }

  /** Appends 32 bytes as they are. @returns their position. */
  raw(folder: FatFolder, bytes: Uint8Array): number {
    const at = this.#slot(folder);
    this.image.set(bytes.subarray(0, 32), at);
    return at;
  }

  /** The parts of a long name, last first. */
  longName(folder: FatFolder, name: string, checksum: number): number[] {
    const units = [...Array(name.length).keys()].map((i) => name.charCodeAt(i));
    const parts = Math.ceil(units.length / 13);
    const offsets = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    const positions: number[] = [];
    for (let part = parts; part >= 1; part--) {
      const bytes = new Uint8Array(32);
      const view = new DataView(bytes.buffer);
      bytes[0] = part | (part === parts ? 0x40 : 0);
      bytes[11] = 0x0f;
      bytes[13] = checksum;
      offsets.forEach((offset, i) => {
        const at = (part - 1) * 13 + i;
        view.setUint16(offset, at < units.length ? units[at]! : at === units.length ? 0 : 0xffff, true);
      });
      positions.push(this.raw(folder, bytes));
    }
    return positions;
  }

  /** The checksum of 11 name bytes: rotate right, add. */
  static checksum(short: Uint8Array): number {
    let sum = 0;
    for (const byte of short.subarray(0, 11)) sum = (((sum >> 1) | (sum << 7)) + byte) & 0xff;
    return sum;
  }

  /** Appends a short entry with its long name. `short` is 11 characters, Latin-1. @returns the short entry's position. */
  entry(folder: FatFolder, short: string, cluster: number, size: number, options: FatFileOptions = {}): number {
    const bytes = new Uint8Array(32);
    const view = new DataView(bytes.buffer);
    bytes.set(Buffer.from(short.padEnd(11).slice(0, 11), 'latin1'));
    if (options.longName !== undefined) this.longName(folder, options.longName, FatBuilder.checksum(bytes));
    bytes[11] = options.attributes ?? 0x20;
    bytes[12] = options.caseBits ?? 0;
    const [createdDate, createdTime, tenMs] = options.created ?? [someDate, someTime, 0];
    bytes[13] = tenMs;
    view.setUint16(14, createdTime, true);
    view.setUint16(16, createdDate, true);
    view.setUint16(18, options.accessed ?? someDate, true);
    view.setUint16(20, cluster >>> 16, true);
    const [date, time] = options.modified ?? [someDate, someTime];
    view.setUint16(22, time, true);
    view.setUint16(24, date, true);
    view.setUint16(26, cluster & 0xffff, true);
    view.setUint32(28, size, true);
    return this.raw(folder, bytes);
  }

  /** A file with content. */
  file(
    folder: FatFolder,
    short: string,
    content: Uint8Array,
    options: FatFileOptions = {},
  ): { at: number; clusters: number[] } {
    const clusters = this.chain(Math.ceil(content.length / this.clusterSize), options.fragmented ?? false);
    clusters.forEach((cluster, i) => {
      const piece = content.subarray(i * this.clusterSize, (i + 1) * this.clusterSize);
      this.image.set(piece, this.clusterAt(cluster));
    });
    return { at: this.entry(folder, short, clusters[0] ?? 0, content.length, options), clusters };
  }

  /** A folder with its `.` and `..`. */
  folder(parent: FatFolder, short: string, options: FatFileOptions = {}): FatFolder & { at: number } {
    const folder = this.#folder();
    this.entry(folder, '.', folder.cluster, 0, { attributes: 0x10 });
    this.entry(folder, '..', parent === this.root ? 0 : parent.cluster, 0, { attributes: 0x10 });
    const at = this.entry(parent, short, folder.cluster, 0, { attributes: 0x10, ...options });
    return Object.assign(folder, { at });
  }
}

/** Bytes that depend on their place, so that a swapped cluster shows. */
export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 9) * 7 + seed * 101) & 0xff;
  return bytes;
}

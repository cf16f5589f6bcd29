/**
 * Writes VHDs in code: what no program at hand can write (differencing disks, XenServer's batmap, other block sizes), and broken
 * ones. Follows Microsoft's "Virtual Hard Disk Image Format Specification" 1.0 and, for the batmap, blktap's `include/vhd.h`; nothing
 * of the engine's, so that the two can disagree. libvhdi, 7-Zip and QEMU read what it writes in test/peers/vhd.test.ts.
 */

export const SECTOR = 512;
const EPOCH = Date.UTC(2000, 0, 1) / 1000;
/** 2023-11-14T22:13:20Z, so that images are the same in every run. */
export const MADE = 1_700_000_000;

export interface Locator {
  code: string;
  data: Buffer;
  /** Bytes, as Virtual PC and XenServer write it, when absent; the specification has sectors. */
  space?: number;
}

export interface VhdParent {
  id?: string;
  /** The unicode name in the header. */
  name?: string | Buffer;
  /** Unix seconds. */
  modified?: number;
  locators?: readonly Locator[];
}

export interface FooterOptions {
  size: number;
  id?: string;
  creator?: string;
  creatorVersion?: number;
  creatorHost?: number;
  originalSize?: number;
  /** Cylinders, heads, sectors. */
  geometry?: readonly [number, number, number];
  savedState?: number;
  hidden?: number;
  features?: number;
  version?: number;
  type?: number;
}

export interface VhdOptions extends FooterOptions {
  /** Sector number -> its 512 bytes; the blocks of the sectors listed are allocated. */
  sectors: ReadonlyMap<number, Buffer>;
  blockSize?: number;
  /** Makes the disk differencing. */
  parent?: VhdParent;
  /** Blocks that are allocated whether or not a sector of theirs is listed. */
  allocated?: readonly number[];
  /** Blocks in the file from the last to the first. */
  backwards?: boolean;
  tableEntries?: number;
  /** Bits of bitmaps from the lowest of each byte on, as tapdisk 0.1 had them. */
  lowBitFirst?: boolean;
  /** Marks the part of the last block behind the end of the disk, as writers of whole blocks do. */
  markBehindEnd?: boolean;
  /** What the file has in sectors that are not marked. */
  unusedByte?: number;
  batmap?: boolean;
  /** Key hash cookie of the batmap header. */
  encrypted?: boolean;
}

export interface VhdImage {
  bytes: Buffer;
  /** Byte positions of what tests like to break. */
  at: {
    footer: number;
    header: number;
    table: number;
    batmapHeader: number;
    batmap: number;
    locators: number[];
    /** Block number -> where its bitmap and its data begin. */
    blocks: Map<number, { bitmap: number; data: number }>;
  };
}

export function checksum(bytes: Buffer, field: number): number {
  let sum = 0;
  for (const [i, byte] of bytes.entries()) if (i < field || i > field + 3) sum += byte;
  return (0xffff_ffff - sum) >>> 0;
}

/** Writes the checksum of the footer at `at` anew. */
export function sumFooter(bytes: Buffer, at: number): void {
  bytes.writeUInt32BE(checksum(bytes.subarray(at, at + 512), 64), at + 64);
}

/** Writes the checksum of the dynamic disk header at `at` anew. */
export function sumHeader(bytes: Buffer, at: number): void {
  bytes.writeUInt32BE(checksum(bytes.subarray(at, at + 1024), 36), at + 36);
}

function uuidBytes(id: string): Buffer {
  return Buffer.from(id.replaceAll('-', ''), 'hex');
}

/** The specification's appendix, "CHS Calculation". */
export function chs(size: number): [number, number, number] {
  const total = Math.min(Math.floor(size / SECTOR), 65535 * 16 * 255);
  if (total >= 65535 * 16 * 63) return [Math.floor(total / 255 / 16), 16, 255];
  let spt = 17;
  let cylinderHeads = Math.floor(total / spt);
  let heads = Math.max(4, Math.floor((cylinderHeads + 1023) / 1024));
  if (cylinderHeads >= heads * 1024 || heads > 16) {
    spt = 31;
    heads = 16;
    cylinderHeads = Math.floor(total / spt);
  }
  if (cylinderHeads >= heads * 1024) {
    spt = 63;
    heads = 16;
    cylinderHeads = Math.floor(total / spt);
  }
  return [Math.floor(cylinderHeads / heads), heads, spt];
}

export function buildFooter(options: FooterOptions & { dataOffset?: bigint }): Buffer {
  const footer = Buffer.alloc(512);
  footer.write('conectix', 0, 'latin1');
  footer.writeUInt32BE(options.features ?? 2, 8);
  footer.writeUInt32BE(options.version ?? 0x10000, 12);
  footer.writeBigUInt64BE(options.dataOffset ?? 0xffff_ffff_ffff_ffffn, 16);
  footer.writeUInt32BE(MADE - EPOCH, 24);
  footer.write(options.creator ?? 'win ', 28, 'latin1');
  footer.writeUInt32BE(options.creatorVersion ?? 0x000a_0000, 32);
  footer.writeUInt32BE(options.creatorHost ?? 0x5769_326b, 36);
  footer.writeBigUInt64BE(BigInt(options.originalSize ?? options.size), 40);
  footer.writeBigUInt64BE(BigInt(options.size), 48);
  const [cylinders, heads, sectors] = options.geometry ?? chs(options.size);
  footer.writeUInt16BE(cylinders, 56);
  footer[58] = heads;
  footer[59] = sectors;
  footer.writeUInt32BE(options.type ?? 2, 60);
  uuidBytes(options.id ?? '11111111-2222-3333-4444-555555555555').copy(footer, 68);
  footer[84] = options.savedState ?? 0;
  footer[85] = options.hidden ?? 0;
  sumFooter(footer, 0);
  return footer;
}

/** A fixed disk: its bytes and a footer. */
export function buildFixed(content: Buffer, options: Partial<FooterOptions> = {}): Buffer {
  return Buffer.concat([content, buildFooter({ size: content.length, ...options })]);
}

const padded = (bytes: number) => Math.max(1, Math.ceil(bytes / SECTOR)) * SECTOR;

function utf16be(text: string): Buffer {
  return Buffer.from(text, 'utf16le').swap16();
}

/** A locator for a Windows path. */
export function windowsLocator(code: 'W2ru' | 'W2ku', path: string, space?: number): Locator {
  return { code, data: Buffer.from(path, 'utf16le'), ...(space === undefined ? {} : { space }) };
}

/** A dynamic disk; with a parent, a differencing one. */
export function buildVhd(options: VhdOptions): VhdImage {
  const { size, parent } = options;
  const blockSize = options.blockSize ?? 2 << 20;
  const perBlock = blockSize / SECTOR;
  const blocks = Math.ceil(size / blockSize);
  const entries = options.tableEntries ?? blocks;
  const bitmapBytes = padded(Math.ceil(perBlock / 8));
  const header = Buffer.alloc(1024);
  header.write('cxsparse', 0, 'latin1');
  header.writeBigUInt64BE(0xffff_ffff_ffff_ffffn, 8);
  const table = 1536;
  header.writeBigUInt64BE(BigInt(table), 16);
  header.writeUInt32BE(0x10000, 24);
  header.writeUInt32BE(entries, 28);
  header.writeUInt32BE(blockSize, 32);
  let end = table + padded(entries * 4);
  const batmapHeader = end;
  const mapBytes = padded(Math.ceil(entries / 8));
  if (options.batmap) end += 512 + mapBytes;
  const locators: { at: number; data: Buffer }[] = [];
  if (parent !== undefined) {
    if (parent.id !== undefined) uuidBytes(parent.id).copy(header, 40);
    header.writeUInt32BE(Math.max(0, (parent.modified ?? EPOCH) - EPOCH), 56);
    const name = parent.name ?? '';
    (typeof name === 'string' ? utf16be(name) : name).copy(header, 64, 0, 512);
    for (const [i, { code, data, space }] of (parent.locators ?? []).entries()) {
      const at = 576 + i * 24;
      header.write(code, at, 'latin1');
      header.writeUInt32BE(space ?? padded(data.length), at + 4);
      header.writeUInt32BE(data.length, at + 8);
      header.writeBigUInt64BE(BigInt(end), at + 16);
      locators.push({ at: end, data });
      end += padded(data.length);
    }
  }
  sumHeader(header, 0);

  const used = new Set(options.allocated ?? []);
  for (const sector of options.sectors.keys()) used.add(Math.floor(sector / perBlock));
  const order = [...used].sort((a, b) => (options.backwards ? b - a : a - b));
  const places = new Map<number, { bitmap: number; data: number }>();
  for (const block of order) {
    places.set(block, { bitmap: end, data: end + bitmapBytes });
    end += bitmapBytes + blockSize;
  }
  const footer = buildFooter({ ...options, type: options.type ?? (parent === undefined ? 3 : 4), dataOffset: 512n });
  const bytes = Buffer.alloc(end + 512);
  footer.copy(bytes, 0);
  header.copy(bytes, 512);
  bytes.fill(0xff, table, table + padded(entries * 4));
  for (const { at, data } of locators) data.copy(bytes, at);
  const mark = (bitmap: number, bit: number) => {
    bytes[bitmap + (bit >> 3)]! |= options.lowBitFirst ? 1 << (bit & 7) : 0x80 >> (bit & 7);
  };
  const full: number[] = [];
  for (const [block, { bitmap, data }] of places) {
    bytes.writeUInt32BE(bitmap / SECTOR, table + block * 4);
    bytes.fill(options.unusedByte ?? 0, data, data + blockSize);
    let marked = 0;
    for (let i = 0; i < perBlock; i++) {
      const behind = (block * perBlock + i) * SECTOR >= size;
      const content = options.sectors.get(block * perBlock + i);
      if (content === undefined && !(behind && options.markBehindEnd)) continue;
      mark(bitmap, i);
      marked++;
      content?.copy(bytes, data + i * SECTOR);
    }
    if (marked === perBlock) full.push(block);
  }
  if (options.batmap) {
    bytes.write('tdbatmap', batmapHeader, 'latin1');
    bytes.writeBigUInt64BE(BigInt(batmapHeader + 512), batmapHeader + 8);
    bytes.writeUInt32BE(mapBytes / SECTOR, batmapHeader + 16);
    bytes.writeUInt32BE(0x0001_0002, batmapHeader + 20);
    for (const block of full) bytes[batmapHeader + 512 + (block >> 3)]! |= 0x80 >> (block & 7);
    sumBatmap(bytes, batmapHeader);
    if (options.encrypted) bytes[batmapHeader + 29] = 1;
  }
  footer.copy(bytes, end);
  const at = { footer: end, header: 512, table, batmapHeader, batmap: batmapHeader + 512, blocks: places };
  return { bytes, at: { ...at, locators: locators.map((locator) => locator.at) } };
}

/** Writes the checksum of the batmap whose header is at `at` anew. */
export function sumBatmap(bytes: Buffer, at: number): void {
  const start = Number(bytes.readBigUInt64BE(at + 8));
  let sum = 0;
  for (const byte of bytes.subarray(start, start + bytes.readUInt32BE(at + 16) * SECTOR)) sum += byte;
  bytes.writeUInt32BE((0xffff_ffff - sum) >>> 0, at + 24);
}

/** The disk that the sectors make: those of the parent, or zeros, where this layer has nothing. */
export function vhdModel(options: Pick<VhdOptions, 'size' | 'sectors'>, parent?: Buffer): Buffer {
  const disk = Buffer.alloc(Math.ceil(options.size / SECTOR) * SECTOR);
  parent?.copy(disk);
  for (const [sector, content] of options.sectors) content.copy(disk, sector * SECTOR);
  return disk.subarray(0, options.size);
}

/** A sector whose bytes follow from its number and a seed: text that compresses a little, and never zeros. */
export function sectorContent(sector: number, seed: number): Buffer {
  return Buffer.from(`layer ${seed} sector ${sector} `.padEnd(32, String.fromCharCode(97 + (sector % 26))).repeat(16));
}

/** Sectors `first` to `first + count`, with content by `sectorContent`. */
export function sectorRange(first: number, count: number, seed = 1): [number, Buffer][] {
  return Array.from({ length: count }, (_, i) => [first + i, sectorContent(first + i, seed)]);
}

/**
 * Writes VHDX files in code: differencing ones, logs that have to be replayed, and broken ones, which no program at hand writes.
 * Follows Microsoft's [MS-VHDX] (2.2 header section, 2.3 log, 2.4 blocks, 2.5 BAT, 2.6 metadata) and nothing of the engine's, so
 * that the two can disagree; QEMU and libvhdi read what it writes in test/peers/vhdx.test.ts.
 */

export const MIB = 1 << 20;
const KIB = 1024;

/** CRC-32C bit by bit: slow, and not the engine's. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
  }
  return (crc ^ 0xffff_ffff) >>> 0;
}

/** Writes the checksum of the structure `[at, at + length)` at its byte 4. */
export function seal(bytes: Buffer, at: number, length: number): void {
  bytes.writeUInt32LE(0, at + 4);
  bytes.writeUInt32LE(crc32c(bytes.subarray(at, at + length)), at + 4);
}

/** The 16 bytes of a GUID, whose first three parts are little-endian numbers. */
export function guidBytes(guid: string): Buffer {
  const hex = Buffer.from(guid.replaceAll('-', ''), 'hex');
  return Buffer.concat([
    hex.subarray(0, 4).reverse(),
    hex.subarray(4, 6).reverse(),
    hex.subarray(6, 8).reverse(),
    hex.subarray(8),
  ]);
}

const GUIDS = {
  bat: '2dc27766-f623-4200-9d64-115e9bfd4a08',
  metadata: '8b7ca206-4790-4b9a-b8fe-575f050f886e',
  fileParameters: 'caa16737-fa36-4d43-b3b6-33f0aa44e76b',
  virtualDiskSize: '2fa54224-cd1b-4876-b211-5dbed83bf4b8',
  virtualDiskId: 'beca12ab-b2e6-4523-93ef-c309e000c746',
  logicalSectorSize: '8141bf1d-a96f-4709-ba47-f233a8faab5f',
  physicalSectorSize: 'cda348c7-445d-4471-9cc9-e9885251c556',
  parentLocator: 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c',
  locatorType: 'b04aefb7-d19e-4a81-b789-25b8e9445913',
} as const;

/**
 * What one block is: all of its bytes; some of its sectors, by their number in the block; or a state without bytes. What is not
 * listed is `absent` (NOT_PRESENT).
 */
export type Block = Buffer | ReadonlyMap<number, Buffer> | 'absent' | 'undefined' | 'zero' | 'unmapped';

const STATES = { absent: 0, undefined: 1, zero: 2, unmapped: 3 } as const;

export interface VhdxOptions {
  readonly virtualSize: number;
  readonly blockSize?: number;
  readonly sectorSize?: number;
  readonly fixed?: boolean;
  /** In the order in which they are laid into the file. */
  readonly blocks: ReadonlyMap<number, Block>;
  /** Entries of the parent locator, in order; makes the disk a differencing one. */
  readonly parent?: Readonly<Record<string, string>>;
  readonly dataWriteGuid?: string;
  readonly creator?: string;
}

export interface VhdxImage {
  readonly bytes: Buffer;
  readonly options: VhdxOptions;
  /** Byte positions of what tests like to break. */
  readonly at: {
    readonly headers: readonly [number, number];
    readonly regionTables: readonly [number, number];
    readonly log: number;
    readonly metadata: number;
    readonly bat: number;
    /** The BAT entry of a payload block. */
    entry(block: number): number;
    /** The BAT entry of a chunk's sector bitmap block. */
    bitmapEntry(chunk: number): number;
    /** The entry of a metadata item in its table. */
    item(name: keyof typeof GUIDS): number;
    /** The content of a metadata item. */
    content(name: keyof typeof GUIDS): number;
    readonly blocks: ReadonlyMap<number, number>;
    readonly bitmaps: ReadonlyMap<number, number>;
  };
}

export const DATA_WRITE_GUID = '11111111-2222-4333-8444-555555555555';
export const FILE_WRITE_GUID = '66666666-7777-4888-8999-aaaaaaaaaaaa';
export const DISK_ID = 'bbbbbbbb-cccc-4ddd-8eee-ffffffffffff';
export const LOG_GUID = '0badcafe-0001-4002-8003-000000000004';

/** A parent locator as Hyper-V writes it. */
export function parentLocator(parent: string, linkage: string, more: Record<string, string> = {}) {
  return {
    parent_linkage: `{${linkage}}`,
    absolute_win32_path: `C:\\Hyper-V\\Virtual hard disks\\${parent}`,
    relative_path: `.\\${parent}`,
    volume_path: `\\\\?\\Volume{0eba351e-5634-46d6-a8cf-4ddc2d6ac0b9}\\Hyper-V\\Virtual hard disks\\${parent}`,
    parent_linkage2: '{00000000-0000-0000-0000-000000000000}',
    ...more,
  };
}

export function buildVhdx(options: VhdxOptions): VhdxImage {
  const { virtualSize, blockSize = MIB, sectorSize = 512, parent, blocks } = options;
  const ratio = (2 ** 23 * sectorSize) / blockSize;
  const count = Math.ceil(virtualSize / blockSize);
  const chunks = Math.ceil(count / ratio);
  const entries = parent === undefined ? count + Math.floor((count - 1) / ratio) : chunks * (ratio + 1);
  const batLength = Math.ceil((entries * 8) / MIB) * MIB;
  const [log, metadata, bat] = [MIB, 2 * MIB, 3 * MIB];
  let end = bat + batLength;
  const places = new Map<number, number>();
  const bitmaps = new Map<number, number>();
  for (const [block, content] of blocks) {
    if (typeof content === 'string') continue;
    const chunk = Math.floor(block / ratio);
    if (!Buffer.isBuffer(content) && !bitmaps.has(chunk)) {
      bitmaps.set(chunk, end);
      end += MIB;
    }
    places.set(block, end);
    end += blockSize;
  }
  const bytes = Buffer.alloc(end);
  bytes.write('vhdxfile', 0, 'latin1');
  bytes.write(options.creator ?? 'Chainlift test builder', 8, 'utf16le');

  const items = writeMetadata(bytes, metadata, options);
  writeRegionTables(bytes, [
    [GUIDS.bat, bat, batLength],
    [GUIDS.metadata, metadata, MIB],
  ]);
  const entry = (block: number) => bat + (block + Math.floor(block / ratio)) * 8;
  const bitmapEntry = (chunk: number) => bat + (chunk * (ratio + 1) + ratio) * 8;
  for (const [chunk, at] of bitmaps) bytes.writeBigUInt64LE(BigInt(at) | 6n, bitmapEntry(chunk));
  for (const [block, content] of blocks) {
    if (typeof content === 'string') {
      bytes.writeBigUInt64LE(BigInt(STATES[content]), entry(block));
      continue;
    }
    const at = places.get(block)!;
    if (Buffer.isBuffer(content)) {
      if (content.length !== blockSize) throw new Error(`block ${block} is not a whole block`);
      bytes.writeBigUInt64LE(BigInt(at) | 6n, entry(block));
      content.copy(bytes, at);
      continue;
    }
    bytes.writeBigUInt64LE(BigInt(at) | 7n, entry(block));
    const chunk = Math.floor(block / ratio);
    for (const [sector, data] of content) {
      if (data.length !== sectorSize) throw new Error(`sector ${sector} of block ${block} is not a whole sector`);
      data.copy(bytes, at + sector * sectorSize);
      const bit = ((block % ratio) * blockSize) / sectorSize + sector;
      const byte = bitmaps.get(chunk)! + Math.floor(bit / 8);
      bytes[byte]! |= 1 << (bit % 8);
    }
  }
  const image: VhdxImage = {
    bytes,
    options,
    at: {
      headers: [64 * KIB, 128 * KIB],
      regionTables: [192 * KIB, 256 * KIB],
      log,
      metadata,
      bat,
      entry,
      bitmapEntry,
      item: (name) => items.get(name)!.entry,
      content: (name) => items.get(name)!.content,
      blocks: places,
      bitmaps,
    },
  };
  writeHeader(image, 0, { sequence: 6n });
  writeHeader(image, 1, { sequence: 7n });
  return image;
}

export interface HeaderFields {
  readonly sequence?: bigint;
  readonly logGuid?: string;
  readonly logVersion?: number;
  readonly version?: number;
  readonly logLength?: number;
  readonly logOffset?: number;
  readonly dataWriteGuid?: string;
}

/** Writes one of the two headers anew. */
export function writeHeader(image: VhdxImage, which: 0 | 1, fields: HeaderFields): void {
  const { bytes } = image;
  const at = image.at.headers[which];
  bytes.fill(0, at, at + 4 * KIB);
  bytes.write('head', at, 'latin1');
  bytes.writeBigUInt64LE(fields.sequence ?? BigInt(which + 1), at + 8);
  guidBytes(FILE_WRITE_GUID).copy(bytes, at + 16);
  guidBytes(fields.dataWriteGuid ?? image.options.dataWriteGuid ?? DATA_WRITE_GUID).copy(bytes, at + 32);
  if (fields.logGuid !== undefined) guidBytes(fields.logGuid).copy(bytes, at + 48);
  bytes.writeUInt16LE(fields.logVersion ?? 0, at + 64);
  bytes.writeUInt16LE(fields.version ?? 1, at + 66);
  bytes.writeUInt32LE(fields.logLength ?? MIB, at + 68);
  bytes.writeBigUInt64LE(BigInt(fields.logOffset ?? image.at.log), at + 72);
  seal(bytes, at, 4 * KIB);
}

/** Writes both region tables: GUID, position, length, and whether it is required (it is unless told otherwise). */
export function writeRegionTables(bytes: Buffer, regions: readonly [string, number, number, boolean?][]): void {
  for (const at of [192 * KIB, 256 * KIB]) {
    bytes.fill(0, at, at + 64 * KIB);
    bytes.write('regi', at, 'latin1');
    bytes.writeUInt32LE(regions.length, at + 8);
    for (const [i, [guid, position, length, required]] of regions.entries()) {
      const entry = at + 16 + i * 32;
      guidBytes(guid).copy(bytes, entry);
      bytes.writeBigUInt64LE(BigInt(position), entry + 16);
      bytes.writeUInt32LE(length, entry + 24);
      bytes.writeUInt32LE(required === false ? 0 : 1, entry + 28);
    }
    seal(bytes, at, 64 * KIB);
  }
}

/** The regions of a built image, as `writeRegionTables` takes them. */
export function regionsOf(image: VhdxImage): [string, number, number, boolean?][] {
  const batLength = image.bytes.readUInt32LE(image.at.regionTables[0] + 16 + 24);
  return [
    [GUIDS.bat, image.at.bat, batLength],
    [GUIDS.metadata, image.at.metadata, MIB],
  ];
}

function writeMetadata(bytes: Buffer, metadata: number, options: VhdxOptions) {
  const u32 = (...values: number[]) => Buffer.concat(values.map((value) => Buffer.from(Uint32Array.of(value).buffer)));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(options.virtualSize));
  const flags = (options.fixed ? 1 : 0) | (options.parent === undefined ? 0 : 2);
  const items: [keyof typeof GUIDS, Buffer, number][] = [
    ['fileParameters', u32(options.blockSize ?? MIB, flags), 4],
    ['virtualDiskSize', size, 6],
    ['logicalSectorSize', u32(options.sectorSize ?? 512), 6],
    ['physicalSectorSize', u32(4096), 6],
    ['virtualDiskId', guidBytes(DISK_ID), 6],
  ];
  if (options.parent !== undefined) items.push(['parentLocator', locatorItem(options.parent), 4]);
  bytes.write('metadata', metadata, 'latin1');
  bytes.writeUInt16LE(items.length, metadata + 10);
  const places = new Map<string, { entry: number; content: number }>();
  let offset = 64 * KIB;
  for (const [i, [name, content, itemFlags]] of items.entries()) {
    const entry = metadata + 32 + i * 32;
    guidBytes(GUIDS[name]).copy(bytes, entry);
    bytes.writeUInt32LE(offset, entry + 16);
    bytes.writeUInt32LE(content.length, entry + 20);
    bytes.writeUInt32LE(itemFlags, entry + 24);
    content.copy(bytes, metadata + offset);
    places.set(name, { entry, content: metadata + offset });
    offset += content.length;
  }
  return places;
}

function locatorItem(values: Readonly<Record<string, string>>): Buffer {
  const entries = Object.entries(values);
  const header = Buffer.alloc(20 + entries.length * 12);
  guidBytes(GUIDS.locatorType).copy(header);
  header.writeUInt16LE(entries.length, 18);
  const texts: Buffer[] = [];
  let offset = header.length;
  for (const [i, pair] of entries.entries()) {
    for (const [k, value] of pair.entries()) {
      const text = Buffer.from(value, 'utf16le');
      header.writeUInt32LE(offset, 20 + i * 12 + k * 4);
      header.writeUInt16LE(text.length, 28 + i * 12 + k * 2);
      offset += text.length;
      texts.push(text);
    }
  }
  return Buffer.concat([header, ...texts]);
}

/** A write that the log describes: a sector of 4 KiB, or zeros. */
export type LogWrite = { position: number; data: Buffer } | { position: number; zeros: number };

export interface LogEntryOptions {
  readonly sequence: bigint;
  /** Offset within the log of the entry with which its sequence begins. */
  readonly tail: number;
  readonly writes: readonly LogWrite[];
  readonly flushed: number;
  readonly last?: number;
  readonly guid?: string;
}

export function logEntry(options: LogEntryOptions): Buffer {
  const { writes, sequence } = options;
  const descriptors = Math.ceil((64 + writes.length * 32) / 4096) * 4096;
  const sectors = writes.filter((write) => 'data' in write).length;
  const entry = Buffer.alloc(descriptors + sectors * 4096);
  entry.write('loge', 0, 'latin1');
  entry.writeUInt32LE(entry.length, 8);
  entry.writeUInt32LE(options.tail, 12);
  entry.writeBigUInt64LE(sequence, 16);
  entry.writeUInt32LE(writes.length, 24);
  guidBytes(options.guid ?? LOG_GUID).copy(entry, 32);
  entry.writeBigUInt64LE(BigInt(options.flushed), 48);
  entry.writeBigUInt64LE(BigInt(options.last ?? options.flushed), 56);
  let sector = descriptors;
  for (const [i, write] of writes.entries()) {
    const at = 64 + i * 32;
    entry.writeBigUInt64LE(BigInt(write.position), at + 16);
    entry.writeBigUInt64LE(sequence, at + 24);
    if ('zeros' in write) {
      entry.write('zero', at, 'latin1');
      entry.writeBigUInt64LE(BigInt(write.zeros), at + 8);
      continue;
    }
    if (write.data.length !== 4096) throw new Error('the log writes sectors of 4 KiB');
    entry.write('desc', at, 'latin1');
    write.data.copy(entry, at + 4, 4092, 4096);
    write.data.copy(entry, at + 8, 0, 8);
    entry.write('data', sector, 'latin1');
    entry.writeUInt32LE(Number(sequence >> 32n), sector + 4);
    write.data.copy(entry, sector + 8, 8, 4092);
    entry.writeUInt32LE(Number(sequence & 0xffff_ffffn), sector + 4092);
    sector += 4096;
  }
  seal(entry, 0, entry.length);
  return entry;
}

/** Lays an entry into the log's ring at `offset`, and returns the offset behind it. */
export function placeEntry(image: VhdxImage, offset: number, entry: Buffer, logLength = MIB): number {
  for (let i = 0; i < entry.length; i += 4096) {
    entry.copy(image.bytes, image.at.log + ((offset + i) % logLength), i, i + 4096);
  }
  return (offset + entry.length) % logLength;
}

/** Says in both headers that there is a log to replay. */
export function markDirty(image: VhdxImage, fields: HeaderFields = {}): void {
  writeHeader(image, 0, { sequence: 8n, logGuid: LOG_GUID, ...fields });
  writeHeader(image, 1, { sequence: 9n, logGuid: LOG_GUID, ...fields });
}

/**
 * Takes sectors of 4 KiB out of the file and into its log, as if the host had stopped between the two: the file has `before` there
 * (zeros unless told otherwise), the log what belongs there. Three entries behind an older one that was done long ago and whose
 * writes must not be done again; by default they go round the end of the log.
 */
export function dirty(
  image: VhdxImage,
  positions: readonly number[],
  before = Buffer.alloc(4096),
  start = MIB - 6 * 4096,
): void {
  const { bytes } = image;
  const size = bytes.length;
  const sectors = positions.map((position) => ({
    position,
    data: Buffer.from(bytes.subarray(position, position + 4096)),
  }));
  const half = Math.ceil(sectors.length / 2);
  const junk = Buffer.alloc(4096, 0xee);
  const done = logEntry({
    sequence: 4n,
    tail: start,
    flushed: size,
    writes: [{ position: positions[0]!, data: junk }],
  });
  const tail = placeEntry(image, start, done);
  const next = [
    // Overwritten by the entry after it.
    logEntry({
      sequence: 5n,
      tail,
      flushed: size,
      writes: [
        { position: positions[0]!, data: junk },
        { position: positions.at(-1)!, zeros: 4096 },
      ],
    }),
    logEntry({ sequence: 6n, tail, flushed: size, writes: sectors.slice(0, half) }),
    logEntry({ sequence: 7n, tail, flushed: size, writes: sectors.slice(half) }),
  ];
  let offset = tail;
  for (const entry of next) offset = placeEntry(image, offset, entry);
  for (const { position } of sectors) before.copy(bytes, position);
  markDirty(image);
}

/** What the disk reads as over `below`, which is what its parent reads as (zeros for a base). */
export function diskOf(image: Pick<VhdxImage, 'options'>, below?: Buffer): Buffer {
  const { virtualSize, blockSize = MIB, sectorSize = 512, blocks } = image.options;
  const disk = Buffer.alloc(Math.ceil(virtualSize / blockSize) * blockSize);
  below?.copy(disk, 0, 0, Math.min(below.length, virtualSize));
  for (const [block, content] of blocks) {
    if (content === 'absent') continue;
    if (typeof content === 'string') disk.fill(0, block * blockSize, (block + 1) * blockSize);
    else if (Buffer.isBuffer(content)) content.copy(disk, block * blockSize);
    else for (const [sector, data] of content) data.copy(disk, block * blockSize + sector * sectorSize);
  }
  return disk.subarray(0, virtualSize);
}

/**
 * Makes a file that another program wrote and closed one whose host stopped before the last entry of its log was carried out: the
 * places that this entry writes are zeros again, and the headers name its log. The entry stays as that program wrote it.
 */
export function undoLastEntry(bytes: Buffer): void {
  const header = bytes.subarray(64 * KIB, 68 * KIB);
  const log = Number(header.readBigUInt64LE(72));
  const end = log + header.readUInt32LE(68);
  let last = -1;
  for (let at = log; at < end; at += 4096) {
    if (bytes.toString('latin1', at, at + 4) !== 'loge') continue;
    if (last < 0 || bytes.readBigUInt64LE(at + 16) > bytes.readBigUInt64LE(last + 16)) last = at;
  }
  if (last < 0) throw new Error('the log has no entry');
  for (let i = 0; i < bytes.readUInt32LE(last + 24); i++) {
    const place = Number(bytes.readBigUInt64LE(last + 64 + i * 32 + 16));
    bytes.fill(0, place, place + 4096);
  }
  for (const at of [64 * KIB, 128 * KIB]) {
    bytes.copy(bytes, at + 48, last + 32, last + 48);
    seal(bytes, at, 4 * KIB);
  }
}

/**
 * Writes VDI images in code: the sub-formats that no program of Debian main writes (differencing, old headers, other block sizes,
 * extra bytes before blocks) and broken ones. Follows VirtualBox's src/VBox/Storage/VDICore.h and nothing of the engine's; QEMU
 * reads what it can of it in test/peers/vdi.test.ts.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What one block is: its bytes (a whole block), zeros by its entry, or nothing. */
export type Block = Buffer | 'zero' | 'free';

export interface VdiOptions {
  /** Bytes of the disk. */
  size: number;
  /** Block number on the disk -> content; what is not listed is free. Blocks are stored in this order. */
  blocks: ReadonlyMap<number, Block>;
  type?: 'dynamic' | 'fixed' | 'undo' | 'differencing';
  blockSize?: number;
  blockExtra?: number;
  /** `plus`: 400 bytes of header, as VirtualBox writes it; `one`: 384, as QEMU does; `zero`: version 0. */
  header?: 'plus' | 'one' | 'zero';
  uuid?: string;
  modification?: string;
  parent?: string;
  parentModification?: string;
  comment?: string;
  flags?: number;
}

export interface VdiImage {
  bytes: Buffer;
  /** Byte positions of what tests like to break. */
  at: { header: number; map: number; data: number };
}

const MIB = 1 << 20;
const TYPES = { dynamic: 1, fixed: 2, undo: 3, differencing: 4 } as const;
export const NO_UUID = '00000000-0000-0000-0000-000000000000';

/** A UUID that is the same in every run. */
export function uuidOf(number: number): string {
  return `1c0ffee0-${number.toString(16).padStart(4, '0')}-4000-8000-00000000beef`;
}

/** As RTUUID lies in a file: the first three groups little endian. */
function uuidBytes(uuid: string): Buffer {
  const b = Buffer.from(uuid.replaceAll('-', ''), 'hex');
  return Buffer.concat([
    b.subarray(0, 4).reverse(),
    b.subarray(4, 6).reverse(),
    b.subarray(6, 8).reverse(),
    b.subarray(8),
  ]);
}

export function buildVdi(options: VdiOptions): VdiImage {
  const blockSize = options.blockSize ?? MIB;
  const extra = options.blockExtra ?? 0;
  const kind = options.header ?? 'plus';
  const count = Math.ceil(options.size / blockSize);
  const type = options.type ?? (options.parent === undefined ? 'dynamic' : 'differencing');
  const entries = Buffer.alloc(count * 4, 0xff);
  const stored: Buffer[] = [];
  for (const [index, content] of options.blocks) {
    if (content === 'free') continue;
    if (content === 'zero') {
      entries.writeUInt32LE(0xfffffffe, index * 4);
      continue;
    }
    if (content.length !== blockSize) throw new Error(`block ${index} is not a whole block`);
    entries.writeUInt32LE(stored.length / 2, index * 4);
    stored.push(Buffer.alloc(extra, 0xe5), content);
  }
  const allocated = stored.length / 2;

  const align = (value: number) => Math.ceil(value / 512) * 512;
  const headerBytes = { plus: 400, one: 384, zero: 348 }[kind];
  const map = kind === 'zero' ? 72 + headerBytes : align(72 + headerBytes);
  const data = kind === 'zero' ? map + entries.length : align(map + entries.length);
  const front = Buffer.alloc(data);
  front.write('<<< Oracle VM VirtualBox Disk Image >>>\n', 0, 'latin1');
  front.writeUInt32LE(0xbeda107f, 64);
  front.writeUInt32LE(kind === 'zero' ? 0x00000002 : 0x00010001, 68);
  let at = 72;
  const u32 = (value: number) => {
    front.writeUInt32LE(value, at);
    at += 4;
  };
  const geometry = (sector: number) => {
    for (const value of [0, 0, 0, sector]) u32(value);
  };
  if (kind !== 'zero') u32(headerBytes);
  u32(TYPES[type]);
  u32(options.flags ?? 0);
  front.write(options.comment ?? '', at, 'utf8');
  at += 256;
  if (kind !== 'zero') {
    u32(map);
    u32(data);
  }
  geometry(512);
  if (kind !== 'zero') u32(0);
  front.writeBigUInt64LE(BigInt(options.size), at);
  at += 8;
  u32(blockSize);
  if (kind !== 'zero') u32(extra);
  u32(count);
  u32(allocated);
  const uuids = [
    options.uuid ?? uuidOf(1),
    options.modification ?? uuidOf(2),
    options.parent ?? NO_UUID,
    options.parentModification ?? NO_UUID,
  ];
  for (const uuid of kind === 'zero' ? uuids.slice(0, 3) : uuids) {
    uuidBytes(uuid).copy(front, at);
    at += 16;
  }
  if (kind === 'plus') geometry(512);
  entries.copy(front, map);
  return { bytes: Buffer.concat([front, ...stored]), at: { header: 72, map, data } };
}

export function writeVdi(folder: string, name: string, options: VdiOptions): VdiImage {
  const image = buildVdi(options);
  writeFileSync(join(folder, name), image.bytes);
  return image;
}

/** The disk as this image alone has it: zeros where it has nothing. */
export function vdiModel(options: Pick<VdiOptions, 'size' | 'blocks' | 'blockSize'>): Buffer {
  return overlay(Buffer.alloc(options.size), options);
}

/** The disk with this image laid over what is below it. Changes and returns `disk`. */
export function overlay(disk: Buffer, options: Pick<VdiOptions, 'blocks' | 'blockSize'>): Buffer {
  const blockSize = options.blockSize ?? MIB;
  for (const [index, content] of options.blocks) {
    if (content === 'free') continue;
    const start = index * blockSize;
    const end = Math.min(disk.length, start + blockSize);
    if (content === 'zero') disk.fill(0, start, end);
    else content.copy(disk, start, 0, end - start);
  }
  return disk;
}

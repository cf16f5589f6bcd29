/**
 * Writes stream-optimized VMDKs in code, with their directory behind a footer as VMware and VirtualBox write them (QEMU puts it at the
 * front). Follows VMware's "Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents", and nothing of the engine's; QEMU
 * reads what it writes in test/peers/vmdk.test.ts.
 */
import { writeFileSync } from 'node:fs';
import { deflateSync } from 'node:zlib';
import { type DescriptorParts, descriptorText, type Grain, SECTOR } from './vmdk-builder.ts';

export interface StreamOptions {
  capacitySectors: number;
  grainSectors?: number;
  entriesPerTable?: number;
  version?: number;
  grains: ReadonlyMap<number, Grain>;
  descriptor?: string;
  zeroedGrains?: boolean;
  /** Grain markers (SPARSEFLAG_EMBEDDED_LBA); true unless said otherwise. */
  markers?: boolean;
  /** The header leads to the directory, and there is no footer. */
  directoryInHeader?: boolean;
  /** How a grain is stored, in place of zlib's default. */
  pack?: (content: Buffer, grain: number) => Buffer;
  /** The sector that a grain's marker names, in place of the right one. */
  lba?: (grain: number) => number;
}

export interface StreamImage {
  bytes: Buffer;
  /** Byte positions of what tests like to break. */
  at: {
    directory: number;
    tables: Map<number, number>;
    /** Of each grain's marker. */
    grains: Map<number, number>;
    /** Of the footer; -1 without one. */
    footer: number;
  };
}

const MARKER = { endOfStream: 0, grainTable: 1, grainDirectory: 2, footer: 3 };
const GD_AT_END = 0xffff_ffff_ffff_ffffn;

export function buildStream(options: StreamOptions): StreamImage {
  const grainSectors = options.grainSectors ?? 128;
  const perTable = options.entriesPerTable ?? 512;
  const markers = options.markers ?? true;
  const tableCount = Math.ceil(options.capacitySectors / (perTable * grainSectors));
  const descriptorSectors = 20;
  const overHead = Math.ceil((1 + descriptorSectors) / grainSectors) * grainSectors;
  const parts: Buffer[] = [Buffer.alloc(overHead * SECTOR)];
  let sector = overHead;
  const add = (content: Buffer): number => {
    const at = sector;
    const padded = Buffer.alloc(Math.ceil(content.length / SECTOR) * SECTOR);
    content.copy(padded);
    parts.push(padded);
    sector += padded.length / SECTOR;
    return at;
  };
  const marker = (type: number, sectors: number): Buffer => {
    const bytes = Buffer.alloc(SECTOR);
    bytes.writeBigUInt64LE(BigInt(sectors), 0);
    bytes.writeUInt32LE(type, 12);
    return bytes;
  };

  const directory = Buffer.alloc(tableCount * 4);
  const tables = new Map<number, number>();
  const grainAt = new Map<number, number>();
  for (let t = 0; t < tableCount; t++) {
    const table = Buffer.alloc(perTable * 4);
    let used = false;
    for (let e = 0; e < perTable; e++) {
      const grain = t * perTable + e;
      const content = options.grains.get(grain);
      if (content === undefined || content === 'absent') continue;
      used = true;
      if (content === 'zero') {
        table.writeUInt32LE(1, e * 4);
        continue;
      }
      const packed = options.pack?.(content, grain) ?? deflateSync(content);
      const head = Buffer.alloc(markers ? 12 : 0);
      if (markers) {
        head.writeBigUInt64LE(BigInt(options.lba?.(grain) ?? grain * grainSectors), 0);
        head.writeUInt32LE(packed.length, 8);
      }
      const at = add(Buffer.concat([head, packed]));
      grainAt.set(grain, at * SECTOR);
      table.writeUInt32LE(at, e * 4);
    }
    if (!used) continue;
    add(marker(MARKER.grainTable, Math.ceil(table.length / SECTOR)));
    const at = add(table);
    tables.set(t, at * SECTOR);
    directory.writeUInt32LE(at, t * 4);
  }
  add(marker(MARKER.grainDirectory, Math.ceil(directory.length / SECTOR)));
  const directoryAt = add(directory);

  const header = (gd: bigint): Buffer => {
    const bytes = Buffer.alloc(SECTOR);
    bytes.write('KDMV', 0, 'latin1');
    bytes.writeUInt32LE(options.version ?? 3, 4);
    bytes.writeUInt32LE(1 | (options.zeroedGrains ? 4 : 0) | 0x10000 | (markers ? 0x20000 : 0), 8);
    bytes.writeBigUInt64LE(BigInt(options.capacitySectors), 12);
    bytes.writeBigUInt64LE(BigInt(grainSectors), 20);
    bytes.writeBigUInt64LE(1n, 28);
    bytes.writeBigUInt64LE(BigInt(descriptorSectors), 36);
    bytes.writeUInt32LE(perTable, 44);
    bytes.writeBigUInt64LE(gd, 56);
    bytes.writeBigUInt64LE(BigInt(overHead), 64);
    bytes.write('\n \r\n', 73, 'latin1');
    bytes.writeUInt16LE(1, 77);
    return bytes;
  };
  let footer = -1;
  if (!options.directoryInHeader) {
    add(marker(MARKER.footer, 1));
    footer = add(header(BigInt(directoryAt))) * SECTOR;
  }
  add(marker(MARKER.endOfStream, 0));
  const bytes = Buffer.concat(parts);
  header(options.directoryInHeader ? BigInt(directoryAt) : GD_AT_END).copy(bytes, 0);
  if (options.descriptor !== undefined) bytes.write(options.descriptor, SECTOR, 'utf8');
  return { bytes, at: { directory: directoryAt * SECTOR, tables, grains: grainAt, footer } };
}

/** Writes `NAME.vmdk`: a streamOptimized disk with its descriptor in it. */
export function writeStreamDisk(
  folder: string,
  name: string,
  options: StreamOptions,
  parts: Partial<DescriptorParts> = {},
): StreamImage {
  const descriptor = descriptorText({
    createType: 'streamOptimized',
    extents: [`RW ${options.capacitySectors} SPARSE "${name}.vmdk"`],
    ...parts,
  });
  const image = buildStream({ ...options, descriptor });
  writeFileSync(`${folder}/${name}.vmdk`, image.bytes);
  return image;
}

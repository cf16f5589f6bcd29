/**
 * Writes VMDK extents and descriptors in code: whole ones for what no program at hand can write (COWD), and broken ones. Follows
 * VMware's "Virtual Disk Format 5.0" and nothing of the engine's, so that the two can disagree; QEMU reads what it writes in
 * test/peers/vmdk.test.ts.
 */
import { writeFileSync } from 'node:fs';

export const SECTOR = 512;

/** What one grain is: its bytes (a whole grain), zeros by a zeroed-grain entry, or left to the parent. */
export type Grain = Buffer | 'zero' | 'absent';

/** `length` bytes whose content follows from their place on the disk and a seed, and never is zero for a whole sector. */
export function pattern(offset: number, length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i += 4) {
    const word = Math.imul((offset + i) / 4 + seed * 0x9e37, 0x9e3779b1) >>> 0;
    for (let b = 0; b < 4 && i + b < length; b++) bytes[i + b] = (word >>> (b * 8)) & 0xff;
  }
  return bytes;
}

export interface DescriptorParts {
  version?: number;
  encoding?: string;
  cid?: string;
  parentCid?: string;
  createType: string;
  parentFileNameHint?: string;
  extents: readonly string[];
  /** Lines for the disk database and whatever else a test wants. */
  more?: readonly string[];
  newline?: string;
}

export function descriptorText(parts: DescriptorParts): string {
  const lines = [
    '# Disk DescriptorFile',
    `version=${parts.version ?? 1}`,
    ...(parts.encoding === undefined ? [] : [`encoding="${parts.encoding}"`]),
    `CID=${parts.cid ?? '12345678'}`,
    `parentCID=${parts.parentCid ?? 'ffffffff'}`,
    `createType="${parts.createType}"`,
    ...(parts.parentFileNameHint === undefined ? [] : [`parentFileNameHint="${parts.parentFileNameHint}"`]),
    '',
    '# Extent description',
    ...parts.extents,
    '',
    '# The Disk Data Base',
    '#DDB',
    '',
    ...(parts.more ?? ['ddb.virtualHWVersion = "7"', 'ddb.adapterType = "lsilogic"']),
    '',
  ];
  return lines.join(parts.newline ?? '\n');
}

export interface SparseOptions {
  capacitySectors: number;
  grainSectors?: number;
  entriesPerTable?: number;
  version?: number;
  /** Grain number -> content; what is not listed is absent. */
  grains: ReadonlyMap<number, Grain>;
  /** Text of the embedded descriptor; none for an extent of a split disk. */
  descriptor?: string;
  zeroedGrains?: boolean;
  redundant?: boolean;
  uncleanShutdown?: boolean;
}

export interface SparseImage {
  bytes: Buffer;
  /** Byte positions of what tests like to break. */
  at: {
    redundantDirectory: number;
    directory: number;
    tables: number[];
    redundantTables: number[];
    grains: Map<number, number>;
  };
}

/** A hosted sparse extent ("KDMV"): header, descriptor, redundant directory and tables, directory and tables, grains. */
export function buildSparse(options: SparseOptions): SparseImage {
  const grainSectors = options.grainSectors ?? 128;
  const perTable = options.entriesPerTable ?? 512;
  const redundant = options.redundant ?? true;
  const descriptorSectors = 20;
  const tableSectors = Math.ceil((perTable * 4) / SECTOR);
  const tableCount = Math.ceil(options.capacitySectors / (perTable * grainSectors));
  const directorySectors = Math.ceil((tableCount * 4) / SECTOR);
  let sector = 1 + descriptorSectors;
  const rgd = redundant ? sector : 0;
  if (redundant) sector += directorySectors + tableCount * tableSectors;
  const gd = sector;
  sector += directorySectors + tableCount * tableSectors;
  const overHead = Math.ceil(sector / grainSectors) * grainSectors;

  const kept = [...options.grains].filter((entry): entry is [number, Buffer] => Buffer.isBuffer(entry[1]));
  const bytes = Buffer.alloc((overHead + kept.length * grainSectors) * SECTOR);
  bytes.write('KDMV', 0, 'latin1');
  const flags = 1 | (redundant ? 2 : 0) | (options.zeroedGrains ? 4 : 0);
  bytes.writeUInt32LE(options.version ?? (options.zeroedGrains ? 2 : 1), 4);
  bytes.writeUInt32LE(flags, 8);
  bytes.writeBigUInt64LE(BigInt(options.capacitySectors), 12);
  bytes.writeBigUInt64LE(BigInt(grainSectors), 20);
  bytes.writeBigUInt64LE(1n, 28);
  bytes.writeBigUInt64LE(BigInt(descriptorSectors), 36);
  bytes.writeUInt32LE(perTable, 44);
  bytes.writeBigUInt64LE(BigInt(rgd), 48);
  bytes.writeBigUInt64LE(BigInt(gd), 56);
  bytes.writeBigUInt64LE(BigInt(overHead), 64);
  bytes[72] = options.uncleanShutdown ? 1 : 0;
  bytes.write('\n \r\n', 73, 'latin1');
  if (options.descriptor !== undefined) bytes.write(options.descriptor, SECTOR, 'utf8');

  const grainAt = new Map<number, number>();
  for (const [index, [grain, content]] of kept.entries()) {
    const at = (overHead + index * grainSectors) * SECTOR;
    if (content.length !== grainSectors * SECTOR) throw new Error(`grain ${grain} is not a whole grain`);
    content.copy(bytes, at);
    grainAt.set(grain, at);
  }
  const writeTables = (directory: number): number[] => {
    const tables: number[] = [];
    for (let t = 0; t < tableCount; t++) {
      const table = directory + directorySectors + t * tableSectors;
      bytes.writeUInt32LE(table, directory * SECTOR + t * 4);
      tables.push(table * SECTOR);
      for (let e = 0; e < perTable; e++) {
        const grain = options.grains.get(t * perTable + e);
        if (grain === undefined || grain === 'absent') continue;
        const entry = grain === 'zero' ? 1 : grainAt.get(t * perTable + e)! / SECTOR;
        bytes.writeUInt32LE(entry, table * SECTOR + e * 4);
      }
    }
    return tables;
  };
  const redundantTables = redundant ? writeTables(rgd) : [];
  const tables = writeTables(gd);
  return {
    bytes,
    at: { redundantDirectory: rgd * SECTOR, directory: gd * SECTOR, tables, redundantTables, grains: grainAt },
  };
}

export interface CowdOptions {
  capacitySectors: number;
  grainSectors?: number;
  grains: ReadonlyMap<number, Grain>;
  uncleanShutdown?: boolean;
}

export interface CowdImage {
  bytes: Buffer;
  at: { directory: number; tables: Map<number, number>; grains: Map<number, number> };
}

const COWD_ENTRIES = 4096;

/** An ESX Server sparse extent ("COWD"), its tables placed as they are first needed, between the grains, as ESX does. */
export function buildCowd(options: CowdOptions): CowdImage {
  const grainSectors = options.grainSectors ?? 1;
  const tableCount = Math.ceil(options.capacitySectors / (COWD_ENTRIES * grainSectors));
  const directorySectors = Math.ceil((tableCount * 4) / SECTOR);
  const tableSectors = (COWD_ENTRIES * 4) / SECTOR;
  let free = 4 + directorySectors;
  const tables = new Map<number, number>();
  const grainAt = new Map<number, number>();
  for (const [grain, content] of options.grains) {
    if (content === 'absent') continue;
    if (content === 'zero') throw new Error('a COWD extent has no zeroed grains');
    const table = Math.floor(grain / COWD_ENTRIES);
    if (!tables.has(table)) {
      tables.set(table, free * SECTOR);
      free += tableSectors;
    }
    grainAt.set(grain, free * SECTOR);
    free += grainSectors;
  }
  const bytes = Buffer.alloc(free * SECTOR);
  bytes.write('COWD', 0, 'latin1');
  for (const [at, value] of [
    [4, 1],
    [8, 3],
    [12, options.capacitySectors],
    [16, grainSectors],
    [20, 4],
    [24, tableCount],
    [28, free],
    [1648, options.uncleanShutdown ? 1 : 0],
  ] as const) {
    bytes.writeUInt32LE(value, at);
  }
  for (const [table, at] of tables) bytes.writeUInt32LE(at / SECTOR, 4 * SECTOR + table * 4);
  for (const [grain, at] of grainAt) {
    const content = options.grains.get(grain) as Buffer;
    if (content.length !== grainSectors * SECTOR) throw new Error(`grain ${grain} is not a whole grain`);
    content.copy(bytes, at);
    bytes.writeUInt32LE(at / SECTOR, tables.get(Math.floor(grain / COWD_ENTRIES))! + (grain % COWD_ENTRIES) * 4);
  }
  return { bytes, at: { directory: 4 * SECTOR, tables, grains: grainAt } };
}

/** Writes `NAME.vmdk` and `NAME-delta.vmdk`: a vmfsSparse snapshot. */
export function writeCowdDisk(
  folder: string,
  name: string,
  options: CowdOptions,
  parts: Partial<DescriptorParts> = {},
): CowdImage {
  const image = buildCowd(options);
  writeFileSync(`${folder}/${name}-delta.vmdk`, image.bytes);
  const text = descriptorText({
    createType: 'vmfsSparse',
    extents: [`RW ${options.capacitySectors} VMFSSPARSE "${name}-delta.vmdk"`],
    ...parts,
  });
  writeFileSync(`${folder}/${name}.vmdk`, text);
  return image;
}

/** Writes `NAME.vmdk`: a monolithicSparse disk with its descriptor in it. */
export function writeSparseDisk(
  folder: string,
  name: string,
  options: SparseOptions,
  parts: Partial<DescriptorParts> = {},
): SparseImage {
  const descriptor = descriptorText({
    createType: 'monolithicSparse',
    extents: [`RW ${options.capacitySectors} SPARSE "${name}.vmdk"`],
    ...parts,
  });
  const image = buildSparse({ ...options, descriptor });
  writeFileSync(`${folder}/${name}.vmdk`, image.bytes);
  return image;
}

/** The disk that the grains make: zeros where this layer has nothing. */
export function modelOf(options: {
  capacitySectors: number;
  grainSectors: number;
  grains: ReadonlyMap<number, Grain>;
}): Buffer {
  const disk = Buffer.alloc(options.capacitySectors * SECTOR);
  for (const [grain, content] of options.grains) {
    if (Buffer.isBuffer(content)) content.copy(disk, grain * options.grainSectors * SECTOR);
  }
  return disk;
}

/**
 * Writes seSparse extents in code. There is no published specification; what is followed is what QEMU's `block/vmdk.c` (commit 98eb9733f4
 * and later) says of the layout, and nothing of the engine's. QEMU reads what it writes in test/peers/vmdk.test.ts.
 */
import { writeFileSync } from 'node:fs';
import { type DescriptorParts, descriptorText, type Grain, SECTOR } from './vmdk-builder.ts';

export const SE_GRAIN_SECTORS = 8;
const GRAIN_BYTES = SE_GRAIN_SECTORS * SECTOR;
const ENTRIES = 4096;
const TABLE_SECTORS = 64;

/** What one grain is: as elsewhere, or given back by the guest (SCSI UNMAP). */
export type SeGrain = Grain | 'unmapped';

export interface SeSparseOptions {
  capacitySectors: number;
  /** Grain number -> content; what is not listed is absent. */
  grains: ReadonlyMap<number, SeGrain>;
  /** Number of the first grain in the file: from 4096 on, both parts of an entry are in use. */
  firstGrain?: number;
  replayJournal?: boolean;
}

export interface SeSparseImage {
  bytes: Buffer;
  at: {
    volatileHeader: number;
    directory: number;
    /** By directory entry. */
    tables: Map<number, number>;
    grains: Map<number, number>;
    grainArea: number;
  };
}

export function buildSeSparse(options: SeSparseOptions): SeSparseImage {
  const directoryEntries = Math.ceil(options.capacitySectors / (ENTRIES * SE_GRAIN_SECTORS));
  const numbers = [...options.grains.keys()].filter((grain) => options.grains.get(grain) !== 'absent');
  // Tables and grains are numbered from the end of the disk on, so that no number is its own index by chance.
  const tablesUsed = [...new Set(numbers.map((grain) => Math.floor(grain / ENTRIES)))].sort((a, b) => b - a);
  const stored = numbers.filter((grain) => Buffer.isBuffer(options.grains.get(grain))).sort((a, b) => b - a);
  const firstGrain = options.firstGrain ?? 0;
  const area: Record<string, { at: number; sectors: number }> = {};
  let sector = 1;
  const place = (name: string, sectors: number): number => {
    area[name] = { at: sector, sectors };
    sector += sectors;
    return area[name].at;
  };
  place('volatile', 1);
  place('journalHeader', 2);
  place('journal', 16);
  place('directory', Math.max(1, Math.ceil((directoryEntries * 8) / SECTOR)));
  // One table that nothing uses stands before the others.
  place('tables', (tablesUsed.length + 1) * TABLE_SECTORS);
  place('bitmap', 8);
  place('backMap', 8);
  place('grains', (firstGrain + stored.length) * SE_GRAIN_SECTORS);

  const bytes = Buffer.alloc(sector * SECTOR);
  const put = (at: number, value: number | bigint) => bytes.writeBigUInt64LE(BigInt(value), at);
  put(0, 0xcafebaben);
  put(8, 0x2_0000_0001n);
  put(16, options.capacitySectors);
  put(24, SE_GRAIN_SECTORS);
  put(32, TABLE_SECTORS);
  const order = ['volatile', 'journalHeader', 'journal', 'directory', 'tables', 'bitmap', 'backMap', 'grains'];
  for (const [i, name] of order.entries()) {
    put(80 + i * 16, area[name]!.at);
    put(88 + i * 16, area[name]!.sectors);
  }
  const volatileHeader = area.volatile!.at * SECTOR;
  put(volatileHeader, 0xcafecafen);
  put(volatileHeader + 8, tablesUsed.length + 1);
  put(volatileHeader + 16, 7);
  put(volatileHeader + 24, options.replayJournal ? 1 : 0);

  const tables = new Map<number, number>();
  for (const [i, index] of tablesUsed.entries()) {
    const number = i + 1;
    put(area.directory!.at * SECTOR + index * 8, 0x1000_0000_0000_0000n | BigInt(number));
    tables.set(index, (area.tables!.at + number * TABLE_SECTORS) * SECTOR);
  }
  const grainAt = new Map<number, number>();
  for (const grain of numbers) {
    const content = options.grains.get(grain)!;
    const entry = tables.get(Math.floor(grain / ENTRIES))! + (grain % ENTRIES) * 8;
    if (content === 'unmapped') put(entry, 1n << 60n);
    else if (content === 'zero') put(entry, 2n << 60n);
    else {
      const number = firstGrain + stored.indexOf(grain);
      put(entry, (3n << 60n) | (BigInt(number & 0xfff) << 48n) | BigInt(number >>> 12));
      const at = area.grains!.at * SECTOR + number * GRAIN_BYTES;
      (content as Buffer).copy(bytes, at);
      grainAt.set(grain, at);
    }
  }
  return {
    bytes,
    at: {
      volatileHeader,
      directory: area.directory!.at * SECTOR,
      tables,
      grains: grainAt,
      grainArea: area.grains!.at * SECTOR,
    },
  };
}

/** Writes `NAME.vmdk` and `NAME-sesparse.vmdk`. */
export function writeSeSparseDisk(
  folder: string,
  name: string,
  options: SeSparseOptions,
  parts: Partial<DescriptorParts> = {},
): SeSparseImage {
  const image = buildSeSparse(options);
  writeFileSync(`${folder}/${name}-sesparse.vmdk`, image.bytes);
  const text = descriptorText({
    createType: 'seSparse',
    extents: [`RW ${options.capacitySectors} SESPARSE "${name}-sesparse.vmdk"`],
    ...parts,
  });
  writeFileSync(`${folder}/${name}.vmdk`, text);
  return image;
}

/**
 * The FAT boot sector: where everything is, and which of the three FATs it is.
 *
 * Sources: Microsoft "FAT32 File System Specification / FAT: General Overview of On-Disk Format" 1.03 (fatgen103), section and
 * field names as there; Linux fs/fat/inode.c for what real volumes need (FAT32 by BPB_FATSz16 == 0 whatever the cluster count,
 * clusters beyond the FAT's own length don't exist, the state byte).
 */
import { Fields } from '../../binary.ts';
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { decodeLabel } from './names.ts';

export type FatType = 'fat12' | 'fat16' | 'fat32';

/** Decoded boot sector. Positions and sizes are bytes of the volume unless their name says otherwise. */
export interface FatLayout {
  readonly type: FatType;
  /** Bits of a FAT entry that count: 12, 16, 28. */
  readonly entryBits: 12 | 16 | 28;
  readonly sectorSize: number;
  readonly clusterSize: number;
  /** Clusters are numbered 2 to `clusterCount + 1`. */
  readonly clusterCount: number;
  readonly size: number;
  readonly fatStart: number;
  readonly fatSize: number;
  readonly fatCount: number;
  /** The FAT that is valid. */
  readonly activeFat: number;
  /** All FATs hold the same. */
  readonly mirrored: boolean;
  readonly media: number;
  /** The fixed root directory of FAT12 and FAT16; size 0 on FAT32. */
  readonly rootStart: number;
  readonly rootSize: number;
  readonly dataStart: number;
  /** First cluster of the root directory on FAT32, else 0. */
  readonly rootCluster: number;
  /** Position of the FSInfo sector on FAT32, where there is one. */
  readonly fsInfoAt: number | undefined;
  /** Position of the boot sector's copy on FAT32, where there is one. */
  readonly backupAt: number | undefined;
  /** `DEAD-BEEF`. */
  readonly serial: string | undefined;
  readonly bootLabel: string | undefined;
  /** State byte that Windows NT and Linux keep (BS_Reserved1): bit 0 in use or not cleanly unmounted, bit 1 errors met. */
  readonly stateByte: number;
}

const largestSector = 4096;
/** Most clusters a type can number: entries from 0xff5, 0xfff5 and 0x0ffffff7 up are reserved. */
const mostClusters = { fat12: 0xff4, fat16: 0xfff4, fat32: 0x0ffffff5 } as const;
const backupSector = 6;

const powerOfTwo = (n: number): boolean => n > 0 && (n & (n - 1)) === 0;

/**
 * True when the first sector shows FAT. Either its parameters make sense, or it carries a FAT's name and boot signature with
 * parameters that don't, so that opening can say which. Never exFAT or NTFS, whose boot sectors look alike.
 */
export function looksLikeFat(prefix: Uint8Array): boolean {
  if (prefix.length < 512) return false;
  const f = new Fields(prefix.subarray(0, 512), 'FAT boot sector', '', 0);
  const oem = f.ascii(3, 8);
  if (oem === 'EXFAT   ' || oem === 'NTFS    ' || oem === 'ReFS' || oem === '-FVE-FS-') return false;
  const signed = f.u8(510) === 0x55 && f.u8(511) === 0xaa;
  const jumps = f.u8(0) === 0xe9 || (f.u8(0) === 0xeb && f.u8(1) > 0);
  if (!signed && !jumps) return false;
  const named = /^FAT(12|16) {3}$/.test(f.ascii(54, 8)) || f.ascii(82, 8) === 'FAT32   ';
  if (signed && jumps && named) return true;
  const media = f.u8(21);
  return (
    powerOfTwo(f.u16(11)) &&
    f.u16(11) >= 512 &&
    f.u16(11) <= largestSector &&
    powerOfTwo(f.u8(13)) &&
    f.u16(14) > 0 &&
    f.u8(16) > 0 &&
    (media === 0xf0 || media >= 0xf8) &&
    (f.u16(19) > 0 || f.u32(32) > 0) &&
    (f.u16(22) > 0 ? f.u16(17) > 0 : f.u32(36) > 0 && f.u16(17) === 0)
  );
}

/**
 * Reads the boot sector, or its copy when it is damaged and the copy is not. `evidence` receives a sentence for whatever had
 * to be worked around.
 *
 * @throws CorruptError for the first sector's damage when there is no usable copy; UnsupportedError for a FAT32 version other than 0.0.
 */
export async function readLayout(volume: ByteSource, evidence: string[]): Promise<FatLayout> {
  try {
    return parseBootSector(await readSector(volume, 0), volume.size, evidence);
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    const copy = await readBackup(volume, evidence);
    if (copy === undefined) throw error;
    evidence.push(`${error.message}; its copy in sector ${backupSector} was used`);
    return copy;
  }
}

async function readSector(volume: ByteSource, position: number): Promise<Fields> {
  if (position + 512 > volume.size) {
    throw new CorruptError('FAT boot sector', {
      source: volume.name,
      position,
      expected: 'a volume of at least 512 bytes',
      found: `${volume.size} bytes`,
    });
  }
  return new Fields(await volume.read(position, 512), 'FAT boot sector', volume.name, position);
}

/** The copy is looked for at each sector size, since the damaged sector's word on that is not to be trusted. */
async function readBackup(volume: ByteSource, evidence: string[]): Promise<FatLayout | undefined> {
  for (let size = 512; size <= largestSector; size *= 2) {
    const position = backupSector * size;
    if (position + 512 > volume.size) return undefined;
    const f = await readSector(volume, position);
    if (!looksLikeFat(f.bytes) || f.u16(11) !== size || f.u16(22) !== 0) continue;
    const notes: string[] = [];
    try {
      const layout = parseBootSector(f, volume.size, notes);
      evidence.push(...notes);
      return layout;
    } catch (error) {
      // A copy that is damaged too is no copy: the caller reports the first sector's damage.
      if (!(error instanceof CorruptError)) throw error;
    }
  }
  return undefined;
}

function parseBootSector(f: Fields, volumeSize: number, evidence: string[]): FatLayout {
  const sectorSize = f.u16(11);
  const sectorOk = powerOfTwo(sectorSize) && sectorSize >= 512 && sectorSize <= largestSector;
  f.require(sectorOk, 'bytes per sector', 11, '512, 1024, 2048 or 4096', sectorSize);
  const sectorsPerCluster = f.u8(13);
  f.require(
    powerOfTwo(sectorsPerCluster),
    'sectors per cluster',
    13,
    'a power of two from 1 to 128',
    sectorsPerCluster,
  );
  const reserved = f.u16(14);
  f.require(reserved > 0, 'reserved sectors', 14, 'at least 1', reserved);
  const fatCount = f.u8(16);
  f.require(fatCount > 0, 'number of FATs', 16, 'at least 1', fatCount);
  const rootEntries = f.u16(17);
  const media = f.u8(21);
  f.require(media === 0xf0 || media >= 0xf8, 'media byte', 21, '0xf0 or 0xf8 to 0xff', `0x${media.toString(16)}`);
  const isFat32 = f.u16(22) === 0;
  const fatSectors = isFat32 ? f.u32(36) : f.u16(22);
  f.require(fatSectors > 0, 'sectors per FAT', isFat32 ? 36 : 22, 'at least 1', fatSectors);
  const sectors = f.u16(19) === 0 ? f.u32(32) : f.u16(19);
  f.require(sectors > 0, 'total sectors', 32, 'more than 0', sectors);

  if (isFat32) {
    f.require(rootEntries === 0, 'root entries', 17, '0 on FAT32', rootEntries);
    if (f.u16(42) !== 0) throw new UnsupportedError(`FAT32 version ${f.u8(43)}.${f.u8(42)}`, { source: f.source });
  } else {
    f.require(rootEntries > 0, 'root entries', 17, 'more than 0', rootEntries);
  }
  const rootSectors = Math.ceil((rootEntries * 32) / sectorSize);
  const dataSector = reserved + fatCount * fatSectors + rootSectors;
  f.require(dataSector < sectors, 'total sectors', 32, `more than ${dataSector} before the first cluster`, sectors);
  const announced = Math.floor((sectors - dataSector) / sectorsPerCluster);
  f.require(announced > 0, 'cluster count', 32, 'at least 1', announced);

  const type: FatType = isFat32 ? 'fat32' : announced < 4085 ? 'fat12' : 'fat16';
  f.require(announced <= mostClusters[type], 'cluster count', 32, `at most ${mostClusters[type]}`, announced);
  const fatSize = fatSectors * sectorSize;
  const entriesInFat = Math.floor((fatSize * 8) / (isFat32 ? 32 : type === 'fat16' ? 16 : 12));
  const clusterCount = Math.min(announced, entriesInFat - 2);
  f.require(clusterCount > 0, 'sectors per FAT', isFat32 ? 36 : 22, 'room for at least 3 entries', fatSectors);
  const dataStart = dataSector * sectorSize;
  f.require(
    dataStart <= volumeSize,
    'total sectors',
    32,
    `a data region that begins within ${volumeSize} bytes`,
    dataStart,
  );

  const extFlags = isFat32 ? f.u16(40) : 0;
  const mirrored = (extFlags & 0x80) === 0;
  const activeFat = mirrored ? 0 : extFlags & 0x0f;
  f.require(activeFat < fatCount, 'active FAT', 40, `below ${fatCount}`, activeFat);
  const rootCluster = isFat32 ? f.u32(44) & 0x0fffffff : 0;
  const rootOk = !isFat32 || (rootCluster >= 2 && rootCluster <= clusterCount + 1);
  f.require(rootOk, 'root cluster', 44, `2 to ${clusterCount + 1}`, rootCluster);

  const size = sectors * sectorSize;
  if (size > volumeSize)
    evidence.push(`The file system has ${size} bytes, the volume only ${volumeSize}: its end is missing`);
  if (clusterCount < announced) {
    evidence.push(`The FAT has room for ${clusterCount} of ${announced} clusters`);
  }
  const extended = isFat32 ? 64 : 36;
  const hasSerial = f.u8(extended + 2) === 0x28 || f.u8(extended + 2) === 0x29;
  const hasLabel = f.u8(extended + 2) === 0x29;
  const label = hasLabel ? decodeLabel(f.slice(extended + 7, 11)) : '';
  return {
    type,
    entryBits: type === 'fat12' ? 12 : type === 'fat16' ? 16 : 28,
    sectorSize,
    clusterSize: sectorsPerCluster * sectorSize,
    clusterCount,
    size,
    fatStart: reserved * sectorSize,
    fatSize,
    fatCount,
    activeFat,
    mirrored,
    media,
    rootStart: (reserved + fatCount * fatSectors) * sectorSize,
    rootSize: rootEntries * 32,
    dataStart,
    rootCluster,
    fsInfoAt: isFat32 ? sectorInReserved(f.u16(48), reserved, sectorSize) : undefined,
    backupAt: isFat32 ? sectorInReserved(f.u16(50), reserved, sectorSize) : undefined,
    serial: hasSerial ? formatSerial(f.u32(extended + 3)) : undefined,
    bootLabel: label === '' || label === 'NO NAME' ? undefined : label,
    stateByte: f.u8(extended + 1),
  };
}

function sectorInReserved(sector: number, reserved: number, sectorSize: number): number | undefined {
  return sector > 0 && sector < reserved ? sector * sectorSize : undefined;
}

function formatSerial(value: number): string {
  const hex = value.toString(16).toUpperCase().padStart(8, '0');
  return `${hex.slice(0, 4)}-${hex.slice(4)}`;
}

/** First byte of a data cluster (2 and up). */
export function clusterPosition(layout: FatLayout, cluster: number): number {
  return layout.dataStart + (cluster - 2) * layout.clusterSize;
}

export function isCluster(layout: FatLayout, cluster: number): boolean {
  return cluster >= 2 && cluster <= layout.clusterCount + 1;
}

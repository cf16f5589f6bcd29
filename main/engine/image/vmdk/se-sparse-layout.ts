/**
 * On-disk structures of seSparse extents (`-sesparse.vmdk`), which ESXi writes for View disks since 5.1 and for every snapshot on VMFS 6
 * since 6.5. VMware has published no specification. What is known of it was found by QEMU's authors and is written down in
 * `block/vmdk.c` (https://gitlab.com/qemu-project/qemu/-/blob/master/block/vmdk.c) and in the commit that added it, 98eb9733f4;
 * the names are QEMU's, and dissect.hypervisor's for the types of entries (`dissect/hypervisor/disk/c_vmdk.py`).
 *
 * Everything is little-endian and of 64 bits; offsets and sizes are in sectors of 512 bytes.
 */
import type { Fields } from '../../binary.ts';

/** First eight bytes of the volatile header. */
export const VOLATILE_MAGIC = 0xcafe_cafe;
/** 2.1: the only version that was ever met. */
export const SE_SPARSE_VERSION = 0x2_0000_0001n;
/** Sectors of a grain and of a grain table: fixed in that version. */
export const SE_GRAIN_SECTORS = 8;
export const SE_TABLE_SECTORS = 64;
export const SE_ENTRY_BYTES = 8;
export const SE_HEADER_BYTES = 512;

/** Upper half of a grain directory entry that leads to a table; the lower half is the table's number. */
export const DIRECTORY_ALLOCATED = 0x1000_0000;

/** Types of grain table entries: their four highest bits. */
export const GRAIN_UNALLOCATED = 0;
/** Given back by the guest (SCSI UNMAP). */
export const GRAIN_UNMAPPED = 1;
export const GRAIN_ZERO = 2;
export const GRAIN_ALLOCATED = 3;

/** Where the fields of the constant header are, in bytes. */
export const ConstantHeaderOffsets = {
  magic: 0,
  version: 8,
  capacity: 16,
  grainSize: 24,
  grainTableSize: 32,
  flags: 40,
  reserved: 48,
  volatileHeaderOffset: 80,
  volatileHeaderSize: 88,
  journalHeaderOffset: 96,
  journalHeaderSize: 104,
  journalOffset: 112,
  journalSize: 120,
  grainDirectoryOffset: 128,
  grainDirectorySize: 136,
  grainTablesOffset: 144,
  grainTablesSize: 152,
  freeBitmapOffset: 160,
  freeBitmapSize: 168,
  backMapOffset: 176,
  backMapSize: 184,
  grainsOffset: 192,
  grainsSize: 200,
  padding: 208,
} as const;

/** The constant header, 512 bytes: the fields that a reader needs. */
export interface ConstantHeader {
  readonly capacity: number;
  readonly grainSize: number;
  readonly grainTableSize: number;
  readonly volatileHeaderOffset: number;
  readonly grainDirectoryOffset: number;
  readonly grainDirectorySize: number;
  readonly grainTablesOffset: number;
  readonly grainTablesSize: number;
  readonly grainsOffset: number;
  readonly grainsSize: number;
}

/** @throws CorruptError when a field exceeds 2^53-1. */
export function readConstantHeader(fields: Fields): ConstantHeader {
  const at = ConstantHeaderOffsets;
  const number = (name: keyof ConstantHeader): number => fields.u64(at[name], name);
  return {
    capacity: number('capacity'),
    grainSize: number('grainSize'),
    grainTableSize: number('grainTableSize'),
    volatileHeaderOffset: number('volatileHeaderOffset'),
    grainDirectoryOffset: number('grainDirectoryOffset'),
    grainDirectorySize: number('grainDirectorySize'),
    grainTablesOffset: number('grainTablesOffset'),
    grainTablesSize: number('grainTablesSize'),
    grainsOffset: number('grainsOffset'),
    grainsSize: number('grainsSize'),
  };
}

/** Where the fields of the volatile header are, in bytes. */
export const VolatileHeaderOffsets = {
  magic: 0,
  freeGrainTableNumber: 8,
  nextTransaction: 16,
  replayJournal: 24,
} as const;

/** The type of the grain table entry at `offset`. */
export function grainType(table: Fields, offset: number): number {
  return table.u32(offset + 4) >>> 28;
}

/** True when nothing but the type is set in the entry at `offset`. */
export function isBareEntry(table: Fields, offset: number): boolean {
  return table.u32(offset) === 0 && (table.u32(offset + 4) & 0x0fff_ffff) === 0;
}

/**
 * The number of the grain that an allocated entry leads to. Its lowest twelve bits stand above the others in the entry. More than
 * 2^53-1 comes out as a number that is too large, if not to the last digit.
 */
export function grainNumber(table: Fields, offset: number): number {
  const high = table.u32(offset + 4);
  return ((high & 0xffff) * 0x1_0000_0000 + table.u32(offset)) * 4096 + ((high >>> 16) & 0xfff);
}

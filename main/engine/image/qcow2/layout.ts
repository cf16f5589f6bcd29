/**
 * On-disk structures of QCOW2, versions 2 and 3, with the names of the specification: QEMU, docs/interop/qcow2.txt.
 * https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt
 *
 * Everything is big-endian; offsets are in bytes. A cluster is the unit of allocation, of the file and of the disk alike. An L1
 * table (one for the present state, one for each snapshot) leads to L2 tables of one cluster each, whose entries lead to clusters.
 *
 * 64-bit entries are handled as two 32-bit halves, so that a table of a million entries makes no bigint. Masks are named after the
 * half they belong to; `x & 0x8000_0000` is negative in JavaScript, so flags are compared with 0.
 */
import type { Fields } from '../../binary.ts';

export const SECTOR = 512;

/** "QFI\xfb": the first bytes of QCOW version 1 and of QCOW2. */
export const QCOW_MAGIC = 0x5146_49fb;

export const MIN_CLUSTER_BITS = 9;
/** 2 MiB: what QEMU reads at most. */
export const MAX_CLUSTER_BITS = 21;
/** Subclusters must not be smaller than a sector. */
export const MIN_EXTENDED_CLUSTER_BITS = 14;
export const SUBCLUSTERS = 32;

export const V2_HEADER_BYTES = 72;
export const V3_HEADER_BYTES = 104;
export const MAX_BACKING_NAME = 1023;
export const MAX_REFCOUNT_ORDER = 6;

/** QEMU's limits, which bound what is walked: 32 MiB of L1 table, 8 MiB of refcount table, 65,536 snapshots in 64 MiB. */
export const MAX_L1_BYTES = 32 << 20;
export const MAX_REFCOUNT_TABLE_BYTES = 8 << 20;
export const MAX_SNAPSHOTS = 65_536;
export const MAX_SNAPSHOT_TABLE_BYTES = 64 << 20;
export const MAX_SNAPSHOT_EXTRA = 1024;
export const MAX_BITMAPS = 65_535;
export const MAX_BITMAP_DIRECTORY_BYTES = 64 << 20;

/** Byte offsets of the header's fields. */
export const HeaderOffsets = {
  magic: 0,
  version: 4,
  backing_file_offset: 8,
  backing_file_size: 16,
  cluster_bits: 20,
  size: 24,
  crypt_method: 32,
  l1_size: 36,
  l1_table_offset: 40,
  refcount_table_offset: 48,
  refcount_table_clusters: 56,
  nb_snapshots: 60,
  snapshots_offset: 64,
  incompatible_features: 72,
  compatible_features: 80,
  autoclear_features: 88,
  refcount_order: 96,
  header_length: 100,
  compression_type: 104,
} as const;

export const CRYPT_NONE = 0;
export const CRYPT_AES = 1;
export const CRYPT_LUKS = 2;

export const INCOMPATIBLE_DIRTY = 1n << 0n;
export const INCOMPATIBLE_CORRUPT = 1n << 1n;
export const INCOMPATIBLE_DATA_FILE = 1n << 2n;
export const INCOMPATIBLE_COMPRESSION = 1n << 3n;
export const INCOMPATIBLE_EXTENDED_L2 = 1n << 4n;
export const INCOMPATIBLE_KNOWN = 0x1fn;
export const COMPATIBLE_LAZY_REFCOUNTS = 1n << 0n;
export const AUTOCLEAR_BITMAPS = 1n << 0n;
export const AUTOCLEAR_DATA_FILE_RAW = 1n << 1n;

export const COMPRESSION_ZLIB = 0;
export const COMPRESSION_ZSTD = 1;

export const EXTENSION_END = 0x0000_0000;
export const EXTENSION_BACKING_FORMAT = 0xe279_2aca;
export const EXTENSION_FEATURE_NAMES = 0x6803_f857;
export const EXTENSION_BITMAPS = 0x2385_2875;
export const EXTENSION_DATA_FILE = 0x4441_5441;
export const FEATURE_NAME_BYTES = 48;
export const BITMAPS_EXTENSION_BYTES = 24;

/** L1 and L2 entries, upper half. */
export const COPIED_HIGH = 0x8000_0000;
export const COMPRESSED_HIGH = 0x4000_0000;
/** Bits 32-55 of an offset. */
export const OFFSET_HIGH = 0x00ff_ffff;
/** Bits 56-62 of an L1 entry, 56-61 of a standard L2 entry. */
export const L1_RESERVED_HIGH = 0x7f00_0000;
export const L2_RESERVED_HIGH = 0x3f00_0000;
/** Lower half: bits 9-31 of an offset. */
export const OFFSET_LOW = 0xffff_fe00;
export const L1_RESERVED_LOW = 0x0000_01ff;
/** Bit 0 of a standard L2 entry: reads as zeros (version 3 without extended entries). */
export const ZERO_LOW = 1;
export const L2_RESERVED_LOW = 0x0000_01fe;

/** Snapshot table entry, the part of fixed length. */
export const SnapshotOffsets = {
  l1_table_offset: 0,
  l1_size: 8,
  id_str_size: 12,
  name_size: 14,
  date_sec: 16,
  date_nsec: 20,
  vm_clock_nsec: 24,
  vm_state_size: 32,
  extra_data_size: 36,
} as const;
export const SNAPSHOT_BYTES = 40;

/** Bitmap directory entry, the part of fixed length. */
export const BitmapOffsets = {
  bitmap_table_offset: 0,
  bitmap_table_size: 8,
  flags: 12,
  type: 16,
  granularity_bits: 17,
  name_size: 18,
  extra_data_size: 20,
} as const;
export const BITMAP_ENTRY_BYTES = 24;
export const BITMAP_IN_USE = 1;
export const BITMAP_AUTO = 2;

/** The offset that two halves of an entry hold: bits 9 to 55. More than 2^53 is inexact, and always beyond the end of a file. */
export function offsetOf(high: number, low: number): number {
  return (high & OFFSET_HIGH) * 0x1_0000_0000 + ((low & OFFSET_LOW) >>> 0);
}

/** A 64-bit entry in hexadecimal digits, for errors. */
export function hex64(high: number, low: number): string {
  return `0x${((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)).toString(16).padStart(16, '0')}`;
}

/** `magic` and `version` of a file's first bytes; undefined when it does not begin as QCOW of any version. */
export function qcowVersion(prefix: Uint8Array): number | undefined {
  if (prefix.length < 8) return undefined;
  const view = new DataView(prefix.buffer, prefix.byteOffset, 8);
  return view.getUint32(0) === QCOW_MAGIC ? view.getUint32(4) : undefined;
}

/** Text of a header, snapshot or bitmap: UTF-8, with what can't be shown replaced. */
export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('utf8');
}

/** The bytes at `position` as text for `found`: what stands where a magic number should be. */
export function hexOf(fields: Fields, length: number): string {
  return fields.length === 0 ? 'an empty file' : Buffer.from(fields.bytes.subarray(0, length)).toString('hex');
}

/**
 * On-disk structures of QCOW version 1, with the names of QEMU's block/qcow.c, which is its only description.
 * https://gitlab.com/qemu-project/qemu/-/blob/master/block/qcow.c
 *
 * Big-endian; offsets in bytes. There are no refcounts, no snapshots and no features: an L1 table right behind the header, L2 tables
 * of 2^l2_bits entries, clusters. An entry of 0 means "ask the backing file".
 */
export const HEADER_BYTES = 48;
export const MIN_CLUSTER_BITS = 9;
export const MAX_CLUSTER_BITS = 16;
/** Bits of an L2 table's index: tables of 512 bytes to 64 KiB. */
export const MIN_L2_BITS = 6;
export const MAX_L2_BITS = 13;
export const MAX_BACKING_NAME = 1023;
/** Entries of the L1 table at most; QEMU allows 2^28, for which no image was ever made. */
export const MAX_L1_BYTES = 1 << 30;

/** Byte offsets of the header's fields. */
export const HeaderOffsets = {
  magic: 0,
  version: 4,
  backing_file_offset: 8,
  backing_file_size: 16,
  mtime: 20,
  size: 24,
  cluster_bits: 32,
  l2_bits: 33,
  crypt_method: 36,
  l1_table_offset: 40,
} as const;

/** L2 entry, upper half: the cluster is compressed. */
export const COMPRESSED_HIGH = 0x8000_0000;

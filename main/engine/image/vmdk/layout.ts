/**
 * On-disk structures of VMDK extents, with the names of the specification.
 *
 * - VMware, "Virtual Disk Format 5.0" (technical note, 2011), "Virtual Disk Format 1.1" (2007): SparseExtentHeader of hosted
 *   sparse extents, COWDisk_Header of ESX Server sparse extents (`-delta.vmdk`, redo logs), grain directories and tables.
 *   http://www.vmware.com/support/developer/vddk/vmdk_50_technote.pdf
 * - Stream-optimized extents (markers, footer): the same, "Stream-Optimized Compressed Sparse Extents".
 * - Which flag bits a reader may ignore (the lower half) and which not (the upper half): VMware's open-vmdk, `vmware_vmdk.h`.
 *   https://github.com/vmware/open-vmdk
 *
 * Everything is little-endian; offsets and sizes are in sectors of 512 bytes unless a name says otherwise.
 */
import { Fields } from '../../binary.ts';

export const SECTOR = 512;

/** "KDMV" as a little-endian number: the first bytes of a hosted sparse extent. */
export const SPARSE_MAGICNUMBER = 0x564d444b;
/** "COWD": the first bytes of an ESX Server sparse extent. */
export const COWDISK_MAGICNUMBER = 0x44574f43;
/** First eight bytes of a seSparse extent (ESXi 5.1 and later). */
export const SESPARSE_MAGICNUMBER = 0x0000_0000_cafe_babe;
/** First four bytes of a change tracking file (`-ctk.vmdk`), big-endian as they stand. */
export const CTK_MAGICNUMBER = 0xa272_19f6;

export const SPARSE_VERSION_MAX = 3;
export const SPARSEFLAG_VALID_NEWLINE_DETECTOR = 1 << 0;
export const SPARSEFLAG_USE_REDUNDANT = 1 << 1;
/** Grain table entries of value 1 are zeroed grains. */
export const SPARSEFLAG_MAGIC_GTE = 1 << 2;
export const SPARSEFLAG_COMPRESSED = 1 << 16;
export const SPARSEFLAG_EMBEDDED_LBA = 1 << 17;
/** Bits that a reader which does not know them must not ignore. */
export const SPARSEFLAG_INCOMPAT_FLAGS = 0xffff_0000;

/** `gdOffset` of a stream-optimized extent: the grain directory is found through the footer. */
export const SPARSE_GD_AT_END = 0xffff_ffff_ffff_ffffn;
export const SPARSE_COMPRESSALGORITHM_NONE = 0;
export const SPARSE_COMPRESSALGORITHM_DEFLATE = 1;

/** Grain directory and grain table entries: not allocated in this extent. */
export const GTE_EMPTY = 0;
/** Grain table entry under SPARSEFLAG_MAGIC_GTE: the grain is zeros and takes no room. */
export const GTE_ZEROED = 1;

export const SPARSE_HEADER_BYTES = 512;
export const SPARSE_MAX_GTES_PER_GT = 512;
/** 1 GiB; what QEMU calls unrealistic beyond. */
export const MAX_GRAIN_SECTORS = 0x20_0000;
/** Bytes of the largest compressed grain that is read: it is inflated as a whole. */
export const MAX_COMPRESSED_GRAIN = 32 << 20;

/** Newline detection bytes: '\n', ' ', '\r', '\n'. A text-mode transfer changes them. */
export const NEWLINE_DETECTOR = '0a200d0a';

/** SparseExtentHeader, 512 bytes. */
export interface SparseExtentHeader {
  readonly version: number;
  readonly flags: number;
  readonly capacity: number;
  readonly grainSize: number;
  readonly descriptorOffset: number;
  readonly descriptorSize: number;
  readonly numGTEsPerGT: number;
  readonly rgdOffset: number;
  /** Undefined where it is SPARSE_GD_AT_END. */
  readonly gdOffset: number | undefined;
  readonly overHead: number;
  readonly uncleanShutdown: number;
  /** The four newline detection bytes as hexadecimal digits. */
  readonly newlineBytes: string;
  readonly compressAlgorithm: number;
}

/** Where the fields of SparseExtentHeader are, in bytes. */
export const SparseExtentHeaderOffsets = {
  magicNumber: 0,
  version: 4,
  flags: 8,
  capacity: 12,
  grainSize: 20,
  descriptorOffset: 28,
  descriptorSize: 36,
  numGTEsPerGT: 44,
  rgdOffset: 48,
  gdOffset: 56,
  overHead: 64,
  uncleanShutdown: 72,
  singleEndLineChar: 73,
  compressAlgorithm: 77,
} as const;

/** @throws CorruptError when a 64-bit field exceeds 2^53-1. */
export function readSparseExtentHeader(fields: Fields): SparseExtentHeader {
  const at = SparseExtentHeaderOffsets;
  return {
    version: fields.u32(at.version),
    flags: fields.u32(at.flags),
    capacity: fields.u64(at.capacity, 'capacity'),
    grainSize: fields.u64(at.grainSize, 'grainSize'),
    descriptorOffset: fields.u64(at.descriptorOffset, 'descriptorOffset'),
    descriptorSize: fields.u64(at.descriptorSize, 'descriptorSize'),
    numGTEsPerGT: fields.u32(at.numGTEsPerGT),
    rgdOffset: fields.u64(at.rgdOffset, 'rgdOffset'),
    gdOffset: fields.big64(at.gdOffset) === SPARSE_GD_AT_END ? undefined : fields.u64(at.gdOffset, 'gdOffset'),
    overHead: fields.u64(at.overHead, 'overHead'),
    uncleanShutdown: fields.u8(at.uncleanShutdown),
    newlineBytes: Buffer.from(fields.slice(at.singleEndLineChar, 4)).toString('hex'),
    compressAlgorithm: fields.u16(at.compressAlgorithm),
  };
}

/** Marker of a stream-optimized extent: of a grain, whose data follows at once, or of what begins in the next sector. */
export const GrainMarkerOffsets = { lba: 0, size: 8, type: 12 } as const;
/** Bytes of a grain's marker; other markers fill a sector. */
export const GRAIN_MARKER_BYTES = 12;
export const MARKER_EOS = 0;
export const MARKER_GT = 1;
export const MARKER_GD = 2;
export const MARKER_FOOTER = 3;

export const COWDISK_HEADER_BYTES = 2048;
export const COWDISK_VERSION = 1;
/** Entries of a grain table of an ESX Server sparse extent; fixed by the format. */
export const COW_NUM_LEAF_ENTRIES = 4096;

/** COWDisk_Header, 2048 bytes: the fields that a reader needs. */
export interface CowDiskHeader {
  readonly version: number;
  readonly flags: number;
  readonly numSectors: number;
  readonly grainSize: number;
  readonly gdOffset: number;
  readonly numGDEntries: number;
  readonly freeSector: number;
  readonly uncleanShutdown: number;
}

/** Where the fields of COWDisk_Header are, in bytes. */
export const CowDiskHeaderOffsets = {
  magicNumber: 0,
  version: 4,
  flags: 8,
  numSectors: 12,
  grainSize: 16,
  gdOffset: 20,
  numGDEntries: 24,
  freeSector: 28,
  uncleanShutdown: 1648,
} as const;

export function readCowDiskHeader(fields: Fields): CowDiskHeader {
  const at = CowDiskHeaderOffsets;
  return {
    version: fields.u32(at.version),
    flags: fields.u32(at.flags),
    numSectors: fields.u32(at.numSectors),
    grainSize: fields.u32(at.grainSize),
    gdOffset: fields.u32(at.gdOffset),
    numGDEntries: fields.u32(at.numGDEntries),
    freeSector: fields.u32(at.freeSector),
    uncleanShutdown: fields.u32(at.uncleanShutdown),
  };
}

/** What a file's first bytes say it is. */
export type VmdkMagic = 'sparse' | 'cowd' | 'sesparse' | 'ctk' | undefined;

/** The kind of VMDK file that these first bytes begin; undefined for everything without a magic number (text, raw). */
export function vmdkMagic(prefix: Uint8Array): VmdkMagic {
  if (prefix.length < 8) return undefined;
  const fields = new Fields(prefix.subarray(0, 8), 'VMDK magic number', '', 0);
  const first = fields.u32(0);
  if (first === SPARSE_MAGICNUMBER) return 'sparse';
  if (first === COWDISK_MAGICNUMBER) return 'cowd';
  if (first === SESPARSE_MAGICNUMBER && fields.u32(4) === 0) return 'sesparse';
  if (fields.u32be(0) === CTK_MAGICNUMBER) return 'ctk';
  return undefined;
}

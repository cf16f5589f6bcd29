/**
 * On-disk structures of VHDX, with the names of the specification: Microsoft, [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format"
 * (2.2 header section, 2.3 log, 2.4 blocks, 2.5 BAT, 2.6 metadata), which replaced the "VHDX Format Specification" 1.00 of 2012.
 * https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-vhdx/
 *
 * Everything is little-endian, offsets and lengths are in bytes unless a name says otherwise. Checksums are CRC-32C over the whole
 * structure with the checksum itself as zeros.
 */
import { crc32cUpdate } from '../../crc32c.ts';

export const KIB = 1024;
export const MIB = 1 << 20;

/** First eight bytes of the file. The rest of the file type identifier is the creator, in UTF-16. */
export const FILE_TYPE_SIGNATURE = 'vhdxfile';
export const FILE_TYPE_BYTES = 520;
/** File type identifier, headers and region tables: nothing else can be in here. */
export const HEADER_SECTION_BYTES = MIB;

export const HEADER_POSITIONS = [64 * KIB, 128 * KIB] as const;
export const HEADER_BYTES = 4 * KIB;
export const HEADER_SIGNATURE = 'head';
export const HEADER_VERSION = 1;
/** Byte behind the second header and its padding. */
export const HEADERS_END = 192 * KIB;

export const HeaderOffsets = {
  signature: 0,
  checksum: 4,
  sequenceNumber: 8,
  fileWriteGuid: 16,
  dataWriteGuid: 32,
  logGuid: 48,
  logVersion: 64,
  version: 66,
  logLength: 68,
  logOffset: 72,
} as const;

export const REGION_TABLE_POSITIONS = [192 * KIB, 256 * KIB] as const;
export const REGION_TABLE_BYTES = 64 * KIB;
export const REGION_TABLE_SIGNATURE = 'regi';
export const REGION_ENTRIES_MAX = 2047;
export const REGION_HEADER_BYTES = 16;
export const REGION_ENTRY_BYTES = 32;

export const REGION_BAT = '2dc27766-f623-4200-9d64-115e9bfd4a08';
export const REGION_METADATA = '8b7ca206-4790-4b9a-b8fe-575f050f886e';

/** Sectors of the log, whatever the sectors of the disk are. */
export const LOG_SECTOR = 4 * KIB;
export const LOG_ENTRY_SIGNATURE = 'loge';
export const LOG_ENTRY_HEADER_BYTES = 64;
export const LOG_DESCRIPTOR_BYTES = 32;
export const LOG_ZERO_SIGNATURE = 'zero';
export const LOG_DATA_SIGNATURE = 'desc';
export const LOG_SECTOR_SIGNATURE = 'data';

export const LogEntryOffsets = {
  signature: 0,
  checksum: 4,
  entryLength: 8,
  tail: 12,
  sequenceNumber: 16,
  descriptorCount: 24,
  logGuid: 32,
  flushedFileOffset: 48,
  lastFileOffset: 56,
} as const;

/** A zero descriptor has its length where a data descriptor has the sector's first eight bytes. */
export const LogDescriptorOffsets = {
  signature: 0,
  trailingBytes: 4,
  leadingBytes: 8,
  zeroLength: 8,
  fileOffset: 16,
  sequenceNumber: 24,
} as const;

export const METADATA_TABLE_BYTES = 64 * KIB;
export const METADATA_SIGNATURE = 'metadata';
export const METADATA_ENTRIES_MAX = 2047;
export const METADATA_USER_ENTRIES_MAX = 1024;
export const METADATA_HEADER_BYTES = 32;
export const METADATA_ENTRY_BYTES = 32;
export const METADATA_ITEM_MAX = MIB;
export const METADATA_IS_USER = 1 << 0;
export const METADATA_IS_REQUIRED = 1 << 2;

export const ITEM_FILE_PARAMETERS = 'caa16737-fa36-4d43-b3b6-33f0aa44e76b';
export const ITEM_VIRTUAL_DISK_SIZE = '2fa54224-cd1b-4876-b211-5dbed83bf4b8';
/** The page 83 data of SCSI inquiry: the disk's identity as its guest sees it. */
export const ITEM_VIRTUAL_DISK_ID = 'beca12ab-b2e6-4523-93ef-c309e000c746';
export const ITEM_LOGICAL_SECTOR_SIZE = '8141bf1d-a96f-4709-ba47-f233a8faab5f';
export const ITEM_PHYSICAL_SECTOR_SIZE = 'cda348c7-445d-4471-9cc9-e9885251c556';
export const ITEM_PARENT_LOCATOR = 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c';

export const FILE_LEAVE_BLOCK_ALLOCATED = 1 << 0;
export const FILE_HAS_PARENT = 1 << 1;

export const BLOCK_BYTES_MIN = MIB;
export const BLOCK_BYTES_MAX = 256 * MIB;
export const VIRTUAL_SIZE_MAX = 64 * 2 ** 40;

export const PARENT_LOCATOR_VHDX = 'b04aefb7-d19e-4a81-b789-25b8e9445913';
export const PARENT_LOCATOR_HEADER_BYTES = 20;
export const PARENT_LOCATOR_ENTRY_BYTES = 12;

export const BAT_ENTRY_BYTES = 8;
/** The low 20 bits of an entry: 3 of state, 17 reserved. Above them is the offset in MiB, so the rest is the offset in bytes. */
export const BAT_STATE_MASK = 7;
export const BAT_RESERVED_MASK = 0xffff8;

export const PAYLOAD_BLOCK_NOT_PRESENT = 0;
export const PAYLOAD_BLOCK_UNDEFINED = 1;
export const PAYLOAD_BLOCK_ZERO = 2;
export const PAYLOAD_BLOCK_UNMAPPED = 3;
export const PAYLOAD_BLOCK_FULLY_PRESENT = 6;
export const PAYLOAD_BLOCK_PARTIALLY_PRESENT = 7;
export const SB_BLOCK_NOT_PRESENT = 0;
export const SB_BLOCK_PRESENT = 6;

/** A sector bitmap block has one bit for each of this many logical sectors. */
export const SECTOR_BITMAP_BYTES = MIB;
export const CHUNK_SECTORS = SECTOR_BITMAP_BYTES * 8;

export const NO_GUID = '00000000-0000-0000-0000-000000000000';

const NO_CHECKSUM = new Uint8Array(4);

/** CRC-32C of a structure whose bytes 4 to 8 are that checksum. */
export function checksumOf(structure: Uint8Array): number {
  let register = crc32cUpdate(0xffff_ffff, structure, 0, 4);
  register = crc32cUpdate(register, NO_CHECKSUM);
  return (crc32cUpdate(register, structure, 8) ^ 0xffff_ffff) >>> 0;
}

/** True where `[position, position + length)` and `[other, other + otherLength)` have a byte in common. */
export function overlap(position: number, length: number, other: number, otherLength: number): boolean {
  return position < other + otherLength && other < position + length;
}

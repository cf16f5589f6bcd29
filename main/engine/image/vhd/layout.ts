/**
 * On-disk structures of VHD, with the names of the specification.
 *
 * - Microsoft, "Virtual Hard Disk Image Format Specification", version 1.0 (11 October 2006): hard disk footer, dynamic disk header,
 *   parent locators, block allocation table, sector bitmaps.
 * - What XenServer adds (batmap, key hash, the `hidden` byte, raw parents, bitmaps of tapdisk 0.1), and what its tools write that
 *   the specification does not say: blktap, `include/vhd.h`, `include/libvhd.h`, `vhd/lib/libvhd.c`.
 *   https://github.com/xapi-project/blktap
 *
 * Everything is big-endian; positions are in bytes, but for entries of the block allocation table, which are in sectors.
 */
import type { Fields } from '../../binary.ts';

export const SECTOR = 512;

export const FOOTER_COOKIE = 'conectix';
/** What XenServer's tools write in place of the cookie while they resize a VHD; the old metadata is then in a journal file. */
export const POISON_COOKIE = 'v_poison';
/** XenServer's tapdisk fills the last footer with this byte while it has the VHD open for writing. */
export const IN_USE_FILL = 0xc7;
export const FOOTER_BYTES = 512;
/** Virtual PC before 2004 wrote a footer of 511 bytes. */
export const SHORT_FOOTER_BYTES = 511;

export const FEATURE_TEMPORARY = 1 << 0;
/** Always set. */
export const FEATURE_RESERVED = 1 << 1;

/** File format and header version 1.0. A new major version is one that old programs can't read. */
export const MAJOR_VERSION = 1;

export const TYPE_FIXED = 2;
export const TYPE_DYNAMIC = 3;
export const TYPE_DIFFERENCING = 4;

/** `Data Offset` of a structure that nothing follows. */
export const NO_OFFSET = 0xffff_ffff_ffff_ffffn;

/** Seconds from 1970 to 2000, where time stamps begin. */
export const EPOCH_2000 = 946_684_800;

/** Hard disk footer. */
export interface Footer {
  readonly cookie: string;
  readonly features: number;
  readonly fileFormatVersion: number;
  readonly dataOffset: bigint;
  /** Seconds since 2000. */
  readonly timeStamp: number;
  /** Four characters, without the NULs and blanks at their end. */
  readonly creatorApplication: string;
  readonly creatorVersion: number;
  readonly creatorHostOs: number;
  /** Rounded where it exceeds 2^53: it is only shown and compared. */
  readonly originalSize: number;
  readonly currentSize: number;
  readonly cylinders: number;
  readonly heads: number;
  readonly sectorsPerTrack: number;
  readonly diskType: number;
  readonly checksum: number;
  readonly uniqueId: string;
  readonly savedState: number;
  /** XenServer: 1 for a disk that only stands under others, 2 for one that is to be deleted. */
  readonly hidden: number;
}

/** Where the fields of the footer are, in bytes. */
export const FooterOffsets = {
  cookie: 0,
  features: 8,
  fileFormatVersion: 12,
  dataOffset: 16,
  timeStamp: 24,
  creatorApplication: 28,
  creatorVersion: 32,
  creatorHostOs: 36,
  originalSize: 40,
  currentSize: 48,
  diskGeometry: 56,
  diskType: 60,
  checksum: 64,
  uniqueId: 68,
  savedState: 84,
  hidden: 85,
  reserved: 86,
} as const;

/** @throws CorruptError when the current size exceeds 2^53-1. */
export function readFooterFields(fields: Fields): Footer {
  const at = FooterOffsets;
  return {
    cookie: fields.ascii(at.cookie, 8),
    features: fields.u32be(at.features),
    fileFormatVersion: fields.u32be(at.fileFormatVersion),
    dataOffset: fields.big64be(at.dataOffset),
    timeStamp: fields.u32be(at.timeStamp),
    creatorApplication: fields.ascii(at.creatorApplication, 4).trimEnd(),
    creatorVersion: fields.u32be(at.creatorVersion),
    creatorHostOs: fields.u32be(at.creatorHostOs),
    originalSize: rounded64(fields, at.originalSize),
    currentSize: fields.u64be(at.currentSize, 'current size'),
    cylinders: fields.u16be(at.diskGeometry),
    heads: fields.u8(at.diskGeometry + 2),
    sectorsPerTrack: fields.u8(at.diskGeometry + 3),
    diskType: fields.u32be(at.diskType),
    checksum: fields.u32be(at.checksum),
    uniqueId: fields.uuid(at.uniqueId),
    savedState: fields.u8(at.savedState),
    hidden: fields.u8(at.hidden),
  };
}

export const HEADER_COOKIE = 'cxsparse';
export const HEADER_BYTES = 1024;
export const LOCATORS = 8;
export const LOCATOR_BYTES = 24;
export const MIN_BLOCK = SECTOR;

/** Dynamic disk header, without its locators. */
export interface DynamicHeader {
  readonly dataOffset: bigint;
  readonly tableOffset: number;
  readonly headerVersion: number;
  readonly maxTableEntries: number;
  readonly blockSize: number;
  readonly checksum: number;
  readonly parentUniqueId: string;
  /** Seconds since 2000. */
  readonly parentTimeStamp: number;
}

/** Where the fields of the dynamic disk header are, in bytes. */
export const HeaderOffsets = {
  cookie: 0,
  dataOffset: 8,
  tableOffset: 16,
  headerVersion: 24,
  maxTableEntries: 28,
  blockSize: 32,
  checksum: 36,
  parentUniqueId: 40,
  parentTimeStamp: 56,
  reserved1: 60,
  parentUnicodeName: 64,
  parentLocators: 576,
  reserved2: 768,
} as const;

export const UNICODE_NAME_BYTES = 512;

/** @throws CorruptError when the table's position exceeds 2^53-1. */
export function readHeaderFields(fields: Fields): DynamicHeader {
  const at = HeaderOffsets;
  return {
    dataOffset: fields.big64be(at.dataOffset),
    tableOffset: fields.u64be(at.tableOffset, 'table offset'),
    headerVersion: fields.u32be(at.headerVersion),
    maxTableEntries: fields.u32be(at.maxTableEntries),
    blockSize: fields.u32be(at.blockSize),
    checksum: fields.u32be(at.checksum),
    parentUniqueId: fields.uuid(at.parentUniqueId),
    parentTimeStamp: fields.u32be(at.parentTimeStamp),
  };
}

/** One of the eight places where a differencing disk records how its parent is found. */
export interface ParentLocator {
  /** 0 to 7. */
  readonly index: number;
  /** Four characters: `W2ru`, `W2ku`, `MacX`, `Mac `, `Wi2r`, `Wi2k`; empty for a place not used. */
  readonly code: string;
  /** Sectors by the specification, bytes by Virtual PC and what followed it. */
  readonly dataSpace: number;
  readonly dataLength: number;
  readonly reserved: number;
  /** Rounded where it exceeds 2^53; then it is in no file. */
  readonly dataOffset: number;
}

export function readLocator(header: Fields, index: number): ParentLocator {
  const at = HeaderOffsets.parentLocators + index * LOCATOR_BYTES;
  return {
    index,
    code: header.ascii(at, 4),
    dataSpace: header.u32be(at + 4),
    dataLength: header.u32be(at + 8),
    reserved: header.u32be(at + 12),
    dataOffset: rounded64(header, at + 16),
  };
}

/** An entry of the block allocation table: the block is not there. */
export const BLOCK_UNUSED = 0xffff_ffff;

export const BATMAP_COOKIE = 'tdbatmap';
export const BATMAP_HEADER_BYTES = 512;
/** 1.1 summed its bytes as signed ones. */
export const BATMAP_VERSION_SIGNED = 0x0001_0001;
export const BATMAP_VERSION_MAX = 0x0001_0002;

/** XenServer's batmap header, in the sector behind the block allocation table. */
export interface BatmapHeader {
  readonly offset: number;
  readonly sectors: number;
  readonly version: number;
  readonly checksum: number;
  /** 1 when the key hash is set: the blocks are encrypted (AES-XTS), the tables are not. */
  readonly keyHashCookie: number;
}

export const BatmapOffsets = {
  cookie: 0,
  offset: 8,
  sectors: 16,
  version: 20,
  checksum: 24,
  marker: 28,
  keyHashCookie: 29,
  keyHashNonce: 30,
  keyHash: 62,
} as const;

export function readBatmapFields(fields: Fields): BatmapHeader {
  const at = BatmapOffsets;
  return {
    offset: rounded64(fields, at.offset),
    sectors: fields.u32be(at.sectors),
    version: fields.u32be(at.version),
    checksum: fields.u32be(at.checksum),
    keyHashCookie: fields.u8(at.keyHashCookie),
  };
}

function rounded64(fields: Fields, offset: number): number {
  return fields.u32be(offset) * 0x1_0000_0000 + fields.u32be(offset + 4);
}

/** The one's complement of the sum of all bytes, the four at `field` taken as zero: footers and headers alike. */
export function checksumOf(bytes: Uint8Array, field: number): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) if (i < field || i >= field + 4) sum += bytes[i]!;
  return ~sum >>> 0;
}

/** `1.3` of 0x00010003. */
export function versionText(version: number): string {
  return `${version >>> 16}.${version & 0xffff}`;
}

/** A time stamp as ISO 8601 UTC. */
export function timeText(timeStamp: number): string {
  return new Date((timeStamp + EPOCH_2000) * 1000).toISOString().replace('.000Z', 'Z');
}

export const NO_UUID = '00000000-0000-0000-0000-000000000000';

/** Sectors rounded up, at least one: how tables, bitmaps and batmaps are padded. */
export function paddedBytes(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / SECTOR)) * SECTOR;
}

/** XenServer's tapdisk and its tools sign with `tap`. */
export function madeByTapdisk(footer: Footer): boolean {
  return footer.creatorApplication === 'tap';
}

/** tapdisk 0.1 had the bits of a bitmap from the lowest of each byte on. */
export const TAP_VERSION_LOW_BIT_FIRST = 0x0000_0001;
export const TAP_VERSION_BATMAP = 0x0001_0001;
export const TAP_VERSION_BATMAP_ALWAYS = 0x0001_0002;

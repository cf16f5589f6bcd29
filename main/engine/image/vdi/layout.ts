/**
 * On-disk structures of VirtualBox's VDI, under the names of its source: VDIPREHEADER, VDIHEADER0, VDIHEADER1 and VDIHEADER1PLUS
 * of src/VBox/Storage/VDICore.h, which is the only specification there is. Everything is little endian.
 *
 * A file is a header, a table of 32-bit block numbers (`offBlocks`) and the blocks (`offData`), each of which may be preceded by
 * `cbBlockExtra` bytes that belong to nobody. Version 0 has the table and the blocks right behind its shorter header.
 */
import type { Fields } from '../../binary.ts';

export const SECTOR = 512;
export const SIGNATURE_OFFSET = 64;
/** VDI_IMAGE_SIGNATURE. */
export const SIGNATURE = 0xbeda107f;
/** The same as it lies in the file. */
export const SIGNATURE_HEX = '7f10dabe';
/** VDIPREHEADER: the text for eyes, the signature, the version. */
const PREHEADER_BYTES = 72;
export const HEADER0_BYTES = 348;
const HEADER1_BYTES = 384;
const HEADER1PLUS_BYTES = 400;
/** What is read of a file to know all of its header. */
export const ALL_HEADERS_BYTES = PREHEADER_BYTES + HEADER1PLUS_BYTES;
const COMMENT_BYTES = 256;

/** VDI_IMAGE_BLOCK_FREE: this image has nothing there. */
export const BLOCK_FREE = 0xffff_ffff;
/** VDI_IMAGE_BLOCK_ZERO: this image says zeros. */
export const BLOCK_ZERO = 0xffff_fffe;

/** VDIIMAGETYPE. */
export const IMAGE_TYPES: ReadonlyMap<number, string> = new Map([
  [1, 'dynamic'],
  [2, 'fixed'],
  [3, 'undo'],
  [4, 'differencing'],
]);

/** The one known flag: new blocks are filled with zeros when the file grows. Says nothing about what is stored. */
export const FLAG_ZERO_EXPAND = 1;

export interface Geometry {
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
  readonly sectorBytes: number;
}

/** A header of whatever version. */
export interface VdiHeader {
  readonly major: number;
  readonly minor: number;
  /** u32Type. */
  readonly type: number;
  /** fFlags. */
  readonly flags: number;
  /** szComment. */
  readonly comment: string;
  /** Byte position of the block map. */
  readonly offBlocks: number;
  /** Byte position of block number 0. */
  readonly offData: number;
  readonly legacyGeometry: Geometry;
  /** LCHSGeometry, from VDIHEADER1PLUS on. */
  readonly geometry: Geometry | undefined;
  /** cbDisk, in bytes. */
  readonly diskSize: number;
  /** cbBlock, in bytes. */
  readonly blockSize: number;
  /** cbBlockExtra, in bytes. */
  readonly blockExtra: number;
  /** cBlocks. */
  readonly blocks: number;
  /** cBlocksAllocated. */
  readonly allocated: number;
  /** uuidCreate; undefined for one of zeros, as are the others. */
  readonly uuid: string | undefined;
  /** uuidModify. */
  readonly modification: string | undefined;
  /** uuidLinkage: of the parent. */
  readonly parent: string | undefined;
  /** uuidParentModify: of the parent's modification when this image was made; version 1 only. */
  readonly parentModification: string | undefined;
  /** Where the fields are that errors and findings point at, from the beginning of the file. */
  readonly at: Readonly<Record<'type' | 'flags' | 'offBlocks' | 'offData' | 'diskSize' | 'blockSize', number>> &
    Readonly<Record<'blockExtra' | 'blocks' | 'allocated' | 'uuid' | 'modification' | 'parent', number>>;
}

export const VERSION_OFFSET = 68;

/** @param fields the file from its beginning: at least HEADER0_BYTES behind the preheader. */
export function readHeader0(fields: Fields, minor: number): VdiHeader {
  const at = {
    type: PREHEADER_BYTES,
    flags: PREHEADER_BYTES + 4,
    comment: PREHEADER_BYTES + 8,
    geometry: PREHEADER_BYTES + 264,
    diskSize: PREHEADER_BYTES + 280,
    blockSize: PREHEADER_BYTES + 288,
    blocks: PREHEADER_BYTES + 292,
    allocated: PREHEADER_BYTES + 296,
    uuid: PREHEADER_BYTES + 300,
    modification: PREHEADER_BYTES + 316,
    parent: PREHEADER_BYTES + 332,
    // These three it does not have: what is wrong with them comes of the number of blocks.
    offBlocks: PREHEADER_BYTES + 292,
    offData: PREHEADER_BYTES + 292,
    blockExtra: PREHEADER_BYTES + 288,
  };
  const blocks = fields.u32(at.blocks);
  const offBlocks = PREHEADER_BYTES + HEADER0_BYTES;
  return {
    major: 0,
    minor,
    ...common(fields, at),
    offBlocks,
    offData: offBlocks + blocks * 4,
    blockExtra: 0,
    geometry: undefined,
    parentModification: undefined,
    at,
  };
}

/** @param fields the file from its beginning: at least HEADER1_BYTES behind the preheader. */
export function readHeader1(fields: Fields, minor: number): VdiHeader {
  const at = {
    type: PREHEADER_BYTES + 4,
    flags: PREHEADER_BYTES + 8,
    comment: PREHEADER_BYTES + 12,
    offBlocks: PREHEADER_BYTES + 268,
    offData: PREHEADER_BYTES + 272,
    geometry: PREHEADER_BYTES + 276,
    diskSize: PREHEADER_BYTES + 296,
    blockSize: PREHEADER_BYTES + 304,
    blockExtra: PREHEADER_BYTES + 308,
    blocks: PREHEADER_BYTES + 312,
    allocated: PREHEADER_BYTES + 316,
    uuid: PREHEADER_BYTES + 320,
    modification: PREHEADER_BYTES + 336,
    parent: PREHEADER_BYTES + 352,
  };
  const bytes = fields.u32(PREHEADER_BYTES);
  fields.require(bytes >= HEADER1_BYTES, 'cbHeader', PREHEADER_BYTES, `at least ${HEADER1_BYTES}`, bytes);
  const plus = bytes >= HEADER1PLUS_BYTES;
  return {
    major: 1,
    minor,
    ...common(fields, at),
    offBlocks: fields.u32(at.offBlocks),
    offData: fields.u32(at.offData),
    blockExtra: fields.u32(at.blockExtra),
    geometry: plus ? readGeometry(fields, PREHEADER_BYTES + HEADER1_BYTES) : undefined,
    parentModification: uuidOf(fields, PREHEADER_BYTES + 368),
    at,
  };
}

function common(
  fields: Fields,
  at: Readonly<
    Record<
      | 'type'
      | 'flags'
      | 'comment'
      | 'geometry'
      | 'diskSize'
      | 'blockSize'
      | 'blocks'
      | 'allocated'
      | 'uuid'
      | 'modification'
      | 'parent',
      number
    >
  >,
) {
  return {
    type: fields.u32(at.type),
    flags: fields.u32(at.flags),
    comment: commentOf(fields.slice(at.comment, COMMENT_BYTES)),
    legacyGeometry: readGeometry(fields, at.geometry),
    diskSize: fields.u64(at.diskSize, 'cbDisk'),
    blockSize: fields.u32(at.blockSize),
    blocks: fields.u32(at.blocks),
    allocated: fields.u32(at.allocated),
    uuid: uuidOf(fields, at.uuid),
    modification: uuidOf(fields, at.modification),
    parent: uuidOf(fields, at.parent),
  };
}

function readGeometry(fields: Fields, offset: number): Geometry {
  return {
    cylinders: fields.u32(offset),
    heads: fields.u32(offset + 4),
    sectors: fields.u32(offset + 8),
    sectorBytes: fields.u32(offset + 12),
  };
}

/** RTUUID is stored as Microsoft's GUIDs are, and written in lower case. */
function uuidOf(fields: Fields, offset: number): string | undefined {
  const uuid = fields.guid(offset).toLowerCase();
  return /^[0-]+$/.test(uuid) ? undefined : uuid;
}

/** UTF-8 up to the first NUL, on one line. */
function commentOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder()
    .decode(end < 0 ? bytes : bytes.subarray(0, end))
    .replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]+/gu, ' ')
    .trim();
}

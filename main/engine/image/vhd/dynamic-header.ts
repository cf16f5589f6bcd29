/**
 * The dynamic disk header (specification, "Dynamic Disk Header Format"): how large blocks are and where their table is. It is kept
 * once only, so an image whose header is damaged can't be read.
 */
import { Fields } from '../../binary.ts';
import { type CorruptError, NeedsKeyError, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Footers } from './footer.ts';
import * as layout from './layout.ts';
import { type BatmapHeader, type DynamicHeader, type Footer, SECTOR } from './layout.ts';

const HEADER = 'VHD dynamic disk header';
const BATMAP = 'VHD batmap header';

export interface Tables {
  readonly header: DynamicHeader;
  readonly fields: Fields;
  /** Blocks of the disk, and so entries of the table that mean anything. */
  readonly blocks: number;
  readonly batmap: { readonly header: BatmapHeader; readonly fields: Fields } | undefined;
  /** Byte position where the batmap header is, if there is one. */
  readonly batmapPosition: number;
}

/**
 * Reads and checks the header that the footer leads to, and XenServer's batmap header behind the table.
 * @throws CorruptError, UnsupportedError, NeedsKeyError for an encrypted disk, IoError.
 */
export async function readTables(file: OpenFile, footers: Footers): Promise<Tables> {
  const { footer, used, dataEnd, front } = footers;
  const at = layout.FooterOffsets;
  // As a number: 2^64-1 becomes one that no file has.
  const position = used.fields.u32be(at.dataOffset) * 0x1_0000_0000 + used.fields.u32be(at.dataOffset + 4);
  if (position < layout.FOOTER_BYTES || position + layout.HEADER_BYTES > dataEnd) {
    const range = `a header from byte ${layout.FOOTER_BYTES} to ${dataEnd}`;
    throw used.fields.corrupt('data offset', at.dataOffset, range, `one of 1024 bytes from byte ${position}`);
  }
  const bytes =
    position + layout.HEADER_BYTES <= front.length
      ? front.subarray(position, position + layout.HEADER_BYTES)
      : await file.read(position, layout.HEADER_BYTES);
  const fields = new Fields(bytes, HEADER, file.name, position);
  const header = checkedHeader(fields);
  const blocks = Math.ceil(footer.currentSize / header.blockSize);
  checkTable(header, fields, blocks, dataEnd, footer);
  const batmapPosition = header.tableOffset + layout.paddedBytes(header.maxTableEntries * 4);
  const batmap = madeWithBatmap(footer) ? await readBatmapHeader(file, batmapPosition, dataEnd) : undefined;
  if (batmap !== undefined && batmap.header.keyHashCookie !== 0) {
    throw new NeedsKeyError(`The VHD ${file.name} (XenServer, AES-XTS)`, { source: file.name });
  }
  return { header, fields, blocks, batmap, batmapPosition };
}

function checkedHeader(fields: Fields): DynamicHeader {
  const at = layout.HeaderOffsets;
  const cookie = fields.ascii(at.cookie, 8);
  const found = Buffer.from(fields.slice(at.cookie, 8)).toString('hex');
  fields.require(cookie === layout.HEADER_COOKIE, 'cookie', at.cookie, `"${layout.HEADER_COOKIE}"`, found);
  const fault = checksumFault(fields);
  if (fault !== undefined && !parentUnsummed(fields)) throw fault;
  const header = layout.readHeaderFields(fields);
  if (header.headerVersion >>> 16 !== layout.MAJOR_VERSION) {
    const version = layout.versionText(header.headerVersion);
    throw new UnsupportedError(`VHD dynamic disk header version ${version}`, { source: fields.source });
  }
  return header;
}

/** The error for a wrong checksum; undefined where it holds. */
export function checksumFault(fields: Fields): CorruptError | undefined {
  const at = layout.HeaderOffsets.checksum;
  const stored = fields.u32be(at);
  const sum = layout.checksumOf(fields.bytes, at);
  return sum === stored
    ? undefined
    : fields.corrupt('checksum', at, `0x${sum.toString(16)}`, `0x${stored.toString(16)}`);
}

/**
 * Whether the checksum holds without the parent's identity, time and names: somebody gave the disk a parent and did not sum anew.
 * The fields that say where blocks are stand under the checksum still, and the parent's identity proves itself.
 */
function parentUnsummed(fields: Fields): boolean {
  const at = layout.HeaderOffsets;
  const bytes = fields.bytes.slice();
  bytes.fill(0, at.parentUniqueId, at.reserved1);
  bytes.fill(0, at.parentUnicodeName, at.reserved2);
  return layout.checksumOf(bytes, at.checksum) === fields.u32be(at.checksum);
}

function checkTable(header: DynamicHeader, fields: Fields, blocks: number, dataEnd: number, footer: Footer): void {
  const at = layout.HeaderOffsets;
  const { blockSize, maxTableEntries, tableOffset } = header;
  fields.require(
    blockSize >= layout.MIN_BLOCK && (blockSize & (blockSize - 1)) === 0,
    'block size',
    at.blockSize,
    `a power of two from ${layout.MIN_BLOCK}`,
    blockSize,
  );
  fields.require(
    maxTableEntries >= blocks,
    'max table entries',
    at.maxTableEntries,
    `at least ${blocks}, for ${footer.currentSize} bytes in blocks of ${blockSize}`,
    maxTableEntries,
  );
  fields.require(
    tableOffset >= layout.FOOTER_BYTES && tableOffset + blocks * 4 <= dataEnd,
    'table offset',
    at.tableOffset,
    `a table of ${blocks} entries from byte ${layout.FOOTER_BYTES} to ${dataEnd}`,
    `one from byte ${tableOffset}`,
  );
}

/** Whether tapdisk of this version keeps a batmap. From 1.2 on there always is one; 1.1 may have been brought up from 0.1. */
export function madeWithBatmap(footer: Footer): boolean {
  return layout.madeByTapdisk(footer) && footer.creatorVersion >= layout.TAP_VERSION_BATMAP;
}

/** The batmap header, or undefined where there is none: it only saves reading, so its damage costs nothing but time. */
async function readBatmapHeader(file: OpenFile, position: number, dataEnd: number): Promise<Tables['batmap']> {
  if (position + layout.BATMAP_HEADER_BYTES > dataEnd) return undefined;
  const fields = new Fields(await file.read(position, layout.BATMAP_HEADER_BYTES), BATMAP, file.name, position);
  if (fields.ascii(0, 8) !== layout.BATMAP_COOKIE) return undefined;
  return { header: layout.readBatmapFields(fields), fields };
}

/** Bytes of a block's sector bitmap: a bit for each sector, padded to whole sectors. */
export function bitmapBytes(blockSize: number): number {
  return layout.paddedBytes(blockSize / SECTOR / 8);
}

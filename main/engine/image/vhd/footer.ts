/**
 * The hard disk footer: in the last sector of every VHD, and once more in the first one of a dynamic or differencing VHD
 * (specification, "Hard Disk Footer Format"). Where the last one can't be used the copy is, and the reverse; that it was is told.
 * Two footers with wrong checksums that are the same byte for byte were changed by a program that does not sum (there are such
 * images), and are believed: damage does not strike twice alike.
 *
 * The size of the disk is the footer's `Current Size`, whoever made the image: the specification calls it the size of the disk as
 * the machine sees it. The geometry beside it describes the same disk to a BIOS, in whole cylinders, and so is often smaller;
 * Virtual PC showed its guests that, and QEMU does so for images signed `vpc ` or `qemu`. Reading by it would cut off the end of
 * disks that were made by anybody else, and of a child whose parent is signed by another program; `check` tells where they differ.
 */
import { basename } from 'node:path';
import { Fields } from '../../binary.ts';
import { CorruptError, NotFoundError, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { findingOf } from '../findings.ts';
import type { Finding } from '../image.ts';
import * as layout from './layout.ts';
import { type Footer, SECTOR } from './layout.ts';

const FOOTER = 'VHD footer';
const COPY = 'VHD footer copy';

/** What one of the two places of a footer holds. */
export interface FooterPlace {
  readonly fields: Fields;
  /** Bytes of it in the file: 512, or 511 in very old images. */
  readonly length: number;
  /** The footer, where it can be used. */
  readonly footer: Footer | undefined;
  /** What is wrong with it. */
  readonly error: CorruptError | undefined;
}

export interface Footers {
  /** The one that is used. */
  readonly footer: Footer;
  readonly used: FooterPlace;
  readonly last: FooterPlace;
  /** Undefined for a fixed disk, whose first sector is the guest's. */
  readonly copy: FooterPlace | undefined;
  /** First byte behind everything that blocks may take: where the last footer begins, or the end of the file if there is none. */
  readonly dataEnd: number;
  /** The file's first bytes: a footer copy, and usually the dynamic disk header. */
  readonly front: Uint8Array;
  readonly findings: readonly Finding[];
}

/** Bytes read of the front of the file: the footer copy and, in its usual place, the dynamic disk header. */
const FRONT_BYTES = layout.FOOTER_BYTES + layout.HEADER_BYTES;

/**
 * Reads both footers and decides which is used. @throws CorruptError when neither can be, UnsupportedError for versions and kinds of
 * disk that are not read and for split images, IoError.
 */
export async function readFooters(file: OpenFile, folder: Confinement): Promise<Footers> {
  if (file.size < layout.SHORT_FOOTER_BYTES) {
    throw new CorruptError(FOOTER, {
      source: file.name,
      position: 0,
      expected: `${layout.FOOTER_BYTES} bytes`,
      found: `a file of ${file.size} bytes`,
    });
  }
  let last = await readLast(file);
  const front = await file.read(0, Math.min(FRONT_BYTES, file.size));
  const first = examine(new Fields(front.subarray(0, layout.FOOTER_BYTES), COPY, file.name, 0));
  const alike = last.footer === undefined && first.footer === undefined ? alikeAndUnsummed(last, first) : undefined;
  if (alike !== undefined) last = { ...last, footer: alike };
  // A copy is kept by disks with a table only: whatever a fixed disk has in its first sector, its guest wrote.
  const copied = first.footer !== undefined && hasTable(first.footer) ? first.footer : undefined;
  const footer = last.footer ?? copied;
  if (footer === undefined) {
    refuseSplit(file, folder);
    throw last.error!;
  }
  refuse(footer, last.footer === undefined ? first.fields : last.fields);
  const copy = !hasTable(footer) ? undefined : alike === undefined ? first : { ...first, footer: alike };
  const used = last.footer === undefined ? first : last;
  // A last footer that is damaged but still begins as one ends the blocks all the same.
  const ended = last.fields.ascii(0, 8) === layout.FOOTER_COOKIE;
  return {
    footer,
    used,
    last,
    copy,
    dataEnd: ended ? file.size - last.length : file.size,
    front,
    findings: [...footerFindings(file, last, copy)],
  };
}

/** Whether the disk has a dynamic disk header and a block allocation table. */
export function hasTable({ diskType }: Footer): boolean {
  return diskType === layout.TYPE_DYNAMIC || diskType === layout.TYPE_DIFFERENCING;
}

async function readLast(file: OpenFile): Promise<FooterPlace> {
  const length = Math.min(layout.FOOTER_BYTES, file.size);
  const start = file.size - length;
  const bytes = await file.read(start, length);
  const cookie = Buffer.from(bytes.subarray(length - layout.SHORT_FOOTER_BYTES)).toString('latin1', 0, 8);
  if (Buffer.from(bytes).toString('latin1', 0, 8) !== layout.FOOTER_COOKIE && cookie === layout.FOOTER_COOKIE) {
    const whole = new Uint8Array(layout.FOOTER_BYTES);
    whole.set(bytes.subarray(length - layout.SHORT_FOOTER_BYTES));
    const position = file.size - layout.SHORT_FOOTER_BYTES;
    return examine(new Fields(whole, FOOTER, file.name, position), layout.SHORT_FOOTER_BYTES);
  }
  return examine(new Fields(bytes, FOOTER, file.name, start));
}

/** Whether the bytes are a footer that can be trusted. */
function examine(fields: Fields, length: number = layout.FOOTER_BYTES): FooterPlace {
  const place = (error: CorruptError): FooterPlace => ({ fields, length, footer: undefined, error });
  if (fields.length < layout.FOOTER_BYTES) {
    return place(fields.corrupt('', 0, `${layout.FOOTER_BYTES} bytes`, `${fields.length} bytes`));
  }
  const cookie = fields.ascii(0, 8);
  if (cookie !== layout.FOOTER_COOKIE && cookie !== layout.POISON_COOKIE) {
    return place(fields.corrupt('cookie', 0, `"${layout.FOOTER_COOKIE}"`, cookieFound(fields)));
  }
  const stored = fields.u32be(layout.FooterOffsets.checksum);
  const sum = layout.checksumOf(fields.bytes, layout.FooterOffsets.checksum);
  if (sum !== stored && !hiddenUnsummed(fields, stored)) {
    return place(fields.corrupt('checksum', layout.FooterOffsets.checksum, hex(sum), hex(stored)));
  }
  try {
    return { fields, length, footer: layout.readFooterFields(fields), error: undefined };
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    return place(error);
  }
}

/** The footer that both places hold alike, whose checksum alone is wrong; undefined for anything else. */
function alikeAndUnsummed(last: FooterPlace, first: FooterPlace): Footer | undefined {
  if (last.fields.length < layout.FOOTER_BYTES || first.fields.length < layout.FOOTER_BYTES) return undefined;
  if (last.fields.ascii(0, 8) !== layout.FOOTER_COOKIE) return undefined;
  if (Buffer.compare(last.fields.bytes.subarray(0, last.length), first.fields.bytes.subarray(0, last.length)) !== 0) {
    return undefined;
  }
  try {
    const footer = layout.readFooterFields(last.fields);
    return hasTable(footer) ? footer : undefined;
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    return undefined;
  }
}

/** Early tools of XenServer set the `hidden` byte without summing anew. */
function hiddenUnsummed(fields: Fields, stored: number): boolean {
  const hidden = fields.u8(layout.FooterOffsets.hidden);
  const version = fields.u32be(layout.FooterOffsets.creatorVersion);
  if (hidden === 0 || fields.ascii(layout.FooterOffsets.creatorApplication, 4) !== 'tap') return false;
  if (version !== layout.TAP_VERSION_LOW_BIT_FIRST && version !== layout.TAP_VERSION_BATMAP) return false;
  const bytes = fields.bytes.slice();
  bytes[layout.FooterOffsets.hidden] = 0;
  return layout.checksumOf(bytes, layout.FooterOffsets.checksum) === stored;
}

function cookieFound(fields: Fields): string {
  if (inUse(fields)) return 'the mark of a disk that XenServer has open for writing';
  const bytes = fields.slice(0, 8);
  return bytes.every((byte) => byte === 0) ? 'zeros' : Buffer.from(bytes).toString('hex');
}

/** Whether tapdisk had the disk open when the file was copied, and so had overwritten its last footer. */
function inUse(fields: Fields): boolean {
  return fields.bytes.every((byte) => byte === layout.IN_USE_FILL);
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

function refuse(footer: Footer, fields: Fields): void {
  const { source } = fields;
  if (footer.cookie === layout.POISON_COOKIE) {
    throw new UnsupportedError('a VHD whose resizing was interrupted ("v_poison"; vhd-util can take it back)', {
      source,
    });
  }
  if (footer.fileFormatVersion >>> 16 !== layout.MAJOR_VERSION) {
    throw new UnsupportedError(`VHD file format version ${layout.versionText(footer.fileFormatVersion)}`, { source });
  }
  if (footer.diskType !== layout.TYPE_FIXED && !hasTable(footer)) {
    throw new UnsupportedError(`VHD disk type ${footer.diskType}`, { source });
  }
  fields.require(footer.currentSize > 0, 'current size', layout.FooterOffsets.currentSize, 'at least 1', 0);
}

/** Virtual PC cut large images into `disk.vhd`, `disk.v01` ...: the footer is in the last of them. */
function refuseSplit(file: OpenFile, folder: Confinement): void {
  const second = basename(file.path).replace(/\.a?vhd$/i, '.v01');
  if (second === basename(file.path)) return;
  try {
    folder.resolveRecorded(second, file.path);
  } catch (error) {
    if (error instanceof NotFoundError) return;
    throw error;
  }
  throw new UnsupportedError('a VHD split into several files (.v01 ...)', { source: file.name });
}

function* footerFindings(file: OpenFile, last: FooterPlace, copy: FooterPlace | undefined): Generator<Finding> {
  if (last.footer !== undefined && last.error !== undefined) {
    yield findingOf(
      last.error,
      'footer-checksum',
      'suspicious',
      'Both footers are the same, so they are believed: a program or a person changed them without summing anew.',
    );
  } else if (last.footer === undefined) {
    const { error } = last;
    const why = inUse(last.fields)
      ? `${file.name} was open for writing when it was copied: XenServer had overwritten its last footer`
      : `The footer in the last sector of ${file.name} can't be used`;
    yield {
      severity: 'suspicious',
      code: 'footer-copy-used',
      message: `${why}; the copy in the first sector is used`,
      source: file.name,
      structure: String(error!.details.structure),
      position: Number(error!.details.position),
      expected: error!.details.expected as string | number,
      found: error!.details.found as string | number,
      remedy:
        'The disk can be read by the copy. If the file was cut off, reading a block that lies behind its end fails; compare its length with another copy of the backup.',
    };
  } else if (copy?.footer === undefined && copy?.error !== undefined) {
    const { structure, position, expected, found } = copy.error.details;
    yield {
      severity: 'suspicious',
      code: 'footer-copy-damaged',
      message: `The copy of the footer in the first sector of ${file.name} can't be used`,
      source: file.name,
      structure: String(structure),
      position: Number(position),
      expected: expected as string | number,
      found: found as string | number,
      remedy: 'The disk reads by the footer in the last sector, which has no second copy any more.',
    };
  }
  if (last.length === layout.SHORT_FOOTER_BYTES) {
    yield {
      severity: 'note',
      code: 'footer-short',
      message: `${file.name} has a footer of ${layout.SHORT_FOOTER_BYTES} bytes, as Virtual PC wrote it before 2004`,
      source: file.name,
      structure: FOOTER,
      position: last.fields.position,
      expected: layout.FOOTER_BYTES,
      found: layout.SHORT_FOOTER_BYTES,
    };
  }
}

/** Bytes of the disk as the geometry counts them; 0 where it says nothing. */
export function geometryBytes({ cylinders, heads, sectorsPerTrack }: Footer): number {
  return cylinders * heads * sectorsPerTrack * SECTOR;
}

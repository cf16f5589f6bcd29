/**
 * The text descriptor of a VMDK, embedded in a sparse extent or a file of its own (VMware, "Virtual Disk Format 5.0", "The
 * Descriptor File"): header keys, extent lines, disk database.
 *
 * Reading is strict where a slip would change the disk: a line that is neither comment, nor `key=value`, nor an extent is
 * refused, because a damaged extent line that is passed over would move everything behind it.
 */
import { CorruptError } from '../../errors.ts';
import { descriptorDecoder, type LineDecoder } from './encodings.ts';
import { SECTOR } from './layout.ts';

/** More than any descriptor that exists (VMware reserves 10 KiB); also what QEMU reads at most. */
export const MAX_DESCRIPTOR_BYTES = 1 << 20;
/** 8 TiB in extents of 2 GB. Each holds a file open. */
export const MAX_EXTENTS = 4096;

/** The value of `parentCID` in a base disk. */
export const CID_NOPARENT = 'ffffffff';

export type ExtentAccess = 'RW' | 'RDONLY' | 'NOACCESS';

export interface DescriptorExtent {
  readonly access: ExtentAccess;
  readonly sectors: number;
  /** Upper case, as the specification names it: FLAT, VMFS, SPARSE, VMFSSPARSE, ZERO, VMFSRDM ... */
  readonly type: string;
  /** The recorded file name, exactly as written. */
  readonly name: string | undefined;
  /** First sector within the file; 0 where the line has none. */
  readonly offset: number;
  /** Byte position of the line. */
  readonly position: number;
}

export interface Descriptor {
  /** Label of the file it was read from. */
  readonly source: string;
  readonly version: number;
  readonly encoding: string;
  readonly createType: string;
  /** Eight lower-case hexadecimal digits; undefined where the descriptor has none. */
  readonly cid: string | undefined;
  readonly parentCid: string | undefined;
  readonly parentFileNameHint: string | undefined;
  readonly extents: readonly DescriptorExtent[];
  /** Every key, in lower case, with its value; `ddb.` keys too. */
  readonly values: ReadonlyMap<string, string>;
}

interface Line {
  readonly bytes: Uint8Array;
  readonly position: number;
}

const STRUCTURE = 'VMDK descriptor';
/** Keys that decide what the disk is: written twice with different values, neither can be trusted. */
const DECISIVE = new Set(['version', 'encoding', 'cid', 'parentcid', 'createtype', 'parentfilenamehint']);

/**
 * True when the bytes begin as a descriptor does. Lenient, for detection: white space and a byte order mark may stand before
 * it, and the comment may be missing when `version=` comes first and `createType=` follows.
 */
export function looksLikeDescriptor(prefix: Uint8Array): boolean {
  const text = Buffer.from(prefix.subarray(0, 16_384)).toString('latin1').replace(/^ï»¿/, '');
  if (/^\s*#\s*Disk DescriptorFile/i.test(text)) return true;
  for (const line of text.split('\n')) {
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) continue;
    return /^version\s*=/i.test(trimmed) && /^\s*createType\s*=/im.test(text);
  }
  return false;
}

/**
 * Reads a descriptor. `bytes` may be padded with NULs, as the embedded one is; `position` is where it begins in `source`.
 * @throws CorruptError with the line's byte position; UnsupportedError for an encoding that is not known.
 */
export function parseDescriptor(bytes: Uint8Array, source: string, position = 0): Descriptor {
  if (bytes.length > MAX_DESCRIPTOR_BYTES) {
    throw new CorruptError(STRUCTURE, {
      source,
      position,
      expected: `at most ${MAX_DESCRIPTOR_BYTES} bytes`,
      found: `${bytes.length} bytes`,
    });
  }
  const lines = splitLines(bytes, position);
  const encoding = declaredEncoding(lines);
  const decode = lineDecoder(lines, encoding, source);
  const values = new Map<string, string>();
  const extents: DescriptorExtent[] = [];
  for (const line of lines) {
    const text = decode(line).trim();
    if (text === '' || text.startsWith('#')) continue;
    const extent = parseExtent(text, line, source);
    if (extent !== undefined) {
      extents.push(extent);
      if (extents.length > MAX_EXTENTS) {
        throw damaged('extent list', line.position, source, `at most ${MAX_EXTENTS} extents`, 'more');
      }
    } else {
      addValue(values, text, line, source);
    }
  }
  if (extents.length === 0) throw damaged('extent list', position, source, 'at least one extent', 'none');
  const sectors = extents.reduce((sum, extent) => sum + extent.sectors, 0);
  if (sectors > Number.MAX_SAFE_INTEGER / SECTOR) {
    throw damaged('extent list', position, source, 'a disk of at most 2^53-1 bytes', `${sectors} sectors`);
  }
  return {
    source,
    version: versionOf(values, position, source),
    encoding: encoding ?? 'UTF-8',
    createType: needed(values, 'createType', position, source),
    cid: contentId(values, 'CID', position, source),
    parentCid: contentId(values, 'parentCID', position, source),
    parentFileNameHint: values.get('parentfilenamehint') || undefined,
    extents,
    values,
  };
}

function damaged(
  part: string,
  position: number,
  source: string,
  expected: string | number,
  found: string | number,
): CorruptError {
  return new CorruptError(`${STRUCTURE} ${part}`, { source, position, expected, found });
}

/** The lines up to the first NUL, without their line ends. */
function splitLines(bytes: Uint8Array, position: number): Line[] {
  const nul = bytes.indexOf(0);
  const text = nul < 0 ? bytes : bytes.subarray(0, nul);
  const lines: Line[] = [];
  for (let start = 0; start < text.length; ) {
    const newline = text.indexOf(0x0a, start);
    const end = newline < 0 ? text.length : newline;
    lines.push({ bytes: text.subarray(start, end), position: position + start });
    start = end + 1;
  }
  return lines;
}

/** `encoding=` is ASCII in every set that is read, so it can be found before the set is known. */
function declaredEncoding(lines: readonly Line[]): string | undefined {
  for (const line of lines) {
    if (line.bytes.length > 256) continue;
    const match = /^\s*encoding\s*=\s*"?([^"]*?)"?\s*$/i.exec(Buffer.from(line.bytes).toString('latin1'));
    if (match?.[1]) return match[1];
  }
  return undefined;
}

function lineDecoder(lines: readonly Line[], encoding: string | undefined, source: string): (line: Line) => string {
  let decoder = descriptorDecoder(encoding ?? 'utf-8', source);
  // Before the key existed hosts wrote their own code page, which is not recorded. windows-1252 gives every byte a meaning, so
  // that a comment with an umlaut does not make a disk unreadable; a name it gets wrong is not found, never mistaken.
  if (encoding === undefined && !lines.every((line) => decodes(decoder, line))) {
    decoder = descriptorDecoder('windows-1252', source);
  }
  return (line) => {
    try {
      return decoder(line.bytes);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      throw damaged('text', line.position, source, `text in ${encoding ?? 'UTF-8'}`, 'bytes that are not');
    }
  };
}

function decodes(decoder: LineDecoder, line: Line): boolean {
  try {
    decoder(line.bytes);
    return true;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return false;
  }
}

/** The extent that a line describes, or undefined when it is no extent line. */
function parseExtent(text: string, line: Line, source: string): DescriptorExtent | undefined {
  const start = /^(RW|RDONLY|NOACCESS)\s+/i.exec(text);
  if (start === null) return undefined;
  // ACCESS SECTORS TYPE ["NAME" [OFFSET [DEVICE DETAILS]]]
  const match = /^\s*(\d{1,16})\s+([A-Za-z0-9_]{1,32})(?:\s+"([^"]*)"(?:\s+(\d{1,16})(?:\s.*)?)?)?$/.exec(
    text.slice(start[0].length),
  );
  if (match === null) {
    throw damaged('extent line', line.position, source, 'ACCESS SECTORS TYPE "NAME" OFFSET', text.slice(0, 120));
  }
  const sectors = Number(match[1]);
  const offset = Number(match[4] ?? 0);
  const most = Math.floor(Number.MAX_SAFE_INTEGER / SECTOR);
  if (sectors < 1 || sectors > most) {
    throw damaged('extent size', line.position, source, `1 to ${most} sectors`, match[1] ?? '');
  }
  if (offset > most - sectors) {
    throw damaged('extent offset', line.position, source, `at most ${most - sectors}`, match[4] ?? '');
  }
  const type = (match[2] ?? '').toUpperCase();
  const name = match[3] === '' ? undefined : match[3];
  if (name === undefined && type !== 'ZERO') {
    throw damaged('extent line', line.position, source, 'a file name', text.slice(0, 120));
  }
  return { access: start[1]!.toUpperCase() as ExtentAccess, sectors, type, name, offset, position: line.position };
}

function addValue(values: Map<string, string>, text: string, line: Line, source: string): void {
  const equals = text.indexOf('=');
  const key = text.slice(0, Math.max(equals, 0)).trim();
  if (equals < 0 || !/^[^\s"]{1,256}$/.test(key)) {
    throw damaged('line', line.position, source, 'a comment, KEY=VALUE or an extent', text.slice(0, 120));
  }
  const written = text.slice(equals + 1).trim();
  let value = written;
  if (written.startsWith('"')) {
    const end = written.indexOf('"', 1);
    if (end < 0) throw damaged(key, line.position, source, 'a closing quote', written.slice(0, 120));
    value = written.slice(1, end);
  }
  const lower = key.toLowerCase();
  const before = values.get(lower);
  if (before !== undefined && before !== value && DECISIVE.has(lower)) {
    throw damaged(key, line.position, source, `"${before}", as written before`, value.slice(0, 120));
  }
  if (before === undefined) values.set(lower, value);
}

function needed(values: ReadonlyMap<string, string>, key: string, position: number, source: string): string {
  const value = values.get(key.toLowerCase());
  if (value === undefined || value === '') throw damaged(key, position, source, 'a value', 'none');
  return value;
}

function versionOf(values: ReadonlyMap<string, string>, position: number, source: string): number {
  const value = needed(values, 'version', position, source);
  // VMware takes `version=1` with anything but digits behind it.
  const digits = /^\d{1,9}(?!\d)/.exec(value);
  if (digits === null || Number(digits[0]) < 1) throw damaged('version', position, source, 'a number from 1', value);
  return Number(digits[0]);
}

/** A content id as eight lower-case digits: writers leave leading zeros away. */
function contentId(
  values: ReadonlyMap<string, string>,
  key: string,
  position: number,
  source: string,
): string | undefined {
  const value = values.get(key.toLowerCase());
  if (value === undefined || value === '') return undefined;
  if (!/^(0x)?[0-9a-f]{1,8}$/i.test(value)) {
    throw damaged(key, position, source, 'up to eight hexadecimal digits', value.slice(0, 120));
  }
  return value.replace(/^0x/i, '').toLowerCase().padStart(8, '0');
}

/**
 * The 512-byte header of a tar member: POSIX.1-1988 ustar, the pax headers of POSIX.1-2001, GNU's long names, base-256 numbers and
 * sparse members, and the V7 format before them.
 *
 * Sources: POSIX.1-2017 `pax` utility, sections "ustar Interchange Format" and "pax Interchange Format"
 * (https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html), and the GNU tar manual, "Basic Tar Format"
 * (https://www.gnu.org/software/tar/manual/html_node/Standard.html).
 */
import { CorruptError } from '../../errors.ts';

export const TAR_BLOCK = 512;

/** Where fields are, as POSIX names them: offset and length. */
const NAME = [0, 100] as const;
const SIZE = [124, 12] as const;
const MTIME = [136, 12] as const;
const CHKSUM = [148, 8] as const;
const TYPEFLAG = 156;
const MAGIC = 257;
const PREFIX = [345, 155] as const;
/** In an old GNU sparse header, and in the blocks that continue its map: whether a (further) block follows. */
export const GNU_IS_EXTENDED = 482;
export const GNU_BLOCK_IS_EXTENDED = 504;

export interface TarHeader {
  readonly type: string;
  readonly name: string;
  readonly size: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  /** It continues in further blocks (old GNU sparse). */
  readonly extended: boolean;
}

/** Unsigned and signed sum of the header's bytes, its own checksum taken as spaces. Old systems summed signed bytes. */
function checksums(block: Uint8Array): { unsigned: number; signed: number } {
  let unsigned = 0;
  let signed = 0;
  for (let i = 0; i < TAR_BLOCK; i++) {
    const byte = i >= CHKSUM[0] && i < CHKSUM[0] + CHKSUM[1] ? 0x20 : block[i]!;
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  return { unsigned, signed };
}

/** True when the block's checksum is right: it is a header. A block of zeros is none: its checksum would be 256. */
export function isTarHeader(block: Uint8Array): boolean {
  const recorded = octal(block, ...CHKSUM);
  if (recorded === undefined) return false;
  const { unsigned, signed } = checksums(block);
  return recorded === unsigned || recorded === signed;
}

/** @throws CorruptError when the checksum or a number is wrong. @param position of the block, for the error. */
export function parseTarHeader(block: Uint8Array, source: string, position: number): TarHeader {
  if (!isTarHeader(block)) {
    throw new CorruptError('Tar header', {
      source,
      position: position + CHKSUM[0],
      expected: `the checksum ${checksums(block).unsigned.toString(8)} (octal)`,
      found: JSON.stringify(latin1(block, CHKSUM[0], CHKSUM[1])),
    });
  }
  const type = block[TYPEFLAG] === 0 ? '0' : String.fromCharCode(block[TYPEFLAG]!);
  const magic = latin1(block, MAGIC, 6, false);
  const name = text(block, ...NAME);
  // GNU's own format ("ustar  ") keeps other things where POSIX has the prefix.
  const prefix = magic === 'ustar\0' ? text(block, ...PREFIX) : '';
  return {
    type,
    name: prefix === '' ? name : `${prefix}/${name}`,
    size: number(block, SIZE, 'size', source, position),
    mtime: number(block, MTIME, 'mtime', source, position),
    extended: type === 'S' && block[GNU_IS_EXTENDED] !== 0,
  };
}

/** A number in octal digits; undefined when it is none. An empty field is 0. */
function octal(block: Uint8Array, at: number, length: number): number | undefined {
  const digits = latin1(block, at, length).trim();
  if (digits === '') return 0;
  return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : undefined;
}

/** A number in octal digits or, where the first bit is set, base 256 with its highest byte first (GNU). */
function number(
  block: Uint8Array,
  [at, length]: readonly [number, number],
  field: string,
  source: string,
  position: number,
): number {
  const bad = (found: string): CorruptError =>
    new CorruptError(`Tar header ${field}`, {
      source,
      position: position + at,
      expected: 'a number of at most 2^53-1',
      found,
    });
  const first = block[at]!;
  if (first < 0x80) {
    const value = octal(block, at, length);
    if (value === undefined || value > Number.MAX_SAFE_INTEGER) throw bad(JSON.stringify(latin1(block, at, length)));
    return value;
  }
  const hex = Buffer.from(block.subarray(at, at + length)).toString('hex');
  // Times before 1970 are negative; nobody here needs them exactly. A negative size is damage.
  if (first === 0xff && field === 'mtime') return 0;
  if (first !== 0x80) throw bad(`0x${hex}`);
  let value = 0;
  for (let i = 1; i < length; i++) {
    value = value * 256 + block[at + i]!;
    if (value > Number.MAX_SAFE_INTEGER) throw bad(`0x${hex}`);
  }
  return value;
}

function latin1(block: Uint8Array, at: number, length: number, untilNul = true): string {
  const field = block.subarray(at, at + length);
  const end = untilNul ? field.indexOf(0) : -1;
  return Buffer.from(end < 0 ? field : field.subarray(0, end)).toString('latin1');
}

function text(block: Uint8Array, at: number, length: number): string {
  return decodeName(block.subarray(at, at + length));
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A name up to its first NUL: UTF-8, and Latin-1 where it is not. */
export function decodeName(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  const raw = end < 0 ? bytes : bytes.subarray(0, end);
  try {
    return utf8.decode(raw);
  } catch {
    // Written on a system with another encoding, which a tar does not name.
    return Buffer.from(raw).toString('latin1');
  }
}

/** What a pax header says of the member after it; only what is used here. */
export interface PaxRecords {
  readonly path?: string;
  readonly size?: number;
  readonly mtime?: number;
  /** It is a sparse member (`GNU.sparse.*`). */
  readonly sparse?: boolean;
}

/** Reads the records `<length> <key>=<value>\n` of a pax header. @throws CorruptError. */
export function parsePax(body: Uint8Array, source: string, position: number): PaxRecords {
  const records: { path?: string; size?: number; mtime?: number; sparse?: boolean } = {};
  for (let at = 0; at < body.length && body[at] !== 0; ) {
    const space = body.indexOf(0x20, at);
    const digits = space < 0 || space - at > 10 ? '' : Buffer.from(body.subarray(at, space)).toString('latin1');
    const end = at + Number(digits);
    if (!/^\d+$/.test(digits) || end <= space + 1 || end > body.length || body[end - 1] !== 0x0a) {
      throw new CorruptError('Pax record', {
        source,
        position: position + at,
        expected: 'its length, a key, "=", a value and a line end',
        found: JSON.stringify(Buffer.from(body.subarray(at, at + 24)).toString('latin1')),
      });
    }
    const equals = body.indexOf(0x3d, space);
    if (equals > 0 && equals < end) {
      const key = Buffer.from(body.subarray(space + 1, equals)).toString('latin1');
      const value = body.subarray(equals + 1, end - 1);
      if (key === 'path') records.path = decodeName(value);
      else if (key === 'size') records.size = decimal(value, true, 'size', source, position + at);
      else if (key === 'mtime') records.mtime = decimal(value, false, 'mtime', source, position + at);
      else if (key.startsWith('GNU.sparse.')) records.sparse = true;
    }
    at = end;
  }
  return records;
}

function decimal(value: Uint8Array, whole: boolean, key: string, source: string, position: number): number {
  const digits = Buffer.from(value).toString('latin1');
  const parsed = Number(digits);
  const fits = whole ? /^\d+$/.test(digits) : /^-?\d+(\.\d*)?$/.test(digits);
  if (!fits || Math.abs(parsed) > Number.MAX_SAFE_INTEGER) {
    throw new CorruptError(`Pax ${key}`, {
      source,
      position,
      expected: 'a number of at most 2^53-1',
      found: JSON.stringify(digits.slice(0, 40)),
    });
  }
  return parsed;
}

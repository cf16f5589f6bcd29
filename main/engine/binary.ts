/**
 * Reading numbers and text out of on-disk structures. All parsers go through here, so that bounds, byte order and the
 * 2^53-1 limit on offsets are checked in one place. Functions take the structure's bytes and an offset into them.
 *
 * `Fields` carries the name of the structure and its place, so that a bad field can say where it is.
 */
import { CorruptError } from './errors.ts';

/** The bytes of one on-disk structure together with its name and position: the reader that parsers use. */
export class Fields {
  readonly bytes: Uint8Array;
  readonly structure: string;
  readonly source: string;
  /** Byte position of `bytes[0]` in `source`. */
  readonly position: number;
  readonly #view: DataView;

  constructor(bytes: Uint8Array, structure: string, source: string, position: number) {
    this.bytes = bytes;
    this.structure = structure;
    this.source = source;
    this.position = position;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get length(): number {
    return this.bytes.length;
  }

  #check(offset: number, length: number): void {
    // Written so that NaN and a negative length, which a calculation on damaged fields can give, fail it too.
    if (!(offset >= 0 && length >= 0 && offset + length <= this.bytes.length)) {
      throw this.corrupt('field', offset, `${offset + length} bytes`, `${this.bytes.length} bytes`);
    }
  }

  u8(offset: number): number {
    this.#check(offset, 1);
    return this.#view.getUint8(offset);
  }
  u16(offset: number): number {
    this.#check(offset, 2);
    return this.#view.getUint16(offset, true);
  }
  u32(offset: number): number {
    this.#check(offset, 4);
    return this.#view.getUint32(offset, true);
  }
  i32(offset: number): number {
    this.#check(offset, 4);
    return this.#view.getInt32(offset, true);
  }
  u16be(offset: number): number {
    this.#check(offset, 2);
    return this.#view.getUint16(offset, false);
  }
  u32be(offset: number): number {
    this.#check(offset, 4);
    return this.#view.getUint32(offset, false);
  }
  /** 64 bits as they stand, for flags and identities; for offsets and sizes use `u64`. */
  big64(offset: number): bigint {
    this.#check(offset, 8);
    return this.#view.getBigUint64(offset, true);
  }
  big64be(offset: number): bigint {
    this.#check(offset, 8);
    return this.#view.getBigUint64(offset, false);
  }
  /** A 64-bit offset, size or count; more than 2^53-1 is refused as corrupt. */
  u64(offset: number, field = 'field'): number {
    this.#check(offset, 8);
    return this.#safe(this.#view.getUint32(offset + 4, true), this.#view.getUint32(offset, true), offset, field);
  }
  u64be(offset: number, field = 'field'): number {
    this.#check(offset, 8);
    return this.#safe(this.#view.getUint32(offset, false), this.#view.getUint32(offset + 4, false), offset, field);
  }
  #safe(high: number, low: number, offset: number, field: string): number {
    if (high > 0x1f_ffff) throw this.corrupt(field, offset, 'at most 2^53-1', `0x${high.toString(16)}${hex32(low)}`);
    return high * 0x1_0000_0000 + low;
  }

  slice(offset: number, length: number): Uint8Array {
    this.#check(offset, length);
    return this.bytes.subarray(offset, offset + length);
  }

  /** Bytes up to the first NUL, as Latin-1 (ASCII labels and magics). */
  ascii(offset: number, length: number): string {
    const raw = this.slice(offset, length);
    const end = raw.indexOf(0);
    return Buffer.from(end < 0 ? raw : raw.subarray(0, end)).toString('latin1');
  }

  /** A UUID in the byte order of RFC 4122 (ext, LVM). */
  uuid(offset: number): string {
    return formatUuid(this.slice(offset, 16));
  }

  /** A GUID in Microsoft's mixed byte order (GPT, VHDX). */
  guid(offset: number): string {
    const b = this.slice(offset, 16);
    return formatUuid(
      Uint8Array.of(b[3]!, b[2]!, b[1]!, b[0]!, b[5]!, b[4]!, b[7]!, b[6]!, ...b.subarray(8)),
    ).toUpperCase();
  }

  /** The error for a field of this structure. `offset` is relative to the structure. */
  corrupt(field: string, offset: number, expected: string | number, found: string | number): CorruptError {
    return new CorruptError(`${this.structure}${field === 'field' || field === '' ? '' : ` ${field}`}`, {
      source: this.source,
      position: this.position + offset,
      expected,
      found,
    });
  }

  /** Throws unless `condition` holds. */
  require(condition: boolean, field: string, offset: number, expected: string | number, found: string | number): void {
    if (!condition) throw this.corrupt(field, offset, expected, found);
  }
}

function formatUuid(b: Uint8Array): string {
  const hex = Buffer.from(b).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** A 32-bit number as eight hexadecimal digits. */
export function hex32(value: number): string {
  return (value >>> 0).toString(16).padStart(8, '0');
}

/** True when every byte is zero. */
export function isZero(bytes: Uint8Array): boolean {
  const whole = bytes.length - (bytes.length % 8);
  if (bytes.byteOffset % 8 === 0) {
    const words = new BigUint64Array(bytes.buffer, bytes.byteOffset, whole / 8);
    for (let i = 0; i < words.length; i++) if (words[i] !== 0n) return false;
    for (let i = whole; i < bytes.length; i++) if (bytes[i] !== 0) return false;
    return true;
  }
  return bytes.every((byte) => byte === 0);
}

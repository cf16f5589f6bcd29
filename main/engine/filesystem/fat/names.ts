/**
 * FAT names and times: 8.3 names in code page 437 with the case bits of Windows NT, labels, and the parts of long names.
 *
 * Sources: fatgen103, "Directory Structure" and "Long Directory Entries"; the case bits of byte 12 as Linux fs/fat/dir.c reads
 * them (CASE_LOWER_BASE, CASE_LOWER_EXT); code page 437 from
 * https://www.unicode.org/Public/MAPPINGS/VENDORS/MICSFT/PC/CP437.TXT.
 */
import type { Timestamp } from '../file-system.ts';
import { nameFromUtf16 } from '../names.ts';

/** 0x80 to 0xff of code page 437, what Windows in the USA and Linux by default take short names to be in. */
const upperHalf =
  'ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀' +
  'αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0';

function decode437(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte < 0x80 ? String.fromCharCode(byte) : upperHalf[byte - 0x80];
  return text;
}

/** The 11 bytes of a short name with 0x05, which stands for 0xe5 in the first, put back. */
function withFirstByte(raw: Uint8Array): Uint8Array {
  if (raw[0] !== 0x05) return raw;
  const copy = Uint8Array.from(raw);
  copy[0] = 0xe5;
  return copy;
}

/** `README.TXT` from its 11 bytes and the byte with NT's case bits. Empty when there is nothing but spaces. */
export function decodeShortName(raw: Uint8Array, caseBits: number): string {
  const bytes = withFirstByte(raw);
  let base = decode437(bytes.subarray(0, 8)).replace(/ +$/, '');
  let extension = decode437(bytes.subarray(8, 11)).replace(/ +$/, '');
  if ((caseBits & 0x08) !== 0) base = base.toLowerCase();
  if ((caseBits & 0x10) !== 0) extension = extension.toLowerCase();
  return extension === '' ? base : `${base}.${extension}`;
}

/** A volume label from its 11 bytes; empty when there is none. */
export function decodeLabel(raw: Uint8Array): string {
  const text = decode437(withFirstByte(raw));
  const end = text.indexOf('\0');
  return (end < 0 ? text : text.slice(0, end)).replace(/ +$/, '');
}

/** The checksum by which the parts of a long name belong to one short name (fatgen103, ChkSum). */
export function shortNameChecksum(raw: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < 11; i++) sum = (((sum & 1) << 7) + (sum >> 1) + raw[i]!) & 0xff;
  return sum;
}

/** Where the 13 UTF-16 units of a long name's part stand in its entry. */
const unitOffsets = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30] as const;
/** 255 units need 20 entries of 13. */
export const maxNameParts = 20;

/** Collects the parts of a long name as they are stored, last part first, and gives the name if they all fit together. */
export class LongName {
  #units = new Uint16Array(maxNameParts * unitOffsets.length);
  #parts = 0;
  #expected = 0;
  #checksum = 0;

  reset(): void {
    this.#parts = 0;
    this.#expected = 0;
  }

  /** Takes one entry with the long-name attribute. A part out of order discards what was collected. */
  add(entry: Uint8Array): void {
    const order = entry[0]!;
    const part = order & 0x3f;
    const valid = part >= 1 && part <= maxNameParts && (order & 0x80) === 0 && entry[12] === 0;
    if (valid && (order & 0x40) !== 0) {
      this.#parts = part;
      this.#checksum = entry[13]!;
    } else if (!valid || this.#parts === 0 || part !== this.#expected - 1 || entry[13] !== this.#checksum) {
      this.reset();
      return;
    }
    this.#expected = part;
    const at = (part - 1) * unitOffsets.length;
    unitOffsets.forEach((offset, i) => {
      this.#units[at + i] = entry[offset]! | (entry[offset + 1]! << 8);
    });
  }

  /** The long name of the short entry that follows; undefined where there is none or its parts are orphans. */
  take(shortName: Uint8Array): string | undefined {
    const complete = this.#parts > 0 && this.#expected === 1 && this.#checksum === shortNameChecksum(shortName);
    const units = this.#units.subarray(0, this.#parts * unitOffsets.length);
    this.reset();
    if (!complete) return undefined;
    const end = units.indexOf(0);
    const length = end < 0 ? units.length : end;
    if (length === 0 || length > 255) return undefined;
    return nameFromUtf16(String.fromCharCode(...units.subarray(0, length)));
  }
}

/**
 * A name that can stand in a path: what cannot (a slash, a NUL, `.`, `..`, nothing at all) is written `\u002f`. No valid FAT
 * name holds a backslash, so nothing real looks like it. `valid` tells whether it was a name at all.
 */
export function pathSafe(name: string): { readonly name: string; readonly valid: boolean } {
  const escaped = (text: string): string =>
    [...text].map((c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`).join('');
  if (name === '') return { name: '\\u0000', valid: false };
  if (name === '.' || name === '..') return { name: escaped(name), valid: false };
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a NUL in a name is exactly what is looked for
  const safe = name.replace(/[/\u0000]/g, escaped);
  return { name: safe, valid: safe === name };
}

/** For comparison without regard to case: unit by unit, as Windows does, so that lengths never change (ß stays ß). */
export function foldCase(name: string): string {
  if (/^[\x20-\x7e]*$/.test(name)) return name.toUpperCase();
  let folded = '';
  for (const c of name) {
    const upper = c.toUpperCase();
    folded += upper.length === c.length ? upper : c;
  }
  return folded;
}

/**
 * A FAT date and time. FAT keeps the guest's local time and no zone; it is given as if it were UTC, so that a shell shows the
 * digits the guest showed. Undefined where the date is none (zero, month 13, 31 April).
 *
 * @param tenMs 0 to 199 units of 10 ms on top, for the creation time.
 */
export function fatTime(date: number, time: number, tenMs = 0): Timestamp | undefined {
  const year = 1980 + (date >> 9);
  const month = (date >> 5) & 0x0f;
  const day = date & 0x1f;
  const hours = time >> 11;
  const minutes = (time >> 5) & 0x3f;
  const twoSeconds = time & 0x1f;
  if (hours > 23 || minutes > 59 || twoSeconds > 29) return undefined;
  const midnight = new Date(Date.UTC(year, month - 1, day));
  if (month < 1 || midnight.getUTCMonth() !== month - 1 || midnight.getUTCDate() !== day) return undefined;
  const fraction = tenMs <= 199 ? tenMs : 0;
  const seconds = midnight.getTime() / 1000 + hours * 3600 + minutes * 60 + twoSeconds * 2 + Math.floor(fraction / 100);
  return { seconds, nanoseconds: (fraction % 100) * 10_000_000 };
}

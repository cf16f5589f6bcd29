/**
 * Huffman decoding tables of DEFLATE (RFC 1951, sections 3.2.2, 3.2.5 and 3.2.7). A table is looked up with the next bits of the
 * stream, least significant first: a first level for codes of up to `root` bits, and second levels behind it for longer ones.
 *
 * An entry is a signed 32-bit number:
 * - negative: a literal, byte in bits 16-23, bits 0-7 the length of its code;
 * - EXCEPTIONAL set: end of block (END), an invalid code (INVALID), or a second level: its index in bits 16-30, the number of
 *   bits it is looked up with in bits 8-12, bits 0-7 the bits of the first level;
 * - else a length or a distance: its base in bits 16-30, extra bits in bits 8-12, bits 0-7 the length of its code.
 */

/** Longest code. */
export const MAX_CODE_BITS = 15;
export const EXCEPTIONAL = 0x8000;
/** In an exceptional entry: this is the end of the block. */
export const END = 0x4000;
/** In an exceptional entry: no code is spelt like this. */
export const INVALID = 0x2000;
const LITERAL = 0x8000_0000 | 0;

export const LENGTH_ROOT = 10;
export const DISTANCE_ROOT = 9;
export const CODE_LENGTH_ROOT = 7;
/** Room for a table: its first level and every second level that a complete code of so many symbols can need, and more. */
export const LENGTH_TABLE = 2048;
export const DISTANCE_TABLE = 1024;

function lengthMeanings(): Int32Array {
  const meanings = new Int32Array(288).fill(EXCEPTIONAL | INVALID);
  for (let literal = 0; literal < 256; literal++) meanings[literal] = LITERAL | (literal << 16);
  meanings[256] = EXCEPTIONAL | END;
  let base = 3;
  for (let symbol = 257; symbol < 285; symbol++) {
    const extra = symbol < 265 ? 0 : (symbol - 261) >> 2;
    meanings[symbol] = (base << 16) | (extra << 8);
    base += 1 << extra;
  }
  meanings[285] = 258 << 16;
  return meanings;
}

function distanceMeanings(): Int32Array {
  const meanings = new Int32Array(32).fill(EXCEPTIONAL | INVALID);
  let base = 1;
  for (let symbol = 0; symbol < 30; symbol++) {
    const extra = symbol < 4 ? 0 : (symbol >> 1) - 1;
    meanings[symbol] = (base << 16) | (extra << 8);
    base += 1 << extra;
  }
  return meanings;
}

/** What the entry of each symbol says besides the length of its code. */
export const LENGTHS: Int32Array = lengthMeanings();
export const DISTANCES: Int32Array = distanceMeanings();
/** Code lengths of code lengths: the symbol itself. */
export const CODE_LENGTHS: Int32Array = Int32Array.from({ length: 19 }, (_, symbol) => symbol << 16);

const counts = new Uint16Array(MAX_CODE_BITS + 1);
const next = new Uint16Array(MAX_CODE_BITS + 1);
/** The code of each symbol as the stream spells it, first bit lowest. */
const spelt = new Uint16Array(320);
/** Bits that the second level behind each beginning needs. */
const widths = new Uint8Array(1 << LENGTH_ROOT);

/** The lowest `length` bits of `code` in reverse order: codes are packed most significant bit first. */
function reversed(code: number, length: number): number {
  let v = ((code & 0x5555) << 1) | ((code >> 1) & 0x5555);
  v = ((v & 0x3333) << 2) | ((v >> 2) & 0x3333);
  v = ((v & 0x0f0f) << 4) | ((v >> 4) & 0x0f0f);
  v = ((v & 0x00ff) << 8) | ((v >> 8) & 0x00ff);
  return v >> (16 - length);
}

/**
 * Fills `table` for the codes that `lengths[from..to)` describe: the length of each symbol's code, 0 for those not used.
 * @param partial allows what every inflater allows: no code at all, or a single one of one bit.
 * @returns false when they are no prefix code: more codes than there can be, or room left for others.
 */
export function buildTable(
  table: Int32Array,
  root: number,
  lengths: Uint8Array,
  from: number,
  to: number,
  meanings: Int32Array,
  partial: boolean,
): boolean {
  counts.fill(0);
  for (let i = from; i < to; i++) counts[lengths[i]!]!++;
  const used = to - from - counts[0]!;
  let room = 1;
  let code = 0;
  let longest = 0;
  for (let length = 1; length <= MAX_CODE_BITS; length++) {
    room = room * 2 - counts[length]!;
    if (room < 0) return false;
    next[length] = code;
    code = (code + counts[length]!) << 1;
    if (counts[length] !== 0) longest = length;
  }
  if (room > 0) {
    if (!(partial && (used === 0 || (used === 1 && longest === 1)))) return false;
    table.fill(EXCEPTIONAL | INVALID | 1, 0, 1 << root);
  }
  const size = 1 << root;
  if (longest > root) widths.fill(0, 0, size);
  for (let i = from; i < to; i++) {
    const length = lengths[i]!;
    if (length === 0) continue;
    const bits = reversed(next[length]!++, length);
    if (length > root) {
      spelt[i] = bits;
      const low = bits & (size - 1);
      if (widths[low]! < length - root) widths[low] = length - root;
      continue;
    }
    const entry = meanings[i - from]! | length;
    for (let at = bits; at < size; at += 1 << length) table[at] = entry;
  }
  if (longest <= root) return true;
  let end = size;
  for (let low = 0; low < size; low++) {
    const width = widths[low]!;
    if (width === 0) continue;
    // Cannot happen for a complete code of this many symbols; a table must not grow because of a mistake here.
    if (end + (1 << width) > table.length) return false;
    table[low] = EXCEPTIONAL | (end << 16) | (width << 8) | root;
    end += 1 << width;
  }
  for (let i = from; i < to; i++) {
    const length = lengths[i]!;
    if (length <= root) continue;
    const first = table[spelt[i]! & (size - 1)]!;
    const start = (first >>> 16) & 0x7fff;
    const width = (first >> 8) & 0x1f;
    const entry = meanings[i - from]! | (length - root);
    for (let at = spelt[i]! >> root; at < 1 << width; at += 1 << (length - root)) table[start + at] = entry;
  }
  return true;
}

/**
 * zlib begins at a byte, DEFLATE blocks begin at any bit. Moving all bits down would do, were there not stored blocks, which lie
 * on bytes of the stream: so the bits before the block are replaced by blocks that hold nothing and end at the same bit.
 */

/** Bits of a block of fixed codes (RFC 1951, 3.2.6) that holds its end only: not the last, type 1, code 0000000. 10 bits. */
const EMPTY_FIXED = '0100000000';

/**
 * A block of dynamic codes (3.2.7) that holds its end only, of 97 bits: with it, odd numbers of bits can be had. Its codes: 256 zeros
 * (18 twice), one length of 1 for the end of block, 11 zeros for distances (18); code lengths 1 and 18 have one bit each.
 */
const EMPTY_DYNAMIC = [
  '0',
  low(2, 2),
  low(0, 5),
  low(10, 5),
  low(14, 4),
  // Lengths of code length codes, in the order 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1.
  ...[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].map((length) => low(length, 3)),
  `1${low(138 - 11, 7)}`,
  `1${low(118 - 11, 7)}`,
  '0',
  `1${low(0, 7)}`,
  '0',
].join('');

/** A number as the stream has it: lowest bit first. */
function low(value: number, bits: number): string {
  return value.toString(2).padStart(bits, '0').split('').reverse().join('');
}

const PREFIXES = Array.from({ length: 8 }, (_, bits) => {
  const odd = bits % 2 === 1;
  const text = `${odd ? EMPTY_DYNAMIC : ''}${EMPTY_FIXED.repeat((odd ? bits - 1 : bits) / 2)}`;
  const bytes = new Uint8Array(Math.ceil(text.length / 8));
  for (let i = 0; i < text.length; i++) if (text[i] === '1') bytes[i >> 3]! |= 1 << (i & 7);
  return bytes;
});

/** A DEFLATE stream that begins `skip` bits into the first of `bytes`, as one that begins at a byte. */
export function fromBit(bytes: Uint8Array, skip: number): Uint8Array {
  if (skip === 0 || bytes.length === 0) return bytes;
  const prefix = PREFIXES[skip]!;
  const out = new Uint8Array(prefix.length - 1 + bytes.length);
  out.set(bytes, prefix.length - 1);
  out.set(prefix.subarray(0, -1));
  const mask = (1 << skip) - 1;
  out[prefix.length - 1] = (prefix.at(-1)! & mask) | (bytes[0]! & ~mask);
  return out;
}

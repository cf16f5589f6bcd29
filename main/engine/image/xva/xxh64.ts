/**
 * XXH64, the checksum of chunks in exports of XenServer 8.1 and later. Specification: "XXH64 algorithm description" in
 * https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md. Numbers of 64 bits are kept as two halves of 32, because BigInt
 * would be some thirty times slower.
 */
import { hex32 } from '../../binary.ts';

/** The five primes, high and low half. */
const P1H = 0x9e3779b1 | 0;
const P1L = 0x85ebca87 | 0;
const P2H = 0xc2b2ae3d | 0;
const P2L = 0x27d4eb4f | 0;
const P3H = 0x165667b1 | 0;
const P3L = 0x9e3779f9 | 0;
const P4H = 0x85ebca77 | 0;
const P4L = 0xc2b2ae63 | 0;
const P5H = 0x27d4eb2f | 0;
const P5L = 0x165667c5 | 0;

/** High half of the last result; the low one is returned. */
let high = 0;

/** a * b modulo 2^64. */
function multiply(ah: number, al: number, bh: number, bl: number): number {
  const a0 = al & 0xffff;
  const a1 = al >>> 16;
  const b0 = bl & 0xffff;
  const b1 = bl >>> 16;
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  const cross = a0 * b1 + (middle & 0xffff);
  high = (a1 * b1 + (middle >>> 16) + (cross >>> 16) + Math.imul(ah, bl) + Math.imul(al, bh)) | 0;
  return Math.imul(al, bl);
}

/** a + b modulo 2^64. */
function add(ah: number, al: number, bh: number, bl: number): number {
  const low = (al >>> 0) + (bl >>> 0);
  high = (ah + bh + (low > 0xffff_ffff ? 1 : 0)) | 0;
  return low | 0;
}

/** a rotated left by `bits`, which are 1 to 31. */
function rotate(ah: number, al: number, bits: number): number {
  high = (ah << bits) | (al >>> (32 - bits));
  return (al << bits) | (ah >>> (32 - bits));
}

/** One step of a lane: (accumulator + input * P2) rotated by 31, times P1. */
function round(ah: number, al: number, ih: number, il: number): number {
  let low = multiply(ih, il, P2H, P2L);
  low = add(ah, al, high, low);
  low = rotate(high, low, 31);
  return multiply(high, low, P1H, P1L);
}

/** (hash ^ round(0, lane)) * P1 + P4. */
function merge(hh: number, hl: number, lh: number, ll: number): number {
  const low = round(0, 0, lh, ll);
  const product = multiply(hh ^ high, hl ^ low, P1H, P1L);
  return add(high, product, P4H, P4L);
}

/** XXH64 of `bytes` with seed 0, as 16 lower-case hexadecimal digits. */
export function xxh64(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length;
  let at = 0;
  let hh: number;
  let hl: number;
  if (end >= 32) {
    let l1 = add(P1H, P1L, P2H, P2L);
    let h1 = high;
    let h2 = P2H;
    let l2 = P2L;
    let h3 = 0;
    let l3 = 0;
    // 0 - P1.
    let l4 = add(~P1H, ~P1L, 0, 1);
    let h4 = high;
    for (const last = end - 32; at <= last; at += 32) {
      l1 = round(h1, l1, view.getInt32(at + 4, true), view.getInt32(at, true));
      h1 = high;
      l2 = round(h2, l2, view.getInt32(at + 12, true), view.getInt32(at + 8, true));
      h2 = high;
      l3 = round(h3, l3, view.getInt32(at + 20, true), view.getInt32(at + 16, true));
      h3 = high;
      l4 = round(h4, l4, view.getInt32(at + 28, true), view.getInt32(at + 24, true));
      h4 = high;
    }
    hl = rotate(h1, l1, 1);
    hh = high;
    let low = rotate(h2, l2, 7);
    hl = add(hh, hl, high, low);
    hh = high;
    low = rotate(h3, l3, 12);
    hl = add(hh, hl, high, low);
    hh = high;
    low = rotate(h4, l4, 18);
    hl = add(hh, hl, high, low);
    hl = merge(high, hl, h1, l1);
    hl = merge(high, hl, h2, l2);
    hl = merge(high, hl, h3, l3);
    hl = merge(high, hl, h4, l4);
    hh = high;
  } else {
    hh = P5H;
    hl = P5L;
  }
  hl = add(hh, hl, Math.floor(end / 0x1_0000_0000), end | 0);
  hh = high;
  for (; at + 8 <= end; at += 8) {
    const low = round(0, 0, view.getInt32(at + 4, true), view.getInt32(at, true));
    hl = rotate(hh ^ high, hl ^ low, 27);
    hl = multiply(high, hl, P1H, P1L);
    hl = add(high, hl, P4H, P4L);
    hh = high;
  }
  if (at + 4 <= end) {
    const low = multiply(0, view.getInt32(at, true), P1H, P1L);
    hl = rotate(hh ^ high, hl ^ low, 23);
    hl = multiply(high, hl, P2H, P2L);
    hl = add(high, hl, P3H, P3L);
    hh = high;
    at += 4;
  }
  for (; at < end; at++) {
    const low = multiply(0, bytes[at]!, P5H, P5L);
    hl = rotate(hh ^ high, hl ^ low, 11);
    hl = multiply(high, hl, P1H, P1L);
    hh = high;
  }
  // The bits of the high half reach the low one: shifts right by 33, 29 and 32.
  hl ^= hh >>> 1;
  hl = multiply(hh, hl, P2H, P2L);
  hh = high ^ (high >>> 29);
  hl ^= (high << 3) | (hl >>> 29);
  hl = multiply(hh, hl, P3H, P3L);
  hh = high;
  hl ^= hh;
  return hex32(hh) + hex32(hl);
}

/**
 * Hashes of names in directory indexes (https://docs.kernel.org/filesystems/ext4/dynamic.html#hash-tree-directories; the
 * functions themselves in fs/ext4/hash.c): legacy, half MD4 (RFC 1320 without its second half) and TEA (Wheeler and Needham).
 */

export const hashLegacy = 0;
export const hashHalfMd4 = 1;
export const hashTea = 2;
/** Keyed with the directory's encryption key, so it can't be computed here. */
export const hashSipHash = 6;

type Seed = readonly [number, number, number, number];

/** Signed: a byte above 0x7f counts as negative, as `char` does on x86. */
const charOf = (byte: number, unsigned: boolean): number => (unsigned || byte < 0x80 ? byte : byte - 256);

/**
 * The hash by which `name` is sorted into the index: 32 bits, the lowest cleared (the index uses it to say that a hash goes on in
 * the next block). Undefined for a hash that can't be computed.
 */
export function nameHash(version: number, name: Uint8Array, seed: Seed, unsigned: boolean): number | undefined {
  let hash: number;
  if (version === hashLegacy) hash = legacy(name, unsigned);
  else if (version === hashHalfMd4) hash = halfMd4(name, seed, unsigned);
  else if (version === hashTea) hash = tea(name, seed, unsigned);
  else return undefined;
  hash = (hash & ~1) >>> 0;
  // The largest value marks the end of a directory in the guest's readdir position.
  return hash === 0xfffffffe ? 0xfffffffc : hash;
}

function legacy(name: Uint8Array, unsigned: boolean): number {
  let hash0 = 0x12a3fe2d;
  let hash1 = 0x37abe8f9;
  for (const byte of name) {
    let hash = (hash1 + (hash0 ^ Math.imul(charOf(byte, unsigned), 7152373))) | 0;
    if (hash < 0) hash = (hash - 0x7fffffff) | 0;
    hash1 = hash0;
    hash0 = hash;
  }
  return (hash0 << 1) >>> 0;
}

/** Up to `words * 4` bytes of the name from `at` as big-endian words, filled up with the remaining length in every byte. */
function words(name: Uint8Array, at: number, count: number, unsigned: boolean): Int32Array {
  const left = name.length - at;
  const low = left & 0xff;
  const pad = low | (low << 8) | (low << 16) | (low << 24);
  const out = new Int32Array(count).fill(pad);
  const length = Math.min(left, count * 4);
  let value = pad;
  for (let i = 0; i < length; i++) {
    value = (charOf(name[at + i]!, unsigned) + (value << 8)) | 0;
    if (i % 4 === 3) {
      out[i >> 2] = value;
      value = pad;
    }
  }
  if (length % 4 !== 0) out[length >> 2] = value;
  return out;
}

function start(seed: Seed): [number, number, number, number] {
  return seed.every((word) => word === 0)
    ? [0x67452301, 0xefcdab89 | 0, 0x98badcfe | 0, 0x10325476]
    : [seed[0] | 0, seed[1] | 0, seed[2] | 0, seed[3] | 0];
}

function halfMd4(name: Uint8Array, seed: Seed, unsigned: boolean): number {
  const rol = (x: number, s: number): number => (x << s) | (x >>> (32 - s));
  const state = start(seed);
  for (let at = 0; at < name.length; at += 32) {
    const x = words(name, at, 8, unsigned);
    let [a, b, c, d] = state;
    const round = (f: (x: number, y: number, z: number) => number, k: number, order: number[], s: number[]): void => {
      for (let i = 0; i < 8; i++) {
        const t = rol((a + f(b, c, d) + x[order[i]!]! + k) | 0, s[i % 4]!);
        a = d;
        d = c;
        c = b;
        b = t;
      }
    };
    round((p, q, r) => r ^ (p & (q ^ r)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]);
    round((p, q, r) => ((p & q) + ((p ^ q) & r)) | 0, 0x5a827999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]);
    round((p, q, r) => p ^ q ^ r, 0x6ed9eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]);
    state[0] = (state[0] + a) | 0;
    state[1] = (state[1] + b) | 0;
    state[2] = (state[2] + c) | 0;
    state[3] = (state[3] + d) | 0;
  }
  return state[1] >>> 0;
}

function tea(name: Uint8Array, seed: Seed, unsigned: boolean): number {
  const state = start(seed);
  for (let at = 0; at < name.length; at += 16) {
    const key = words(name, at, 4, unsigned);
    let sum = 0;
    let b0 = state[0];
    let b1 = state[1];
    for (let i = 0; i < 16; i++) {
      sum = (sum + 0x9e3779b9) | 0;
      b0 = (b0 + (((b1 << 4) + key[0]!) ^ (b1 + sum) ^ ((b1 >>> 5) + key[1]!))) | 0;
      b1 = (b1 + (((b0 << 4) + key[2]!) ^ (b0 + sum) ^ ((b0 >>> 5) + key[3]!))) | 0;
    }
    state[0] = (state[0] + b0) | 0;
    state[1] = (state[1] + b1) | 0;
  }
  return state[0] >>> 0;
}

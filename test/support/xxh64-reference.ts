/**
 * XXH64 with BigInt, straight from the specification (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md): slow, and
 * written apart from the engine's, so that what one of them gets wrong the other does not.
 */
const MASK = (1n << 64n) - 1n;
const P = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
] as const;
const rotated = (value: bigint, bits: bigint): bigint => ((value << bits) | (value >> (64n - bits))) & MASK;
const round = (lane: bigint, input: bigint): bigint => (rotated((lane + input * P[1]) & MASK, 31n) * P[0]) & MASK;

export function xxh64Reference(bytes: Uint8Array, seed = 0n): string {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  let hash: bigint;
  if (buffer.length >= 32) {
    const lanes = [seed + P[0] + P[1], seed + P[1], seed, seed - P[0]].map((lane) => lane & MASK);
    for (; at + 32 <= buffer.length; at += 32) {
      for (let i = 0; i < 4; i++) lanes[i] = round(lanes[i]!, buffer.readBigUInt64LE(at + i * 8));
    }
    const [a, b, c, d] = lanes as [bigint, bigint, bigint, bigint];
    hash = (rotated(a, 1n) + rotated(b, 7n) + rotated(c, 12n) + rotated(d, 18n)) & MASK;
    for (const lane of lanes) hash = ((hash ^ round(0n, lane)) * P[0] + P[3]) & MASK;
  } else {
    hash = (seed + P[4]) & MASK;
  }
  hash = (hash + BigInt(buffer.length)) & MASK;
  for (; at + 8 <= buffer.length; at += 8) {
    hash = (rotated(hash ^ round(0n, buffer.readBigUInt64LE(at)), 27n) * P[0] + P[3]) & MASK;
  }
  if (at + 4 <= buffer.length) {
    hash = (rotated(hash ^ ((BigInt(buffer.readUInt32LE(at)) * P[0]) & MASK), 23n) * P[1] + P[2]) & MASK;
    at += 4;
  }
  for (; at < buffer.length; at++) hash = (rotated(hash ^ ((BigInt(buffer[at]!) * P[4]) & MASK), 11n) * P[0]) & MASK;
  hash ^= hash >> 33n;
  hash = (hash * P[1]) & MASK;
  hash ^= hash >> 29n;
  hash = (hash * P[2]) & MASK;
  hash ^= hash >> 32n;
  return hash.toString(16).padStart(16, '0');
}

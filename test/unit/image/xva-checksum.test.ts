/** XXH64 against vectors that others published, and against a second implementation. */
import { describe, expect, it } from 'vitest';
import { xxh64 } from '../../../main/engine/image/xva/xxh64.ts';
import { randomFrom } from '../../support/random.ts';
import { xxh64Reference } from '../../support/xxh64-reference.ts';

describe('XXH64', () => {
  // From the tests of xxHash, python-xxhash and OCaml's xxhash, all with seed 0.
  it.each([
    ['', 'ef46db3751d8e999'],
    ['a', 'd24ec4f1a98c6e5b'],
    ['abc', '44bc2cf5ad770999'],
    ['Call me Ishmael. Some years ago--never mind how long precisely-', '02a2e85470d6fd96'],
    ['Nobody inspects the spammish repetition', 'fbcea83c8a378bf1'],
  ])('of %j is %s', (text, expected) => {
    expect(xxh64(Buffer.from(text))).toBe(expected);
    expect(xxh64Reference(Buffer.from(text))).toBe(expected);
  });

  it('agrees with a second implementation at every length and alignment', () => {
    const random = randomFrom(41);
    const bytes = Uint8Array.from({ length: 5000 }, () => Math.floor(random() * 256));
    for (let length = 0; length < 200; length++) {
      for (const from of [0, 1, 2, 3, 5, 7]) {
        expect(xxh64(bytes.subarray(from, from + length))).toBe(xxh64Reference(bytes.subarray(from, from + length)));
      }
    }
    for (let i = 0; i < 200; i++) {
      const from = Math.floor(random() * 1000);
      const piece = bytes.subarray(from, from + Math.floor(random() * 4000));
      expect(xxh64(piece)).toBe(xxh64Reference(piece));
    }
    expect(xxh64(new Uint8Array(1 << 20))).toBe(xxh64Reference(new Uint8Array(1 << 20)));
    expect(xxh64(new Uint8Array(100_000).fill(0xff))).toBe(xxh64Reference(new Uint8Array(100_000).fill(0xff)));
  });
});

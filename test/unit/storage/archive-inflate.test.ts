/** Our inflater against zlib's: the same content from every kind of block, the same verdict on every damaged one. */
import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import {
  BLOCK_END,
  DAMAGED,
  INPUT_PADDING,
  Inflater,
  NEED_INPUT,
  OUTPUT_READY,
  STREAM_END,
} from '../../../main/engine/storage/archive/inflate.ts';
import { randomFrom } from '../../support/random.ts';

const random = randomFrom(23);

/** Content of several tempers: text, noise, zeros, repetitions far and near. */
function content(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    const run = Math.min(length - at, 1 + Math.floor(random() ** 3 * 40_000));
    const kind = Math.floor(random() * 5);
    if (kind === 0) for (let i = 0; i < run; i++) bytes[at + i] = Math.floor(random() * 256);
    if (kind === 1) bytes.fill('the quick brown fox ', at, at + run);
    if (kind === 2) for (let i = 0; i < run; i++) bytes[at + i] = 97 + Math.floor(random() ** 4 * 26);
    if (kind === 3 && at > 0) {
      const back = 1 + Math.floor(random() * Math.min(at, 32_768));
      for (let i = 0; i < run; i++) bytes[at + i] = bytes[at + i - back]!;
    }
    at += run;
  }
  return bytes;
}

interface Result {
  readonly bytes: Buffer;
  readonly stop: number;
  /** Bytes of input used. */
  readonly used: number;
  readonly blocks: { readonly bit: number; readonly offset: number; readonly window: Buffer }[];
}

/** Feeds a stream in pieces of random lengths and takes output of random lengths. */
function inflate(
  packed: Uint8Array,
  options: { room?: number; pieces?: number; skip?: number; window?: Uint8Array } = {},
): Result {
  const inflater = new Inflater(options.room ?? 65_536);
  const padded = Buffer.concat([packed, Buffer.alloc(INPUT_PADDING)]);
  const pieces = options.pieces ?? 1 << 30;
  let base = 0;
  let end = 0;
  const out: Buffer[] = [];
  const blocks: Result['blocks'] = [];
  const more = (): boolean => {
    if (end === padded.length) return false;
    base += inflater.at;
    end = Math.min(padded.length, end + 700 + Math.floor(random() * pieces));
    inflater.feed(padded.subarray(base, end), 0, end - base);
    return true;
  };
  more();
  inflater.restart(options.window ?? new Uint8Array(0), options.skip ?? 0);
  let taken = inflater.outAt;
  let offset = 0;
  for (;;) {
    const stop = inflater.run(random() < 0.5 ? taken + Math.floor(random() * 1000) : undefined);
    out.push(Buffer.from(inflater.out.subarray(taken, inflater.outAt)));
    offset += inflater.outAt - taken;
    taken = inflater.outAt;
    if (stop === BLOCK_END) {
      blocks.push({
        bit: (base + inflater.at) * 8 - inflater.bitsHeld,
        offset,
        window: Buffer.from(inflater.window),
      });
    }
    if (stop === OUTPUT_READY) {
      inflater.slide();
      taken = inflater.outAt;
    }
    if (stop === NEED_INPUT && more()) continue;
    if (stop === NEED_INPUT || stop === STREAM_END || stop === DAMAGED) {
      return { bytes: Buffer.concat(out), stop, used: base + inflater.at, blocks };
    }
  }
}

const { Z_FIXED, Z_HUFFMAN_ONLY, Z_RLE, Z_DEFAULT_STRATEGY, Z_FILTERED } = constants;

describe('our inflater', () => {
  const samples = [content(1), content(700_000), Buffer.alloc(300_000), Buffer.alloc(0), content(65_536)];

  it.each([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])('gives back what zlib packs at level %i', (level) => {
    for (const sample of samples) {
      const packed = deflateRawSync(sample, { level });
      for (const options of [{}, { pieces: 50 }, { pieces: 5000, room: 4096 }]) {
        const result = inflate(packed, options);
        expect(result.stop).toBe(STREAM_END);
        expect(result.used).toBe(packed.length);
        expect(result.bytes.equals(sample)).toBe(true);
      }
    }
  });

  it.each([Z_FIXED, Z_HUFFMAN_ONLY, Z_RLE, Z_DEFAULT_STRATEGY, Z_FILTERED])('reads strategy %i', (strategy) => {
    for (const memLevel of [1, 9]) {
      for (const sample of samples) {
        const packed = deflateRawSync(sample, { strategy, memLevel });
        expect(inflate(packed, { pieces: 3000 }).bytes.equals(sample)).toBe(true);
      }
    }
  });

  it('goes on from every block it stopped at, with the 32 KiB before it', () => {
    const sample = content(600_000);
    const packed = deflateRawSync(sample, { memLevel: 2 });
    const { blocks } = inflate(packed);
    expect(blocks.length).toBeGreaterThan(20);
    expect(new Set(blocks.map(({ bit }) => bit % 8)).size).toBe(8);
    for (const { bit, offset, window } of blocks.filter((_, i) => i % 3 === 0)) {
      expect(window.length).toBe(Math.min(offset, 32_768));
      const rest = inflate(packed.subarray(Math.floor(bit / 8)), { skip: bit % 8, window });
      expect(rest.stop).toBe(STREAM_END);
      expect(rest.bytes.equals(sample.subarray(offset))).toBe(true);
    }
  });

  it('takes damage for damage where zlib does, and never gives more than zlib', () => {
    const sample = content(20_000);
    let damaged = 0;
    for (let round = 0; round < 1500; round++) {
      const strategy = round % 3 === 0 ? Z_FIXED : Z_DEFAULT_STRATEGY;
      const packed = Buffer.from(deflateRawSync(sample.subarray(0, 200 + Math.floor(random() * 8000)), { strategy }));
      for (let n = 1 + Math.floor(random() * 3); n > 0; n--) {
        packed[Math.floor(random() ** 2 * packed.length)] = Math.floor(random() * 256);
      }
      let theirs: Buffer | undefined;
      try {
        theirs = inflateRawSync(packed, { maxOutputLength: 1 << 24 });
      } catch {
        theirs = undefined;
      }
      const ours = inflate(packed, { pieces: 500 });
      const whole = ours.stop === STREAM_END && ours.used <= packed.length;
      expect(whole, `round ${round}`).toBe(theirs !== undefined);
      if (theirs === undefined) damaged++;
      else expect(ours.bytes.equals(theirs)).toBe(true);
    }
    expect(damaged).toBeGreaterThan(500);
  });

  it.each([
    ['a block of the fourth type', [0b111], 'DEFLATE block type'],
    ['a stored length without its complement', [1, 5, 0, 5, 0], 'DEFLATE stored length'],
    ['a copy from before the beginning', [0x4b, 0x04, 0x12, 0x00], 'DEFLATE distance'],
    ['too many codes', [0xfd, 0xff, 0xff, 0xff], 'DEFLATE literal codes'],
    ['code lengths that are no code', [0b0000_0101, 0, 0b1110_0000, 0xff, 0xff], 'DEFLATE code length codes'],
  ])('names %s', (_, bytes, structure) => {
    const inflater = new Inflater(1000);
    inflater.feed(Buffer.concat([Buffer.from(bytes), Buffer.alloc(INPUT_PADDING)]), 0, bytes.length + INPUT_PADDING);
    inflater.restart(new Uint8Array(0), 0);
    expect(inflater.run()).toBe(DAMAGED);
    expect(inflater.fault.structure).toBe(structure);
  });
});

/** How a golden image is broken: seeded, so that a mutant can be had again from its number. */
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { randomFrom } from '../support/random.ts';
import { fixChecksums } from './checksums.ts';

/** One change of a file: bytes at an offset, or its length. */
export type Patch =
  | { readonly file: string; readonly at: number; readonly hex: string }
  | { readonly file: string; readonly length: number };

/** Offsets worth breaking: the blocks of a file that hold anything. */
export interface Target {
  readonly file: string;
  readonly size: number;
  readonly blocks: readonly number[];
}

const BLOCK = 512;

/** Which blocks of a file are not zero. Metadata is small: most of a mutant's changes go to the first and last of them. */
export function targetOf(folder: string, file: string): Target {
  const fd = openSync(join(folder, file), 'r');
  try {
    const { size } = fstatSync(fd);
    const blocks: number[] = [];
    const buffer = Buffer.alloc(1 << 20);
    for (let at = 0; at < size; at += buffer.length) {
      const count = readSync(fd, buffer, 0, buffer.length, at);
      for (let block = 0; block < count; block += BLOCK) {
        if (!isZero(buffer.subarray(block, Math.min(count, block + BLOCK)))) blocks.push(at + block);
      }
    }
    return { file, size, blocks: blocks.length === 0 ? [0] : blocks };
  } finally {
    closeSync(fd);
  }
}

const ZERO = Buffer.alloc(BLOCK);
const isZero = (bytes: Buffer): boolean => bytes.equals(ZERO.subarray(0, bytes.length));

/** Numbers that tend to find a missing check. */
function wild(random: () => number, size: number): bigint {
  const choices = [
    0n,
    1n,
    2n,
    0x7fn,
    0xffn,
    0xffffn,
    0x7fff_ffffn,
    0x8000_0000n,
    0xffff_fffen,
    0xffff_ffffn,
    0x1_0000_0000n,
    1n << 53n,
    1n << 62n,
    1n << 63n,
    (1n << 64n) - 1n,
    BigInt(size),
    BigInt(size - 1),
    BigInt(size + 1),
    BigInt(Math.floor(size / 512)),
    BigInt(Math.floor(random() * size)),
    BigInt(Math.floor((random() * size) / 512)),
    BigInt(Math.floor((random() * size) / 65_536)) << 16n,
  ];
  return choices[Math.floor(random() * choices.length)]!;
}

/** The patches that make mutant number `seed` of these files. */
export function mutant(
  seed: number,
  targets: readonly Target[],
  read: (file: string, at: number, n: number) => Buffer,
): Patch[] {
  const random = randomFrom(seed);
  const patches: Patch[] = [];
  for (let n = 1 + Math.floor(random() ** 2 * 5); n > 0; n--) {
    const target = targets[Math.floor(random() * targets.length)]!;
    const { file, size, blocks } = target;
    if (size === 0) continue;
    const dice = random();
    const nth = dice < 0.5 ? Math.floor(random() * Math.min(16, blocks.length)) : Math.floor(random() * blocks.length);
    const block = blocks[dice > 0.9 ? blocks.length - 1 - Math.min(nth, blocks.length - 1) : nth]!;
    const at = Math.min(size - 1, block + Math.floor(random() * BLOCK));
    const put = (offset: number, bytes: Buffer): void => {
      const fit = bytes.subarray(0, Math.max(0, size - offset));
      if (fit.length > 0) patches.push({ file, at: offset, hex: fit.toString('hex') });
    };
    switch (Math.floor(random() * 8)) {
      case 0: {
        const [byte] = read(file, at, 1);
        put(at, Buffer.of((byte ?? 0) ^ (1 << Math.floor(random() * 8))));
        break;
      }
      case 1:
        put(at, Buffer.of(Math.floor(random() * 256)));
        break;
      case 2:
      case 3: {
        // Fields are aligned to their size.
        const bytes = Buffer.alloc(8);
        const width = [2, 4, 8][Math.floor(random() * 3)]!;
        const value = wild(random, size);
        if (random() < 0.5) bytes.writeBigUInt64LE(value);
        else
          bytes.writeBigUInt64BE(
            width === 8 ? value : (value & ((1n << BigInt(width * 8)) - 1n)) << BigInt(64 - width * 8),
          );
        put(at - (at % width), bytes.subarray(0, width));
        break;
      }
      case 4: {
        // A structure of this image in the place of another: tables that point at themselves, a header as a table.
        const from = blocks[Math.floor(random() * blocks.length)]!;
        put(at - (at % 16), read(file, from, 1 + Math.floor(random() * 64)));
        break;
      }
      case 5:
        put(at, Buffer.alloc(1 + Math.floor(random() * 64), random() < 0.5 ? 0 : 0xff));
        break;
      case 6:
        if (random() < 0.5) patches.push({ file, length: Math.floor(random() * size) });
        else patches.push({ file, length: Math.max(0, size - 1 - Math.floor(random() * 4_096)) });
        break;
      default: {
        const half = Buffer.from(read(file, at, 2));
        half.swap16();
        put(at - (at % 2), half);
      }
    }
  }
  return patches;
}

/** Applies patches to the files of `folder`. @returns what puts them right again. */
export function apply(folder: string, patches: readonly Patch[], fix: boolean): () => void {
  const undo: (() => void)[] = [];
  for (const patch of patches) {
    const path = join(folder, patch.file);
    if ('length' in patch) undo.push(cut(path, patch.length));
    else undo.push(write(path, patch.at, Buffer.from(patch.hex, 'hex')));
  }
  // Behind a checksum lies the code that trusts it: half of the mutants are given right ones.
  if (fix)
    for (const file of new Set(patches.map((patch) => patch.file)))
      undo.push(...fixChecksums(join(folder, file), write));
  return () => {
    for (const step of undo.reverse()) step();
  };
}

function write(path: string, at: number, bytes: Buffer): () => void {
  const fd = openSync(path, 'r+');
  const before = Buffer.alloc(bytes.length);
  const count = readSync(fd, before, 0, bytes.length, at);
  if (count > 0) writeSync(fd, bytes, 0, count, at);
  closeSync(fd);
  return () => {
    const again = openSync(path, 'r+');
    writeSync(again, before, 0, count, at);
    closeSync(again);
  };
}

function cut(path: string, length: number): () => void {
  const fd = openSync(path, 'r+');
  const { size } = fstatSync(fd);
  const keep = Math.min(size, length);
  const tail = Buffer.alloc(size - keep);
  readSync(fd, tail, 0, tail.length, keep);
  ftruncateSync(fd, keep);
  closeSync(fd);
  return () => {
    const again = openSync(path, 'r+');
    writeSync(again, tail, 0, tail.length, keep);
    closeSync(again);
  };
}

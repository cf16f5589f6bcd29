/**
 * The index that makes a gzip file readable from anywhere: places at which decoding can begin, with the 32 KiB before each. It is
 * built in one pass, which also checks every checksum and length the file records.
 *
 * Places are a megabyte of content apart at first. When the histories they need (which are kept compressed) would take more memory
 * than the ceiling, every second place is dropped and the distance doubled: memory has a ceiling whatever the size of the file.
 */
import { setImmediate } from 'node:timers/promises';
import { crc32, deflateRawSync, inflateRawSync } from 'node:zlib';
import { hex32 } from '../../binary.ts';
import { CorruptError, throwIfCancelled } from '../../errors.ts';
import type { ByteSource } from '../byte-source.ts';
import { runAsync } from '../io.ts';
import type { ArchiveOptions } from './archive.ts';
import { GzipReader } from './gzip-reader.ts';
import { WINDOW } from './inflate.ts';

/** Content between two places at first, in bytes. */
export const SPACING = 1 << 20;
/** Compressed histories and columns of an index take at most this much memory. */
export const INDEX_BYTES = 48 << 20;
/** Columns, and the object and array header of a history: bytes that a place takes besides. */
const PLACE_BYTES = 120;
/** A block that goes on for this many spacings gets a place inside it. */
const PATIENCE = 4;
/** Content decoded between two turns of the event loop. */
const TURN = 4 << 20;

export interface GzipIndexOptions extends ArchiveOptions {
  /** Given all content as it is decoded; it must take what it needs of the bytes at once. */
  readonly onContent?: (bytes: Uint8Array, offset: number) => void;
  readonly spacing?: number;
  readonly ceiling?: number;
}

/** What is known when the pass is over. Columns have `count` entries. */
export interface GzipPlaces {
  /** Bytes of content in all. */
  readonly size: number;
  readonly count: number;
  /** Content before the place. */
  readonly offsets: Float64Array;
  /** Bit of the file at which decoding begins. */
  readonly bits: Float64Array;
  /** Bit at which the block begins; differs from `bits` only inside blocks. */
  readonly blockBits: Float64Array;
  /** 1 where a gzip member ends before the next place and another begins: not one DEFLATE stream. */
  readonly joints: Uint8Array;
  /** The 32 KiB before the place (less near a member's beginning), compressed; empty at a member's beginning. */
  readonly windows: readonly Uint8Array[];
  readonly members: number;
  /** The first member's recorded file name. */
  readonly fileName: string | undefined;
  /** Bytes behind the last member that are neither a member nor zeros. */
  readonly trailing: number;
}

const EMPTY = new Uint8Array(0);

/** History at a place. */
export function windowOf(places: GzipPlaces, index: number): Uint8Array {
  const packed = places.windows[index]!;
  if (packed.length === 0) return EMPTY;
  return inflateRawSync(packed, { maxOutputLength: WINDOW, chunkSize: WINDOW + 64 });
}

class PlaceList {
  readonly #ceiling: number;
  spacing: number;
  offsets: number[] = [];
  bits: number[] = [];
  blockBits: number[] = [];
  joints: number[] = [];
  atMember: boolean[] = [];
  windows: Uint8Array[] = [];
  #held = 0;

  constructor(spacing: number, ceiling: number) {
    this.spacing = spacing;
    this.#ceiling = ceiling;
  }

  add(offset: number, bit: number, blockBit: number, window: Uint8Array, atMember: boolean): void {
    const packed = window.length === 0 ? EMPTY : new Uint8Array(deflateRawSync(window, { level: 3 }));
    this.offsets.push(offset);
    this.bits.push(bit);
    this.blockBits.push(blockBit);
    this.joints.push(0);
    this.atMember.push(atMember);
    this.windows.push(packed);
    this.#held += packed.length + PLACE_BYTES;
    while (this.#held > this.#ceiling && this.offsets.length > 2) this.#thin();
  }

  /** A member begins that gets no place of its own. */
  joint(): void {
    this.joints[this.joints.length - 1] = 1;
  }

  due(offset: number): boolean {
    const last = this.offsets.at(-1);
    return last === undefined || offset - last >= this.spacing;
  }

  #thin(): void {
    for (let i = 1; i < this.offsets.length; i += 2) {
      if (this.joints[i] === 1 || this.atMember[i]) this.joints[i - 1] = 1;
    }
    const even = (_: unknown, i: number): boolean => i % 2 === 0;
    this.offsets = this.offsets.filter(even);
    this.bits = this.bits.filter(even);
    this.blockBits = this.blockBits.filter(even);
    this.joints = this.joints.filter(even);
    this.atMember = this.atMember.filter(even);
    this.windows = this.windows.filter(even);
    this.#held = this.windows.reduce((sum, { length }) => sum + length + PLACE_BYTES, 0);
    this.spacing *= 2;
  }
}

/**
 * Reads the whole file once. @throws CorruptError with the position, where it is cut off, damaged or its checksum is wrong;
 * UnsupportedError, IoError, CancelledError.
 */
export async function buildGzipIndex(file: ByteSource, options: GzipIndexOptions = {}): Promise<GzipPlaces> {
  const reader = new GzipReader(file);
  const { inflater } = reader;
  const places = new PlaceList(options.spacing ?? SPACING, options.ceiling ?? INDEX_BYTES);
  /** Content that has been taken from the inflater, and where the next byte to take lies in its buffer. */
  let size = 0;
  let taken = 0;
  let memberStart = 0;
  let crc = 0;
  let members = 0;
  let turn = 0;
  for (;;) {
    const event = await runAsync(reader.next(), options.signal);
    if (inflater.outAt > taken) {
      const bytes = inflater.out.subarray(taken, inflater.outAt);
      crc = crc32(bytes, crc);
      options.onContent?.(bytes, size);
      size += bytes.length;
      taken = inflater.outAt;
    }
    if (event === 'end') break;
    if (event === 'trailer') {
      checkTrailer(file, reader, crc, size - memberStart);
    } else if (event === 'member') {
      members++;
      crc = 0;
      memberStart = size;
      if (places.due(size)) places.add(size, reader.bit, reader.blockBit, EMPTY, true);
      else if (members > 1) places.joint();
    } else if (event === 'block') {
      if (places.due(size)) places.add(size, reader.bit, reader.blockBit, inflater.window, false);
    } else {
      if (size - places.offsets.at(-1)! >= PATIENCE * places.spacing) {
        places.add(size, reader.bit, reader.blockBit, inflater.window, false);
      }
      inflater.slide();
      taken = inflater.outAt;
    }
    if (size - turn >= TURN) {
      turn = size;
      options.onProgress?.(Math.floor(reader.bit / 8), file.size);
      await setImmediate();
      throwIfCancelled(options.signal, 'Reading the compressed file');
    }
  }
  return {
    size,
    count: places.offsets.length,
    offsets: Float64Array.from(places.offsets),
    bits: Float64Array.from(places.bits),
    blockBits: Float64Array.from(places.blockBits),
    joints: Uint8Array.from(places.joints),
    windows: places.windows,
    members,
    fileName: reader.fileName,
    trailing: reader.trailing,
  };
}

function checkTrailer(file: ByteSource, reader: GzipReader, crc: number, size: number): void {
  const { trailer } = reader;
  if (trailer.crc !== crc) {
    throw new CorruptError('Gzip checksum', {
      source: file.name,
      position: trailer.position,
      expected: hex32(trailer.crc),
      found: `${hex32(crc)} for the ${size} bytes before it`,
    });
  }
  if (trailer.size !== size % 0x1_0000_0000) {
    throw new CorruptError('Gzip length', {
      source: file.name,
      position: trailer.position + 4,
      expected: trailer.size,
      found: size % 0x1_0000_0000,
    });
  }
}

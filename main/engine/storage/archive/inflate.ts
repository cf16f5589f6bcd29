/**
 * An inflater (RFC 1951) that can stop and go on at every block, knows the bit it stopped at, and can begin at any block whose
 * 32 KiB before are known. Node's zlib does neither, and without it a compressed disk could only be read from its beginning.
 *
 * It is given input piece by piece and writes into a buffer of its own, the last 32 KiB of which are the history that copies refer
 * to. It never allocates while it runs, and its output is bounded by the buffer: a bomb costs time in proportion to what is read.
 */
import {
  buildTable,
  CODE_LENGTH_ROOT,
  CODE_LENGTHS,
  DISTANCE_ROOT,
  DISTANCE_TABLE,
  DISTANCES,
  END,
  EXCEPTIONAL,
  INVALID,
  LENGTH_ROOT,
  LENGTH_TABLE,
  LENGTHS,
} from './huffman.ts';

/** How far back a copy can reach. */
export const WINDOW = 32_768;
/** Longest copy. */
const MAX_MATCH = 258;
/** Input that one symbol, or the start of a stored block, takes at most, with what is read ahead of it. */
const SYMBOL_BYTES = 12;
/** Input that the header of a dynamic block takes at most: 17 bits, 19 lengths of 3 bits, 320 of at most 14. */
const HEADER_BYTES = 600;
/** Zeros that have to follow the last input, so that it can be decoded to its last bit. */
export const INPUT_PADDING = 640;

/** Why `run` came back. */
export const NEED_INPUT = 0;
/** The buffer is full, or as full as was asked for. */
export const OUTPUT_READY = 1;
/** A block ended and is not the last: `bitsHeld` says where the next one begins. */
export const BLOCK_END = 2;
/** The last block ended; what follows begins at `at` of the input. */
export const STREAM_END = 3;
/** The input is no DEFLATE stream here: `fault` says why. */
export const DAMAGED = 4;
export type Stop = typeof NEED_INPUT | typeof OUTPUT_READY | typeof BLOCK_END | typeof STREAM_END | typeof DAMAGED;

const BETWEEN = 0;
const STORED = 1;
const CODES = 2;

/** Order in which the lengths of code length codes are stored. */
const ORDER = Uint8Array.of(16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15);

const fixedLengths = new Int32Array(LENGTH_TABLE);
const fixedDistances = new Int32Array(DISTANCE_TABLE);
{
  const lengths = new Uint8Array(288).fill(8, 0, 144).fill(9, 144, 256).fill(7, 256, 280).fill(8, 280);
  buildTable(fixedLengths, LENGTH_ROOT, lengths, 0, 288, LENGTHS, false);
  buildTable(fixedDistances, DISTANCE_ROOT, new Uint8Array(32).fill(5), 0, 32, DISTANCES, false);
}

export class Inflater {
  /** History and output. */
  readonly out: Uint8Array;
  /** Where the next byte goes. */
  outAt = 0;
  /** First byte of `out` that copies may refer to. */
  #floor = 0;
  #input: Uint8Array = new Uint8Array(0);
  /** Next byte of the input that has not been taken. */
  at = 0;
  #end = 0;
  /** Bits taken and not used: fewer than 8 whenever `run` has come back. */
  #hold = 0;
  #bits = 0;
  #state = BETWEEN;
  #final = false;
  #stored = 0;
  #lengths = fixedLengths;
  #distances = fixedDistances;
  readonly #ownLengths = new Int32Array(LENGTH_TABLE);
  readonly #ownDistances = new Int32Array(DISTANCE_TABLE);
  readonly #codeLengths = new Int32Array(1 << CODE_LENGTH_ROOT);
  readonly #sizes = new Uint8Array(320);
  /** After DAMAGED: what was expected and what was found. */
  fault: { readonly structure: string; readonly expected: string; readonly found: string | number } = {
    structure: '',
    expected: '',
    found: '',
  };

  /** @param room bytes of output that fit beside the history. */
  constructor(room: number) {
    this.out = new Uint8Array(WINDOW + room + MAX_MATCH);
  }

  /** Bits of the byte before `at` that have not been used: a block's first bit is bit `8 * at - bitsHeld` of the input. */
  get bitsHeld(): number {
    return this.#bits;
  }

  /**
   * Gives it input from `from` to `end`; at the end of everything, `end` counts `INPUT_PADDING` zeros that have been added. What
   * was left of the input before has to come first.
   */
  feed(input: Uint8Array, from: number, end: number): void {
    this.#input = input;
    this.at = from;
    this.#end = end;
  }

  /**
   * Begins anew at a block. @param window the bytes before it, at most 32 KiB. @param skip bits of the input's first byte, from
   * the lowest, that belong to what came before. Input has to be fed first.
   */
  restart(window: Uint8Array, skip: number): void {
    const history = window.subarray(Math.max(0, window.length - WINDOW));
    this.out.set(history);
    this.#floor = 0;
    this.outAt = history.length;
    this.#state = BETWEEN;
    this.#final = false;
    this.#hold = 0;
    this.#bits = 0;
    if (skip > 0) {
      this.#hold = this.#input[this.at++]! >> skip;
      this.#bits = 8 - skip;
    }
  }

  /** Another DEFLATE stream begins at `at` of the input: nothing before it may be referred to. */
  nextStream(): void {
    this.#floor = this.outAt;
    this.#state = BETWEEN;
    this.#final = false;
    this.#hold = 0;
    this.#bits = 0;
  }

  /** History in force: what has to be given to `restart` to begin at the next block. A view. */
  get window(): Uint8Array {
    return this.out.subarray(Math.max(this.#floor, this.outAt - WINDOW), this.outAt);
  }

  /** Moves the last 32 KiB to the front of `out`, to make room. What was written must have been taken. */
  slide(): void {
    const shift = this.outAt - WINDOW;
    if (shift <= 0) return;
    this.out.copyWithin(0, shift, this.outAt);
    this.outAt = WINDOW;
    this.#floor = Math.max(0, this.#floor - shift);
  }

  /** Reads the header of the block that begins here, and stops behind it. @returns NEED_INPUT or, when it has been read, undefined. */
  begin(): Stop | undefined {
    const stop = this.#header();
    this.#giveBack(NEED_INPUT);
    return stop;
  }

  /**
   * Goes on at another place of the block whose header has been read. Input has to be fed from there first. @param skip bits of the
   * input's first byte that come before it. @param bytes how far it is from where the header ended: what a stored block has less.
   */
  jump(skip: number, bytes: number): void {
    this.#hold = 0;
    this.#bits = 0;
    if (this.#state === STORED) this.#stored -= bytes;
    if (skip === 0) return;
    this.#hold = this.#input[this.at++]! >> skip;
    this.#bits = 8 - skip;
  }

  /** Decodes until there is a reason to come back. @param until come back when `outAt` has reached this. */
  run(until: number = this.out.length - MAX_MATCH): Stop {
    const limit = Math.min(until, this.out.length - MAX_MATCH);
    for (;;) {
      if (this.#state === BETWEEN) {
        const stop = this.#header();
        if (stop !== undefined) return this.#giveBack(stop);
      }
      if (this.outAt >= limit) return this.#giveBack(OUTPUT_READY);
      const stop = this.#state === STORED ? this.#copyStored(limit) : this.#decode(limit);
      if (stop !== undefined) return this.#giveBack(stop);
      this.#state = BETWEEN;
      if (!this.#final) return this.#giveBack(BLOCK_END);
      // What is left of the last byte belongs to nobody.
      this.#giveBack(STREAM_END);
      this.#hold = 0;
      this.#bits = 0;
      return STREAM_END;
    }
  }

  /** Whole bytes that were taken and not used go back to the input. */
  #giveBack(stop: Stop): Stop {
    this.at -= this.#bits >> 3;
    this.#bits &= 7;
    this.#hold &= (1 << this.#bits) - 1;
    return stop;
  }

  #damaged(structure: string, expected: string, found: string | number): Stop {
    this.fault = { structure, expected, found };
    return DAMAGED;
  }

  /** `count` bits, at most 16. Only where enough input has been made sure of. */
  #take(count: number): number {
    while (this.#bits < count) {
      this.#hold |= this.#input[this.at++]! << this.#bits;
      this.#bits += 8;
    }
    const value = this.#hold & ((1 << count) - 1);
    this.#hold >>>= count;
    this.#bits -= count;
    return value;
  }

  #header(): Stop | undefined {
    if (this.#end - this.at < HEADER_BYTES) return NEED_INPUT;
    this.#final = this.#take(1) === 1;
    const type = this.#take(2);
    if (type === 1) {
      this.#lengths = fixedLengths;
      this.#distances = fixedDistances;
      this.#state = CODES;
      return undefined;
    }
    if (type === 2) {
      this.#state = CODES;
      return this.#dynamic();
    }
    if (type === 3) return this.#damaged('DEFLATE block type', '0 to 2', 3);
    this.#giveBack(NEED_INPUT);
    this.#hold = 0;
    this.#bits = 0;
    const length = this.#take(16);
    const complement = this.#take(16);
    if ((length ^ 0xffff) !== complement) {
      return this.#damaged('DEFLATE stored length', `${length ^ 0xffff} as its complement`, complement);
    }
    this.#stored = length;
    this.#state = STORED;
    return undefined;
  }

  #dynamic(): Stop | undefined {
    const literals = this.#take(5) + 257;
    const distances = this.#take(5) + 1;
    const count = this.#take(4) + 4;
    if (literals > 286) return this.#damaged('DEFLATE literal codes', 'at most 286', literals);
    if (distances > 30) return this.#damaged('DEFLATE distance codes', 'at most 30', distances);
    const sizes = this.#sizes;
    sizes.fill(0, 0, 19);
    for (let i = 0; i < count; i++) sizes[ORDER[i]!] = this.#take(3);
    const table = this.#codeLengths;
    if (!buildTable(table, CODE_LENGTH_ROOT, sizes, 0, 19, CODE_LENGTHS, false)) {
      return this.#damaged('DEFLATE code length codes', 'a complete prefix code', 'none');
    }
    for (let i = 0; i < literals + distances; ) {
      while (this.#bits < 16) {
        this.#hold |= this.#input[this.at++]! << this.#bits;
        this.#bits += 8;
      }
      const entry = table[this.#hold & ((1 << CODE_LENGTH_ROOT) - 1)]!;
      this.#hold >>>= entry & 0xff;
      this.#bits -= entry & 0xff;
      const symbol = entry >>> 16;
      if (symbol < 16) {
        sizes[i++] = symbol;
        continue;
      }
      if (symbol === 16 && i === 0) return this.#damaged('DEFLATE code lengths', 'a length to repeat', 'none');
      const value = symbol === 16 ? sizes[i - 1]! : 0;
      const repeat = symbol === 16 ? 3 + this.#take(2) : symbol === 17 ? 3 + this.#take(3) : 11 + this.#take(7);
      if (i + repeat > literals + distances) {
        return this.#damaged('DEFLATE code lengths', `${literals + distances} of them`, i + repeat);
      }
      sizes.fill(value, i, i + repeat);
      i += repeat;
    }
    if (sizes[256] === 0) return this.#damaged('DEFLATE literal codes', 'a code for the end of the block', 'none');
    this.#lengths = this.#ownLengths;
    this.#distances = this.#ownDistances;
    if (!buildTable(this.#lengths, LENGTH_ROOT, sizes, 0, literals, LENGTHS, true)) {
      return this.#damaged('DEFLATE literal codes', 'a complete prefix code', 'none');
    }
    if (!buildTable(this.#distances, DISTANCE_ROOT, sizes, literals, literals + distances, DISTANCES, true)) {
      return this.#damaged('DEFLATE distance codes', 'a complete prefix code', 'none');
    }
    return undefined;
  }

  /** Undefined when the block is done. */
  #copyStored(limit: number): Stop | undefined {
    while (this.#stored > 0) {
      const count = Math.min(this.#stored, this.#end - this.at, this.out.length - this.outAt);
      if (this.outAt >= limit) return OUTPUT_READY;
      if (count <= 0) return NEED_INPUT;
      this.out.set(this.#input.subarray(this.at, this.at + count), this.outAt);
      this.at += count;
      this.outAt += count;
      this.#stored -= count;
    }
    return undefined;
  }

  /** Decodes symbols. Undefined when the block is done. */
  #decode(limit: number): Stop | undefined {
    const { out } = this;
    const input = this.#input;
    const lengths = this.#lengths;
    const distances = this.#distances;
    const floor = this.#floor;
    const lastStart = this.#end - SYMBOL_BYTES;
    let at = this.at;
    let outAt = this.outAt;
    let hold = this.#hold;
    let bits = this.#bits;
    let stop: Stop | undefined;
    for (;;) {
      if (at > lastStart) {
        stop = NEED_INPUT;
        break;
      }
      if (outAt >= limit) {
        stop = OUTPUT_READY;
        break;
      }
      // Never more than 30 bits are held, so that they stay a positive number.
      if (bits < 15) {
        hold |= (input[at]! | (input[at + 1]! << 8)) << bits;
        at += 2;
        bits += 16;
      }
      let entry = lengths[hold & ((1 << LENGTH_ROOT) - 1)]!;
      if (entry < 0) {
        hold >>>= entry & 0xff;
        bits -= entry & 0xff;
        out[outAt++] = entry >> 16;
        continue;
      }
      if ((entry & EXCEPTIONAL) !== 0) {
        if ((entry & (END | INVALID)) === 0) {
          hold >>>= LENGTH_ROOT;
          bits -= LENGTH_ROOT;
          entry = lengths[((entry >>> 16) & 0x7fff) + (hold & ((1 << ((entry >> 8) & 0x1f)) - 1))]!;
          if (entry < 0) {
            hold >>>= entry & 0xff;
            bits -= entry & 0xff;
            out[outAt++] = entry >> 16;
            continue;
          }
        }
        if ((entry & EXCEPTIONAL) !== 0) {
          hold >>>= entry & 0xff;
          bits -= entry & 0xff;
          if ((entry & INVALID) !== 0) stop = this.#damaged('DEFLATE symbol', 'a literal or length code', 'none');
          break;
        }
      }
      hold >>>= entry & 0xff;
      bits -= entry & 0xff;
      if (bits < 15) {
        hold |= (input[at]! | (input[at + 1]! << 8)) << bits;
        at += 2;
        bits += 16;
      }
      let extra = (entry >> 8) & 0x1f;
      const length = (entry >>> 16) + (hold & ((1 << extra) - 1));
      hold >>>= extra;
      bits -= extra;
      if (bits < 15) {
        hold |= (input[at]! | (input[at + 1]! << 8)) << bits;
        at += 2;
        bits += 16;
      }
      entry = distances[hold & ((1 << DISTANCE_ROOT) - 1)]!;
      if ((entry & EXCEPTIONAL) !== 0) {
        if ((entry & INVALID) === 0) {
          hold >>>= DISTANCE_ROOT;
          bits -= DISTANCE_ROOT;
          entry = distances[((entry >>> 16) & 0x7fff) + (hold & ((1 << ((entry >> 8) & 0x1f)) - 1))]!;
        }
        if ((entry & INVALID) !== 0 && (entry & EXCEPTIONAL) !== 0) {
          stop = this.#damaged('DEFLATE symbol', 'a distance code', 'none');
          break;
        }
      }
      hold >>>= entry & 0xff;
      bits -= entry & 0xff;
      if (bits < 15) {
        hold |= (input[at]! | (input[at + 1]! << 8)) << bits;
        at += 2;
        bits += 16;
      }
      extra = (entry >> 8) & 0x1f;
      const distance = (entry >>> 16) + (hold & ((1 << extra) - 1));
      hold >>>= extra;
      bits -= extra;
      let from = outAt - distance;
      if (from < floor) {
        stop = this.#damaged('DEFLATE distance', `at most ${outAt - floor} bytes back`, distance);
        break;
      }
      const end = outAt + length;
      if (length > 48) {
        if (distance >= length) {
          out.copyWithin(outAt, from, from + length);
          outAt = end;
          continue;
        }
        if (distance === 1) {
          out.fill(out[from]!, outAt, end);
          outAt = end;
          continue;
        }
      }
      do {
        out[outAt++] = out[from++]!;
      } while (outAt < end);
    }
    this.at = at;
    this.outAt = outAt;
    this.#hold = hold;
    this.#bits = bits;
    return stop;
  }
}

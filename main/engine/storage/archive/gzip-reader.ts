/**
 * Reads a gzip file (RFC 1952) from any known place: headers, the DEFLATE blocks between, trailers, and the next member, as
 * `cat a.gz b.gz` and bgzip make them. It stops at every block and member, so that whoever builds an index can note the place.
 */
import { Fields } from '../../binary.ts';
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { ByteSource } from '../byte-source.ts';
import { type Io, readBytes } from '../io.ts';
import { BLOCK_END, DAMAGED, INPUT_PADDING, Inflater, NEED_INPUT, OUTPUT_READY, STREAM_END } from './inflate.ts';
import { decodeName } from './tar-header.ts';

/** Compressed bytes read at once. */
const INPUT = 256 << 10;
/** Output between two visits. */
const ROOM = 256 << 10;
/** Of a member's header: fixed part, extra field, name and comment. */
const MAX_HEADER = 10 + 2 + 65_535 + 2 * 32_768 + 2;

const FHCRC = 2;
const FEXTRA = 4;
const FNAME = 8;
const FCOMMENT = 16;

/** What `next` came back for. */
export type GzipEvent =
  /** There is output; `taken` says from where. */
  | 'output'
  /** A block ended inside a member. */
  | 'block'
  /** A member's header was passed: its first block begins here. */
  | 'member'
  /** A member ended: `trailer` has what it says of itself. */
  | 'trailer'
  /** Nothing follows. */
  | 'end';

export interface GzipTrailer {
  readonly crc: number;
  /** Length of the member's content modulo 2^32. */
  readonly size: number;
  /** Byte position of the trailer. */
  readonly position: number;
}

export class GzipReader {
  readonly inflater = new Inflater(ROOM);
  readonly #file: ByteSource;
  /** Input: bytes `[at, #end)` of the buffer are unread; at the file's end zeros follow. */
  readonly #buffer = new Uint8Array(INPUT + MAX_HEADER + INPUT_PADDING);
  #end = 0;
  /** Position in the file of the buffer's first byte. */
  #base = 0;
  /** Position in the file of what has not been read yet. */
  #next = 0;
  #padded = false;
  #inMember = false;
  #members = 0;
  trailer: GzipTrailer = { crc: 0, size: 0, position: 0 };
  /** The first member's file name, where it records one. */
  fileName: string | undefined;
  /** After the end: bytes behind the last member that are neither zeros nor a member. */
  trailing = 0;
  /** Bit position of the header of the block that is being decoded. */
  blockBit = 0;

  constructor(file: ByteSource) {
    this.#file = file;
  }

  /** Bit position in the file of what is decoded next. */
  get bit(): number {
    return (this.#base + this.inflater.at) * 8 - this.inflater.bitsHeld;
  }

  /** Byte position in the file of what is read next. */
  get #position(): number {
    return this.#base + this.inflater.at;
  }

  /** Bytes of input in the buffer that are the file's. */
  get #available(): number {
    return this.#end - (this.#padded ? INPUT_PADDING : 0) - this.inflater.at;
  }

  #seek(position: number): void {
    this.#base = position;
    this.#next = position;
    this.#end = 0;
    this.#padded = false;
    this.inflater.feed(this.#buffer, 0, 0);
  }

  /** Reads on. @returns false when there was nothing left to read. */
  *#more(): Io<boolean> {
    if (this.#padded) return false;
    const { at } = this.inflater;
    this.#buffer.copyWithin(0, at, this.#end);
    this.#base += at;
    this.#end -= at;
    const length = Math.min(INPUT, this.#file.size - this.#next, this.#buffer.length - INPUT_PADDING - this.#end);
    if (length > 0) {
      this.#buffer.set(yield* readBytes(this.#file, this.#next, length), this.#end);
      this.#end += length;
      this.#next += length;
    }
    if (this.#next >= this.#file.size) {
      this.#buffer.fill(0, this.#end, this.#end + INPUT_PADDING);
      this.#end += INPUT_PADDING;
      this.#padded = true;
    }
    this.inflater.feed(this.#buffer, 0, this.#end);
    return true;
  }

  /**
   * Goes to a place that an index knows. @param bit of the file at which decoding goes on. @param blockBit of the header of the block
   * it lies in, where it is inside one; else the same. @param window the bytes before it.
   */
  *resume(bit: number, blockBit: number, window: Uint8Array): Io<void> {
    yield* this.#goTo(blockBit);
    this.inflater.restart(window, blockBit % 8);
    this.#inMember = true;
    this.#members = 1;
    this.blockBit = blockBit;
    if (bit === blockBit) return;
    for (let stop = this.inflater.begin(); stop !== undefined; stop = this.inflater.begin()) {
      if (stop === DAMAGED) throw this.#damaged();
      if (!(yield* this.#more())) throw this.#cutOff();
    }
    const content = this.#position;
    yield* this.#goTo(bit);
    this.inflater.jump(bit % 8, this.#position - content);
  }

  *#goTo(bit: number): Io<void> {
    this.#seek(Math.floor(bit / 8));
    yield* this.#more();
  }

  /** Decodes until there is something to tell. @param until come back when the inflater's output has reached this. */
  *next(until?: number): Io<GzipEvent> {
    const { inflater } = this;
    if (!this.#inMember) {
      if (!(yield* this.#header())) return 'end';
      this.#inMember = true;
      inflater.nextStream();
      this.blockBit = this.bit;
      return 'member';
    }
    for (;;) {
      const stop = inflater.run(until);
      if (this.#padded && this.bit > this.#file.size * 8) throw this.#cutOff();
      switch (stop) {
        case NEED_INPUT:
          if (!(yield* this.#more())) throw this.#cutOff();
          break;
        case OUTPUT_READY:
          return 'output';
        case BLOCK_END:
          this.blockBit = this.bit;
          return 'block';
        case STREAM_END:
          yield* this.#readTrailer();
          return 'trailer';
        case DAMAGED:
          throw this.#damaged();
      }
    }
  }

  #damaged(): CorruptError {
    const { structure, expected, found } = this.inflater.fault;
    return new CorruptError(structure, {
      source: this.#file.name,
      position: Math.floor(this.bit / 8),
      expected,
      found,
    });
  }

  #cutOff(): CorruptError {
    return new CorruptError('Gzip stream', {
      source: this.#file.name,
      position: this.#file.size,
      expected: 'more compressed data',
      found: 'the end of the file: it was cut off',
    });
  }

  /** Makes sure of `length` bytes of the file in the buffer. @returns fewer where the file ends. */
  *#need(length: number): Io<number> {
    while (this.#available < length && (yield* this.#more()));
    return Math.min(length, this.#available);
  }

  *#readTrailer(): Io<void> {
    if ((yield* this.#need(8)) < 8) throw this.#cutOff();
    const { at } = this.inflater;
    const fields = new Fields(this.#buffer.subarray(at, at + 8), 'Gzip trailer', this.#file.name, this.#position);
    this.trailer = { crc: fields.u32(0), size: fields.u32(4), position: this.#position };
    this.#skip(8);
    this.#inMember = false;
  }

  #skip(bytes: number): void {
    this.inflater.feed(this.#buffer, this.inflater.at + bytes, this.#end);
  }

  /** @returns false at the end of the file, or of what is gzip in it. */
  *#header(): Io<boolean> {
    const available = yield* this.#need(MAX_HEADER);
    const { at } = this.inflater;
    const bytes = this.#buffer.subarray(at, at + available);
    if (this.#members > 0 && !(bytes[0] === 0x1f && bytes[1] === 0x8b)) {
      yield* this.#tail();
      return false;
    }
    const fields = new Fields(bytes, 'Gzip header', this.#file.name, this.#position);
    fields.require(fields.u16be(0) === 0x1f8b, 'magic', 0, '1f8b', fields.u16be(0).toString(16));
    if (fields.u8(2) !== 8)
      throw new UnsupportedError(`gzip compression method ${fields.u8(2)}`, { source: this.#file.name });
    const flags = fields.u8(3);
    fields.require((flags & 0xe0) === 0, 'flags', 3, 'no reserved bits', flags);
    let end = 10;
    fields.slice(0, end);
    if ((flags & FEXTRA) !== 0) end += 2 + fields.u16(end);
    for (const flag of [FNAME, FCOMMENT]) {
      if ((flags & flag) === 0) continue;
      const zero = end <= bytes.length ? bytes.indexOf(0, end) : -1;
      fields.require(zero >= 0, flag === FNAME ? 'name' : 'comment', end, 'a zero that ends it', 'none');
      if (flag === FNAME && this.#members === 0) this.fileName = decodeName(bytes.subarray(end, zero));
      end = zero + 1;
    }
    if ((flags & FHCRC) !== 0) end += 2;
    fields.slice(0, end);
    this.#skip(end);
    this.#members++;
    return true;
  }

  /** What follows the last member: zeros are padding (of tapes), anything else is counted. */
  *#tail(): Io<void> {
    for (;;) {
      const available = yield* this.#need(1);
      if (available === 0) return;
      const { at } = this.inflater;
      const rest = this.#buffer.subarray(at, at + this.#available);
      if (rest.some((byte) => byte !== 0)) {
        this.trailing = this.#file.size - this.#position;
        return;
      }
      this.#skip(rest.length);
    }
  }
}

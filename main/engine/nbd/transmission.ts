/**
 * The transmission phase of a read-only NBD server, without a socket: requests in, replies out, in order.
 *
 * All requests of a chunk are answered into one slab, which is sent as one write: a reply's head is written straight before
 * the place its data is then read into, so nothing is copied and nothing is allocated per request. A read that fails leaves
 * the slab as it was before it, and becomes an error reply for that request only.
 *
 * Reads longer than a slab are answered in pieces. With structured replies each piece is a chunk of its own, and a failure
 * in the middle is an error chunk. Without (or with DF) the head has already promised all bytes when a later piece fails;
 * the connection is then closed, as the specification demands. Clients that ask for so much at once all use structured replies.
 *
 * Specification: NetworkBlockDevice/nbd, doc/proto.md, "Transmission phase", "Request message", "Structured reply types".
 */
import type { NbdDevice } from './device.ts';
import {
  BASE_ALLOCATION_ID,
  CHUNK_BYTES,
  CMD,
  CMD_FLAG_DF,
  CMD_FLAG_REQ_ONE,
  ERROR,
  high32,
  join64,
  low32,
  MAX_PAYLOAD,
  MAX_STRING,
  REPLY_FLAG_DONE,
  REPLY_TYPE,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STATE_HOLE,
  STATE_ZERO,
  STRUCTURED_REPLY_MAGIC,
} from './protocol.ts';
import { SLAB_BYTES, SLAB_DATA, type Slab } from './slabs.ts';

/** A slab with this much in it is sent: enough to make a system call worth while, little enough to stay in the cache. */
const SEND_AT = 256 << 10;
/** Reads shorter than this are sent as data, zeros or not: looking the map up twice would cost more than the zeros. */
const HOLES_FROM = 64 << 10;
/** A hole shorter than this is sent as data: its head and the next one's would cost the client more than it saves. */
const MIN_HOLE = 4096;
/** Extents in one block status reply, at most. */
export const MAX_EXTENTS = 16_384;

/** Where replies go. */
export interface Output {
  take(): Slab;
  /** Sends the slab's first `length` bytes and gives it back when they are out. */
  send(slab: Slab, length: number): void;
  /** True when so much waits to be sent that no more requests should be answered for now. */
  readonly full: boolean;
}

/** What transmission tells about itself; called for every request, so kept to plain calls. */
export interface Observer {
  /** A request came. */
  request(): void;
  /** Bytes of the device were put into a reply. */
  read(bytes: number): void;
  /** The device failed a request; the client was told. */
  failed(error: unknown, offset: number, length: number): void;
}

export interface TransmissionOptions {
  readonly structured: boolean;
  /** The client selected `base:allocation`. */
  readonly blockStatus: boolean;
}

export type TransmissionState =
  /** Everything received is answered. */
  | 'more'
  /** The output is full: call `resume` when it no longer is. Nothing may be received until then. */
  | 'full'
  /** The client said goodbye. */
  | 'done'
  /** The client broke the protocol, or a reply could not be finished: close. `reason` says what. */
  | 'broken';

const EMPTY = new Uint8Array(0);

export class Transmission {
  /** Why the state is `broken`. */
  reason = '';
  readonly #device: NbdDevice;
  readonly #structured: boolean;
  readonly #blockStatus: boolean;
  readonly #output: Output;
  readonly #observer: Observer;

  /** Bytes received and not yet parsed, and where parsing stands. */
  #input: Uint8Array = EMPTY;
  #view: DataView = new DataView(EMPTY.buffer);
  #at = 0;
  /** The beginning of a request whose rest has not come yet. */
  readonly #partial = new Uint8Array(REQUEST_BYTES);
  readonly #partialView = new DataView(this.#partial.buffer);
  #partialLength = 0;
  /** Bytes of a refused WRITE's payload that are still to come. */
  #skip = 0;

  /** The slab being filled, and how far. */
  #slab: Slab | undefined;
  #used = 0;

  /** A long read under way. */
  #streamOffset = 0;
  #streamLeft = 0;
  #streamWhole = false;
  #cookieHigh = 0;
  #cookieLow = 0;

  constructor(device: NbdDevice, options: TransmissionOptions, output: Output, observer: Observer) {
    this.#device = device;
    this.#structured = options.structured;
    this.#blockStatus = options.blockStatus;
    this.#output = output;
    this.#observer = observer;
  }

  /** Takes bytes from the client and answers every complete request in them. */
  receive(chunk: Uint8Array): TransmissionState {
    if (this.#at < this.#input.length) throw new Error('NBD bytes received while earlier ones wait');
    this.#input = chunk;
    this.#view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.#at = 0;
    return this.resume();
  }

  /** Goes on after `full`. */
  resume(): TransmissionState {
    const state = this.#run();
    if (this.#slab !== undefined) {
      const slab = this.#slab;
      this.#slab = undefined;
      this.#output.send(slab, this.#used);
      this.#used = 0;
    }
    if (state !== 'full') {
      this.#input = EMPTY;
      this.#at = 0;
    }
    return state;
  }

  #run(): TransmissionState {
    for (;;) {
      if (this.#used >= SEND_AT) this.#flush();
      if (this.#output.full) return 'full';
      if (this.#streamLeft > 0) {
        if (!this.#streamPiece()) return 'broken';
        continue;
      }
      const input = this.#input;
      const left = input.length - this.#at;
      if (this.#skip > 0) {
        const dropped = Math.min(this.#skip, left);
        this.#skip -= dropped;
        this.#at += dropped;
        if (this.#skip > 0) return 'more';
        continue;
      }
      if (this.#partialLength > 0 || left < REQUEST_BYTES) {
        const taken = Math.min(REQUEST_BYTES - this.#partialLength, left);
        this.#partial.set(input.subarray(this.#at, this.#at + taken), this.#partialLength);
        this.#at += taken;
        this.#partialLength += taken;
        if (this.#partialLength < REQUEST_BYTES) return 'more';
        this.#partialLength = 0;
        const state = this.#request(this.#partialView, 0);
        if (state !== undefined) return state;
        continue;
      }
      const at = this.#at;
      this.#at = at + REQUEST_BYTES;
      const state = this.#request(this.#view, at);
      if (state !== undefined) return state;
    }
  }

  /** Answers one request; a state is returned only when it ends the loop. */
  #request(view: DataView, at: number): TransmissionState | undefined {
    if (view.getUint32(at) !== REQUEST_MAGIC) return this.#break('a request without its magic');
    const flags = view.getUint16(at + 4);
    const type = view.getUint16(at + 6);
    this.#cookieHigh = view.getUint32(at + 8);
    this.#cookieLow = view.getUint32(at + 12);
    const offsetHigh = view.getUint32(at + 16);
    // Halves above 2^21 would round; no device is that long, so any value beyond every device does.
    const offset = offsetHigh > 0x1f_ffff ? Number.MAX_SAFE_INTEGER : join64(offsetHigh, view.getUint32(at + 20));
    const length = view.getUint32(at + 24);
    this.#observer.request();
    switch (type) {
      case CMD.READ:
        this.#read(flags, offset, length);
        return undefined;
      case CMD.DISC:
        return 'done';
      case CMD.BLOCK_STATUS:
        this.#status(flags, offset, length);
        break;
      case CMD.FLUSH:
        // Nothing is ever written, so everything already is where it belongs.
        if (flags === 0) this.#succeed();
        else this.#fail(ERROR.EINVAL, 'FLUSH takes no flags');
        break;
      case CMD.WRITE:
        if (length > MAX_PAYLOAD) return this.#break(`a WRITE of ${length} bytes`);
        this.#skip = length;
        this.#fail(ERROR.EPERM, 'this export is read-only');
        break;
      case CMD.TRIM:
      case CMD.WRITE_ZEROES:
        this.#fail(ERROR.EPERM, 'this export is read-only');
        break;
      default:
        // CACHE among them: it is not offered, and what is not offered is invalid.
        this.#fail(ERROR.EINVAL, `command ${type} is not supported`);
    }
    return undefined;
  }

  #read(flags: number, offset: number, length: number): void {
    const whole = (flags & CMD_FLAG_DF) !== 0;
    if (flags !== 0 && !(this.#structured && flags === CMD_FLAG_DF)) {
      this.#fail(ERROR.EINVAL, `READ with flags 0x${flags.toString(16)}`);
    } else if (length === 0 || length > MAX_PAYLOAD) {
      this.#fail(ERROR.EINVAL, `READ of ${length} bytes; at least 1 and at most ${MAX_PAYLOAD} can be read`);
    } else if (offset + length > this.#device.size) {
      this.#fail(ERROR.EINVAL, `READ beyond the end of the export, which has ${this.#device.size} bytes`);
    } else if (length > SLAB_DATA) {
      this.#startStream(offset, length, whole);
    } else if (this.#structured && !whole && length >= HOLES_FROM && this.#device.sparse) {
      this.#readChunks(offset, length, true);
    } else {
      this.#readWhole(offset, length);
    }
  }

  /** One reply with all the data: the way of every small read. */
  #readWhole(offset: number, length: number): void {
    const slab = this.#room(length + CHUNK_BYTES + 8);
    const start = this.#used;
    let at: number;
    if (this.#structured) {
      at = this.#chunk(slab, REPLY_FLAG_DONE, REPLY_TYPE.OFFSET_DATA, 8 + length);
      at = put64(slab, at, offset);
    } else {
      at = this.#simple(slab, 0);
    }
    try {
      this.#device.readIntoSync(slab.bytes.subarray(at, at + length), offset);
    } catch (error) {
      this.#used = start;
      this.#failDevice(error, offset, length);
      return;
    }
    this.#used = at + length;
    this.#observer.read(length);
  }

  /**
   * Structured reply chunks for a range that fits a slab, holes as holes. `last` sets DONE on the final chunk. Returns false when
   * the device failed and the reply has ended with an error.
   */
  #readChunks(offset: number, length: number, last: boolean): boolean {
    // At worst every other 4 KiB is a hole, with a head of its own and one for the data behind it.
    const slab = this.#room(length + (Math.ceil(length / MIN_HOLE) + 1) * 2 * (CHUNK_BYTES + 12));
    const start = this.#used;
    const end = offset + length;
    try {
      // `from`: where the data not yet written begins; holes too short for a chunk are part of it.
      let from = offset;
      for (let at = offset; at < end; ) {
        for (const extent of this.#device.extents(at, end - at, MAX_EXTENTS)) {
          const stop = at + extent.length;
          if (extent.zero && extent.length >= MIN_HOLE) {
            if (from < at) this.#dataChunk(slab, from, at, 0);
            this.#holeChunk(slab, at, stop, last && stop === end ? REPLY_FLAG_DONE : 0);
            from = stop;
          }
          at = stop;
        }
      }
      if (from < end) this.#dataChunk(slab, from, end, last ? REPLY_FLAG_DONE : 0);
    } catch (error) {
      this.#used = start;
      this.#failDevice(error, offset, length);
      return false;
    }
    this.#observer.read(length);
    return true;
  }

  #holeChunk(slab: Slab, from: number, stop: number, flags: number): void {
    const at = put64(slab, this.#chunk(slab, flags, REPLY_TYPE.OFFSET_HOLE, 12), from);
    slab.view.setUint32(at, stop - from);
    this.#used = at + 4;
  }

  #dataChunk(slab: Slab, from: number, stop: number, flags: number): void {
    const at = put64(slab, this.#chunk(slab, flags, REPLY_TYPE.OFFSET_DATA, 8 + (stop - from)), from);
    this.#device.readIntoSync(slab.bytes.subarray(at, at + stop - from), from);
    this.#used = at + stop - from;
  }

  #startStream(offset: number, length: number, whole: boolean): void {
    this.#streamOffset = offset;
    this.#streamLeft = length;
    this.#streamWhole = whole || !this.#structured;
    if (!this.#streamWhole) return;
    // The head, and as much as fits with it; if even that fails, the reply can still be an error.
    const slab = this.#room(SLAB_DATA + CHUNK_BYTES + 8);
    const start = this.#used;
    let at: number;
    if (this.#structured) {
      at = this.#chunk(slab, REPLY_FLAG_DONE, REPLY_TYPE.OFFSET_DATA, 8 + length);
      at = put64(slab, at, offset);
    } else {
      at = this.#simple(slab, 0);
    }
    this.#used = at;
    if (this.#streamRaw()) return;
    this.#used = start;
    this.#streamLeft = 0;
    this.#failDevice(this.#streamError, offset, length);
  }

  #streamError: unknown;

  /** Reads the next piece of a long read behind what the slab holds; false (and `#streamError`) when the device failed. */
  #streamRaw(): boolean {
    const length = Math.min(this.#streamLeft, SLAB_DATA);
    const slab = this.#room(length);
    try {
      this.#device.readIntoSync(slab.bytes.subarray(this.#used, this.#used + length), this.#streamOffset);
    } catch (error) {
      this.#streamError = error;
      return false;
    }
    this.#used += length;
    this.#streamOffset += length;
    this.#streamLeft -= length;
    this.#observer.read(length);
    return true;
  }

  /** One piece of a long read; false when the connection can't go on. */
  #streamPiece(): boolean {
    if (this.#streamWhole) {
      if (this.#streamRaw()) return true;
      this.#observer.failed(this.#streamError, this.#streamOffset, this.#streamLeft);
      this.#break('a read failed after part of its data was sent');
      return false;
    }
    const length = Math.min(this.#streamLeft, SLAB_DATA);
    const last = length === this.#streamLeft;
    if (this.#readChunks(this.#streamOffset, length, last)) {
      this.#streamOffset += length;
      this.#streamLeft -= length;
    } else {
      // The error chunk has ended the reply.
      this.#streamLeft = 0;
    }
    return true;
  }

  #status(flags: number, offset: number, length: number): void {
    if (!this.#blockStatus) {
      this.#fail(ERROR.EINVAL, 'BLOCK_STATUS without a selected context');
      return;
    }
    if ((flags & ~CMD_FLAG_REQ_ONE) !== 0) {
      this.#fail(ERROR.EINVAL, `BLOCK_STATUS with flags 0x${flags.toString(16)}`);
      return;
    }
    if (length === 0 || offset + length > this.#device.size) {
      this.#fail(ERROR.EINVAL, `BLOCK_STATUS outside the export, which has ${this.#device.size} bytes`);
      return;
    }
    const limit = (flags & CMD_FLAG_REQ_ONE) === 0 ? MAX_EXTENTS : 1;
    try {
      const extents = this.#device.extents(offset, length, limit);
      const size = 4 + 8 * extents.length;
      const slab = this.#room(CHUNK_BYTES + size);
      let at = this.#chunk(slab, REPLY_FLAG_DONE, REPLY_TYPE.BLOCK_STATUS, size);
      slab.view.setUint32(at, BASE_ALLOCATION_ID);
      at += 4;
      for (const extent of extents) {
        slab.view.setUint32(at, extent.length);
        slab.view.setUint32(at + 4, extent.zero ? STATE_HOLE | STATE_ZERO : 0);
        at += 8;
      }
      this.#used = at;
    } catch (error) {
      this.#failDevice(error, offset, length);
    }
  }

  #break(reason: string): 'broken' {
    this.reason = reason;
    return 'broken';
  }

  #failDevice(error: unknown, offset: number, length: number): void {
    this.#fail(ERROR.EIO, error instanceof Error ? error.message : String(error));
    this.#observer.failed(error, offset, length);
  }

  #succeed(): void {
    const slab = this.#room(SIMPLE_REPLY_BYTES);
    this.#used = this.#simple(slab, 0);
  }

  #fail(error: number, message: string): void {
    if (!this.#structured) {
      const slab = this.#room(SIMPLE_REPLY_BYTES);
      this.#used = this.#simple(slab, error);
      return;
    }
    const text = errorText(message);
    const slab = this.#room(CHUNK_BYTES + 6 + text.length);
    const at = this.#chunk(slab, REPLY_FLAG_DONE, REPLY_TYPE.ERROR, 6 + text.length);
    slab.view.setUint32(at, error);
    slab.view.setUint16(at + 4, text.length);
    slab.bytes.set(text, at + 6);
    this.#used = at + 6 + text.length;
  }

  /** A slab with room for `bytes` behind `#used`; the one before is sent when it has not. */
  #room(bytes: number): Slab {
    if (this.#slab !== undefined && this.#used + bytes > SLAB_BYTES) this.#flush();
    this.#slab ??= this.#output.take();
    return this.#slab;
  }

  #flush(): void {
    const slab = this.#slab;
    if (slab === undefined) return;
    this.#slab = undefined;
    const length = this.#used;
    this.#used = 0;
    this.#output.send(slab, length);
  }

  /** Writes a simple reply's head at `#used`; returns where its data goes. */
  #simple(slab: Slab, error: number): number {
    const { view } = slab;
    const at = this.#used;
    view.setUint32(at, SIMPLE_REPLY_MAGIC);
    view.setUint32(at + 4, error);
    view.setUint32(at + 8, this.#cookieHigh);
    view.setUint32(at + 12, this.#cookieLow);
    return at + SIMPLE_REPLY_BYTES;
  }

  /** Writes a chunk's head at `#used`; returns where its payload goes. */
  #chunk(slab: Slab, flags: number, type: number, length: number): number {
    const { view } = slab;
    const at = this.#used;
    view.setUint32(at, STRUCTURED_REPLY_MAGIC);
    view.setUint16(at + 4, flags);
    view.setUint16(at + 6, type);
    view.setUint32(at + 8, this.#cookieHigh);
    view.setUint32(at + 12, this.#cookieLow);
    view.setUint32(at + 16, length);
    return at + CHUNK_BYTES;
  }
}

function put64(slab: Slab, at: number, value: number): number {
  slab.view.setUint32(at, high32(value));
  slab.view.setUint32(at + 4, low32(value));
  return at + 8;
}

/** A message as the protocol carries it: UTF-8, cut between characters at 4 KiB. */
function errorText(message: string): Uint8Array {
  const bytes = Buffer.from(message, 'utf8');
  if (bytes.length <= MAX_STRING) return bytes;
  let end = MAX_STRING;
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}

/** The client's side of the NBD wire for tests: builds requests and options, and takes replies apart, independent of the server's code. */
import type { Extent, NbdDevice } from '../../main/engine/nbd/device.ts';
import { SLAB_BYTES, type Slab } from '../../main/engine/nbd/slabs.ts';
import type { Observer, Output } from '../../main/engine/nbd/transmission.ts';

/** Client flags as every modern client sends them: fixed newstyle, no zeroes. */
export const CLIENT_FLAGS = Buffer.from('00000003', 'hex');

export function option(number: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(16);
  head.write('IHAVEOPT', 'latin1');
  head.writeUInt32BE(number, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

/** A string with its 32-bit length. */
export function counted(value: string): Buffer {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** Data of INFO and GO. */
export function infoData(name: string, wanted: readonly number[] = []): Buffer {
  const requests = Buffer.alloc(2 + 2 * wanted.length);
  requests.writeUInt16BE(wanted.length, 0);
  for (const [i, one] of wanted.entries()) requests.writeUInt16BE(one, 2 + 2 * i);
  return Buffer.concat([counted(name), requests]);
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextData(name: string, queries: readonly string[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length);
  return Buffer.concat([counted(name), count, ...queries.map(counted)]);
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

/** Takes option replies apart; throws when the bytes are not whole replies. */
export function optionReplies(bytes: Buffer): OptionReply[] {
  const out: OptionReply[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (bytes.toString('hex', at, at + 8) !== '0003e889045565a9') throw new Error(`no option reply at ${at}`);
    const length = bytes.readUInt32BE(at + 16);
    if (at + 20 + length > bytes.length) throw new Error('an option reply is cut off');
    out.push({
      option: bytes.readUInt32BE(at + 8),
      type: bytes.readUInt32BE(at + 12),
      data: bytes.subarray(at + 20, at + 20 + length),
    });
    at += 20 + length;
  }
  return out;
}

export interface RequestFields {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly offset?: bigint;
  readonly length?: number;
  readonly magic?: number;
}

export function request(fields: RequestFields): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(fields.magic ?? 0x25609513, 0);
  bytes.writeUInt16BE(fields.flags ?? 0, 4);
  bytes.writeUInt16BE(fields.type, 6);
  bytes.writeBigUInt64BE(fields.cookie ?? 0n, 8);
  bytes.writeBigUInt64BE(fields.offset ?? 0n, 16);
  bytes.writeUInt32BE(fields.length ?? 0, 24);
  return bytes;
}

export interface SimpleReply {
  readonly kind: 'simple';
  readonly error: number;
  readonly cookie: bigint;
  readonly data: Buffer;
}
export interface Chunk {
  readonly kind: 'chunk';
  readonly done: boolean;
  readonly type: number;
  readonly cookie: bigint;
  readonly data: Buffer;
}
export type Reply = SimpleReply | Chunk;

/**
 * Takes replies apart; throws when the bytes are not whole replies. `dataOf` gives the data bytes that follow a simple reply
 * without an error.
 */
export function replies(bytes: Buffer, dataOf: (cookie: bigint) => number = () => 0): Reply[] {
  const out: Reply[] = [];
  for (let at = 0; at < bytes.length; ) {
    const magic = bytes.readUInt32BE(at);
    if (magic === 0x67446698) {
      const error = bytes.readUInt32BE(at + 4);
      const cookie = bytes.readBigUInt64BE(at + 8);
      const length = error === 0 ? dataOf(cookie) : 0;
      if (at + 16 + length > bytes.length) throw new Error('a simple reply is cut off');
      out.push({ kind: 'simple', error, cookie, data: bytes.subarray(at + 16, at + 16 + length) });
      at += 16 + length;
    } else if (magic === 0x668e33ef) {
      const length = bytes.readUInt32BE(at + 16);
      if (at + 20 + length > bytes.length) throw new Error('a chunk is cut off');
      out.push({
        kind: 'chunk',
        done: bytes.readUInt16BE(at + 4) === 1,
        type: bytes.readUInt16BE(at + 6),
        cookie: bytes.readBigUInt64BE(at + 8),
        data: bytes.subarray(at + 20, at + 20 + length),
      });
      at += 20 + length;
    } else {
      throw new Error(`no reply at ${at}: 0x${magic.toString(16)}`);
    }
  }
  return out;
}

/** The bytes of a READ's chunks put together; throws for gaps, overlaps and error chunks. */
export function assemble(chunks: readonly Reply[], offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const seen = new Uint8Array(length);
  for (const chunk of chunks) {
    if (chunk.kind !== 'chunk') throw new Error('a simple reply among chunks');
    const at = Number(chunk.data.readBigUInt64BE(0)) - offset;
    const size = chunk.type === 1 ? chunk.data.length - 8 : chunk.data.readUInt32BE(8);
    if (chunk.type === 1) chunk.data.copy(bytes, at, 8);
    else if (chunk.type !== 2) throw new Error(`chunk of type ${chunk.type}`);
    if (at < 0 || at + size > length || seen.subarray(at, at + size).includes(1)) {
      throw new Error('chunks overlap or leave their range');
    }
    seen.fill(1, at, at + size);
  }
  if (seen.includes(0)) throw new Error('chunks leave a gap');
  return bytes;
}

/** A device in memory, with holes and with places that fail. */
export class TestDevice implements NbdDevice {
  readonly content: Buffer;
  readonly sparse: boolean;
  readonly #holes: readonly (readonly [number, number])[];
  /** Reads that touch this byte fail with this error. */
  readonly failAt = new Map<number, Error>();

  /** Content is computable from the offset; holes are `[start, end)` ranges, ascending. */
  constructor(size: number, holes: readonly (readonly [number, number])[] = []) {
    this.content = Buffer.alloc(size);
    for (let i = 0; i < size; i++) this.content[i] = ((i * 2654435761) >>> 13) & 0xff;
    for (const [start, end] of holes) this.content.fill(0, start, end);
    this.#holes = holes;
    this.sparse = holes.length > 0;
  }
  get size(): number {
    return this.content.length;
  }
  readIntoSync(target: Uint8Array, offset: number): void {
    if (offset + target.length > this.size) throw new Error('the server read beyond its device');
    for (const [at, error] of this.failAt) if (at >= offset && at < offset + target.length) throw error;
    target.set(this.content.subarray(offset, offset + target.length));
  }
  extents(offset: number, length: number, limit: number): Extent[] {
    const out: Extent[] = [];
    for (let at = offset; at < offset + length && out.length < limit; ) {
      const hole = this.#holes.find(([start, end]) => at >= start && at < end);
      const next = this.#holes.find(([start]) => start > at)?.[0] ?? this.size;
      const stop = Math.min(offset + length, hole?.[1] ?? next);
      out.push({ length: stop - at, zero: hole !== undefined });
      at = stop;
    }
    return out;
  }
  async close(): Promise<void> {}
}

const freeSlabs: Slab[] = [];

/** Collects what transmission sends. */
export class TestOutput implements Output {
  full = false;
  sent: Buffer[] = [];
  /** Becomes full when this many bytes were sent. */
  fullAt = Number.POSITIVE_INFINITY;
  take(): Slab {
    const free = freeSlabs.pop();
    if (free !== undefined) return free;
    const buffer = new ArrayBuffer(SLAB_BYTES);
    return { bytes: new Uint8Array(buffer), view: new DataView(buffer) };
  }
  send(slab: Slab, length: number): void {
    this.sent.push(Buffer.from(slab.bytes.subarray(0, length)));
    freeSlabs.push(slab);
    if (this.total() >= this.fullAt) this.full = true;
  }
  total(): number {
    return this.sent.reduce((sum, part) => sum + part.length, 0);
  }
  bytes(): Buffer {
    return Buffer.concat(this.sent);
  }
}

export class TestObserver implements Observer {
  requests = 0;
  bytes = 0;
  failures: unknown[] = [];
  request(): void {
    this.requests++;
  }
  read(bytes: number): void {
    this.bytes += bytes;
  }
  failed(error: unknown): void {
    this.failures.push(error);
  }
}

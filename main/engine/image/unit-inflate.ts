/**
 * Inflates one compressed unit of a disk with zlib: never to more bytes than a unit has, and what zlib says of a stream that is none is
 * damage.
 */
import { inflate, inflateRaw, inflateRawSync, inflateSync, type ZlibOptions } from 'node:zlib';
import { CorruptError } from '../errors.ts';
import type { ByteSource } from '../storage/byte-source.ts';

/** `deflate`: RFC 1951 without a header. `zlib`: RFC 1950. */
const STREAMS = {
  deflate: { title: 'a deflate stream (RFC 1951)', sync: inflateRawSync, async: inflateRaw },
  zlib: { title: 'a zlib stream (RFC 1950)', sync: inflateSync, async: inflate },
} as const;

export interface UnitStream {
  readonly kind: keyof typeof STREAMS;
  /** Bytes of a unit. */
  readonly unit: number;
  /** What errors call the compressed unit. */
  readonly structure: string;
  /** What errors expect of a stream that inflates to more. */
  readonly bound: string;
  readonly options?: ZlibOptions;
}

export class UnitInflate {
  readonly #stream: UnitStream;
  readonly #options: ZlibOptions;

  constructor(stream: UnitStream) {
    const { unit, options } = stream;
    this.#stream = stream;
    // One byte more than a unit, so that it comes in one piece, and one that holds more is told from one that is full.
    this.#options = { ...options, chunkSize: Math.max(64, unit + 1), maxOutputLength: unit };
  }

  /** What `packed`, read from `position` of `source`, inflates to: at most a unit. @throws CorruptError. */
  sync(packed: Uint8Array, source: ByteSource, position: number): Uint8Array {
    try {
      return STREAMS[this.#stream.kind].sync(packed, this.#options);
    } catch (error) {
      throw this.#damage(error, source, position);
    }
  }

  /** The same in libuv's thread pool. */
  async(packed: Uint8Array, source: ByteSource, position: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      STREAMS[this.#stream.kind].async(packed, this.#options, (error, bytes) => {
        if (error === null) resolve(bytes);
        else reject(this.#damage(error, source, position));
      });
    });
  }

  /** What zlib says of a stream, as damage; anything else is let through. */
  #damage(error: unknown, source: ByteSource, position: number): unknown {
    const { kind, structure, bound } = this.#stream;
    const code = (error as { code?: unknown }).code;
    const at = { source: source.name, position };
    if (code === 'ERR_BUFFER_TOO_LARGE') return new CorruptError(structure, { ...at, expected: bound, found: 'more' });
    if (code !== 'Z_DATA_ERROR' && code !== 'Z_BUF_ERROR' && code !== 'Z_NEED_DICT') return error;
    const { title: expected } = STREAMS[kind];
    return new CorruptError(structure, { ...at, expected, found: (error as Error).message });
  }
}

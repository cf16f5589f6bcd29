/**
 * Clusters compressed with deflate (RFC 1951, no zlib header), as QCOW and QCOW2 keep them. How long the stream is, an entry says
 * only as an upper bound (QCOW2: to the sector): what follows the stream belongs to somebody else and is not looked at.
 */
import { constants, inflateRaw, inflateRawSync, type ZlibOptions } from 'node:zlib';
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import type { Codec } from '../image.ts';

export class DeflateCodec implements Codec {
  readonly name = 'deflate';
  readonly unit: number;
  readonly #structure: string;
  readonly #options: ZlibOptions;

  /** @param unit bytes of a cluster. @param family `QCOW2` or `QCOW`: the first word of structures in errors. */
  constructor(unit: number, family: string) {
    this.unit = unit;
    this.#structure = `${family} compressed cluster`;
    this.#options = {
      // QEMU writes with a window of 4 KiB; a larger one reads that too, and what other programs write.
      windowBits: 15,
      // One byte more than a cluster, so that it comes in one piece, and one that holds more is told from one that is full.
      chunkSize: Math.max(64, unit + 1),
      maxOutputLength: unit,
      // The stream's last bytes may be cut where the cluster is complete without them.
      finishFlush: constants.Z_SYNC_FLUSH,
    };
  }

  *unpack(source: ByteSource, position: number, stored: number): Io<Uint8Array> {
    const packed = yield* readBytes(source, position, stored);
    let bytes: Uint8Array;
    try {
      bytes = inflateRawSync(packed, this.#options);
    } catch (error) {
      throw this.#bad(error, source, position);
    }
    return this.#whole(bytes, source, position);
  }

  async unpackAsync(source: ByteSource, position: number, stored: number): Promise<Uint8Array> {
    const packed = await source.read(position, stored);
    const bytes = await new Promise<Uint8Array>((resolve, reject) => {
      inflateRaw(packed, this.#options, (error, inflated) => {
        if (error === null) resolve(inflated);
        else reject(this.#bad(error, source, position));
      });
    });
    return this.#whole(bytes, source, position);
  }

  #whole(bytes: Uint8Array, source: ByteSource, position: number): Uint8Array {
    if (bytes.length === this.unit) return bytes;
    throw this.#corrupt(source, position, `${this.unit} bytes when inflated`, `${bytes.length} bytes`);
  }

  /** What zlib says of a stream, as damage; anything else is let through. */
  #bad(error: unknown, source: ByteSource, position: number): unknown {
    const code = (error as { code?: unknown }).code;
    if (code === 'ERR_BUFFER_TOO_LARGE') {
      return this.#corrupt(source, position, `${this.unit} bytes when inflated`, 'more');
    }
    if (code !== 'Z_DATA_ERROR' && code !== 'Z_BUF_ERROR' && code !== 'Z_NEED_DICT') return error;
    return this.#corrupt(source, position, 'a deflate stream (RFC 1951)', (error as Error).message);
  }

  #corrupt(source: ByteSource, position: number, expected: string, found: string): CorruptError {
    return new CorruptError(this.#structure, { source: source.name, position, expected, found });
  }
}

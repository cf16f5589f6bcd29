/**
 * Clusters compressed with Zstandard (RFC 8878), as QCOW2 with compression type 1 keeps them: one frame, or several, until the
 * cluster is full. What follows in the stored sectors belongs to somebody else (often the frame of the next cluster).
 *
 * The decoder is libzstd as WebAssembly (npm `zstddec`). It is told the most it may write, and what it returns is measured: it
 * answers an error of libzstd with no bytes.
 */
import { ZSTDDecoder } from 'zstddec';
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import type { Codec } from '../image.ts';
import { type FrameShape, frameShape } from './zstd-frame.ts';

const STRUCTURE = 'QCOW2 compressed cluster';

export class ZstdCodec implements Codec {
  readonly name = 'zstd';
  readonly unit: number;
  readonly #decoder: ZSTDDecoder;

  private constructor(unit: number, decoder: ZSTDDecoder) {
    this.unit = unit;
    this.#decoder = decoder;
  }

  /** Instantiates the decoder, which afterwards works without leaving the thread. @param unit bytes of a cluster. */
  static async create(unit: number): Promise<ZstdCodec> {
    const decoder = new ZSTDDecoder();
    await decoder.init();
    return new ZstdCodec(unit, decoder);
  }

  *unpack(source: ByteSource, position: number, stored: number): Io<Uint8Array> {
    const packed = yield* readBytes(source, position, stored);
    const corrupt = (expected: string, found: string) =>
      new CorruptError(STRUCTURE, { source: source.name, position, expected, found });
    let cluster: Uint8Array | undefined;
    let filled = 0;
    for (let at = 0; filled < this.unit; ) {
      const frame = frameShape(packed, at);
      if (frame === undefined) {
        throw filled === 0
          ? corrupt(`a Zstandard frame (RFC 8878) in ${stored} bytes`, 'none that is whole')
          : corrupt(`${this.unit} bytes when unpacked`, `${filled} bytes`);
      }
      if (!frame.skippable) {
        const room = this.unit - filled;
        if (frame.content !== undefined && frame.content > room) {
          throw corrupt(`${this.unit} bytes when unpacked`, `${filled + frame.content} bytes`);
        }
        const bytes = this.#decode(packed.subarray(at, at + frame.length), room, frame, corrupt);
        if (bytes.length === this.unit) return bytes;
        cluster ??= new Uint8Array(this.unit);
        cluster.set(bytes, filled);
        filled += bytes.length;
      }
      at += frame.length;
    }
    return cluster!;
  }

  #decode(
    frame: Uint8Array,
    room: number,
    shape: FrameShape,
    corrupt: (expected: string, found: string) => CorruptError,
  ): Uint8Array {
    if (shape.content === 0) return new Uint8Array(0);
    let bytes: Uint8Array;
    try {
      bytes = this.#decoder.decode(frame, room);
    } catch (error) {
      // A trap of the decoder: its memory is its own, so nothing else is touched.
      if (!(error instanceof Error && error.name === 'RuntimeError')) throw error;
      throw corrupt('a Zstandard frame (RFC 8878)', error.message);
    }
    if (bytes.length === 0 || bytes.length > room) {
      throw corrupt(`a Zstandard frame of at most ${room} bytes`, 'one that does not decode');
    }
    if (shape.content !== undefined && bytes.length !== shape.content) {
      throw corrupt(`${shape.content} bytes, as the frame says`, `${bytes.length} bytes`);
    }
    return bytes;
  }
}

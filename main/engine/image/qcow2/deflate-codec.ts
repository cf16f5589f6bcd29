/**
 * Clusters compressed with deflate (RFC 1951, no zlib header), as QCOW and QCOW2 keep them. How long the stream is, an entry says
 * only as an upper bound (QCOW2: to the sector): what follows the stream belongs to somebody else and is not looked at.
 */
import { constants } from 'node:zlib';
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import type { Codec } from '../image.ts';
import { UnitInflate } from '../unit-inflate.ts';

export class DeflateCodec implements Codec {
  readonly name = 'deflate';
  readonly unit: number;
  readonly #structure: string;
  readonly #inflate: UnitInflate;

  /** @param unit bytes of a cluster. @param family `QCOW2` or `QCOW`: the first word of structures in errors. */
  constructor(unit: number, family: string) {
    this.unit = unit;
    this.#structure = `${family} compressed cluster`;
    this.#inflate = new UnitInflate({
      kind: 'deflate',
      unit,
      structure: this.#structure,
      bound: `${unit} bytes when inflated`,
      options: {
        // QEMU writes with a window of 4 KiB; a larger one reads that too, and what other programs write.
        windowBits: 15,
        // The stream's last bytes may be cut where the cluster is complete without them.
        finishFlush: constants.Z_SYNC_FLUSH,
      },
    });
  }

  *unpack(source: ByteSource, position: number, stored: number): Io<Uint8Array> {
    const packed = yield* readBytes(source, position, stored);
    return this.#whole(this.#inflate.sync(packed, source, position), source, position);
  }

  async unpackAsync(source: ByteSource, position: number, stored: number): Promise<Uint8Array> {
    const packed = await source.read(position, stored);
    return this.#whole(await this.#inflate.async(packed, source, position), source, position);
  }

  #whole(bytes: Uint8Array, source: ByteSource, position: number): Uint8Array {
    if (bytes.length === this.unit) return bytes;
    throw new CorruptError(this.#structure, {
      source: source.name,
      position,
      expected: `${this.unit} bytes when inflated`,
      found: `${bytes.length} bytes`,
    });
  }
}

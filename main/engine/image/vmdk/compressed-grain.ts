/**
 * Compressed grains of hosted sparse extents (streamOptimized): a marker with the grain's first sector on the disk and the length of
 * what follows, then a zlib stream (RFC 1950). VMware, "Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents".
 * An extent may be compressed without markers; then the stream begins at the sector that its table says, and ends where it ends.
 *
 * The length of a grain is not in its table, so marker and data are fetched with one guess, which follows what was met lately.
 */
import { Fields } from '../../binary.ts';
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes, runAsync } from '../../storage/io.ts';
import type { Codec } from '../image.ts';
import { UnitInflate } from '../unit-inflate.ts';
import { GrainMarkerOffsets as at, GRAIN_MARKER_BYTES, SECTOR } from './layout.ts';

const MARKER = 'VMDK grain marker';
const GRAIN = 'VMDK compressed grain';
/** zlib stream: two bytes of header, one empty block, four bytes of checksum. */
const SHORTEST_STREAM = 8;

export interface CompressedGeometry {
  /** Bytes of a grain: a power of two, at most 32 MiB. */
  readonly grainBytes: number;
  /** First byte of the extent on the disk, a multiple of `grainBytes`. */
  readonly base: number;
  /** Bytes of the disk that the extent covers. */
  readonly capacity: number;
  /** Grains begin with a marker (SPARSEFLAG_EMBEDDED_LBA). */
  readonly markers: boolean;
}

/** A grain as it is stored. */
interface Packed {
  readonly stream: Uint8Array;
  readonly streamPosition: number;
}

export class GrainCodec implements Codec {
  readonly name = 'deflate';
  readonly unit: number;
  readonly #geometry: CompressedGeometry;
  readonly #inflate: UnitInflate;
  /** Bytes to ask for first. */
  #guess: number;

  constructor(geometry: CompressedGeometry) {
    this.#geometry = geometry;
    this.unit = geometry.grainBytes;
    this.#inflate = new UnitInflate({
      kind: 'zlib',
      unit: this.unit,
      structure: GRAIN,
      bound: 'at most a grain when inflated',
    });
    this.#guess = Math.max(SECTOR, this.unit / 2);
  }

  /** The fewest bytes that a stored grain takes. */
  get shortest(): number {
    return (this.#geometry.markers ? GRAIN_MARKER_BYTES : 0) + SHORTEST_STREAM;
  }

  *unpack(source: ByteSource, position: number, _stored: number, offset: number): Io<Uint8Array> {
    const packed = yield* this.#packed(source, position, offset);
    return this.#whole(this.#inflate.sync(packed.stream, source, packed.streamPosition), source, packed, offset);
  }

  async unpackAsync(source: ByteSource, position: number, _stored: number, offset: number): Promise<Uint8Array> {
    const packed = await runAsync(this.#packed(source, position, offset));
    return this.#wholeAsync(packed, source, offset);
  }

  /** Unpacks a grain to see that it can be, and returns the bytes that it takes at `position`. @throws CorruptError, IoError. */
  async examine(source: ByteSource, position: number, offset: number): Promise<number> {
    const packed = await runAsync(this.#packed(source, position, offset));
    await this.#wholeAsync(packed, source, offset);
    return this.#geometry.markers ? packed.streamPosition + packed.stream.length - position : SECTOR;
  }

  async #wholeAsync(packed: Packed, source: ByteSource, offset: number): Promise<Uint8Array> {
    const bytes = await this.#inflate.async(packed.stream, source, packed.streamPosition);
    return this.#whole(bytes, source, packed, offset);
  }

  /** The stored stream of the grain that begins at `offset` of the disk. */
  *#packed(source: ByteSource, position: number, offset: number): Io<Packed> {
    const most = source.size - position;
    if (!this.#geometry.markers) {
      return { stream: yield* readBytes(source, position, Math.min(most, 2 * this.unit)), streamPosition: position };
    }
    const first = yield* readBytes(source, position, Math.min(most, Math.max(this.#guess, GRAIN_MARKER_BYTES)));
    const marker = new Fields(first.subarray(0, GRAIN_MARKER_BYTES), MARKER, source.name, position);
    this.#checkAddress(marker, offset);
    const size = marker.u32(at.size);
    // Incompressible data grows; twice the grain is what other readers allow too.
    marker.require(
      size >= SHORTEST_STREAM && size <= 2 * this.unit,
      'size',
      at.size,
      `${SHORTEST_STREAM} to ${2 * this.unit} bytes`,
      `${size} bytes`,
    );
    const whole = GRAIN_MARKER_BYTES + size;
    if (whole > most) {
      throw marker.corrupt('size', at.size, `at most the ${most} bytes up to the end of the file`, `${whole} bytes`);
    }
    this.#guess = Math.max(whole, this.#guess - (this.#guess >> 4));
    const streamPosition = position + GRAIN_MARKER_BYTES;
    if (whole <= first.length) return { stream: first.subarray(GRAIN_MARKER_BYTES, whole), streamPosition };
    const stream = new Uint8Array(size);
    stream.set(first.subarray(GRAIN_MARKER_BYTES));
    stream.set(
      yield* readBytes(source, position + first.length, whole - first.length),
      first.length - GRAIN_MARKER_BYTES,
    );
    return { stream, streamPosition };
  }

  /** The marker must name the sector that the tables have led here for: of the disk, or of the extent. */
  #checkAddress(marker: Fields, offset: number): void {
    const expected = offset / SECTOR;
    const found = marker.u64(at.lba, 'lba');
    if (found === expected || found === expected - this.#geometry.base / SECTOR) return;
    throw marker.corrupt('lba', at.lba, `sector ${expected}, as its grain table says`, `sector ${found}`);
  }

  /** Only the extent's last grain may be shorter than the others: what lies behind the end of the extent is nobody's. */
  #whole(bytes: Uint8Array, source: ByteSource, packed: Packed, offset: number): Uint8Array {
    if (bytes.length === this.unit) return bytes;
    const needed = Math.min(this.unit, this.#geometry.base + this.#geometry.capacity - offset);
    if (bytes.length < needed) {
      throw new CorruptError(GRAIN, {
        source: source.name,
        position: packed.streamPosition,
        expected: `${needed} bytes when inflated`,
        found: `${bytes.length} bytes`,
      });
    }
    const whole = new Uint8Array(this.unit);
    whole.set(bytes);
    return whole;
  }
}

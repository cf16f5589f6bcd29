/**
 * Pieces of tables, kept for the next look-up under a ceiling in bytes; the piece used longest ago goes first. A piece is known by
 * its position, and always has the same length.
 */
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';

export class PieceCache {
  readonly #source: ByteSource;
  readonly #ceiling: number;
  /** In the order of their last use. */
  readonly #pieces = new Map<number, Uint8Array>();
  #held = 0;

  constructor(source: ByteSource, ceiling: number) {
    this.#source = source;
    this.#ceiling = ceiling;
  }

  /** Bytes held now. */
  get held(): number {
    return this.#held;
  }

  /** The bytes at `position`, which stay the cache's: read, never written. @throws CorruptError, IoError. */
  *get(position: number, length: number): Io<Uint8Array> {
    const known = this.#pieces.get(position);
    if (known !== undefined) {
      this.#pieces.delete(position);
      this.#pieces.set(position, known);
      return known;
    }
    const bytes = yield* readBytes(this.#source, position, length);
    // Another reader may have fetched it meanwhile.
    if (!this.#pieces.has(position)) this.#held += bytes.length;
    this.#pieces.set(position, bytes);
    for (const [oldest, piece] of this.#pieces) {
      if (this.#held <= this.#ceiling || oldest === position) break;
      this.#pieces.delete(oldest);
      this.#held -= piece.length;
    }
    return bytes;
  }
}

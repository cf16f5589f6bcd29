/**
 * Pieces of tables, kept for the next look-up under a ceiling in bytes; the piece used longest ago goes first. So neighbouring
 * look-ups cost one read, and a disk of any size costs the same memory.
 */
import type { ByteSource } from '../storage/byte-source.ts';
import { type Io, readBytes } from '../storage/io.ts';

export class TableCache {
  readonly #source: ByteSource;
  readonly #ceiling: number;
  /** By position; in the order of their last use. */
  readonly #pieces = new Map<number, Uint8Array>();
  #held = 0;

  /** @param ceiling of the pieces together, in bytes; one piece that is larger is kept for as long as it is the last. */
  constructor(source: ByteSource, ceiling: number) {
    this.#source = source;
    this.#ceiling = ceiling;
  }

  /** Bytes held now. */
  get held(): number {
    return this.#held;
  }

  /**
   * The piece at `position`, which always has the same length. Its bytes stay the cache's: read, never written.
   * @throws CorruptError, IoError.
   */
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

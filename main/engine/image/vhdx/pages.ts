/**
 * Tables read in pages that are kept for the next look-up, up to a ceiling: neighbouring look-ups cost one read, and a disk of any
 * size costs the same memory.
 */
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';

/** 4096 entries of a BAT; divides the MiB in which regions and blocks are counted. */
const PAGE_BYTES = 32 * 1024;
/** 2 MiB in all. */
const MAX_PAGES = 64;

export class Pages {
  readonly #source: ByteSource;
  /** By number; in the order of their last use. */
  readonly #pages = new Map<number, Uint8Array>();

  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** Pages held now. */
  get held(): number {
    return this.#pages.size;
  }

  /** Bytes of the source, which must have them. They may be shared: read, never written. */
  *read(position: number, length: number): Io<Uint8Array> {
    const first = Math.floor(position / PAGE_BYTES);
    const last = Math.floor((position + length - 1) / PAGE_BYTES);
    if (first === last) {
      const page = yield* this.#page(first);
      return page.subarray(position - first * PAGE_BYTES, position - first * PAGE_BYTES + length);
    }
    const bytes = new Uint8Array(length);
    for (let number = first; number <= last; number++) {
      const start = number * PAGE_BYTES;
      const page = yield* this.#page(number);
      const from = Math.max(position, start);
      const to = Math.min(position + length, start + PAGE_BYTES);
      bytes.set(page.subarray(from - start, to - start), from - position);
    }
    return bytes;
  }

  *#page(number: number): Io<Uint8Array> {
    const known = this.#pages.get(number);
    if (known !== undefined) {
      this.#pages.delete(number);
      this.#pages.set(number, known);
      return known;
    }
    const start = number * PAGE_BYTES;
    const page = yield* readBytes(this.#source, start, Math.min(PAGE_BYTES, this.#source.size - start));
    this.#pages.set(number, page);
    for (const oldest of this.#pages.keys()) {
      if (this.#pages.size <= MAX_PAGES) break;
      this.#pages.delete(oldest);
    }
    return page;
  }
}

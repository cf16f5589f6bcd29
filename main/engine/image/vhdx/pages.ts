/** Tables read in aligned pages that are kept for the next look-up, up to a ceiling. */
import type { ByteSource } from '../../storage/byte-source.ts';
import type { Io } from '../../storage/io.ts';
import { TableCache } from '../table-cache.ts';

/** 4096 entries of a BAT; divides the MiB in which regions and blocks are counted. */
const PAGE_BYTES = 32 * 1024;
/** Ceiling of the pages together. */
export const PAGES_BYTES = 2 << 20;

export class Pages {
  readonly #source: ByteSource;
  readonly #cache: TableCache;

  constructor(source: ByteSource) {
    this.#source = source;
    this.#cache = new TableCache(source, PAGES_BYTES);
  }

  /** Bytes held now. */
  get held(): number {
    return this.#cache.held;
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

  #page(number: number): Io<Uint8Array> {
    const start = number * PAGE_BYTES;
    return this.#cache.get(start, Math.min(PAGE_BYTES, this.#source.size - start));
  }
}

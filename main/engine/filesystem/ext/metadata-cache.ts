/**
 * A cache for inode tables, index blocks and the like: reads of 64 KiB, at most 32 MiB held, least recently used goes first.
 * That is enough for the inodes of 130,000 files in whatever order they are asked for. Listings of directories and file
 * content do not pass through it.
 */
import type { ByteSource } from '../../storage/byte-source.ts';
import { checkRange } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';

const chunkSize = 64 << 10;
const maxChunks = 512;

export class MetadataCache {
  readonly source: ByteSource;
  readonly #chunks = new Map<number, Uint8Array>();
  #lastIndex = -1;
  #last: Uint8Array = new Uint8Array(0);

  constructor(source: ByteSource) {
    this.source = source;
  }

  /** `length` bytes from `offset`. They are shared: never changed by whoever gets them. */
  *read(offset: number, length: number): Io<Uint8Array> {
    const index = Math.floor(offset / chunkSize);
    const start = offset - index * chunkSize;
    if (start + length <= chunkSize) {
      const chunk = index === this.#lastIndex ? this.#last : yield* this.#chunk(index);
      if (start + length <= chunk.length) return chunk.subarray(start, start + length);
    }
    // Across chunks or beyond the end: read as asked, so that the source's own error names the range.
    checkRange(this.source, offset, length);
    return yield* readBytes(this.source, offset, length);
  }

  *#chunk(index: number): Io<Uint8Array> {
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      const offset = index * chunkSize;
      const length = Math.min(chunkSize, this.source.size - offset);
      if (length <= 0) return new Uint8Array(0);
      chunk = yield* readBytes(this.source, offset, length);
      if (this.#chunks.size >= maxChunks) this.#chunks.delete(this.#chunks.keys().next().value!);
    } else {
      this.#chunks.delete(index);
    }
    this.#chunks.set(index, chunk);
    this.#lastIndex = index;
    this.#last = chunk;
    return chunk;
  }

  clear(): void {
    this.#chunks.clear();
    this.#lastIndex = -1;
    this.#last = new Uint8Array(0);
  }
}

/**
 * The one thing everything rests on: bytes that can be read and never written. A file, a disk, a volume and the content
 * of a guest file are all ByteSources. Behaviour (cache, statistics, read-ahead) is added by wrapping one in another.
 */
import { CorruptError } from '../errors.ts';

export interface ByteSource {
  /** What errors call this source: a file name, `disk 0 of web01`, `sda1`. */
  readonly name: string;
  /** Size in bytes, at most 2^53-1. */
  readonly size: number;
  /**
   * Exactly `length` bytes from `offset`, or an error: there is no short read. The bytes belong to the caller.
   * @throws IoError when the storage fails, CorruptError when the range lies outside the source.
   */
  read(offset: number, length: number): Promise<Uint8Array>;
  /**
   * Fills `target` from `offset` without leaving the thread, where the source can (local files and what stands on them).
   * Absent where it can't: ask before calling.
   */
  readonly readIntoSync?: (target: Uint8Array, offset: number) => void;
  /** Releases what the source holds. A wrapper closes what it was given ownership of; reading afterwards is an error. */
  close(): Promise<void>;
}

/** Throws CorruptError unless `[offset, offset + length)` lies in the source. Called by every implementation of `read`. */
export function checkRange(source: { name: string; size: number }, offset: number, length: number): void {
  if (!(offset >= 0 && length >= 0 && offset + length <= source.size)) {
    throw new CorruptError('Read', {
      source: source.name,
      position: offset,
      expected: `a range within ${source.size} bytes`,
      found: `${length} bytes from ${offset}`,
    });
  }
}

/** Bytes in memory as a source: small structures, inline file content, tests. */
export class MemorySource implements ByteSource {
  readonly name: string;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, name = 'memory') {
    this.#bytes = bytes;
    this.name = name;
  }
  get size(): number {
    return this.#bytes.length;
  }
  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    return this.#bytes.slice(offset, offset + length);
  }
  readonly readIntoSync = (target: Uint8Array, offset: number): void => {
    checkRange(this, offset, target.length);
    target.set(this.#bytes.subarray(offset, offset + target.length));
  };
  async close(): Promise<void> {}
}

/** A stretch of another source as a source of its own. Does not own, and so does not close, what it looks into. */
export class Window implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly start: number;
  readonly inner: ByteSource;
  readonly readIntoSync?: (target: Uint8Array, offset: number) => void;

  constructor(inner: ByteSource, start: number, size: number, name: string) {
    checkRange(inner, start, size);
    this.inner = inner;
    this.start = start;
    this.size = size;
    this.name = name;
    const sync = inner.readIntoSync;
    if (sync !== undefined) {
      this.readIntoSync = (target, offset) => {
        checkRange(this, offset, target.length);
        sync(target, start + offset);
      };
    }
  }
  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    return this.inner.read(this.start + offset, length);
  }
  async close(): Promise<void> {}
}

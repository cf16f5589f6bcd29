/** Carries out the scan of a tar: over a file that is read by position, and over a stream that flows by. */
import { throwIfCancelled } from '../../errors.ts';
import type { ByteSource } from '../byte-source.ts';
import type { TarIndex } from './tar-index.ts';
import { cutMembers, type TarScan, type Want } from './tar-scan.ts';

/** Read ahead of the scan, in bytes: with small members it saves reads, with large ones it costs nothing. */
const READ = 4096;
/** Headers fetched before they are asked for, where members follow each other at one distance. */
const AHEAD = 16;

/**
 * Carries out a scan over a file or another source that is read by position. Members of one size (the chunks of a XenServer export)
 * make the next headers predictable; those are fetched many at a time.
 * @throws CancelledError, IoError, UnsupportedError.
 */
export async function scanSource(
  scan: TarScan,
  source: ByteSource,
  options: { signal?: AbortSignal | undefined; onProgress?: ((done: number, total: number) => void) | undefined } = {},
): Promise<TarIndex | undefined> {
  const ahead = new Map<number, Promise<Uint8Array>>();
  let held = new Uint8Array(0) as Uint8Array;
  let heldAt = 0;
  let lastRead = 0;
  let stride = 0;
  const fetch = (offset: number, length: number): Promise<Uint8Array> => {
    if (offset >= source.size) return Promise.resolve(new Uint8Array(0));
    const read = source.read(offset, Math.min(length, source.size - offset));
    // Nobody may be waiting when it fails: then it was not needed.
    read.catch(() => {});
    return read;
  };
  try {
    let step = scan.next();
    let count = 0;
    while (!step.done) {
      throwIfCancelled(options.signal, 'Reading the archive');
      const { offset, length } = step.value;
      if (offset < heldAt || offset + Math.min(length, Math.max(0, source.size - offset)) > heldAt + held.length) {
        const delta = offset - lastRead;
        const predicted = delta === stride && delta > READ;
        const wanted = ahead.get(offset);
        ahead.delete(offset);
        if (!predicted) ahead.clear();
        const reading = wanted ?? fetch(offset, Math.max(length, READ));
        if (predicted) {
          for (let i = 1; i <= AHEAD; i++) {
            const next = offset + i * stride;
            if (next < source.size && !ahead.has(next)) ahead.set(next, fetch(next, READ));
          }
        }
        held = await reading;
        heldAt = offset;
        // A prediction may be shorter than what turns out to be wanted there.
        if (held.length < Math.min(length, source.size - offset)) held = await fetch(offset, length);
        stride = delta;
        lastRead = offset;
      }
      if (++count % 256 === 0) options.onProgress?.(Math.min(offset, source.size), source.size);
      step = scan.next(held.subarray(offset - heldAt, offset - heldAt + length));
    }
    const index = step.value;
    if (index !== undefined) cutMembers(index, source.size, source.name);
    return index;
  } finally {
    // The source may be closed next.
    await Promise.allSettled(ahead.values());
  }
}

/** Carries out a scan on a stream that flows by. Give it everything, in order. */
export class ScanTap {
  readonly #scan: TarScan;
  #want: Want | undefined;
  #got: Uint8Array[] = [];
  #gotBytes = 0;
  #result: TarIndex | undefined;

  constructor(scan: TarScan) {
    this.#scan = scan;
    this.#step(scan.next());
  }

  #step(step: IteratorResult<Want, TarIndex | undefined>): void {
    this.#got = [];
    this.#gotBytes = 0;
    this.#want = step.done ? undefined : step.value;
    if (step.done) this.#result = step.value;
  }

  /** The next bytes of the stream; the first of them is its byte `offset`. They may be changed afterwards. */
  push(bytes: Uint8Array, offset: number): void {
    while (this.#want !== undefined) {
      const from = this.#want.offset + this.#gotBytes;
      if (from >= offset + bytes.length) return;
      const missing = this.#want.length - this.#gotBytes;
      const piece = bytes.slice(from - offset, from - offset + missing);
      this.#got.push(piece);
      this.#gotBytes += piece.length;
      if (piece.length < missing) return;
      this.#step(this.#scan.next(this.#got.length === 1 ? this.#got[0]! : Buffer.concat(this.#got)));
    }
  }

  /** The stream has ended at `size`. @returns the index; undefined when it was no tar. */
  end(size: number, source: string): TarIndex | undefined {
    while (this.#want !== undefined) this.#step(this.#scan.next(Buffer.concat(this.#got)));
    if (this.#result !== undefined) cutMembers(this.#result, size, source);
    return this.#result;
  }
}

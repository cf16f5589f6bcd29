/**
 * Table look-ups are needed twice: without leaving the thread (data workers, command line) and with many reads in flight
 * (remote sources). So they are written once, as generators that yield the read they need and are given its bytes; the
 * two drivers below carry them out.
 */
import { throwIfCancelled } from '../errors.ts';
import { type ByteSource, checkRange } from './byte-source.ts';

export interface ReadRequest {
  readonly source: ByteSource;
  readonly offset: number;
  readonly length: number;
}

/** A computation that reads: yields requests, is resumed with exactly the requested bytes. */
export type Io<T> = Generator<ReadRequest, T, Uint8Array>;

/** One read, for `yield*`. */
export function* readBytes(source: ByteSource, offset: number, length: number): Io<Uint8Array> {
  return yield { source, offset, length };
}

/** Carries out a computation on this thread. Every source it reads must offer `readIntoSync`. */
export function runSync<T>(io: Io<T>): T {
  let step = io.next();
  while (!step.done) {
    const { source, offset, length } = step.value;
    let bytes: Uint8Array | undefined;
    let failure: unknown;
    try {
      if (source.readIntoSync === undefined) throw new TypeError(`${source.name} cannot be read synchronously`);
      // Before memory is taken for it: a length may come from a damaged table.
      checkRange(source, offset, length);
      const target = new Uint8Array(length);
      source.readIntoSync(target, offset);
      bytes = target;
    } catch (error) {
      failure = error;
    }
    step = bytes === undefined ? io.throw(failure) : io.next(bytes);
  }
  return step.value;
}

/** Carries out a computation with asynchronous reads. @throws CancelledError, between two reads, when `signal` is aborted. */
export async function runAsync<T>(io: Io<T>, signal?: AbortSignal): Promise<T> {
  let step = io.next();
  while (!step.done) {
    throwIfCancelled(signal);
    const { source, offset, length } = step.value;
    let bytes: Uint8Array | undefined;
    let failure: unknown;
    try {
      bytes = await source.read(offset, length);
    } catch (error) {
      failure = error;
    }
    step = bytes === undefined ? io.throw(failure) : io.next(bytes);
  }
  return step.value;
}

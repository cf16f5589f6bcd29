/**
 * A file as it is after its log was replayed: what the log writes lies over what the file has. Held in memory; the file stays as
 * it is.
 */
import { type ByteSource, checkRange } from '../../storage/byte-source.ts';
import { LOG_SECTOR } from './layout.ts';
import type { LogWrite } from './log.ts';

/** What a VHDX is read from: its file, or its file under its log. */
export interface VhdxSource extends ByteSource {
  /** Whether every byte of the range is there to be read. */
  holds(position: number, length: number): boolean;
}

/** A file without a log to replay. Closed by whoever opened it. */
export function plainSource(file: ByteSource): VhdxSource {
  return {
    name: file.name,
    size: file.size,
    holds: (position, length) => position + length <= file.size,
    read: (offset, length) => file.read(offset, length),
    ...(file.readIntoSync === undefined ? {} : { readIntoSync: file.readIntoSync }),
    close: async () => {},
  };
}

export class LogOverlay implements VhdxSource {
  readonly name: string;
  readonly size: number;
  readonly readIntoSync?: (target: Uint8Array, offset: number) => void;
  readonly #file: ByteSource;
  /** Stretches that the log writes, in order and without overlap. */
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;
  readonly #bytes: readonly (Uint8Array | undefined)[];

  /**
   * @param writes oldest first; positions and lengths are multiples of 4 KiB.
   * @param size of the file when they are done.
   */
  constructor(file: ByteSource, writes: readonly LogWrite[], size: number) {
    this.#file = file;
    this.name = file.name;
    this.size = size;
    const stretches = flatten(writes);
    this.#starts = Float64Array.from(stretches, ({ start }) => start);
    this.#ends = Float64Array.from(stretches, ({ end }) => end);
    this.#bytes = stretches.map(({ bytes }) => bytes);
    const sync = file.readIntoSync;
    if (sync !== undefined) {
      this.readIntoSync = (target, offset) => {
        checkRange(this, offset, target.length);
        for (const gap of this.#fill(target, offset)) {
          sync(target.subarray(gap.from - offset, gap.to - offset), gap.from);
        }
      };
    }
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const first = this.#first(offset);
    if (first === this.#starts.length || this.#starts[first]! >= offset + length) {
      return this.#file.read(offset, length);
    }
    const target = new Uint8Array(length);
    for (const gap of this.#fill(target, offset)) {
      target.set(await this.#file.read(gap.from, gap.to - gap.from), gap.from - offset);
    }
    return target;
  }

  holds(position: number, length: number): boolean {
    const end = position + length;
    if (end <= this.#file.size) return true;
    // Behind the file's end there is only what the log has.
    let at = Math.max(position, this.#file.size);
    for (let i = this.#first(at); at < end; i++) {
      if (!(i < this.#starts.length && this.#starts[i]! <= at)) return false;
      at = this.#ends[i]!;
    }
    return true;
  }

  async close(): Promise<void> {}

  /** Number of the first stretch that ends behind `offset`. */
  #first(offset: number): number {
    let low = 0;
    let high = this.#ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ends[middle]! > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Writes what the log has of the range into `target`; what the file has to give is left, and returned. */
  #fill(target: Uint8Array, offset: number): { from: number; to: number }[] {
    const end = offset + target.length;
    const gaps: { from: number; to: number }[] = [];
    let at = offset;
    for (let i = this.#first(offset); i < this.#starts.length && this.#starts[i]! < end; i++) {
      const start = Math.max(offset, this.#starts[i]!);
      const stop = Math.min(end, this.#ends[i]!);
      if (at < start) gaps.push({ from: at, to: start });
      const bytes = this.#bytes[i];
      if (bytes === undefined) target.fill(0, start - offset, stop - offset);
      else target.set(bytes.subarray(start - this.#starts[i]!, stop - this.#starts[i]!), start - offset);
      at = stop;
    }
    if (at < end) gaps.push({ from: at, to: end });
    return gaps;
  }
}

interface Stretch {
  readonly start: number;
  end: number;
  readonly bytes: Uint8Array | undefined;
}

/**
 * Writes that may cover each other as stretches that don't; the last write wins. The newest is laid first, each older one into what
 * is still free, where a free place is found by union-find: so a log of many writes to one place costs no more than others.
 */
function flatten(writes: readonly LogWrite[]): Stretch[] {
  const edges = Float64Array.from(writes.flatMap(({ position, length }) => [position, position + length])).sort();
  const points = edges.filter((edge, i) => i === 0 || edge !== edges[i - 1]);
  const owner = new Int32Array(points.length).fill(-1);
  const next = Int32Array.from(points, (_, i) => i);
  const free = (slot: number): number => {
    let root = slot;
    while (next[root] !== root) root = next[root]!;
    for (let at = slot; at !== root; ) {
      const after = next[at]!;
      next[at] = root;
      at = after;
    }
    return root;
  };
  for (let i = writes.length - 1; i >= 0; i--) {
    const { position, length } = writes[i]!;
    const stop = indexOf(points, position + length);
    for (let slot = free(indexOf(points, position)); slot < stop; slot = free(slot)) {
      owner[slot] = i;
      next[slot] = slot + 1;
    }
  }
  const stretches: Stretch[] = [];
  for (let slot = 0; slot + 1 < points.length; slot++) {
    if (owner[slot] === -1) continue;
    const { bytes, position } = writes[owner[slot]!]!;
    const start = points[slot]!;
    const end = points[slot + 1]!;
    const last = stretches.at(-1);
    if (bytes === undefined && last !== undefined && last.bytes === undefined && last.end === start) last.end = end;
    // A data write is one sector at a multiple of its size, so nothing can have cut it.
    else stretches.push({ start, end, bytes: bytes?.subarray(start - position, start - position + LOG_SECTOR) });
  }
  return stretches;
}

/** Index of `value`, which is among the ascending `points`. */
function indexOf(points: Float64Array, value: number): number {
  let low = 0;
  let high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (points[middle]! >= value) high = middle;
    else low = middle + 1;
  }
  return low;
}

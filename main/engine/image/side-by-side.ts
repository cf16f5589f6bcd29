/** The files or extents that a disk consists of, side by side: which of them hold a range of it. */

/** The part of a range that lies in one of them. */
export interface Share<Part> {
  readonly part: Part;
  /** First byte of the part on the disk. */
  readonly base: number;
  /** What it holds of the range, in bytes of the disk. */
  readonly start: number;
  readonly end: number;
}

export class SideBySide<Part extends { readonly size: number }> {
  readonly parts: readonly Part[];
  /** Bytes of the disk. */
  readonly size: number;
  /** First byte of each part on the disk. */
  readonly #starts: readonly number[];

  /** @param parts in the order of the disk, at least one. */
  constructor(parts: readonly Part[]) {
    const starts: number[] = [];
    let end = 0;
    for (const part of parts) {
      starts.push(end);
      end += part.size;
    }
    this.parts = parts;
    this.size = end;
    this.#starts = starts;
  }

  /** The shares of `[offset, offset + length)`, which lies inside the disk, in order. */
  *shares(offset: number, length: number): Generator<Share<Part>, void> {
    const end = offset + length;
    for (let start = offset, index = this.#partAt(offset); start < end; index++) {
      const part = this.parts[index]!;
      const base = this.#starts[index]!;
      const stop = Math.min(end, base + part.size);
      if (stop > start) yield { part, base, start, end: stop };
      start = stop;
    }
  }

  /** The number of the last part that begins at or before the byte at `offset`. */
  #partAt(offset: number): number {
    let low = 0;
    let high = this.#starts.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.#starts[middle]! <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/**
 * Which units of a buffer are not zeros. A look at a few words tells nearly every unit with data; only what they do not tell is
 * compared whole.
 */
export class ZeroFinder {
  readonly #zeros: Buffer;
  readonly #unit: number;

  constructor(unit: number) {
    this.#unit = unit;
    this.#zeros = Buffer.alloc(unit);
  }

  /**
   * Calls `found` with each run of neighbouring units that are not zeros: number of the first, and how many. `length` need not be
   * a whole number of units.
   */
  runs(bytes: Buffer, length: number, found: (first: number, count: number) => void): void {
    const unit = this.#unit;
    let first = -1;
    const units = Math.ceil(length / unit);
    for (let index = 0; index < units; index++) {
      const at = index * unit;
      if (this.#isZero(bytes, at, Math.min(length, at + unit))) {
        if (first >= 0) found(first, index - first);
        first = -1;
      } else if (first < 0) {
        first = index;
      }
    }
    if (first >= 0) found(first, units - first);
  }

  #isZero(bytes: Buffer, start: number, end: number): boolean {
    const length = end - start;
    const middle = start + (length >>> 1);
    if ((bytes[start]! | bytes[start + 1]! | bytes[middle]! | bytes[end - 1]!) !== 0) return false;
    return bytes.compare(this.#zeros, 0, length, start, end) === 0;
  }
}

/** A bitmap of what is in use, for checks that look for what is used twice. */

/** Bits that one pass of a check holds: 32 MiB of them. A longer row is gone over in several passes. */
export const BITMAP_BITS = 32 * 1024 * 1024 * 8;

/** Bits `start` to `start + bits` of a longer row; marks outside are not its business. */
export class Bitmap {
  readonly #start: number;
  readonly #bits: number;
  readonly #bytes: Uint8Array;
  /** Bits that are not marked. */
  free: number;

  constructor(start: number, bits: number) {
    this.#start = start;
    this.#bits = Math.max(0, bits);
    this.free = this.#bits;
    this.#bytes = new Uint8Array(Math.ceil(this.#bits / 8));
  }

  /** True when the bit is marked. */
  has(bit: number): boolean {
    const at = bit - this.#start;
    return at >= 0 && at < this.#bits && (this.#bytes[at >>> 3]! & (1 << (at & 7))) !== 0;
  }

  /** Marks `count` bits from `first`. False when one of them was marked already. */
  mark(first: number, count: number): boolean {
    const from = Math.max(first - this.#start, 0);
    const to = Math.min(first + count - this.#start, this.#bits);
    let fresh = true;
    for (let bit = from; bit < to; bit++) {
      const at = bit >>> 3;
      const mask = 1 << (bit & 7);
      if (this.#bytes[at]! & mask) {
        fresh = false;
      } else {
        this.#bytes[at]! |= mask;
        this.free--;
      }
    }
    return fresh;
  }
}

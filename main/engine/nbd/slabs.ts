/**
 * Output buffers, used again and again. A fresh large buffer costs a page fault for every 4 KiB of it, which is more than the
 * read that fills it; a slab's pages stay. The pool is a stack, so that the slab used next is the one still in the cache.
 */

/** Largest read that is answered from one slab, and so whole or not at all. */
export const SLAB_DATA = 2 << 20;
/** Room for the heads around that data: one every 4 KiB at worst. */
const SLAB_HEADS = 64 << 10;
export const SLAB_BYTES = SLAB_DATA + SLAB_HEADS;

export interface Slab {
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

export class SlabPool {
  readonly #free: Slab[] = [];
  readonly #keep: number;

  /** @param keep slabs that are kept when nobody uses them; more are given back to the system. */
  constructor(keep = 8) {
    this.#keep = keep;
  }

  take(): Slab {
    const slab = this.#free.pop();
    if (slab !== undefined) return slab;
    // Slow: not from Node's shared pool, and not cleared, so that untouched pages cost nothing.
    const { buffer } = Buffer.allocUnsafeSlow(SLAB_BYTES);
    return { bytes: new Uint8Array(buffer), view: new DataView(buffer) };
  }

  give(slab: Slab): void {
    if (this.#free.length < this.#keep) this.#free.push(slab);
  }
}

/**
 * How often each cluster of a file is used, and by what metadata: what a check computes to compare it with what is stored. Memory
 * is taken in pieces where something is used, up to a ceiling, whatever the size of the file.
 */

/** Clusters in a piece: 2 GiB of a file in clusters of 64 KiB. */
const PIECE = 32_768;
/** Pieces held: 96 MiB. */
const MAX_PIECES = 1024;
/** Counts end here; one that has reached it may be higher. */
export const MANY = 0xffff;

interface Piece {
  readonly counts: Uint16Array;
  /** Number of the metadata's kind in `kinds`; 0 for none. */
  readonly kinds: Uint8Array;
}

export class ClusterCounts {
  readonly #pieces = new Map<number, Piece>();
  readonly #kinds: string[] = [''];
  /** First cluster that was not counted, for lack of memory; infinite while all are. */
  uncounted = Number.POSITIVE_INFINITY;

  /** Counts `times` uses of a cluster. */
  add(cluster: number, times: number): void {
    const piece = this.#pieceOf(cluster);
    if (piece === undefined) return;
    const at = cluster % PIECE;
    piece.counts[at] = Math.min(MANY, piece.counts[at]! + times);
  }

  count(cluster: number): number {
    return this.#pieces.get(Math.floor(cluster / PIECE))?.counts[cluster % PIECE] ?? 0;
  }

  /** Says that metadata of this kind is in the cluster. Returns the kind that was there before, if any. */
  mark(cluster: number, kind: string): string | undefined {
    const piece = this.#pieceOf(cluster);
    if (piece === undefined) return undefined;
    const at = cluster % PIECE;
    const before = this.#kinds[piece.kinds[at]!];
    let number = this.#kinds.indexOf(kind);
    if (number < 0) number = this.#kinds.push(kind) - 1;
    piece.kinds[at] = number;
    return before || undefined;
  }

  /** The kind of metadata in the cluster, if any. */
  kind(cluster: number): string | undefined {
    const piece = this.#pieces.get(Math.floor(cluster / PIECE));
    return (piece === undefined ? undefined : this.#kinds[piece.kinds[cluster % PIECE]!]) || undefined;
  }

  /** Clusters from `first` on, below `end`, that are used at all. */
  *used(first: number, end: number): Generator<number> {
    const last = Math.floor((end - 1) / PIECE);
    const from = Math.floor(first / PIECE);
    // Whichever is fewer: the pieces of the range, or those there are.
    const numbers =
      last - from < this.#pieces.size
        ? Array.from({ length: Math.max(0, last - from + 1) }, (_, i) => from + i)
        : [...this.#pieces.keys()].filter((number) => number >= from && number <= last).sort((a, b) => a - b);
    for (const number of numbers) {
      const counts = this.#pieces.get(number)?.counts;
      if (counts === undefined) continue;
      const stop = Math.min(PIECE, end - number * PIECE);
      for (let at = Math.max(0, first - number * PIECE); at < stop; at++) {
        if (counts[at] !== 0) yield number * PIECE + at;
      }
    }
  }

  #pieceOf(cluster: number): Piece | undefined {
    const number = Math.floor(cluster / PIECE);
    let piece = this.#pieces.get(number);
    if (piece !== undefined) return piece;
    if (this.#pieces.size >= MAX_PIECES) {
      this.uncounted = Math.min(this.uncounted, number * PIECE);
      return undefined;
    }
    piece = { counts: new Uint16Array(PIECE), kinds: new Uint8Array(PIECE) };
    this.#pieces.set(number, piece);
    return piece;
  }
}

/** Compressed clusters that a check has unpacked: a table of a million entries that lead to one of them costs unpacking it once. */

/** Clusters remembered. A file with more of them is larger than what unpacking one of them again costs. */
const MOST = 65_536;

export class Unpacked {
  /** Position -> bytes that an entry says it has at most. */
  readonly #stored = new Map<number, number>();

  /** Whether the cluster at `position` was here before, with these bytes. Remembers it. */
  before(position: number, stored: number): boolean {
    if (this.#stored.get(position) === stored) return true;
    if (this.#stored.size >= MOST) this.#stored.clear();
    this.#stored.set(position, stored);
    return false;
  }
}

/**
 * Which worker the next client goes to: the one with the fewest. The workers of a server share their numbers of clients; whoever's
 * number changes looks whether the public socket should point to another worker, and points it there.
 */
import { pointSocket, type SocketPlace } from './listen-socket.ts';

/** Bytes of the shared numbers: one per worker, then the worker pointed to, then the lock. */
export function loadBytes(workers: number): number {
  return (workers + 2) * 4;
}

export class Balance {
  readonly #load: Int32Array;
  readonly #workers: number;
  readonly #self: number;
  readonly #place: SocketPlace | undefined;
  readonly #failed: (error: unknown) => void;
  #off = false;

  /**
   * @param place undefined where the system spreads clients itself (TCP).
   * @param failed called once when the socket can't be pointed elsewhere: clients are served as before, by one worker.
   */
  constructor(load: SharedArrayBuffer, self: number, place: SocketPlace | undefined, failed: (error: unknown) => void) {
    this.#load = new Int32Array(load);
    this.#workers = this.#load.length - 2;
    this.#self = self;
    this.#place = place;
    this.#failed = failed;
  }

  /** This worker has one client more (1) or less (-1). */
  change(by: 1 | -1): void {
    Atomics.add(this.#load, this.#self, by);
    if (this.#place === undefined || this.#workers === 1 || this.#off) return;
    const lock = this.#workers + 1;
    // Whoever holds the lock is doing this very thing; what it does not see yet, the next change sets right.
    if (Atomics.compareExchange(this.#load, lock, 0, 1) !== 0) return;
    try {
      this.#point(this.#place);
    } catch (error) {
      this.#off = true;
      this.#failed(error);
    } finally {
      Atomics.store(this.#load, lock, 0);
    }
  }

  #point(place: SocketPlace): void {
    const current = this.#workers;
    const now = Atomics.load(this.#load, current);
    let least = now;
    for (let i = 0; i < this.#workers; i++) {
      if (Atomics.load(this.#load, i) < Atomics.load(this.#load, least)) least = i;
    }
    if (least === now) return;
    pointSocket(place, this.#workers, least);
    Atomics.store(this.#load, current, least);
  }
}

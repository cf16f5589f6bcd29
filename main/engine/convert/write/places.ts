/**
 * Where units go in a file that takes them as they come. Places are handed out to all workers from one counter, some at a time, so
 * that what follows on the disk mostly follows in the file; a worker keeps what it did not need for its next stretch.
 */
import type { Control } from '../messages.ts';
import type { Gap } from './qcow2.ts';

/** Places taken from the counter at a time: 4 MiB of 64 KiB clusters. */
const BATCH = 64;

export interface Places {
  readonly start: number;
  readonly count: number;
  /** An interrupted run may have left bytes there; otherwise it reads as zeros. */
  readonly stale: boolean;
}

export class PlaceTaker {
  readonly #control: Control;
  readonly #free: { start: number; count: number; stale: boolean }[];
  /** Places there are at all, and the error for more. */
  readonly #limit: number;
  readonly #tooMany: () => Error;
  /** Places that the present stretch can still need, at most. */
  #expected = 0;

  constructor(control: Control, gaps: readonly Gap[], limit: number, tooMany: () => Error) {
    this.#control = control;
    this.#free = gaps.map(({ start, count }) => ({ start, count, stale: true }));
    this.#limit = limit;
    this.#tooMany = tooMany;
  }

  /** Says how many places will be asked for, at most. */
  expect(count: number): void {
    this.#expected = count;
  }

  /** `count` places, in as few pieces as can be. @throws what `tooMany` makes when the format can't reach as many. */
  take(count: number): Places[] {
    const pieces: Places[] = [];
    for (let left = count; left > 0; ) {
      if (this.#free.length === 0) {
        const more = Math.max(left, Math.min(BATCH, this.#expected));
        const start = this.#control.take(more);
        if (start < 0 || start + more > this.#limit) throw this.#tooMany();
        this.#free.push({ start, count: more, stale: false });
      }
      const first = this.#free[0]!;
      const taken = Math.min(left, first.count);
      pieces.push({ start: first.start, count: taken, stale: first.stale });
      first.start += taken;
      first.count -= taken;
      if (first.count === 0) this.#free.shift();
      left -= taken;
    }
    this.#expected = Math.max(0, this.#expected - count);
    return pieces;
  }

  /** Takes back a place that was not used. */
  giveBack({ start, stale }: Places): void {
    this.#free.unshift({ start, count: 1, stale });
  }

  /** Places that were taken and not used. */
  get left(): Gap[] {
    return this.#free.map(({ start, count }) => ({ start, count }));
  }
}

/** Collects places in order, joining neighbours: start, count, start, count... */
export function addPlaces(list: number[], start: number, count: number): void {
  const last = list.length - 2;
  if (last >= 0 && list[last]! + list[last + 1]! === start) list[last + 1]! += count;
  else list.push(start, count);
}

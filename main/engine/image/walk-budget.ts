/**
 * What a walk over all tables of an image may cost. In an honest image every table and every block has a place of its own in the file, so
 * that a walk reads no more than the file. A hostile one can have a million entries lead to one table, and the walk would go through that
 * a million times: it is ended when it has done more than any file of this size can ask for.
 */
import { CorruptError } from '../errors.ts';
import type { Io } from '../storage/io.ts';

/** Readers fetch some things twice, and more than they need. */
const TIMES = 4;
/** Added for small files. */
const SPARE = 64 << 20;

export class WalkBudget {
  readonly #source: string;
  readonly #size: number;
  readonly #runWeight: number;
  #left: number;

  /**
   * @param source what errors call the image. @param size bytes of its files together. @param runWeight bytes of the file that there are
   * for each run at least, rounded up: of tables (a subcluster of QCOW2 has half a byte), or of the block it lies in.
   */
  constructor(source: string, size: number, runWeight = 2) {
    this.#source = source;
    this.#size = size;
    this.#runWeight = runWeight;
    this.#left = TIMES * size + SPARE;
  }

  /** Counts what a step of the walk reads and how many runs it gives. @throws CorruptError when it is too much. */
  *spend<T>(io: Io<T>, runs: (result: T) => number): Io<T> {
    let step = io.next();
    while (!step.done) {
      this.#take(step.value.length);
      let bytes: Uint8Array;
      try {
        bytes = yield step.value;
      } catch (error) {
        step = io.throw(error);
        continue;
      }
      step = io.next(bytes);
    }
    this.#take(this.#runWeight * runs(step.value));
    return step.value;
  }

  #take(cost: number): void {
    this.#left -= cost;
    if (this.#left >= 0) return;
    throw new CorruptError('Tables', {
      source: this.#source,
      expected: `a place for each table and block in the ${this.#size} bytes of the file`,
      found: 'many entries that lead to the same places',
    });
  }
}

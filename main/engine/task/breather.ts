/**
 * Reads that are answered on this thread settle at once, so a long loop of them never lets the event loop run: no signal, no
 * cancelling, no progress would get through. Such a loop takes a breath now and then.
 */

/** Longest time that a loop keeps the event loop waiting, in seconds. */
const INTERVAL = 0.05;

export class Breather {
  #last = process.uptime();

  /** True when it is time to `breathe`. Costs a look at the clock. */
  get due(): boolean {
    return process.uptime() - this.#last >= INTERVAL;
  }

  /** Lets everything run that waits. */
  async breathe(): Promise<void> {
    await new Promise<void>((resume) => setImmediate(resume));
    this.#last = process.uptime();
  }
}

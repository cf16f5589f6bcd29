/**
 * Every operation that may take over a second is a Task: it has a title a person understands, progress in bytes and items, a
 * forecast, and can be cancelled. Shells watch tasks; they never own them, so a window that closes or reloads loses nothing.
 */
import { CancelledError, NotFoundError, toWireError, type WireError } from '../errors.ts';
import { changeStream } from './change-stream.ts';

export interface Progress {
  bytesDone: number;
  bytesTotal?: number;
  itemsDone: number;
  itemsTotal?: number;
  /** What it is at: a path, a layer. */
  current?: string;
}

export type TaskState = 'running' | 'done' | 'failed' | 'cancelled';

/** A task at one moment, as plain data. */
export interface Snapshot<Kind extends string, Result> {
  readonly id: string;
  readonly kind: Kind;
  readonly title: string;
  readonly state: TaskState;
  readonly started: string;
  readonly ended?: string;
  readonly progress: Readonly<Progress>;
  readonly bytesPerSecond: number;
  readonly secondsLeft?: number;
  readonly error?: WireError;
  readonly result?: Result;
}

/** Least time between two reports of one task to one watcher, in milliseconds. */
const REPORT_INTERVAL = 100;
/** The rate is that of the last seconds, so that a forecast follows what is happening now. */
const RATE_WINDOW = 5000;
/** Ended tasks kept for shells to look at. */
const KEEP_ENDED = 100;

/** Progress over the last seconds -> rate and time left. Pure but for the clock it is given. */
export class Rate {
  readonly #samples: { at: number; bytes: number; items: number }[] = [];

  add(at: number, bytes: number, items: number): void {
    const last = this.#samples.at(-1);
    if (last !== undefined && at - last.at < REPORT_INTERVAL) return;
    this.#samples.push({ at, bytes, items });
    while (this.#samples.length > 2 && at - this.#samples[0]!.at > RATE_WINDOW) this.#samples.shift();
  }

  #per(second: (sample: { bytes: number; items: number }) => number): number {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.at === first.at) return 0;
    return ((second(last) - second(first)) * 1000) / (last.at - first.at);
  }

  get bytesPerSecond(): number {
    return this.#per((s) => s.bytes);
  }

  /** Seconds left by bytes where their total is known, else by items; undefined before there is a basis. */
  secondsLeft(progress: Progress): number | undefined {
    const left = (total: number | undefined, done: number, rate: number): number | undefined =>
      total === undefined || total === 0 || rate <= 0 ? undefined : Math.max(0, (total - done) / rate);
    return (
      left(progress.bytesTotal, progress.bytesDone, this.bytesPerSecond) ??
      left(
        progress.itemsTotal,
        progress.itemsDone,
        this.#per((s) => s.items),
      )
    );
  }
}

/** What a task's body is given. */
export interface TaskContext {
  readonly signal: AbortSignal;
  /** Live numbers: set them, then call `report`. */
  readonly progress: Progress;
  /** Tells watchers, at most ten times a second; call it as often as you like. */
  report(): void;
}

class Task<Kind extends string, Result> implements TaskContext {
  readonly id = crypto.randomUUID();
  readonly kind: Kind;
  readonly title: string;
  readonly progress: Progress = { bytesDone: 0, itemsDone: 0 };
  readonly #controller = new AbortController();
  readonly #rate = new Rate();
  readonly #started = Date.now();
  /** Rates and report intervals follow a clock that nobody sets; `started` and `ended` are for people. */
  readonly #begun = performance.now();
  readonly #changed: () => void;
  #ended: number | undefined;
  #lasted = 0;
  #state: TaskState = 'running';
  #error: WireError | undefined;
  #result: Result | undefined;
  #lastReport = Number.NEGATIVE_INFINITY;

  constructor(kind: Kind, title: string, changed: () => void) {
    this.kind = kind;
    this.title = title;
    this.#changed = changed;
    this.#rate.add(this.#begun, 0, 0);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }
  get ended(): boolean {
    return this.#state !== 'running';
  }

  report(): void {
    const now = performance.now();
    if (now - this.#lastReport < REPORT_INTERVAL) return;
    this.#lastReport = now;
    this.#rate.add(now, this.progress.bytesDone, this.progress.itemsDone);
    this.#changed();
  }

  cancel(): void {
    this.#controller.abort();
  }

  async run(body: (context: TaskContext) => Promise<Result>): Promise<void> {
    try {
      this.#result = await body(this);
      this.#state = 'done';
    } catch (error) {
      this.#state = error instanceof CancelledError ? 'cancelled' : 'failed';
      this.#error = toWireError(error);
    }
    this.#lasted = performance.now() - this.#begun;
    this.#ended = Date.now();
    this.#changed();
  }

  #average(): number {
    return this.#lasted > 0 ? (this.progress.bytesDone * 1000) / this.#lasted : 0;
  }

  snapshot(): Snapshot<Kind, Result> {
    const secondsLeft = this.ended ? undefined : this.#rate.secondsLeft(this.progress);
    return {
      id: this.id,
      kind: this.kind,
      title: this.title,
      state: this.#state,
      started: new Date(this.#started).toISOString(),
      ...(this.#ended === undefined ? {} : { ended: new Date(this.#ended).toISOString() }),
      progress: { ...this.progress },
      // An ended task says its average, a running one what it does now.
      bytesPerSecond: this.ended ? this.#average() : this.#rate.bytesPerSecond,
      ...(secondsLeft === undefined ? {} : { secondsLeft }),
      ...(this.#error === undefined ? {} : { error: this.#error }),
      ...(this.#result === undefined ? {} : { result: this.#result }),
    };
  }
}

/** All tasks of an engine. */
export class TaskManager<Kind extends string, Result> {
  readonly #tasks = new Map<string, Task<Kind, Result>>();
  readonly #watchers = new Set<(id: string) => void>();
  /** One for each running task, settled with its end. */
  readonly #ends = new Set<Promise<void>>();
  #closed = false;

  #notify(id: string): void {
    for (const watcher of this.#watchers) watcher(id);
  }

  /** Starts `body` and returns the task's first snapshot. `body` throws CancelledError when `signal` is aborted. */
  start(kind: Kind, title: string, body: (context: TaskContext) => Promise<Result>): Snapshot<Kind, Result> {
    const task: Task<Kind, Result> = new Task(kind, title, () => this.#notify(task.id));
    this.#tasks.set(task.id, task);
    this.#forgetOldest();
    // Asked for before the end, and only prepared now: it ends at its first step, with what it holds let go of as always.
    if (this.#closed) task.cancel();
    // `run` turns every failure into the task's state: nothing is left for this promise to say.
    const end = task.run(body).then(() => void this.#ends.delete(end));
    this.#ends.add(end);
    // Whoever watches hears of it now, not at its first step.
    this.#notify(task.id);
    return task.snapshot();
  }

  #forgetOldest(): void {
    let ended = [...this.#tasks.values()].filter((task) => task.ended).length;
    for (const task of this.#tasks.values()) {
      if (ended <= KEEP_ENDED) break;
      if (!task.ended) continue;
      this.#tasks.delete(task.id);
      ended--;
    }
  }

  #get(id: string): Task<Kind, Result> {
    const task = this.#tasks.get(id);
    if (task === undefined) throw new NotFoundError(`Task ${id}`);
    return task;
  }

  /** Asks a task to end; it does at its next step. */
  cancel(id: string): void {
    this.#get(id).cancel();
  }

  /** Forgets an ended task. */
  dismiss(id: string): void {
    if (this.#get(id).ended) this.#tasks.delete(id);
  }

  get running(): number {
    return [...this.#tasks.values()].filter((task) => !task.ended).length;
  }

  /**
   * Asks every task to end, and waits until they have: what they were writing is tidied away by then. One that is started after
   * this is cancelled from the start.
   */
  async cancelAll(): Promise<void> {
    this.#closed = true;
    for (const task of this.#tasks.values()) task.cancel();
    await Promise.all(this.#ends);
  }

  /** Every task now, then each change; never ends by itself. */
  watchAll(): AsyncIterable<Snapshot<Kind, Result>> {
    return this.#watch(new Set(), undefined);
  }

  /** One task's changes; the last item is its end. @throws NotFoundError. */
  watch(id: string): AsyncIterable<Snapshot<Kind, Result>> {
    this.#get(id);
    return this.#watch(new Set([id]), id);
  }

  #watch(dirty: Set<string>, only: string | undefined): AsyncIterable<Snapshot<Kind, Result>> {
    let over = false;
    return changeStream(
      (wake) => {
        const watcher = (id: string): void => {
          if (only !== undefined && id !== only) return;
          dirty.add(id);
          wake();
        };
        // Only now is the watch on: what started since it was asked for is among these.
        if (only === undefined) for (const id of this.#tasks.keys()) dirty.add(id);
        this.#watchers.add(watcher);
        return () => this.#watchers.delete(watcher);
      },
      () => {
        if (over) return 'end';
        for (const id of dirty) {
          dirty.delete(id);
          const task = this.#tasks.get(id);
          if (task === undefined) continue;
          over = only !== undefined && task.ended;
          return { item: task.snapshot() };
        }
        return only !== undefined && !this.#tasks.has(only) ? 'end' : 'wait';
      },
    );
  }
}

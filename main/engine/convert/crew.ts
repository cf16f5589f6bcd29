/**
 * Disk workers that work at one job together: started, given jobs, stopped, ended. The event loop of whoever employs them only
 * passes messages.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { CancelledError, ChainliftError, type ErrorKind, type WireError } from '../errors.ts';
import { workerProgram } from '../task/worker-program.ts';
import type {
  Control,
  DiskSource,
  FromWorker,
  Job,
  JobResults,
  OpenedDisk,
  StretchRecord,
  ToWorker,
  WorkerSetup,
} from './messages.ts';

/** Workers at most: beyond it the storage is what is waited for. */
const MAX_WORKERS = 4;
/** Workers that do not stop by themselves (a read that hangs in the kernel) are abandoned after this time. */
const STOP_MS = 2000;
/** How often progress is looked at, in milliseconds. */
const PROGRESS_MS = 100;

export function usualWorkers(): number {
  return Math.min(MAX_WORKERS, availableParallelism());
}

/** An error that happened in a worker, with the kind and details it had there. */
class WorkerError extends ChainliftError {
  readonly kind: ErrorKind;
  constructor(kind: ErrorKind, wire: WireError) {
    super(wire.message, wire.details);
    this.kind = kind;
  }
}

function fromWire(wire: WireError): Error {
  return wire.kind === 'internal' ? new Error(wire.message) : new WorkerError(wire.kind, wire);
}

export interface RunOptions {
  readonly what: string;
  readonly signal: AbortSignal;
  readonly control: Control;
  readonly onStretch?: (record: StretchRecord) => void;
  readonly onProgress?: (bytes: number) => void;
}

interface Member {
  readonly thread: Worker;
  /** What it is waited for: its opening, then the end of its job. */
  settle: { resolve(message: FromWorker): void; reject(error: Error): void } | undefined;
  onStretch: ((record: StretchRecord) => void) | undefined;
  dead: Error | undefined;
}

export class Crew {
  readonly #members: Member[] = [];

  /**
   * Starts a worker for each source; one without a source reads no disk. @throws what opening the disk throws, CancelledError; then
   * all of them are ended.
   */
  static async start(
    sources: readonly (DiskSource | undefined)[],
    signal: AbortSignal,
    what: string,
  ): Promise<{ crew: Crew; disk: OpenedDisk | undefined }> {
    const url = await workerProgram('disk-worker', 'convert/disk-worker.ts');
    const crew = new Crew();
    try {
      const opening = sources.map((source) => crew.#spawn(url, source));
      const opened = await crew.#guarded(opening, signal, what, () => undefined);
      const disks = opened.flatMap((message) =>
        message.type === 'opened' && message.disk !== undefined ? [message.disk] : [],
      );
      return { crew, disk: disks[0] };
    } catch (error) {
      await crew.close();
      throw error;
    }
  }

  get size(): number {
    return this.#members.length;
  }

  #spawn(url: URL, source: DiskSource | undefined): Promise<FromWorker> {
    const setup: WorkerSetup = { source };
    const thread = new Worker(url, {
      name: 'disk',
      workerData: setup,
      // A map cache and small change; a worker that wants more is stopped before it takes the engine with it.
      resourceLimits: { maxOldGenerationSizeMb: 1024 },
    });
    const member: Member = { thread, settle: undefined, onStretch: undefined, dead: undefined };
    this.#members.push(member);
    thread.on('message', (message: FromWorker) => {
      if (message.type === 'stretch') {
        member.onStretch?.(message.record);
        return;
      }
      const { settle } = member;
      member.settle = undefined;
      if (message.type === 'failed') settle?.reject(fromWire(message.error));
      else settle?.resolve(message);
    });
    const died = (error: Error): void => {
      member.dead ??= error;
      member.settle?.reject(error);
      member.settle = undefined;
    };
    thread.on('error', died);
    thread.on('exit', (code) => died(new Error(`A disk worker ended with code ${code}`)));
    return waitFor(member);
  }

  /**
   * Gives a job to each worker and waits until all have ended. When one fails, or `signal` is aborted, the others are told to stop.
   * @returns a result for each. @throws the first failure, CancelledError.
   */
  async run<K extends Job['kind']>(
    jobs: readonly Extract<Job, { kind: K }>[],
    options: RunOptions,
  ): Promise<JobResults[K][]> {
    const { control, signal, what } = options;
    const timer = setInterval(() => options.onProgress?.(control.done), PROGRESS_MS);
    try {
      const running = jobs.map((job, index) => {
        const member = this.#members[index]!;
        member.onStretch = options.onStretch;
        const message: ToWorker = { job, control: control.buffer, index };
        const end = waitFor(member);
        member.thread.postMessage(message);
        return end;
      });
      const ends = await this.#guarded(running, signal, what, () => control.cancel());
      options.onProgress?.(control.done);
      return ends.map((end) => {
        if (end.type !== 'done') throw new CancelledError(what);
        return end.result as JobResults[K];
      });
    } finally {
      clearInterval(timer);
    }
  }

  /** Waits for all; tells them to stop when one fails or the signal is aborted, and then does not wait for ever. */
  async #guarded<T>(all: readonly Promise<T>[], signal: AbortSignal, what: string, stop: () => void): Promise<T[]> {
    let failure: { error: unknown } | undefined;
    let abandon: NodeJS.Timeout | undefined;
    const abandoned = new Promise<never>((_, reject) => {
      const halt = (): void => {
        stop();
        abandon ??= setTimeout(() => reject(failure?.error ?? new CancelledError(what)), STOP_MS);
      };
      for (const one of all) {
        one.catch((error: unknown) => {
          failure ??= { error };
          halt();
        });
      }
      signal.addEventListener('abort', halt, { once: true });
      if (signal.aborted) halt();
      void Promise.allSettled(all).then(() => signal.removeEventListener('abort', halt));
    });
    try {
      const ends = await Promise.race([Promise.allSettled(all), abandoned]);
      if (failure !== undefined) throw failure.error;
      if (signal.aborted) throw new CancelledError(what);
      return ends.map((end) => (end as PromiseFulfilledResult<T>).value);
    } finally {
      clearTimeout(abandon);
    }
  }

  /** Ends the workers. One that hangs in the kernel is not waited for. */
  async close(): Promise<void> {
    const ended = Promise.all(this.#members.map(({ thread }) => thread.terminate()));
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, STOP_MS);
    });
    await Promise.race([ended, late]);
    clearTimeout(timer);
    for (const { thread } of this.#members) thread.unref();
  }
}

/** The member's next message that ends something. */
function waitFor(member: Member): Promise<FromWorker> {
  const promise = new Promise<FromWorker>((resolve, reject) => {
    if (member.dead !== undefined) reject(member.dead);
    else member.settle = { resolve, reject };
  });
  // Heard by whoever waits for it; a rejection that comes before that is no unhandled one.
  promise.catch(() => undefined);
  return promise;
}

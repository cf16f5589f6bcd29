/** What a crew and its workers say to each other, and the numbers they share. */
import type { WireError } from '../errors.ts';
import type { Plan } from './plan.ts';
import type { Gap } from './write/qcow2.ts';

/** How a worker opens the disk that is read. */
export interface DiskSource {
  /** Real path of the leaf: a file, a member of an archive, or a snapshot inside an image. */
  readonly path: string;
  /** The opened folder, which confines parents. */
  readonly root: string;
  /** Parents that the user pointed at, as `ConfinementOptions.located` has them. */
  readonly located?: ReadonlyMap<string, string>;
  /** Where indexes of compressed archives are kept, as `ConfinementOptions.cacheFolder` has it. */
  readonly cacheFolder?: string;
}

/** What a worker found when it opened the disk. */
export interface OpenedDisk {
  readonly size: number;
  /** Every file of every layer. */
  readonly files: readonly { readonly path: string; readonly size: number }[];
  readonly layers: readonly { readonly granularity: number; readonly virtualSize: number }[];
}

/** One file that is written; opened by each worker. */
export interface TargetFile {
  readonly path: string;
  /** What errors call it. */
  readonly name: string;
}

/** What became of one stretch of the disk: enough to build the tables, or to go on from here another day. */
export interface StretchRecord {
  readonly stretch: number;
  /** Bytes that were not zero and were written. */
  readonly data: number;
  /** Places that its units have: start, count, start, count... */
  readonly placed?: readonly number[];
  /** QCOW2: L2 tables it has entries in: index in the L1 table, place... */
  readonly tables?: readonly number[];
  /** streamOptimized: where its grains begin, and how many bytes they and their tables take. */
  readonly at?: number;
  readonly length?: number;
  /** streamOptimized: grain tables: index in the grain directory, sector... */
  readonly directory?: readonly number[];
}

export type Job =
  /** Finds out what the map says: bytes that must be read, for each stretch (in sectors, into `marks`) and for each layer. */
  | { readonly kind: 'survey'; readonly plan: Plan; readonly marks: SharedArrayBuffer }
  | {
      readonly kind: 'write';
      readonly plan: Plan;
      readonly target: TargetFile;
      /** Stretches that are to be written, ascending: Uint32. */
      readonly list: SharedArrayBuffer;
      /** QCOW2: place of each L2 table plus one: Int32. */
      readonly l1: SharedArrayBuffer | undefined;
      /** Places that an interrupted run handed out, to be used up; what they hold is of no use. */
      readonly gaps: readonly Gap[];
    }
  /** Compares the disk with a written image. */
  | {
      readonly kind: 'compare';
      readonly plan: Plan;
      readonly image: TargetFile & { readonly folder: string; readonly format: string };
    }
  /** Reads the disk from end to end into a ring; the other end hashes what comes. */
  | { readonly kind: 'feed'; readonly ring: SharedArrayBuffer }
  | { readonly kind: 'hash'; readonly ring: SharedArrayBuffer };

export interface JobResults {
  readonly survey: { readonly layers: readonly number[] };
  /** Places that the worker took and did not use. */
  readonly write: { readonly gaps: readonly Gap[] };
  readonly compare: Record<string, never>;
  readonly feed: Record<string, never>;
  readonly hash: { readonly sha256: string; readonly bytes: number };
}

export interface ToWorker {
  readonly job: Job;
  readonly control: SharedArrayBuffer;
  readonly index: number;
}

export type FromWorker =
  | { readonly type: 'opened'; readonly disk: OpenedDisk | undefined }
  | { readonly type: 'stretch'; readonly record: StretchRecord }
  | { readonly type: 'done'; readonly result: JobResults[keyof JobResults] }
  /** It stopped because it was told to. */
  | { readonly type: 'stopped' }
  | { readonly type: 'failed'; readonly error: WireError };

/** A worker's `workerData`. */
export interface WorkerSetup {
  /** Absent for a worker that reads no disk. */
  readonly source: DiskSource | undefined;
}

/** Numbers that the workers of one job share. Integers of 32 bits: */
const CANCEL = 0;
const NEXT = 1;
const PLACES = 2;
const TURN = 3;
/** Floats of 64 bits; progress of a worker lies a cache line from that of the next. */
const POSITION = 4;
const PROGRESS = 16;
const STRIDE = 8;

/** Longest time for which a worker that waits for another does not look whether it is to stop, in milliseconds. */
const LOOK_MS = 50;

export class Control {
  readonly buffer: SharedArrayBuffer;
  readonly #ints: Int32Array;
  readonly #floats: Float64Array;

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#ints = new Int32Array(buffer, 0, 8);
    this.#floats = new Float64Array(buffer);
  }

  static of(workers: number): Control {
    return new Control(new SharedArrayBuffer((PROGRESS + workers * STRIDE) * 8));
  }

  get cancelled(): boolean {
    return Atomics.load(this.#ints, CANCEL) !== 0;
  }
  cancel(): void {
    Atomics.store(this.#ints, CANCEL, 1);
    Atomics.notify(this.#ints, TURN);
  }

  /** The number of the next piece of work. */
  next(): number {
    return Atomics.add(this.#ints, NEXT, 1);
  }

  get places(): number {
    return Atomics.load(this.#ints, PLACES);
  }
  set places(value: number) {
    Atomics.store(this.#ints, PLACES, value);
  }
  /** Hands out `count` places; returns the first. */
  take(count: number): number {
    return Atomics.add(this.#ints, PLACES, count);
  }

  /** Waits until it is the turn of piece number `turn`, whose position this is. False when it is to stop instead. */
  waitForTurn(turn: number): boolean {
    for (;;) {
      if (this.cancelled) return false;
      const now = Atomics.load(this.#ints, TURN);
      if (now === turn) return true;
      Atomics.wait(this.#ints, TURN, now, LOOK_MS);
    }
  }
  /** Where the next piece goes. Its own, from its turn until it passes the turn on. */
  get position(): number {
    return this.#floats[POSITION]!;
  }
  set position(value: number) {
    this.#floats[POSITION] = value;
  }
  passTurn(next: number): void {
    Atomics.store(this.#ints, TURN, next);
    Atomics.notify(this.#ints, TURN);
  }

  /** Adds to the bytes that a worker has dealt with. Each worker has its own number. */
  progress(worker: number, bytes: number): void {
    this.#floats[PROGRESS + worker * STRIDE]! += bytes;
  }
  /** Bytes that all workers have dealt with. */
  get done(): number {
    let sum = 0;
    for (let i = PROGRESS; i < this.#floats.length; i += STRIDE) sum += this.#floats[i]!;
    return sum;
  }
}

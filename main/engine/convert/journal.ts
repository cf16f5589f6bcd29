/**
 * The journal of a conversion, beside its temporary file: first what is converted to what, then a line for each stretch that is
 * done. A line is written after the stretch's bytes have reached the storage, so what a journal says survives a crash of the process and
 * of the machine; each line carries a checksum, and the first that does not fit ends it.
 */
import { readFileSync } from 'node:fs';
import { type FileHandle, readdir } from 'node:fs/promises';
import { crc32c } from '../crc32c.ts';
import { IoError } from '../errors.ts';
import { type SourceIdentity, sameIdentity } from './identity.ts';
import type { StretchRecord } from './messages.ts';
import {
  type Attempt,
  attemptFiles,
  createTemporary,
  dataPart,
  type OutputFiles,
  reopenTemporary,
  temporaryStem,
} from './output.ts';
import type { Plan } from './plan.ts';
import { recordsFit } from './progress.ts';
import { writeError } from './write/put.ts';

/** Changes with everything that makes older journals useless. */
const VERSION = 1;
/** A journal of a disk of a million stretches, each in many pieces, stays below. */
const MAX_BYTES = 1 << 30;

interface Header {
  readonly version: number;
  readonly plan: Plan;
  readonly source: SourceIdentity;
  /** Who writes it. */
  readonly process: ProcessMark;
}

interface ProcessMark {
  readonly pid: number;
  /** When the process began, by the system's count, where it can be told: a number may be given to another process. */
  readonly began: string | undefined;
}

function processMark(pid: number): ProcessMark {
  try {
    // Field 22 of /proc/PID/stat; the name before it may hold anything but ends with the last ")".
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return { pid, began: text.slice(text.lastIndexOf(')') + 2).split(' ')[19] };
  } catch {
    // No /proc here, or no such process.
    return { pid, began: undefined };
  }
}

/** True when another process that wrote a journal is still there: the conversion is not interrupted, but running. */
function isRunning({ pid, began }: ProcessMark): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: it is there, and somebody else's.
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  const now = processMark(pid);
  // What this process writes is in `mine`; the rest it has given up.
  if (pid === process.pid && now.began === began) return false;
  return began === undefined || now.began === began;
}

/** Journals that this process is writing now. */
const mine = new Set<string>();

function lineOf(value: unknown): string {
  const text = JSON.stringify(value);
  return `${crc32c(Buffer.from(text)).toString(16).padStart(8, '0')} ${text}\n`;
}

function parseLine(line: string): unknown {
  const text = line.slice(9);
  if (line[8] !== ' ' || crc32c(Buffer.from(text)).toString(16).padStart(8, '0') !== line.slice(0, 8)) return undefined;
  return JSON.parse(text);
}

/** What is converted to what. */
export interface Made {
  readonly plan: Plan;
  readonly source: SourceIdentity;
}

/** An attempt that was interrupted and can be gone on with. */
export interface Interrupted {
  readonly attempt: Attempt;
  readonly records: readonly StretchRecord[];
}

export interface EarlierAttempts {
  readonly usable: Interrupted | undefined;
  /** Attempts that nobody writes any more and that are of no use. */
  readonly stale: readonly Attempt[];
}

/**
 * The attempts at this destination that are there. Those of a running process are left alone.
 * @param wanted what a usable one must have been made from; undefined when none is wanted.
 */
export async function earlierAttempts(files: OutputFiles, wanted: Made | undefined): Promise<EarlierAttempts> {
  const stem = temporaryStem(files.image);
  let usable: Interrupted | undefined;
  const stale: Attempt[] = [];
  for (const name of await namesIn(files.folder)) {
    if (!name.startsWith(stem) || !/^[\w-]{12}\.journal$/.test(name.slice(stem.length))) continue;
    const attempt = attemptFiles(files, name.slice(stem.length, -'.journal'.length));
    if (mine.has(attempt.journal)) continue;
    const found = await readJournal(attempt.journal);
    if (found !== undefined && isRunning(found.header.process)) continue;
    if (found === undefined || wanted === undefined || !(await fits(attempt, found, wanted))) {
      stale.push(attempt);
    } else if (usable === undefined || usable.records.length < found.records.length) {
      if (usable !== undefined) stale.push(usable.attempt);
      usable = { attempt, records: found.records };
    } else {
      stale.push(attempt);
    }
  }
  return { usable, stale };
}

async function fits(attempt: Attempt, { header, records }: Found, { plan, source }: Made): Promise<boolean> {
  if (records.length === 0 || JSON.stringify(header.plan) !== JSON.stringify(plan)) return false;
  if (!sameIdentity(header.source, source) || !recordsFit(plan, records)) return false;
  const part = await reopenTemporary(dataPart(attempt));
  await part?.close();
  return part !== undefined;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    throw new IoError(`The destination's folder ${folder} cannot be listed`, { destination: folder }, error);
  }
}

interface Found {
  readonly header: Header;
  readonly records: readonly StretchRecord[];
}

/** Header and stretches, each stretch once; undefined for what is no journal of this version. */
async function readJournal(path: string): Promise<Found | undefined> {
  const handle = await reopenTemporary(path);
  if (handle === undefined) return undefined;
  let text: string;
  try {
    if ((await handle.stat()).size > MAX_BYTES) return undefined;
    text = await handle.readFile('utf8');
  } catch (error) {
    throw new IoError(`${path} cannot be read`, { destination: path }, error);
  } finally {
    await handle.close();
  }
  let header: Header | undefined;
  const records = new Map<number, StretchRecord>();
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf('\n', at);
    // A line without an end was being written.
    if (end < 0) break;
    const value = parseLine(text.slice(at, end));
    at = end + 1;
    if (value === undefined) break;
    if (header === undefined) {
      if (!isHeader(value)) return undefined;
      header = value;
    } else {
      const record = value as StretchRecord;
      records.set(record?.stretch, record);
    }
  }
  return header === undefined ? undefined : { header, records: [...records.values()] };
}

function isHeader(value: unknown): value is Header {
  if (typeof value !== 'object' || value === null) return false;
  const { version, process: writer } = value as Partial<Header>;
  return version === VERSION && typeof writer === 'object' && writer !== null && typeof writer.pid === 'number';
}

/** Written while a conversion runs. */
export class Journal {
  readonly #path: string;
  readonly #handle: FileHandle;
  /** Makes what was written so far last. */
  readonly #sync: () => Promise<void>;
  #pending: StretchRecord[] = [];
  #flushing: Promise<void> | undefined;
  #last = performance.now();
  /** Stretches that an interruption leaves. */
  noted: number;
  /** What writing failed with; nothing is written after that. */
  failure: unknown;

  private constructor(path: string, handle: FileHandle, noted: number, sync: () => Promise<void>) {
    this.#path = path;
    this.#handle = handle;
    this.noted = noted;
    this.#sync = sync;
  }

  /**
   * A new journal, with what an interrupted one had. It is there before the file it is about, so that nothing is left that no journal
   * knows of. @param sync makes all that was written to that file last. @throws IoError.
   */
  static async create(
    path: string,
    { plan, source }: Made,
    records: readonly StretchRecord[],
    sync: () => Promise<void>,
  ): Promise<Journal> {
    const handle = await createTemporary(path);
    mine.add(path);
    const journal = new Journal(path, handle, records.length, sync);
    const header: Header = { version: VERSION, plan, source, process: processMark(process.pid) };
    await journal.#append(lineOf(header) + records.map(lineOf).join(''));
    return journal;
  }

  async #append(text: string): Promise<void> {
    try {
      await this.#handle.appendFile(text);
      await this.#handle.datasync();
    } catch (error) {
      throw writeError(this.#path, error);
    }
  }

  add(record: StretchRecord): void {
    this.#pending.push(record);
  }

  /**
   * Begins to write down what is done, unless that was done less than `interval` milliseconds ago or is being done. @param failed is
   * called when that fails.
   */
  flushSoon(interval: number, failed: () => void): void {
    if (this.failure !== undefined || this.#flushing !== undefined || this.#pending.length === 0) return;
    if (performance.now() - this.#last < interval) return;
    this.#flushing = this.#flush()
      .catch((error: unknown) => {
        this.failure = error;
        failed();
      })
      .finally(() => {
        this.#flushing = undefined;
        this.#last = performance.now();
      });
  }

  async #flush(): Promise<void> {
    const records = this.#pending;
    this.#pending = [];
    await this.#sync();
    await this.#append(records.map(lineOf).join(''));
    this.noted += records.length;
  }

  /** Writes down all that is done. @throws IoError. */
  async flush(): Promise<void> {
    await this.#flushing;
    if (this.failure !== undefined) throw this.failure;
    if (this.#pending.length > 0) await this.#flush();
  }

  /** Ends writing. What was not written down is done again another day. */
  async close(): Promise<void> {
    mine.delete(this.#path);
    await this.#flushing;
    await this.#handle.close();
  }
}

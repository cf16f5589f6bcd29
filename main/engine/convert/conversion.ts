/** One conversion under way: see convert.ts for the order of its life. */
import { type FileHandle, rename } from 'node:fs/promises';
import { basename } from 'node:path';
import { CancelledError, ChainliftError, CorruptError, IoError, throwIfCancelled } from '../errors.ts';
import type { TaskContext } from '../task/task.ts';
import type { Converted, ConvertOptions } from './convert.ts';
import type { Crew } from './crew.ts';
import { sameIdentity, sourceIdentity } from './identity.ts';
import { earlierAttempts, type Interrupted, Journal, type Made } from './journal.ts';
import { Control, type Job, type OpenedDisk } from './messages.ts';
import {
  type Attempt,
  attemptFiles,
  checkOutput,
  createTemporary,
  dataPart,
  finalNames,
  newAttemptId,
  type OutputFiles,
  publish,
  remove,
  reopenTemporary,
  syncFolder,
} from './output.ts';
import { type Plan, planImage, SECTOR, variantOf } from './plan.ts';
import { Progress, type Restart, restart } from './progress.ts';
import { checkSpace, forecast } from './space.ts';
import { put, setLength, writeError } from './write/put.ts';
import { finishQcow2, type Gap } from './write/qcow2.ts';
import { finishVhdx, startVhdx } from './write/vhdx.ts';
import { descriptorText, finishSparseVmdk, finishStreamVmdk } from './write/vmdk.ts';

/** What errors call it. */
export const WHAT = 'The conversion';
/** Time between two notes in the journal, in milliseconds: each waits for the storage, which holds up writing meanwhile. */
const JOURNAL_MS = 2000;
/**
 * Failures after which nothing is kept: the storage has no room (what was written is what fills it), or somebody else has taken the
 * name meanwhile.
 */
const HOPELESS = new Set(['ENOSPC', 'EDQUOT', 'EFBIG', 'EEXIST']);

/** The files that are being written. */
interface Writing {
  readonly attempt: Attempt;
  readonly handle: FileHandle;
  readonly journal: Journal;
  readonly from: Restart;
}

export class Conversion {
  readonly #options: ConvertOptions;
  readonly #files: OutputFiles;
  readonly #crew: Crew;
  readonly #disk: OpenedDisk;
  readonly #task: TaskContext;
  readonly #plan: Plan;
  readonly #progress: Progress;
  /** Sectors that must be read of each stretch, by the map. */
  readonly #marks: SharedArrayBuffer;
  /** Bytes that must be read, by the map. */
  #mapBytes = 0;
  #resumedBytes = 0;

  constructor(options: ConvertOptions, files: OutputFiles, crew: Crew, disk: OpenedDisk, task: TaskContext) {
    this.#options = options;
    this.#files = files;
    this.#crew = crew;
    this.#disk = disk;
    this.#task = task;
    this.#plan = planImage(options.format, variantOf(options.format, options.variant), disk.size);
    this.#progress = new Progress(this.#plan);
    this.#marks = new SharedArrayBuffer(this.#plan.stretches * 4);
  }

  async run(): Promise<Converted> {
    const { source, existing, spare, verify } = this.#options;
    await checkOutput(this.#files, existing, this.#disk, spare);
    const made: Made = { plan: this.#plan, source: await sourceIdentity(source, this.#disk) };
    const layers = await this.#survey();
    const writing = await this.#begin(made, forecast(this.#plan, this.#disk, layers));
    let keep = false;
    let cancelled = false;
    try {
      await this.#write(writing, made);
      if (verify) await this.#readBack(writing);
      throwIfCancelled(this.#task.signal, WHAT);
      await this.#publish(writing);
    } catch (error) {
      cancelled = error instanceof CancelledError;
      keep = isWorthKeeping(error) && writing.journal.noted > 0;
      throw error;
    } finally {
      const closing = Promise.allSettled([writing.journal.close(), writing.handle.close()]);
      // The system may be at writing out seconds of data; who cancels does not wait for that.
      if (!cancelled) await closing;
      if (!keep) await removeAttempt(writing.attempt);
    }
    await syncFolder(this.#files.folder);
    return {
      files: finalNames(this.#files),
      format: this.#plan.format,
      variant: this.#plan.variant,
      size: this.#plan.imageSize,
      dataBytes: this.#progress.data,
      resumedBytes: this.#resumedBytes,
      verified: verify,
    };
  }

  /** Looks through the map. @returns the bytes that each layer answers for. */
  async #survey(): Promise<number[]> {
    const job = { kind: 'survey', plan: this.#plan, marks: this.#marks } as const;
    const results = await this.#run<'survey'>(job, Control.of(this.#crew.size), 'reading the map', undefined);
    const sectors = new Uint32Array(this.#marks).reduce((sum, value) => sum + value, 0);
    this.#mapBytes = Math.min(this.#plan.size, sectors * SECTOR);
    this.#task.progress.bytesTotal = this.#mapBytes * (this.#options.verify ? 2 : 1);
    return this.#disk.layers.map((_, i) => results.reduce((sum, { layers }) => sum + layers[i]!, 0));
  }

  /** Gives all workers the same job. @param before bytes that were dealt with before it; undefined: it makes no progress. */
  #run<K extends Job['kind']>(
    job: Extract<Job, { kind: K }> | readonly Extract<Job, { kind: K }>[],
    control: Control,
    phase: string,
    before: number | undefined,
    more: {
      signal?: AbortSignal;
      onStretch?: (record: Parameters<Progress['add']>[0]) => void;
      tick?: () => void;
    } = {},
  ) {
    const { progress } = this.#task;
    progress.current = phase;
    this.#task.report();
    const jobs = Array.isArray(job)
      ? (job as readonly Extract<Job, { kind: K }>[])
      : Array.from({ length: this.#crew.size }, () => job as Extract<Job, { kind: K }>);
    return this.#crew.run<K>(jobs, {
      what: WHAT,
      signal: more.signal ?? this.#task.signal,
      control,
      ...(more.onStretch === undefined ? {} : { onStretch: more.onStretch }),
      onProgress: (bytes) => {
        if (before !== undefined) progress.bytesDone = Math.min(before + bytes, progress.bytesTotal ?? 0);
        this.#task.report();
        more.tick?.();
      },
    });
  }

  /** Takes up an interrupted attempt where that is wanted and there is one, or begins anew. What is of no use is removed. */
  async #begin(made: Made, needed: number): Promise<Writing> {
    const { usable, stale } = await earlierAttempts(this.#files, this.#options.resume ? made : undefined);
    for (const attempt of stale) await removeAttempt(attempt);
    const marks = new Uint32Array(this.#marks);
    const from = usable === undefined ? undefined : restart(this.#plan, usable.records, marks);
    const there = from?.records.reduce((sum, { data }) => sum + data, 0) ?? 0;
    await checkSpace(this.#files.folder, needed, there);
    if (usable !== undefined && from !== undefined) {
      const writing = await this.#takeUp(made, usable, from);
      if (writing !== undefined) return writing;
    }
    return this.#beginAnew(made);
  }

  async #beginAnew(made: Made): Promise<Writing> {
    const { layout } = this.#plan;
    const attempt = attemptFiles(this.#files, newAttemptId());
    const path = dataPart(attempt);
    let handle: FileHandle | undefined;
    let journal: Journal | undefined;
    try {
      // The journal first: what no journal knows of is never tidied away.
      journal = await Journal.create(attempt.journal, made, [], () => this.#sync(handle!));
      handle = await createTemporary(path);
      // A disk too large for the file system is refused now.
      if (layout.kind === 'plain') await setLength(handle, this.#dataName, this.#plan.imageSize);
      if (layout.kind === 'blocks') await startVhdx(handle, this.#dataName, layout);
      const position = layout.kind === 'stream' ? layout.dataStart : 0;
      return { attempt, handle, journal, from: { records: [], places: 0, gaps: [], position } };
    } catch (error) {
      await journal?.close();
      await handle?.close();
      await removeAttempt(attempt);
      throw error;
    }
  }

  /** Undefined when somebody else took it up first. */
  async #takeUp(made: Made, { attempt: old }: Interrupted, from: Restart): Promise<Writing | undefined> {
    const attempt = attemptFiles(this.#files, newAttemptId());
    let handle: FileHandle | undefined;
    const journal = await Journal.create(attempt.journal, made, from.records, () => this.#sync(handle!));
    try {
      // Whoever renames it has it; until then the old journal stands for it.
      if (await renamed(dataPart(old), dataPart(attempt))) handle = await reopenTemporary(dataPart(attempt));
      if (handle === undefined) {
        await journal.close();
        await removeAttempt(attempt);
        return undefined;
      }
      await removeAttempt(old);
      const { layout, unit } = this.#plan;
      // What unfinished stretches left behind the end of what counts must read as zeros again.
      if (layout.kind === 'stream') await setLength(handle, this.#dataName, from.position);
      else if (layout.kind !== 'plain') await setLength(handle, this.#dataName, layout.dataStart + from.places * unit);
    } catch (error) {
      await journal.close();
      await handle?.close();
      throw error;
    }
    for (const record of from.records) this.#progress.add(record);
    this.#resumedBytes = this.#progress.data;
    return { attempt, handle, journal, from };
  }

  get #dataName(): string {
    return this.#files.extent ?? this.#files.image;
  }

  async #sync(handle: FileHandle): Promise<void> {
    try {
      await handle.datasync();
    } catch (error) {
      throw writeError(this.#dataName, error);
    }
  }

  /** Everything of the image, up to the storage. */
  async #write({ attempt, handle, journal, from }: Writing, made: Made): Promise<void> {
    const marks = new Uint32Array(this.#marks);
    const control = Control.of(this.#crew.size);
    control.places = from.places;
    control.position = from.position;
    const job = {
      kind: 'write',
      plan: this.#plan,
      target: { path: dataPart(attempt), name: this.#dataName },
      list: this.#progress.remaining(marks),
      l1: this.#progress.l1,
    } as const;
    const failed = new AbortController();
    const results = await this.#run<'write'>(
      // One worker uses up what an interrupted run left.
      Array.from({ length: this.#crew.size }, (_, i) => ({ ...job, gaps: i === 0 ? from.gaps : [] })),
      control,
      'writing',
      this.#progress.doneBytes(marks),
      {
        signal: AbortSignal.any([this.#task.signal, failed.signal]),
        onStretch: (record) => {
          this.#progress.add(record);
          journal.add(record);
        },
        tick: () => journal.flushSoon(this.#options.journalInterval ?? JOURNAL_MS, () => failed.abort()),
      },
    ).catch((error: unknown) => {
      throw journal.failure ?? error;
    });
    await this.#phase('writing it out', () => journal.flush());
    const gaps = results.flatMap((result) => result.gaps);
    await this.#finish(handle, control, gaps);
    if (attempt.extentPart !== undefined) await this.#writeDescriptor(attempt, basename(attempt.extentPart));
    if (!sameIdentity(made.source, await sourceIdentity(this.#options.source, this.#disk))) {
      throw new CorruptError('Source', {
        source: this.#options.source.path,
        expected: 'files that stay as they are while they are read',
        found: 'at least one of the chain changed',
      });
    }
    await this.#phase('writing it out', () => this.#sync(handle));
  }

  /** Waits for something that can't be stopped; who cancels does not wait for it. */
  async #phase(name: string, work: () => Promise<void>): Promise<void> {
    const { signal, progress } = this.#task;
    progress.current = name;
    this.#task.report();
    throwIfCancelled(signal, WHAT);
    let stop: (() => void) | undefined;
    const cancelled = new Promise<never>((_, reject) => {
      stop = () => reject(new CancelledError(WHAT));
      signal.addEventListener('abort', stop, { once: true });
    });
    try {
      await Promise.race([work(), cancelled]);
    } finally {
      signal.removeEventListener('abort', stop!);
    }
  }

  /** Tables and headers, now that all data has its place. */
  async #finish(handle: FileHandle, control: Control, unused: readonly Gap[]): Promise<void> {
    const plan = this.#plan;
    const { layout } = plan;
    const name = this.#dataName;
    const imageName = basename(this.#files.image);
    const { places, gaps } = trimmed(control.places, unused);
    switch (layout.kind) {
      case 'plain':
        return;
      case 'grains':
        return finishSparseVmdk(handle, name, plan, layout, imageName, places);
      case 'stream':
        return finishStreamVmdk(handle, name, plan, imageName, control.position, this.#progress.directory);
      case 'clusters':
        return finishQcow2(handle, name, plan, layout, new Int32Array(this.#progress.l1!), places, gaps);
      case 'blocks':
        return finishVhdx(handle, name, plan, layout, places);
    }
  }

  /** The descriptor of a flat image, naming its extent. */
  async #writeDescriptor({ part }: Attempt, extentName: string): Promise<void> {
    await remove(part);
    const handle = await createTemporary(part);
    try {
      const text = descriptorText(this.#plan.variant, this.#plan.imageSize, extentName);
      await put(handle, this.#files.image, Buffer.from(text, 'utf8'), 0);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  /** Opens the new image as anybody would, and compares it with the chain. @throws CorruptError. */
  async #readBack({ attempt }: Writing): Promise<void> {
    const { folder, image } = this.#files;
    const job = {
      kind: 'compare',
      plan: this.#plan,
      image: { path: attempt.part, name: image, folder, format: this.#plan.format },
    } as const;
    await this.#run<'compare'>(job, Control.of(this.#crew.size), 'reading it back', this.#mapBytes);
  }

  async #publish({ attempt }: Writing): Promise<void> {
    const { existing } = this.#options;
    const { image, extent } = this.#files;
    if (extent === undefined || attempt.extentPart === undefined) {
      await publish(attempt.part, image, existing);
      return;
    }
    await this.#writeDescriptor(attempt, basename(extent));
    await publish(attempt.extentPart, extent, existing);
    try {
      await publish(attempt.part, image, existing);
    } catch (error) {
      // Half an image is none.
      await remove(extent);
      throw error;
    }
  }
}

/** Places that are in use, and the gaps below their end: what was taken and not used at the very end is not part of the file. */
function trimmed(places: number, unused: readonly Gap[]): { places: number; gaps: Gap[] } {
  const gaps = [...unused].sort((a, b) => a.start - b.start);
  let end = places;
  while (gaps.length > 0 && gaps.at(-1)!.start + gaps.at(-1)!.count === end) end = gaps.pop()!.start;
  return { places: end, gaps };
}

function isWorthKeeping(error: unknown): boolean {
  if (error instanceof CancelledError) return true;
  return error instanceof ChainliftError && error.kind === 'io' && !HOPELESS.has(String(error.details.code));
}

async function removeAttempt({ part, extentPart, journal }: Attempt): Promise<void> {
  await remove(part);
  if (extentPart !== undefined) await remove(extentPart);
  // Last: what is left of an interrupted removal is still known of.
  await remove(journal);
}

/** False when there is no such file (any more). */
async function renamed(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw new IoError(`${from} cannot be taken up`, { destination: from }, error);
  }
}

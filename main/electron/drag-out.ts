/**
 * Dragging guest files out of the window. The system's drag wants files that exist, so they are staged first: the engine's copy
 * task puts them, verified, into a private folder, and the drag is of those.
 *
 * A drag is a gesture, and a gesture can't wait. What is staged within a second while the button is still held is dragged at
 * once. What takes longer goes on being staged (a person sees it among the tasks and can cancel it), the answer says `ready`
 * when it is, and the same selection dragged again starts without any wait. A selection that was staged stays staged, so a
 * second drag of it is free as well.
 *
 * A drag is all or nothing: when any file of the selection can't be read, there is no drag, since a drop can't say what it left
 * out; Copy to can.
 */
import { lstat } from 'node:fs/promises';
import { relative, resolve, sep } from 'node:path';
import type { ChainliftApi, DragOutcome, EntryRow, Target, TaskSnapshot } from '../../preload/api.ts';
import { EngineError } from '../../preload/rpc.ts';
import { CancelledError, DeniedError, IoError } from '../engine/errors.ts';
import { removeTree, type StagingArea } from './staging.ts';

/** Most that is staged for one drag. */
export const maxDragBytes = 2 * 1024 ** 3;
const maxDragEntries = 50_000;
const maxDragPaths = 1_000;
/** Staged bytes and selections kept for further drags; beyond them the oldest go. A drop may still be copying from the newest. */
const keptBytes = 2 * maxDragBytes;
const keptSelections = 16;
/** Bytes of the temporary folder that staging leaves to others. */
const reservedRoom = 256 * 1024 ** 2;

const insteadCopy = 'use Copy to for it';

export interface DragOutOptions {
  /** The engine; undefined while it is down. */
  readonly engine: () => ChainliftApi | undefined;
  readonly staging: StagingArea;
  /** Begins the system's drag of these files. */
  readonly startDrag: (files: readonly string[]) => void;
  /** Told of the copy task that stages. */
  readonly onTask?: (id: string) => void;
  /** Milliseconds that a gesture waits for its files. */
  readonly patience?: number;
  readonly maxBytes?: number;
}

interface Staged {
  readonly key: string;
  /** Top-level files and folders to drag. Rejects when staging failed; then the entry is gone from the list. */
  readonly files: Promise<readonly string[]>;
  /** Set once staging is done. */
  folder?: string;
  bytes: number;
}

export class DragOut {
  readonly #options: DragOutOptions;
  /** Oldest first. */
  readonly #staged: Staged[] = [];
  /** The latest gesture; only it may begin a drag. */
  #gesture: { released: boolean } | undefined;

  constructor(options: DragOutOptions) {
    this.#options = options;
  }

  /** Must be called when the mouse button is released anywhere in the window: whatever was being dragged is not any more. */
  released(): void {
    if (this.#gesture !== undefined) this.#gesture.released = true;
  }

  /**
   * A drag of `paths` was begun in the window. @returns `dragging` when the system's drag has begun; `ready` when the files were
   * staged too late for this gesture and the next one of the same selection will start at once.
   * @throws DeniedError when the selection is too big, and what the engine's copy throws.
   */
  async begin(target: Target, paths: readonly string[]): Promise<DragOutcome> {
    const gesture = { released: false };
    this.#gesture = gesture;
    const staged = await this.#find(JSON.stringify([target, paths]), target, paths);
    let timer: NodeJS.Timeout | undefined;
    const tooLate = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), this.#options.patience ?? 1_000);
    });
    const inTime = await Promise.race([staged.files, tooLate]).finally(() => clearTimeout(timer));
    const files = inTime ?? (await staged.files);
    if (inTime === undefined || gesture.released || this.#gesture !== gesture) return 'ready';
    this.#options.startDrag(files);
    return 'dragging';
  }

  /** The selection as it was staged before, or begins to stage it. */
  async #find(key: string, target: Target, paths: readonly string[]): Promise<Staged> {
    const known = this.#staged.find((one) => one.key === key);
    if (known !== undefined) {
      // Still being staged, or all there. A drop on some systems moves the files: then they are staged anew.
      if (known.folder === undefined || (await allExist(await known.files))) {
        this.#staged.splice(this.#staged.indexOf(known), 1);
        this.#staged.push(known);
        return known;
      }
      await this.#discard(known);
    }
    const staged: Staged = {
      key,
      bytes: 0,
      files: Promise.resolve().then(() => this.#stage(staged, target, paths)),
    };
    this.#staged.push(staged);
    staged.files.then(
      () => this.#tidy(),
      () => this.#forget(staged),
    );
    return staged;
  }

  async #stage(staged: Staged, target: Target, paths: readonly string[]): Promise<readonly string[]> {
    const api = this.#options.engine();
    if (api === undefined) throw new IoError('The engine is not running', { code: 'DISCONNECTED' });
    staged.bytes = await this.#measure(api, target, paths);
    const room = await this.#options.staging.room();
    if (staged.bytes + reservedRoom > room) {
      throw new DeniedError(
        'Dragging this selection',
        `the folder for temporary files has no room for it; ${insteadCopy}`,
        {
          bytes: staged.bytes,
          room: Math.max(0, room - reservedRoom),
        },
      );
    }
    const folder = await this.#options.staging.make();
    try {
      const files = await this.#copy(api, target, paths, folder);
      staged.folder = folder;
      return files;
    } catch (error) {
      await removeTree(folder);
      throw error;
    }
  }

  /** Bytes of the selection. @throws DeniedError as soon as it is known to be too much. */
  async #measure(api: ChainliftApi, target: Target, paths: readonly string[]): Promise<number> {
    const limit = this.#options.maxBytes ?? maxDragBytes;
    let bytes = 0;
    let entries = 0;
    const count = (entry: Pick<EntryRow, 'kind' | 'size'>): void => {
      entries++;
      if (entry.kind === 'file') bytes += entry.size ?? 0;
      if (bytes > limit) {
        throw new DeniedError('Dragging this selection', `it is larger than ${limit / 1024 ** 3} GiB; ${insteadCopy}`, {
          limit,
        });
      }
      if (entries > maxDragEntries) {
        throw new DeniedError('Dragging this selection', `it holds more than ${maxDragEntries} files; ${insteadCopy}`, {
          limit: maxDragEntries,
        });
      }
    };
    if (paths.length > maxDragPaths) {
      throw new DeniedError('Dragging this selection', `it is of more than ${maxDragPaths} rows; ${insteadCopy}`, {
        limit: maxDragPaths,
      });
    }
    for (const path of paths) {
      const entry = await api.stat({ target, path });
      count(entry);
      if (entry.kind !== 'directory') continue;
      for await (const batch of api.list({ target, path, long: true, recursive: true })) batch.forEach(count);
    }
    return bytes;
  }

  async #copy(api: ChainliftApi, target: Target, paths: readonly string[], folder: string): Promise<readonly string[]> {
    const begun = await api.copy({
      target,
      paths,
      destination: folder,
      recursive: true,
      verify: true,
      // Rows of two folders may have one name.
      overwrite: 'rename',
    });
    this.#options.onTask?.(begun.id);
    let last: TaskSnapshot = begun;
    for await (const task of api.watchTask({ id: begun.id })) last = task;
    if (last.state === 'cancelled') throw new CancelledError('Preparing the drag');
    if (last.state !== 'done' || last.result?.kind !== 'copy') {
      throw last.error === undefined ? new IoError('Preparing the drag failed', {}) : new EngineError(last.error);
    }
    const { problems, written } = last.result;
    const [problem] = problems;
    if (problem !== undefined) throw new EngineError(problem.error);
    if (written.length === 0) throw new IoError('Preparing the drag made no files', {});
    for (const path of written) {
      const inside = relative(folder, resolve(path));
      if (inside === '' || inside === '..' || inside.startsWith(`..${sep}`)) {
        throw new DeniedError(`Dragging ${path}`, 'it was not staged', { path });
      }
    }
    return written;
  }

  /** Keeps staged selections within bounds. */
  async #tidy(): Promise<void> {
    const done = this.#staged.filter((one) => one.folder !== undefined);
    let bytes = done.reduce((sum, one) => sum + one.bytes, 0);
    while (done.length > 1 && (bytes > keptBytes || done.length > keptSelections)) {
      const oldest = done.shift();
      if (oldest === undefined) return;
      bytes -= oldest.bytes;
      await this.#discard(oldest);
    }
  }

  async #discard(staged: Staged): Promise<void> {
    this.#forget(staged);
    if (staged.folder !== undefined) await removeTree(staged.folder);
  }

  #forget(staged: Staged): void {
    const index = this.#staged.indexOf(staged);
    if (index >= 0) this.#staged.splice(index, 1);
  }
}

async function allExist(files: readonly string[]): Promise<boolean> {
  const found = await Promise.allSettled(files.map((file) => lstat(file)));
  return found.every((one) => one.status === 'fulfilled');
}

/**
 * Files out of a guest: walker, output and policy. One bad file is a problem in the result, never the end of the copy; what
 * could not be carried over is a note; cancelling leaves whole files and nothing else.
 */
import { constants } from 'node:fs';
import { type FileHandle, link, open, readlink, symlink, unlink } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import {
  CancelledError,
  ChainliftError,
  CorruptError,
  IoError,
  throwIfCancelled,
  UnsupportedError,
} from '../errors.ts';
import type { Entry, FileSystem, Stat } from '../filesystem/file-system.ts';
import { nameFromBytes, nameToBytes } from '../filesystem/names.ts';
import { Breather } from '../task/breather.ts';
import type { TaskContext } from '../task/task.ts';
import { Attributes } from './attributes.ts';
import { copyFile } from './copy-file.ts';
import { freeName, makeFolder, OutputFolder, type OverwritePolicy, partialPath, publish } from './output-folder.ts';
import { type CopyReport, Reporter } from './report.ts';
import { safeName } from './safe-name.ts';
import { type CopySource, joinVmPath } from './source.ts';

export type { CopiedFile, CopyReport } from './report.ts';

export interface CopyOptions {
  /** Existing folder that the copies are made in. */
  readonly destination: string;
  readonly recursive: boolean;
  readonly verify: boolean;
  readonly overwrite: OverwritePolicy;
  /** True for a file of this computer that is never replaced, whatever was asked: the images that are being read. */
  readonly spare?: (path: string) => boolean;
}

/** Folders inside folders at most; no real tree comes near, a damaged one may never end. */
const MAX_DEPTH = 1024;
/** Hard-linked files remembered, to make links of them again. */
const MAX_HARD_LINKS = 500_000;
/** How a file system says that it has no hard links, or no more of them. */
const NO_HARD_LINKS = new Set(['EPERM', 'ENOTSUP', 'ENOSYS', 'EXDEV', 'EMLINK', 'EOPNOTSUPP']);

/**
 * Copies `sources` into `options.destination`. Progress counts files' bytes and entries; totals come from a walk before. What is
 * left out, linked or has failed counts as done, so that a copy that visited everything ends at its totals.
 * @throws CancelledError, IoError when the destination can't be used. Problems with single entries are in the report.
 */
export async function copyOut(
  sources: readonly CopySource[],
  options: CopyOptions,
  task: TaskContext,
): Promise<CopyReport> {
  await checkDestination(options.destination);
  const copy = new Copy(options, task);
  await copy.count(sources);
  await copy.run(sources);
  return copy.reporter.report;
}

async function checkDestination(path: string): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | (constants.O_DIRECTORY ?? 0));
  } catch (error) {
    throw new IoError(`The destination ${path} cannot be opened`, { destination: path }, error);
  }
  await handle.close();
}

/** Where a walk is: the tree it is in, and what it has met there. */
interface Place {
  readonly fs: FileSystem;
  /** Folders met below this source. A tree has none twice: a second time is a loop, or work without end. */
  readonly met: Set<number>;
  readonly depth: number;
  readonly into: OutputFolder;
  readonly overwrite: OverwritePolicy;
}

class Copy {
  readonly reporter = new Reporter();
  readonly #options: CopyOptions;
  readonly #task: TaskContext;
  readonly #attributes = new Attributes((note) => this.reporter.generalNote(note));
  readonly #breather = new Breather();
  /** First copy of each hard-linked file, by file system and inode. */
  readonly #hardLinks = new Map<FileSystem, Map<number, { path: string; sha256: string }>>();

  constructor(options: CopyOptions, task: TaskContext) {
    this.#options = options;
    this.#task = task;
  }

  /** At every entry: an end when it was asked for, room for others, a report. */
  async #step(path: string): Promise<void> {
    throwIfCancelled(this.#task.signal, 'The copy');
    if (this.#breather.due) await this.#breather.breathe();
    this.#task.progress.current = path;
    this.#task.report();
  }

  /** Totals for progress. What can't be read here is met, and reported, again by the copy. */
  async count(sources: readonly CopySource[]): Promise<void> {
    let items = 0;
    let bytes = 0;
    const visit = async (fs: FileSystem, entry: Entry, path: string, met: Set<number>, depth: number) => {
      await this.#step(path);
      items++;
      if (entry.error !== undefined) return;
      try {
        if (entry.kind === 'file') bytes += (await fs.stat(entry)).size;
        if (entry.kind !== 'directory' || !this.#options.recursive || met.has(entry.id) || depth >= MAX_DEPTH) return;
        met.add(entry.id);
        for await (const batch of fs.list(entry, this.#task.signal)) {
          for (const child of batch) await visit(fs, child, joinVmPath(path, child.name), met, depth + 1);
        }
      } catch (error) {
        if (error instanceof CancelledError || !(error instanceof ChainliftError)) throw error;
      }
    };
    for (const { fileSystem, entry, path } of sources) await visit(fileSystem, entry, path, new Set(), 0);
    this.#task.progress.itemsTotal = items;
    this.#task.progress.bytesTotal = bytes;
  }

  async run(sources: readonly CopySource[]): Promise<void> {
    const into = new OutputFolder(resolve(this.#options.destination));
    for (const { fileSystem: fs, entry, path, name } of sources) {
      const place: Place = { fs, met: new Set(), depth: 0, into, overwrite: this.#options.overwrite };
      const made = await this.#entry(place, entry, path, name);
      if (made !== undefined) this.reporter.madeTop(made);
    }
  }

  /** Copies one entry; returns where it went, undefined when nothing was made. Failures of its own are reported here. */
  async #entry(place: Place, entry: Entry, path: string, guestName: string): Promise<string | undefined> {
    await this.#step(path);
    try {
      if (entry.error !== undefined) throw entry.error;
      const { name, changed } = safeName(guestName);
      if (changed) this.reporter.note(path, `Named ${name}: this computer can't have the guest's name`);
      // The policy is for what the user had before, not for what this copy has just made.
      const clash = await place.into.gave(name);
      const made = await this.#byKind(clash ? { ...place, overwrite: 'rename' } : place, entry, path, name);
      if (clash && made !== undefined) {
        this.reporter.note(path, `Named ${basename(made)}: another entry of this copy has the name ${name}`);
      }
      return made;
    } catch (error) {
      this.reporter.problem(path, error);
      return undefined;
    } finally {
      this.#task.progress.itemsDone++;
      this.#task.report();
    }
  }

  async #byKind(place: Place, entry: Entry, path: string, name: string): Promise<string | undefined> {
    switch (entry.kind) {
      case 'directory':
        return this.#directory(place, entry, path, name);
      case 'file':
        return this.#file(place, entry, path, name);
      case 'symlink':
        return this.#symlink(place, entry, path, name);
      default:
        this.reporter.report.skipped++;
        this.reporter.note(path, `Left out: a ${entry.kind.replace('-', ' ')} has no content to copy`);
        return undefined;
    }
  }

  async #directory(place: Place, entry: Entry, path: string, name: string): Promise<string> {
    const { fs, met, depth, into, overwrite } = place;
    if (!this.#options.recursive) {
      throw new UnsupportedError('copying a folder without asking for its content (recursive)', { path });
    }
    checkTree(entry, path, met, depth);
    met.add(entry.id);
    const folder = await makeFolder(into.path, name, overwrite);
    into.give(folder.path);
    this.reporter.report.directories++;
    const inside: Place = {
      ...place,
      depth: depth + 1,
      into: new OutputFolder(folder.path),
      overwrite: this.#options.overwrite,
    };
    const links: Entry[] = [];
    try {
      for await (const batch of fs.list(entry, this.#task.signal)) {
        for (const child of batch) {
          // Links last: nothing of this folder can then be written through one of them.
          if (child.kind === 'symlink') links.push(child);
          else await this.#entry(inside, child, joinVmPath(path, child.name), child.name);
        }
      }
    } catch (error) {
      this.reporter.problem(path, error);
    }
    for (const child of links) await this.#entry(inside, child, joinVmPath(path, child.name), child.name);
    try {
      // Last: writing into the folder changes its time, and its mode may forbid writing. What the user wants left alone, is.
      if (!(folder.existed && overwrite === 'skip')) await this.#attributes.toFolder(folder.path, await fs.stat(entry));
    } catch (error) {
      this.reporter.problem(path, error);
    }
    return folder.path;
  }

  async #file(place: Place, entry: Entry, path: string, name: string): Promise<string | undefined> {
    const stat = await place.fs.stat(entry);
    const { progress } = this.#task;
    const before = progress.bytesDone;
    try {
      const free = await freeName(place.into.path, name, place.overwrite, this.#options.spare);
      if (free === undefined) {
        this.reporter.report.skipped++;
        return undefined;
      }
      const final = join(place.into.path, free);
      if (!(await this.#linkAgain(place, entry, stat, path, final))) {
        await this.#content(place, entry, stat, path, final);
      }
      place.into.give(final);
      return final;
    } finally {
      // Left out, linked, or failed on the way: it is dealt with. A cancelled copy stays where it was.
      if (!this.#task.signal.aborted) progress.bytesDone = before + stat.size;
    }
  }

  async #content(place: Place, entry: Entry, stat: Stat, path: string, final: string): Promise<void> {
    const { verify } = this.#options;
    const content = await place.fs.open(entry);
    try {
      const sha256 = await copyFile(content, final, {
        verify,
        overwrite: place.overwrite,
        signal: this.#task.signal,
        wrote: (bytes) => {
          this.#task.progress.bytesDone += bytes;
          this.#task.report();
        },
        finish: (handle) => this.#attributes.toHandle(handle, stat, path),
      });
      if (stat.links > 1) this.#rememberLink(place.fs, entry.id, final, sha256);
      this.reporter.report.bytes += content.size;
      this.reporter.copiedFile({
        path,
        destination: final,
        kind: 'file',
        bytes: content.size,
        sha256,
        verified: verify,
      });
    } finally {
      await content.close();
    }
  }

  /** Makes a hard link where the guest has one to a file copied before. False when the content must be copied. */
  async #linkAgain(place: Place, entry: Entry, stat: Stat, path: string, final: string): Promise<boolean> {
    const first = stat.links > 1 ? this.#hardLinks.get(place.fs)?.get(entry.id) : undefined;
    if (first === undefined) return false;
    try {
      await link(first.path, final);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? '';
      // A link can't replace what is there; content can.
      if (NO_HARD_LINKS.has(code) || (code === 'EEXIST' && place.overwrite === 'replace')) return false;
      throw new IoError(`${final} cannot be linked`, { destination: final }, error);
    }
    this.reporter.copiedFile({
      path,
      destination: final,
      kind: 'file',
      bytes: stat.size,
      sha256: first.sha256,
      verified: this.#options.verify,
    });
    return true;
  }

  #rememberLink(fs: FileSystem, id: number, path: string, sha256: string): void {
    const known = this.#hardLinks.get(fs) ?? new Map<number, { path: string; sha256: string }>();
    this.#hardLinks.set(fs, known);
    if (known.size < MAX_HARD_LINKS) known.set(id, { path, sha256 });
  }

  async #symlink(place: Place, entry: Entry, path: string, name: string): Promise<string | undefined> {
    const { fs, into, overwrite } = place;
    const target = await fs.readLink(entry);
    const stat = await fs.stat(entry);
    const free = await freeName(into.path, name, overwrite, this.#options.spare);
    if (free === undefined) {
      this.reporter.report.skipped++;
      return undefined;
    }
    const final = join(into.path, free);
    // The target's own bytes, which need not be Unicode.
    const bytes = Buffer.from(nameToBytes(target));
    await makeLink(bytes, final, overwrite);
    into.give(final);
    const made = await linking(readlink(final, { encoding: 'buffer' }), final);
    if (!made.equals(bytes)) {
      throw new CorruptError('Written link', { source: final, expected: target, found: nameFromBytes(made) });
    }
    await this.#attributes.toLink(final, stat);
    this.reporter.copiedLink({ path, destination: final, kind: 'symlink', bytes: 0, verified: true });
    return final;
  }
}

/** @throws CorruptError for a folder that can't be at this place of a tree. */
function checkTree(entry: Entry, path: string, met: ReadonlySet<number>, depth: number): void {
  if (met.has(entry.id)) {
    throw new CorruptError('Directory tree', {
      source: path,
      expected: 'a folder not met before',
      found: `the folder with id ${entry.id} again: a loop, or one folder at two places`,
    });
  }
  if (depth >= MAX_DEPTH) {
    throw new CorruptError('Directory tree', { source: path, expected: `at most ${MAX_DEPTH} levels`, found: 'more' });
  }
}

/** Makes a symbolic link, in place of what is there only when asked. */
async function makeLink(target: Buffer, final: string, policy: OverwritePolicy): Promise<void> {
  if (policy !== 'replace') {
    await linking(symlink(target, final), final);
    return;
  }
  const partial = partialPath(dirname(final));
  await linking(symlink(target, partial), final);
  try {
    await publish(partial, final, policy);
  } catch (error) {
    await linking(unlink(partial), final);
    throw error;
  }
}

async function linking<T>(operation: Promise<T>, path: string): Promise<T> {
  try {
    return await operation;
  } catch (error) {
    throw new IoError(`${path} cannot be made a symbolic link`, { destination: path }, error);
  }
}

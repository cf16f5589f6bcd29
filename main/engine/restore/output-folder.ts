/**
 * Writing into a folder of this computer so that nothing partial is ever seen under a final name, nothing is written through
 * a link, what the user already has is only replaced when asked, and no copy takes the place of another of the same run.
 */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, link, lstat, mkdir, open, rename, unlink } from 'node:fs/promises';
import { basename, join, parse } from 'node:path';
import { DeniedError, IoError } from '../errors.ts';
import { fitName } from './safe-name.ts';

export type OverwritePolicy = 'refuse' | 'replace' | 'rename' | 'skip';

/** Numbers tried for a free name. */
const MAX_RENAMES = 10_000;

/** A folder that copies are made in, and which of its names this run has given away. */
export class OutputFolder {
  readonly path: string;
  /** By name as a file system that ignores case and composition would see it. */
  readonly #given = new Map<string, string[]>();

  constructor(path: string) {
    this.path = path;
  }

  /** Notes that this run made `path`, an entry of this folder. */
  give(path: string): void {
    const name = basename(path);
    const key = folded(name);
    const known = this.#given.get(key);
    if (known === undefined) this.#given.set(key, [name]);
    else known.push(name);
  }

  /**
   * True when what has this name here is this run's own work: a guest may have one name twice (damaged), or two that are one to
   * this computer (`A` and `a`), and two sources may have the same name. The policy for existing files is not meant for those.
   */
  async gave(name: string): Promise<boolean> {
    const known = this.#given.get(folded(name));
    if (known === undefined) return false;
    const there = await lstatOrUndefined(join(this.path, name));
    if (there === undefined) return false;
    for (const given of known) {
      const made = await lstatOrUndefined(join(this.path, given));
      if (made !== undefined && made.ino === there.ino && made.dev === there.dev) return true;
    }
    return false;
  }
}

function folded(name: string): string {
  return name.normalize('NFC').toLowerCase();
}

/** A file that is being written under a name of its own, beside its place. */
export interface PartialFile {
  readonly path: string;
  readonly handle: FileHandle;
}

/** A name for what is not whole yet: hidden, ours, and nobody else's. */
export function partialPath(folder: string): string {
  return join(folder, `.chainlift-${randomBytes(9).toString('base64url')}.part`);
}

/** Creates a temporary file in `folder`: exclusive, not through a link, private until it is whole. */
export async function createPartial(folder: string): Promise<PartialFile> {
  const path = partialPath(folder);
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | (constants.O_NOFOLLOW ?? 0);
  try {
    return { path, handle: await open(path, flags, 0o600) };
  } catch (error) {
    throw new IoError(`A file cannot be made in ${folder}`, { destination: folder }, error);
  }
}

async function lstatOrUndefined(path: string) {
  try {
    return await lstat(path, { bigint: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new IoError(`${path} cannot be looked at`, { destination: path }, error);
  }
}

/**
 * The name under which something new may stand in `folder`, by policy; undefined means: leave it out. @throws DeniedError under
 * `refuse` when the name is taken, and under `replace` when a folder has it or `spare` says that what has it must stay.
 */
export async function freeName(
  folder: string,
  name: string,
  policy: OverwritePolicy,
  spare?: (path: string) => boolean,
): Promise<string | undefined> {
  const path = join(folder, name);
  const there = await lstatOrUndefined(path);
  if (there === undefined) return name;
  if (policy === 'skip') return undefined;
  if (policy === 'refuse') throw exists(path);
  if (policy === 'replace') {
    if (spare?.(path)) {
      throw new DeniedError(path, 'it is a part of the backup itself, which is never replaced', { destination: path });
    }
    if (!there.isDirectory()) return name;
    throw new DeniedError(path, 'a folder of that name is in the way', { destination: path, exists: true });
  }
  const { name: stem, ext } = parse(name);
  for (let n = 2; n < MAX_RENAMES; n++) {
    const next = fitName(stem, ` (${n})${ext}`);
    if ((await lstatOrUndefined(join(folder, next))) === undefined) return next;
  }
  throw new DeniedError(path, 'there are too many copies of it already', { destination: path, exists: true });
}

function exists(path: string): DeniedError {
  return new DeniedError(path, 'it exists; say what to do with existing files', { destination: path, exists: true });
}

/** Puts a whole file under its final name. Under any policy but `replace`, what came there meanwhile is not replaced. */
export async function publish(partial: string, final: string, policy: OverwritePolicy): Promise<void> {
  try {
    if (policy === 'replace' || process.platform === 'win32') {
      await rename(partial, final);
      return;
    }
    try {
      // A hard link fails where a name exists; a rename would silently replace it.
      await link(partial, final);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'EEXIST') throw error;
      // File systems without hard links (FAT, some network mounts).
      if ((await lstatOrUndefined(final)) !== undefined) throw error;
      await rename(partial, final);
      return;
    }
    await unlink(partial);
  } catch (error) {
    if (error instanceof IoError) throw error;
    throw new IoError(`${final} cannot be made`, { destination: final }, error);
  }
}

export interface MadeFolder {
  readonly path: string;
  /** It was there before, and is the user's. */
  readonly existed: boolean;
}

/** A real folder at `folder/name`, made or (by policy) there already. Never one behind a link. @throws DeniedError, IoError. */
export async function makeFolder(folder: string, name: string, policy: OverwritePolicy): Promise<MadeFolder> {
  const path = join(folder, name);
  try {
    await mkdir(path, 0o700);
    return { path, existed: false };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
      throw new IoError(`${path} cannot be made`, { destination: path }, error);
    }
  }
  // Beside whatever has the name, be it a folder, a file or a link.
  if (policy === 'rename') {
    const free = await freeName(folder, name, 'rename');
    return makeFolder(folder, free!, 'refuse');
  }
  const there = await lstatOrUndefined(path);
  if (there?.isSymbolicLink()) {
    throw new DeniedError(path, 'a symbolic link is in the way, and nothing is written through links', {
      destination: path,
    });
  }
  if (!there?.isDirectory()) {
    throw new DeniedError(path, 'a file of that name is in the way', { destination: path, exists: true });
  }
  if (policy === 'refuse') throw exists(path);
  return { path, existed: true };
}

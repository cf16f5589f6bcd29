/**
 * Where a new image goes: its files, their temporary names beside them, and how whole files get their final names. Nothing is
 * written through a link, and what the user has is only replaced when asked.
 */
import { createHash, randomBytes } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { type FileHandle, link, lstat, open, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { DeniedError, IoError, UsageError } from '../errors.ts';
import type { OpenedDisk } from './messages.ts';

export type Existing = 'refuse' | 'replace';

/** The files of a new image: the image itself first, for monolithicFlat the extent with the disk's bytes second. */
export interface OutputFiles {
  readonly folder: string;
  readonly image: string;
  readonly extent: string | undefined;
}

export function outputFiles(destination: string, variant: string): OutputFiles {
  const folder = dirname(destination);
  if (variant !== 'monolithicFlat') return { folder, image: destination, extent: undefined };
  const name = basename(destination).replace(/\.vmdk$/i, '');
  return { folder, image: destination, extent: join(folder, `${name}-flat.vmdk`) };
}

export function finalNames({ image, extent }: OutputFiles): string[] {
  return extent === undefined ? [image] : [image, extent];
}

/** Longest name of which temporary ones are made as they are, in bytes; a file's name has 255. */
const MAX_NAME = 180;

/** What temporary names of a destination begin with. */
export function temporaryStem(destination: string): string {
  const name = basename(destination);
  if (Buffer.byteLength(name) <= MAX_NAME) return `.${name}.chainlift-`;
  return `.${createHash('sha256').update(name).digest('hex').slice(0, 32)}.chainlift-`;
}

/** The temporary files of one attempt. */
export interface Attempt {
  readonly part: string;
  readonly extentPart: string | undefined;
  readonly journal: string;
}

export function attemptFiles(files: OutputFiles, id: string): Attempt {
  const stem = join(files.folder, `${temporaryStem(files.image)}${id}`);
  return {
    part: `${stem}.part`,
    extentPart: files.extent === undefined ? undefined : `${stem}.flat.part`,
    journal: `${stem}.journal`,
  };
}

/** The temporary file that the disk's bytes go to. */
export function dataPart({ part, extentPart }: Attempt): string {
  return extentPart ?? part;
}

export function newAttemptId(): string {
  return randomBytes(9).toString('base64url');
}

export async function lstatOrUndefined(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new IoError(`${path} cannot be looked at`, { destination: path }, error);
  }
}

/**
 * Checks that the image may be written: its folder exists, and what has its name may be replaced. @param spare true for a file that is
 * never replaced. @throws IoError, DeniedError, UsageError.
 */
export async function checkOutput(
  files: OutputFiles,
  existing: Existing,
  disk: OpenedDisk | undefined,
  spare: (path: string) => boolean,
): Promise<void> {
  let folder: Stats;
  try {
    folder = await stat(files.folder);
  } catch (error) {
    throw new IoError(
      `The destination's folder ${files.folder} cannot be opened`,
      { destination: files.folder },
      error,
    );
  }
  if (!folder.isDirectory()) {
    throw new UsageError(`${files.folder} is no folder`, { destination: files.folder });
  }
  for (const path of finalNames(files)) {
    const there = await lstatOrUndefined(path);
    if (there === undefined) continue;
    if (there.isDirectory()) throw new DeniedError(path, 'a folder of that name is in the way', { destination: path });
    if (spare(path) || (disk !== undefined && (await isOneOf(path, disk)))) {
      throw new DeniedError(path, 'it is a part of the backup itself, which is never replaced', { destination: path });
    }
    if (existing === 'refuse') {
      throw new DeniedError(path, 'it exists; say what to do with existing files', { destination: path, exists: true });
    }
  }
}

/** True when the path leads to one of the files that are read, by whatever name. */
async function isOneOf(path: string, disk: OpenedDisk): Promise<boolean> {
  const target = await statOrUndefined(path);
  if (target === undefined) return false;
  for (const file of disk.files) {
    const read = await statOrUndefined(file.path);
    if (read !== undefined && read.ino === target.ino && read.dev === target.dev) return true;
  }
  return false;
}

async function statOrUndefined(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    // A link to nowhere; a member of an archive, which is no file of its own.
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw new IoError(`${path} cannot be looked at`, { destination: path }, error);
  }
}

/** Creates a temporary file: exclusive, not through a link. Readable for whom the user lets read new files. */
export async function createTemporary(path: string): Promise<FileHandle> {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | (constants.O_NOFOLLOW ?? 0);
  try {
    return await open(path, flags, 0o666);
  } catch (error) {
    throw new IoError(`A file cannot be made in ${dirname(path)}`, { destination: dirname(path) }, error);
  }
}

/**
 * Opens a temporary file that an earlier run left. Undefined when it is not there or not what such a run makes: a regular file of
 * this user with this one name.
 */
export async function reopenTemporary(path: string): Promise<FileHandle | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDWR | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    if (['ENOENT', 'ELOOP', 'EACCES', 'EISDIR', 'ENXIO'].includes((error as NodeJS.ErrnoException).code ?? '')) {
      return undefined;
    }
    throw new IoError(`${path} cannot be opened`, { destination: path }, error);
  }
  const there = await handle.stat();
  const mine = process.getuid === undefined || there.uid === process.getuid();
  if (there.isFile() && there.nlink === 1 && mine) return handle;
  await handle.close();
  return undefined;
}

/** Removes a file; that it is gone already is as good. @throws IoError. */
export async function remove(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw new IoError(`${path} cannot be removed`, { destination: path }, error);
  }
}

/** Puts a whole file under its final name; unless it may replace, what came there meanwhile is not replaced. @throws IoError. */
export async function publish(part: string, final: string, existing: Existing): Promise<void> {
  try {
    if (existing === 'replace' || process.platform === 'win32') {
      await rename(part, final);
      return;
    }
    try {
      // A hard link fails where a name exists; a rename would silently replace it.
      await link(part, final);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error;
      // File systems without hard links (FAT, some network mounts).
      if ((await lstatOrUndefined(final)) !== undefined) throw error;
      await rename(part, final);
      return;
    }
    await unlink(part);
  } catch (error) {
    if (error instanceof IoError) throw error;
    throw new IoError(`${final} cannot be made`, { destination: final }, error);
  }
}

/** Makes new names last: a folder is a file of names, which the system writes when it likes. */
export async function syncFolder(folder: string): Promise<void> {
  // Windows has no such thing.
  if (process.platform === 'win32') return;
  try {
    const handle = await open(folder, constants.O_RDONLY);
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    // Some network file systems can't: they write names at once.
    if (['EINVAL', 'ENOTSUP', 'EACCES', 'EPERM', 'EBADF'].includes((error as NodeJS.ErrnoException).code ?? '')) return;
    throw new IoError(`${folder} cannot be written`, { destination: folder }, error);
  }
}

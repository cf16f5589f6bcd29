/**
 * Owner, mode and times of a guest's entry, given to its copy as far as this user and the destination's file system allow. A
 * copy that can't have them is still the copy: what was refused is a note, never the loss of the file.
 */
import { constants } from 'node:fs';
import { type FileHandle, lchown, lutimes, open, utimes } from 'node:fs/promises';
import { IoError } from '../errors.ts';
import type { Stat, Timestamp } from '../filesystem/file-system.ts';

/** How a file system (FAT, a network mount) or a user namespace says that it has no place for an attribute. */
const REFUSED = new Set(['EPERM', 'EACCES', 'EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EOVERFLOW']);
/** To chown, this number means "leave it as it is". */
const NO_ID = 0xffff_ffff;

const notes = {
  notRoot: 'Owners are not carried over: only root may give files away',
  owner: "Some owners are not carried over: the destination's file system refused them",
  mode: "Some permissions are not carried over: the destination's file system refused them",
  times: "Some times are not carried over: the destination's file system refused them",
} as const;

export class Attributes {
  readonly #note: (note: string) => void;
  readonly #asRoot = process.getuid?.() === 0;

  /** @param note told, any number of times, what could not be carried over. */
  constructor(note: (note: string) => void) {
    this.#note = note;
  }

  /** Dresses an open file or folder. @throws IoError when the storage fails. */
  async toHandle(handle: FileHandle, stat: Stat, path: string): Promise<void> {
    const owned = await this.#owner(stat, path, (uid, gid) => handle.chown(uid, gid));
    const mode = modeToSet(stat, owned);
    // After the owner: changing it takes the set-id bits away.
    if (mode !== undefined) await this.#attempt(handle.chmod(mode), path, notes.mode);
    const [accessed, modified] = times(stat);
    await this.#attempt(handle.utimes(accessed, modified), path, notes.times);
  }

  /** Dresses the folder at `path`. */
  async toFolder(path: string, stat: Stat): Promise<void> {
    if (process.platform === 'win32') {
      // A folder's handle can't be written through there, and it has no mode.
      await this.#attempt(utimes(path, ...times(stat)), path, notes.times);
      return;
    }
    let handle: FileHandle;
    try {
      handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    } catch (error) {
      throw failed(path, error);
    }
    try {
      await this.toHandle(handle, stat, path);
    } finally {
      await handle.close();
    }
  }

  /** Dresses the symbolic link at `path`, not what it leads to. */
  async toLink(path: string, stat: Stat): Promise<void> {
    await this.#owner(stat, path, (uid, gid) => lchown(path, uid, gid));
    await this.#attempt(lutimes(path, ...times(stat)), path, notes.times);
  }

  async #owner(stat: Stat, path: string, change: (uid: number, gid: number) => Promise<void>): Promise<boolean> {
    const { uid, gid } = stat;
    if (uid === undefined || gid === undefined) return false;
    if (!this.#asRoot) {
      this.#note(notes.notRoot);
      return false;
    }
    if (uid === NO_ID || gid === NO_ID) {
      this.#note(notes.owner);
      return false;
    }
    return this.#attempt(change(uid, gid), path, notes.owner);
  }

  /** True when it was done; false, with a note, when it was refused. */
  async #attempt(change: Promise<void>, path: string, note: string): Promise<boolean> {
    try {
      await change;
      return true;
    } catch (error) {
      if (!REFUSED.has((error as NodeJS.ErrnoException).code ?? '')) throw failed(path, error);
      this.#note(note);
      return false;
    }
  }
}

function failed(path: string, cause: unknown): IoError {
  return new IoError(`${path} cannot be given its attributes`, { destination: path }, cause);
}

function times(stat: Stat): [accessed: number | string, modified: number | string] {
  return [utime(stat.accessed ?? stat.modified), utime(stat.modified)];
}

/**
 * A guest's time as Node's `utimes` takes it, down to the microsecond (libuv sets no nanoseconds). Half a microsecond is added
 * away from zero, since libuv cuts a double off and would else land a microsecond short; times before 1970 go as text, since
 * Node takes a negative number for "now".
 */
export function utime(time: Timestamp | undefined): number | string {
  if (time === undefined) return 0;
  const micros = Math.floor(time.nanoseconds / 1000);
  if (micros === 0) return time.seconds < 0 ? String(time.seconds) : time.seconds;
  const seconds = time.seconds + (micros + (time.seconds < 0 ? -0.5 : 0.5)) / 1e6;
  return seconds < 0 ? String(seconds) : seconds;
}

/** Permission bits to set. Set-id bits only together with the owner they were meant for. */
export function modeToSet(stat: Stat, ownerCarried: boolean): number | undefined {
  return stat.mode === undefined ? undefined : stat.mode & (ownerCarried ? 0o7777 : 0o1777);
}

/**
 * Folders for files on their way into a drag. Each run has one of its own (0700, fresh random name) in the system's folder for
 * temporary files; its name carries the process id, so that the next start can remove what a crash left behind.
 */
import { chmod, lstat, mkdir, mkdtemp, readdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { warn } from './log.ts';
import { isAlive } from './process-alive.ts';

const prefix = 'chainlift-drag-';
const ownName = /^chainlift-drag-(\d{1,10})-[A-Za-z0-9]{6}$/;

export class StagingArea {
  readonly #temporary: string;
  #root: Promise<string> | undefined;
  #count = 0;

  /** `temporary` is the system's folder for temporary files. */
  constructor(temporary: string) {
    this.#temporary = temporary;
  }

  /** A new empty folder, private to this user. */
  async make(): Promise<string> {
    this.#count++;
    const name = String(this.#count);
    // mkdtemp makes 0700 and fails rather than take a folder that somebody else put there.
    this.#root ??= mkdtemp(join(this.#temporary, `${prefix}${process.pid}-`)).catch((error: unknown) => {
      this.#root = undefined;
      throw error;
    });
    const folder = join(await this.#root, name);
    await mkdir(folder, { mode: 0o700 });
    return folder;
  }

  /** Bytes that can still be written where staging happens. */
  async room(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#temporary);
    return bavail * bsize;
  }

  /** Removes everything this run has staged. */
  async remove(): Promise<void> {
    const root = this.#root;
    this.#root = undefined;
    if (root !== undefined) await removeTree(await root);
  }

  /** Removes what runs that are no longer there left behind. Touches nothing that is not this user's own folder. */
  async removeStale(alive: (pid: number) => boolean = isAlive): Promise<void> {
    for (const name of await readdir(this.#temporary)) {
      const match = ownName.exec(name);
      if (match === null || Number(match[1]) === process.pid || alive(Number(match[1]))) continue;
      const path = join(this.#temporary, name);
      const stat = await lstat(path).catch(() => undefined); // Gone in the meantime.
      if (stat?.isDirectory() !== true || (process.getuid !== undefined && stat.uid !== process.getuid())) continue;
      await removeTree(path);
    }
  }
}

/** Removes a folder with everything in it, also where guest permissions were kept that don't let its owner. */
export async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    try {
      if (code !== 'EACCES' && code !== 'EPERM') throw error;
      await openFolders(path);
      await rm(path, { recursive: true, force: true });
    } catch (last) {
      warn(`${path} could not be removed: ${last instanceof Error ? last.message : String(last)}`);
    }
  }
}

/** Gives the owner every right on a folder and those below it. Links are not followed. */
async function openFolders(path: string): Promise<void> {
  await chmod(path, 0o700);
  for (const entry of await readdir(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await openFolders(join(path, entry.name));
  }
}

/**
 * What an image names (its parent, its extents, its data file) is untrusted: it is looked for inside the folder that the
 * user opened and nowhere else. A Confinement is that folder. It resolves recorded names to files inside it, and refuses by
 * name whatever leaves it, be it by `..`, by an absolute path or by a symbolic link.
 *
 * Absolute names are common and honest (`/vmfs/volumes/<uuid>/sql/sql.vmdk`, `[datastore1] sql/sql.vmdk`, `C:\VMs\a.vmdk`): they
 * describe the place the backup came from. They are matched by their last components inside the folder, never opened.
 */
import { realpathSync, statSync } from 'node:fs';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { DeniedError, IoError, NotFoundError } from '../errors.ts';
import type { Archive, OpenFile } from './archive/archive.ts';
import { openArchive } from './archive/open-archive.ts';
import { LocalFile } from './local-file.ts';

export interface ConfinementOptions {
  readonly synchronous?: boolean;
  /**
   * Parents that the user pointed at, by the real path of the child: real paths, which may lie outside the folder. Only these
   * files and what lies beside them are reached through it.
   */
  readonly located?: ReadonlyMap<string, string>;
}

export class Confinement {
  /** Real path of the folder. */
  readonly root: string;
  readonly options: ConfinementOptions;
  /** Mounted archives by the real path of their file; undefined for files that turned out to be none. */
  readonly #archives = new Map<string, Archive | undefined>();
  readonly #mounting = new Map<string, Promise<Archive | undefined>>();
  /** Folders of located parents, by their real path. */
  readonly #beside = new Map<string, Confinement>();

  /** @throws IoError when the folder does not exist. */
  constructor(folder: string, options: ConfinementOptions = {}) {
    try {
      this.root = realpathSync(folder);
    } catch (error) {
      throw new IoError(`${folder} cannot be opened`, { source: folder }, error);
    }
    this.options = options;
  }

  /**
   * Makes the members of an archive of this folder files below it. Costs reading its index, once.
   * @returns undefined when the file is no archive. @throws CorruptError, UnsupportedError, IoError, DeniedError.
   */
  async mount(path: string): Promise<Archive | undefined> {
    const real = this.realPath(path);
    if (this.#archives.has(real)) return this.#archives.get(real);
    let mounting = this.#mounting.get(real);
    if (mounting === undefined) {
      mounting = this.#mount(real).finally(() => this.#mounting.delete(real));
      this.#mounting.set(real, mounting);
    }
    return mounting;
  }

  async #mount(real: string): Promise<Archive | undefined> {
    const file = LocalFile.open(real, { ...this.#reading, name: this.label(real) });
    const archive = await openArchive(file);
    if (archive === undefined) await file.close();
    this.#archives.set(real, archive);
    return archive;
  }

  /**
   * Mounts the archive that `path` leads through, if it does and it is not yet mounted: `web01.ova/disk1.vmdk`. Call it before
   * what takes a path from outside. @throws as `mount`; a path that leads nowhere is left to whoever opens it.
   */
  async mountAbove(path: string): Promise<void> {
    refuseNul(path);
    for (let at = dirname(resolve(this.root, path)); this.#inside(at) && at !== this.root; at = dirname(at)) {
      if (!isFile(at, this.label(at))) continue;
      await this.mount(at);
      return;
    }
  }

  /** The mounted archive that `path` lies in, and the rest of the path; undefined for ordinary files. */
  archiveOf(path: string): { readonly archive: Archive; readonly member: string } | undefined {
    if (this.#archives.size === 0) return undefined;
    const whole = resolve(this.root, path);
    for (let at = dirname(whole); at.length > this.root.length; at = dirname(at)) {
      const archive = this.#archives.get(at);
      if (archive !== undefined) return { archive, member: relative(at, whole).split(sep).join('/') };
    }
    return undefined;
  }

  /** The parent that the user pointed at for the image at `child` (a real path), and the folder that confines it. */
  locatedParent(child: string): { readonly path: string; readonly folder: Confinement } | undefined {
    const path = this.options.located?.get(child);
    if (path === undefined) return undefined;
    if (this.#inside(path)) return { path, folder: this };
    const place = dirname(path);
    let folder = this.#beside.get(place);
    if (folder === undefined) {
      folder = new Confinement(place, this.options);
      this.#beside.set(place, folder);
    }
    return { path, folder };
  }

  /** Closes mounted archives. Files opened from them can't be read any more. */
  async close(): Promise<void> {
    const archives = [...this.#archives.values()];
    this.#archives.clear();
    await Promise.all([
      ...archives.map((archive) => archive?.close()),
      ...[...this.#beside.values()].map((folder) => folder.close()),
    ]);
    this.#beside.clear();
  }

  get #reading(): { synchronous?: boolean } {
    return this.options.synchronous === undefined ? {} : { synchronous: this.options.synchronous };
  }

  /** The path relative to the root, with forward slashes: what reports and errors call a file. */
  label(path: string): string {
    const inside = relative(this.root, path);
    return (inside === '' ? basename(path) : inside).split(sep).join('/');
  }

  /** True when `path`, as it stands, is the root or below it. */
  #inside(path: string): boolean {
    const rest = relative(this.root, path);
    return rest === '' || !(rest === '..' || rest.startsWith(`..${sep}`) || isAbsolute(rest));
  }

  /**
   * The real path of `path` if it exists inside the folder. @throws DeniedError when it (or what it links to) lies outside,
   * IoError when it does not exist.
   */
  realPath(path: string): string {
    refuseNul(path);
    const whole = resolve(this.root, path);
    if (!this.#inside(whole)) throw this.#leaves(path, whole);
    let real: string;
    try {
      real = realpathSync(whole);
    } catch (error) {
      const member = this.#member(whole);
      if (member !== undefined) return member;
      throw new IoError(`${this.label(whole)} cannot be opened`, { source: this.label(whole) }, error);
    }
    if (!this.#inside(real)) throw this.#leaves(path, real);
    return real;
  }

  #leaves(path: string, target: string): DeniedError {
    return new DeniedError(`"${path}"`, 'it leaves the opened folder', { path, target, root: this.root });
  }

  /** The path itself when it is that of a member of a mounted archive. */
  #member(whole: string): string | undefined {
    const inside = this.archiveOf(whole);
    return inside?.archive.member(inside.member) === undefined ? undefined : whole;
  }

  /** Opens a file of the folder, or a member of a mounted archive in it. @throws DeniedError, IoError. */
  open(path: string): OpenFile {
    const real = this.realPath(path);
    const inside = this.archiveOf(real);
    if (inside !== undefined) return inside.archive.open(inside.member, this.label(real));
    return LocalFile.open(real, { ...this.#reading, name: this.label(real) });
  }

  /**
   * Finds the file that a name recorded inside `fromFile` means: relative names beside that file (with backslashes as part of
   * the name, and if there is no such file as separators); absolute names (POSIX, datastore, Windows, UNC) by their last
   * component beside that file, then by their last two below the root, then by their last there.
   *
   * @returns the real path. @throws DeniedError when a relative name leaves the folder, NotFoundError when there is no such
   * file, IoError when it can't be told.
   */
  resolveRecorded(recorded: string, fromFile: string): string {
    refuseNul(recorded);
    const folder = dirname(fromFile);
    const parts = splitRecorded(recorded);
    const last = parts.names.at(-1);
    if (last === undefined) throw new NotFoundError(`"${recorded}"`, { recorded });
    const candidates = parts.absolute
      ? [join(folder, last), join(this.root, ...parts.names.slice(-2)), join(this.root, last)]
      : [resolve(folder, ...parts.names), resolve(folder, ...components(recorded.replaceAll('\\', '/')))];
    for (const candidate of candidates) {
      if (!parts.absolute && !this.#inside(candidate)) throw this.#leaves(recorded, candidate);
      if (!this.#inside(candidate)) continue;
      if (isFile(candidate, this.label(candidate)) || this.#member(candidate) !== undefined) {
        return this.realPath(candidate);
      }
    }
    throw new NotFoundError(`"${recorded}"`, { recorded, lookedIn: this.label(folder) });
  }
}

/** What a recorded name can't mean: nothing there, a file where a folder should be, a name no file can have, links in a ring. */
const NO_SUCH_FILE = new Set(['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'ELOOP', 'EINVAL']);

function isFile(path: string, label: string): boolean {
  try {
    return statSync(path).isFile();
  } catch (error) {
    if (NO_SUCH_FILE.has((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw new IoError(`${label} cannot be looked at`, { source: label }, error);
  }
}

function refuseNul(recorded: string): void {
  if (recorded.includes('\0')) throw new DeniedError(JSON.stringify(recorded), 'the name holds a NUL', { recorded });
}

/** A recorded name's components, whatever system wrote it; `absolute` when it names a place of that system. */
export function splitRecorded(recorded: string): { names: string[]; absolute: boolean } {
  const datastore = /^\[[^\]]*\]\s*(.*)$/.exec(recorded);
  if (datastore !== null) return { names: components(datastore[1] ?? ''), absolute: true };
  const absolute = /^([A-Za-z]:[\\/]|[\\/])/.test(recorded);
  // A backslash is a separator only where a Windows host wrote it; on a POSIX host it is part of the name.
  const windows = /^([A-Za-z]:[\\/]|\\\\|\.{1,2}\\)/.test(recorded);
  return { names: components(windows ? recorded.replaceAll('\\', '/') : recorded), absolute };
}

function components(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}

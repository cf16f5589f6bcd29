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
import { CancelledError, DeniedError, IoError, NotFoundError } from '../errors.ts';
import type { Archive, ArchiveOptions, OpenFile } from './archive/archive.ts';
import { openArchive } from './archive/open-archive.ts';
import { isBlockDevice } from './block-device.ts';
import { LocalFile } from './local-file.ts';

export interface ConfinementOptions {
  readonly synchronous?: boolean;
  /**
   * Parents that the user pointed at, by the real path of the child: real paths, which may lie outside the folder. Only these
   * files and what lies beside them are reached through it.
   */
  readonly located?: ReadonlyMap<string, string>;
  /**
   * A private folder in which indexes of compressed archives are kept. Without it they live as long as this object, and are made
   * anew, by reading the whole archive, the next time.
   */
  readonly cacheFolder?: string;
}

export class Confinement {
  /** Real path of the folder; of a block device where that is all there is (`isDevice`). */
  readonly root: string;
  readonly options: ConfinementOptions;
  #device: boolean | undefined;
  /** Mounted archives by the real path of their file. */
  readonly #archives = new Map<string, Archive>();
  readonly #mounting = new Map<string, Promise<Archive | undefined>>();
  /** For the folder of a located parent: what it stands in for, where its own parents may have stayed. */
  readonly #standsFor: { readonly folder: Confinement; readonly child: string } | undefined;
  /** Folders of located parents, by their real path. */
  readonly #beside = new Map<string, Confinement>();

  /** @throws IoError when the folder does not exist. */
  constructor(
    folder: string,
    options: ConfinementOptions = {},
    standsFor?: { readonly folder: Confinement; readonly child: string },
  ) {
    this.#standsFor = standsFor;
    try {
      this.root = realpathSync(folder);
    } catch (error) {
      throw new IoError(`${folder} cannot be opened`, { source: folder }, error);
    }
    this.options = options;
  }

  /**
   * Makes the members of an archive of this folder files below it. Costs reading its index, once; of a compressed one, reading all
   * of it. An archive inside an archive is mounted by its path there.
   * @returns undefined when the file is no archive. @throws CorruptError, UnsupportedError, IoError, DeniedError, CancelledError.
   */
  async mount(path: string, options: ArchiveOptions = {}): Promise<Archive | undefined> {
    const real = this.realPath(path);
    for (;;) {
      const known = this.#archives.get(real);
      if (known !== undefined) return known;
      let mounting = this.#mounting.get(real);
      const own = mounting === undefined;
      if (mounting === undefined) {
        mounting = this.#mount(real, options).finally(() => this.#mounting.delete(real));
        this.#mounting.set(real, mounting);
      }
      try {
        return await mounting;
      } catch (error) {
        // Whoever was first gave up; that is no reason for others.
        if (own || !(error instanceof CancelledError)) throw error;
      }
    }
  }

  async #mount(real: string, options: ArchiveOptions): Promise<Archive | undefined> {
    const file = this.open(real);
    const { cacheFolder } = this.options;
    const identity = cacheFolder === undefined ? undefined : this.#identity(real);
    const archive = await openArchive(file, {
      ...options,
      cache: cacheFolder === undefined || identity === undefined ? undefined : { folder: cacheFolder, identity },
    });
    if (archive === undefined) await file.close();
    else this.#archives.set(real, archive);
    return archive;
  }

  /** What tells a file, or a member of an archive, in its present state from every other. */
  #identity(real: string): string {
    const inside = this.archiveOf(real);
    if (inside !== undefined) {
      const member = inside.archive.member(inside.member);
      return [this.#identity(inside.archive.path), inside.member, member?.position, member?.size].join('\0');
    }
    try {
      const { dev, ino, size, mtimeNs, ctimeNs } = statSync(real, { bigint: true });
      return [real, dev, ino, size, mtimeNs, ctimeNs].join('\0');
    } catch (error) {
      throw new IoError(`${this.label(real)} cannot be looked at`, { source: this.label(real) }, error);
    }
  }

  /**
   * Mounts the archives that `path` leads through, if it does and they are not yet mounted: `web01.ova/disk1.vmdk`. Call it before
   * what takes a path from outside. @throws as `mount`; a path that leads nowhere is left to whoever opens it.
   */
  async mountAbove(path: string, options: ArchiveOptions = {}): Promise<void> {
    refuseNul(path);
    const whole = resolve(this.root, path);
    for (let at = dirname(whole); this.#inside(at) && at !== this.root; at = dirname(at)) {
      if (!isFile(at, this.label(at))) continue;
      const through = { ...options, compressed: true };
      await this.mount(at, through);
      await this.#mountInside(at, whole, through);
      return;
    }
  }

  /** Mounts members of the archive at `outer` that `path` leads through: a compressed disk in an OVA. */
  async #mountInside(outer: string, path: string, options: ArchiveOptions): Promise<void> {
    const names = relative(outer, path).split(sep);
    let at = outer;
    for (const name of names.slice(0, -1)) {
      at = join(at, name);
      const inside = this.archiveOf(at);
      if (inside?.archive.member(inside.member)?.kind === 'file') await this.mount(at, options);
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
      folder = new Confinement(place, this.options, { folder: this, child });
      this.#beside.set(place, folder);
    }
    return { path, folder };
  }

  /**
   * Where else a name recorded in this folder may be: a parent that was moved alone has its own parent where it was before.
   * Undefined for every folder but that of a located parent.
   */
  get before(): { readonly folder: Confinement; readonly from: string } | undefined {
    return this.#standsFor === undefined ? undefined : { folder: this.#standsFor.folder, from: this.#standsFor.child };
  }

  /** Closes mounted archives. Files opened from them can't be read any more. */
  async close(): Promise<void> {
    const archives = [...this.#archives.values()];
    this.#archives.clear();
    await Promise.all([
      ...archives.map((archive) => archive.close()),
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
    return inside?.archive.has(inside.member) === true ? whole : undefined;
  }

  /** Opens a file of the folder, or a member of a mounted archive in it. @throws DeniedError, IoError. */
  open(path: string): OpenFile {
    const real = this.realPath(path);
    const inside = this.archiveOf(real);
    if (inside !== undefined) return inside.archive.open(inside.member, this.label(real));
    return LocalFile.open(real, { ...this.#reading, name: this.label(real), device: this.isDevice });
  }

  /** The "folder" is a block device that the user named: nothing is reached through it but the device itself. */
  get isDevice(): boolean {
    this.#device ??= isBlockDevice(this.root);
    return this.#device;
  }

  /**
   * Finds the file that a name recorded inside `fromFile` means: relative names beside that file (with backslashes as part of
   * the name, and if there is no such file as separators); absolute names (POSIX, datastore, Windows, UNC) by their last
   * component beside that file, then by their last two below the root, then by their last there. A file that was compressed (see
   * `mountRecorded`) is found as the member of its archive.
   *
   * @returns the real path. @throws DeniedError when a relative name leaves the folder, NotFoundError when there is no such
   * file, IoError when it can't be told.
   */
  resolveRecorded(recorded: string, fromFile: string): string {
    for (const candidate of this.#candidates(recorded, fromFile)) {
      if (this.#exists(candidate)) return this.realPath(candidate);
      const compressed = join(`${candidate}.gz`, basename(candidate));
      if (this.#member(compressed) !== undefined) return compressed;
    }
    throw new NotFoundError(`"${recorded}"`, { recorded, lookedIn: this.label(this.#placeOf(fromFile)) });
  }

  /**
   * Where a name recorded inside `fromFile` leads to no file, but to one that was compressed since (`base.qcow2.gz`), mounts that.
   * Call it before `resolveRecorded` for what may be large. @throws as `resolveRecorded` for names that leave the folder, and as `mount`.
   */
  async mountRecorded(recorded: string, fromFile: string, options: ArchiveOptions = {}): Promise<void> {
    for (const candidate of this.#candidates(recorded, fromFile)) {
      if (this.#exists(candidate)) return;
      if (!this.#exists(`${candidate}.gz`)) continue;
      await this.mount(`${candidate}.gz`, options);
      return;
    }
  }

  #exists(path: string): boolean {
    return isFile(path, this.label(path)) || this.#member(path) !== undefined;
  }

  /** The folder that a file's names are relative to: of a compressed file its archive's. */
  #placeOf(file: string): string {
    let at = file;
    for (let inside = this.archiveOf(at); inside?.archive.kind === 'gzip'; inside = this.archiveOf(at)) {
      at = inside.archive.path;
    }
    return dirname(at);
  }

  /** Paths that a recorded name may mean, the likeliest first. @throws DeniedError, NotFoundError for no name at all. */
  *#candidates(recorded: string, fromFile: string): Generator<string> {
    refuseNul(recorded);
    const folder = this.#placeOf(fromFile);
    const parts = splitRecorded(recorded);
    const last = parts.names.at(-1);
    if (last === undefined) throw new NotFoundError(`"${recorded}"`, { recorded });
    const candidates = parts.absolute
      ? [join(folder, last), join(this.root, ...parts.names.slice(-2)), join(this.root, last)]
      : [resolve(folder, ...parts.names), resolve(folder, ...components(recorded.replaceAll('\\', '/')))];
    for (const candidate of candidates) {
      if (!parts.absolute && !this.#inside(candidate)) throw this.#leaves(recorded, candidate);
      if (this.#inside(candidate)) yield candidate;
    }
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

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
import { LocalFile, type LocalFileOptions } from './local-file.ts';

export class Confinement {
  /** Real path of the folder. */
  readonly root: string;
  readonly #options: LocalFileOptions;

  /** @throws IoError when the folder does not exist. */
  constructor(folder: string, options: { synchronous?: boolean } = {}) {
    try {
      this.root = realpathSync(folder);
    } catch (error) {
      throw new IoError(`${folder} cannot be opened`, { source: folder }, error);
    }
    this.#options = options;
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
      throw new IoError(`${this.label(whole)} cannot be opened`, { source: this.label(whole) }, error);
    }
    if (!this.#inside(real)) throw this.#leaves(path, real);
    return real;
  }

  #leaves(path: string, target: string): DeniedError {
    return new DeniedError(`"${path}"`, 'it leaves the opened folder', { path, target, root: this.root });
  }

  /** Opens a file of the folder. @throws DeniedError, IoError. */
  open(path: string): LocalFile {
    const real = this.realPath(path);
    return LocalFile.open(real, { ...this.#options, name: this.label(real) });
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
      if (!this.#inside(candidate) || !isFile(candidate, this.label(candidate))) continue;
      return this.realPath(candidate);
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

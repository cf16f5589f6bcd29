/** From the rows that a copy was asked for to what is copied, and the words for it. */
import { realpathSync } from 'node:fs';
import { basename, dirname, join, relative, sep } from 'node:path';
import type { CopyProblem, CopyRequest } from '../../../preload/api.ts';
import { ChainliftError, IoError, throwIfCancelled, toWireError } from '../errors.ts';
import { type CopySource, splitVmPath } from '../restore/source.ts';
import { Breather } from '../task/breather.ts';
import type { TaskContext } from '../task/task.ts';
import type { OpenPoint, PointLocation } from './open-point.ts';

/** Selected rows that could not be found, listed in a result; as many as copy's own lists hold. */
const MAX_PROBLEMS = 1000;

/**
 * What a copy is of. One selected row that can't be found or read is a problem in the result and leaves the others alone.
 * @throws the first row's error when no row is left.
 */
export async function findSources(point: OpenPoint, request: CopyRequest, task: TaskContext) {
  const sources: CopySource[] = [];
  const problems: CopyProblem[] = [];
  let first: ChainliftError | undefined;
  const breather = new Breather();
  for (const path of request.paths) {
    throwIfCancelled(task.signal, 'The copy');
    if (breather.due) await breather.breathe();
    try {
      const { volume, inside } = splitVmPath(path);
      const fileSystem = await point.fileSystem(volume);
      const entry = await fileSystem.entry(inside);
      const name = request.name ?? (entry.name || volume);
      sources.push({ path: path.replace(/(?<=.)\/+$/, ''), fileSystem, entry, name });
    } catch (error) {
      if (!(error instanceof ChainliftError)) throw error;
      first ??= error;
      if (problems.length < MAX_PROBLEMS) problems.push({ path, error: toWireError(error) });
    }
  }
  if (sources.length === 0 && first !== undefined) throw first;
  return { sources, problems };
}

/** Names that a task's title lists. The title is in every report of the task; a selection may have 250,000 rows. */
const MAX_TITLE_NAMES = 3;

/** A copy's title, as a person would say it: `Copy www, etc to /root/Desktop`. */
export function copyTitle({ paths, destination }: CopyRequest): string {
  const names = paths.slice(0, MAX_TITLE_NAMES).map((path) => basename(path));
  const more = paths.length - names.length;
  return `Copy ${names.join(', ')}${more === 0 ? '' : ` and ${more.toLocaleString('en')} more`} to ${destination}`;
}

/** What a backup is made of, by its ending. */
const partOfBackup = /\.(vmx|vmxf|vmsd|vmsn|vmss|vmem|nvram|vmdk|vhdx?|avhdx?|qcow2?|vdi|img|raw|ova|xva)$/i;

/**
 * Tells the files that make up the opened backup: in its folder or below, with the ending of an image or of a VM's file, or the very
 * image that was opened. A guest may have a file of the same name, and a person may copy into the backup's own folder.
 */
export function isOfBackup(location: PointLocation): (path: string) => boolean {
  const leaves = new Set(location.disks.map(({ path }) => path));
  return (path) => {
    // Of the folder alone: a link of that name is itself what would be replaced, not what it leads to.
    const real = join(realFolder(dirname(path)), basename(path));
    const inside = relative(location.folder.root, real);
    if (inside === '..' || inside.startsWith(`..${sep}`)) return false;
    return leaves.has(real) || partOfBackup.test(real);
  };
}

function realFolder(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw new IoError(`The destination ${path} cannot be looked at`, { destination: path }, error);
  }
}

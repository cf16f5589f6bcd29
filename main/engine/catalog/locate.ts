/**
 * Files that a VM's configuration names by the path of the host it came from. A backup keeps them somewhere else: beside the
 * configuration, in a folder near it, or in a copy of the host's whole tree. They are found by the end of their recorded path
 * among the files of the repository; where that does not decide, none is taken.
 */
import { dirname, join, relative, sep } from 'node:path';
import { DeniedError, NotFoundError } from '../errors.ts';
import { type Confinement, splitRecorded } from '../storage/confinement.ts';
import type { Folder } from './walk.ts';

/** Where the files of a repository are, by their name in lower case: built once for a scan. */
export type FileIndex = ReadonlyMap<string, readonly string[]>;

export function indexFiles(folders: readonly Folder[]): FileIndex {
  const byName = new Map<string, string[]>();
  for (const { path, files } of folders) {
    for (const file of files) {
      const name = file.slice(file.lastIndexOf('/') + 1).toLowerCase();
      const real = join(path, file);
      const known = byName.get(name);
      if (known === undefined) byName.set(name, [real]);
      else known.push(real);
    }
  }
  return byName;
}

/**
 * The name by which the file that `recorded` means is found from the file at `from`: `recorded` itself where
 * `Confinement.resolveRecorded` finds it or nothing does, else a path relative to that file's folder.
 * @param home folder of the VM: below it, the file's name alone is enough. @throws IoError when it can't be told.
 */
export function locateRecorded(
  recorded: string,
  from: string,
  home: string,
  files: FileIndex,
  folder: Confinement,
): string {
  if (recorded.includes('\0')) return recorded;
  const names = namesOf(recorded);
  const last = names.at(-1);
  if (last === undefined) return recorded;
  // The whole tail of the recorded path says more than the name alone, which is what resolveRecorded goes by.
  const candidates = (files.get(last.toLowerCase()) ?? []).map((path) => ({
    path,
    tail: commonTail(names, relative(folder.root, path).split(sep)),
    near: isBelow(path, home),
  }));
  const best = bestOf(candidates.filter(({ near, tail }) => near || tail >= 2));
  const resolved = resolvedBy(folder, recorded, from);
  if (best === undefined || best === resolved) return recorded;
  if (resolved !== undefined && dirname(resolved) === dirname(from)) return recorded;
  const place = relative(dirname(from), best).split(sep).join('/');
  return place.startsWith('.') ? place : `./${place}`;
}

function namesOf(recorded: string): string[] {
  // A path of a Windows host that begins with a name and not with a drive has its separators all the same.
  const { names } = splitRecorded(recorded);
  return names.length === 1 && recorded.includes('\\') ? recorded.split(/[\\/]/).filter((part) => part !== '') : names;
}

function resolvedBy(folder: Confinement, recorded: string, from: string): string | undefined {
  try {
    return folder.resolveRecorded(recorded, from);
  } catch (error) {
    // That it leaves the folder is told where the disk is opened.
    if (error instanceof NotFoundError || error instanceof DeniedError) return undefined;
    throw error;
  }
}

interface Candidate {
  readonly path: string;
  readonly tail: number;
  readonly near: boolean;
}

/** The one that agrees in most of its path, those near the VM before others; undefined where two agree as well. */
function bestOf(candidates: readonly Candidate[]): string | undefined {
  const rank = ({ near, tail }: Candidate): number => (near ? 1_000 : 0) + tail;
  const top = Math.max(0, ...candidates.map(rank));
  const first = candidates.filter((candidate) => rank(candidate) === top);
  return first.length === 1 ? first[0]!.path : undefined;
}

function commonTail(a: readonly string[], b: readonly string[]): number {
  let count = 0;
  while (
    count < a.length &&
    count < b.length &&
    a[a.length - 1 - count]!.toLowerCase() === b[b.length - 1 - count]!.toLowerCase()
  ) {
    count++;
  }
  return count;
}

/** True when `path` is `folder` or below it. */
export function isBelow(path: string, folder: string): boolean {
  const rest = relative(folder, path);
  return rest === '' || !(rest === '..' || rest.startsWith(`..${sep}`));
}

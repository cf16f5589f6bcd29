/**
 * What a reader learns from all folders of a repository at once, and only once in a scan: the files of one VM of libvirt or Hyper-V
 * lie in several folders, while readers are asked folder by folder.
 */
import type { LayerIndex } from './layers.ts';
import { type FileIndex, indexFiles } from './locate.ts';
import type { Folder } from './walk.ts';

export interface Plan<T> {
  /** What was found, by the real path of the folder in which it is told. */
  readonly byHome: ReadonlyMap<string, readonly T[]>;
  readonly files: FileIndex;
  readonly folders: readonly Folder[];
  /** The same folders by their real path. */
  readonly byPath: ReadonlyMap<string, Folder>;
}

/** @param find reads the folders; each result is told in the folder `home`. */
export function planner<T extends { readonly home: string }>(
  find: (folders: readonly Folder[], index: LayerIndex) => Promise<readonly T[]>,
): (place: Folder, index: LayerIndex, folders: readonly Folder[]) => Promise<Plan<T>> {
  const known = new WeakMap<LayerIndex, { readonly places: ReadonlySet<Folder>; readonly plan: Promise<Plan<T>> }>();
  const make = async (folders: readonly Folder[], index: LayerIndex): Promise<Plan<T>> => {
    const byHome = new Map<string, T[]>();
    for (const machine of await find(folders, index)) {
      const there = byHome.get(machine.home);
      if (there === undefined) byHome.set(machine.home, [machine]);
      else there.push(machine);
    }
    const byPath = new Map(folders.map((folder) => [folder.path, folder]));
    return { byHome, files: indexFiles(folders), folders, byPath };
  };
  return (place, index, folders) => {
    let entry = known.get(index);
    if (entry === undefined) {
      entry = { places: new Set(folders), plan: make(folders, index) };
      known.set(index, entry);
    }
    // An archive that was mounted after the walk is a repository of its own.
    return entry.places.has(place) ? entry.plan : make([place], index);
  };
}

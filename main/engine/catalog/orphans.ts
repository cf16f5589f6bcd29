/**
 * Files in a VM's folder that no point of any VM consists of: what a backup job could not clean up, what was lost from a .vmsd.
 * A file that several VMs use is nobody's orphan.
 */
import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ChainliftError } from '../errors.ts';
import { isChangeTrackingName, isExtentName, isImageName, isStateName, trackedDisk } from './files.ts';
import { standaloneImages } from './images.ts';
import type { LayerIndex } from './layers.ts';
import type { Orphan } from './model.ts';
import type { Folder } from './walk.ts';

/**
 * @param folders those that VMs lie in. @param used real paths of everything that points consist of.
 * @throws CancelledError.
 */
export async function findOrphans(
  folders: readonly Folder[],
  used: ReadonlySet<string>,
  index: LayerIndex,
): Promise<Orphan[]> {
  const left = folders.flatMap(({ path, files }) =>
    files
      .filter((name) => isImageName(name) || isStateName(name))
      .map((name) => join(path, name))
      .filter((file) => !used.has(file)),
  );
  const images = await standaloneImages(
    left.filter((path) => isImageName(path)),
    index,
  );
  const owner = new Map<string, string>();
  const children = new Map<string, string>();
  for (const image of images) {
    for (const file of await index.filesOf(image)) if (file !== image) owner.set(file, image);
    const facts = await index.facts(image);
    const parent = facts instanceof ChainliftError ? undefined : await index.namedParent(facts);
    if (parent !== undefined) children.set(parent, image);
  }
  const standalone = new Set(images);
  const orphans: Orphan[] = [];
  for (const path of left) {
    const bytes = await sizeOf(path, index);
    // Gone since the folder was listed.
    if (bytes === undefined) continue;
    const reason = standalone.has(path)
      ? await imageReason(path, children.get(path), index)
      : otherReason(path, owner.get(path), used, index);
    if (reason !== undefined) orphans.push({ file: index.folder.label(path), bytes, reason });
  }
  return orphans;
}

async function imageReason(path: string, child: string | undefined, index: LayerIndex): Promise<string> {
  const { layers, error } = await index.chain(path);
  const base = layers[1];
  const stands = base === undefined ? '' : `; it stands on ${basename(base.path)}`;
  const carries = child === undefined ? '' : `; ${basename(child)}, which no point uses either, stands on it`;
  const opens = error === undefined ? 'It can be opened by itself.' : `It can't be opened: ${error.message}.`;
  return `No point of any VM uses this image${stands}${carries}. ${opens}`;
}

/** Why a file that is no image by itself is an orphan; undefined when it is none. */
function otherReason(
  path: string,
  owner: string | undefined,
  used: ReadonlySet<string>,
  index: LayerIndex,
): string | undefined {
  const name = basename(path);
  if (isChangeTrackingName(name)) {
    const disk = trackedDisk(name);
    return used.has(join(dirname(path), disk))
      ? undefined
      : `The map of changed blocks of ${disk}, which no point uses; it holds no content.`;
  }
  if (owner !== undefined) return `Belongs to ${index.folder.label(owner)}, which no point uses.`;
  if (isStateName(name)) {
    return /\.zip$/i.test(name)
      ? 'Written by VSS writers for a snapshot that no .vmsd lists.'
      : 'The saved state of a snapshot or a suspension that no VM file lists.';
  }
  return isExtentName(name)
    ? 'An extent that no descriptor names; the descriptor may be lost, and can be written anew.'
    : 'No VM file and no image names this file.';
}

async function sizeOf(path: string, { folder }: LayerIndex): Promise<number | undefined> {
  const inside = folder.archiveOf(path);
  if (inside !== undefined) return inside.archive.member(inside.member)?.size;
  try {
    return (await stat(path)).size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

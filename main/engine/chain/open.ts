/**
 * From a leaf image to its chain. Each link is a claim: it is looked for only inside the opened folder, and the file found must
 * have the identity that the child recorded. What does not fit is refused with the recorded name; nothing is guessed.
 */
import { ChainliftError, CorruptError, DeniedError, IoError, MissingParentError, NotFoundError } from '../errors.ts';
import { imagePath, openLayer } from '../image/formats.ts';
import { type ImageLayer, splitSnapshotPath } from '../image/image.ts';
import type { Confinement } from '../storage/confinement.ts';
import { Disk, type DiskOptions } from './disk.ts';
import { findById } from './find-by-id.ts';

/** Links followed at most. VMware allows 32, QEMU users have met some hundreds. */
export const MAX_DEPTH = 512;

/** A chain as far as it could be followed. */
export interface ChainReport {
  /** From the leaf on. All open; the caller closes them (or gives them to a Disk, which does). */
  readonly layers: readonly ImageLayer[];
  /** Why it ends before its base, when it does. */
  readonly error?: ChainliftError;
}

/**
 * Opens the image at `path` and every parent it can reach. Errors of our families end the walk and are reported, with the layers
 * above them open.
 */
export async function followChain(path: string, folder: Confinement): Promise<ChainReport> {
  const layers: ImageLayer[] = [];
  const visited = new Map<string, ImageLayer>();
  try {
    let next: ParentPlace | undefined = { path: await imagePath(path, folder), folder };
    while (next !== undefined) {
      const place: ParentPlace = next;
      const layer: ImageLayer = await openLayer(place.path, place.folder, place.format);
      layers.push(layer);
      visited.set(place.path, layer);
      const child = layers.at(-2);
      if (child !== undefined) checkLink(child, layer);
      next = layer.parent === undefined ? undefined : await findParent(layer, place.folder);
      if (next !== undefined && visited.has(next.path)) throw loop(layer, visited.get(next.path)!);
      if (layers.length >= MAX_DEPTH && next !== undefined) throw tooDeep(layers[0]!);
    }
    return { layers };
  } catch (error) {
    if (!(error instanceof ChainliftError)) {
      await closeAll(layers);
      throw error;
    }
    // A parent that was opened and turned out to be the wrong one is no part of the chain.
    if (error instanceof MissingParentError && layers.length > 1 && error.details.child !== layers.at(-1)!.name) {
      await layers.pop()!.close();
    }
    return { layers, error };
  }
}

/**
 * Opens the chain under the image at `path` as a disk. @throws MissingParentError, CorruptError, UnsupportedError, IoError,
 * DeniedError; what was opened until then is closed.
 */
export async function openChain(path: string, folder: Confinement, options: DiskOptions = {}): Promise<Disk> {
  const { layers, error } = await followChain(path, folder);
  if (error !== undefined) {
    await closeAll(layers);
    throw error;
  }
  return new Disk(layers, options);
}

async function closeAll(layers: readonly ImageLayer[]): Promise<void> {
  await Promise.all(layers.map((layer) => layer.close()));
}

/** What a link needs of the layer at each of its ends. */
export type LinkEnd = Pick<ImageLayer, 'name' | 'path' | 'parent' | 'id' | 'otherIds' | 'format'>;

/** Where a parent is, what confines it, and the format it must be opened as where its child says so. */
export interface ParentPlace {
  readonly path: string;
  readonly folder: Confinement;
  readonly format?: string;
}

/**
 * The file that `child` names as its parent, or that the user pointed at in its stead.
 * @throws MissingParentError, DeniedError, IoError.
 */
export async function findParent(child: LinkEnd, folder: Confinement): Promise<ParentPlace> {
  const claim = child.parent!;
  const format = claim.format === undefined ? {} : { format: claim.format };
  // A snapshot inside an image has that image's parent, which lies where the image looks for it.
  const from = splitSnapshotPath(child.path)?.image ?? child.path;
  const located = folder.locatedParent(from);
  if (located !== undefined) return { ...located, ...format };
  if (claim.nameless) {
    const path = await findById(child, folder);
    if (path !== undefined) return { path, folder };
    throw missing(child, 'no image in or around its folder has this identity');
  }
  let denied: DeniedError | undefined;
  // A parent that was moved alone has its own parent where it was before.
  const places = [{ folder, from }, ...(folder.before === undefined ? [] : [folder.before])];
  for (const place of places) {
    for (const recorded of [claim.recorded, ...(claim.alternatives ?? [])]) {
      try {
        await place.folder.mountRecorded(recorded, place.from);
        return { path: place.folder.resolveRecorded(recorded, place.from), folder: place.folder, ...format };
      } catch (error) {
        if (error instanceof NotFoundError || (error instanceof IoError && error.details.code === 'ENOENT')) continue;
        // Another of its names, or the other place, may lead to a file of the folder.
        if (!(error instanceof DeniedError)) throw error;
        denied ??= new DeniedError(`The parent "${recorded}" of ${child.name}`, 'it leaves the opened folder', {
          child: child.name,
          recorded,
        });
      }
    }
  }
  throw denied ?? missing(child, 'there is no such file in the opened folder');
}

function missing(child: LinkEnd, reason: string): MissingParentError {
  const { recorded, id } = child.parent!;
  return new MissingParentError({
    child: child.name,
    recorded,
    reason,
    ...(id === undefined ? {} : { expectedId: id }),
  });
}

/** @throws MissingParentError unless `parent` has the identity that `child` recorded. */
export function checkLink(child: LinkEnd, parent: LinkEnd): void {
  const claim = child.parent!;
  if (claim.id === undefined || claim.id === parent.id || parent.otherIds?.includes(claim.id)) return;
  if (parent.id !== undefined && claim.alternativeIds?.includes(parent.id)) return;
  throw new MissingParentError({
    child: child.name,
    recorded: claim.recorded,
    reason: `${parent.name} has the content id ${parent.id ?? 'none'}, and ${claim.id} was recorded; it was changed after this link was made, or is another disk`,
    expectedId: claim.id,
    ...(parent.id === undefined ? {} : { foundId: parent.id }),
    candidate: parent.name,
  });
}

/** The error for a chain in which the parent of `child` is `again`, which is above it. */
export function loop(child: LinkEnd, again: LinkEnd): CorruptError {
  return new CorruptError('Chain', {
    source: child.name,
    expected: 'a parent further down',
    found: `${again.name}, which is above it: the chain is a loop`,
  });
}

/** The error for a chain of more than `MAX_DEPTH` layers. */
export function tooDeep(leaf: LinkEnd): CorruptError {
  return new CorruptError('Chain', { source: leaf.name, expected: `at most ${MAX_DEPTH} layers`, found: 'more' });
}

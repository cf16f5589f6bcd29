/**
 * Images that no VM file describes, put together by their own links. Images that are linked to each other are one VM; every
 * layer is a point, for each can be opened as a leaf; the present state is the leaf, where there is only one.
 */
import { basename, dirname } from 'node:path';
import { CancelledError, ChainliftError } from '../errors.ts';
import { detectFormat } from '../image/formats.ts';
import { readDescriptor } from '../image/vmdk/vmdk-layer.ts';
import { folderLabel } from './drafts.ts';
import { imageStem, isChangeTrackingName, isExtentName } from './files.ts';
import { inHistoryOrder, withLastIntact, withoutLoops } from './history.ts';
import type { LayerIndex } from './layers.ts';
import type { Finding, RestorePoint, VirtualMachine } from './model.ts';
import { changedBytesOf, describeChain } from './point-disks.ts';
import { oneLine } from './text.ts';

/**
 * Of files with names of images, those that are images by themselves: no change tracking, no extents, and nothing that another
 * of them names as its extent.
 */
export async function standaloneImages(paths: readonly string[], index: LayerIndex): Promise<string[]> {
  const images: string[] = [];
  for (const path of paths) {
    if (!isChangeTrackingName(path) && (!isExtentName(path) || (await hasDescriptor(path, index)))) images.push(path);
  }
  const extents = new Set<string>();
  for (const path of images) {
    for (const file of await index.filesOf(path)) if (file !== path) extents.add(file);
  }
  return images.filter((path) => !extents.has(path));
}

/** True when a file with an extent's name is an image all the same: the VM itself is called `x-flat`, say. */
async function hasDescriptor(path: string, index: LayerIndex): Promise<boolean> {
  try {
    const format = await detectFormat(path, index.folder);
    return format?.name === 'vmdk' && (await readDescriptor(path, index.folder)) !== undefined;
  } catch (error) {
    // Damaged or unreadable: an extent, as its name says, and told of as such.
    if (error instanceof ChainliftError && !(error instanceof CancelledError)) return false;
    throw error;
  }
}

/** Puts images together by their links. @param paths real paths of standalone images. */
export async function groupImages(paths: readonly string[], index: LayerIndex): Promise<VirtualMachine[]> {
  const members = new Set(paths);
  const parents = new Map<string, string | undefined>();
  for (const path of paths) {
    const facts = await index.facts(path);
    const parent = facts instanceof ChainliftError ? undefined : await index.namedParent(facts);
    parents.set(path, parent !== undefined && members.has(parent) ? parent : undefined);
  }
  const acyclic = withoutLoops(parents);
  const groups = new Map<string, string[]>();
  const roots = new Map<string, string>();
  for (const path of paths) {
    const root = rootOf(path, acyclic, roots);
    const group = groups.get(root);
    if (group === undefined) groups.set(root, [path]);
    else group.push(path);
  }
  const machines: VirtualMachine[] = [];
  for (const [root, group] of groups) machines.push(await imageMachine(root, group, acyclic, index));
  return machines;
}

/** The chain under one image that the user opened by itself; that image is the present state. */
export async function imageChain(leaf: string, index: LayerIndex): Promise<VirtualMachine> {
  const { layers } = await index.chain(leaf);
  const paths = layers.length === 0 ? [leaf] : layers.map((layer) => layer.path);
  const parents = new Map(paths.map((path, at) => [path, paths[at + 1]]));
  return imageMachine(paths.at(-1)!, paths, parents, index);
}

function rootOf(path: string, parents: ReadonlyMap<string, string | undefined>, known: Map<string, string>): string {
  const trail: string[] = [];
  let at = path;
  for (;;) {
    const root = known.get(at);
    const parent = parents.get(at);
    if (root === undefined && parent !== undefined) {
      trail.push(at);
      at = parent;
      continue;
    }
    const found = root ?? at;
    for (const passed of [...trail, at]) known.set(passed, found);
    return found;
  }
}

async function imageMachine(
  root: string,
  paths: readonly string[],
  parents: ReadonlyMap<string, string | undefined>,
  index: LayerIndex,
): Promise<VirtualMachine> {
  const ids = idsOf(paths, index);
  const inner = new Set(paths.map((path) => parents.get(path)));
  const leaves = paths.filter((path) => !inner.has(path));
  const current = leaves.length === 1 ? leaves[0] : undefined;
  const points: RestorePoint[] = [];
  for (const path of paths) {
    const { disk, findings } = await describeChain({ index: 0 }, path, index);
    const parent = parents.get(path);
    const parentId = parent === undefined ? undefined : ids.get(parent);
    const changedBytes = changedBytesOf([disk]);
    points.push({
      id: ids.get(path)!,
      name: oneLine(basename(path).replace(/\.[^.]+$/, '')) || basename(path),
      ...(parentId === undefined ? {} : { parent: parentId }),
      current: path === current,
      currentParent: current !== undefined && parents.get(current) === path,
      memory: false,
      quiesced: false,
      consistency: { level: 'unknown', evidence: ['no VM file describes this image'] },
      disks: [disk],
      ...(changedBytes === undefined ? {} : { changedBytes }),
      findings,
    });
  }
  const findings: Finding[] = [];
  if (leaves.length > 1) {
    findings.push({
      severity: 'note',
      code: 'several-leaves',
      message: `${leaves.length} images end this chain (${leaves
        .slice(0, 4)
        .map((leaf) => basename(leaf))
        .join(', ')}${leaves.length > 4 ? '...' : ''}); without a .vmx it is not known which the VM used last`,
    });
  }
  return {
    name: oneLine(imageStem(root)),
    origin: 'images',
    folder: folderLabel(dirname(root), index.folder),
    points: withLastIntact(inHistoryOrder(points)),
    findings,
  };
}

/** An id for each image: its file's name, or its whole path where two have one name. */
function idsOf(paths: readonly string[], index: LayerIndex): Map<string, string> {
  const count = new Map<string, number>();
  for (const path of paths) count.set(basename(path), (count.get(basename(path)) ?? 0) + 1);
  return new Map(
    paths.map((path) => [path, count.get(basename(path)) === 1 ? basename(path) : index.folder.label(path)]),
  );
}

/**
 * Images that no VM file describes, put together by their own links. Images that are linked to each other are one VM; every
 * layer is a point, for each can be opened as a leaf, and so is every snapshot inside one; the present state is the leaf, where
 * there is only one.
 */
import { basename, dirname, extname, join } from 'node:path';
import { CancelledError, ChainliftError } from '../errors.ts';
import { detectFormat } from '../image/formats.ts';
import { type InternalSnapshot, snapshotPath } from '../image/image.ts';
import { isDescriptorName } from '../image/parallels/descriptor.ts';
import { readDescriptor } from '../image/vmdk/vmdk-layer.ts';
import { folderLabel } from './drafts.ts';
import { imageStem, isChangeTrackingName, isCompanionName, isExtentName, isImageName } from './files.ts';
import { inHistoryOrder, withLastIntact, withoutLoops } from './history.ts';
import type { LayerIndex } from './layers.ts';
import type { Finding, RestorePoint, VirtualMachine } from './model.ts';
import { changedBytesOf, describeChain } from './point-disks.ts';
import { oneLine } from './text.ts';
import type { Folder } from './walk.ts';

/** Files of one folder that are asked for their content at most, because they are called like an image but for their ending. */
const MAX_OVERLAYS_ASKED = 1_024;
/** Snapshots inside one image that are shown as points; each costs a walk through its tables. */
const MAX_INSIDE = 1_024;

/**
 * Names of a folder's disk images. Besides those whose names say so, the overlays that libvirt calls after the disk and the
 * snapshot (`web01.qcow2` and `web01.before-update`): QCOW2 by their content. @throws CancelledError.
 */
export async function imageNames(place: Folder, index: LayerIndex): Promise<string[]> {
  const images = place.files.filter(isImageName);
  const stems = new Set(images.map(stemOf));
  let asked = 0;
  for (const name of place.files) {
    if (isImageName(name) || isCompanionName(name) || !stems.has(stemOf(name)) || extname(name) === '') continue;
    if (NO_OVERLAY.test(name)) continue;
    if (++asked > MAX_OVERLAYS_ASKED) break;
    if (await isOverlay(join(place.path, name), index)) images.push(name);
  }
  return images;
}

/** Endings of what lies beside disks and is none. */
const NO_OVERLAY =
  /\.(xml|vmx|vmxf|vmsd|vmsn|vmss|vmem|nvram|lck|log|txt|json|iso|vmcx|vmrs|vmgs|bin|vsv|rct|mrt|ovf|mf|cert|gz|xz|zip|vbox|sha\d+|md5)$/i;

/** `web01` for `web01.qcow2` and `web01.before-update`. */
function stemOf(name: string): string {
  return name.slice(0, name.length - extname(name).length);
}

async function isOverlay(path: string, index: LayerIndex): Promise<boolean> {
  try {
    return (await detectFormat(path, index.folder))?.name === 'qcow2';
  } catch (error) {
    // Unreadable, and not known to be an image: no more than any other file of the folder.
    if (error instanceof ChainliftError && !(error instanceof CancelledError)) return false;
    throw error;
  }
}

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
  const inside = await snapshotsOf(paths, ids, index);
  const points: RestorePoint[] = [];
  const findings: Finding[] = [];
  for (const path of paths) {
    const parent = parents.get(path);
    let before = parent === undefined ? undefined : ids.get(parent);
    const snapshots = inside.get(path) ?? [];
    if (snapshots.length > MAX_INSIDE) findings.push(tooManyFinding(path, snapshots.length, index));
    for (const { id, snapshot } of snapshots.slice(0, MAX_INSIDE)) {
      points.push(await snapshotPoint(path, snapshot, id, before, index));
      before = id;
    }
    if (snapshots.length > 1) findings.push(orderFinding(path, snapshots, index));
    const { disk, findings: ofDisk } = await describeChain({ index: 0 }, path, index);
    const changedBytes = changedBytesOf([disk]);
    points.push({
      id: ids.get(path)!,
      name: nameOf(path),
      ...(before === undefined ? {} : { parent: before }),
      current: path === current,
      currentParent: false,
      memory: false,
      quiesced: false,
      consistency: { level: 'unknown', evidence: ['no VM file describes this image'] },
      disks: [disk],
      ...(changedBytes === undefined ? {} : { changedBytes }),
      findings: ofDisk,
    });
  }
  if (leaves.length > 1) {
    findings.push({
      severity: 'note',
      code: 'several-leaves',
      message: `${leaves.length} images end this chain (${leaves
        .slice(0, 4)
        .map((leaf) => basename(leaf))
        .join(', ')}${leaves.length > 4 ? '...' : ''}); without a VM file it is not known which the VM used last`,
    });
  }
  const currentParent = points.find((point) => point.current)?.parent;
  return {
    name: oneLine(imageStem(root)),
    origin: 'images',
    folder: folderLabel(dirname(root), index.folder),
    points: withLastIntact(
      inHistoryOrder(points.map((point) => (point.id === currentParent ? { ...point, currentParent: true } : point))),
    ),
    findings,
  };
}

/** The file's name without the ending of its format; what libvirt appends to a name for a snapshot is part of it. */
function nameOf(path: string): string {
  const name = shownName(path);
  return oneLine(isImageName(name) ? name.replace(/\.[^.]+$/, '') : name) || name;
}

/** Last component of an image's path; of a Parallels disk, whose image is a descriptor that is always called so, its folder's. */
function shownName(path: string): string {
  return basename(isDescriptorName(basename(path)) ? dirname(path) : path);
}

interface InsideSnapshot {
  /** Unique in the VM. */
  readonly id: string;
  readonly snapshot: InternalSnapshot;
}

/** The snapshots inside each image, oldest first, with ids that no image and no other snapshot of the VM has. */
async function snapshotsOf(
  paths: readonly string[],
  ids: ReadonlyMap<string, string>,
  index: LayerIndex,
): Promise<Map<string, InsideSnapshot[]>> {
  const found = new Map<string, readonly InternalSnapshot[]>();
  const count = new Map<string, number>([...ids.values()].map((id) => [id, 1]));
  for (const path of paths) {
    const facts = await index.facts(path);
    const snapshots = facts instanceof ChainliftError ? [] : (facts.snapshots ?? []);
    if (snapshots.length > 0) found.set(path, snapshots);
    for (const { id } of snapshots) count.set(id, (count.get(id) ?? 0) + 1);
  }
  return new Map(
    [...found].map(([path, snapshots]) => [
      path,
      inOrder(snapshots).map((snapshot) => ({
        id: count.get(snapshot.id) === 1 ? snapshot.id : snapshotPath(ids.get(path)!, snapshot.id),
        snapshot,
      })),
    ]),
  );
}

/** By time where every one has one, as they are listed otherwise. */
function inOrder(snapshots: readonly InternalSnapshot[]): readonly InternalSnapshot[] {
  if (snapshots.some(({ created }) => created === undefined)) return snapshots;
  return [...snapshots].sort((a, b) => (a.created! < b.created! ? -1 : a.created! > b.created! ? 1 : 0));
}

async function snapshotPoint(
  image: string,
  snapshot: InternalSnapshot,
  id: string,
  parent: string | undefined,
  index: LayerIndex,
): Promise<RestorePoint> {
  const { disk, findings } = await describeChain({ index: 0 }, snapshotPath(image, snapshot.id), index);
  const changedBytes = changedBytesOf([disk]);
  const memory = snapshot.stateBytes > 0;
  return {
    id,
    name: oneLine(snapshot.name) || snapshot.id,
    ...(snapshot.created === undefined ? {} : { created: snapshot.created }),
    ...(parent === undefined ? {} : { parent }),
    current: false,
    currentParent: false,
    memory,
    quiesced: false,
    consistency: memory
      ? { level: 'memory', evidence: [memoryEvidence(image, snapshot)] }
      : { level: 'unknown', evidence: ['no VM file describes this image', 'the snapshot holds no VM state'] },
    disks: [disk],
    ...(changedBytes === undefined ? {} : { changedBytes }),
    findings,
  };
}

/** What says that a snapshot inside an image was taken with the VM's memory. */
export function memoryEvidence(image: string, snapshot: InternalSnapshot): string {
  const name = oneLine(snapshot.name) || snapshot.id;
  return `snapshot "${name}" in ${basename(image)} holds ${snapshot.stateBytes} bytes of VM state (memory and devices)`;
}

function tooManyFinding(image: string, count: number, index: LayerIndex): Finding {
  const source = index.folder.label(image);
  return {
    severity: 'suspicious',
    code: 'too-many-snapshots',
    message: `${source} holds ${count} snapshots; the first ${MAX_INSIDE} are shown`,
    source,
    structure: 'snapshot table',
    found: count,
  };
}

function orderFinding(image: string, snapshots: readonly InsideSnapshot[], index: LayerIndex): Finding {
  const source = index.folder.label(image);
  return {
    severity: 'note',
    code: 'snapshot-order-by-time',
    message: `The ${snapshots.length} snapshots inside ${source} are shown in the order they were taken; the image does not record which of them was made from which`,
    source,
    structure: 'snapshot table',
  };
}

/** An id for each image: its file's name, or its whole path where two have one name. */
function idsOf(paths: readonly string[], index: LayerIndex): Map<string, string> {
  const count = new Map<string, number>();
  for (const path of paths) count.set(shownName(path), (count.get(shownName(path)) ?? 0) + 1);
  return new Map(
    paths.map((path) => [path, count.get(shownName(path)) === 1 ? shownName(path) : index.folder.label(path)]),
  );
}

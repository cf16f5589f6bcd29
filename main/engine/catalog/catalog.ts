/**
 * What a repository holds: VMs, their points, and what belongs to none. A VM that is broken is shown as far as it can be read,
 * with what is wrong, and never hides another.
 *
 * VMs are read from the files of their hypervisors by `machineReaders`; images that no VM file describes by their own links. No
 * image is opened more than once in a scan, however many points stand on it.
 */
import { basename, join } from 'node:path';
import { snapshotPath } from '../image/image.ts';
import { Confinement } from '../storage/confinement.ts';
import { hypervReader } from './hyperv/machine.ts';
import { groupImages, imageChain, imageNames, standaloneImages } from './images.ts';
import { LayerIndex } from './layers.ts';
import { libvirtReader } from './libvirt/machine.ts';
import type { Catalog, Finding, VirtualMachine } from './model.ts';
import { findOrphans } from './orphans.ts';
import { ovfReader } from './ovf/machine.ts';
import type { MachineReader } from './reader.ts';
import { enterSource, type SourcePlace, sourceOf } from './source.ts';
import { virtualboxReader } from './virtualbox/machine.ts';
import { vmwareReader } from './vmware/machine.ts';
import { type Folder, walk, walkArchive } from './walk.ts';
import { xenServerReader } from './xenserver/machine.ts';

/** Candidates for one missing parent that are told. */
const MAX_CANDIDATES = 8;

/** Readers of VM files, in the order they are asked. */
export const machineReaders: readonly MachineReader[] = [
  vmwareReader,
  ovfReader,
  libvirtReader,
  hypervReader,
  xenServerReader,
  virtualboxReader,
];

export interface ScanOptions {
  /** Read files on the calling thread (command line). */
  readonly synchronous?: boolean;
  readonly signal?: AbortSignal;
  /** Parents that the user pointed at: see `ConfinementOptions.located`. */
  readonly located?: ReadonlyMap<string, string>;
  /** Called with each image as it is read, by its path, and with an archive again and again while its index is made. */
  readonly onImage?: (path: string) => void;
  /** Where indexes of compressed archives are kept: see `ConfinementOptions.cacheFolder`. */
  readonly cacheFolder?: string;
}

/**
 * Reads a repository folder, an archive (an OVA, a XenServer export, a compressed disk), or one image (then that is the leaf, and the
 * folder of its file what confines it). What was opened is closed when that fails, else it belongs to the catalog's `folder`.
 * @throws NotFoundError when there is no such file, UsageError for a .vmx, .vbox and the like, IoError, CancelledError.
 */
export async function scanRepository(source: string, options: ScanOptions = {}): Promise<Catalog> {
  const place = sourceOf(source);
  const folder = new Confinement(place.root, options);
  try {
    return place.kind === 'image' ? await scanImage(place, folder, options) : await scanFolder(place, folder, options);
  } catch (error) {
    await folder.close();
    throw error;
  }
}

async function scanFolder(place: SourcePlace, folder: Confinement, options: ScanOptions): Promise<Catalog> {
  const { signal } = options;
  const index = new LayerIndex(folder, options);
  const limits = { onArchive: (file: string) => options.onImage?.(file) };
  const { folders, findings: walked } = place.plain
    ? await walk(folder, signal, limits)
    : await walkArchive(folder, await enterSource(place, folder, options), signal, limits);

  const vms: VirtualMachine[] = [];
  const used = new Set<string>();
  /** Folders in which a VM's own files say what its images are: what is left over there is an orphan, and no VM of its own. */
  const told: Folder[] = [];
  const untold: Folder[] = [];
  const toldBesides = new Set<string>();
  for (const place of folders) {
    let opened = false;
    for (const reader of machineReaders) {
      for (const scanned of await reader.scan(place, index, folders)) {
        for (const file of scanned.used) used.add(file);
        opened ||= scanned.opened;
        for (const path of scanned.folders ?? []) toldBesides.add(path);
        vms.push(scanned.vm);
      }
    }
    (opened ? told : untold).push(place);
  }
  for (const place of untold) if (toldBesides.has(place.path)) told.push(place);
  const loose: string[] = [];
  for (const place of untold) {
    if (toldBesides.has(place.path)) continue;
    const disks = place.archive === undefined ? [] : place.files.filter((name) => place.archive?.chunks(name));
    const images = [...(await imageNames(place, index)), ...disks].map((name) => join(place.path, name));
    loose.push(...images.filter((file) => !used.has(file)));
  }
  vms.push(...(await groupImages(await standaloneImages(loose, index), index)));
  const orphans = await findOrphans(told, used, index);
  // When every image has been asked for its identity: the orphans, too.
  const named = distinctNames(await Promise.all(vms.map((vm) => withCandidates(withArchive(vm, walked), index))));
  const places = new Set(vms.map(({ folder: place }) => place));
  return {
    source: place.source,
    kind: place.kind,
    name: basename(place.source) || place.source,
    folder,
    vms: named.vms,
    orphans,
    findings: [...walked.filter(({ source }) => source === undefined || !places.has(source)), ...named.findings],
  };
}

/** What is odd about the archive that a VM lies in is odd about the VM: an export that was cut off is no sound backup. */
function withArchive(vm: VirtualMachine, walked: readonly Finding[]): VirtualMachine {
  const own = walked.filter(({ source }) => source === vm.folder);
  return own.length === 0 ? vm : { ...vm, findings: [...own, ...vm.findings] };
}

async function scanImage(place: SourcePlace, folder: Confinement, options: ScanOptions): Promise<Catalog> {
  const { source, snapshot } = place;
  const image = await enterSource(place, folder, options);
  const leaf = snapshot === undefined ? image : snapshotPath(image, snapshot);
  const vm = await imageChain(leaf, new LayerIndex(folder, options));
  return { source, kind: 'image', name: basename(source), folder, vms: [vm], orphans: [], findings: [] };
}

/** Says of each missing parent which images of the repository have its identity: it was moved or renamed. */
async function withCandidates(vm: VirtualMachine, index: LayerIndex): Promise<VirtualMachine> {
  const offer = async (finding: Finding): Promise<Finding> => {
    const { action } = finding;
    if (action?.expectedId === undefined) return finding;
    const candidates = await index.withId(action.expectedId, action.child);
    if (candidates.length === 0) return finding;
    return {
      ...finding,
      action: { ...action, candidates: candidates.slice(0, MAX_CANDIDATES) },
      remedy: `${candidates[0]} has the identity that is looked for; say that it is the parent, or put it in its place.`,
    };
  };
  const points = vm.points.map(async (point) => ({ ...point, findings: await Promise.all(point.findings.map(offer)) }));
  return { ...vm, points: await Promise.all(points), findings: await Promise.all(vm.findings.map(offer)) };
}

/** VMs of one name get their folder added, and where that is not enough their file. */
function distinctNames(vms: readonly VirtualMachine[]): { vms: VirtualMachine[]; findings: Finding[] } {
  const findings: Finding[] = [];
  const byName = new Map<string, VirtualMachine[]>();
  const places = new Map<string, number>();
  for (const vm of vms) {
    const place = `${vm.name}\0${vm.folder}`;
    places.set(place, (places.get(place) ?? 0) + 1);
    const group = byName.get(vm.name);
    if (group === undefined) byName.set(vm.name, [vm]);
    else group.push(vm);
  }
  const taken = new Set([...byName].filter(([, group]) => group.length === 1).map(([name]) => name));
  const result = vms.map((vm) => {
    const group = byName.get(vm.name)!;
    if (group.length === 1) return vm;
    const alone = places.get(`${vm.name}\0${vm.folder}`) === 1;
    const wanted = `${vm.name} (${alone ? vm.folder : (vm.config ?? vm.folder)})`;
    let name = wanted;
    for (let count = 2; taken.has(name); count++) name = `${wanted} ${count}`;
    taken.add(name);
    return { ...vm, name };
  });
  for (const [name, group] of byName) {
    if (group.length === 1) continue;
    findings.push({
      severity: 'note',
      code: 'duplicate-name',
      message: `${group.length} VMs are called "${name}"; they are shown with where they lie`,
      found: name,
    });
  }
  return { vms: result, findings };
}

/** A VM from its .vmx and .vmsd: the present state, the snapshots, and what is odd about them. */
import { basename, join } from 'node:path';
import { findingFromError } from '../../chain/verify.ts';
import { CancelledError, ChainliftError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { type Draft, draftOf, finishDrafts, folderLabel } from '../drafts.ts';
import { isCompanionName } from '../files.ts';
import type { LayerIndex } from '../layers.ts';
import { type ScannedDisk, scanDisks } from '../point-disks.ts';
import type { MachineReader, ScannedMachine } from '../reader.ts';
import { type Config, readConfig } from './config.ts';
import { currentEvidence, snapshotEvidence, vssManifests } from './evidence.ts';
import { readSnapshotTree, type SnapshotTree, type VmsdSnapshot } from './vmsd.ts';
import { compareNodes, readMachine, type VmxMachine } from './vmx.ts';

/** The files that describe one VM; at least one of the two is there. */
export interface MachineFiles {
  /** Real path of the folder. */
  readonly folder: string;
  /** Names of the files in it. */
  readonly files: readonly string[];
  /** Real paths. */
  readonly vmx?: string;
  readonly vmsd?: string;
}

/** Reads one VM. What is broken in it is told in its findings. @throws CancelledError. */
export async function scanMachine(files: MachineFiles, index: LayerIndex): Promise<ScannedMachine> {
  const { folder } = index;
  const findings: Finding[] = [];
  const used = new Set<string>();
  const config = await configOf(files.vmx, folder, used, findings);
  const machine = config === undefined ? undefined : readMachine(config);
  const listing = await configOf(files.vmsd, folder, used, findings);
  const tree = listing === undefined ? undefined : readSnapshotTree(listing);
  findings.push(...(config?.findings ?? []), ...(machine?.findings ?? []));
  findings.push(...(listing?.findings ?? []), ...(tree?.findings ?? []));
  if (files.vmx === undefined) {
    findings.push({
      severity: 'suspicious',
      code: 'vmx-missing',
      message: `There is no .vmx beside ${folder.label(files.vmsd!)}: the snapshots are known, the VM's present state is not`,
      source: folder.label(files.vmsd!),
    });
  }
  if (tree?.needConsolidate === true) {
    findings.push({
      severity: 'suspicious',
      code: 'needs-consolidation',
      message:
        'The .vmsd says that the disks of this VM need to be consolidated: a snapshot was removed and its disks were not merged',
      source: listing!.source,
      structure: 'snapshot.needConsolidate',
    });
  }

  const manifests = vssManifests(files.files);
  const drafts: Draft[] = [];
  for (const snapshot of tree?.snapshots ?? []) {
    drafts.push(await snapshotDraft(snapshot, tree!, files.vmsd!, manifests, machine, index, used));
  }
  let parent = tree?.current;
  if (machine !== undefined) {
    const disks = await scanDisks(inBusOrder(machine.disks), files.vmx!, machine.workingFolder, index);
    if (parent === undefined) {
      parent = standsOn(disks, drafts);
      if (parent !== undefined) {
        findings.push({
          severity: 'suspicious',
          code: 'current-inferred',
          message: `The .vmsd does not say which snapshot the present state descends from; its disks stand on those of snapshot ${parent}`,
          source: listing!.source,
          structure: 'snapshot.current',
        });
      }
    }
    drafts.push(await currentDraft(machine, disks, files.vmx!, parent, index, used));
  }
  const points = finishDrafts(drafts, parent);
  const fallback = basename(files.vmx ?? files.vmsd!).replace(/\.(vmx|vmsd)$/i, '');
  return {
    vm: {
      name: machine?.name ?? fallback,
      origin: 'vmware',
      folder: folderLabel(files.folder, folder),
      config: folder.label(files.vmx ?? files.vmsd!),
      ...(machine?.guest === undefined ? {} : { guest: machine.guest }),
      ...(machine?.cpus === undefined ? {} : { cpus: machine.cpus }),
      ...(machine?.memoryBytes === undefined ? {} : { memoryBytes: machine.memoryBytes }),
      ...(machine?.firmware === undefined ? {} : { firmware: machine.firmware }),
      points,
      findings,
    },
    used,
    opened: drafts.some(({ disks }) => disks.some(({ chain }) => chain.layers.length > 0)),
  };
}

async function configOf(
  path: string | undefined,
  folder: Confinement,
  used: Set<string>,
  findings: Finding[],
): Promise<Config | undefined> {
  if (path === undefined) return undefined;
  used.add(path);
  try {
    return await readConfig(path, folder);
  } catch (error) {
    if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
    findings.push(
      findingFromError(error, {
        code: 'config-unreadable',
        source: folder.label(path),
        remedy: 'Take this file from another copy of the backup, or open a disk image of the folder by itself.',
      }),
    );
    return undefined;
  }
}

async function snapshotDraft(
  snapshot: VmsdSnapshot,
  tree: SnapshotTree,
  vmsd: string,
  manifests: ReadonlyMap<string, string>,
  machine: VmxMachine | undefined,
  index: LayerIndex,
  used: Set<string>,
): Promise<Draft> {
  const disks = await scanDisks(inBusOrder(snapshot.disks), vmsd, machine?.workingFolder, index);
  const evidence = await snapshotEvidence(snapshot, vmsd, manifests, tree.snapshots.length === 1, index.folder);
  const about = {
    id: snapshot.id,
    name: snapshot.name,
    ...(snapshot.description === undefined ? {} : { description: snapshot.description }),
    ...(snapshot.created === undefined ? {} : { created: snapshot.created }),
    ...(snapshot.parent === undefined ? {} : { parent: snapshot.parent }),
    current: false,
    currentParent: false,
  };
  return draftOf(about, disks, evidence, index, used);
}

async function currentDraft(
  machine: VmxMachine,
  disks: readonly ScannedDisk[],
  vmx: string,
  parent: string | undefined,
  index: LayerIndex,
  used: Set<string>,
): Promise<Draft> {
  const evidence = await currentEvidence(machine, vmx, index.folder);
  for (const disk of machine.disks) if (disk.redo !== undefined) addRedoLog(disk.redo, vmx, index.folder, used);
  const about = { id: 'current', name: 'Current state', current: true, currentParent: false };
  const draft = await draftOf(parent === undefined ? about : { ...about, parent }, disks, evidence, index, used);
  if (disks.length === 0) {
    draft.findings.push({
      severity: machine.encrypted ? 'suspicious' : 'note',
      code: 'no-disks',
      message: machine.encrypted
        ? 'The disks of this VM are not known, because its configuration is encrypted'
        : 'The .vmx names no disks',
    });
  }
  return draft;
}

function inBusOrder<T extends { readonly node: string | undefined }>(disks: readonly T[]): T[] {
  return [...disks].sort((a, b) => compareNodes(a.node, b.node));
}

/** The snapshot whose disk lies nearest below the present disks; undefined when none does. */
function standsOn(disks: readonly ScannedDisk[], snapshots: readonly Draft[]): string | undefined {
  const frozenBy = new Map<string, string>();
  for (const { point } of snapshots) {
    for (const { path } of point.disks) if (path !== undefined) frozenBy.set(path, point.id);
  }
  for (const { chain } of disks) {
    for (const layer of chain.layers.slice(1)) {
      const id = frozenBy.get(layer.path);
      if (id !== undefined) return id;
    }
  }
  return undefined;
}

/** A redo log is told of in a finding of its own, and is then no orphan. */
function addRedoLog(recorded: string, vmx: string, folder: Confinement, used: Set<string>): void {
  try {
    used.add(folder.resolveRecorded(recorded, vmx));
  } catch (error) {
    // Its absence changes nothing: the finding about it stands either way.
    if (!(error instanceof ChainliftError)) throw error;
  }
}

/** Which .vmx and .vmsd of a folder belong together: by name; where there is one of each, those two. */
export function pairMachineFiles(folder: { path: string; files: readonly string[] }): MachineFiles[] {
  const ending = (suffix: string) =>
    folder.files.filter((name) => name.toLowerCase().endsWith(suffix) && !isCompanionName(name));
  const stem = (name: string) => name.slice(0, name.lastIndexOf('.')).toLowerCase();
  const vmx = ending('.vmx');
  const vmsd = ending('.vmsd');
  const place = { folder: folder.path, files: folder.files };
  const real = (name: string) => join(folder.path, name);
  const machines: MachineFiles[] = [];
  const paired = new Set<string>();
  const byStem = new Map(vmsd.map((name) => [stem(name), name]));
  for (const name of vmx) {
    const match = byStem.get(stem(name)) ?? (vmx.length === 1 && vmsd.length === 1 ? vmsd[0] : undefined);
    if (match !== undefined) paired.add(match);
    machines.push({ ...place, vmx: real(name), ...(match === undefined ? {} : { vmsd: real(match) }) });
  }
  for (const name of vmsd) if (!paired.has(name)) machines.push({ ...place, vmsd: real(name) });
  return machines;
}

/** VMs that a .vmx or .vmsd of the folder describes. */
export const vmwareReader: MachineReader = {
  origin: 'vmware',
  async scan(place, index) {
    const machines: ScannedMachine[] = [];
    for (const files of pairMachineFiles(place)) {
      const scanned = await scanMachine(files, index);
      if (!isEmptyMachine(files, scanned)) machines.push(scanned);
    }
    return machines;
  },
};

/** True when a machine known only by its .vmsd has nothing to show: VMware leaves empty ones. */
export function isEmptyMachine(files: MachineFiles, scanned: ScannedMachine): boolean {
  return files.vmx === undefined && scanned.vm.points.length === 0;
}

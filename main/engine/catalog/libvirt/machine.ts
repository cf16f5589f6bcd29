/** A QEMU VM from libvirt's files: its present state, its snapshots inside images and in overlays, and what is odd about them. */
import { basename, dirname } from 'node:path';
import type { Finding } from '../../image/image.ts';
import { type Draft, draftOf, finishDrafts, folderLabel } from '../drafts.ts';
import { withoutLoops } from '../history.ts';
import type { LayerIndex } from '../layers.ts';
import { newest, standsOn } from '../lineage.ts';
import { type Plan, planner } from '../plan.ts';
import type { MachineReader, ScannedMachine } from '../reader.ts';
import { oneLine } from '../text.ts';
import { domainDisks, type Place, pathOf, snapshotDisks } from './disks.ts';
import type { DomainDisk } from './domain.ts';
import { currentEvidence, snapshotEvidence } from './evidence.ts';
import { type DomainFile, findMachines, type MachineFiles, type SnapshotFile } from './files.ts';

/** Snapshots of one VM read at most. */
export const MAX_SNAPSHOTS = 4_096;

/** Reads one VM. What is broken in it is told in its findings. @throws CancelledError. */
export async function scanMachine(
  machine: MachineFiles,
  { files, byPath }: Plan<MachineFiles>,
  index: LayerIndex,
): Promise<ScannedMachine> {
  const [present] = machine.domains;
  const findings: Finding[] = [...machine.findings];
  const used = new Set<string>(machine.used);
  const snapshots = namedSnapshots(machine, findings, index);
  const from = present?.path ?? snapshots[0]?.file.path;
  const home = present === undefined ? index.folder.root : dirname(present.path);
  const beside = byPath.get(dirname(from ?? ''))?.files ?? [];

  const drafts: Draft[] = [];
  for (const { id, parent, file } of snapshots) {
    const place: Place = { from: present?.path ?? file.path, home, files, index, beside };
    drafts.push(await snapshotDraft(id, parent, file, present, place, used));
  }
  const parent = currentParent(snapshots, drafts);
  if (present === undefined) {
    if (snapshots.length > 0) findings.push(domainMissing(snapshots[0]!.file, index));
  } else {
    const disks = await domainDisks(present.domain.disks, { from: present.path, home, files, index, beside });
    const stands = parent ?? standsOn(disks, drafts) ?? newest(drafts);
    if (parent === undefined && stands !== undefined) findings.push(inferred(stands, drafts, present, index));
    const about = { id: 'current', name: 'Current state', current: true, currentParent: false };
    const evidence = currentEvidence(present);
    drafts.push(
      await draftOf(stands === undefined ? about : { ...about, parent: stands }, disks, evidence, index, used),
    );
    if (disks.length === 0) {
      drafts.at(-1)!.findings.push({ severity: 'note', code: 'no-disks', message: 'The domain names no disks' });
    }
  }
  if (machine.checkpoints.length > 0) findings.push(checkpointFinding(machine.checkpoints));
  const shown = present?.domain ?? snapshots.at(-1)?.file.snapshot.domain;
  return {
    vm: {
      name: machine.name,
      origin: 'libvirt',
      folder: folderLabel(machine.home, index.folder),
      config: index.folder.label(from ?? machine.used[0]!),
      ...(shown?.guest === undefined ? {} : { guest: shown.guest }),
      ...(shown?.cpus === undefined ? {} : { cpus: shown.cpus }),
      ...(shown?.memoryBytes === undefined ? {} : { memoryBytes: shown.memoryBytes }),
      ...(shown?.firmware === undefined ? {} : { firmware: shown.firmware }),
      ...(shown === undefined || shown.networks.length === 0 ? {} : { networks: shown.networks }),
      points: finishDrafts(drafts, drafts.find(({ point }) => point.current)?.point.parent ?? parent),
      findings,
    },
    used,
    opened: drafts.some(({ disks }) => disks.some(({ chain }) => chain.layers.length > 0)),
  };
}

interface NamedSnapshot {
  readonly id: string;
  readonly parent: string | undefined;
  readonly file: SnapshotFile;
}

/** The snapshots oldest first, each with an id of its own and a parent that exists, free of loops. */
function namedSnapshots(machine: MachineFiles, findings: Finding[], index: LayerIndex): NamedSnapshot[] {
  // Two of one second: the one that was made from the other is the later one.
  const files = [...machine.snapshots].sort(
    ({ snapshot: a }, { snapshot: b }) =>
      (a.created ?? '').localeCompare(b.created ?? '', 'en') ||
      Number(a.parent === b.name) - Number(b.parent === a.name),
  );
  if (files.length > MAX_SNAPSHOTS) {
    findings.push({
      severity: 'damaged',
      code: 'too-many-snapshots',
      message: `There are ${files.length} snapshot files of this VM; the first ${MAX_SNAPSHOTS} are shown`,
      found: files.length,
    });
    files.length = MAX_SNAPSHOTS;
  }
  const byName = new Map<string, string>();
  const taken = new Map<string, SnapshotFile>();
  for (const file of files) {
    const name = oneLine(file.snapshot.name) || basename(file.path).replace(/\.xml$/i, '');
    let id = name === 'current' ? 'snapshot current' : name;
    for (let count = 2; taken.has(id); count++) id = `${name} ${count}`;
    if (byName.has(file.snapshot.name)) {
      findings.push({
        severity: 'suspicious',
        code: 'duplicate-snapshot',
        message: `${index.folder.label(file.path)} is of a snapshot "${name}", as another file is; it is shown as "${id}"`,
        source: index.folder.label(file.path),
        structure: 'name',
        found: name,
      });
    } else {
      byName.set(file.snapshot.name, id);
    }
    taken.set(id, file);
  }
  const parents = new Map<string, string | undefined>();
  for (const [id, { snapshot, path }] of taken) {
    const parent = snapshot.parent === undefined ? undefined : byName.get(snapshot.parent);
    if (snapshot.parent !== undefined && parent === undefined) {
      findings.push({
        severity: 'note',
        code: 'parent-snapshot-missing',
        message: `The snapshot "${oneLine(snapshot.parent)}", before "${id}", has no file here`,
        source: index.folder.label(path),
        structure: 'parent',
        found: oneLine(snapshot.parent),
      });
    }
    parents.set(id, parent);
  }
  const acyclic = withoutLoops(parents, (id, parent) =>
    findings.push({
      severity: 'damaged',
      code: 'snapshot-loop',
      message: `The snapshots "${id}" and "${parent}" are each before the other; the link is left out`,
      structure: 'parent',
      found: parent,
    }),
  );
  return [...taken].map(([id, file]) => ({ id, parent: acyclic.get(id), file }));
}

async function snapshotDraft(
  id: string,
  parent: string | undefined,
  file: SnapshotFile,
  present: DomainFile | undefined,
  place: Place,
  used: Set<string>,
): Promise<Draft> {
  const { snapshot } = file;
  const { index } = place;
  const { disks, inside, findings } = await snapshotDisks(snapshot, disksThen(file, present), place);
  const memoryFile = snapshot.memoryFile === undefined ? undefined : pathOf(snapshot.memoryFile, place);
  const evidence = await snapshotEvidence(snapshot, file.path, inside, memoryFile, index.folder);
  const about = {
    id,
    name: oneLine(snapshot.name) || id,
    ...(snapshot.description === undefined ? {} : { description: snapshot.description }),
    ...(snapshot.created === undefined ? {} : { created: snapshot.created }),
    ...(parent === undefined ? {} : { parent }),
    current: false,
    currentParent: false,
  };
  // The overlay is this snapshot's, whether or not the VM still writes to it.
  for (const { overlay } of snapshot.disks) {
    const path = overlay === undefined ? undefined : pathOf(overlay, place);
    if (path !== undefined) await index.claim(path, used);
  }
  const draft = await draftOf(about, disks, evidence, index, used);
  draft.findings.push(...findings);
  return draft;
}

/** The VM's disks when the snapshot was taken: as it records them, else those of now, else what its list of disks tells. */
function disksThen({ snapshot }: SnapshotFile, present: DomainFile | undefined): readonly DomainDisk[] {
  if (snapshot.domain !== undefined) return snapshot.domain.disks;
  if (present !== undefined) return present.domain.disks;
  return snapshot.disks
    .filter(({ kept }) => kept === 'external')
    .map(({ name }) => ({
      node: name,
      file: undefined,
      elsewhere: 'a file that the snapshot does not name',
      format: undefined,
    }));
}

/** Id of the snapshot that libvirt marks as the one the VM is on. */
function currentParent(snapshots: readonly NamedSnapshot[], drafts: readonly Draft[]): string | undefined {
  const active = snapshots.filter(({ file }) => file.snapshot.active);
  return active.length === 1 && drafts.length > 0 ? active[0]!.id : undefined;
}

function inferred(id: string, drafts: readonly Draft[], present: DomainFile, index: LayerIndex): Finding {
  const name = drafts.find(({ point }) => point.id === id)?.point.name ?? id;
  return {
    severity: 'note',
    code: 'current-inferred',
    message: `No file says which snapshot the present state descends from; by its disks and times it is "${name}"`,
    source: index.folder.label(present.path),
    structure: 'active',
  };
}

function domainMissing(file: SnapshotFile, index: LayerIndex): Finding {
  return {
    severity: 'suspicious',
    code: 'domain-missing',
    message: `There is no domain XML for ${index.folder.label(file.path)}: the snapshots are known, the VM's present state is not`,
    source: index.folder.label(file.path),
  };
}

function checkpointFinding(names: readonly string[]): Finding {
  return {
    severity: 'note',
    code: 'checkpoints',
    message: `${names.length === 1 ? 'A checkpoint' : `${names.length} checkpoints`} (${names.slice(0, 4).join(', ')}${names.length > 4 ? '...' : ''}): blocks changed since then are tracked for backups; a checkpoint keeps no state and is no restore point`,
    structure: 'domaincheckpoint',
  };
}

const plan = planner((folders, index) => findMachines(folders, index.folder));

/** VMs whose domain or snapshot XML is at home in the folder. */
export const libvirtReader: MachineReader = {
  origin: 'libvirt',
  async scan(place, index, folders) {
    const found = await plan(place, index, folders);
    const machines: ScannedMachine[] = [];
    for (const machine of found.byHome.get(place.path) ?? []) machines.push(await scanMachine(machine, found, index));
    // A folder with checkpoints alone has nothing to show.
    return machines.filter(({ vm }) => vm.points.length > 0 || vm.findings.some(({ code }) => code !== 'checkpoints'));
  },
};

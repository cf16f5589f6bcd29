/** A Hyper-V VM from its configurations: the present state, the checkpoints, and what is odd about them. */
import { basename, dirname, join } from 'node:path';
import type { Finding } from '../../image/image.ts';
import { type Draft, draftOf, type Evidence, finishDrafts, folderLabel } from '../drafts.ts';
import { imageStem } from '../files.ts';
import { withoutLoops } from '../history.ts';
import type { LayerIndex } from '../layers.ts';
import { newest, standsOn } from '../lineage.ts';
import { type FileIndex, locateRecorded } from '../locate.ts';
import { type Plan, planner } from '../plan.ts';
import { type ScannedDisk, scanDisks } from '../point-disks.ts';
import type { MachineReader, ScannedMachine } from '../reader.ts';
import { checkpointEvidence, currentEvidence } from './evidence.ts';
import { type ConfigFile, findMachines, type MachineFiles } from './files.ts';
import { OWN_FOLDERS, pointsFromDisks } from './from-disks.ts';

/** Checkpoints of one VM read at most; Hyper-V allows 50. */
const MAX_CHECKPOINTS = 4_096;

/** Reads one VM. What is broken in it is told in its findings. @throws CancelledError. */
export async function scanMachine(
  machine: MachineFiles,
  plan: Plan<MachineFiles>,
  index: LayerIndex,
): Promise<ScannedMachine> {
  const { folder } = index;
  const findings: Finding[] = [...machine.findings];
  const used = new Set<string>(machine.used);
  const checkpoints = oldestFirst(machine, findings);
  const scanned = await diskLists(checkpoints, machine.root, plan.files, index);
  const parents = parentsOf(checkpoints, scanned, findings);
  const drafts: Draft[] = [];
  for (const [position, checkpoint] of checkpoints.entries()) {
    const evidence = await checkpointEvidence(checkpoint, machine.root, plan.files, folder);
    drafts.push(
      await checkpointDraft(checkpoint, parents.get(checkpoint.id), scanned[position]!, evidence, index, used),
    );
  }
  const present = machine.machine;
  let parent: string | undefined;
  if (present !== undefined) {
    const disks = await disksOf(present, machine.root, plan.files, index);
    parent = present.config.parents.find((id) => checkpoints.some((checkpoint) => checkpoint.id === id));
    parent ??= standsOn(disks, drafts) ?? inferredParent(drafts, present, findings, index);
    const evidence = await currentEvidence(present, machine.root, plan.files, folder);
    const about = { id: 'current', name: 'Current state', current: true, currentParent: false };
    drafts.push(await draftOf(parent === undefined ? about : { ...about, parent }, disks, evidence, index, used));
    if (disks.length === 0) {
      drafts.at(-1)!.findings.push({ severity: 'note', code: 'no-disks', message: 'The configuration names no disks' });
    }
    findings.push(...configFindings(present, checkpoints.length, index));
  } else if (checkpoints.length > 0) {
    findings.push({
      severity: 'suspicious',
      code: 'config-missing',
      message: `There is no configuration of the VM that ${folder.label(checkpoints[0]!.path)} is a checkpoint of: the checkpoints are known, its present state is not`,
      source: folder.label(checkpoints[0]!.path),
    });
  }
  let points = finishDrafts(drafts, parent);
  let opened = drafts.some(({ disks }) => disks.some(({ chain }) => chain.layers.length > 0));
  if (points.length === 0 && machine.unreadable !== undefined && isAlone(machine, plan)) {
    const rest = await pointsFromDisks(machine.root, machine.unreadable, plan.folders, index);
    for (const image of rest.images) await index.claim(image, used);
    points = [...rest.points];
    opened = points.length > 0;
  }
  findings.push(...leftovers(used, plan));
  const shown = present?.config ?? checkpoints.at(-1)?.config;
  return {
    vm: {
      name: machine.name,
      origin: 'hyper-v',
      folder: folderLabel(machine.root, folder),
      config: folder.label(present?.path ?? machine.unreadable ?? checkpoints[0]?.path ?? machine.used[0]!),
      ...(shown?.cpus === undefined ? {} : { cpus: shown.cpus }),
      ...(shown?.memoryBytes === undefined ? {} : { memoryBytes: shown.memoryBytes }),
      ...(shown?.firmware === undefined ? {} : { firmware: shown.firmware }),
      ...(shown === undefined || shown.networks.length === 0 ? {} : { networks: shown.networks }),
      points,
      findings,
    },
    used,
    opened,
    ...(opened ? { folders: ownFolders(machine.root, index) } : {}),
  };
}

/** Folders that hold nothing but files of VMs: those that Hyper-V makes, and an exported VM's own. */
function ownFolders(root: string, index: LayerIndex): string[] {
  const own = OWN_FOLDERS.map((name) => join(root, name));
  return root === index.folder.root ? own : [root, ...own];
}

/** True when no other VM has its files in the same folder, so that all disks there must be of this one. */
function isAlone(machine: MachineFiles, { byHome }: Plan<MachineFiles>): boolean {
  for (const there of byHome.values()) {
    if (there.some((other) => other !== machine && other.root === machine.root)) return false;
  }
  return true;
}

function oldestFirst(machine: MachineFiles, findings: Finding[]): ConfigFile[] {
  const byId = new Map<string, ConfigFile>();
  for (const checkpoint of machine.checkpoints) {
    // A copy of the same file, in a second folder of the backup.
    if (!byId.has(checkpoint.id)) byId.set(checkpoint.id, checkpoint);
  }
  const all = [...byId.values()].sort((a, b) => (a.config.created ?? '').localeCompare(b.config.created ?? '', 'en'));
  if (all.length > MAX_CHECKPOINTS) {
    findings.push({
      severity: 'damaged',
      code: 'too-many-snapshots',
      message: `There are ${all.length} checkpoints of this VM; the first ${MAX_CHECKPOINTS} are shown`,
      found: all.length,
    });
    all.length = MAX_CHECKPOINTS;
  }
  return all;
}

async function diskLists(
  checkpoints: readonly ConfigFile[],
  root: string,
  files: FileIndex,
  index: LayerIndex,
): Promise<ScannedDisk[][]> {
  const lists: ScannedDisk[][] = [];
  for (const checkpoint of checkpoints) lists.push(await disksOf(checkpoint, root, files, index));
  return lists;
}

function disksOf(file: ConfigFile, root: string, files: FileIndex, index: LayerIndex): Promise<ScannedDisk[]> {
  const recorded = file.config.disks.map(({ node, fileName }) => ({
    node,
    fileName: locateRecorded(fileName, file.path, root, files, index.folder),
  }));
  return scanDisks(recorded, file.path, undefined, index);
}

/** The checkpoint before each: the one that is recorded, else the one whose frozen disks its own stand on. */
function parentsOf(
  checkpoints: readonly ConfigFile[],
  disks: readonly (readonly ScannedDisk[])[],
  findings: Finding[],
): Map<string, string | undefined> {
  const ids = new Set(checkpoints.map(({ id }) => id));
  const frozen = checkpoints.map(({ id }, position) => ({
    point: { id, disks: disks[position]!.map(({ disk }) => disk) },
  }));
  const parents = new Map<string, string | undefined>();
  for (const [position, { id, config }] of checkpoints.entries()) {
    const recorded = config.parents.find((candidate) => candidate !== id && ids.has(candidate));
    parents.set(id, recorded ?? standsOn(disks[position]!, frozen, id));
  }
  return withoutLoops(parents, (id, parent) =>
    findings.push({
      severity: 'damaged',
      code: 'snapshot-loop',
      message: `The checkpoints ${id} and ${parent} are each before the other; the link is left out`,
      structure: 'parent',
      found: parent,
    }),
  );
}

function checkpointDraft(
  { id, config }: ConfigFile,
  parent: string | undefined,
  disks: readonly ScannedDisk[],
  evidence: Evidence,
  index: LayerIndex,
  used: Set<string>,
): Promise<Draft> {
  const findings: Finding[] = [...evidence.findings, ...config.findings];
  const name = config.name ?? id;
  // The name that Windows gives to the checkpoints it makes for backups, and removes when they are done.
  if (/ - Backup - \(/i.test(name)) {
    findings.push({
      severity: 'note',
      code: 'backup-checkpoint',
      message: `"${name}" is called like the checkpoints that backups make and remove: one was interrupted, or this copy was made while it ran`,
      structure: 'name',
    });
  }
  const about = {
    id,
    name,
    ...(config.description === undefined ? {} : { description: config.description }),
    ...(config.created === undefined ? {} : { created: config.created }),
    ...(parent === undefined ? {} : { parent }),
    current: false,
    currentParent: false,
  };
  return draftOf(about, disks, { ...evidence, findings }, index, used);
}

/** Where neither a file nor a disk tells: the newest checkpoint, said as what it is. */
function inferredParent(
  drafts: readonly Draft[],
  present: ConfigFile,
  findings: Finding[],
  index: LayerIndex,
): string | undefined {
  const id = newest(drafts);
  if (id === undefined) return undefined;
  findings.push({
    severity: 'note',
    code: 'current-inferred',
    message: `Neither a file nor a disk says which checkpoint the present state descends from; the newest is "${drafts.find(({ point }) => point.id === id)!.point.name}"`,
    source: index.folder.label(present.path),
  });
  return id;
}

function configFindings({ path, config }: ConfigFile, found: number, index: LayerIndex): Finding[] {
  const source = index.folder.label(path);
  const findings: Finding[] = [];
  if (config.mergePending) {
    findings.push({
      severity: 'suspicious',
      code: 'needs-consolidation',
      message: `${source} says that disks of this VM are still to be merged: a checkpoint was removed`,
      source,
      structure: 'disk_merge_pending',
    });
  }
  if (config.listSize !== undefined && config.listSize > found) {
    findings.push({
      severity: 'suspicious',
      code: 'checkpoint-missing',
      message: `The VM has ${config.listSize} ${config.listSize === 1 ? 'checkpoint' : 'checkpoints'}, and ${found === 0 ? 'no configuration of one is' : `only ${found} of their configurations are`} here`,
      source,
      structure: 'snapshots list size',
      expected: config.listSize,
      found,
      remedy: 'Disks of the others, where they are here, can be opened as images by themselves.',
    });
  }
  return findings;
}

/** Files beside the VM's disks that are no state of it: what backups and replication leave there. */
function leftovers(used: ReadonlySet<string>, { files, byPath }: Plan<MachineFiles>): Finding[] {
  const disks = [...used].filter((path) => /\.a?vhdx?$/i.test(path));
  const findings: Finding[] = [];
  const beside = (ending: RegExp): string[] =>
    disks.flatMap((path) =>
      ['rct', 'mrt', 'hrl']
        .filter((name) => ending.test(name))
        .flatMap((name) => [`${path}.${name}`, path.replace(/\.[^.]+$/, `.${name}`)])
        .filter((file) => files.get(basename(file).toLowerCase())?.includes(file)),
    );
  const tracking = beside(/rct|mrt/);
  if (tracking.length > 0) {
    findings.push({
      severity: 'note',
      code: 'change-tracking',
      message: `${several(tracking)} ${tracking.length === 1 ? 'tracks' : 'track'} which blocks of a disk changed, for backups; the content is in the disks alone`,
    });
  }
  const replica = beside(/hrl/);
  if (replica.length > 0) {
    findings.push({
      severity: 'note',
      code: 'replica-log',
      message: `${several(replica)} ${replica.length === 1 ? 'is a log' : 'are logs'} of Hyper-V Replica: changes in ${replica.length === 1 ? 'it' : 'them'} may not be in the disks yet, and are not read here`,
    });
  }
  const places = new Set(disks.map((path) => dirname(path)));
  const stems = new Set(disks.map(imageStem));
  const recovery = [...places]
    .flatMap((place) => (byPath.get(place)?.files ?? []).map((name) => join(place, name)))
    .filter((path) => /-AutoRecovery\.a?vhdx?$/i.test(path) && !used.has(path) && stems.has(imageStem(path)));
  if (recovery.length > 0) {
    findings.push({
      severity: 'note',
      code: 'auto-recovery-disk',
      message: `${several(recovery)} ${recovery.length === 1 ? 'was' : 'were'} left by a backup: what VSS writers changed in a shadow copy of the guest; no point uses ${recovery.length === 1 ? 'it' : 'them'}`,
    });
  }
  return findings;
}

function several(paths: readonly string[]): string {
  const names = paths.slice(0, 4).map((path) => basename(path));
  return paths.length > 4 ? `${names.join(', ')} and ${paths.length - 4} more` : names.join(', ');
}

const plan = planner((folders, index) => findMachines(folders, index.folder));

/** VMs whose configuration, or that of whose checkpoints, is in the folder. */
export const hypervReader: MachineReader = {
  origin: 'hyper-v',
  async scan(place, index, folders) {
    const found = await plan(place, index, folders);
    const machines: ScannedMachine[] = [];
    for (const machine of found.byHome.get(place.path) ?? []) machines.push(await scanMachine(machine, found, index));
    return machines;
  },
};

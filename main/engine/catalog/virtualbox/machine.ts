/**
 * A VM from its .vbox: the snapshots, the present state, and what is odd about them. VirtualBox keeps the settings as they were
 * before its last change in a .vbox-prev, which is read where the .vbox is missing or damaged.
 */
import { basename, dirname, join } from 'node:path';
import { findingFromError } from '../../chain/verify.ts';
import { CancelledError, ChainliftError, NotFoundError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import { type Confinement, splitRecorded } from '../../storage/confinement.ts';
import { readXml } from '../../xml.ts';
import { type Draft, draftOf, finishDrafts, folderLabel } from '../drafts.ts';
import { isCompanionName } from '../files.ts';
import type { LayerIndex } from '../layers.ts';
import { standsOn } from '../lineage.ts';
import { type FileIndex, indexFiles, isBelow, locateRecorded } from '../locate.ts';
import type { ScannedDisk } from '../point-disks.ts';
import type { MachineReader, ScannedMachine } from '../reader.ts';
import { oneLine } from '../text.ts';
import type { Folder } from '../walk.ts';
import { DiskFinder } from './disks.ts';
import { currentEvidence, snapshotEvidence } from './evidence.ts';
import { readSettings, STRUCTURE, type VboxMachine } from './settings.ts';

/** Real ones have some tens of KiB, and some more with an icon in them. */
const MAX_BYTES = 16 << 20;

/** The files that describe one VM; at least one of the two is there. Real paths. */
interface SettingsFiles {
  readonly vbox?: string;
  readonly previous?: string;
}

/** Reads one VM. What is broken in it is told in its findings. @throws CancelledError. */
async function scanVbox(
  files: SettingsFiles,
  place: Folder,
  index: LayerIndex,
  folders: readonly Folder[],
  fileIndex: FileIndex,
): Promise<ScannedMachine> {
  const { folder } = index;
  const findings: Finding[] = [];
  const used = new Set<string>([files.vbox, files.previous].filter((path) => path !== undefined));
  const { machine, config } = await settingsOf(files, folder, findings);
  findings.push(...(machine?.findings ?? []));
  const locate = (recorded: string): string => locateFile(recorded, config, place, fileIndex, folder);
  const snapshots = machine === undefined ? undefined : snapshotPlace(machine, config, place, folders);
  const drafts: Draft[] = [];
  let parent: string | undefined;
  if (machine !== undefined && !machine.encrypted) {
    const places = snapshots === undefined ? [place] : [place, snapshots];
    const finder = new DiskFinder(machine, config, places, index, locate);
    for (const snapshot of machine.snapshots) {
      const disks = await finder.disks(snapshot.disks, used);
      const evidence = await snapshotEvidence(snapshot, config, locate, folder);
      const { id, name, description, created, parent: before } = snapshot;
      const about = {
        id,
        name,
        ...(description === undefined ? {} : { description }),
        ...(created === undefined ? {} : { created }),
        ...(before === undefined ? {} : { parent: before }),
        current: false,
        currentParent: false,
      };
      drafts.push(await draftOf(about, disks, evidence, index, used));
    }
    const disks = await finder.disks(machine.disks, used);
    parent = currentParent(machine, drafts, disks, folder.label(config), findings);
    drafts.push(await currentDraft(machine, disks, config, locate, parent, index, used));
    findings.push(...mediumFindings(machine, folder.label(config)));
  }
  const opened = drafts.some(({ disks }) => disks.some(({ chain }) => chain.layers.length > 0));
  return {
    vm: {
      name: machine?.name ?? basename(config).replace(/\.vbox(-prev)?$/i, ''),
      origin: 'virtualbox',
      folder: folderLabel(place.path, folder),
      config: folder.label(config),
      ...(machine?.guest === undefined ? {} : { guest: machine.guest }),
      ...(machine?.cpus === undefined ? {} : { cpus: machine.cpus }),
      ...(machine?.memoryBytes === undefined ? {} : { memoryBytes: machine.memoryBytes }),
      ...(machine?.firmware === undefined ? {} : { firmware: machine.firmware }),
      ...(machine === undefined || machine.networks.length === 0 ? {} : { networks: machine.networks }),
      points: finishDrafts(drafts, parent),
      findings,
    },
    used,
    opened,
    // A VM of which nothing could be opened has not said what the files there are.
    ...(snapshots !== undefined && opened ? { folders: [snapshots.path] } : {}),
  };
}

/** The settings, from the .vbox or, where that is missing or damaged, from the .vbox-prev. */
async function settingsOf(
  { vbox, previous }: SettingsFiles,
  folder: Confinement,
  findings: Finding[],
): Promise<{ machine: VboxMachine | undefined; config: string }> {
  const config = vbox ?? previous!;
  if (vbox !== undefined) {
    const machine = await settingsAt(vbox, folder, findings, previous !== undefined);
    if (machine !== undefined) return { machine, config: vbox };
  }
  if (previous === undefined) return { machine: undefined, config };
  const machine = await settingsAt(previous, folder, findings, false);
  if (machine === undefined) return { machine, config };
  findings.push({
    severity: 'suspicious',
    code: 'previous-settings',
    message: `${vbox === undefined ? `There is no .vbox beside ${folder.label(previous)}` : `${folder.label(vbox)} can't be read`}: the VM is shown as it was before its last change, from ${folder.label(previous)}`,
    source: folder.label(previous),
    structure: STRUCTURE,
    remedy:
      'A snapshot that was taken or deleted last may be missing here; images that no point uses are listed as orphans.',
  });
  return { machine, config: previous };
}

async function settingsAt(
  path: string,
  folder: Confinement,
  findings: Finding[],
  another: boolean,
): Promise<VboxMachine | undefined> {
  try {
    const file = folder.open(path);
    try {
      return readSettings(await readXml(file, STRUCTURE, MAX_BYTES), file.name);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
    findings.push(
      findingFromError(error, {
        code: 'config-unreadable',
        source: folder.label(path),
        remedy: another
          ? 'The settings before the last change are read in its place.'
          : 'Take this file from another copy of the backup, or open a disk image of the folder by itself.',
      }),
    );
    return undefined;
  }
}

/** The name by which a recorded file is found: as it stands where it is a path from the .vbox that leads to one. */
function locateFile(recorded: string, config: string, place: Folder, files: FileIndex, folder: Confinement): string {
  if (!splitRecorded(recorded).absolute) {
    try {
      folder.resolveRecorded(recorded, config);
      return recorded;
    } catch (error) {
      // That it leaves the folder is told where the disk is opened.
      if (!(error instanceof NotFoundError)) return recorded;
    }
  }
  return locateRecorded(recorded, config, place.path, files, folder);
}

/** The folder of the VM's snapshots, where it is one of the repository below the VM's own: then it holds nothing else. */
function snapshotPlace(
  machine: VboxMachine,
  config: string,
  place: Folder,
  folders: readonly Folder[],
): Folder | undefined {
  const recorded = machine.snapshotFolder.replaceAll('\\', '/');
  const absolute = /^([A-Za-z]:\/|\/)/.test(recorded);
  const path = absolute ? join(place.path, basename(recorded)) : join(dirname(config), recorded);
  if (path === place.path || !isBelow(path, place.path)) return undefined;
  return folders.find((candidate) => candidate.path === path);
}

/** The snapshot that the present state descends from. */
function currentParent(
  machine: VboxMachine,
  drafts: readonly Draft[],
  disks: readonly ScannedDisk[],
  source: string,
  findings: Finding[],
): string | undefined {
  const { currentSnapshot, snapshots } = machine;
  if (snapshots.length === 0) return undefined;
  if (currentSnapshot !== undefined && snapshots.some(({ id }) => id === currentSnapshot)) return currentSnapshot;
  const inferred = standsOn(disks, drafts);
  findings.push({
    severity: 'suspicious',
    code: 'current-inferred',
    message: `${source} does not say which snapshot the present state descends from${inferred === undefined ? '' : '; its disks stand on those of the snapshot that is taken for it'}`,
    source,
    structure: 'Machine currentSnapshot',
    expected: 'the UUID of a snapshot',
    found: currentSnapshot ?? 'none',
  });
  return inferred;
}

async function currentDraft(
  machine: VboxMachine,
  disks: readonly ScannedDisk[],
  config: string,
  locate: (recorded: string) => string,
  parent: string | undefined,
  index: LayerIndex,
  used: Set<string>,
): Promise<Draft> {
  const evidence = await currentEvidence(machine, config, locate, index.folder);
  const about = { id: 'current', name: 'Current state', current: true, currentParent: false };
  const draft = await draftOf(parent === undefined ? about : { ...about, parent }, disks, evidence, index, used);
  if (disks.length === 0) {
    const message = `${index.folder.label(config)} attaches no disks`;
    draft.findings.push({ severity: 'note', code: 'no-disks', message });
  }
  return draft;
}

/** Types of media that snapshots do not hold, or that are thrown away when the VM starts. */
const TYPES: Readonly<Record<string, string>> = {
  writethrough: 'snapshots do not hold it, only the present state does',
  shareable: 'several VMs write to it, and snapshots do not hold it',
  readonly: 'it never changes, and snapshots do not hold it',
  immutable: 'what the guest wrote since the VM was started is thrown away when it starts again',
  multiattach: 'each VM that uses it writes to an image of its own on it',
};

function mediumFindings(machine: VboxMachine, source: string): Finding[] {
  const attached = new Set(
    [...machine.disks, ...machine.snapshots.flatMap(({ disks }) => disks)].map(({ uuid }) => uuid),
  );
  const told = new Set<string>();
  const findings: Finding[] = [];
  for (const uuid of attached) {
    let medium = machine.media.get(uuid);
    while (medium?.parent !== undefined && machine.media.has(medium.parent)) medium = machine.media.get(medium.parent);
    const what = medium === undefined ? undefined : TYPES[medium.type];
    if (medium === undefined || what === undefined || told.has(medium.uuid)) continue;
    told.add(medium.uuid);
    findings.push({
      severity: 'note',
      code: `medium-${medium.type}`,
      message: `${oneLine(medium.location)} is ${medium.type}: ${what}`,
      source,
      structure: 'MediaRegistry HardDisk type',
      found: medium.type,
    });
  }
  return findings;
}

/** Which .vbox and .vbox-prev of a folder belong together: by name. */
function settingsFiles(place: Folder): SettingsFiles[] {
  const byStem = new Map<string, { vbox?: string; previous?: string }>();
  for (const name of place.files) {
    const match = /^(.*)\.vbox(-prev)?$/i.exec(name);
    if (match === null || isCompanionName(basename(name))) continue;
    const stem = match[1]!.toLowerCase();
    const entry = byStem.get(stem) ?? {};
    byStem.set(stem, entry);
    entry[match[2] === undefined ? 'vbox' : 'previous'] ??= join(place.path, name);
  }
  return [...byStem.values()];
}

/** The files of a repository by name, built once for a scan. */
const indexes = new WeakMap<readonly Folder[], FileIndex>();

function fileIndexOf(folders: readonly Folder[]): FileIndex {
  let known = indexes.get(folders);
  if (known === undefined) {
    known = indexFiles(folders);
    indexes.set(folders, known);
  }
  return known;
}

/** VMs that a .vbox of the folder describes. */
export const virtualboxReader: MachineReader = {
  origin: 'virtualbox',
  async scan(place, index, folders) {
    const machines: ScannedMachine[] = [];
    for (const files of settingsFiles(place)) {
      machines.push(await scanVbox(files, place, index, folders, fileIndexOf(folders)));
    }
    return machines;
  },
};

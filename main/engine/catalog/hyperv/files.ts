/**
 * Which files of a repository are configurations of Hyper-V, and which checkpoints are of which VM. Hyper-V's layout: `Virtual
 * Machines/GUID.vmcx`, `Snapshots/GUID.vmcx`, `Virtual Hard Disks/*`, all in one folder for an exported VM, or shared by all VMs of
 * a host; backup tools also put everything into one folder.
 */
import { basename, dirname, join } from 'node:path';
import { findingFromError } from '../../chain/verify.ts';
import { CancelledError, ChainliftError, UnsupportedError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { isCompanionName } from '../files.ts';
import type { Folder } from '../walk.ts';
import { readXmlFile, rootNameOf } from '../xml-files.ts';
import { guid, type HyperVConfig, readConfig } from './config.ts';
import { readConfiguration } from './keys.ts';
import type { ConfigNode } from './node.ts';
import { configFromXml } from './xml-config.ts';

/** Larger ones are no configurations: real ones have 50 to 200 KiB. */
const MAX_VMCX_BYTES = 64 << 20;

export interface ConfigFile {
  readonly path: string;
  /** GUID in the file's name or in the file, in upper case; the name without its ending where there is neither. */
  readonly id: string;
  readonly config: HyperVConfig;
}

export interface MachineFiles {
  /** Folder of the file that it is shown with. */
  readonly home: string;
  /** Folder of the whole VM: what its disks are looked for in first. */
  readonly root: string;
  readonly name: string;
  readonly machine: ConfigFile | undefined;
  readonly checkpoints: readonly ConfigFile[];
  /** A configuration that could not be read, where that is all there is of the VM. */
  readonly unreadable: string | undefined;
  readonly used: readonly string[];
  readonly findings: readonly Finding[];
}

interface Group {
  home: string;
  root: string;
  name: string;
  machine: ConfigFile | undefined;
  checkpoints: ConfigFile[];
  unreadable: string | undefined;
  used: string[];
  findings: Finding[];
}

/** Reads Hyper-V's files among those of the folders. @throws CancelledError. */
export async function findMachines(folders: readonly Folder[], folder: Confinement): Promise<MachineFiles[]> {
  const machines: Group[] = [];
  const checkpoints: ConfigFile[] = [];
  const broken: { path: string; finding: Finding }[] = [];
  for (const place of folders) {
    for (const file of place.files) {
      const path = join(place.path, file);
      const read = await readIfConfig(path, folder);
      if (read === undefined) continue;
      if ('finding' in read) broken.push(read);
      else if (isCheckpoint(read)) checkpoints.push(read);
      else machines.push(groupOf(read));
    }
  }
  // In a flat folder only the VM's own list tells its checkpoints from it.
  const listing = groupsBy(machines, ({ config }) => config.listed);
  const owners = machines.filter((group) => {
    const isListed = listing.get(group.machine!.id)?.some((other) => other !== group) ?? false;
    if (isListed) checkpoints.push(group.machine!);
    return !isListed;
  });
  const known: Owners = {
    listing: groupsBy(owners, ({ config }) => config.listed),
    byId: groupsBy(owners, ({ id }) => [id]),
    byRoot: groupsBy(owners, ({ path }) => [rootOf(path)]),
  };
  const strangers = new Map<string, Group>();
  for (const checkpoint of checkpoints) {
    const owner = ownerOf(checkpoint, known) ?? strangers.get(rootOf(checkpoint.path)) ?? strange(checkpoint);
    if (owner.machine === undefined) strangers.set(owner.root, owner);
    owner.checkpoints.push(checkpoint);
    owner.used.push(checkpoint.path);
  }
  const all = [...owners, ...strangers.values()];
  for (const { path, finding } of broken) addBroken(path, finding, all);
  return all;
}

type Read = ConfigFile | { readonly path: string; readonly finding: Finding };

async function readIfConfig(path: string, folder: Confinement): Promise<Read | undefined> {
  const name = basename(path);
  if (isCompanionName(name)) return undefined;
  const stem = name.slice(0, name.lastIndexOf('.'));
  try {
    let roots: readonly ConfigNode[];
    if (/\.vmcx$/i.test(name)) roots = await readVmcx(path, folder);
    else if (/\.xml$/i.test(name)) {
      if ((await rootNameOf(path, folder)) !== 'configuration') return undefined;
      const root = configFromXml(await readXmlFile(path, folder, 'Hyper-V configuration'));
      roots = [root];
    } else if (/\.exp$/i.test(name) && guid(stem) !== undefined) {
      throw new UnsupportedError('the configuration in an export of Hyper-V before 2012 (.exp)', {
        source: folder.label(path),
      });
    } else return undefined;
    const config = readConfig(roots, folder.label(path));
    // A file of Hyper-V's that is of no VM: its list of VMs, a resource type.
    if (config === undefined) return undefined;
    return { path, id: guid(stem) ?? config.id ?? stem, config };
  } catch (error) {
    if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
    // XML without a GUID in its name may be anybody's.
    if (/\.xml$/i.test(name) && guid(stem) === undefined) return undefined;
    const finding = findingFromError(error, {
      code: 'config-unreadable',
      source: folder.label(path),
      remedy:
        'The disks are shown by their own links. Take this file from another copy of the backup to see the VM whole.',
    });
    return { path, finding };
  }
}

async function readVmcx(path: string, folder: Confinement): Promise<readonly ConfigNode[]> {
  const file = folder.open(path);
  try {
    if (file.size > MAX_VMCX_BYTES) {
      throw new UnsupportedError(`a .vmcx of ${file.size} bytes`, { source: file.name });
    }
    return await readConfiguration(file);
  } finally {
    await file.close();
  }
}

function isCheckpoint({ path, config }: ConfigFile): boolean {
  return basename(dirname(path)).toLowerCase() === 'snapshots' || /snapshot|checkpoint/i.test(config.kind ?? '');
}

/** The folder of the whole VM, from a configuration in one of Hyper-V's own folders or beside the disks. */
function rootOf(path: string): string {
  const home = dirname(path);
  return /^(virtual machines|snapshots|planned virtual machines|virtual machines cache)$/i.test(basename(home))
    ? dirname(home)
    : home;
}

function groupOf(machine: ConfigFile): Group {
  return {
    home: dirname(machine.path),
    root: rootOf(machine.path),
    name: machine.config.name ?? machine.id,
    machine,
    checkpoints: [],
    unreadable: undefined,
    used: [machine.path],
    findings: [...machine.config.findings],
  };
}

/** VMs by what they list, by their id and by their folder: looked up once for each checkpoint. */
interface Owners {
  readonly listing: ReadonlyMap<string, readonly Group[]>;
  readonly byId: ReadonlyMap<string, readonly Group[]>;
  readonly byRoot: ReadonlyMap<string, readonly Group[]>;
}

function groupsBy(groups: readonly Group[], keys: (machine: ConfigFile) => readonly string[]): Map<string, Group[]> {
  const found = new Map<string, Group[]>();
  for (const group of groups) {
    for (const key of new Set(keys(group.machine!))) {
      const there = found.get(key);
      if (there === undefined) found.set(key, [group]);
      else there.push(group);
    }
  }
  return found;
}

/**
 * The VM that a checkpoint is of: one that lists it, one whose id it records, or the only one of its folder; of several copies of a
 * VM the one in the same folder. Undefined where none is.
 */
function ownerOf(checkpoint: ConfigFile, { listing, byId, byRoot }: Owners): Group | undefined {
  const root = rootOf(checkpoint.path);
  const near = (groups: readonly Group[]): Group | undefined =>
    groups.find((group) => group.root === root) ?? groups[0];
  const recorded =
    listing.get(checkpoint.id) ??
    checkpoint.config.relatives.map((id) => byId.get(id)).find((found) => found !== undefined);
  if (recorded !== undefined) return near(recorded);
  const here = byRoot.get(root) ?? [];
  return here.length === 1 ? here[0] : undefined;
}

/** Checkpoints without their VM, those of one folder together. */
function strange(checkpoint: ConfigFile): Group {
  const root = rootOf(checkpoint.path);
  return {
    home: dirname(checkpoint.path),
    root,
    name: basename(root),
    machine: undefined,
    checkpoints: [],
    unreadable: undefined,
    used: [],
    findings: [],
  };
}

/** What can't be read is told with the VM of its folder; where there is none, or it would be the VM's own file, by itself. */
function addBroken(path: string, finding: Finding, groups: Group[]): void {
  const root = rootOf(path);
  const here = groups.filter((group) => group.root === root);
  if (basename(dirname(path)).toLowerCase() === 'snapshots' && here.length > 0) {
    here[0]!.findings.push(finding);
    here[0]!.used.push(path);
    return;
  }
  const without = here.find((group) => group.machine === undefined && group.unreadable === undefined);
  if (without !== undefined) {
    without.unreadable = path;
    without.findings.push(finding);
    without.used.push(path);
    return;
  }
  groups.push({
    home: dirname(path),
    root,
    name: /^virtual machines$/i.test(basename(dirname(path))) ? basename(root) : basename(path).replace(/\.[^.]+$/, ''),
    machine: undefined,
    checkpoints: [],
    unreadable: path,
    used: [path],
    findings: [finding],
  });
}

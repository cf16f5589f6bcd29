/**
 * Which XML files of a repository are libvirt's, and which of them are about one VM. They lie in one folder where a backup tool put
 * them beside the images, or as libvirt keeps them: the domain in `/etc/libvirt/qemu`, its snapshots in
 * `/var/lib/libvirt/qemu/snapshot/NAME`, checkpoints in `.../checkpoint/NAME`, the live state in `/run/libvirt/qemu`.
 */
import { basename, dirname, join, relative, sep } from 'node:path';
import { findingFromError } from '../../chain/verify.ts';
import { CancelledError, ChainliftError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { attribute, childOf, childText, type XmlElement } from '../../xml.ts';
import { isCompanionName } from '../files.ts';
import { oneLine } from '../text.ts';
import type { Folder } from '../walk.ts';
import { readXmlFile, rootNameOf } from '../xml-files.ts';
import { type Domain, readDomain, uuidOf } from './domain.ts';
import { type LibvirtSnapshot, readSnapshot } from './snapshot.ts';

export interface DomainFile {
  readonly path: string;
  readonly domain: Domain;
  /** For the live state of a VM (`<domstatus>`): `running`, `paused`. */
  readonly state: string | undefined;
}

export interface SnapshotFile {
  readonly path: string;
  readonly snapshot: LibvirtSnapshot;
}

/** The files about one VM; at least one list is not empty, or a finding says why. */
export interface MachineFiles {
  readonly uuid: string | undefined;
  readonly name: string;
  /** Folder of the file that it is shown with. */
  readonly home: string;
  /** The one that its present state is read from comes first. */
  readonly domains: readonly DomainFile[];
  readonly snapshots: readonly SnapshotFile[];
  /** Names of checkpoints, from which changed blocks are tracked. */
  readonly checkpoints: readonly string[];
  /** Real paths of everything that was read. */
  readonly used: readonly string[];
  readonly findings: readonly Finding[];
}

interface Group {
  uuid: string | undefined;
  name: string;
  home: string;
  readonly domains: DomainFile[];
  readonly snapshots: SnapshotFile[];
  readonly checkpoints: string[];
  readonly used: string[];
  readonly findings: Finding[];
}

const DOMAIN_ROOTS = ['domain', 'domstatus', 'domainstatus'];
const SNAPSHOT_ROOTS = ['domainsnapshot', 'domaincheckpoint'];

/** Reads libvirt's files among those of the folders. @throws CancelledError. */
export async function findMachines(folders: readonly Folder[], folder: Confinement): Promise<MachineFiles[]> {
  const groups: Group[] = [];
  const later: { path: string; root: string }[] = [];
  for (const place of folders) {
    for (const name of place.files) {
      if (!/\.xml$/i.test(name) || isCompanionName(basename(name))) continue;
      const path = join(place.path, name);
      const root = await rootOf(path, folder);
      if (root === undefined) continue;
      if (DOMAIN_ROOTS.includes(root)) await addDomain(path, root, groups, folder);
      else if (SNAPSHOT_ROOTS.includes(root)) later.push({ path, root });
    }
  }
  mergeLiveStates(groups);
  for (const { path, root } of later) await addSnapshot(path, root, groups, folder);
  for (const group of groups) if (group.domains.length > 1) chooseDomain(group, folder);
  return groups;
}

async function rootOf(path: string, folder: Confinement): Promise<string | undefined> {
  try {
    return await rootNameOf(path, folder);
  } catch (error) {
    // A file that can't be read is not known to be a VM's.
    if (error instanceof ChainliftError && !(error instanceof CancelledError)) return undefined;
    throw error;
  }
}

async function parsed(path: string, folder: Confinement): Promise<XmlElement | Finding> {
  try {
    return await readXmlFile(path, folder, 'libvirt XML');
  } catch (error) {
    if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
    return findingFromError(error, {
      code: 'config-unreadable',
      source: folder.label(path),
      remedy: 'Take this file from another copy of the backup, or open a disk image of the folder by itself.',
    });
  }
}

async function addDomain(path: string, root: string, groups: Group[], folder: Confinement): Promise<void> {
  const element = await parsed(path, folder);
  const home = dirname(path);
  const stem = basename(path).replace(/\.xml$/i, '');
  if (isFinding(element)) {
    groups.push({ ...emptyGroup(stem, home), used: [path], findings: [element] });
    return;
  }
  const live = root !== 'domain';
  const inner = live ? childOf(element, 'domain') : element;
  if (inner === undefined) return;
  const domain = readDomain(inner, folder.label(path));
  const file = { path, domain, state: live ? (attribute(element, 'state') ?? 'running') : undefined };
  const known = groups.find((group) => group.home === home && group.domains.length > 0 && isSame(group, domain));
  if (known === undefined) {
    groups.push({
      ...emptyGroup(domain.name ?? stem, home),
      uuid: domain.uuid,
      domains: [file],
      used: [path],
      findings: [...domain.findings],
    });
    return;
  }
  known.domains.push(file);
  known.used.push(path);
}

async function addSnapshot(path: string, root: string, groups: Group[], folder: Confinement): Promise<void> {
  const element = await parsed(path, folder);
  const home = dirname(path);
  if (isFinding(element)) {
    const group = groupFor(undefined, basename(home), home, groups);
    group.used.push(path);
    group.findings.push(element);
    return;
  }
  const inner = childOf(element, 'domain');
  const uuid = uuidOf(childText(inner, 'uuid'));
  const name = oneLine(childText(inner, 'name') ?? '') || basename(home);
  const group = groupFor(uuid, name, home, groups);
  group.used.push(path);
  if (root === 'domainsnapshot') group.snapshots.push({ path, snapshot: readSnapshot(element, folder.label(path)) });
  else group.checkpoints.push(oneLine(childText(element, 'name') ?? '') || basename(path));
}

/** The VM that a snapshot is of: by its UUID, or where one of the two has none by name; of several copies the nearest. */
function groupFor(uuid: string | undefined, name: string, home: string, groups: Group[]): Group {
  const same = groups.filter((group) =>
    uuid !== undefined && group.uuid !== undefined ? group.uuid === uuid : group.name === name,
  );
  const near = [...same].sort((a, b) => shared(b.home, home) - shared(a.home, home))[0];
  if (near !== undefined) {
    near.uuid ??= uuid;
    return near;
  }
  const group = { ...emptyGroup(name, home), uuid };
  groups.push(group);
  return group;
}

/** Components that two folders have in common from the root on. */
function shared(a: string, b: string): number {
  const up = relative(a, b)
    .split(sep)
    .filter((part) => part === '..').length;
  return a.split(sep).length - up;
}

/** The live state of a VM (`/run/libvirt/qemu/web01.xml`) belongs to its domain, where there is just one of it. */
function mergeLiveStates(groups: Group[]): void {
  for (const live of [...groups]) {
    if (live.uuid === undefined || live.domains.length === 0) continue;
    if (live.domains.some((file) => file.state === undefined)) continue;
    const others = groups.filter((group) => group !== live && group.uuid === live.uuid);
    if (others.length !== 1) continue;
    const [kept] = others;
    kept!.domains.push(...live.domains);
    kept!.used.push(...live.used);
    kept!.findings.push(...live.findings);
    groups.splice(groups.indexOf(live), 1);
  }
}

/** Puts the definition that the present state is read from first: the live one, or the last of a backup tool's. */
function chooseDomain(group: Group, folder: Confinement): void {
  const order = [...group.domains].sort(
    (a, b) =>
      Number(b.state !== undefined) - Number(a.state !== undefined) ||
      b.path.localeCompare(a.path, 'en', { numeric: true }),
  );
  group.domains.splice(0, group.domains.length, ...order);
  const [first, ...rest] = order;
  group.findings.push({
    severity: 'note',
    code: 'several-definitions',
    message: `${order.length} files define this VM; its present state is read from ${folder.label(first!.path)}, and not from ${rest
      .slice(0, 4)
      .map(({ path }) => folder.label(path))
      .join(', ')}${rest.length > 4 ? '...' : ''}`,
    source: folder.label(first!.path),
  });
}

function isSame(group: Group, domain: Domain): boolean {
  return group.uuid !== undefined && domain.uuid !== undefined
    ? group.uuid === domain.uuid
    : group.name === domain.name;
}

function isFinding(value: XmlElement | Finding): value is Finding {
  return 'severity' in value;
}

function emptyGroup(name: string, home: string): Group {
  return { uuid: undefined, name, home, domains: [], snapshots: [], checkpoints: [], used: [], findings: [] };
}

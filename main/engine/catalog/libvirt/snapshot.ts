/**
 * What libvirt keeps of a VM's snapshots: one `<domainsnapshot>` a file, in `/var/lib/libvirt/qemu/snapshot/NAME/`. Each holds the
 * snapshot's name, time, state and parent, what was done with the memory and each disk, and the VM as it was then.
 *
 * For an external snapshot `<disks>` names the NEW file that the VM writes to since; the state of the snapshot is the file under
 * it. For an internal one the state is kept in the image itself, under the snapshot's name.
 *
 * Facts: libvirt, "Snapshot XML format" (https://libvirt.org/formatsnapshot.html), src/conf/snapshot_conf.c, and virsh's man page
 * (snapshot-create).
 */

import { attribute, childOf, childrenOf, childText, type XmlElement } from '../../xml.ts';
import { oneLine } from '../text.ts';
import { type Domain, readDomain, sourceOf } from './domain.ts';

/** How a snapshot holds something: in the image, in a file of its own, not at all, or by means that libvirt does not know. */
export type Kept = 'internal' | 'external' | 'no' | 'manual';

export interface SnapshotDisk {
  /** `vda`; a path in files of old versions. */
  readonly name: string;
  readonly kept: Kept;
  /** For external ones, the recorded file that was written to from then on. */
  readonly overlay: string | undefined;
}

export interface LibvirtSnapshot {
  readonly name: string;
  readonly description: string | undefined;
  /** ISO 8601 UTC. */
  readonly created: string | undefined;
  /** Name of the snapshot before. */
  readonly parent: string | undefined;
  /** `running`, `paused`, `shutoff`, `disk-snapshot`...: of the VM when it was taken. */
  readonly state: string | undefined;
  readonly memory: Kept | undefined;
  /** Recorded file of external memory. */
  readonly memoryFile: string | undefined;
  readonly disks: readonly SnapshotDisk[];
  /** The VM as it was when this was taken. */
  readonly domain: Domain | undefined;
  /** The VM's present state descends from this one. */
  readonly active: boolean;
}

/** Reads a `<domainsnapshot>`. Never throws for what it says. */
export function readSnapshot(element: XmlElement, source: string): LibvirtSnapshot {
  const memory = childOf(element, 'memory');
  const domain = childOf(element, 'domain');
  return {
    // Names are looked for as they stand in images; what is shown is made fit for that where it is shown.
    name: childText(element, 'name') ?? '',
    description: oneLine(childText(element, 'description') ?? '') || undefined,
    created: timeOf(childText(element, 'creationTime')),
    parent: childText(childOf(element, 'parent'), 'name'),
    state: childText(element, 'state')?.toLowerCase(),
    memory: keptOf(attribute(memory, 'snapshot')),
    memoryFile: attribute(memory, 'file'),
    disks: childrenOf(childOf(element, 'disks'), 'disk').slice(0, 1_024).map(diskOf),
    domain: domain === undefined ? undefined : readDomain(domain, source),
    active: childText(element, 'active') === '1',
  };
}

/** ISO 8601 UTC of seconds since 1970; undefined for what is no time. */
export function timeOf(seconds: string | undefined): string | undefined {
  if (seconds === undefined || !/^\d{1,11}$/.test(seconds)) return undefined;
  return new Date(Number(seconds) * 1_000).toISOString();
}

function diskOf(disk: XmlElement): SnapshotDisk {
  const source = childOf(disk, 'source');
  const kept = keptOf(attribute(disk, 'snapshot'));
  return {
    name: oneLine(attribute(disk, 'name') ?? ''),
    // A file of its own is what a <source> means where nothing is said.
    kept: kept ?? (source === undefined ? 'internal' : 'external'),
    overlay: sourceOf(attribute(disk, 'type') ?? 'file', source).file,
  };
}

function keptOf(text: string | undefined): Kept | undefined {
  return text === 'internal' || text === 'external' || text === 'no' || text === 'manual' ? text : undefined;
}

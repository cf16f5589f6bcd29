/**
 * What a scan of a repository gives. The shapes are those of `RepositoryReport` in preload/api.ts, and beside them what the
 * engine itself needs to open things: real paths and the folder that confines them. Whoever hands a catalog to a shell leaves
 * out `folder`, `PointDisk.path` and `VirtualMachine.config`.
 *
 * All sizes are bytes, all times ISO 8601 UTC.
 */
import type { WireError } from '../errors.ts';
import type { Finding } from '../image/image.ts';
import type { Confinement } from '../storage/confinement.ts';

export type { Finding, Severity } from '../image/image.ts';

/** How consistent a point's disks are, with what was found that says so. Without evidence the level is `unknown`. */
export interface Consistency {
  readonly level: 'application' | 'file-system' | 'crash' | 'memory' | 'unknown';
  readonly evidence: readonly string[];
}

export interface PointDisk {
  /** Position in the point, in the order of controllers: 0 is `sda`. */
  readonly index: number;
  /** Where the VM has it: `scsi0:0`. Absent for loose images. */
  readonly node?: string;
  /** The leaf image relative to the repository; the recorded name where there is no such file. */
  readonly file: string;
  /** Real path of the leaf image, what `openChain` takes; absent where there is no file to open. */
  readonly path?: string;
  readonly size?: number;
  /** Bytes that the leaf layer holds. */
  readonly changedBytes?: number;
  /** Images from leaf to base, relative to the repository, as far as the chain could be followed. */
  readonly chain: readonly string[];
  /** Why the chain can't be opened, when it can't. */
  readonly error?: WireError;
}

export interface RestorePoint {
  /** Unique in its VM: the snapshot's uid, `current`, or the image's name for loose chains. */
  readonly id: string;
  readonly name: string;
  readonly description?: string;
  readonly created?: string;
  /** Id of the point before; absent for a first one. */
  readonly parent?: string;
  /** The VM's present state. */
  readonly current: boolean;
  /** The present state descends directly from this point. */
  readonly currentParent: boolean;
  readonly memory: boolean;
  readonly quiesced: boolean;
  readonly consistency: Consistency;
  readonly disks: readonly PointDisk[];
  /** Sum over the disks; absent when one could not be read. */
  readonly changedBytes?: number;
  readonly findings: readonly Finding[];
}

/** A network adapter of the VM, kept for a later restore. */
export interface NetworkAdapter {
  /** As its hypervisor counts or names it: `0`, `ethernet0`. */
  readonly device: string;
  /** Six bytes in hexadecimal, lower case, with colons. */
  readonly mac?: string;
  /** The network, bridge or switch it was connected to. */
  readonly network?: string;
  /** `vmxnet3`, `e1000`, `virtio`. */
  readonly model?: string;
}

export interface VirtualMachine {
  /** Unique in its catalog. */
  readonly name: string;
  readonly origin: 'vmware' | 'hyper-v' | 'xenserver' | 'libvirt' | 'virtualbox' | 'ovf' | 'images';
  /** Folder relative to the repository, `.` for the root. */
  readonly folder: string;
  /** The .vmx or .vmsd it was read from, relative to the repository; absent for loose images. */
  readonly config?: string;
  readonly guest?: string;
  readonly cpus?: number;
  readonly memoryBytes?: number;
  readonly firmware?: string;
  readonly networks?: readonly NetworkAdapter[];
  /** Parents before children, siblings by time, the present state last among them. */
  readonly points: readonly RestorePoint[];
  readonly findings: readonly Finding[];
}

export interface Orphan {
  /** Relative to the repository. */
  readonly file: string;
  readonly bytes: number;
  readonly reason: string;
}

export interface Catalog {
  /** Absolute path as it was asked for. */
  readonly source: string;
  readonly kind: 'folder' | 'image';
  /** Last component of the source. */
  readonly name: string;
  /** The opened folder: everything that the catalog names is opened through it. */
  readonly folder: Confinement;
  readonly vms: readonly VirtualMachine[];
  readonly orphans: readonly Orphan[];
  readonly findings: readonly Finding[];
}

/** True when every disk of the point can be opened and there is at least one. */
export function isIntact(point: RestorePoint): boolean {
  return point.disks.length > 0 && point.disks.every((disk) => disk.error === undefined);
}

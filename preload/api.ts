/**
 * The contract between every shell (window in Electron, window in a browser, command line) and the engine. Types only: the
 * schemas that check what crosses a process are in `schemas.ts`, the protocol that carries it in `rpc.ts`.
 *
 * All sizes and offsets are bytes. All values survive structured clone and JSON.
 * A method that returns an AsyncIterable is a stream: its consumer may stop at any time, which cancels the work behind it.
 */

export type ErrorKind =
  | 'io'
  | 'unsupported'
  | 'corrupt'
  | 'not-found'
  | 'missing-parent'
  | 'needs-key'
  | 'cancelled'
  | 'denied'
  | 'usage'
  | 'internal';

export type Detail =
  | string
  | number
  | boolean
  | null
  | undefined
  | readonly Detail[]
  | { readonly [key: string]: Detail };

/** An error as data. The window chooses its words from `kind` and `details`; `message` is for logs and the command line. */
export interface WireError {
  readonly kind: ErrorKind;
  readonly message: string;
  readonly details: { readonly [key: string]: Detail };
}

/** What an operation works on: a repository folder or an image file, narrowed to one VM, one point, one disk. */
export interface Target {
  /** Absolute path of a repository folder, or of an image file (then that file is the leaf). */
  readonly source: string;
  readonly vm?: string;
  /** A point's id or its name. */
  readonly point?: string;
  /** Index of the disk in the point. */
  readonly disk?: number;
}

export type Severity = 'damaged' | 'suspicious' | 'note';

export interface Finding {
  readonly severity: Severity;
  /** Stable kebab-case name of the check. */
  readonly code: string;
  readonly message: string;
  readonly source?: string;
  readonly structure?: string;
  readonly position?: number;
  readonly expected?: string | number;
  readonly found?: string | number;
  /** What can still be done, as a sentence. */
  readonly remedy?: string;
  /** What a shell can offer to do about it. */
  readonly action?: FindingAction;
}

/** The user may point at the parent of `child`, whose recorded name leads nowhere (any more): see `locateParent`. */
export interface FindingAction {
  readonly kind: 'locate-parent';
  /** Name of the layer, relative to the repository. */
  readonly child: string;
  readonly recorded: string;
  readonly expectedId?: string;
  /** Files of the repository that have the identity, relative to it; most likely first. */
  readonly candidates?: readonly string[];
}

/** How consistent a point's disks are, with what was found that says so. */
export interface Consistency {
  readonly level: 'application' | 'file-system' | 'crash' | 'memory' | 'unknown';
  readonly evidence: readonly string[];
}

export interface PointDisk {
  /** 0 is `sda`. */
  readonly index: number;
  /** Where the VM has it: `scsi0:0`. Absent for loose images. */
  readonly node?: string;
  /** The leaf image file of this point, relative to the repository. */
  readonly file: string;
  /** Virtual size; absent when the image could not be opened. */
  readonly size?: number;
  /** Bytes that the leaf layer holds: what changed on this disk since the point before (all of it for a base). */
  readonly changedBytes?: number;
  /** Images from leaf to base, relative to the repository, as far as the chain could be followed. */
  readonly chain: readonly string[];
  /** Why the chain can't be opened, when it can't. */
  readonly error?: WireError;
}

export interface RestorePoint {
  /** Stable within its VM: the snapshot's uid, `current`, or the image's name for loose chains. */
  readonly id: string;
  readonly name: string;
  readonly description?: string;
  /** ISO 8601 UTC. */
  readonly created?: string;
  readonly parent?: string;
  /** This is the VM's present state (the leaf that the VM itself writes to). */
  readonly current: boolean;
  /** The VM's present state descends directly from this point. */
  readonly currentParent: boolean;
  /** A memory state is stored with it. */
  readonly memory: boolean;
  readonly quiesced: boolean;
  readonly consistency: Consistency;
  readonly disks: readonly PointDisk[];
  /** Sum over the disks; absent when a disk could not be read. */
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
  readonly model?: string;
}

export interface VirtualMachine {
  readonly name: string;
  /** Whose files describe it; `images` for chains that no VM file describes. */
  readonly origin: 'vmware' | 'hyper-v' | 'xenserver' | 'libvirt' | 'virtualbox' | 'ovf' | 'images';
  /** Folder relative to the repository, `.` for the root. */
  readonly folder: string;
  readonly guest?: string;
  readonly cpus?: number;
  readonly memoryBytes?: number;
  readonly firmware?: string;
  readonly networks?: readonly NetworkAdapter[];
  /** In the order of the history: parents before children, siblings by time. */
  readonly points: readonly RestorePoint[];
  readonly findings: readonly Finding[];
}

export interface Orphan {
  readonly file: string;
  readonly bytes: number;
  readonly reason: string;
}

export interface RepositoryReport {
  readonly source: string;
  readonly kind: 'folder' | 'image';
  readonly name: string;
  readonly vms: readonly VirtualMachine[];
  readonly orphans: readonly Orphan[];
  readonly findings: readonly Finding[];
}

export interface LayerInfo {
  /** Index in the chain, 0 is the leaf. */
  readonly index: number;
  readonly name: string;
  readonly format: string;
  readonly variant: string;
  readonly virtualSize: number;
  readonly granularity: number;
  readonly allocatedBytes: number;
  readonly id?: string;
  readonly parent?: {
    readonly recorded: string;
    /** Further names recorded for it. */
    readonly alternatives?: readonly string[];
    readonly id?: string;
    /** The format the layer says its parent has. */
    readonly format?: string;
  };
  readonly files: readonly { readonly role: string; readonly name: string; readonly size: number }[];
  readonly properties: Readonly<Record<string, string | number | boolean>>;
}

export interface DiskInfo {
  readonly vm: string;
  readonly point: string;
  readonly disk: number;
  readonly size: number;
  readonly layers: readonly LayerInfo[];
}

/** A stretch of the virtual disk with one answer to "where are these bytes". */
export interface MapRun {
  readonly offset: number;
  readonly length: number;
  /** `compressed`: (a part of) one compressed unit of the layer. */
  readonly kind: 'data' | 'compressed' | 'zero';
  /** Index of the layer that answers; absent where no layer has anything (zeros). */
  readonly layer?: number;
  /** For data: the file and the byte in it. For compressed: where the unit begins. */
  readonly file?: string;
  readonly position?: number;
}

export interface Timestamp {
  readonly seconds: number;
  readonly nanoseconds: number;
}

export type EntryKind =
  | 'file'
  | 'directory'
  | 'symlink'
  | 'fifo'
  | 'socket'
  | 'block-device'
  | 'character-device'
  | 'unknown';

export interface FileSystemInfo {
  readonly type: string;
  readonly label?: string;
  readonly uuid?: string;
  readonly size: number;
  readonly blockSize: number;
  readonly free?: number;
  readonly condition: 'clean' | 'needs-replay' | 'dirty' | 'errors';
  readonly evidence: readonly string[];
  readonly features: readonly string[];
}

export interface VolumeInfo {
  /** As Linux would name it: `sda1`. First component of every path inside a VM. */
  readonly name: string;
  readonly disk: number;
  readonly scheme: 'mbr' | 'gpt' | 'none';
  readonly type: string;
  readonly typeCode: string;
  readonly label?: string;
  readonly uuid?: string;
  readonly start: number;
  readonly size: number;
  readonly bootable: boolean;
  readonly fileSystem?: FileSystemInfo;
  /** Why there is no file system to browse: unknown content, encrypted, damaged. */
  readonly error?: WireError;
}

export interface VolumesReport {
  readonly volumes: readonly VolumeInfo[];
  readonly findings: readonly Finding[];
}

/** One file or folder. Fields below `kind` are there when `long` was asked for, as far as the file system has them. */
export interface EntryRow {
  readonly name: string;
  /** Absolute: `/sda1/srv/www/index.php`. */
  readonly path: string;
  readonly kind: EntryKind;
  readonly id: number;
  readonly size?: number;
  readonly allocated?: number;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly links?: number;
  readonly modified?: Timestamp;
  readonly accessed?: Timestamp;
  readonly changed?: Timestamp;
  readonly created?: Timestamp;
  readonly device?: { readonly major: number; readonly minor: number };
  readonly flags?: readonly string[];
  /** Target of a symbolic link. */
  readonly linkTarget?: string;
  /** Why this entry can't be read; it is listed all the same. */
  readonly error?: WireError;
}

export interface ExtendedAttribute {
  readonly name: string;
  /** The value's bytes as Base64. */
  readonly value: string;
}

export interface EntryDetails extends EntryRow {
  readonly attributes: readonly ExtendedAttribute[];
  /** Which layers hold the content's bytes, most bytes first; for folders, those of the directory itself. */
  readonly layers: readonly LayerShare[];
  /** What of this could not be read (attributes, the map of the content); what is here is right all the same. */
  readonly problems: readonly WireError[];
}

export interface LayerShare {
  /** Index in the chain of the entry's disk, 0 is the leaf; absent for zeros that no layer stores. */
  readonly layer?: number;
  /** Name of the layer's image; `zeros` where no layer stores anything; `inode` for content inside metadata is named by its layer. */
  readonly name: string;
  readonly bytes: number;
}

/** What differs in one directory between this point and the point before it (its parent). */
export interface DirectoryChanges {
  /** The point compared with; absent when this is the first. */
  readonly before?: { readonly id: string; readonly name: string };
  /** By entry name. `changed`: size, time, mode, owner or content location differ. */
  readonly marks: Readonly<Record<string, 'added' | 'changed'>>;
  /** Entries that the point before had and this one does not. */
  readonly gone: readonly EntryRow[];
  /** Names that are here and no longer in a later point of this line, with the first such point. */
  readonly goneLater: Readonly<Record<string, { readonly id: string; readonly name: string }>>;
}

export interface Preview {
  /** Content's first bytes as Base64, at most what was asked for. */
  readonly bytes: string;
  readonly size: number;
  readonly truncated: boolean;
}

export type OverwritePolicy = 'refuse' | 'replace' | 'rename' | 'skip';

export interface CopyRequest {
  readonly target: Target;
  /** Absolute paths inside the VM. */
  readonly paths: readonly string[];
  /** Absolute path of a folder on this computer. */
  readonly destination: string;
  /** Name of the copy, for a single path; its own name when absent. */
  readonly name?: string;
  readonly recursive: boolean;
  /** Read every copied file back and compare its SHA-256. */
  readonly verify: boolean;
  readonly overwrite: OverwritePolicy;
}

export interface CopiedFile {
  readonly path: string;
  readonly destination: string;
  readonly kind: EntryKind;
  readonly bytes: number;
  /** SHA-256 of a regular file's content, lower-case hex. */
  readonly sha256?: string;
  readonly verified: boolean;
}

export interface CopyProblem {
  readonly path: string;
  readonly error: WireError;
}

/** What could not be carried over without being an error: owner without privileges, a name that had to be changed. */
export interface CopyNote {
  readonly path: string;
  readonly note: string;
}

export interface CopyResult {
  readonly files: number;
  readonly directories: number;
  readonly links: number;
  readonly bytes: number;
  readonly verified: number;
  readonly skipped: number;
  /** Top-level destinations that were made, up to 1,000 of them. */
  readonly written: readonly string[];
  /** Up to 1,000 of them; `files` has the count. */
  readonly copied: readonly CopiedFile[];
  readonly problems: readonly CopyProblem[];
  readonly notes: readonly CopyNote[];
}

export interface ConvertRequest {
  readonly target: Target;
  /** Absolute path of the image to write. With flat VMDK, the extent lies beside it. */
  readonly destination: string;
  readonly format: 'raw' | 'qcow2' | 'vmdk' | 'vhdx';
  /** VMDK: `monolithicSparse` (when absent), `streamOptimized`, `monolithicFlat`. No other format has any. */
  readonly variant?: string;
  /** Read the new image back and compare it with the point. */
  readonly verify: boolean;
  readonly overwrite: 'refuse' | 'replace';
  /** Go on with an interrupted conversion to the same destination, where there is one of the same point. */
  readonly resume: boolean;
}

export interface ConvertResult {
  /** The files written; the first is the image. */
  readonly files: readonly string[];
  readonly format: string;
  readonly variant: string;
  /** Virtual size. */
  readonly size: number;
  /** Bytes of the virtual disk that are not zero, as stored in the new image. */
  readonly dataBytes: number;
  /** Bytes that an interrupted run had written already. */
  readonly resumedBytes: number;
  readonly verified: boolean;
  /** SHA-256 of the virtual disk's content, where the whole of it was hashed. */
  readonly sha256?: string;
}

/** What came of pointing at a parent. */
export interface LocatedParent {
  readonly child: string;
  /** Absolute path. */
  readonly parent: string;
  /** The parent's identity is the one that the child records. False where the format records none: then nothing proves it. */
  readonly proved: boolean;
  /** What does not fit without proving that it is the wrong file (size, time). */
  readonly findings: readonly Finding[];
}

export interface HashResult {
  readonly sha256: string;
  readonly bytes: number;
}

export interface VerifyResult {
  /** What was verified, as it was asked for: the repository's folder or the image. */
  readonly source: string;
  readonly findings: readonly Finding[];
  readonly disksChecked: number;
}

export interface ScanResult {
  readonly vms: number;
  readonly points: number;
}

export type TaskResult =
  | ({ readonly kind: 'copy' } & CopyResult)
  | ({ readonly kind: 'hash' } & HashResult)
  | ({ readonly kind: 'verify' } & VerifyResult)
  | ({ readonly kind: 'convert' } & ConvertResult)
  | ({ readonly kind: 'scan' } & ScanResult);

export interface TaskProgress {
  readonly bytesDone: number;
  readonly bytesTotal?: number;
  readonly itemsDone: number;
  readonly itemsTotal?: number;
  /** What it is at: a path, a layer. */
  readonly current?: string;
}

export interface TaskSnapshot {
  readonly id: string;
  readonly kind: 'copy' | 'hash' | 'verify' | 'scan' | 'convert';
  /** As a person would say it: `Copy www to /root/Desktop`. */
  readonly title: string;
  readonly state: 'running' | 'done' | 'failed' | 'cancelled';
  /** ISO 8601. */
  readonly started: string;
  readonly ended?: string;
  readonly progress: TaskProgress;
  readonly bytesPerSecond: number;
  /** Forecast; absent until there is something to base it on. */
  readonly secondsLeft?: number;
  readonly error?: WireError;
  readonly result?: TaskResult;
}

export interface ExportRequest {
  readonly target: Target;
  /** A Unix socket at this path; absent with `listen` absent: a private one is made. */
  readonly socket?: string;
  /** `host:port` on loopback; port 0 lets the system choose. */
  readonly listen?: string;
  /** Data workers; the number of cores, at most 4, when absent. */
  readonly workers?: number;
}

export interface ExportInfo {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly target: Target;
  readonly uri: string;
  readonly socket?: string;
  readonly host?: string;
  readonly port?: number;
  readonly size: number;
  readonly started: string;
  readonly clients: number;
  readonly requests: number;
  readonly bytesRead: number;
  /** Commands ready to paste, for the programs people mount with. */
  readonly commands: readonly { readonly title: string; readonly command: string }[];
}

export interface RecentRepository {
  readonly path: string;
  readonly name: string;
  readonly opened: string;
}

export interface FolderListing {
  readonly path: string;
  readonly parent?: string;
  readonly folders: readonly string[];
  /** Files in it that look like backups: .vmx, .vmdk, .img ... */
  readonly images: readonly string[];
}

export interface About {
  readonly version: string;
  readonly formats: readonly string[];
  readonly fileSystems: readonly string[];
  readonly home: string;
}

/** Everything a shell can ask of the engine. */
export interface ChainliftApi {
  /** Version, and what this build can read. */
  about(request: Record<string, never>): Promise<About>;
  /** Repositories opened lately, newest first. */
  recent(request: Record<string, never>): Promise<RecentRepository[]>;
  /** Takes a repository off the list of recent ones; touches nothing else. */
  forget(request: { readonly path: string }): Promise<void>;
  /** Folders of this computer, for an open dialog where the shell has none of its own. */
  browse(request: { readonly path?: string }): Promise<FolderListing>;
  /** Starts reading a repository's catalog anew, and remembers it as recent; returns at once. `report` has it afterwards. */
  scan(request: { readonly source: string }): Promise<TaskSnapshot>;
  /** A repository's catalog as it was last read; reads it where it was not. */
  report(request: { readonly source: string }): Promise<RepositoryReport>;
  /** The layers of a disk, leaf first. */
  info(request: { readonly target: Target }): Promise<DiskInfo>;
  /** Runs of the disk, in batches. */
  map(request: { readonly target: Target }): AsyncIterable<MapRun[]>;
  /** Partitions and their file systems, with how each was left. */
  volumes(request: { readonly target: Target }): Promise<VolumesReport>;
  /** Entries of a folder in batches; `/` lists the volumes. `recursive` walks depth first, each folder before its content. */
  list(request: {
    readonly target: Target;
    readonly path: string;
    readonly long?: boolean;
    readonly recursive?: boolean;
  }): AsyncIterable<EntryRow[]>;
  /** Everything known of one entry: attributes, extended attributes, layers. */
  stat(request: { readonly target: Target; readonly path: string }): Promise<EntryDetails>;
  /** A file's content, in chunks. */
  read(request: { readonly target: Target; readonly path: string }): AsyncIterable<Uint8Array>;
  /** The first bytes of a file, at most `limit`. */
  preview(request: { readonly target: Target; readonly path: string; readonly limit: number }): Promise<Preview>;
  /** What differs in one folder from the point before, and what of it is gone later. */
  changes(request: { readonly target: Target; readonly path: string }): Promise<DirectoryChanges>;
  /** Layers that hold the bytes of each path, for the rows on screen; null where it can't be told. */
  layers(request: { readonly target: Target; readonly paths: readonly string[] }): Promise<(LayerShare[] | null)[]>;

  /** Starts copying files out; returns at once. */
  copy(request: CopyRequest): Promise<TaskSnapshot>;
  /** Starts hashing a disk's content; returns at once. */
  hash(request: { readonly target: Target }): Promise<TaskSnapshot>;
  /** Starts verifying a point, a VM or a repository; returns at once. */
  verify(request: { readonly target: Target }): Promise<TaskSnapshot>;
  /** Starts restoring a whole disk to a new image; returns at once. */
  convert(request: ConvertRequest): Promise<TaskSnapshot>;
  /**
   * Remembers where the parent of a layer is now, after checking its identity; `scan` then opens the chain through it.
   * @throws WireError `missing-parent` when the file is another one.
   */
  locateParent(request: {
    readonly source: string;
    /** Name of the layer whose parent it is, relative to the repository. */
    readonly child: string;
    /** Absolute path of the parent. */
    readonly parent: string;
  }): Promise<LocatedParent>;
  /** Forgets where the parent of a layer was said to be. */
  forgetParent(request: { readonly source: string; readonly child: string }): Promise<void>;
  /** Every task's state, then each change of any task (at most ten times a second each). */
  watchTasks(request: Record<string, never>): AsyncIterable<TaskSnapshot>;
  /** One task's changes until it has ended; the last item is its end. */
  watchTask(request: { readonly id: string }): AsyncIterable<TaskSnapshot>;
  /** Asks a task to end; it does at its next step. */
  cancelTask(request: { readonly id: string }): Promise<void>;
  /** Forgets an ended task. */
  dismissTask(request: { readonly id: string }): Promise<void>;

  /** Serves a disk read-only over NBD until it is stopped. */
  startExport(request: ExportRequest): Promise<ExportInfo>;
  /** Ends an export: clients are disconnected, its socket is removed. */
  stopExport(request: { readonly id: string }): Promise<void>;
  /** The list of exports, now and after every change (clients, counters: once a second). */
  watchExports(request: Record<string, never>): AsyncIterable<ExportInfo[]>;
}

/**
 * What came of a drag gesture. `dragging`: the system's drag has begun. `ready`: staging took longer than a gesture lasts (the
 * copy shows among the tasks while it runs); the same selection dragged again starts at once.
 */
export type DragOutcome = 'dragging' | 'ready';

/** What only a shell can do. `window.chainlift` in Electron; made by the page itself in a browser. */
export interface ShellApi {
  readonly kind: 'electron' | 'browser';
  readonly platform: string;
  /** Source to open first (from the command line or the demo), when there is one. */
  readonly initialSource: string | undefined;
  /** The system's folder dialog, for `locate` its file dialog; undefined when the user cancelled. Absent in a browser, where `browse` stands in. */
  readonly chooseFolder?: (purpose: 'open' | 'copy-to' | 'locate') => Promise<string | undefined>;
  /** Stages the files, then hands them to the system's drag (Electron). Rejects with a `WireError`. */
  readonly startDrag?: (target: Target, paths: readonly string[]) => Promise<DragOutcome>;
  /** URL of a file's content for downloads and DownloadURL drags (browser). */
  readonly downloadUrl?: (target: Target, path: string) => string;
  /** Shows a file of this computer in its folder (Electron). */
  readonly reveal?: (path: string) => Promise<void>;
}

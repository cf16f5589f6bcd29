/**
 * What a disk image format gives: one layer of a chain. A layer knows its own tables and nothing of its parent's; it answers
 * "where are the bytes of this range" with runs, and `absent` (ask the parent) is never `zero` (this layer says zeros).
 *
 * A format is a folder beside this file; `formats.ts` lists them in probe order.
 */
import type { ByteSource } from '../storage/byte-source.ts';
import type { Confinement } from '../storage/confinement.ts';
import type { Io } from '../storage/io.ts';

/** `length` bytes of the virtual disk from `offset`, stored uncompressed at `position` of `source`. */
export interface DataRun {
  readonly kind: 'data';
  readonly offset: number;
  readonly length: number;
  readonly source: ByteSource;
  readonly position: number;
}
/** This layer says: zeros. It hides whatever the parent has there. */
export interface ZeroRun {
  readonly kind: 'zero';
  readonly offset: number;
  readonly length: number;
}
/** This layer has no answer: ask the parent; where there is none, zeros. */
export interface AbsentRun {
  readonly kind: 'absent';
  readonly offset: number;
  readonly length: number;
}
/**
 * `length` bytes of the virtual disk from `offset`, inside one compressed unit. A unit is stored whole at `position` of `source`
 * and covers the disk from the multiple of `codec.unit` at or below `offset`; a run never reaches into the next unit.
 */
export interface CompressedRun {
  readonly kind: 'compressed';
  readonly offset: number;
  readonly length: number;
  readonly source: ByteSource;
  readonly position: number;
  /** Bytes that the unit takes at `position`, at most; 0 where the codec finds its length itself. */
  readonly stored: number;
  readonly codec: Codec;
}
export type LayerRun = DataRun | CompressedRun | ZeroRun | AbsentRun;

/** How a layer's compressed units are turned into bytes. One object for all runs of a layer: it is compared by identity. */
export interface Codec {
  /** `deflate`, `zstd`: for `map` and for errors. */
  readonly name: string;
  /** Bytes of every unit when decompressed; a power of two, from 512 to 32 MiB. The disk's last unit is as long as the others. */
  readonly unit: number;
  /**
   * The bytes of the unit at `position`, exactly `unit` of them. `offset` is the unit's first byte on the virtual disk, for codecs
   * whose units say where they belong. Never inflates to more than `unit`.
   * @throws CorruptError, IoError.
   */
  unpack(source: ByteSource, position: number, stored: number, offset: number): Io<Uint8Array>;
  /**
   * Where it exists, does the same work in libuv's thread pool: for asynchronous readers with many units in flight.
   * @throws CorruptError, IoError.
   */
  unpackAsync?(source: ByteSource, position: number, stored: number, offset: number): Promise<Uint8Array>;
}

/** What an image says its parent is. A claim: checked, and looked for only inside the opened folder. */
export interface ParentClaim {
  /** The recorded name, exactly as written (VMDK `parentFileNameHint`); where the format records only an identity (VDI), that. */
  readonly recorded: string;
  /** Further names recorded for the same parent (VHD and VHDX keep several), tried in this order after `recorded`. */
  readonly alternatives?: readonly string[];
  /** The format records no name: the parent is found by `id` among the images around the child. */
  readonly nameless?: boolean;
  /** Identity the parent must have (VMDK `parentCID`, VHD/VHDX/VDI UUID; lower-case hex), where the format records one. */
  readonly id?: string;
  /** Further identities that the parent may have instead (VHDX `parent_linkage2`). */
  readonly alternativeIds?: readonly string[];
  /** The parent's `stateId` when this image was made on it. Another one by now is a finding of `verify`, no broken link. */
  readonly stateId?: string;
  /** The format the parent must be opened as, where the child records it (QCOW2 backing format `raw`): never probed then. */
  readonly format?: string;
  /** When the parent was last changed, as the child recorded it: seconds since 1970 (VHD). Evidence for `verify`, no proof. */
  readonly modified?: number;
}

/** A point in time that an image file keeps inside itself (QCOW2). It is opened as a layer of its own: see `snapshotPath`. */
export interface InternalSnapshot {
  /** Unique in its image. */
  readonly id: string;
  readonly name: string;
  /** ISO 8601 UTC. */
  readonly created?: string;
  /** Bytes of saved VM state (memory, devices); 0 for none. */
  readonly stateBytes: number;
  /** Size of the virtual disk then. */
  readonly virtualSize: number;
}

/** One file that a layer consists of. */
export interface LayerFile {
  readonly role: 'image' | 'descriptor' | 'extent' | 'data';
  /** Path relative to the opened folder. */
  readonly name: string;
  readonly path: string;
  /** Bytes on this file system's books (the file's length). */
  readonly size: number;
}

export type Severity = 'damaged' | 'suspicious' | 'note';

/** Something `verify` has to say. Where a structure is meant: which, where, what was expected, what was found. */
export interface Finding {
  readonly severity: Severity;
  /** Stable kebab-case name of the check, for scripts: `grain-out-of-file`, `cid-mismatch`. */
  readonly code: string;
  readonly message: string;
  readonly source?: string;
  readonly structure?: string;
  readonly position?: number;
  readonly expected?: string | number;
  readonly found?: string | number;
  /** What the user can still do, as a sentence. */
  readonly remedy?: string;
  /** What a shell can offer to do about it. */
  readonly action?: FindingAction;
}

/** The user may point at the parent of `child`, whose recorded name leads nowhere (any more). */
export interface FindingAction {
  readonly kind: 'locate-parent';
  /** Name of the layer, relative to the opened folder. */
  readonly child: string;
  readonly recorded: string;
  readonly expectedId?: string;
  /** Files of the opened folder that have the identity, relative to it; most likely first. */
  readonly candidates?: readonly string[];
}

export interface ImageLayer {
  /** Format family as `formats.ts` names it: `vmdk`, `raw`. */
  readonly format: string;
  /** Sub-format: `monolithicSparse`, `vmfsSparse`; equals `format` where there is only one. */
  readonly variant: string;
  /** Path of the file that names the layer (descriptor or image), relative to the opened folder. */
  readonly name: string;
  readonly path: string;
  /** Size of the virtual disk in bytes. */
  readonly virtualSize: number;
  /** Undefined for a base. */
  readonly parent: ParentClaim | undefined;
  /** This layer's own identity (VMDK `CID`, VHD UUID ...; lower-case hex), that children record. */
  readonly id: string | undefined;
  /** Further identities by which children may record it (what VirtualBox calls a VMDK, beside its content id). */
  readonly otherIds?: readonly string[];
  /** Identity of its content, that changes whenever it is written to, where the format has one (VDI's modification UUID). */
  readonly stateId?: string;
  /** Points in time inside this image, oldest first; absent for formats that have none. */
  readonly snapshots?: readonly InternalSnapshot[];
  readonly files: readonly LayerFile[];
  /** Smallest unit in which this layer answers, in bytes (grain, block, sector). */
  readonly granularity: number;
  /** Facts of the format worth showing in `info`, in the format's own terms. */
  readonly properties: Readonly<Record<string, string | number | boolean>>;

  /**
   * The runs of this layer that cover `[offset, offset + length)`, in order, without gap or overlap; the range must lie inside
   * `virtualSize`. Neighbouring runs may be of one kind; the chain merges them.
   * @throws CorruptError when a table points outside its file, IoError.
   */
  runs(offset: number, length: number): Io<LayerRun[]>;

  /**
   * Bytes of the disk that this layer holds itself (data and compressed runs), from its tables; walks them, so it costs reads.
   */
  allocatedBytes(signal?: AbortSignal): Promise<number>;

  /** Checks every table and checksum of this layer, yielding findings as they come. Never throws for damage. */
  check(signal?: AbortSignal): AsyncIterable<Finding>;

  close(): Promise<void>;
}

/** A format, as the registry sees it. */
export interface ImageFormat {
  readonly name: string;
  /**
   * True when the file's first bytes or its name show this format. Lenient: a damaged header behind the right magic still
   * belongs to the format, whose `open` then says what is wrong. `prefix` holds up to 64 KiB.
   */
  detect(prefix: Uint8Array, fileName: string): boolean;
  /**
   * Opens one layer, never its parent. @param snapshot id of an internal snapshot, for formats that keep them.
   * @throws CorruptError, UnsupportedError, IoError, DeniedError, NotFoundError when there is no such snapshot.
   */
  open(path: string, folder: Confinement, snapshot?: string): Promise<ImageLayer>;
}

/** What stands between an image's path and the id of a snapshot inside it. */
const SNAPSHOT_MARK = '/@';

/**
 * The path of a snapshot inside an image, by which it is opened like an image: `/backups/web01.qcow2/@2`. No file can be below a
 * file, so it stands for nothing else.
 */
export function snapshotPath(image: string, id: string): string {
  return `${image}${SNAPSHOT_MARK}${encodeURIComponent(id)}`;
}

/** The image and snapshot id of such a path; undefined for others. */
export function splitSnapshotPath(path: string): { readonly image: string; readonly id: string } | undefined {
  const at = path.lastIndexOf(SNAPSHOT_MARK);
  if (at <= 0 || path.indexOf('/', at + SNAPSHOT_MARK.length) >= 0) return undefined;
  try {
    return { image: path.slice(0, at), id: decodeURIComponent(path.slice(at + SNAPSHOT_MARK.length)) };
  } catch {
    // Not of our making: a "%" that encodes nothing.
    return undefined;
  }
}

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
export type LayerRun = DataRun | ZeroRun | AbsentRun;

/** What an image says its parent is. A claim: checked, and looked for only inside the opened folder. */
export interface ParentClaim {
  /** The recorded name, exactly as written (VMDK `parentFileNameHint`). */
  readonly recorded: string;
  /** Identity the parent must have (VMDK `parentCID`, lower-case hex), where the format records one. */
  readonly id?: string;
}

/** One file that a layer consists of. */
export interface LayerFile {
  readonly role: 'image' | 'descriptor' | 'extent';
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
  /** This layer's own identity (VMDK `CID`), that children record. */
  readonly id: string | undefined;
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

  /** Bytes this layer holds itself (data runs), from its tables; walks them, so it costs reads. */
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
  /** Opens one layer, never its parent. @throws CorruptError, UnsupportedError, IoError, DeniedError. */
  open(path: string, folder: Confinement): Promise<ImageLayer>;
}

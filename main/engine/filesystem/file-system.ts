/**
 * What a guest file system gives. Reading is lazy and bounded: a directory is listed in batches as it is read, an entry is
 * cheap (no inode is read for it where the format does not need one), `stat` and `open` read the rest.
 *
 * A damaged entry stays in its listing, with `error` saying why; one bad block never hides the rest of a directory.
 */
import type { ChainliftError } from '../errors.ts';
import type { ByteSource } from '../storage/byte-source.ts';

export type EntryKind =
  | 'file'
  | 'directory'
  | 'symlink'
  | 'fifo'
  | 'socket'
  | 'block-device'
  | 'character-device'
  | 'unknown';

export interface Entry {
  /** Name as Unicode; bytes that are none are escaped, reversibly (see names.ts). Empty for the root. */
  readonly name: string;
  readonly kind: EntryKind;
  /** What the file system calls it: inode number, MFT record, position of a FAT directory entry. Unique in the volume. */
  readonly id: number;
  /** Why this entry can't be read, when it can't. */
  readonly error?: ChainliftError;
}

/** Seconds since 1970-01-01T00:00:00Z (may be negative) and nanoseconds 0..999999999. */
export interface Timestamp {
  readonly seconds: number;
  readonly nanoseconds: number;
}

export interface Stat {
  readonly kind: EntryKind;
  readonly id: number;
  /** Content size in bytes (length of the target for symbolic links). */
  readonly size: number;
  /** Bytes of storage used. */
  readonly allocated: number;
  /** POSIX permission bits with setuid, setgid, sticky (0..0o7777); undefined where the file system has none. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly links: number;
  readonly modified?: Timestamp;
  readonly accessed?: Timestamp;
  readonly changed?: Timestamp;
  readonly created?: Timestamp;
  /** Device numbers of block and character devices. */
  readonly device?: { readonly major: number; readonly minor: number };
  /** Flags in the file system's own words: `immutable`, `encrypted`, `casefold`, `hidden`, `system`. */
  readonly flags: readonly string[];
}

/** Where the bytes of a file's range are. `volume`: at `position` of the volume; `inline`: inside metadata there; `zero`: a hole or unwritten. */
export interface FileRun {
  readonly kind: 'volume' | 'inline' | 'zero';
  readonly offset: number;
  readonly length: number;
  /** Position in the volume for `volume` and `inline`. */
  readonly position?: number;
}

/** The content of a file: a ByteSource whose ranges can be traced to the volume. */
export interface FileContent extends ByteSource {
  /** Runs that cover `[offset, offset + length)`, in order, without a gap. */
  runs(offset: number, length: number): Promise<FileRun[]>;
}

export interface ExtendedAttribute {
  /** With its namespace: `user.comment`, `security.selinux`, `system.posix_acl_access`. */
  readonly name: string;
  readonly value: Uint8Array;
}

/** How the file system was left. */
export interface FileSystemState {
  /** `clean`: unmounted; `needs-replay`: the journal holds changes that are not in place; `dirty`: in use without a journal, or marked; `errors`: the guest recorded errors. */
  readonly condition: 'clean' | 'needs-replay' | 'dirty' | 'errors';
  /** Evidence, as short sentences in the file system's terms. */
  readonly evidence: readonly string[];
}

export interface FileSystem {
  /** `ext2`, `ext3`, `ext4`, `fat12`, `fat16`, `fat32`. */
  readonly type: string;
  readonly label?: string;
  readonly uuid?: string;
  readonly size: number;
  readonly blockSize: number;
  /** Bytes free as the file system's own books say. */
  readonly free?: number;
  readonly state: FileSystemState;
  /** Features in the format's own names, for `volumes` and the inspector. */
  readonly features: readonly string[];
  /** Names that differ only in case are the same name. */
  readonly caseInsensitive: boolean;

  root(): Promise<Entry>;
  /**
   * The entry at an absolute path inside the volume (`/srv/www`). Symbolic links are not followed in the last component
   * unless `follow`; in earlier components they are, inside the volume, at most 40 deep.
   * @throws NotFoundError, CorruptError.
   */
  entry(path: string, options?: { follow?: boolean }): Promise<Entry>;
  /** The entries of a directory, without `.` and `..`, in the order they are stored, in batches. @throws UsageError for what is no directory. */
  list(directory: Entry, signal?: AbortSignal): AsyncIterable<Entry[]>;
  stat(entry: Entry): Promise<Stat>;
  /** @throws UsageError for what is no regular file, UnsupportedError (encrypted, compressed) by name. */
  open(entry: Entry): Promise<FileContent>;
  readLink(entry: Entry): Promise<string>;
  extendedAttributes(entry: Entry): Promise<ExtendedAttribute[]>;
  close(): Promise<void>;
}

/** A file system type, as the registry sees it. */
export interface FileSystemType {
  readonly name: string;
  /** True when the volume's first bytes show this type; `prefix` holds up to 128 KiB. Lenient about the rest. */
  detect(prefix: Uint8Array, size: number): boolean;
  /** @throws CorruptError, UnsupportedError. */
  open(volume: ByteSource): Promise<FileSystem>;
}

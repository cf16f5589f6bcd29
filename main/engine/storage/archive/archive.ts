/**
 * Archives that are read in place: a tar (OVA, XVA), whole or compressed with gzip, or a single compressed file. To everybody
 * above, a mounted archive is a folder: `/backups/web01.ova/web01-disk1.vmdk` is a file like any other.
 */
import type { ByteSource } from '../byte-source.ts';

/** A file that can be read: one of this computer, or a member of an archive. */
export interface OpenFile extends ByteSource {
  /** Real path; for a member, the archive's with the member's name below it. */
  readonly path: string;
  /** Modification time in milliseconds: part of what a receipt says about a source. */
  readonly modified: number;
}

export interface ArchiveMember {
  /** Its name inside the archive, with forward slashes, neither absolute nor with `..`. */
  readonly name: string;
  /** Bytes of its content, uncompressed. */
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly modified: number;
  /** First byte of its content in the archive's (uncompressed) stream. */
  readonly position: number;
  /** Only `file` can be opened: links are not followed, sparse members and devices are refused by name. */
  readonly kind: MemberKind;
}

export type MemberKind = 'file' | 'link' | 'sparse' | 'special';

/** What was odd about an archive when its index was read. The shape is that of `Finding` in image/image.ts. */
export interface ArchiveFinding {
  readonly severity: 'damaged' | 'suspicious' | 'note';
  readonly code: string;
  readonly message: string;
  readonly source: string;
  readonly structure?: string;
  readonly position?: number;
  readonly expected?: string | number;
  readonly found?: string | number;
  readonly remedy?: string;
}

/**
 * A folder of numbered members, as a XenServer export keeps a disk: `Ref:12/00000000`, `Ref:12/00000000.checksum`, ... There can be
 * a million of them, so they are no `ArchiveMember`s but columns of numbers, in ascending order of their numbers.
 */
export interface Chunks {
  /** Name of the folder in the archive. */
  readonly name: string;
  readonly count: number;
  /** The number that the member is named by. */
  number(index: number): number;
  /** First byte of its content in the archive's stream. */
  position(index: number): number;
  size(index: number): number;
  /** Its checksum's member, where it has one. */
  checksum(index: number): ChunkChecksum | undefined;
  /** Digits that the numbers are written with. */
  readonly digits: number;
}

export interface ChunkChecksum {
  /** `checksum` (SHA-1) or `xxhash` (XXH64): the ending of the member's name. */
  readonly kind: 'checksum' | 'xxhash';
  readonly position: number;
  readonly size: number;
}

export interface Archive {
  /** `tar`, `gzip`, `tar.gz`. */
  readonly kind: ArchiveKind;
  /** Real path of the archive's file. */
  readonly path: string;
  /** What errors call it: its path relative to the opened folder. */
  readonly name: string;
  /** Number of members that are files, chunks and their checksums included. */
  readonly count: number;
  /** What was odd when the index was read. */
  readonly findings: readonly ArchiveFinding[];
  /** Names that a listing shows, sorted: members that are files, and each folder of chunks as one name. */
  names(): string[];
  /** True for what `names` lists and for single chunks. */
  has(name: string): boolean;
  member(name: string): ArchiveMember | undefined;
  /** The folder of chunks of this name (`Ref:12`). */
  chunks(name: string): Chunks | undefined;
  /** Members in the order of the archive, without chunks. */
  members(): Iterable<ArchiveMember>;
  /**
   * The (uncompressed) stream of the archive: positions of members are positions in it. The archive's own, closed with it.
   */
  readonly stream: ByteSource;
  /**
   * Opens a member; each has to be closed. `label` is what errors call it.
   * @throws NotFoundError, UnsupportedError for links and sparse members, CorruptError for a member that the archive is cut off in.
   */
  open(name: string, label: string): OpenFile;
  close(): Promise<void>;
}

export type ArchiveKind = 'tar' | 'gzip' | 'tar.gz';

/** How an archive's index is made. */
export interface ArchiveOptions {
  readonly signal?: AbortSignal;
  /** Told while an index is made: bytes of the file read until now, and in all. */
  readonly onProgress?: (done: number, total: number) => void;
  /**
   * Something that is no part of the file says that it is compressed (a descriptor, or a path that leads into it): then it is looked
   * into although its name is that of a disk.
   */
  readonly compressed?: boolean;
}

const DISK = 'vmdk|a?vhdx?|qcow2?|qed|vdi|raw|img|dd|bin|iso';
/** Compressions that are read (gz) or refused by name. */
const COMPRESSION = 'gz|gzip|zst|zstd|xz|bz2|lz4|lzma|z';

const ARCHIVE_NAME = new RegExp(`\\.(ova|xva)(\\.(${COMPRESSION}))?$|\\.(${DISK})\\.(${COMPRESSION})$`, 'i');
const DISK_NAME = new RegExp(`\\.(${DISK})$`, 'i');

/** Names of files that are looked into as archives. */
export function isArchiveName(name: string): boolean {
  return ARCHIVE_NAME.test(name);
}

/**
 * True for names that mean a disk. Its first bytes are its guest's, and must not be able to turn it into an archive; compressed, its
 * content must not either.
 */
export function isDiskName(name: string): boolean {
  return DISK_NAME.test(name);
}

/** `disk.vmdk` for `disk.vmdk.gz`; a name without such an ending as it is. */
export function withoutCompression(name: string): string {
  return name.replace(/(?<=[^/])\.(gz|gzip)$/i, '');
}

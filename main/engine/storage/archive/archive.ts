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
}

export interface Archive {
  /** `tar`, `gzip`, `tar.gz`. */
  readonly kind: string;
  /** Real path of the archive's file. */
  readonly path: string;
  /** What errors call it: its path relative to the opened folder. */
  readonly name: string;
  /** Number of members. */
  readonly count: number;
  member(name: string): ArchiveMember | undefined;
  /** Members in the order of the archive. */
  members(): Iterable<ArchiveMember>;
  /**
   * The (uncompressed) stream of the archive: positions of members are positions in it. The archive's own, closed with it.
   */
  readonly stream: ByteSource;
  /** Opens a member; each has to be closed. `label` is what errors call it. @throws NotFoundError, IoError, UnsupportedError. */
  open(name: string, label: string): OpenFile;
  close(): Promise<void>;
}

/** Names of files that are looked into as archives. */
export function isArchiveName(name: string): boolean {
  return /\.(ova|xva)(\.gz)?$/i.test(name) || /\.(vmdk|vhdx?|qcow2?|vdi|raw|img|dd)\.gz$/i.test(name);
}

/** One compressed file (`disk.vmdk.gz`) as an archive of one member. */
import { join } from 'node:path';
import { NotFoundError } from '../../errors.ts';
import {
  type Archive,
  type ArchiveFinding,
  type ArchiveMember,
  isDiskName,
  type OpenFile,
  withoutCompression,
} from './archive.ts';
import type { GzipSource } from './gzip-source.ts';
import { MemberFile } from './member-file.ts';

export class SingleArchive implements Archive {
  readonly kind = 'gzip';
  readonly path: string;
  readonly name: string;
  readonly count = 1;
  readonly stream: GzipSource;
  readonly findings: readonly ArchiveFinding[];
  readonly #member: ArchiveMember;

  /** Takes over `stream`. @param fileName of the compressed file. */
  constructor(
    path: string,
    fileName: string,
    modified: number,
    stream: GzipSource,
    findings: readonly ArchiveFinding[],
  ) {
    this.path = path;
    this.name = stream.name;
    this.stream = stream;
    this.findings = findings;
    this.#member = {
      name: memberName(fileName, stream.places.fileName),
      kind: 'file',
      size: stream.size,
      modified,
      position: 0,
    };
  }

  names(): string[] {
    return [this.#member.name];
  }
  has(name: string): boolean {
    return name === this.#member.name;
  }
  member(name: string): ArchiveMember | undefined {
    return this.has(name) ? this.#member : undefined;
  }
  chunks(): undefined {
    return undefined;
  }
  members(): Iterable<ArchiveMember> {
    return [this.#member];
  }

  open(name: string, label: string): OpenFile {
    if (!this.has(name))
      throw new NotFoundError(`"${name}" in ${this.name}`, { source: this.name, choices: this.names() });
    return new MemberFile(this.stream, this.#member, join(this.path, name), label);
  }

  async close(): Promise<void> {
    await this.stream.close();
  }
}

/**
 * The content's name: that of the file without its ending. Only a file that has no such ending, and is not called like a disk, takes
 * the name that was recorded when it was compressed, as far as that can be the name of one file.
 */
function memberName(fileName: string, recorded: string | undefined): string {
  const plain = withoutCompression(fileName);
  if (plain !== fileName || isDiskName(fileName)) return plain;
  if (
    recorded !== undefined &&
    recorded.length <= 255 &&
    /^[^/\\\p{Cc}]+$/u.test(recorded) &&
    !/^\.{1,2}$/.test(recorded)
  ) {
    return recorded;
  }
  return 'content';
}

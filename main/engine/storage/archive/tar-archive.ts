/** A tar, whole or inside gzip, whose index has been read. */
import { join } from 'node:path';
import { CorruptError, NotFoundError, UnsupportedError } from '../../errors.ts';
import type { ByteSource } from '../byte-source.ts';
import type { Archive, ArchiveFinding, ArchiveMember, Chunks, OpenFile } from './archive.ts';
import { MemberFile } from './member-file.ts';
import type { TarIndex } from './tar-index.ts';

const REFUSED = {
  link: 'a link inside an archive',
  sparse: 'a sparse member of a tar',
  special: 'a device or pipe inside an archive',
};

export class TarArchive implements Archive {
  readonly kind: 'tar' | 'tar.gz';
  readonly path: string;
  readonly name: string;
  readonly count: number;
  readonly stream: ByteSource;
  readonly findings: readonly ArchiveFinding[];
  readonly #index: TarIndex;

  /** Takes over `stream`. */
  constructor(
    kind: 'tar' | 'tar.gz',
    path: string,
    stream: ByteSource,
    index: TarIndex,
    findings: readonly ArchiveFinding[],
  ) {
    this.kind = kind;
    this.path = path;
    this.name = stream.name;
    this.stream = stream;
    this.count = index.count;
    this.findings = findings;
    this.#index = index;
  }

  names(): string[] {
    const names = new Set(this.#index.folders.keys());
    for (const { name, kind } of this.#index.members.values()) if (kind === 'file') names.add(name);
    return [...names].sort();
  }

  has(name: string): boolean {
    return this.#index.folders.has(name) || this.#index.find(name) !== undefined;
  }

  member(name: string): ArchiveMember | undefined {
    return this.#index.find(name);
  }

  chunks(name: string): Chunks | undefined {
    return this.#index.folders.get(name);
  }

  members(): Iterable<ArchiveMember> {
    return this.#index.members.values();
  }

  open(name: string, label: string): OpenFile {
    const member = this.#index.find(name);
    if (member === undefined) {
      if (this.#index.folders.has(name))
        throw new UnsupportedError('a folder of chunks opened as a file', { source: label });
      throw new NotFoundError(`"${name}" in ${this.name}`, { source: this.name });
    }
    if (member.kind !== 'file') throw new UnsupportedError(REFUSED[member.kind], { source: label });
    if (member.position + member.size > this.stream.size) {
      throw new CorruptError('Tar member', {
        source: label,
        position: member.position,
        expected: `${member.size} bytes inside the ${this.stream.size} of ${this.name}`,
        found: `${Math.max(0, this.stream.size - member.position)} bytes: the archive is cut off`,
      });
    }
    return new MemberFile(this.stream, member, join(this.path, ...name.split('/')), label);
  }

  async close(): Promise<void> {
    await this.stream.close();
  }
}

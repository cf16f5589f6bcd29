/**
 * Reads the headers of a tar, once, from first to last. Written as a generator that asks for the bytes it needs in ascending order
 * and never twice, so that the same code reads a file by position, skipping what lies between, and a compressed stream as it flows by.
 *
 * Member names are other people's: absolute ones and those with `..` are left out and told of. A damaged header ends the scan: what
 * follows it could be the content of a member, and that is written by a guest. Members before it stay.
 */
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { ArchiveFinding, ArchiveMember } from './archive.ts';
import {
  decodeName,
  GNU_BLOCK_IS_EXTENDED,
  isTarHeader,
  type PaxRecords,
  parsePax,
  parseTarHeader,
  TAR_BLOCK,
  type TarHeader,
} from './tar-header.ts';
import { TarIndex } from './tar-index.ts';

/** Members that are no chunks, and bytes of their names: what an index may hold. */
export const MAX_MEMBERS = 200_000;
const MAX_NAME_BYTES = 64 << 20;
/** Of one pax header or GNU long name. */
const MAX_EXTENSION_BYTES = 1 << 20;
/** Blocks of an old GNU sparse map: each describes 21 pieces. */
const MAX_SPARSE_BLOCKS = 1 << 20;
/** Findings of one kind that are told one by one. */
const MAX_FINDINGS = 20;

/** A stretch of the stream that the scan needs. It is given exactly that, or less where the stream ends before. */
export interface Want {
  readonly offset: number;
  readonly length: number;
}
/** Undefined when the stream does not begin with a tar header. */
export type TarScan = Generator<Want, TarIndex | undefined, Uint8Array>;

interface Extension {
  readonly path?: string;
  readonly pax: PaxRecords;
}

class Findings {
  readonly #index: TarIndex;
  readonly #counts = new Map<string, number>();
  constructor(index: TarIndex) {
    this.#index = index;
  }
  add(finding: ArchiveFinding): void {
    const count = (this.#counts.get(finding.code) ?? 0) + 1;
    this.#counts.set(finding.code, count);
    if (count <= MAX_FINDINGS) this.#index.findings.push(finding);
  }
  /** Says how many there were of what was not told one by one. */
  close(source: string): void {
    for (const [code, count] of this.#counts) {
      if (count <= MAX_FINDINGS) continue;
      const first = this.#index.findings.find((finding) => finding.code === code)!;
      this.#index.findings.push({
        severity: first.severity,
        code,
        source,
        message: `${count} findings of this kind in all`,
      });
    }
  }
}

/** @param source what errors call the archive. */
export function* scanTar(source: string): TarScan {
  const index = new TarIndex();
  const findings = new Findings(index);
  let at = 0;
  let names = 0;
  let extension: Extension = { pax: {} };
  let global: PaxRecords = {};
  let headers = 0;
  try {
    for (;;) {
      const block = yield { offset: at, length: TAR_BLOCK };
      if (headers === 0 && !(block.length === TAR_BLOCK && isTarHeader(block))) return undefined;
      if (block.length < TAR_BLOCK) {
        findings.add(endMissing(source, at + block.length, block.length > 0));
        break;
      }
      if (block.every((byte) => byte === 0)) {
        const second = yield { offset: at + TAR_BLOCK, length: TAR_BLOCK };
        if (!second.every((byte) => byte === 0)) findings.add(loneZeroBlock(source, at));
        break;
      }
      const header = parseTarHeader(block, source, at);
      headers++;
      at += TAR_BLOCK;
      if (header.type === 'x' || header.type === 'g' || header.type === 'L' || header.type === 'K') {
        const body = yield* extensionBody(header, source, at);
        if (body === undefined) {
          findings.add(endMissing(source, at, true));
          break;
        }
        if (header.type === 'x') extension = { ...extension, pax: parsePax(body, source, at) };
        else if (header.type === 'g') global = { ...global, ...parsePax(body, source, at) };
        else if (header.type === 'L') extension = { ...extension, path: decodeName(body) };
        at += padded(header.size);
        continue;
      }
      if (header.extended) at = yield* sparseMap(source, at);
      const pax = { ...global, ...extension.pax };
      // Links and devices have no content, whatever their size says.
      const size = /^[1-6]$/.test(header.type) ? 0 : (pax.size ?? header.size);
      if (!Number.isSafeInteger(at + padded(size))) {
        throw new CorruptError('Tar header size', {
          source,
          position: at - TAR_BLOCK,
          expected: 'a member that ends below 2^53',
          found: size,
        });
      }
      const raw = pax.path ?? extension.path ?? header.name;
      extension = { pax: {} };
      const name = memberName(raw);
      const position = at;
      at += padded(size);
      if (name === undefined) {
        findings.add(refusedName(source, position - TAR_BLOCK, raw));
        continue;
      }
      const kind = kindOf(header, raw, pax);
      if (kind === undefined || name === '') continue;
      const member: ArchiveMember = {
        name,
        kind,
        size,
        modified: Math.round((pax.mtime ?? header.mtime) * 1000),
        position,
      };
      const before = index.members.size;
      if (!index.add(member)) findings.add(duplicate(source, position - TAR_BLOCK, name));
      if (index.members.size > before) names += name.length * 2;
      if (index.members.size > MAX_MEMBERS || index.folders.size > MAX_MEMBERS || names > MAX_NAME_BYTES) {
        throw new UnsupportedError(`an archive of more than ${MAX_MEMBERS} members`, { source });
      }
    }
  } catch (error) {
    // Damage ends the index; what it holds until there can be read.
    if (!(error instanceof CorruptError)) throw error;
    const { structure, position, expected, found } = error.details as Partial<ArchiveFinding>;
    findings.add({
      severity: 'damaged',
      code: 'archive-damaged',
      message: `${error.message}; members behind it cannot be found`,
      source,
      ...(structure === undefined ? {} : { structure }),
      ...(position === undefined ? {} : { position }),
      ...(expected === undefined ? {} : { expected }),
      ...(found === undefined ? {} : { found }),
      remedy: 'Take the archive from another copy of the backup; the members before the damage can be read.',
    });
  }
  findings.close(source);
  return index;
}

function padded(size: number): number {
  return Math.ceil(size / TAR_BLOCK) * TAR_BLOCK;
}

/** Undefined when the stream ends inside it. */
function* extensionBody(
  header: TarHeader,
  source: string,
  at: number,
): Generator<Want, Uint8Array | undefined, Uint8Array> {
  if (header.size > MAX_EXTENSION_BYTES) {
    throw new CorruptError(header.type === 'x' || header.type === 'g' ? 'Pax header' : 'GNU long name', {
      source,
      position: at - TAR_BLOCK,
      expected: `at most ${MAX_EXTENSION_BYTES} bytes`,
      found: header.size,
    });
  }
  if (header.size === 0) return new Uint8Array(0);
  const body = yield { offset: at, length: header.size };
  return body.length < header.size ? undefined : body;
}

/** Passes over the blocks that continue the map of an old GNU sparse member. @returns where its content begins. */
function* sparseMap(source: string, start: number): Generator<Want, number, Uint8Array> {
  let at = start;
  for (let count = 0; count < MAX_SPARSE_BLOCKS; count++) {
    const block = yield { offset: at, length: TAR_BLOCK };
    at += TAR_BLOCK;
    if (block.length < TAR_BLOCK || block[GNU_BLOCK_IS_EXTENDED] === 0) return at;
  }
  throw new CorruptError('GNU sparse map', {
    source,
    position: start,
    expected: `at most ${MAX_SPARSE_BLOCKS} blocks`,
    found: 'more',
  });
}

/** Undefined for what is no file: folders, labels. */
function kindOf({ type }: TarHeader, name: string, pax: PaxRecords): ArchiveMember['kind'] | undefined {
  if (type === '5' || type === 'D' || type === 'V' || ((type === '0' || type === '7') && name.endsWith('/')))
    return undefined;
  if (pax.sparse || type === 'S') return 'sparse';
  if (type === '1' || type === '2') return 'link';
  return type === '0' || type === '7' ? 'file' : 'special';
}

/** A member's name as we use it; undefined for one that leaves the archive. */
function memberName(raw: string): string | undefined {
  if (raw.startsWith('/')) return undefined;
  const parts = raw.split('/').filter((part) => part !== '' && part !== '.');
  return parts.includes('..') ? undefined : parts.join('/');
}

function refusedName(source: string, position: number, name: string): ArchiveFinding {
  return {
    severity: 'suspicious',
    code: 'archive-name-refused',
    message: `A member of ${source} is called ${JSON.stringify(name.slice(0, 200))}, which leads out of the archive; it is not read`,
    source,
    structure: 'Tar header name',
    position,
    expected: 'a name below the archive',
    found: name.slice(0, 200),
  };
}

function duplicate(source: string, position: number, name: string): ArchiveFinding {
  return {
    severity: 'suspicious',
    code: 'archive-duplicate-member',
    message: `${source} holds ${JSON.stringify(name.slice(0, 200))} more than once; the last one is read, as tar does`,
    source,
    structure: 'Tar header name',
    position,
    found: name.slice(0, 200),
  };
}

function loneZeroBlock(source: string, position: number): ArchiveFinding {
  return {
    severity: 'suspicious',
    code: 'archive-lone-zero-block',
    message: `${source} has a single block of zeros where two end an archive; what follows is not read, as tar does`,
    source,
    structure: 'Tar end',
    position,
    expected: 'two blocks of zeros',
    found: 'one',
  };
}

function endMissing(source: string, position: number, inside: boolean): ArchiveFinding {
  return {
    severity: inside ? 'damaged' : 'suspicious',
    code: inside ? 'archive-cut-off' : 'archive-no-end',
    message: inside
      ? `${source} ends inside a header: it was cut off`
      : `${source} ends without the two blocks of zeros that end a tar: it may have been cut off`,
    source,
    structure: 'Tar end',
    position,
    expected: 'two blocks of zeros',
    found: 'the end of the file',
    remedy: 'Compare it with another copy of the backup; members that are whole can be read.',
  };
}

/** Told of each member that the stream ends before the end of. */
export function cutMembers(index: TarIndex, size: number, source: string): void {
  const findings = new Findings(index);
  for (const member of index.members.values()) {
    if (member.kind === 'file' && member.position + member.size > size) findings.add(cutMember(source, member, size));
  }
  for (const list of index.folders.values()) {
    const last = list.count - 1;
    if (list.position(last) + list.size(last) <= size) continue;
    const name = `${list.name}/${String(list.number(last)).padStart(list.digits, '0')}`;
    findings.add(cutMember(source, { name, position: list.position(last), size: list.size(last) }, size));
  }
  findings.close(source);
}

function cutMember(
  source: string,
  { name, position, size }: Pick<ArchiveMember, 'name' | 'position' | 'size'>,
  end: number,
): ArchiveFinding {
  return {
    severity: 'damaged',
    code: 'archive-member-cut-off',
    message: `${source} ends inside its member ${name}: it was cut off, or is still being written`,
    source,
    structure: `Tar member ${name}`,
    position,
    expected: `${size} bytes`,
    found: `${Math.max(0, end - position)} bytes`,
    remedy: 'Take the archive from another copy of the backup; members before this one can be read.',
  };
}

/**
 * Directory entries: 32 bytes each, a short name, preceded by the parts of its long name where it has one.
 *
 * Source: fatgen103, "Directory Structure". A directory has at most 65,536 entries.
 */
import { Fields } from '../../binary.ts';
import type { ChainliftError, CorruptError } from '../../errors.ts';
import type { Entry, EntryKind } from '../file-system.ts';
import { type FatLayout, isCluster } from './boot-sector.ts';
import { decodeLabel, decodeShortName, LongName, pathSafe } from './names.ts';

export const entrySize = 32;
export const maxDirectorySize = 65_536 * entrySize;

const attribute = { readOnly: 0x01, hidden: 0x02, system: 0x04, volume: 0x08, directory: 0x10, archive: 0x20 } as const;
const longNameMask = 0x3f;
const longNameAttribute = 0x0f;
const deleted = 0xe5;

/** The stored fields of one short entry. */
export interface FatRecord {
  readonly attributes: number;
  readonly firstCluster: number;
  readonly size: number;
  readonly createdTenMs: number;
  readonly createdTime: number;
  readonly createdDate: number;
  readonly accessedDate: number;
  readonly modifiedTime: number;
  readonly modifiedDate: number;
}

/** An entry of a listing. Carries its record, so that `stat` and `open` need not read it again. */
export class FatEntry implements Entry {
  readonly name: string;
  readonly kind: EntryKind;
  readonly id: number;
  readonly error?: ChainliftError;
  /** The 8.3 name, by which the entry can be found too. */
  readonly #alias: string;
  readonly #record: FatRecord;

  constructor(name: string, alias: string, id: number, record: FatRecord, error?: ChainliftError) {
    this.name = name;
    this.kind = (record.attributes & attribute.directory) !== 0 ? 'directory' : 'file';
    this.id = id;
    if (error !== undefined) this.error = error;
    this.#alias = alias;
    this.#record = record;
  }

  get alias(): string {
    return this.#alias;
  }
  get record(): FatRecord {
    return this.#record;
  }
}

/** The root has no directory entry; byte 0 of the volume, its boot sector, stands for it. */
export const rootId = 0;

export function rootEntry(layout: FatLayout): FatEntry {
  return new FatEntry('', '', rootId, {
    attributes: attribute.directory,
    firstCluster: layout.rootCluster,
    size: 0,
    createdTenMs: 0,
    createdTime: 0,
    createdDate: 0,
    accessedDate: 0,
    modifiedTime: 0,
    modifiedDate: 0,
  });
}

/** Attributes as the flags of a stat. */
export function flagsOf(record: FatRecord): string[] {
  const flags: string[] = [];
  if ((record.attributes & attribute.readOnly) !== 0) flags.push('read-only');
  if ((record.attributes & attribute.hidden) !== 0) flags.push('hidden');
  if ((record.attributes & attribute.system) !== 0) flags.push('system');
  if ((record.attributes & attribute.archive) !== 0) flags.push('archive');
  return flags;
}

export function decodeRecord(layout: FatLayout, f: Fields, at: number): FatRecord {
  // The high half of the cluster number exists on FAT32 only; before that OS/2 kept a handle there.
  const high = layout.type === 'fat32' ? f.u16(at + 20) & 0x0fff : 0;
  return {
    attributes: f.u8(at + 11),
    firstCluster: high * 0x10000 + f.u16(at + 26),
    size: f.u32(at + 28),
    createdTenMs: f.u8(at + 13),
    createdTime: f.u16(at + 14),
    createdDate: f.u16(at + 16),
    accessedDate: f.u16(at + 18),
    modifiedTime: f.u16(at + 22),
    modifiedDate: f.u16(at + 24),
  };
}

/** Why an entry's content can't be there, or undefined. `f` begins at `at` with the entry's bytes. */
export function recordError(layout: FatLayout, f: Fields, at: number, record: FatRecord): CorruptError | undefined {
  const { attributes, firstCluster, size } = record;
  if ((attributes & attribute.volume) !== 0) {
    return f.corrupt('attributes', at + 11, 'those of a file or directory', `0x${attributes.toString(16)}`);
  }
  if ((attributes & 0xc0) !== 0) {
    return f.corrupt('attributes', at + 11, 'bits 6 and 7 clear', `0x${attributes.toString(16)}`);
  }
  const clusters = `a cluster from 2 to ${layout.clusterCount + 1}`;
  if ((attributes & attribute.directory) !== 0) {
    return isCluster(layout, firstCluster) ? undefined : f.corrupt('first cluster', at + 26, clusters, firstCluster);
  }
  if (firstCluster === 0 && size === 0) return undefined;
  if (!isCluster(layout, firstCluster)) return f.corrupt('first cluster', at + 26, clusters, firstCluster);
  const most = layout.clusterCount * layout.clusterSize;
  return size > most ? f.corrupt('file size', at + 28, `at most ${most}`, size) : undefined;
}

/** What a stretch of a directory holds. */
export interface DirectoryBatch {
  readonly entries: FatEntry[];
  /** The volume's label, when its entry (in the root) was among them; empty when it had been erased. */
  readonly label?: string;
  /** The end mark was met: nothing after it counts. */
  readonly ended: boolean;
}

/** Reads a directory stretch by stretch; the parts of a long name may lie on either side of a boundary. */
export class DirectoryReader {
  readonly #layout: FatLayout;
  readonly #source: string;
  readonly #longName = new LongName();

  constructor(layout: FatLayout, source: string) {
    this.#layout = layout;
    this.#source = source;
  }

  /** @param bytes whole entries, whose first is at byte `position` of the volume. */
  read(bytes: Uint8Array, position: number): DirectoryBatch {
    const f = new Fields(bytes, 'FAT directory entry', this.#source, position);
    const entries: FatEntry[] = [];
    let label: { label: string } | undefined;
    for (let at = 0; at + entrySize <= bytes.length; at += entrySize) {
      const first = bytes[at]!;
      if (first === 0) return { entries, ended: true, ...label };
      const attributes = bytes[at + 11]!;
      if (first === deleted) {
        this.#longName.reset();
        if (attributes === attribute.volume) label ??= { label: '' };
        continue;
      }
      if ((attributes & longNameMask) === longNameAttribute) {
        this.#longName.add(bytes.subarray(at, at + entrySize));
        continue;
      }
      const raw = bytes.subarray(at, at + 11);
      const long = this.#longName.take(raw);
      if ((attributes & attribute.volume) !== 0) {
        const text = decodeLabel(raw);
        if (label === undefined || label.label === '') label = { label: text };
        continue;
      }
      if (isDotEntry(raw)) continue;
      entries.push(this.#entry(f, at, raw, long));
    }
    return { entries, ended: false, ...label };
  }

  #entry(f: Fields, at: number, raw: Uint8Array, long: string | undefined): FatEntry {
    const record = decodeRecord(this.#layout, f, at);
    const alias = decodeShortName(raw, f.u8(at + 12));
    const { name, valid } = pathSafe(long ?? alias);
    const error = valid
      ? recordError(this.#layout, f, at, record)
      : f.corrupt('name', at, 'a name without "/" and NUL', JSON.stringify(long ?? alias));
    return new FatEntry(name, alias, f.position + at, record, error);
  }
}

/** `.` and `..`, with which every directory but the root begins. */
export function isDotEntry(raw: Uint8Array): boolean {
  if (raw[0] !== 0x2e) return false;
  for (let i = 1; i < 11; i++) if (raw[i] !== 0x20 && !(i === 1 && raw[1] === 0x2e)) return false;
  return true;
}

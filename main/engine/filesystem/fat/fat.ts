/**
 * FAT12, FAT16 and FAT32 with long names, read-only.
 *
 * What it does not have: owners and modes (undefined), symbolic links, extended attributes. Times are the guest's local time
 * without a zone, given as if UTC. Names are compared without regard to case, long and short ones alike.
 *
 * Source: fatgen103 and Linux fs/fat; the files beside this one cite them per structure.
 */
import { Fields } from '../../binary.ts';
import { type ChainliftError, CorruptError, throwIfCancelled, UnsupportedError, UsageError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import type {
  Entry,
  ExtendedAttribute,
  FileContent,
  FileSystem,
  FileSystemState,
  FileSystemType,
  Stat,
} from '../file-system.ts';
import { type PathTree, walkPath } from '../path-walk.ts';
import { type FatLayout, looksLikeFat, readLayout } from './boot-sector.ts';
import { ClusterChain } from './cluster-chain.ts';
import { FatContent } from './content.ts';
import {
  DirectoryReader,
  decodeRecord,
  entrySize,
  FatEntry,
  flagsOf,
  maxDirectorySize,
  recordError,
  rootEntry,
  rootId,
} from './directory.ts';
import { directoryStretches } from './directory-stretches.ts';
import { fatTime, foldCase } from './names.ts';
import { readCondition, readFree } from './state.ts';
import { FatTable } from './table.ts';

/** Directories met in one session; more than any real volume, and what bounds the memory that keeps them apart. */
const maxDirectories = 1 << 20;
/** Entries kept by name for look-ups, over all directories together. */
const maxIndexed = 1 << 17;

export const fatFileSystem: FileSystemType = {
  name: 'fat',
  detect: (prefix) => looksLikeFat(prefix),
  open: (volume) => FatFileSystem.open(volume),
};

interface DirectoryIndex {
  readonly byName: Map<string, FatEntry>;
  readonly damage: ChainliftError | undefined;
  readonly count: number;
}

class FatFileSystem implements FileSystem {
  readonly type: FatLayout['type'];
  readonly label?: string;
  readonly uuid?: string;
  readonly size: number;
  readonly blockSize: number;
  readonly free?: number;
  readonly features: readonly string[];
  readonly caseInsensitive = true;
  readonly #volume: ByteSource;
  readonly #layout: FatLayout;
  readonly #table: FatTable;
  readonly #evidence: string[];
  readonly #condition: FileSystemState['condition'];
  /** First cluster of a directory -> the first entry seen for it: a second one is a loop or a cross-link. */
  readonly #claims = new Map<number, number>();
  readonly #indexes = new Map<number, DirectoryIndex>();
  #indexed = 0;

  private constructor(parts: {
    volume: ByteSource;
    layout: FatLayout;
    table: FatTable;
    evidence: string[];
    condition: FileSystemState['condition'];
    free: number | undefined;
    label: string | undefined;
  }) {
    const { layout } = parts;
    this.#volume = parts.volume;
    this.#layout = layout;
    this.#table = parts.table;
    this.#evidence = parts.evidence;
    this.#condition = parts.condition;
    this.type = layout.type;
    this.size = layout.size;
    this.blockSize = layout.clusterSize;
    if (parts.free !== undefined) this.free = parts.free * layout.clusterSize;
    if (parts.label !== undefined) this.label = parts.label;
    if (layout.serial !== undefined) this.uuid = layout.serial;
    this.features = [
      ...(layout.fsInfoAt === undefined ? [] : ['FSInfo']),
      ...(layout.backupAt === undefined ? [] : ['backup boot sector']),
      ...(layout.mirrored ? [] : [`only FAT ${layout.activeFat + 1} active`]),
    ];
    if (layout.rootCluster !== 0) this.#claims.set(layout.rootCluster, rootId);
  }

  /** @throws CorruptError, UnsupportedError (a FAT32 version other than 0.0), IoError. */
  static async open(volume: ByteSource): Promise<FatFileSystem> {
    const evidence: string[] = [];
    const layout = await readLayout(volume, evidence);
    const table = new FatTable(volume, layout, evidence);
    const found = await readCondition(volume, layout, table, evidence);
    const free = await readFree(volume, layout, table);
    const before = evidence.length;
    const label = await readLabel(volume, layout, table, evidence);
    const condition = evidence.length > before ? 'errors' : found;
    return new FatFileSystem({ volume, layout, table, evidence, condition, free, label });
  }

  /** As found when it was opened; damage that a later read had to work around is added. */
  get state(): FileSystemState {
    return { condition: this.#table.repairs > 0 ? 'errors' : this.#condition, evidence: [...this.#evidence] };
  }

  async root(): Promise<Entry> {
    return rootEntry(this.#layout);
  }

  async entry(path: string, options: { follow?: boolean } = {}): Promise<Entry> {
    const tree: PathTree = {
      root: () => this.root(),
      lookup: (directory, name) => this.#lookup(directory, name),
      readLink: (entry) => this.readLink(entry),
    };
    return walkPath(tree, path, options);
  }

  async *list(directory: Entry, signal?: AbortSignal): AsyncGenerator<Entry[]> {
    throwIfCancelled(signal, 'The listing');
    const entry = await this.#resolve(directory);
    if (entry.kind !== 'directory')
      throw new UsageError(`"${directory.name}" is no directory`, { name: directory.name });
    if (entry.error !== undefined) throw entry.error;
    const reader = new DirectoryReader(this.#layout, this.#volume.name);
    for await (const stretch of directoryStretches(this.#volume, this.#layout, this.#table, entry)) {
      throwIfCancelled(signal, 'The listing');
      const batch = reader.read(stretch.bytes, stretch.position);
      const entries: Entry[] = batch.entries.map((child) => this.#checked(child));
      if (stretch.damage !== undefined) entries.push(damagedEntry(stretch.damage, stretch.position));
      if (entries.length > 0) yield entries;
      if (batch.ended) return;
    }
  }

  /**
   * A listed child, with an error if it is a directory that another entry led to before. So a volume is a tree to whoever
   * walks it, however its directories are tangled.
   */
  #checked(child: FatEntry): FatEntry {
    const { firstCluster } = child.record;
    if (child.kind !== 'directory' || child.error !== undefined) return child;
    const other = this.#claims.get(firstCluster);
    if (other === child.id) return child;
    if (other === undefined && this.#claims.size < maxDirectories) {
      this.#claims.set(firstCluster, child.id);
      return child;
    }
    const error =
      other === undefined
        ? new UnsupportedError(`more than ${maxDirectories} directories in one FAT volume`, {
            source: this.#volume.name,
          })
        : new CorruptError('FAT directory entry first cluster', {
            source: this.#volume.name,
            position: child.id + 26,
            expected: 'a cluster of its own',
            found: `cluster ${firstCluster}, the directory of ${other === rootId ? 'the root' : `the entry at byte ${other}`}`,
          });
    return new FatEntry(child.name, child.alias, child.id, child.record, error);
  }

  async #lookup(directory: Entry, name: string): Promise<FatEntry | undefined> {
    const index = this.#indexes.get(directory.id) ?? (await this.#index(directory));
    const found = index.byName.get(foldCase(name));
    if (found === undefined && index.damage !== undefined) throw index.damage;
    return found;
  }

  /** All names of a directory, long ones before short ones. Kept for the next look-ups while there is room. */
  async #index(directory: Entry): Promise<DirectoryIndex> {
    const byName = new Map<string, FatEntry>();
    const aliases: FatEntry[] = [];
    let damage: ChainliftError | undefined;
    for await (const batch of this.list(directory)) {
      for (const entry of batch) {
        if (!(entry instanceof FatEntry)) {
          damage ??= entry.error;
          continue;
        }
        const key = foldCase(entry.name);
        if (!byName.has(key)) byName.set(key, entry);
        if (entry.alias !== entry.name) aliases.push(entry);
      }
    }
    for (const entry of aliases) {
      const key = foldCase(entry.alias);
      if (!byName.has(key)) byName.set(key, entry);
    }
    const index = { byName, damage, count: byName.size };
    for (const [id, old] of this.#indexes) {
      if (this.#indexed + index.count <= maxIndexed) break;
      this.#indexes.delete(id);
      this.#indexed -= old.count;
    }
    if (!this.#indexes.has(directory.id)) {
      this.#indexes.set(directory.id, index);
      this.#indexed += index.count;
    }
    return index;
  }

  async stat(entry: Entry): Promise<Stat> {
    const found = await this.#resolve(entry);
    const { record } = found;
    const size = found.kind === 'directory' ? await this.#directorySize(found) : record.size;
    const modified = fatTime(record.modifiedDate, record.modifiedTime);
    const accessed = fatTime(record.accessedDate, 0);
    const created = fatTime(record.createdDate, record.createdTime, record.createdTenMs);
    return {
      kind: found.kind,
      id: found.id,
      size,
      allocated: Math.ceil(size / this.#layout.clusterSize) * this.#layout.clusterSize,
      links: 1,
      flags: flagsOf(record),
      ...(modified === undefined ? {} : { modified }),
      ...(accessed === undefined ? {} : { accessed }),
      ...(created === undefined ? {} : { created }),
    };
  }

  /** FAT stores no size for directories: it is that of their clusters. */
  async #directorySize(directory: FatEntry): Promise<number> {
    const { firstCluster } = directory.record;
    if (directory.error !== undefined) throw directory.error;
    if (firstCluster === 0) return this.#layout.rootSize;
    const chain = new ClusterChain(this.#volume, this.#layout, this.#table, firstCluster);
    const most = Math.floor(maxDirectorySize / this.#layout.clusterSize);
    return (await chain.reach(Math.max(1, most))) * this.#layout.clusterSize;
  }

  async open(entry: Entry): Promise<FileContent> {
    const found = await this.#resolve(entry);
    if (found.kind !== 'file') throw new UsageError(`"${entry.name}" is no file`, { name: entry.name });
    if (found.error !== undefined) throw found.error;
    const { firstCluster, size } = found.record;
    const chain = size === 0 ? undefined : new ClusterChain(this.#volume, this.#layout, this.#table, firstCluster);
    return new FatContent(this.#volume, `${this.#volume.name}:${entry.name}`, size, this.#layout.clusterSize, chain);
  }

  async readLink(entry: Entry): Promise<string> {
    throw new UsageError(`"${entry.name}" is no symbolic link; FAT has none`, { name: entry.name });
  }

  async extendedAttributes(_entry: Entry): Promise<ExtendedAttribute[]> {
    return [];
  }

  async close(): Promise<void> {}

  /** The entry with its record, read again where `entry` is a copy without one (it came from another process). */
  async #resolve(entry: Entry): Promise<FatEntry> {
    if (entry instanceof FatEntry) return entry;
    if (entry.id === rootId) return rootEntry(this.#layout);
    if (entry.kind === 'unknown' && entry.error !== undefined) throw entry.error;
    const inside = Number.isSafeInteger(entry.id) && entry.id > 0 && entry.id % entrySize === 0;
    if (!inside || entry.id + entrySize > this.#volume.size) {
      throw new UsageError(`${entry.id} is no entry of ${this.#volume.name}`, { id: entry.id });
    }
    const bytes = await this.#volume.read(entry.id, entrySize);
    const f = new Fields(bytes, 'FAT directory entry', this.#volume.name, entry.id);
    const record = decodeRecord(this.#layout, f, 0);
    return new FatEntry(entry.name, entry.name, entry.id, record, recordError(this.#layout, f, 0, record));
  }
}

/**
 * The label in the root directory, which is what guests show; where there never was one, that of the boot sector. An erased
 * label entry means that the owner removed the label, and the boot sector's copy is stale.
 */
async function readLabel(
  volume: ByteSource,
  layout: FatLayout,
  table: FatTable,
  evidence: string[],
): Promise<string | undefined> {
  const reader = new DirectoryReader(layout, volume.name);
  let erased = false;
  for await (const { bytes, position, damage } of directoryStretches(volume, layout, table, rootEntry(layout))) {
    const { label, ended } = reader.read(bytes, position);
    // Listing the root will say so again; a volume whose root is damaged can still be looked into.
    if (damage !== undefined) evidence.push(`The root directory could not be read to its end: ${damage.message}`);
    if (label !== undefined && label !== '') return label;
    if (label === '') erased = true;
    if (ended) break;
  }
  return erased ? undefined : layout.bootLabel;
}

/** Stands in a listing for the part of the directory that can't be read. */
function damagedEntry(error: CorruptError, position: number): Entry {
  return { name: `(unreadable from byte ${error.details.position ?? position})`, kind: 'unknown', id: position, error };
}

/**
 * The metadata region of a VHDX ([MS-VHDX] 2.6): a table of items by GUID, and the items that say how large the disk and its blocks
 * and sectors are, who it is, and what its parent is.
 */
import { Fields } from '../../binary.ts';
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { findingOf } from '../findings.ts';
import type { Finding } from '../image.ts';
import { guid } from './headers.ts';
import * as layout from './layout.ts';
import { KIB, MIB, overlap } from './layout.ts';
import { type ParentLocator, parseParentLocator } from './parent-locator.ts';
import type { Region } from './regions.ts';

export interface VhdxMetadata {
  readonly blockSize: number;
  readonly leaveBlockAllocated: boolean;
  readonly hasParent: boolean;
  readonly virtualDiskSize: number;
  /** 512 or 4096. */
  readonly logicalSectorSize: number;
  readonly physicalSectorSize: number | undefined;
  readonly virtualDiskId: string | undefined;
  /** There exactly when there is a parent. */
  readonly parentLocator: ParentLocator | undefined;
  /** What is wrong with items that reading the disk does not need. */
  readonly findings: readonly Finding[];
}

interface Item {
  readonly id: string;
  readonly user: boolean;
  readonly required: boolean;
  readonly offset: number;
  readonly length: number;
  /** Byte position of its entry in the file. */
  readonly entry: number;
}

const KNOWN: ReadonlyMap<string, string> = new Map([
  [layout.ITEM_FILE_PARAMETERS, 'file parameters'],
  [layout.ITEM_VIRTUAL_DISK_SIZE, 'virtual disk size'],
  [layout.ITEM_VIRTUAL_DISK_ID, 'virtual disk id'],
  [layout.ITEM_LOGICAL_SECTOR_SIZE, 'logical sector size'],
  [layout.ITEM_PHYSICAL_SECTOR_SIZE, 'physical sector size'],
  [layout.ITEM_PARENT_LOCATOR, 'parent locator'],
]);

/**
 * Reads the metadata. @throws CorruptError, UnsupportedError for an item that must be understood and is not, IoError.
 */
export async function readMetadata(source: ByteSource, region: Region): Promise<VhdxMetadata> {
  const table = new Table(source, region, await readTable(source, region));
  const parameters = await table.item(layout.ITEM_FILE_PARAMETERS, 8);
  const blockSize = parameters.u32(0);
  parameters.require(
    blockSize >= layout.BLOCK_BYTES_MIN && blockSize <= layout.BLOCK_BYTES_MAX && (blockSize & (blockSize - 1)) === 0,
    'BlockSize',
    0,
    `a power of two from ${layout.BLOCK_BYTES_MIN} to ${layout.BLOCK_BYTES_MAX}`,
    blockSize,
  );
  const flags = parameters.u32(4);
  const unknown = (flags & ~(layout.FILE_LEAVE_BLOCK_ALLOCATED | layout.FILE_HAS_PARENT)) >>> 0;
  if (unknown !== 0) {
    throw new UnsupportedError(`VHDX file parameters 0x${unknown.toString(16)}`, { source: source.name });
  }
  const hasParent = (flags & layout.FILE_HAS_PARENT) !== 0;
  const logicalSectorSize = sectorSize(await table.item(layout.ITEM_LOGICAL_SECTOR_SIZE, 4));
  const physical = await table.optionalItem(layout.ITEM_PHYSICAL_SECTOR_SIZE, 4);
  const size = await table.item(layout.ITEM_VIRTUAL_DISK_SIZE, 8);
  const virtualDiskSize = size.u64(0);
  size.require(
    virtualDiskSize > 0 && virtualDiskSize <= layout.VIRTUAL_SIZE_MAX && virtualDiskSize % logicalSectorSize === 0,
    '',
    0,
    `a multiple of ${logicalSectorSize} up to ${layout.VIRTUAL_SIZE_MAX}`,
    virtualDiskSize,
  );
  const identity = await table.optionalItem(layout.ITEM_VIRTUAL_DISK_ID, 16);
  const locator = hasParent ? parseParentLocator(await table.item(layout.ITEM_PARENT_LOCATOR)) : undefined;
  return {
    blockSize,
    leaveBlockAllocated: (flags & layout.FILE_LEAVE_BLOCK_ALLOCATED) !== 0,
    hasParent,
    virtualDiskSize,
    logicalSectorSize,
    physicalSectorSize: physical === undefined ? undefined : sectorSize(physical),
    virtualDiskId: identity === undefined ? undefined : guid(identity, 0),
    parentLocator: locator,
    findings: [...table.findings, ...(locator?.findings ?? [])],
  };
}

function sectorSize(item: Fields): number {
  const size = item.u32(0);
  item.require(size === 512 || size === 4096, '', 0, '512 or 4096', size);
  return size;
}

async function readTable(source: ByteSource, region: Region): Promise<Item[]> {
  const header = new Fields(
    await source.read(region.position, layout.METADATA_HEADER_BYTES),
    'VHDX metadata table',
    source.name,
    region.position,
  );
  const signature = header.ascii(0, 8);
  header.require(signature === layout.METADATA_SIGNATURE, 'Signature', 0, `"${layout.METADATA_SIGNATURE}"`, signature);
  const count = header.u16(10);
  header.require(
    count <= layout.METADATA_ENTRIES_MAX,
    'EntryCount',
    10,
    `at most ${layout.METADATA_ENTRIES_MAX}`,
    count,
  );
  const position = region.position + layout.METADATA_HEADER_BYTES;
  const bytes = await source.read(position, count * layout.METADATA_ENTRY_BYTES);
  const entries = new Fields(bytes, 'VHDX metadata table entry', source.name, position);
  const items: Item[] = [];
  const seen = new Set<string>();
  let users = 0;
  for (let i = 0; i < count; i++) {
    const at = i * layout.METADATA_ENTRY_BYTES;
    const flags = entries.u32(at + 24);
    const id = guid(entries, at);
    const user = (flags & layout.METADATA_IS_USER) !== 0;
    const key = `${id} ${user}`;
    entries.require(!seen.has(key), 'ItemId', at, 'an item that is not listed yet', id);
    seen.add(key);
    if (user) users++;
    items.push({
      id,
      user,
      required: (flags & layout.METADATA_IS_REQUIRED) !== 0,
      offset: entries.u32(at + 16),
      length: entries.u32(at + 20),
      entry: position + at,
    });
  }
  header.require(
    users <= layout.METADATA_USER_ENTRIES_MAX,
    'EntryCount',
    10,
    `at most ${layout.METADATA_USER_ENTRIES_MAX} user items`,
    users,
  );
  return items;
}

class Table {
  readonly #source: ByteSource;
  readonly #region: Region;
  readonly #items: readonly Item[];
  readonly findings: Finding[] = [];

  /** @throws UnsupportedError for an item that must be understood and is not. */
  constructor(source: ByteSource, region: Region, items: readonly Item[]) {
    this.#source = source;
    this.#region = region;
    this.#items = items;
    for (const item of items) {
      if (item.required && (item.user || !KNOWN.has(item.id))) {
        throw new UnsupportedError(`VHDX metadata item ${item.id}`, { source: source.name });
      }
    }
    this.#checkPlaces();
  }

  /** Items that are not needed may be anywhere; that they are is told. Those that are needed are checked when they are read. */
  #checkPlaces(): void {
    const inOrder = this.#items.filter(({ length }) => length > 0).sort((a, b) => a.offset - b.offset);
    for (const [i, item] of inOrder.entries()) {
      const next = inOrder[i + 1];
      if (next !== undefined && overlap(item.offset, item.length, next.offset, next.length)) {
        const expected = `an item behind the one that ends at ${item.offset + item.length}`;
        this.findings.push(findingOf(this.#misplaced(next, expected), 'metadata-overlap'));
      }
      if (!this.#fits(item)) this.findings.push(findingOf(this.#misplaced(item), 'metadata-out-of-region'));
    }
  }

  #fits({ offset, length }: Item): boolean {
    return (
      length <= layout.METADATA_ITEM_MAX &&
      offset >= layout.METADATA_TABLE_BYTES &&
      offset + length <= this.#region.length
    );
  }

  #misplaced(item: Item, expected?: string): CorruptError {
    return new CorruptError('VHDX metadata table entry Offset', {
      source: this.#source.name,
      position: item.entry + 16,
      expected: expected ?? `at most ${MIB} bytes from ${64 * KIB} to ${this.#region.length}`,
      found: `${item.length} bytes from ${item.offset}`,
    });
  }

  /** The content of a system item; `bytes` is its length where the format fixes it. @throws CorruptError, IoError. */
  async item(id: string, bytes?: number): Promise<Fields> {
    const item = this.#items.find((candidate) => candidate.id === id && !candidate.user);
    if (item === undefined) throw this.#missing(id);
    if (!this.#fits(item)) throw this.#misplaced(item);
    if (bytes !== undefined && item.length !== bytes) {
      throw new CorruptError('VHDX metadata table entry Length', {
        source: this.#source.name,
        position: item.entry + 20,
        expected: `${bytes} bytes of ${KNOWN.get(id)}`,
        found: item.length,
      });
    }
    const position = this.#region.position + item.offset;
    const content = await this.#source.read(position, item.length);
    return new Fields(content, `VHDX ${KNOWN.get(id)}`, this.#source.name, position);
  }

  #missing(id: string): CorruptError {
    return new CorruptError('VHDX metadata table', {
      source: this.#source.name,
      position: this.#region.position,
      expected: `an entry for the ${KNOWN.get(id)}`,
      found: 'none',
    });
  }

  /** As `item`; a missing one is told and done without. */
  async optionalItem(id: string, bytes: number): Promise<Fields | undefined> {
    if (this.#items.some((candidate) => candidate.id === id && !candidate.user)) return this.item(id, bytes);
    const remedy = 'The disk reads without it.';
    this.findings.push(findingOf(this.#missing(id), 'metadata-item-missing', 'suspicious', remedy));
    return undefined;
  }
}

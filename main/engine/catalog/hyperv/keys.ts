/**
 * The keys of a HyperVStorage (see storage.ts): tables of entries, each with a type, a name, a value, and the place of the entry
 * that it stands under. Long values lie in file objects.
 */
import { Fields } from '../../binary.ts';
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import type { ConfigNode, ConfigValue } from './node.ts';
import { checksum, openStorage, type Storage } from './storage.ts';

/** Real tables have 4 KiB. */
const MAX_TABLE_BYTES = 1 << 20;
const MAX_TABLES_BYTES = 32 << 20;
const MAX_ENTRIES = 200_000;
const MAX_DEPTH = 64;
/** A value that lies in a file object and is larger is left out: none of those that are asked for is. */
const MAX_FILE_VALUE = 1 << 20;
const MAX_FILE_VALUES = 16 << 20;

const TABLE = { signature: 2, bytes: 10 } as const;
const ENTRY_BYTES = 21;
/** Types of entries. */
const KEY = { free: 1, int: 3, uint: 4, double: 5, string: 6, array: 7, bool: 8, node: 9 } as const;
/** Flag of an entry whose value is the size and position of a file object. */
const IN_FILE = 0x01;

interface Entry {
  readonly name: string;
  readonly isNode: boolean;
  value: ConfigValue | undefined;
  readonly parent: string | undefined;
  readonly order: number;
  readonly children: Entry[];
  readonly fields: Fields;
}

/** The configuration in a .vmcx or .vmrs file. @throws CorruptError, UnsupportedError, IoError. */
export async function readConfiguration(source: ByteSource): Promise<readonly ConfigNode[]> {
  return readKeys(await openStorage(source));
}

/** The root keys of a store. @throws CorruptError, IoError. */
export async function readKeys(storage: Storage): Promise<readonly ConfigNode[]> {
  const entries = new Map<string, Entry>();
  const files = fileObjects(storage);
  for (const table of await activeTables(storage)) await readTable(table, entries, files);
  const roots: Entry[] = [];
  for (const entry of entries.values()) {
    if (entry.parent === undefined) {
      roots.push(entry);
      continue;
    }
    const parent = entries.get(entry.parent);
    if (parent === undefined || !parent.isNode) {
      throw entry.fields.corrupt('parent', 6, 'the place of a node', entry.parent);
    }
    parent.children.push(entry);
  }
  let reached = 0;
  const build = (entry: Entry, depth: number): ConfigNode => {
    reached++;
    entry.fields.require(depth < MAX_DEPTH, 'parent', 6, `at most ${MAX_DEPTH} levels`, 'more');
    const children = entry.children.sort((a, b) => a.order - b.order).map((child) => build(child, depth + 1));
    return { name: entry.name, ...(entry.value === undefined ? {} : { value: entry.value }), children };
  };
  const nodes = roots.sort((a, b) => a.order - b.order).map((root) => build(root, 0));
  if (reached !== entries.size) {
    throw new CorruptError('Hyper-V keys', {
      source: storage.source.name,
      expected: 'a tree',
      found: `${entries.size - reached} keys that stand under each other`,
    });
  }
  return nodes;
}

/** File objects by their position, and how many bytes of them may still be read. */
interface FileObjects {
  readonly storage: Storage;
  readonly sizes: ReadonlyMap<number, number>;
  left: number;
}

function fileObjects(storage: Storage): FileObjects {
  const files = storage.objects.filter(({ kind }) => kind === 'file');
  return { storage, sizes: new Map(files.map(({ position, size }) => [position, size])), left: MAX_FILE_VALUES };
}

/** Of each table the version with the highest sequence number. */
async function activeTables(storage: Storage): Promise<Fields[]> {
  const newest = new Map<number, Fields>();
  let total = 0;
  for (const { kind, position, size } of storage.objects) {
    if (kind !== 'key-table') continue;
    total += size;
    if (size < TABLE.bytes || size > MAX_TABLE_BYTES || total > MAX_TABLES_BYTES) {
      throw new CorruptError('Hyper-V key table', {
        source: storage.source.name,
        position,
        expected: `a size from ${TABLE.bytes} to ${MAX_TABLE_BYTES}`,
        found: size,
      });
    }
    const table = new Fields(await storage.read(position, size), 'Hyper-V key table', storage.source.name, position);
    table.require(table.u16(0) === TABLE.signature, 'signature', 0, TABLE.signature, table.u16(0));
    const head = table.slice(0, TABLE.bytes);
    table.require(checksum(head, 6) === table.u32(6), 'checksum', 6, checksum(head, 6), table.u32(6));
    const known = newest.get(table.u16(2));
    if (known === undefined || ((table.u16(4) - known.u16(4)) & 0xffff) < 0x8000) newest.set(table.u16(2), table);
  }
  return [...newest.values()];
}

async function readTable(table: Fields, entries: Map<string, Entry>, files: FileObjects): Promise<void> {
  const index = table.u16(2);
  for (let at: number = TABLE.bytes; at + ENTRY_BYTES <= table.length; ) {
    const size = table.u32(at + 2);
    if (size === 0) return;
    table.require(
      size >= ENTRY_BYTES && at + size <= table.length,
      'entry size',
      at + 2,
      `from ${ENTRY_BYTES} to ${table.length - at}`,
      size,
    );
    const fields = new Fields(table.slice(at, size), 'Hyper-V key', table.source, table.position + at);
    const type = fields.u16(0) & 0xff;
    if (type !== KEY.free) {
      table.require(entries.size < MAX_ENTRIES, 'entries', at, `at most ${MAX_ENTRIES} in all`, 'more');
      entries.set(`${index}:${at}`, await readEntry(fields, type, files));
    }
    at += size;
  }
}

async function readEntry(fields: Fields, type: number, files: FileObjects): Promise<Entry> {
  const nameBytes = fields.u8(20);
  const valueAt = ENTRY_BYTES + nameBytes;
  const inFile = (fields.u16(0) & (IN_FILE << 8)) !== 0;
  const valueBytes = inFile ? 12 : valueLength(fields, type, valueAt);
  const used = fields.slice(0, valueAt + valueBytes);
  fields.require(checksum(used, 12) === fields.u32(12), 'checksum', 12, checksum(used, 12), fields.u32(12));
  const parentTable = fields.u16(6);
  return {
    name: new TextDecoder().decode(fields.slice(ENTRY_BYTES, Math.max(0, nameBytes - 1))),
    isNode: type === KEY.node,
    value: inFile ? await fileValue(fields, type, valueAt, files) : inlineValue(fields, type, valueAt),
    parent: parentTable === 0 ? undefined : `${parentTable}:${fields.u32(8)}`,
    order: fields.u32(16),
    children: [],
    fields,
  };
}

/** Bytes that an inline value takes, its own length included. */
function valueLength(fields: Fields, type: number, at: number): number {
  switch (type) {
    case KEY.int:
    case KEY.uint:
    case KEY.double:
      return 8;
    case KEY.bool:
      return 4;
    case KEY.node:
      return 12;
    case KEY.string:
    case KEY.array:
      return 4 + fields.u32(at);
    default:
      throw fields.corrupt('type', 0, 'a type from 1 to 9', type);
  }
}

function inlineValue(fields: Fields, type: number, at: number): ConfigValue | undefined {
  switch (type) {
    case KEY.int:
      return BigInt.asIntN(64, fields.big64(at));
    case KEY.uint:
      return fields.big64(at);
    case KEY.double: {
      const bytes = fields.slice(at, 8);
      return new DataView(bytes.buffer, bytes.byteOffset, 8).getFloat64(0, true);
    }
    case KEY.bool:
      return fields.u32(at) !== 0;
    case KEY.string:
      return text(fields.slice(at + 4, fields.u32(at)));
    case KEY.array:
      return fields.slice(at + 4, fields.u32(at));
    default:
      return undefined;
  }
}

/** A value in a file object; undefined for one that is too large to be any that is asked for. */
async function fileValue(
  fields: Fields,
  type: number,
  at: number,
  files: FileObjects,
): Promise<ConfigValue | undefined> {
  fields.require(type === KEY.string || type === KEY.array, 'type', 0, 'a string or an array', type);
  const size = fields.u32(at);
  const position = fields.u64(at + 4, 'file position');
  const stored = files.sizes.get(position);
  if (stored === undefined) throw fields.corrupt('file position', at + 4, 'the place of a file object', position);
  fields.require(size <= stored, 'file size', at, `at most ${stored}`, size);
  if (size > Math.min(MAX_FILE_VALUE, files.left)) return undefined;
  files.left -= size;
  const bytes = await files.storage.read(position, size);
  return type === KEY.string ? text(bytes) : bytes;
}

function text(bytes: Uint8Array): string {
  return new TextDecoder('utf-16le').decode(bytes).replace(/\0+$/, '');
}

/** Bytes of memory and device state that a .vmrs holds: those of its file objects. @throws as `readConfiguration`. */
export async function savedBytes(source: ByteSource): Promise<number> {
  const { objects } = await openStorage(source);
  return objects.reduce((sum, { kind, size }) => sum + (kind === 'file' ? size : 0), 0);
}

/**
 * The container of Hyper-V's .vmcx (configuration) and .vmrs (run-time state) since 2016, which its own library calls HyperVStorage:
 * two headers, a replay log, a table of objects, and among the objects tables of keys and files.
 *
 * There is no specification. The structures are those that Fox-IT's dissect.hypervisor describes (descriptor/c_hyperv.py, from
 * VmDataStore.dll). What it leaves open was found in real files, and holds in every one of the corpus: all checksums are CRC-32 (of
 * the structure with its checksum as zeros; of a key with its name and value); the third field of a log entry is the place of its
 * data from the start of the log, and the last field the CRC-32 of these data. So a log can be replayed, and is: in memory.
 *
 * Offsets are in bytes, numbers little-endian, structures packed.
 */
import { crc32 } from 'node:zlib';
import { Fields } from '../../binary.ts';
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';

const HEADER = { signature: 0x0128_2014, bytes: 46, positions: [0, 0x1000] } as const;
const LOG = { signature: 0x0111_0003, bytes: 34, entry: 28 } as const;
const OBJECT_TABLE = { signature: 0x0111_0001, position: 0x2000, bytes: 8, entry: 18 } as const;
const VERSION = 0x400;

/** Bytes of log data that are replayed at most; logs seen have 36 KiB in all. */
const MAX_LOG_BYTES = 16 << 20;
const MAX_LOG_ENTRIES = 65_536;
/** Entries of all object tables; one table of 4 KiB has 227. */
const MAX_OBJECTS = 65_536;
const MAX_OBJECT_TABLES = 256;

export type ObjectKind = 'key-table' | 'file';

export interface StoredObject {
  readonly kind: ObjectKind;
  readonly position: number;
  readonly size: number;
}

/** A change that the log has and the file does not have yet. */
interface Patch {
  readonly position: number;
  readonly bytes: Uint8Array;
}

export interface Storage {
  readonly source: ByteSource;
  /** Changes that were in the log and are seen by `read`. */
  readonly replayed: number;
  readonly objects: readonly StoredObject[];
  /** Bytes as they are once the log is replayed. @throws IoError, CorruptError. */
  read(position: number, length: number): Promise<Uint8Array>;
}

/** True for the first bytes of such a file. */
export function isStorage(prefix: Uint8Array): boolean {
  return [0x14, 0x20, 0x28, 0x01].every((byte, index) => prefix[index] === byte);
}

/**
 * Opens a store and reads its log and object tables. @throws CorruptError, UnsupportedError for another version, IoError.
 */
export async function openStorage(source: ByteSource): Promise<Storage> {
  const header = await newestHeader(source);
  const version = header.u32(10);
  if (version !== VERSION) {
    throw new UnsupportedError(`Hyper-V storage of version 0x${version.toString(16)}`, { source: source.name });
  }
  const patches = await replayLog(source, header.u64(26, 'log position'), header.u64(34, 'log size'));
  const read = async (position: number, length: number): Promise<Uint8Array> => {
    const bytes = await source.read(position, length);
    for (const patch of patches) apply(patch, bytes, position);
    return bytes;
  };
  return { source, replayed: patches.length, objects: await objectsOf(source, read), read };
}

async function newestHeader(source: ByteSource): Promise<Fields> {
  const headers: Fields[] = [];
  for (const position of HEADER.positions) {
    if (position + HEADER.bytes > source.size) continue;
    const bytes = await source.read(position, HEADER.bytes);
    headers.push(new Fields(bytes, 'Hyper-V storage header', source.name, position));
  }
  const [first] = headers;
  if (first === undefined) {
    throw new CorruptError('Hyper-V storage header', {
      source: source.name,
      position: 0,
      expected: `${HEADER.bytes} bytes`,
      found: `a file of ${source.size} bytes`,
    });
  }
  const valid = headers.filter(
    (header) => header.u32(0) === HEADER.signature && checksum(header.bytes, 4) === header.u32(4),
  );
  const [one, other] = valid;
  if (one === undefined) {
    const signed = headers.find((header) => header.u32(0) === HEADER.signature);
    if (signed !== undefined) throw signed.corrupt('checksum', 4, checksum(signed.bytes, 4), signed.u32(4));
    throw first.corrupt('signature', 0, HEADER.signature, first.u32(0));
  }
  // Sequence numbers have 16 bits and begin again.
  return other !== undefined && ((other.u16(8) - one.u16(8)) & 0xffff) < 0x8000 ? other : one;
}

/** What the log has to say, in order. Each of its entries must be whole: a torn one means that nothing after it can be trusted. */
async function replayLog(source: ByteSource, position: number, size: number): Promise<Patch[]> {
  const bytes = await source.read(position, LOG.bytes);
  const log = new Fields(bytes, 'Hyper-V storage log', source.name, position);
  log.require(log.u32(0) === LOG.signature, 'signature', 0, LOG.signature, log.u32(0));
  log.require(checksum(bytes, 4) === log.u32(4), 'checksum', 4, checksum(bytes, 4), log.u32(4));
  const count = log.u32(8);
  const most = Math.min(log.u32(13), MAX_LOG_ENTRIES);
  log.require(count <= most, 'entry count', 8, `at most ${most}`, count);
  const table = await source.read(position + LOG.bytes, count * LOG.entry);
  const patches: Patch[] = [];
  let total = 0;
  for (let index = 0; index < count; index++) {
    const at = index * LOG.entry;
    const name = `Hyper-V storage log entry ${index}`;
    const raw = table.subarray(at, at + LOG.entry);
    const entry = new Fields(raw, name, source.name, position + LOG.bytes + at);
    entry.require(checksum(raw, 20) === entry.u32(20), 'checksum', 20, checksum(raw, 20), entry.u32(20));
    const target = entry.u64(0, 'target');
    const length = entry.u32(8);
    const data = entry.u64(12, 'data position');
    total += length;
    entry.require(total <= MAX_LOG_BYTES, 'size', 8, `at most ${MAX_LOG_BYTES} in all`, total);
    entry.require(data + length <= size, 'data position', 12, `at most ${size - length}`, data);
    entry.require(target + length <= source.size, 'target', 0, `at most ${source.size - length}`, target);
    const content = await source.read(position + data, length);
    entry.require(crc32(content) === entry.u32(24), 'data checksum', 24, crc32(content), entry.u32(24));
    patches.push({ position: target, bytes: content });
  }
  return patches;
}

function apply(patch: Patch, bytes: Uint8Array, position: number): void {
  const from = Math.max(patch.position, position);
  const to = Math.min(patch.position + patch.bytes.length, position + bytes.length);
  if (from >= to) return;
  bytes.set(patch.bytes.subarray(from - patch.position, to - patch.position), from - position);
}

type Read = Storage['read'];

async function objectsOf(source: ByteSource, read: Read): Promise<StoredObject[]> {
  const objects: StoredObject[] = [];
  const tables: number[] = [OBJECT_TABLE.position];
  const seen = new Set<number>(tables);
  let entries = 0;
  for (const position of tables) {
    const head = new Fields(await read(position, OBJECT_TABLE.bytes), 'Hyper-V object table', source.name, position);
    head.require(head.u32(0) === OBJECT_TABLE.signature, 'signature', 0, OBJECT_TABLE.signature, head.u32(0));
    const count = head.u32(4);
    entries += count;
    head.require(entries <= MAX_OBJECTS, 'entry count', 4, `at most ${MAX_OBJECTS} in all`, entries);
    const bytes = await read(position + OBJECT_TABLE.bytes, count * OBJECT_TABLE.entry);
    for (let index = 0; index < count; index++) {
      const at = index * OBJECT_TABLE.entry;
      const raw = bytes.subarray(at, at + OBJECT_TABLE.entry);
      const entry = new Fields(raw, `Hyper-V object ${index}`, source.name, position + OBJECT_TABLE.bytes + at);
      if (entry.u8(17) === 0) continue;
      entry.require(checksum(raw, 1) === entry.u32(1), 'checksum', 1, checksum(raw, 1), entry.u32(1));
      const kind = entry.u8(0);
      if (kind !== 1 && kind !== 2 && kind !== 3) continue;
      const object = { position: entry.u64(5, 'position'), size: entry.u32(13) };
      entry.require(object.position <= source.size, 'position', 5, `at most ${source.size}`, object.position);
      if (kind !== 1) {
        objects.push({ ...object, kind: kind === 2 ? 'key-table' : 'file' });
      } else if (!seen.has(object.position)) {
        entry.require(tables.length < MAX_OBJECT_TABLES, 'type', 0, `at most ${MAX_OBJECT_TABLES} tables`, 'more');
        seen.add(object.position);
        tables.push(object.position);
      }
    }
  }
  return objects;
}

/** CRC-32 of a structure whose own checksum, at `at`, counts as zeros. */
export function checksum(bytes: Uint8Array, at: number): number {
  const copy = Uint8Array.from(bytes);
  copy.fill(0, at, at + 4);
  return crc32(copy);
}

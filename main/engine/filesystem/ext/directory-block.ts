/**
 * One block of a directory (https://docs.kernel.org/filesystems/ext4/dynamic.html#directory-entries), parsed and its checksum
 * verified. What is wrong with a block or an entry becomes an entry with `error`: it never hides the rest.
 */
import { Fields, hex32 } from '../../binary.ts';
import { crc32cUpdate } from '../../crc32c.ts';
import { CorruptError } from '../../errors.ts';
import type { Entry, EntryKind } from '../file-system.ts';
import { nameFromBytes } from '../names.ts';
import { crcU32 } from './checksum.ts';
import { has, type Inode, type InodeTable } from './inode.ts';
import { direntHeader, direntTailSize, direntTailType, dx, inodeFlag } from './layout.ts';

/** file_type -> kind; undefined where the inode must be asked. */
const kinds: readonly (EntryKind | undefined)[] = [
  undefined,
  'file',
  'directory',
  'character-device',
  'block-device',
  'fifo',
  'socket',
  'symlink',
];

const dirIndexFeature = 0x20;
const filetypeFeature = 0x2;

/** What parsing the blocks of one directory needs to know of it. */
export class DirectoryContext {
  readonly table: InodeTable;
  readonly inode: Inode;
  readonly indexed: boolean;
  readonly encrypted: boolean;
  readonly fileTypes: boolean;
  readonly checksums: boolean;

  constructor(table: InodeTable, inode: Inode) {
    const s = table.superblock;
    this.table = table;
    this.inode = inode;
    this.indexed = has(inode, inodeFlag.index) && (s.compat & dirIndexFeature) !== 0;
    this.encrypted = has(inode, inodeFlag.encrypt);
    this.fileTypes = (s.incompat & filetypeFeature) !== 0;
    this.checksums = s.metadataChecksums;
  }
}

/** Where a block of a directory is: its number in the directory and its byte position in the volume. */
export interface BlockPlace {
  readonly logical: number;
  readonly position: number;
}

/** A name that no path can have, made visible: `/`, NUL and the dots of `.` and `..` as `\xHH`. */
function escapeImpossible(name: string): string {
  if (name === '.') return '\\x2e';
  if (name === '..') return '\\x2e\\x2e';
  return name.replaceAll('/', '\\x2f').replaceAll('\0', '\\x00');
}

/** A ciphertext name: all but letters, digits and `-_.` as `\xHH`. */
function escapeCiphertext(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) {
    const char = String.fromCharCode(byte);
    text += /[A-Za-z0-9_-]/.test(char) ? char : `\\x${byte.toString(16).padStart(2, '0')}`;
  }
  return text;
}

/** The entry that stands for a block (or blocks) whose names can't be read. Ids below zero are no inodes. */
export function damagedBlockEntry(blocks: string, id: number, error: CorruptError): Entry {
  return { name: `<damaged block ${blocks}>`, kind: 'unknown', id, error };
}

/**
 * Parses one block that lies at `[start, start + length)` of `buffer` and appends its entries to `out`. Entries whose kind only
 * their inode knows are appended with kind `unknown`; their indexes are added to `unknown`.
 */
export function parseDirectoryBlock(
  context: DirectoryContext,
  buffer: Buffer,
  start: number,
  length: number,
  place: BlockPlace,
  out: Entry[],
  unknown: number[],
): void {
  let end = start + length;
  let damage: CorruptError | undefined;
  if (context.checksums) {
    const verdict = verifyBlock(context, buffer.subarray(start, end), place);
    if (verdict === 'index') return;
    if (verdict === 'leaf') end -= direntTailSize;
    else damage = verdict;
  }
  if (damage !== undefined) {
    // The names are shown, so that it can be seen what was here, but what they point to is not trusted.
    out.push(damagedBlockEntry(String(place.logical), blockId(context, place), damage));
  }
  const broken = parseEntries(context, buffer, start, end, place, place.logical === 0, out, unknown, damage);
  if (broken !== undefined && damage === undefined) {
    out.push(damagedBlockEntry(String(place.logical), blockId(context, place), broken));
  }
}

function blockId(context: DirectoryContext, place: BlockPlace): number {
  return -Math.floor(place.position / context.table.superblock.blockSize);
}

/** What decides how a name can be decoded: nearly all are ASCII without "/", "\\" and NUL. Small, so that it is compiled early. */
function isPlain(buffer: Buffer, start: number, end: number): boolean {
  for (let i = start; i < end; i++) {
    const byte = buffer[i]!;
    if (byte >= 0x80 || byte === 0x2f || byte === 0x5c || byte === 0) return false;
  }
  return true;
}

/**
 * Parses directory entries in `[start, end)` of `buffer`, which lies at `place`. `dots`: the region begins with the entries `.` and `..`.
 * @returns the error that ended it early, when one did.
 */
export function parseEntries(
  context: DirectoryContext,
  buffer: Buffer,
  start: number,
  end: number,
  place: BlockPlace,
  dots: boolean,
  out: Entry[],
  unknown: number[],
  damage: CorruptError | undefined,
): CorruptError | undefined {
  const { fileTypes, encrypted, table } = context;
  const { blockSize, firstInode, inodesCount } = table.superblock;
  const large = blockSize === 0x10000;
  const broken = (at: number, field: string, expected: string | number, found: string | number): CorruptError =>
    new CorruptError(`ext directory entry ${field} in block ${place.logical} of inode ${context.inode.number}`, {
      source: context.inode.fields.source,
      position: place.position + at - start,
      expected,
      found,
    });
  // Decoded once and cut up: a call of the decoder for each name costs several times as much.
  let text: string | undefined;
  let order = 0;
  for (let at = start; at < end; ) {
    const left = end - at;
    if (left < direntHeader) return broken(at, 'rec_len', 'an entry', `${left} bytes left`);
    const inode = (buffer[at]! | (buffer[at + 1]! << 8) | (buffer[at + 2]! << 16) | (buffer[at + 3]! << 24)) >>> 0;
    let recLen = buffer[at + 4]! | (buffer[at + 5]! << 8);
    // Blocks of 64 KiB: 65536 does not fit, 0 and 65535 mean it, and the two low bits of others are high bits.
    if (recLen === 0xffff || (recLen === 0 && large)) recLen = 0x10000;
    else if (large) recLen = (recLen & 0xfffc) | ((recLen & 3) << 16);
    if (recLen < direntHeader || (recLen & 3) !== 0 || recLen > left) {
      return broken(at, 'rec_len', `a multiple of 4 from ${direntHeader} to ${left}`, recLen);
    }
    const nameLength = buffer[at + 6]!;
    const nameStart = at + direntHeader;
    const next = at + recLen;
    if (inode !== 0) {
      if (nameStart + nameLength > next || nameLength === 0) {
        return broken(at, 'name_len', `1..${recLen - direntHeader}`, nameLength);
      }
      const nameEnd = nameStart + nameLength;
      const plain = !encrypted && isPlain(buffer, nameStart, nameEnd);
      const first = buffer[nameStart]!;
      const isDot = first === 0x2e && (nameLength === 1 || (nameLength === 2 && buffer[nameStart + 1] === 0x2e));
      if (isDot && dots && order === nameLength - 1) {
        // `.` and `..`, where they belong.
      } else {
        const type = buffer[at + 7]!;
        let kind = fileTypes ? kinds[type] : undefined;
        let name: string;
        let error = damage;
        if (plain && !isDot) {
          text ??= buffer.toString('latin1', start, end);
          name = text.substring(nameStart - start, nameEnd - start);
        } else if (encrypted) {
          name = escapeCiphertext(buffer.subarray(nameStart, nameEnd));
        } else {
          const decoded = nameFromBytes(buffer.subarray(nameStart, nameEnd));
          name = isDot || decoded.includes('/') || decoded.includes('\0') ? escapeImpossible(decoded) : decoded;
          if (name !== decoded) error ??= broken(at, 'name', 'a name without "/" and NUL, not "." or ".."', name);
        }
        if (!table.isFileInode(inode)) {
          error ??= broken(at, 'inode', `${firstInode}..${inodesCount}`, inode);
        }
        if (kind === undefined) {
          if (error === undefined) unknown.push(out.length);
          kind = 'unknown';
        }
        out.push(error === undefined ? { name, kind, id: inode } : { name, kind, id: inode, error });
      }
    }
    order++;
    at = next;
  }
  return undefined;
}

/** Says what a checksummed block is, or what is wrong with it. */
function verifyBlock(context: DirectoryContext, block: Buffer, place: BlockPlace): 'index' | 'leaf' | CorruptError {
  const f = new Fields(
    block,
    `ext directory block ${place.logical} of inode ${context.inode.number}`,
    context.inode.fields.source,
    place.position,
  );
  if (context.indexed) {
    if (place.logical === 0) {
      // The root of an index holds no names but the two dots; with those intact nothing is missing from the listing,
      // whatever else may be wrong with it. Looking up by hash checks it for itself.
      const intact = f.u16(4) === 12 && f.u16(6) === 0x0201 && recordLength(f.u16(16), f.length) === f.length - 12;
      if (intact) return 'index';
      return indexDamage(context, f, 32) ?? 'index';
    }
    if (f.u32(0) === 0 && recordLength(f.u16(4), f.length) === f.length) {
      return indexDamage(context, f, dx.nodeEntries) ?? 'index';
    }
  }
  const at = f.length - direntTailSize;
  const shape = f.u32(at) === 0 && f.u16(at + 4) === direntTailSize && f.u8(at + 6) === 0;
  if (!shape || f.u8(at + 7) !== direntTailType) {
    return f.corrupt('checksum', at, 'a checksum at its end', 'none');
  }
  const stored = f.u32(at + 8);
  const computed = crc32cUpdate(context.inode.seed, block, 0, at);
  if (stored === computed) return 'leaf';
  return f.corrupt('checksum', at + 8, `0x${hex32(computed)}`, `0x${hex32(stored)}`);
}

function recordLength(raw: number, blockSize: number): number {
  return blockSize === 0x10000 && (raw === 0 || raw === 0xffff) ? 0x10000 : raw;
}

/**
 * The error of an index block whose entries begin at `entries`: a count out of bounds, or (with metadata_csum) a wrong checksum.
 * Undefined when it is sound. fs/ext4/namei.c, ext4_dx_csum.
 */
export function indexDamage(context: DirectoryContext, f: Fields, entries: number): CorruptError | undefined {
  const limit = f.u16(entries);
  const count = f.u16(entries + 2);
  const tail = context.checksums ? 8 : 0;
  const most = Math.floor((f.length - entries - tail) / 8);
  if (limit === 0 || limit > most) return f.corrupt('limit', entries, `1..${most}`, limit);
  if (count === 0 || count > limit) return f.corrupt('count', entries + 2, `1..${limit}`, count);
  if (!context.checksums) return undefined;
  const at = entries + limit * 8;
  let computed = crc32cUpdate(context.inode.seed, f.bytes, 0, entries + count * 8);
  computed = crcU32(crc32cUpdate(computed, f.bytes, at, at + 4), 0);
  const stored = f.u32(at + 4);
  return stored === computed
    ? undefined
    : f.corrupt('dt_checksum', at + 4, `0x${hex32(computed)}`, `0x${hex32(stored)}`);
}

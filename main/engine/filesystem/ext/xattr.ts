/**
 * Extended attributes (https://docs.kernel.org/filesystems/ext4/dynamic.html#extended-attributes): in the inode's body, in a
 * block of their own, and (ea_inode) with values in inodes of their own.
 *
 * ACLs are stored in ext's own compact form (fs/ext4/acl.h); they are given in the form that getxattr(2) gives and setxattr(2)
 * takes (include/uapi/linux/posix_acl_xattr.h), so that a restored file can be given them back.
 */
import { Fields, hex32 } from '../../binary.ts';
import { crc32cUpdate } from '../../crc32c.ts';
import { CorruptError } from '../../errors.ts';
import type { Io } from '../../storage/io.ts';
import { readBytes } from '../../storage/io.ts';
import type { ExtendedAttribute } from '../file-system.ts';
import { nameFromBytes } from '../names.ts';
import { crcU64, crcWithHole } from './checksum.ts';
import { has, type Inode, type InodeTable } from './inode.ts';
import {
  goodOldInodeSize,
  incompat,
  ino,
  inodeFlag,
  xattrBlockHeader,
  xattrEntryHeader,
  xattrIndexEncryption,
  xattrIndexSystem,
  xattrMagic,
  xattrMaxValue,
  xattrPrefixes,
} from './layout.ts';
import { mapBlocks } from './mapping.ts';

/** An attribute as it is stored. */
interface Stored {
  readonly index: number;
  readonly name: Uint8Array;
  /** Inode that holds the value, 0 when it is here. */
  readonly inode: number;
  readonly size: number;
  /** Bytes and position in the volume of a value that is here. */
  readonly value: Uint8Array;
  readonly position: number;
}

/**
 * Entries from `at` of a region; value offsets count from `base`. The region ends with four zero bytes or with its last byte.
 */
function parseEntries(f: Fields, at: number, base: number): Stored[] {
  const result: Stored[] = [];
  while (at + 4 <= f.length && f.u32(at) !== 0) {
    f.require(
      at + xattrEntryHeader <= f.length,
      'entry',
      at,
      'an entry within the region',
      `${f.length - at} bytes left`,
    );
    const nameLength = f.u8(at);
    const end = at + xattrEntryHeader + nameLength;
    f.require(end <= f.length, 'e_name_len', at, `at most ${f.length - at - xattrEntryHeader}`, nameLength);
    const inode = f.u32(at + 4);
    const size = f.u32(at + 8);
    const start = base + f.u16(at + 2);
    const here = inode === 0 && size > 0;
    f.require(!here || start + size <= f.length, 'e_value_size', at + 8, `a value within ${f.length} bytes`, size);
    f.require(size <= xattrMaxValue, 'e_value_size', at + 8, `at most ${xattrMaxValue}`, size);
    result.push({
      index: f.u8(at + 1),
      name: f.slice(at + xattrEntryHeader, nameLength),
      inode,
      size,
      value: here ? f.slice(start, size) : new Uint8Array(0),
      position: f.position + start,
    });
    at += (xattrEntryHeader + nameLength + 3) & ~3;
  }
  return result;
}

function bodyEntries(table: InodeTable, inode: Inode): Stored[] {
  const { inodeSize } = table.superblock;
  const start = goodOldInodeSize + inode.extraSize;
  // An inode of 256 bytes with i_extra_isize 0 was never given any fields beyond the first 128.
  if (inodeSize <= goodOldInodeSize || inode.extraSize === 0 || start + 4 > inodeSize) return [];
  if (inode.fields.u32(start) !== xattrMagic) return [];
  const f = new Fields(
    inode.fields.slice(start, inodeSize - start),
    `ext attributes in inode ${inode.number}`,
    inode.fields.source,
    inode.position + start,
  );
  return parseEntries(f, 4, 4);
}

function* blockEntries(table: InodeTable, inode: Inode): Io<Stored[]> {
  const block = inode.attributeBlock;
  if (block === 0) return [];
  const s = table.superblock;
  inode.fields.require(
    block > s.firstDataBlock && block < s.blocksCount,
    'i_file_acl',
    ino.fileAclLo,
    `a block below ${s.blocksCount}`,
    block,
  );
  const position = block * s.blockSize;
  const bytes = yield* table.cache.read(position, s.blockSize);
  const f = new Fields(bytes, `ext attribute block of inode ${inode.number}`, inode.fields.source, position);
  const magic = f.u32(0);
  f.require(magic === xattrMagic, 'h_magic', 0, `0x${hex32(xattrMagic)}`, `0x${hex32(magic)}`);
  const blocks = f.u32(8);
  f.require(blocks === 1, 'h_blocks', 8, 1, blocks);
  if (s.metadataChecksums) {
    const stored = f.u32(0x10);
    const computed = crcWithHole(crcU64(s.checksumSeed, block), bytes, 0x10, 4);
    f.require(stored === computed, 'h_checksum', 0x10, `0x${hex32(computed)}`, `0x${hex32(stored)}`);
  }
  return parseEntries(f, xattrBlockHeader, 0);
}

/** The value that an inode of its own holds, checked against the hash that its access time keeps. */
function* inodeValue(table: InodeTable, owner: Inode, stored: Stored): Io<Uint8Array> {
  const holder = yield* table.read(stored.inode);
  const f = holder.fields;
  f.require(
    has(holder, inodeFlag.eaInode),
    'i_flags',
    ino.flags,
    'an attribute value (EA_INODE)',
    `0x${hex32(holder.flags)}`,
  );
  f.require(holder.size === stored.size, 'i_size', ino.sizeLo, stored.size, holder.size);
  const { blockSize, checksumSeed } = table.superblock;
  const value = new Uint8Array(stored.size);
  const blocks = Math.ceil(stored.size / blockSize);
  let covered = 0;
  for (const run of yield* mapBlocks(table, holder, 0, blocks)) {
    const at = run.logical * blockSize;
    const length = Math.min(run.count * blockSize, stored.size - at);
    value.set(yield* readBytes(table.cache.source, run.physical * blockSize, length), at);
    covered += run.count;
  }
  f.require(covered === blocks, 'i_block', ino.block, `${blocks} blocks`, covered);
  const stamp = f.u32(ino.atime);
  const hash = crc32cUpdate(checksumSeed, value);
  // Lustre's older form keeps the owner's number (i_mtime) and generation there and no hash.
  const lustre = f.u32(ino.mtime) === owner.number && holder.generation === owner.generation;
  f.require(stamp === hash || lustre, 'value hash', ino.atime, `0x${hex32(hash)}`, `0x${hex32(stamp)}`);
  return value;
}

/** The second part of inline content: the value of `system.data` in the inode's body; undefined when there is none. */
export function inlineContinuation(
  table: InodeTable,
  inode: Inode,
): { readonly value: Uint8Array; readonly position: number } | undefined {
  const data = Buffer.from('data');
  return bodyEntries(table, inode).find((e) => e.index === xattrIndexSystem && data.equals(e.name) && e.inode === 0);
}

/**
 * All extended attributes of an inode that its guest would show. Left out: `system.data` (inline content) and the fscrypt
 * context, which are the file system's own. @throws CorruptError.
 */
export function* readAttributes(table: InodeTable, inode: Inode): Io<ExtendedAttribute[]> {
  const result: ExtendedAttribute[] = [];
  for (const stored of [...bodyEntries(table, inode), ...(yield* blockEntries(table, inode))]) {
    const suffix = nameFromBytes(stored.name);
    if (stored.index === xattrIndexEncryption) continue;
    if (stored.index === xattrIndexSystem && suffix === 'data') continue;
    const prefix = xattrPrefixes[stored.index] ?? `index-${stored.index}.`;
    let value: Uint8Array = stored.value.slice();
    if (stored.inode !== 0) {
      if ((table.superblock.incompat & incompat.eaInode) === 0) {
        throw new CorruptError(`ext attribute "${prefix}${suffix}" of inode ${inode.number}`, {
          source: inode.fields.source,
          position: inode.position,
          expected: 'a value beside its name (the file system has no ea_inode feature)',
          found: `inode ${stored.inode}`,
        });
      }
      value = yield* inodeValue(table, inode, stored);
    }
    if (stored.index === 2 || stored.index === 3) value = aclForGetxattr(inode, stored, value);
    result.push({ name: prefix + suffix, value });
  }
  return result;
}

/** From ext4_acl_header (version 1; entries of 4 bytes, 8 for named users and groups) to posix_acl_xattr (version 2, all 8). */
function aclForGetxattr(inode: Inode, stored: Stored, value: Uint8Array): Uint8Array {
  const f = new Fields(value, `ext ACL of inode ${inode.number}`, inode.fields.source, stored.position);
  const version = f.u32(0);
  f.require(version === 1, 'a_version', 0, 1, version);
  const out: number[] = [];
  const u16 = (n: number): number => out.push(n & 0xff, n >>> 8);
  const u32 = (n: number): void => {
    u16(n & 0xffff);
    u16(n >>> 16);
  };
  u32(2);
  for (let at = 4; at < f.length; ) {
    const tag = f.u16(at);
    const named = tag === 0x02 || tag === 0x08;
    f.require(named || [0x01, 0x04, 0x10, 0x20].includes(tag), 'e_tag', at, 'an ACL tag', `0x${tag.toString(16)}`);
    u16(tag);
    u16(f.u16(at + 2));
    u32(named ? f.u32(at + 4) : 0xffffffff);
    at += named ? 8 : 4;
  }
  return Uint8Array.from(out);
}

/** Inodes (https://docs.kernel.org/filesystems/ext4/dynamic.html#index-nodes): read from the inode table, checked, and decoded. */
import { Fields } from '../../binary.ts';
import { crc32cUpdate } from '../../crc32c.ts';
import { CorruptError } from '../../errors.ts';
import type { Io } from '../../storage/io.ts';
import type { EntryKind, Timestamp } from '../file-system.ts';
import { crcU32, crcWithHole } from './checksum.ts';
import type { GroupDescriptors } from './group-descriptors.ts';
import {
  goodOldInodeSize,
  incompat,
  ino,
  inodeBlockBytes,
  inodeFlag,
  inodeFlagNames,
  modeType,
  roCompat,
} from './layout.ts';
import type { MetadataCache } from './metadata-cache.ts';
import type { Superblock } from './superblock.ts';

export interface Inode {
  readonly number: number;
  /** Byte position of the inode in the volume. */
  readonly position: number;
  readonly fields: Fields;
  readonly kind: EntryKind;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly links: number;
  readonly flags: number;
  readonly generation: number;
  /** Bytes of storage used. */
  readonly allocated: number;
  /** Block of the extended attributes, 0 when there is none. */
  readonly attributeBlock: number;
  /** Bytes of the inode beyond the first 128 that hold fields; the rest holds extended attributes. */
  readonly extraSize: number;
  /** Register with which the checksums of what belongs to this inode begin. */
  readonly seed: number;
  /** i_block: the block map, extent root, inline content or device number. */
  readonly block: Uint8Array;
  readonly modified: Timestamp;
  readonly accessed: Timestamp;
  readonly changed: Timestamp;
  readonly created: Timestamp | undefined;
  /** i_projid: the project whose quota it counts for. */
  readonly project: number;
}

const kinds: Readonly<Record<number, EntryKind>> = {
  [modeType.fifo]: 'fifo',
  [modeType.characterDevice]: 'character-device',
  [modeType.directory]: 'directory',
  [modeType.blockDevice]: 'block-device',
  [modeType.file]: 'file',
  [modeType.symlink]: 'symlink',
  [modeType.socket]: 'socket',
};

export const has = (inode: { flags: number }, flag: number): boolean => (inode.flags & flag) !== 0;

/** What the inodes of one file system are read with. */
export class InodeTable {
  readonly superblock: Superblock;
  readonly cache: MetadataCache;
  readonly #groups: GroupDescriptors;
  readonly #seedStart: number;

  constructor(superblock: Superblock, cache: MetadataCache, groups: GroupDescriptors) {
    this.superblock = superblock;
    this.cache = cache;
    this.#groups = groups;
    this.#seedStart = superblock.checksumSeed;
  }

  /** True for numbers that a directory may point to: the root and what is not reserved. */
  isFileInode(number: number): boolean {
    return number === 2 || (number >= this.superblock.firstInode && number <= this.superblock.inodesCount);
  }

  /** Inode `number` as it is on disk. @throws CorruptError when it is out of range, unused or its checksum is wrong. */
  *read(number: number): Io<Inode> {
    const s = this.superblock;
    if (!(number >= 1 && number <= s.inodesCount)) {
      throw new CorruptError('ext inode number', {
        source: this.cache.source.name,
        expected: `1..${s.inodesCount}`,
        found: number,
      });
    }
    const group = Math.floor((number - 1) / s.inodesPerGroup);
    const index = (number - 1) % s.inodesPerGroup;
    const table = yield* this.#groups.inodeTable(group);
    const position = table * s.blockSize + index * s.inodeSize;
    const bytes = yield* this.cache.read(position, s.inodeSize);
    return this.#parse(number, position, bytes);
  }

  #parse(number: number, position: number, bytes: Uint8Array): Inode {
    const s = this.superblock;
    const f = new Fields(bytes, `ext inode ${number}`, this.cache.source.name, position);
    const mode = f.u16(ino.mode);
    const links = f.u16(ino.linksCount);
    f.require(mode !== 0 && links > 0, '', ino.linksCount, 'an inode in use', `mode ${mode}, ${links} links`);

    const large = s.inodeSize > goodOldInodeSize;
    const extraSize = large ? f.u16(ino.extraIsize) : 0;
    f.require(
      extraSize % 4 === 0 && goodOldInodeSize + extraSize <= s.inodeSize,
      'i_extra_isize',
      ino.extraIsize,
      `a multiple of 4 up to ${s.inodeSize - goodOldInodeSize}`,
      extraSize,
    );
    const fits = (end: number): boolean => goodOldInodeSize + extraSize >= end;
    const generation = f.u32(ino.generation);
    let seed = 0;
    if (s.metadataChecksums) {
      seed = crcU32(crcU32(this.#seedStart, number), generation);
      this.#verify(f, seed, large && fits(ino.checksumHi + 2));
    }

    const type = mode & modeType.mask;
    const kind = kinds[type];
    if (kind === undefined) throw f.corrupt('i_mode', ino.mode, 'a file type', `0x${mode.toString(16)}`);
    const flags = f.u32(ino.flags);
    const sizeHigh =
      type === modeType.file || (type === modeType.directory && (s.incompat & incompat.largeDir) !== 0)
        ? f.u32(ino.sizeHigh)
        : 0;
    f.require(sizeHigh <= 0x1f_ffff, 'i_size', ino.sizeHigh, 'at most 2^53-1', `0x${sizeHigh.toString(16)} * 2^32`);

    // GNU/Hurd uses osd2 differently: no high halves of the block count and of the attribute block.
    const blocksHigh = s.hurd || (s.roCompat & roCompat.hugeFile) === 0 ? 0 : f.u16(ino.blocksHi);
    const blocks = blocksHigh * 0x1_0000_0000 + f.u32(ino.blocksLo);
    const inFsBlocks = (s.roCompat & roCompat.hugeFile) !== 0 && (flags & inodeFlag.hugeFile) !== 0;
    const attributeHigh = s.hurd || (s.incompat & incompat.bits64) === 0 ? 0 : f.u16(ino.fileAclHi);

    const time = (at: number, extraAt: number): Timestamp => {
      const seconds = f.i32(at);
      if (!large || !fits(extraAt + 4)) return { seconds, nanoseconds: 0 };
      const extra = f.u32(extraAt);
      const nanoseconds = extra >>> 2;
      // The two low bits carry the time on from 2038 to 2446. Thirty bits can hold more than a second: then they hold none.
      return {
        seconds: seconds + (extra & 3) * 0x1_0000_0000,
        nanoseconds: nanoseconds < 1_000_000_000 ? nanoseconds : 0,
      };
    };
    return {
      number,
      position,
      fields: f,
      kind,
      mode: mode & 0o7777,
      uid: f.u16(ino.uidLo) + f.u16(ino.uidHi) * 0x1_0000,
      gid: f.u16(ino.gidLo) + f.u16(ino.gidHi) * 0x1_0000,
      size: sizeHigh * 0x1_0000_0000 + f.u32(ino.sizeLo),
      links,
      flags,
      generation,
      allocated: blocks * (inFsBlocks ? s.blockSize : 512),
      attributeBlock: attributeHigh * 0x1_0000_0000 + f.u32(ino.fileAclLo),
      extraSize,
      seed,
      block: f.slice(ino.block, inodeBlockBytes),
      modified: time(ino.mtime, ino.mtimeExtra),
      accessed: time(ino.atime, ino.atimeExtra),
      changed: time(ino.ctime, ino.ctimeExtra),
      created: large && fits(ino.crtime + 4) ? time(ino.crtime, ino.crtimeExtra) : undefined,
      project: large && fits(ino.projid + 4) ? f.u32(ino.projid) : 0,
    };
  }

  /** The low half of the checksum lies in the first 128 bytes, the high half where i_extra_isize reaches that far. */
  #verify(f: Fields, seed: number, withHigh: boolean): void {
    let computed = crcWithHole(seed, f.bytes.subarray(0, goodOldInodeSize), ino.checksumLo, 2);
    if (withHigh) {
      computed = crcWithHole(computed, f.bytes.subarray(goodOldInodeSize), ino.checksumHi - goodOldInodeSize, 2);
    } else {
      computed = crc32cUpdate(computed, f.bytes, goodOldInodeSize);
    }
    const stored = f.u16(ino.checksumLo) + (withHigh ? f.u16(ino.checksumHi) * 0x1_0000 : 0);
    const expected = withHigh ? computed : computed & 0xffff;
    f.require(
      stored === expected,
      'i_checksum',
      ino.checksumLo,
      `0x${expected.toString(16)}`,
      `0x${stored.toString(16)}`,
    );
  }
}

/** Device numbers from i_block: the old encoding (16 bits) in its first word, the new one (32 bits) in its second. */
export function deviceNumbers(inode: Inode): { major: number; minor: number } {
  const f = new Fields(
    inode.block,
    `ext inode ${inode.number} i_block`,
    inode.fields.source,
    inode.position + ino.block,
  );
  const old = f.u32(0);
  if (old !== 0) return { major: (old >>> 8) & 0xff, minor: old & 0xff };
  const dev = f.u32(4);
  return { major: (dev >>> 8) & 0xfff, minor: (dev & 0xff) | ((dev >>> 12) & 0xfff00) };
}

/** The inode's flags in words, and its project when it has one. */
export function flagWords(inode: Inode): string[] {
  const words = inodeFlagNames.filter(([bit]) => has(inode, bit)).map(([, word]) => word);
  if (inode.project !== 0) words.push(`project:${inode.project}`);
  return words;
}

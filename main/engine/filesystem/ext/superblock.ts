/**
 * The superblock of ext2/3/4 (https://docs.kernel.org/filesystems/ext4/globals.html#super-block): parsed, bounded, its checksum
 * verified, and replaced by one of its copies in other groups when it is damaged.
 */
import { Fields, hex32 } from '../../binary.ts';
import { crc32cUpdate } from '../../crc32c.ts';
import { ChainliftError, CorruptError, IoError, UnsupportedError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import {
  checksumTypeCrc32c,
  compat,
  compatNames,
  creatorHurd,
  ext3Incompat,
  ext3RoCompat,
  flagSignedHash,
  flagUnsignedHash,
  goodOldFirstInode,
  goodOldInodeSize,
  groupDescriptorSize32,
  incompat,
  incompatNames,
  incompatRead,
  roCompat,
  roCompatNames,
  sb,
  superblockOffset,
  superblockSize,
  superMagic,
} from './layout.ts';

export interface Superblock {
  /** Where it was read from, and the group whose copy it is (0: the primary). */
  readonly position: number;
  readonly group: number;
  readonly type: 'ext2' | 'ext3' | 'ext4';
  readonly inodesCount: number;
  readonly blocksCount: number;
  readonly freeBlocksCount: number;
  readonly firstDataBlock: number;
  readonly blockSize: number;
  readonly clusterSize: number;
  readonly blocksPerGroup: number;
  readonly inodesPerGroup: number;
  readonly groupCount: number;
  readonly state: number;
  readonly hurd: boolean;
  readonly firstInode: number;
  readonly inodeSize: number;
  readonly compat: number;
  readonly incompat: number;
  readonly roCompat: number;
  readonly uuid: string;
  readonly label: string;
  readonly journalUuid: string;
  readonly journalInode: number;
  readonly lastOrphan: number;
  readonly hashSeed: readonly [number, number, number, number];
  /** Characters above 0x7f count as unsigned in name hashes; undefined when the file system does not say. */
  readonly unsignedHash: boolean | undefined;
  readonly descriptorSize: number;
  readonly firstMetaGroup: number;
  readonly backupGroups: readonly [number, number];
  readonly mmpBlock: number;
  readonly errorCount: number;
  readonly lastError: {
    readonly seconds: number;
    readonly inode: number;
    readonly block: bigint;
    readonly where: string;
  };
  readonly metadataChecksums: boolean;
  /** Register with which the checksums of metadata begin; meaningful with metadata_csum or ea_inode. */
  readonly checksumSeed: number;
  readonly features: readonly string[];
}

function bitNames(value: number, names: Readonly<Record<number, string>>, family: string): string[] {
  const result: string[] = [];
  for (let i = 0; i < 32; i++) {
    const bit = (1 << i) >>> 0;
    if ((value & bit) !== 0) result.push(names[bit] ?? `unknown ${family} 0x${bit.toString(16)}`);
  }
  return result;
}

function typeOf(c: number, i: number, r: number): Superblock['type'] {
  if ((i & ~ext3Incompat) !== 0 || (r & ~ext3RoCompat) !== 0) return 'ext4';
  return (c & compat.hasJournal) !== 0 ? 'ext3' : 'ext2';
}

/**
 * Parses the superblock in `bytes` (1024 of them, from `position` of the volume).
 * @throws CorruptError, UnsupportedError naming each incompatible feature that is not read here.
 */
export function parseSuperblock(bytes: Uint8Array, source: string, position: number): Superblock {
  const f = new Fields(bytes, 'ext superblock', source, position);
  const magic = f.u16(sb.magic);
  f.require(magic === superMagic, 's_magic', sb.magic, '0xef53', `0x${magic.toString(16)}`);

  // The checksum first: what follows would otherwise blame a field for what is damage of the whole.
  const ro = f.u32(sb.featureRoCompat);
  const metadataChecksums = (ro & roCompat.metadataCsum) !== 0;
  if (metadataChecksums) {
    const type = f.u8(sb.checksumType);
    f.require(type === checksumTypeCrc32c, 's_checksum_type', sb.checksumType, checksumTypeCrc32c, type);
    const stored = f.u32(sb.checksum);
    const computed = crc32cUpdate(0xffffffff, bytes, 0, sb.checksum);
    f.require(stored === computed, 's_checksum', sb.checksum, `0x${hex32(computed)}`, `0x${hex32(stored)}`);
  }

  const inc = f.u32(sb.featureIncompat);
  if ((inc & incompat.journalDev) !== 0) {
    throw new UnsupportedError('an external ext journal device (it holds no files)', { source });
  }
  const unread = inc & ~incompatRead;
  if (unread !== 0) {
    throw new UnsupportedError(
      `ext4 incompatible features: ${bitNames(unread, incompatNames, 'incompat').join(', ')}`,
      { source, structure: f.structure, position: position + sb.featureIncompat, found: `0x${hex32(inc)}` },
    );
  }
  const com = f.u32(sb.featureCompat);
  const bits64 = (inc & incompat.bits64) !== 0;

  const logBlockSize = f.u32(sb.logBlockSize);
  f.require(logBlockSize <= 6, 's_log_block_size', sb.logBlockSize, 'at most 6 (64 KiB)', logBlockSize);
  const blockSize = 1024 << logBlockSize;
  const bigalloc = (ro & roCompat.bigalloc) !== 0;
  const logClusterSize = bigalloc ? f.u32(sb.logClusterSize) : logBlockSize;
  f.require(
    logClusterSize >= logBlockSize && logClusterSize <= 19,
    's_log_cluster_size',
    sb.logClusterSize,
    `${logBlockSize}..19`,
    logClusterSize,
  );

  const blocksPerGroup = f.u32(sb.blocksPerGroup);
  const ratio = 2 ** (logClusterSize - logBlockSize);
  const maxBlocks = 8 * blockSize * ratio;
  f.require(
    blocksPerGroup > 0 && blocksPerGroup <= maxBlocks,
    's_blocks_per_group',
    sb.blocksPerGroup,
    `1..${maxBlocks}`,
    blocksPerGroup,
  );
  const firstDataBlock = f.u32(sb.firstDataBlock);
  f.require(
    firstDataBlock === 0 || (firstDataBlock === 1 && blockSize === 1024),
    's_first_data_block',
    sb.firstDataBlock,
    blockSize === 1024 ? '0 or 1' : 0,
    firstDataBlock,
  );
  const blocksCount = (bits64 ? f.u32(sb.blocksCountHi) : 0) * 0x1_0000_0000 + f.u32(sb.blocksCountLo);
  const maxCount = Math.floor(Number.MAX_SAFE_INTEGER / blockSize);
  f.require(
    blocksCount > firstDataBlock && blocksCount <= maxCount,
    's_blocks_count',
    sb.blocksCountLo,
    `${firstDataBlock + 1}..${maxCount}`,
    blocksCount,
  );
  const groupCount = Math.ceil((blocksCount - firstDataBlock) / blocksPerGroup);

  const revision = f.u32(sb.revLevel);
  const inodeSize = revision === 0 ? goodOldInodeSize : f.u16(sb.inodeSize);
  f.require(
    inodeSize >= 128 && inodeSize <= blockSize && (inodeSize & (inodeSize - 1)) === 0,
    's_inode_size',
    sb.inodeSize,
    `a power of two from 128 to ${blockSize}`,
    inodeSize,
  );
  const inodesPerGroup = f.u32(sb.inodesPerGroup);
  const maxInodes = 8 * blockSize;
  f.require(
    inodesPerGroup > 0 && inodesPerGroup <= maxInodes,
    's_inodes_per_group',
    sb.inodesPerGroup,
    `1..${maxInodes}`,
    inodesPerGroup,
  );
  const inodesCount = f.u32(sb.inodesCount);
  f.require(
    inodesCount >= goodOldFirstInode && inodesCount <= groupCount * inodesPerGroup,
    's_inodes_count',
    sb.inodesCount,
    `at most ${inodesPerGroup} in each of ${groupCount} groups`,
    inodesCount,
  );
  const firstInode = revision === 0 ? goodOldFirstInode : f.u32(sb.firstIno);
  f.require(
    firstInode >= goodOldFirstInode && firstInode <= inodesCount,
    's_first_ino',
    sb.firstIno,
    `${goodOldFirstInode}..${inodesCount}`,
    firstInode,
  );
  const descriptorSize = bits64 ? f.u16(sb.descSize) : groupDescriptorSize32;
  f.require(
    descriptorSize >= (bits64 ? 64 : 32) && descriptorSize <= 1024 && (descriptorSize & (descriptorSize - 1)) === 0,
    's_desc_size',
    sb.descSize,
    'a power of two from 64 to 1024',
    descriptorSize,
  );

  const flags = f.u32(sb.flags);
  return {
    position,
    group: f.u16(sb.blockGroupNr),
    type: typeOf(com, inc, ro),
    inodesCount,
    blocksCount,
    freeBlocksCount: (bits64 ? f.u32(sb.freeBlocksCountHi) : 0) * 0x1_0000_0000 + f.u32(sb.freeBlocksCountLo),
    firstDataBlock,
    blockSize,
    clusterSize: 1024 * 2 ** logClusterSize,
    blocksPerGroup,
    inodesPerGroup,
    groupCount,
    state: f.u16(sb.state),
    hurd: f.u32(sb.creatorOs) === creatorHurd,
    firstInode,
    inodeSize,
    compat: com,
    incompat: inc,
    roCompat: ro,
    uuid: f.uuid(sb.uuid),
    label: Buffer.from(f.slice(sb.volumeName, 16)).toString('utf8').split('\0')[0]!,
    journalUuid: f.uuid(sb.journalUuid),
    journalInode: f.u32(sb.journalInum),
    lastOrphan: f.u32(sb.lastOrphan),
    hashSeed: [f.u32(sb.hashSeed), f.u32(sb.hashSeed + 4), f.u32(sb.hashSeed + 8), f.u32(sb.hashSeed + 12)],
    unsignedHash: (flags & flagUnsignedHash) !== 0 ? true : (flags & flagSignedHash) !== 0 ? false : undefined,
    descriptorSize,
    firstMetaGroup: f.u32(sb.firstMetaBg),
    backupGroups: [f.u32(sb.backupBgs), f.u32(sb.backupBgs + 4)],
    mmpBlock: (inc & incompat.mmp) !== 0 ? f.u64(sb.mmpBlock, 's_mmp_block') : 0,
    errorCount: f.u32(sb.errorCount),
    lastError: {
      seconds: f.u8(sb.lastErrorTimeHi) * 0x1_0000_0000 + f.u32(sb.lastErrorTime),
      inode: f.u32(sb.lastErrorIno),
      block: f.big64(sb.lastErrorBlock),
      where: f.ascii(sb.lastErrorFunc, 32),
    },
    metadataChecksums,
    checksumSeed:
      (inc & incompat.csumSeed) !== 0 ? f.u32(sb.checksumSeed) : crc32cUpdate(0xffffffff, bytes, sb.uuid, sb.uuid + 16),
    features: [
      ...bitNames(com, compatNames, 'compat'),
      ...bitNames(inc, incompatNames, 'incompat'),
      ...bitNames(ro, roCompatNames, 'ro_compat'),
    ],
  };
}

/** True when group `group` begins with a copy of the superblock (and, without meta_bg, of the group descriptors). */
export function groupHasSuperblock(s: Superblock, group: number): boolean {
  if (group === 0) return true;
  if ((s.compat & compat.sparseSuper2) !== 0) return s.backupGroups.includes(group);
  if (group === 1 || (s.roCompat & roCompat.sparseSuper) === 0) return true;
  if (group % 2 === 0) return false;
  return [3, 5, 7].some((base) => {
    let power = base;
    while (power < group) power *= base;
    return power === group;
  });
}

/** Byte positions where the first copies of a superblock lie in file systems of the default geometry, by block size. */
function* backupPositions(size: number): Generator<{ position: number; blockSize: number }> {
  for (const blockSize of [4096, 1024, 2048]) {
    const perGroup = 8 * blockSize;
    for (const group of [1, 3, 5, 7, 9, 25, 27, 49]) {
      const position = (group * perGroup + (blockSize === 1024 ? 1 : 0)) * blockSize;
      if (position + superblockSize <= size) yield { position, blockSize };
    }
  }
}

/** The first intact copy of a superblock in another group, or undefined. */
async function findBackup(volume: ByteSource): Promise<Superblock | undefined> {
  for (const { position, blockSize } of backupPositions(volume.size)) {
    let copy: Superblock;
    try {
      const bytes = await volume.read(position, superblockSize);
      if (bytes[sb.magic] !== (superMagic & 0xff) || bytes[sb.magic + 1] !== superMagic >> 8) continue;
      copy = parseSuperblock(bytes, volume.name, position);
    } catch (error) {
      // A copy that is damaged or can't be read: the next one may be neither.
      if (error instanceof CorruptError || error instanceof IoError) continue;
      throw error;
    }
    // The copy must say that it lies where it was found, or it belongs to a file system inside a file, or to an older one.
    const own = (copy.group * copy.blocksPerGroup + copy.firstDataBlock) * copy.blockSize;
    if (copy.group > 0 && copy.blockSize === blockSize && own === position) return copy;
  }
  return undefined;
}

/** True when a copy of an ext superblock stands where the default geometries have them. */
export async function hasBackupSuperblock(volume: ByteSource): Promise<boolean> {
  try {
    return (await findBackup(volume)) !== undefined;
  } catch (error) {
    if (error instanceof UnsupportedError) return true;
    throw error;
  }
}

/**
 * The volume's superblock; `damage` is the primary's error when a copy had to be used.
 * @throws CorruptError when neither the primary nor a copy is intact, UnsupportedError.
 */
export async function readSuperblock(volume: ByteSource): Promise<{ superblock: Superblock; damage?: ChainliftError }> {
  let damage: ChainliftError;
  try {
    const bytes = await volume.read(superblockOffset, superblockSize);
    return { superblock: parseSuperblock(bytes, volume.name, superblockOffset) };
  } catch (error) {
    // A sector that can't be read is as good a reason to look for a copy as one that is wrong.
    if (!(error instanceof ChainliftError) || error instanceof UnsupportedError) throw error;
    damage = error;
  }
  const superblock = await findBackup(volume);
  if (superblock === undefined) throw damage;
  return { superblock, damage };
}

/**
 * On-disk layout of ext2, ext3 and ext4: offsets, magics and masks under the names of the kernel's "ext4 Data Structures and
 * Algorithms" (https://docs.kernel.org/filesystems/ext4/), with fs/ext4/ext4.h and xattr.h for what that document leaves out.
 * All numbers are little-endian unless said otherwise.
 */

export const superblockOffset = 1024;
export const superblockSize = 1024;

/** struct ext4_super_block */
export const sb = {
  inodesCount: 0x0,
  blocksCountLo: 0x4,
  freeBlocksCountLo: 0xc,
  firstDataBlock: 0x14,
  logBlockSize: 0x18,
  logClusterSize: 0x1c,
  blocksPerGroup: 0x20,
  clustersPerGroup: 0x24,
  inodesPerGroup: 0x28,
  magic: 0x38,
  state: 0x3a,
  creatorOs: 0x48,
  revLevel: 0x4c,
  firstIno: 0x54,
  inodeSize: 0x58,
  blockGroupNr: 0x5a,
  featureCompat: 0x5c,
  featureIncompat: 0x60,
  featureRoCompat: 0x64,
  uuid: 0x68,
  volumeName: 0x78,
  journalUuid: 0xd0,
  journalInum: 0xe0,
  lastOrphan: 0xe8,
  hashSeed: 0xec,
  descSize: 0xfe,
  firstMetaBg: 0x104,
  blocksCountHi: 0x150,
  freeBlocksCountHi: 0x158,
  flags: 0x160,
  mmpBlock: 0x168,
  checksumType: 0x175,
  errorCount: 0x194,
  lastErrorTime: 0x1cc,
  lastErrorIno: 0x1d0,
  lastErrorBlock: 0x1d8,
  lastErrorFunc: 0x1e0,
  backupBgs: 0x24c,
  checksumSeed: 0x270,
  lastErrorTimeHi: 0x279,
  encoding: 0x27c,
  checksum: 0x3fc,
} as const;

export const superMagic = 0xef53;
/** s_checksum_type: the only one there is. */
export const checksumTypeCrc32c = 1;
export const creatorHurd = 1;

/** s_state */
export const stateValid = 0x1;
export const stateErrors = 0x2;

/** s_flags */
export const flagUnsignedHash = 0x2;
export const flagSignedHash = 0x1;

export const rootInode = 2;
export const journalInode = 8;
export const goodOldFirstInode = 11;
export const goodOldInodeSize = 128;

export const compat = {
  hasJournal: 0x4,
  sparseSuper2: 0x200,
} as const;

export const incompat = {
  compression: 0x1,
  filetype: 0x2,
  recover: 0x4,
  journalDev: 0x8,
  metaBg: 0x10,
  extents: 0x40,
  bits64: 0x80,
  mmp: 0x100,
  flexBg: 0x200,
  eaInode: 0x400,
  dirdata: 0x1000,
  csumSeed: 0x2000,
  largeDir: 0x4000,
  inlineData: 0x8000,
  encrypt: 0x10000,
  casefold: 0x20000,
} as const;

export const roCompat = {
  sparseSuper: 0x1,
  largeFile: 0x2,
  btreeDir: 0x4,
  hugeFile: 0x8,
  gdtCsum: 0x10,
  bigalloc: 0x200,
  metadataCsum: 0x400,
  orphanPresent: 0x10000,
} as const;

/** Names as dumpe2fs prints them, by bit. */
export const compatNames: Readonly<Record<number, string>> = {
  1: 'dir_prealloc',
  2: 'imagic_inodes',
  4: 'has_journal',
  8: 'ext_attr',
  16: 'resize_inode',
  32: 'dir_index',
  64: 'lazy_bg',
  128: 'snapshot_bitmap',
  256: 'snapshot_exclude_bitmap',
  512: 'sparse_super2',
  1024: 'fast_commit',
  2048: 'stable_inodes',
  4096: 'orphan_file',
};
export const incompatNames: Readonly<Record<number, string>> = {
  1: 'compression',
  2: 'filetype',
  4: 'needs_recovery',
  8: 'journal_dev',
  16: 'meta_bg',
  64: 'extent',
  128: '64bit',
  256: 'mmp',
  512: 'flex_bg',
  1024: 'ea_inode',
  4096: 'dirdata',
  8192: 'metadata_csum_seed',
  16384: 'large_dir',
  32768: 'inline_data',
  65536: 'encrypt',
  131072: 'casefold',
};
export const roCompatNames: Readonly<Record<number, string>> = {
  1: 'sparse_super',
  2: 'large_file',
  4: 'btree_dir',
  8: 'huge_file',
  16: 'uninit_bg',
  32: 'dir_nlink',
  64: 'extra_isize',
  128: 'snapshot',
  256: 'quota',
  512: 'bigalloc',
  1024: 'metadata_csum',
  2048: 'replica',
  4096: 'read-only',
  8192: 'project',
  16384: 'shared_blocks',
  32768: 'verity',
  65536: 'orphan_present',
};

/** Incompatible features that are read here. `dirdata` (Lustre) and `journal_dev` are known by name and are not. */
export const incompatRead =
  incompat.compression |
  incompat.filetype |
  incompat.recover |
  incompat.metaBg |
  incompat.extents |
  incompat.bits64 |
  incompat.mmp |
  incompat.flexBg |
  incompat.eaInode |
  incompat.csumSeed |
  incompat.largeDir |
  incompat.inlineData |
  incompat.encrypt |
  incompat.casefold;

/** Features without which a file system with a journal is an ext3, and without a journal an ext2 (as blkid says it). */
export const ext3Incompat = incompat.filetype | incompat.recover | incompat.metaBg | incompat.compression;
export const ext3RoCompat = roCompat.sparseSuper | roCompat.largeFile | roCompat.btreeDir;

/** struct ext4_group_desc */
export const gd = {
  inodeTableLo: 0x8,
  flags: 0x12,
  checksum: 0x1e,
  inodeTableHi: 0x28,
} as const;
export const groupDescriptorSize32 = 32;

/** struct ext4_inode */
export const ino = {
  mode: 0x0,
  uidLo: 0x2,
  sizeLo: 0x4,
  atime: 0x8,
  ctime: 0xc,
  mtime: 0x10,
  dtime: 0x14,
  gidLo: 0x18,
  linksCount: 0x1a,
  blocksLo: 0x1c,
  flags: 0x20,
  block: 0x28,
  generation: 0x64,
  fileAclLo: 0x68,
  sizeHigh: 0x6c,
  blocksHi: 0x74,
  fileAclHi: 0x76,
  uidHi: 0x78,
  gidHi: 0x7a,
  checksumLo: 0x7c,
  extraIsize: 0x80,
  checksumHi: 0x82,
  ctimeExtra: 0x84,
  mtimeExtra: 0x88,
  atimeExtra: 0x8c,
  crtime: 0x90,
  crtimeExtra: 0x94,
  projid: 0x9c,
} as const;
export const inodeBlockBytes = 60;

export const modeType = {
  mask: 0xf000,
  fifo: 0x1000,
  characterDevice: 0x2000,
  directory: 0x4000,
  blockDevice: 0x6000,
  file: 0x8000,
  symlink: 0xa000,
  socket: 0xc000,
} as const;

/** i_flags that change how an inode is read. */
export const inodeFlag = {
  compressed: 0x4,
  compressedBlocks: 0x200,
  encrypt: 0x800,
  index: 0x1000,
  hugeFile: 0x40000,
  extents: 0x80000,
  eaInode: 0x200000,
  inlineData: 0x10000000,
  casefold: 0x40000000,
} as const;

/** i_flags in words, as chattr(1) explains them. */
export const inodeFlagNames: readonly (readonly [number, string])[] = [
  [0x1, 'secure-deletion'],
  [0x2, 'undeletable'],
  [0x4, 'compressed'],
  [0x8, 'synchronous'],
  [0x10, 'immutable'],
  [0x20, 'append-only'],
  [0x40, 'no-dump'],
  [0x80, 'no-atime'],
  [0x800, 'encrypted'],
  [0x1000, 'indexed'],
  [0x4000, 'journal-data'],
  [0x8000, 'no-tail-merging'],
  [0x10000, 'synchronous-directory'],
  [0x20000, 'top-of-hierarchy'],
  [0x40000, 'huge-file'],
  [0x80000, 'extents'],
  [0x100000, 'verity'],
  [0x200000, 'attribute-value'],
  [0x2000000, 'dax'],
  [0x10000000, 'inline-data'],
  [0x20000000, 'project-inherit'],
  [0x40000000, 'casefold'],
];

/** struct ext4_extent_header, ext4_extent, ext4_extent_idx */
export const extentMagic = 0xf30a;
export const extentRecordSize = 12;
export const extentMaxDepth = 5;
/** ee_len above this: an unwritten extent of ee_len - 32768 blocks. */
export const extentMaxLength = 32768;

/** struct ext4_dir_entry_2; file_type */
export const direntHeader = 8;
export const direntTailType = 0xde;
export const direntTailSize = 12;

/** struct dx_root_info and after it */
export const dx = {
  rootInfo: 24,
  hashVersion: 28,
  infoLength: 29,
  indirectLevels: 30,
  nodeEntries: 8,
} as const;

/** Extended attributes: ext4_xattr_header, ext4_xattr_ibody_header, ext4_xattr_entry */
export const xattrMagic = 0xea020000;
export const xattrBlockHeader = 32;
export const xattrEntryHeader = 16;
export const xattrIndexSystem = 7;
export const xattrIndexEncryption = 9;
/** e_name_index -> prefix of the name. */
export const xattrPrefixes: Readonly<Record<number, string>> = {
  1: 'user.',
  2: 'system.posix_acl_access',
  3: 'system.posix_acl_default',
  4: 'trusted.',
  5: 'lustre.',
  6: 'security.',
  7: 'system.',
  8: 'system.richacl',
  10: 'gnu.',
};
/** EXT4_XATTR_SIZE_MAX: no value is larger. */
export const xattrMaxValue = 1 << 24;

/** struct mmp_struct */
export const mmpMagic = 0x004d4d50;
export const mmpSeqClean = 0xff4d4d50;
export const mmpNodeName = 0x10;

/** jbd2 journal superblock (big-endian) */
export const journalMagic = 0xc03b3998;
export const journalStart = 0x1c;

/**
 * ext2, ext3 and ext4, read-only (https://docs.kernel.org/filesystems/ext4/). The volume stays the caller's: closing the file
 * system does not close it.
 *
 * Not replayed: a journal with changes that are not in place is reported in `state`; what is read is what stands on the disk.
 */
import { CorruptError, UnsupportedError, UsageError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { runAsync } from '../../storage/io.ts';
import type {
  Entry,
  ExtendedAttribute,
  FileContent,
  FileSystem,
  FileSystemState,
  FileSystemType,
  Stat,
} from '../file-system.ts';
import { nameFromBytes } from '../names.ts';
import { walkPath } from '../path-walk.ts';
import { BlockContent, InlineContent } from './content.ts';
import { listDirectory, lookUp } from './directory.ts';
import { GroupDescriptors } from './group-descriptors.ts';
import { inlineParts } from './inline-data.ts';
import { deviceNumbers, flagWords, has, type Inode, InodeTable } from './inode.ts';
import { incompat, ino, inodeFlag, rootInode, sb, superblockOffset, superMagic } from './layout.ts';
import { checkMappable } from './mapping.ts';
import { MetadataCache } from './metadata-cache.ts';
import { readState } from './state.ts';
import { readSuperblock, type Superblock } from './superblock.ts';
import { readAttributes } from './xattr.ts';

const encryption = 'ext4 encryption (fscrypt)';

class ExtFileSystem implements FileSystem {
  readonly type: string;
  readonly label?: string;
  readonly uuid: string;
  readonly size: number;
  readonly blockSize: number;
  readonly free: number;
  readonly state: FileSystemState;
  readonly features: readonly string[];
  /** Only directories with the casefold flag fold case, never the whole of a volume. */
  readonly caseInsensitive = false;
  readonly #s: Superblock;
  readonly #cache: MetadataCache;
  readonly #table: InodeTable;

  constructor(s: Superblock, cache: MetadataCache, table: InodeTable, state: FileSystemState) {
    this.#s = s;
    this.#cache = cache;
    this.#table = table;
    this.type = s.type;
    if (s.label !== '') this.label = s.label;
    this.uuid = s.uuid;
    this.size = s.blocksCount * s.blockSize;
    this.blockSize = s.blockSize;
    this.free = Math.min(s.freeBlocksCount, s.blocksCount) * s.blockSize;
    this.state = state;
    this.features = s.features;
  }

  async root(): Promise<Entry> {
    return { name: '', kind: 'directory', id: rootInode };
  }

  async entry(path: string, options: { follow?: boolean } = {}): Promise<Entry> {
    return walkPath(
      {
        root: () => this.root(),
        lookup: async (directory, name) => lookUp(this.#table, await this.#directory(directory), name),
        readLink: (entry) => this.readLink(entry),
      },
      path,
      options,
    );
  }

  async *list(directory: Entry, signal?: AbortSignal): AsyncGenerator<Entry[]> {
    yield* listDirectory(this.#table, await this.#directory(directory), signal);
  }

  async stat(entry: Entry): Promise<Stat> {
    const inode = await this.#inode(entry);
    const device =
      inode.kind === 'block-device' || inode.kind === 'character-device' ? deviceNumbers(inode) : undefined;
    return {
      kind: inode.kind,
      id: inode.number,
      size: inode.size,
      allocated: inode.allocated,
      mode: inode.mode,
      uid: inode.uid,
      gid: inode.gid,
      links: inode.links,
      modified: inode.modified,
      accessed: inode.accessed,
      changed: inode.changed,
      ...(inode.created === undefined ? {} : { created: inode.created }),
      ...(device === undefined ? {} : { device }),
      flags: flagWords(inode),
    };
  }

  async open(entry: Entry): Promise<FileContent> {
    const inode = await this.#inode(entry);
    if (inode.kind !== 'file') throw wrongKind(entry, inode, 'a regular file');
    this.#refuseUnreadable(inode);
    const name = entry.name === '' ? `inode ${inode.number}` : entry.name;
    if (has(inode, inodeFlag.inlineData)) return new InlineContent(inlineParts(this.#table, inode), inode.size, name);
    checkMappable(this.#table, inode);
    return new BlockContent(this.#table, inode, name);
  }

  async readLink(entry: Entry): Promise<string> {
    const inode = await this.#inode(entry);
    if (inode.kind !== 'symlink') throw wrongKind(entry, inode, 'a symbolic link');
    this.#refuseUnreadable(inode);
    const target = await this.#linkTarget(inode);
    const nul = target.indexOf(0);
    if (nul >= 0) {
      throw new CorruptError(`ext symbolic link of inode ${inode.number}`, {
        source: inode.fields.source,
        position: inode.position,
        expected: `a target of ${inode.size} bytes`,
        found: `its end after ${nul}`,
      });
    }
    return nameFromBytes(target);
  }

  async #linkTarget(inode: Inode): Promise<Uint8Array> {
    const { blockSize } = this.#s;
    inode.fields.require(inode.size <= blockSize, 'i_size', ino.sizeLo, `at most ${blockSize}`, inode.size);
    if (has(inode, inodeFlag.inlineData)) {
      return new InlineContent(inlineParts(this.#table, inode), inode.size, 'link').read(0, inode.size);
    }
    // Fast: the target stands in i_block, and nothing is allocated for it but perhaps a block of attributes.
    const attributes = inode.attributeBlock === 0 ? 0 : this.#s.clusterSize;
    const eaInode = (this.#s.incompat & incompat.eaInode) !== 0;
    const fast = eaInode ? inode.size < inode.block.length : inode.allocated <= attributes;
    if (fast && !has(inode, inodeFlag.extents)) {
      inode.fields.require(
        inode.size < inode.block.length,
        'i_size',
        ino.sizeLo,
        `below ${inode.block.length}`,
        inode.size,
      );
      return inode.block.slice(0, inode.size);
    }
    return new BlockContent(this.#table, inode, 'link').read(0, inode.size);
  }

  async extendedAttributes(entry: Entry): Promise<ExtendedAttribute[]> {
    return runAsync(readAttributes(this.#table, await this.#inode(entry)));
  }

  async close(): Promise<void> {
    this.#cache.clear();
  }

  /** The inode of an entry. An entry that says why it can't be read is believed. */
  async #inode(entry: Entry): Promise<Inode> {
    if (entry.error !== undefined) throw entry.error;
    return runAsync(this.#table.read(entry.id));
  }

  async #directory(entry: Entry): Promise<Inode> {
    const inode = await this.#inode(entry);
    if (inode.kind === 'directory') return inode;
    if (entry.kind !== 'directory') throw wrongKind(entry, inode, 'a directory');
    throw new CorruptError(`ext inode ${inode.number}`, {
      source: inode.fields.source,
      position: inode.position,
      expected: 'a directory',
      found: inode.kind,
    });
  }

  #refuseUnreadable(inode: Inode): void {
    const where = { source: inode.fields.source, inode: inode.number };
    if (has(inode, inodeFlag.encrypt)) throw new UnsupportedError(encryption, where);
    const compressed = has(inode, inodeFlag.compressed | inodeFlag.compressedBlocks);
    if ((this.#s.incompat & incompat.compression) !== 0 && compressed) {
      throw new UnsupportedError('ext2 compression (e2compr)', where);
    }
  }
}

function wrongKind(entry: Entry, inode: Inode, expected: string): UsageError {
  return new UsageError(`"${entry.name}" (inode ${inode.number}) is not ${expected} but a ${inode.kind}`, {
    name: entry.name,
    inode: inode.number,
    expected,
    found: inode.kind,
  });
}

/** Detects and opens ext2, ext3 and ext4. */
export const extFileSystem: FileSystemType = {
  name: 'ext',

  detect(prefix) {
    const at = superblockOffset + sb.magic;
    return prefix[at] === (superMagic & 0xff) && prefix[at + 1] === superMagic >> 8;
  },

  async open(volume: ByteSource): Promise<FileSystem> {
    const { superblock, damage } = await readSuperblock(volume);
    const cache = new MetadataCache(volume);
    const table = new InodeTable(superblock, cache, new GroupDescriptors(superblock, cache));
    const state = await runAsync(readState(table, damage));
    return new ExtFileSystem(superblock, cache, table, state);
  },
};

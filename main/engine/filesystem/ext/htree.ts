/** Looking up one name through a directory's hash tree (https://docs.kernel.org/filesystems/ext4/dynamic.html#hash-tree-directories). */
import { Fields } from '../../binary.ts';
import { CorruptError } from '../../errors.ts';
import type { Io } from '../../storage/io.ts';
import type { Entry } from '../file-system.ts';
import { nameToBytes } from '../names.ts';
import { type DirectoryContext, indexDamage, parseDirectoryBlock } from './directory-block.ts';
import { has } from './inode.ts';
import { dx, incompat, inodeFlag } from './layout.ts';
import { mapBlocks } from './mapping.ts';
import { nameHash } from './name-hash.ts';

/** Blocks that one look-up may visit; names with the same hash share few. Beyond this the index is not worth following. */
const maxVisits = 1000;

export interface IndexAnswer {
  readonly entry?: Entry;
  /** The name is not there and the index can be relied on. */
  readonly certain: boolean;
}

const unsure: IndexAnswer = { certain: false };

/**
 * The entry called `name` by way of the index. A damaged index, a hash that can't be computed or a checksum-less index that
 * does not find the name leave the answer open, and a scan decides.
 */
export function* indexedLookup(context: DirectoryContext, name: string): Io<IndexAnswer> {
  const s = context.table.superblock;
  const { blockSize } = s;
  const blocks = Math.ceil(context.inode.size / blockSize);
  let visits = 0;
  /** A block that may hold the name is damaged or could not be reached: absence is not proven. */
  let doubtful = false;

  function* block(logical: number): Io<Fields | undefined> {
    if (logical >= blocks || ++visits > maxVisits) return undefined;
    const run = (yield* mapBlocks(context.table, context.inode, logical, 1))[0];
    if (run === undefined) return undefined;
    const position = run.physical * blockSize;
    const bytes = yield* context.table.cache.read(position, blockSize);
    const label = `ext directory block ${logical} of inode ${context.inode.number}`;
    return new Fields(bytes, label, context.inode.fields.source, position);
  }

  function* leaf(logical: number): Io<Entry | undefined> {
    const f = yield* block(logical);
    if (f === undefined) {
      doubtful = true;
      return undefined;
    }
    const entries: Entry[] = [];
    const buffer = Buffer.from(f.bytes.buffer, f.bytes.byteOffset, f.length);
    parseDirectoryBlock(context, buffer, 0, f.length, { logical, position: f.position }, entries, []);
    const found = entries.find((entry) => entry.name === name);
    if (entries.some((entry) => entry.id < 0)) doubtful = true;
    return found;
  }

  /** Searches below the entries that begin at `at` of an index block, `levels` levels above the leaves. */
  function* search(f: Fields, at: number, hash: number, levels: number): Io<Entry | undefined> {
    if (indexDamage(context, f, at) !== undefined) {
      doubtful = true;
      return undefined;
    }
    const count = f.u16(at + 2);
    // The first entry has no hash (limit and count stand there): it begins at 0.
    let position = 0;
    for (let a = 1, b = count - 1; a <= b; ) {
      const middle = (a + b) >> 1;
      if (f.u32(at + middle * 8) <= hash) {
        position = middle;
        a = middle + 1;
      } else {
        b = middle - 1;
      }
    }
    for (let i = position; i < count; i++) {
      // Names with one hash may go on in the next block, whose own first hash then is the same.
      if (i > position && (f.u32(at + i * 8) & ~1) >>> 0 !== hash) break;
      const logical = f.u32(at + i * 8 + 4) & 0x0fffffff;
      let found: Entry | undefined;
      if (levels === 0) {
        found = yield* leaf(logical);
      } else {
        const below = yield* block(logical);
        if (below === undefined) doubtful = true;
        else found = yield* search(below, dx.nodeEntries, hash, levels - 1);
      }
      if (found !== undefined) return found;
    }
    return undefined;
  }

  try {
    const root = yield* block(0);
    if (root === undefined) return unsure;
    const levels = root.u8(dx.indirectLevels);
    const infoLength = root.u8(dx.infoLength);
    if (infoLength !== 8 || levels >= ((s.incompat & incompat.largeDir) !== 0 ? 3 : 2)) return unsure;
    const hash = nameHash(root.u8(dx.hashVersion), nameToBytes(name), s.hashSeed, s.unsignedHash ?? false);
    if (hash === undefined) return unsure;
    const entry = yield* search(root, dx.rootInfo + infoLength, hash, levels);
    if (entry !== undefined) return { entry, certain: true };
    // Folded names are hashed by the kernel's Unicode tables, and without checksums an index may be stale or torn.
    const certain =
      !doubtful && context.checksums && s.unsignedHash !== undefined && !has(context.inode, inodeFlag.casefold);
    return { certain };
  } catch (error) {
    if (error instanceof CorruptError) return unsure;
    throw error;
  }
}

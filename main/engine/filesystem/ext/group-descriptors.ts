/**
 * Group descriptors (https://docs.kernel.org/filesystems/ext4/globals.html#block-group-descriptors): where the inode table of
 * each group lies. They are read one at a time when needed, so that opening costs the same at 1 GiB and at 64 TiB.
 */
import { Fields } from '../../binary.ts';
import { CorruptError } from '../../errors.ts';
import type { Io } from '../../storage/io.ts';
import { crc16, crcU32, crcWithHole } from './checksum.ts';
import { gd, groupDescriptorSize32, incompat, roCompat } from './layout.ts';
import type { MetadataCache } from './metadata-cache.ts';
import { groupHasSuperblock, type Superblock } from './superblock.ts';

/** Descriptors kept after their first use. */
const maxKept = 4096;
/** As many copies of a damaged descriptor as are tried. */
const maxCopies = 8;

export class GroupDescriptors {
  readonly #s: Superblock;
  readonly #cache: MetadataCache;
  readonly #kept = new Map<number, number>();
  readonly #crc16Seed: number;
  readonly #perBlock: number;

  constructor(superblock: Superblock, cache: MetadataCache) {
    this.#s = superblock;
    this.#cache = cache;
    this.#perBlock = superblock.blockSize / superblock.descriptorSize;
    this.#crc16Seed = crc16(0xffff, Buffer.from(superblock.uuid.replaceAll('-', ''), 'hex'));
  }

  /**
   * First block of a group's inode table. A descriptor whose checksum is wrong is replaced by its copy in another group.
   * @throws CorruptError.
   */
  *inodeTable(group: number): Io<number> {
    const known = this.#kept.get(group);
    if (known !== undefined) return known;
    let failure: CorruptError | undefined;
    for (const block of this.#blocksOf(group)) {
      try {
        const table = yield* this.#read(group, block);
        if (this.#kept.size >= maxKept) this.#kept.clear();
        this.#kept.set(group, table);
        return table;
      } catch (error) {
        if (!(error instanceof CorruptError)) throw error;
        failure ??= error;
      }
    }
    throw failure!;
  }

  /** The blocks in which a group's descriptor stands, the one in use first, then copies. */
  *#blocksOf(group: number): Generator<number> {
    const s = this.#s;
    const table = Math.floor(group / this.#perBlock);
    const firstBlock = (g: number): number => s.firstDataBlock + g * s.blocksPerGroup;
    if ((s.incompat & incompat.metaBg) !== 0 && table >= s.firstMetaGroup) {
      // One block of descriptors for each meta group: in its first group, copies in its second and last.
      const first = table * this.#perBlock;
      for (const g of new Set([first, first + 1, first + this.#perBlock - 1])) {
        if (g >= s.groupCount) continue;
        // With 1 KiB blocks counted from 0 (bigalloc) the superblock of group 0 is in block 1, not 0.
        const shifted = s.blockSize === 1024 && g === 0 && s.firstDataBlock === 0 ? 1 : 0;
        yield firstBlock(g) + (groupHasSuperblock(s, g) ? 1 : 0) + shifted;
      }
      return;
    }
    yield (s.blockSize === 1024 ? 1 : 0) + 1 + table;
    let copies = 0;
    for (let g = 1; g < Math.min(s.groupCount, 100_000) && copies < maxCopies; g++) {
      if (!groupHasSuperblock(s, g)) continue;
      copies++;
      yield firstBlock(g) + 1 + table;
    }
  }

  *#read(group: number, block: number): Io<number> {
    const s = this.#s;
    const size = s.descriptorSize;
    const position = block * s.blockSize + (group % this.#perBlock) * size;
    const bytes = yield* this.#cache.read(position, size);
    const f = new Fields(bytes, `ext group descriptor ${group}`, this.#cache.source.name, position);
    this.#verify(f, group);
    const high = size >= 64 ? f.u32(gd.inodeTableHi) : 0;
    const table = high * 0x1_0000_0000 + f.u32(gd.inodeTableLo);
    const length = Math.ceil((s.inodesPerGroup * s.inodeSize) / s.blockSize);
    f.require(
      table > s.firstDataBlock && table + length <= s.blocksCount,
      'bg_inode_table',
      gd.inodeTableLo,
      `${length} blocks within ${s.blocksCount}`,
      `block ${table}`,
    );
    return table;
  }

  #verify(f: Fields, group: number): void {
    const s = this.#s;
    let computed: number;
    if (s.metadataChecksums) {
      computed = crcWithHole(crcU32(s.checksumSeed, group), f.bytes, gd.checksum, 2) & 0xffff;
    } else if ((s.roCompat & roCompat.gdtCsum) !== 0) {
      const number = Uint8Array.of(group, group >>> 8, group >>> 16, group >>> 24);
      computed = crc16(crc16(this.#crc16Seed, number), f.bytes, 0, gd.checksum);
      if (f.length > groupDescriptorSize32) computed = crc16(computed, f.bytes, groupDescriptorSize32);
    } else {
      return;
    }
    const stored = f.u16(gd.checksum);
    f.require(
      stored === computed,
      'bg_checksum',
      gd.checksum,
      `0x${computed.toString(16)}`,
      `0x${stored.toString(16)}`,
    );
  }
}

/** Where the entries of a directory are: the fixed root area of FAT12 and FAT16, or a chain of clusters like a file's. */
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import type { FatLayout } from './boot-sector.ts';
import { ClusterChain } from './cluster-chain.ts';
import { type FatEntry, isDotEntry, maxDirectorySize, rootId } from './directory.ts';
import type { FatTable } from './table.ts';

/** Most bytes of a stretch, or one cluster where that is larger. */
const stretchSize = 64 * 1024;

export interface DirectoryStretch {
  /** Whole entries; none where the stretch can't be read. */
  readonly bytes: Uint8Array;
  /** Byte of the volume where they stand, or where what is damaged stands. */
  readonly position: number;
  /** What is wrong with this stretch, or with what should have followed it. */
  readonly damage?: CorruptError;
}

const nothing = new Uint8Array(0);

/**
 * A directory's bytes, stretch by stretch. Damage is part of what is yielded, so that what can be read before and after it
 * is: a chain that breaks, a directory larger than FAT allows, a cluster beyond the end of a truncated volume, a first cluster
 * that does not begin with `.` although every directory but the root does (it was overwritten).
 */
export async function* directoryStretches(
  volume: ByteSource,
  layout: FatLayout,
  table: FatTable,
  directory: FatEntry,
): AsyncGenerator<DirectoryStretch> {
  const { firstCluster } = directory.record;
  if (firstCluster === 0) {
    for (let at = 0; at < layout.rootSize; at += stretchSize) {
      yield readStretch(volume, layout.rootStart + at, Math.min(stretchSize, layout.rootSize - at));
    }
    return;
  }
  const chain = new ClusterChain(volume, layout, table, firstCluster);
  const { clusterSize } = layout;
  // All three are powers of two, so a full directory ends with a full stretch.
  const step = Math.max(1, stretchSize / clusterSize);
  const most = maxDirectorySize / clusterSize;
  for (let index = 0; ; index += step) {
    const damage = await extend(chain, Math.min(index + step, most + 1));
    if (index >= most) {
      if (chain.length > most) yield { bytes: nothing, position: directory.id, damage: tooLong(volume, directory) };
      else if (damage !== undefined) yield broken(damage, directory);
      return;
    }
    const found = Math.min(chain.length - index, step);
    for (const stretch of chain.stretches(index * clusterSize, found * clusterSize)) {
      const read = await readStretch(volume, stretch.position, stretch.length);
      const dot = stretch.offset === 0 && directory.id !== rootId ? missingDot(volume, read) : undefined;
      yield dot === undefined ? read : { ...read, damage: dot };
    }
    if (damage !== undefined) {
      yield broken(damage, directory);
      return;
    }
    if (found < step) return;
  }
}

/** Follows the chain; its damage is returned, for what was found before that still counts. */
async function extend(chain: ClusterChain, count: number): Promise<CorruptError | undefined> {
  try {
    await chain.reach(count);
    return undefined;
  } catch (error) {
    if (error instanceof CorruptError) return error;
    throw error;
  }
}

async function readStretch(volume: ByteSource, position: number, length: number): Promise<DirectoryStretch> {
  try {
    return { bytes: await volume.read(position, length), position };
  } catch (error) {
    if (error instanceof CorruptError) return { bytes: nothing, position, damage: error };
    throw error;
  }
}

function broken(damage: CorruptError, directory: FatEntry): DirectoryStretch {
  const { position } = damage.details;
  return { bytes: nothing, position: typeof position === 'number' ? position : directory.id, damage };
}

function tooLong(volume: ByteSource, directory: FatEntry): CorruptError {
  return new CorruptError('FAT directory', {
    source: volume.name,
    position: directory.id,
    expected: `at most ${maxDirectorySize} bytes`,
    found: 'a longer chain of clusters',
  });
}

function missingDot(volume: ByteSource, read: DirectoryStretch): CorruptError | undefined {
  if (read.damage !== undefined || isDotEntry(read.bytes)) return undefined;
  return new CorruptError('FAT directory', {
    source: volume.name,
    position: read.position,
    expected: 'the entry "."',
    found: Buffer.from(read.bytes.subarray(0, 11)).toString('hex'),
  });
}

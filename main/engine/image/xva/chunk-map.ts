/**
 * Which chunk of a XenServer export holds which block of its disk. Chunks are numbered upwards from 0; a number that is missing is
 * a block of zeros, and a chunk of no bytes is none at all: the exporter sends one now and then so that the connection stays open,
 * and counts on without having moved in the disk. So the block of a chunk is its number less the empty ones before it.
 *
 * The first chunk is always there and says how large all are (1 MiB). The last is always there too: where it is missing the export
 * was cut off, and what lies behind the last one found is unknown, not zero.
 *
 * Source: "The XenServer VM import/format" (XAPI documentation) and XAPI's stream_vdi.ml (https://github.com/xapi-project/xen-api).
 */
import { CorruptError } from '../../errors.ts';
import type { Archive, Chunks } from '../../storage/archive/archive.ts';

const MAX_CHUNK_BYTES = 64 << 20;

export interface ChunkMap {
  readonly chunkBytes: number;
  readonly chunks: Chunks;
  /** Chunks that are not empty. */
  readonly count: number;
  /** Index in `chunks` of each chunk that is not empty. */
  readonly indexes: Uint32Array;
  /** The block that it holds; ascending. */
  readonly blocks: Uint32Array;
  /** The disk up to here is known: its size, or the end of the last chunk where that is not the disk's. */
  readonly knownTo: number;
}

/** The full name of a chunk. */
export function chunkLabel(chunks: Chunks, index: number): string {
  return `${chunks.name}/${String(chunks.number(index)).padStart(chunks.digits, '0')}`;
}

/** @param size of the disk. @throws CorruptError when the chunks can't be those of a disk of this size. */
export function mapChunks(archive: Archive, chunks: Chunks, size: number): ChunkMap {
  const corrupt = (index: number, what: string, expected: string | number, found: string | number): CorruptError =>
    new CorruptError(`XVA chunk ${chunkLabel(chunks, index)}${what}`, {
      source: archive.name,
      position: chunks.position(index),
      expected,
      found,
    });
  outOfOrder(archive, chunks);
  if (chunks.number(0) !== 0) throw corrupt(0, ' number', 'the first, 0', chunks.number(0));
  const first = chunks.size(0);
  const chunkBytes = Math.min(first, size);
  if (size > 0 && (first === 0 || first > MAX_CHUNK_BYTES || (first % 512 !== 0 && first < size) || first > size)) {
    throw corrupt(0, ' size', `512 bytes to ${MAX_CHUNK_BYTES}, at most those of the disk (${size})`, first);
  }
  const lastBlock = size === 0 ? -1 : Math.ceil(size / chunkBytes) - 1;
  if (lastBlock > 0xffff_fffe) throw corrupt(0, ' size', `chunks of which ${size} bytes have less than 2^32`, first);
  const indexes = new Uint32Array(chunks.count);
  const blocks = new Uint32Array(chunks.count);
  let count = 0;
  let empty = 0;
  for (let index = 0; index < chunks.count; index++) {
    const length = chunks.size(index);
    if (length === 0) {
      empty++;
      continue;
    }
    const block = chunks.number(index) - empty;
    if (block > lastBlock)
      throw corrupt(index, ' number', `at most ${lastBlock + empty}, the disk's last`, chunks.number(index));
    const expected = Math.min(chunkBytes, size - block * chunkBytes);
    if (length !== expected) throw corrupt(index, ' size', expected, length);
    indexes[count] = index;
    blocks[count] = block;
    count++;
  }
  const knownBlocks = count === 0 ? 0 : blocks[count - 1]! + 1;
  return { chunkBytes, chunks, count, indexes, blocks, knownTo: Math.min(size, knownBlocks * chunkBytes) };
}

/** Chunks that came after a higher number, or twice, are members like any other: their place in the disk can't be told. */
function outOfOrder(archive: Archive, chunks: Chunks): void {
  const prefix = `${chunks.name}/`;
  for (const { name, position } of archive.members()) {
    if (!name.startsWith(prefix) || !/^\d+$/.test(name.slice(prefix.length))) continue;
    throw new CorruptError(`XVA chunk ${name}`, {
      source: archive.name,
      position,
      expected: `${chunks.digits} digits, and a higher number than the chunk before it`,
      found: 'one out of order',
    });
  }
}

/** The place in `blocks` of the first chunk at or after `block`; `count` when there is none. */
export function findBlock(map: ChunkMap, block: number): number {
  let low = 0;
  let high = map.count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (map.blocks[middle]! < block) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Verifies the checksum that a XenServer export keeps beside every chunk. */
import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { throwIfCancelled } from '../../errors.ts';
import type { Archive } from '../../storage/archive/archive.ts';
import type { Finding } from '../image.ts';
import { type ChunkMap, chunkLabel } from './chunk-map.ts';
import { xxh64 } from './xxh64.ts';

/** Chunks that are read at once. */
const AHEAD = 4;
/** Findings of one kind that are told one by one. */
const MAX_FINDINGS = 100;

const ALGORITHMS = {
  checksum: { title: 'SHA-1', digits: 40, of: (bytes: Uint8Array) => createHash('sha1').update(bytes).digest('hex') },
  xxhash: { title: 'XXH64', digits: 16, of: xxh64 },
} as const;

interface Loaded {
  readonly index: number;
  readonly bytes: Uint8Array;
  readonly recorded: string | undefined;
}

/** @param source what findings call the disk. @throws CancelledError, IoError. */
export async function* checkChunks(
  source: string,
  archive: Archive,
  map: ChunkMap,
  signal: AbortSignal | undefined,
): AsyncGenerator<Finding> {
  const { chunks, indexes, count } = map;
  let wrong = 0;
  let without = 0;
  let cut = 0;
  const pending: Promise<Loaded>[] = [];
  let next = 0;
  const start = (): void => {
    while (next < count && pending.length < AHEAD) {
      const index = indexes[next++]!;
      if (chunks.position(index) + chunks.size(index) > archive.stream.size) {
        cut++;
        continue;
      }
      const loading = load(archive, map, index);
      // It is waited for in its turn, and by nobody when another one fails before.
      loading.catch(() => {});
      pending.push(loading);
    }
  };
  try {
    for (start(); pending.length > 0; start()) {
      throwIfCancelled(signal, 'The check');
      const { index, bytes, recorded } = await pending.shift()!;
      const kind = chunks.checksum(index)?.kind;
      if (kind === undefined || recorded === undefined) {
        without++;
        continue;
      }
      const algorithm = ALGORITHMS[kind];
      const computed = algorithm.of(bytes);
      if (recorded.toLowerCase() !== computed && ++wrong <= MAX_FINDINGS) {
        yield mismatch(source, map, index, algorithm.title, recorded, computed);
      }
      // Hashing is work on this thread; whoever cancels needs a turn too.
      await setImmediate();
    }
  } finally {
    await Promise.allSettled(pending);
  }
  if (cut > 0) {
    yield {
      severity: 'damaged',
      code: 'xva-chunk-cut-off',
      message: `${archive.name} was cut off inside ${cut === 1 ? 'a chunk' : `${cut} chunks`} of ${source}`,
      source,
      structure: 'XVA chunk',
      remedy: 'Export the VM again, or take another copy of the export; what lies before can be read.',
    };
  }
  if (wrong > MAX_FINDINGS) {
    yield {
      severity: 'damaged',
      code: 'xva-checksum-mismatch',
      message: `${wrong} chunks of ${source} in all do not have the content they were exported with`,
      source,
      found: wrong,
    };
  }
  if (without > 0) {
    yield {
      severity: without < count ? 'suspicious' : 'note',
      code: 'xva-no-checksum',
      message:
        without < count
          ? `${without} of ${count} chunks of ${source} have no checksum, and the others do`
          : `The chunks of ${source} have no checksums; that they are as they were exported can't be proved`,
      source,
      structure: 'XVA chunk',
      expected: `${count} checksums`,
      found: count - without,
    };
  }
}

async function load(archive: Archive, { chunks }: ChunkMap, index: number): Promise<Loaded> {
  const { stream } = archive;
  const checksum = chunks.checksum(index);
  const readable = checksum !== undefined && checksum.size <= 128 && checksum.position + checksum.size <= stream.size;
  const [bytes, text] = await Promise.all([
    stream.read(chunks.position(index), chunks.size(index)),
    readable ? stream.read(checksum.position, checksum.size) : undefined,
  ]);
  return { index, bytes, recorded: text === undefined ? undefined : Buffer.from(text).toString('latin1').trim() };
}

function mismatch(
  source: string,
  { chunks, chunkBytes, indexes, blocks }: ChunkMap,
  index: number,
  algorithm: string,
  recorded: string,
  computed: string,
): Finding {
  const from = blocks[indexes.indexOf(index)]! * chunkBytes;
  return {
    severity: 'damaged',
    code: 'xva-checksum-mismatch',
    message: `Chunk ${chunkLabel(chunks, index)} of ${source} has another content than it was exported with: bytes ${from} to ${from + chunks.size(index)} of the disk are not to be trusted`,
    source,
    structure: `XVA chunk ${chunkLabel(chunks, index)} (${algorithm})`,
    position: chunks.position(index),
    expected: recorded.slice(0, 64),
    found: computed,
    remedy: 'Export the VM again, or take another copy of the export; the other chunks can be read.',
  };
}

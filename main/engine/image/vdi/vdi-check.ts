/**
 * Checks the block map of a VDI: every entry leads into the file, no block serves twice, the header's count agrees. Its memory is
 * one batch of entries and one bitmap of at most 32 MiB, whatever the disk's size (a longer file is gone over in several passes).
 */
import { throwIfCancelled } from '../../errors.ts';
import { runAsync } from '../../storage/io.ts';
import { BITMAP_BITS, Bitmap } from '../bitmap.ts';
import { FindingLimit, findingOf } from '../findings.ts';
import type { Finding } from '../image.ts';
import { type BlockMap, ENTRIES_AT_ONCE } from './block-map.ts';
import { BLOCK_ZERO, type VdiHeader } from './layout.ts';

/** @throws CancelledError; IoError where the map can't be read. */
export async function* checkBlockMap(
  map: BlockMap,
  header: VdiHeader,
  signal: AbortSignal | undefined,
): AsyncGenerator<Finding> {
  const { file } = map.geometry;
  const limit = new FindingLimit(file.name);
  let allocated = 0;
  let highest = -1;
  for (let from = 0, passes = 1; from < passes * BITMAP_BITS; from += BITMAP_BITS) {
    let used: Bitmap | undefined;
    for (let first = 0; first < map.entries; first += ENTRIES_AT_ONCE) {
      throwIfCancelled(signal, 'The check');
      const batch = Math.min(ENTRIES_AT_ONCE, map.entries - first);
      const entries = await runAsync(map.read(first, batch), signal);
      for (let i = 0; i < batch; i++) {
        const number = entries.u32(i * 4);
        if (number >= BLOCK_ZERO) continue;
        const fits = map.fits(first + i, number);
        if (from === 0) {
          allocated++;
          if (!fits && limit.counts('block-out-of-file', 'damaged')) {
            yield findingOf(map.badEntry(entries, i, first + i), 'block-out-of-file');
          }
        }
        if (!fits) continue;
        highest = Math.max(highest, number);
        if (number < from || number >= from + BITMAP_BITS) continue;
        // No more blocks than the file has room for: numbers that don't fit were passed over.
        used ??= new Bitmap(from, Math.min(BITMAP_BITS, roomOf(map) - from));
        if (!used.mark(number, 1) && limit.counts('block-overlap', 'damaged')) {
          yield {
            severity: 'damaged',
            code: 'block-overlap',
            message: `Block ${number} of ${file.name} is used for two parts of the disk; one of them shows the other's data`,
            source: file.name,
            structure: 'VDI block map entry',
            position: entries.position + i * 4,
            expected: 'a block that nothing else uses',
            found: number,
          };
        }
      }
    }
    passes = Math.ceil((highest + 1) / BITMAP_BITS);
  }
  yield* limit.counted();
  if (allocated !== header.allocated) {
    yield {
      severity: 'suspicious',
      code: 'allocated-count',
      message: `${file.name} says it holds ${header.allocated} blocks, and its map has ${allocated}`,
      source: file.name,
      structure: 'VDI header cBlocksAllocated',
      position: header.at.allocated,
      expected: allocated,
      found: header.allocated,
      remedy: 'It reads as its map says; what wrote it last may not have finished.',
    };
  }
}

/** Blocks that the file has room for. */
function roomOf(map: BlockMap): number {
  const { file, offData, blockSize, blockExtra } = map.geometry;
  return Math.max(0, Math.ceil((file.size - offData) / (blockSize + blockExtra)));
}

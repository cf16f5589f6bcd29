/**
 * Checks an expandable image: every BAT entry leads into the file and to a cluster that nothing else uses. Its memory is one batch
 * of entries and one bitmap of at most 32 MiB, whatever the disk's size (a longer file is gone over in several passes).
 */
import { createHash } from 'node:crypto';
import { Fields } from '../../binary.ts';
import { throwIfCancelled } from '../../errors.ts';
import { runAsync } from '../../storage/io.ts';
import { BITMAP_BITS, Bitmap } from '../bitmap.ts';
import { FindingLimit, findingOf } from '../findings.ts';
import type { Finding } from '../image.ts';
import { at, EXTENSION_MAGIC, FLAG_EMPTY, IN_USE } from './layout.ts';
import { ENTRIES_AT_ONCE, type ExpandingStorage } from './storage.ts';

/** Format extensions are a cluster long; one of more is not read to be summed. */
const MAX_EXTENSION = 64 << 20;

/** @throws CancelledError; IoError where the file can't be read. */
export async function* checkExpanding(
  storage: ExpandingStorage,
  signal: AbortSignal | undefined,
): AsyncGenerator<Finding> {
  const { file, header } = storage;
  if (header.inUse === IN_USE) {
    yield {
      severity: 'note',
      code: 'unclean-shutdown',
      message: `${file.name} was not closed by what wrote it last, or is open in it still`,
      source: file.name,
      structure: 'Parallels header in_use',
      position: at.inUse,
      found: `0x${header.inUse.toString(16)}`,
      remedy:
        'It reads as it is; compare it with another backup if the virtual machine was running when it was copied.',
    };
  }
  yield* checkExtension(storage);
  const used = yield* checkEntries(storage, signal);
  if ((header.flags & FLAG_EMPTY) !== 0 && used > 0) {
    yield {
      severity: 'suspicious',
      code: 'empty-flag',
      message: `${file.name} says it is empty, and its table has ${used} clusters; they are read`,
      source: file.name,
      structure: 'Parallels header flags',
      position: at.flags,
      expected: 'no clusters',
      found: used,
    };
  }
}

/** Yields what is wrong with the BAT. Returns how many clusters it has. */
async function* checkEntries(
  storage: ExpandingStorage,
  signal: AbortSignal | undefined,
): AsyncGenerator<Finding, number> {
  const { file, header } = storage;
  const limit = new FindingLimit(file.name);
  const clusters = Math.ceil(file.size / header.clusterBytes);
  let used = 0;
  let remainder: number | undefined;
  for (let from = 0; from <= clusters; from += BITMAP_BITS) {
    let places: Bitmap | undefined;
    for (let first = 0; first < storage.entries; first += ENTRIES_AT_ONCE) {
      throwIfCancelled(signal, 'The check');
      const batch = Math.min(ENTRIES_AT_ONCE, storage.entries - first);
      const entries = await runAsync(storage.read(first, batch), signal);
      for (let i = 0; i < batch; i++) {
        const entry = entries.u32(i * 4);
        if (entry === 0) continue;
        const position = entry * header.unit;
        const fits = storage.fits(first + i, position);
        const where = {
          source: file.name,
          structure: 'Parallels BAT entry',
          position: entries.position + i * 4,
          found: entry,
        };
        if (from === 0) {
          used++;
          if (!fits && limit.counts('cluster-out-of-file', 'damaged')) {
            yield findingOf(storage.badEntry(entries, i, first + i), 'cluster-out-of-file');
          } else if (fits && position < header.dataOffset && limit.counts('cluster-in-header', 'suspicious')) {
            yield {
              severity: 'suspicious',
              code: 'cluster-in-header',
              message: `A cluster of ${file.name} lies before the beginning of its data`,
              ...where,
              expected: `at least ${Math.ceil(header.dataOffset / header.unit)}`,
            };
          }
        }
        if (!fits) continue;
        remainder ??= position % header.clusterBytes;
        const unaligned = from === 0 && position % header.clusterBytes !== remainder;
        if (unaligned && limit.counts('cluster-unaligned', 'suspicious')) {
          yield {
            severity: 'suspicious',
            code: 'cluster-unaligned',
            message: `A cluster of ${file.name} lies between the places of the others; it may run into its neighbour`,
            ...where,
            expected: `a multiple of ${header.clusterBytes} bytes from the other clusters`,
          };
        }
        // All at one distance from a multiple of their size: two that share a byte then share their place.
        const place = Math.floor(position / header.clusterBytes);
        if (place < from || place >= from + BITMAP_BITS) continue;
        places ??= new Bitmap(from, Math.min(BITMAP_BITS, clusters + 1 - from));
        if (!places.mark(place, 1) && limit.counts('cluster-overlap', 'damaged')) {
          yield {
            severity: 'damaged',
            code: 'cluster-overlap',
            message: `A cluster of ${file.name} is used for two parts of the disk; one of them shows the other's data`,
            ...where,
            expected: 'a cluster that nothing else uses',
          };
        }
      }
    }
  }
  yield* limit.counted();
  return used;
}

/** The format extension (dirty bitmaps) says nothing of the disk's content; it is checked by its own sum. */
async function* checkExtension({ file, header }: ExpandingStorage): AsyncGenerator<Finding> {
  const { extension, clusterBytes } = header;
  if (extension === 0) return;
  const where = { source: file.name, structure: 'Parallels format extension', position: extension } as const;
  const lost = (message: string, expected: string, found: string): Finding => ({
    severity: 'suspicious',
    code: 'format-extension',
    message,
    ...where,
    expected,
    found,
    remedy: 'The disk does not need it: it holds maps of changed blocks.',
  });
  if (extension + clusterBytes > file.size || clusterBytes > MAX_EXTENSION) {
    yield lost(
      `The format extension of ${file.name} is not in the file`,
      `a cluster inside ${file.size} bytes`,
      `one at ${extension}`,
    );
    return;
  }
  const bytes = await file.read(extension, clusterBytes);
  const magic = new Fields(bytes, where.structure, file.name, extension).big64(0);
  if (magic !== EXTENSION_MAGIC) {
    const expected = EXTENSION_MAGIC.toString(16);
    yield lost(`The format extension of ${file.name} has the wrong mark`, expected, magic.toString(16));
    return;
  }
  const recorded = Buffer.from(bytes.subarray(8, 24)).toString('hex');
  const sum = createHash('md5').update(bytes.subarray(24)).digest('hex');
  if (sum !== recorded) yield lost(`The format extension of ${file.name} has another checksum`, recorded, sum);
}

/**
 * Checks an expandable image: every BAT entry leads into the file and to a cluster that nothing else uses. Its memory is one batch
 * of entries and one bitmap of at most 32 MiB, whatever the disk's size (a longer file is gone over in several passes).
 */
import { createHash } from 'node:crypto';
import { Fields } from '../../binary.ts';
import { throwIfCancelled } from '../../errors.ts';
import { runAsync } from '../../storage/io.ts';
import type { Finding } from '../image.ts';
import { at, EXTENSION_MAGIC, FLAG_EMPTY, IN_USE } from './layout.ts';
import { ENTRIES_AT_ONCE, type ExpandingStorage } from './storage.ts';

/** Findings of one kind that are told singly; more are counted. */
const TOLD = 20;
const BITMAP_BITS = 32 * 1024 * 1024 * 8;
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
  const told = new Map<string, number>();
  const count = (code: string): boolean => {
    const number = (told.get(code) ?? 0) + 1;
    told.set(code, number);
    return number <= TOLD;
  };
  const clusters = Math.ceil(file.size / header.clusterBytes);
  let used = 0;
  let remainder: number | undefined;
  for (let from = 0; from <= clusters; from += BITMAP_BITS) {
    let bitmap: Uint8Array | undefined;
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
          if (!fits && count('cluster-out-of-file')) {
            const { message, details } = storage.badEntry(entries, i, first + i);
            const expected = String(details.expected);
            yield { severity: 'damaged', code: 'cluster-out-of-file', message, ...where, expected };
          } else if (fits && position < header.dataOffset && count('cluster-in-header')) {
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
        if (from === 0 && position % header.clusterBytes !== remainder && count('cluster-unaligned')) {
          yield {
            severity: 'suspicious',
            code: 'cluster-unaligned',
            message: `A cluster of ${file.name} lies between the places of the others; it may run into its neighbour`,
            ...where,
            expected: `a multiple of ${header.clusterBytes} bytes from the other clusters`,
          };
        }
        // All at one distance from a multiple of their size: two that share a byte then share their place.
        const place = Math.floor(position / header.clusterBytes) - from;
        if (place < 0 || place >= BITMAP_BITS) continue;
        bitmap ??= new Uint8Array(Math.ceil(Math.min(BITMAP_BITS, clusters + 1 - from) / 8) + 1);
        const mask = 1 << (place & 7);
        if ((bitmap[place >>> 3]! & mask) !== 0 && count('cluster-overlap')) {
          yield {
            severity: 'damaged',
            code: 'cluster-overlap',
            message: `A cluster of ${file.name} is used for two parts of the disk; one of them shows the other's data`,
            ...where,
            expected: 'a cluster that nothing else uses',
          };
        }
        bitmap[place >>> 3]! |= mask;
      }
    }
  }
  for (const [code, number] of told) {
    if (number <= TOLD) continue;
    const message = `${number - TOLD} more findings of this kind in ${file.name}`;
    yield { severity: 'damaged', code, message, source: file.name, found: number - TOLD };
  }
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

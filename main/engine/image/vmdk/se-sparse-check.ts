/**
 * Checks the tables of an seSparse extent: every entry leads into its area of the file, no table serves two directory entries, no
 * grain serves two table entries, the areas do not overlap. Its memory is one table and one bitmap of at most 32 MiB.
 */
import { CorruptError, throwIfCancelled } from '../../errors.ts';
import { runAsync } from '../../storage/io.ts';
import { BITMAP_BITS, Bitmap } from '../bitmap.ts';
import { FindingLimit, findingOf, unreadable } from '../findings.ts';
import type { Finding } from '../image.ts';
import { SE_ENTRY_BYTES } from './se-sparse-layout.ts';
import type { SeSparseMap } from './se-sparse-map.ts';

const BATCH = 1024;

interface Area {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

export async function* checkSeSparse(
  map: SeSparseMap,
  areas: readonly Area[],
  signal: AbortSignal | undefined,
): AsyncGenerator<Finding> {
  const { file, grains, grainBytes, tables: tablesAt, tableBytes } = map.geometry;
  // The header may promise more than the file can hold.
  const grainRoom = Math.min(map.geometry.grainRoom, Math.ceil(file.size / grainBytes));
  const tableRoom = Math.min(map.geometry.tableRoom, Math.ceil(file.size / tableBytes));
  yield* overlappingAreas(file.name, areas);
  const limit = new FindingLimit(file.name);
  let highest = -1;
  // The first pass checks every entry; further ones only look for grains used twice, where there are too many for one bitmap.
  for (let from = 0, first = true; first || from <= highest; from += BITMAP_BITS, first = false) {
    const usedGrains = new Bitmap(from, Math.min(BITMAP_BITS, Math.max(1, grainRoom - from)));
    const usedTables = new Bitmap(0, Math.min(BITMAP_BITS, tableRoom));
    for await (const step of seTables(map, signal)) {
      if ('finding' in step) {
        if (first) yield* limit.tell(step.finding);
        continue;
      }
      const { index, table } = step;
      // Its entries were gone through before: so the work is bounded by the file's size, whatever the directory says.
      if (!usedTables.mark((table.position - tablesAt) / tableBytes, 1)) {
        const error = table.corrupt('', 0, 'a table that nothing else uses', `one that is used before entry ${index}`);
        if (first) yield* limit.tell(findingOf(error, 'table-overlap'));
        continue;
      }
      for (let at = 0, grain = index * map.entriesPerTable; at < table.length; at += SE_ENTRY_BYTES, grain++) {
        let place: ReturnType<SeSparseMap['grain']>;
        try {
          place = map.grain(table, at, grain);
        } catch (error) {
          if (!(error instanceof CorruptError)) throw error;
          if (first) yield* limit.tell(findingOf(error, 'grain-out-of-file'));
          continue;
        }
        if (typeof place === 'string') continue;
        const number = (place - grains) / grainBytes;
        highest = Math.max(highest, number);
        if (usedGrains.mark(number, 1)) continue;
        const error = table.corrupt('', at, 'a grain that nothing else uses', `grain ${number}`);
        yield* limit.tell(findingOf(error, 'grain-overlap'));
      }
    }
  }
  yield* limit.counted();
}

type SeTableStep =
  | { readonly index: number; readonly table: ReturnType<SeSparseMap['tableFields']> }
  | { readonly finding: Finding };

/** Every grain table in order of the disk, with what is wrong with the directory. @throws CancelledError. */
async function* seTables(map: SeSparseMap, signal: AbortSignal | undefined): AsyncGenerator<SeTableStep> {
  const { file } = map.geometry;
  for (let first = 0; first < map.directoryEntries; first += BATCH) {
    throwIfCancelled(signal, 'The check');
    const count = Math.min(BATCH, map.directoryEntries - first);
    try {
      const directory = await runAsync(map.readDirectory(first, count));
      for (let i = 0; i < count; i++) {
        try {
          const position = map.tablePosition(directory, i, first + i);
          if (position === undefined) continue;
          throwIfCancelled(signal, 'The check');
          const bytes = await file.read(position, map.entriesOf(first + i) * SE_ENTRY_BYTES);
          yield { index: first + i, table: map.tableFields(bytes, position) };
        } catch (error) {
          yield { finding: asFinding(error, file.name, 'table-out-of-file') };
        }
      }
    } catch (error) {
      yield { finding: asFinding(error, file.name, 'unreadable') };
    }
  }
}

/** Damage and failed reads as findings; anything else is thrown on. */
function asFinding(error: unknown, source: string, code: string): Finding {
  return error instanceof CorruptError ? findingOf(error, code) : unreadable(error, source);
}

function* overlappingAreas(source: string, areas: readonly Area[]): Generator<Finding> {
  const inOrder = [...areas].filter(({ start, end }) => end > start).sort((a, b) => a.start - b.start);
  for (const [i, area] of inOrder.entries()) {
    const before = inOrder[i - 1];
    if (before === undefined || before.end <= area.start) continue;
    yield {
      severity: 'damaged',
      code: 'areas-overlap',
      message: `The ${before.name} and the ${area.name} of ${source} overlap`,
      source,
      structure: 'seSparse constant header',
      position: 0,
      expected: `the ${area.name} from byte ${before.end} on`,
      found: `byte ${area.start}`,
    };
  }
}

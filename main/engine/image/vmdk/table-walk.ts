/** Every grain table of a hosted sparse or ESX Server sparse extent with its copy, for the checks: a directory batch at a time. */
import type { Fields } from '../../binary.ts';
import { throwIfCancelled } from '../../errors.ts';
import { BITMAP_BITS, Bitmap } from '../bitmap.ts';
import { type FindingLimit, findingOf, readOr } from '../findings.ts';
import type { Finding } from '../image.ts';
import type { GrainMap } from './grain-map.ts';
import { GTE_EMPTY, SECTOR } from './layout.ts';

const BATCH = 1024;

export interface Table {
  readonly number: number;
  /** The table that is read, or its copy where the table itself is lost. */
  readonly entries: Fields;
  readonly copy: Fields | undefined;
  /** The table itself is lost. */
  readonly lost: boolean;
}

export type TableStep = { readonly table: Table } | { readonly finding: Finding };

/**
 * All tables in order, and what is wrong with the directories. A table that several directory entries lead to comes once: so the work
 * is bounded by the file's size, whatever the directory says. Findings only with a `limit`, which has let them through. @throws CancelledError.
 */
export async function* walkTables(
  map: GrainMap,
  signal: AbortSignal | undefined,
  limit?: FindingLimit,
): AsyncGenerator<TableStep> {
  const { file, directory, redundantDirectory } = map.geometry;
  const seen = new Bitmap(0, Math.min(BITMAP_BITS, Math.ceil(file.size / SECTOR)));
  for (let first = 0; first < map.tables; first += BATCH) {
    throwIfCancelled(signal, 'The check');
    const count = Math.min(BATCH, map.tables - first);
    const primary = await readOr(file, directory + first * 4, count * 4);
    if (!(primary instanceof Uint8Array)) {
      if (limit?.counts(primary.code, primary.severity)) yield { finding: primary };
      continue;
    }
    const copyAt = redundantDirectory === undefined ? undefined : redundantDirectory + first * 4;
    const copy = copyAt === undefined ? undefined : await readOr(file, copyAt, count * 4);
    if (copy !== undefined && !(copy instanceof Uint8Array) && limit?.counts(copy.code, copy.severity)) {
      yield { finding: copy };
    }
    const primaryFields = map.directoryFields(primary, directory + first * 4);
    const copyFields = copy instanceof Uint8Array ? map.directoryFields(copy, copyAt!) : undefined;
    for (let i = 0; i < count; i++) {
      yield* oneTable(map, first + i, i, primaryFields, copyFields, seen, limit);
    }
  }
}

async function* oneTable(
  map: GrainMap,
  number: number,
  index: number,
  primary: Fields,
  copy: Fields | undefined,
  seen: Bitmap,
  limit: FindingLimit | undefined,
): AsyncGenerator<TableStep> {
  const { file } = map.geometry;
  const position = primary.u32(index * 4) * SECTOR;
  const other = (copy?.u32(index * 4) ?? GTE_EMPTY) * SECTOR;
  const fits = position !== GTE_EMPTY && map.tableFits(number, position);
  const otherFits = other !== GTE_EMPTY && map.tableFits(number, other);
  if (position !== GTE_EMPTY && !fits && limit?.counts('table-out-of-file', 'damaged')) {
    const remedy = otherFits ? 'The redundant grain table is used in its place.' : undefined;
    yield { finding: findingOf(map.badTable(primary, index, number), 'table-out-of-file', 'damaged', remedy) };
  }
  if (copy !== undefined) {
    if (other !== GTE_EMPTY && !otherFits && limit?.counts('redundant-table-out-of-file', 'damaged')) {
      yield { finding: findingOf(map.badTable(copy, index, number), 'redundant-table-out-of-file') };
    }
    const differ = (position === GTE_EMPTY) !== (other === GTE_EMPTY);
    if (differ && limit?.counts('redundant-directory-differs', 'damaged')) {
      const expected = `as in its copy, sector ${other / SECTOR}`;
      const error = primary.corrupt('', index * 4, expected, `sector ${position / SECTOR}`);
      yield { finding: findingOf(error, 'redundant-directory-differs') };
    }
  }
  const place = fits ? position : other;
  if ((fits || otherFits) && !seen.mark(place / SECTOR, 1)) {
    if (!limit?.counts('table-overlap', 'damaged')) return;
    const expected = 'a table that no other entry leads to';
    const error = primary.corrupt('', index * 4, expected, `sector ${place / SECTOR}`);
    yield { finding: findingOf(error, 'table-overlap') };
    return;
  }
  const length = map.entriesOf(number) * 4;
  const bytes = fits ? await readOr(file, position, length) : undefined;
  const copyBytes = otherFits && other !== position ? await readOr(file, other, length) : undefined;
  for (const read of [bytes, copyBytes]) {
    if (read === undefined || read instanceof Uint8Array) continue;
    if (limit?.counts(read.code, read.severity)) yield { finding: read };
  }
  const entries = bytes instanceof Uint8Array ? map.tableFields(bytes, position) : undefined;
  const copyEntries = copyBytes instanceof Uint8Array ? map.tableFields(copyBytes, other) : undefined;
  const used = entries ?? copyEntries;
  if (used === undefined) return;
  const lost = entries === undefined;
  yield { table: { number, entries: used, copy: lost ? undefined : copyEntries, lost } };
}

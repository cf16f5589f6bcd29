/**
 * Checks the tables of a sparse extent: every entry leads into the file, both copies agree, no two grains share a sector, none
 * lies in the tables. Reads each table a few times; its memory is one batch of tables and one bitmap of at most 32 MiB, whatever
 * the extent's size (a larger file is gone over in several passes).
 */
import type { Fields } from '../../binary.ts';
import { CorruptError, IoError, throwIfCancelled } from '../../errors.ts';
import type { Finding } from '../image.ts';
import type { GrainMap } from './grain-map.ts';
import { GTE_EMPTY, GTE_ZEROED, SECTOR } from './layout.ts';

export interface GrainCheckOptions {
  /** Byte behind the header, the descriptor and the tables that are laid out at the front. */
  readonly metadataEnd: number;
  /** COWD: the first sector that is not in use yet. */
  readonly freeSector?: number;
  readonly signal: AbortSignal | undefined;
}

/** Findings of one kind and one extent that are told singly; more are counted. */
const TOLD = 20;
const BITMAP_BITS = 32 * 1024 * 1024 * 8;
const BATCH = 1024;

export async function* checkGrains(map: GrainMap, options: GrainCheckOptions): AsyncGenerator<Finding> {
  const limit = new FindingLimit(map.geometry.file.name);
  const survey = new Survey();
  yield* surveyTables(map, options, limit, survey);
  yield* checkFreeSector(map, options, limit, survey);
  yield* findOverlaps(map, options, limit, survey);
  yield* limit.counted();
}

/** Lets the first findings of every kind through and counts the rest, so that a ruined table does not end in a million lines. */
class FindingLimit {
  readonly #counts = new Map<string, number>();
  readonly #source: string;

  constructor(source: string) {
    this.#source = source;
  }

  *tell(finding: Finding): Generator<Finding> {
    const count = (this.#counts.get(finding.code) ?? 0) + 1;
    this.#counts.set(finding.code, count);
    if (count <= TOLD) yield finding;
  }

  *counted(): Generator<Finding> {
    for (const [code, count] of this.#counts) {
      if (count <= TOLD) continue;
      const message = `${count - TOLD} more findings of this kind in ${this.#source}`;
      yield { severity: 'damaged', code, message, source: this.#source, found: count - TOLD };
    }
  }
}

/** What the first pass learns for the others. */
class Survey {
  /** One past the highest sector that a grain of the file uses. */
  end = 0;
  grains = 0;
  /** All grains begin at the same remainder of the grain size, so two overlap only when they are in the same place. */
  uniform = true;
  remainder = -1;
  /** Some grain table lies behind the tables at the front, between grains. */
  scattered = false;
}

function damage(error: CorruptError, code: string, remedy?: string): Finding {
  const { source, structure, position, expected, found } = error.details;
  return {
    severity: 'damaged',
    code,
    message: error.message,
    source: String(source),
    structure: String(structure),
    position: Number(position),
    expected: expected as string | number,
    found: found as string | number,
    ...(remedy === undefined ? {} : { remedy }),
  };
}

/** Bytes of the file, or the finding that says why they can't be had. */
async function readOr(map: GrainMap, position: number, length: number): Promise<Uint8Array | Finding> {
  const { file } = map.geometry;
  try {
    return await file.read(position, length);
  } catch (error) {
    if (!(error instanceof IoError || error instanceof CorruptError)) throw error;
    return { severity: 'damaged', code: 'unreadable', message: error.message, source: file.name, position };
  }
}

interface Table {
  readonly number: number;
  /** Byte position of the table, of which `entries` is the content. */
  readonly entries: Fields;
  readonly copy: Fields | undefined;
}

type TableStep = { readonly table: Table } | { readonly finding: Finding };

/** Every grain table of the map with its copy, and what is wrong with the directories. Findings only when `tell` is set. */
async function* tables(map: GrainMap, signal: AbortSignal | undefined, tell: boolean): AsyncGenerator<TableStep> {
  const { directory, redundantDirectory } = map.geometry;
  for (let first = 0; first < map.tables; first += BATCH) {
    throwIfCancelled(signal, 'The check');
    const count = Math.min(BATCH, map.tables - first);
    const primary = await readOr(map, directory + first * 4, count * 4);
    if (!(primary instanceof Uint8Array)) {
      if (tell) yield { finding: primary };
      continue;
    }
    const copy =
      redundantDirectory === undefined ? undefined : await readOr(map, redundantDirectory + first * 4, count * 4);
    if (copy !== undefined && !(copy instanceof Uint8Array) && tell) yield { finding: copy };
    const primaryFields = map.directoryFields(primary, directory + first * 4);
    const copyFields =
      copy instanceof Uint8Array ? map.directoryFields(copy, (redundantDirectory ?? 0) + first * 4) : undefined;
    for (let i = 0; i < count; i++) yield* oneTable(map, first + i, i, primaryFields, copyFields, tell);
  }
}

async function* oneTable(
  map: GrainMap,
  number: number,
  index: number,
  primary: Fields,
  copy: Fields | undefined,
  tell: boolean,
): AsyncGenerator<TableStep> {
  const position = primary.u32(index * 4) * SECTOR;
  const other = (copy?.u32(index * 4) ?? GTE_EMPTY) * SECTOR;
  const fits = position !== GTE_EMPTY && map.tableFits(number, position);
  const otherFits = other !== GTE_EMPTY && map.tableFits(number, other);
  if (tell) {
    if (position !== GTE_EMPTY && !fits) {
      const remedy = otherFits ? 'The redundant grain table is used in its place.' : undefined;
      yield { finding: damage(map.badTable(primary, index, number), 'table-out-of-file', remedy) };
    }
    if (copy !== undefined && other !== GTE_EMPTY && !otherFits) {
      yield { finding: damage(map.badTable(copy, index, number), 'redundant-table-out-of-file') };
    }
    if (copy !== undefined && (position === GTE_EMPTY) !== (other === GTE_EMPTY)) {
      const error = primary.corrupt(
        '',
        index * 4,
        `as in its copy, sector ${other / SECTOR}`,
        `sector ${position / SECTOR}`,
      );
      yield { finding: damage(error, 'redundant-directory-differs') };
    }
  }
  const bytes = fits ? await readOr(map, position, map.entriesOf(number) * 4) : undefined;
  const copyBytes = otherFits ? await readOr(map, other, map.entriesOf(number) * 4) : undefined;
  for (const read of [bytes, copyBytes]) {
    if (read !== undefined && !(read instanceof Uint8Array) && tell) yield { finding: read };
  }
  const entries = bytes instanceof Uint8Array ? map.tableFields(bytes, position) : undefined;
  const copyEntries = copyBytes instanceof Uint8Array ? map.tableFields(copyBytes, other) : undefined;
  const used = entries ?? copyEntries;
  if (used !== undefined) {
    yield { table: { number, entries: used, copy: entries === undefined ? undefined : copyEntries } };
  }
}

/** The grain's sector when the entry leads to data that can be there, else undefined. */
function grainSector(map: GrainMap, grain: number, entry: number): number | undefined {
  if (entry === GTE_EMPTY || (map.geometry.zeroedGrains && entry === GTE_ZEROED)) return undefined;
  return map.grainFits(grain, entry * SECTOR) ? entry : undefined;
}

/** First pass: every entry by itself, and against its copy. */
async function* surveyTables(
  map: GrainMap,
  options: GrainCheckOptions,
  limit: FindingLimit,
  survey: Survey,
): AsyncGenerator<Finding> {
  const { grainBytes, entriesPerTable, zeroedGrains } = map.geometry;
  const grainSectors = grainBytes / SECTOR;
  for await (const step of tables(map, options.signal, true)) {
    if ('finding' in step) {
      yield* limit.tell(step.finding);
      continue;
    }
    const { number, entries, copy } = step.table;
    if (entries.position >= options.metadataEnd) survey.scattered = true;
    let differs = -1;
    for (let i = 0; i < entries.length / 4; i++) {
      const entry = entries.u32(i * 4);
      if (copy !== undefined && differs < 0 && copy.u32(i * 4) !== entry) differs = i;
      if (entry === GTE_EMPTY || (zeroedGrains && entry === GTE_ZEROED)) continue;
      const grain = number * entriesPerTable + i;
      if (!map.grainFits(grain, entry * SECTOR)) {
        const other = copy?.u32(i * 4) ?? GTE_EMPTY;
        const remedy =
          grainSector(map, grain, other) === undefined ? undefined : 'The redundant grain table is used in its place.';
        yield* limit.tell(damage(map.badGrain(entries, i, grain), 'grain-out-of-file', remedy));
        continue;
      }
      if (entry * SECTOR < options.metadataEnd) {
        const expected = `a sector behind the tables, from ${Math.ceil(options.metadataEnd / SECTOR)}`;
        yield* limit.tell(damage(entries.corrupt('', i * 4, expected, `sector ${entry}`), 'grain-in-tables'));
      }
      survey.grains++;
      survey.end = Math.max(survey.end, entry + Math.ceil(map.grainLength(grain) / SECTOR));
      if (survey.remainder < 0) survey.remainder = entry % grainSectors;
      else if (survey.remainder !== entry % grainSectors) survey.uniform = false;
    }
    if (differs >= 0 && copy !== undefined) {
      const error = entries.corrupt(
        '',
        differs * 4,
        `as in its copy at byte ${copy.position + differs * 4}, ${copy.u32(differs * 4)}`,
        entries.u32(differs * 4),
      );
      yield* limit.tell(damage(error, 'redundant-table-differs', 'The primary table is read.'));
    }
  }
}

async function* checkFreeSector(
  map: GrainMap,
  options: GrainCheckOptions,
  limit: FindingLimit,
  survey: Survey,
): AsyncGenerator<Finding> {
  const { freeSector } = options;
  if (freeSector === undefined || survey.end <= freeSector) return;
  yield* limit.tell({
    severity: 'suspicious',
    code: 'grain-behind-free-sector',
    message: `${map.geometry.file.name} has grains behind the sector its header calls free`,
    source: map.geometry.file.name,
    structure: 'COWD header freeSector',
    expected: `at least ${survey.end}`,
    found: freeSector,
    remedy: 'It reads as it is; its writer did not finish updating the header.',
  });
}

/** Further passes: no sector belongs to two grains, or to a grain and a table. */
async function* findOverlaps(
  map: GrainMap,
  options: GrainCheckOptions,
  limit: FindingLimit,
  survey: Survey,
): AsyncGenerator<Finding> {
  if (survey.grains === 0) return;
  const grainSectors = map.geometry.grainBytes / SECTOR;
  // Grains that all begin at the same remainder overlap only as wholes: a bit for each will do. Otherwise a bit for each sector.
  const unit = survey.uniform && !survey.scattered ? grainSectors : 1;
  const units = Math.ceil(survey.end / unit);
  for (let from = 0; from < units; from += BITMAP_BITS) {
    const used = new Bitmap(from, Math.min(BITMAP_BITS, units - from));
    if (survey.scattered) await markTables(map, options.signal, used);
    for await (const step of tables(map, options.signal, false)) {
      if (!('table' in step)) continue;
      const { number, entries } = step.table;
      for (let i = 0; i < entries.length / 4; i++) {
        const grain = number * map.geometry.entriesPerTable + i;
        const sector = grainSector(map, grain, entries.u32(i * 4));
        if (sector === undefined) continue;
        const first = Math.floor(sector / unit);
        const length = unit === 1 ? Math.ceil(map.grainLength(grain) / SECTOR) : 1;
        if (used.mark(first, length)) continue;
        const error = entries.corrupt('', i * 4, 'sectors that nothing else uses', `sector ${sector}`);
        yield* limit.tell(damage(error, 'grain-overlap'));
      }
    }
  }
}

async function markTables(map: GrainMap, signal: AbortSignal | undefined, used: Bitmap): Promise<void> {
  for await (const step of tables(map, signal, false)) {
    if (!('table' in step)) continue;
    const { entries } = step.table;
    used.mark(entries.position / SECTOR, Math.ceil(entries.length / SECTOR));
  }
}

/** Bits `start` to `start + bits` of a longer row; marks outside are not its business. */
class Bitmap {
  readonly #start: number;
  readonly #bits: number;
  readonly #bytes: Uint8Array;

  constructor(start: number, bits: number) {
    this.#start = start;
    this.#bits = bits;
    this.#bytes = new Uint8Array(Math.ceil(bits / 8));
  }

  /** Marks `count` bits from `first`. False when one of them was marked already. */
  mark(first: number, count: number): boolean {
    const from = Math.max(first - this.#start, 0);
    const to = Math.min(first + count - this.#start, this.#bits);
    let free = true;
    for (let bit = from; bit < to; bit++) {
      const at = bit >>> 3;
      const mask = 1 << (bit & 7);
      if (this.#bytes[at]! & mask) free = false;
      this.#bytes[at]! |= mask;
    }
    return free;
  }
}

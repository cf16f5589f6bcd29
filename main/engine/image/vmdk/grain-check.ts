/**
 * Checks the tables of a sparse extent: every entry leads into the file, both copies agree, no two grains share a sector, none
 * lies in the tables; compressed grains are unpacked. Reads each table a few times and each compressed grain once; its memory is one
 * batch of tables and one bitmap of at most 32 MiB, whatever the extent's size (a larger file is gone over in several passes).
 */
import { CorruptError, throwIfCancelled } from '../../errors.ts';
import { BITMAP_BITS, Bitmap } from '../bitmap.ts';
import { FindingLimit, findingOf, unreadable } from '../findings.ts';
import type { Finding } from '../image.ts';
import type { GrainMap } from './grain-map.ts';
import { GRAIN_MARKER_BYTES, GTE_EMPTY, SECTOR } from './layout.ts';
import { redundantUsed, trailingData } from './sparse-findings.ts';
import { type Table, walkTables } from './table-walk.ts';

export interface GrainCheckOptions {
  /** Byte behind the header, the descriptor and the tables that are laid out at the front. */
  readonly metadataEnd: number;
  /** COWD: the first sector that is not in use yet. */
  readonly freeSector?: number;
  /** Where the last marker of a stream-optimized extent ends, where it has a footer. */
  readonly streamEnd?: number | undefined;
  /** First byte of the extent on the disk. */
  readonly base?: number;
  readonly signal: AbortSignal | undefined;
}

/** Compressed grains that are unpacked at a time, by libuv's threads, and bytes of them: the largest have 32 MiB. */
const UNPACK_BATCH = 8;
const UNPACK_BYTES = 32 << 20;

export async function* checkGrains(map: GrainMap, options: GrainCheckOptions): AsyncGenerator<Finding> {
  const limit = new FindingLimit(map.geometry.file.name);
  const survey = new Survey(options);
  yield* surveyTables(map, options, limit, survey);
  if (survey.redundant > 0) yield redundantUsed(map.geometry.file.name, survey.redundant);
  yield* checkFreeSector(map, options, limit, survey);
  yield* findOverlaps(map, options, limit, survey);
  yield* checkEnd(map, options, survey);
  yield* limit.counted();
}

/** What the first pass learns for the others. */
class Survey {
  /** One past the highest sector that a grain of the file uses. */
  end = 0;
  /** One past the highest byte that anything uses. */
  lastByte: number;
  grains = 0;
  /** All grains begin at the same remainder of the grain size, so two overlap only when they are in the same place. */
  uniform = true;
  remainder = -1;
  /** Some grain table lies behind the tables at the front, between grains. */
  scattered = false;
  /** Tables of which something is read from the copy. */
  redundant = 0;

  constructor(options: GrainCheckOptions) {
    this.lastByte = Math.max(options.metadataEnd, options.streamEnd ?? 0);
  }
}

/** The entries of a table as they are read. */
function effective(map: GrainMap, { number, entries, copy }: Table) {
  return map.settle(number, entries, copy);
}

/** The grain's sector when the entry leads to data that can be there, else undefined. */
function grainSector(map: GrainMap, grain: number, entry: number): number | undefined {
  return map.isData(entry) && map.grainFits(grain, entry * SECTOR) ? entry : undefined;
}

/** First pass: every entry by itself, and against its copy. */
async function* surveyTables(
  map: GrainMap,
  options: GrainCheckOptions,
  limit: FindingLimit,
  survey: Survey,
): AsyncGenerator<Finding> {
  const { entriesPerTable } = map.geometry;
  for await (const step of walkTables(map, options.signal, limit)) {
    if ('finding' in step) {
      yield step.finding;
      continue;
    }
    const { number, entries, copy, lost } = step.table;
    if (entries.position >= options.metadataEnd) survey.scattered = true;
    const settled = effective(map, step.table);
    if (lost || settled.fromCopy) survey.redundant++;
    let differs = -1;
    for (let i = 0; i < settled.entries.length; i++) {
      const written = entries.u32(i * 4);
      const entry = settled.entries[i]!;
      const grain = number * entriesPerTable + i;
      if (copy !== undefined && differs < 0 && copy.u32(i * 4) !== written) differs = i;
      if (map.isData(written) && !map.grainFits(grain, written * SECTOR)) {
        const used = entry === GTE_EMPTY || grainSector(map, grain, entry) !== undefined;
        const remedy = used ? 'The redundant grain table is used in its place.' : undefined;
        const code = map.grainInDirectory(grain, written * SECTOR) ? 'grain-in-tables' : 'grain-out-of-file';
        // A ruined table has thousands of them.
        if (limit.counts(code, 'damaged')) yield findingOf(map.badGrain(entries, i, grain), code, 'damaged', remedy);
      }
      const sector = grainSector(map, grain, entry);
      if (sector === undefined) continue;
      if (sector * SECTOR < options.metadataEnd && limit.counts('grain-in-tables', 'damaged')) {
        const expected = `a sector behind the tables, from ${Math.ceil(options.metadataEnd / SECTOR)}`;
        yield findingOf(entries.corrupt('', i * 4, expected, `sector ${sector}`), 'grain-in-tables');
      }
      noteGrain(map, survey, grain, sector);
    }
    survey.lastByte = Math.max(survey.lastByte, entries.position + entries.length, copyEnd(step.table));
    if (differs >= 0 && copy !== undefined) {
      const error = entries.corrupt(
        '',
        differs * 4,
        `as in its copy at byte ${copy.position + differs * 4}, ${copy.u32(differs * 4)}`,
        entries.u32(differs * 4),
      );
      const remedy = settled.fromCopy
        ? 'The copy is read where the table can’t be true.'
        : 'The primary table is read.';
      yield* limit.tell(findingOf(error, 'redundant-table-differs', 'damaged', remedy));
    }
  }
}

function copyEnd({ copy }: Table): number {
  return copy === undefined ? 0 : copy.position + copy.length;
}

function noteGrain(map: GrainMap, survey: Survey, grain: number, sector: number): void {
  const grainSectors = map.geometry.grainBytes / SECTOR;
  survey.grains++;
  // How long a compressed grain is shows when it is unpacked.
  survey.end = Math.max(survey.end, sector + Math.ceil(map.storedLength(grain) / SECTOR));
  if (survey.remainder < 0) survey.remainder = sector % grainSectors;
  else if (survey.remainder !== sector % grainSectors) survey.uniform = false;
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

/** A grain whose sectors are to be marked as used. */
interface Placed {
  readonly grain: number;
  readonly sector: number;
  /** Its table entry, for the finding. */
  readonly table: Table;
  readonly index: number;
}

/** Further passes: no sector belongs to two grains, or to a grain and a table; compressed grains can be unpacked. */
async function* findOverlaps(
  map: GrainMap,
  options: GrainCheckOptions,
  limit: FindingLimit,
  survey: Survey,
): AsyncGenerator<Finding> {
  if (survey.grains === 0) return;
  const { codec, grainBytes, file } = map.geometry;
  const grainSectors = grainBytes / SECTOR;
  const batch = Math.max(1, Math.min(UNPACK_BATCH, Math.floor(UNPACK_BYTES / grainBytes)));
  // Grains that all begin at the same remainder overlap only as wholes: a bit for each will do. Otherwise a bit for each sector.
  const unit = codec === undefined && survey.uniform && !survey.scattered ? grainSectors : 1;
  const units = codec === undefined ? Math.ceil(survey.end / unit) : Math.ceil(file.size / SECTOR);
  for (let from = 0; from < units; from += BITMAP_BITS) {
    const used = new Bitmap(from, Math.min(BITMAP_BITS, units - from));
    if (survey.scattered) await markTables(map, options.signal, used);
    const mark = function* (placed: Placed, length: number): Generator<Finding> {
      if (used.mark(Math.floor(placed.sector / unit), length) || !limit.counts('grain-overlap', 'damaged')) return;
      const { entries } = placed.table;
      const error = entries.corrupt('', placed.index * 4, 'sectors that nothing else uses', `sector ${placed.sector}`);
      yield findingOf(error, 'grain-overlap');
    };
    let waiting: Placed[] = [];
    for await (const step of walkTables(map, options.signal)) {
      if (!('table' in step)) continue;
      for (const placed of grainsOf(map, step.table)) {
        if (codec === undefined) {
          yield* mark(placed, unit === 1 ? Math.ceil(map.grainLength(placed.grain) / SECTOR) : 1);
          continue;
        }
        // One that reaches in from the pass before is marked by that pass, up to its end there.
        if (placed.sector < from || placed.sector >= from + BITMAP_BITS) continue;
        // What is another's already is not worth unpacking.
        if (used.has(placed.sector)) yield* mark(placed, 1);
        else waiting.push(placed);
        if (waiting.length < batch) continue;
        yield* unpackAll(map, options, limit, survey, waiting, mark);
        waiting = [];
      }
    }
    yield* unpackAll(map, options, limit, survey, waiting, mark);
  }
}

function* grainsOf(map: GrainMap, table: Table): Generator<Placed> {
  const { entries } = effective(map, table);
  for (let index = 0; index < entries.length; index++) {
    const grain = table.number * map.geometry.entriesPerTable + index;
    const sector = grainSector(map, grain, entries[index]!);
    if (sector !== undefined) yield { grain, sector, table, index };
  }
}

/** Unpacks compressed grains side by side and marks the sectors they take. */
async function* unpackAll(
  map: GrainMap,
  options: GrainCheckOptions,
  limit: FindingLimit,
  survey: Survey,
  waiting: readonly Placed[],
  mark: (placed: Placed, length: number) => Generator<Finding>,
): AsyncGenerator<Finding> {
  const { codec, file, grainBytes } = map.geometry;
  if (codec === undefined || waiting.length === 0) return;
  throwIfCancelled(options.signal, 'The check');
  const results = await Promise.allSettled(
    waiting.map(({ grain, sector }) => codec.examine(file, sector * SECTOR, (options.base ?? 0) + grain * grainBytes)),
  );
  for (const [i, result] of results.entries()) {
    const placed = waiting[i]!;
    // A grain that can't be unpacked holds the sector it begins in.
    let stored = GRAIN_MARKER_BYTES;
    if (result.status === 'fulfilled') stored = result.value;
    else yield* limit.tell(grainFinding(result.reason, placed));
    survey.lastByte = Math.max(survey.lastByte, placed.sector * SECTOR + stored);
    yield* mark(placed, Math.ceil(stored / SECTOR));
  }
}

function grainFinding(error: unknown, placed: Placed): Finding {
  if (error instanceof CorruptError) {
    const marker = String(error.details.structure).startsWith('VMDK grain marker');
    return findingOf(error, marker ? 'grain-marker-wrong' : 'compressed-grain-damaged');
  }
  return unreadable(error, placed.table.entries.source, placed.sector * SECTOR);
}

async function markTables(map: GrainMap, signal: AbortSignal | undefined, used: Bitmap): Promise<void> {
  for await (const step of walkTables(map, signal)) {
    if (!('table' in step)) continue;
    for (const fields of [step.table.entries, step.table.copy]) {
      if (fields !== undefined) used.mark(fields.position / SECTOR, Math.ceil(fields.length / SECTOR));
    }
  }
}

/** What follows the last structure: nobody reads it. ESX makes COWD files larger than they need to be yet. */
async function* checkEnd(map: GrainMap, options: GrainCheckOptions, survey: Survey): AsyncGenerator<Finding> {
  if (options.freeSector !== undefined) return;
  const { codec, file, grainBytes } = map.geometry;
  const lastByte = Math.max(survey.lastByte, codec === undefined ? survey.end * SECTOR : 0);
  // Writers round files up to a grain.
  const slack = options.streamEnd === undefined ? grainBytes : SECTOR;
  const end = Math.ceil(lastByte / SECTOR) * SECTOR;
  if (file.size - end >= slack) yield trailingData(file.name, end, file.size);
}

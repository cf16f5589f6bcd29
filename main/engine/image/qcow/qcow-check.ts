/**
 * Checks the tables of a QCOW image of version 1: every entry leads into the file, no two use the same bytes, every compressed cluster
 * unpacks. There is nothing to compare them with: the format has no refcounts and no checksums.
 */
import { CorruptError, throwIfCancelled } from '../../errors.ts';
import { runAsync } from '../../storage/io.ts';
import { FindingLimit, findingOf, readOr } from '../findings.ts';
import type { Finding } from '../image.ts';
import { ClusterCounts } from '../qcow2/cluster-counts.ts';
import { Unpacked } from '../qcow2/unpacked.ts';
import { HEADER_BYTES } from './layout.ts';
import type { QcowEntry, QcowMap } from './qcow-map.ts';

const BATCH = 4096;
/** Overlaps are told to the sector: compressed clusters share sectors, everything else begins at one. */
const SECTOR = 512;

export async function* checkQcow(map: QcowMap, signal: AbortSignal | undefined): AsyncGenerator<Finding> {
  const limit = new FindingLimit(map.file.name);
  const used = new ClusterCounts();
  const unpacked = new Unpacked();
  const { l1Offset, l1Size } = map.header;
  mark(used, 0, HEADER_BYTES, 'header');
  mark(used, l1Offset, l1Size * 8, 'L1 table');
  for (let first = 0; first < l1Size; first += BATCH) {
    throwIfCancelled(signal, 'The check');
    const position = l1Offset + first * 8;
    const bytes = await readOr(map.file, position, Math.min(BATCH, l1Size - first) * 8);
    if (!(bytes instanceof Uint8Array)) {
      yield* limit.tell(bytes);
      continue;
    }
    const fields = map.l1Fields(bytes, position);
    for (let at = 0; at < bytes.length; at += 8) {
      if (map.tableAt(fields, at) === 0) continue;
      const table = first + at / 8;
      const problem = map.tableProblem(fields, at, table);
      if (problem === undefined) yield* checkTable(map, used, unpacked, limit, table, map.tableAt(fields, at), signal);
      else if (limit.counts('l1-entry', 'damaged')) yield findingOf(map.badEntry(fields, at, problem), 'l1-entry');
    }
  }
  if (used.uncounted !== Number.POSITIVE_INFINITY) yield uncounted(map, used);
  yield* limit.counted();
}

async function* checkTable(
  map: QcowMap,
  used: ClusterCounts,
  unpacked: Unpacked,
  limit: FindingLimit,
  table: number,
  position: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Finding> {
  throwIfCancelled(signal, 'The check');
  const length = map.entriesOf(table) * 8;
  // The same table again says nothing new, and a million times the same would take a million times as long.
  const again = used.kind(Math.floor(position / SECTOR)) === 'L2 table';
  const before = again ? 'L2 table' : mark(used, position, length, 'L2 table');
  if (before !== undefined && limit.counts('metadata-overlap', 'damaged')) {
    const at = { source: map.file.name, position, expected: 'bytes that nothing else uses', found: `the ${before}` };
    yield findingOf(new CorruptError('QCOW L2 table', at), 'metadata-overlap');
  }
  if (before === 'L2 table') return;
  const bytes = await readOr(map.file, position, length);
  if (!(bytes instanceof Uint8Array)) {
    yield* limit.tell(bytes);
    return;
  }
  const fields = map.l2Fields(bytes, position);
  for (let at = 0; at < length; at += 8) {
    const entry = map.entry(fields, at);
    if (entry.kind === 'absent') continue;
    const guest = table * map.coverage + (at / 8) * map.header.clusterSize;
    const to = Math.min(map.header.size, guest + map.header.clusterSize);
    const problem = map.entryProblem(entry, guest, to);
    if (problem !== undefined) {
      // A ruined table has thousands of them.
      if (limit.counts('l2-entry', 'damaged')) yield findingOf(map.badEntry(fields, at, problem), 'l2-entry');
      continue;
    }
    const again = entry.kind === 'compressed' && unpacked.before(entry.position, entry.stored);
    // Compressed clusters share sectors, but no two begin at one byte.
    const other = again ? 'data' : markEntry(map, used, entry, to - guest);
    const code = other === 'data' ? 'cluster-overlap' : 'cluster-in-metadata';
    if (other !== undefined && limit.counts(code, 'damaged')) {
      const error = fields.corrupt('', at, 'bytes that nothing else uses', `byte ${entry.position}, of the ${other}`);
      yield findingOf(error, code);
    }
    if (entry.kind === 'compressed' && !again) yield* unpack(map, limit, entry, guest, signal);
  }
}

async function* unpack(
  map: QcowMap,
  limit: FindingLimit,
  entry: QcowEntry,
  guest: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Finding> {
  throwIfCancelled(signal, 'The check');
  try {
    await runAsync(map.codec.unpack(map.file, entry.position, entry.stored, guest));
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    yield* limit.tell(findingOf(error, 'compressed-cluster'));
  }
}

/** Marks what an entry uses; what was there before, when that can't be shared. */
function markEntry(map: QcowMap, used: ClusterCounts, entry: QcowEntry, needed: number): string | undefined {
  if (entry.kind === 'data') return mark(used, entry.position, Math.min(needed, map.header.clusterSize), 'data');
  const before = mark(used, entry.position, entry.stored, 'compressed data');
  return before === 'compressed data' ? undefined : before;
}

function mark(used: ClusterCounts, start: number, bytes: number, kind: string): string | undefined {
  let before: string | undefined;
  for (let sector = Math.floor(start / SECTOR); sector * SECTOR < start + bytes; sector++) {
    const there = used.mark(sector, kind);
    // The header shares its sector with the L1 table behind it.
    if (there !== undefined && !(kind === 'L1 table' && there === 'header')) before ??= there;
  }
  return before;
}

function uncounted(map: QcowMap, used: ClusterCounts): Finding {
  const position = used.uncounted * SECTOR;
  return {
    severity: 'note',
    code: 'overlaps-unchecked',
    message: `Whether anything of ${map.file.name} from byte ${position} on is used twice was not checked: it is too much for the memory of this check`,
    source: map.file.name,
    position,
  };
}

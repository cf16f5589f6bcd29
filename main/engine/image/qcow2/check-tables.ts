/**
 * Checks the tables of a QCOW2 image and counts what they use. Three passes: metadata of fixed place and all L1 tables; every L2
 * table, each once whatever the number of snapshots that share it; and, when all is counted, the COPIED flags of the present state.
 *
 * An L2 table that many L1 entries lead to is walked once, with that multiplicity, so a file whose tables lead to each other costs
 * no more than its size.
 */
import type { Fields } from '../../binary.ts';
import { CorruptError, throwIfCancelled } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { runAsync } from '../../storage/io.ts';
import { type FindingLimit, findingOf, readOr } from '../findings.ts';
import type { Finding } from '../image.ts';
import type { ClusterCounts } from './cluster-counts.ts';
import { ClusterEntry } from './cluster-entry.ts';
import type { ClusterMap } from './cluster-map.ts';
import * as layout from './layout.ts';
import type { Unpacked } from './unpacked.ts';

/** An L1 table with its map: of the present state, or of a snapshot. */
export interface State {
  /** `the present state`, `snapshot "1"`. */
  readonly title: string;
  readonly active: boolean;
  readonly map: ClusterMap;
}

export interface TableCheck {
  readonly file: ByteSource;
  readonly clusterSize: number;
  readonly counts: ClusterCounts;
  readonly limit: FindingLimit;
  readonly unpacked: Unpacked;
  readonly signal: AbortSignal | undefined;
}

/** L1 entries read at a time. */
const BATCH = 4096;
/** Compressed clusters unpacked at a time. */
const UNPACKED = 8;
const L2_TABLE = 'L2 table';
/** The kind of an L2 table that was walked. */
const L2_WALKED = 'L2 table, walked';
/** And of one whose flags were compared. */
const L2_COMPARED = 'L2 table, compared';

interface L1Entry {
  readonly fields: Fields;
  readonly at: number;
  readonly table: number;
  readonly high: number;
  readonly low: number;
}

/** The entries of an L1 table that are not 0, those for saved VM state included. Read failures are told when `tell` is set. */
async function* l1Entries(check: TableCheck, state: State, tell: boolean): AsyncGenerator<L1Entry | Finding> {
  const { l1Offset, l1Size } = state.map.geometry;
  for (let first = 0; first < l1Size; first += BATCH) {
    throwIfCancelled(check.signal, 'The check');
    const position = l1Offset + first * 8;
    const bytes = await readOr(check.file, position, Math.min(BATCH, l1Size - first) * 8);
    if (!(bytes instanceof Uint8Array)) {
      if (tell) yield bytes;
      continue;
    }
    const fields = state.map.l1Fields(bytes, position);
    for (let at = 0; at < bytes.length; at += 8) {
      const high = fields.u32be(at);
      const low = fields.u32be(at + 4);
      if (high !== 0 || low !== 0) yield { fields, at, table: first + at / 8, high, low };
    }
  }
}

/** First pass over an L1 table: its entries by themselves, and how often each L2 table is used. */
export async function* surveyL1(check: TableCheck, state: State): AsyncGenerator<Finding> {
  const { counts, limit, clusterSize } = check;
  for await (const entry of l1Entries(check, state, true)) {
    if (!('fields' in entry)) {
      yield* limit.tell(entry);
      continue;
    }
    const { fields, at, table, high, low } = entry;
    const problem = state.map.tableProblem(table, high, low);
    const position = layout.offsetOf(high, low);
    if (problem !== undefined) {
      // A ruined table has thousands of them.
      if (!limit.counts('l1-entry', 'damaged')) continue;
      yield findingOf(fields.corrupt('', at, problem, layout.hex64(high, low)), 'l1-entry');
      continue;
    }
    if (position === 0) continue;
    const cluster = position / clusterSize;
    const before = counts.mark(cluster, L2_TABLE);
    const again = before !== undefined && (before !== L2_TABLE || state.active);
    if (again && limit.counts('metadata-overlap', 'damaged')) {
      const expected = 'a cluster that nothing else uses';
      const found = `byte ${position}, which is ${before === L2_TABLE ? 'another L2 table of this state' : `in the ${before}`}`;
      yield findingOf(fields.corrupt('', at, expected, found), 'metadata-overlap');
    }
    counts.add(cluster, 1);
  }
}

/** Second pass: every entry of every L2 table of this L1 table that was not walked yet. */
export async function* walkTables(check: TableCheck, state: State): AsyncGenerator<Finding> {
  const { counts, limit, clusterSize, signal } = check;
  const { map } = state;
  for await (const step of l1Entries(check, state, false)) {
    if (!('fields' in step) || map.tableProblem(step.table, step.high, step.low) !== undefined) continue;
    const position = layout.offsetOf(step.high, step.low);
    const cluster = position / clusterSize;
    if (position === 0 || counts.kind(cluster) === L2_WALKED) continue;
    throwIfCancelled(signal, 'The check');
    counts.mark(cluster, L2_WALKED);
    const fields = await readTable(check, map, position);
    if (fields === undefined || !('bytes' in fields)) {
      if (fields !== undefined) yield* limit.tell(fields);
      continue;
    }
    yield* walkTable(check, state, step.table, fields, Math.max(1, counts.count(cluster)));
  }
}

/** An L2 table, as much of it as is in the file. */
async function readTable(check: TableCheck, map: ClusterMap, position: number): Promise<Fields | Finding | undefined> {
  const whole = Math.min(check.clusterSize, check.file.size - position);
  const length = whole - (whole % map.entryBytes);
  if (length <= 0) return undefined;
  const bytes = await readOr(check.file, position, length);
  return bytes instanceof Uint8Array ? map.l2Fields(bytes, position) : bytes;
}

async function* walkTable(
  check: TableCheck,
  state: State,
  table: number,
  fields: Fields,
  times: number,
): AsyncGenerator<Finding> {
  const { limit, clusterSize } = check;
  const { map } = state;
  const entry = new ClusterEntry(map.geometry);
  let packed: Packed[] = [];
  for (let at = 0, cluster = table * map.entriesPerTable; at < fields.length; at += map.entryBytes, cluster++) {
    entry.read(fields, at, cluster);
    if (entry.high === 0 && entry.low === 0 && entry.kind === 'absent' && entry.problem === undefined) continue;
    const guest = cluster * clusterSize;
    const problem = entry.problem ?? placeOf(map, entry, guest);
    if (problem !== undefined) {
      // A ruined table has thousands of them.
      if (limit.counts('l2-entry', 'damaged')) yield findingOf(map.badEntry(fields, at, entry, problem), 'l2-entry');
      continue;
    }
    if (!entry.allocated) continue;
    yield* countEntry(check, map, fields, at, entry, times);
    if (
      entry.kind === 'compressed' &&
      guest < map.geometry.virtualSize &&
      !check.unpacked.before(entry.position, entry.stored)
    ) {
      packed.push({ position: entry.position, stored: entry.stored, guest });
      if (packed.length >= UNPACKED) {
        yield* unpackAll(check, map, packed);
        packed = [];
      }
    }
  }
  yield* unpackAll(check, map, packed);
}

/** What is expected of the place of an entry's cluster and does not hold. */
function placeOf(map: ClusterMap, entry: ClusterEntry, guest: number): string | undefined {
  const { virtualSize, clusterSize, data } = map.geometry;
  if (!entry.allocated) return undefined;
  if (entry.kind === 'compressed') return map.compressedProblem(entry);
  // Saved VM state lies behind the disk; its last cluster may be short.
  const inDisk = guest < virtualSize ? Math.min(clusterSize, virtualSize - guest) : 1;
  if (entry.kind === 'data') return map.placeProblem(entry.position, inDisk, data);
  if (entry.kind !== 'mixed' || entry.dataBits === 0) return undefined;
  const subclusters = layout.SUBCLUSTERS - Math.clz32(entry.dataBits);
  const needed = Math.min(inDisk, (subclusters * clusterSize) / layout.SUBCLUSTERS);
  return map.placeProblem(entry.position, needed, data);
}

/** Counts the clusters of the file that an entry uses, and tells those that metadata uses. */
function* countEntry(
  check: TableCheck,
  map: ClusterMap,
  fields: Fields,
  at: number,
  entry: ClusterEntry,
  times: number,
): Generator<Finding> {
  const { counts, limit, clusterSize, file } = check;
  // Clusters of an external data file are not counted.
  if (map.geometry.externalData) return;
  if (entry.position >= file.size) {
    const expected = `a cluster inside the ${file.size} bytes of the file`;
    const remedy = 'The cluster is kept for zeros and is not read.';
    yield* limit.tell(
      findingOf(map.badEntry(fields, at, entry, expected), 'preallocated-out-of-file', 'suspicious', remedy),
    );
    return;
  }
  const first = Math.floor(entry.position / clusterSize);
  const length = entry.kind === 'compressed' ? entry.stored : clusterSize;
  const last = Math.floor((entry.position + length - 1) / clusterSize);
  for (let cluster = first; cluster <= last; cluster++) {
    // The bound on the length of compressed data may reach beyond the end of the file.
    if (cluster * clusterSize >= file.size && cluster > first) break;
    counts.add(cluster, times);
    const kind = counts.kind(cluster);
    if (kind === undefined || !limit.counts('cluster-in-metadata', 'damaged')) continue;
    const found = `${layout.hex64(entry.high, entry.low)}, which is in the ${kind === L2_WALKED ? L2_TABLE : kind}`;
    const error = fields.corrupt('', at, 'a cluster that holds no metadata', found);
    yield findingOf(error, 'cluster-in-metadata');
  }
}

interface Packed {
  readonly position: number;
  readonly stored: number;
  readonly guest: number;
}

/** Unpacks compressed clusters to see that they can be: they have no checksum of their own. */
async function* unpackAll(check: TableCheck, map: ClusterMap, packed: readonly Packed[]): AsyncGenerator<Finding> {
  const { file, codec } = map.geometry;
  throwIfCancelled(check.signal, 'The check');
  const results = await Promise.allSettled(
    packed.map(({ position, stored, guest }) => {
      const bound = Math.min(stored, file.size - position);
      return codec.unpackAsync === undefined
        ? runAsync(codec.unpack(file, position, bound, guest))
        : codec.unpackAsync(file, position, bound, guest);
    }),
  );
  for (const result of results) {
    if (result.status === 'fulfilled') continue;
    if (!(result.reason instanceof CorruptError)) throw result.reason;
    yield* check.limit.tell(findingOf(result.reason, 'compressed-cluster'));
  }
}

/** Third pass, of the present state: bit 63 says "used once" of L2 tables and standard clusters, and must not lie. */
export async function* checkCopied(check: TableCheck, state: State): AsyncGenerator<Finding> {
  const { map } = state;
  const flags = new FlagFindings(check);
  for await (const step of l1Entries(check, state, false)) {
    if (!('fields' in step) || map.tableProblem(step.table, step.high, step.low) !== undefined) continue;
    const position = layout.offsetOf(step.high, step.low);
    if (position === 0) continue;
    throwIfCancelled(check.signal, 'The check');
    const once = check.counts.count(position / check.clusterSize) === 1;
    yield* flags.compare(step.fields, step.at, (step.high & layout.COPIED_HIGH) !== 0, once);
    if (check.counts.mark(position / check.clusterSize, L2_COMPARED) === L2_COMPARED) continue;
    const fields = await readTable(check, map, position);
    if (fields === undefined || !('bytes' in fields)) continue;
    const entry = new ClusterEntry(map.geometry);
    for (let at = 0, cluster = step.table * map.entriesPerTable; at < fields.length; at += map.entryBytes, cluster++) {
      entry.read(fields, at, cluster);
      if (!entry.allocated || entry.problem !== undefined) continue;
      if (entry.kind === 'compressed') {
        yield* flags.compare(fields, at, entry.copied, false);
      } else if (map.geometry.externalData) {
        yield* flags.compare(fields, at, entry.copied, true);
      } else if (entry.position < check.file.size) {
        yield* flags.compare(fields, at, entry.copied, check.counts.count(entry.position / check.clusterSize) === 1);
      }
    }
  }
  yield* flags.counted();
}

class FlagFindings {
  readonly #check: TableCheck;
  #unset = 0;
  #first = 0;

  constructor(check: TableCheck) {
    this.#check = check;
  }

  *compare(fields: Fields, at: number, copied: boolean, once: boolean): Generator<Finding> {
    if (copied === once) return;
    const position = fields.position + at;
    if (!copied) {
      // Costs a writer a copy, and a reader nothing.
      if (this.#unset++ === 0) this.#first = position;
      return;
    }
    const error = fields.corrupt('COPIED flag', at, 'clear, for the cluster is used more than once', 'set');
    const remedy = 'It reads right. Do not start a machine from it: a write would change other states of the disk too.';
    yield* this.#check.limit.tell(findingOf(error, 'copied-flag', 'damaged', remedy));
  }

  *counted(): Generator<Finding> {
    if (this.#unset === 0) return;
    const { name } = this.#check.file;
    yield {
      severity: 'note',
      code: 'copied-flag-unset',
      message: `${this.#unset} entries of ${name} do not say that their cluster is used only once; it is copied when written, and reads right`,
      source: name,
      structure: 'QCOW2 COPIED flag',
      position: this.#first,
      found: this.#unset,
    };
  }
}

/**
 * What `verify` says of a QCOW2 image. Of its present state: the whole file, with every snapshot's tables, refcounts, bitmaps. Of a
 * snapshot: that snapshot's own tables, so that damage of other states is not laid at its door.
 */
import { CorruptError, throwIfCancelled } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { FindingLimit, findingOf, readOr } from '../findings.ts';
import type { Finding } from '../image.ts';
import { type PersistentBitmap, readBitmaps } from './bitmaps.ts';
import { compareRefcounts, refcountTableError, surveyRefcounts } from './check-refcounts.ts';
import { checkCopied, type State, surveyL1, type TableCheck, walkTables } from './check-tables.ts';
import { ClusterCounts } from './cluster-counts.ts';
import { ClusterMap } from './cluster-map.ts';
import { type Qcow2Header, tableProblem } from './header.ts';
import * as layout from './layout.ts';
import { type Snapshot, type SnapshotTable, snapshotProblem } from './snapshots.ts';
import { Unpacked } from './unpacked.ts';

export interface ImageCheck {
  readonly file: OpenFile;
  readonly data: OpenFile;
  readonly header: Qcow2Header;
  readonly table: SnapshotTable;
  /** The snapshot that was opened; undefined for the present state. */
  readonly point: Snapshot | undefined;
  readonly map: ClusterMap;
  /** What the layer is called. */
  readonly name: string;
  readonly signal: AbortSignal | undefined;
}

/** L1 entries walked in all states together: what a hostile file with thousands of snapshots may cost. */
const MAX_L1_ENTRIES = 64 << 20;

export async function* checkImage(check: ImageCheck): AsyncGenerator<Finding> {
  const { file, header, point, map, signal } = check;
  const counts = new ClusterCounts();
  const limit = new FindingLimit(check.name);
  const unpacked = new Unpacked();
  const tables: TableCheck = { file, clusterSize: header.clusterSize, counts, limit, unpacked, signal };
  yield* headerFindings(check);
  if (point !== undefined) {
    const own: State = { title: `snapshot "${point.id}"`, active: false, map };
    yield* surveyL1(tables, own);
    yield* walkTables(tables, own);
    yield* limit.counted();
    return;
  }
  const refcounts = { file, header, counts, limit, signal };
  const broken = refcountTableError(file, header);
  counts.mark(0, 'header');
  counts.add(0, 1);
  if (broken === undefined) yield* surveyRefcounts(refcounts);
  else yield* limit.tell(findingOf(broken, 'refcount-table'));
  const shared = yield* markTables(check, counts, limit);
  const active: State = { title: 'the present state', active: true, map };
  const states = [active];
  for await (const step of snapshotStates(check, shared)) {
    if ('map' in step) states.push(step);
    else yield* limit.tell(step);
  }
  for (const state of states) yield* surveyL1(tables, state);
  for (const state of states) yield* walkTables(tables, state);
  if (counts.uncounted !== Number.POSITIVE_INFINITY) yield uncounted(check, counts);
  else yield* checkCopied(tables, active);
  if (broken === undefined) yield* compareRefcounts(refcounts);
  yield* limit.counted();
}

/** What the header says of the image's state, and the structures that only it leads to. */
function* headerFindings({ file, data, header, table, point }: ImageCheck): Generator<Finding> {
  const source = file.name;
  if (header.corrupt) {
    yield {
      severity: 'suspicious',
      code: 'corrupt-bit',
      message: `${source} is marked as corrupt: a program found damage in its tables while it was in use`,
      source,
      structure: 'QCOW2 header incompatible_features',
      position: layout.HeaderOffsets.incompatible_features,
      expected: 'bit 1 clear',
      found: 'set',
      remedy:
        'What is found to be damaged is named apart. If nothing is, it can be read; compare it with another copy.',
    };
  }
  if (header.dirty) {
    yield {
      severity: 'note',
      code: 'dirty',
      message: `${source} was not closed: its refcounts may be behind. What is read does not depend on them.`,
      source,
      structure: 'QCOW2 header incompatible_features',
      position: layout.HeaderOffsets.incompatible_features,
    };
  }
  if (header.backingFile !== undefined && header.backingFormat === undefined) {
    yield {
      severity: 'note',
      code: 'backing-format-missing',
      message: `${source} does not record the format of its backing file; it is told by its content`,
      source,
      structure: 'QCOW2 header extension',
    };
  }
  if (header.rawData && header.backingFile !== undefined) {
    yield {
      severity: 'suspicious',
      code: 'raw-data-file-with-backing',
      message: `${source} has a backing file, and says that its data file is a whole disk without it; both can't be`,
      source,
      structure: 'QCOW2 header autoclear_features',
      position: layout.HeaderOffsets.autoclear_features,
      remedy: 'It is read by its own tables, with the backing file.',
    };
  }
  const needed = header.rawData && point === undefined ? header.size : 0;
  if (header.externalData && data.size < needed) {
    yield {
      severity: 'damaged',
      code: 'data-file-short',
      message: `${data.name} is smaller than the disk it holds`,
      source: data.name,
      structure: 'QCOW2 external data file',
      expected: `at least ${needed} bytes`,
      found: data.size,
    };
  }
  if (point === undefined && table.error !== undefined) {
    const remedy = 'The present state and the snapshots before the damage can be read.';
    yield findingOf(table.error, 'snapshot-table', 'damaged', remedy);
  }
}

/** Clusters of metadata that are used twice and looked at one by one; a sound image has none. */
const MAX_OVERLAPS = 10_000;

const SNAPSHOT_L1 = 'snapshot’s L1 table';

/**
 * Counts the clusters of the L1 tables, the snapshot table and the bitmaps. Returns the snapshots whose table lies on that of another,
 * which is told: to go through it again for each would cost more than the file is large.
 */
async function* markTables(
  check: ImageCheck,
  counts: ClusterCounts,
  limit: FindingLimit,
): AsyncGenerator<Finding, ReadonlySet<Snapshot>> {
  const { file, header, table } = check;
  const { clusterSize } = header;
  const shared = new Set<Snapshot>();
  let overlaps = 0;
  const mark = function* (kind: string, start: number, bytes: number): Generator<Finding> {
    for (let cluster = start / clusterSize; cluster * clusterSize < start + bytes; cluster++) {
      // Thousands of snapshots may name one large table: what is said by then is enough.
      if (overlaps > MAX_OVERLAPS) return;
      const before = counts.mark(cluster, kind);
      counts.add(cluster, 1);
      if (before === undefined) continue;
      overlaps++;
      const position = cluster * clusterSize;
      const expected = 'clusters that nothing else uses';
      const at = { source: file.name, position, expected, found: `one of the ${before}` };
      yield* limit.tell(findingOf(new CorruptError(`QCOW2 ${kind}`, at), 'metadata-overlap'));
    }
  };
  yield* mark('L1 table', header.l1Offset, header.l1Size * 8);
  if (table.end > table.start) yield* mark('snapshot table', table.start, table.end - table.start);
  for (const snapshot of table.snapshots) {
    throwIfCancelled(check.signal, 'The check');
    const problem = tableProblem(snapshot.l1Offset, snapshot.l1Size * 8, clusterSize, file.size);
    if (problem !== undefined) continue;
    for (let at = 0; at < snapshot.l1Size * 8 && !shared.has(snapshot); at += clusterSize) {
      if (counts.kind((snapshot.l1Offset + at) / clusterSize) === SNAPSHOT_L1) shared.add(snapshot);
      yield* mark(SNAPSHOT_L1, snapshot.l1Offset + at, 1);
    }
  }
  if (header.bitmapsValid) yield* bitmapFindings(check, mark, limit);
  return shared;
}

type Mark = (kind: string, start: number, bytes: number) => Generator<Finding>;

async function* bitmapFindings(check: ImageCheck, mark: Mark, limit: FindingLimit): AsyncGenerator<Finding> {
  const { file, header } = check;
  const remedy = 'The disk does not need it. Incremental backups that are made with it can be wrong: make a full one.';
  if (header.bitmaps === undefined) {
    const at = { source: file.name, expected: 'a bitmaps extension, as the header says', found: 'none' };
    yield findingOf(new CorruptError('QCOW2 header extension', at), 'bitmap-directory', 'suspicious', remedy);
    return;
  }
  let bitmaps: PersistentBitmap[];
  try {
    bitmaps = await readBitmaps(file, header, header.bitmaps);
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    yield findingOf(error, 'bitmap-directory', 'suspicious', remedy);
    return;
  }
  yield* mark('bitmap directory', header.bitmaps.directoryOffset, header.bitmaps.directorySize);
  // Each has a table of its own, so that all together are no larger than the file.
  let room = file.size;
  for (const bitmap of bitmaps) {
    throwIfCancelled(check.signal, 'The check');
    room -= bitmap.tableSize * 8;
    if (room < 0) {
      const at = {
        source: file.name,
        position: bitmap.position,
        expected: 'tables that fit into the file',
        found: 'more',
      };
      const error = new CorruptError('QCOW2 bitmap directory entry bitmap_table_size', at);
      yield findingOf(error, 'bitmap-table', 'suspicious', remedy);
      return;
    }
    if (bitmap.inUse) yield bitmapInUse(file.name, bitmap);
    yield* oneBitmap(check, bitmap, mark, limit, remedy);
  }
}

function bitmapInUse(source: string, bitmap: PersistentBitmap): Finding {
  return {
    severity: 'note',
    code: 'bitmap-in-use',
    message: `The bitmap "${bitmap.name}" of ${source} was not written back; it says nothing for certain of what changed`,
    source,
    structure: 'QCOW2 bitmap directory entry flags',
    position: bitmap.position,
  };
}

async function* oneBitmap(
  check: ImageCheck,
  bitmap: PersistentBitmap,
  mark: Mark,
  limit: FindingLimit,
  remedy: string,
): AsyncGenerator<Finding> {
  const { file, header } = check;
  const bytes = bitmap.tableSize * 8;
  const problem =
    bytes > layout.MAX_L1_BYTES
      ? `at most ${layout.MAX_L1_BYTES / 8} entries`
      : tableProblem(bitmap.tableOffset, bytes, header.clusterSize, file.size);
  if (problem !== undefined) {
    const found = `${bitmap.tableSize} entries at byte ${bitmap.tableOffset}`;
    const at = { source: file.name, position: bitmap.position, expected: problem, found };
    const error = new CorruptError('QCOW2 bitmap directory entry bitmap_table_offset', at);
    yield* limit.tell(findingOf(error, 'bitmap-table', 'suspicious', remedy));
    return;
  }
  yield* mark('bitmap table', bitmap.tableOffset, bytes);
  const entries = await readOr(file, bitmap.tableOffset, bytes);
  if (!(entries instanceof Uint8Array)) {
    yield* limit.tell(entries);
    return;
  }
  const fields = check.map.l1Fields(entries, bitmap.tableOffset);
  for (let at = 0; at < bytes; at += 8) {
    const high = fields.u32be(at);
    const low = fields.u32be(at + 4);
    const position = layout.offsetOf(high, low);
    if (position === 0) continue;
    const wrong = tableProblem(position, 1, header.clusterSize, file.size);
    if (wrong === undefined) {
      yield* mark('bitmap', position, 1);
      continue;
    }
    const found = layout.hex64(high, low);
    const error = new CorruptError('QCOW2 bitmap table entry', {
      source: file.name,
      position: bitmap.tableOffset + at,
      expected: wrong,
      found,
    });
    yield* limit.tell(findingOf(error, 'bitmap-table', 'suspicious', remedy));
  }
}

/** Each snapshot's state, as far as its table can be read; findings for the others. */
async function* snapshotStates(check: ImageCheck, shared: ReadonlySet<Snapshot>): AsyncGenerator<State | Finding> {
  const { file, header, table, map } = check;
  let entries = header.l1Size;
  for (const snapshot of table.snapshots) {
    throwIfCancelled(check.signal, 'The check');
    const problem = snapshotProblem(snapshot, header, file);
    if (problem !== undefined) {
      const remedy = 'The present state and the other snapshots can be read.';
      yield findingOf(problem, 'snapshot-l1-table', 'damaged', remedy);
      continue;
    }
    if (shared.has(snapshot)) continue;
    entries += snapshot.l1Size;
    if (entries > MAX_L1_ENTRIES) {
      yield {
        severity: 'note',
        code: 'snapshots-unchecked',
        message: `Snapshot "${snapshot.id}" of ${file.name} and those after it were not checked: their tables are too many`,
        source: file.name,
        position: snapshot.position,
      };
      return;
    }
    yield {
      title: `snapshot "${snapshot.id}"`,
      active: false,
      map: new ClusterMap({
        ...map.geometry,
        virtualSize: snapshot.virtualSize,
        l1Offset: snapshot.l1Offset,
        l1Size: snapshot.l1Size,
      }),
    };
  }
}

function uncounted({ file, header }: ImageCheck, counts: ClusterCounts): Finding {
  const position = counts.uncounted * header.clusterSize;
  return {
    severity: 'note',
    code: 'refcounts-unchecked',
    message: `Refcounts of ${file.name} from byte ${position} on, and its COPIED flags, were not checked: there are too many clusters in use for the memory of this check`,
    source: file.name,
    structure: 'QCOW2 refcount',
    position,
  };
}

/**
 * The snapshot table of a QCOW2 image: points in time that the image keeps inside itself, each with an L1 table of its own.
 */
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import type { InternalSnapshot } from '../image.ts';
import { coverageOf, type Qcow2Header, tableProblem } from './header.ts';
import * as layout from './layout.ts';
import { SnapshotOffsets as at } from './layout.ts';
import { SlidingWindow } from './sliding-window.ts';

const SNAPSHOT = 'QCOW2 snapshot table entry';

export interface Snapshot extends InternalSnapshot {
  /** Byte position of its entry in the snapshot table. */
  readonly position: number;
  readonly l1Offset: number;
  readonly l1Size: number;
}

export interface SnapshotTable {
  /** In the order of the table, which is that of their making. */
  readonly snapshots: readonly Snapshot[];
  /** First and one past the last byte of the table, as far as it could be read. */
  readonly start: number;
  readonly end: number;
  /** Why it could not be read to its end. The disk's present state does not need it. */
  readonly error?: CorruptError;
}

/** Reads the snapshot table. Damage ends it and is reported with what came before. @throws IoError. */
export async function readSnapshots(file: ByteSource, header: Qcow2Header): Promise<SnapshotTable> {
  const snapshots: Snapshot[] = [];
  const start = header.snapshotsOffset;
  let end = start;
  if (header.snapshotCount === 0) return { snapshots, start: 0, end: 0 };
  try {
    checkPlace(file, header);
    const window = new SlidingWindow(file);
    const ids = new Set<string>();
    for (let i = 0; i < header.snapshotCount; i++) {
      const entry = await readEntry(window, Math.ceil(end / 8) * 8, header);
      if (ids.has(entry.snapshot.id)) {
        const found = `${JSON.stringify(entry.snapshot.id)} twice`;
        throw new CorruptError(`${SNAPSHOT} id`, {
          source: file.name,
          position: entry.snapshot.position,
          expected: 'ids that differ',
          found,
        });
      }
      ids.add(entry.snapshot.id);
      snapshots.push(entry.snapshot);
      end = entry.end;
      if (end - start > layout.MAX_SNAPSHOT_TABLE_BYTES) {
        const expected = `at most ${layout.MAX_SNAPSHOT_TABLE_BYTES} bytes`;
        throw new CorruptError('QCOW2 snapshot table', { source: file.name, position: start, expected, found: 'more' });
      }
    }
    return { snapshots, start, end };
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    return { snapshots, start, end, error };
  }
}

function checkPlace(file: ByteSource, header: Qcow2Header): void {
  const { snapshotCount, snapshotsOffset, clusterSize } = header;
  const fail = (field: keyof typeof layout.HeaderOffsets, expected: string | number, found: string | number) => {
    const position = layout.HeaderOffsets[field];
    return new CorruptError(`QCOW2 header ${field}`, { source: file.name, position, expected, found });
  };
  if (snapshotCount > layout.MAX_SNAPSHOTS) {
    throw fail('nb_snapshots', `at most ${layout.MAX_SNAPSHOTS}`, snapshotCount);
  }
  const problem = tableProblem(snapshotsOffset, snapshotCount * layout.SNAPSHOT_BYTES, clusterSize, file.size);
  if (problem !== undefined) throw fail('snapshots_offset', problem, `byte ${snapshotsOffset}`);
}

async function readEntry(
  window: SlidingWindow,
  position: number,
  header: Qcow2Header,
): Promise<{ snapshot: Snapshot; end: number }> {
  const fixed = await window.fields(SNAPSHOT, position, layout.SNAPSHOT_BYTES);
  const idSize = fixed.u16be(at.id_str_size);
  const nameSize = fixed.u16be(at.name_size);
  const extraSize = fixed.u32be(at.extra_data_size);
  fixed.require(
    extraSize <= layout.MAX_SNAPSHOT_EXTRA,
    'extra_data_size',
    at.extra_data_size,
    `at most ${layout.MAX_SNAPSHOT_EXTRA} bytes`,
    extraSize,
  );
  const length = layout.SNAPSHOT_BYTES + extraSize + idSize + nameSize;
  const entry = await window.fields(SNAPSHOT, position, length);
  const l1Size = entry.u32be(at.l1_size);
  const l1Offset = entry.u64be(at.l1_table_offset, 'l1_table_offset');
  const extra = layout.SNAPSHOT_BYTES;
  const idAt = extra + extraSize;
  const id = layout.textOf(entry.slice(idAt, idSize));
  entry.require(id !== '', 'id', at.id_str_size, 'at least one byte', 'none');
  const created = entry.u32be(at.date_sec);
  const snapshot: Snapshot = {
    id,
    name: layout.textOf(entry.slice(idAt + idSize, nameSize)),
    ...(created === 0 ? {} : { created: isoTime(created, entry.u32be(at.date_nsec)) }),
    stateBytes: extraSize >= 8 ? entry.u64be(extra, 'vm_state_size_large') : entry.u32be(at.vm_state_size),
    // Version 2 images of old programs record no size: then it is the disk's present one, which could not change.
    virtualSize: extraSize >= 16 ? entry.u64be(extra + 8, 'disk_size') : header.size,
    position,
    l1Offset,
    l1Size,
  };
  return { snapshot, end: position + length };
}

function isoTime(seconds: number, nanoseconds: number): string {
  return new Date(seconds * 1000 + Math.floor(Math.min(nanoseconds, 999_999_999) / 1e6)).toISOString();
}

/** What is wrong with a snapshot's L1 table; undefined when its disk can be read. */
export function snapshotProblem(snapshot: Snapshot, header: Qcow2Header, file: ByteSource): CorruptError | undefined {
  const fail = (field: 'l1_size' | 'l1_table_offset', expected: string, found: string | number) =>
    new CorruptError(`${SNAPSHOT} ${field}`, {
      source: file.name,
      position: snapshot.position + at[field],
      expected,
      found,
    });
  const { l1Size, l1Offset, virtualSize } = snapshot;
  const needed = Math.ceil(virtualSize / coverageOf(header));
  if (l1Size < needed) return fail('l1_size', `at least ${needed} for a disk of ${virtualSize} bytes`, l1Size);
  if (l1Size * 8 > layout.MAX_L1_BYTES) return fail('l1_size', `at most ${layout.MAX_L1_BYTES / 8}`, l1Size);
  if (l1Size === 0) return undefined;
  const problem = tableProblem(l1Offset, l1Size * 8, header.clusterSize, file.size);
  return problem === undefined ? undefined : fail('l1_table_offset', problem, `byte ${l1Offset}`);
}

/**
 * A QCOW2 image as one layer of a chain: its present state, or the state that one of its internal snapshots keeps.
 *
 * Both stand on the same backing file. A backing file is recorded by name only, without any identity: that the file found is the
 * one the image was made on can't be proved by either.
 */
import { CorruptError, NotFoundError, throwIfCancelled } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { checkRange } from '../../storage/byte-source.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { type Io, runAsync } from '../../storage/io.ts';
import {
  type Codec,
  type Finding,
  type ImageLayer,
  type InternalSnapshot,
  type LayerFile,
  type LayerRun,
  type ParentClaim,
  snapshotPath,
} from '../image.ts';
import { RunList } from '../run-list.ts';
import { WalkBudget } from '../walk-budget.ts';
import { backingClaim } from './backing.ts';
import { readBitmaps } from './bitmaps.ts';
import { checkImage } from './check.ts';
import { ClusterMap, type Stretch } from './cluster-map.ts';
import { openDataFile } from './data-file.ts';
import { DeflateCodec } from './deflate-codec.ts';
import { type Qcow2Header, readQcow2Header, tableProblem } from './header.ts';
import * as layout from './layout.ts';
import { readSnapshots, type Snapshot, type SnapshotTable, snapshotProblem } from './snapshots.ts';
import { ZstdCodec } from './zstd-codec.ts';

/** Runs at most in one step when all of the disk is gone over. */
const STEP_RUNS = 65_536;
/** Bitmaps that `properties` names. */
const NAMED_BITMAPS = 16;

/**
 * Opens the QCOW2 image at `path`. @param snapshot id of an internal snapshot, to open its state.
 * @throws CorruptError, UnsupportedError, NeedsKeyError, NotFoundError, IoError, DeniedError.
 */
export async function openQcow2(path: string, folder: Confinement, snapshot?: string): Promise<ImageLayer> {
  const file = folder.open(path);
  let data: OpenFile | undefined;
  try {
    const header = await readQcow2Header(file);
    const parent =
      header.backingFile === undefined ? undefined : backingClaim(header.backingFile, header.backingFormat, file.name);
    const table = await readSnapshots(file, header);
    const point = snapshot === undefined ? undefined : findSnapshot(table, snapshot, header, file);
    if (header.externalData) data = openDataFile(file, header, folder);
    const codec =
      header.compression === 'zstd'
        ? await ZstdCodec.create(header.clusterSize)
        : new DeflateCodec(header.clusterSize, 'QCOW2');
    const bitmaps = await bitmapNames(file, header);
    return new Qcow2Layer({ file, data, header, parent, table, point, codec, bitmaps, folder });
  } catch (error) {
    await Promise.all([file.close(), data?.close()]);
    throw error;
  }
}

/** @throws NotFoundError, or CorruptError when the table is damaged and may have held it, or the snapshot's own table is. */
function findSnapshot(table: SnapshotTable, id: string, header: Qcow2Header, file: OpenFile): Snapshot {
  const point = table.snapshots.find((candidate) => candidate.id === id);
  if (point === undefined) {
    if (table.error !== undefined) throw table.error;
    throw new NotFoundError(`Snapshot "${id}" of ${file.name}`, {
      source: file.name,
      choices: table.snapshots.map((candidate) => candidate.id),
    });
  }
  const problem = snapshotProblem(point, header, file);
  if (problem !== undefined) throw problem;
  return point;
}

/** Names and granularity of the persistent bitmaps, for `properties`; damage there is for `check` to tell. */
async function bitmapNames(file: OpenFile, header: Qcow2Header): Promise<string | undefined> {
  if (header.bitmaps === undefined) return undefined;
  if (!header.bitmapsValid) return `${header.bitmaps.count}, out of date`;
  try {
    const bitmaps = await readBitmaps(file, header, header.bitmaps, NAMED_BITMAPS);
    const names = bitmaps.map(({ name, granularity }) => `${name} (${granularity})`);
    const more = header.bitmaps.count - bitmaps.length;
    return more > 0 ? `${names.join(', ')} and ${more} more` : names.join(', ');
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    return `${header.bitmaps.count}, damaged`;
  }
}

interface Parts {
  readonly file: OpenFile;
  readonly data: OpenFile | undefined;
  readonly header: Qcow2Header;
  readonly parent: ParentClaim | undefined;
  readonly table: SnapshotTable;
  readonly point: Snapshot | undefined;
  readonly codec: Codec;
  readonly bitmaps: string | undefined;
  readonly folder: Confinement;
}

class Qcow2Layer implements ImageLayer {
  readonly format = 'qcow2';
  readonly variant: 'v2' | 'v3';
  readonly name: string;
  readonly path: string;
  readonly virtualSize: number;
  readonly parent: ParentClaim | undefined;
  readonly id = undefined;
  readonly snapshots?: readonly InternalSnapshot[];
  readonly files: readonly LayerFile[];
  readonly granularity: number;
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  readonly #parts: Parts;
  readonly #map: ClusterMap;

  /** Takes over the files. */
  constructor(parts: Parts) {
    const { file, data, header, table, point, codec, folder } = parts;
    this.#parts = parts;
    this.variant = header.version === 2 ? 'v2' : 'v3';
    this.path = point === undefined ? file.path : snapshotPath(file.path, point.id);
    this.name = point === undefined ? file.name : folder.label(this.path);
    this.virtualSize = point?.virtualSize ?? header.size;
    this.parent = parts.parent;
    if (point === undefined) {
      this.snapshots = table.snapshots.map(({ id, name, created, stateBytes, virtualSize }) => ({
        id,
        name,
        ...(created === undefined ? {} : { created }),
        stateBytes,
        virtualSize,
      }));
    }
    this.granularity = header.extendedL2 ? header.clusterSize / layout.SUBCLUSTERS : header.clusterSize;
    this.files = [
      { role: 'image', name: file.name, path: file.path, size: file.size },
      ...(data === undefined
        ? []
        : [{ role: 'data' as const, name: folder.label(data.path), path: data.path, size: data.size }]),
    ];
    this.properties = propertiesOf(parts);
    this.#map = new ClusterMap({
      ...header,
      file,
      data: data ?? file,
      virtualSize: this.virtualSize,
      l1Offset: point?.l1Offset ?? header.l1Offset,
      l1Size: point?.l1Size ?? header.l1Size,
      metadata: metadataOf(parts),
      codec,
    });
  }

  *runs(offset: number, length: number): Io<LayerRun[]> {
    checkRange({ name: this.name, size: this.virtualSize }, offset, length);
    const out = new RunList();
    yield* this.#map.runs(offset, length, out);
    return out.finish();
  }

  async allocatedBytes(signal?: AbortSignal): Promise<number> {
    throwIfCancelled(signal);
    const { coverage } = this.#map;
    const step =
      (STEP_RUNS / (this.#parts.header.extendedL2 ? layout.SUBCLUSTERS : 1)) * this.#parts.header.clusterSize;
    const budget = new WalkBudget(this.name, this.#parts.file.size);
    let total = 0;
    for (let at = 0; ; at += step) {
      throwIfCancelled(signal);
      // Of a disk of petabytes most may be absent.
      const table = Math.floor(at / coverage);
      const next = await runAsync(this.#map.nextTable(table), signal);
      if (next > table) at = next * coverage;
      if (at >= this.virtualSize) return total;
      const walk = this.runs(at, Math.min(step, this.virtualSize - at));
      for (const run of await runAsync(
        budget.spend(walk, (runs) => runs.length),
        signal,
      ))
        if (run.kind === 'data' || run.kind === 'compressed') total += run.length;
    }
  }

  async *check(signal?: AbortSignal): AsyncGenerator<Finding> {
    throwIfCancelled(signal, 'The check');
    const { file, data, header, table, point } = this.#parts;
    yield* checkImage({ file, data: data ?? file, header, table, point, map: this.#map, name: this.name, signal });
  }

  async close(): Promise<void> {
    await Promise.all([this.#parts.file.close(), this.#parts.data?.close()]);
  }
}

/** Where neither an L2 table nor a cluster can be. A table whose own place can't be true forbids nothing. */
function metadataOf({ file, header, table, point }: Parts): Stretch[] {
  const { clusterSize, l1Offset, l1Size, refcountTableOffset, refcountTableClusters } = header;
  const stretches: Stretch[] = [{ name: 'header', start: 0, end: clusterSize }];
  const add = (name: string, start: number, bytes: number) => {
    if (bytes > 0 && tableProblem(start, bytes, clusterSize, file.size) === undefined) {
      stretches.push({ name, start, end: start + bytes });
    }
  };
  add('L1 table', l1Offset, l1Size * 8);
  if (point !== undefined) add('snapshot’s L1 table', point.l1Offset, point.l1Size * 8);
  const refcountBytes = refcountTableClusters * clusterSize;
  if (refcountBytes <= layout.MAX_REFCOUNT_TABLE_BYTES) add('refcount table', refcountTableOffset, refcountBytes);
  add('snapshot table', table.start, table.end - table.start);
  return stretches;
}

function propertiesOf({ header, table, point, data, bitmaps, codec }: Parts) {
  const properties: Record<string, string | number | boolean> = {
    version: header.version,
    clusterSize: header.clusterSize,
    compressionType: codec.name,
    refcountBits: 2 ** header.refcountOrder,
    lazyRefcounts: header.lazyRefcounts,
    extendedL2: header.extendedL2,
    dirty: header.dirty,
    corrupt: header.corrupt,
  };
  if (header.backingFile !== undefined) properties.backingFile = header.backingFile;
  if (header.backingFormat !== undefined) properties.backingFormat = header.backingFormat;
  if (data !== undefined) {
    properties.dataFile = header.dataFile ?? '';
    properties.dataFileRaw = header.rawData;
  }
  if (bitmaps !== undefined) properties.bitmaps = bitmaps;
  if (point === undefined) {
    properties.snapshots = table.error === undefined ? table.snapshots.length : 'damaged';
  } else {
    properties.snapshotId = point.id;
    properties.snapshotName = point.name;
    properties.vmStateBytes = point.stateBytes;
  }
  return properties;
}

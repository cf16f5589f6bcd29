/**
 * A QCOW image of version 1 as one layer of a chain. It records the name of its backing file, and sometimes the time of its last
 * change, but neither format nor identity.
 */
import { basename } from 'node:path';
import { NotFoundError, throwIfCancelled } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { checkRange } from '../../storage/byte-source.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { type Io, runAsync } from '../../storage/io.ts';
import type { Finding, ImageFormat, ImageLayer, LayerFile, LayerRun, ParentClaim } from '../image.ts';
import { backingClaim } from '../qcow2/backing.ts';
import { DeflateCodec } from '../qcow2/deflate-codec.ts';
import { qcowVersion } from '../qcow2/layout.ts';
import { isRawByName } from '../raw/raw-layer.ts';
import { RunList } from '../run-list.ts';
import { WalkBudget } from '../walk-budget.ts';
import { checkQcow } from './qcow-check.ts';
import { type QcowHeader, readQcowHeader } from './qcow-header.ts';
import { QcowMap } from './qcow-map.ts';

/** Bytes of the disk gone over in one step when all of it is. */
const STEP = 32 << 20;

/** Opens the QCOW image at `path`. @throws CorruptError, UnsupportedError, NeedsKeyError, NotFoundError, IoError, DeniedError. */
export async function openQcow(path: string, folder: Confinement, snapshot?: string): Promise<ImageLayer> {
  const file = folder.open(path);
  try {
    const header = await readQcowHeader(file);
    if (snapshot !== undefined) {
      throw new NotFoundError(`Snapshot "${snapshot}" of ${file.name}`, { source: file.name, choices: [] });
    }
    return new QcowLayer(file, header);
  } catch (error) {
    await file.close();
    throw error;
  }
}

class QcowLayer implements ImageLayer {
  readonly format = 'qcow';
  readonly variant = 'qcow';
  readonly name: string;
  readonly path: string;
  readonly virtualSize: number;
  readonly parent: ParentClaim | undefined;
  readonly id = undefined;
  readonly files: readonly LayerFile[];
  readonly granularity: number;
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  readonly #file: OpenFile;
  readonly #map: QcowMap;

  /** Takes over `file`. */
  constructor(file: OpenFile, header: QcowHeader) {
    this.#file = file;
    this.#map = new QcowMap(file, header, new DeflateCodec(header.clusterSize, 'QCOW'));
    this.name = file.name;
    this.path = file.path;
    this.virtualSize = header.size;
    this.parent = parentOf(header, file.name);
    this.files = [{ role: 'image', name: file.name, path: file.path, size: file.size }];
    this.granularity = header.clusterSize;
    this.properties = {
      version: 1,
      clusterSize: header.clusterSize,
      l2TableEntries: 2 ** header.l2Bits,
      ...(header.backingFile === undefined ? {} : { backingFile: header.backingFile }),
    };
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
    const step = Math.ceil(STEP / coverage) * coverage;
    const budget = new WalkBudget(this.name, this.#file.size);
    let total = 0;
    for (let at = 0; ; at += step) {
      throwIfCancelled(signal);
      // Of a disk of petabytes most may be absent.
      at = (await runAsync(this.#map.nextTable(at / coverage), signal)) * coverage;
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
    yield* checkQcow(this.#map, signal);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

function parentOf(header: QcowHeader, source: string): ParentClaim | undefined {
  if (header.backingFile === undefined) return undefined;
  const claim = backingClaim(header.backingFile, undefined, source);
  return header.modified === 0 ? claim : { ...claim, modified: header.modified };
}

/** True for the magic number with version 1, and for anything called `.qcow` that has no magic number. */
function detectQcow(prefix: Uint8Array, fileName: string): boolean {
  const name = basename(fileName);
  if (isRawByName(name)) return false;
  const version = qcowVersion(prefix);
  return version === undefined ? /\.qcow$/i.test(name) : version === 1;
}

export const qcowFormat: ImageFormat = { name: 'qcow', detect: detectQcow, open: openQcow };

/**
 * A VHDX (or AVHDX, which differs in name only) as one layer of a chain: fixed, dynamic or differencing. [MS-VHDX].
 *
 * Opened read-only like everything: a log that has to be replayed is replayed in memory, and every table and block is then read
 * through what it writes. The headers alone are taken from the file, since the log never changes them.
 */
import { throwIfCancelled } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { checkRange } from '../../storage/byte-source.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { type Io, runAsync } from '../../storage/io.ts';
import { findingOf } from '../findings.ts';
import type { Finding, ImageLayer, LayerFile, LayerRun, ParentClaim } from '../image.ts';
import { RunList } from '../run-list.ts';
import { WalkBudget } from '../walk-budget.ts';
import { checkBlocks } from './block-check.ts';
import { BlockMap } from './block-map.ts';
import { readHeaders, type VhdxHeaders } from './headers.ts';
import * as layout from './layout.ts';
import { type LogReplay, logFits, readLog } from './log.ts';
import { readMetadata, type VhdxMetadata } from './metadata.ts';
import { LogOverlay, plainSource, type VhdxSource } from './overlay.ts';
import { checkSecondTable, misplaced, type Region, type Regions, readRegions, regionFits } from './regions.ts';

/** Opens the VHDX at `path`. @throws CorruptError, UnsupportedError, IoError, DeniedError. */
export async function openVhdx(path: string, folder: Confinement): Promise<ImageLayer> {
  const file = folder.open(path);
  try {
    const headers = await readHeaders(file);
    const replay = await readLog(file, headers.header);
    const source =
      replay === undefined
        ? plainSource(file)
        : new LogOverlay(file, replay.writes, Math.max(file.size, replay.lastFileOffset));
    const regions = await readRegions(source);
    const metadata = await readMetadata(source, regions.metadata);
    return new VhdxLayer({ file, source, headers, replay, regions, metadata });
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** What opening learned of the file. */
interface Opened {
  readonly file: OpenFile;
  readonly source: VhdxSource;
  readonly headers: VhdxHeaders;
  readonly replay: LogReplay | undefined;
  readonly regions: Regions;
  readonly metadata: VhdxMetadata;
}

class VhdxLayer implements ImageLayer {
  readonly format = 'vhdx';
  readonly variant: 'fixed' | 'dynamic' | 'differencing';
  readonly name: string;
  readonly path: string;
  readonly virtualSize: number;
  readonly parent: ParentClaim | undefined;
  readonly id: string;
  readonly files: readonly LayerFile[];
  readonly granularity: number;
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  readonly #opened: Opened;
  readonly #map: BlockMap;

  /** Takes over the file. */
  constructor(opened: Opened) {
    const { file, source, headers, regions, metadata } = opened;
    this.#opened = opened;
    this.variant = metadata.hasParent ? 'differencing' : metadata.leaveBlockAllocated ? 'fixed' : 'dynamic';
    this.name = file.name;
    this.path = file.path;
    this.virtualSize = metadata.virtualDiskSize;
    this.parent = metadata.parentLocator?.claim;
    this.id = headers.header.dataWriteGuid;
    this.files = [{ role: 'image', name: file.name, path: file.path, size: file.size }];
    this.granularity = metadata.hasParent ? metadata.logicalSectorSize : metadata.blockSize;
    this.properties = properties(opened);
    this.#map = new BlockMap({
      source,
      bat: regions.bat,
      reserved: takenBy(opened),
      blockSize: metadata.blockSize,
      sectorSize: metadata.logicalSectorSize,
      virtualSize: metadata.virtualDiskSize,
      hasParent: metadata.hasParent,
    });
  }

  *runs(offset: number, length: number): Io<LayerRun[]> {
    checkRange({ name: this.name, size: this.virtualSize }, offset, length);
    const out = new RunList();
    yield* this.#map.runs(offset, length, out);
    return out.finish();
  }

  async allocatedBytes(signal?: AbortSignal): Promise<number> {
    const budget = new WalkBudget(this.name, this.#opened.file.size, this.#opened.metadata.logicalSectorSize);
    let total = 0;
    for (let block = 0; block < this.#map.blocks; ) {
      throwIfCancelled(signal);
      const { bytes, next } = await runAsync(this.#map.allocatedFrom(block, budget), signal);
      total += bytes;
      block = next;
    }
    return total;
  }

  async *check(signal?: AbortSignal): AsyncGenerator<Finding> {
    throwIfCancelled(signal, 'The check');
    const { file, source, headers, regions, metadata } = this.#opened;
    yield* headers.findings;
    yield* logFindings(this.#opened);
    yield* regions.findings;
    yield* checkSecondTable(source);
    yield* regionFindings(this.#opened);
    yield* metadata.findings;
    const taken = [{ position: 0, length: layout.HEADER_SECTION_BYTES }, ...takenBy(this.#opened)];
    yield* checkBlocks(this.#map, taken, file.size, signal);
  }

  async close(): Promise<void> {
    await this.#opened.file.close();
  }
}

/** Where no block can be, besides the header section: the regions, and the log if it is where it can be. */
function takenBy({ file, source, headers, regions }: Opened): { position: number; length: number }[] {
  const { header } = headers;
  return [
    regions.bat,
    regions.metadata,
    ...regions.others.filter((region) => regionFits(region, source)),
    ...(logFits(file, header) ? [{ position: header.logOffset, length: header.logLength }] : []),
  ].map(({ position, length }) => ({ position, length }));
}

function properties({ headers, replay, metadata }: Opened): Readonly<Record<string, string | number | boolean>> {
  const { header, creator } = headers;
  return {
    ...(creator === '' ? {} : { creator }),
    version: header.version,
    blockSize: metadata.blockSize,
    logicalSectorSize: metadata.logicalSectorSize,
    ...(metadata.physicalSectorSize === undefined ? {} : { physicalSectorSize: metadata.physicalSectorSize }),
    ...(metadata.virtualDiskId === undefined ? {} : { page83Id: metadata.virtualDiskId }),
    log: replay === undefined ? 'empty' : 'replayed in memory',
    dataWriteGuid: header.dataWriteGuid,
    fileWriteGuid: header.fileWriteGuid,
  };
}

function* logFindings({ file, headers, replay }: Opened): Generator<Finding> {
  const { header } = headers;
  const place = { source: file.name, structure: 'VHDX log', position: header.logOffset };
  if (replay === undefined) {
    if (logFits(file, header)) return;
    yield {
      severity: 'suspicious',
      code: 'log-misplaced',
      message: `The log of ${file.name} can't be where its header says`,
      ...place,
      expected: `whole MiB behind the first and inside the ${file.size} bytes of the file`,
      found: `${header.logLength} bytes from ${header.logOffset}`,
      remedy: 'There is nothing in it that the disk needs.',
    };
    return;
  }
  yield {
    severity: 'note',
    code: 'log-replayed',
    message: `${file.name} was not closed cleanly; ${replay.entries} log entries with ${replay.writes.length} writes are applied in memory, the file stays as it is`,
    ...place,
    found: replay.writes.length,
    remedy: 'The disk reads as it was when its host stopped, or when it was copied.',
  };
  if (replay.lastFileOffset <= file.size) return;
  yield {
    severity: 'damaged',
    code: 'file-shorter-than-log',
    message: `${file.name} ends before the last block that its log knows of`,
    ...place,
    expected: `${replay.lastFileOffset} bytes`,
    found: file.size,
    remedy: 'Blocks behind its end are refused when they are read; all others are whole.',
  };
}

/** Regions that are not needed, and the log, may be misplaced without harm. */
function* regionFindings({ file, source, headers, regions }: Opened): Generator<Finding> {
  for (const region of regions.others) {
    if (regionFits(region, source)) continue;
    yield findingOf(misplaced(region, source), 'region-misplaced', 'suspicious', 'The disk reads without this region.');
  }
  const all: (Region | { guid: string; position: number; length: number })[] = [
    ...[regions.bat, regions.metadata, ...regions.others].filter((region) => regionFits(region, source)),
  ];
  const { header } = headers;
  if (logFits(file, header)) all.push({ guid: 'log', position: header.logOffset, length: header.logLength });
  all.sort((a, b) => a.position - b.position);
  for (const [i, region] of all.entries()) {
    const next = all[i + 1];
    if (next === undefined || region.position + region.length <= next.position) continue;
    yield {
      severity: 'damaged',
      code: 'region-overlap',
      message: `Two regions of ${file.name} lie over each other: ${region.guid} and ${next.guid}`,
      source: file.name,
      structure: 'VHDX region table',
      position: 'entry' in next ? next.entry : next.position,
      expected: `a place from byte ${region.position + region.length}`,
      found: `byte ${next.position}`,
    };
  }
}

/**
 * A VHD as one layer of a chain: `fixed` (the disk's bytes and a footer), `dynamic` (blocks with sector bitmaps) or `differencing`
 * (the same over a parent).
 */
import { NotFoundError, throwIfCancelled } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { checkRange } from '../../storage/byte-source.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { type Io, runAsync } from '../../storage/io.ts';
import type { Finding, ImageLayer, LayerFile, LayerRun, ParentClaim } from '../image.ts';
import { RunList } from '../run-list.ts';
import { WalkBudget } from '../walk-budget.ts';
import { Batmap } from './batmap.ts';
import { checkBlocks } from './block-check.ts';
import { BlockMap, type Reserved } from './block-map.ts';
import { bitmapBytes, readTables, type Tables } from './dynamic-header.ts';
import { type Footers, hasTable, readFooters } from './footer.ts';
import { checkFixed, checkFooters, checkHeader } from './footer-check.ts';
import * as layout from './layout.ts';
import { type ParentRecord, readParent } from './parent.ts';
import { vhdProperties } from './properties.ts';

/** Opens the VHD at `path`. @throws CorruptError, UnsupportedError, NeedsKeyError, IoError, DeniedError. */
export async function openVhd(path: string, folder: Confinement, snapshot?: string): Promise<ImageLayer> {
  const file = folder.open(path);
  try {
    if (snapshot !== undefined) {
      throw new NotFoundError(`The snapshot "${snapshot}" in ${file.name}`, { source: file.name, snapshot });
    }
    const footers = await readFooters(file, folder);
    if (!hasTable(footers.footer)) return new VhdLayer(file, footers);
    const tables = await readTables(file, footers);
    const { footer, dataEnd } = footers;
    const parent =
      footer.diskType === layout.TYPE_DIFFERENCING
        ? await readParent(file, footer, tables.header, tables.fields, dataEnd)
        : undefined;
    return new VhdLayer(file, footers, tables, parent);
  } catch (error) {
    await file.close();
    throw error;
  }
}

class VhdLayer implements ImageLayer {
  readonly format = 'vhd';
  readonly variant: 'fixed' | 'dynamic' | 'differencing';
  readonly name: string;
  readonly path: string;
  readonly virtualSize: number;
  readonly parent: ParentClaim | undefined;
  readonly id: string | undefined;
  readonly files: readonly LayerFile[];
  readonly granularity = layout.SECTOR;
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  readonly #file: OpenFile;
  readonly #footers: Footers;
  readonly #tables: Tables | undefined;
  readonly #parent: ParentRecord | undefined;
  /** Undefined for a fixed disk. */
  readonly #map: BlockMap | undefined;

  /** Takes over `file`. */
  constructor(file: OpenFile, footers: Footers, tables?: Tables, parent?: ParentRecord) {
    const { footer } = footers;
    this.#file = file;
    this.#footers = footers;
    this.#tables = tables;
    this.#parent = parent;
    this.variant = tables === undefined ? 'fixed' : parent === undefined ? 'dynamic' : 'differencing';
    this.name = file.name;
    this.path = file.path;
    this.virtualSize = footer.currentSize;
    this.parent = parent?.claim;
    this.id = footer.uniqueId === layout.NO_UUID ? undefined : footer.uniqueId;
    this.files = [{ role: 'image', name: file.name, path: file.path, size: file.size }];
    this.properties = vhdProperties(footers, tables, parent);
    this.#map = tables === undefined ? undefined : blockMap(file, footers, tables);
  }

  *runs(offset: number, length: number): Io<LayerRun[]> {
    checkRange({ name: this.name, size: this.virtualSize }, offset, length);
    const out = new RunList();
    if (this.#map !== undefined) yield* this.#map.runs(offset, length, out);
    else if (length > 0) {
      checkRange({ name: this.name, size: this.#footers.dataEnd }, offset, length);
      out.data(offset, length, this.#file, offset);
    }
    return out.finish();
  }

  async allocatedBytes(signal?: AbortSignal): Promise<number> {
    throwIfCancelled(signal);
    if (this.#map === undefined) return Math.min(this.virtualSize, this.#footers.dataEnd);
    let total = 0;
    const budget = new WalkBudget(this.name, this.#file.size, layout.SECTOR);
    for (let block = 0; block < this.#map.geometry.blocks; ) {
      throwIfCancelled(signal);
      const { bytes, next } = await runAsync(this.#map.allocatedFrom(block, budget), signal);
      total += bytes;
      block = next;
    }
    return total;
  }

  async *check(signal?: AbortSignal): AsyncGenerator<Finding> {
    throwIfCancelled(signal, 'The check');
    yield* checkFooters(this.#file, this.#footers);
    if (this.#tables === undefined || this.#map === undefined) {
      yield* checkFixed(this.#file, this.#footers);
      return;
    }
    yield* checkHeader(this.#footers, this.#tables, this.#parent);
    yield* checkBlocks(this.#map, this.#tables, this.#parent?.locators ?? [], signal);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

function blockMap(file: OpenFile, footers: Footers, tables: Tables): BlockMap {
  const { footer, dataEnd } = footers;
  const { header, fields, blocks } = tables;
  const size = footer.currentSize;
  const reserved: Reserved[] = [
    { what: 'the footer copy', start: 0, end: layout.FOOTER_BYTES },
    { what: 'the dynamic disk header', start: fields.position, end: fields.position + layout.HEADER_BYTES },
    { what: 'the block allocation table', start: header.tableOffset, end: header.tableOffset + blocks * 4 },
  ];
  return new BlockMap({
    file,
    size,
    blockSize: header.blockSize,
    blocks,
    table: header.tableOffset,
    bitmapBytes: bitmapBytes(header.blockSize),
    dataEnd,
    reserved,
    differencing: footer.diskType === layout.TYPE_DIFFERENCING,
    lowBitFirst: layout.madeByTapdisk(footer) && footer.creatorVersion === layout.TAP_VERSION_LOW_BIT_FIRST,
    batmap: tables.batmap === undefined ? undefined : new Batmap(file, tables.batmap, { blocks, size, dataEnd }),
  });
}

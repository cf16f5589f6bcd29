/**
 * ESX Server sparse extents ("COWD"): the `-delta.vmdk` files and redo logs of vmfsSparse snapshots. VMware, "Virtual Disk Format
 * 5.0", "ESXi Host Sparse Extents": a header of four sectors, a grain directory, tables of 4,096 entries; grains are usually
 * one sector. An entry of 0 means "ask the parent"; there are no zeroed grains and no second copy of the tables.
 */
import { Fields } from '../../binary.ts';
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Io } from '../../storage/io.ts';
import type { Finding } from '../image.ts';
import type { RunList } from '../run-list.ts';
import type { Extent } from './extent.ts';
import { checkGrains } from './grain-check.ts';
import { badDirectory, directoryFits, GrainMap, tableCount } from './grain-map.ts';
import * as layout from './layout.ts';
import { type CowDiskHeader, SECTOR } from './layout.ts';
import { checkExtentSize, sizeDiffers, uncleanShutdown } from './sparse-findings.ts';

const FAMILY = 'COWD';
const HEADER = 'COWD header';

/** Reads and checks the header of an ESX Server sparse extent. @throws CorruptError, UnsupportedError, IoError. */
export async function readCowdHeader(file: OpenFile): Promise<CowDiskHeader> {
  if (file.size < layout.COWDISK_HEADER_BYTES) {
    throw new CorruptError(HEADER, {
      source: file.name,
      position: 0,
      expected: `${layout.COWDISK_HEADER_BYTES} bytes`,
      found: `a file of ${file.size} bytes`,
    });
  }
  const fields = new Fields(await file.read(0, layout.COWDISK_HEADER_BYTES), HEADER, file.name, 0);
  const header = layout.readCowDiskHeader(fields);
  const at = layout.CowDiskHeaderOffsets;
  fields.require(header.version !== 0, 'version', at.version, layout.COWDISK_VERSION, header.version);
  if (header.version !== layout.COWDISK_VERSION) {
    throw new UnsupportedError(`COWD extent of version ${header.version}`, { source: file.name });
  }
  fields.require(
    header.grainSize >= 1 && header.grainSize <= layout.MAX_GRAIN_SECTORS,
    'grainSize',
    at.grainSize,
    `1 to ${layout.MAX_GRAIN_SECTORS}`,
    header.grainSize,
  );
  fields.require(header.numSectors >= 1, 'numSectors', at.numSectors, 'at least 1', header.numSectors);
  return header;
}

export class CowdExtent implements Extent {
  readonly kind = 'cowd';
  readonly file: OpenFile;
  readonly size: number;
  readonly header: CowDiskHeader;
  readonly #map: GrainMap;

  /**
   * The extent over a header that `readCowdHeader` has checked. `size` is what the descriptor says it covers, in bytes.
   * @throws CorruptError when the size is not the header's, or the grain directory is too short or not in the file.
   */
  constructor(file: OpenFile, header: CowDiskHeader, size: number) {
    this.file = file;
    this.header = header;
    this.size = size;
    const at = layout.CowDiskHeaderOffsets;
    const grainBytes = header.grainSize * SECTOR;
    const capacity = header.numSectors * SECTOR;
    checkExtentSize(HEADER, file, at.numSectors, size, capacity, grainBytes);
    const tables = tableCount({ capacity: size, entriesPerTable: layout.COW_NUM_LEAF_ENTRIES, grainBytes });
    if (header.numGDEntries < tables) {
      throw new CorruptError(`${HEADER} numGDEntries`, {
        source: file.name,
        position: at.numGDEntries,
        expected: `at least ${tables} for ${header.numSectors} sectors`,
        found: header.numGDEntries,
      });
    }
    const directory = header.gdOffset * SECTOR;
    if (!directoryFits(file, directory, tables, layout.COWDISK_HEADER_BYTES)) {
      throw badDirectory(HEADER, 'gdOffset', file, at.gdOffset, directory, tables);
    }
    this.#map = new GrainMap({
      family: FAMILY,
      file,
      capacity: size,
      grainBytes,
      entriesPerTable: layout.COW_NUM_LEAF_ENTRIES,
      directory,
      redundantDirectory: undefined,
      reserved: layout.COWDISK_HEADER_BYTES,
      zeroedGrains: false,
      codec: undefined,
    });
  }

  get granularity(): number {
    return this.#map.geometry.grainBytes;
  }
  get step(): number {
    return this.#map.step;
  }
  get properties(): Readonly<Record<string, string | number | boolean>> {
    return { grainSize: this.granularity, uncleanShutdown: this.header.uncleanShutdown !== 0 };
  }

  runs(offset: number, length: number, base: number, out: RunList): Io<void> {
    return this.#map.runs(offset, length, base, out);
  }

  async *check(signal: AbortSignal | undefined): AsyncGenerator<Finding> {
    const at = layout.CowDiskHeaderOffsets;
    if (this.header.uncleanShutdown !== 0) yield uncleanShutdown(this.file, HEADER, at.uncleanShutdown);
    if (this.header.numSectors * SECTOR !== this.size) {
      yield sizeDiffers(HEADER, this.file, at.numSectors, this.size, this.header.numSectors * SECTOR);
    }
    const directoryEnd = this.#map.geometry.directory + this.#map.tables * 4;
    yield* checkGrains(this.#map, { metadataEnd: directoryEnd, freeSector: this.header.freeSector, signal });
  }
}

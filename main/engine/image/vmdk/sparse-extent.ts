/**
 * Hosted sparse extents ("KDMV"): monolithicSparse, twoGbMaxExtentSparse, streamOptimized, and the snapshots of VMware Workstation
 * and QEMU. VMware, "Virtual Disk Format 5.0", "Hosted Sparse Extents". The header is read by `sparse-header.ts`.
 */

import { type CorruptError, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Io } from '../../storage/io.ts';
import type { Finding } from '../image.ts';
import type { RunList } from '../run-list.ts';
import { GrainCodec } from './compressed-grain.ts';
import type { Extent } from './extent.ts';
import { checkGrains } from './grain-check.ts';
import { badDirectory, directoryFits, GrainMap, tableCount } from './grain-map.ts';
import * as layout from './layout.ts';
import { SECTOR } from './layout.ts';
import { checkExtentSize, redundantUsed, sizeDiffers, uncleanShutdown } from './sparse-findings.ts';
import { footerDiffers, type SparseHeader } from './sparse-header.ts';

const FAMILY = 'VMDK';

export class SparseExtent implements Extent {
  readonly kind = 'sparse';
  readonly file: OpenFile;
  readonly size: number;
  readonly #read: SparseHeader;
  readonly #map: GrainMap;
  readonly #codec: GrainCodec | undefined;
  readonly #base: number;
  /** What opening found wrong and could do without. */
  readonly #findings: Finding[] = [];

  /**
   * The extent over a header that `readSparseHeader` has checked. `size` is what the descriptor says it covers, `base` where it begins
   * on the disk, in bytes.
   * @throws CorruptError when the size is not the header's, or when neither grain directory lies in the file; UnsupportedError for
   * compressed grains that lie askew on the disk.
   */
  constructor(file: OpenFile, read: SparseHeader, size: number, base = 0) {
    this.file = file;
    this.size = size;
    this.#base = base;
    this.#read = read;
    const { header } = read;
    const at = layout.SparseExtentHeaderOffsets;
    const grainBytes = header.grainSize * SECTOR;
    const capacityAt = read.position + at.capacity;
    checkExtentSize(read.structure, file, capacityAt, size, header.capacity * SECTOR, grainBytes);
    this.#codec = grainCodec(file, read, size, base);
    const descriptorEnd = (header.descriptorOffset + header.descriptorSize) * SECTOR;
    const embedded = header.descriptorOffset === 1 && descriptorEnd <= header.overHead * SECTOR;
    const reserved = embedded ? descriptorEnd : layout.SPARSE_HEADER_BYTES;
    this.#map = new GrainMap({
      family: FAMILY,
      file,
      capacity: size,
      grainBytes,
      entriesPerTable: header.numGTEsPerGT,
      ...this.#directories(reserved),
      reserved,
      zeroedGrains: (header.flags & layout.SPARSEFLAG_MAGIC_GTE) !== 0,
      codec: this.#codec,
    });
  }

  /** Where the grain directories are. One that can't be there is a finding as long as the other can. */
  #directories(reserved: number): { directory: number; redundantDirectory: number | undefined } {
    const { file, size } = this;
    const { header, structure, position } = this.#read;
    const at = layout.SparseExtentHeaderOffsets;
    const grainBytes = header.grainSize * SECTOR;
    const tables = tableCount({ capacity: size, entriesPerTable: header.numGTEsPerGT, grainBytes });
    const primary = (header.gdOffset ?? 0) * SECTOR;
    const hasCopy = (header.flags & layout.SPARSEFLAG_USE_REDUNDANT) !== 0 && header.rgdOffset !== 0;
    const copy = hasCopy ? header.rgdOffset * SECTOR : undefined;
    const primaryFits = directoryFits(file, primary, tables, reserved);
    const copyFits = copy !== undefined && directoryFits(file, copy, tables, reserved);
    const lost = (field: 'gdOffset' | 'rgdOffset', to: number): CorruptError =>
      badDirectory(structure, field, file, position + at[field], to, tables);
    const finding = (code: string, error: CorruptError, remedy: string): Finding => ({
      severity: 'damaged',
      code,
      message: error.message,
      source: file.name,
      structure: String(error.details.structure),
      position: Number(error.details.position),
      expected: String(error.details.expected),
      found: String(error.details.found),
      remedy,
    });
    if (!primaryFits) {
      const error = lost('gdOffset', primary);
      if (!copyFits) throw error;
      this.#findings.push(
        finding('directory-out-of-file', error, 'The redundant grain directory is used in its place.'),
        redundantUsed(file.name, tables),
      );
    } else if (copy !== undefined && !copyFits) {
      const remedy = 'The disk reads from its primary tables; it has no second copy of them.';
      this.#findings.push(finding('redundant-directory-out-of-file', lost('rgdOffset', copy), remedy));
    }
    return {
      directory: primaryFits ? primary : copy!,
      redundantDirectory: primaryFits && copyFits && copy !== primary ? copy : undefined,
    };
  }

  get granularity(): number {
    return this.#map.geometry.grainBytes;
  }
  get step(): number {
    return this.#map.step;
  }
  get properties(): Readonly<Record<string, string | number | boolean>> {
    const { header } = this.#read;
    return {
      sparseVersion: header.version,
      grainSize: this.granularity,
      redundantTables: this.#map.geometry.redundantDirectory !== undefined,
      zeroedGrains: this.#map.geometry.zeroedGrains,
      uncleanShutdown: header.uncleanShutdown !== 0,
      ...(this.#codec === undefined ? {} : { compression: this.#codec.name }),
    };
  }

  runs(offset: number, length: number, base: number, out: RunList): Io<void> {
    return this.#map.runs(offset, length, base, out);
  }

  async *check(signal: AbortSignal | undefined): AsyncGenerator<Finding> {
    yield* this.#findings;
    const { header, structure, position, streamEnd } = this.#read;
    const at = layout.SparseExtentHeaderOffsets;
    if (header.uncleanShutdown !== 0) {
      yield uncleanShutdown(this.file, structure, position + at.uncleanShutdown);
    }
    if (header.capacity * SECTOR !== this.size) {
      yield sizeDiffers(structure, this.file, position + at.capacity, this.size, header.capacity * SECTOR);
    }
    if (streamEnd !== undefined) {
      const differs = footerDiffers(this.#read, this.file.name);
      if (differs !== undefined) yield differs;
    }
    yield* checkGrains(this.#map, {
      // Tables that are reached through a footer lie behind the grains.
      metadataEnd: streamEnd === undefined ? header.overHead * SECTOR : this.#map.geometry.reserved,
      streamEnd,
      base: this.#base,
      signal,
    });
  }
}

function grainCodec(file: OpenFile, read: SparseHeader, size: number, base: number): GrainCodec | undefined {
  const { flags, grainSize } = read.header;
  if ((flags & layout.SPARSEFLAG_COMPRESSED) === 0) return undefined;
  const grainBytes = grainSize * SECTOR;
  if (base % grainBytes !== 0) {
    throw new UnsupportedError('VMDK compressed extent that does not begin on a grain of the disk', {
      source: file.name,
    });
  }
  return new GrainCodec({
    grainBytes,
    base,
    capacity: size,
    markers: (flags & layout.SPARSEFLAG_EMBEDDED_LBA) !== 0,
  });
}

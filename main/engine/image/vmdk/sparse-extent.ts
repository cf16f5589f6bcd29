/**
 * Hosted sparse extents ("KDMV"): monolithicSparse, twoGbMaxExtentSparse, and the snapshots of VMware Workstation and QEMU.
 * VMware, "Virtual Disk Format 5.0", "Hosted Sparse Extents"; version 3 is version 1 for a reader (VMware KB 2064959).
 *
 * Stream-optimized extents (compressed grains, markers, the directory at the end) are recognised and refused by name.
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
import { SECTOR, type SparseExtentHeader } from './layout.ts';

const FAMILY = 'VMDK';
const HEADER = 'VMDK sparse extent header';

/** Reads and checks the header of a hosted sparse extent. @throws CorruptError, UnsupportedError, IoError. */
export async function readSparseHeader(file: OpenFile): Promise<SparseExtentHeader> {
  if (file.size < layout.SPARSE_HEADER_BYTES) {
    throw new CorruptError(HEADER, {
      source: file.name,
      position: 0,
      expected: `${layout.SPARSE_HEADER_BYTES} bytes`,
      found: `a file of ${file.size} bytes`,
    });
  }
  const fields = new Fields(await file.read(0, layout.SPARSE_HEADER_BYTES), HEADER, file.name, 0);
  const at = layout.SparseExtentHeaderOffsets;
  const version = fields.u32(at.version);
  // The version and the newline bytes come first: a header they are wrong in has no other field worth a word.
  fields.require(version !== 0, 'version', at.version, `1 to ${layout.SPARSE_VERSION_MAX}`, version);
  if (version > layout.SPARSE_VERSION_MAX) {
    throw new UnsupportedError(`VMDK sparse extent of version ${version}`, { source: file.name });
  }
  const newline = Buffer.from(fields.slice(at.singleEndLineChar, 4)).toString('hex');
  if (fields.u32(at.flags) & layout.SPARSEFLAG_VALID_NEWLINE_DETECTOR && newline !== layout.NEWLINE_DETECTOR) {
    throw fields.corrupt(
      'newline detection bytes',
      at.singleEndLineChar,
      layout.NEWLINE_DETECTOR,
      `${newline} (the file was changed by a transfer in text mode)`,
    );
  }
  const header = layout.readSparseExtentHeader(fields);
  refuseFeatures(header, file.name);
  checkNumbers(header, fields, file);
  return header;
}

function refuseFeatures(header: SparseExtentHeader, source: string): void {
  const { flags, compressAlgorithm } = header;
  const streaming = layout.SPARSEFLAG_COMPRESSED | layout.SPARSEFLAG_EMBEDDED_LBA;
  const unknown = flags & layout.SPARSEFLAG_INCOMPAT_FLAGS & ~streaming;
  if (unknown !== 0) {
    throw new UnsupportedError(`VMDK sparse extent flags 0x${(unknown >>> 0).toString(16)}`, { source });
  }
  if (compressAlgorithm > layout.SPARSE_COMPRESSALGORITHM_DEFLATE) {
    throw new UnsupportedError(`VMDK compression algorithm ${compressAlgorithm}`, { source });
  }
  if (
    flags & streaming ||
    compressAlgorithm !== layout.SPARSE_COMPRESSALGORITHM_NONE ||
    header.gdOffset === undefined
  ) {
    throw new UnsupportedError('VMDK streamOptimized', { source });
  }
}

function checkNumbers(header: SparseExtentHeader, fields: Fields, file: OpenFile): void {
  const at = layout.SparseExtentHeaderOffsets;
  const { grainSize, numGTEsPerGT, capacity, overHead } = header;
  fields.require(
    grainSize >= 1 && grainSize <= layout.MAX_GRAIN_SECTORS && 2 ** Math.round(Math.log2(grainSize)) === grainSize,
    'grainSize',
    at.grainSize,
    `a power of two up to ${layout.MAX_GRAIN_SECTORS}`,
    grainSize,
  );
  fields.require(
    numGTEsPerGT >= 1 && numGTEsPerGT <= layout.SPARSE_MAX_GTES_PER_GT,
    'numGTEsPerGT',
    at.numGTEsPerGT,
    `1 to ${layout.SPARSE_MAX_GTES_PER_GT}`,
    numGTEsPerGT,
  );
  const most = Math.floor(Number.MAX_SAFE_INTEGER / SECTOR);
  fields.require(capacity >= 1 && capacity <= most, 'capacity', at.capacity, `1 to ${most} sectors`, capacity);
  const sectors = Math.ceil(file.size / SECTOR);
  fields.require(
    overHead <= sectors,
    'overHead',
    at.overHead,
    `at most the ${sectors} sectors of the file, or a file that was not cut off`,
    `${overHead} sectors of tables`,
  );
}

export class SparseExtent implements Extent {
  readonly kind = 'sparse';
  readonly file: OpenFile;
  readonly size: number;
  readonly header: SparseExtentHeader;
  readonly #map: GrainMap;
  /** What opening found wrong and could do without. */
  readonly #findings: Finding[] = [];

  /**
   * The extent over a header that `readSparseHeader` has checked. `size` is what the descriptor says it covers, in bytes.
   * @throws CorruptError when the size is not the header's, or when neither grain directory lies in the file.
   */
  constructor(file: OpenFile, header: SparseExtentHeader, size: number) {
    this.file = file;
    this.header = header;
    this.size = size;
    const at = layout.SparseExtentHeaderOffsets;
    const grainBytes = header.grainSize * SECTOR;
    const capacity = header.capacity * SECTOR;
    checkExtentSize(HEADER, file, at.capacity, size, capacity, grainBytes);
    const descriptorEnd = (header.descriptorOffset + header.descriptorSize) * SECTOR;
    const embedded = header.descriptorOffset === 1 && descriptorEnd <= header.overHead * SECTOR;
    const reserved = embedded ? descriptorEnd : layout.SPARSE_HEADER_BYTES;
    const tables = tableCount({ capacity: size, entriesPerTable: header.numGTEsPerGT, grainBytes });
    const primary = (header.gdOffset ?? 0) * SECTOR;
    const hasCopy = (header.flags & layout.SPARSEFLAG_USE_REDUNDANT) !== 0 && header.rgdOffset !== 0;
    const copy = hasCopy ? header.rgdOffset * SECTOR : undefined;
    const primaryFits = directoryFits(file, primary, tables, reserved);
    const copyFits = copy !== undefined && directoryFits(file, copy, tables, reserved);
    if (!primaryFits) {
      const error = badDirectory(HEADER, 'gdOffset', file, at.gdOffset, primary, tables);
      if (!copyFits) throw error;
      this.#findings.push({
        severity: 'damaged',
        code: 'directory-out-of-file',
        message: error.message,
        source: file.name,
        structure: `${HEADER} gdOffset`,
        position: at.gdOffset,
        found: header.gdOffset ?? 0,
        remedy: 'The redundant grain directory is used in its place.',
      });
    } else if (copy !== undefined && !copyFits) {
      this.#findings.push({
        severity: 'damaged',
        code: 'redundant-directory-out-of-file',
        message: badDirectory(HEADER, 'rgdOffset', file, at.rgdOffset, copy, tables).message,
        source: file.name,
        structure: `${HEADER} rgdOffset`,
        position: at.rgdOffset,
        found: header.rgdOffset,
        remedy: 'The disk reads from its primary tables; it has no second copy of them.',
      });
    }
    this.#map = new GrainMap({
      family: FAMILY,
      file,
      capacity: size,
      grainBytes,
      entriesPerTable: header.numGTEsPerGT,
      directory: primaryFits ? primary : copy!,
      redundantDirectory: primaryFits && copyFits && copy !== primary ? copy : undefined,
      reserved,
      zeroedGrains: (header.flags & layout.SPARSEFLAG_MAGIC_GTE) !== 0,
    });
  }

  get granularity(): number {
    return this.#map.geometry.grainBytes;
  }
  get step(): number {
    return this.#map.step;
  }
  get properties(): Readonly<Record<string, string | number | boolean>> {
    return {
      sparseVersion: this.header.version,
      grainSize: this.granularity,
      redundantTables: this.#map.geometry.redundantDirectory !== undefined,
      zeroedGrains: this.#map.geometry.zeroedGrains,
      uncleanShutdown: this.header.uncleanShutdown !== 0,
    };
  }

  runs(offset: number, length: number, base: number, out: RunList): Io<void> {
    return this.#map.runs(offset, length, base, out);
  }

  async *check(signal: AbortSignal | undefined): AsyncGenerator<Finding> {
    yield* this.#findings;
    const at = layout.SparseExtentHeaderOffsets;
    if (this.header.uncleanShutdown !== 0) yield uncleanShutdown(this.file, HEADER, at.uncleanShutdown);
    if (this.header.capacity * SECTOR !== this.size) {
      yield sizeDiffers(HEADER, this.file, at.capacity, this.size, this.header.capacity * SECTOR);
    }
    yield* checkGrains(this.#map, { metadataEnd: this.header.overHead * SECTOR, signal });
  }
}

/** A note: the writer had the extent open when it stopped, or has it open still. */
export function uncleanShutdown(file: OpenFile, structure: string, position: number): Finding {
  return {
    severity: 'note',
    code: 'unclean-shutdown',
    message: `${file.name} was not closed cleanly by what wrote it last`,
    source: file.name,
    structure: `${structure} uncleanShutdown`,
    position,
    expected: 0,
    found: 1,
    remedy: 'It reads as it is; compare it with another backup if the virtual machine was running when it was copied.',
  };
}

/** A finding: header and descriptor differ by less than a grain. */
export function sizeDiffers(
  structure: string,
  file: OpenFile,
  position: number,
  size: number,
  capacity: number,
): Finding {
  return {
    severity: 'note',
    code: 'capacity-rounded',
    message: `${file.name} says it holds ${capacity} bytes, its descriptor says ${size}; the descriptor is followed`,
    source: file.name,
    structure: `${structure} capacity`,
    position,
    expected: size,
    found: capacity,
  };
}

/**
 * Writers may round the capacity up to a grain. Any other difference leaves open where the next extent begins on the disk, or
 * promises sectors that the extent does not have. @throws CorruptError.
 */
export function checkExtentSize(
  structure: string,
  file: OpenFile,
  position: number,
  size: number,
  capacity: number,
  grainBytes: number,
): void {
  if (capacity >= size && capacity - size < grainBytes) return;
  throw new CorruptError(`${structure} capacity`, {
    source: file.name,
    position,
    expected: `${size / SECTOR} sectors, as its descriptor says`,
    found: `${capacity / SECTOR} sectors`,
  });
}

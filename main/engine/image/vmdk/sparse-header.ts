/**
 * The header of a hosted sparse extent ("KDMV") and its footer. A writer that streams does not know where its tables will be when it
 * writes the header, so it says GD_AT_END there and repeats the header as the last but one sector of the file, filled in. VMware,
 * "Virtual Disk Format 5.0", "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse Extents"; version 3 is version 1 for
 * a reader (VMware KB 2064959).
 */
import { Fields, isZero } from '../../binary.ts';
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Finding } from '../image.ts';
import * as layout from './layout.ts';
import { SECTOR, type SparseExtentHeader } from './layout.ts';

export const HEADER = 'VMDK sparse extent header';
export const FOOTER = 'VMDK footer';

/** What opening learns of an extent before its tables. */
export interface SparseHeader {
  /** As it stands at the front. */
  readonly front: SparseExtentHeader;
  /** As it holds: the footer where there is one. */
  readonly header: SparseExtentHeader;
  /** Of `header`, in bytes. */
  readonly position: number;
  /** `VMDK sparse extent header` or `VMDK footer`. */
  readonly structure: string;
  /** Where the end-of-stream marker behind the footer ends. */
  readonly streamEnd?: number;
}

/**
 * Reads and checks the header at the front only: enough for the descriptor embedded behind it.
 * @throws CorruptError, UnsupportedError, IoError.
 */
export async function readFrontHeader(file: OpenFile): Promise<SparseExtentHeader> {
  if (file.size < layout.SPARSE_HEADER_BYTES) {
    throw new CorruptError(HEADER, {
      source: file.name,
      position: 0,
      expected: `${layout.SPARSE_HEADER_BYTES} bytes`,
      found: `a file of ${file.size} bytes`,
    });
  }
  const fields = new Fields(await file.read(0, layout.SPARSE_HEADER_BYTES), HEADER, file.name, 0);
  return parseHeader(fields, file);
}

/**
 * Reads and checks the header of a hosted sparse extent, and its footer where the header says that there is one. `front` is what
 * `readFrontHeader` gave, where that has been called.
 * @throws CorruptError, also when the footer is not there; UnsupportedError, IoError.
 */
export async function readSparseHeader(file: OpenFile, front?: SparseExtentHeader): Promise<SparseHeader> {
  const first = front ?? (await readFrontHeader(file));
  if (first.gdOffset !== undefined) return { front: first, header: first, position: 0, structure: HEADER };
  const { fields, streamEnd } = await findFooter(file);
  const header = parseHeader(fields, file);
  if (header.gdOffset === undefined) {
    const expected = 'the sector of the grain directory';
    throw fields.corrupt('gdOffset', layout.SparseExtentHeaderOffsets.gdOffset, expected, 'GD_AT_END');
  }
  requireAgreement(first, header, fields);
  return { front: first, header, position: fields.position, structure: FOOTER, streamEnd };
}

function parseHeader(fields: Fields, file: OpenFile): SparseExtentHeader {
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
  checkFeatures(header, fields);
  checkNumbers(header, fields, file);
  return header;
}

function checkFeatures(header: SparseExtentHeader, fields: Fields): void {
  const { flags, compressAlgorithm } = header;
  const at = layout.SparseExtentHeaderOffsets;
  const known = layout.SPARSEFLAG_COMPRESSED | layout.SPARSEFLAG_EMBEDDED_LBA;
  const unknown = flags & layout.SPARSEFLAG_INCOMPAT_FLAGS & ~known;
  const { source } = fields;
  if (unknown !== 0) {
    throw new UnsupportedError(`VMDK sparse extent flags 0x${(unknown >>> 0).toString(16)}`, { source });
  }
  if (compressAlgorithm > layout.SPARSE_COMPRESSALGORITHM_DEFLATE) {
    throw new UnsupportedError(`VMDK compression algorithm ${compressAlgorithm}`, { source });
  }
  const compressed = (flags & layout.SPARSEFLAG_COMPRESSED) !== 0;
  const expected = compressed ? layout.SPARSE_COMPRESSALGORITHM_DEFLATE : layout.SPARSE_COMPRESSALGORITHM_NONE;
  fields.require(
    compressAlgorithm === expected,
    'compressAlgorithm',
    at.compressAlgorithm,
    `${expected}, since the flags are 0x${flags.toString(16)}`,
    compressAlgorithm,
  );
  if (!compressed && flags & layout.SPARSEFLAG_EMBEDDED_LBA) {
    throw new UnsupportedError('VMDK sparse extent with markers and without compression', { source });
  }
}

function checkNumbers(header: SparseExtentHeader, fields: Fields, file: OpenFile): void {
  const at = layout.SparseExtentHeaderOffsets;
  const { grainSize, numGTEsPerGT, capacity, overHead, gdOffset } = header;
  fields.require(
    grainSize >= 1 && grainSize <= layout.MAX_GRAIN_SECTORS && 2 ** Math.round(Math.log2(grainSize)) === grainSize,
    'grainSize',
    at.grainSize,
    `a power of two up to ${layout.MAX_GRAIN_SECTORS}`,
    grainSize,
  );
  if (header.flags & layout.SPARSEFLAG_COMPRESSED && grainSize * SECTOR > layout.MAX_COMPRESSED_GRAIN) {
    throw new UnsupportedError(`VMDK with compressed grains of ${grainSize} sectors`, { source: file.name });
  }
  fields.require(
    numGTEsPerGT >= 1 && numGTEsPerGT <= layout.SPARSE_MAX_GTES_PER_GT,
    'numGTEsPerGT',
    at.numGTEsPerGT,
    `1 to ${layout.SPARSE_MAX_GTES_PER_GT}`,
    numGTEsPerGT,
  );
  const most = Math.floor(Number.MAX_SAFE_INTEGER / SECTOR);
  // A writer that streams may not know how large the disk will be until it writes the footer.
  const least = gdOffset === undefined ? 0 : 1;
  fields.require(
    capacity >= least && capacity <= most,
    'capacity',
    at.capacity,
    `${least} to ${most} sectors`,
    capacity,
  );
  const sectors = Math.ceil(file.size / SECTOR);
  fields.require(
    overHead <= sectors,
    'overHead',
    at.overHead,
    `at most the ${sectors} sectors of the file, or a file that was not cut off`,
    `${overHead} sectors of tables`,
  );
}

/** Bytes at the end of a file in which the footer is looked for: a copy to a device or a tape may have padded it. */
const FOOTER_SEARCH = 1 << 16;

/** The footer: between its marker and the end-of-stream marker, the last two sectors of the file unless something follows. */
async function findFooter(file: OpenFile): Promise<{ fields: Fields; streamEnd: number }> {
  const end = Math.floor(file.size / SECTOR) * SECTOR;
  const start = Math.max(SECTOR, end - FOOTER_SEARCH);
  const tail = await file.read(start, Math.max(0, end - start));
  const sectors = new Fields(tail, FOOTER, file.name, start);
  for (let at = tail.length - 2 * SECTOR; at >= SECTOR; at -= SECTOR) {
    if (sectors.u32(at) !== layout.SPARSE_MAGICNUMBER) continue;
    const before = at - SECTOR + layout.GrainMarkerOffsets.size;
    if (sectors.u32(before) !== 0 || sectors.u32(before + 4) !== layout.MARKER_FOOTER) continue;
    if (!isZero(sectors.slice(at + SECTOR, GRAIN_AND_TYPE))) continue;
    const fields = new Fields(tail.subarray(at, at + SECTOR), FOOTER, file.name, start + at);
    return { fields, streamEnd: start + at + 2 * SECTOR };
  }
  throw new CorruptError(FOOTER, {
    source: file.name,
    position: Math.max(0, end - 2 * SECTOR),
    expected: 'the footer that leads to the grain directory, at the end of the file',
    found:
      'none: the end of the file is missing, and with it the tables that say where each grain is; copy or export it again',
  });
}

/** Number, size and type of a marker. */
const GRAIN_AND_TYPE = 16;

/** Header and footer are one structure written twice. Where they contradict each other neither can be followed. */
function requireAgreement(front: SparseExtentHeader, footer: SparseExtentHeader, fields: Fields): void {
  const at = layout.SparseExtentHeaderOffsets;
  const agree = (name: keyof typeof at, inFront: number, inFooter: number) => {
    fields.require(inFront === inFooter, name, at[name], `${inFront}, as in the header`, inFooter);
  };
  const decisive = layout.SPARSEFLAG_INCOMPAT_FLAGS | layout.SPARSEFLAG_MAGIC_GTE;
  agree('flags', front.flags & decisive, footer.flags & decisive);
  agree('compressAlgorithm', front.compressAlgorithm, footer.compressAlgorithm);
  agree('grainSize', front.grainSize, footer.grainSize);
  agree('numGTEsPerGT', front.numGTEsPerGT, footer.numGTEsPerGT);
  if (front.capacity !== 0) agree('capacity', front.capacity, footer.capacity);
}

/** Fields in which header and footer may differ without harm, as a finding. */
export function footerDiffers({ front, header, position }: SparseHeader, source: string): Finding | undefined {
  const names = ['version', 'flags', 'descriptorOffset', 'descriptorSize', 'rgdOffset', 'overHead'] as const;
  const differing = names.find((name) => front[name] !== header[name]);
  if (differing === undefined) return undefined;
  return {
    severity: 'note',
    code: 'footer-differs',
    message: `The header and the footer of ${source} differ in ${differing}; the footer is followed`,
    source,
    structure: `${FOOTER} ${differing}`,
    position: position + layout.SparseExtentHeaderOffsets[differing],
    expected: front[differing],
    found: header[differing],
  };
}

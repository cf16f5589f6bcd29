/**
 * VirtualBox's VDI as one layer of a chain: dynamic, fixed and differencing images of versions 0.x, 1.0 and 1.1.
 *
 * A differencing image records no name of its parent, only the UUID of that image and the UUID of its last modification: the
 * parent is looked for by the first, and `verify` compares the second. VirtualBox keeps encryption out of the image (in the .vbox),
 * so an encrypted one can't be told here; the catalogue refuses it.
 */
import { Fields } from '../../binary.ts';
import { throwIfCancelled, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { checkRange } from '../../storage/byte-source.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { type Io, runAsync } from '../../storage/io.ts';
import type { Finding, ImageFormat, ImageLayer, LayerFile, LayerRun, ParentClaim } from '../image.ts';
import { isRawByName } from '../raw/raw-layer.ts';
import { RunList } from '../run-list.ts';
import { BlockMap, ENTRIES_AT_ONCE } from './block-map.ts';
import type { Geometry, VdiHeader } from './layout.ts';
import * as layout from './layout.ts';
import { checkBlockMap } from './vdi-check.ts';

const HEADER = 'VDI header';

/** Opens the VDI at `path`. @throws CorruptError, UnsupportedError, IoError, DeniedError. */
export async function openVdi(path: string, folder: Confinement): Promise<ImageLayer> {
  const file = folder.open(path);
  try {
    return new VdiLayer(file, await readHeader(file));
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readHeader(file: OpenFile): Promise<VdiHeader> {
  const fields = new Fields(await file.read(0, Math.min(layout.ALL_HEADERS_BYTES, file.size)), HEADER, file.name, 0);
  const signature = fields.u32(layout.SIGNATURE_OFFSET);
  fields.require(
    signature === layout.SIGNATURE,
    'u32Signature',
    layout.SIGNATURE_OFFSET,
    hex(layout.SIGNATURE),
    hex(signature),
  );
  const version = fields.u32(layout.VERSION_OFFSET);
  const [major, minor] = [version >>> 16, version & 0xffff];
  // VirtualBox reads every minor version of 0, and has never written a 1.2.
  if (major > 1 || (major === 1 && minor > 1)) {
    throw new UnsupportedError(`VDI version ${major}.${minor}`, { source: file.name });
  }
  const header = major === 0 ? layout.readHeader0(fields, minor) : layout.readHeader1(fields, minor);
  checkKind(header, fields);
  checkNumbers(header, fields, file.size);
  return header;
}

function checkKind(header: VdiHeader, fields: Fields): void {
  const { at, type, flags, parent } = header;
  const kind = layout.IMAGE_TYPES.get(type);
  if (kind === undefined) throw fields.corrupt('u32Type', at.type, '1 to 4', type);
  // The same layout, but what it is a part of (a log of changes to be taken back) nobody has written since 2006.
  if (kind === 'undo') throw new UnsupportedError('VDI undo image', { source: fields.source });
  if ((flags & ~layout.FLAG_ZERO_EXPAND) !== 0) {
    throw new UnsupportedError(`VDI image flags ${hex(flags)}`, { source: fields.source });
  }
  // Type and parent have to agree: a child that is taken for a base would show zeros in place of its parent's data.
  fields.require(
    kind !== 'differencing' || parent !== undefined,
    'uuidLinkage',
    at.parent,
    "the parent's UUID",
    'none',
  );
  fields.require(
    kind === 'differencing' || parent === undefined,
    'uuidLinkage',
    at.parent,
    `none, as the image is ${kind}`,
    parent ?? '',
  );
}

function checkNumbers(header: VdiHeader, fields: Fields, fileSize: number): void {
  const { at, blockSize, blockExtra, blocks, diskSize, offBlocks, offData } = header;
  fields.require(
    blockSize >= layout.SECTOR && isPowerOfTwo(blockSize),
    'cbBlock',
    at.blockSize,
    `a power of two from ${layout.SECTOR}`,
    blockSize,
  );
  fields.require(
    blockExtra === 0 || isPowerOfTwo(blockExtra),
    'cbBlockExtra',
    at.blockExtra,
    '0 or a power of two',
    blockExtra,
  );
  fields.require(
    diskSize > 0 && Math.ceil(diskSize / blockSize) <= blocks,
    'cbDisk',
    at.diskSize,
    `1 to ${blocks * blockSize} bytes, for it has ${blocks} blocks of ${blockSize}`,
    diskSize,
  );
  const headerEnd = layout.VERSION_OFFSET + 4 + layout.HEADER0_BYTES;
  fields.require(
    offBlocks >= headerEnd && offBlocks + blocks * 4 <= fileSize,
    'offBlocks',
    at.offBlocks,
    `a map of ${blocks} entries behind the header, inside the ${fileSize} bytes of the file`,
    `one at byte ${offBlocks}`,
  );
  const mapEnd = offBlocks + blocks * 4;
  fields.require(offData >= mapEnd, 'offData', at.offData, `at least ${mapEnd}, the end of the block map`, offData);
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && 2 ** Math.round(Math.log2(value)) === value;
}

function hex(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
}

class VdiLayer implements ImageLayer {
  readonly format = 'vdi';
  readonly variant: string;
  readonly name: string;
  readonly path: string;
  readonly virtualSize: number;
  readonly parent: ParentClaim | undefined;
  readonly id: string | undefined;
  readonly stateId?: string;
  readonly files: readonly LayerFile[];
  readonly granularity: number;
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  readonly #file: OpenFile;
  readonly #header: VdiHeader;
  readonly #map: BlockMap;

  /** Takes over `file`. `header` has been checked. */
  constructor(file: OpenFile, header: VdiHeader) {
    this.#file = file;
    this.#header = header;
    this.variant = layout.IMAGE_TYPES.get(header.type)!;
    this.name = file.name;
    this.path = file.path;
    this.virtualSize = header.diskSize;
    this.id = header.uuid;
    if (header.modification !== undefined) this.stateId = header.modification;
    this.parent = claimOf(header);
    this.files = [{ role: 'image', name: file.name, path: file.path, size: file.size }];
    this.granularity = header.blockSize;
    this.properties = propertiesOf(header);
    this.#map = new BlockMap({ file, ...header, differencing: header.parent !== undefined });
  }

  *runs(offset: number, length: number): Io<LayerRun[]> {
    checkRange({ name: this.name, size: this.virtualSize }, offset, length);
    const out = new RunList();
    yield* this.#map.runs(offset, length, out);
    return out.finish();
  }

  async allocatedBytes(signal?: AbortSignal): Promise<number> {
    let total = 0;
    const step = ENTRIES_AT_ONCE * this.granularity;
    for (let at = 0; at < this.virtualSize; at += step) {
      throwIfCancelled(signal);
      for (const run of await runAsync(this.runs(at, Math.min(step, this.virtualSize - at)), signal)) {
        if (run.kind === 'data') total += run.length;
      }
    }
    return total;
  }

  async *check(signal?: AbortSignal): AsyncGenerator<Finding> {
    throwIfCancelled(signal, 'The check');
    yield* headerFindings(this.#header, this.name);
    yield* checkBlockMap(this.#map, this.#header, signal);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

function claimOf({ parent, parentModification }: VdiHeader): ParentClaim | undefined {
  if (parent === undefined) return undefined;
  return {
    recorded: parent,
    nameless: true,
    id: parent,
    ...(parentModification === undefined ? {} : { stateId: parentModification }),
  };
}

function propertiesOf(header: VdiHeader): Readonly<Record<string, string | number | boolean>> {
  const { uuid, modification, parent, parentModification, comment, geometry, legacyGeometry } = header;
  const shape = [geometry, legacyGeometry].find((known) => known !== undefined && known.cylinders > 0);
  return {
    version: `${header.major}.${header.minor}`,
    blockSize: header.blockSize,
    ...(header.blockExtra === 0 ? {} : { blockExtra: header.blockExtra }),
    ...(uuid === undefined ? {} : { uuid }),
    ...(modification === undefined ? {} : { modificationUuid: modification }),
    ...(parent === undefined ? {} : { parentUuid: parent }),
    ...(parentModification === undefined ? {} : { parentModificationUuid: parentModification }),
    ...(shape === undefined ? {} : { geometry: chs(shape) }),
    ...(comment === '' ? {} : { comment }),
  };
}

function chs({ cylinders, heads, sectors }: Geometry): string {
  return `${cylinders}/${heads}/${sectors}`;
}

function* headerFindings(header: VdiHeader, source: string): Generator<Finding> {
  const { at, uuid, modification, diskSize, geometry, legacyGeometry } = header;
  if (uuid === undefined) {
    yield {
      severity: 'suspicious',
      code: 'no-identity',
      message: `${source} has no UUID: no image can record it as its parent, and VirtualBox refuses it`,
      source,
      structure: `${HEADER} uuidCreate`,
      position: at.uuid,
      expected: 'a UUID',
      found: 'zeros',
    };
  }
  if (modification === undefined) {
    yield {
      severity: 'note',
      code: 'no-modification-id',
      message: `${source} records no UUID of its last modification; that it is as its children knew it can't be told`,
      source,
      structure: `${HEADER} uuidModify`,
      position: at.modification,
    };
  }
  if (diskSize % layout.SECTOR !== 0) {
    yield {
      severity: 'note',
      code: 'partial-sector',
      message: `${source} is a disk of ${diskSize} bytes, which is no whole number of sectors, as VBoxManage makes of odd raw files`,
      source,
      structure: `${HEADER} cbDisk`,
      position: at.diskSize,
      expected: `a multiple of ${layout.SECTOR}`,
      found: diskSize,
    };
  }
  const sectorBytes = geometry?.sectorBytes ?? legacyGeometry.sectorBytes;
  if (sectorBytes !== layout.SECTOR && sectorBytes !== 0) {
    yield {
      severity: 'suspicious',
      code: 'sector-size',
      message: `${source} says its sectors have ${sectorBytes} bytes; VirtualBox has never used others than ${layout.SECTOR}`,
      source,
      structure: `${HEADER} cbSector`,
      expected: layout.SECTOR,
      found: sectorBytes,
      remedy: 'It reads as it is: no block depends on it.',
    };
  }
}

/** True for the signature, and for anything called `.vdi`, so that one whose header is ruined is reported as such. */
function detectVdi(prefix: Uint8Array, fileName: string): boolean {
  if (isRawByName(fileName)) return false;
  const at = layout.SIGNATURE_OFFSET;
  return Buffer.from(prefix.subarray(at, at + 4)).toString('hex') === layout.SIGNATURE_HEX || /\.vdi$/i.test(fileName);
}

export const vdiFormat: ImageFormat = { name: 'vdi', detect: detectVdi, open: openVdi };

/**
 * VMDK as it is written: monolithicSparse and streamOptimized extents, and the descriptor of all three kinds.
 *
 * - VMware, "Virtual Disk Format 5.0" (technical note, 2011) and "Virtual Disk Format 1.1" (2007): header, grain directory and
 *   tables, markers, footer, descriptor, disk database.
 *   http://www.vmware.com/support/developer/vddk/vmdk_50_technote.pdf
 * - VMware's products take a streamOptimized extent only with version 3 in its header (QEMU, commit d62d9dc4b8): a reader treats
 *   it as version 1.
 */
import { randomBytes, randomInt } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { UnsupportedError } from '../../errors.ts';
import * as vmdk from '../../image/vmdk/layout.ts';
import type { Layout, Plan } from '../plan.ts';
import { put, Structure, setLength } from './put.ts';

const { SECTOR } = vmdk;
export const GRAIN_BYTES = 65_536;
export const ENTRIES_PER_TABLE = 512;
/** Bytes of the disk that one grain table covers. */
export const TABLE_COVERS = GRAIN_BYTES * ENTRIES_PER_TABLE;
export const TABLE_BYTES = ENTRIES_PER_TABLE * 4;
const DESCRIPTOR_SECTOR = 1;
const DESCRIPTOR_SECTORS = 20;
/** Entries point with 32 bits, in sectors: the end of what a grain can be at, in bytes. */
export const REACH = 2 ** 32 * SECTOR;
/** Where the first marker of a streamOptimized extent is. */
const STREAM_DATA = 128 * SECTOR;

export const MARKER_EOS = 0;
export const MARKER_GT = 1;
export const MARKER_GD = 2;
export const MARKER_FOOTER = 3;

type Planned<K extends Layout['kind']> = { unit: number; layout: Extract<Layout, { kind: K }> };

function align(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

export function planSparseVmdk(imageSize: number): Planned<'grains'> {
  const tableCount = Math.ceil(imageSize / TABLE_COVERS);
  const directoryBytes = align(tableCount * 4, SECTOR);
  const redundantDirectory = (DESCRIPTOR_SECTOR + DESCRIPTOR_SECTORS) * SECTOR;
  const redundantTables = redundantDirectory + directoryBytes;
  const directory = redundantTables + tableCount * TABLE_BYTES;
  const tables = directory + directoryBytes;
  const dataStart = align(tables + tableCount * TABLE_BYTES, GRAIN_BYTES);
  return {
    unit: GRAIN_BYTES,
    layout: { kind: 'grains', redundantDirectory, redundantTables, directory, tables, tableCount, dataStart },
  };
}

export function planStreamVmdk(imageSize: number): Planned<'stream'> {
  return {
    unit: GRAIN_BYTES,
    layout: { kind: 'stream', tableCount: Math.ceil(imageSize / TABLE_COVERS), dataStart: STREAM_DATA },
  };
}

/** The error for a file that its tables can't reach. */
export function outOfReach(variant: string): UnsupportedError {
  return new UnsupportedError(`a VMDK ${variant} file of more than 2 TiB`, { variant });
}

interface Header {
  readonly version: number;
  readonly flags: number;
  readonly capacity: number;
  readonly redundantDirectory: number;
  /** Sector; undefined: found through the footer. */
  readonly directory: number | undefined;
  readonly overHead: number;
  readonly compressed: boolean;
}

function sparseHeader(header: Header): Buffer {
  const at = vmdk.SparseExtentHeaderOffsets;
  const record = new Structure(SECTOR)
    .u32(at.magicNumber, vmdk.SPARSE_MAGICNUMBER)
    .u32(at.version, header.version)
    .u32(at.flags, header.flags)
    .u64(at.capacity, header.capacity / SECTOR)
    .u64(at.grainSize, GRAIN_BYTES / SECTOR)
    .u64(at.descriptorOffset, DESCRIPTOR_SECTOR)
    .u64(at.descriptorSize, DESCRIPTOR_SECTORS)
    .u32(at.numGTEsPerGT, ENTRIES_PER_TABLE)
    .u64(at.rgdOffset, header.redundantDirectory)
    .u64(at.overHead, header.overHead)
    .u8(at.uncleanShutdown, 0)
    .put(at.singleEndLineChar, Buffer.from(vmdk.NEWLINE_DETECTOR, 'hex'))
    .u16(
      at.compressAlgorithm,
      header.compressed ? vmdk.SPARSE_COMPRESSALGORITHM_DEFLATE : vmdk.SPARSE_COMPRESSALGORITHM_NONE,
    );
  if (header.directory === undefined) record.bytes.writeBigUInt64LE(vmdk.SPARSE_GD_AT_END, at.gdOffset);
  else record.u64(at.gdOffset, header.directory);
  return record.bytes;
}

/** A marker: `value` and `type` as the specification has them, alone in a sector. */
export function marker(value: number, type: number): Buffer {
  return new Structure(SECTOR).u64(0, value).u32(8, 0).u32(12, type).bytes;
}

/** Geometry as VMware gives SCSI disks: small ones have fewer heads, so that a cylinder is 1, 2 or nearly 8 MiB. */
function geometry(size: number): { cylinders: number; heads: number; sectors: number } {
  const [heads, sectors] = size < 2 ** 30 ? [64, 32] : size < 2 ** 31 ? [128, 32] : [255, 63];
  return { heads, sectors, cylinders: Math.max(1, Math.floor(size / (heads * sectors * SECTOR))) };
}

/**
 * The descriptor of a new disk without a parent.
 * @param extent name of the file that holds the disk's bytes (of the image itself, where that is sparse).
 */
export function descriptorText(variant: string, imageSize: number, extent: string): string {
  // Neither of the two values that mean "no content id".
  const cid = randomInt(1, 0xffff_fffe).toString(16).padStart(8, '0');
  const { cylinders, heads, sectors } = geometry(imageSize);
  const uuid = randomBytes(16).toString('hex').match(/../g)!;
  const type = variant === 'monolithicFlat' ? 'FLAT' : 'SPARSE';
  return [
    '# Disk DescriptorFile',
    'version=1',
    'encoding="UTF-8"',
    `CID=${cid}`,
    'parentCID=ffffffff',
    `createType="${variant}"`,
    '',
    '# Extent description',
    `RW ${imageSize / SECTOR} ${type} "${extent}"${type === 'FLAT' ? ' 0' : ''}`,
    '',
    '# The Disk Data Base',
    '#DDB',
    '',
    'ddb.adapterType = "lsilogic"',
    `ddb.geometry.cylinders = "${cylinders}"`,
    `ddb.geometry.heads = "${heads}"`,
    `ddb.geometry.sectors = "${sectors}"`,
    `ddb.longContentID = "${randomBytes(12).toString('hex')}${cid}"`,
    `ddb.uuid = "${uuid.slice(0, 8).join(' ')}-${uuid.slice(8).join(' ')}"`,
    'ddb.virtualHWVersion = "7"',
    '',
  ].join('\n');
}

function embeddedDescriptor(variant: string, imageSize: number, name: string): Buffer {
  const bytes = Buffer.alloc(DESCRIPTOR_SECTORS * SECTOR);
  bytes.write(descriptorText(variant, imageSize, name), 'utf8');
  return bytes;
}

/** Directory entries made at a time. */
const ENTRIES_AT_ONCE = 65_536;

/** Header, descriptor and both directories of a monolithicSparse image whose tables and grains are written. @throws IoError. */
export async function finishSparseVmdk(
  handle: FileHandle,
  name: string,
  plan: Plan,
  layout: Extract<Layout, { kind: 'grains' }>,
  imageName: string,
  places: number,
): Promise<void> {
  await setLength(handle, name, layout.dataStart + places * plan.unit);
  const directories = [
    { at: layout.redundantDirectory, tables: layout.redundantTables },
    { at: layout.directory, tables: layout.tables },
  ];
  for (const { at, tables } of directories) {
    for (let first = 0; first < layout.tableCount; first += ENTRIES_AT_ONCE) {
      const count = Math.min(ENTRIES_AT_ONCE, layout.tableCount - first);
      const entries = new Structure(count * 4);
      for (let i = 0; i < count; i++) entries.u32(i * 4, (tables + (first + i) * TABLE_BYTES) / SECTOR);
      await put(handle, name, entries.bytes, at + first * 4);
    }
  }
  await put(handle, name, embeddedDescriptor(plan.variant, plan.imageSize, imageName), DESCRIPTOR_SECTOR * SECTOR);
  const header = sparseHeader({
    version: 1,
    flags: vmdk.SPARSEFLAG_VALID_NEWLINE_DETECTOR | vmdk.SPARSEFLAG_USE_REDUNDANT,
    capacity: plan.imageSize,
    redundantDirectory: layout.redundantDirectory / SECTOR,
    directory: layout.directory / SECTOR,
    overHead: layout.dataStart / SECTOR,
    compressed: false,
  });
  await put(handle, name, header, 0);
}

/**
 * Header, descriptor, grain directory, footer and end marker of a streamOptimized image.
 * @param end of the grains and tables. @param directory sector of each grain table, 0 for none.
 */
export async function finishStreamVmdk(
  handle: FileHandle,
  name: string,
  plan: Plan,
  imageName: string,
  end: number,
  directory: Uint32Array,
): Promise<void> {
  await setLength(handle, name, end);
  const entries = Buffer.alloc(align(directory.length * 4, SECTOR));
  for (const [i, sector] of directory.entries()) entries.writeUInt32LE(sector, i * 4);
  const at = end + SECTOR;
  if (at + entries.length + 3 * SECTOR > REACH) throw outOfReach(plan.variant);
  const fields: Header = {
    version: vmdk.SPARSE_VERSION_MAX,
    flags: vmdk.SPARSEFLAG_VALID_NEWLINE_DETECTOR | vmdk.SPARSEFLAG_COMPRESSED | vmdk.SPARSEFLAG_EMBEDDED_LBA,
    capacity: plan.imageSize,
    redundantDirectory: 0,
    directory: undefined,
    overHead: STREAM_DATA / SECTOR,
    compressed: true,
  };
  const tail = [
    marker(entries.length / SECTOR, MARKER_GD),
    entries,
    marker(1, MARKER_FOOTER),
    sparseHeader({ ...fields, directory: at / SECTOR }),
    marker(0, MARKER_EOS),
  ];
  await put(handle, name, Buffer.concat(tail), end);
  await put(handle, name, embeddedDescriptor(plan.variant, plan.imageSize, imageName), DESCRIPTOR_SECTOR * SECTOR);
  await put(handle, name, sparseHeader(fields), 0);
}

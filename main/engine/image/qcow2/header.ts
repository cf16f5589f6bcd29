/**
 * The header of a QCOW2 image with its extensions. Strict: a field that can't be true is damage; a feature that a reader must know
 * and that we don't is refused with the name that the image gives it.
 */
import { Fields } from '../../binary.ts';
import { NeedsKeyError, UnsupportedError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import * as layout from './layout.ts';
import { HeaderOffsets as at } from './layout.ts';

const HEADER = 'QCOW2 header';
/** Enough for the header, its extensions and the backing file's name in every image that QEMU writes. */
const FIRST_READ = 4096;

export interface BitmapsExtension {
  readonly count: number;
  readonly directorySize: number;
  readonly directoryOffset: number;
}

export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** Bytes of the virtual disk. */
  readonly size: number;
  /** Entries of the active L1 table. */
  readonly l1Size: number;
  readonly l1Offset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  /** 2 to the power of this is the width of a refcount in bits. */
  readonly refcountOrder: number;
  readonly snapshotCount: number;
  readonly snapshotsOffset: number;
  readonly dirty: boolean;
  readonly corrupt: boolean;
  readonly extendedL2: boolean;
  readonly lazyRefcounts: boolean;
  readonly compression: 'deflate' | 'zstd';
  /** Guest clusters are in another file. */
  readonly externalData: boolean;
  /** That file is a raw disk by itself. */
  readonly rawData: boolean;
  readonly dataFile: string | undefined;
  readonly backingFile: string | undefined;
  readonly backingFormat: string | undefined;
  /** The bitmaps extension, and whether the image says that it is up to date. */
  readonly bitmaps: BitmapsExtension | undefined;
  readonly bitmapsValid: boolean;
}

/** Bytes of the disk that one L2 table covers. */
export function coverageOf(header: Pick<Qcow2Header, 'clusterSize' | 'extendedL2'>): number {
  return (header.clusterSize / (header.extendedL2 ? 16 : 8)) * header.clusterSize;
}

/** Reads and checks the header of a QCOW2 image. @throws CorruptError, UnsupportedError, NeedsKeyError, IoError. */
export async function readQcow2Header(file: ByteSource): Promise<Qcow2Header> {
  let fields = new Fields(await file.read(0, Math.min(FIRST_READ, file.size)), HEADER, file.name, 0);
  const version = layout.qcowVersion(fields.bytes);
  if (version === undefined) throw fields.corrupt('magic', 0, '514649fb', layout.hexOf(fields, 4));
  if (version !== 2 && version !== 3) throw new UnsupportedError(`QCOW version ${version}`, { source: file.name });
  const clusterBits = readClusterBits(fields);
  const clusterSize = 2 ** clusterBits;
  const features = readFeatures(fields, version, clusterSize);
  const backing = backingPlace(fields, clusterSize);
  const extensionsEnd = Math.min(backing === undefined ? clusterSize : backing.offset, file.size);
  // Rarely, a long feature table or name makes it longer than what was read.
  const wanted = Math.min(file.size, clusterSize, Math.max(extensionsEnd, backing?.end ?? 0));
  if (wanted > fields.length) fields = new Fields(await file.read(0, wanted), HEADER, file.name, 0);
  const extensions = readExtensions(fields, features.headerLength, Math.min(extensionsEnd, fields.length));
  refuseUnknown(features.incompatible, extensions.featureNames, file.name);
  refuseEncrypted(fields, file.name);
  const has = (bit: bigint) => (features.incompatible & bit) !== 0n;
  const extendedL2 = has(layout.INCOMPATIBLE_EXTENDED_L2);
  fields.require(
    !extendedL2 || clusterBits >= layout.MIN_EXTENDED_CLUSTER_BITS,
    'cluster_bits',
    at.cluster_bits,
    `at least ${layout.MIN_EXTENDED_CLUSTER_BITS} with extended L2 entries`,
    clusterBits,
  );
  const size = fields.u64be(at.size, 'size');
  const externalData = has(layout.INCOMPATIBLE_DATA_FILE);
  return {
    version,
    clusterBits,
    clusterSize,
    size,
    ...readL1(fields, file, size, clusterSize, coverageOf({ clusterSize, extendedL2 })),
    refcountTableOffset: fields.u64be(at.refcount_table_offset, 'refcount_table_offset'),
    refcountTableClusters: fields.u32be(at.refcount_table_clusters),
    refcountOrder: features.refcountOrder,
    snapshotCount: fields.u32be(at.nb_snapshots),
    snapshotsOffset: fields.u64be(at.snapshots_offset, 'snapshots_offset'),
    dirty: has(layout.INCOMPATIBLE_DIRTY),
    corrupt: has(layout.INCOMPATIBLE_CORRUPT),
    extendedL2,
    lazyRefcounts: (features.compatible & layout.COMPATIBLE_LAZY_REFCOUNTS) !== 0n,
    compression: features.compression,
    externalData,
    rawData: externalData && (features.autoclear & layout.AUTOCLEAR_DATA_FILE_RAW) !== 0n,
    dataFile: extensions.dataFile,
    backingFile: backing === undefined ? undefined : backingName(fields, backing),
    backingFormat: extensions.backingFormat,
    bitmaps: extensions.bitmaps,
    bitmapsValid: (features.autoclear & layout.AUTOCLEAR_BITMAPS) !== 0n,
  };
}

function readClusterBits(fields: Fields): number {
  const bits = fields.u32be(at.cluster_bits);
  if (bits > layout.MAX_CLUSTER_BITS && bits <= 30) {
    throw new UnsupportedError(`QCOW2 clusters of ${2 ** bits} bytes`, { source: fields.source });
  }
  fields.require(
    bits >= layout.MIN_CLUSTER_BITS && bits <= layout.MAX_CLUSTER_BITS,
    'cluster_bits',
    at.cluster_bits,
    `${layout.MIN_CLUSTER_BITS} to ${layout.MAX_CLUSTER_BITS}`,
    bits,
  );
  return bits;
}

interface Features {
  readonly headerLength: number;
  readonly incompatible: bigint;
  readonly compatible: bigint;
  readonly autoclear: bigint;
  readonly refcountOrder: number;
  readonly compression: 'deflate' | 'zstd';
}

/** The fields that version 3 has and version 2 implies. */
function readFeatures(fields: Fields, version: number, clusterSize: number): Features {
  if (version === 2) {
    return {
      headerLength: layout.V2_HEADER_BYTES,
      incompatible: 0n,
      compatible: 0n,
      autoclear: 0n,
      refcountOrder: 4,
      compression: 'deflate',
    };
  }
  const headerLength = fields.u32be(at.header_length);
  fields.require(
    headerLength >= layout.V3_HEADER_BYTES && headerLength <= clusterSize && headerLength % 8 === 0,
    'header_length',
    at.header_length,
    `a multiple of 8 from ${layout.V3_HEADER_BYTES} to ${clusterSize}`,
    headerLength,
  );
  const refcountOrder = fields.u32be(at.refcount_order);
  fields.require(
    refcountOrder <= layout.MAX_REFCOUNT_ORDER,
    'refcount_order',
    at.refcount_order,
    `at most ${layout.MAX_REFCOUNT_ORDER}`,
    refcountOrder,
  );
  const incompatible = fields.big64be(at.incompatible_features);
  return {
    headerLength,
    incompatible,
    compatible: fields.big64be(at.compatible_features),
    autoclear: fields.big64be(at.autoclear_features),
    refcountOrder,
    compression: readCompression(fields, headerLength, (incompatible & layout.INCOMPATIBLE_COMPRESSION) !== 0n),
  };
}

/** The field counts only where its feature bit is set, and must be zero where it is not. */
function readCompression(fields: Fields, headerLength: number, declared: boolean): 'deflate' | 'zstd' {
  const type = headerLength > at.compression_type ? fields.u8(at.compression_type) : layout.COMPRESSION_ZLIB;
  if (declared && type !== layout.COMPRESSION_ZLIB && type !== layout.COMPRESSION_ZSTD) {
    throw new UnsupportedError(`QCOW2 compression type ${type}`, { source: fields.source });
  }
  fields.require(
    declared === (type !== layout.COMPRESSION_ZLIB),
    'compression_type',
    at.compression_type,
    declared ? 'a type other than 0, as the feature bit says' : '0, as the feature bit is not set',
    type,
  );
  return type === layout.COMPRESSION_ZSTD ? 'zstd' : 'deflate';
}

interface Place {
  readonly offset: number;
  readonly end: number;
}

/** Where the backing file's name is: behind the header, in the first cluster. */
function backingPlace(fields: Fields, clusterSize: number): Place | undefined {
  const offset = fields.u64be(at.backing_file_offset, 'backing_file_offset');
  if (offset === 0) return undefined;
  const size = fields.u32be(at.backing_file_size);
  fields.require(
    offset >= layout.V2_HEADER_BYTES && offset <= clusterSize,
    'backing_file_offset',
    at.backing_file_offset,
    `${layout.V2_HEADER_BYTES} to ${clusterSize}`,
    offset,
  );
  const most = Math.min(layout.MAX_BACKING_NAME, clusterSize - offset);
  fields.require(size <= most, 'backing_file_size', at.backing_file_size, `at most ${most} bytes`, size);
  return { offset, end: offset + size };
}

/** The name up to its first NUL, as QEMU takes it; undefined for an empty one, which means that there is no backing file. */
function backingName(fields: Fields, place: Place): string | undefined {
  const bytes = fields.slice(place.offset, place.end - place.offset);
  const end = bytes.indexOf(0);
  return layout.textOf(end < 0 ? bytes : bytes.subarray(0, end)) || undefined;
}

interface Extensions {
  readonly backingFormat: string | undefined;
  readonly dataFile: string | undefined;
  readonly bitmaps: BitmapsExtension | undefined;
  /** Bit number of an incompatible feature -> what the image calls it. */
  readonly featureNames: ReadonlyMap<number, string>;
}

function readExtensions(fields: Fields, start: number, end: number): Extensions {
  let backingFormat: string | undefined;
  let dataFile: string | undefined;
  let bitmaps: BitmapsExtension | undefined;
  const featureNames = new Map<number, string>();
  for (let offset = start; offset + 8 <= end; ) {
    const type = fields.u32be(offset);
    if (type === layout.EXTENSION_END) break;
    const length = fields.u32be(offset + 4);
    const data = offset + 8;
    fields.require(length <= end - data, 'extension length', offset + 4, `at most ${end - data} bytes`, length);
    switch (type) {
      case layout.EXTENSION_BACKING_FORMAT:
        backingFormat = fields.ascii(data, length) || undefined;
        break;
      case layout.EXTENSION_DATA_FILE:
        dataFile = layout.textOf(fields.slice(data, length)) || undefined;
        break;
      case layout.EXTENSION_BITMAPS:
        bitmaps = readBitmapsExtension(fields, data, length);
        break;
      case layout.EXTENSION_FEATURE_NAMES:
        readFeatureNames(fields, data, length, featureNames);
        break;
      default:
        // Unknown extensions may be ignored, says the specification.
        break;
    }
    offset = data + Math.ceil(length / 8) * 8;
  }
  return { backingFormat, dataFile, bitmaps, featureNames };
}

/** Its directory is checked by whoever reads it: the disk does not need it. */
function readBitmapsExtension(fields: Fields, data: number, length: number): BitmapsExtension | undefined {
  if (length < layout.BITMAPS_EXTENSION_BYTES) return undefined;
  return {
    count: fields.u32be(data),
    directorySize: fields.u32be(data + 8) * 0x1_0000_0000 + fields.u32be(data + 12),
    directoryOffset: fields.u32be(data + 16) * 0x1_0000_0000 + fields.u32be(data + 20),
  };
}

function readFeatureNames(fields: Fields, data: number, length: number, names: Map<number, string>): void {
  for (let entry = 0; entry + layout.FEATURE_NAME_BYTES <= length; entry += layout.FEATURE_NAME_BYTES) {
    if (fields.u8(data + entry) !== 0) continue;
    const name = fields.ascii(data + entry + 2, layout.FEATURE_NAME_BYTES - 2);
    names.set(fields.u8(data + entry + 1), name.replace(/[^ -~]/g, '?'));
  }
}

/** @throws UnsupportedError naming every incompatible feature that is not known here. */
function refuseUnknown(incompatible: bigint, names: ReadonlyMap<number, string>, source: string): void {
  const unknown: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if ((incompatible & ~layout.INCOMPATIBLE_KNOWN & (1n << BigInt(bit))) === 0n) continue;
    const name = names.get(bit);
    unknown.push(name ? `"${name}" (incompatible feature ${bit})` : `incompatible feature ${bit}`);
  }
  if (unknown.length > 0) throw new UnsupportedError(`QCOW2 ${unknown.join(', ')}`, { source });
}

function refuseEncrypted(fields: Fields, source: string): void {
  const method = fields.u32be(at.crypt_method);
  if (method === layout.CRYPT_NONE) return;
  if (method === layout.CRYPT_AES) throw new NeedsKeyError(`${source} (QCOW2, AES)`, { source, method: 'aes' });
  if (method === layout.CRYPT_LUKS) throw new NeedsKeyError(`${source} (QCOW2, LUKS)`, { source, method: 'luks' });
  throw new UnsupportedError(`QCOW2 encryption method ${method}`, { source });
}

/** The active L1 table: large enough for the disk, in the file, and no larger than any program makes it. */
function readL1(
  fields: Fields,
  file: ByteSource,
  size: number,
  clusterSize: number,
  coverage: number,
): Pick<Qcow2Header, 'l1Size' | 'l1Offset'> {
  const l1Size = fields.u32be(at.l1_size);
  const l1Offset = fields.u64be(at.l1_table_offset, 'l1_table_offset');
  const needed = Math.ceil(size / coverage);
  fields.require(l1Size >= needed, 'l1_size', at.l1_size, `at least ${needed} for a disk of ${size} bytes`, l1Size);
  if (l1Size * 8 > layout.MAX_L1_BYTES) {
    throw new UnsupportedError(`QCOW2 L1 table of ${l1Size} entries`, { source: file.name });
  }
  if (l1Size > 0)
    checkTable(fields, 'l1_table_offset', at.l1_table_offset, l1Offset, l1Size * 8, clusterSize, file.size);
  return { l1Size, l1Offset };
}

/** @throws CorruptError unless a table of `bytes` can be at `position`: on a cluster's border, behind the header, in the file. */
export function checkTable(
  fields: Fields,
  field: string,
  fieldOffset: number,
  position: number,
  bytes: number,
  clusterSize: number,
  fileSize: number,
): void {
  const problem = tableProblem(position, bytes, clusterSize, fileSize);
  if (problem !== undefined) throw fields.corrupt(field, fieldOffset, problem, `byte ${position}`);
}

/** What is expected of the place of a table and does not hold; undefined when all does. */
export function tableProblem(
  position: number,
  bytes: number,
  clusterSize: number,
  fileSize: number,
): string | undefined {
  if (position % clusterSize !== 0) return `a multiple of the cluster size, ${clusterSize}`;
  if (position < clusterSize) return 'a place behind the header';
  if (!(position + bytes <= fileSize)) return `${bytes} bytes inside the ${fileSize} of the file`;
  return undefined;
}

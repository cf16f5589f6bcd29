/**
 * On-disk structures of a Parallels expandable image, under the names of QEMU's docs/interop/parallels.rst (written by Virtuozzo,
 * who make the format): a header of 64 bytes, the block allocation table (BAT) behind it, and clusters. All little endian.
 *
 * `WithoutFreeSpace` images count cluster positions in sectors, `WithouFreSpacExt` ones in clusters.
 */
import { Fields } from '../../binary.ts';
import { UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';

export const SECTOR = 512;
export const HEADER_BYTES = 64;
export const MAGIC = 'WithoutFreeSpace';
export const MAGIC_EXT = 'WithouFreSpacExt';
const VERSION = 2;
/** `in_use` while a program has the image open for writing. */
export const IN_USE = 0x746f_6e59;
/** `flags` bit 0: the image should hold nothing. */
export const FLAG_EMPTY = 1;
/** Sectors of a cluster at most: QEMU's own limit. */
const MAX_CLUSTER_SECTORS = Math.floor(0x7fff_ffff / 513);
export const EXTENSION_MAGIC = 0xab23_4cef_23dc_ea87n;

const HEADER = 'Parallels header';

export interface ParallelsHeader {
  readonly magic: string;
  readonly heads: number;
  readonly cylinders: number;
  /** `tracks`: bytes of a cluster. */
  readonly clusterBytes: number;
  /** `nb_bat_entries`. */
  readonly entries: number;
  /** `nb_sectors`, in bytes. */
  readonly diskSize: number;
  readonly inUse: number;
  readonly flags: number;
  /** Bytes that one unit of a BAT entry stands for. */
  readonly unit: number;
  /** `data_off` in bytes; the end of the BAT where it is 0. Nothing before it is a cluster's. */
  readonly dataOffset: number;
  /** `ext_off` in bytes; 0 for none. */
  readonly extension: number;
}

/** Where the fields are that errors and findings point at. */
export const at = {
  version: 16,
  heads: 20,
  cylinders: 24,
  tracks: 28,
  entries: 32,
  sectors: 36,
  inUse: 44,
  dataOffset: 48,
  flags: 52,
  extension: 56,
} as const;

/** The magic number that a file begins with; undefined for others. */
export function magicOf(prefix: Uint8Array): string | undefined {
  const found = Buffer.from(prefix.subarray(0, 16)).toString('latin1');
  return found === MAGIC || found === MAGIC_EXT ? found : undefined;
}

/** Reads and checks a header. @throws CorruptError, UnsupportedError, IoError. */
export async function readHeader(file: OpenFile): Promise<ParallelsHeader> {
  const fields = new Fields(await file.read(0, Math.min(HEADER_BYTES, file.size)), HEADER, file.name, 0);
  const magic = magicOf(fields.bytes);
  if (magic === undefined) {
    const found = Buffer.from(fields.bytes.subarray(0, 8)).toString('hex');
    throw fields.corrupt('magic', 0, `"${MAGIC}" or "${MAGIC_EXT}"`, found === '' ? 'an empty file' : found);
  }
  const version = fields.u32(at.version);
  if (version !== VERSION) throw new UnsupportedError(`Parallels HDD version ${version}`, { source: file.name });
  const tracks = fields.u32(at.tracks);
  fields.require(
    tracks >= 1 && tracks <= MAX_CLUSTER_SECTORS,
    'tracks',
    at.tracks,
    `1 to ${MAX_CLUSTER_SECTORS} sectors`,
    tracks,
  );
  const clusterBytes = tracks * SECTOR;
  const entries = fields.u32(at.entries);
  const tableEnd = HEADER_BYTES + entries * 4;
  fields.require(
    entries >= 1 && tableEnd <= file.size,
    'nb_bat_entries',
    at.entries,
    `1 to ${Math.floor((file.size - HEADER_BYTES) / 4)}, as many as the file has room for`,
    entries,
  );
  // The upper half counts for the newer magic only: older programs left it as it was.
  const sectors = magic === MAGIC_EXT ? fields.u64(at.sectors, 'nb_sectors') : fields.u32(at.sectors);
  const most = Math.min(entries * tracks, Math.floor(Number.MAX_SAFE_INTEGER / SECTOR));
  fields.require(
    sectors >= 1 && sectors <= most,
    'nb_sectors',
    at.sectors,
    `1 to ${most}, for its BAT has ${entries} entries`,
    sectors,
  );
  const unit = magic === MAGIC_EXT ? clusterBytes : SECTOR;
  const dataOffset = fields.u32(at.dataOffset) * SECTOR;
  return {
    magic,
    heads: fields.u32(at.heads),
    cylinders: fields.u32(at.cylinders),
    clusterBytes,
    entries,
    diskSize: sectors * SECTOR,
    inUse: fields.u32(at.inUse),
    flags: fields.u32(at.flags),
    unit,
    dataOffset: Math.max(tableEnd, dataOffset),
    extension: fields.u64(at.extension, 'ext_off') * SECTOR,
  };
}

/** The header of a QCOW image of version 1. */
import { Fields } from '../../binary.ts';
import { NeedsKeyError, UnsupportedError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { hexOf, qcowVersion, textOf } from '../qcow2/layout.ts';
import * as layout from './layout.ts';
import { HeaderOffsets as at } from './layout.ts';

export interface QcowHeader {
  /** Bytes of the virtual disk. */
  readonly size: number;
  readonly clusterBits: number;
  readonly clusterSize: number;
  readonly l2Bits: number;
  readonly l1Offset: number;
  /** Entries of the L1 table. */
  readonly l1Size: number;
  readonly backingFile: string | undefined;
  /** When the backing file was last changed, in seconds since 1970; 0 where it is not recorded. */
  readonly modified: number;
}

/** Reads and checks the header. @throws CorruptError, UnsupportedError, NeedsKeyError, IoError. */
export async function readQcowHeader(file: ByteSource): Promise<QcowHeader> {
  const fields = new Fields(await file.read(0, Math.min(layout.HEADER_BYTES, file.size)), 'QCOW header', file.name, 0);
  const version = qcowVersion(fields.bytes);
  if (version === undefined) throw fields.corrupt('magic', 0, '514649fb', hexOf(fields, 4));
  if (version !== 1) throw new UnsupportedError(`QCOW version ${version}`, { source: file.name });
  const clusterBits = inRange(fields, 'cluster_bits', layout.MIN_CLUSTER_BITS, layout.MAX_CLUSTER_BITS);
  const l2Bits = inRange(fields, 'l2_bits', layout.MIN_L2_BITS, layout.MAX_L2_BITS);
  const crypt = fields.u32be(at.crypt_method);
  if (crypt === 1) throw new NeedsKeyError(`${file.name} (QCOW, AES)`, { source: file.name, method: 'aes' });
  if (crypt !== 0) throw new UnsupportedError(`QCOW encryption method ${crypt}`, { source: file.name });
  const size = fields.u64be(at.size, 'size');
  fields.require(size > 1, 'size', at.size, 'at least 2 bytes', size);
  const l1Size = Math.ceil(size / 2 ** (clusterBits + l2Bits));
  const l1Offset = fields.u64be(at.l1_table_offset, 'l1_table_offset');
  if (l1Size * 8 > layout.MAX_L1_BYTES) {
    throw new UnsupportedError(`QCOW L1 table of ${l1Size} entries`, { source: file.name });
  }
  fields.require(
    l1Offset >= layout.HEADER_BYTES && l1Offset + l1Size * 8 <= file.size,
    'l1_table_offset',
    at.l1_table_offset,
    `a table of ${l1Size} entries behind the header, inside the ${file.size} bytes of the file`,
    `one at byte ${l1Offset}`,
  );
  return {
    size,
    clusterBits,
    clusterSize: 2 ** clusterBits,
    l2Bits,
    l1Offset,
    l1Size,
    backingFile: await readBackingName(fields, file),
    modified: fields.u32be(at.mtime),
  };
}

function inRange(fields: Fields, field: 'cluster_bits' | 'l2_bits', least: number, most: number): number {
  const value = fields.u8(at[field]);
  fields.require(value >= least && value <= most, field, at[field], `${least} to ${most}`, value);
  return value;
}

async function readBackingName(fields: Fields, file: ByteSource): Promise<string | undefined> {
  const offset = fields.u64be(at.backing_file_offset, 'backing_file_offset');
  if (offset === 0) return undefined;
  const length = fields.u32be(at.backing_file_size);
  fields.require(
    length <= layout.MAX_BACKING_NAME,
    'backing_file_size',
    at.backing_file_size,
    `at most ${layout.MAX_BACKING_NAME}`,
    length,
  );
  fields.require(
    offset >= layout.HEADER_BYTES && offset + length <= file.size,
    'backing_file_offset',
    at.backing_file_offset,
    `a name of ${length} bytes inside the ${file.size} of the file`,
    `one at byte ${offset}`,
  );
  const bytes = await file.read(offset, length);
  const end = bytes.indexOf(0);
  return textOf(end < 0 ? bytes : bytes.subarray(0, end)) || undefined;
}

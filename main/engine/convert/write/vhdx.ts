/**
 * Dynamic VHDX as it is written. [MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format.
 * https://learn.microsoft.com/openspecs/windows_protocols/ms-vhdx/
 *
 * 64 KiB each of file identifier, two headers and two region tables; at 1 MiB an empty log, at 2 MiB the metadata, at 3 MiB the block
 * allocation table, then payload blocks in the order in which they were needed.
 */
import { randomBytes } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { crc32c } from '../../crc32c.ts';
import type { Layout, Plan } from '../plan.ts';
import { put, Structure, setLength } from './put.ts';

const KiB = 1024;
const MiB = 1 << 20;
const LOGICAL_SECTOR = 512;
const PHYSICAL_SECTOR = 4096;
/** Blocks of a disk at most, so that its table stays small; larger disks have larger blocks. */
const MAX_BLOCKS = 1 << 20;

const LOG = { at: MiB, length: MiB };
const METADATA = { at: 2 * MiB, length: MiB };
const TABLE_AT = 3 * MiB;
/** Metadata items begin here within their region. */
const ITEMS = 64 * KiB;

/**
 * States of a payload block. A block that is not there is said to be zeros: what NOT_PRESENT reads as in a dynamic VHDX is left open
 * ([MS-VHDX] 2.5.1.1).
 */
const PAYLOAD_BLOCK_ZERO = 2;
export const PAYLOAD_BLOCK_FULLY_PRESENT = 6;

const GUIDS = {
  bat: '2DC27766-F623-4200-9D64-115E9BFD4A08',
  metadata: '8B7CA206-4790-4B9A-B8FE-575F050F886E',
  fileParameters: 'CAA16737-FA36-4D43-B3B6-33F0AA44E76B',
  virtualDiskSize: '2FA54224-CD1B-4876-B211-5DBED83BF4B8',
  virtualDiskId: 'BECA12AB-B2E6-4523-93EF-C309E000C746',
  logicalSectorSize: '8141BF1D-A96F-4709-BA47-F233A8FAAB5F',
  physicalSectorSize: 'CDA348C7-445D-4471-9CC9-E9885251C556',
} as const;

/** Flags of a metadata table entry. */
const IS_VIRTUAL_DISK = 1 << 1;
const IS_REQUIRED = 1 << 2;

export function planVhdx(imageSize: number): { unit: number; layout: Extract<Layout, { kind: 'blocks' }> } {
  let block = MiB;
  while (Math.ceil(imageSize / block) > MAX_BLOCKS) block *= 2;
  const blocks = Math.ceil(imageSize / block);
  const ratio = (2 ** 23 * LOGICAL_SECTOR) / block;
  const entries = blocks + Math.floor((blocks - 1) / ratio);
  const tableBytes = Math.ceil((entries * 8) / MiB) * MiB;
  return {
    unit: block,
    layout: { kind: 'blocks', table: TABLE_AT, tableBytes, blocks, ratio, dataStart: TABLE_AT + tableBytes },
  };
}

/** Where the entry of a payload block is in the table, in bytes: an entry for a sector bitmap stands after each `ratio`. */
export function entryAt(block: number, ratio: number): number {
  return (block + Math.floor(block / ratio)) * 8;
}

/** One entry of the table: a block at `position`, or zeros. */
export function putEntry(bytes: Buffer, at: number, position: number | undefined): void {
  if (position === undefined) {
    bytes.writeUInt32LE(PAYLOAD_BLOCK_ZERO, at);
    bytes.writeUInt32LE(0, at + 4);
    return;
  }
  // State in bits 0 to 2, the offset in MiB from bit 20 on: the position itself, since it is a multiple of 1 MiB.
  bytes.writeUInt32LE((position % 2 ** 32) + PAYLOAD_BLOCK_FULLY_PRESENT, at);
  bytes.writeUInt32LE(Math.floor(position / 2 ** 32), at + 4);
}

/** Writes a table that says zeros of every block; stretches are filled in as they are written. @throws IoError. */
export async function startVhdx(
  handle: FileHandle,
  name: string,
  layout: Extract<Layout, { kind: 'blocks' }>,
): Promise<void> {
  // The rest of its region stays a hole.
  const table = Buffer.alloc(entryAt(layout.blocks - 1, layout.ratio) + 8);
  for (let block = 0; block < layout.blocks; block++) putEntry(table, entryAt(block, layout.ratio), undefined);
  await put(handle, name, table, layout.table);
}

/** Everything of an image whose blocks and table are written. @throws IoError. */
export async function finishVhdx(
  handle: FileHandle,
  name: string,
  plan: Plan,
  layout: Extract<Layout, { kind: 'blocks' }>,
  places: number,
): Promise<void> {
  await setLength(handle, name, layout.dataStart + places * plan.unit);
  await put(handle, name, metadata(plan), METADATA.at);
  const regions = sealed(regionTable(layout), 4);
  await put(handle, name, regions, 192 * KiB);
  await put(handle, name, regions, 256 * KiB);
  // The one with the higher number is the current one; both are whole.
  const ids = { file: randomBytes(16), data: randomBytes(16) };
  await put(handle, name, header(1, ids), 64 * KiB);
  await put(handle, name, header(2, ids), 128 * KiB);
  const identifier = new Structure(64 * KiB).text(0, 'vhdxfile').text(8, 'Chainlift', 'utf16le');
  await put(handle, name, identifier.bytes, 0);
}

/** A GUID in Microsoft's mixed byte order. */
function guidBytes(text: string): Uint8Array {
  const b = Buffer.from(text.replaceAll('-', ''), 'hex');
  b.subarray(0, 4).reverse();
  b.subarray(4, 6).reverse();
  b.subarray(6, 8).reverse();
  return b;
}

/** Fills in the CRC-32C of the whole structure, taken with zeros in its own place. */
function sealed(bytes: Buffer, checksumAt: number): Buffer {
  bytes.writeUInt32LE(0, checksumAt);
  bytes.writeUInt32LE(crc32c(bytes), checksumAt);
  return bytes;
}

function header(sequence: number, ids: { file: Uint8Array; data: Uint8Array }): Buffer {
  const record = new Structure(4 * KiB)
    .text(0, 'head')
    .u64(8, sequence)
    .put(16, ids.file)
    .put(32, ids.data)
    // LogGuid stays zero: there is nothing to replay.
    .u16(64, 0)
    .u16(66, 1)
    .u32(68, LOG.length)
    .u64(72, LOG.at);
  return sealed(record.bytes, 4);
}

function regionTable(layout: Extract<Layout, { kind: 'blocks' }>): Buffer {
  const record = new Structure(64 * KiB).text(0, 'regi').u32(8, 2);
  const entry = (index: number, guid: string, at: number, length: number): void => {
    const base = 16 + index * 32;
    record
      .put(base, guidBytes(guid))
      .u64(base + 16, at)
      .u32(base + 24, length)
      .u32(base + 28, 1);
  };
  entry(0, GUIDS.bat, layout.table, layout.tableBytes);
  entry(1, GUIDS.metadata, METADATA.at, METADATA.length);
  return record.bytes;
}

function metadata(plan: Plan): Buffer {
  const items: { id: string; flags: number; bytes: Buffer }[] = [
    // Block size; neither fixed nor with a parent.
    { id: GUIDS.fileParameters, flags: IS_REQUIRED, bytes: new Structure(8).u32(0, plan.unit).bytes },
    {
      id: GUIDS.virtualDiskSize,
      flags: IS_VIRTUAL_DISK | IS_REQUIRED,
      bytes: new Structure(8).u64(0, plan.imageSize).bytes,
    },
    { id: GUIDS.virtualDiskId, flags: IS_VIRTUAL_DISK | IS_REQUIRED, bytes: randomBytes(16) },
    {
      id: GUIDS.logicalSectorSize,
      flags: IS_VIRTUAL_DISK | IS_REQUIRED,
      bytes: new Structure(4).u32(0, LOGICAL_SECTOR).bytes,
    },
    {
      id: GUIDS.physicalSectorSize,
      flags: IS_VIRTUAL_DISK | IS_REQUIRED,
      bytes: new Structure(4).u32(0, PHYSICAL_SECTOR).bytes,
    },
  ];
  // The rest of the region stays a hole.
  const record = new Structure(ITEMS + 4 * KiB).text(0, 'metadata').u16(10, items.length);
  let at = ITEMS;
  for (const [index, { id, flags, bytes }] of items.entries()) {
    const base = 32 + index * 32;
    record
      .put(base, guidBytes(id))
      .u32(base + 16, at)
      .u32(base + 20, bytes.length)
      .u32(base + 24, flags)
      .put(at, bytes);
    at += bytes.length;
  }
  return record.bytes;
}

/**
 * A snapshot's state file (.vmsn, or .vmss of a suspended VM): whether it holds the guest's memory. The file is a list of groups
 * of tags; the group `memory` has a block `Memory` when the memory is inside, otherwise it is in a .vmem beside it or was not taken.
 *
 * Layout, little endian (crash-utility vmware_vmss.h, by VMware; volatility's vmware layer):
 *   header  u32 magic, u32 version, u32 number of groups
 *   group   char name[64], u64 position, u64 size
 *   tag     u8 value size (bits 0-5) and number of indices (bits 6-7), u8 length of the name, name, u32 per index, value;
 *           value size 62 (compressed) and 63 are blocks: u64 bytes stored, u64 bytes in memory, u16 padding, padding, data
 *           (the sizes are u32 in the old format, 0xbed0bed0)
 *   a tag of two zero bytes ends its group.
 */

import { Fields, hex32 } from '../../binary.ts';
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';

const MAGICS: ReadonlySet<number> = new Set([0xbed0bed0, 0xbed2bed0, 0xbed2bed2, 0xbed3bed3, 0xbad1bad1, 0xbad2bad2]);
const HEADER_BYTES = 12;
const GROUP_BYTES = 80;
/** Real files have about 120. */
const MAX_GROUPS = 4_096;
/** Tags of the memory group read at most; real files have about ten. */
const MAX_TAGS = 1_024;
/** Longest tag: its two bytes, a name, three indices, and the head of a block. */
const MAX_TAG_BYTES = 2 + 255 + 12 + 18;

export interface SavedState {
  /** Names of its groups: the devices whose state was saved. */
  readonly groups: readonly string[];
  /** Bytes of guest memory inside this file; 0 when there are none. */
  readonly memoryBytes: number;
}

/** Reads a state file's directory and its memory group. @throws CorruptError, IoError. */
export async function readSavedState(source: ByteSource): Promise<SavedState> {
  const header = new Fields(
    await source.read(0, Math.min(HEADER_BYTES, source.size)),
    'VMware state header',
    source.name,
    0,
  );
  const magic = header.u32(0);
  if (!MAGICS.has(magic)) throw header.corrupt('magic', 0, '0xbed2bed2 or one of its kin', `0x${hex32(magic)}`);
  const count = header.u32(8);
  const room = Math.floor((source.size - HEADER_BYTES) / GROUP_BYTES);
  header.require(
    count <= MAX_GROUPS && count <= room,
    'group count',
    8,
    `at most ${Math.min(MAX_GROUPS, room)}`,
    count,
  );

  const table = new Fields(
    await source.read(HEADER_BYTES, count * GROUP_BYTES),
    'VMware state group',
    source.name,
    HEADER_BYTES,
  );
  const groups: string[] = [];
  let memoryBytes = 0;
  for (let index = 0; index < count; index++) {
    const name = table.ascii(index * GROUP_BYTES, 64);
    groups.push(name);
    if (name !== 'memory') continue;
    const position = table.u64(index * GROUP_BYTES + 64, 'position');
    table.require(position <= source.size, 'position', index * GROUP_BYTES + 64, `at most ${source.size}`, position);
    memoryBytes += await memoryIn(source, position, magic === 0xbed0bed0);
  }
  return { groups, memoryBytes };
}

/** Bytes of the `Memory` blocks of the group at `position`. */
async function memoryIn(source: ByteSource, position: number, old: boolean): Promise<number> {
  let at = position;
  let total = 0;
  const width = old ? 4 : 8;
  for (let tags = 0; tags < MAX_TAGS; tags++) {
    const bytes = await source.read(at, Math.min(MAX_TAG_BYTES, source.size - at));
    const tag = new Fields(bytes, 'VMware state tag', source.name, at);
    const kind = tag.u8(0);
    const nameLength = tag.u8(1);
    if (kind === 0 && nameLength === 0) return total;
    const name = tag.ascii(2, nameLength);
    const value = 2 + nameLength + 4 * (kind >> 6);
    const size = kind & 0x3f;
    if (size < 62) {
      at += value + size;
      continue;
    }
    const stored = old ? tag.u32(value) : tag.u64(value, 'block size');
    const inMemory = old ? tag.u32(value + width) : tag.u64(value + width, 'block size');
    const data = at + value + 2 * width + 2 + tag.u16(value + 2 * width);
    tag.require(data + stored <= source.size, 'block size', value, `at most ${source.size - data}`, stored);
    if (name === 'Memory' || name === 'MainMemory') total += inMemory;
    at = data + stored;
  }
  throw new CorruptError('VMware state group memory', {
    source: source.name,
    position,
    expected: `at most ${MAX_TAGS} tags`,
    found: 'more',
  });
}

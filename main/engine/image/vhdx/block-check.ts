/**
 * Checks the BAT of a VHDX: every entry has a state that it may have, leads into the file and outside its tables, and no two lead to
 * the same place; blocks that have some of their sectors have a sector bitmap. Reads the table once; its memory is a batch of entries
 * and one bitmap of at most 32 MiB (a bit for each MiB of the file, a larger file is gone over in several passes).
 */
import type { Fields } from '../../binary.ts';
import { CorruptError, throwIfCancelled } from '../../errors.ts';
import { BITMAP_BITS, Bitmap } from '../bitmap.ts';
import { FindingLimit, findingOf, readOr } from '../findings.ts';
import type { Finding } from '../image.ts';
import { type BlockMap, entryPosition } from './block-map.ts';
import * as layout from './layout.ts';
import { MIB } from './layout.ts';

/** Bytes of the BAT read together. */
const BATCH_BYTES = MIB;

/** @param taken stretches of the file that are no blocks: header section, log, regions. */
export async function* checkBlocks(
  map: BlockMap,
  taken: readonly { readonly position: number; readonly length: number }[],
  fileSize: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Finding> {
  const limit = new FindingLimit(map.geometry.source.name);
  const units = Math.ceil(fileSize / MIB);
  let leaked = 0;
  let whole = true;
  for (let from = 0; from === 0 || from < units; from += BITMAP_BITS) {
    const used = new Bitmap(from, Math.min(BITMAP_BITS, units - from));
    for (const { position, length } of taken) markMib(used, position, length);
    // Whether a block of the present chunk has some of its sectors only.
    let needed = false;
    for await (const batch of batches(map, signal)) {
      if ('finding' in batch) {
        whole = false;
        needed = false;
        if (from === 0) yield* limit.tell(batch.finding);
        continue;
      }
      const { fields, first, count } = batch;
      for (let i = 0; i < count; i++) {
        const entry = { fields, at: i * layout.BAT_ENTRY_BYTES, index: first + i, needed };
        const low = fields.u32(entry.at);
        const bitmap = isBitmap(map, entry.index);
        if (bitmap) needed = false;
        else if ((low & layout.BAT_STATE_MASK) === layout.PAYLOAD_BLOCK_PARTIALLY_PRESENT) needed = true;
        // Most entries of a large disk: nothing here, and nothing to say about it.
        if (low === 0 && !entry.needed) continue;
        const place = from === 0 ? yield* checkEntry(map, limit, entry) : blockOf(map, entry);
        if (place === undefined || markPlace(used, place)) continue;
        const error = fields.corrupt('', entry.at, 'a place that nothing else uses', `MiB ${place.position / MIB}`);
        yield* limit.tell(findingOf(error, 'block-overlap'));
      }
    }
    leaked += used.free;
  }
  yield* limit.counted();
  if (leaked > 0 && whole) {
    yield {
      severity: 'note',
      code: 'leaked-space',
      message: `${map.geometry.source.name} has ${leaked} MiB that hold no part of the disk`,
      source: map.geometry.source.name,
      found: leaked * MIB,
      remedy: 'It takes room and does no harm; compacting the disk gives it back.',
    };
  }
}

interface Entry {
  readonly fields: Fields;
  /** Of the entry within `fields`. */
  readonly at: number;
  /** Of the entry within the BAT. */
  readonly index: number;
  /** Where a sector bitmap entry ends a chunk: whether a block of the chunk needs it. */
  readonly needed: boolean;
}

type Batch =
  | { readonly fields: Fields; readonly first: number; readonly count: number }
  | { readonly finding: Finding };

/** The BAT, a batch of entries at a time, and what of it can't be read. */
async function* batches(map: BlockMap, signal: AbortSignal | undefined): AsyncGenerator<Batch> {
  const { bat, source } = map.geometry;
  const batch = BATCH_BYTES / layout.BAT_ENTRY_BYTES;
  for (let first = 0; first < map.entries; first += batch) {
    throwIfCancelled(signal, 'The check');
    const position = bat.position + first * layout.BAT_ENTRY_BYTES;
    const count = Math.min(batch, map.entries - first);
    const bytes = await readOr(source, position, count * layout.BAT_ENTRY_BYTES);
    if (bytes instanceof Uint8Array) yield { fields: map.entryFields(bytes, position), first, count };
    else yield { finding: bytes };
  }
}

function isBitmap(map: BlockMap, index: number): boolean {
  return index % (map.chunkRatio + 1) === map.chunkRatio;
}

interface Place {
  readonly position: number;
  /** Bytes that the disk needs of it. */
  readonly length: number;
  /** Bytes behind them that belong to it: the disk's last block is as long in the file as the others. */
  readonly rest: number;
}

/** Bytes of the file that the block of an entry takes, the disk's last one perhaps less than a block. */
function lengthOf(map: BlockMap, index: number): number {
  if (isBitmap(map, index)) return layout.SECTOR_BITMAP_BYTES;
  const block = index - Math.floor(index / (map.chunkRatio + 1));
  // Entries behind the disk's end fill up the last chunk of a differencing disk.
  return block < map.blocks ? map.blockLength(block) : 0;
}

/** Where the block of an entry is; undefined when it has none, or none that could be there. */
function blockOf(map: BlockMap, { fields, at, index }: Entry): Place | undefined {
  const state = fields.u32(at) & layout.BAT_STATE_MASK;
  const present =
    state === layout.PAYLOAD_BLOCK_FULLY_PRESENT ||
    (map.geometry.hasParent && !isBitmap(map, index) && state === layout.PAYLOAD_BLOCK_PARTIALLY_PRESENT);
  const length = lengthOf(map, index);
  if (!present || length === 0 || (isBitmap(map, index) && !map.geometry.hasParent)) return undefined;
  try {
    const rest = (isBitmap(map, index) ? length : map.geometry.blockSize) - length;
    return { position: map.blockPosition(fields, at, length), length, rest };
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    return undefined;
  }
}

/** What is wrong with one entry by itself; returns where its block is. */
function* checkEntry(map: BlockMap, limit: FindingLimit, entry: Entry): Generator<Finding, Place | undefined> {
  const { fields, at, index } = entry;
  const low = fields.u32(at);
  const bitmap = isBitmap(map, index);
  if ((low & layout.BAT_RESERVED_MASK) !== 0) {
    const error = fields.corrupt('reserved bits', at, 0, (low & layout.BAT_RESERVED_MASK) >>> 3);
    yield* limit.tell(findingOf(error, 'bat-reserved-bits', 'suspicious', 'They are not looked at.'));
  }
  const place = blockOf(map, entry);
  if (place !== undefined || lengthOf(map, index) === 0) return place;
  const error = bitmap ? badBitmap(map, entry) : badPayload(map, entry);
  if (error !== undefined) yield* limit.tell(error);
  return undefined;
}

function badBitmap(map: BlockMap, { fields, at, needed }: Entry): Finding | undefined {
  const state = fields.u32(at) & layout.BAT_STATE_MASK;
  if (!map.geometry.hasParent) {
    if (state === layout.SB_BLOCK_NOT_PRESENT) return undefined;
    const error = fields.corrupt('', at, 'no sector bitmap block, for the disk has no parent', `state ${state}`);
    return findingOf(error, 'bitmap-in-base', 'suspicious', 'It is not looked at.');
  }
  if (state === layout.SB_BLOCK_PRESENT) return misplaced(map, fields, at, layout.SECTOR_BITMAP_BYTES);
  if (needed) return findingOf(map.missingBitmap(fields, at), 'bitmap-missing');
  if (state === layout.SB_BLOCK_NOT_PRESENT) return undefined;
  const error = fields.corrupt('', at, `state ${layout.SB_BLOCK_NOT_PRESENT} or ${layout.SB_BLOCK_PRESENT}`, state);
  return findingOf(error, 'block-state', 'suspicious', 'No block of its chunk needs it.');
}

function badPayload(map: BlockMap, { fields, at, index }: Entry): Finding | undefined {
  const state = fields.u32(at) & layout.BAT_STATE_MASK;
  if (state <= layout.PAYLOAD_BLOCK_UNMAPPED) return undefined;
  const partly = state === layout.PAYLOAD_BLOCK_PARTIALLY_PRESENT && map.geometry.hasParent;
  if (state === layout.PAYLOAD_BLOCK_FULLY_PRESENT || partly) {
    return misplaced(map, fields, at, lengthOf(map, index));
  }
  return findingOf(map.badState(fields, at), 'block-state');
}

function misplaced(map: BlockMap, fields: Fields, at: number, length: number): Finding {
  try {
    map.blockPosition(fields, at, length);
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    return findingOf(error, map.inTables(entryPosition(fields, at), length) ? 'block-in-tables' : 'block-out-of-file');
  }
  throw new RangeError('a block that fits is not misplaced');
}

/** Marks the MiB of a place and of what belongs to it behind. False when one of its own was marked already. */
function markPlace(used: Bitmap, { position, length, rest }: Place): boolean {
  const fresh = markMib(used, position, length);
  if (rest > 0) markMib(used, position + length, rest);
  return fresh;
}

function markMib(used: Bitmap, position: number, length: number): boolean {
  const first = Math.floor(position / MIB);
  return used.mark(first, Math.ceil((position + length) / MIB) - first);
}

/**
 * Checks the tables of a dynamic or differencing disk: every block lies in the file, in no metadata and in no other block; bitmaps
 * can be read, end with the disk and agree with XenServer's batmap. Its memory is a batch of the table, one bitmap and one list of
 * at most 16 MiB, whatever the disk's size (a file with more blocks is gone over in several passes).
 */
import { isZero } from '../../binary.ts';
import { CorruptError, throwIfCancelled } from '../../errors.ts';
import { runAsync } from '../../storage/io.ts';
import { FindingLimit, findingOf, readOr, unreadable } from '../findings.ts';
import type { Finding } from '../image.ts';
import { type Batmap, batmapBit } from './batmap.ts';
import { type BlockMap, badBlock, bitOf, inReserved, type Reserved, stretchEnd, tableFields } from './block-map.ts';
import type { Tables } from './dynamic-header.ts';
import * as layout from './layout.ts';
import { BLOCK_UNUSED, type ParentLocator, SECTOR } from './layout.ts';
import { isCredible } from './parent.ts';

/** Table entries read at a time: 64 KiB. */
const BATCH = 16_384;
/** Places looked at in one pass for blocks that overlap: 16 MiB, 8 TiB of file in blocks of 2 MiB. */
const PASS_PLACES = 1 << 22;
/** Bytes of sectors that are called unused which are read to see that they are. */
const UNUSED_BYTES_READ = 64 << 20;
const READ = 1 << 20;

export async function* checkBlocks(
  map: BlockMap,
  tables: Tables,
  locators: readonly ParentLocator[],
  signal: AbortSignal | undefined,
): AsyncGenerator<Finding> {
  const limit = new FindingLimit(map.geometry.file.name);
  const { batmap, dataEnd } = map.geometry;
  const credible = locators.filter((locator) => isCredible(locator, dataEnd));
  const bits = batmap === undefined ? null : yield* checkBatmap(map, batmap);
  const survey = new Survey(map, moreReserved(tables, batmap, credible), bits, limit);
  yield* survey.run(signal);
  yield* findOverlaps(map, survey.highest, limit, signal);
  yield* locatorOverlaps(tables, credible);
  yield* limit.counted();
}

/** Metadata that a reader does not need, and which blocks must leave alone nonetheless. */
function moreReserved(tables: Tables, batmap: Batmap | undefined, locators: readonly ParentLocator[]): Reserved[] {
  const places: Reserved[] = locators.map(({ index, dataOffset, dataLength }) => ({
    what: `parent locator ${index}`,
    start: dataOffset,
    end: dataOffset + dataLength,
  }));
  if (batmap !== undefined) {
    const { batmapPosition: start } = tables;
    const { offset, sectors } = batmap.header;
    places.push({ what: 'the batmap header', start, end: start + layout.BATMAP_HEADER_BYTES });
    // Where its header is damaged it says nothing of what lies there.
    if (batmap.fault === undefined) places.push({ what: 'the batmap', start: offset, end: offset + sectors * SECTOR });
  }
  return places;
}

/** Says what is wrong with the batmap; returns its bits where they can be believed. */
async function* checkBatmap(map: BlockMap, batmap: Batmap): AsyncGenerator<Finding, Uint8Array | null> {
  const { fields, fault } = batmap;
  const remedy = 'The bitmaps of the blocks are read instead; they say the same, and more.';
  if (fault !== undefined) {
    const error = fields.corrupt(fault.field, fault.at, fault.expected, fault.found);
    yield findingOf(error, 'batmap-unusable', 'suspicious', remedy);
    return null;
  }
  if (!batmap.readable) return null;
  let bits: Uint8Array | null;
  try {
    bits = await runAsync(batmap.map());
  } catch (error) {
    yield unreadable(error, map.geometry.file.name, batmap.header.offset);
    return null;
  }
  if (bits === null) {
    const error = fields.corrupt(
      'checksum',
      layout.BatmapOffsets.checksum,
      'the checksum of the batmap',
      `0x${batmap.header.checksum.toString(16).padStart(8, '0')}`,
    );
    yield findingOf(error, 'batmap-checksum', 'suspicious', remedy);
  }
  return bits;
}

/** Entries of the table, a batch at a time; a finding in place of one that can't be read. */
async function* batches(map: BlockMap, signal: AbortSignal | undefined) {
  const { file, table, blocks } = map.geometry;
  for (let first = 0; first < blocks; first += BATCH) {
    throwIfCancelled(signal, 'The check');
    const position = table + first * 4;
    const bytes = await readOr(file, position, Math.min(BATCH, blocks - first) * 4);
    if (bytes instanceof Uint8Array) yield { first, entries: tableFields(bytes, file.name, position) };
    else yield { first, finding: bytes };
  }
}

/** First pass: every block by itself. */
class Survey {
  readonly #map: BlockMap;
  readonly #reserved: readonly Reserved[];
  readonly #batmap: Uint8Array | null;
  readonly #limit: FindingLimit;
  #unusedLeft = UNUSED_BYTES_READ;
  #room: number;
  /** First byte of the last block in the file; -1 for none. */
  highest = -1;

  constructor(map: BlockMap, reserved: readonly Reserved[], batmap: Uint8Array | null, limit: FindingLimit) {
    this.#map = map;
    this.#reserved = reserved;
    this.#batmap = batmap;
    this.#limit = limit;
    const { dataEnd, bitmapBytes, blockSize } = map.geometry;
    this.#room = dataEnd + bitmapBytes + blockSize;
  }

  async *run(signal: AbortSignal | undefined): AsyncGenerator<Finding> {
    for await (const { first, entries, finding } of batches(this.#map, signal)) {
      if (finding !== undefined) yield* this.#limit.tell(finding);
      if (entries === undefined) continue;
      for (let i = 0; i < entries.length / 4; i++) {
        const sector = entries.u32be(i * 4);
        if (sector === BLOCK_UNUSED) {
          // Most entries of a large disk are these.
          if (this.#batmap !== null && batmapBit(this.#batmap, first + i)) yield* this.#unused(first + i);
          continue;
        }
        throwIfCancelled(signal, 'The check');
        const position = sector * SECTOR;
        const { bitmapBytes } = this.#map.geometry;
        const length = Math.ceil(this.#map.blockLength(first + i) / SECTOR) * SECTOR;
        const missing = this.#map.blockFault(position, length);
        const fault = missing ?? inReserved(this.#reserved, position, position + bitmapBytes + length);
        if (fault !== undefined) {
          const code = `block-${fault.kind}`;
          // A ruined table has a million of them.
          if (this.#limit.counts(code, 'damaged')) yield findingOf(badBlock(entries, i, first + i, fault), code);
        }
        if (missing !== undefined) continue;
        this.highest = Math.max(this.highest, position);
        // No more blocks than the file has room for: where there are, some overlap, and that is told.
        this.#room -= bitmapBytes + length;
        if (this.#room >= 0) yield* this.#bitmap(first + i, position);
      }
    }
  }

  *#unused(block: number): Generator<Finding> {
    yield* this.#limit.tell({
      severity: 'suspicious',
      code: 'batmap-of-unused-block',
      message: `The batmap of ${this.#map.geometry.file.name} calls block ${block} full, which is not there`,
      source: this.#map.geometry.file.name,
      structure: 'VHD batmap',
      expected: 0,
      found: 1,
      remedy: 'The block allocation table is followed.',
    });
  }

  async *#bitmap(block: number, position: number): AsyncGenerator<Finding> {
    const { file, bitmapBytes, lowBitFirst, differencing, blockSize } = this.#map.geometry;
    const bitmap = await readOr(file, position, bitmapBytes);
    if (!(bitmap instanceof Uint8Array)) {
      yield* this.#limit.tell(bitmap);
      return;
    }
    const sectors = Math.ceil(this.#map.blockLength(block) / SECTOR);
    const all = bitOf(bitmap, 0, lowBitFirst) && stretchEnd(bitmap, 0, sectors, lowBitFirst) === sectors;
    const full = this.#batmap !== null && batmapBit(this.#batmap, block);
    if (full && !all) {
      yield* this.#limit.tell({
        severity: 'damaged',
        code: 'batmap-bitmap-differ',
        message: `The batmap of ${file.name} calls block ${block} full, its bitmap does not`,
        source: file.name,
        structure: `VHD sector bitmap of block ${block}`,
        position,
        expected: 'every bit set',
        found: 'clear bits',
        remedy: 'The batmap is followed, as XenServer does: the whole block is read from this image.',
      });
    }
    if (!all && !full && !differencing) {
      yield* this.#unusedSectors(block, bitmap, sectors, position + bitmapBytes);
    }
    const inBlock = blockSize / SECTOR;
    if (sectors < inBlock) yield* this.#behindEnd(block, bitmap, sectors, inBlock, position);
  }

  /** Writers mark the whole of the last block; one that marks some of what lies behind the disk's end meant a larger disk. */
  *#behindEnd(block: number, bitmap: Uint8Array, from: number, to: number, position: number): Generator<Finding> {
    const { lowBitFirst, file } = this.#map.geometry;
    if (stretchEnd(bitmap, from, to, lowBitFirst) === to) return;
    yield* this.#limit.tell({
      severity: 'note',
      code: 'bitmap-behind-disk',
      message: `The bitmap of the last block of ${file.name} marks some sectors behind the end of the disk`,
      source: file.name,
      structure: `VHD sector bitmap of block ${block}`,
      position,
      expected: 'all of them, or none',
      found: 'some',
    });
  }

  /** Sectors of a dynamic disk that are called unused read as zeros; that the file has zeros there is looked at for some. */
  async *#unusedSectors(block: number, bitmap: Uint8Array, sectors: number, data: number): AsyncGenerator<Finding> {
    const { lowBitFirst, file } = this.#map.geometry;
    if (this.#limit.full('unused-sector-not-zero')) return;
    for (let sector = 0; sector < sectors; ) {
      const next = stretchEnd(bitmap, sector, sectors, lowBitFirst);
      const used = bitOf(bitmap, sector, lowBitFirst);
      for (let at = sector * SECTOR; !used && at < next * SECTOR; at += READ) {
        const length = Math.min(READ, next * SECTOR - at);
        if (length > this.#unusedLeft) return;
        this.#unusedLeft -= length;
        const bytes = await readOr(file, data + at, length);
        if (!(bytes instanceof Uint8Array)) {
          yield* this.#limit.tell(bytes);
          return;
        }
        if (isZero(bytes)) continue;
        yield* this.#limit.tell({
          severity: 'suspicious',
          code: 'unused-sector-not-zero',
          message: `${file.name} has data in sectors of block ${block} that its bitmap calls unused: they read as zeros, as the specification has it; QEMU and libvhdi show the data`,
          source: file.name,
          structure: `VHD sector bitmap of block ${block}`,
          position: data + at,
          expected: 'zeros',
          found: 'other bytes',
          remedy:
            'If files of the disk are damaged, the program that wrote it kept no bitmaps; compare with another reader.',
        });
        return;
      }
      sector = next;
    }
  }
}

/**
 * Further passes: no two blocks overlap. All are of one length, so where the file is cut into places of that length each place
 * holds the beginning of one block at most, and a block can only reach into that of the next place.
 */
async function* findOverlaps(
  map: BlockMap,
  highest: number,
  limit: FindingLimit,
  signal: AbortSignal | undefined,
): AsyncGenerator<Finding> {
  if (highest < 0) return;
  const { bitmapBytes, blockSize } = map.geometry;
  const stride = (bitmapBytes + blockSize) / SECTOR;
  const places = Math.floor(highest / SECTOR / stride) + 1;
  for (let from = 0; from < places; from += PASS_PLACES) {
    // One place before, which the last pass had, for the blocks that reach into the first of this one.
    const base = Math.max(0, from - 1);
    const starts = new Uint32Array(Math.min(PASS_PLACES, places - from) + (from - base));
    for await (const { first, entries } of batches(map, signal)) {
      if (entries === undefined) continue;
      for (let i = 0; i < entries.length / 4; i++) {
        const sector = entries.u32be(i * 4);
        if (sector === BLOCK_UNUSED || map.blockFault(sector * SECTOR, 0) !== undefined) continue;
        const place = Math.floor(sector / stride) - base;
        if (place < 0 || place >= starts.length) continue;
        const before = place > 0 && starts[place - 1]! !== 0 && starts[place - 1]! + stride > sector;
        const behind = (starts[place + 1] ?? 0) !== 0 && sector + stride > starts[place + 1]!;
        const shared = starts[place]! !== 0 && base + place >= from;
        // 0 is no block's sector: the footer copy is there.
        if (starts[place] === 0) starts[place] = sector;
        if (!before && !behind && !shared) continue;
        if (!limit.counts('block-overlap', 'damaged')) continue;
        const fault = { expected: 'sectors that no other block has', found: `sector ${sector}` };
        yield findingOf(badBlock(entries, i, first + i, fault), 'block-overlap');
      }
    }
  }
}

/** A parent locator whose data lies in the tables: one of the two was written over the other. */
function* locatorOverlaps({ header, fields, blocks }: Tables, locators: readonly ParentLocator[]): Generator<Finding> {
  const tables = [
    { start: fields.position, end: fields.position + layout.HEADER_BYTES },
    { start: header.tableOffset, end: header.tableOffset + blocks * 4 },
  ];
  for (const { index, dataOffset, dataLength } of locators) {
    const end = dataOffset + dataLength;
    if (!tables.some((table) => dataOffset < table.end && end > table.start)) continue;
    const error = new CorruptError(`VHD parent locator ${index}`, {
      source: fields.source,
      position: fields.position + layout.HeaderOffsets.parentLocators + index * layout.LOCATOR_BYTES,
      expected: 'data outside the tables',
      found: `data from ${dataOffset} to ${end}`,
    });
    yield findingOf(error, 'locator-in-tables');
  }
}

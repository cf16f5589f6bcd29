/**
 * Persistent bitmaps of a QCOW2 image: which parts of the disk changed since some moment, kept for incremental backups. They hold
 * nothing of the disk; here they are named, and their clusters counted.
 */
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type BitmapsExtension, type Qcow2Header, tableProblem } from './header.ts';
import * as layout from './layout.ts';
import { BitmapOffsets as at } from './layout.ts';
import { SlidingWindow } from './sliding-window.ts';

const ENTRY = 'QCOW2 bitmap directory entry';

export interface PersistentBitmap {
  readonly name: string;
  /** Bytes of the disk that one bit stands for. */
  readonly granularity: number;
  /** Was not written back: its content is not to be trusted. */
  readonly inUse: boolean;
  /** Records every write from now on. */
  readonly auto: boolean;
  readonly tableOffset: number;
  readonly tableSize: number;
  readonly position: number;
}

/** Reads the bitmap directory. @param most entries to read. @throws CorruptError, IoError. */
export async function readBitmaps(
  file: ByteSource,
  header: Qcow2Header,
  extension: BitmapsExtension,
  most = layout.MAX_BITMAPS,
): Promise<PersistentBitmap[]> {
  const { count, directorySize, directoryOffset } = extension;
  const fail = (expected: string, found: string | number) =>
    new CorruptError('QCOW2 bitmaps extension', { source: file.name, expected, found });
  if (count > layout.MAX_BITMAPS) throw fail(`at most ${layout.MAX_BITMAPS} bitmaps`, count);
  if (directorySize > layout.MAX_BITMAP_DIRECTORY_BYTES) {
    throw fail(`a directory of at most ${layout.MAX_BITMAP_DIRECTORY_BYTES} bytes`, directorySize);
  }
  const problem = tableProblem(directoryOffset, directorySize, header.clusterSize, file.size);
  if (problem !== undefined) throw fail(problem, `a directory of ${directorySize} bytes at byte ${directoryOffset}`);
  const window = new SlidingWindow(file);
  const bitmaps: PersistentBitmap[] = [];
  let position = directoryOffset;
  for (let i = 0; i < Math.min(count, most); i++) {
    const fixed = await window.fields(ENTRY, position, layout.BITMAP_ENTRY_BYTES);
    const nameSize = fixed.u16be(at.name_size);
    const extraSize = fixed.u32be(at.extra_data_size);
    const length = layout.BITMAP_ENTRY_BYTES + extraSize + nameSize;
    const left = directoryOffset + directorySize - position;
    fixed.require(length <= left, 'length', at.name_size, `at most ${left} bytes, the rest of the directory`, length);
    const bits = fixed.u8(at.granularity_bits);
    fixed.require(bits <= 63, 'granularity_bits', at.granularity_bits, 'at most 63', bits);
    const entry = await window.fields(ENTRY, position, length);
    const flags = entry.u32be(at.flags);
    bitmaps.push({
      name: layout.textOf(entry.slice(layout.BITMAP_ENTRY_BYTES + extraSize, nameSize)),
      granularity: 2 ** bits,
      inUse: (flags & layout.BITMAP_IN_USE) !== 0,
      auto: (flags & layout.BITMAP_AUTO) !== 0,
      tableOffset: entry.u64be(at.bitmap_table_offset, 'bitmap_table_offset'),
      tableSize: entry.u32be(at.bitmap_table_size),
      position,
    });
    position += Math.ceil(length / 8) * 8;
  }
  return bitmaps;
}

/**
 * One image file of a Parallels disk: expandable, or plain (its bytes are the disk's). A disk is one of them, or several side by
 * side (a split disk). The BAT is read when it is asked for, at most 256 KiB at a time, whatever the size of the disk.
 */
import { Fields } from '../../binary.ts';
import { CorruptError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import type { RunList } from '../run-list.ts';
import { HEADER_BYTES, type ParallelsHeader, SECTOR } from './layout.ts';

export interface Storage {
  readonly type: 'expanding' | 'plain';
  readonly file: OpenFile;
  /** Bytes of the disk that it covers. */
  readonly size: number;
  /** Smallest unit in which it answers, in bytes. */
  readonly granularity: number;
  /** Bytes that are asked for at once where all of it is walked. */
  readonly step: number;
  /**
   * Adds what it says of `[offset, offset + length)` of itself, as runs of a disk on which it begins at byte `base`.
   * @throws CorruptError, IoError.
   */
  runs(offset: number, length: number, base: number, out: RunList): Io<void>;
}

/** BAT entries read at a time. */
export const ENTRIES_AT_ONCE = 65_536;

export class ExpandingStorage implements Storage {
  readonly type = 'expanding';
  readonly file: OpenFile;
  readonly header: ParallelsHeader;
  readonly size: number;
  /** Entries that stand for a part of the disk; the BAT may be longer. */
  readonly entries: number;
  readonly #hasParent: boolean;

  /**
   * @param header checked by `readHeader`. @param size bytes of the disk, no more than the header says.
   * @param hasParent what is not here is the parent's, not zeros.
   */
  constructor(file: OpenFile, header: ParallelsHeader, size: number, hasParent: boolean) {
    this.file = file;
    this.header = header;
    this.size = size;
    this.entries = Math.ceil(size / header.clusterBytes);
    this.#hasParent = hasParent;
  }

  get granularity(): number {
    return this.header.clusterBytes;
  }
  get step(): number {
    return ENTRIES_AT_ONCE * this.header.clusterBytes;
  }

  /** Bytes of the disk that entry `index` covers: less than a cluster at the end. */
  length(index: number): number {
    return Math.min(this.header.clusterBytes, this.size - index * this.header.clusterBytes);
  }

  /** Whether the cluster of entry `index` can be at byte `position`. */
  fits(index: number, position: number): boolean {
    return position >= this.#first && position + this.length(index) <= this.file.size;
  }

  /** Where a cluster can begin at the earliest: behind the BAT. What `data_off` says beyond that is a matter of `check`. */
  get #first(): number {
    return HEADER_BYTES + this.header.entries * 4;
  }

  /** Entries `first` to `first + count` of the BAT. */
  *read(first: number, count: number): Io<Fields> {
    const position = HEADER_BYTES + first * 4;
    return new Fields(
      yield* readBytes(this.file, position, count * 4),
      'Parallels BAT entry',
      this.file.name,
      position,
    );
  }

  *runs(offset: number, length: number, base: number, out: RunList): Io<void> {
    if (length === 0) return;
    const { clusterBytes, unit } = this.header;
    const end = offset + length;
    const last = Math.floor((end - 1) / clusterBytes);
    for (let first = Math.floor(offset / clusterBytes); first <= last; first += ENTRIES_AT_ONCE) {
      const count = Math.min(ENTRIES_AT_ONCE, last - first + 1);
      const entries = yield* this.read(first, count);
      for (let i = 0; i < count; i++) {
        const index = first + i;
        const start = Math.max(offset, index * clusterBytes);
        const stop = Math.min(end, (index + 1) * clusterBytes);
        const position = entries.u32(i * 4) * unit;
        if (position === 0 && this.#hasParent) out.absent(base + start, stop - start);
        else if (position === 0) out.zero(base + start, stop - start);
        else if (!this.fits(index, position)) throw this.badEntry(entries, i, index);
        else out.data(base + start, stop - start, this.file, position + (start - index * clusterBytes));
      }
    }
  }

  /** The error for entry `i` of `entries`, entry number `index` of the BAT, whose cluster can't be where it says. */
  badEntry(entries: Fields, i: number, index: number): CorruptError {
    const { unit } = this.header;
    const least = Math.ceil(this.#first / unit);
    const most = Math.floor((this.file.size - this.length(index)) / unit);
    const expected = most < least ? 'no cluster, for the file holds none' : `a number from ${least} to ${most}`;
    return entries.corrupt('', i * 4, expected, entries.u32(i * 4));
  }
}

export class PlainStorage implements Storage {
  readonly type = 'plain';
  readonly granularity = SECTOR;
  readonly file: OpenFile;
  readonly size: number;

  /** @throws CorruptError when the file ends before the disk does: it was cut off, and the rest is not there. */
  constructor(file: OpenFile, size: number) {
    if (size > file.size) {
      throw new CorruptError('Parallels plain image', {
        source: file.name,
        position: file.size,
        expected: `${size} bytes, as its descriptor says`,
        found: `${file.size} bytes`,
      });
    }
    this.file = file;
    this.size = size;
  }

  get step(): number {
    return this.size;
  }

  // biome-ignore lint/correctness/useYield: a plain image answers without reading.
  *runs(offset: number, length: number, base: number, out: RunList): Io<void> {
    out.data(base + offset, length, this.file, offset);
  }
}

/** FLAT and VMFS extents: a stretch of a file whose bytes are the disk's bytes. */
import { CorruptError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Io } from '../../storage/io.ts';
import type { Finding } from '../image.ts';
import type { RunList } from '../run-list.ts';
import type { Extent } from './extent.ts';
import { SECTOR } from './layout.ts';

export class FlatExtent implements Extent {
  readonly kind = 'flat';
  readonly granularity = SECTOR;
  readonly properties = {};
  readonly file: OpenFile;
  readonly size: number;
  readonly #start: number;

  /**
   * `size` bytes from `start` of `file`. The extent does not read it yet.
   * @throws CorruptError when the file ends before the extent does: it was cut off, and the rest of the disk is not there.
   */
  constructor(file: OpenFile, start: number, size: number) {
    if (start + size > file.size) {
      throw new CorruptError('VMDK flat extent', {
        source: file.name,
        position: file.size,
        expected: `${start + size} bytes, as its descriptor says`,
        found: `${file.size} bytes`,
      });
    }
    this.file = file;
    this.size = size;
    this.#start = start;
  }

  get step(): number {
    return this.size;
  }

  // biome-ignore lint/correctness/useYield: a flat extent answers without reading.
  *runs(offset: number, length: number, base: number, out: RunList): Io<void> {
    out.data(base + offset, length, this.file, this.#start + offset);
  }

  async *check(): AsyncGenerator<Finding> {
    const end = this.#start + this.size;
    if (this.#start === 0 && this.file.size > end) {
      yield {
        severity: 'note',
        code: 'flat-extent-larger',
        message: `${this.file.name} is larger than its descriptor says; the rest is not part of the disk`,
        source: this.file.name,
        structure: 'VMDK flat extent',
        expected: end,
        found: this.file.size,
      };
    }
  }
}

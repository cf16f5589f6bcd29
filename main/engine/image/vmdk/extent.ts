/** One extent of a VMDK: a stretch of its disk and where the bytes of that stretch are. */
import { DeniedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Io } from '../../storage/io.ts';
import type { Finding } from '../image.ts';
import type { RunList } from '../run-list.ts';
import { SECTOR } from './layout.ts';

export interface Extent {
  /** `flat` (bytes as they are), `sparse` (hosted), `cowd` and `sesparse` (ESX Server), `zero`, `no-access`. */
  readonly kind: 'flat' | 'sparse' | 'cowd' | 'sesparse' | 'zero' | 'no-access';
  /** Bytes of the disk that it covers. */
  readonly size: number;
  /** Smallest unit in which it answers, in bytes. */
  readonly granularity: number;
  /** Undefined where no file stands behind it. */
  readonly file: OpenFile | undefined;
  /** A stretch whose tables are cheap to hold at once: the step of whoever walks the whole extent. */
  readonly step: number;
  /** Facts of the format for `info`. */
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  /**
   * Adds the runs of `[offset, offset + length)`, which lies inside the extent, to `out`; the extent begins at `base` of the disk.
   * @throws CorruptError, IoError, DeniedError.
   */
  runs(offset: number, length: number, base: number, out: RunList): Io<void>;
  /** Checks its header and tables. Yields damage, never throws for it. */
  check(signal: AbortSignal | undefined): AsyncIterable<Finding>;
}

/** An extent of type ZERO: no file, reads as zeros and hides the parent. */
export class ZeroExtent implements Extent {
  readonly kind = 'zero';
  readonly granularity = SECTOR;
  readonly file = undefined;
  readonly properties = {};
  readonly size: number;

  constructor(size: number) {
    this.size = size;
  }
  get step(): number {
    return this.size;
  }
  // biome-ignore lint/correctness/useYield: it has nothing to read.
  *runs(offset: number, length: number, base: number, out: RunList): Io<void> {
    out.zero(base + offset, length);
  }
  async *check(): AsyncGenerator<Finding> {}
}

/** An extent that the descriptor marks NOACCESS: it holds its place on the disk, and reading it is refused. */
export class NoAccessExtent implements Extent {
  readonly kind = 'no-access';
  readonly granularity = SECTOR;
  readonly file = undefined;
  readonly properties = {};
  readonly size: number;
  readonly #name: string;
  readonly #source: string;

  constructor(size: number, name: string, source: string) {
    this.size = size;
    this.#name = name;
    this.#source = source;
  }
  get step(): number {
    return this.size;
  }
  // biome-ignore lint/correctness/useYield: it refuses instead of reading.
  *runs(offset: number, _length: number, base: number): Io<void> {
    throw new DeniedError(`Reading the extent "${this.#name}"`, `${this.#source} marks it NOACCESS`, {
      source: this.#source,
      position: base + offset,
    });
  }
  async *check(): AsyncGenerator<Finding> {
    yield {
      severity: 'note',
      code: 'extent-no-access',
      message: `The extent "${this.#name}" is marked NOACCESS: its part of the disk can't be read`,
      source: this.#source,
    };
  }
}

/** What the checks of extents share: findings kept to a readable number, damage as a finding, a bitmap of what is in use. */
import type { CorruptError } from '../../errors.ts';
import type { Finding } from '../image.ts';

/** Findings of one kind and one extent that are told singly; more are counted. */
const TOLD = 20;
/** Bits of the bitmap that one pass over an extent holds: 32 MiB. */
export const BITMAP_BITS = 32 * 1024 * 1024 * 8;

/** Lets the first findings of every kind through and counts the rest, so that a ruined table does not end in a million lines. */
export class FindingLimit {
  readonly #counts = new Map<string, { count: number; severity: Finding['severity'] }>();
  readonly #source: string;

  constructor(source: string) {
    this.#source = source;
  }

  *tell(finding: Finding): Generator<Finding> {
    const count = (this.#counts.get(finding.code)?.count ?? 0) + 1;
    this.#counts.set(finding.code, { count, severity: finding.severity });
    if (count <= TOLD) yield finding;
  }

  *counted(): Generator<Finding> {
    for (const [code, { count, severity }] of this.#counts) {
      if (count <= TOLD) continue;
      const message = `${count - TOLD} more findings of this kind in ${this.#source}`;
      yield { severity, code, message, source: this.#source, found: count - TOLD };
    }
  }
}

export function damage(error: CorruptError, code: string, remedy?: string): Finding {
  const { source, structure, position, expected, found } = error.details;
  return {
    severity: 'damaged',
    code,
    message: error.message,
    source: String(source),
    structure: String(structure),
    position: Number(position),
    expected: expected as string | number,
    found: found as string | number,
    ...(remedy === undefined ? {} : { remedy }),
  };
}

/** Bits `start` to `start + bits` of a longer row; marks outside are not its business. */
export class Bitmap {
  readonly #start: number;
  readonly #bits: number;
  readonly #bytes: Uint8Array;

  constructor(start: number, bits: number) {
    this.#start = start;
    this.#bits = bits;
    this.#bytes = new Uint8Array(Math.ceil(bits / 8));
  }

  /** True when the bit is marked. */
  has(bit: number): boolean {
    const at = bit - this.#start;
    return at >= 0 && at < this.#bits && (this.#bytes[at >>> 3]! & (1 << (at & 7))) !== 0;
  }

  /** Marks `count` bits from `first`. False when one of them was marked already. */
  mark(first: number, count: number): boolean {
    const from = Math.max(first - this.#start, 0);
    const to = Math.min(first + count - this.#start, this.#bits);
    let free = true;
    for (let bit = from; bit < to; bit++) {
      const at = bit >>> 3;
      const mask = 1 << (bit & 7);
      if (this.#bytes[at]! & mask) free = false;
      this.#bytes[at]! |= mask;
    }
    return free;
  }
}

/** A note: something follows the last structure of a file. */
export function trailingData(source: string, end: number, size: number): Finding {
  return {
    severity: 'note',
    code: 'trailing-data',
    message: `${source} has ${size - end} bytes behind its last structure that belong to nothing; they are not read`,
    source,
    position: end,
    expected: end,
    found: size,
  };
}

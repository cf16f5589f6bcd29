/** Findings of a VHDX, made from errors and counted, so that a ruined table does not end in a million lines. */
import type { CorruptError } from '../../errors.ts';
import type { Finding, Severity } from '../image.ts';

/** Damage as a finding; `remedy` where the disk can be read in spite of it. */
export function damaged(error: CorruptError, code: string, remedy?: string, severity: Severity = 'damaged'): Finding {
  const { source, structure, position, expected, found } = error.details;
  return {
    severity,
    code,
    message: error.message,
    source: String(source),
    structure: String(structure),
    ...(typeof position === 'number' ? { position } : {}),
    ...(expected === undefined ? {} : { expected: expected as string | number }),
    ...(found === undefined ? {} : { found: found as string | number }),
    ...(remedy === undefined ? {} : { remedy }),
  };
}

/** Findings of one kind that are told singly; more are counted. */
const TOLD = 20;

/** Lets the first findings of every kind through and counts the rest. */
export class FindingCounter {
  readonly #counts = new Map<string, { severity: Severity; count: number }>();
  readonly #source: string;

  constructor(source: string) {
    this.#source = source;
  }

  /** The finding, unless enough of its kind were told. */
  *tell(finding: Finding): Generator<Finding> {
    const known = this.#counts.get(finding.code) ?? { severity: finding.severity, count: 0 };
    known.count++;
    this.#counts.set(finding.code, known);
    if (known.count <= TOLD) yield finding;
  }

  /** One finding for each kind of which more were met than told. */
  *counted(): Generator<Finding> {
    for (const [code, { severity, count }] of this.#counts) {
      if (count <= TOLD) continue;
      const message = `${count - TOLD} more findings of this kind in ${this.#source}`;
      yield { severity, code, message, source: this.#source, found: count - TOLD };
    }
  }
}

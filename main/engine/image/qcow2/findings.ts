/** What the checks of QCOW and QCOW2 share: findings made from errors, reads that may fail, and a limit on findings of one kind. */
import { CorruptError, IoError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import type { Finding, Severity } from '../image.ts';

/** Findings of one kind that are told singly; more are counted. */
const TOLD = 20;

/** The error as a finding. */
export function findingOf(error: CorruptError, code: string, severity: Severity = 'damaged', remedy?: string): Finding {
  const { source, structure, position, expected, found } = error.details;
  return {
    severity,
    code,
    message: error.message,
    source: String(source),
    structure: String(structure),
    ...(position === undefined ? {} : { position: Number(position) }),
    ...(expected === undefined ? {} : { expected: expected as string | number }),
    ...(found === undefined ? {} : { found: found as string | number }),
    ...(remedy === undefined ? {} : { remedy }),
  };
}

/** Bytes of the file, or the finding that says why they can't be had. */
export async function readOr(file: ByteSource, position: number, length: number): Promise<Uint8Array | Finding> {
  try {
    return await file.read(position, length);
  } catch (error) {
    if (!(error instanceof IoError || error instanceof CorruptError)) throw error;
    return { severity: 'damaged', code: 'unreadable', message: error.message, source: file.name, position };
  }
}

/** Lets the first findings of every kind through and counts the rest, so that a ruined table does not end in a million lines. */
export class FindingLimit {
  readonly #counts = new Map<string, { readonly severity: Severity; count: number }>();
  readonly #source: string;

  constructor(source: string) {
    this.#source = source;
  }

  *tell(finding: Finding): Generator<Finding> {
    const known = this.#counts.get(finding.code) ?? { severity: finding.severity, count: 0 };
    known.count++;
    this.#counts.set(finding.code, known);
    if (known.count <= TOLD) yield finding;
  }

  *counted(): Generator<Finding> {
    for (const [code, { severity, count }] of this.#counts) {
      if (count <= TOLD) continue;
      const message = `${count - TOLD} more findings of this kind in ${this.#source}`;
      yield { severity, code, message, source: this.#source, found: count - TOLD };
    }
  }
}

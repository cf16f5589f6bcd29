/** What the checks of all formats share: findings made from errors, reads that may fail, and a limit on findings of one kind. */
import { CorruptError, IoError } from '../errors.ts';
import type { ByteSource } from '../storage/byte-source.ts';
import type { Finding, Severity } from './image.ts';

/** Findings of one kind that are told singly; more are counted. */
const TOLD = 20;

/** The error as a finding. `remedy` says what can still be done: that the disk can be read in spite of it, for one. */
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

/** Why bytes of a file can't be had, as a finding. Anything but damage and a failed read is thrown on. */
export function unreadable(error: unknown, source: string, position?: number): Finding {
  if (!(error instanceof IoError || error instanceof CorruptError)) throw error;
  return {
    severity: 'damaged',
    code: 'unreadable',
    message: error.message,
    source,
    ...(position === undefined ? {} : { position }),
  };
}

/** Bytes of the file, or the finding that says why they can't be had. */
export async function readOr(file: ByteSource, position: number, length: number): Promise<Uint8Array | Finding> {
  try {
    return await file.read(position, length);
  } catch (error) {
    return unreadable(error, file.name, position);
  }
}

/** Lets the first findings of every kind through and counts the rest, so that a ruined table does not end in a million lines. */
export class FindingLimit {
  readonly #counts = new Map<string, { severity: Severity; count: number }>();
  readonly #source: string;

  /** @param source what the findings that stand for many call the file. */
  constructor(source: string) {
    this.#source = source;
  }

  /** The finding, unless enough of its kind were told. */
  *tell(finding: Finding): Generator<Finding> {
    if (this.counts(finding.code, finding.severity)) yield finding;
  }

  /** Counts a finding that is made only where this says that it is still to be told. */
  counts(code: string, severity: Severity): boolean {
    const count = (this.#counts.get(code)?.count ?? 0) + 1;
    this.#counts.set(code, { severity, count });
    return count <= TOLD;
  }

  /** Whether findings of this kind are only counted by now. */
  full(code: string): boolean {
    return (this.#counts.get(code)?.count ?? 0) >= TOLD;
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

/** What a copy has done, as it goes: counters that are always whole, and lists that are kept to a length. */
import { CancelledError, ChainliftError, toWireError, type WireError } from '../errors.ts';
import type { Entry } from '../filesystem/file-system.ts';

export interface CopiedFile {
  readonly path: string;
  readonly destination: string;
  readonly kind: Entry['kind'];
  readonly bytes: number;
  readonly sha256?: string;
  readonly verified: boolean;
}

export interface CopyReport {
  files: number;
  directories: number;
  links: number;
  bytes: number;
  verified: number;
  skipped: number;
  readonly written: string[];
  readonly copied: CopiedFile[];
  readonly problems: { path: string; error: WireError }[];
  readonly notes: { path: string; note: string }[];
}

/** Entries of each list kept in a report. */
const MAX_LISTED = 1000;

export class Reporter {
  readonly report: CopyReport = {
    files: 0,
    directories: 0,
    links: 0,
    bytes: 0,
    verified: 0,
    skipped: 0,
    written: [],
    copied: [],
    problems: [],
    notes: [],
  };
  readonly #general = new Set<string>();

  /** Takes an error of our families as a problem with `path`; throws on what ends the copy: cancelling, and bugs. */
  problem(path: string, error: unknown): void {
    if (error instanceof CancelledError || !(error instanceof ChainliftError)) throw error;
    if (this.report.problems.length < MAX_LISTED) this.report.problems.push({ path, error: toWireError(error) });
    else this.generalNote('There are more problems than are listed here');
  }

  note(path: string, note: string): void {
    if (this.report.notes.length < MAX_LISTED) this.report.notes.push({ path, note });
  }

  /** A note on the copy as a whole, said once and never crowded out. */
  generalNote(note: string): void {
    if (this.#general.has(note)) return;
    this.#general.add(note);
    this.report.notes.unshift({ path: '/', note });
  }

  copiedFile(file: CopiedFile): void {
    this.report.files++;
    if (file.verified) this.report.verified++;
    this.#list(file);
  }

  copiedLink(link: CopiedFile): void {
    this.report.links++;
    this.#list(link);
  }

  /** A top-level destination was made. */
  madeTop(path: string): void {
    if (this.report.written.length < MAX_LISTED) this.report.written.push(path);
  }

  #list(entry: CopiedFile): void {
    if (this.report.copied.length < MAX_LISTED) this.report.copied.push(entry);
  }
}

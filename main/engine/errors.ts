/**
 * Every error the engine throws on purpose belongs to one of these families, so that a shell can choose its words from
 * `kind` and `details` without ever parsing a message. Anything else that is thrown is a bug of ours and is let through.
 *
 * What crosses a process is `WireError`: plain data, because only that survives every carrier.
 */

export type ErrorKind =
  | 'io'
  | 'unsupported'
  | 'corrupt'
  | 'not-found'
  | 'missing-parent'
  | 'needs-key'
  | 'cancelled'
  | 'denied'
  | 'usage';

/** Plain data that may stand in an error's details; everything survives JSON. */
export type Detail =
  | string
  | number
  | boolean
  | null
  | undefined
  | readonly Detail[]
  | { readonly [key: string]: Detail };
export type Details = { readonly [key: string]: Detail };

/** An error as it crosses a process boundary. */
export interface WireError {
  readonly kind: ErrorKind | 'internal';
  readonly message: string;
  readonly details: Details;
}

export abstract class ChainliftError extends Error {
  abstract readonly kind: ErrorKind;
  readonly details: Details;

  constructor(message: string, details: Details = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.details = details;
  }

  toWire(): WireError {
    return { kind: this.kind, message: this.message, details: this.details };
  }
}

/** The operating system or the network refused or failed a read. `code` is errno's name where there is one (ENOENT, EIO). */
export class IoError extends ChainliftError {
  readonly kind = 'io';
  constructor(what: string, details: Details, cause?: unknown) {
    const reason = cause instanceof Error ? `: ${cause.message}` : '';
    const code = (cause as { code?: string } | undefined)?.code;
    super(`${what}${reason}`, code === undefined ? details : { ...details, code }, cause);
  }
}

/** A feature that is known by name and not read by this version. Never used for damage. */
export class UnsupportedError extends ChainliftError {
  readonly kind = 'unsupported';
  constructor(feature: string, details: Details = {}) {
    super(`Not supported: ${feature}${typeof details.source === 'string' ? ` (${details.source})` : ''}`, {
      feature,
      ...details,
    });
  }
}

export interface Corruption {
  /** Label of the file, disk or volume that holds the structure. */
  readonly source?: string;
  /** Byte position of the structure or field within `source`. */
  readonly position?: number;
  readonly expected?: string | number;
  readonly found?: string | number;
}

/** An on-disk structure contradicts its format. Names the structure, where it is, what was expected and what was found. */
export class CorruptError extends ChainliftError {
  readonly kind = 'corrupt';
  constructor(structure: string, at: Corruption) {
    const where = [
      at.source === undefined ? '' : ` in ${at.source}`,
      at.position === undefined ? '' : ` at byte ${at.position}`,
    ].join('');
    const why = [
      at.expected === undefined ? '' : `expected ${at.expected}`,
      at.found === undefined ? '' : `found ${at.found}`,
    ]
      .filter((part) => part !== '')
      .join(', ');
    super(`${structure} is damaged${where}${why === '' ? '' : `: ${why}`}`, { structure, ...at });
  }
}

/** Something the user named is not there; `choices` lists what is. */
export class NotFoundError extends ChainliftError {
  readonly kind = 'not-found';
  constructor(what: string, details: Details = {}) {
    const choices = Array.isArray(details.choices) ? details.choices : [];
    super(`${what} not found${choices.length === 0 ? '' : `; there is: ${choices.join(', ')}`}`, { what, ...details });
  }
}

export interface MissingParent {
  /** The image whose parent is missing. */
  readonly child: string;
  /** The parent's name exactly as the image records it. */
  readonly recorded: string;
  readonly reason: string;
  readonly expectedId?: string;
  readonly foundId?: string;
  /** A file that has the name but not the identity, when there is one. */
  readonly candidate?: string;
}

/** A link of a chain is absent, or a file of its name is not the parent that the child was made from. */
export class MissingParentError extends ChainliftError {
  readonly kind = 'missing-parent';
  constructor(link: MissingParent) {
    super(`The parent "${link.recorded}" of ${link.child} is missing: ${link.reason}`, { ...link });
  }
}

/** An encrypted container that has no key yet. */
export class NeedsKeyError extends ChainliftError {
  readonly kind = 'needs-key';
  constructor(what: string, details: Details = {}) {
    super(`${what} is encrypted and needs a key`, { what, ...details });
  }
}

export class CancelledError extends ChainliftError {
  readonly kind = 'cancelled';
  constructor(what = 'The operation') {
    super(`${what} was cancelled`, { what });
  }
}

/** Something that is not allowed, whatever the reason it was asked for: a path that leaves the repository, a write. */
export class DeniedError extends ChainliftError {
  readonly kind = 'denied';
  constructor(what: string, why: string, details: Details = {}) {
    super(`${what} is refused: ${why}`, { what, why, ...details });
  }
}

/** The caller's request makes no sense as it stands; `choices` lists what would. */
export class UsageError extends ChainliftError {
  readonly kind = 'usage';
  constructor(message: string, details: Details = {}) {
    const choices = Array.isArray(details.choices) ? details.choices : [];
    super(choices.length === 0 ? message : `${message}; choose one of: ${choices.join(', ')}`, details);
  }
}

/** Throws `CancelledError` when the signal has been aborted. Call it at every step of a long loop. */
export function throwIfCancelled(signal: AbortSignal | undefined, what?: string): void {
  if (signal?.aborted) throw new CancelledError(what);
}

/** Any thrown value as data for another process. What is not of our families becomes `internal`, with its message kept. */
export function toWireError(error: unknown): WireError {
  if (error instanceof ChainliftError) return error.toWire();
  return { kind: 'internal', message: error instanceof Error ? error.message : String(error), details: {} };
}

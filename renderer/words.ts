/**
 * Errors in plain words: what happened, to what, and what to do next. Chosen from an error's kind and details alone; its message is
 * never looked at, only shown as it is under "Details".
 */
import type { Detail, ErrorKind, WireError } from '../preload/api.ts';
import { EngineError } from '../preload/rpc/client.ts';
import { asWireError } from '../preload/rpc/protocol.ts';
import { hostName } from './logic/paths.ts';

/** What a button beside the words may offer. */
export type Remedy = 'retry' | 'reconnect' | 'choose' | 'none';

export interface Words {
  readonly title: string;
  readonly text: string;
  /** What to do next, as a sentence. */
  readonly next: string;
  readonly remedy: Remedy;
}

type Details = WireError['details'];

const textOf = (value: Detail): string | undefined =>
  typeof value === 'string' && value !== '' ? value : typeof value === 'number' ? String(value) : undefined;

/** The file, disk or path that an error is about, by its short name. */
function subject(details: Details): string | undefined {
  const named = textOf(details.source) ?? textOf(details.path) ?? textOf(details.file) ?? textOf(details.name);
  return named === undefined ? undefined : hostName(named) || named;
}

const quoted = (text: string | undefined, otherwise: string) => (text === undefined ? otherwise : `“${text}”`);

function list(value: Detail): string | undefined {
  if (!Array.isArray(value)) return undefined;
  const names = value.map((one) => textOf(one)).filter((one) => one !== undefined);
  if (names.length === 0) return undefined;
  return names.length > 8 ? `${names.slice(0, 8).join(', ')} and ${names.length - 8} more` : names.join(', ');
}

const IO: Readonly<Record<string, (what: string) => Words>> = {
  DISCONNECTED: () => ({
    title: 'The engine is not answering',
    text: 'The connection between this window and the engine was lost.',
    next: 'Reconnect. Backups are only ever read, so nothing in them can have been harmed.',
    remedy: 'reconnect',
  }),
  ENOENT: (what) => ({
    title: 'It is not there',
    text: `${what} does not exist, or does not any more: moved, renamed, deleted, or on a drive that is not connected.`,
    next: 'Check the name, connect the drive or put it back, then try again.',
    remedy: 'retry',
  }),
  EACCES: (what) => ({
    title: 'No permission',
    text: `Your account on this computer may not use ${what}.`,
    next: 'Ask for the permission, or choose another place, then try again.',
    remedy: 'retry',
  }),
  ENOSPC: (what) => ({
    title: 'The disk is full',
    text: `There is no room left to write ${what}.`,
    next: 'Free some space or choose another destination. Nothing half-written was left behind.',
    remedy: 'choose',
  }),
  EROFS: (what) => ({
    title: 'The destination is read-only',
    text: `${what} is on a drive that cannot be written to.`,
    next: 'Choose another destination.',
    remedy: 'choose',
  }),
  EEXIST: (what) => ({
    title: 'It exists already',
    text: `${what} is there already and was left as it is.`,
    next: 'Choose another destination, or copy again and say what to do with files that exist.',
    remedy: 'choose',
  }),
  ENOTDIR: (what) => ({
    title: 'Not a folder',
    text: `${what} is a file where a folder is needed.`,
    next: 'Choose a folder.',
    remedy: 'choose',
  }),
  ENAMETOOLONG: (what) => ({
    title: 'A name is too long',
    text: `The name of ${what} is longer than the destination’s file system allows.`,
    next: 'Choose a destination with a shorter path.',
    remedy: 'choose',
  }),
  EIO: (what) => ({
    title: 'The drive reports a read error',
    text: `This computer could not read a part of ${what}. The drive or its cable may be failing.`,
    next: 'Copy the backup to a healthy drive and open it there.',
    remedy: 'retry',
  }),
  EMFILE: () => ({
    title: 'Too many files are open',
    text: 'This computer does not let Chainlift open more files at once.',
    next: 'Stop an export or close another program, then try again.',
    remedy: 'retry',
  }),
  EADDRINUSE: (what) => ({
    title: 'The address is taken',
    text: `Another program listens on ${what} already.`,
    next: 'Choose another port, or 0 to let the system choose.',
    remedy: 'retry',
  }),
  ETIMEDOUT: (what) => ({
    title: 'No answer in time',
    text: `${what} did not answer. The network or the other computer may be down.`,
    next: 'Check the connection, then try again.',
    remedy: 'retry',
  }),
};

const SAME_AS: Readonly<Record<string, string>> = {
  EPERM: 'EACCES',
  EDQUOT: 'ENOSPC',
  ENFILE: 'EMFILE',
  ENXIO: 'EIO',
  ENODEV: 'ENOENT',
  ESTALE: 'ENOENT',
  EHOSTUNREACH: 'ETIMEDOUT',
  ENETUNREACH: 'ETIMEDOUT',
  ECONNREFUSED: 'ETIMEDOUT',
  ECONNRESET: 'ETIMEDOUT',
};

const MOUNTABLE = 'The whole disk can still be mounted and read with other programs.';

/** Volumes that can't be browsed, by what was seen in them. */
const CONTENT: Readonly<Record<string, (details: Details) => Words>> = {
  empty: (details) => ({
    title: 'Empty',
    text: `${quoted(subject(details), 'this volume')} holds nothing but zeros where a file system would begin.`,
    next: `It may never have been formatted. ${MOUNTABLE}`,
    remedy: 'none',
  }),
  unknown: (details) => ({
    title: 'Content not recognised',
    text: `${quoted(subject(details), 'this volume')} holds no file system that Chainlift knows.`,
    next: `It may hold raw data, or be encrypted without a mark that says so. ${MOUNTABLE}`,
    remedy: 'none',
  }),
  recognised: (details) => ({
    title: 'Not read yet',
    text: `${quoted(subject(details), 'this volume')} holds ${textOf(details.feature) ?? 'a format'}, which this version does not read.`,
    next: MOUNTABLE,
    remedy: 'none',
  }),
};

const BY_KIND: Readonly<Record<ErrorKind, (details: Details) => Words>> = {
  io(details) {
    const code = textOf(details.code) ?? '';
    const name = Object.hasOwn(SAME_AS, code) ? SAME_AS[code] : code;
    const known = name !== undefined && Object.hasOwn(IO, name) ? IO[name] : undefined;
    const what = quoted(subject(details), 'the file');
    if (known !== undefined) return capital(known(what));
    return {
      title: 'Reading or writing failed',
      text: capitalised(`${what} could not be read or written${code === '' ? '' : ` (${code})`}.`),
      next: 'Check that the drive or the network is connected, then try again.',
      remedy: 'retry',
    };
  },
  unsupported(details) {
    const known = textOf(details.content);
    if (known !== undefined && Object.hasOwn(CONTENT, known)) return capital(CONTENT[known]!(details));
    return {
      title: 'Not supported yet',
      text: capitalised(
        `${quoted(subject(details), 'this')} uses ${textOf(details.feature) ?? 'a feature'}, which this version does not read.`,
      ),
      next: 'Everything else can still be read. A newer version may read this too.',
      remedy: 'none',
    };
  },
  corrupt(details) {
    const structure = textOf(details.structure) ?? 'A structure';
    const where = subject(details);
    const expected = textOf(details.expected);
    const found = textOf(details.found);
    const why = [expected && `${expected} was expected`, found && `${found} was found`].filter(Boolean).join(', ');
    const position = textOf(details.position);
    return {
      title: 'Damaged data',
      text: `${capitalised(structure)} is damaged${where === undefined ? '' : ` in ${quoted(where, '')}`}${
        position === undefined ? '' : ` at byte ${position}`
      }${why === '' ? '.' : `: ${why}.`}`,
      next: 'What is whole can still be copied out. Another point in time may hold an undamaged version.',
      remedy: 'none',
    };
  },
  'not-found'(details) {
    const choices = list(details.choices);
    const file = textOf(details.file) ?? textOf(details.recorded);
    if (file !== undefined) {
      return {
        title: 'An image is missing',
        text: `“${file}” is not in the backup’s folder.`,
        next: 'Put it back and try again. Points that do not need it can be used.',
        remedy: 'retry',
      };
    }
    return {
      title: 'Not found',
      text: capitalised(`${textOf(details.what) ?? 'what was asked for'} is not there.`),
      next: choices === undefined ? 'It may exist at another point in time.' : `There is: ${choices}.`,
      remedy: 'none',
    };
  },
  'missing-parent'(details) {
    const recorded = quoted(textOf(details.recorded), 'its parent');
    const candidate = textOf(details.candidate);
    return {
      title: 'A link of the chain is missing',
      text: `${quoted(textOf(details.child), 'An image')} holds only what changed since ${recorded}, which ${
        candidate === undefined ? 'is not in this folder' : 'is not the file that it was made from'
      }.`,
      next:
        candidate === undefined
          ? `Put ${recorded} back beside it, or say where it is now. Points that do not need it can be used.`
          : `“${candidate}” was changed since, or is another disk. Bring the original back, or say where it is.`,
      remedy: 'retry',
    };
  },
  'needs-key'(details) {
    return {
      title: 'Encrypted',
      text: capitalised(`${textOf(details.what) ?? 'this volume'} is encrypted and can only be read with its key.`),
      next: 'This version does not unlock it. The whole disk can still be mounted, and unlocked where it is mounted.',
      remedy: 'none',
    };
  },
  cancelled() {
    return {
      title: 'Cancelled',
      text: 'It was stopped before it had finished.',
      next: 'What had been copied by then is whole. Start again when you like.',
      remedy: 'none',
    };
  },
  denied(details) {
    const why = textOf(details.why);
    const destination = textOf(details.destination);
    if (destination !== undefined) {
      return {
        title: details.exists === true ? 'It exists already' : 'Refused for safety',
        text: `“${destination}” was left as it is${why === undefined ? '.' : `: ${why}.`}`,
        next: 'Choose another destination, or copy again with another answer to what is there already.',
        remedy: 'choose',
      };
    }
    return {
      title: 'Refused for safety',
      text: `${capitalised(textOf(details.what) ?? 'this')} is not allowed${why === undefined ? '.' : `: ${why}.`}`,
      next: 'Backups are read-only, and nothing outside the opened folder is followed. Open the folder that holds all of it.',
      remedy: 'none',
    };
  },
  usage(details) {
    const choices = list(details.choices);
    const problem = textOf(details.problem);
    return {
      title: 'This cannot be done as asked',
      text: problem === undefined ? 'Something in the request does not fit.' : `${capitalised(problem)}.`,
      next: choices === undefined ? 'Change what is asked for and try again.' : `Choose one of: ${choices}.`,
      remedy: 'choose',
    };
  },
  internal() {
    return {
      title: 'Something went wrong in Chainlift',
      text: 'This is a fault of the program, not of your backup, which is only ever read.',
      next: 'Try again. If it happens again, report it with the details below.',
      remedy: 'retry',
    };
  },
};

const capitalised = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);
const capital = (words: Words): Words => ({ ...words, text: capitalised(words.text) });

export function wordsFor(error: WireError): Words {
  return BY_KIND[error.kind](error.details);
}

/** The few words that stand in a table's cell or a footer. */
export function shortWords(error: WireError): string {
  return wordsFor(error).title;
}

const LABELS: Readonly<Record<string, string>> = {
  source: 'In',
  path: 'Path',
  structure: 'Structure',
  position: 'At byte',
  expected: 'Expected',
  found: 'Found',
  code: 'System error',
  feature: 'Feature',
  recorded: 'Recorded parent',
  child: 'Image',
  expectedId: 'Expected content id',
  foundId: 'Found content id',
  candidate: 'File of that name',
  reason: 'Reason',
};

/** What an error holds, line by line, for the part that is one click away. */
export function detailLines(error: WireError): { label: string; value: string }[] {
  const lines = [
    { label: 'Message', value: error.message },
    { label: 'Kind', value: error.kind },
  ];
  for (const [key, value] of Object.entries(error.details)) {
    if (value === undefined || value === null) continue;
    const shown = typeof value === 'object' ? JSON.stringify(value) : String(value);
    lines.push({ label: LABELS[key] ?? key, value: shown });
  }
  return lines;
}

/** Any thrown value as an error that has words. */
export function asWire(error: unknown): WireError {
  if (error instanceof EngineError) return error.toWire();
  // What Electron's shell rejects with is data already: no error crosses the context bridge with more than its message.
  const plain = error instanceof Error ? undefined : asWireError(error);
  if (plain !== undefined) return plain;
  return { kind: 'internal', message: error instanceof Error ? error.message : String(error), details: {} };
}

/**
 * Names of guest files never decide where something is written. A guest's name becomes one component of a host path, changed
 * as little as the host needs, and the change is reported.
 *
 * Windows' rules: learn.microsoft.com/windows/win32/fileio/naming-a-file.
 */
import { createHash } from 'node:crypto';
import { parse } from 'node:path';
import { nameToBytes } from '../filesystem/names.ts';

const reserved = /^(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)/i;
/** What a name may take: 255 bytes with Linux and APFS, 255 UTF-16 units with Windows. */
const MAX_LENGTH = 255;
/** Longest extension that a cut name keeps. */
const MAX_EXTENSION = 32;
/** Text that could be taken for the escape of a byte, be it protected any number of times. */
const looksEscaped = /\\x(5cx)*[89a-f][0-9a-f]/;

export interface SafeName {
  readonly name: string;
  /** The guest's name could not be used as it was. */
  readonly changed: boolean;
}

/**
 * `guestName` as a single, harmless component of a path on `platform`. Names that need no change keep apart, as do cut and escaped
 * ones; a hostile name can still come out as an honest one does (`a/b` as `a∕b`), so who writes checks for that.
 */
export function safeName(guestName: string, platform: NodeJS.Platform = process.platform): SafeName {
  const plain = unescaped(guestName);
  let name = plain.replaceAll('/', '∕').replaceAll('\0', '␀');
  if (name === '') name = '_';
  else if (name === '.' || name === '..') name = name.replaceAll('.', '․');
  if (platform === 'win32') {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what Windows forbids
    name = name.replace(/[<>:"|?*\\\u0001-\u001f]/g, percent);
    name = name.replace(/[. ]+$/, (tail) => [...tail].map(percent).join(''));
    if (reserved.test(name)) name = `_${name}`;
  } else if (platform === 'darwin') {
    name = name.replaceAll(':', percent);
  }
  if (lengthOf(name, platform) > MAX_LENGTH) name = cut(name, platform);
  return { name, changed: name !== guestName && name !== plain };
}

function percent(character: string): string {
  return `%${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
}

/**
 * A name whose escapes only protected a backslash is itself again; one with bytes that are no Unicode stays escaped, and so does
 * the rare one that reads like such an escape, so that the two keep apart.
 */
function unescaped(guestName: string): string {
  const raw = Buffer.from(nameToBytes(guestName));
  const text = raw.toString('utf8');
  return Buffer.from(text, 'utf8').equals(raw) && !looksEscaped.test(text) ? text : guestName;
}

function lengthOf(name: string, platform: NodeJS.Platform): number {
  return platform === 'win32' ? name.length : Buffer.byteLength(name);
}

/** Shortens a name to what file systems take, keeps its extension, and keeps it distinct by a digest of the whole. */
function cut(name: string, platform: NodeJS.Platform): string {
  const mark = `~${createHash('sha256').update(name).digest('hex').slice(0, 8)}`;
  const { name: stem, ext } = parse(name);
  return lengthOf(ext, platform) > MAX_EXTENSION
    ? fitName(name, mark, platform)
    : fitName(stem, `${mark}${ext}`, platform);
}

/** `stem` and `tail` as one name, the stem cut (never inside a character) where the two are too long. */
export function fitName(stem: string, tail: string, platform: NodeJS.Platform = process.platform): string {
  let left = MAX_LENGTH - lengthOf(tail, platform);
  if (lengthOf(stem, platform) <= left) return stem + tail;
  let kept = '';
  for (const character of stem) {
    left -= lengthOf(character, platform);
    if (left < 0) break;
    kept += character;
  }
  return kept + tail;
}

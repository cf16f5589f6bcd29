/**
 * VMware's text files (.vmx, .vmsd, .vmxf's siblings): lines of `key = "value"`. Keys do not differ by case, of two lines with one
 * key the last wins. `|XX` in a value is a byte in hexadecimal (`|22` a quote, `|7C` the bar itself, `|0A` a line end), read in the
 * file's own encoding. The encoding stands in the file: `.encoding = "GBK"`; older writers and copies lack the leading dot.
 *
 * There is no specification; the facts are those of libvirt's src/vmx/vmx.c (escapes), of open-vm-tools' lib/dict, and of real files.
 *
 * A line that is none is reported and passed over: one broken line must not hide a VM.
 */

import { CorruptError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { oneLine } from '../text.ts';

/** Larger files are none of VMware's: real ones are a few KiB, one with a thousand snapshots of ten disks about 1 MiB. */
export const MAX_CONFIG_BYTES = 8 << 20;
/** Distinct keys kept at most. */
export const MAX_CONFIG_KEYS = 200_000;
/** Broken lines reported one by one; the rest is counted. */
const MAX_REPORTED = 5;

export interface Config {
  /** What errors and findings call the file. */
  readonly source: string;
  readonly encoding: string;
  /** Value by key in lower case. */
  readonly values: ReadonlyMap<string, string>;
  readonly findings: readonly Finding[];
}

/**
 * Reads a configuration file of the opened folder. @throws CorruptError when it is larger than any real one, IoError,
 * DeniedError when it lies outside.
 */
export async function readConfig(path: string, folder: Confinement): Promise<Config> {
  const file = folder.open(path);
  try {
    if (file.size > MAX_CONFIG_BYTES) {
      throw new CorruptError('VMware configuration', {
        source: file.name,
        expected: `at most ${MAX_CONFIG_BYTES} bytes`,
        found: file.size,
      });
    }
    return parseConfig(await file.read(0, file.size), file.name);
  } finally {
    await file.close();
  }
}

/** Parses the bytes of a configuration file. Never throws for what they hold. @throws CorruptError for more keys than any real file has. */
export function parseConfig(bytes: Uint8Array, source: string): Config {
  const findings: Finding[] = [];
  const { text, encoding, unescaped } = decode(bytes, source, findings);
  const values = new Map<string, string>();
  let broken = 0;
  let number = 0;
  for (const line of lines(text)) {
    number++;
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) continue;
    const equals = trimmed.indexOf('=');
    const key = equals < 0 ? '' : trimmed.slice(0, equals).trimEnd().toLowerCase();
    if (key === '' || key.length > 256) {
      if (++broken <= MAX_REPORTED) {
        findings.push({
          severity: 'note',
          code: 'config-line',
          message: `Line ${number} of ${source} is not of the form key = "value" and is passed over`,
          source,
          structure: `line ${number}`,
          expected: 'key = "value"',
          found: shorten(trimmed),
        });
      }
      continue;
    }
    if (values.size >= MAX_CONFIG_KEYS && !values.has(key)) {
      throw new CorruptError('VMware configuration', {
        source,
        expected: `at most ${MAX_CONFIG_KEYS} keys`,
        found: 'more',
      });
    }
    values.set(key, unescaped(unquote(trimmed.slice(equals + 1).trimStart())));
  }
  if (broken > MAX_REPORTED) {
    findings.push({
      severity: 'note',
      code: 'config-line',
      message: `${broken - MAX_REPORTED} more lines of ${source} are not of the form key = "value"`,
      source,
    });
  }
  return { source, encoding, values, findings };
}

/** A value, or undefined when the key is absent or its value empty. */
export function textOf(config: Config, key: string): string | undefined {
  const value = config.values.get(key.toLowerCase());
  return value === undefined || value === '' ? undefined : value;
}

/** A yes or no, as VMware reads it; undefined when absent or neither. */
export function flagOf(config: Config, key: string): boolean | undefined {
  return parseFlag(config.values.get(key.toLowerCase()));
}

export function parseFlag(value: string | undefined): boolean | undefined {
  const word = value?.trim().toLowerCase();
  if (word === 'true' || word === 't' || word === 'yes' || word === 'y' || word === '1' || word === 'on') return true;
  if (word === 'false' || word === 'f' || word === 'no' || word === 'n' || word === '0' || word === 'off') return false;
  return undefined;
}

/** A whole number within bounds; undefined when absent, no number, or outside. */
export function integerOf(config: Config, key: string, least: number, most: number): number | undefined {
  const value = config.values.get(key.toLowerCase())?.trim();
  if (value === undefined || !/^-?\d{1,15}$/.test(value)) return undefined;
  const number = Number(value);
  return number >= least && number <= most ? number : undefined;
}

function shorten(text: string): string {
  const line = oneLine(text);
  return line.length > 60 ? `${line.slice(0, 60)}...` : line;
}

/** Lines without their ends, one at a time: a file of a million lines is no array of a million strings. */
function* lines(text: string): Generator<string> {
  let start = 0;
  while (start < text.length) {
    let end = text.indexOf('\n', start);
    if (end < 0) end = text.length;
    yield text.slice(start, end);
    start = end + 1;
  }
}

/** The text between the quotes; of a value without quotes, or with only the first, what there is. */
function unquote(value: string): string {
  if (!value.startsWith('"')) return value.trimEnd();
  const end = value.indexOf('"', 1);
  return end < 0 ? value.slice(1) : value.slice(1, end);
}

interface Decoded {
  readonly text: string;
  readonly encoding: string;
  readonly unescaped: (value: string) => string;
}

function decode(bytes: Uint8Array, source: string, findings: Finding[]): Decoded {
  const recorded = recordedEncoding(bytes);
  for (const label of recorded === undefined ? ['utf-8'] : [recorded, 'utf-8']) {
    const encoding = labelOf(label);
    if (encoding === undefined) {
      findings.push(encodingFinding(source, `"${label}" is no encoding known here`, label));
      continue;
    }
    try {
      const text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
      return { text, encoding, unescaped: unescaper(encoding) };
    } catch (error) {
      // TextDecoder throws TypeError for bytes that are not of the encoding, and for nothing else here.
      if (!(error instanceof TypeError)) throw error;
      if (label === recorded) findings.push(encodingFinding(source, `its bytes are not ${label}`, label));
    }
  }
  // windows-1252 gives every byte a meaning, so that ASCII (all keys, most names) is right whatever the rest was.
  const encoding = 'windows-1252';
  if (recorded === undefined) findings.push(encodingFinding(source, 'it names no encoding and is not UTF-8', 'none'));
  return { text: new TextDecoder(encoding).decode(bytes), encoding, unescaped: unescaper(encoding) };
}

function encodingFinding(source: string, why: string, found: string): Finding {
  return {
    severity: 'note',
    code: 'config-encoding',
    message: `The encoding of ${source} is uncertain: ${why}; names outside ASCII may be shown wrong`,
    source,
    structure: '.encoding',
    found,
  };
}

/** What the file says its encoding is, looked for as Latin-1 at its beginning, where writers put it. */
function recordedEncoding(bytes: Uint8Array): string | undefined {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return 'utf-16le';
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return 'utf-16be';
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 65_536)).toString('latin1');
  const match = /^[^\S\n]*\.?encoding[^\S\n]*=[^\S\n]*"?([A-Za-z0-9_.:-]{1,40})/im.exec(head);
  return match?.[1];
}

/** VMware's names of encodings that the WHATWG list calls otherwise. */
const ALIASES: Readonly<Record<string, string>> = {
  'windows-932': 'shift_jis',
  'windows-936': 'gbk',
  'windows-949': 'euc-kr',
  'windows-950': 'big5',
  'windows-51932': 'euc-jp',
  'windows-54936': 'gb18030',
  'windows-65001': 'utf-8',
  'windows-28591': 'iso-8859-1',
};

function labelOf(recorded: string): string | undefined {
  const lower = recorded.toLowerCase().replace(/^cp-?(\d+)$/, 'windows-$1');
  const label = ALIASES[lower] ?? lower;
  try {
    return new TextDecoder(label).encoding;
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/** Undoes `|XX`. Neighbouring escapes are decoded together, for they may be the bytes of one character. */
function unescaper(encoding: string): (value: string) => string {
  // In UTF-16 files, as everywhere else, the escapes themselves are bytes of UTF-8.
  const decoder = new TextDecoder(encoding.startsWith('utf-16') ? 'utf-8' : encoding, { ignoreBOM: true });
  return (value) =>
    value.includes('|')
      ? value.replace(/(?:\|[0-9A-Fa-f]{2})+/g, (run) => decoder.decode(Buffer.from(run.replaceAll('|', ''), 'hex')))
      : value;
}

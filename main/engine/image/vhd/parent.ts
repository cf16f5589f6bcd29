/**
 * What a differencing VHD records of its parent: an identity, a time and several names (specification, "Implementing a
 * Differencing Hard Disk", "Identification of the Parent Hard Disk Image").
 *
 * A locator's space is in sectors by the specification and in bytes by everybody since Virtual PC; reading needs only its length,
 * so both are taken. XenServer's tools write the relative name into the locator of absolute names too, and leave the parent's
 * identity out where the parent is a raw volume (blktap, `vhd_parent_raw`).
 */
import type { Fields } from '../../binary.ts';
import { CorruptError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { untilNul, utf16 } from '../../text.ts';
import { findingOf } from '../findings.ts';
import type { Finding, ParentClaim } from '../image.ts';
import * as layout from './layout.ts';
import { type DynamicHeader, type Footer, type ParentLocator, SECTOR } from './layout.ts';

const LOCATOR = 'VHD parent locator';
const NAME = 'VHD parent unicode name';
/** The longest path of Windows, in UTF-16. */
const MAX_NAME_BYTES = 65_536;

/** Codes whose data is a path, in the order in which they are tried. `Mac ` is an alias record, which names no path. */
const PATH_CODES = ['W2ru', 'W2ku', 'MacX', 'Wi2r', 'Wi2k'] as const;
const KNOWN_CODES: ReadonlySet<string> = new Set([...PATH_CODES, 'Mac ']);

export interface ParentRecord {
  readonly claim: ParentClaim;
  readonly locators: readonly ParentLocator[];
  readonly findings: readonly Finding[];
}

/** Reads every name that the header of a differencing disk records. Damage of one name is a finding: the others are left. @throws IoError. */
export async function readParent(
  file: OpenFile,
  footer: Footer,
  header: DynamicHeader,
  fields: Fields,
  dataEnd: number,
): Promise<ParentRecord> {
  const findings: Finding[] = [];
  const locators: ParentLocator[] = [];
  const names = new Map<string, string[]>();
  for (let index = 0; index < layout.LOCATORS; index++) {
    const locator = layout.readLocator(fields, index);
    if (locator.code === '') continue;
    locators.push(locator);
    const found = await readName(file, fields, locator, dataEnd, findings);
    if (found.length > 0) names.set(locator.code, [...(names.get(locator.code) ?? []), ...found]);
  }
  const unicode = unicodeName(fields, footer, findings);
  const all = [
    ...new Set([...PATH_CODES.flatMap((code) => names.get(code) ?? []), ...(unicode === undefined ? [] : [unicode])]),
  ];
  return { claim: claimOf(all, footer, header), locators, findings };
}

function claimOf(names: readonly string[], footer: Footer, header: DynamicHeader): ParentClaim {
  const identified = header.parentUniqueId !== layout.NO_UUID;
  const [recorded, ...alternatives] = names;
  // A fixed VHD without the usual ending shows what it is in its last sector only, where nobody probes: its child knows.
  const raw = !identified && layout.madeByTapdisk(footer);
  return {
    recorded: recorded ?? header.parentUniqueId,
    ...(alternatives.length === 0 ? {} : { alternatives }),
    ...(recorded === undefined ? { nameless: true } : {}),
    ...(identified ? { id: header.parentUniqueId, format: 'vhd' } : raw ? { format: 'raw' } : {}),
    ...(header.parentTimeStamp === 0 ? {} : { modified: header.parentTimeStamp + layout.EPOCH_2000 }),
  };
}

function inFile({ dataOffset, dataLength }: ParentLocator, dataEnd: number): boolean {
  return dataOffset >= layout.FOOTER_BYTES && dataOffset + dataLength <= dataEnd;
}

/** Whether the locator's data is where and as long as it can be: one that is not says nothing of what else lies there. */
export function isCredible(locator: ParentLocator, dataEnd: number): boolean {
  return inFile(locator, dataEnd) && locator.dataLength > 0 && locator.dataLength <= MAX_NAME_BYTES;
}

function locatorField(locator: ParentLocator): number {
  return layout.HeaderOffsets.parentLocators + locator.index * layout.LOCATOR_BYTES;
}

async function readName(
  file: OpenFile,
  fields: Fields,
  locator: ParentLocator,
  dataEnd: number,
  findings: Finding[],
): Promise<string[]> {
  const { code, dataLength, dataOffset, index } = locator;
  const at = fields.position + locatorField(locator);
  const damaged = (expected: string, found: string, severity: 'damaged' | 'suspicious', kind: string): void => {
    const structure = `${LOCATOR} ${index} (${printable(code)})`;
    const error = new CorruptError(structure, { source: file.name, position: at, expected, found });
    findings.push(findingOf(error, kind, severity, 'The other names recorded for the parent are used.'));
  };
  if (!KNOWN_CODES.has(code)) {
    damaged(`one of ${[...KNOWN_CODES].join(', ')}`, printable(code), 'suspicious', 'locator-unknown');
    return [];
  }
  if (!inFile(locator, dataEnd)) {
    damaged(`data within ${dataEnd} bytes`, `${dataLength} bytes from ${dataOffset}`, 'damaged', 'locator-out-of-file');
    return [];
  }
  if (dataLength === 0 || dataLength > MAX_NAME_BYTES) {
    damaged(`1 to ${MAX_NAME_BYTES} bytes`, `${dataLength} bytes`, 'suspicious', 'locator-length');
    return [];
  }
  if (dataLength > Math.max(locator.dataSpace, locator.dataSpace * SECTOR)) {
    damaged(`at most the ${locator.dataSpace} of its space`, `${dataLength} bytes`, 'suspicious', 'locator-length');
  }
  if (!isPathCode(code)) return [];
  const bytes = await file.read(dataOffset, dataLength);
  const decoded = decodeName(code, bytes);
  if (decoded.some((name) => name.includes('\ufffd'))) {
    damaged(
      'text in Unicode',
      'half a surrogate pair, or a byte that is no text',
      'suspicious',
      'parent-name-not-text',
    );
  }
  return decoded.filter((name) => name !== '');
}

function isPathCode(code: string): code is (typeof PATH_CODES)[number] {
  return (PATH_CODES as readonly string[]).includes(code);
}

/** The names that a locator's data may mean, likeliest first. What is no text becomes U+FFFD, which no file is called. */
export function decodeName(code: (typeof PATH_CODES)[number], bytes: Uint8Array): string[] {
  switch (code) {
    case 'W2ru':
    case 'W2ku':
      return [utf16(bytes, 'utf-16le')];
    case 'MacX':
      return fileUrlPaths(untilNul(new TextDecoder('utf-8').decode(bytes)));
    default:
      // Deprecated before its encoding was ever written down: Windows text of one byte a character, or of two.
      return bytes.length >= 2 && bytes[1] === 0
        ? [utf16(bytes, 'utf-16le')]
        : [untilNul(new TextDecoder('windows-1252').decode(bytes))];
  }
}

/** The path of a `file:` URL. XenServer's tools write names into it as they are, so where decoding changes it both are meant. */
function fileUrlPaths(url: string): string[] {
  const path = url.replace(/^file:\/\/(localhost(?=\/))?/i, '');
  try {
    return [...new Set([decodeURIComponent(path), path])];
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    return [path];
  }
}

/** The name in the header itself, 256 UTF-16 units. tapdisk 0.1 wrote it in its own byte order, behind a mark that says which. */
function unicodeName(fields: Fields, footer: Footer, findings: Finding[]): string | undefined {
  const at = layout.HeaderOffsets.parentUnicodeName;
  const bytes = fields.slice(at, layout.UNICODE_NAME_BYTES);
  const marked = bytes[0] === 0xff && bytes[1] === 0xfe;
  const old = layout.madeByTapdisk(footer) && footer.creatorVersion === layout.TAP_VERSION_LOW_BIT_FIRST;
  const name = utf16(bytes, marked && old ? 'utf-16le' : 'utf-16be');
  if (name.includes('\ufffd')) {
    const error = new CorruptError(NAME, {
      source: fields.source,
      position: fields.position + at,
      expected: 'text in UTF-16',
      found: 'half a surrogate pair',
    });
    findings.push(findingOf(error, 'parent-name-not-text', 'suspicious', 'The names in the parent locators are used.'));
  }
  return name === '' ? undefined : name;
}

/** Four characters as they may be shown. */
export function printable(code: string): string {
  return /^[\x20-\x7e]+$/.test(code) ? code : `0x${Buffer.from(code, 'latin1').toString('hex')}`;
}

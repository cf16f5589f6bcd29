/**
 * The parent locator of a differencing VHDX ([MS-VHDX] 2.6.2.6): keys and values that say which disk the parent is and where it was.
 *
 * The identity is the parent's DataWriteGuid when the child was made (`parent_linkage`). Version 1.00 of the format also knew
 * `parent_linkage2`, a second identity that the parent may have instead; Hyper-V writes it still, mostly as zeros, and the
 * specification has readers accept either.
 */
import type { Fields } from '../../binary.ts';
import { UnsupportedError } from '../../errors.ts';
import { utf16, uuidIn } from '../../text.ts';
import type { Finding, ParentClaim } from '../image.ts';
import { guid } from './headers.ts';
import * as layout from './layout.ts';

export interface ParentLocator {
  readonly claim: ParentClaim;
  readonly findings: readonly Finding[];
}

/** Paths in the order in which the specification has them tried. */
const PATHS = ['relative_path', 'volume_path', 'absolute_win32_path'];

/** @throws CorruptError, UnsupportedError for a locator of another type. */
export function parseParentLocator(fields: Fields): ParentLocator {
  const type = guid(fields, 0);
  if (type !== layout.PARENT_LOCATOR_VHDX) {
    throw new UnsupportedError(`VHDX parent locator of type ${type}`, { source: fields.source });
  }
  const values = readEntries(fields);
  const id = linkage(fields, values, 'parent_linkage');
  if (id === undefined) throw fields.corrupt('', 0, 'a parent_linkage', 'none');
  const other = linkage(fields, values, 'parent_linkage2');
  const paths = PATHS.map((key) => values.get(key) ?? '').filter((path) => path !== '');
  const [recorded, ...alternatives] = paths;
  const identity = {
    id,
    ...(other === undefined || other === layout.NO_GUID || other === id ? {} : { alternativeIds: [other] }),
  };
  if (recorded !== undefined) {
    const more = [...new Set(alternatives)].filter((path) => path !== recorded);
    return { claim: { recorded, ...(more.length === 0 ? {} : { alternatives: more }), ...identity }, findings: [] };
  }
  return {
    claim: { recorded: id, nameless: true, ...identity },
    findings: [
      {
        severity: 'suspicious',
        code: 'parent-path-missing',
        message: `${fields.source} records its parent's identity and no path of it`,
        source: fields.source,
        structure: fields.structure,
        position: fields.position,
        expected: `one of ${PATHS.join(', ')}`,
        found: 'none',
        remedy: 'The parent is looked for by its identity.',
      },
    ],
  };
}

function readEntries(fields: Fields): Map<string, string> {
  const count = fields.u16(18);
  const values = new Map<string, string>();
  let total = 0;
  for (let i = 0; i < count; i++) {
    const at = layout.PARENT_LOCATOR_HEADER_BYTES + i * layout.PARENT_LOCATOR_ENTRY_BYTES;
    const [keyLength, valueLength] = [fields.u16(at + 8), fields.u16(at + 10)];
    // Entries that all point at the same text would make gigabytes of it.
    total += keyLength + valueLength;
    fields.require(total <= fields.length, 'entry lengths', at, `at most ${fields.length} bytes in all`, total);
    const key = text(fields, fields.u32(at), keyLength, at);
    const value = text(fields, fields.u32(at + 4), valueLength, at);
    fields.require(!values.has(key), 'entry key', at, 'a key that is not there yet', key);
    values.set(key, value);
  }
  return values;
}

function text(fields: Fields, offset: number, length: number, entry: number): string {
  fields.require(length % 2 === 0, 'entry length', entry, 'a whole number of UTF-16 units', length);
  return utf16(fields.slice(offset, length));
}

/** A GUID in the usual digits, with braces or without. */
function linkage(fields: Fields, values: ReadonlyMap<string, string>, key: string): string | undefined {
  const value = values.get(key);
  if (value === undefined) return undefined;
  const id = uuidIn(value);
  if (id === undefined) throw fields.corrupt(key, 0, 'a GUID', JSON.stringify(value.slice(0, 64)));
  return id;
}

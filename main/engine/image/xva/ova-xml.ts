/**
 * `ova.xml`, the description in a XenServer export: an XML-RPC value with the version of the host that wrote it and the records of
 * the VM, its snapshots, their disks, adapters, networks and storage repositories as the host's database had them. References between
 * records are `Ref:12`, and `OpaqueRef:NULL` for none; the disk of a VDI record is in the archive's folder of the same name.
 *
 * Source: https://docs.xenserver.com (VM import and export) and XAPI's export.ml (https://github.com/xapi-project/xen-api), which
 * writes it.
 */
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { Archive } from '../../storage/archive/archive.ts';
import { childOf, childrenOf, readXml, type XmlElement } from '../../xml.ts';

/** Real ones have 10 to 20 KiB for each VM and snapshot. */
const MAX_BYTES = 32 << 20;
/** Values within values. */
const MAX_DEPTH = 16;
const STRUCTURE = 'ova.xml';

/** An XML-RPC value; a number that a record keeps as text (all 64-bit ones) stays text. */
export type XenValue = string | number | boolean | readonly XenValue[] | XenRecord;
export type XenRecord = ReadonlyMap<string, XenValue>;

export interface XenObject {
  /** `VM`, `VBD`, `VDI`, `VIF`, `SR`, `network`, `host`, `VM_guest_metrics`, `VGPU`, ... Snapshots are VMs. */
  readonly class: string;
  /** What other records call it: `Ref:12`. */
  readonly id: string;
  /** The record's fields by their names in the XenServer API. */
  readonly record: XenRecord;
}

export interface XenExport {
  /** `product_brand`, `product_version`, `hostname`, `date`, `export_vsn`, ... */
  readonly version: XenRecord;
  /** In the order of the file. */
  readonly objects: readonly XenObject[];
  /** The object of this reference; undefined for none and for those that were not exported. */
  find(id: string | undefined): XenObject | undefined;
  ofClass(name: string): XenObject[];
}

const known = new WeakMap<Archive, Promise<XenExport>>();

/** True when the archive is called or looks like a XenServer export: it has an `ova.xml`. */
export function isXva(archive: Archive): boolean {
  return archive.member(STRUCTURE)?.kind === 'file';
}

/**
 * The description in a mounted export; read once for each. @throws NotFoundError when there is none, CorruptError,
 * UnsupportedError for the first version of the format, IoError.
 */
export function readOvaXml(archive: Archive): Promise<XenExport> {
  let reading = known.get(archive);
  if (reading === undefined) {
    reading = read(archive);
    known.set(archive, reading);
    // A read that failed may succeed later.
    reading.catch(() => known.delete(archive));
  }
  return reading;
}

async function read(archive: Archive): Promise<XenExport> {
  const file = archive.open(STRUCTURE, `${archive.name}/${STRUCTURE}`);
  try {
    return parseOvaXml(await readXml(file, STRUCTURE, MAX_BYTES), file.name);
  } finally {
    await file.close();
  }
}

/** @param root the document's root element. @throws CorruptError, UnsupportedError. */
export function parseOvaXml(root: XmlElement, source: string): XenExport {
  if (root.name === 'appliance') {
    throw new UnsupportedError(
      `XenServer export of version ${root.attributes.get('version') ?? '0.1'} (before XenServer 4.0, with compressed chunks of 1 GB)`,
      { source },
    );
  }
  const whole = xenValue(root, 0, source);
  if (!(whole instanceof Map)) throw misshapen(source, 'a struct with "version" and "objects"', root.name);
  const version = whole.get('version');
  const listed = whole.get('objects');
  if (!(version instanceof Map)) throw misshapen(source, 'a struct "version"', typeof version);
  if (!Array.isArray(listed)) throw misshapen(source, 'an array "objects"', typeof listed);
  const objects: XenObject[] = [];
  const byId = new Map<string, XenObject>();
  for (const entry of listed as readonly XenValue[]) {
    const name = entry instanceof Map ? entry.get('class') : undefined;
    const id = entry instanceof Map ? entry.get('id') : undefined;
    const record = entry instanceof Map ? entry.get('snapshot') : undefined;
    if (typeof name !== 'string' || typeof id !== 'string' || !(record instanceof Map)) {
      throw misshapen(source, 'objects with "class", "id" and "snapshot"', `entry ${objects.length} without`);
    }
    const object = { class: name, id, record };
    objects.push(object);
    // Of two with one id, the importer of the hypervisor takes the first.
    if (!byId.has(id)) byId.set(id, object);
  }
  return {
    version,
    objects,
    find: (id) => (id === undefined ? undefined : byId.get(id)),
    ofClass: (name) => objects.filter((object) => object.class === name),
  };
}

function misshapen(source: string, expected: string, found: string): CorruptError {
  return new CorruptError(STRUCTURE, { source, expected, found });
}

/** @param element a `value` element. */
function xenValue(element: XmlElement, depth: number, source: string): XenValue {
  if (depth > MAX_DEPTH) throw misshapen(source, `at most ${MAX_DEPTH} values within each other`, 'more');
  const [typed] = element.children;
  // Without a type it is text.
  if (typed === undefined) return element.text;
  switch (typed.name) {
    case 'struct': {
      const record = new Map<string, XenValue>();
      for (const member of childrenOf(typed, 'member')) {
        const value = childOf(member, 'value');
        const name = childOf(member, 'name')?.text;
        if (value === undefined || name === undefined)
          throw misshapen(source, 'members with "name" and "value"', 'one without');
        record.set(name, xenValue(value, depth + 1, source));
      }
      return record;
    }
    case 'array':
      return childrenOf(childOf(typed, 'data'), 'value').map((value) => xenValue(value, depth + 1, source));
    case 'boolean':
      return typed.text === '1' || typed.text === 'true';
    case 'int':
    case 'i4':
    case 'i8':
    case 'double': {
      const number = Number(typed.text);
      if (typed.text === '' || Number.isNaN(number))
        throw misshapen(source, 'a number', JSON.stringify(typed.text.slice(0, 40)));
      return number;
    }
    default:
      // string, dateTime.iso8601, base64: as they are written.
      return typed.text;
  }
}

/** A field that is text; undefined where it is absent, empty or something else. */
export function xenText(record: XenRecord, field: string): string | undefined {
  const value = record.get(field);
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** A field that is a whole number of at most 2^53-1, written as text or number; undefined where it is not. */
export function xenNumber(record: XenRecord, field: string): number | undefined {
  const value = record.get(field);
  const number = typeof value === 'string' && /^-?\d{1,16}$/.test(value) ? Number(value) : value;
  return typeof number === 'number' && Number.isSafeInteger(number) ? number : undefined;
}

/** A field that is true or false; false where it is absent. */
export function xenFlag(record: XenRecord, field: string): boolean {
  const value = record.get(field);
  return value === true || value === 'true' || value === '1' || value === 1;
}

/** A field that refers to another object; undefined for none. */
export function xenRef(record: XenRecord, field: string): string | undefined {
  const value = xenText(record, field);
  return value === undefined || value === 'OpaqueRef:NULL' || value === 'NULL' ? undefined : value;
}

/** A field that lists references. */
export function xenRefs(record: XenRecord, field: string): string[] {
  const value = record.get(field);
  if (!Array.isArray(value)) return [];
  return (value as readonly XenValue[]).filter(
    (ref): ref is string => typeof ref === 'string' && ref !== '' && ref !== 'OpaqueRef:NULL',
  );
}

/** A field that is a map of its own (`other_config`, `snapshot_info`); empty where it is absent. */
export function xenMap(record: XenRecord, field: string): XenRecord {
  const value = record.get(field);
  return value instanceof Map ? value : new Map();
}

/** A field that is a time (`20240131T12:34:56Z`), as ISO 8601 UTC; undefined for none, which is 1970. */
export function xenTime(record: XenRecord, field: string): string | undefined {
  const value = record.get(field);
  const parts =
    typeof value === 'string' ? /^(\d{4})-?(\d\d)-?(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?Z?$/.exec(value) : null;
  if (parts === null) return undefined;
  const [year, month, day, hour, minute, second] = parts.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const time = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  return Number.isNaN(time.getTime()) || time.getTime() <= 0 ? undefined : time.toISOString();
}

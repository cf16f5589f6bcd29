/**
 * What a QCOW2 image says of the files it needs: its backing file, its external data file. QEMU lets a name be a path, a protocol
 * with an address (`nbd://host/disk`), or a whole block device description (`json:{...}`); QEMU, qemu-block-drivers(7) and
 * qapi/block-core.json. Only files are read here, so whatever else it is is refused by name.
 */
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { ParentClaim } from '../image.ts';

/** QEMU's name of a format -> ours. A protocol in a format's place ("file") makes the file raw. */
const FORMATS: Readonly<Record<string, string>> = {
  raw: 'raw',
  file: 'raw',
  host_device: 'raw',
  qcow2: 'qcow2',
  qcow: 'qcow',
  vmdk: 'vmdk',
  vpc: 'vhd',
  vhdx: 'vhdx',
  vdi: 'vdi',
  parallels: 'parallels',
  qed: 'qed',
};

/** Options of a block device description that change nothing of what is read. */
const HARMLESS = new Set([
  'driver',
  'filename',
  'node-name',
  'read-only',
  'auto-read-only',
  'force-share',
  'detect-zeroes',
  'discard',
  'aio',
  'aio-max-batch',
  'locking',
  'x-check-cache-dropped',
  'drop-cache',
  'cache',
  'cache.direct',
  'cache.no-flush',
  'lazy-refcounts',
  'pass-discard-request',
  'pass-discard-snapshot',
  'pass-discard-other',
  'overlap-check',
  'cache-size',
  'l2-cache-size',
  'l2-cache-entry-size',
  'refcount-cache-size',
  'cache-clean-interval',
]);

/** Characters of a data file's name: the longest path of Linux. A backing file's is shorter by the format. */
const MAX_NAME = 4_096;

interface Named {
  readonly filename: string;
  readonly format?: string;
}

/**
 * The parent that an image records. @param format the recorded backing format, in QEMU's words; a file of format `raw` must never
 * be probed, for its first bytes are its guest's.
 * @throws UnsupportedError for what is no file or of no known format, CorruptError for a description that is none.
 */
export function backingClaim(name: string, format: string | undefined, source: string): ParentClaim {
  const named = fileOf(name, 'backing file', source);
  const inOurs = named.format ?? (format === undefined ? undefined : knownFormat(format, source));
  return { recorded: named.filename, ...(inOurs === undefined ? {} : { format: inOurs }) };
}

/** The name of an external data file. @throws as `backingClaim`. */
export function dataFileName(name: string, source: string): string {
  return fileOf(name, 'data file', source).filename;
}

function knownFormat(name: string, source: string): string {
  // Own keys only: "constructor" is no format.
  const known = Object.hasOwn(FORMATS, name) ? FORMATS[name] : undefined;
  if (known !== undefined) return known;
  throw new UnsupportedError(`QCOW2 backing file of format ${JSON.stringify(name.slice(0, 64))}`, { source });
}

function fileOf(name: string, role: string, source: string): Named {
  if (name.length > MAX_NAME) {
    const expected = `at most ${MAX_NAME} characters`;
    throw new CorruptError(`QCOW2 ${role} name`, { source, expected, found: name.length });
  }
  if (name.startsWith('json:')) return described(name.slice(5), role, source);
  // As QEMU tells them: letters before a colon that comes before any slash. One letter is a Windows drive.
  const protocol = /^([A-Za-z0-9+.\-_]{2,}):/.exec(name)?.[1];
  if (protocol === undefined) return { filename: name };
  if (protocol === 'file') return { filename: name.slice(5) };
  throw new UnsupportedError(`QCOW2 ${role} over ${protocol} (${JSON.stringify(name)})`, { source, recorded: name });
}

/** `{"driver": "qcow2", "file": {"driver": "file", "filename": "a.qcow2"}}`, also with `"file.filename"` as one key. */
function described(text: string, role: string, source: string): Named {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    parsed = undefined;
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new CorruptError(`QCOW2 ${role} name`, { source, expected: 'a JSON object behind "json:"', found: text });
  }
  const options = flatten(parsed as Record<string, unknown>, '', new Map());
  const refuse = (what: string) =>
    new UnsupportedError(`QCOW2 ${role} with ${what}`, { source, recorded: `json:${text}` });
  const outer = options.get('driver');
  const inner = options.get('file.driver');
  const isFile = (driver: unknown) => driver === undefined || driver === 'file' || driver === 'host_device';
  const prefix = options.has('file.filename') ? 'file.' : '';
  if (prefix === '' && !isFile(outer)) {
    throw refuse(
      typeof inner === 'string' ? `driver ${JSON.stringify(inner)}` : `driver ${JSON.stringify(outer)} and no file`,
    );
  }
  if (prefix === 'file.' && !isFile(inner)) throw refuse(`driver ${JSON.stringify(inner)}`);
  const filename = options.get(`${prefix}filename`);
  if (typeof filename !== 'string' || filename === '') throw refuse('no file name');
  for (const key of options.keys()) {
    const bare = key.startsWith('file.') ? key.slice(5) : key;
    if (!HARMLESS.has(bare)) throw refuse(`option ${JSON.stringify(key)}`);
  }
  const named = fileOf(filename, role, source);
  if (prefix === '' && outer !== undefined) return { ...named, format: 'raw' };
  return typeof outer === 'string' ? { ...named, format: knownFormat(outer, source) } : named;
}

/** Nested objects as dotted keys. The text is at most `MAX_NAME` characters long, so depth and number are bounded. */
function flatten(value: Record<string, unknown>, prefix: string, into: Map<string, unknown>): Map<string, unknown> {
  for (const [key, inner] of Object.entries(value)) {
    if (typeof inner === 'object' && inner !== null && !Array.isArray(inner)) {
      flatten(inner as Record<string, unknown>, `${prefix}${key}.`, into);
    } else {
      into.set(`${prefix}${key}`, inner);
    }
  }
  return into;
}

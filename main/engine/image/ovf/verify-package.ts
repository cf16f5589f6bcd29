/**
 * Verifies what an OVF package says of its own files: the manifest's digests, in an OVA and in a folder alike, and the order that
 * members of an OVA must have (DMTF DSP0243, "Distribution as a single file"). Nothing but findings comes of it.
 */
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CancelledError, ChainliftError, CorruptError, throwIfCancelled } from '../../errors.ts';
import type { Archive, OpenFile } from '../../storage/archive/archive.ts';
import type { Confinement } from '../../storage/confinement.ts';
import type { Finding } from '../image.ts';
import { MAX_MANIFEST_BYTES, type ManifestEntry, parseManifest } from './manifest.ts';

/** Read and hashed at once. */
const PIECE = 4 << 20;
/** Files of a package, and manifests beside the images of a repository. */
const MAX_FILES = 10_000;

export interface PackageOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told which file is being hashed. */
  readonly onFile?: ((name: string) => void) | undefined;
}

/**
 * Verifies the packages and archives that these images lie in, each once: OVAs and other archives by what is in them, folders by the
 * manifests beside the images. @param paths real paths. Never throws for damage. @throws CancelledError.
 */
export async function* verifyPackages(
  paths: readonly string[],
  folder: Confinement,
  options: PackageOptions = {},
): AsyncGenerator<Finding> {
  const archives = new Set<Archive>();
  const folders = new Set<string>();
  for (const path of paths) {
    let inside = folder.archiveOf(path);
    if (inside === undefined) folders.add(dirname(path));
    for (; inside !== undefined; inside = folder.archiveOf(inside.archive.path)) archives.add(inside.archive);
  }
  for (const archive of archives) yield* verifyArchive(archive, folder, options);
  for (const place of folders) {
    for (const manifest of await manifestsIn(place)) {
      yield* verifyManifest(join(place, manifest), folder, options);
    }
  }
}

/** A folder that can't be listed has been told of by the scan. */
async function manifestsIn(place: string): Promise<string[]> {
  try {
    const names = (await readdir(place)).filter((name) => /\.mf$/i.test(name) && !name.startsWith('._'));
    return names.sort().slice(0, MAX_FILES);
  } catch {
    return [];
  }
}

/**
 * Everything an archive says of itself: what was odd when its index was read and, for an OVA, its manifest and the order of its
 * members. Never throws for damage. @throws CancelledError.
 */
export async function* verifyArchive(
  archive: Archive,
  folder: Confinement,
  options: PackageOptions = {},
): AsyncGenerator<Finding> {
  throwIfCancelled(options.signal, 'The check');
  yield* archive.findings;
  const names = archive.names();
  const descriptors = names.filter((name) => /\.ovf$/i.test(name));
  const manifests = names.filter((name) => /\.mf$/i.test(name));
  if (descriptors.length > 0) yield* orderNotes(archive);
  for (const manifest of manifests) yield* verifyManifest(join(archive.path, manifest), folder, options, names);
  if (descriptors.length > 0 && manifests.length === 0) {
    yield {
      severity: 'note',
      code: 'manifest-absent',
      message: `${archive.name} has no manifest: that its files are as they were exported can't be proved`,
      source: archive.name,
    };
  }
}

/** Notes on what deviates from the order that a reader of streams relies on; it makes no difference here. */
function* orderNotes(archive: Archive): Generator<Finding> {
  const order = [...archive.members()].filter(({ kind }) => kind === 'file').map(({ name }) => name);
  const note = (message: string, expected: string, found: string): Finding => ({
    severity: 'note',
    code: 'ova-member-order',
    message: `${message} in ${archive.name}; other programs may refuse it`,
    source: archive.name,
    structure: 'OVA',
    expected,
    found,
  });
  if (!/\.ovf$/i.test(order[0] ?? '')) {
    yield note('The descriptor is not the first member', 'the .ovf first', order[0] ?? 'nothing');
  }
  const manifest = order.findIndex((name) => /\.mf$/i.test(name));
  const last = order.filter((name) => !/\.cert$/i.test(name)).length - 1;
  if (manifest > 1 && manifest !== last) {
    yield note(
      'The manifest lies between other members',
      'the .mf second, or behind all files',
      `member ${manifest + 1}`,
    );
  }
  const certificate = order.findIndex((name) => /\.cert$/i.test(name));
  if (certificate >= 0 && certificate !== manifest + 1) {
    yield note('The certificate does not follow the manifest', 'the .cert behind the .mf', `member ${certificate + 1}`);
  }
}

/**
 * Hashes every file that a manifest names. @param path of the manifest: a file, or a member of a mounted archive. @param members names of
 * the archive's members, of which those not listed are told. Never throws for damage. @throws CancelledError.
 */
export async function* verifyManifest(
  path: string,
  folder: Confinement,
  options: PackageOptions = {},
  members: readonly string[] = [],
): AsyncGenerator<Finding> {
  const source = folder.label(path);
  let text: string;
  try {
    text = await readSmall(path, folder);
  } catch (error) {
    yield unreadable(source, error, 'manifest-unreadable', source);
    return;
  }
  const { entries, unreadable: lines } = parseManifest(text);
  if (lines.length > 0) {
    yield {
      severity: 'suspicious',
      code: 'manifest-line',
      message: `${lines.length} lines of ${source} are no entry of a manifest, the first is line ${lines[0]}`,
      source,
      structure: `line ${lines[0]}`,
      expected: 'an algorithm, a name in parentheses, "=" and a digest',
    };
  }
  for (const entry of entries.slice(0, MAX_FILES)) {
    throwIfCancelled(options.signal, 'The check');
    yield* verifyEntry(entry, path, source, folder, options);
  }
  const listed = new Set(entries.map(({ name }) => name));
  for (const name of members) {
    if (/\.(mf|cert)$/i.test(name) || listed.has(name)) continue;
    const descriptor = /\.ovf$/i.test(name);
    yield {
      severity: descriptor ? 'suspicious' : 'note',
      code: 'manifest-unlisted',
      message: `${source} does not list ${name}: that it is as it was exported can't be proved`,
      source,
      found: name,
    };
  }
  const certificate = path.replace(/\.mf$/i, '.cert');
  if (exists(certificate, folder)) {
    yield {
      severity: 'note',
      code: 'certificate-not-verified',
      message: `${folder.label(certificate)} signs the manifest; who signed it is not verified here`,
      source: folder.label(certificate),
    };
  }
}

async function* verifyEntry(
  entry: ManifestEntry,
  manifest: string,
  source: string,
  folder: Confinement,
  { signal, onFile }: PackageOptions,
): AsyncGenerator<Finding> {
  const structure = `line ${entry.line} (${entry.name.slice(0, 200)})`;
  if (entry.algorithm === undefined) {
    yield {
      severity: 'suspicious',
      code: 'manifest-algorithm',
      message: `${source} has a digest of ${entry.name} by ${entry.algorithmName}, which is not known; the file is not verified`,
      source,
      structure,
      expected: 'SHA1, SHA224, SHA256, SHA384 or SHA512',
      found: entry.algorithmName,
    };
    return;
  }
  const path = join(dirname(manifest), ...entry.name.split('/'));
  let digest: string;
  try {
    const file = folder.open(path);
    try {
      onFile?.(file.name);
      digest = await digestOf(file, entry.algorithm, signal);
    } finally {
      await file.close();
    }
  } catch (error) {
    // Inside an archive, which is a file, the system says that it is no folder.
    const missing = error instanceof ChainliftError && /^(ENOENT|ENOTDIR)$/.test(String(error.details.code));
    yield unreadable(
      source,
      error,
      missing ? 'manifest-file-missing' : 'manifest-file-unreadable',
      structure,
      missing ? `${source} lists ${entry.name}, and there is no such file: the package is not complete` : undefined,
    );
    return;
  }
  if (digest === entry.digest) return;
  yield {
    severity: 'damaged',
    code: 'manifest-mismatch',
    message: `${folder.label(path)} is not the file that ${source} was written for: it was changed or damaged since`,
    source: folder.label(path),
    structure: `${entry.algorithm.toUpperCase()} in ${basename(source)}`,
    expected: entry.digest,
    found: digest,
    remedy: 'Take the package from another copy of the backup.',
  };
}

async function digestOf(file: OpenFile, algorithm: string, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash(algorithm);
  let next = file.read(0, Math.min(PIECE, file.size));
  for (let at = 0; at < file.size; at += PIECE) {
    const bytes = await next;
    throwIfCancelled(signal, 'The check');
    const from = at + PIECE;
    // Read on while this piece is hashed.
    if (from < file.size) {
      next = file.read(from, Math.min(PIECE, file.size - from));
      next.catch(() => {});
    }
    hash.update(bytes);
  }
  await next;
  return hash.digest('hex');
}

async function readSmall(path: string, folder: Confinement): Promise<string> {
  const file = folder.open(path);
  try {
    if (file.size > MAX_MANIFEST_BYTES) {
      throw new CorruptError('OVF manifest', {
        source: file.name,
        position: 0,
        expected: `at most ${MAX_MANIFEST_BYTES} bytes`,
        found: file.size,
      });
    }
    return Buffer.from(await file.read(0, file.size)).toString('utf8');
  } finally {
    await file.close();
  }
}

function exists(path: string, folder: Confinement): boolean {
  try {
    folder.realPath(path);
    return true;
  } catch (error) {
    if (error instanceof ChainliftError) return false;
    throw error;
  }
}

/** An error of our families as a finding; everything else goes on being thrown. */
function unreadable(source: string, error: unknown, code: string, structure: string, message?: string): Finding {
  if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
  return { severity: 'damaged', code, message: message ?? error.message, source, structure };
}

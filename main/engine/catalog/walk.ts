/**
 * The files of a repository, found within bounds. Symbolic links are not followed: what they point to inside the repository is
 * found where it is, and what lies outside is none of it. A folder that can't be read is a finding; the others are still read.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { findingFromError } from '../chain/verify.ts';
import { CancelledError, ChainliftError, CorruptError, IoError, throwIfCancelled } from '../errors.ts';
import type { Finding } from '../image/image.ts';
import { type Archive, isArchiveName } from '../storage/archive/archive.ts';
import type { Confinement } from '../storage/confinement.ts';

/** Folders below the repository's own that are looked into. */
export const MAX_FOLDER_DEPTH = 6;
/** Files and folders looked at in one repository. */
export const MAX_ENTRIES = 200_000;
/** Archives within archives: a compressed disk in an OVA is one. */
const MAX_ARCHIVE_DEPTH = 2;
/** Links and unreadable folders told of one by one. */
const MAX_FINDINGS = 50;

export interface Folder {
  /** Real path. */
  readonly path: string;
  /** Names of the regular files in it, sorted. */
  readonly files: readonly string[];
  /** It is an archive, whose members are `files`: their names have slashes where the archive has folders. */
  readonly archive?: Archive;
}

export interface Walk {
  /** Every folder, parents before children. */
  readonly folders: readonly Folder[];
  readonly findings: readonly Finding[];
}

export interface WalkLimits {
  readonly depth?: number;
  readonly entries?: number;
  /** Told while the index of an archive is made, which of a compressed one takes as long as reading it. */
  readonly onArchive?: (path: string, done: number, total: number) => void;
}

/**
 * Lists every folder of the repository, and what is in its archives: each is a folder, behind the one its file lies in. What can't be
 * said of an archive because it is damaged or refused is a finding. @throws IoError when its own folder can't be read, CancelledError. */
export async function walk(root: Confinement, signal?: AbortSignal, limits: WalkLimits = {}): Promise<Walk> {
  const maxDepth = limits.depth ?? MAX_FOLDER_DEPTH;
  const maxEntries = limits.entries ?? MAX_ENTRIES;
  const folders: Folder[] = [];
  const findings: Finding[] = [];
  const deeper: string[] = [];
  const queue: { path: string; depth: number }[] = [{ path: root.root, depth: 0 }];
  let entries = 0;
  let unreadable = 0;
  // The queue grows while it is walked: breadth first, so that a limit cuts off what lies deepest.
  for (const { path, depth } of queue) {
    throwIfCancelled(signal);
    const files: string[] = [];
    const below: string[] = [];
    try {
      for (const entry of await readdir(path, { withFileTypes: true })) {
        if (++entries > maxEntries) break;
        if (entry.isFile()) files.push(entry.name);
        else if (entry.isDirectory() && !isLockFolder(entry.name)) below.push(entry.name);
        else if (entry.isSymbolicLink() && findings.length < MAX_FINDINGS) {
          findings.push(...linkFindings(root, join(path, entry.name)));
        }
      }
    } catch (error) {
      const wrapped = new IoError(`${root.label(path)} cannot be listed`, { source: root.label(path) }, error);
      if (depth === 0) throw wrapped;
      unreadable++;
      if (findings.length >= MAX_FINDINGS) continue;
      findings.push({
        severity: 'damaged',
        code: 'folder-unreadable',
        message: wrapped.message,
        source: root.label(path),
        remedy: 'Give this user the right to read it, then scan again.',
      });
      continue;
    }
    folders.push({ path, files: files.sort(byName) });
    for (const name of files.filter(isArchiveName)) {
      const inside = await walkInside(root, join(path, name), signal, limits.onArchive, 1);
      entries += inside.folders.reduce((sum, place) => sum + place.files.length, 0);
      folders.push(...inside.folders);
      findings.push(...inside.findings);
    }
    for (const name of below.sort(byName)) {
      if (depth < maxDepth) queue.push({ path: join(path, name), depth: depth + 1 });
      else deeper.push(join(path, name));
    }
    if (entries > maxEntries) break;
  }
  if (unreadable >= MAX_FINDINGS) {
    findings.push({
      severity: 'damaged',
      code: 'folder-unreadable',
      message: `${unreadable} folders in all cannot be listed`,
    });
  }
  if (entries > maxEntries) {
    findings.push({
      severity: 'suspicious',
      code: 'too-many-files',
      message: `The folder holds more than ${maxEntries} files; only the first ones were looked at`,
      remedy: 'Open one of its subfolders.',
    });
  }
  if (deeper.length > 0) {
    findings.push({
      severity: 'note',
      code: 'too-deep',
      message: `${deeper.length} folders lie more than ${maxDepth} levels down and were not looked into, the first is ${root.label(deeper[0]!)}`,
      remedy: 'Open that folder itself.',
    });
  }
  return { folders, findings };
}

/**
 * What is in one archive that the user opened by itself. @throws CorruptError when it is damaged or no archive at all,
 * UnsupportedError, IoError, CancelledError.
 */
export async function walkArchive(
  root: Confinement,
  path: string,
  signal?: AbortSignal,
  limits: Pick<WalkLimits, 'onArchive'> = {},
): Promise<Walk> {
  const archive = await mounted(root, path, signal, limits.onArchive);
  return members(root, archive, signal, limits.onArchive, 1);
}

/** As `walkArchive`; errors of our families are findings. */
async function walkInside(
  root: Confinement,
  path: string,
  signal: AbortSignal | undefined,
  onArchive: WalkLimits['onArchive'],
  depth: number,
): Promise<Walk> {
  try {
    return await members(root, await mounted(root, path, signal, onArchive), signal, onArchive, depth);
  } catch (error) {
    if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
    const code = error.kind === 'unsupported' ? 'archive-unsupported' : 'archive-unreadable';
    const remedy =
      error.kind === 'unsupported'
        ? 'Unpack it, or compress it with gzip, and scan again.'
        : 'Take it from another copy of the backup.';
    return { folders: [], findings: [findingFromError(error, { code, source: root.label(path), remedy })] };
  }
}

async function mounted(
  root: Confinement,
  path: string,
  signal: AbortSignal | undefined,
  onArchive: WalkLimits['onArchive'],
): Promise<Archive> {
  onArchive?.(path, 0, 1);
  const archive = await root.mount(path, {
    ...(signal === undefined ? {} : { signal }),
    ...(onArchive === undefined ? {} : { onProgress: (done, total) => onArchive(path, done, total) }),
  });
  if (archive !== undefined) return archive;
  throw new CorruptError('Archive', {
    source: root.label(path),
    position: 0,
    expected: 'a tar or a gzip file',
    found: 'neither',
  });
}

async function members(
  root: Confinement,
  archive: Archive,
  signal: AbortSignal | undefined,
  onArchive: WalkLimits['onArchive'],
  depth: number,
): Promise<Walk> {
  const files = archive.names();
  const folders: Folder[] = [{ path: archive.path, files, archive }];
  const findings: Finding[] = [...archive.findings];
  for (const name of depth < MAX_ARCHIVE_DEPTH ? files.filter(isArchiveName) : []) {
    const inside = await walkInside(root, join(archive.path, name), signal, onArchive, depth + 1);
    folders.push(...inside.folders);
    findings.push(...inside.findings);
  }
  return { folders, findings };
}

/** VMware's locks: `web01.vmdk.lck`, with a file per owner in it. */
function isLockFolder(name: string): boolean {
  return name.toLowerCase().endsWith('.lck');
}

function linkFindings(root: Confinement, path: string): Finding[] {
  try {
    root.realPath(path);
    return [];
  } catch (error) {
    // What leaves the folder, or leads nowhere. Nothing is lost by not following it, and so it is a note.
    if (!(error instanceof ChainliftError)) throw error;
    return [{ severity: 'note', code: 'link-not-followed', message: error.message, source: root.label(path) }];
  }
}

function byName(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

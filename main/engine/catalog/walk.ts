/**
 * The files of a repository, found within bounds. Symbolic links are not followed: what they point to inside the repository is
 * found where it is, and what lies outside is none of it. A folder that can't be read is a finding; the others are still read.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ChainliftError, IoError, throwIfCancelled } from '../errors.ts';
import type { Finding } from '../image/image.ts';
import type { Archive } from '../storage/archive/archive.ts';
import type { Confinement } from '../storage/confinement.ts';

/** Folders below the repository's own that are looked into. */
export const MAX_FOLDER_DEPTH = 6;
/** Files and folders looked at in one repository. */
export const MAX_ENTRIES = 200_000;
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
}

/** Lists every folder of the repository. @throws IoError when its own folder can't be read, CancelledError. */
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

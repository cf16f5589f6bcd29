/** Folders of this computer, for an open dialog where the shell has none of its own (the browser). */
import { readdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { FolderListing } from '../../../preload/api.ts';
import { isChangeTrackingName, isExtentName, isImageName } from '../catalog/files.ts';
import { IoError } from '../errors.ts';
import { isArchiveName } from '../storage/archive/archive.ts';
import { homeFolder } from './home.ts';

const MAX_LISTED = 5000;

/** Names of what can be opened by itself: images that are no part of another one, and archives. */
function looksLikeBackup(name: string): boolean {
  return isArchiveName(name) || (isImageName(name) && !isExtentName(name) && !isChangeTrackingName(name));
}

/** @throws IoError when the folder can't be listed. */
export async function browseFolder(path: string | undefined): Promise<FolderListing> {
  const folder = resolve(path ?? homeFolder());
  const folders: string[] = [];
  const images: string[] = [];
  try {
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      if (entry.isDirectory() || (entry.isSymbolicLink() && (await leadsToFolder(join(folder, entry.name))))) {
        folders.push(entry.name);
      } else if (looksLikeBackup(entry.name)) images.push(entry.name);
    }
  } catch (error) {
    throw new IoError(`${folder} cannot be listed`, { source: folder }, error);
  }
  const byName = new Intl.Collator(undefined, { numeric: true }).compare;
  const parent = dirname(folder);
  return {
    path: folder,
    ...(parent === folder ? {} : { parent }),
    folders: folders.sort(byName).slice(0, MAX_LISTED),
    images: images.sort(byName).slice(0, MAX_LISTED),
  };
}

/** People open what a link leads to; a link that leads nowhere is no folder. */
async function leadsToFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}

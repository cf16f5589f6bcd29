/**
 * What a user names to be opened: a folder of backups, an archive (which is a folder, too), one image, an image inside an archive
 * (`web01.ova/disk1.vmdk`), a snapshot inside an image (`web01.qcow2/@2`), or a block device. Only names and kinds of files are looked at.
 */
import { realpathSync, type Stats, statSync } from 'node:fs';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { IoError, NotFoundError, UsageError } from '../errors.ts';
import { splitSnapshotPath } from '../image/image.ts';
import { isDescriptorName } from '../image/parallels/descriptor.ts';
import { isArchiveName } from '../storage/archive/archive.ts';
import type { Confinement } from '../storage/confinement.ts';

export interface SourcePlace {
  /** `folder`: it holds VMs or images, as archives do. `image`: it is the leaf of a chain. */
  readonly kind: 'folder' | 'image';
  /** Absolute path as it was asked for, without what names a snapshot. */
  readonly source: string;
  /** Real path; for what lies in an archive, the archive's with the rest below it, which `enterSource` looks for. */
  readonly path: string;
  /** Real path of the folder that confines it; the device itself for a block device. */
  readonly root: string;
  /** It is a folder of the file system, and no archive. */
  readonly plain: boolean;
  /** Id of a snapshot inside the image that was named. */
  readonly snapshot?: string;
}

/** Files that describe a VM or a package, and are no images. */
const NO_IMAGE = /\.(vmx|vmsd|vmxf|vmsn|vmss|vmem|vmcx|vmrs|vmgs|ovf|mf|vbox|vbox-prev|sav|xml)$/i;
/** Folders of a Hyper-V VM that its configurations lie in; its disks lie beside these. */
const HYPERV_FOLDER = /^(Virtual Machines|Snapshots)$/i;

/**
 * Where a source is. @throws NotFoundError when there is no such file, UsageError for the configuration of a VM (with the folder to
 * open in its place), IoError.
 */
export function sourceOf(source: string): SourcePlace {
  const path = resolve(source);
  const stats = statOf(path, source);
  if (stats !== undefined) return existing(path, stats, source);
  const inside = splitSnapshotPath(path);
  const image = inside === undefined ? undefined : optional(inside.image);
  if (inside !== undefined && image?.kind === 'image') return { ...image, snapshot: inside.id };
  return insideFile(path, source);
}

function existing(path: string, stats: Stats, source: string): SourcePlace {
  const real = realpathSync(path);
  if (stats.isDirectory()) return { kind: 'folder', source: path, path: real, root: real, plain: true };
  if (stats.isBlockDevice()) return { kind: 'image', source: path, path: real, root: real, plain: false };
  refuseConfiguration(path, source);
  const kind = stats.isFile() && isArchiveName(basename(path)) ? 'folder' : 'image';
  return { kind, source: path, path: real, root: dirname(real), plain: false };
}

/** What lies below a file can only be a member of an archive. */
function insideFile(path: string, source: string): SourcePlace {
  for (let at = dirname(path); ; at = dirname(at)) {
    const stats = statOf(at, source);
    if (stats?.isFile() === true) {
      refuseConfiguration(path, source);
      const file = realpathSync(at);
      const kind = isArchiveName(basename(path)) ? 'folder' : 'image';
      return { kind, source: path, path: join(file, relative(at, path)), root: dirname(file), plain: false };
    }
    if (stats !== undefined || at === dirname(at)) throw new NotFoundError(`"${source}"`, { source });
  }
}

/** The place of an image that may not be there. */
function optional(image: string): SourcePlace | undefined {
  try {
    return sourceOf(image);
  } catch (error) {
    if (error instanceof NotFoundError) return undefined;
    throw error;
  }
}

function statOf(path: string, source: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new IoError(`${source} cannot be opened`, { source }, error);
  }
}

function refuseConfiguration(path: string, source: string): void {
  const name = basename(path);
  if (!NO_IMAGE.test(name) || isDescriptorName(name)) return;
  const place = dirname(path);
  const folder = HYPERV_FOLDER.test(basename(place)) ? dirname(place) : place;
  throw new UsageError(`${name} describes a VM or a package and is no disk image; open its folder, ${folder}`, {
    source,
    folder,
  });
}

/**
 * Mounts the archives that a source leads through, and gives its real path. @throws NotFoundError with the members there are, and as
 * `Confinement.mount`.
 */
export async function enterSource(
  place: SourcePlace,
  folder: Confinement,
  options: { readonly signal?: AbortSignal; readonly onImage?: (path: string) => void } = {},
): Promise<string> {
  const { signal, onImage } = options;
  await folder.mountAbove(place.path, {
    ...(signal === undefined ? {} : { signal }),
    ...(onImage === undefined ? {} : { onProgress: () => onImage(place.path) }),
  });
  const inside = folder.archiveOf(place.path);
  if (inside === undefined) {
    // Below a file that is no archive there is nothing.
    if (statOf(place.path, place.source) === undefined)
      throw new NotFoundError(`"${place.source}"`, { source: place.source });
    return folder.realPath(place.path);
  }
  if (inside.archive.has(inside.member)) return place.path;
  const name = relative(folder.root, inside.archive.path).split(sep).join('/');
  throw new NotFoundError(`"${inside.member}" in ${name}`, {
    source: place.source,
    choices: inside.archive.names().slice(0, 100),
  });
}

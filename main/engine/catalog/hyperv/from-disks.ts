/** A Hyper-V VM whose configuration can't be read: as much of it as its disks tell by their own links. */
import { basename, join } from 'node:path';
import { groupImages, standaloneImages } from '../images.ts';
import type { LayerIndex } from '../layers.ts';
import { isBelow } from '../locate.ts';
import type { Consistency, RestorePoint } from '../model.ts';
import type { Folder } from '../walk.ts';

/** Folders of Hyper-V's own in which files of a VM lie. */
export const OWN_FOLDERS = ['Virtual Machines', 'Virtual Hard Disks', 'Snapshots'];

export interface FromDisks {
  readonly points: readonly RestorePoint[];
  /** Real paths of the images. */
  readonly images: readonly string[];
}

/**
 * The points that the images of a VM's folder give. Of several disks only the present state is known: which of their layers belong
 * together stands in the configuration alone. Nothing where a disk has several ends. @throws CancelledError.
 */
export async function pointsFromDisks(
  root: string,
  unreadable: string,
  folders: readonly Folder[],
  index: LayerIndex,
): Promise<FromDisks> {
  const places = folders.filter(
    ({ path }) => path === root || OWN_FOLDERS.some((name) => isBelow(path, join(root, name))),
  );
  const named = places.flatMap(({ path, files }) =>
    files.filter((name) => /\.a?vhdx?$/i.test(name)).map((name) => join(path, name)),
  );
  const images = await standaloneImages(named, index);
  const disks = await groupImages(images, index);
  const consistency: Consistency = { level: 'unknown', evidence: [`${basename(unreadable)} can't be read`] };
  const [only] = disks;
  if (only !== undefined && disks.length === 1) {
    return { points: only.points.map((point) => ({ ...point, consistency })), images };
  }
  const leaves = disks.map(({ points }) => points.find(({ current }) => current));
  if (disks.length === 0 || leaves.includes(undefined)) return { points: [], images: [] };
  const present = leaves as RestorePoint[];
  const sum = present.reduce<number | undefined>(
    (total, { changedBytes }) => (total === undefined || changedBytes === undefined ? undefined : total + changedBytes),
    0,
  );
  const point: RestorePoint = {
    id: 'current',
    name: 'Current state',
    current: true,
    currentParent: false,
    memory: false,
    quiesced: false,
    consistency,
    disks: present.flatMap((leaf) => leaf.disks).map((disk, position) => ({ ...disk, index: position })),
    ...(sum === undefined ? {} : { changedBytes: sum }),
    findings: [
      ...present.flatMap((leaf) => leaf.findings),
      {
        severity: 'note',
        code: 'disk-order-unknown',
        message: `Without ${basename(unreadable)} the order of the ${present.length} disks is not known; they are in the order of their names`,
        structure: 'disks',
      },
    ],
  };
  return { points: [point], images };
}

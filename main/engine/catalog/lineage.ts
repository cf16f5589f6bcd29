/** Which point another descends from, by the files that their disks stand on. */
import { splitSnapshotPath } from '../image/image.ts';
import type { RestorePoint } from './model.ts';
import type { ScannedDisk } from './point-disks.ts';

interface Frozen {
  readonly point: Pick<RestorePoint, 'id' | 'disks'>;
}

/**
 * Id of the point whose disk lies nearest below one of `disks`; undefined when none does. A point that is a snapshot inside an
 * image lies below what that image holds now. @param except id of the point itself.
 */
export function standsOn(
  disks: readonly ScannedDisk[],
  points: readonly Frozen[],
  except?: string,
): string | undefined {
  const frozenBy = new Map<string, string>();
  const insideOf = new Map<string, string>();
  for (const { point } of points) {
    if (point.id === except) continue;
    for (const { path } of point.disks) {
      if (path === undefined) continue;
      frozenBy.set(path, point.id);
      const image = splitSnapshotPath(path)?.image;
      // Points come oldest first, so that the newest snapshot of an image is the one that stays.
      if (image !== undefined) insideOf.set(image, point.id);
    }
  }
  for (const { chain } of disks) {
    const [leaf, ...below] = chain.layers;
    const inside = leaf === undefined ? undefined : insideOf.get(leaf.path);
    if (inside !== undefined) return inside;
    for (const layer of below) {
      const id = frozenBy.get(layer.path) ?? insideOf.get(layer.path);
      if (id !== undefined) return id;
    }
  }
  return undefined;
}

/** The newest of points by their recorded time; undefined when none has one. */
export function newest(
  points: readonly { readonly point: Pick<RestorePoint, 'id' | 'created'> }[],
): string | undefined {
  let best: { readonly id: string; readonly created: string } | undefined;
  for (const { point } of points) {
    const { id, created } = point;
    if (created !== undefined && (best === undefined || created >= best.created)) best = { id, created };
  }
  return best?.id;
}

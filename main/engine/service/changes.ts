/**
 * What differs in one folder between a point and the point before it, and what of it is gone in a later one. Only this folder
 * is read, in each point concerned: no index, no walk of the tree.
 */
import type { DirectoryChanges, EntryRow, RestorePoint } from '../../../preload/api.ts';
import { ChainliftError, NotFoundError, UnsupportedError } from '../errors.ts';
import { listRows } from './listing.ts';
import type { OpenPoint } from './open-point.ts';

/** Later points looked at for `goneLater`. */
const MAX_LATER = 64;
/** Entries of a folder compared in full; a larger folder is compared by names alone beyond it. */
const MAX_COMPARED = 200_000;
/** Entries of a folder compared at all. */
const MAX_NAMES = 2_000_000;

/** Opens a point for the time of `body`. */
export type WithPoint = <T>(pointId: string, body: (point: OpenPoint) => Promise<T>) => Promise<T>;

export async function directoryChanges(
  points: readonly RestorePoint[],
  here: string,
  path: string,
  withPoint: WithPoint,
  signal: AbortSignal,
): Promise<DirectoryChanges> {
  const self = points.find((point) => point.id === here);
  const rows = (id: string, long: boolean): Promise<Map<string, EntryRow> | undefined> =>
    withPoint(id, (point) => folderRows(point, path, long, signal));
  const before = points.find((point) => point.id === self?.parent);
  // With nothing before it there is nothing to compare with, and names are enough.
  const mine = await rows(here, before !== undefined);
  if (mine === undefined) throw new NotFoundError(path, { path });

  // Maps, for a guest may call a file `__proto__`.
  const marks = new Map<string, 'added' | 'changed'>();
  const gone: EntryRow[] = [];
  if (before !== undefined) {
    const theirs = (await rows(before.id, true)) ?? new Map<string, EntryRow>();
    for (const [name, row] of mine) {
      const old = theirs.get(name);
      if (old === undefined) marks.set(name, 'added');
      else if (differs(old, row)) marks.set(name, 'changed');
    }
    for (const [name, row] of theirs) if (!mine.has(name)) gone.push(row);
  }

  const goneLater = new Map<string, { id: string; name: string }>();
  const left = new Set(mine.keys());
  for (const later of lineAfter(points, here)) {
    if (left.size === 0) break;
    const theirs = await rows(later.id, false).catch((error: unknown) => {
      // A later point that can't be opened says nothing about what it holds.
      if (error instanceof ChainliftError && error.kind !== 'cancelled') return null;
      throw error;
    });
    if (theirs === null) continue;
    for (const name of left) {
      if (theirs?.has(name)) continue;
      goneLater.set(name, { id: later.id, name: later.name });
      left.delete(name);
    }
  }
  return {
    ...(before === undefined ? {} : { before: { id: before.id, name: before.name } }),
    marks: Object.fromEntries(marks),
    gone,
    goneLater: Object.fromEntries(goneLater),
  };
}

/** The folder's rows by name; undefined when it is not there in this point. */
async function folderRows(
  point: OpenPoint,
  path: string,
  long: boolean,
  signal: AbortSignal,
): Promise<Map<string, EntryRow> | undefined> {
  const byName = new Map<string, EntryRow>();
  try {
    for await (const rows of listRows(point, path, { long, recursive: false, disk: undefined, signal })) {
      for (const row of rows) {
        byName.set(row.name, byName.size < MAX_COMPARED ? row : nameOnly(row));
        if (byName.size > MAX_NAMES) {
          throw new UnsupportedError(`comparing a folder of more than ${MAX_NAMES} entries`, { path });
        }
      }
    }
  } catch (error) {
    if (error instanceof NotFoundError) return undefined;
    throw error;
  }
  return byName;
}

function nameOnly({ name, path, kind, id, error }: EntryRow): EntryRow {
  return { name, path, kind, id, ...(error === undefined ? {} : { error }) };
}

const same = (a: { seconds: number; nanoseconds: number } | undefined, b: typeof a): boolean =>
  a?.seconds === b?.seconds && a?.nanoseconds === b?.nanoseconds;

function differs(a: EntryRow, b: EntryRow): boolean {
  if (a.error !== undefined || b.error !== undefined) return a.error?.message !== b.error?.message;
  if (a.kind !== b.kind || a.id !== b.id) return true;
  // Only its name was kept of one of the two: no more can be said.
  if (a.size === undefined || b.size === undefined) return false;
  return (
    a.size !== b.size ||
    a.mode !== b.mode ||
    a.uid !== b.uid ||
    a.gid !== b.gid ||
    a.linkTarget !== b.linkTarget ||
    !same(a.modified, b.modified) ||
    !same(a.changed, b.changed)
  );
}

/** The points after `id` on the way to the VM's present state; off that way, along the newest children. */
export function lineAfter(points: readonly RestorePoint[], id: string): RestorePoint[] {
  const byId = new Map(points.map((point) => [point.id, point]));
  const current = points.find((point) => point.current);
  const ancestry: RestorePoint[] = [];
  const seen = new Set<string>();
  for (let point = current; point !== undefined && !seen.has(point.id); point = byId.get(point.parent ?? '')) {
    seen.add(point.id);
    if (point.id === id) return ancestry.reverse().slice(0, MAX_LATER);
    ancestry.push(point);
  }
  const line: RestorePoint[] = [];
  const visited = new Set([id]);
  for (let at = id; line.length < MAX_LATER; ) {
    const next = points.filter((point) => point.parent === at && !visited.has(point.id)).at(-1);
    if (next === undefined) break;
    visited.add(next.id);
    line.push(next);
    at = next.id;
  }
  return line;
}

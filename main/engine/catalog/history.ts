/** The order of a history, and what can be said of each point from those before it. */
import type { Finding } from '../image/image.ts';
import { isIntact, type RestorePoint } from './model.ts';

/**
 * Parents without loops: of each loop one link is cut, and `onLoop` told at which point. Costs each point once.
 * @param parents parent by id; what is no key of it is passed over.
 */
export function withoutLoops(
  parents: ReadonlyMap<string, string | undefined>,
  onLoop?: (id: string, parent: string) => void,
): Map<string, string | undefined> {
  const result = new Map(parents);
  // What an earlier walk passed is known to end.
  const settled = new Set<string>();
  for (const id of parents.keys()) {
    const trail = new Set<string>();
    let at: string | undefined = id;
    while (at !== undefined && !settled.has(at)) {
      trail.add(at);
      const parent: string | undefined = result.get(at);
      if (parent !== undefined && trail.has(parent)) {
        result.set(at, undefined);
        onLoop?.(at, parent);
        break;
      }
      at = parent;
    }
    for (const passed of trail) settled.add(passed);
  }
  return result;
}

/** Parents before children, siblings by time, the present state last among them. Parents must be free of loops. */
export function inHistoryOrder(points: readonly RestorePoint[]): RestorePoint[] {
  const ids = new Set(points.map((point) => point.id));
  const children = new Map<string | undefined, RestorePoint[]>();
  for (const point of points) {
    const parent = point.parent !== undefined && ids.has(point.parent) ? point.parent : undefined;
    const siblings = children.get(parent);
    if (siblings === undefined) children.set(parent, [point]);
    else siblings.push(point);
  }
  for (const siblings of children.values()) siblings.sort(before);
  const ordered: RestorePoint[] = [];
  const stack = [...(children.get(undefined) ?? [])].reverse();
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    ordered.push(next);
    const below = children.get(next.id) ?? [];
    for (let index = below.length - 1; index >= 0; index--) stack.push(below[index]!);
  }
  return ordered;
}

function before(a: RestorePoint, b: RestorePoint): number {
  if (a.current !== b.current) return a.current ? 1 : -1;
  if (a.created !== b.created) {
    // A point without a time is put after those with one: where it belongs is not known.
    if (a.created === undefined) return 1;
    if (b.created === undefined) return -1;
    return a.created < b.created ? -1 : 1;
  }
  return a.id.localeCompare(b.id, 'en', { numeric: true });
}

/** Adds, to a point that can't be opened, which point before it can. Points come in the order of the history. */
export function withLastIntact(points: readonly RestorePoint[]): RestorePoint[] {
  const lastIntact = new Map<string, string | undefined>();
  return points.map((point) => {
    const before = point.parent === undefined ? undefined : lastIntact.get(point.parent);
    const intact = isIntact(point);
    lastIntact.set(point.id, intact ? point.name : before);
    if (intact || point.disks.length === 0) return point;
    const broken = point.disks.filter((disk) => disk.error !== undefined).length;
    const finding: Finding = {
      severity: 'damaged',
      code: 'point-broken',
      message:
        point.disks.length === 1
          ? "The disk of this point can't be opened"
          : `${broken} of the ${point.disks.length} disks of this point can't be opened`,
      remedy:
        before === undefined
          ? 'No point before this one can be opened.'
          : `The last intact point before it is "${before}".`,
    };
    return { ...point, findings: [...point.findings, finding] };
  });
}

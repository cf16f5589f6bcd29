/**
 * Where the points of a VM's history stand on the strip: time from left to right, the line that leads to the present state
 * below, every branch in a lane above. Pure; sizes are CSS pixels.
 */
import type { RestorePoint } from '../../preload/api.ts';
import { clock, dayShort, isoTime, month } from './format.ts';

export interface LayoutOptions {
  /** Width there is; the layout is wider when points would come too close. */
  readonly width: number;
  /** `time`: distances follow time, `steps`: every point the same distance from the one before. */
  readonly scale: 'time' | 'steps';
  /** 1 fits the width where it can. */
  readonly zoom: number;
  readonly selected: string | undefined;
  /** For tests; this computer's when absent. */
  readonly zone?: string;
}

export interface HistoryNode {
  readonly id: string;
  readonly x: number;
  readonly y: number;
  readonly radius: number;
  readonly lane: number;
  readonly label?: { readonly text: string; readonly x: number; readonly y: number };
}

export interface HistoryEdge {
  readonly from: string;
  readonly to: string;
  /** An SVG path. */
  readonly path: string;
}

export interface HistoryLayout {
  readonly width: number;
  readonly height: number;
  /** y of the line of dates. */
  readonly axis: number;
  /** In the order of time. */
  readonly nodes: readonly HistoryNode[];
  readonly edges: readonly HistoryEdge[];
  readonly ticks: readonly { readonly x: number; readonly text: string }[];
}

const MARGIN = 46;
const MIN_GAP = 26;
const MAX_STEP = 150;
const LANE_HEIGHT = 32;
const TOP = 26;
const BELOW = 38;
const MIN_RADIUS = 5;
const MAX_RADIUS = 11;
const BEND = 54;
/** Width of a name's character at the strip's 11 px, and of the selected point's bold one. */
const CHARACTER = 6.8;
const CHARACTER_BOLD = 7.6;
const MAX_LABEL = 22;
/** Room between a name and the strip's ends. */
const EDGE = 10;

interface Placed {
  readonly point: RestorePoint;
  readonly parent: Placed | undefined;
  readonly children: Placed[];
  time: number;
  order: number;
  x: number;
  lane: number;
}

export function layoutHistory(points: readonly RestorePoint[], options: LayoutOptions): HistoryLayout {
  const placed = connect(points);
  const dated = giveTimes(placed);
  const ordered = inOrder(placed);
  const width = spread(ordered, options, dated);
  const lanes = giveLanes(placed);
  const y = (lane: number) => TOP + (lanes - 1 - lane) * LANE_HEIGHT;
  // Where points stand close, large ones would touch.
  const largest = Math.min(MAX_RADIUS, Math.max(MIN_RADIUS + 2, (width / (points.length + 1)) * 0.3));
  const most = points.reduce((max, point) => Math.max(max, point.changedBytes ?? 0), 0);
  const bare = ordered.map((one) => ({
    id: one.point.id,
    x: one.x,
    y: y(one.lane),
    lane: one.lane,
    radius: radiusOf(one.point.changedBytes, most, largest),
  }));
  const labels = placeLabels(ordered, bare, options.selected, width);
  const nodes = bare.map((node) => {
    const label = labels.get(node.id);
    return label === undefined ? node : { ...node, label };
  });
  const edges = ordered.flatMap((one) =>
    one.parent === undefined
      ? []
      : [{ from: one.parent.point.id, to: one.point.id, path: edgePath(one.parent, one, y) }],
  );
  const axis = y(0) + BELOW;
  const ticks = dated && options.scale === 'time' ? makeTicks(ordered, options.zone) : [];
  return { width, height: axis + (ticks.length === 0 ? 0 : 22), axis, nodes, edges, ticks };
}

/** The tree. A parent that is not there, comes later or is the point itself makes a root: hostile input forms no loop. */
function connect(points: readonly RestorePoint[]): Placed[] {
  const known = new Map<string, Placed>();
  return points.map((point, order) => {
    const parent = point.parent === undefined ? undefined : known.get(point.parent);
    const one: Placed = { point, parent, children: [], time: Number.NaN, order, x: 0, lane: -1 };
    parent?.children.push(one);
    known.set(point.id, one);
    return one;
  });
}

/** A time for every point: its own, or one between its neighbours; never before its parent's. False when none has a date. */
function giveTimes(placed: readonly Placed[]): boolean {
  const times = placed.map((one) => isoTime(one.point.created));
  const known = times.filter((time) => time !== undefined);
  if (known.length === 0) {
    for (const one of placed) one.time = one.order;
    return false;
  }
  const earliest = known.reduce((a, b) => Math.min(a, b));
  const latest = known.reduce((a, b) => Math.max(a, b));
  const typical = Math.max(60_000, (latest - earliest) / Math.max(1, known.length - 1));
  placed.forEach((one, index) => {
    const own = times[index];
    const after = one.parent?.time;
    if (own !== undefined) one.time = after === undefined ? own : Math.max(own, after);
    // The present state has no date of its own: it stands after everything else.
    else if (one.point.current) one.time = Math.max(latest, after ?? latest) + typical;
    else one.time = (after ?? earliest - typical) + typical / 2;
  });
  return true;
}

function inOrder(placed: readonly Placed[]): Placed[] {
  return [...placed].sort((a, b) => a.time - b.time || a.order - b.order);
}

/** Gives every point its x and answers the width. */
function spread(ordered: readonly Placed[], options: LayoutOptions, dated: boolean): number {
  const room = Math.max(0, options.width - 2 * MARGIN);
  const count = ordered.length - 1;
  if (count <= 0) {
    for (const one of ordered) one.x = MARGIN;
    return options.width;
  }
  const wanted = Math.max(room, count * MIN_GAP) * options.zoom;
  const spans = ordered.slice(1).map((one, index) => one.time - (ordered[index]?.time ?? 0));
  const gaps =
    options.scale === 'steps' || !dated
      ? spans.map(() => Math.max(MIN_GAP, Math.min(MAX_STEP * options.zoom, wanted / count)))
      : spreadOut(spans, wanted);
  let x = MARGIN;
  ordered.forEach((one, index) => {
    if (index > 0) x += gaps[index - 1] ?? MIN_GAP;
    one.x = x;
  });
  return Math.max(options.width, x + MARGIN);
}

/** Gaps in proportion to `spans` but none under the least, that add up to `total`. */
function spreadOut(spans: readonly number[], total: number): number[] {
  const at = (scale: number) => spans.map((span) => Math.max(MIN_GAP, span * scale));
  const sum = spans.reduce((a, b) => a + b, 0);
  if (sum <= 0) return spans.map(() => Math.min(MAX_STEP, total / spans.length));
  let low = 0;
  let high = total / sum;
  for (let step = 0; step < 40; step++) {
    const middle = (low + high) / 2;
    if (at(middle).reduce((a, b) => a + b, 0) > total) high = middle;
    else low = middle;
  }
  return at(low);
}

/** Lane 0 for the line to the present state, the lowest free lane for every branch. Answers how many lanes there are. */
function giveLanes(placed: readonly Placed[]): number {
  const main = new Set<Placed>();
  const end = placed.find((one) => one.point.current) ?? deepest(placed);
  for (let one = end; one !== undefined; one = one.parent) main.add(one);
  const taken: { from: number; to: number }[][] = [];
  let lanes = 1;
  const branches = placed
    .filter((one) => one.parent === undefined || heir(one.parent, main) !== one)
    .map((start) => line(start, main))
    .sort((a, b) => (a[0]?.x ?? 0) - (b[0]?.x ?? 0));
  for (const branch of branches) {
    const first = branch[0];
    if (first === undefined) continue;
    const from = first.parent?.x ?? first.x;
    const to = branch.at(-1)?.x ?? from;
    const isMain = main.has(first);
    let lane = isMain ? 0 : 1;
    while (!isMain && taken[lane]?.some((span) => from < span.to + MIN_GAP && to > span.from - MIN_GAP)) lane += 1;
    taken[lane] = [...(taken[lane] ?? []), { from, to }];
    for (const one of branch) one.lane = lane;
    lanes = Math.max(lanes, lane + 1);
  }
  return lanes;
}

/** The child that goes on in its parent's lane. */
function heir(parent: Placed, main: ReadonlySet<Placed>): Placed | undefined {
  return parent.children.find((child) => main.has(child)) ?? (main.has(parent) ? undefined : parent.children[0]);
}

function line(start: Placed, main: ReadonlySet<Placed>): Placed[] {
  const result: Placed[] = [];
  for (let one: Placed | undefined = start; one !== undefined; one = heir(one, main)) result.push(one);
  return result;
}

function deepest(placed: readonly Placed[]): Placed | undefined {
  const depth = new Map<Placed, number>();
  let best: Placed | undefined;
  for (const one of placed) {
    const own = one.parent === undefined ? 0 : (depth.get(one.parent) ?? 0) + 1;
    depth.set(one, own);
    if (best === undefined || own > (depth.get(best) ?? 0)) best = one;
  }
  return best;
}

function radiusOf(bytes: number | undefined, most: number, largest: number): number {
  if (bytes === undefined || most <= 0) return MIN_RADIUS + 1;
  return MIN_RADIUS + (largest - MIN_RADIUS) * Math.sqrt(bytes / most);
}

const round = (n: number) => Math.round(n * 10) / 10;

function edgePath(parent: Placed, child: Placed, y: (lane: number) => number): string {
  const [x1, y1, x2, y2] = [round(parent.x), y(parent.lane), round(child.x), y(child.lane)];
  if (y1 === y2) return `M${x1} ${y1}H${x2}`;
  const bend = round(Math.min(BEND, x2 - x1));
  const middle = round(x1 + bend / 2);
  return `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${round(x1 + bend)} ${y2}H${x2}`;
}

/** Names where there is room for them, the important ones first. Above the point in branches, below it on the main line. */
function placeLabels(
  ordered: readonly Placed[],
  nodes: readonly { id: string; x: number; y: number; lane: number; radius: number }[],
  selected: string | undefined,
  width: number,
): Map<string, { text: string; x: number; y: number }> {
  const rank = (one: Placed, index: number) => {
    if (one.point.id === selected) return 0;
    if (one.point.current) return 1;
    if (index === 0 || one.children.length === 0) return 2;
    return one.point.findings.length > 0 ? 3 : 4;
  };
  const candidates = ordered
    .map((one, index) => ({ one, node: nodes[index], rank: rank(one, index) }))
    .sort((a, b) => a.rank - b.rank);
  const result = new Map<string, { text: string; x: number; y: number }>();
  const taken: { left: number; right: number; lane: number }[] = [];
  const heads = new Map<string, number>();
  for (const { one } of candidates) {
    const head = one.point.name.slice(0, MAX_LABEL - 1);
    heads.set(head, (heads.get(head) ?? 0) + 1);
  }
  for (const { one, node } of candidates) {
    if (node === undefined) continue;
    const name = one.point.name;
    const text = shortened(name, heads);
    const half = (text.length * (one.point.id === selected ? CHARACTER_BOLD : CHARACTER)) / 2;
    const x = Math.min(width - half - EDGE, Math.max(half + EDGE, node.x));
    const span = { left: x - half - 6, right: x + half + 6, lane: node.lane };
    if (taken.some((other) => other.lane === span.lane && other.left < span.right && other.right > span.left)) continue;
    taken.push(span);
    result.set(node.id, { text, x, y: node.lane === 0 ? node.y + 27 : node.y - node.radius - 7 });
  }
  return result;
}

const MINUTE = 60_000;
const DAY = 86_400_000;
const TICK_STEPS = [
  1 * MINUTE,
  5 * MINUTE,
  15 * MINUTE,
  60 * MINUTE,
  3 * 60 * MINUTE,
  6 * 60 * MINUTE,
  12 * 60 * MINUTE,
  DAY,
  2 * DAY,
  4 * DAY,
  7 * DAY,
  14 * DAY,
  30 * DAY,
  61 * DAY,
  91 * DAY,
  182 * DAY,
  365 * DAY,
  5 * 365 * DAY,
];
const TICK_ROOM = 90;

/** Dates along the axis, up to the last point that has one: the present state has none, and gets none. Between two points time runs evenly; where points were moved apart, it runs faster there. */
function makeTicks(ordered: readonly Placed[], zone: string | undefined): { x: number; text: string }[] {
  const first = ordered[0];
  const last = ordered.findLast((one) => isoTime(one.point.created) !== undefined);
  if (first === undefined || last === undefined || last.time <= first.time) return [];
  const most = Math.max(1, Math.floor((last.x - first.x) / TICK_ROOM));
  const step = TICK_STEPS.find((one) => (last.time - first.time) / one <= most) ?? TICK_STEPS.at(-1) ?? DAY;
  const offset = new Date(first.time).getTimezoneOffset() * MINUTE;
  const ticks: { x: number; text: string }[] = [];
  let previous = Number.NEGATIVE_INFINITY;
  let time = Math.ceil((first.time - offset) / step) * step + offset;
  for (let made = 0; time <= last.time && made < 500; made++, time += step) {
    const x = positionAt(ordered, time);
    if (x - previous < TICK_ROOM * 0.7) continue;
    previous = x;
    const text = step < DAY ? (hourText(time, zone) ?? '') : step < 30 * DAY ? dayShort(time, zone) : month(time, zone);
    ticks.push({ x, text });
  }
  return ticks;
}

function hourText(time: number, zone: string | undefined): string {
  const hour = clock(time, zone);
  return hour === '00:00' ? dayShort(time, zone) : hour;
}

function positionAt(ordered: readonly Placed[], time: number): number {
  for (let index = 1; index < ordered.length; index++) {
    const a = ordered[index - 1];
    const b = ordered[index];
    if (a === undefined || b === undefined || time > b.time) continue;
    return b.time === a.time ? b.x : a.x + ((time - a.time) / (b.time - a.time)) * (b.x - a.x);
  }
  return ordered.at(-1)?.x ?? MARGIN;
}

export type Direction = 'left' | 'right' | 'up' | 'down' | 'first' | 'last';

/** The point that an arrow key leads to: left and right in time, up and down to the nearest point of another lane. */
export function neighbour(layout: HistoryLayout, id: string | undefined, direction: Direction): string | undefined {
  const { nodes } = layout;
  const index = nodes.findIndex((node) => node.id === id);
  const here = nodes[index];
  if (direction === 'first' || here === undefined) return nodes[0]?.id;
  if (direction === 'last') return nodes.at(-1)?.id;
  if (direction === 'left') return nodes[index - 1]?.id ?? here.id;
  if (direction === 'right') return nodes[index + 1]?.id ?? here.id;
  const beyond = nodes.filter((node) => (direction === 'up' ? node.lane > here.lane : node.lane < here.lane));
  const distance = (node: HistoryNode) => Math.abs(node.lane - here.lane) * 10_000 + Math.abs(node.x - here.x);
  return beyond.reduce((best, node) => (distance(node) < distance(best) ? node : best), beyond[0] ?? here).id;
}

/** The point nearest to a place on the strip. */
export function nearest(layout: HistoryLayout, x: number, y: number): string | undefined {
  const distance = (node: HistoryNode) => Math.hypot(node.x - x, (node.y - y) * 2);
  const { nodes } = layout;
  return nodes.slice(1).reduce((best, node) => (best && distance(best) <= distance(node) ? best : node), nodes[0])?.id;
}

/** A name with room for `MAX_LABEL` characters: cut at its end, or in the middle where another begins like it and ends otherwise. */
function shortened(name: string, heads: ReadonlyMap<string, number>): string {
  if (name.length <= MAX_LABEL) return name;
  const head = name.slice(0, MAX_LABEL - 1);
  if (heads.get(head) === 1) return `${head}…`;
  const half = Math.floor(MAX_LABEL / 2);
  return `${name.slice(0, half)}…${name.slice(name.length - (MAX_LABEL - half - 1))}`;
}

import { describe, expect, it } from 'vitest';
import type { RestorePoint } from '../../../preload/api.ts';
import { layoutHistory, nearest, neighbour } from '../../../renderer/logic/history-layout.ts';

const DAY = 86_400_000;
const start = Date.UTC(2026, 10, 2);

function point(
  id: string,
  parent: string | undefined,
  day: number | undefined,
  more: Partial<RestorePoint> = {},
): RestorePoint {
  return {
    id,
    name: `point ${id}`,
    ...(parent === undefined ? {} : { parent }),
    ...(day === undefined ? {} : { created: new Date(start + day * DAY).toISOString() }),
    current: false,
    currentParent: false,
    memory: false,
    quiesced: false,
    consistency: { level: 'unknown', evidence: [] },
    disks: [],
    findings: [],
    ...more,
  };
}
const options = { width: 860, scale: 'time', zoom: 1, selected: undefined, zone: 'UTC' } as const;
const ids = (points: readonly { id: string }[]) => points.map((one) => one.id);

/** base - a - b - c(current), with a branch x - y from a. */
const tree = [
  point('base', undefined, 0, { changedBytes: 1000 }),
  point('a', 'base', 2, { changedBytes: 10 }),
  point('x', 'a', 3, { changedBytes: 250 }),
  point('y', 'x', 5),
  point('b', 'a', 6),
  point('c', 'b', undefined, { current: true }),
];

describe('a history', () => {
  it('runs from left to right in time, with the present state last though it has no date', () => {
    const layout = layoutHistory(tree, options);
    expect(ids(layout.nodes)).toEqual(['base', 'a', 'x', 'y', 'b', 'c']);
    const xs = layout.nodes.map((node) => node.x);
    expect([...xs].sort((p, q) => p - q)).toEqual(xs);
    expect(layout.width).toBe(860);
    expect(Math.max(...xs)).toBeLessThanOrEqual(860);
  });
  it('keeps the line to the present state below and branches above it', () => {
    const layout = layoutHistory(tree, options);
    const lane = Object.fromEntries(layout.nodes.map((node) => [node.id, node.lane]));
    expect(lane).toEqual({ base: 0, a: 0, b: 0, c: 0, x: 1, y: 1 });
    const y = Object.fromEntries(layout.nodes.map((node) => [node.id, node.y]));
    expect(y.x).toBeLessThan(y.a ?? 0);
  });
  it('connects every point with its parent', () => {
    const layout = layoutHistory(tree, options);
    expect(layout.edges.map((edge) => `${edge.from}>${edge.to}`).sort()).toEqual([
      'a>b',
      'a>x',
      'b>c',
      'base>a',
      'x>y',
    ]);
    expect(layout.edges.find((edge) => edge.to === 'x')?.path).toMatch(/^M[\d.]+ \d+C/);
    expect(layout.edges.find((edge) => edge.to === 'a')?.path).toMatch(/^M[\d.]+ \d+H[\d.]+$/);
  });
  it('draws what changed more as a larger point', () => {
    const radius = Object.fromEntries(layoutHistory(tree, options).nodes.map((node) => [node.id, node.radius]));
    expect(radius.base).toBe(11);
    expect(radius.x).toBe(8);
    expect(radius.a).toBeLessThan(radius.x ?? 0);
  });
  it('follows time in its distances, and evenness when asked', () => {
    const x = (scale: 'time' | 'steps') => layoutHistory(tree, { ...options, scale }).nodes.map((node) => node.x);
    const [t0 = 0, t1 = 0, t2 = 0] = x('time');
    expect((t1 - t0) / (t2 - t1)).toBeCloseTo(2, 1);
    const [s0 = 0, s1 = 0, s2 = 0] = x('steps');
    expect(s1 - s0).toBeCloseTo(s2 - s1, 5);
  });
  it('names the selected point and the present one always, and lets no two names of a lane touch', () => {
    const many = Array.from({ length: 60 }, (_, index) =>
      point(`${index}`, index === 0 ? undefined : `${index - 1}`, index),
    );
    const layout = layoutHistory(many, { ...options, selected: '31' });
    const labelled = layout.nodes.filter((node) => node.label !== undefined);
    expect(ids(labelled)).toContain('31');
    expect(labelled.length).toBeGreaterThan(5);
    for (const [index, node] of labelled.entries()) {
      const next = labelled[index + 1];
      if (next !== undefined) expect((next.label?.x ?? 0) - (node.label?.x ?? 0)).toBeGreaterThan(40);
    }
  });
  it('dates the axis', () => {
    const layout = layoutHistory(tree, options);
    expect(layout.ticks.length).toBeGreaterThan(2);
    for (const tick of layout.ticks) expect(tick.text).toMatch(/^\d+ Nov$/);
    expect(layoutHistory(tree, { ...options, scale: 'steps' }).ticks).toEqual([]);
  });
  it('gives the present state, which has no date, none on the axis', () => {
    const layout = layoutHistory(tree, options);
    const dated = layout.nodes.filter((node) => node.id !== 'c').map((node) => node.x);
    for (const tick of layout.ticks) expect(tick.x).toBeLessThanOrEqual(Math.max(...dated) + 1e-6);
    const two = [point('base', undefined, 0), point('now', 'base', undefined, { current: true })];
    expect(layoutHistory(two, options).ticks).toEqual([]);
  });
  it('keeps the names at its ends inside, the bold one too', () => {
    const named = [
      point('base', undefined, 0, { name: 'a rather long base name' }),
      point('now', 'base', 1, { current: true, name: 'Current state' }),
    ];
    for (const selected of ['base', 'now']) {
      const layout = layoutHistory(named, { ...options, selected });
      for (const { id, label } of layout.nodes) {
        const half = ((label?.text.length ?? 0) * (id === selected ? 7.6 : 6.8)) / 2;
        expect((label?.x ?? 0) - half).toBeGreaterThanOrEqual(10 - 1e-6);
        expect((label?.x ?? 0) + half).toBeLessThanOrEqual(layout.width - 10 + 1e-6);
      }
    }
  });
  it('keeps points apart however close they are in time, and grows wider for it', () => {
    const many = Array.from({ length: 64 }, (_, index) =>
      point(`${index}`, index === 0 ? undefined : `${index - 1}`, index === 63 ? 400 : index / 1000),
    );
    const layout = layoutHistory(many, options);
    for (const [index, node] of layout.nodes.entries()) {
      const next = layout.nodes[index + 1];
      if (next !== undefined) expect(next.x - node.x).toBeGreaterThanOrEqual(26 - 1e-6);
    }
    expect(layout.width).toBeGreaterThan(860);
    expect(layoutHistory(tree, { ...options, zoom: 4 }).width).toBeGreaterThan(860 * 3);
  });
  it('gives branches that overlap lanes of their own', () => {
    const points = [
      point('r', undefined, 0),
      point('m', 'r', 10, { current: true }),
      point('p', 'r', 2),
      point('p2', 'p', 8),
      point('q', 'r', 3),
      point('q2', 'q', 7),
    ];
    const lanes = Object.fromEntries(layoutHistory(points, options).nodes.map((node) => [node.id, node.lane]));
    expect(lanes.p).toBe(lanes.p2);
    expect(lanes.q).toBe(lanes.q2);
    expect(new Set([lanes.m, lanes.p, lanes.q]).size).toBe(3);
  });
});

describe('odd histories', () => {
  it('of one point stand', () => {
    for (const one of [point('only', undefined, 0), point('only', undefined, undefined)]) {
      const layout = layoutHistory([one], options);
      expect(layout.nodes).toHaveLength(1);
      expect(layout.nodes[0]?.label?.text).toBe('point only');
      expect(Number.isFinite(layout.height)).toBe(true);
    }
    expect(layoutHistory([], options).nodes).toEqual([]);
  });
  it('without dates stand in the order of the chain', () => {
    const chain = ['1', '2', '3'].map((id, index) => point(id, index === 0 ? undefined : `${index}`, undefined));
    const layout = layoutHistory(chain, options);
    expect(ids(layout.nodes)).toEqual(['1', '2', '3']);
    expect(layout.ticks).toEqual([]);
  });
  it('with all points at one moment stand apart', () => {
    const chain = ['1', '2', '3'].map((id, index) => point(id, index === 0 ? undefined : `${index}`, 0));
    const xs = layoutHistory(chain, options).nodes.map((node) => node.x);
    expect(new Set(xs).size).toBe(3);
    for (const x of xs) expect(Number.isFinite(x)).toBe(true);
  });
  it('with a clock that ran backwards never put a child before its parent', () => {
    const layout = layoutHistory([point('1', undefined, 10), point('2', '1', 3)], options);
    expect(ids(layout.nodes)).toEqual(['1', '2']);
  });
  it('with loops, unknown parents and dates that are none are drawn all the same', () => {
    const layout = layoutHistory(
      [point('1', '2', 0), point('2', '1', 1), point('3', '3', 2), { ...point('4', 'nowhere', 3), created: 'soon' }],
      options,
    );
    expect(ids(layout.nodes).sort()).toEqual(['1', '2', '3', '4']);
    for (const node of layout.nodes) expect(Number.isFinite(node.x + node.y)).toBe(true);
  });
});

describe('moving', () => {
  const layout = layoutHistory(tree, options);
  it.each([
    ['a', 'right', 'x'],
    ['a', 'left', 'base'],
    ['base', 'left', 'base'],
    ['c', 'right', 'c'],
    ['a', 'up', 'x'],
    ['y', 'down', 'b'],
    ['b', 'down', 'b'],
    ['y', 'first', 'base'],
    ['a', 'last', 'c'],
    [undefined, 'right', 'base'],
  ] as const)('from %s %s is %s', (from, direction, to) => expect(neighbour(layout, from, direction)).toBe(to));
  it('finds the point under the pointer', () => {
    const y = layout.nodes.find((node) => node.id === 'y');
    expect(nearest(layout, (y?.x ?? 0) + 4, (y?.y ?? 0) - 6)).toBe('y');
    expect(nearest(layoutHistory([], options), 0, 0)).toBeUndefined();
  });
});

describe('long names', () => {
  const labels = (...names: string[]) =>
    layoutHistory(
      names.map((name, i) => point(`${i}`, i === 0 ? undefined : `${i - 1}`, i, { name })),
      { ...options, width: 4_000 },
    ).nodes.map(({ label }) => label?.text);

  it('lose their end, and their middle where only the end tells them apart', () => {
    const [alone] = labels('before the great upgrade to version 12 of everything');
    expect(alone).toMatch(/^before the great .*…$/);
    const alike = labels('6f0c1d2e-0000-4000-8000-000000000010', '6f0c1d2e-0000-4000-8000-000000000020');
    expect(alike).toEqual([expect.stringMatching(/^6f0c.*….*10$/), expect.stringMatching(/^6f0c.*….*20$/)]);
    expect(new Set(alike.map((text) => text?.length)).size).toBe(1);
  });
});

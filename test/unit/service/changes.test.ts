import { describe, expect, it } from 'vitest';
import { IoError, NotFoundError } from '../../../main/engine/errors.ts';
import { directoryChanges, lineAfter } from '../../../main/engine/service/changes.ts';
import type { RestorePoint } from '../../../preload/api.ts';
import {
  type DirectoryNode,
  damage,
  directory,
  file,
  MemoryFileSystem,
  type Node,
  symlink,
} from '../../support/memory-file-system.ts';
import { fakePoint } from './fake-point.ts';

function point(id: string, parent?: string, current = false): RestorePoint {
  return {
    id,
    name: `Point ${id}`,
    ...(parent === undefined ? {} : { parent }),
    current,
    currentParent: false,
    memory: false,
    quiesced: false,
    consistency: { level: 'crash', evidence: [] },
    disks: [],
    findings: [],
  };
}

const shared = file('the same in every point');

/** A history of trees by point. Nodes shared between trees, and the `versions` of one file, have one number, as in a guest. */
function history(trees: Readonly<Record<string, DirectoryNode | Error>>, versions: readonly (readonly Node[])[] = []) {
  const numbers = new Map<Node, number>();
  for (const [i, nodes] of versions.entries()) for (const node of nodes) numbers.set(node, 1000 + i);
  const asked: string[] = [];
  return {
    asked,
    withPoint: async <T>(id: string, body: (open: ReturnType<typeof fakePoint>) => Promise<T>): Promise<T> => {
      asked.push(id);
      const tree = trees[id]!;
      if (tree instanceof Error) throw tree;
      const fs = new MemoryFileSystem(tree, 2, numbers);
      return body(fakePoint([{ name: 'sda1', content: fs }]));
    },
  };
}

const never = new AbortController().signal;

describe('what a folder has that it had not before', () => {
  it('added, changed, gone, and the same', async () => {
    const touched = (seconds: number) => file('log', { modified: { seconds, nanoseconds: 0 } });
    const link = symlink('there');
    const { withPoint } = history({
      a: directory({
        www: directory({
          same: shared,
          log: touched(1),
          deleted: file('x'),
          resized: file('1'),
          link,
          kind: file('x'),
        }),
      }),
      b: directory({
        www: directory({
          same: shared,
          log: touched(2),
          resized: file('12'),
          added: file('new'),
          link,
          kind: directory({}),
        }),
      }),
    });
    const changes = await directoryChanges([point('a'), point('b', 'a', true)], 'b', '/sda1/www', withPoint, never);
    expect(changes.before).toEqual({ id: 'a', name: 'Point a' });
    expect(changes.marks).toEqual({ log: 'changed', resized: 'changed', added: 'added', kind: 'changed' });
    expect(changes.gone.map((row) => row.name)).toEqual(['deleted']);
    expect(changes.gone[0]).toMatchObject({ path: '/sda1/www/deleted', size: 1 });
    expect(changes.goneLater).toEqual({});
  });

  it('one file is changed when anything but its time of access is', async () => {
    const five = { seconds: 5, nanoseconds: 5 };
    const plain = { mode: 0o644, uid: 1, gid: 1, modified: five, changed: five };
    const pairs: Record<string, [Node, Node]> = {
      same: [file('x', plain), file('x', plain)],
      read: [file('x', plain), file('x', { ...plain, accessed: { seconds: 9, nanoseconds: 0 } })],
      size: [file('x', plain), file('xx', plain)],
      mode: [file('x', plain), file('x', { ...plain, mode: 0o600 })],
      uid: [file('x', plain), file('x', { ...plain, uid: 2 })],
      gid: [file('x', plain), file('x', { ...plain, gid: 2 })],
      modified: [file('x', plain), file('x', { ...plain, modified: { seconds: 5, nanoseconds: 6 } })],
      changed: [file('x', plain), file('x', { ...plain, changed: { seconds: 6, nanoseconds: 5 } })],
      target: [symlink('aaa', plain), symlink('bbb', plain)],
      damaged: [file('x', plain), file('x', plain, { stat: damage() })],
      'still damaged': [file('x', plain, { stat: damage() }), file('x', plain, { stat: damage() })],
    };
    const tree = (version: 0 | 1) =>
      directory(Object.entries(pairs).map(([name, pair]): [string, Node] => [name, pair[version]]));
    const { withPoint } = history({ a: tree(0), b: tree(1) }, Object.values(pairs));
    const { marks } = await directoryChanges([point('a'), point('b', 'a', true)], 'b', '/sda1', withPoint, never);
    const unchanged = ['same', 'read', 'still damaged'];
    expect(Object.keys(marks)).toEqual(Object.keys(pairs).filter((name) => !unchanged.includes(name)));
    expect(new Set(Object.values(marks))).toEqual(new Set(['changed']));
  });

  it('the first point has nothing before it', async () => {
    const { withPoint } = history({ a: directory({ f: shared }) });
    const changes = await directoryChanges([point('a', undefined, true)], 'a', '/sda1', withPoint, never);
    expect(changes).toEqual({ marks: {}, gone: [], goneLater: {} });
  });

  it('a folder that was not there before is all new; one that is not here is not found', async () => {
    const { withPoint } = history({ a: directory({}), b: directory({ www: directory({ f: shared }) }) });
    const points = [point('a'), point('b', 'a', true)];
    expect((await directoryChanges(points, 'b', '/sda1/www', withPoint, never)).marks).toEqual({ f: 'added' });
    await expect(directoryChanges(points, 'a', '/sda1/www', withPoint, never)).rejects.toThrow(NotFoundError);
  });

  it('a file may have any name', async () => {
    const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty'];
    const { withPoint } = history({
      a: directory([]),
      b: directory(names.map((name): [string, Node] => [name, shared])),
      c: directory([]),
    });
    const points = [point('a'), point('b', 'a'), point('c', 'b', true)];
    const changes = await directoryChanges(points, 'b', '/sda1', withPoint, never);
    expect(Object.keys(changes.marks).sort()).toEqual([...names].sort());
    expect(Object.keys(changes.goneLater).sort()).toEqual([...names].sort());
    expect(JSON.parse(JSON.stringify(changes.marks))).toEqual(changes.marks);
  });
});

describe('what is gone later', () => {
  it('with the first point that does not have it', async () => {
    const { withPoint, asked } = history({
      a: directory({ keeps: shared, early: shared, late: shared }),
      b: directory({ keeps: shared, late: shared }),
      c: directory({ keeps: shared, early: shared }),
    });
    const points = [point('a'), point('b', 'a'), point('c', 'b', true)];
    const changes = await directoryChanges(points, 'a', '/sda1', withPoint, never);
    expect(changes.goneLater).toEqual({ early: { id: 'b', name: 'Point b' }, late: { id: 'c', name: 'Point c' } });
    expect(asked).toEqual(['a', 'b', 'c']);
  });

  it('a later point that can not be opened says nothing', async () => {
    const { withPoint } = history({
      a: directory({ f: shared }),
      b: new IoError('gone', {}),
      c: directory({}),
    });
    const points = [point('a'), point('b', 'a'), point('c', 'b', true)];
    expect((await directoryChanges(points, 'a', '/sda1', withPoint, never)).goneLater).toEqual({
      f: { id: 'c', name: 'Point c' },
    });
  });

  it('a folder that is gone takes everything with it', async () => {
    const { withPoint } = history({ a: directory({ www: directory({ f: shared, g: shared }) }), b: directory({}) });
    const changes = await directoryChanges([point('a'), point('b', 'a', true)], 'a', '/sda1/www', withPoint, never);
    expect(Object.keys(changes.goneLater)).toEqual(['f', 'g']);
  });

  it('stops looking once everything is gone', async () => {
    const { withPoint, asked } = history({
      a: directory({ f: shared }),
      b: directory({}),
      c: directory({ f: shared }),
    });
    await directoryChanges([point('a'), point('b', 'a'), point('c', 'b', true)], 'a', '/sda1', withPoint, never);
    expect(asked).toEqual(['a', 'b']);
  });
});

describe('lineAfter', () => {
  //  a - b - c - now
  //       \ x - y
  const points = [
    point('a'),
    point('b', 'a'),
    point('c', 'b'),
    point('x', 'b'),
    point('y', 'x'),
    point('now', 'c', true),
  ];
  const ids = (from: string) => lineAfter(points, from).map(({ id }) => id);

  it('leads to the present where the point is on the way to it', () => {
    expect(ids('a')).toEqual(['b', 'c', 'now']);
    expect(ids('c')).toEqual(['now']);
    expect(ids('now')).toEqual([]);
  });

  it('else along the newest children', () => {
    expect(ids('x')).toEqual(['y']);
    expect(ids('y')).toEqual([]);
    expect(ids('unknown')).toEqual([]);
  });

  it('ends where parents go round in a ring', () => {
    const ring = [point('a', 'c'), point('b', 'a'), point('c', 'b', true)];
    expect(lineAfter(ring, 'a').map(({ id }) => id)).toEqual(['b', 'c']);
    expect(lineAfter([point('a', 'a', true)], 'x')).toEqual([]);
    expect(lineAfter([point('a', 'b'), point('b', 'a')], 'a').map(({ id }) => id)).toEqual(['b']);
  });

  it('is not longer than anybody looks', () => {
    const many = Array.from({ length: 200 }, (_, i) =>
      point(String(i), i === 0 ? undefined : String(i - 1), i === 199),
    );
    expect(lineAfter(many, '0')).toHaveLength(64);
    expect(lineAfter(many, '0')[0]!.id).toBe('1');
    expect(
      lineAfter(
        many.map((p) => ({ ...p, current: false })),
        '0',
      ),
    ).toHaveLength(64);
  });
});

import { describe, expect, it } from 'vitest';
import { inHistoryOrder, withLastIntact, withoutLoops } from '../../../main/engine/catalog/history.ts';
import type { PointDisk, RestorePoint } from '../../../main/engine/catalog/model.ts';

const disk = (broken: boolean): PointDisk => ({
  index: 0,
  file: 'a.vmdk',
  chain: [],
  ...(broken ? { error: { kind: 'io', message: 'gone', details: {} } } : {}),
});
const point = (id: string, parent?: string, more: Partial<RestorePoint> & { broken?: boolean } = {}): RestorePoint => {
  const { broken = false, ...rest } = more;
  return {
    id,
    name: `point ${id}`,
    ...(parent === undefined ? {} : { parent }),
    current: false,
    currentParent: false,
    memory: false,
    quiesced: false,
    consistency: { level: 'unknown', evidence: [] },
    disks: [disk(broken)],
    findings: [],
    ...rest,
  };
};

describe('history', () => {
  it('parents before children, siblings by time then number, those without a time after, the present state last', () => {
    const points = [
      point('now', '1', { current: true, created: '2020-01-01T00:00:00.000Z' }),
      point('10', '1'),
      point('9', '1'),
      point('3', '1', { created: '2024-01-02T00:00:00.000Z' }),
      point('4', '3'),
      point('2', '1', { created: '2024-01-03T00:00:00.000Z' }),
      point('1'),
      point('lost', 'not listed'),
    ];
    expect(inHistoryOrder(points).map(({ id }) => id)).toEqual(['1', '3', '4', '2', '9', '10', 'now', 'lost']);
  });

  it('cuts one link of each loop', () => {
    const cut: string[] = [];
    const parents = withoutLoops(
      new Map([
        ['a', 'b'],
        ['b', 'c'],
        ['c', 'a'],
        ['d', 'c'],
        ['e', undefined],
      ]),
      (id) => cut.push(id),
    );
    expect(cut).toEqual(['c']);
    expect([...parents]).toEqual([
      ['a', 'b'],
      ['b', 'c'],
      ['c', undefined],
      ['d', 'c'],
      ['e', undefined],
    ]);
  });

  it('names the last intact point before a broken one', () => {
    const points = [
      point('1', undefined, { broken: true }),
      point('2', '1'),
      point('3', '2', { broken: true }),
      point('4', '3', { broken: true }),
    ];
    expect(withLastIntact(points).map(({ findings }) => findings[0]?.remedy)).toEqual([
      'No point before this one can be opened.',
      undefined,
      'The last intact point before it is "point 2".',
      'The last intact point before it is "point 2".',
    ]);
  });
});

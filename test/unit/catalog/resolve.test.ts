import { describe, expect, it } from 'vitest';
import type { Catalog, PointDisk, RestorePoint, VirtualMachine } from '../../../main/engine/catalog/model.ts';
import { resolveDisk, resolvePoint } from '../../../main/engine/catalog/resolve.ts';
import { NotFoundError, UsageError } from '../../../main/engine/errors.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';

const point = (id: string, name: string, more: Partial<RestorePoint> = {}): RestorePoint => ({
  id,
  name,
  current: false,
  currentParent: false,
  memory: false,
  quiesced: false,
  consistency: { level: 'unknown', evidence: [] },
  disks: [],
  findings: [],
  ...more,
});
const vm = (name: string, points: RestorePoint[]): VirtualMachine => ({
  name,
  origin: 'vmware',
  folder: '.',
  points,
  findings: [],
});
const catalog = (vms: VirtualMachine[], kind: Catalog['kind'] = 'folder'): Catalog => ({
  source: '/backup',
  kind,
  name: 'backup',
  folder: new Confinement('/'),
  vms,
  orphans: [],
  findings: [],
});
const failure = (action: () => unknown): unknown => {
  try {
    return action();
  } catch (error) {
    return error;
  }
};

const points = [
  point('1', 'before update'),
  point('2', 'nightly'),
  point('3', 'nightly'),
  point('current', 'Current state', { current: true }),
];
const one = catalog([vm('web01', points)]);
const two = catalog([vm('web01', points), vm('db', [point('current', 'Current state')])]);

describe('resolvePoint', () => {
  it('finds by id, by name, and by nothing where there is one', () => {
    expect(resolvePoint(one, { point: '2' }).point.id).toBe('2');
    expect(resolvePoint(one, { point: 'before update' }).point.id).toBe('1');
    expect(resolvePoint(two, { vm: 'db' }).point.id).toBe('current');
    expect(resolvePoint(two, { vm: 'DB' }).vm.name).toBe('db');
    expect(resolvePoint(catalog([vm('a', points)], 'image'), {}).point.id).toBe('current');
  });

  it('an id goes before a name', () => {
    const tricky = catalog([vm('a', [point('1', '2'), point('2', '1')])]);
    expect(resolvePoint(tricky, { point: '2' }).point.id).toBe('2');
  });

  it.each([
    ['no VM named of two', () => resolvePoint(two, {}), UsageError, ['web01', 'db']],
    ['an unknown VM', () => resolvePoint(two, { vm: 'x' }), NotFoundError, ['web01', 'db']],
    [
      'no point named of four',
      () => resolvePoint(one, {}),
      UsageError,
      ['1 (before update)', '2 (nightly)', '3 (nightly)', 'current (Current state)'],
    ],
    [
      'a name that two points have',
      () => resolvePoint(one, { point: 'nightly' }),
      UsageError,
      ['2 (nightly)', '3 (nightly)'],
    ],
    [
      'an unknown point',
      () => resolvePoint(one, { point: '9' }),
      NotFoundError,
      ['1 (before update)', '2 (nightly)', '3 (nightly)', 'current (Current state)'],
    ],
    ['an empty repository', () => resolvePoint(catalog([]), {}), NotFoundError, undefined],
    ['a VM without points', () => resolvePoint(catalog([vm('a', [])]), {}), NotFoundError, undefined],
  ])('%s is an error that lists the choices', (_, action, family, choices) => {
    const error = failure(action);
    expect(error).toBeInstanceOf(family);
    expect((error as UsageError).details.choices).toEqual(choices);
  });

  it('lists at most a hundred choices', () => {
    const many = catalog([
      vm(
        'a',
        Array.from({ length: 500 }, (_, n) => point(String(n), `p${n}`)),
      ),
    ]);
    const error = failure(() => resolvePoint(many, {})) as UsageError;
    expect(error.details.choices).toHaveLength(101);
  });
});

describe('resolveDisk', () => {
  const disk = (index: number): PointDisk => ({ index, node: `scsi0:${index}`, file: `d${index}.vmdk`, chain: [] });
  it('needs an index only where there are several', () => {
    expect(resolveDisk(point('1', 'a', { disks: [disk(0)] }), undefined).file).toBe('d0.vmdk');
    const both = point('1', 'a', { disks: [disk(0), disk(1)] });
    expect(resolveDisk(both, 1).file).toBe('d1.vmdk');
    expect(failure(() => resolveDisk(both, undefined))).toMatchObject({
      kind: 'usage',
      details: { choices: ['0 (scsi0:0 d0.vmdk)', '1 (scsi0:1 d1.vmdk)'] },
    });
    expect(failure(() => resolveDisk(both, 2))).toBeInstanceOf(NotFoundError);
    expect(failure(() => resolveDisk(point('1', 'a'), 0))).toBeInstanceOf(NotFoundError);
  });
});

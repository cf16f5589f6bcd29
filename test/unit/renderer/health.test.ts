import { describe, expect, it } from 'vitest';
import type { Finding, RepositoryReport, RestorePoint, VirtualMachine } from '../../../preload/api.ts';
import {
  findingCounts,
  healthOf,
  nearestIntact,
  repositoryFindingGroups,
  repositoryFindings,
  vmFindings,
  vmHealth,
  vmOrphans,
  vmSummary,
  worstFirst,
} from '../../../renderer/logic/health.ts';
import { report } from './fake-api.ts';

const finding = (severity: Finding['severity'], message: string = severity): Finding => ({
  severity,
  code: 'x',
  message,
});
const vm = (name: string): VirtualMachine => {
  const found = report.vms.find((one) => one.name === name);
  if (found === undefined) throw new Error(name);
  return found;
};

describe('health', () => {
  it('is the worst of the findings', () => {
    expect(healthOf([])).toBe('good');
    expect(healthOf([finding('note')])).toBe('note');
    expect(healthOf([finding('suspicious'), finding('note')])).toBe('suspicious');
    expect(healthOf([finding('note'), finding('damaged'), finding('suspicious')])).toBe('damaged');
  });
  it('of a VM counts its points and the disks that cannot be opened', () => {
    expect(vmHealth(vm('db-prod'))).toBe('good');
    expect(vmHealth(vm('web01'))).toBe('suspicious');
    expect(vmHealth(vm('legacy-erp'))).toBe('damaged');
  });
  it('is said in evidence', () => {
    expect(vmSummary(vm('db-prod'))).toBe('Oracle Linux, 1 disk, 64 points');
    expect(vmSummary(vm('legacy-erp'))).toBe('3 of 5 points intact');
    expect(vmSummary(vm('web01'))).toBe('Debian 12, 1 suspicious, 11 points');
  });
  it('counts findings by severity and each once', () => {
    expect(findingCounts([])).toBeUndefined();
    expect(findingCounts([finding('note'), finding('damaged'), finding('note', 'other')])).toBe('1 damaged, 2 notes');
    const twice = { ...vm('web01'), findings: [...(vm('web01').points[8]?.findings ?? [])] };
    expect(vmFindings(twice)).toHaveLength(1);
  });
});

const point = (id: string, parent: string | undefined, whole: boolean, findings: Finding[] = []): RestorePoint => ({
  id,
  name: id,
  ...(parent === undefined ? {} : { parent }),
  current: false,
  currentParent: false,
  memory: false,
  quiesced: false,
  consistency: { level: 'unknown', evidence: [] },
  disks: [
    {
      index: 0,
      file: `${id}.vmdk`,
      chain: [],
      ...(whole ? {} : { error: { kind: 'missing-parent', message: '', details: {} } }),
    },
  ],
  findings,
});
const broken = finding('damaged', 'A disk of this point cannot be opened');
const machine = (name: string, folder: string, points: RestorePoint[]): VirtualMachine => ({
  name,
  origin: 'vmware',
  folder,
  points,
  findings: [],
});
const repository = (vms: VirtualMachine[], orphans: RepositoryReport['orphans'] = []): RepositoryReport => ({
  source: '/b',
  kind: 'folder',
  name: 'b',
  vms,
  orphans,
  findings: [finding('note')],
});

describe('findings of a repository', () => {
  it('say which point they are about, and the same words about two points are two', () => {
    const one = repository([
      machine('erp', 'erp', [point('p', undefined, false, [broken]), point('q', 'p', false, [broken])]),
    ]);
    expect(repositoryFindingGroups(one).map((group) => group.title)).toEqual(['b', 'erp at p', 'erp at q']);
    expect(findingCounts(repositoryFindings(one))).toBe('2 damaged, 1 note');
  });
  it('are put worst first', () => {
    const mixed = [finding('note'), finding('damaged'), finding('suspicious')];
    expect(worstFirst(mixed).map((one) => one.severity)).toEqual(['damaged', 'suspicious', 'note']);
  });
});

describe('orphaned files', () => {
  const orphan = (file: string) => ({ file, bytes: 1, reason: '' });
  it('belong to the VM whose folder they lie in, when only one lies there', () => {
    const a = machine('a', 'a', [point('p', undefined, true)]);
    const root = machine('r', '.', [point('p', undefined, true)]);
    const report = repository([a, root], [orphan('a/x.vmdk'), orphan('a/deep/x.vmdk'), orphan('top.vmdk')]);
    expect(vmOrphans(report, a).map((one) => one.file)).toEqual(['a/x.vmdk']);
    expect(vmOrphans(report, root).map((one) => one.file)).toEqual(['top.vmdk']);
    expect(vmSummary(a, 1)).toBe('1 orphaned file, 1 point');
    const twin = machine('twin', 'a', []);
    expect(vmOrphans(repository([a, twin], [orphan('a/x.vmdk')]), a)).toEqual([]);
  });
});

describe('the point to fall back to', () => {
  it('is the nearest before it that can be opened, else the last that can', () => {
    const points = [point('a', undefined, true), point('b', 'a', false), point('c', 'b', false), point('d', 'a', true)];
    expect(nearestIntact(points, 'c')?.id).toBe('a');
    expect(nearestIntact([point('x', undefined, false), ...points.slice(3)], 'x')?.id).toBe('d');
    expect(nearestIntact([point('x', undefined, false)], 'x')).toBeUndefined();
  });
  it('is found in a history that runs in a circle', () => {
    expect(nearestIntact([point('a', 'b', false), point('b', 'a', false)], 'a')).toBeUndefined();
  });
});

import { describe, expect, it } from 'vitest';
import type { Finding, VirtualMachine } from '../../../preload/api.ts';
import { findingCounts, healthOf, vmFindings, vmHealth, vmSummary } from '../../../renderer/logic/health.ts';
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

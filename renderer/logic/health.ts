/** How a VM or a repository is, in a dot and a few words, always from findings and never from a guess. */
import type { Finding, RepositoryReport, RestorePoint, Severity, VirtualMachine } from '../../preload/api.ts';
import { plural } from './format.ts';

export type Health = 'good' | 'note' | 'suspicious' | 'damaged';

const RANK: Record<Health, number> = { good: 0, note: 1, suspicious: 2, damaged: 3 };
const worse = (a: Health, b: Health): Health => (RANK[a] >= RANK[b] ? a : b);

export function healthOf(findings: readonly Finding[]): Health {
  return findings.reduce<Health>((worst, finding) => worse(worst, finding.severity), 'good');
}

/** Whether every disk of a point can be opened. */
export const intact = (point: RestorePoint): boolean => point.disks.every((disk) => disk.error === undefined);

export const pointHealth = (point: RestorePoint): Health =>
  worse(intact(point) ? 'good' : 'damaged', healthOf(point.findings));

/** Findings of a VM and of its points, each once, worst first. */
export function vmFindings(vm: VirtualMachine): Finding[] {
  return distinct([...vm.findings, ...vm.points.flatMap((point) => point.findings)]);
}

export function repositoryFindings(report: RepositoryReport): Finding[] {
  return distinct([...report.findings, ...report.vms.flatMap(vmFindings)]);
}

function distinct(findings: readonly Finding[]): Finding[] {
  const known = new Map<string, Finding>();
  for (const finding of findings) {
    const key = JSON.stringify([finding.code, finding.message, finding.source, finding.structure, finding.position]);
    if (!known.has(key)) known.set(key, finding);
  }
  return [...known.values()].sort((a, b) => RANK[b.severity] - RANK[a.severity]);
}

export const vmHealth = (vm: VirtualMachine): Health =>
  vm.points.reduce((worst, point) => worse(worst, pointHealth(point)), healthOf(vm.findings));

/** `2 damaged, 1 suspicious`; undefined without findings. */
export function findingCounts(findings: readonly Finding[]): string | undefined {
  const severities: readonly Severity[] = ['damaged', 'suspicious', 'note'];
  const parts = severities.flatMap((severity) => {
    const n = findings.filter((finding) => finding.severity === severity).length;
    if (n === 0) return [];
    return [severity === 'note' ? plural(n, 'note') : `${n} ${severity}`];
  });
  return parts.length === 0 ? undefined : parts.join(', ');
}

const disksOf = (vm: VirtualMachine) => vm.points.reduce((most, point) => Math.max(most, point.disks.length), 0);

/** The line under a VM's name: what is wrong with it when something is, else what it is. */
export function vmSummary(vm: VirtualMachine): string {
  const whole = vm.points.filter(intact).length;
  if (whole < vm.points.length) {
    return `${whole === 0 ? 'none' : whole} of ${plural(vm.points.length, 'point')} intact`;
  }
  const counts = findingCounts(vmFindings(vm).filter((finding) => finding.severity !== 'note'));
  return [vm.guest, counts ?? plural(disksOf(vm), 'disk'), plural(vm.points.length, 'point')]
    .filter((part) => part !== undefined)
    .join(', ');
}

export const HEALTH_WORDS: Record<Health, string> = {
  good: 'No findings',
  note: 'Notes',
  suspicious: 'Something looks wrong',
  damaged: 'Damaged',
};

/** How a VM or a repository is, in a dot and a few words, always from findings and never from a guess. */
import type { Finding, Orphan, RepositoryReport, RestorePoint, Severity, VirtualMachine } from '../../preload/api.ts';
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

/** Findings of one place: the repository itself, a VM, or one of its points. */
export interface FindingGroup {
  /** What they are about; undefined for the only group there is. */
  readonly title: string | undefined;
  readonly findings: readonly Finding[];
}

/** A VM's own findings, then those of each point; places without any are left out. */
export function vmFindingGroups(vm: VirtualMachine): FindingGroup[] {
  const points = vm.points.map((point) => ({
    title: `${vm.name} at ${point.name}`,
    findings: distinct(point.findings),
  }));
  return [{ title: vm.name, findings: distinct(vm.findings) }, ...points].filter((group) => group.findings.length > 0);
}

export function repositoryFindingGroups(report: RepositoryReport): FindingGroup[] {
  const own = { title: report.name, findings: distinct(report.findings) };
  return [own, ...report.vms.flatMap(vmFindingGroups)].filter((group) => group.findings.length > 0);
}

/** Every finding of a repository. The same words about two points are two findings. */
export const repositoryFindings = (report: RepositoryReport): Finding[] =>
  repositoryFindingGroups(report).flatMap((group) => group.findings);

/** Files that belong to no point and lie in a VM's own folder, when no other VM lies there. */
export function vmOrphans(report: RepositoryReport, vm: VirtualMachine): Orphan[] {
  if (report.vms.some((other) => other !== vm && other.folder === vm.folder)) return [];
  return report.orphans.filter(({ file }) => {
    const slash = file.lastIndexOf('/');
    return (slash < 0 ? '.' : file.slice(0, slash)) === vm.folder;
  });
}

/** The point to fall back to where `id` can't be opened: the nearest before it that can, else the last of all that can. */
export function nearestIntact(points: readonly RestorePoint[], id: string): RestorePoint | undefined {
  const byId = new Map(points.map((point) => [point.id, point]));
  const seen = new Set<string>();
  let at = byId.get(byId.get(id)?.parent ?? '');
  // A hostile history may name a point as its own ancestor.
  while (at !== undefined && !seen.has(at.id)) {
    if (at.disks.length > 0 && intact(at)) return at;
    seen.add(at.id);
    at = byId.get(at.parent ?? '');
  }
  return points.findLast((point) => point.id !== id && point.disks.length > 0 && intact(point));
}

function distinct(findings: readonly Finding[]): Finding[] {
  const known = new Map<string, Finding>();
  for (const finding of findings) {
    const key = JSON.stringify([finding.code, finding.message, finding.source, finding.structure, finding.position]);
    if (!known.has(key)) known.set(key, finding);
  }
  return worstFirst([...known.values()]);
}

export const worstFirst = (findings: readonly Finding[]): Finding[] =>
  [...findings].sort((a, b) => RANK[b.severity] - RANK[a.severity]);

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
export function vmSummary(vm: VirtualMachine, orphans = 0): string {
  const whole = vm.points.filter(intact).length;
  if (whole < vm.points.length) {
    return `${whole === 0 ? 'none' : whole} of ${plural(vm.points.length, 'point')} intact`;
  }
  const counts = findingCounts(vmFindings(vm).filter((finding) => finding.severity !== 'note'));
  const noticed = counts ?? (orphans > 0 ? plural(orphans, 'orphaned file') : undefined);
  return [vm.guest, noticed ?? plural(disksOf(vm), 'disk'), plural(vm.points.length, 'point')]
    .filter((part) => part !== undefined)
    .join(', ');
}

export const HEALTH_WORDS: Record<Health, string> = {
  good: 'No findings',
  note: 'Notes',
  suspicious: 'Something looks wrong',
  damaged: 'Damaged',
};

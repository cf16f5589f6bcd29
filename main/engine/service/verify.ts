/** Verification of a repository, a VM, a point or an image: which chains that means, and one pass over each of them. */
import type { Target, VerifyResult } from '../../../preload/api.ts';
import type { PointDisk, RestorePoint } from '../catalog/model.ts';
import { verifyChain } from '../chain/verify.ts';
import { throwIfCancelled } from '../errors.ts';
import type { Finding } from '../image/image.ts';
import type { Confinement } from '../storage/confinement.ts';
import type { TaskContext } from '../task/task.ts';
import type { Targets } from './targets.ts';

export interface VerifyScope {
  /** As it was asked for. */
  readonly source: string;
  readonly title: string;
  readonly folder: Confinement;
  /** Real paths of the leaves to verify. */
  readonly leaves: readonly string[];
  /** What the catalog found already. */
  readonly findings: readonly Finding[];
}

/**
 * What `verify` covers: one point, or every point of a VM or repository when none is named. A chain that is part of another is
 * verified with it, once. @throws what locating the target throws.
 */
export async function verifyScope(targets: Targets, target: Target): Promise<VerifyScope> {
  const catalog = await targets.scan(target.source);
  const { folder } = catalog;
  const wanted = (disk: PointDisk): boolean => target.disk === undefined || disk.index === target.disk;
  if (catalog.kind === 'image' || target.point !== undefined) {
    const location = await targets.locate(target);
    const vm = catalog.vms.find((candidate) => candidate.name === location.vm);
    const point = vm?.points.find((candidate) => candidate.id === location.point);
    const disks = location.disks.filter((disk) => target.disk === undefined || disk.index === target.disk);
    return {
      source: catalog.source,
      title: `Verify ${location.vm} at ${location.pointName}`,
      folder,
      leaves: [...new Set(disks.map((disk) => disk.path).filter((path) => path !== undefined))],
      findings: point === undefined ? [] : pointFindings(location.vm, point),
    };
  }
  // Locating says, with the choices, that there is no VM of that name.
  if (target.vm !== undefined && !catalog.vms.some((vm) => vm.name === target.vm)) await targets.locate(target);
  const vms = catalog.vms.filter((vm) => target.vm === undefined || vm.name === target.vm);
  const points = vms.flatMap((vm) => vm.points);
  return {
    source: catalog.source,
    title: `Verify ${target.vm ?? catalog.name}`,
    folder,
    leaves: tips(points, wanted),
    findings: [
      ...(target.vm === undefined ? catalog.findings : []),
      ...vms.flatMap((vm) => vm.findings),
      ...vms.flatMap((vm) => vm.points.flatMap((point) => pointFindings(vm.name, point))),
    ],
  };
}

/** What a point has to say, each saying of which point: in a list of many, "this point" says nothing. */
function pointFindings(vm: string, { name, findings }: RestorePoint): Finding[] {
  return findings.map((finding) =>
    finding.source === undefined ? { ...finding, source: `${vm} at ${name}` } : finding,
  );
}

/** The leaves that no other whole chain passes through. */
function tips(points: readonly RestorePoint[], wanted: (disk: PointDisk) => boolean): string[] {
  const disks = points.flatMap((point) => point.disks).filter(wanted);
  const covered = new Set(disks.filter((disk) => disk.error === undefined).flatMap((disk) => disk.chain.slice(1)));
  const paths = disks.filter((disk) => disk.path !== undefined && !covered.has(disk.file)).map((disk) => disk.path!);
  return [...new Set(paths)];
}

/** Verifies every chain of the scope; progress counts chains. @throws CancelledError. */
export async function verifyLeaves(scope: VerifyScope, task: TaskContext): Promise<VerifyResult> {
  const findings: Finding[] = [];
  const seen = new Set<string>();
  const add = (finding: Finding): void => {
    // Chains share layers: what is wrong with one is said once.
    const text = JSON.stringify(finding);
    if (!seen.has(text)) findings.push(finding);
    seen.add(text);
  };
  for (const finding of scope.findings) add(finding);
  task.progress.itemsTotal = scope.leaves.length;
  for (const path of scope.leaves) {
    const onProgress = ({ current }: { current?: string }): void => {
      task.progress.current = current ?? scope.folder.label(path);
      task.report();
    };
    for await (const finding of verifyChain(path, scope.folder, { signal: task.signal, onProgress })) add(finding);
    throwIfCancelled(task.signal, 'The verification');
    task.progress.itemsDone++;
    task.report();
  }
  return { source: scope.source, findings, disksChecked: scope.leaves.length };
}

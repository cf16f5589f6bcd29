/** Verification of a repository, a VM, a point or an image: which chains that means, and one pass over each of them. */
import type { Target, VerifyResult } from '../../../preload/api.ts';
import type { PointDisk, RestorePoint } from '../catalog/model.ts';
import { sourceOf } from '../catalog/source.ts';
import { verifyChain } from '../chain/verify.ts';
import { throwIfCancelled } from '../errors.ts';
import { type Finding, splitSnapshotPath } from '../image/image.ts';
import { verifyPackages } from '../image/ovf/verify-package.ts';
import type { Confinement } from '../storage/confinement.ts';
import type { TaskContext } from '../task/task.ts';
import { ofImage, type Targets } from './targets.ts';

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
  const asked = catalog.kind === 'image' ? ofImage(sourceOf(target.source), target) : target;
  if (catalog.kind === 'image' || asked.point !== undefined) {
    const location = await targets.locate(target);
    const vm = catalog.kind === 'image' ? catalog.vms[0] : catalog.vms.find(({ name }) => name === location.vm);
    const point = vm?.points.find((candidate) => candidate.id === location.point);
    const disks = location.disks.filter((disk) => target.disk === undefined || disk.index === target.disk);
    const leaves = disks.map((disk) => disk.path).filter((path) => path !== undefined);
    // An image that was named without a point is verified with the snapshots inside it.
    const whole = asked.point !== undefined ? [] : (vm?.points ?? []).filter((one) => isInside(one, leaves[0]));
    return {
      source: catalog.source,
      title: `Verify ${location.vm} at ${location.pointName}`,
      folder,
      leaves: [...new Set([...leaves, ...whole.map(({ disks: [disk] }) => disk!.path!)])],
      findings: [...(point === undefined ? [] : [point]), ...whole].flatMap((one) => pointFindings(location.vm, one)),
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

/** True for a point that is a snapshot inside the image. */
function isInside({ disks }: RestorePoint, image: string | undefined): boolean {
  const path = disks[0]?.path;
  return path !== undefined && image !== undefined && splitSnapshotPath(path)?.image === image;
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
  /** Chains share layers: what is wrong with one is said once. */
  const found = new Map<string, Finding>();
  const add = (finding: Finding): void => void found.set(JSON.stringify(finding), finding);
  task.progress.itemsTotal = scope.leaves.length;
  const onFile = (name: string): void => {
    task.progress.current = name;
    task.report();
  };
  for await (const finding of verifyPackages(scope.leaves, scope.folder, { signal: task.signal, onFile })) add(finding);
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
  const checked = new Set([...found.values()].map(placeOf));
  // What the catalog met is said in full by the check that looked for it.
  const known = scope.findings.filter((finding) => finding.position === undefined || !checked.has(placeOf(finding)));
  const all = new Map([...known.map((one) => [JSON.stringify(one), one] as const), ...found]);
  return { source: scope.source, findings: [...all.values()], disksChecked: scope.leaves.length };
}

/** Where a finding is: two at one place are of one thing. */
function placeOf({ severity, source, structure, position }: Finding): string {
  return JSON.stringify([severity, source, structure, position]);
}

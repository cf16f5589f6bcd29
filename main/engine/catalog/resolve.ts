/** From what somebody named (a VM, a point, a disk) to the one that is meant. Where that is not clear, the error lists what there is. */
import { NotFoundError, UsageError } from '../errors.ts';
import type { Catalog, PointDisk, RestorePoint, VirtualMachine } from './model.ts';

/** Choices listed in an error at most. */
const MAX_CHOICES = 100;

export interface Wanted {
  readonly vm?: string | undefined;
  /** A point's id or its name. */
  readonly point?: string | undefined;
}

export interface Resolved {
  readonly vm: VirtualMachine;
  readonly point: RestorePoint;
}

/**
 * The point that is meant. A repository with one VM needs no `vm`, a VM with one point no `point`, and an image opened by itself
 * neither: then it is that image. @throws UsageError when a name is needed or fits several, NotFoundError when none fits.
 */
export function resolvePoint(catalog: Catalog, wanted: Wanted): Resolved {
  const vm = resolveVm(catalog, wanted.vm);
  return { vm, point: pointOf(catalog, vm, wanted.point) };
}

/** The VM that is meant. @throws UsageError, NotFoundError. */
export function resolveVm(catalog: Catalog, name: string | undefined): VirtualMachine {
  const choices = limited(catalog.vms.map((vm) => vm.name));
  const [first] = catalog.vms;
  if (first === undefined) {
    throw new NotFoundError(`A virtual machine or disk image in ${catalog.source}`, { source: catalog.source });
  }
  if (name === undefined) {
    if (catalog.vms.length > 1)
      throw new UsageError('There are several VMs here, and none is named', { choices, missing: 'vm' });
    return first;
  }
  const exact = catalog.vms.find((vm) => vm.name === name);
  if (exact !== undefined) return exact;
  const folded = catalog.vms.filter((vm) => vm.name.toLowerCase() === name.toLowerCase());
  if (folded.length === 1) return folded[0]!;
  throw new NotFoundError(`VM "${name}"`, { vm: name, choices });
}

function pointOf(catalog: Catalog, vm: VirtualMachine, wanted: string | undefined): RestorePoint {
  const choices = limited(vm.points.map(choiceOf));
  const [first] = vm.points;
  if (first === undefined) throw new NotFoundError(`A point of VM "${vm.name}"`, { vm: vm.name });
  if (wanted === undefined) {
    if (vm.points.length === 1) return first;
    const opened = catalog.kind === 'image' ? vm.points.find((point) => point.current) : undefined;
    if (opened !== undefined) return opened;
    throw new UsageError(`VM "${vm.name}" has several points, and none is named`, {
      vm: vm.name,
      choices,
      missing: 'point',
    });
  }
  const byId = vm.points.find((point) => point.id === wanted);
  if (byId !== undefined) return byId;
  const byName = vm.points.filter((point) => point.name === wanted);
  if (byName.length > 1) {
    throw new UsageError(`Several points of VM "${vm.name}" are called "${wanted}"; name one by its id`, {
      vm: vm.name,
      point: wanted,
      choices: limited(byName.map(choiceOf)),
    });
  }
  if (byName[0] !== undefined) return byName[0];
  throw new NotFoundError(`Point "${wanted}" of VM "${vm.name}"`, { vm: vm.name, point: wanted, choices });
}

/**
 * The disk that is meant; a point with one disk needs no index. @throws UsageError when one is needed, NotFoundError.
 */
export function resolveDisk(point: RestorePoint, index: number | undefined): PointDisk {
  const choices = limited(
    point.disks.map((disk) => `${disk.index} (${disk.node === undefined ? '' : `${disk.node} `}${disk.file})`),
  );
  const [first] = point.disks;
  if (first === undefined) throw new NotFoundError(`A disk of point "${point.name}"`, { point: point.id });
  if (index === undefined) {
    if (point.disks.length > 1) {
      throw new UsageError(`Point "${point.name}" has several disks, and none is named`, { choices, missing: 'disk' });
    }
    return first;
  }
  const disk = point.disks.find((candidate) => candidate.index === index);
  if (disk === undefined) throw new NotFoundError(`Disk ${index} of point "${point.name}"`, { disk: index, choices });
  return disk;
}

function choiceOf(point: RestorePoint): string {
  return `${point.id} (${point.name})`;
}

function limited(choices: readonly string[]): string[] {
  return choices.length <= MAX_CHOICES
    ? [...choices]
    : [...choices.slice(0, MAX_CHOICES), `and ${choices.length - MAX_CHOICES} more`];
}

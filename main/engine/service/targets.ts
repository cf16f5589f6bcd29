/**
 * From what a user names (a folder, a VM, a point) to where its disks are. Catalogs are kept, so that looking at one point after
 * the other reads a folder once; `scan` reads it anew.
 */
import { statSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import type { RestorePoint, Target } from '../../../preload/api.ts';
import type { ScanOptions } from '../catalog/catalog.ts';
import type { Catalog } from '../catalog/model.ts';
import { IoError, NotFoundError, UsageError } from '../errors.ts';
import { Confinement } from '../storage/confinement.ts';
import type { AssessOptions } from './consistency.ts';
import type { LocatedParents } from './located.ts';
import type { PointLocation } from './open-point.ts';

const KEEP_CATALOGS = 16;

export class Targets {
  readonly #catalogs = new Map<string, Promise<Catalog>>();
  readonly #assessed = new WeakMap<Catalog, Promise<Catalog>>();
  readonly #synchronous: boolean;
  readonly #located: LocatedParents;

  constructor(synchronous: boolean, located: LocatedParents) {
    this.#synchronous = synchronous;
    this.#located = located;
  }

  /** The catalog of this source has to be read anew. */
  forget(source: string): void {
    this.#catalogs.delete(resolve(source));
  }

  /**
   * Reads a repository anew. Until it has been read, the catalog before it stays the one that is used; where that was cancelled
   * or failed, too. @throws IoError and the like when the source itself can't be read, CancelledError.
   */
  async scan(source: string, options: Pick<ScanOptions, 'signal' | 'onImage'> = {}): Promise<Catalog> {
    const path = resolve(source);
    const { scanRepository } = await import('../catalog/catalog.ts');
    const located = await this.#located.of(path);
    const catalog = await scanRepository(path, { synchronous: this.#synchronous, located, ...options });
    this.#keep(path, Promise.resolve(catalog));
    return catalog;
  }

  #keep(path: string, catalog: Promise<Catalog>): void {
    this.#catalogs.delete(path);
    this.#catalogs.set(path, catalog);
    if (this.#catalogs.size > KEEP_CATALOGS) this.#catalogs.delete(this.#catalogs.keys().next().value!);
  }

  /** The catalog as it was last read, or read now: once for all who ask meanwhile. */
  catalog(source: string): Promise<Catalog> {
    const path = resolve(source);
    const known = this.#catalogs.get(path);
    if (known !== undefined) return known;
    const catalog = this.scan(path);
    this.#keep(path, catalog);
    catalog.catch(() => {
      if (this.#catalogs.get(path) === catalog) this.#catalogs.delete(path);
    });
    return catalog;
  }

  /**
   * The catalog with the consistency of its points as their volumes show it: looked at once for each catalog, and not at all for
   * whom it does not matter. @throws CancelledError.
   */
  async assessed(catalog: Catalog, options: Pick<AssessOptions, 'signal' | 'onPoint'> = {}): Promise<Catalog> {
    let assessed = this.#assessed.get(catalog);
    if (assessed === undefined) {
      const { assessConsistency } = await import('./consistency.ts');
      assessed = assessConsistency(catalog, { synchronous: this.#synchronous, ...options });
      this.#assessed.set(catalog, assessed);
      assessed.catch(() => this.#assessed.delete(catalog));
    }
    return assessed;
  }

  /**
   * Where the target's disks are. An image file named directly is its own leaf and needs no scan of its folder.
   * @throws UsageError with the choices where a VM or point is needed and missing, NotFoundError where it is not there.
   */
  async locate(target: Target): Promise<PointLocation> {
    const source = resolve(target.source);
    if (isFile(source)) return this.#imageLocation(source, target);
    const { resolvePoint } = await import('../catalog/resolve.ts');
    const { vm, point } = resolvePoint(await this.catalog(source), target);
    return {
      source,
      vm: vm.name,
      point: point.id,
      pointName: point.name,
      folder: (await this.catalog(source)).folder,
      disks: point.disks.map(({ index, file, path }) => ({ index, file, path })),
    };
  }

  async #imageLocation(source: string, target: Target): Promise<PointLocation> {
    const name = basename(source);
    if (target.vm !== undefined && target.vm !== name)
      throw new NotFoundError(`VM "${target.vm}"`, { choices: [name] });
    if (target.point !== undefined && target.point !== name) {
      throw new NotFoundError(`Point "${target.point}"`, { choices: [name] });
    }
    const located = await this.#located.of(source);
    const folder = new Confinement(dirname(source), { synchronous: this.#synchronous, located });
    return { source, vm: name, point: name, pointName: name, folder, disks: [{ index: 0, file: name, path: source }] };
  }

  /** All points of the target's VM, for what looks along its history; only this one for an image file. */
  async history(location: PointLocation): Promise<readonly RestorePoint[]> {
    if (isFile(location.source)) return [];
    const catalog = await this.catalog(location.source);
    return catalog.vms.find((vm) => vm.name === location.vm)?.points ?? [];
  }
}

/** The disk a target means: the one it names, or the only one. @throws UsageError with the choices. */
export function diskIndex(location: PointLocation, target: Target): number {
  const choices = location.disks.map((disk) => String(disk.index));
  if (target.disk !== undefined) {
    if (!location.disks.some((disk) => disk.index === target.disk)) {
      throw new NotFoundError(`Disk ${target.disk} of ${location.vm}`, { choices });
    }
    return target.disk;
  }
  if (location.disks.length === 1) return location.disks[0]!.index;
  if (location.disks.length === 0) throw new NotFoundError(`A disk of ${location.vm} at ${location.pointName}`);
  throw new UsageError(`${location.vm} has ${location.disks.length} disks; say which`, { option: 'disk', choices });
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch (error) {
    throw new IoError(`${path} cannot be opened`, { source: path }, error);
  }
}

/**
 * From what a user names (a folder, a VM, a point) to where its disks are. Catalogs are kept, so that looking at one point after
 * the other reads a folder once; `scan` reads it anew.
 */
import { basename, resolve } from 'node:path';
import type { RestorePoint, Target } from '../../../preload/api.ts';
import type { ScanOptions } from '../catalog/catalog.ts';
import type { Catalog } from '../catalog/model.ts';
import { enterSource, type SourcePlace, sourceOf } from '../catalog/source.ts';
import { NotFoundError, UsageError } from '../errors.ts';
import { Confinement } from '../storage/confinement.ts';
import type { AssessOptions } from './consistency.ts';
import type { LocatedParents } from './located.ts';
import { OpenFolders } from './open-folders.ts';
import type { PointLocation } from './open-point.ts';

const KEEP_CATALOGS = 16;

export class Targets {
  readonly #catalogs = new Map<string, Promise<Catalog>>();
  /** What confines images that were opened by themselves. */
  readonly #images = new Map<string, Confinement>();
  readonly #assessed = new WeakMap<Catalog, Promise<Catalog>>();
  readonly #synchronous: boolean;
  readonly #located: LocatedParents;
  readonly #cache: { readonly cacheFolder?: string };
  /** Folders of catalogs and images: who reads from one for longer than a call holds it. */
  readonly folders: OpenFolders;

  /** @param cacheFolder where indexes of compressed archives are kept; see `ConfinementOptions.cacheFolder`. */
  constructor(synchronous: boolean, located: LocatedParents, cacheFolder?: string, folders = new OpenFolders()) {
    this.folders = folders;
    this.#synchronous = synchronous;
    this.#located = located;
    this.#cache = cacheFolder === undefined ? {} : { cacheFolder };
  }

  /** The catalog of this source has to be read anew. */
  forget(source: string): void {
    const path = this.#known(source);
    this.#letGo(path, this.#catalogs.get(path));
    this.#catalogs.delete(path);
    this.#forgetImage(path);
  }

  /** The source as catalogs are kept by it; those that are kept stay, whatever became of their files. */
  #known(source: string): string {
    const path = resolve(source);
    return this.#catalogs.has(path) || this.#images.has(path) ? path : sourceOf(source).source;
  }

  #forgetImage(path: string): void {
    const folder = this.#images.get(path);
    this.#images.delete(path);
    if (folder !== undefined) this.folders.retire(folder);
  }

  /**
   * Reads a repository anew. Until it has been read, the catalog before it stays the one that is used; where that was cancelled
   * or failed, too. @throws IoError and the like when the source itself can't be read, CancelledError.
   */
  async scan(source: string, options: Pick<ScanOptions, 'signal' | 'onImage'> = {}): Promise<Catalog> {
    const { source: path } = sourceOf(source);
    const { scanRepository } = await import('../catalog/catalog.ts');
    const located = await this.#located.of(path);
    const catalog = await scanRepository(path, { synchronous: this.#synchronous, located, ...this.#cache, ...options });
    this.#forgetImage(path);
    this.#keep(path, Promise.resolve(catalog));
    return catalog;
  }

  #keep(path: string, catalog: Promise<Catalog>): void {
    this.#letGo(path, this.#catalogs.get(path));
    this.#catalogs.delete(path);
    this.#catalogs.set(path, catalog);
    if (this.#catalogs.size <= KEEP_CATALOGS) return;
    const [oldest, its] = this.#catalogs.entries().next().value!;
    this.#catalogs.delete(oldest);
    this.#letGo(oldest, its);
  }

  /** Takes the folder of a catalog out of use, unless the catalog that took its place is the same one. */
  #letGo(path: string, catalog: Promise<Catalog> | undefined): void {
    if (catalog === undefined) return;
    const gone = async (): Promise<void> => {
      const { folder } = await catalog;
      if ((await this.#catalogs.get(path))?.folder !== folder) this.folders.retire(folder);
    };
    // Who asked for the one or the other has heard of its failure.
    gone().catch(() => undefined);
  }

  /** The catalog as it was last read, or read now: once for all who ask meanwhile. */
  catalog(source: string): Promise<Catalog> {
    const path = this.#known(source);
    const known = this.#catalogs.get(path);
    if (known !== undefined) return known;
    const catalog = this.scan(path);
    this.#keep(path, catalog);
    catalog.catch(() => {
      if (this.#catalogs.get(path) === catalog) this.#catalogs.delete(path);
    });
    return catalog;
  }

  /** Closes what no point stands on any more; the others close with their points. */
  async close(): Promise<void> {
    const catalogs = [...this.#catalogs.values()];
    this.#catalogs.clear();
    for (const folder of this.#images.values()) this.folders.retire(folder);
    this.#images.clear();
    for (const result of await Promise.allSettled(catalogs)) {
      if (result.status === 'fulfilled') this.folders.retire(result.value.folder);
    }
  }

  /**
   * The catalog with the consistency of its points as their volumes show it: looked at once for each catalog, and not at all for
   * whom it does not matter. @throws CancelledError.
   */
  async assessed(catalog: Catalog, options: Pick<AssessOptions, 'signal' | 'onPoint'> = {}): Promise<Catalog> {
    let assessed = this.#assessed.get(catalog);
    if (assessed === undefined) {
      assessed = this.#assess(catalog, options);
      this.#assessed.set(catalog, assessed);
      assessed.catch(() => this.#assessed.delete(catalog));
    }
    return assessed;
  }

  async #assess(catalog: Catalog, options: Pick<AssessOptions, 'signal' | 'onPoint'>): Promise<Catalog> {
    const release = this.folders.hold(catalog.folder);
    try {
      const { assessConsistency } = await import('./consistency.ts');
      return await assessConsistency(catalog, { synchronous: this.#synchronous, ...options });
    } finally {
      release();
    }
  }

  /**
   * Where the target's disks are. An image named directly is its own leaf and needs no scan of its folder; a snapshot inside it, and
   * the layers under it, are points of it that may be named.
   * @throws UsageError with the choices where a VM or point is needed and missing, NotFoundError where it is not there.
   */
  async locate(target: Target): Promise<PointLocation> {
    const place = sourceOf(target.source);
    const wanted = place.kind === 'image' ? ofImage(place, target) : target;
    if (place.kind === 'image' && wanted.vm === undefined && wanted.point === undefined) return this.#image(place);
    const { resolvePoint } = await import('../catalog/resolve.ts');
    const catalog = await this.catalog(place.source);
    const { vm, point } = resolvePoint(catalog, wanted);
    return {
      source: place.source,
      vm: vm.name,
      point: point.id,
      pointName: point.name,
      folder: catalog.folder,
      disks: point.disks.map(({ index, file, path }) => ({ index, file, path })),
    };
  }

  async #image(place: SourcePlace): Promise<PointLocation> {
    const { source, root } = place;
    const located = await this.#located.of(source);
    let folder = this.#images.get(source);
    if (folder !== undefined && !sameEntries(folder.options.located, located)) {
      // A parent was pointed at, or forgotten, by way of the image's folder.
      this.#forgetImage(source);
      folder = undefined;
    }
    if (folder === undefined) {
      folder = new Confinement(root, { synchronous: this.#synchronous, located, ...this.#cache });
      this.#images.set(source, folder);
      const [oldest] = this.#images.keys();
      if (this.#images.size > KEEP_CATALOGS) this.#forgetImage(oldest!);
    }
    const path = await enterSource(place, folder);
    const name = basename(path);
    return { source, vm: name, point: name, pointName: name, folder, disks: [{ index: 0, file: name, path }] };
  }

  /** All points of the target's VM, for what looks along its history. */
  async history(location: PointLocation): Promise<readonly RestorePoint[]> {
    const catalog = await this.catalog(location.source);
    const vm = catalog.kind === 'image' ? catalog.vms[0] : catalog.vms.find((one) => one.name === location.vm);
    return vm?.points ?? [];
  }
}

function sameEntries(a: ReadonlyMap<string, string> | undefined, b: ReadonlyMap<string, string>): boolean {
  return (a?.size ?? 0) === b.size && [...b].every(([key, value]) => a?.get(key) === value);
}

/** What is asked of an image opened by itself: nothing where that is the image, by the name of its file. */
export function ofImage({ path, snapshot }: SourcePlace, { vm, point }: Target): { vm?: string; point?: string } {
  const name = basename(path);
  const wanted = point ?? snapshot;
  return {
    ...(vm === undefined || vm === name ? {} : { vm }),
    ...(wanted === undefined || wanted === name ? {} : { point: wanted }),
  };
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

/**
 * One point of a VM, opened as far as it is needed: disks when they are read, volumes when they are asked for, file systems when
 * they are browsed. Whatever fails is remembered as the error it was, for this part alone.
 */
import type { Disk } from '../chain/disk.ts';
import { openChain } from '../chain/open.ts';
import { ChainliftError, NotFoundError } from '../errors.ts';
import type { FileSystem } from '../filesystem/file-system.ts';
import { openFileSystem } from '../filesystem/file-systems.ts';
import type { Confinement } from '../storage/confinement.ts';
import type { Volume, VolumeSet } from '../volume/volume.ts';
import { openVolumes } from '../volume/volumes.ts';

/** Where a point's disks are. */
export interface PointLocation {
  readonly source: string;
  readonly vm: string;
  readonly point: string;
  readonly pointName: string;
  readonly folder: Confinement;
  readonly disks: readonly LocatedDisk[];
}

export interface LocatedDisk {
  readonly index: number;
  /** Leaf image as the catalog names it, relative to the repository. */
  readonly file: string;
  /** Its real path; undefined when there is no such file. */
  readonly path: string | undefined;
}

/** Ceiling of the map cache of a disk that is browsed, in bytes. */
const BROWSE_MAP_BYTES = 32 << 20;

export class OpenPoint {
  readonly location: PointLocation;
  readonly #synchronous: boolean;
  readonly #disks = new Map<number, Promise<Disk>>();
  readonly #fileSystems = new Map<string, Promise<FileSystem>>();
  #volumes: Promise<PointVolumes> | undefined;

  constructor(location: PointLocation, synchronous: boolean) {
    this.location = location;
    this.#synchronous = synchronous;
  }

  /** The disk at `index`, its chain opened and checked. @throws NotFoundError and what opening the chain throws. */
  disk(index: number): Promise<Disk> {
    let disk = this.#disks.get(index);
    if (disk === undefined) {
      disk = this.#openDisk(index);
      // A failure is not kept: the user may put the missing file back and try again.
      disk.catch(() => this.#disks.delete(index));
      this.#disks.set(index, disk);
    }
    return disk;
  }

  async #openDisk(index: number): Promise<Disk> {
    const located = this.location.disks.find((disk) => disk.index === index);
    if (located === undefined) {
      throw new NotFoundError(`Disk ${index} of ${this.location.vm}`, {
        choices: this.location.disks.map((disk) => String(disk.index)),
      });
    }
    if (located.path === undefined)
      throw new NotFoundError(`The image "${located.file}" of disk ${index}`, { file: located.file });
    return openChain(located.path, this.location.folder, {
      name: `disk ${index} of ${this.location.vm}`,
      synchronous: this.#synchronous,
      mapCacheBytes: BROWSE_MAP_BYTES,
    });
  }

  /** The volumes of all disks that open, with the errors of those that do not. */
  volumes(): Promise<PointVolumes> {
    if (this.#volumes === undefined) {
      this.#volumes = this.#openVolumes();
      this.#volumes.catch(() => {
        this.#volumes = undefined;
      });
    }
    return this.#volumes;
  }

  async #openVolumes(): Promise<PointVolumes> {
    const open: { index: number; source: Disk }[] = [];
    const errors: { disk: number; error: ChainliftError }[] = [];
    for (const { index } of this.location.disks) {
      try {
        open.push({ index, source: await this.disk(index) });
      } catch (error) {
        if (!(error instanceof ChainliftError)) throw error;
        errors.push({ disk: index, error });
      }
    }
    // One disk, and it can't be opened: that is the answer, not an empty list.
    if (open.length === 0 && errors.length > 0) throw errors[0]!.error;
    return { ...(await openVolumes(open)), errors };
  }

  /** @throws NotFoundError with the volumes there are. */
  async volume(name: string): Promise<Volume> {
    const { volumes } = await this.volumes();
    const volume = volumes.find((candidate) => candidate.name === name);
    if (volume === undefined) {
      throw new NotFoundError(`Volume "${name}"`, { choices: volumes.map((candidate) => candidate.name) });
    }
    return volume;
  }

  /** The file system on a volume. @throws NotFoundError, UnsupportedError, CorruptError. */
  fileSystem(volumeName: string): Promise<FileSystem> {
    let fileSystem = this.#fileSystems.get(volumeName);
    if (fileSystem === undefined) {
      fileSystem = this.volume(volumeName).then(openFileSystem);
      fileSystem.catch(() => this.#fileSystems.delete(volumeName));
      this.#fileSystems.set(volumeName, fileSystem);
    }
    return fileSystem;
  }

  async close(): Promise<void> {
    const opened: Promise<{ close(): Promise<void> }>[] = [...this.#fileSystems.values(), ...this.#disks.values()];
    this.#fileSystems.clear();
    this.#disks.clear();
    this.#volumes = undefined;
    // Each is closed, whatever closing another one says; the first complaint is thrown on then.
    const closed = await Promise.allSettled(opened.map(async (one) => (await settledValue(one))?.close()));
    for (const result of closed) if (result.status === 'rejected') throw result.reason;
  }
}

/** What a promise was fulfilled with; undefined when it was rejected, which its own caller has heard of. */
async function settledValue<T>(promise: Promise<T>): Promise<T | undefined> {
  const [result] = await Promise.allSettled([promise]);
  return result.status === 'fulfilled' ? result.value : undefined;
}

export interface PointVolumes extends VolumeSet {
  readonly errors: readonly { readonly disk: number; readonly error: ChainliftError }[];
}

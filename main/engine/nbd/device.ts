/**
 * What the server serves: a device of a fixed size whose reads do not leave the thread. A Disk is one; so is any local file.
 *
 * Descriptions are plain data, because each data worker opens its own device from one.
 */
import type { Disk } from '../chain/disk.ts';
import { openChain } from '../chain/open.ts';
import { Confinement } from '../storage/confinement.ts';
import { LocalFile } from '../storage/local-file.ts';

/** A stretch of a device for block status. A hole occupies no storage; everything this engine calls a hole reads as zeros. */
export interface Extent {
  length: number;
  readonly zero: boolean;
}

export interface NbdDevice {
  /** Bytes. */
  readonly size: number;
  /** True when `extents` has more to say than "all data": only then are large reads split into data and holes. */
  readonly sparse: boolean;
  /** Fills `target` from `offset`; the range lies inside the device. @throws IoError, CorruptError. */
  readIntoSync(target: Uint8Array, offset: number): void;
  /**
   * Extents that cover the range from its start on, neighbours differing; at most `limit`, so perhaps not to its end.
   * @throws IoError, CorruptError when not even the first can be told.
   */
  extents(offset: number, length: number, limit: number): Extent[];
  close(): Promise<void>;
}

/** How a data worker opens a device. */
export type DeviceDescription =
  /** The chain under the image at `path`, its parents looked for inside the folder `root`. */
  | {
      readonly kind: 'chain';
      readonly path: string;
      readonly root: string;
      /** Parents that the user pointed at, as `ConfinementOptions.located` has them. */
      readonly located?: ReadonlyMap<string, string>;
      /** Where indexes of compressed archives are kept, as `ConfinementOptions.cacheFolder` has it. */
      readonly cacheFolder?: string;
      readonly mapCacheBytes?: number;
    }
  /** One local file, byte for byte. */
  | { readonly kind: 'file'; readonly path: string };

/** Opens a device on this thread. @throws what opening the chain or the file throws. */
export async function openDevice(description: DeviceDescription): Promise<NbdDevice> {
  if (description.kind === 'file') return new FileDevice(LocalFile.open(description.path, { synchronous: true }));
  const { mapCacheBytes, located, cacheFolder } = description;
  const folder = new Confinement(description.root, {
    synchronous: true,
    ...(located === undefined ? {} : { located }),
    ...(cacheFolder === undefined ? {} : { cacheFolder }),
  });
  const disk = await openChain(description.path, folder, {
    synchronous: true,
    ...(mapCacheBytes === undefined ? {} : { mapCacheBytes }),
  });
  return new DiskDevice(disk);
}

class FileDevice implements NbdDevice {
  readonly size: number;
  readonly sparse = false;
  readonly readIntoSync: (target: Uint8Array, offset: number) => void;
  readonly #file: LocalFile;

  constructor(file: LocalFile) {
    this.#file = file;
    this.size = file.size;
    this.readIntoSync = file.readIntoSync;
  }
  extents(_offset: number, length: number): Extent[] {
    return [{ length, zero: false }];
  }
  close(): Promise<void> {
    return this.#file.close();
  }
}

/** How much of a map is looked at in one step: bounds what one request holds in memory. Equals the map's region. */
const WINDOW = 32 << 20;

/** A disk as a device: runs become extents, whichever layer they come from. */
export class DiskDevice implements NbdDevice {
  readonly size: number;
  readonly sparse: boolean;
  readonly readIntoSync: (target: Uint8Array, offset: number) => void;
  readonly #disk: Disk;

  /** @param disk closed with the device. */
  constructor(disk: Disk) {
    this.#disk = disk;
    this.size = disk.size;
    this.readIntoSync = disk.readIntoSync;
    // A single raw layer is data from end to end; asking its map for every large read would only cost.
    this.sparse = !(disk.layers.length === 1 && disk.layers[0]?.format === 'raw');
  }

  extents(offset: number, length: number, limit: number): Extent[] {
    const out: Extent[] = [];
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const stop = Math.min(end, (Math.floor(at / WINDOW) + 1) * WINDOW);
      let runs: ReturnType<Disk['runsSync']>;
      try {
        runs = this.#disk.runsSync(at, stop - at);
      } catch (error) {
        // What is known is said; the client asks again from there and is then told what is wrong.
        if (out.length > 0) return out;
        throw error;
      }
      for (const run of runs) {
        const zero = run.kind === 'zero';
        const last = out.at(-1);
        if (last !== undefined && last.zero === zero) last.length += run.length;
        else if (out.length === limit) return out;
        else out.push({ length: run.length, zero });
      }
      at = stop;
    }
    return out;
  }

  close(): Promise<void> {
    return this.#disk.close();
  }
}

/** Points whose volumes are file systems in memory. */
import type { Disk } from '../../../main/engine/chain/disk.ts';
import { type ChainliftError, NotFoundError } from '../../../main/engine/errors.ts';
import type { FileSystem } from '../../../main/engine/filesystem/file-system.ts';
import type { OpenPoint } from '../../../main/engine/service/open-point.ts';
import type { Volume } from '../../../main/engine/volume/volume.ts';

export interface FakeVolume {
  readonly name: string;
  readonly disk?: number;
  readonly size?: number;
  /** What is on it, or why that can't be read. */
  readonly content: FileSystem | ChainliftError;
}

/** As much of an OpenPoint as listing asks for. */
export function fakePoint(volumes: readonly FakeVolume[], disk?: Disk): OpenPoint {
  const point = {
    volumes: async () => ({
      volumes: volumes.map(({ name, disk: index, size }) => ({ name, disk: index ?? 0, size: size ?? 1 << 30 })),
      warnings: [],
      errors: [],
    }),
    volume: async (name: string) => ({ name }) as Volume,
    fileSystem: async (name: string) => {
      const volume = volumes.find((candidate) => candidate.name === name);
      if (volume === undefined) throw new NotFoundError(`Volume "${name}"`, { choices: volumes.map((v) => v.name) });
      if (volume.content instanceof Error) throw volume.content;
      return volume.content;
    },
    disk: async () => disk,
  };
  return point as unknown as OpenPoint;
}

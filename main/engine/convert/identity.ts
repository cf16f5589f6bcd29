/** What tells one state of a disk from another without reading it: the files of its chain, their sizes and times. */
import type { Stats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { IoError } from '../errors.ts';
import type { DiskSource, OpenedDisk } from './messages.ts';

export interface SourceIdentity {
  readonly path: string;
  readonly size: number;
  readonly files: readonly {
    readonly path: string;
    readonly size: number;
    /** Modification time of the file (of the archive it is in), in milliseconds. */
    readonly modified: number;
  }[];
}

/** @throws IoError when a file of the chain can't be looked at any more. */
export async function sourceIdentity(source: DiskSource, disk: OpenedDisk): Promise<SourceIdentity> {
  const files = await Promise.all(
    disk.files.map(async ({ path, size }) => ({ path, size, modified: (await fileOf(path)).mtimeMs })),
  );
  return { path: source.path, size: disk.size, files };
}

/** The file at `path`, or the archive or image that the path leads into. */
export async function fileOf(path: string): Promise<Stats> {
  for (let at = path; ; at = dirname(at)) {
    try {
      return await stat(at);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if ((code === 'ENOTDIR' || code === 'ENOENT') && dirname(at) !== at) continue;
      throw new IoError(`${path} cannot be looked at`, { source: path }, error);
    }
  }
}

export function sameIdentity(a: SourceIdentity, b: SourceIdentity): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

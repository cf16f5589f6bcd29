/** Whether a new image will find room. */
import { statfs } from 'node:fs/promises';
import { IoError } from '../errors.ts';
import type { OpenedDisk } from './messages.ts';
import type { Plan } from './plan.ts';

/** Units of layers up to this are taken for full: larger ones, and layers without holes, may hold zeros, which take no room. */
const FULL_UNIT = 64 << 10;

/**
 * Bytes that the new image takes at least, as far as the map tells: what small units hold that a layer stored by need. What is
 * zeros inside of that takes no room, but there is seldom any.
 * @param layers bytes that each layer answers for.
 */
export function forecast(plan: Plan, disk: OpenedDisk, layers: readonly number[]): number {
  // How far data shrinks when it is compressed can't be told.
  if (plan.layout.kind === 'stream') return 0;
  let bytes = 0;
  for (const [i, held] of layers.entries()) {
    const { granularity, virtualSize } = disk.layers[i]!;
    if (granularity <= FULL_UNIT && held < virtualSize) bytes += held;
  }
  return bytes;
}

/**
 * @param needed bytes. @param there bytes that an interrupted run has written already.
 * @throws IoError with the code ENOSPC when the file system at `folder` has less room. Where it can't say, it is found out in writing.
 */
export async function checkSpace(folder: string, needed: number, there: number): Promise<void> {
  let free: number;
  try {
    const { bavail, bsize } = await statfs(folder);
    free = bavail * bsize;
  } catch (error) {
    throw new IoError(`The free space of ${folder} cannot be told`, { destination: folder }, error);
  }
  const more = needed - there;
  if (more <= free) return;
  throw new IoError(
    `There is not enough room in ${folder}: the image needs about ${more} bytes more, and ${free} are free`,
    {
      destination: folder,
      code: 'ENOSPC',
      needed: more,
      free,
    },
  );
}

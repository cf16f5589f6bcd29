/** Opens images that a test wrote, and says what became of it. */
import { ChainliftError, type WireError } from '../../main/engine/errors.ts';
import { openLayer } from '../../main/engine/image/formats.ts';
import type { ImageLayer } from '../../main/engine/image/image.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';

/** The layer that `name` in `folder` is, open for as long as `body` runs. */
export async function withLayer<T>(
  folder: string,
  name: string,
  body: (layer: ImageLayer) => Promise<T>,
  synchronous = false,
): Promise<T> {
  const layer = await openLayer(name, new Confinement(folder, { synchronous }));
  try {
    return await body(layer);
  } finally {
    await layer.close();
  }
}

/** The error of our families in which `body` ends, as it would cross a process. Any other is thrown on. */
export async function wireOf(body: Promise<unknown>): Promise<WireError> {
  try {
    await body;
  } catch (error) {
    if (error instanceof ChainliftError) return error.toWire();
    throw error;
  }
  throw new Error('nothing was thrown');
}

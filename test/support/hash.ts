/** SHA-256, lower-case hex, of what images read as: a few MiB at a time. */
import { createHash } from 'node:crypto';
import { openChain } from '../../main/engine/chain/open.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';
import { readLayer } from '../conformance/image-layer.ts';
import { withLayer } from './open-layer.ts';

const STEP = 8 << 20;

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Of one layer, with zeros for what it does not hold. */
export function hashLayer(path: string, folder: string): Promise<string> {
  return withLayer(folder, path, async (layer) => {
    const hash = createHash('sha256');
    for (let at = 0; at < layer.virtualSize; at += STEP) {
      hash.update(await readLayer(layer, at, Math.min(STEP, layer.virtualSize - at)));
    }
    return hash.digest('hex');
  });
}

/** Of the disk at the end of a chain. */
export async function hashChain(leaf: string, folder: string): Promise<string> {
  const disk = await openChain(leaf, new Confinement(folder));
  const hash = createHash('sha256');
  try {
    for (let at = 0; at < disk.size; at += STEP) hash.update(await disk.read(at, Math.min(STEP, disk.size - at)));
  } finally {
    await disk.close();
  }
  return hash.digest('hex');
}

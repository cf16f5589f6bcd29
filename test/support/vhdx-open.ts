/** Opens images of the VHDX builder and says what became of it. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Finding, ImageLayer } from '../../main/engine/image/image.ts';
import { findings } from '../conformance/image-layer.ts';
import { withLayer } from './open-layer.ts';
import type { VhdxImage } from './vhdx-builder.ts';

/** Writes the image into a folder of its own below `scratch`, opens it and closes it after `body`. */
export function withVhdx<T>(
  scratch: string,
  image: Pick<VhdxImage, 'bytes'>,
  body: (layer: ImageLayer) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(scratch, 'vhdx-'));
  writeFileSync(join(folder, 'disk.vhdx'), image.bytes);
  return withLayer(folder, 'disk.vhdx', body);
}

/** Codes of the findings besides notes. */
export function codesOf(all: readonly Finding[]): string[] {
  return all.filter(({ severity }) => severity !== 'note').map(({ code }) => code);
}

/** Every finding of the image. */
export function findingsOf(scratch: string, image: Pick<VhdxImage, 'bytes'>): Promise<Finding[]> {
  return withVhdx(scratch, image, findings);
}

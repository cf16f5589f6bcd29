/** Opens VHDs that the builder wrote and a test changed. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Finding, ImageLayer } from '../../main/engine/image/image.ts';
import type { Io } from '../../main/engine/storage/io.ts';
import { readLayer } from '../conformance/image-layer.ts';
import { withLayer } from './open-layer.ts';
import { buildVhd, SECTOR, sectorRange, type VhdImage, type VhdOptions } from './vhd-builder.ts';

/** Changes the image in place, or returns other bytes for it. */
export type Change = (image: VhdImage) => unknown;

export const untouched: Change = () => undefined;

/** Blocks of 64 KiB: the first whole, the second partly there, the third absent, the fourth partly there. */
export const plain: VhdOptions = {
  size: 500 * SECTOR,
  blockSize: 65_536,
  sectors: new Map([...sectorRange(0, 128), ...sectorRange(130, 7), ...sectorRange(400, 3)]),
};

/** The file `a.vhd` of a new folder below `scratch`, opened. */
export function withBytes<T>(scratch: string, bytes: Buffer, body: (layer: ImageLayer) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(scratch, 'case-'));
  writeFileSync(join(folder, 'a.vhd'), bytes);
  return withLayer(folder, 'a.vhd', body, true);
}

/** The image after `change`, opened. */
export function withImage<T>(
  scratch: string,
  options: VhdOptions,
  change: Change,
  body: (layer: ImageLayer) => Promise<T>,
): Promise<T> {
  const image = buildVhd(options);
  const changed = change(image);
  return withBytes(scratch, Buffer.isBuffer(changed) ? changed : image.bytes, body);
}

export const readAll = (layer: ImageLayer): Promise<Buffer> => readLayer(layer, 0, layer.virtualSize);

/** `severity code` of each finding. */
export const codesOf = (found: readonly Finding[]): string[] =>
  found.map(({ severity, code }) => `${severity} ${code}`);
/** The same without notes. */
export const worseOf = (found: readonly Finding[]): string[] =>
  codesOf(found.filter(({ severity }) => severity !== 'note'));

/** What a computation reads, carried out on the way. */
export function requestsOf<T>(io: Io<T>): { offset: number; length: number }[] {
  const all: { offset: number; length: number }[] = [];
  for (let step = io.next(); !step.done; ) {
    const { source, offset, length } = step.value;
    all.push({ offset, length });
    const bytes = new Uint8Array(length);
    source.readIntoSync!(bytes, offset);
    step = io.next(bytes);
  }
  return all;
}

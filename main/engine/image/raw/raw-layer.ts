/**
 * A raw image: the file's bytes are the disk's bytes. It has no header, no parent and no identity, so nothing in it can be
 * checked and any file can be opened as one when that is asked for; only names that say so are taken for one unasked. It may be
 * split into parts (`disk.001`, `disk.002`...), which are one layer, and it may be a block device that the user named.
 */
import { basename } from 'node:path';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { checkRange } from '../../storage/byte-source.ts';
import type { Confinement } from '../../storage/confinement.ts';
import type { Io } from '../../storage/io.ts';
import type { Finding, ImageFormat, ImageLayer, LayerFile, LayerRun } from '../image.ts';
import { SideBySide } from '../side-by-side.ts';
import { isFirstPartName, isLaterPartName, isPartOfRaw } from './parts.ts';
import { partFindings, partsOf } from './split.ts';

const SECTOR = 512;

/** What `detect` is given of a file at most. A shorter prefix is the whole file. */
export const PREFIX_BYTES = 65_536;

/** The name of a preallocated VMDK extent, which holds nothing but the disk's bytes: `web01-flat.vmdk`, `web01-f001.vmdk`. */
export function isFlatExtentName(fileName: string): boolean {
  return /-(flat|f\d{3,})\.vmdk$/i.test(fileName);
}

/**
 * True when the name alone makes the file a raw image, whatever its first bytes look like. The first bytes of a raw disk are
 * written by its guest, which must not be able to turn its disk into an image that names other files. (`.img` and `.bin` are
 * used for every format, so there the content may say more.)
 */
export function isRawByName(fileName: string): boolean {
  return /\.(raw|dd|iso)$/i.test(fileName) || isFlatExtentName(fileName) || isPartOfRaw(fileName);
}

/** Names that mean a raw image when no other format claims the content. */
export function isPossiblyRawName(fileName: string): boolean {
  return (
    isRawByName(fileName) || /\.(img|bin)$/i.test(fileName) || isFirstPartName(fileName) || isLaterPartName(fileName)
  );
}

class RawLayer implements ImageLayer {
  readonly format = 'raw';
  readonly variant: string;
  readonly parent = undefined;
  readonly id = undefined;
  readonly granularity = SECTOR;
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  readonly name: string;
  readonly path: string;
  readonly virtualSize: number;
  readonly files: readonly LayerFile[];
  readonly #parts: SideBySide<OpenFile>;

  /** @param parts in order, at least one; taken over. */
  constructor(parts: readonly OpenFile[], variant: string) {
    const first = parts[0]!;
    this.#parts = new SideBySide(parts);
    this.variant = variant;
    this.name = first.name;
    this.path = first.path;
    this.virtualSize = this.#parts.size;
    this.files = parts.map(({ name, path, size }, index) => ({
      role: index === 0 ? 'image' : 'extent',
      name,
      path,
      size,
    }));
    this.properties = parts.length === 1 ? {} : { parts: parts.length };
  }

  // biome-ignore lint/correctness/useYield: a raw image answers without reading, the interface allows for formats that read.
  *runs(offset: number, length: number): Io<LayerRun[]> {
    checkRange({ name: this.name, size: this.virtualSize }, offset, length);
    const runs: LayerRun[] = [];
    for (const { part: source, base, start, end } of this.#parts.shares(offset, length)) {
      runs.push({ kind: 'data', offset: start, length: end - start, source, position: start - base });
    }
    return runs;
  }

  async allocatedBytes(): Promise<number> {
    return this.virtualSize;
  }

  async *check(): AsyncGenerator<Finding> {
    yield* partFindings(this.#parts.parts);
    if (this.virtualSize % SECTOR !== 0) {
      yield {
        severity: 'suspicious',
        code: 'raw-partial-sector',
        message: `${this.name} is not a whole number of sectors: it may have been cut off`,
        source: this.name,
        expected: `a multiple of ${SECTOR} bytes`,
        found: this.virtualSize,
      };
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#parts.parts.map((part) => part.close()));
  }
}

async function openRaw(path: string, folder: Confinement): Promise<ImageLayer> {
  if (folder.isDevice) return new RawLayer([folder.open(path)], 'device');
  const parts: OpenFile[] = [];
  try {
    for (const part of partsOf(folder.realPath(path), folder)) parts.push(folder.open(part));
  } catch (error) {
    await Promise.all(parts.map((part) => part.close()));
    throw error;
  }
  return new RawLayer(parts, parts.length === 1 ? 'raw' : 'split');
}

export const rawFormat: ImageFormat = {
  name: 'raw',
  detect: (_prefix, fileName) => isPossiblyRawName(basename(fileName)),
  open: openRaw,
};

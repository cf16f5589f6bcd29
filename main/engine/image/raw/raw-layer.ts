/**
 * A raw image: the file's bytes are the disk's bytes. It has no header, no parent and no identity, so nothing in it can be
 * checked and any file can be opened as one when that is asked for; only names that say so are taken for one unasked.
 */
import { basename } from 'node:path';
import { type ByteSource, checkRange } from '../../storage/byte-source.ts';
import type { Confinement } from '../../storage/confinement.ts';
import type { Io } from '../../storage/io.ts';
import type { Finding, ImageFormat, ImageLayer, LayerFile, LayerRun } from '../image.ts';

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
  return /\.(raw|dd|iso)$/i.test(fileName) || isFlatExtentName(fileName);
}

/** Names that mean a raw image when no other format claims the content. */
export function isPossiblyRawName(fileName: string): boolean {
  return isRawByName(fileName) || /\.(img|bin)$/i.test(fileName);
}

class RawLayer implements ImageLayer {
  readonly format = 'raw';
  readonly variant = 'raw';
  readonly parent = undefined;
  readonly id = undefined;
  readonly granularity = SECTOR;
  readonly properties = {};
  readonly name: string;
  readonly path: string;
  readonly virtualSize: number;
  readonly files: readonly LayerFile[];
  readonly #source: ByteSource;

  constructor(source: ByteSource, path: string) {
    this.#source = source;
    this.name = source.name;
    this.path = path;
    this.virtualSize = source.size;
    this.files = [{ role: 'image', name: source.name, path, size: source.size }];
  }

  // biome-ignore lint/correctness/useYield: a raw image answers without reading, the interface allows for formats that read.
  *runs(offset: number, length: number): Io<LayerRun[]> {
    checkRange(this.#source, offset, length);
    return length === 0 ? [] : [{ kind: 'data', offset, length, source: this.#source, position: offset }];
  }

  async allocatedBytes(): Promise<number> {
    return this.virtualSize;
  }

  async *check(): AsyncGenerator<Finding> {
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
    await this.#source.close();
  }
}

export const rawFormat: ImageFormat = {
  name: 'raw',
  detect: (_prefix, fileName) => isPossiblyRawName(basename(fileName)),
  open: async (path: string, folder: Confinement): Promise<ImageLayer> => {
    const file = folder.open(path);
    return new RawLayer(file, file.path);
  },
};

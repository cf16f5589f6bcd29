import { statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { openLayer } from '../../../main/engine/image/formats.ts';
import type { ImageLayer } from '../../../main/engine/image/image.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { describeImageLayer, type ExpectedKind, type ImageSample } from '../../conformance/image-layer.ts';
import { randomFrom } from '../../support/random.ts';
import { buildXva, type XvaDisk } from '../../support/xva-builder.ts';

/**
 * The layer's file is a folder inside the archive; what the suite cuts and damages is the archive. The folder that the suite makes
 * is not closed by it, so each layer gets one of its own.
 */
async function open(path: string, folder: Confinement): Promise<ImageLayer> {
  const own = new Confinement(folder.root, folder.options);
  let layer: ImageLayer;
  try {
    layer = await openLayer(path, own);
  } catch (error) {
    await own.close();
    throw error;
  }
  const archive = own.archiveOf(layer.path)!.archive.path;
  return {
    format: layer.format,
    variant: layer.variant,
    name: layer.name,
    path: layer.path,
    virtualSize: layer.virtualSize,
    parent: layer.parent,
    id: layer.id,
    granularity: layer.granularity,
    properties: layer.properties,
    files: [{ role: 'image', name: basename(archive), path: archive, size: statSync(archive).size }],
    runs: (offset, length) => layer.runs(offset, length),
    allocatedBytes: (signal) => layer.allocatedBytes(signal),
    check: (signal) => layer.check(signal),
    close: () => own.close(),
  };
}

const CHUNK = 4096;

/** A disk with these blocks filled, and zeros elsewhere. */
function diskOf(size: number, filled: readonly number[]): Buffer {
  const random = randomFrom(size);
  const disk = Buffer.alloc(size);
  for (const block of filled) {
    for (let i = block * CHUNK; i < Math.min(size, (block + 1) * CHUNK); i++) disk[i] = Math.floor(random() * 256);
  }
  return disk;
}

function sample(title: string, disk: XvaDisk, sent: readonly number[], name = 'web01.xva', pack = false): ImageSample {
  const model = Buffer.from(disk.content);
  const kinds: ExpectedKind[] = [];
  for (let offset = 0; offset < model.length; offset += CHUNK) {
    const length = Math.min(CHUNK, model.length - offset);
    kinds.push({ offset, length, kind: sent.includes(offset / CHUNK) ? 'data' : 'zero' });
  }
  return {
    title,
    write(folder) {
      const other: XvaDisk = { id: 'Ref:3', content: diskOf(3 * CHUNK, [0, 2]), chunkBytes: CHUNK };
      const bytes = buildXva([disk, other]);
      writeFileSync(join(folder, name), pack ? gzipSync(bytes) : bytes);
      return { path: join(folder, name, disk.id), model, kinds };
    },
  };
}

describeImageLayer({
  format: 'xva',
  open,
  samples: [
    sample(
      'SHA-1, blocks of zeros left out',
      { id: 'Ref:12', content: diskOf(40 * CHUNK, [0, 1, 5, 17, 18, 39]), checksum: 'sha1', chunkBytes: CHUNK },
      [0, 1, 5, 17, 18, 39],
    ),
    sample(
      'XXH64, first and last blocks of zeros, a last block that is shorter',
      { id: 'Ref:12', content: diskOf(33 * CHUNK + 1536, [3, 9]), chunkBytes: CHUNK, sendZeros: [4] },
      [0, 3, 4, 9, 33],
    ),
    sample(
      'empty chunks that kept the connection open',
      { id: 'Ref:2', content: diskOf(30 * CHUNK, [0, 7, 8, 20, 29]), chunkBytes: CHUNK, idleBefore: [3, 8, 25] },
      [0, 7, 8, 20, 29],
    ),
    sample(
      'compressed',
      { id: 'Ref:12', content: diskOf(40 * CHUNK, [0, 11, 12, 39]), chunkBytes: CHUNK },
      [0, 11, 12, 39],
      'web01.xva',
      true,
    ),
    sample('one chunk', { id: 'Ref:12', content: diskOf(1024, [0]), chunkBytes: CHUNK }, [0]),
  ],
});

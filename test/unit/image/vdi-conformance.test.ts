import { join } from 'node:path';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { describeImageLayer, type ExpectedKind, type ImageSample } from '../../conformance/image-layer.ts';
import { type Block, uuidOf, type VdiOptions, vdiModel, writeVdi } from '../../support/vdi-builder.ts';
import { pattern } from '../../support/vmdk-builder.ts';

function block(index: number, blockSize: number): [number, Buffer] {
  return [index, pattern(index * blockSize, blockSize)];
}

function kindsOf(options: VdiOptions): ExpectedKind[] {
  const blockSize = options.blockSize!;
  const free = options.parent === undefined ? 'zero' : 'absent';
  return Array.from({ length: Math.ceil(options.size / blockSize) }, (_, index) => {
    const content = options.blocks.get(index) ?? 'free';
    const offset = index * blockSize;
    const length = Math.min(blockSize, options.size - offset);
    return { offset, length, kind: Buffer.isBuffer(content) ? 'data' : content === 'zero' ? 'zero' : free };
  });
}

function sample(title: string, options: VdiOptions): ImageSample {
  return {
    title,
    write(folder) {
      writeVdi(folder, 'disk.vdi', options);
      return { path: join(folder, 'disk.vdi'), model: vdiModel(options), kinds: kindsOf(options) };
    },
  };
}

/** Every kind of entry, stored in another order than on the disk. Small blocks, so that damage meets the header and the map. */
function mixed(blockSize: number, count: number): Map<number, Block> {
  const blocks = new Map<number, Block>([block(count - 1, blockSize)]);
  for (let index = 0; index < count - 1; index++) {
    if (index % 7 === 3) blocks.set(index, 'zero');
    else if (index % 5 !== 2) blocks.set(...block(index, blockSize));
  }
  return blocks;
}

describeImageLayer({
  format: 'vdi',
  open: openLayer,
  samples: [
    sample('dynamic', { size: 150 * 512, blockSize: 512, blocks: mixed(512, 150) }),
    sample('dynamic with an end inside a block, and bytes before each', {
      size: 39 * 1024 + 512,
      blockSize: 1024,
      blockExtra: 512,
      blocks: mixed(1024, 40),
    }),
    sample('fixed', {
      type: 'fixed',
      size: 90 * 512,
      blockSize: 512,
      blocks: new Map(Array.from({ length: 90 }, (_, index) => block(index, 512))),
    }),
    sample('differencing', {
      size: 150 * 512,
      blockSize: 512,
      blocks: mixed(512, 150),
      parent: uuidOf(9),
      parentModification: uuidOf(10),
    }),
    sample('version 0', { header: 'zero', size: 60 * 1024, blockSize: 1024, blocks: mixed(1024, 60) }),
  ],
});

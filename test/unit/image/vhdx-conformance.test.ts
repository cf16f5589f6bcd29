import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { describeImageLayer, type ExpectedKind, type ImageSample } from '../../conformance/image-layer.ts';
import {
  type Block,
  buildVhdx,
  dirty,
  diskOf,
  MIB,
  parentLocator,
  type VhdxImage,
  type VhdxOptions,
} from '../../support/vhdx-builder.ts';
import { pattern } from '../../support/vmdk-builder.ts';

const block = (number: number): [number, Buffer] => [number, pattern(number * MIB, MIB)];

/** Sectors of a block, and what they are to be. */
function some(number: number, sectors: readonly number[], sectorSize: number): [number, Block] {
  const content = new Map(
    sectors.map((sector) => [sector, pattern(number * MIB + sector * sectorSize, sectorSize)] as const),
  );
  return [number, content];
}

/** What the layer must call every stretch of the disk. */
function kindsOf({ options }: VhdxImage): ExpectedKind[] {
  const { virtualSize, blockSize = MIB, sectorSize = 512, blocks, parent } = options;
  const nothing = parent === undefined ? 'zero' : 'absent';
  const kinds: ExpectedKind[] = [];
  for (let number = 0; number * blockSize < virtualSize; number++) {
    const content = blocks.get(number) ?? 'absent';
    const offset = number * blockSize;
    const length = Math.min(blockSize, virtualSize - offset);
    if (Buffer.isBuffer(content)) kinds.push({ offset, length, kind: 'data' });
    else if (typeof content === 'string') kinds.push({ offset, length, kind: content === 'absent' ? nothing : 'zero' });
    else {
      for (let at = 0; at < length; at += sectorSize) {
        const kind = content.has(at / sectorSize) ? 'data' : 'absent';
        const last = kinds.at(-1);
        if (last !== undefined && last.kind === kind && at > 0)
          kinds[kinds.length - 1] = { ...last, length: last.length + sectorSize };
        else kinds.push({ offset: offset + at, length: sectorSize, kind });
      }
    }
  }
  return kinds;
}

function sample(title: string, options: VhdxOptions, then?: (image: VhdxImage) => void): ImageSample {
  return {
    title,
    write(folder) {
      const image = buildVhdx(options);
      then?.(image);
      const path = join(folder, options.parent === undefined ? 'disk.vhdx' : 'disk.avhdx');
      writeFileSync(path, image.bytes);
      const { at } = image;
      return {
        path,
        model: diskOf(image),
        kinds: kindsOf(image),
        tables: [
          { offset: 0, length: 16 },
          ...[...at.headers, ...at.regionTables, at.log].map((offset) => ({ offset, length: 256 })),
          { offset: at.metadata, length: 256 },
          { offset: at.content('fileParameters'), length: 512 },
          { offset: at.bat, length: 64 },
          ...[...at.bitmaps.values()].map((offset) => ({ offset, length: 1024 })),
        ],
      };
    },
  };
}

const parent = parentLocator('base.vhdx', '99999999-1111-4222-8333-444444444444');

describeImageLayer({
  format: 'vhdx',
  open: openLayer,
  samples: [
    // The disk ends inside its last block; blocks lie out of order.
    sample('dynamic', {
      virtualSize: 6 * MIB + 512 * 3,
      blocks: new Map<number, Block>([block(6), block(0), [1, 'zero'], [2, 'unmapped'], [3, 'undefined']]),
    }),
    sample('fixed', { virtualSize: 2 * MIB, fixed: true, blocks: new Map([block(1), block(0)]) }),
    sample('differencing', {
      virtualSize: 7 * MIB + 512 * 9,
      parent,
      blocks: new Map<number, Block>([
        some(7, [0, 1, 8], 512),
        block(2),
        [1, 'zero'],
        [3, 'unmapped'],
        [4, 'undefined'],
        some(5, [0, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 40, 2046, 2047], 512),
      ]),
    }),
    sample('differencing, sectors of 4 KiB', {
      virtualSize: 4 * MIB + 4096,
      sectorSize: 4096,
      parent,
      blocks: new Map<number, Block>([some(4, [0], 4096), some(1, [0, 7, 8, 9, 255], 4096), [2, 'zero']]),
    }),
    sample(
      'differencing, with a log to replay',
      {
        virtualSize: 4 * MIB,
        parent,
        blocks: new Map<number, Block>([block(3), some(1, [0, 5, 2047], 512), [2, 'zero']]),
      },
      (image) => {
        const { at } = image;
        const inData = at.blocks.get(3)! + 64 * 1024;
        dirty(
          image,
          [at.bat, at.metadata, at.metadata + 64 * 1024, at.bitmaps.get(0)!, inData],
          Buffer.alloc(4096, 0xcc),
        );
      },
    ),
  ],
});

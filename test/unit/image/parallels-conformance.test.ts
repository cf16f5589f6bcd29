import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { describeImageLayer, type ExpectedKind, type ImageSample } from '../../conformance/image-layer.ts';
import {
  buildExpanding,
  diskDescriptor,
  type ExpandingOptions,
  expandingModel,
  imageName,
  SECTOR,
  TOP,
  writeHdd,
} from '../../support/parallels-builder.ts';
import { pattern } from '../../support/vmdk-builder.ts';

/** About three clusters of five, stored in another order than on the disk. */
function clusters(tracks: number, count: number, seed = 1): Map<number, Buffer> {
  const size = tracks * SECTOR;
  const all = new Map([[count - 1, pattern((count - 1) * size, size, seed)]]);
  for (let n = 0; n < count - 1; n++) if (n % 5 !== 1 && n % 5 !== 3) all.set(n, pattern(n * size, size, seed));
  return all;
}

function kindsOf({ sectors, tracks, clusters: held }: ExpandingOptions, base = 0, none: 'zero' | 'absent' = 'zero') {
  return Array.from({ length: Math.ceil(sectors / tracks) }, (_, n): ExpectedKind => {
    const length = Math.min(tracks, sectors - n * tracks) * SECTOR;
    return { offset: base + n * tracks * SECTOR, length, kind: held.has(n) ? 'data' : none };
  });
}

function alone(title: string, options: ExpandingOptions): ImageSample {
  return {
    title,
    write(folder) {
      writeFileSync(join(folder, 'disk.hdd'), buildExpanding(options).bytes);
      return { path: join(folder, 'disk.hdd'), model: expandingModel(options), kinds: kindsOf(options) };
    },
  };
}

const PARENT = '11111111-2222-4333-8444-555555555555';
const old: ExpandingOptions = { sectors: 400, tracks: 3, clusters: clusters(3, 134) };
const parts: readonly ExpandingOptions[] = [0, 1, 2].map((n) => ({
  sectors: n === 2 ? 51 : 80,
  tracks: 2,
  clusters: clusters(2, n === 2 ? 26 : 40, n + 1),
}));

describeImageLayer({
  format: 'parallels',
  open: openLayer,
  samples: [
    alone('expanding, old magic, clusters of three sectors, an end inside a cluster', old),
    alone('expanding, new magic', { sectors: 150, tracks: 1, clusters: clusters(1, 150), extended: true }),
    {
      title: 'expanding in a folder, over a snapshot',
      write(root) {
        const files = {
          [imageName('disk', 0, TOP)]: buildExpanding(old).bytes,
          'base.hds': Buffer.alloc(400 * SECTOR),
        };
        const images = [
          { guid: TOP, type: 'Compressed', file: imageName('disk', 0, TOP) },
          { guid: PARENT, type: 'Plain', file: 'base.hds' },
        ] as const;
        const descriptor = diskDescriptor({
          sectors: 400,
          blockSectors: 3,
          storages: [{ start: 0, end: 400, images }],
          shots: [
            [PARENT, undefined],
            [TOP, PARENT],
          ],
        });
        const path = writeHdd(root, 'disk', descriptor, files);
        return { path, model: expandingModel(old), kinds: kindsOf(old, 0, 'absent') };
      },
    },
    {
      title: 'split into three',
      write(root) {
        mkdirSync(join(root, 'vm'));
        let start = 0;
        const storages = parts.map(({ sectors }, n) => {
          const image = { guid: TOP, type: 'Compressed', file: imageName('disk', n, TOP) } as const;
          const storage = { start, end: start + sectors, images: [image] };
          start += sectors;
          return storage;
        });
        const files = Object.fromEntries(
          parts.map((part, n) => [imageName('disk', n, TOP), buildExpanding(part).bytes]),
        );
        const path = writeHdd(root, 'disk', diskDescriptor({ sectors: start, blockSectors: 2, storages }), files);
        return {
          path,
          model: Buffer.concat(parts.map(expandingModel)),
          kinds: parts.flatMap((part, n) => kindsOf(part, storages[n]!.start * SECTOR)),
        };
      },
    },
    {
      title: 'plain',
      write(root) {
        const model = pattern(0, 60 * SECTOR);
        const images = [{ guid: TOP, type: 'Plain', file: 'disk.hds' }] as const;
        const descriptor = diskDescriptor({ sectors: 60, storages: [{ start: 0, end: 60, images }] });
        const path = writeHdd(root, 'disk', descriptor, { 'disk.hds': model });
        return { path, model, kinds: [{ offset: 0, length: model.length, kind: 'data' }] };
      },
    },
  ],
});

/** The golden Parallels images; see `parallels.sh`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  buildExpanding,
  diskDescriptor,
  type ExpandingOptions,
  expandingModel,
  imageName,
  overlay,
  SECTOR,
  TOP,
} from '../../support/parallels-builder.ts';
import { type Entry, KIB, MIB, qemuTruth, run, scattered, text, withScratch, writeGolden } from './golden-writer.ts';

const out = process.argv[2]!;
const BUILT =
  'test/support/parallels-builder.ts after QEMU docs/interop/parallels.rst and prl-xml.rst; truth: what the builder put in';

function byQemu(title: string, cluster: string, size: number): Entry {
  return withScratch((folder) => {
    const raw = join(folder, 'disk.raw');
    const image = join(folder, 'disk.hdd');
    const disk = scattered(size % 89, size, 60);
    disk.fill(0, 2 * MIB, 3 * MIB);
    writeFileSync(raw, disk);
    const args = ['convert', '-f', 'raw', '-O', 'parallels', '-o', `cluster_size=${cluster}`, 'disk.raw', 'disk.hdd'];
    run('qemu-img', ...args.map((part) => (part.startsWith('disk.') ? join(folder, part) : part)));
    const read = qemuTruth('parallels', image, folder);
    if (!read.equals(disk)) throw new Error('qemu-img does not give back what it was given');
    const made = `qemu-img 7.2 ${args.join(' ')}; truth: qemu-img convert`;
    return { title, made, files: { 'web01.hdd': readFileSync(image) }, leaf: 'web01.hdd', disk: read };
  });
}

/** An image that QEMU reads as we should, and a folder around it. */
function checkedByQemu(options: ExpandingOptions): Buffer {
  return withScratch((folder) => {
    const image = join(folder, 'x.hds');
    writeFileSync(image, buildExpanding(options).bytes);
    const read = qemuTruth('parallels', image, folder);
    if (!read.equals(expandingModel(options))) throw new Error('qemu-img reads it otherwise');
    return read;
  });
}

const page = (seed: number, index: number, tracks: number): [number, Buffer] => [
  index,
  text(seed, index * tracks * SECTOR, tracks * SECTOR),
];
const image = (seed: number, sectors: number, tracks: number, held: readonly number[]): ExpandingOptions => ({
  sectors,
  tracks,
  clusters: new Map(held.map((index) => page(seed, index, tracks))),
});

// Clusters of 63 sectors, as the oldest versions had them.
const oldest = { ...image(1, 63 * 20 + 5, 63, [20, 0, 3, 4, 11]), noDataOffset: true };
const SHOTS = ['aaaaaaaa-0000-4000-8000-000000000001', 'aaaaaaaa-0000-4000-8000-000000000002', TOP] as const;
const layers = [
  image(2, 400, 8, [0, 1, 2, 9, 30, 49]),
  image(3, 400, 8, [1, 9, 40]),
  image(4, 400, 8, [0, 40, 41]),
];
const split = [image(5, 512, 16, [0, 1, 31]), image(6, 512, 16, [7, 31]), image(7, 100, 16, [0, 6])];

const chain = diskDescriptor({
  name: 'web01',
  sectors: 400,
  blockSectors: 8,
  storages: [
    {
      start: 0,
      end: 400,
      images: SHOTS.map((guid) => ({ guid, type: 'Compressed' as const, file: imageName('web01', 0, guid) })),
    },
  ],
  shots: SHOTS.map((guid, index) => [guid, SHOTS[index - 1]] as const),
});
const chainFiles = {
  'web01.hdd/DiskDescriptor.xml': Buffer.from(chain),
  ...Object.fromEntries(
    SHOTS.map((guid, index) => [`web01.hdd/${imageName('web01', 0, guid)}`, buildExpanding(layers[index]!).bytes]),
  ),
};
const starts = [0, 512, 1024];
const splitFiles = {
  'web01.hdd/DiskDescriptor.xml': Buffer.from(
    diskDescriptor({
      sectors: 1124,
      blockSectors: 16,
      storages: split.map(({ sectors }, n) => ({
        start: starts[n]!,
        end: starts[n]! + sectors,
        images: [{ guid: TOP, type: 'Compressed' as const, file: imageName('web01', n, TOP) }],
      })),
    }),
  ),
  ...Object.fromEntries(split.map((part, n) => [`web01.hdd/${imageName('web01', n, TOP)}`, buildExpanding(part).bytes])),
};
const plain = scattered(8, 100 * KIB, 3);

writeGolden(
  'parallels',
  [
    byQemu('expanding', '1M', 5 * MIB + 512),
    byQemu('expanding, clusters of 64 KiB', '64k', 4 * MIB),
    {
      title: 'expanding, old magic, clusters of 63 sectors',
      made: 'test/support/parallels-builder.ts after QEMU docs/interop/parallels.rst; truth: qemu-img 7.2 convert',
      files: { 'web01.hdd': buildExpanding(oldest).bytes },
      leaf: 'web01.hdd',
      disk: checkedByQemu(oldest),
    },
    {
      title: 'a folder with two snapshots: the present state',
      made: BUILT,
      files: chainFiles,
      leaf: 'web01.hdd/DiskDescriptor.xml',
      disk: layers.reduce<Buffer>((disk, layer) => overlay(disk, layer), Buffer.alloc(400 * SECTOR)),
    },
    {
      title: 'a folder with two snapshots: the second snapshot',
      made: BUILT,
      files: chainFiles,
      leaf: 'web01.hdd/DiskDescriptor.xml',
      snapshot: SHOTS[1],
      disk: layers.slice(0, 2).reduce<Buffer>((disk, layer) => overlay(disk, layer), Buffer.alloc(400 * SECTOR)),
    },
    {
      title: 'split',
      made: BUILT,
      files: splitFiles,
      leaf: 'web01.hdd/DiskDescriptor.xml',
      disk: Buffer.concat(split.map(expandingModel)),
    },
    {
      title: 'plain',
      made: BUILT,
      files: {
        'web01.hdd/DiskDescriptor.xml': Buffer.from(
          diskDescriptor({
            sectors: 200,
            storages: [{ start: 0, end: 200, images: [{ guid: TOP, type: 'Plain', file: imageName('web01', 0, TOP) }] }],
          }),
        ),
        [`web01.hdd/${imageName('web01', 0, TOP)}`]: plain,
      },
      leaf: 'web01.hdd/DiskDescriptor.xml',
      disk: plain,
    },
  ],
  out,
);

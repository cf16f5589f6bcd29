/** The golden VDIs; see `vdi.sh`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Block, buildVdi, overlay, uuidOf, type VdiOptions, vdiModel } from '../../support/vdi-builder.ts';
import { type Entry, KIB, MIB, qemuTruth, run, scattered, text, withScratch, writeGolden } from './golden-writer.ts';

const out = process.argv[2]!;
const BUILT =
  'test/support/vdi-builder.ts after VirtualBox src/VBox/Storage/VDICore.h (VirtualBox is not in Debian main); truth: what the builder put in';

function byQemu(title: string, options: string[], size: number): Entry {
  return withScratch((folder) => {
    const raw = join(folder, 'disk.raw');
    const image = join(folder, 'disk.vdi');
    const disk = scattered(size % 97, size, 90);
    // Two whole blocks of nothing, so that the map has holes.
    disk.fill(0, 2 * MIB, 4 * MIB);
    writeFileSync(raw, disk);
    const args = ['convert', '-f', 'raw', '-O', 'vdi', ...options, 'disk.raw', 'disk.vdi'];
    run('qemu-img', ...args.map((part) => (part.startsWith('disk.') ? join(folder, part) : part)));
    const read = qemuTruth('vdi', image, folder);
    if (!read.equals(disk)) throw new Error('qemu-img does not give back what it was given');
    const made = `qemu-img 7.2 ${args.join(' ')}; truth: qemu-img convert`;
    return { title, made, files: { 'web01.vdi': readFileSync(image) }, leaf: 'web01.vdi', disk: read };
  });
}

function built(title: string, options: VdiOptions): Entry {
  const files = { 'web01.vdi': buildVdi(options).bytes };
  return { title, made: BUILT, files, leaf: 'web01.vdi', disk: vdiModel(options) };
}

const page = (seed: number, index: number, size: number): [number, Block] => [index, text(seed, index * size, size)];

const SMALL = 4 * KIB;
const base: VdiOptions = {
  size: 64 * SMALL,
  blockSize: SMALL,
  blocks: new Map([0, 1, 2, 9, 8, 30, 63].map((index) => page(1, index, SMALL))),
  uuid: uuidOf(1),
  modification: uuidOf(2),
};
const middle: VdiOptions = {
  size: base.size,
  blockSize: SMALL,
  blocks: new Map<number, Block>([page(2, 9, SMALL), [1, 'zero'], page(2, 40, SMALL), page(2, 41, SMALL), [30, 'zero']]),
  uuid: uuidOf(3),
  modification: uuidOf(4),
  parent: uuidOf(1),
  parentModification: uuidOf(2),
};
const leaf: VdiOptions = {
  size: base.size,
  blockSize: SMALL,
  blocks: new Map<number, Block>([page(3, 0, SMALL), page(3, 30, SMALL), [40, 'zero']]),
  uuid: uuidOf(5),
  modification: uuidOf(6),
  parent: uuidOf(3),
  parentModification: uuidOf(4),
};
const name = (options: VdiOptions) => `web01/Snapshots/{${options.uuid}}.vdi`;

writeGolden(
  'vdi',
  [
    byQemu('dynamic', [], 6 * MIB + 512),
    byQemu('fixed', ['-o', 'static=on'], 5 * MIB),
    {
      title: 'differencing, three links, in the folders of VirtualBox',
      made: BUILT,
      files: {
        'web01/web01.vdi': buildVdi(base).bytes,
        [name(middle)]: buildVdi(middle).bytes,
        [name(leaf)]: buildVdi(leaf).bytes,
      },
      leaf: name(leaf),
      disk: overlay(overlay(vdiModel(base), middle), leaf),
    },
    built('blocks of 64 KiB with 512 bytes before each', {
      size: 20 * 64 * KIB + 4608,
      blockSize: 64 * KIB,
      blockExtra: 512,
      blocks: new Map<number, Block>([
        [3, scattered(4, 64 * KIB, 3)],
        [20, scattered(5, 64 * KIB, 3)],
        [0, scattered(6, 64 * KIB, 3)],
        [7, 'zero'],
      ]),
    }),
    built('version 0', { ...base, header: 'zero' }),
  ],
  out,
);

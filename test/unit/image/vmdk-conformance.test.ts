/** The sub-formats of VMDK that are not in conformance.test.ts: streamOptimized, seSparse, custom. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { describeImageLayer, type ExpectedKind, type ImageSample } from '../../conformance/image-layer.ts';
import {
  buildCowd,
  buildSparse,
  descriptorText,
  type Grain,
  modelOf,
  pattern,
  SECTOR,
} from '../../support/vmdk-builder.ts';
import { SE_GRAIN_SECTORS, type SeGrain, writeSeSparseDisk } from '../../support/vmdk-sesparse-builder.ts';
import { buildStream, type StreamOptions, writeStreamDisk } from '../../support/vmdk-stream-builder.ts';

type Layout = { capacitySectors: number; grainSectors: number; grains: ReadonlyMap<number, SeGrain> };

/** Every grain of a layout as the run kind it must be. */
function kindsOf({ capacitySectors, grainSectors, grains }: Layout, stored: ExpectedKind['kind']): ExpectedKind[] {
  const kinds: ExpectedKind[] = [];
  for (let grain = 0; grain * grainSectors < capacitySectors; grain++) {
    const content = grains.get(grain) ?? 'absent';
    const offset = grain * grainSectors * SECTOR;
    const length = Math.min(grainSectors, capacitySectors - grain * grainSectors) * SECTOR;
    const kind = Buffer.isBuffer(content) ? stored : content === 'unmapped' ? 'zero' : content;
    kinds.push({ offset, length, kind });
  }
  return kinds;
}

/** Grains that pack to a tenth, to a half and not at all. */
function grain(number: number, sectors: number): [number, Buffer] {
  const bytes = pattern(number * sectors * SECTOR, sectors * SECTOR);
  if (number % 3 === 0) bytes.fill(7, Math.floor(bytes.length / 10));
  if (number % 3 === 1) bytes.fill(9, bytes.length / 2);
  return [number, bytes];
}

const stream = {
  capacitySectors: 16 * 70 + 5,
  grainSectors: 16,
  entriesPerTable: 16,
  grains: new Map<number, Grain>([...[0, 1, 2, 3, 16, 33, 34, 70].map((n) => grain(n, 16)), [4, 'zero'], [20, 'zero']]),
  zeroedGrains: true,
};

const seSparse: Layout = {
  capacitySectors: 4096 * 8 + 8 * 40 + 5,
  grainSectors: SE_GRAIN_SECTORS,
  grains: new Map<number, SeGrain>([
    ...[0, 1, 2, 9, 4095, 4096, 4100, 4136].map((n): [number, Buffer] => grain(n, SE_GRAIN_SECTORS)),
    [3, 'zero'],
    [4, 'unmapped'],
    [4097, 'zero'],
  ]),
};

function streamSample(title: string, options: Partial<StreamOptions>): ImageSample {
  const layout = { ...stream, ...options } as StreamOptions & Layout;
  return {
    title,
    write(folder) {
      writeStreamDisk(folder, 'disk', layout);
      const model = modelOf(layout as Parameters<typeof modelOf>[0]);
      return { path: join(folder, 'disk.vmdk'), model, kinds: kindsOf(layout, 'compressed') };
    },
  };
}

describeImageLayer({
  format: 'vmdk',
  open: openLayer,
  samples: [
    streamSample('streamOptimized, directory behind a footer', {}),
    streamSample('streamOptimized, directory in the header, version 1', { directoryInHeader: true, version: 1 }),
    streamSample('compressed without markers', { markers: false, directoryInHeader: true }),
    {
      title: 'seSparse',
      write(folder) {
        writeSeSparseDisk(folder, 'web01-000001', seSparse, {
          parentFileNameHint: 'web01.vmdk',
          parentCid: 'abcdef01',
        });
        const model = Buffer.alloc(seSparse.capacitySectors * SECTOR);
        for (const [n, content] of seSparse.grains) {
          if (Buffer.isBuffer(content)) content.copy(model, n * SE_GRAIN_SECTORS * SECTOR);
        }
        return { path: join(folder, 'web01-000001.vmdk'), model, kinds: kindsOf(seSparse, 'data') };
      },
    },
    {
      title: 'custom: every kind of extent',
      write(folder) {
        const flat = pattern(0, 96 * SECTOR, 3);
        const packed: Layout = {
          capacitySectors: 128,
          grainSectors: 16,
          grains: new Map([grain(0, 16), grain(1, 16), grain(5, 16)]),
        };
        const plain: Layout = { ...packed, capacitySectors: 100, grains: new Map([grain(0, 16), grain(6, 16)]) };
        const cowd: Layout = { capacitySectors: 50, grainSectors: 4, grains: new Map([grain(0, 4), grain(12, 4)]) };
        const se: Layout = { capacitySectors: 64, grainSectors: 8, grains: new Map([grain(1, 8), grain(7, 8)]) };
        writeFileSync(join(folder, 'mix-f001.vmdk'), flat);
        // The marker of a grain names its sector on the disk.
        const lba = (n: number) => 96 + 32 + n * 16;
        writeFileSync(join(folder, 'mix-s002.vmdk'), buildStream({ ...(packed as StreamOptions), lba }).bytes);
        writeFileSync(join(folder, 'mix-s003.vmdk'), buildSparse(plain as Parameters<typeof buildSparse>[0]).bytes);
        writeFileSync(join(folder, 'mix-delta.vmdk'), buildCowd(cowd as Parameters<typeof buildCowd>[0]).bytes);
        writeSeSparseDisk(folder, 'mix', se);
        const extents = [
          'RW 96 FLAT "mix-f001.vmdk" 0',
          'RW 32 ZERO',
          'RW 128 SPARSE "mix-s002.vmdk"',
          'RW 100 SPARSE "mix-s003.vmdk"',
          'RW 50 VMFSSPARSE "mix-delta.vmdk"',
          'RW 64 SESPARSE "mix-sesparse.vmdk"',
        ];
        writeFileSync(join(folder, 'mix.vmdk'), descriptorText({ createType: 'custom', extents }));
        const layouts = [
          [packed, 'compressed'],
          [plain, 'data'],
          [cowd, 'data'],
          [se, 'data'],
        ] as const;
        const kinds: ExpectedKind[] = [
          { offset: 0, length: flat.length, kind: 'data' },
          { offset: flat.length, length: 32 * SECTOR, kind: 'zero' },
        ];
        const parts = [flat, Buffer.alloc(32 * SECTOR)];
        for (const [layout, stored] of layouts) {
          const base = parts.reduce((sum, part) => sum + part.length, 0);
          kinds.push(...kindsOf(layout, stored).map((kind) => ({ ...kind, offset: kind.offset + base })));
          parts.push(modelOf(layout as Parameters<typeof modelOf>[0]));
        }
        return { path: join(folder, 'mix.vmdk'), model: Buffer.concat(parts), kinds };
      },
    },
  ],
});

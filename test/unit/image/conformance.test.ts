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
  writeCowdDisk,
  writeSparseDisk,
} from '../../support/vmdk-builder.ts';

type Layout = { capacitySectors: number; grainSectors: number; grains: ReadonlyMap<number, Grain> };

/** Every grain of a layout as the run kind it must be. */
function kindsOf({ capacitySectors, grainSectors, grains }: Layout): ExpectedKind[] {
  const kinds: ExpectedKind[] = [];
  for (let grain = 0; grain * grainSectors < capacitySectors; grain++) {
    const content = grains.get(grain) ?? 'absent';
    const offset = grain * grainSectors * SECTOR;
    const length = Math.min(grainSectors, capacitySectors - grain * grainSectors) * SECTOR;
    kinds.push({ offset, length, kind: Buffer.isBuffer(content) ? 'data' : content });
  }
  return kinds;
}

function grain(number: number, grainSectors: number): [number, Buffer] {
  return [number, pattern(number * grainSectors * SECTOR, grainSectors * SECTOR)];
}

/** The end of the disk lies inside the last grain, as QEMU makes it for odd sizes. */
const sparse: Layout = {
  capacitySectors: 16 * 40 + 5,
  grainSectors: 16,
  grains: new Map<number, Grain>([
    grain(40, 16),
    grain(0, 16),
    grain(2, 16),
    grain(3, 16),
    grain(17, 16),
    [4, 'zero'],
    [20, 'zero'],
  ]),
};

const cowd: Layout = {
  capacitySectors: 4096 * 2 + 77,
  grainSectors: 1,
  grains: new Map<number, Grain>([0, 1, 2, 9, 8, 4095, 4096, 8191, 8192, 8200, 8268].map((n) => grain(n, 1))),
};

const split: readonly Layout[] = [0, 1, 2].map((part) => ({
  capacitySectors: part === 2 ? 40 : 128,
  grainSectors: 8,
  grains: new Map<number, Grain>([0, 2, 4].map((n) => [n, pattern(part * 128 * SECTOR + n * 8 * SECTOR, 8 * SECTOR)])),
}));

function sparseSample(title: string, layout: Layout, options: Partial<Parameters<typeof buildSparse>[0]>): ImageSample {
  return {
    title,
    write(folder) {
      writeSparseDisk(folder, 'disk', { ...layout, ...options });
      return {
        path: join(folder, 'disk.vmdk'),
        model: modelOf(layout),
        kinds: kindsOf(layout),
      };
    },
  };
}

describeImageLayer({
  format: 'vmdk',
  open: openLayer,
  samples: [
    sparseSample('monolithicSparse with zeroed grains', sparse, { zeroedGrains: true, entriesPerTable: 16 }),
    sparseSample(
      'monolithicSparse without redundant tables',
      { ...sparse, grains: new Map([...sparse.grains].filter(([, content]) => content !== 'zero')) },
      { redundant: false },
    ),
    {
      title: 'vmfsSparse (COWD, grains of one sector)',
      write(folder) {
        writeCowdDisk(folder, 'web01-000001', cowd, { parentFileNameHint: 'web01.vmdk', parentCid: 'abcdef01' });
        return { path: join(folder, 'web01-000001.vmdk'), model: modelOf(cowd), kinds: kindsOf(cowd) };
      },
    },
    {
      title: 'twoGbMaxExtentSparse',
      write(folder) {
        split.forEach((part, i) => {
          writeFileSync(join(folder, `my disk-s00${i + 1}.vmdk`), buildSparse(part).bytes);
        });
        const text = descriptorText({
          createType: 'twoGbMaxExtentSparse',
          newline: '\r\n',
          extents: split.map((part, i) => `RW ${part.capacitySectors} SPARSE "my disk-s00${i + 1}.vmdk"`),
        });
        writeFileSync(join(folder, 'my disk.vmdk'), text);
        return {
          path: join(folder, 'my disk.vmdk'),
          model: Buffer.concat(split.map(modelOf)),
          kinds: split.flatMap((part, i) =>
            kindsOf(part).map((kind) => ({ ...kind, offset: kind.offset + i * 128 * SECTOR })),
          ),
        };
      },
    },
    {
      title: 'flat, zero and COWD extents side by side',
      write(folder) {
        const delta: Layout = { capacitySectors: 50, grainSectors: 4, grains: new Map([grain(0, 4), grain(5, 4)]) };
        const flat = pattern(0, 100 * SECTOR, 3);
        writeFileSync(join(folder, 'mix-f001.vmdk'), Buffer.concat([Buffer.alloc(8 * SECTOR, 0xee), flat]));
        writeFileSync(join(folder, 'mix-delta.vmdk'), buildCowd(delta).bytes);
        const text = descriptorText({
          createType: 'twoGbMaxExtentFlat',
          extents: ['RW 100 FLAT "mix-f001.vmdk" 8', 'RDONLY 30 ZERO', 'RW 50 VMFSSPARSE "mix-delta.vmdk"'],
        });
        // The kinds are unusual for the name; a test of the findings is elsewhere.
        writeFileSync(join(folder, 'mix.vmdk'), text.replace('twoGbMaxExtentFlat', 'vmfsSparse'));
        return {
          path: join(folder, 'mix.vmdk'),
          model: Buffer.concat([flat, Buffer.alloc(30 * SECTOR), modelOf(delta)]),
          kinds: [
            { offset: 0, length: 100 * SECTOR, kind: 'data' },
            { offset: 100 * SECTOR, length: 30 * SECTOR, kind: 'zero' },
            ...kindsOf(delta).map((kind) => ({ ...kind, offset: kind.offset + 130 * SECTOR })),
          ],
        };
      },
    },
    {
      title: 'vmfs (flat)',
      write(folder) {
        const flat = pattern(0, 300 * SECTOR);
        writeFileSync(join(folder, 'web01-flat.vmdk'), flat);
        const text = descriptorText({ createType: 'vmfs', extents: ['RW 300 VMFS "web01-flat.vmdk"'] });
        writeFileSync(join(folder, 'web01.vmdk'), text);
        return {
          path: join(folder, 'web01.vmdk'),
          model: flat,
          kinds: [{ offset: 0, length: flat.length, kind: 'data' }],
        };
      },
    },
  ],
});

describeImageLayer({
  format: 'raw',
  open: openLayer,
  opaque: true,
  samples: [
    {
      title: 'raw',
      write(folder) {
        const bytes = pattern(0, 200 * SECTOR);
        writeFileSync(join(folder, 'disk.img'), bytes);
        return {
          path: join(folder, 'disk.img'),
          model: bytes,
          kinds: [{ offset: 0, length: bytes.length, kind: 'data' }],
        };
      },
    },
  ],
});

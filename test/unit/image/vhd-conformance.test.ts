import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { describeImageLayer, type ExpectedKind, type ImageSample } from '../../conformance/image-layer.ts';
import {
  buildFixed,
  buildVhd,
  SECTOR,
  sectorRange,
  type VhdOptions,
  vhdModel,
  windowsLocator,
} from '../../support/vhd-builder.ts';

/** Every sector as the kind of run it must be, neighbours of one kind in one. */
function kindsOf(options: VhdOptions): ExpectedKind[] {
  const nothing = options.parent === undefined ? 'zero' : 'absent';
  const kinds: { offset: number; length: number; kind: ExpectedKind['kind'] }[] = [];
  for (let offset = 0; offset < options.size; offset += SECTOR) {
    const kind = options.sectors.has(offset / SECTOR) ? 'data' : nothing;
    const length = Math.min(SECTOR, options.size - offset);
    const last = kinds.at(-1);
    if (last?.kind === kind) last.length += length;
    else kinds.push({ offset, length, kind });
  }
  return kinds;
}

function sample(title: string, options: VhdOptions): ImageSample {
  return {
    title,
    write(folder) {
      const path = join(folder, 'web01.vhd');
      writeFileSync(path, buildVhd(options).bytes);
      return { path, model: vhdModel(options), kinds: kindsOf(options) };
    },
  };
}

const parent = {
  id: 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee',
  name: 'base.vhd',
  locators: [windowsLocator('W2ru', '.\\base.vhd'), windowsLocator('W2ku', 'C:\\VMs\\base.vhd')],
};
/** Blocks of 64 KiB: whole, odd sectors, unallocated, only the last sector. */
const scattered = new Map([
  ...sectorRange(0, 128),
  ...sectorRange(130, 1),
  ...sectorRange(140, 9),
  ...sectorRange(255, 1),
  ...sectorRange(3 * 128 + 127, 1),
  ...sectorRange(7 * 128, 20),
]);

describeImageLayer({
  format: 'vhd',
  open: openLayer,
  samples: [
    {
      title: 'fixed',
      write(folder) {
        const model = vhdModel({ size: 24 * SECTOR, sectors: new Map(sectorRange(0, 24)) });
        writeFileSync(join(folder, 'web01.vhd'), buildFixed(model));
        return {
          path: join(folder, 'web01.vhd'),
          model,
          kinds: [{ offset: 0, length: model.length, kind: 'data' }],
        };
      },
    },
    sample('dynamic, its end inside a block', { size: 900 * SECTOR, blockSize: 65_536, sectors: scattered }),
    sample('dynamic, blocks of 2 MiB', {
      size: 3 * 4096 * SECTOR,
      sectors: new Map([...sectorRange(5, 1), ...sectorRange(4095, 1), ...sectorRange(9000, 700)]),
    }),
    sample('differencing', { size: 900 * SECTOR, blockSize: 65_536, sectors: scattered, parent, backwards: true }),
    sample('differencing, blocks of 512 KiB', {
      size: 5 * 1024 * SECTOR,
      blockSize: 512 << 10,
      sectors: new Map([...sectorRange(1000, 48), ...sectorRange(3 * 1024, 1024)]),
      allocated: [4],
      parent,
    }),
    sample('XenServer, with a batmap', {
      size: 8 * 128 * SECTOR,
      blockSize: 65_536,
      sectors: scattered,
      batmap: true,
      creator: 'tap\0',
      creatorVersion: 0x0001_0003,
      creatorHost: 0,
      parent,
    }),
    sample('XenServer 0.1, bitmaps from the lowest bit', {
      size: 8 * 128 * SECTOR,
      blockSize: 65_536,
      sectors: scattered,
      lowBitFirst: true,
      creator: 'tap\0',
      creatorVersion: 1,
      parent,
    }),
  ],
});

/** Small honest images of every format, the disks they hold, and where in their files the structures begin and end. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { buildOva } from '../../support/ova-builder.ts';
import {
  buildExpanding,
  diskDescriptor,
  expandingModel,
  imageName,
  TOP,
  writeHdd,
} from '../../support/parallels-builder.ts';
import { buildQcow } from '../../support/qcow-builder.ts';
import { buildQcow2, type Cluster, modelOf as qcow2Model } from '../../support/qcow2-builder.ts';
import { buildVdi, vdiModel } from '../../support/vdi-builder.ts';
import { buildFixed, buildVhd, sectorContent, sectorRange, vhdModel } from '../../support/vhd-builder.ts';
import { buildVhdx, DATA_WRITE_GUID, dirty, diskOf, parentLocator } from '../../support/vhdx-builder.ts';
import {
  buildCowd,
  buildSparse,
  descriptorText,
  type Grain,
  pattern,
  SECTOR,
  modelOf as vmdkModel,
} from '../../support/vmdk-builder.ts';
import { buildSeSparse } from '../../support/vmdk-sesparse-builder.ts';
import { buildStream } from '../../support/vmdk-stream-builder.ts';
import { buildXva } from '../../support/xva-builder.ts';

const MIB = 1 << 20;

export interface Written {
  /** What is opened, relative to the folder. */
  readonly leaf: string;
  /** The disk. */
  readonly model: Buffer;
  /** The file that attacks change, relative to the folder; whatever else there is stays. */
  readonly file: string;
  /** Where its structures begin and end, in bytes: where it is cut off. */
  readonly edges: Readonly<Record<string, number>>;
}

export interface Fixture {
  readonly name: string;
  /** As the registry calls it. */
  readonly format: string;
  write(folder: string): Written;
}

function put(folder: string, name: string, bytes: Uint8Array | string): void {
  writeFileSync(join(folder, name), bytes);
}

const GRAIN = 16 * SECTOR;
const grains = new Map<number, Grain>([0, 1, 3, 40, 99].map((n) => [n, pattern(n * GRAIN, GRAIN)]));
export const vmdkLayout = { capacitySectors: 1600, grainSectors: 16, entriesPerTable: 32, grains } as const;
const last = (places: ReadonlyMap<number, number>): number => [...places.values()].at(-1)!;

export const vmdkSparse: Fixture = {
  name: 'VMDK monolithicSparse',
  format: 'vmdk',
  write(folder) {
    const descriptor = descriptorText({ createType: 'monolithicSparse', extents: ['RW 1600 SPARSE "disk.vmdk"'] });
    const { bytes, at } = buildSparse({ ...vmdkLayout, descriptor });
    put(folder, 'disk.vmdk', bytes);
    return {
      leaf: 'disk.vmdk',
      file: 'disk.vmdk',
      model: vmdkModel(vmdkLayout),
      edges: {
        header: 0,
        descriptor: 512,
        'redundant directory': at.redundantDirectory,
        'redundant table': at.redundantTables[0]!,
        directory: at.directory,
        'first table': at.tables[0]!,
        'last table': at.tables.at(-1)!,
        'first grain': at.grains.get(0)!,
        'second grain': at.grains.get(1)!,
        'last grain': last(at.grains),
        end: bytes.length,
      },
    };
  },
};

export const vmdkStream: Fixture = {
  name: 'VMDK streamOptimized',
  format: 'vmdk',
  write(folder) {
    const descriptor = descriptorText({ createType: 'streamOptimized', extents: ['RW 1600 SPARSE "disk.vmdk"'] });
    const { bytes, at } = buildStream({ ...vmdkLayout, descriptor });
    put(folder, 'disk.vmdk', bytes);
    return {
      leaf: 'disk.vmdk',
      file: 'disk.vmdk',
      model: vmdkModel(vmdkLayout),
      edges: {
        header: 0,
        descriptor: 512,
        'first grain': at.grains.get(0)!,
        'last grain': last(at.grains),
        table: at.tables.get(0)!,
        directory: at.directory,
        'footer marker': at.footer - 512,
        footer: at.footer,
        'end of stream': at.footer + 512,
        end: bytes.length,
      },
    };
  },
};

export const vmdkCowd: Fixture = {
  name: 'VMDK vmfsSparse',
  format: 'vmdk',
  write(folder) {
    const layout = { ...vmdkLayout, grainSectors: 16 };
    const { bytes, at } = buildCowd(layout);
    put(folder, 'disk-delta.vmdk', bytes);
    put(
      folder,
      'disk.vmdk',
      descriptorText({ createType: 'vmfsSparse', extents: ['RW 1600 VMFSSPARSE "disk-delta.vmdk"'] }),
    );
    return {
      leaf: 'disk.vmdk',
      file: 'disk-delta.vmdk',
      model: vmdkModel(layout),
      edges: {
        header: 0,
        directory: at.directory,
        table: at.tables.get(0)!,
        'first grain': at.grains.get(0)!,
        'last grain': last(at.grains),
        end: bytes.length,
      },
    };
  },
};

export const vmdkSeSparse: Fixture = {
  name: 'VMDK seSparse',
  format: 'vmdk',
  write(folder) {
    const layout = {
      capacitySectors: 1600,
      grainSectors: 8,
      grains: new Map<number, Grain>([0, 1, 7, 199].map((n) => [n, pattern(n * 4096, 4096)])),
    };
    const { bytes, at } = buildSeSparse(layout);
    put(folder, 'disk-sesparse.vmdk', bytes);
    put(
      folder,
      'disk.vmdk',
      descriptorText({ createType: 'seSparse', extents: ['RW 1600 SESPARSE "disk-sesparse.vmdk"'] }),
    );
    return {
      leaf: 'disk.vmdk',
      file: 'disk-sesparse.vmdk',
      model: vmdkModel(layout),
      edges: {
        header: 0,
        'volatile header': at.volatileHeader,
        directory: at.directory,
        table: at.tables.get(0)!,
        'grain area': at.grainArea,
        'second grain': at.grainArea + 4096,
        'last grain': bytes.length - 4096,
        end: bytes.length,
      },
    };
  },
};

export const vmdkFlat: Fixture = {
  name: 'VMDK monolithicFlat',
  format: 'vmdk',
  write(folder) {
    const model = pattern(0, 1600 * SECTOR);
    put(folder, 'disk-flat.vmdk', model);
    put(
      folder,
      'disk.vmdk',
      descriptorText({ createType: 'monolithicFlat', extents: ['RW 1600 FLAT "disk-flat.vmdk" 0'] }),
    );
    return {
      leaf: 'disk.vmdk',
      file: 'disk-flat.vmdk',
      model,
      edges: { start: 0, 'second sector': 512, 'last sector': model.length - 512, end: model.length },
    };
  },
};

export const VHD_ID = '0a0a0a0a-0000-4000-8000-000000000001';
export const vhdLayout = {
  size: 500 * SECTOR,
  blockSize: 65_536,
  id: VHD_ID,
  sectors: new Map([...sectorRange(0, 128), ...sectorRange(130, 7), ...sectorRange(400, 3)]),
} as const;

export const vhdFixed: Fixture = {
  name: 'VHD fixed',
  format: 'vhd',
  write(folder) {
    const model = Buffer.concat(Array.from({ length: 100 }, (_, n) => sectorContent(n, 3)));
    const bytes = buildFixed(model);
    put(folder, 'disk.vhd', bytes);
    return {
      leaf: 'disk.vhd',
      file: 'disk.vhd',
      model,
      edges: { start: 0, 'second sector': 512, footer: model.length, end: bytes.length },
    };
  },
};

export const vhdDynamic: Fixture = {
  name: 'VHD dynamic',
  format: 'vhd',
  write(folder) {
    const { bytes, at } = buildVhd(vhdLayout);
    put(folder, 'disk.vhd', bytes);
    return { leaf: 'disk.vhd', file: 'disk.vhd', model: vhdModel(vhdLayout), edges: vhdEdges(bytes, at) };
  },
};

function vhdEdges(bytes: Buffer, at: ReturnType<typeof buildVhd>['at']): Record<string, number> {
  const blocks = [...at.blocks.values()];
  return {
    'footer copy': 0,
    header: 512,
    table: at.table,
    'first bitmap': blocks[0]!.bitmap,
    'first block': blocks[0]!.data,
    'last bitmap': blocks.at(-1)!.bitmap,
    'last block': blocks.at(-1)!.data,
    footer: at.footer,
    end: bytes.length,
  };
}

export const vhdDifferencing: Fixture = {
  name: 'VHD differencing',
  format: 'vhd',
  write(folder) {
    const base = buildVhd(vhdLayout);
    put(folder, 'base.vhd', base.bytes);
    const child = {
      ...vhdLayout,
      id: '0a0a0a0a-0000-4000-8000-000000000002',
      sectors: new Map([...sectorRange(2, 5, 9), ...sectorRange(300, 20, 9)]),
      parent: {
        id: VHD_ID,
        name: 'base.vhd',
        locators: [{ code: 'W2ru', data: Buffer.from('.\\base.vhd', 'utf16le') }],
      },
    };
    const { bytes, at } = buildVhd(child);
    put(folder, 'disk.vhd', bytes);
    return {
      leaf: 'disk.vhd',
      file: 'disk.vhd',
      model: vhdModel(child, vhdModel(vhdLayout)),
      edges: { ...vhdEdges(bytes, at), locator: at.locators[0]! },
    };
  },
};

const block = (n: number, length = MIB): Buffer => pattern(n * length, length, 5);
export const vhdxLayout = {
  virtualSize: 6 * MIB,
  blocks: new Map([
    [0, block(0)],
    [2, block(2)],
    [5, block(5)],
  ]),
} as const;

function vhdxEdges({ bytes, at }: ReturnType<typeof buildVhdx>): Record<string, number> {
  const blocks = [...at.blocks.values()];
  return {
    'file type': 0,
    'first header': at.headers[0],
    'second header': at.headers[1],
    'first region table': at.regionTables[0],
    'second region table': at.regionTables[1],
    log: at.log,
    metadata: at.metadata,
    'metadata items': at.metadata + 65_536,
    BAT: at.bat,
    'BAT entry 1': at.entry(1),
    'first block': blocks[0]!,
    'last block': blocks.at(-1)!,
    end: bytes.length,
  };
}

export const vhdxDynamic: Fixture = {
  name: 'VHDX dynamic',
  format: 'vhdx',
  write(folder) {
    const image = buildVhdx(vhdxLayout);
    put(folder, 'disk.vhdx', image.bytes);
    return { leaf: 'disk.vhdx', file: 'disk.vhdx', model: diskOf(image), edges: vhdxEdges(image) };
  },
};

export const vhdxLogged: Fixture = {
  name: 'VHDX with a log to replay',
  format: 'vhdx',
  write(folder) {
    const image = buildVhdx(vhdxLayout);
    const model = diskOf(image);
    dirty(image, [image.at.bat, image.at.metadata]);
    put(folder, 'disk.vhdx', image.bytes);
    return { leaf: 'disk.vhdx', file: 'disk.vhdx', model, edges: vhdxEdges(image) };
  },
};

export const vhdxDifferencing: Fixture = {
  name: 'VHDX differencing',
  format: 'vhdx',
  write(folder) {
    const base = buildVhdx(vhdxLayout);
    put(folder, 'base.vhdx', base.bytes);
    const child = buildVhdx({
      virtualSize: vhdxLayout.virtualSize,
      blocks: new Map<number, Buffer | ReadonlyMap<number, Buffer>>([
        [0, new Map([3, 4, 2047].map((n) => [n, pattern(n * SECTOR, SECTOR, 8)]))],
        [3, block(33)],
      ]),
      parent: parentLocator('base.vhdx', DATA_WRITE_GUID),
      dataWriteGuid: '99999999-2222-4333-8444-555555555555',
    });
    put(folder, 'disk.vhdx', child.bytes);
    return {
      leaf: 'disk.vhdx',
      file: 'disk.vhdx',
      model: diskOf(child, diskOf(base)),
      edges: { ...vhdxEdges(child), 'sector bitmap': child.at.bitmaps.get(0)! },
    };
  },
};

export const vdiLayout = {
  size: 40 * 4096,
  blockSize: 4096,
  blocks: new Map<number, Buffer | 'zero'>([
    [0, block(1, 4096)],
    [1, 'zero'],
    [7, block(7, 4096)],
    [39, block(39, 4096)],
  ]),
} as const;

export const vdiDynamic: Fixture = {
  name: 'VDI dynamic',
  format: 'vdi',
  write(folder) {
    const { bytes, at } = buildVdi(vdiLayout);
    put(folder, 'disk.vdi', bytes);
    return {
      leaf: 'disk.vdi',
      file: 'disk.vdi',
      model: vdiModel(vdiLayout),
      edges: {
        start: 0,
        header: at.header,
        map: at.map,
        'first block': at.data,
        'second block': at.data + 4096,
        'last block': at.data + 2 * 4096,
        end: bytes.length,
      },
    };
  },
};

const CLUSTER = 4096;
/** Bytes that deflate makes smaller, but not by much. */
const compressible = (n: number): Buffer => Buffer.from(pattern(n * CLUSTER, CLUSTER / 2).toString('hex'), 'latin1');
const clusters = new Map<number, Cluster>([
  [0, pattern(0, CLUSTER)],
  [1, 'zero'],
  [5, pattern(5, CLUSTER)],
  [6, { packed: compressible(6) }],
  [7, { packed: compressible(7) }],
  [600, pattern(600, CLUSTER)],
]);
export const qcow2Layout = { size: 700 * CLUSTER, clusterBits: 12, clusters } as const;

function qcow2(name: string, options: Partial<Parameters<typeof buildQcow2>[0]>): Fixture {
  return {
    name,
    format: 'qcow2',
    write(folder) {
      const { bytes, at } = buildQcow2({ ...qcow2Layout, ...options });
      put(folder, 'disk.qcow2', bytes);
      return {
        leaf: 'disk.qcow2',
        file: 'disk.qcow2',
        model: qcow2Model({ ...qcow2Layout, ...options }, 12),
        edges: {
          header: 0,
          L1: at.l1,
          'first L2': at.l2.get(0)!,
          'first cluster': CLUSTER * 4,
          'refcount table': at.refcountTable,
          'refcount block': at.refcountBlock,
          'last cluster': at.refcountTable - CLUSTER,
          end: bytes.length,
        },
      };
    },
  };
}
export const qcow2v3: Fixture = qcow2('QCOW2 version 3', {});
export const qcow2v2: Fixture = qcow2('QCOW2 version 2', {
  version: 2,
  clusters: new Map([...clusters].filter(([, content]) => content !== 'zero')),
});
export const qcow2Zstd: Fixture = qcow2('QCOW2 zstd', { zstd: true });

export const qcowLayout = {
  size: 700 * CLUSTER,
  clusterBits: 12,
  l2Bits: 9,
  clusters: new Map<number, Buffer | { packed: Buffer }>([
    [0, pattern(0, CLUSTER)],
    [5, { packed: compressible(5) }],
    [600, pattern(600, CLUSTER)],
  ]),
} as const;

export const qcow: Fixture = {
  name: 'QCOW',
  format: 'qcow',
  write(folder) {
    const { bytes, at } = buildQcow(qcowLayout);
    put(folder, 'disk.qcow', bytes);
    return {
      leaf: 'disk.qcow',
      file: 'disk.qcow',
      model: qcow2Model(qcowLayout, 12),
      edges: { header: 0, L1: at.l1, L2: at.l2.get(0)!, 'second L2': at.l2.get(1)!, end: bytes.length },
    };
  },
};

export const parallelsLayout = {
  sectors: 256,
  tracks: 8,
  clusters: new Map([0, 2, 31].map((n) => [n, pattern(n * 4096, 4096)])),
} as const;

export const parallelsAlone: Fixture = {
  name: 'Parallels expanding',
  format: 'parallels',
  write(folder) {
    const { bytes, at } = buildExpanding(parallelsLayout);
    put(folder, 'disk.hdd', bytes);
    return {
      leaf: 'disk.hdd',
      file: 'disk.hdd',
      model: expandingModel(parallelsLayout),
      edges: {
        header: 0,
        BAT: at.bat,
        'first cluster': at.data,
        'last cluster': bytes.length - 4096,
        end: bytes.length,
      },
    };
  },
};

export const parallelsFolder: Fixture = {
  name: 'Parallels .hdd folder',
  format: 'parallels',
  write(folder) {
    const { bytes, at } = buildExpanding(parallelsLayout);
    const name = imageName('disk', 0, TOP);
    writeHdd(
      folder,
      'disk',
      diskDescriptor({
        sectors: parallelsLayout.sectors,
        blockSectors: parallelsLayout.tracks,
        storages: [{ start: 0, end: parallelsLayout.sectors, images: [{ guid: TOP, type: 'Compressed', file: name }] }],
      }),
      { [name]: bytes },
    );
    return {
      leaf: 'disk.hdd/DiskDescriptor.xml',
      file: join('disk.hdd', name),
      model: expandingModel(parallelsLayout),
      edges: { header: 0, BAT: at.bat, 'first cluster': at.data, end: bytes.length },
    };
  },
};

export const raw: Fixture = {
  name: 'raw',
  format: 'raw',
  write(folder) {
    const model = pattern(0, 200 * SECTOR);
    put(folder, 'disk.raw', model);
    return { leaf: 'disk.raw', file: 'disk.raw', model, edges: { start: 0, end: model.length } };
  },
};

export const gzipped: Fixture = {
  name: 'gzip of a VDI',
  format: 'vdi',
  write(folder) {
    const bytes = gzipSync(buildVdi(vdiLayout).bytes);
    put(folder, 'disk.vdi.gz', bytes);
    return {
      leaf: 'disk.vdi.gz/disk.vdi',
      file: 'disk.vdi.gz',
      model: vdiModel(vdiLayout),
      edges: { header: 0, stream: 10, trailer: bytes.length - 8, end: bytes.length },
    };
  },
};

export const ova: Fixture = {
  name: 'OVA',
  format: 'vmdk',
  write(folder) {
    const descriptor = descriptorText({ createType: 'streamOptimized', extents: ['RW 1600 SPARSE "disk.vmdk"'] });
    const disk = buildStream({ ...vmdkLayout, descriptor });
    const bytes = buildOva('web', [{ name: 'disk.vmdk', bytes: disk.bytes, capacity: 1600 * SECTOR }]);
    put(folder, 'web.ova', bytes);
    const diskAt = bytes.indexOf(disk.bytes);
    return {
      leaf: 'web.ova/disk.vmdk',
      file: 'web.ova',
      model: vmdkModel(vmdkLayout),
      edges: {
        'first header': 0,
        descriptor: 512,
        'disk header': diskAt - 512,
        disk: diskAt,
        'last of the disk': diskAt + disk.bytes.length - 512,
        'end of the disk': diskAt + disk.bytes.length,
        end: bytes.length,
      },
    };
  },
};

export const xva: Fixture = {
  name: 'XVA',
  format: 'xva',
  write(folder) {
    const model = Buffer.alloc(4 * MIB);
    pattern(0, MIB, 4).copy(model, 0);
    pattern(2, MIB, 4).copy(model, 2 * MIB);
    pattern(3, MIB, 4).copy(model, 3 * MIB);
    const bytes = buildXva([{ id: 'Ref:12', content: model }]);
    put(folder, 'web.xva', bytes);
    const chunk = (n: number): number => bytes.indexOf(model.subarray(n * MIB, n * MIB + 4096));
    return {
      leaf: 'web.xva/Ref:12',
      file: 'web.xva',
      model,
      edges: {
        'first header': 0,
        'ova.xml': 512,
        'first chunk header': chunk(0) - 512,
        'first chunk': chunk(0),
        'first checksum header': chunk(0) + MIB,
        'last chunk header': chunk(3) - 512,
        'last chunk': chunk(3),
        'last checksum header': chunk(3) + MIB,
        'last checksum': chunk(3) + MIB + 512,
        end: bytes.length,
      },
    };
  },
};

/** Everything that has a structure to attack. */
export const structured: readonly Fixture[] = [
  vmdkSparse,
  vmdkStream,
  vmdkCowd,
  vmdkSeSparse,
  vmdkFlat,
  vhdFixed,
  vhdDynamic,
  vhdDifferencing,
  vhdxDynamic,
  vhdxLogged,
  vhdxDifferencing,
  vdiDynamic,
  qcow2v3,
  qcow2v2,
  qcow2Zstd,
  qcow,
  parallelsAlone,
  parallelsFolder,
  gzipped,
  ova,
  xva,
];

/** A new folder below `scratch` with the fixture in it. */
let number = 0;
export function fresh(scratch: string): string {
  const folder = join(scratch, `case-${number++}`);
  mkdirSync(folder);
  return folder;
}

/** The golden VMDKs; see `vmdk.sh`. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  buildCowd,
  buildSparse,
  type DescriptorParts,
  descriptorText,
  type Grain,
  modelOf,
  SECTOR,
} from '../../support/vmdk-builder.ts';
import { buildSeSparse, type SeGrain } from '../../support/vmdk-sesparse-builder.ts';
import { buildStream } from '../../support/vmdk-stream-builder.ts';
import { type Entry, KIB, MIB, qemuTruth, run, scattered, text, withScratch, writeGolden } from './golden-writer.ts';

const out = process.argv[2]!;
const AGREES = 'truth: what the builder put in, and qemu-img 7.2 convert, which agrees';
const SPARSE = `test/support/vmdk-builder.ts after VMware, "Virtual Disk Format 5.0"; ${AGREES}`;
const STREAM = `test/support/vmdk-stream-builder.ts after VMware, "Virtual Disk Format 5.0"; ${AGREES}`;
const SE_SPARSE = `test/support/vmdk-sesparse-builder.ts after QEMU block/vmdk.c (there is no specification); ${AGREES}`;

/** All files of a folder, by name. */
function filesOf(folder: string): Record<string, Buffer> {
  return Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]));
}

/** An image that qemu-img writes from a raw disk. */
function byQemu(title: string, options: string, size: number): Entry {
  return withScratch((folder) => {
    mkdirSync(join(folder, 'vm'));
    const disk = scattered(size % 83, size, 60);
    disk.fill(0, Math.floor(size / 3), Math.floor(size / 2));
    writeFileSync(join(folder, 'disk.raw'), disk);
    const image = join(folder, 'vm/web01.vmdk');
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'vmdk', '-o', options, join(folder, 'disk.raw'), image);
    if (!qemuTruth('vmdk', image, folder).equals(disk))
      throw new Error('qemu-img does not give back what it was given');
    const made = `qemu-img 7.2 convert -f raw -O vmdk -o ${options}; truth: qemu-img convert`;
    return { title, made, files: filesOf(join(folder, 'vm')), leaf: 'web01.vmdk', disk };
  });
}

/** A chain of three that qemu-img and qemu-io write, with zeroed grains in the children. */
function qemuChain(): Entry {
  return withScratch((folder) => {
    const vm = join(folder, 'vm');
    mkdirSync(vm);
    const names = ['base', 'one', 'two'];
    for (const [i, name] of names.entries()) {
      const image = join(vm, `${name}.vmdk`);
      const parent = i === 0 ? [] : ['-b', `${names[i - 1]}.vmdk`, '-F', 'vmdk'];
      run(
        'qemu-img',
        'create',
        '-q',
        '-f',
        'vmdk',
        '-o',
        'zeroed_grain=on',
        ...parent,
        image,
        ...(i === 0 ? ['6M'] : []),
      );
      const writes = [
        `write -P ${17 + i} ${i * 700 * 512} 300k`,
        `write -P ${33 + i} ${5 * MIB - i * 65_536} 70k`,
        ...(i > 0 ? [`write -z ${64 * KIB * (2 * i)} 64k`] : []),
      ];
      run('qemu-io', '-f', 'vmdk', ...writes.flatMap((write) => ['-c', write]), image);
    }
    const disk = qemuTruth('vmdk', join(vm, 'two.vmdk'), folder);
    const made = 'qemu-img 7.2 create -f vmdk -o zeroed_grain=on -b ..., qemu-io 7.2 write; truth: qemu-img convert';
    return {
      title: 'a chain of monolithicSparse with zeroed grains',
      made,
      files: filesOf(vm),
      leaf: 'two.vmdk',
      disk,
    };
  });
}

/** An entry of files that are built, which QEMU must read as we should; `asQemu` turns a descriptor into one it knows. */
function built(entry: Entry, asQemu: (descriptor: string) => string = (descriptor) => descriptor): Entry {
  return withScratch((folder) => {
    for (const [name, bytes] of Object.entries(entry.files)) writeFileSync(join(folder, name), bytes);
    const leaf = join(folder, entry.leaf);
    const bytes = readFileSync(leaf);
    if (bytes.length < 4096) writeFileSync(leaf, asQemu(bytes.toString('utf8')));
    if (!qemuTruth('vmdk', leaf, folder).equals(entry.disk)) throw new Error(`QEMU reads "${entry.title}" otherwise`);
    return entry;
  });
}

const grain = (seed: number, n: number, sectors: number): [number, Buffer] => [
  n,
  text(seed, n * sectors * SECTOR, sectors * SECTOR),
];
const descriptor = (parts: DescriptorParts): Buffer => Buffer.from(descriptorText(parts));
const se = (layout: { capacitySectors: number; grains: ReadonlyMap<number, SeGrain> }) =>
  modelOf({ capacitySectors: layout.capacitySectors, grainSectors: 8, grains: layout.grains as Map<number, Grain> });

/** Stream-optimized, as VMware and VirtualBox write it: the directory behind a footer. */
function stream(title: string, options: { version?: number }): Entry {
  const layout = {
    capacitySectors: 128 * 530,
    grainSectors: 128,
    grains: new Map<number, Grain>([0, 1, 2, 40, 511, 512, 529].map((n) => grain(7, n, 128))),
  };
  const extents = [`RW ${layout.capacitySectors} SPARSE "web01.vmdk"`];
  const text = descriptorText({ createType: 'streamOptimized', extents });
  const files = { 'web01.vmdk': buildStream({ ...options, ...layout, descriptor: text }).bytes };
  return built({ title, made: STREAM, files, leaf: 'web01.vmdk', disk: modelOf(layout) });
}

const small = {
  capacitySectors: 128 * 60,
  grainSectors: 16,
  grains: new Map<number, Grain>([0, 1, 9, 100, 300, 479].map((n) => grain(8, n, 16))),
};

/** One table of garbage, which the redundant one replaces. QEMU does not look at the copy, so it is given the image before that. */
function ruinedTable(): Entry {
  const extents = [`RW ${small.capacitySectors} SPARSE "web01.vmdk"`];
  const image = buildSparse({ ...small, descriptor: descriptorText({ createType: 'monolithicSparse', extents }) });
  const entry = {
    title: 'monolithicSparse with a table of garbage',
    made: SPARSE,
    leaf: 'web01.vmdk',
    disk: modelOf(small),
  };
  built({ ...entry, files: { 'web01.vmdk': Buffer.from(image.bytes) } });
  text(1, 0, 2048).copy(image.bytes, image.at.tables[0]!);
  const findings = ['grain-out-of-file', 'redundant-table-differs'];
  return { ...entry, files: { 'web01.vmdk': image.bytes }, findings };
}

/** A machine on ESX: a flat base, a COWD delta from VMFS 5 days, an seSparse delta from VMFS 6 days. */
function esxChain(): Entry {
  const capacitySectors = 4096 * 3 + 8;
  const flat = scattered(11, capacitySectors * SECTOR, 40);
  const cowd = {
    capacitySectors,
    grainSectors: 1,
    grains: new Map<number, Grain>([0, 1, 4095, 4096, 12_295].map((n) => grain(12, n, 1))),
  };
  const delta = {
    capacitySectors,
    grains: new Map<number, SeGrain>([
      ...[1, 2, 511, 1536].map((n) => grain(13, n, 8)),
      [40, 'zero'],
      [41, 'unmapped'],
    ]),
  };
  const disk = Buffer.from(flat);
  for (const [n, content] of cowd.grains) (content as Buffer).copy(disk, n * SECTOR);
  for (const [n, content] of delta.grains) {
    if (Buffer.isBuffer(content)) content.copy(disk, n * 4096);
    else disk.fill(0, n * 4096, (n + 1) * 4096);
  }
  const files = {
    'web01.vmdk': descriptor({
      createType: 'vmfs',
      cid: '0000000a',
      extents: [`RW ${capacitySectors} VMFS "web01-flat.vmdk"`],
    }),
    'web01-flat.vmdk': flat,
    'web01-000001.vmdk': descriptor({
      createType: 'vmfsSparse',
      cid: '0000000b',
      parentCid: '0000000a',
      parentFileNameHint: 'web01.vmdk',
      extents: [`RW ${capacitySectors} VMFSSPARSE "web01-000001-delta.vmdk"`],
    }),
    'web01-000001-delta.vmdk': buildCowd(cowd).bytes,
    'web01-000002.vmdk': descriptor({
      createType: 'seSparse',
      cid: '0000000c',
      parentCid: '0000000b',
      parentFileNameHint: 'web01-000001.vmdk',
      extents: [`RW ${capacitySectors} SESPARSE "web01-000002-sesparse.vmdk"`],
    }),
    'web01-000002-sesparse.vmdk': buildSeSparse(delta).bytes,
  };
  return built({
    title: 'vmfs under vmfsSparse under seSparse',
    made: SE_SPARSE,
    files,
    leaf: 'web01-000002.vmdk',
    disk,
  });
}

function seSparseAlone(): Entry {
  const layout = {
    capacitySectors: 8 * 9000 + 3,
    grains: new Map<number, SeGrain>([0, 3, 4095, 4096, 8191, 8192, 9000].map((n) => grain(14, n, 8))),
    firstGrain: 4093,
  };
  const files = {
    'web01.vmdk': descriptor({
      createType: 'seSparse',
      extents: [`RW ${layout.capacitySectors} SESPARSE "web01-sesparse.vmdk"`],
    }),
    'web01-sesparse.vmdk': buildSeSparse(layout).bytes,
  };
  return built({
    title: 'seSparse, grain numbers over 4,096',
    made: SE_SPARSE,
    files,
    leaf: 'web01.vmdk',
    disk: se(layout),
  });
}

/** The flat names of VMFS, which QEMU reads under `vmfs` only. */
function flatNamed(createType: string): Entry {
  const disk = scattered(15, 300 * SECTOR, 5);
  const files = {
    'web01.vmdk': descriptor({ createType, extents: ['RW 300 VMFS "web01-flat.vmdk"'] }),
    'web01-flat.vmdk': disk,
  };
  return built({ title: createType, made: SPARSE, files, leaf: 'web01.vmdk', disk }, (descriptor) =>
    descriptor.replace(createType, 'vmfs'),
  );
}

/** Every kind of extent in one disk. QEMU reads it under another name, and no ZERO extent. */
function custom(): Entry {
  const flat = text(16, 0, 96 * SECTOR);
  const plain = { ...small, capacitySectors: 256, grains: new Map([grain(17, 0, 16), grain(17, 9, 16)]) };
  const packed = { capacitySectors: 256, grainSectors: 32, grains: new Map([grain(18, 0, 32), grain(18, 7, 32)]) };
  const cowd = { capacitySectors: 80, grainSectors: 4, grains: new Map([grain(19, 0, 4), grain(19, 19, 4)]) };
  const sesparse = { capacitySectors: 64, grains: new Map<number, SeGrain>([grain(20, 1, 8), grain(20, 7, 8)]) };
  const extents = [
    'RW 96 FLAT "web01-f001.vmdk" 8',
    'RW 256 SPARSE "web01-s002.vmdk"',
    'RW 256 SPARSE "web01-s003.vmdk"',
    'RW 80 VMFSSPARSE "web01-delta.vmdk"',
    'RW 64 SESPARSE "web01-sesparse.vmdk"',
  ];
  const files = {
    'web01.vmdk': descriptor({ createType: 'custom', extents }),
    'web01-f001.vmdk': Buffer.concat([Buffer.alloc(8 * SECTOR, 1), flat]),
    'web01-s002.vmdk': buildSparse(plain).bytes,
    'web01-s003.vmdk': buildStream({ ...packed, lba: (n) => 96 + 256 + n * 32, directoryInHeader: true }).bytes,
    'web01-delta.vmdk': buildCowd(cowd).bytes,
    'web01-sesparse.vmdk': buildSeSparse(sesparse).bytes,
  };
  const disk = Buffer.concat([flat, modelOf(plain), modelOf(packed), modelOf(cowd), se(sesparse)]);
  const entry = built(
    { title: 'custom: every kind of extent', made: SPARSE, files, leaf: 'web01.vmdk', disk },
    (descriptor) => descriptor.replace('"custom"', '"twoGbMaxExtentSparse"'),
  );
  const zero = descriptor({ createType: 'custom', extents: [...extents, 'RW 10 ZERO'] });
  return { ...entry, files: { ...files, 'web01.vmdk': zero }, disk: Buffer.concat([disk, Buffer.alloc(10 * SECTOR)]) };
}

writeGolden(
  'vmdk',
  [
    byQemu('monolithicSparse', 'subformat=monolithicSparse', 3 * MIB + 5 * 512),
    byQemu('monolithicFlat', 'subformat=monolithicFlat', 2 * MIB),
    byQemu('twoGbMaxExtentSparse', 'subformat=twoGbMaxExtentSparse', 2 * MIB),
    byQemu('twoGbMaxExtentFlat', 'subformat=twoGbMaxExtentFlat', MIB + 512),
    byQemu('streamOptimized, as QEMU writes it', 'subformat=streamOptimized', 5 * MIB + 3 * 512),
    qemuChain(),
    stream('streamOptimized, directory behind a footer', {}),
    stream('streamOptimized, version 1', { version: 1 }),
    ruinedTable(),
    esxChain(),
    seSparseAlone(),
    ...['vmfsThin', 'vmfsEagerZeroedThick', 'vmfsPreallocated'].map(flatNamed),
    custom(),
  ],
  out,
);

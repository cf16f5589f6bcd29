/** VMDKs written and read by QEMU: what it writes we read the same, what our builder writes it reads as we do. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openChain } from '../../main/engine/chain/open.ts';
import { openLayer } from '../../main/engine/image/formats.ts';
import type { LayerRun } from '../../main/engine/image/image.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';
import { runAsync } from '../../main/engine/storage/io.ts';
import { expectCover, findings } from '../conformance/image-layer.ts';
import { hashLayer } from '../support/hash.ts';
import { describePeers, run } from '../support/peers.ts';
import { randomFrom } from '../support/random.ts';
import { imageFolders, leavesUntouched, scratchFolder, sha256File } from '../support/scratch.ts';
import {
  buildCowd,
  buildSparse,
  descriptorText,
  type Grain,
  modelOf,
  pattern,
  SECTOR,
  writeCowdDisk,
} from '../support/vmdk-builder.ts';
import { buildSeSparse, type SeGrain, writeSeSparseDisk } from '../support/vmdk-sesparse-builder.ts';
import { buildStream, writeStreamDisk } from '../support/vmdk-stream-builder.ts';

const MIB = 1 << 20;

function convert(image: string, raw: string): string {
  run('qemu-img', ['convert', '-f', 'vmdk', '-O', 'raw', image, raw]);
  return sha256File(raw);
}

async function kindAt(path: string, folder: string, offset: number): Promise<LayerRun['kind']> {
  const layer = await openLayer(path, new Confinement(folder));
  try {
    return (await runAsync(layer.runs(offset, 1)))[0]!.kind;
  } finally {
    await layer.close();
  }
}

describePeers('VMDK and QEMU', { peers: ['qemu-img', 'qemu-io'] }, () => {
  const scratch = scratchFolder('peers-vmdk');
  const fresh = imageFolders(scratch);

  /** Writes of known bytes at odd and even places, the ends of the disk and of 2 GB extents among them. */
  function writes(size: number, seed: number): string[] {
    const random = randomFrom(seed);
    const commands: string[] = [];
    const write = (offset: number, length: number) => {
      if (offset >= 0 && length > 0 && offset + length <= size) {
        commands.push('-c', `write -P ${1 + Math.floor(random() * 254)} ${offset} ${length}`);
      }
    };
    write(0, 4096);
    write(size - 512, 512);
    for (let end = 2 ** 31; end < size; end += 2 ** 31) write(end - 70_000 + (70_000 % 512), 140_288);
    for (let i = 0; i < 25; i++) {
      write(Math.floor((random() * size) / 512) * 512, 512 * (1 + Math.floor(random() ** 4 * 2000)));
    }
    return commands;
  }

  it.each([
    ['monolithicSparse', 'off', 100 * MIB],
    ['monolithicSparse', 'on', 100 * MIB],
    // An end inside a grain, an end inside a table, and a capacity that is no power of anything.
    ['monolithicSparse', 'off', 37 * MIB + 5 * 512],
    ['monolithicSparse', 'on', 3 * MIB + 512],
    ['monolithicFlat', 'off', 64 * MIB],
    ['twoGbMaxExtentSparse', 'off', 100 * MIB],
    ['twoGbMaxExtentSparse', 'on', 4096 * MIB + 512],
    ['twoGbMaxExtentFlat', 'off', 2050 * MIB],
  ] as const)('reads what qemu-img writes: %s, zeroed grains %s, %i bytes', async (subformat, zeroed, size) => {
    const { folder, raw } = fresh();
    const image = join(folder, 'web 01.vmdk');
    const sparse = subformat.endsWith('Sparse');
    const options = [`subformat=${subformat}`, ...(sparse ? [`zeroed_grain=${zeroed}`] : [])].join(',');
    run('qemu-img', ['create', '-q', '-f', 'vmdk', '-o', options, image, String(size)]);
    const zeroes = zeroed === 'on' ? ['-c', `write -z 0 ${64 * 1024 * 8}`, '-c', `write -P 7 65536 512`] : [];
    run('qemu-io', ['-f', 'vmdk', ...writes(size, size % 1000), ...zeroes, image]);
    const expected = convert(image, raw);
    await leavesUntouched(folder, async () => {
      expect(await hashLayer(image, folder)).toBe(expected);
      const layer = await openLayer(image, new Confinement(folder));
      expect(layer).toMatchObject({ format: 'vmdk', variant: subformat, virtualSize: size, parent: undefined });
      expect(layer.id).toMatch(/^[0-9a-f]{8}$/);
      expectCover(await runAsync(layer.runs(0, size)), 0, size);
      expect((await findings(layer)).filter(({ severity }) => severity !== 'note')).toEqual([]);
      expect(layer.files.map(({ name }) => name).sort()).toEqual(readdirSync(folder).sort());
      await layer.close();
    });
    if (zeroed === 'on') {
      expect(await kindAt(image, folder, 3 * 65_536)).toBe('zero');
      expect(await kindAt(image, folder, 65_536)).toBe('data');
    }
  });

  it('reads a snapshot of a snapshot layer by layer', async () => {
    const { folder, raw } = fresh();
    const names = ['base', 'one', 'two'].map((name) => join(folder, `${name}.vmdk`));
    run('qemu-img', ['create', '-q', '-f', 'vmdk', names[0]!, '50M']);
    for (const [i, name] of names.entries()) {
      if (i > 0) {
        const parts = ['-o', 'zeroed_grain=on', '-b', names[i - 1]!.split('/').at(-1)!, '-F', 'vmdk'];
        run('qemu-img', ['create', '-q', '-f', 'vmdk', ...parts, name]);
      }
      run('qemu-io', ['-f', 'vmdk', ...writes(50 * MIB, i), '-c', `write -z ${(10 + i) * MIB} 1M`, name]);
    }
    const expected = convert(names[2]!, raw);
    const layers = await Promise.all(names.map((name) => openLayer(name, new Confinement(folder))));
    for (const i of [1, 2]) {
      expect(layers[i]!.parent).toEqual({ recorded: names[i - 1]!.split('/').at(-1), id: layers[i - 1]!.id });
    }
    // Laid over each other by the rule: data and zero hide what is below, absent does not.
    const disk = Buffer.alloc(50 * MIB);
    for (const layer of layers) {
      for (const part of await runAsync(layer.runs(0, disk.length))) {
        if (part.kind === 'zero') disk.fill(0, part.offset, part.offset + part.length);
        if (part.kind === 'data') disk.set(await part.source.read(part.position, part.length), part.offset);
      }
      await layer.close();
    }
    expect(createHash('sha256').update(disk).digest('hex')).toBe(expected);
    expect(await kindAt(names[2]!, folder, 12 * MIB + 4096)).toBe('zero');
  });

  it.each([
    ['grains of one sector', 1, 4096 * 5 + 100],
    ['grains of 16 sectors', 16, 4096 * 16 * 2 + 16],
    ['an end inside a grain', 8, 4096 * 8 + 3],
  ])('QEMU reads the builder’s COWD as we do: %s', async (_what, grainSectors, capacitySectors) => {
    const { folder, raw } = fresh();
    const random = randomFrom(grainSectors);
    const grains = new Map<number, Grain>();
    const count = Math.ceil(capacitySectors / grainSectors);
    for (let i = 0; i < 400; i++) {
      const n = i === 0 ? count - 1 : Math.floor(random() * count);
      grains.set(n, pattern(n * grainSectors * SECTOR, grainSectors * SECTOR, i));
    }
    const options = { capacitySectors, grainSectors, grains };
    writeCowdDisk(folder, 'web01-000001', options);
    const image = join(folder, 'web01-000001.vmdk');
    const expected = convert(image, raw);
    await leavesUntouched(folder, async () => {
      expect(await hashLayer(image, folder)).toBe(expected);
    });
    const model = modelOf(options).subarray(0, capacitySectors * SECTOR);
    expect(createHash('sha256').update(model).digest('hex')).toBe(expected);
  });

  it('QEMU reads a COWD over a parent of its own, and so do we', async () => {
    const { folder, raw } = fresh();
    const base = join(folder, 'web01.vmdk');
    run('qemu-img', ['create', '-q', '-f', 'vmdk', '-o', 'subformat=monolithicFlat', base, '4M']);
    run('qemu-io', ['-f', 'vmdk', '-c', 'write -P 9 0 4M', base]);
    const cid = /^CID=([0-9a-f]+)/m.exec(readFileSync(base, 'utf8'))![1]!;
    const grains = new Map<number, Grain>([5, 6, 8000].map((n) => [n, pattern(n * SECTOR, SECTOR)]));
    writeCowdDisk(
      folder,
      'web01-000001',
      { capacitySectors: 8192, grains },
      { parentCid: cid, parentFileNameHint: 'web01.vmdk' },
    );
    const expected = convert(join(folder, 'web01-000001.vmdk'), raw);
    const disk = Buffer.alloc(4 * MIB, 9);
    for (const [n, content] of grains) (content as Buffer).copy(disk, n * SECTOR);
    expect(createHash('sha256').update(disk).digest('hex')).toBe(expected);
    const layer = await openLayer('web01-000001.vmdk', new Confinement(folder));
    expect(layer.parent).toEqual({ recorded: 'web01.vmdk', id: cid.padStart(8, '0') });
    expect((await runAsync(layer.runs(0, 4 * MIB))).map(({ kind, length }) => [kind, length / SECTOR])).toEqual([
      ['absent', 5],
      ['data', 2],
      ['absent', 7993],
      ['data', 1],
      ['absent', 191],
    ]);
    await layer.close();
  });

  it('QEMU reads a chain as ESX keeps it (vmfs under vmfsSparse), and so do we at every depth', async () => {
    const { folder, raw } = fresh();
    const capacitySectors = 4096 * 6 + 8;
    const flat = pattern(0, capacitySectors * SECTOR, 7);
    writeFileSync(join(folder, 'web01-flat.vmdk'), flat);
    const extents = [`RW ${capacitySectors} VMFS "web01-flat.vmdk"`];
    writeFileSync(join(folder, 'web01.vmdk'), descriptorText({ createType: 'vmfs', cid: '0000000a', extents }));
    const disk = Buffer.from(flat);
    const expected = [createHash('sha256').update(disk).digest('hex')];
    const names = ['web01.vmdk'];
    for (let link = 1; link <= 2; link++) {
      const random = randomFrom(link);
      const grains = new Map<number, Grain>();
      for (let i = 0; i < 300; i++) {
        const n = Math.floor(random() * capacitySectors);
        const content = pattern(n * SECTOR, SECTOR, 100 * link);
        grains.set(n, content);
        content.copy(disk, n * SECTOR);
      }
      const parts = {
        cid: `0000000${'abc'[link]}`,
        parentCid: `0000000${'abc'[link - 1]}`,
        parentFileNameHint: names.at(-1)!,
      };
      writeCowdDisk(folder, `web01-00000${link}`, { capacitySectors, grains }, parts);
      names.push(`web01-00000${link}.vmdk`);
      expected.push(createHash('sha256').update(disk).digest('hex'));
    }
    await leavesUntouched(folder, async () => {
      for (const [depth, name] of names.entries()) {
        expect(convert(join(folder, name), raw)).toBe(expected[depth]);
        const chain = await openChain(name, new Confinement(folder));
        const bytes = await chain.read(0, chain.size);
        await chain.close();
        expect(chain.layers.map(({ variant }) => variant).at(-1)).toBe('vmfs');
        expect(createHash('sha256').update(bytes).digest('hex')).toBe(expected[depth]);
      }
    });
  });

  it('QEMU reads the builder’s hosted sparse extents as we do', async () => {
    const { folder, raw } = fresh();
    // QEMU reads past an extent that ends inside a grain, so only the last one here does.
    const parts = [1024, 700].map((capacitySectors, part) => ({
      capacitySectors,
      grainSectors: 16,
      entriesPerTable: 32,
      zeroedGrains: true,
      grains: new Map<number, Grain>([
        ...[0, 3, 33, 42].map((n): [number, Grain] => [n, pattern(n, 16 * SECTOR, part)]),
        [4, 'zero'],
      ]),
    }));
    for (const [i, part] of parts.entries()) writeFileSync(join(folder, `d-s00${i + 1}.vmdk`), buildSparse(part).bytes);
    const extents = parts.map((part, i) => `RW ${part.capacitySectors} SPARSE "d-s00${i + 1}.vmdk"`);
    writeFileSync(join(folder, 'd.vmdk'), descriptorText({ createType: 'twoGbMaxExtentSparse', extents }));
    const expected = convert(join(folder, 'd.vmdk'), raw);
    expect(await hashLayer('d.vmdk', folder)).toBe(expected);
    const model = Buffer.concat(parts.map(modelOf));
    expect(createHash('sha256').update(model).digest('hex')).toBe(expected);
  });

  it.each([
    // An end inside a grain, an end inside a table, one grain.
    [40 * MIB + 5 * 512],
    [97 * MIB],
    [65_536],
    [4096],
  ])('reads the streamOptimized that qemu-img writes, %i bytes', async (size) => {
    const { folder, raw } = fresh();
    const random = randomFrom(size);
    const disk = Buffer.alloc(size);
    for (let i = 0; i < 60; i++) {
      const at = Math.floor((random() * size) / 512) * 512;
      const content = pattern(at, Math.min(512 * (1 + Math.floor(random() ** 4 * 3000)), size - at), i);
      // Some of it can be packed, some can't.
      if (i % 2 === 0) content.fill(i, content.length >> 2);
      content.copy(disk, at);
    }
    pattern(0, 512).copy(disk, size - 512);
    writeFileSync(raw, disk);
    const image = join(folder, 'web01.vmdk');
    run('qemu-img', ['convert', '-f', 'raw', '-O', 'vmdk', '-o', 'subformat=streamOptimized', raw, image]);
    const expected = createHash('sha256').update(disk).digest('hex');
    expect(convert(image, raw)).toBe(expected);
    await leavesUntouched(folder, async () => {
      expect(await hashLayer(image, folder)).toBe(expected);
      for (const synchronous of [true, false]) {
        const chain = await openChain(image, new Confinement(folder, { synchronous }), { synchronous });
        expect(chain.layers[0]).toMatchObject({ variant: 'streamOptimized', virtualSize: size });
        expect(
          createHash('sha256')
            .update(await chain.read(0, size))
            .digest('hex'),
        ).toBe(expected);
        expect((await findings(chain.layers[0]!)).filter(({ severity }) => severity !== 'note')).toEqual([]);
        await chain.close();
      }
    });
  });

  it.each([
    ['a footer', {}],
    ['a footer, and markers of version 1', { version: 1 }],
    ['zeroed grains and the directory in the header', { directoryInHeader: true, zeroedGrains: true }],
    ['no markers', { directoryInHeader: true, markers: false }],
  ])('QEMU reads the builder’s streamOptimized as we do: %s', async (_what, options) => {
    const { folder, raw } = fresh();
    const layout = {
      capacitySectors: 128 * 700,
      grainSectors: 128,
      grains: new Map<number, Grain>([
        // Half of each is packed well: without markers, QEMU reads no more than a grain's length of a stored grain.
        ...[0, 1, 2, 64, 511, 512, 699].map((n): [number, Grain] => [
          n,
          pattern(n * 65_536, 65_536, n).fill(n, 32_768),
        ]),
        ...('zeroedGrains' in options ? ([[5, 'zero']] as [number, Grain][]) : []),
      ]),
      ...options,
    };
    writeStreamDisk(folder, 'd', layout);
    const expected = createHash('sha256').update(modelOf(layout)).digest('hex');
    expect(convert(join(folder, 'd.vmdk'), raw)).toBe(expected);
    expect(await hashLayer('d.vmdk', folder)).toBe(expected);
  });

  it('QEMU reads a streamOptimized over a parent, and so do we', async () => {
    const { folder, raw } = fresh();
    const base = join(folder, 'base.vmdk');
    run('qemu-img', ['create', '-q', '-f', 'vmdk', base, '16M']);
    run('qemu-io', ['-f', 'vmdk', '-c', 'write -P 9 0 16M', base]);
    const cid = /^CID=([0-9a-f]+)/m.exec(readFileSync(base, 'latin1'))![1]!;
    const grains = new Map<number, Grain>([0, 7, 255].map((n) => [n, pattern(n * 65_536, 65_536, n)]));
    writeStreamDisk(
      folder,
      'd',
      { capacitySectors: 32_768, grains },
      { parentCid: cid, parentFileNameHint: 'base.vmdk' },
    );
    const disk = Buffer.alloc(16 * MIB, 9);
    for (const [n, content] of grains) (content as Buffer).copy(disk, n * 65_536);
    const expected = createHash('sha256').update(disk).digest('hex');
    expect(convert(join(folder, 'd.vmdk'), raw)).toBe(expected);
    const chain = await openChain('d.vmdk', new Confinement(folder));
    expect(
      createHash('sha256')
        .update(await chain.read(0, chain.size))
        .digest('hex'),
    ).toBe(expected);
    await chain.close();
  });

  it.each([
    ['the first numbers', 0],
    ['numbers with both parts in use', 4090],
  ])('QEMU reads the builder’s seSparse, alone and over a parent, as we do: %s', async (_what, firstGrain) => {
    const { folder, raw } = fresh();
    const capacitySectors = 8 * 9000;
    const flat = pattern(0, capacitySectors * SECTOR, 7);
    writeFileSync(join(folder, 'web01-flat.vmdk'), flat);
    const extents = [`RW ${capacitySectors} VMFS "web01-flat.vmdk"`];
    writeFileSync(join(folder, 'web01.vmdk'), descriptorText({ createType: 'vmfs', cid: '0000000a', extents }));
    const random = randomFrom(firstGrain + 1);
    const grains = new Map<number, SeGrain>([
      [17, 'zero'],
      [18, 'unmapped'],
    ]);
    for (let i = 0; i < 300; i++) {
      const n = 20 + Math.floor(random() * 8980);
      grains.set(n, pattern(n * 4096, 4096, i));
    }
    const options = { capacitySectors, grains, firstGrain };
    writeSeSparseDisk(folder, 'alone', options);
    const parent = { parentCid: '0000000a', parentFileNameHint: 'web01.vmdk' };
    writeSeSparseDisk(folder, 'web01-000001', options, parent);
    await leavesUntouched(folder, async () => {
      for (const [name, disk] of [
        ['alone.vmdk', Buffer.alloc(flat.length)],
        ['web01-000001.vmdk', Buffer.from(flat)],
      ] as const) {
        for (const [n, content] of grains) {
          if (Buffer.isBuffer(content)) content.copy(disk, n * 4096);
          else disk.fill(0, n * 4096, (n + 1) * 4096);
        }
        const expected = createHash('sha256').update(disk).digest('hex');
        expect(convert(join(folder, name), raw), name).toBe(expected);
        const chain = await openChain(name, new Confinement(folder));
        expect(
          createHash('sha256')
            .update(await chain.read(0, chain.size))
            .digest('hex'),
          name,
        ).toBe(expected);
        expect((await findings(chain.layers[0]!)).filter(({ severity }) => severity !== 'note')).toEqual([]);
        await chain.close();
      }
    });
  });

  it('QEMU reads a mix of all kinds of extents, under a name it knows, as we do', async () => {
    const { folder, raw } = fresh();
    const grain = (n: number, sectors: number): [number, Buffer] => [
      n,
      pattern(n * sectors * SECTOR, sectors * SECTOR, sectors),
    ];
    const flat = pattern(0, 96 * SECTOR, 3);
    writeFileSync(join(folder, 'd-f001.vmdk'), Buffer.concat([Buffer.alloc(8 * SECTOR, 1), flat]));
    const plain = {
      capacitySectors: 256,
      grainSectors: 16,
      grains: new Map<number, Grain>([grain(0, 16), grain(9, 16)]),
    };
    const packed = { ...plain, grainSectors: 32, grains: new Map<number, Grain>([grain(0, 32), grain(7, 32)]) };
    const cowd = { capacitySectors: 80, grainSectors: 4, grains: new Map<number, Grain>([grain(0, 4), grain(19, 4)]) };
    const se = { capacitySectors: 64, grains: new Map<number, SeGrain>([grain(1, 8), grain(7, 8)]) };
    writeFileSync(join(folder, 'd-s002.vmdk'), buildSparse(plain).bytes);
    writeFileSync(join(folder, 'd-s003.vmdk'), buildStream({ ...packed, directoryInHeader: true }).bytes);
    writeFileSync(join(folder, 'd-delta.vmdk'), buildCowd(cowd).bytes);
    writeFileSync(join(folder, 'd-sesparse.vmdk'), buildSeSparse(se).bytes);
    const extents = [
      'RW 96 FLAT "d-f001.vmdk" 8',
      'RW 256 SPARSE "d-s002.vmdk"',
      'RW 256 SPARSE "d-s003.vmdk"',
      'RW 80 VMFSSPARSE "d-delta.vmdk"',
      'RW 64 SESPARSE "d-sesparse.vmdk"',
    ];
    writeFileSync(join(folder, 'd.vmdk'), descriptorText({ createType: 'custom', extents }));
    writeFileSync(join(folder, 'q.vmdk'), descriptorText({ createType: 'twoGbMaxExtentSparse', extents }));
    const model = Buffer.concat([
      flat,
      modelOf(plain),
      modelOf(packed),
      modelOf(cowd),
      modelOf({ ...(se as typeof plain), grainSectors: 8 }),
    ]);
    const expected = createHash('sha256').update(model).digest('hex');
    expect(convert(join(folder, 'q.vmdk'), raw)).toBe(expected);
    expect(await hashLayer('d.vmdk', folder)).toBe(expected);
    expect(await hashLayer('q.vmdk', folder)).toBe(expected);
  });

  it.each(['vmfsThin', 'vmfsEagerZeroedThick', 'vmfsPreallocated', '2GbMaxExtentFlat'])(
    'reads %s as QEMU reads the same files under a name it knows',
    async (createType) => {
      const { folder, raw } = fresh();
      writeFileSync(join(folder, 'd-flat.vmdk'), pattern(0, 300 * SECTOR));
      const extents = ['RW 300 VMFS "d-flat.vmdk"'];
      writeFileSync(join(folder, 'd.vmdk'), descriptorText({ createType, extents }));
      writeFileSync(join(folder, 'q.vmdk'), descriptorText({ createType: 'vmfs', extents }));
      expect(await hashLayer('d.vmdk', folder)).toBe(convert(join(folder, 'q.vmdk'), raw));
    },
  );

  it.each(['qed'])('refuses %s by name', async (format) => {
    const { folder } = fresh();
    const image = join(folder, 'disk.img');
    run('qemu-img', ['create', '-q', '-f', format, image, '64M']);
    await expect(openLayer(image, new Confinement(folder))).rejects.toMatchObject({ kind: 'unsupported' });
  });
});

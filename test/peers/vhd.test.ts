/**
 * VHDs written and read by QEMU, 7-Zip and libvhdi. QEMU opens a differencing VHD and ignores its parent, so it is asked about
 * fixed and dynamic ones only; for chains 7-Zip and libvhdi are the peers, and what the builder put in.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openChain } from '../../main/engine/chain/open.ts';
import { verifyChain } from '../../main/engine/chain/verify.ts';
import { openLayer } from '../../main/engine/image/formats.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';
import { runAsync } from '../../main/engine/storage/io.ts';
import { expectCover, findings } from '../conformance/image-layer.ts';
import { hashChain, sha256 } from '../support/hash.ts';
import { missingLibvhdi, readWithLibvhdi } from '../support/libvhdi.ts';
import { describePeers, run } from '../support/peers.ts';
import { randomFrom } from '../support/random.ts';
import { imageFolders, leavesUntouched, scratchFolder, sha256File } from '../support/scratch.ts';
import {
  buildFixed,
  buildVhd,
  SECTOR,
  sectorContent,
  sectorRange,
  type VhdOptions,
  vhdModel,
  windowsLocator,
} from '../support/vhd-builder.ts';
import { worseOf } from '../support/vhd-open.ts';

const MIB = 1 << 20;

const idOf = (n: number): string => `1c0ffee0-000${n.toString(16)}-4000-8000-00000000beef`;

async function verified(leaf: string, folder: string): Promise<string[]> {
  const found = [];
  for await (const finding of verifyChain(leaf, new Confinement(folder))) found.push(finding);
  return worseOf(found);
}

function convert(image: string, raw: string): string {
  run('qemu-img', ['convert', '-f', 'vpc', '-O', 'raw', image, raw]);
  return sha256File(raw);
}

/** Links over each other with random stretches of sectors, each beginning and ending at a multiple of `align`. */
function writeChain(
  folder: string,
  links: number,
  options: { size: number; blockSize?: number; align: number; seed: number },
): { leaf: string; disk: Buffer }[] {
  const random = randomFrom(options.seed);
  const sectors = options.size / SECTOR;
  const points: { leaf: string; disk: Buffer }[] = [];
  for (let i = 0; i < links; i++) {
    const content = new Map<number, Buffer>();
    for (let n = 0; n < 12; n++) {
      const first = Math.floor((random() * sectors) / options.align) * options.align;
      const end = first + options.align * (1 + Math.floor(random() ** 4 * 60));
      for (let s = first; s < Math.min(end, sectors); s++) content.set(s, sectorContent(s, i));
    }
    const below = points.at(-1);
    const parent =
      below === undefined
        ? {}
        : {
            parent: {
              id: idOf(i - 1),
              name: below.leaf,
              locators: [windowsLocator('W2ku', `C:\\VMs\\${below.leaf}`), windowsLocator('W2ru', `.\\${below.leaf}`)],
            },
          };
    const image: VhdOptions = { size: options.size, id: idOf(i), sectors: content, backwards: i % 2 === 1, ...parent };
    if (options.blockSize !== undefined) image.blockSize = options.blockSize;
    const leaf = `disk-${i}.vhd`;
    writeFileSync(join(folder, leaf), buildVhd(image).bytes);
    points.push({ leaf, disk: vhdModel(image, below?.disk) });
  }
  return points;
}

describePeers('VHD and QEMU', { peers: ['qemu-img', 'qemu-io'] }, () => {
  const scratch = scratchFolder('peers-vhd');
  const fresh = imageFolders(scratch);

  /** Writes of known bytes at odd and even places, the ends of the disk and of blocks among them. */
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
    write(2 * MIB - 512, 1024);
    for (let i = 0; i < 25; i++) {
      write(Math.floor((random() * size) / 512) * 512, 512 * (1 + Math.floor(random() ** 4 * 5000)));
    }
    return commands;
  }

  it.each([
    ['fixed', 'off', 10 * MIB],
    ['fixed', 'on', 10 * MIB + 3 * 512],
    ['dynamic', 'off', 100 * MIB],
    ['dynamic', 'on', 64 * MIB],
    // An end inside a block, and a disk smaller than one.
    ['dynamic', 'on', 37 * MIB + 5 * 512],
    ['dynamic', 'on', 3 * 512],
    // More than one page of the table, and more than the largest geometry.
    ['dynamic', 'on', 200 * 1024 * MIB],
  ] as const)('reads what qemu-img writes: %s, force_size=%s, %i bytes', async (subformat, force, asked) => {
    const { folder, raw } = fresh();
    const image = join(folder, 'web 01.vhd');
    run('qemu-img', [
      'create',
      '-q',
      '-f',
      'vpc',
      '-o',
      `subformat=${subformat},force_size=${force}`,
      image,
      `${asked}`,
    ]);
    const { 'virtual-size': size } = JSON.parse(run('qemu-img', ['info', '--output=json', '-f', 'vpc', image])) as {
      'virtual-size': number;
    };
    // Without force_size QEMU makes the disk as large as the next geometry.
    expect(size).toBeGreaterThanOrEqual(asked);
    const far = asked > 1024 * MIB;
    run('qemu-io', [
      '-f',
      'vpc',
      ...(far ? ['-c', `write -P 7 ${size - 4096} 4096`] : writes(asked, asked % 1000)),
      image,
    ]);
    await leavesUntouched(folder, async () => {
      const layer = await openLayer(image, new Confinement(folder));
      expect(layer).toMatchObject({ format: 'vhd', variant: subformat, virtualSize: size, parent: undefined });
      expect(layer.id).toMatch(/^[0-9a-f]{8}-/);
      expectCover(await runAsync(layer.runs(0, size)), 0, size);
      expect(worseOf(await findings(layer))).toEqual([]);
      await layer.close();
      if (far) {
        const disk = await openChain(image, new Confinement(folder));
        expect(sha256(await disk.read(size - 8192, 8192))).toBe(
          sha256(Buffer.concat([Buffer.alloc(4096), Buffer.alloc(4096, 7)])),
        );
        await disk.close();
      } else {
        expect(await hashChain(image, folder)).toBe(convert(image, raw));
      }
    });
  });

  it.each<[string, Partial<VhdOptions>]>([
    ['of Windows', {}],
    ['of XenServer, with a batmap', { creator: 'tap\0', creatorVersion: 0x10003, creatorHost: 0, batmap: true }],
    ['with blocks of 512 KiB, the last first', { blockSize: 512 << 10, backwards: true }],
    ['with an end inside a block', { size: 5 * MIB + 3 * SECTOR, markBehindEnd: true }],
    ['with a larger table', { tableEntries: 4000 }],
  ])('QEMU reads the builder’s dynamic disks as we do: %s', async (_, more) => {
    const { folder, raw } = fresh();
    const sectors = new Map([...sectorRange(0, 4096), ...sectorRange(9000, 300), ...sectorRange(10_239, 1)]);
    const options = { size: 6 * MIB, sectors, ...more };
    writeFileSync(join(folder, 'disk.vhd'), buildVhd(options).bytes);
    const expected = convert(join(folder, 'disk.vhd'), raw);
    expect(await hashChain('disk.vhd', folder)).toBe(expected);
    expect(sha256(vhdModel(options))).toBe(expected);
  });

  it('QEMU reads the builder’s fixed disks as we do', async () => {
    const { folder, raw } = fresh();
    const content = vhdModel({ size: MIB, sectors: new Map(sectorRange(0, 2048)) });
    writeFileSync(join(folder, 'disk.vhd'), buildFixed(content));
    expect(convert(join(folder, 'disk.vhd'), raw)).toBe(sha256(content));
    expect(await hashChain('disk.vhd', folder)).toBe(sha256(content));
  });

  it('QEMU shows the geometry of some creators, where we show the size that the footer records', async () => {
    const { folder } = fresh();
    const options = { size: 6 * MIB, sectors: new Map(sectorRange(0, 8)), geometry: [180, 4, 17] as const };
    const shown = 180 * 4 * 17 * SECTOR;
    for (const [creator, expected] of [
      ['vpc ', shown],
      ['win ', options.size],
    ] as const) {
      writeFileSync(join(folder, 'disk.vhd'), buildVhd({ ...options, creator }).bytes);
      const info = JSON.parse(run('qemu-img', ['info', '--output=json', '-f', 'vpc', join(folder, 'disk.vhd')]));
      expect(info['virtual-size']).toBe(expected);
      const layer = await openLayer('disk.vhd', new Confinement(folder));
      expect(layer.virtualSize).toBe(options.size);
      await layer.close();
    }
  });
});

describePeers('VHD chains and 7-Zip', { peers: ['7z'] }, () => {
  const scratch = scratchFolder('peers-vhd-7z');
  const fresh = imageFolders(scratch);
  const sevenZip = (image: string): string =>
    sha256(
      execFileSync('7z', ['x', '-so', '-tVHD', image], { maxBuffer: 1 << 30, stdio: ['ignore', 'pipe', 'ignore'] }),
    );

  it.each([
    ['blocks of 2 MiB, five links', 5, { size: 13 * MIB + 3 * SECTOR, align: 1, seed: 1 }],
    ['blocks of 512 KiB, four links', 4, { size: 3 * MIB, blockSize: 512 << 10, align: 1, seed: 2 }],
    ['blocks of 4 MiB, three links', 3, { size: 9 * MIB, blockSize: 4 << 20, align: 1, seed: 3 }],
  ] as const)('7-Zip reads a chain as we do, at every depth: %s', async (_, links, options) => {
    const { folder } = fresh();
    const points = writeChain(folder, links, options);
    await leavesUntouched(folder, async () => {
      for (const { leaf, disk } of points) {
        expect(sha256(disk), leaf).toBe(sevenZip(join(folder, leaf)));
        expect(await hashChain(leaf, folder), leaf).toBe(sha256(disk));
      }
      expect(await verified(points.at(-1)!.leaf, folder)).toEqual([]);
    });
  });

  it('7-Zip reads a chain over a base by QEMU as we do', async () => {
    const { folder } = fresh();
    const base = join(folder, 'base.vhd');
    run('qemu-img', ['create', '-q', '-f', 'vpc', '-o', 'subformat=dynamic,force_size=on', base, '9M']);
    run('qemu-io', ['-f', 'vpc', '-c', 'write -P 17 1M 3M', '-c', 'write -P 18 8M 1M', base]);
    const id = readFileSync(base)
      .subarray(68, 84)
      .toString('hex')
      .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
    const sectors = new Map([...sectorRange(0, 3), ...sectorRange(4000, 200), ...sectorRange(17_000, 5)]);
    const parent = { id, name: 'base.vhd', locators: [windowsLocator('W2ru', '.\\base.vhd')] };
    writeFileSync(join(folder, 'child.vhd'), buildVhd({ size: 9 * MIB, sectors, parent }).bytes);
    expect(await hashChain('child.vhd', folder)).toBe(sevenZip(join(folder, 'child.vhd')));
    expect(await verified('child.vhd', folder)).toEqual([]);
  });
});

describePeers('VHD chains and libvhdi', { peers: ['vhdiinfo'], reasons: [missingLibvhdi()] }, () => {
  const scratch = scratchFolder('peers-vhd-libvhdi');
  const fresh = imageFolders(scratch);
  const libvhdi = (raw: string, ...images: string[]): string => sha256(readWithLibvhdi(images, raw));

  /**
   * Stretches are whole bytes of the bitmap: libvhdi 20210425 takes the sectors up to the next multiple of eight for marked and
   * shows what the file has in their place.
   */
  it('libvhdi reads two links as we do', async () => {
    const { folder, raw } = fresh();
    const points = writeChain(folder, 2, { size: 13 * MIB, align: 8, seed: 4 });
    const expected = points.map(({ disk }) => sha256(disk));
    expect(libvhdi(raw, join(folder, 'disk-0.vhd'))).toBe(expected[0]);
    expect(libvhdi(raw, join(folder, 'disk-1.vhd'), join(folder, 'disk-0.vhd'))).toBe(expected[1]);
    expect(await hashChain('disk-0.vhd', folder)).toBe(expected[0]);
    expect(await hashChain('disk-1.vhd', folder)).toBe(expected[1]);
  });

  it('vhdiinfo says the same of a differencing disk', async () => {
    const { folder } = fresh();
    writeChain(folder, 2, { size: 4 * MIB, align: 8, seed: 5 });
    const info = run('vhdiinfo', [join(folder, 'disk-1.vhd')]);
    const layer = await openLayer('disk-1.vhd', new Confinement(folder));
    const value = (name: string) => new RegExp(`^\\s*${name}\\s*: (.*)$`, 'm').exec(info)?.[1];
    expect(value('Disk type')).toBe('Differential');
    expect(value('Media size')).toContain(`(${layer.virtualSize} bytes)`);
    expect(value('Identifier')).toBe(layer.id);
    expect(value('Parent identifier')).toBe(layer.parent?.id);
    expect(value('Parent filename')).toBe('disk-0.vhd');
    await layer.close();
  });
});

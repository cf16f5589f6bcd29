import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openLayer } from '../../main/engine/image/formats.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';
import { runAsync } from '../../main/engine/storage/io.ts';
import { findings } from '../conformance/image-layer.ts';
import { corpusHere, unpack } from '../support/corpus.ts';
import { hashChain, sha256 } from '../support/hash.ts';
import { missingLibvhdi, readWithLibvhdi } from '../support/libvhdi.ts';
import { describePeers, run, tryRun } from '../support/peers.ts';
import { randomFrom } from '../support/random.ts';
import { imageFolders, leavesUntouched, scratchFolder, sha256File } from '../support/scratch.ts';
import {
  type Block,
  buildVhdx,
  dirty,
  diskOf,
  MIB,
  parentLocator,
  undoLastEntry,
  type VhdxImage,
} from '../support/vhdx-builder.ts';
import { codesOf } from '../support/vhdx-open.ts';
import { pattern } from '../support/vmdk-builder.ts';

async function codes(folder: string, name: string): Promise<string[]> {
  const layer = await openLayer(name, new Confinement(folder));
  try {
    return (await findings(layer)).map(({ code }) => code);
  } finally {
    await layer.close();
  }
}

/** Writes what we read as a sparse raw file; QEMU compares the two without reading what both leave out. */
async function comparedByQemu(folder: string, name: string, raw: string) {
  const layer = await openLayer(name, new Confinement(folder));
  const fd = openSync(raw, 'w');
  try {
    ftruncateSync(fd, layer.virtualSize);
    for (const part of await runAsync(layer.runs(0, layer.virtualSize))) {
      if (part.kind !== 'data') continue;
      for (let at = 0; at < part.length; at += 8 * MIB) {
        const bytes = await part.source.read(part.position + at, Math.min(8 * MIB, part.length - at));
        writeSync(fd, bytes, 0, bytes.length, part.offset + at);
      }
    }
  } finally {
    closeSync(fd);
    await layer.close();
  }
  return tryRun('qemu-img', ['compare', '-f', 'vhdx', '-F', 'raw', join(folder, name), raw]);
}

const states: ReadonlyMap<number, Block> = new Map<number, Block>([
  [6, pattern(6 * MIB, MIB)],
  [0, pattern(0, MIB)],
  [1, 'zero'],
  [2, 'unmapped'],
  [3, 'undefined'],
]);

describePeers('VHDX and QEMU', { peers: ['qemu-img', 'qemu-io'] }, () => {
  const scratch = scratchFolder('peers-vhdx');
  const fresh = imageFolders(scratch);
  const convert = (image: string, raw: string) => {
    run('qemu-img', ['convert', '-f', 'vhdx', '-O', 'raw', image, raw]);
    return sha256File(raw);
  };
  /** What QEMU makes of a copy whose log it has replayed. */
  const repaired = (image: string, aside: string, raw: string) => {
    const copy = join(aside, 'copy.vhdx');
    copyFileSync(image, copy);
    run('qemu-img', ['check', '-q', '-r', 'all', copy]);
    return convert(copy, raw);
  };

  function writes(size: number, seed: number): string[] {
    const random = randomFrom(seed);
    const commands: string[] = [];
    for (let i = 0; i < 25; i++) {
      const offset = Math.floor((random() * size) / 512) * 512;
      const length = Math.min(size - offset, 512 * (1 + Math.floor(random() ** 4 * 3000)));
      commands.push('-c', `write -P ${1 + Math.floor(random() * 254)} ${offset} ${length}`);
    }
    return [...commands, '-c', `write -P 200 ${size - 512} 512`];
  }

  it.each([
    ['dynamic', '1M', '1M', 100 * MIB],
    ['dynamic', '2M', '4M', 37 * MIB + 5 * 512],
    ['dynamic', '32M', '1M', 100 * MIB],
    ['dynamic', '256M', '1M', 600 * MIB],
    // More than a chunk, so that sector bitmap entries stand between the others.
    ['dynamic', '1M', '1M', 4200 * MIB],
    ['fixed', '1M', '1M', 20 * MIB],
    ['fixed', '8M', '2M', 21 * MIB + 512],
  ])('reads what QEMU writes: %s, blocks of %s, log of %s, %i bytes', async (subformat, block, log, size) => {
    const { folder, raw } = fresh();
    const image = join(folder, 'web 01.vhdx');
    run('qemu-img', [
      ...['create', '-q', '-f', 'vhdx'],
      ...['-o', `subformat=${subformat},block_size=${block},log_size=${log}`, image, String(size)],
    ]);
    run('qemu-io', ['-f', 'vhdx', ...writes(size, size % 1000), image]);
    await leavesUntouched(folder, async () => {
      if (size < 1024 * MIB) expect(await hashChain('web 01.vhdx', folder)).toBe(convert(image, raw));
      else expect(await comparedByQemu(folder, 'web 01.vhdx', raw)).toMatchObject({ code: 0 });
      const layer = await openLayer('web 01.vhdx', new Confinement(folder));
      expect(layer).toMatchObject({ format: 'vhdx', variant: subformat, virtualSize: size, parent: undefined });
      expect(layer.properties).toMatchObject({ creator: expect.stringMatching(/^QEMU v/), log: 'empty' });
      expect(codesOf(await findings(layer))).toEqual([]);
      await layer.close();
    });
  });

  it('replays a log that QEMU wrote as QEMU does, without touching the file', async () => {
    const { folder, aside, raw } = fresh();
    const image = join(folder, 'web01.vhdx');
    run('qemu-img', ['create', '-q', '-f', 'vhdx', '-o', 'subformat=dynamic,block_size=1M', image, '64M']);
    run('qemu-io', ['-f', 'vhdx', ...writes(64 * MIB, 4), image]);
    const closed = convert(image, raw);
    const bytes = readFileSync(image);
    undoLastEntry(bytes);
    writeFileSync(image, bytes);
    expect(repaired(image, aside, raw)).toBe(closed);
    await leavesUntouched(folder, async () => {
      expect(await hashChain('web01.vhdx', folder)).toBe(closed);
      expect(await codes(folder, 'web01.vhdx')).toContain('log-replayed');
    });
  });

  it.each<[string, (image: VhdxImage) => void, readonly string[]]>([
    ['every state', () => {}, []],
    ['a damaged first header', ({ bytes, at }) => (bytes[at.headers[0] + 9]! ^= 1), ['header-damaged']],
    ['a damaged second header', ({ bytes, at }) => (bytes[at.headers[1] + 9]! ^= 1), ['header-damaged']],
    [
      'a log over BAT, metadata and data',
      (image) => {
        const { at } = image;
        dirty(image, [at.bat, at.metadata + 65_536, at.blocks.get(0)! + 8192], Buffer.alloc(4096), 65_536);
      },
      ['log-replayed'],
    ],
  ])('QEMU reads what the builder writes as we do: %s', async (_, change, told) => {
    const { folder, aside, raw } = fresh();
    const image = buildVhdx({ virtualSize: 6 * MIB + 3 * 512, blocks: states });
    const disk = sha256(diskOf(image));
    change(image);
    writeFileSync(join(folder, 'disk.vhdx'), image.bytes);
    expect(repaired(join(folder, 'disk.vhdx'), aside, raw)).toBe(disk);
    await leavesUntouched(folder, async () => {
      expect(await hashChain('disk.vhdx', folder)).toBe(disk);
      expect(await codes(folder, 'disk.vhdx')).toEqual(told);
    });
  });

  const real = 'DiscUtils+DiscUtils/Tests/LibraryTests';
  it.skipIf(!corpusHere).each(['Lvm/Data/lvm2', 'Xfs/Data/xfs', 'Xfs/Data/xfs5', 'Swap/Data/swap'])(
    'reads what Hyper-V wrote as QEMU does, 10 GiB: %s',
    async (name) => {
      const { folder, raw } = fresh();
      const image = join(folder, 'disk.vhdx');
      renameSync(join(folder, unpack(`${real}/${name}.vhdx.gz`, folder)), image);
      expect(await comparedByQemu(folder, 'disk.vhdx', raw)).toMatchObject({ code: 0 });
      const layer = await openLayer('disk.vhdx', new Confinement(folder));
      expect((await findings(layer)).filter(({ severity }) => severity !== 'note')).toEqual([]);
      await layer.close();
    },
  );
});

describePeers('VHDX and libvhdi', { reasons: [missingLibvhdi()] }, () => {
  const scratch = scratchFolder('peers-vhdx-libvhdi');
  const ids = [1, 2, 3].map((n) => `${String(n).repeat(8)}-1111-4222-8333-444444444444`);

  it.each([512, 4096])(
    'reads what the builder writes as we do: two and three links, sectors of %i bytes',
    async (sectorSize) => {
      const folder = join(scratch.path, String(sectorSize));
      mkdirSync(folder);
      const per = MIB / sectorSize;
      const some = (block: number, seed: number, step: number): [number, Block] => {
        const at = (sector: number) => block * MIB + sector * sectorSize;
        const sectors = Array.from({ length: Math.ceil(per / step) }, (_, i) => i * step);
        return [block, new Map(sectors.map((s) => [s, pattern(at(s), sectorSize, seed)] as const))];
      };
      const whole = (block: number, seed: number): [number, Block] => [block, pattern(block * MIB, MIB, seed)];
      const shared = { virtualSize: 6 * MIB, sectorSize };
      const images = [
        buildVhdx({ ...shared, dataWriteGuid: ids[0]!, blocks: new Map([0, 1, 2, 3].map((b) => whole(b, 1))) }),
        buildVhdx({
          ...shared,
          dataWriteGuid: ids[1]!,
          parent: parentLocator('0.vhdx', ids[0]!),
          blocks: new Map<number, Block>([some(0, 2, 3), whole(2, 2), some(3, 2, 2)]),
        }),
        buildVhdx({
          ...shared,
          dataWriteGuid: ids[2]!,
          parent: parentLocator('1.vhdx', ids[1]!),
          blocks: new Map<number, Block>([some(0, 3, 5), some(1, 3, 7), whole(3, 3)]),
        }),
      ];
      let disk: Buffer | undefined;
      for (const [i, image] of images.entries()) {
        writeFileSync(join(folder, `${i}.vhdx`), image.bytes);
        disk = diskOf(image, disk);
        const chain = Array.from({ length: i + 1 }, (_, n) => join(folder, `${i - n}.vhdx`));
        const raw = join(scratch.path, `${sectorSize}-${i}.raw`);
        await leavesUntouched(folder, async () => {
          expect(sha256(readWithLibvhdi(chain, raw))).toBe(sha256(disk!));
          expect(await hashChain(`${i}.vhdx`, folder)).toBe(sha256(disk!));
        });
      }
    },
  );

  it('reads every state of a base as we do, sectors of 4 KiB', async () => {
    const folder = join(scratch.path, 'states');
    mkdirSync(folder);
    const image = buildVhdx({ virtualSize: 6 * MIB + 4096, sectorSize: 4096, blocks: states });
    writeFileSync(join(folder, 'disk.vhdx'), image.bytes);
    const read = readWithLibvhdi([join(folder, 'disk.vhdx')], join(scratch.path, 'states.raw'));
    expect(sha256(read)).toBe(sha256(diskOf(image)));
    expect(await hashChain('disk.vhdx', folder)).toBe(sha256(read));
  });
});

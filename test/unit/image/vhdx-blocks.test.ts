/** The BAT and the sector bitmaps of VHDX, and what `check` says of them. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openLayer } from '../../../main/engine/image/formats.ts';
import type { LayerRun } from '../../../main/engine/image/image.ts';
import { BlockMap } from '../../../main/engine/image/vhdx/block-map.ts';
import { PAGES_BYTES, Pages } from '../../../main/engine/image/vhdx/pages.ts';
import { type ByteSource, MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { runAsync, runSync } from '../../../main/engine/storage/io.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { randomFrom } from '../../support/random.ts';
import { scratchFolder } from '../../support/scratch.ts';
import {
  type Block,
  buildVhdx,
  diskOf,
  MIB,
  parentLocator,
  seal,
  type VhdxImage,
  type VhdxOptions,
} from '../../support/vhdx-builder.ts';
import { codesOf, findingsOf, withVhdx } from '../../support/vhdx-open.ts';
import { pattern } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('vhdx-blocks');
const parent = parentLocator('base.vhdx', '99999999-1111-4222-8333-444444444444');
const whole = pattern(0, MIB);
const some = (...sectors: number[]): Block => new Map(sectors.map((sector) => [sector, pattern(sector * 512, 512)]));
const base = (blocks: [number, Block][], options: Partial<VhdxOptions> = {}) =>
  buildVhdx({ virtualSize: 4 * MIB, blocks: new Map(blocks), ...options });
const child = (blocks: [number, Block][], options: Partial<VhdxOptions> = {}) => base(blocks, { parent, ...options });

/** Sets the BAT entry at `position`: its state, its MiB, and bits that should be zero. */
function setEntry(image: VhdxImage, position: number, state: number, mib: bigint, reserved = 0n): void {
  image.bytes.writeBigUInt64LE((mib << 20n) | (reserved << 3n) | BigInt(state), position);
}
const mibOf = (image: VhdxImage, block: number) => BigInt(image.at.blocks.get(block)! / MIB);

const shape = (runs: readonly LayerRun[]) => runs.map(({ kind, length }) => [kind, length / 512]);
const corruptEntry = (position: number) => ({
  kind: 'corrupt',
  details: { structure: 'VHDX BAT entry', source: 'disk.vhdx', position },
});

describe('blocks of a VHDX', () => {
  it.each([
    ['absent', 'zero', 'absent'],
    ['undefined', 'zero', 'zero'],
    ['zero', 'zero', 'zero'],
    ['unmapped', 'zero', 'zero'],
  ] as const)('%s mean %s in a base and %s over a parent', async (state, alone, over) => {
    for (const [image, kind] of [
      [base([[1, state]]), alone],
      [base([[1, state]], { fixed: true }), alone],
      [child([[1, state]]), over],
    ] as const) {
      // Blocks that are given up may keep their place.
      if (state !== 'absent' && state !== 'zero') setEntry(image, image.at.entry(1), state === 'undefined' ? 1 : 3, 3n);
      await withVhdx(scratch.path, image, async (layer) => {
        expect(shape(await runAsync(layer.runs(MIB, MIB)))).toEqual([[kind, 2048]]);
      });
      expect(codesOf(await findingsOf(scratch.path, image))).toEqual([]);
    }
  });

  it('have some of their sectors where their bitmap says so, whatever part is asked for', async () => {
    const image = child([
      [0, 'zero'],
      [1, some(0, 7, 8, 9, 63, 64, 2047)],
      [2, whole],
    ]);
    await withVhdx(scratch.path, image, async (layer) => {
      expect(layer.granularity).toBe(512);
      expect(shape(await runAsync(layer.runs(0, 4 * MIB)))).toEqual([
        ['zero', 2048],
        ['data', 1],
        ['absent', 6],
        ['data', 3],
        ['absent', 53],
        ['data', 2],
        ['absent', 1982],
        // The last sector and the block behind it lie side by side.
        ['data', 2049],
        ['absent', 2048],
      ]);
      // Inside sectors, too.
      const runs = await runAsync(layer.runs(MIB + 7 * 512 - 1, 514));
      expect(runs.map(({ kind, offset, length }) => [kind, offset - MIB, length])).toEqual([
        ['absent', 3583, 1],
        ['data', 3584, 513],
      ]);
    });
  });

  it('of every chunk have a bitmap of their own: the ratio follows block and sector size', async () => {
    for (const [blockSize, sectorSize, far] of [
      [32 * MIB, 512, 130],
      [32 * MIB, 4096, 1027],
    ] as const) {
      const sectors = (n: number) => new Map([0, 3, 9].map((s) => [s + n, pattern(s * 4096 + n, sectorSize)]));
      const image = buildVhdx({
        virtualSize: (far + 1) * blockSize,
        blockSize,
        sectorSize,
        parent,
        blocks: new Map([[far, sectors(20)]]),
      });
      await withVhdx(scratch.path, image, async (layer) => {
        const at = far * blockSize;
        const model = Buffer.alloc(64 * sectorSize);
        for (const [sector, bytes] of sectors(20)) bytes.copy(model, sector * sectorSize);
        expect((await readLayer(layer, at, model.length)).equals(model)).toBe(true);
        expect(await layer.allocatedBytes()).toBe(3 * sectorSize);
        expect((await runAsync(layer.runs(0, at + 20 * sectorSize)))[0]).toMatchObject({ kind: 'absent', offset: 0 });
      });
      expect(codesOf(await findingsOf(scratch.path, image))).toEqual([]);
    }
  });

  it.each<[string, VhdxImage, (image: VhdxImage) => void, string]>([
    ['reserved state 4', base([[0, whole]]), (i) => setEntry(i, i.at.entry(0), 4, 4n), 'block-state'],
    ['reserved state 5', child([[0, whole]]), (i) => setEntry(i, i.at.entry(0), 5, 4n), 'block-state'],
    ['a part of a block in a base', base([[0, whole]]), (i) => setEntry(i, i.at.entry(0), 7, 4n), 'block-state'],
    ['a place in the headers', base([[0, whole]]), (i) => setEntry(i, i.at.entry(0), 6, 0n), 'block-in-tables'],
    ['a place in the log', base([[0, whole]]), (i) => setEntry(i, i.at.entry(0), 6, 1n), 'block-in-tables'],
    ['a place in the metadata', child([[0, whole]]), (i) => setEntry(i, i.at.entry(0), 6, 2n), 'block-in-tables'],
    ['a place in the BAT', base([[0, whole]]), (i) => setEntry(i, i.at.entry(0), 6, 3n), 'block-in-tables'],
    ['a place behind the file', base([[0, whole]]), (i) => setEntry(i, i.at.entry(0), 6, 5n), 'block-out-of-file'],
    [
      'a place beyond 2^53',
      base([[0, whole]]),
      (i) => setEntry(i, i.at.entry(0), 6, (1n << 44n) - 1n),
      'block-out-of-file',
    ],
    ['sectors behind the file', child([[0, some(1)]]), (i) => setEntry(i, i.at.entry(0), 7, 77n), 'block-out-of-file'],
  ])('%s: refused, and told, and nobody else’s damage', async (_, image, change, code) => {
    change(image);
    await withVhdx(scratch.path, image, async (layer) => {
      await expect(readLayer(layer, 0, 1)).rejects.toMatchObject(corruptEntry(image.at.entry(0)));
      await readLayer(layer, MIB, 3 * MIB);
    });
    const all = await findingsOf(scratch.path, image);
    expect(codesOf(all)).toEqual([code]);
    expect(all.find((finding) => finding.code === code)).toMatchObject({
      severity: 'damaged',
      position: image.at.entry(0),
      structure: 'VHDX BAT entry',
    });
  });

  it.each<[string, (image: VhdxImage) => void, string]>([
    ['is not there', (i) => setEntry(i, i.at.bitmapEntry(0), 0, 0n), 'bitmap-missing'],
    ['has a reserved state', (i) => setEntry(i, i.at.bitmapEntry(0), 7, 4n), 'bitmap-missing'],
    ['lies behind the file', (i) => setEntry(i, i.at.bitmapEntry(0), 6, 99n), 'block-out-of-file'],
    ['lies in the BAT', (i) => setEntry(i, i.at.bitmapEntry(0), 6, 3n), 'block-in-tables'],
  ])('a sector bitmap that %s is refused where it is needed', async (_, change, code) => {
    const image = child([
      [0, some(3)],
      [1, whole],
    ]);
    change(image);
    await withVhdx(scratch.path, image, async (layer) => {
      await expect(readLayer(layer, 0, 1)).rejects.toMatchObject(corruptEntry(image.at.bitmapEntry(0)));
      expect((await readLayer(layer, MIB, MIB)).equals(whole)).toBe(true);
    });
    expect(codesOf(await findingsOf(scratch.path, image))).toEqual([code]);
  });

  it('a sector bitmap that nobody needs is no reason to refuse anything', async () => {
    const odd = child([[0, whole]]);
    setEntry(odd, odd.at.bitmapEntry(0), 3, 0n);
    expect(codesOf(await findingsOf(scratch.path, odd))).toEqual(['block-state']);
    const image = buildVhdx({ virtualSize: 4097 * MIB, blocks: new Map([[0, whole]]) });
    setEntry(image, image.at.bitmapEntry(0), 6, 4n);
    await withVhdx(scratch.path, image, async (layer) => {
      expect((await readLayer(layer, 0, MIB)).equals(whole)).toBe(true);
    });
    const all = await findingsOf(scratch.path, image);
    expect(codesOf(all)).toEqual(['bitmap-in-base']);
    expect(all[0]).toMatchObject({ severity: 'suspicious', position: image.at.bitmapEntry(0) });
  });
});

describe('the check of a VHDX', () => {
  it('finds two blocks in one place, a block on a bitmap, and bits that should be zero', async () => {
    const twice = base([
      [0, whole],
      [1, whole],
    ]);
    setEntry(twice, twice.at.entry(1), 6, mibOf(twice, 0));
    const all = await findingsOf(scratch.path, twice);
    expect(codesOf(all)).toEqual(['block-overlap']);
    expect(all.find(({ code }) => code === 'block-overlap')).toMatchObject({
      severity: 'damaged',
      position: twice.at.entry(1),
    });
    const onBitmap = child([
      [0, some(1)],
      [1, whole],
    ]);
    setEntry(onBitmap, onBitmap.at.entry(1), 6, BigInt(onBitmap.at.bitmaps.get(0)! / MIB));
    expect(codesOf(await findingsOf(scratch.path, onBitmap))).toEqual(['block-overlap']);
    const bits = base([[0, whole]]);
    setEntry(bits, bits.at.entry(0), 6, mibOf(bits, 0), 0x1_ffffn);
    expect(codesOf(await findingsOf(scratch.path, bits))).toEqual(['bat-reserved-bits']);
    await withVhdx(scratch.path, bits, async (layer) => {
      expect((await readLayer(layer, 0, MIB)).equals(whole)).toBe(true);
    });
  });

  it('finds blocks that overlap in part', async () => {
    const image = buildVhdx({
      virtualSize: 8 * MIB,
      blockSize: 2 * MIB,
      blocks: new Map([
        [0, pattern(0, 2 * MIB)],
        [1, pattern(1, 2 * MIB)],
      ]),
    });
    setEntry(image, image.at.entry(1), 6, mibOf(image, 0) + 1n);
    expect(codesOf(await findingsOf(scratch.path, image))).toEqual(['block-overlap']);
  });

  it('notes room that holds nothing, and counts the last block as a whole one', async () => {
    const leaky = base([
      [0, whole],
      [1, whole],
    ]);
    setEntry(leaky, leaky.at.entry(1), 0, 0n);
    expect(await findingsOf(scratch.path, leaky)).toMatchObject([
      { severity: 'note', code: 'leaked-space', found: MIB },
    ]);
    const tight = buildVhdx({
      virtualSize: 2 * MIB + 512,
      blockSize: 2 * MIB,
      blocks: new Map([[1, pattern(0, 2 * MIB)]]),
    });
    expect(await findingsOf(scratch.path, tight)).toEqual([]);
  });

  it('tells the first of many and counts the rest', async () => {
    const image = buildVhdx({ virtualSize: 4096 * MIB, blocks: new Map() });
    for (let block = 0; block < 4096; block++) setEntry(image, image.at.entry(block), 4, 0n);
    const all = await findingsOf(scratch.path, image);
    expect(all).toHaveLength(21);
    expect(all.at(-1)).toMatchObject({ code: 'block-state', severity: 'damaged', found: 4076 });
  });
});

describe('a VHDX of any size', () => {
  /** Counts what is read of a source. */
  function counted(inner: ByteSource) {
    const count = { reads: 0, bytes: 0 };
    const source: ByteSource = {
      name: inner.name,
      size: inner.size,
      read: (offset, length) => {
        count.reads++;
        count.bytes += length;
        return inner.read(offset, length);
      },
      close: () => inner.close(),
    };
    return { source, count };
  }

  it('holds no more pages than a few, and reads a table once', async () => {
    const bytes = new Uint8Array(16 * MIB);
    for (let i = 0; i < bytes.length; i += 4096) bytes[i] = i >>> 12;
    const { source, count } = counted(new MemorySource(bytes));
    const pages = new Pages(source);
    const random = randomFrom(3);
    for (let i = 0; i < 2000; i++) {
      const at = Math.floor(random() * (bytes.length - 70_000));
      const length = 1 + Math.floor(random() ** 3 * 70_000);
      expect(Buffer.compare(await runAsync(pages.read(at, length)), bytes.subarray(at, at + length))).toBe(0);
      expect(pages.held).toBeLessThanOrEqual(PAGES_BYTES);
    }
    const before = count.reads;
    for (let i = 0; i < 100; i++) await runAsync(pages.read(i * 8, 8));
    expect(count.reads - before).toBeLessThanOrEqual(1);
  });

  it('of 64 TiB opens and answers in time that does not depend on it', async () => {
    // The BAT alone has 512 MiB; the file is sparse. One block in a thousand is there, all at its end.
    const size = 64 * 2 ** 40;
    const image = buildVhdx({ virtualSize: MIB, blocks: new Map() });
    const batLength = Math.ceil((64 * 2 ** 20 + 2 ** 14) / (MIB / 8)) * MIB;
    image.bytes.writeBigUInt64LE(BigInt(size), image.at.content('virtualDiskSize'));
    for (const table of image.at.regionTables) {
      image.bytes.writeUInt32LE(batLength, table + 16 + 24);
      seal(image.bytes, table, 65_536);
    }
    const path = join(scratch.path, 'huge.vhdx');
    const fd = openSync(path, 'w');
    writeSync(fd, image.bytes, 0, 4 * MIB, 0);
    const data = image.at.bat + batLength;
    const random = randomFrom(9);
    const blocks = Array.from({ length: 1000 }, (_, i) => Math.floor(((i + random()) / 1000) * 64 * 2 ** 20));
    const entry = Buffer.alloc(8);
    for (const [i, block] of blocks.entries()) {
      entry.writeBigUInt64LE(BigInt(data + i * MIB) | 6n);
      writeSync(fd, entry, 0, 8, image.at.entry(0) + (block + Math.floor(block / 4096)) * 8);
      writeSync(fd, pattern(i * 512, 512), 0, 512, data + i * MIB + 512);
    }
    ftruncateSync(fd, data + blocks.length * MIB);
    closeSync(fd);

    const before = process.memoryUsage().arrayBuffers;
    const start = performance.now();
    const layer = await openLayer('huge.vhdx', new Confinement(scratch.path, { synchronous: true }));
    expect(performance.now() - start).toBeLessThan(1000);
    for (const [i, block] of blocks.entries()) {
      const runs = runSync(layer.runs(block * MIB + 512, 512));
      expect(runs).toMatchObject([{ kind: 'data', position: data + i * MIB + 512, length: 512 }]);
    }
    expect(performance.now() - start).toBeLessThan(4000);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(100 * MIB);
    expect(runSync(layer.runs(size - MIB, MIB)).at(-1)).toMatchObject({ offset: size - MIB });
    // The check reads the whole table, and holds none of it.
    expect(await findings(layer)).toEqual([]);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(200 * MIB);
    await layer.close();
  });

  it('counts its entries as the specification does', () => {
    const source = { ...new MemorySource(new Uint8Array(0)), size: 0, name: 'none', holds: () => false } as never;
    const entries = (blocks: number, hasParent: boolean, blockSize = 256 * MIB, sectorSize = 512) =>
      new BlockMap({
        source,
        bat: { position: MIB, length: 512 * MIB },
        reserved: [],
        blockSize,
        sectorSize,
        virtualSize: blocks * blockSize,
        hasParent,
      }).entries;
    // A chunk has 16 blocks.
    expect([1, 15, 16, 17, 32, 33].map((blocks) => entries(blocks, false))).toEqual([1, 15, 16, 18, 33, 35]);
    expect([1, 15, 16, 17, 32, 33].map((blocks) => entries(blocks, true))).toEqual([17, 17, 17, 34, 34, 51]);
    // And with sectors of 4 KiB, 128.
    expect([128, 129].map((blocks) => entries(blocks, false, 256 * MIB, 4096))).toEqual([128, 130]);
    expect(entries(1, true, 256 * MIB, 4096)).toBe(129);
  });

  it('is read the same through its whole length and in pieces', async () => {
    const random = randomFrom(21);
    const blocks = new Map<number, Block>();
    for (let i = 0; i < 12; i++) {
      const dice = random();
      if (dice < 0.2) blocks.set(i, pattern(i, MIB));
      else if (dice < 0.6) {
        blocks.set(i, some(...Array.from({ length: 300 }, () => Math.floor(random() * 2048))));
      } else if (dice < 0.8) blocks.set(i, 'zero');
    }
    const image = child([...blocks], { virtualSize: 12 * MIB });
    const disk = diskOf(image);
    await withVhdx(scratch.path, image, async (layer) => {
      expect(codesOf(await findings(layer))).toEqual([]);
      for (let at = 0; at < disk.length; ) {
        const length = Math.min(disk.length - at, 1 + Math.floor(random() * 300_000));
        expect((await readLayer(layer, at, length)).equals(disk.subarray(at, at + length))).toBe(true);
        at += length;
      }
    });
  });
});

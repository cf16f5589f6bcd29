/** Blocks, bitmaps and batmaps of VHDs: what is read of them and what is said. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { TableCache } from '../../../main/engine/image/table-cache.ts';
import { bitOf, stretchEnd } from '../../../main/engine/image/vhd/block-map.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { runAsync, runSync } from '../../../main/engine/storage/io.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { randomFrom } from '../../support/random.ts';
import { scratchFolder } from '../../support/scratch.ts';
import {
  buildVhd,
  SECTOR,
  sectorRange,
  sumBatmap,
  sumFooter,
  sumHeader,
  type VhdImage,
  type VhdOptions,
  vhdModel,
} from '../../support/vhd-builder.ts';
import {
  type Change,
  codesOf,
  plain,
  readAll,
  requestsOf,
  untouched,
  withBytes,
  withImage,
  worseOf,
} from '../../support/vhd-open.ts';

const scratch = scratchFolder('vhd-blocks');
const tap = { creator: 'tap\0', creatorVersion: 0x0001_0003, creatorHost: 0 };
const parent = { id: 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee', name: 'base.vhd' };
const opening = (options: VhdOptions, change: Change) => withImage(scratch.path, options, change, async () => 'opened');

describe('blocks', () => {
  const entryAt = (image: VhdImage, block: number) => image.at.table + block * 4;
  const setEntry = (block: number, sector: number) => (image: VhdImage) =>
    void image.bytes.writeUInt32BE(sector, entryAt(image, block));

  it.each<[string, (image: VhdImage) => number, string]>([
    ['behind the file', () => 0x7fff_ffff, 'block-out-of-file'],
    ['half in the file', ({ at }) => at.footer / SECTOR - 5, 'block-out-of-file'],
    // A table that was never written is all zeros.
    ['at the footer copy', () => 0, 'block-in-metadata'],
    ['in the header', () => 2, 'block-in-metadata'],
    ['in the table', ({ at }) => at.table / SECTOR, 'block-in-metadata'],
  ])('%s are damage, where they are read', async (_, sector, code) => {
    const image = buildVhd(plain);
    setEntry(1, sector(image))(image);
    await withBytes(scratch.path, image.bytes, async (layer) => {
      const wrong = { kind: 'corrupt', details: { position: entryAt(image, 1), source: 'a.vhd' } };
      if (code !== 'block-out-of-file' || sector(image) > 1e6) {
        await expect(readLayer(layer, 128 * SECTOR, 1)).rejects.toMatchObject(wrong);
      }
      const model = vhdModel(plain);
      for (const [first, count] of [
        [0, 128],
        [256, 244],
      ] as const) {
        expect(await readLayer(layer, first * SECTOR, count * SECTOR)).toEqual(
          model.subarray(first * SECTOR, (first + count) * SECTOR),
        );
      }
      const found = await findings(layer);
      expect(worseOf(found)).toContain(`damaged ${code}`);
      expect(found[0]).toMatchObject({ source: 'a.vhd', position: entryAt(image, 1), expected: expect.any(String) });
    });
  });

  it('of a file that was cut off are damage, never zeros, from the first byte that is gone', async () => {
    const options = { ...plain, sectors: new Map([...sectorRange(0, 128), ...sectorRange(256, 128)]) };
    const image = buildVhd(options);
    const data = image.at.blocks.get(2)!.data;
    const cut = image.bytes.subarray(0, data + 10 * SECTOR + 7);
    await withBytes(scratch.path, Buffer.from(cut), async (layer) => {
      const model = vhdModel(options);
      expect(await readLayer(layer, 0, 266 * SECTOR)).toEqual(model.subarray(0, 266 * SECTOR));
      await expect(readLayer(layer, 266 * SECTOR, SECTOR)).rejects.toMatchObject({ kind: 'corrupt' });
      await expect(readLayer(layer, 383 * SECTOR, SECTOR)).rejects.toMatchObject({ kind: 'corrupt' });
      expect(worseOf(await findings(layer))).toEqual(['suspicious footer-copy-used', 'damaged block-out-of-file']);
    });
    const bitmap = image.at.blocks.get(2)!.bitmap;
    await withBytes(scratch.path, Buffer.from(image.bytes.subarray(0, bitmap + 100)), async (layer) => {
      await expect(readLayer(layer, 300 * SECTOR, 1)).rejects.toMatchObject({ kind: 'corrupt' });
    });
  });

  it('that overlap are damage', async () => {
    const image = buildVhd(plain);
    const first = image.at.blocks.get(0)!.bitmap / SECTOR;
    for (const shift of [0, 1, 100, 128]) {
      const copy = buildVhd(plain);
      setEntry(1, first + shift)(copy);
      await withBytes(scratch.path, copy.bytes, async (layer) => {
        const found = await findings(layer);
        expect(worseOf(found).filter((code) => code === 'damaged block-overlap')).not.toEqual([]);
      });
    }
    // Next to each other they do not.
    const copy = buildVhd(plain);
    setEntry(1, first + 129)(copy);
    await withBytes(scratch.path, copy.bytes, async (layer) => {
      expect(worseOf(await findings(layer))).not.toContain('damaged block-overlap');
    });
  });

  it('that overlap are found wherever they are', async () => {
    const random = randomFrom(3);
    const blocks = 40;
    const options = { size: blocks * 8 * SECTOR, blockSize: 8 * SECTOR, sectors: new Map(sectorRange(0, blocks * 8)) };
    for (let round = 0; round < 60; round++) {
      const image = buildVhd(options);
      const starts = [...image.at.blocks.values()].map(({ bitmap }) => bitmap / SECTOR);
      for (let n = Math.floor(random() * 3); n > 0; n--) {
        const block = Math.floor(random() * blocks);
        starts[block] = starts[0]! + Math.floor(random() * 9 * (blocks - 1));
        setEntry(block, starts[block]!)(image);
      }
      const sorted = [...starts].sort((a, b) => a - b);
      const overlapping = sorted.some((start, i) => i > 0 && start - sorted[i - 1]! < 9);
      await withBytes(scratch.path, image.bytes, async (layer) => {
        expect(worseOf(await findings(layer)).includes('damaged block-overlap'), `${starts}`).toBe(overlapping);
      });
    }
  });

  it('in a ruined table are counted, not all told', async () => {
    const options = { size: 4000 * SECTOR, blockSize: SECTOR, sectors: new Map<number, Buffer>() };
    await withImage(
      scratch.path,
      options,
      ({ bytes, at }) => void bytes.fill(0x11, at.table, at.table + 16_000),
      async (layer) => {
        const found = (await findings(layer)).filter(({ code }) => code === 'block-out-of-file');
        expect(found).toHaveLength(21);
        expect(found.at(-1)).toMatchObject({ severity: 'damaged', found: 3980 });
      },
    );
  });

  it('of a dynamic disk have zeros in sectors that are not marked, whatever the file has', async () => {
    const options = { ...plain, unusedByte: 0x55 };
    await withImage(scratch.path, options, untouched, async (layer) => {
      expect(await readAll(layer)).toEqual(vhdModel(plain));
      expect(worseOf(await findings(layer))).toEqual([
        'suspicious unused-sector-not-zero',
        'suspicious unused-sector-not-zero',
      ]);
    });
    await withImage(scratch.path, { ...options, parent }, untouched, async (layer) => {
      const runs = await runAsync(layer.runs(128 * SECTOR, 12 * SECTOR));
      expect(runs.map(({ kind, length }) => [kind, length / SECTOR])).toEqual([
        ['absent', 2],
        ['data', 7],
        ['absent', 3],
      ]);
      expect(worseOf(await findings(layer))).toEqual([]);
    });
  });

  it('with marks behind the end of the disk are whole or told', async () => {
    await withImage(scratch.path, { ...plain, markBehindEnd: true }, untouched, async (layer) => {
      expect(await readAll(layer)).toEqual(vhdModel(plain));
      expect(codesOf(await findings(layer))).toEqual([]);
    });
    const some = ({ bytes, at }: VhdImage) => void bytes.writeUInt8(0x10, at.blocks.get(3)!.bitmap + 15);
    await withImage(scratch.path, plain, some, async (layer) =>
      expect(codesOf(await findings(layer))).toEqual(['note bitmap-behind-disk']),
    );
  });

  it('with bitmaps longer than what is read of them at once are exact', async () => {
    const options = {
      size: 70_000 * SECTOR,
      blockSize: 32 << 20,
      sectors: new Map([...sectorRange(32_760, 20), ...sectorRange(65_530, 6), ...sectorRange(69_999, 1)]),
      parent,
    };
    await withImage(scratch.path, options, untouched, async (layer) => {
      const runs = await runAsync(layer.runs(0, layer.virtualSize));
      expect(runs.map(({ kind, offset, length }) => [kind, offset / SECTOR, length / SECTOR])).toEqual([
        ['absent', 0, 32_760],
        ['data', 32_760, 20],
        ['absent', 32_780, 32_750],
        ['data', 65_530, 6],
        ['absent', 65_536, 4463],
        ['data', 69_999, 1],
      ]);
      expect(await layer.allocatedBytes()).toBe(27 * SECTOR);
      // The middle of it asks for the piece of the table and one piece of one bitmap.
      await layer.close();
    });
  });
});

describe('what is read', () => {
  it('is the entry and the bitmap of the block that is asked for, once', async () => {
    const folder = mkdtempSync(join(scratch.path, 'case-'));
    const image = buildVhd(plain);
    writeFileSync(join(folder, 'a.vhd'), image.bytes);
    const layer = await openLayer('a.vhd', new Confinement(folder, { synchronous: true }));
    expect(requestsOf(layer.runs(140 * SECTOR, SECTOR))).toEqual([
      { offset: image.at.table, length: 16 },
      { offset: image.at.blocks.get(1)!.bitmap, length: 512 },
    ]);
    expect(requestsOf(layer.runs(140 * SECTOR, SECTOR))).toEqual([]);
    await layer.close();
  });

  it('does not grow with the disk: 64 TiB, a thousand blocks', async () => {
    const blocks = 2 ** 21;
    const blockSize = 2 ** 25;
    const table = 1536;
    const dataStart = table + blocks * 4;
    const stride = 8192 + blockSize;
    const small = buildVhd({ size: 512, blockSize: 512, sectors: new Map() });
    const random = randomFrom(5);
    const used = new Map<number, number>();
    while (used.size < 1000) used.set(Math.floor(random() * blocks), (dataStart + used.size * stride) / SECTOR);
    const front = Buffer.alloc(dataStart, 0xff);
    small.bytes.copy(front, 0, 0, 1536);
    front.writeBigUInt64BE(BigInt(blocks * blockSize), 40);
    front.writeBigUInt64BE(BigInt(blocks * blockSize), 48);
    front.writeUInt32BE(blocks, 512 + 28);
    front.writeUInt32BE(blockSize, 512 + 32);
    sumFooter(front, 0);
    sumHeader(front, 512);
    for (const [block, sector] of used) front.writeUInt32BE(sector, table + block * 4);
    const end = dataStart + 1000 * stride;
    let bytesRead = 0;
    let reads = 0;
    const folder = mkdtempSync(join(scratch.path, 'case-'));
    const path = join(folder, 'big.vhd');
    const fd = openSync(path, 'w');
    writeSync(fd, front);
    const ones = Buffer.alloc(8192, 0xff);
    for (const sector of used.values()) writeSync(fd, ones, 0, ones.length, sector * SECTOR);
    ftruncateSync(fd, end);
    writeSync(fd, front, 0, 512, end);
    closeSync(fd);

    const layer = await openLayer(path, new Confinement(folder, { synchronous: true }));
    expect(layer.virtualSize).toBe(2 ** 46);
    for (const [block, sector] of used) {
      const offset = block * blockSize + Math.floor(random() * blockSize);
      const io = layer.runs(offset, 1);
      let step = io.next();
      while (!step.done) {
        const { source, offset: at, length } = step.value;
        bytesRead += length;
        reads++;
        const bytes = new Uint8Array(length);
        source.readIntoSync!(bytes, at);
        step = io.next(bytes);
      }
      expect(step.value).toMatchObject([
        { kind: 'data', position: sector * SECTOR + 8192 + (offset - block * blockSize) },
      ]);
    }
    expect(reads).toBeLessThanOrEqual(2000);
    expect(bytesRead).toBeLessThanOrEqual(2000 * 4096);
    expect(await layer.allocatedBytes()).toBe(1000 * blockSize);
    await layer.close();
  });
});

describe('the batmap', () => {
  const options = { ...plain, ...tap, batmap: true };

  it('spares the bitmaps of full blocks', async () => {
    const folder = mkdtempSync(join(scratch.path, 'case-'));
    const image = buildVhd(options);
    // So that it shows whether the bitmap is looked at.
    image.bytes.fill(0, image.at.blocks.get(0)!.bitmap, image.at.blocks.get(0)!.data);
    writeFileSync(join(folder, 'a.vhd'), image.bytes);
    const layer = await openLayer('a.vhd', new Confinement(folder, { synchronous: true }));
    expect(requestsOf(layer.runs(0, SECTOR))).toEqual([
      { offset: image.at.table, length: 16 },
      { offset: image.at.batmap, length: 512 },
    ]);
    expect(requestsOf(layer.runs(130 * SECTOR, SECTOR))).toEqual([
      { offset: image.at.blocks.get(1)!.bitmap, length: 512 },
    ]);
    expect(runSync(layer.runs(0, 128 * SECTOR))).toMatchObject([{ kind: 'data', length: 128 * SECTOR }]);
    expect(worseOf(await findings(layer))).toEqual(['damaged batmap-bitmap-differ']);
    await layer.close();
  });

  it.each<[string, (bytes: Buffer, at: number) => void, string]>([
    ['a wrong checksum', (bytes, at) => void bytes.writeUInt8(0xff, at + 512), 'batmap-checksum'],
    ['an unknown version', (bytes, at) => void bytes.writeUInt32BE(0x10003, at + 20), 'batmap-unusable'],
    ['no room for the blocks', (bytes, at) => void bytes.writeUInt32BE(0, at + 16), 'batmap-unusable'],
    ['a place outside the file', (bytes, at) => void bytes.writeUInt32BE(0x7fff_fe00, at + 12), 'batmap-unusable'],
    ['a place of 2^63', (bytes, at) => void bytes.writeUInt32BE(0x8000_0000, at + 8), 'batmap-unusable'],
    ['no cookie', (bytes, at) => void bytes.fill(0, at, at + 8), 'batmap-missing'],
  ])('with %s is done without', async (_, change, code) => {
    const damage = ({ bytes, at }: VhdImage) => change(bytes, at.batmapHeader);
    await withImage(scratch.path, options, damage, async (layer) => {
      expect(await readAll(layer)).toEqual(vhdModel(plain));
      expect(worseOf(await findings(layer))).toEqual([`suspicious ${code}`]);
    });
  });

  it('of a block that is not there is told', async () => {
    const change = ({ bytes, at }: VhdImage) => {
      bytes[at.batmap]! |= 0x20;
      sumBatmap(bytes, at.batmapHeader);
    };
    await withImage(scratch.path, options, change, async (layer) => {
      expect(await readAll(layer)).toEqual(vhdModel(plain));
      expect(worseOf(await findings(layer))).toEqual(['suspicious batmap-of-unused-block']);
    });
  });

  it('of version 1.1 is summed as signed bytes', async () => {
    const change = ({ bytes, at }: VhdImage) => {
      bytes.writeUInt32BE(0x10001, at.batmapHeader + 20);
      let sum = 0;
      for (const byte of bytes.subarray(at.batmap, at.batmap + 512)) sum += (byte << 24) >> 24;
      bytes.writeUInt32BE(~sum >>> 0, at.batmapHeader + 24);
    };
    await withImage(scratch.path, options, change, async (layer) => expect(worseOf(await findings(layer))).toEqual([]));
  });

  it('is looked for in images of tapdisk only', async () => {
    await withImage(scratch.path, { ...plain, batmap: true, encrypted: true }, untouched, async (layer) => {
      expect(layer.properties.batmap).toBe(false);
      expect(await readAll(layer)).toEqual(vhdModel(plain));
    });
  });

  it('with a key hash means an encrypted disk, which needs a key', async () => {
    await expect(opening({ ...options, encrypted: true }, untouched)).rejects.toMatchObject({
      kind: 'needs-key',
      details: { source: 'a.vhd' },
    });
  });

  it('in which a block lies is told', async () => {
    const change = ({ bytes, at }: VhdImage) => void bytes.writeUInt32BE(at.batmapHeader / SECTOR, at.table + 8);
    await withImage(scratch.path, options, change, async (layer) => {
      expect(worseOf(await findings(layer))).toContain('damaged block-in-metadata');
    });
  });
});

describe('bits', () => {
  it.each([true, false])('stretches are as if counted one by one (lowest first: %s)', (low) => {
    const random = randomFrom(9);
    for (let round = 0; round < 300; round++) {
      const bytes = Uint8Array.from(
        { length: 12 },
        () => [0, 0xff, 0xff, 0, Math.floor(random() * 256)][Math.floor(random() * 5)]!,
      );
      const bit = Math.floor(random() * 95);
      const limit = bit + 1 + Math.floor(random() * (96 - bit));
      let expected = bit + 1;
      while (expected < limit && bitOf(bytes, expected, low) === bitOf(bytes, bit, low)) expected++;
      expect(stretchEnd(bytes, bit, limit, low)).toBe(expected);
    }
    expect(bitOf(Uint8Array.of(0x80), 0, low)).toBe(!low);
    expect(bitOf(Uint8Array.of(0x01), 0, low)).toBe(low);
  });
});

describe('the cache of tables', () => {
  it('holds what was used last, under its ceiling', () => {
    const bytes = Buffer.from(Array.from({ length: 4096 }, (_, i) => i % 251));
    const cache = new TableCache(new MemorySource(bytes), 1024);
    const reads = (at: number) => requestsOf(cache.get(at, 256)).length;
    expect([0, 256, 512, 768].map(reads)).toEqual([1, 1, 1, 1]);
    expect(reads(0)).toBe(0);
    expect(reads(1024)).toBe(1);
    expect(cache.held).toBe(1024);
    // 256 was used longest ago.
    expect([0, 256].map(reads)).toEqual([0, 1]);
    expect(runSync(cache.get(512 * 3, 256))).toEqual(new Uint8Array(bytes.subarray(1536, 1792)));
    // One piece larger than the ceiling is kept for as long as it is the last.
    runSync(cache.get(2048, 2048));
    expect(cache.held).toBe(2048);
    runSync(cache.get(0, 256));
    expect(cache.held).toBe(256);
  });
});

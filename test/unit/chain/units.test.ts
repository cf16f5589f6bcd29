import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { Disk, REGION_BYTES } from '../../../main/engine/chain/disk.ts';
import { UnitCache, type UnitPlace } from '../../../main/engine/chain/units.ts';
import { CorruptError, IoError, UnsupportedError } from '../../../main/engine/errors.ts';
import type { Codec, LayerRun } from '../../../main/engine/image/image.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { type Io, readBytes } from '../../../main/engine/storage/io.ts';
import { cutRuns, MemoryLayer } from '../../support/memory-layer.ts';
import { between, randomBytesOf, randomFrom } from '../../support/random.ts';

const UNIT = 65_536;

/** A codec that counts what it unpacks, and where it was told the unit belongs. */
function counting(unit = UNIT, damaged?: (offset: number) => boolean): Codec & { unpacked: number[] } {
  const unpacked: number[] = [];
  return {
    name: 'deflate',
    unit,
    unpacked,
    *unpack(source, position, stored, offset): Io<Uint8Array> {
      const bytes = yield* readBytes(source, position, stored);
      unpacked.push(offset);
      if (damaged?.(offset)) throw new CorruptError('Unit', { source: source.name, position });
      return inflateRawSync(bytes);
    },
  };
}

/** A chain whose leaf has every third unit compressed, every third as data, and asks its parent for the rest. */
function packedChain(size: number, codec: Codec) {
  const random = randomFrom(5);
  const content = Buffer.alloc(size);
  for (let at = 0; at < size; at += 1_000) content.set(randomBytesOf(random, Math.min(200, size - at)), at);
  const stored: Buffer[] = [];
  const runs: LayerRun[] = [];
  const whole = new MemorySource(content, 'base');
  let position = 0;
  const places: { offset: number; position: number; stored: number }[] = [];
  for (let offset = 0, n = 0; offset < size; offset += UNIT, n++) {
    if (n % 3 !== 0) continue;
    const unit = Buffer.alloc(UNIT);
    content.copy(unit, 0, offset, Math.min(size, offset + UNIT));
    const bytes = deflateRawSync(unit);
    places.push({ offset, position, stored: bytes.length });
    stored.push(bytes);
    position += bytes.length;
  }
  const packed = new MemorySource(Buffer.concat(stored), 'packed');
  for (let offset = 0, n = 0; offset < size; offset += UNIT, n++) {
    const length = Math.min(UNIT, size - offset);
    const place = places.find((one) => one.offset === offset);
    if (place !== undefined) {
      runs.push({
        kind: 'compressed',
        offset,
        length,
        source: packed,
        position: place.position,
        stored: place.stored,
        codec,
      });
    } else if (n % 3 === 1) runs.push({ kind: 'data', offset, length, source: whole, position: offset });
    else runs.push({ kind: 'absent', offset, length });
  }
  const base: LayerRun[] = [{ kind: 'data', offset: 0, length: size, source: whole, position: 0 }];
  const layers = [
    new MemoryLayer('leaf', size, (offset, end) => cutRuns(runs, offset, end)),
    new MemoryLayer('base', size, (offset, end) => cutRuns(base, offset, end)),
  ];
  return { content, layers, packed, places };
}

describe('a disk with compressed units', () => {
  const size = REGION_BYTES + 40 * UNIT + 1_234;

  it.each([true, false])('reads any range (synchronous: %s)', async (synchronous) => {
    const codec = counting();
    const { content, layers } = packedChain(size, codec);
    const disk = new Disk(layers, { synchronous });
    const random = randomFrom(9);
    for (let i = 0; i < 200; i++) {
      const offset = between(random, 0, size - 1);
      const length = Math.min(size - offset, between(random, 0, 3 * UNIT));
      const got = await disk.read(offset, length);
      if (Buffer.compare(got, content.subarray(offset, offset + length)) !== 0) expect.fail(`${length} from ${offset}`);
    }
    for (const offset of codec.unpacked) expect(offset % (3 * UNIT)).toBe(0);
  });

  it('unpacks a unit once for many small reads, and once for readers at the same time', async () => {
    const codec = counting();
    const disk = new Disk(packedChain(size, codec).layers);
    await Promise.all(Array.from({ length: 16 }, (_, i) => disk.read(i * 4_096, 4_096)));
    for (let i = 0; i < 16; i++) await disk.read(i * 4_096 + 1, 100);
    expect(codec.unpacked).toEqual([0]);
  });

  it('says of each unit where it is, and keeps the cache below its ceiling', async () => {
    const codec = counting();
    const { layers, packed, places } = packedChain(size, codec);
    const disk = new Disk(layers, { unitCacheBytes: 4 * UNIT });
    const runs = (await disk.runs(0, size)).filter(({ kind }) => kind === 'compressed');
    expect(runs.map(({ offset, position }) => [offset, position])).toEqual(
      places.map(({ offset, position }) => [offset, position]),
    );
    expect(runs.every(({ source, layer }) => source === packed && layer === 0)).toBe(true);
    for (let at = 0; at + UNIT <= size; at += UNIT) await disk.read(at, UNIT);
    const before = codec.unpacked.length;
    await disk.read(0, 10);
    expect(codec.unpacked.length).toBe(before + 1);
  });

  it('one damaged unit costs itself alone, and is tried again', async () => {
    const bad = 3 * UNIT;
    const codec = counting(UNIT, (offset) => offset === bad);
    const { content, layers } = packedChain(size, codec);
    for (const synchronous of [true, false]) {
      const disk = new Disk(layers, { synchronous });
      await expect(disk.read(bad, 1)).rejects.toThrow(CorruptError);
      await expect(disk.read(bad - 10, UNIT)).rejects.toThrow(CorruptError);
      expect(Buffer.compare(await disk.read(bad + UNIT, UNIT), content.subarray(bad + UNIT, bad + 2 * UNIT))).toBe(0);
    }
  });

  it('refuses units that are no power of two or larger than a region', async () => {
    for (const unit of [1_000, 256, 2 * REGION_BYTES]) {
      const run: LayerRun = {
        kind: 'compressed',
        offset: 0,
        length: 512,
        source: new MemorySource(new Uint8Array(9)),
        position: 0,
        stored: 9,
        codec: counting(unit),
      };
      const disk = new Disk([new MemoryLayer('odd', 512, () => [run])]);
      await expect(disk.read(0, 1)).rejects.toThrow(UnsupportedError);
    }
  });
});

describe('UnitCache', () => {
  const place = (codec: Codec, offset: number): UnitPlace => ({
    source: new MemorySource(deflateRawSync(Buffer.alloc(codec.unit, offset / codec.unit))),
    codec,
    position: 0,
    stored: deflateRawSync(Buffer.alloc(codec.unit, offset / codec.unit)).length,
    offset,
  });

  it('drops what was used longest ago, never beyond its ceiling', () => {
    const codec = counting();
    const cache = new UnitCache(4 * UNIT);
    for (let i = 0; i < 40; i++) {
      expect(cache.getSync(place(codec, i * UNIT))[0]).toBe(i);
      expect(cache.getSync(place(codec, 0))[0]).toBe(0);
      expect(cache.held).toBeLessThanOrEqual(4 * UNIT);
    }
    // The first was used all the time, and so was unpacked once.
    expect(codec.unpacked.filter((offset) => offset === 0)).toHaveLength(1);
  });

  it('refuses a codec that gives another number of bytes', async () => {
    const codec: Codec = {
      name: 'short',
      unit: UNIT,
      // biome-ignore lint/correctness/useYield: it has its answer without reading.
      *unpack(): Io<Uint8Array> {
        return new Uint8Array(10);
      },
    };
    const cache = new UnitCache(UNIT);
    expect(() => cache.getSync(place(codec, 0))).toThrow(CorruptError);
    await expect(cache.get(place(codec, 0))).rejects.toThrow(CorruptError);
    expect(cache.held).toBe(0);
  });

  it('does not keep a failure', async () => {
    let fails = 1;
    const codec: Codec = {
      name: 'flaky',
      unit: 512,
      // biome-ignore lint/correctness/useYield: it has its answer without reading.
      *unpack(): Io<Uint8Array> {
        if (fails-- > 0) throw new IoError('The disk was away', {});
        return new Uint8Array(512);
      },
    };
    const cache = new UnitCache(UNIT);
    await expect(cache.get(place(codec, 0))).rejects.toThrow(IoError);
    expect((await cache.get(place(codec, 0))).length).toBe(512);
  });
});

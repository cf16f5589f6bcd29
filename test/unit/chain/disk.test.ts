import { describe, expect, it } from 'vitest';
import { append, Disk, type DiskRun, REGION_BYTES } from '../../../main/engine/chain/disk.ts';
import { CorruptError, IoError } from '../../../main/engine/errors.ts';
import type { LayerRun } from '../../../main/engine/image/image.ts';
import { type ByteSource, MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { type ChainModel, chainModel, cutRuns, MemoryLayer, randomLayer } from '../../support/memory-layer.ts';
import { between, randomFrom } from '../../support/random.ts';

/** A random chain; sizes of its layers differ, and that of the leaf is the disk's. */
function randomChain(seed: number, depth: number, size: number, longest: number) {
  const random = randomFrom(seed);
  const layers = Array.from({ length: depth }, (_, i) =>
    randomLayer(random, `layer-${i}`, {
      size: i === 0 ? size : Math.max(1, size + between(random, -Math.floor(size / 2), Math.floor(size / 2))),
      sources: between(random, 1, 4),
      longest,
      data: depth === 1 ? 0.5 : 0.15 + 0.3 * random(),
      zero: 0.1 * random(),
    }),
  );
  return { random, layers, model: chainModel(size, layers) };
}

function diskOf(layers: readonly { layer: MemoryLayer }[], synchronous: boolean, mapCacheBytes?: number): Disk {
  return new Disk(
    layers.map(({ layer }) => layer),
    { name: 'disk', synchronous, ...(mapCacheBytes === undefined ? {} : { mapCacheBytes }) },
  );
}

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/** What is wrong with runs: they must cover the range, be as long as they can be, and name the layer and bytes of the model. */
function faultOf(runs: readonly DiskRun[], model: ChainModel, offset: number, end: number): string | undefined {
  let at = offset;
  for (const [i, run] of runs.entries()) {
    if (run.offset !== at || run.length <= 0) return `run ${i} is at ${run.offset}, not ${at}`;
    const stop = at + run.length;
    const layer = run.layer ?? -1;
    const data = run.kind === 'data' ? 1 : 0;
    for (let byte = at; byte < stop; byte++) {
      if (model.layer[byte] !== layer) return `byte ${byte} is of layer ${model.layer[byte]}, not ${layer}`;
      if (model.data[byte] !== data) return `byte ${byte} is not ${run.kind}`;
    }
    if (data === 1) {
      const bytes = new Uint8Array(run.length);
      run.source!.readIntoSync!(bytes, run.position!);
      if (!same(bytes, model.bytes.subarray(at, stop))) return `run ${i} has other bytes`;
    } else if (run.source !== undefined || run.position !== undefined) return `run ${i} has no bytes, and names some`;
    if (i > 0) {
      const merged = [runs[i - 1]!];
      append(merged, run);
      if (merged.length === 1) return `run ${i} continues the one before it`;
    }
    at = stop;
  }
  return at === end ? undefined : `the runs end at ${at}, not ${end}`;
}

function checkRuns(runs: readonly DiskRun[], model: ChainModel, offset: number, end: number): void {
  expect(faultOf(runs, model, offset, end)).toBeUndefined();
}

async function checkRange(disk: Disk, model: ChainModel, offset: number, length: number): Promise<void> {
  const expected = model.bytes.subarray(offset, offset + length);
  const filled = new Uint8Array(length).fill(0xa5);
  disk.readIntoSync(filled, offset);
  expect(same(filled, expected)).toBe(true);
  expect(same(await disk.read(offset, length), expected)).toBe(true);
  checkRuns(disk.runsSync(offset, length), model, offset, offset + length);
  checkRuns(await disk.runs(offset, length), model, offset, offset + length);
}

async function gather(disk: Disk): Promise<DiskRun[]> {
  const all: DiskRun[] = [];
  for await (const runs of disk.walk()) for (const run of runs) append(all, run);
  return all;
}

describe('Disk agrees with a model of its bytes', () => {
  for (const depth of [1, 2, 3, 5, 8, 16, 33, 64]) {
    it(`at depth ${depth}, over random chains`, async () => {
      for (let round = 0; round < 12; round++) {
        const seed = depth * 1000 + round;
        const size = between(randomFrom(seed), 1, 20_000);
        const { random, layers, model } = randomChain(seed, depth, size, [3, 40, 700, 9000][round % 4]!);
        const disk = diskOf(layers, round % 2 === 0);
        expect(disk.size).toBe(size);
        await checkRange(disk, model, 0, size);
        for (let i = 0; i < 8; i++) {
          const offset = between(random, 0, size - 1);
          await checkRange(disk, model, offset, between(random, 0, size - offset));
        }
        checkRuns(await gather(disk), model, 0, size);
      }
    });
  }

  it('across the borders of its regions, with layers that end before, on and after one', async () => {
    const size = REGION_BYTES * 2 + 123_457;
    const random = randomFrom(7);
    const layers = [size, REGION_BYTES + 1, REGION_BYTES, size + REGION_BYTES, REGION_BYTES - 1].map((layerSize, i) =>
      randomLayer(random, `layer-${i}`, { size: layerSize, sources: 2, longest: 900_000, data: 0.25, zero: 0.1 }),
    );
    const model = chainModel(size, layers);
    for (const synchronous of [true, false]) {
      const disk = diskOf(layers, synchronous);
      for (const border of [REGION_BYTES, REGION_BYTES * 2]) {
        await checkRange(disk, model, border - 1, 2);
        await checkRange(disk, model, border - 70_001, 140_007);
        await checkRange(disk, model, border, 1);
        await checkRange(disk, model, border - 1, 1);
      }
      await checkRange(disk, model, REGION_BYTES - 5, REGION_BYTES + 10);
      checkRuns(await gather(disk), model, 0, size);
    }
  });

  it('with many reads in flight at once', async () => {
    const { random, layers, model } = randomChain(99, 9, 50_000, 300);
    const disk = diskOf(layers, false);
    const reads = Array.from({ length: 200 }, async () => {
      const offset = between(random, 0, 49_999);
      const length = between(random, 0, 50_000 - offset);
      expect(same(await disk.read(offset, length), model.bytes.subarray(offset, offset + length))).toBe(true);
    });
    await Promise.all(reads);
  });
});

const bytesOf = (value: number, length: number) => new MemorySource(new Uint8Array(length).fill(value), `all ${value}`);

/** A layer that has data from `source` where `data` says, zeros where `zero` says, and nothing elsewhere. */
function plainLayer(name: string, size: number, runs: LayerRun[]): MemoryLayer {
  const full: LayerRun[] = [];
  let at = 0;
  for (const run of runs) {
    if (run.offset > at) full.push({ kind: 'absent', offset: at, length: run.offset - at });
    full.push(run);
    at = run.offset + run.length;
  }
  if (at < size) full.push({ kind: 'absent', offset: at, length: size - at });
  return new MemoryLayer(name, size, (offset, end) => cutRuns(full, offset, end));
}

describe('zero, absent and nothing', () => {
  it('are three answers', async () => {
    const parent = plainLayer('parent', 300, [
      { kind: 'data', offset: 0, length: 200, source: bytesOf(7, 200), position: 0 },
    ]);
    const child = plainLayer('child', 300, [{ kind: 'zero', offset: 50, length: 50 }]);
    const disk = new Disk([child, parent]);
    const bytes = await disk.read(0, 300);
    expect([...new Set(bytes.subarray(0, 50))]).toEqual([7]);
    expect([...new Set(bytes.subarray(50, 100))]).toEqual([0]);
    expect([...new Set(bytes.subarray(100, 200))]).toEqual([7]);
    expect([...new Set(bytes.subarray(200))]).toEqual([0]);
    expect((await disk.runs(0, 300)).map(({ kind, layer, length }) => [kind, layer, length])).toEqual([
      ['data', 1, 50],
      ['zero', 0, 50],
      ['data', 1, 100],
      ['zero', undefined, 100],
    ]);
  });

  it('overwrite what the reader had in its buffer', () => {
    const disk = new Disk([plainLayer('empty', 100, [])]);
    const target = new Uint8Array(100).fill(0xff);
    disk.readIntoSync(target, 0);
    expect(target.every((byte) => byte === 0)).toBe(true);
  });

  it('a disk without a byte reads as nothing', async () => {
    const disk = new Disk([new MemoryLayer('empty', 0, () => [])]);
    expect(await disk.read(0, 0)).toHaveLength(0);
    expect(await disk.runs(0, 0)).toEqual([]);
    expect(await gather(disk)).toEqual([]);
  });

  it('a chain without a layer is refused', () => {
    expect(() => new Disk([])).toThrow(RangeError);
  });
});

/** Every other block is data, the rest left open; the answer is made, not stored. */
function fragmented(name: string, size: number, block: number, odd: boolean): MemoryLayer {
  const source: ByteSource = {
    name: `${name}-source`,
    size: Number.MAX_SAFE_INTEGER,
    read: async (offset, length) => new Uint8Array(length).fill(Math.floor(offset / block) % 251),
    readIntoSync: (target, offset) => void target.fill(Math.floor(offset / block) % 251),
    close: async () => {},
  };
  return new MemoryLayer(name, size, (offset, end) => {
    const runs: LayerRun[] = [];
    for (let at = offset; at < end; ) {
      const number = Math.floor(at / block);
      const stop = Math.min(end, (number + 1) * block);
      const run = { offset: at, length: stop - at };
      runs.push(
        (number % 2 === 1) === odd ? { kind: 'data', source, position: at, ...run } : { kind: 'absent', ...run },
      );
      at = stop;
    }
    return runs;
  });
}

describe('the map cache', () => {
  it('stays under its ceiling, and evicts what was used longest ago', async () => {
    const regions = 40;
    const layer = fragmented('base', REGION_BYTES * regions, 4096, true);
    // A region of 8,192 runs takes some 115 KB: eight of them fit.
    const ceiling = 1 << 20;
    const disk = new Disk([layer], { mapCacheBytes: ceiling, synchronous: true });
    const one = new Uint8Array(1);
    const asked = (index: number): number => {
      const before = layer.asked.length;
      disk.readIntoSync(one, index * REGION_BYTES + 4096);
      return layer.asked.length - before;
    };
    for (let index = 0; index < regions; index++) {
      expect(asked(index)).toBe(1);
      // Region 0 is used all the time, so it is never the oldest.
      expect(asked(0)).toBe(0);
      expect(disk.mapCacheUsed).toBeLessThanOrEqual(ceiling);
    }
    expect(disk.mapCacheUsed).toBeGreaterThan(ceiling / 2);
    expect(asked(regions - 1)).toBe(0);
    expect(asked(1)).toBe(1);
    const random = randomFrom(3);
    for (let i = 0; i < 60; i++) {
      const block = between(random, 0, (REGION_BYTES / 4096) * regions - 1);
      disk.readIntoSync(one, block * 4096);
      expect(one[0]).toBe(block % 2 === 1 ? block % 251 : 0);
      expect(disk.mapCacheUsed).toBeLessThanOrEqual(ceiling);
    }
    await disk.close();
    expect(disk.mapCacheUsed).toBe(0);
    expect(layer.closed).toBe(1);
  });

  it('keeps neighbours that continue each other as one', () => {
    const source = bytesOf(3, 0);
    const layer = new MemoryLayer('grains', REGION_BYTES, (offset, end) => {
      const runs: LayerRun[] = [];
      for (let at = offset; at < end; at += 65_536) {
        const run = { offset: at, length: Math.min(65_536, end - at) };
        runs.push(at < REGION_BYTES / 2 ? { kind: 'data', source, position: at, ...run } : { kind: 'zero', ...run });
      }
      return runs;
    });
    const disk = new Disk([layer]);
    expect(disk.runsSync(0, REGION_BYTES)).toHaveLength(2);
    const empty = new Disk([plainLayer('empty', REGION_BYTES, [])]);
    expect(empty.runsSync(0, REGION_BYTES)).toHaveLength(1);
    expect(disk.mapCacheUsed - empty.mapCacheUsed).toBeLessThan(50);
  });

  it('works when one region is larger than all of it', () => {
    const layer = fragmented('base', REGION_BYTES * 2, 4096, true);
    const disk = new Disk([layer], { mapCacheBytes: 1000, synchronous: true });
    const one = new Uint8Array(1);
    for (const at of [4096, 5000, REGION_BYTES + 4096, REGION_BYTES + 5000, 4096]) disk.readIntoSync(one, at);
    expect(layer.asked).toHaveLength(3);
  });

  it('counts many small regions for what they take', () => {
    // An empty disk of 32 TiB: a million regions of one run each. What is counted must be what the process holds.
    const layer = new MemoryLayer('empty', REGION_BYTES * 1_000_000, (offset, end) => [
      { kind: 'absent', offset, length: end - offset },
    ]);
    const disk = new Disk([layer], { mapCacheBytes: 16 << 20, synchronous: true });
    const one = new Uint8Array(1);
    for (let index = 0; index < 30_000; index++) {
      disk.readIntoSync(one, index * REGION_BYTES);
      layer.asked.length = 0;
    }
    expect(disk.mapCacheUsed).toBeLessThanOrEqual(16 << 20);
    expect(disk.mapCacheUsed / 30_000).toBeGreaterThan(300);
  });

  it('builds a region once for all who wait for it', async () => {
    const layer = fragmented('base', REGION_BYTES, 4096, true);
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    const table = layer.table;
    layer.table = {
      name: 'slow table',
      size: 1,
      read: async (offset, length) => {
        await gate;
        return table.read(offset, length);
      },
      close: async () => {},
    };
    const disk = new Disk([layer]);
    const reads = Array.from({ length: 20 }, (_, i) => disk.read(4096 * (2 * i + 1), 512));
    expect(layer.asked).toHaveLength(1);
    open();
    for (const [i, bytes] of (await Promise.all(reads)).entries()) expect(bytes[0]).toBe((2 * i + 1) % 251);
    expect(layer.asked).toHaveLength(1);
  });

  it('counts a region once that was built twice, on this thread and beside it', async () => {
    const layer = fragmented('base', REGION_BYTES, 4096, true);
    const alone = new Disk([fragmented('base', REGION_BYTES, 4096, true)]);
    await alone.read(0, 1);
    const disk = new Disk([layer]);
    const waiting = disk.read(4096, 1);
    disk.readIntoSync(new Uint8Array(1), 4096);
    await waiting;
    expect(layer.asked).toHaveLength(2);
    expect(disk.mapCacheUsed).toBe(alone.mapCacheUsed);
  });

  it('costs nothing more at depth 64: a warm read asks no layer', async () => {
    const { random, layers, model } = randomChain(4242, 64, 30_000, 200);
    const disk = diskOf(layers, true);
    await disk.read(0, 1);
    const asked = () => layers.reduce((sum, { layer }) => sum + layer.asked.length, 0);
    const cold = asked();
    // Each layer at most once, however fragmented those above are.
    expect(layers.every(({ layer }) => layer.asked.length <= 1)).toBe(true);
    for (let i = 0; i < 100; i++) {
      const offset = between(random, 0, 29_000);
      await checkRange(disk, model, offset, 900);
    }
    expect(asked()).toBe(cold);
  });
});

describe('damage in a table', () => {
  const size = 100_000;
  const bad = { offset: 40_000, length: 512 };

  function damaged() {
    const chain = randomChain(11, 3, size, 400);
    const base = randomLayer(randomFrom(12), 'base', { size, sources: 1, longest: 5000, data: 0.9, zero: 0 });
    // The damaged stretch is asked of the base only where all layers above leave it open.
    const layers = [...chain.layers, base].map((made) => {
      const runs = made.runs.flatMap((run): LayerRun[] =>
        made === base
          ? [run]
          : [
              ...cutRuns([run], 0, bad.offset),
              ...cutRuns([run], bad.offset, bad.offset + bad.length).map(
                ({ offset, length }): LayerRun => ({ kind: 'absent', offset, length }),
              ),
              ...cutRuns([run], bad.offset + bad.length, size),
            ],
      );
      return { runs, layer: new MemoryLayer(made.layer.name, made.layer.virtualSize, (o, e) => cutRuns(runs, o, e)) };
    });
    layers.at(-1)!.layer.damage.push(bad);
    return { layers, model: chainModel(size, layers) };
  }

  for (const synchronous of [true, false]) {
    it(`fails only the reads that touch it (${synchronous ? 'on this thread' : 'beside it'})`, async () => {
      const { layers, model } = damaged();
      const disk = diskOf(layers, synchronous);
      await checkRange(disk, model, 0, bad.offset);
      await checkRange(disk, model, bad.offset + bad.length, size - bad.offset - bad.length);
      await checkRange(disk, model, bad.offset - 1, 1);
      for (const [offset, length] of [
        [bad.offset, 1],
        [bad.offset + bad.length - 1, 1],
        [bad.offset - 100, 101],
        [0, size],
      ] as const) {
        await expect(disk.read(offset, length)).rejects.toThrow(CorruptError);
        await expect(disk.runs(offset, length)).rejects.toThrow(CorruptError);
        expect(() => disk.readIntoSync(new Uint8Array(length), offset)).toThrow(CorruptError);
        expect(() => disk.runsSync(offset, length)).toThrow(CorruptError);
      }
      await checkRange(disk, model, bad.offset + bad.length, 1);
    });
  }

  it('does not matter where a layer above hides it', async () => {
    const base = plainLayer('base', 1000, [
      { kind: 'data', offset: 0, length: 1000, source: bytesOf(9, 1000), position: 0 },
    ]);
    base.damage.push({ offset: 400, length: 10 });
    const leaf = plainLayer('leaf', 1000, [
      { kind: 'data', offset: 390, length: 30, source: bytesOf(5, 30), position: 0 },
    ]);
    const disk = new Disk([leaf, base], { synchronous: true });
    const bytes = await disk.read(0, 1000);
    expect([bytes[0], bytes[389], bytes[390], bytes[419], bytes[420], bytes[999]]).toEqual([9, 9, 5, 5, 9, 9]);
    // And it is cached like any other region.
    const asked = base.asked.length;
    await disk.read(0, 1000);
    expect(base.asked.length).toBe(asked);
  });

  it('is not what a failed read is: that is tried again', async () => {
    for (const synchronous of [true, false]) {
      const base = plainLayer('base', 1000, [
        { kind: 'data', offset: 0, length: 1000, source: bytesOf(9, 1000), position: 0 },
      ]);
      base.damage.push({
        offset: 0,
        length: 1000,
        error: () => new IoError('the network is gone', { source: 'base' }),
      });
      const disk = new Disk([base], { synchronous });
      await expect(disk.read(0, 10)).rejects.toThrow(IoError);
      await expect(disk.runs(0, 10)).rejects.toThrow(IoError);
      base.damage.length = 0;
      expect((await disk.read(0, 10))[0]).toBe(9);
      const asked = base.asked.length;
      expect((await disk.read(500, 10))[0]).toBe(9);
      expect(base.asked.length).toBe(asked);
    }
  });

  it('a layer that leaves a hole in its answer, or overlaps, is refused', async () => {
    const hole = new MemoryLayer('hole', 1000, () => [
      { kind: 'zero', offset: 0, length: 100 },
      { kind: 'zero', offset: 200, length: 800 },
    ]);
    await expect(new Disk([hole]).read(0, 1000)).rejects.toMatchObject({
      details: { structure: 'Layer map', source: 'hole' },
    });
    const short = new MemoryLayer('short', 1000, () => [{ kind: 'zero', offset: 0, length: 100 }]);
    await expect(new Disk([short]).read(0, 1000)).rejects.toThrow(CorruptError);
  });
});

describe('a range outside the disk', () => {
  const disk = () => new Disk([plainLayer('base', 1000, [])], { name: 'disk 0 of web01' });

  for (const [offset, length] of [
    [-1, 1],
    [0, 1001],
    [1000, 1],
    [999, 2],
    [Number.MAX_SAFE_INTEGER, 1],
    [Number.NaN, 1],
    [0, Number.NaN],
    [0, -1],
  ] as const) {
    it(`is refused: ${length} bytes from ${offset}`, async () => {
      await expect(disk().read(offset, length)).rejects.toMatchObject({
        kind: 'corrupt',
        details: { source: 'disk 0 of web01' },
      });
      await expect(disk().runs(offset, length)).rejects.toThrow(CorruptError);
      expect(() => disk().runsSync(offset, length)).toThrow(CorruptError);
      if (length >= 0) expect(() => disk().readIntoSync(new Uint8Array(length), offset)).toThrow(CorruptError);
    });
  }

  it('and the last byte is inside', async () => {
    expect(await disk().read(999, 1)).toHaveLength(1);
    expect(await disk().read(1000, 0)).toHaveLength(0);
  });
});

it('a chain of more files than a map can name is refused', async () => {
  const sources = Array.from({ length: 40_000 }, (_, i) => new MemorySource(Uint8Array.of(i & 255), `file ${i}`));
  const layer = new MemoryLayer('many', 40_000, (offset, end) =>
    Array.from({ length: end - offset }, (_, i) => ({
      kind: 'data' as const,
      offset: offset + i,
      length: 1,
      source: sources[offset + i]!,
      position: 0,
    })),
  );
  await expect(new Disk([layer]).read(0, 40_000)).rejects.toMatchObject({ kind: 'unsupported' });
});

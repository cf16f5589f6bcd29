/** The parts of a conversion, one by one: what must be read, what is zeros, where units go, what a read-back finds; and hashing. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Disk } from '../../../main/engine/chain/disk.ts';
import { openChain } from '../../../main/engine/chain/open.ts';
import { compareJob } from '../../../main/engine/convert/jobs.ts';
import { Control } from '../../../main/engine/convert/messages.ts';
import { planImage, targetVariants } from '../../../main/engine/convert/plan.ts';
import { restart } from '../../../main/engine/convert/progress.ts';
import { checkSpace, forecast } from '../../../main/engine/convert/space.ts';
import { dataSpans, spanBytes, unite } from '../../../main/engine/convert/spans.ts';
import { PlaceTaker } from '../../../main/engine/convert/write/places.ts';
import { entryAt, planVhdx } from '../../../main/engine/convert/write/vhdx.ts';
import { ZeroFinder } from '../../../main/engine/convert/zeros.ts';
import { hashDisk } from '../../../main/engine/service/hash.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { writeSparse } from '../../support/convert.ts';
import { MemoryLayer, randomLayer } from '../../support/memory-layer.ts';
import { between, randomBytesOf, randomFrom } from '../../support/random.ts';
import { scratchFolder } from '../../support/scratch.ts';

const MiB = 1 << 20;
const scratch = scratchFolder('convert-parts');

describe('what must be read', () => {
  it('is everything that is not zeros by the map, in whole units, each byte once', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = randomFrom(seed);
      const size = between(random, 1, 400_000);
      const { layer, runs } = randomLayer(random, 'disk', { size, sources: 2, longest: 9000, data: 0.3, zero: 0.3 });
      const disk = new Disk([layer], { synchronous: true });
      const unit = 4096;
      const spans = dataSpans(disk, 0, size, unit);
      const wanted = new Uint8Array(Math.ceil(size / unit));
      for (const run of runs) {
        if (run.kind !== 'data') continue;
        for (let at = run.offset; at < run.offset + run.length; at++) wanted[Math.floor(at / unit)] = 1;
      }
      const found = new Uint8Array(wanted.length);
      let before = -1;
      for (const { start, end } of spans) {
        expect(start).toBeGreaterThan(before);
        expect(start % unit).toBe(0);
        expect(end === size || end % unit === 0).toBe(true);
        for (let at = start; at < end; at += unit) found[at / unit]! += 1;
        before = end;
      }
      expect(found).toEqual(wanted);
    }
  });

  it('unites lists', () => {
    const united = unite(
      [
        { start: 0, end: 4 },
        { start: 10, end: 20 },
      ],
      [
        { start: 4, end: 6 },
        { start: 12, end: 25 },
      ],
    );
    expect(united).toEqual([
      { start: 0, end: 6 },
      { start: 10, end: 25 },
    ]);
    expect(spanBytes(united)).toBe(21);
  });
});

it('tells zeros from data, wherever the one byte is', () => {
  const finder = new ZeroFinder(4096);
  const units = (bytes: Buffer, length: number): number[] => {
    const found: number[] = [];
    finder.runs(bytes, length, (first, count) => {
      for (let i = 0; i < count; i++) found.push(first + i);
    });
    return found;
  };
  const bytes = Buffer.alloc(5 * 4096);
  expect(units(bytes, bytes.length)).toEqual([]);
  for (const at of [0, 1, 2047, 2048, 4095, 4096, 5000, 8191, 5 * 4096 - 1]) {
    bytes.fill(0);
    bytes[at] = 1;
    expect(units(bytes, bytes.length)).toEqual([Math.floor(at / 4096)]);
  }
  // What lies beyond the length is not looked at.
  expect(units(bytes, 5 * 4096 - 1)).toEqual([]);
  bytes.fill(1);
  expect(units(bytes, 4097)).toEqual([0, 1]);
});

describe('places', () => {
  const never = () => new Error('no more');

  it('are used up where a run left them, then taken from the counter, and no two are the same', () => {
    const control = Control.of(2);
    control.places = 10;
    const takers = [
      new PlaceTaker(control, [{ start: 2, count: 3 }], 10_000, never),
      new PlaceTaker(control, [], 10_000, never),
    ];
    const random = randomFrom(4);
    const seen = new Set<number>();
    for (let i = 0; i < 100; i++) {
      const taker = takers[i % 2]!;
      taker.expect(between(random, 1, 40));
      for (const { start, count, stale } of taker.take(between(random, 1, 30))) {
        for (let at = start; at < start + count; at++) {
          expect(seen.has(at)).toBe(false);
          seen.add(at);
          expect(stale).toBe(at < 10);
        }
      }
    }
    for (const { start, count } of takers.flatMap((taker) => taker.left)) {
      for (let at = start; at < start + count; at++) seen.add(at);
    }
    expect([...seen].sort((a, b) => a - b)).toEqual([
      2,
      3,
      4,
      ...Array.from({ length: control.places - 10 }, (_, i) => i + 10),
    ]);
  });

  it('end where the format ends', () => {
    const taker = new PlaceTaker(Control.of(1), [], 100, never);
    taker.take(99);
    expect(() => taker.take(2)).toThrow('no more');
  });
});

describe('plans', () => {
  it('keep tables and stretches small up to 64 TiB, and end there', () => {
    for (const variant of ['monolithicSparse', 'streamOptimized']) {
      expect(planImage('vmdk', variant, 64 * 2 ** 40).stretches).toBeLessThanOrEqual(1 << 20);
    }
    for (const format of ['qcow2', 'vhdx', 'vmdk'] as const) {
      const plan = planImage(format, targetVariants[format][0]!, 64 * 2 ** 40);
      expect(plan.stretch % plan.unit).toBe(0);
      expect(() => planImage(format, targetVariants[format][0]!, 64 * 2 ** 40 + 1)).toThrow('64 TiB');
    }
    expect(planVhdx(64 * 2 ** 40).layout.tableBytes).toBeLessThanOrEqual(16 * MiB);
    expect(planImage('raw', 'raw', 2 ** 53 - 1).stretches).toBeLessThanOrEqual(1 << 20);
  });

  it('leave room for the sector bitmaps in the table of a VHDX', () => {
    const { layout } = planVhdx(10 * 2 ** 30);
    // A chunk is 4 GiB; with blocks of 1 MiB an entry for a bitmap stands after every 4,096.
    expect(layout.ratio).toBe(4096);
    expect([0, 4095, 4096, 8192].map((block) => entryAt(block, layout.ratio) / 8)).toEqual([0, 4095, 4097, 8194]);
  });
});

describe('going on', () => {
  it('finds what is handed out and holds nothing', () => {
    const plan = planImage('vmdk', 'monolithicSparse', 320 * MiB);
    const records = [
      { stretch: 0, data: 0, placed: [0, 2, 7, 1] },
      { stretch: 3, data: 0, placed: [3, 1] },
    ];
    expect(restart(plan, records, new Uint32Array(10).fill(1))).toMatchObject({
      places: 8,
      gaps: [
        { start: 2, count: 1 },
        { start: 4, count: 3 },
      ],
    });
  });

  it('keeps of a stream what is whole from its beginning', () => {
    const plan = planImage('vmdk', 'streamOptimized', 320 * MiB);
    const record = (stretch: number, at: number) => ({ stretch, data: 1, at, length: 512, directory: [] });
    const records = [record(0, 65_536), record(2, 65_536 + 512), record(4, 65_536 + 1536)];
    const marks = Uint32Array.of(1, 0, 1, 1, 1, 0, 0, 0, 0, 0);
    expect(restart(plan, records, marks)).toMatchObject({ records: records.slice(0, 2), position: 65_536 + 1024 });
  });
});

describe('room', () => {
  const plan = planImage('raw', 'raw', 1000);
  const disk = (granularity: number) => ({ size: 1000, files: [], layers: [{ granularity, virtualSize: 1000 }] });

  it('is forecast from what small units hold', () => {
    expect(forecast(plan, disk(65_536), [400])).toBe(400);
    // A layer without holes, and one of large blocks, may hold zeros.
    expect(forecast(plan, disk(512), [1000])).toBe(0);
    expect(forecast(plan, disk(2 * MiB), [400])).toBe(0);
  });

  it('that there is not is said before anything is written', async () => {
    await expect(checkSpace(scratch.path, 2 ** 60, 0)).rejects.toMatchObject({
      kind: 'io',
      details: { code: 'ENOSPC', needed: 2 ** 60 },
    });
    await expect(checkSpace(scratch.path, 2 ** 60, 2 ** 60)).resolves.toBeUndefined();
  });
});

describe('reading back', () => {
  async function compare(change: (bytes: Buffer) => Buffer): Promise<unknown> {
    const folder = mkdtempSync(join(scratch.path, 'compare-'));
    const bytes = Buffer.from(randomBytesOf(randomFrom(1), 3 * MiB + 100));
    bytes.fill(0, MiB, 2 * MiB);
    writeFileSync(join(folder, 'disk.raw'), bytes);
    writeFileSync(join(folder, 'copy.raw'), change(Buffer.from(bytes)));
    const disk = await openChain(join(folder, 'disk.raw'), new Confinement(folder, { synchronous: true }), {
      synchronous: true,
    });
    const plan = planImage('raw', 'raw', disk.size);
    const image = { path: join(folder, 'copy.raw'), name: 'copy.raw', folder, format: 'raw' };
    try {
      return await compareJob(disk, { kind: 'compare', plan, image }, Control.of(1), 0);
    } finally {
      await disk.close();
    }
  }

  it('finds nothing in a copy', async () => {
    expect(await compare((bytes) => bytes)).toEqual({});
  });

  it.each([0, MiB + 7, 2 * MiB - 1, 3 * MiB + 99])('finds one byte, at %i', async (at) => {
    const flipped = compare((bytes) => {
      bytes[at]! ^= 0x10;
      return bytes;
    });
    await expect(flipped).rejects.toMatchObject({ kind: 'corrupt', details: { source: 'copy.raw', position: at } });
  });

  it('finds an image of another size', async () => {
    await expect(compare((bytes) => bytes.subarray(0, -1))).rejects.toMatchObject({ kind: 'corrupt' });
  });
});

describe('hashing', () => {
  const task = (signal = new AbortController().signal) => ({
    signal,
    progress: { bytesDone: 0, itemsDone: 0 },
    report: () => undefined,
  });
  const open = (path: string) => openChain(path, new Confinement(dirname(path)), {});

  it.each([0, 1000, 64 * MiB, 64 * MiB + 1, 150 * MiB + 77])('is that of the %i bytes of a disk', async (size) => {
    const path = join(scratch.path, `hash-${size}.raw`);
    const random = randomFrom(size);
    const pieces = new Map<number, Uint8Array>();
    for (let i = 0; i < 9 && size > 0; i++) pieces.set(between(random, 0, size - 1), randomBytesOf(random, 300_000));
    writeSparse(path, size, new Map([...pieces].map(([at, bytes]) => [at, bytes.subarray(0, size - at)])));
    const disk = await open(path);
    const context = task();
    const result = await hashDisk(disk, { path, root: dirname(path) }, context);
    expect(result).toEqual({ sha256: createHash('sha256').update(readFileSync(path)).digest('hex'), bytes: size });
    expect(context.progress.bytesDone).toBe(size);
    await disk.close();
  });

  it('of zeros that nothing stores reads nothing', async () => {
    const layer = new MemoryLayer('zeros', 10 * MiB, (offset, end) => [
      { kind: 'absent', offset, length: end - offset },
    ]);
    const result = await hashDisk(new Disk([layer], {}), { path: '/none', root: '/' }, task());
    expect(result.sha256).toBe(
      createHash('sha256')
        .update(Buffer.alloc(10 * MiB))
        .digest('hex'),
    );
  });

  it('ends when it is cancelled', async () => {
    const path = join(scratch.path, 'long.raw');
    writeSparse(path, 2 ** 40, new Map());
    const controller = new AbortController();
    const disk = await open(path);
    const context = task(controller.signal);
    const hashing = hashDisk(
      disk,
      { path, root: dirname(path) },
      {
        ...context,
        report: () => {
          if (context.progress.bytesDone > 0) controller.abort();
        },
      },
    );
    await expect(hashing).rejects.toMatchObject({ kind: 'cancelled' });
    await disk.close();
  });
});

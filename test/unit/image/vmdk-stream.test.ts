import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import type { WireError } from '../../../main/engine/errors.ts';
import type { Codec, CompressedRun, ImageLayer } from '../../../main/engine/image/image.ts';
import { GrainCodec } from '../../../main/engine/image/vmdk/compressed-grain.ts';
import { SparseExtentHeaderOffsets as header } from '../../../main/engine/image/vmdk/layout.ts';
import { readDescriptor } from '../../../main/engine/image/vmdk/vmdk-layer.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { type ReadRequest, runAsync, runSync } from '../../../main/engine/storage/io.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { wireOf, withLayer } from '../../support/open-layer.ts';
import { caseFolders, scratchFolder } from '../../support/scratch.ts';
import { descriptorText, type Grain, modelOf, pattern, SECTOR, writeSparseDisk } from '../../support/vmdk-builder.ts';
import {
  buildStream,
  type StreamImage,
  type StreamOptions,
  writeStreamDisk,
} from '../../support/vmdk-stream-builder.ts';

const scratch = scratchFolder('vmdk-stream');
const freshFolder = caseFolders(scratch);

const GRAIN = 16 * SECTOR;
const layout = {
  capacitySectors: 16 * 100,
  grainSectors: 16,
  entriesPerTable: 32,
  grains: new Map<number, Grain>([0, 1, 5, 40, 99].map((n) => [n, pattern(n * GRAIN, GRAIN)])),
} satisfies StreamOptions;
const model = modelOf(layout);

function withDisk<T>(folder: string, body: (layer: ImageLayer) => Promise<T>): Promise<T> {
  return withLayer(folder, 'disk.vmdk', body);
}

/** A disk with something changed: what reading it throws, and what its check finds where it opens. */
async function broken(
  change: (image: StreamImage) => Buffer | undefined,
  options: Partial<StreamOptions> = {},
): Promise<{ error: WireError; codes: () => Promise<string[]>; folder: string }> {
  const folder = freshFolder();
  const image = writeStreamDisk(folder, 'disk', { ...layout, ...options });
  writeFileSync(join(folder, 'disk.vmdk'), change(image) ?? image.bytes);
  const error = await wireOf(withDisk(folder, (layer) => readLayer(layer, 0, layer.virtualSize)));
  const codes = () => withDisk(folder, async (layer) => (await findings(layer)).map(({ code }) => code));
  return { error, codes, folder };
}

describe('streamOptimized', () => {
  it('says what it is', async () => {
    const folder = freshFolder();
    writeStreamDisk(folder, 'disk', layout);
    await withDisk(folder, async (layer) => {
      expect(layer).toMatchObject({
        format: 'vmdk',
        variant: 'streamOptimized',
        virtualSize: 1600 * SECTOR,
        granularity: GRAIN,
        properties: { compression: 'deflate', sparseVersion: 3, grainSize: GRAIN },
      });
      expect(await layer.allocatedBytes()).toBe(5 * GRAIN);
      expect(await findings(layer)).toEqual([]);
    });
  });

  it('is one codec for all of its runs, and a run for each grain', async () => {
    const folder = freshFolder();
    const image = writeStreamDisk(folder, 'disk', layout);
    await withDisk(folder, async (layer) => {
      const runs = await runAsync(layer.runs(100, 3 * GRAIN));
      expect(runs.map(({ kind, offset, length }) => [kind, offset, length])).toEqual([
        ['compressed', 100, GRAIN - 100],
        ['compressed', GRAIN, GRAIN],
        ['absent', 2 * GRAIN, GRAIN + 100],
      ]);
      const [first, second] = runs as CompressedRun[];
      expect(first!.codec).toBe(second!.codec);
      expect([first!.position, second!.position]).toEqual([image.at.grains.get(0), image.at.grains.get(1)]);
    });
  });

  it('reads through a chain, over a parent', async () => {
    const folder = freshFolder();
    const base = new Map<number, Grain>(Array.from({ length: 100 }, (_, n) => [n, pattern(n * GRAIN, GRAIN, 9)]));
    writeSparseDisk(folder, 'base', { ...layout, grains: base }, { cid: '0000000a' });
    writeStreamDisk(folder, 'disk', layout, { parentCid: '0000000a', parentFileNameHint: 'base.vmdk' });
    const expected = modelOf({ ...layout, grains: base });
    for (const [n, content] of layout.grains) (content as Buffer).copy(expected, n * GRAIN);
    for (const synchronous of [true, false]) {
      const disk = await openChain('disk.vmdk', new Confinement(folder, { synchronous }), { synchronous });
      expect(Buffer.compare(await disk.read(0, disk.size), expected)).toBe(0);
      expect(Buffer.compare(await disk.read(GRAIN - 5, 10), expected.subarray(GRAIN - 5, GRAIN + 5))).toBe(0);
      await disk.close();
    }
  });

  it('takes a stream whose size the header did not know', async () => {
    const folder = freshFolder();
    const image = writeStreamDisk(folder, 'disk', layout);
    image.bytes.writeBigUInt64LE(0n, header.capacity);
    writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
    await withDisk(folder, async (layer) => {
      expect((await readLayer(layer, 0, layer.virtualSize)).equals(model)).toBe(true);
    });
  });

  it('finds the footer before padding, and tells of what follows it', async () => {
    const folder = freshFolder();
    const image = writeStreamDisk(folder, 'disk', layout);
    writeFileSync(join(folder, 'disk.vmdk'), Buffer.concat([image.bytes, Buffer.alloc(20_000)]));
    await withDisk(folder, async (layer) => {
      expect((await readLayer(layer, 0, layer.virtualSize)).equals(model)).toBe(true);
      expect(await findings(layer)).toMatchObject([
        { severity: 'note', code: 'trailing-data', position: image.bytes.length },
      ]);
    });
  });

  it.each([
    ['the end-of-stream marker', 512],
    ['the footer', 1024],
    ['the footer’s marker', 1536],
    ['the directory', 2560],
    ['the half', 30_000],
  ])('is refused when %s is cut off, with what can be done', async (_what, cut) => {
    const { error, folder } = await broken((image) => image.bytes.subarray(0, image.bytes.length - cut));
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure: 'VMDK footer', source: 'disk.vmdk' } });
    expect(error.message).toContain('copy or export it again');
    // A catalogue can still tell what it was.
    expect((await readDescriptor('disk.vmdk', new Confinement(folder)))?.createType).toBe('streamOptimized');
  });

  it.each<[string, (image: StreamImage) => void, string]>([
    ['grainSize', (image) => image.bytes.writeBigUInt64LE(32n, image.at.footer + header.grainSize), 'grainSize'],
    ['table size', (image) => image.bytes.writeUInt32LE(64, image.at.footer + header.numGTEsPerGT), 'numGTEsPerGT'],
    ['capacity', (image) => image.bytes.writeBigUInt64LE(1601n, image.at.footer + header.capacity), 'capacity'],
    ['gdOffset', (image) => image.bytes.fill(0xff, image.at.footer + 56, image.at.footer + 64), 'gdOffset'],
    ['directory', (image) => image.bytes.writeBigUInt64LE(1n << 40n, image.at.footer + header.gdOffset), 'gdOffset'],
  ])('is refused when its footer has another %s than can be', async (_what, change, field) => {
    const { error } = await broken((image) => {
      change(image);
      return undefined;
    });
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure: `VMDK footer ${field}` } });
    expect(error.details.position).toBeGreaterThan(SECTOR);
  });

  it('notes harmless differences between header and footer', async () => {
    const folder = freshFolder();
    const image = writeStreamDisk(folder, 'disk', layout);
    image.bytes.writeUInt32LE(1, image.at.footer + header.version);
    writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
    expect(await withDisk(folder, findings)).toMatchObject([
      { severity: 'note', code: 'footer-differs', expected: 3, found: 1, position: image.at.footer + 4 },
    ]);
  });

  it.each<[string, (image: StreamImage) => void, string, string]>([
    [
      'a marker of another grain',
      (image) => image.bytes.writeBigUInt64LE(17n * 16n, image.at.grains.get(5)!),
      'VMDK grain marker lba',
      'grain-marker-wrong',
    ],
    [
      'a marker without data',
      (image) => image.bytes.writeUInt32LE(0, image.at.grains.get(5)! + 8),
      'VMDK grain marker size',
      'grain-marker-wrong',
    ],
    [
      'a marker of a huge grain',
      (image) => image.bytes.writeUInt32LE(0x7fff_ffff, image.at.grains.get(5)! + 8),
      'VMDK grain marker size',
      'grain-marker-wrong',
    ],
    [
      'a stream that is no stream',
      (image) => image.bytes.fill(0xee, image.at.grains.get(5)! + 12, image.at.grains.get(5)! + 20),
      'VMDK compressed grain',
      'compressed-grain-damaged',
    ],
    [
      'a stream with a bit turned',
      (image) => {
        image.bytes[image.at.grains.get(5)! + 200]! ^= 4;
      },
      'VMDK compressed grain',
      'compressed-grain-damaged',
    ],
    [
      'a stream that is cut short',
      (image) => {
        const at = image.at.grains.get(5)! + 8;
        image.bytes.writeUInt32LE(image.bytes.readUInt32LE(at) - 1, at);
      },
      'VMDK compressed grain',
      'compressed-grain-damaged',
    ],
  ])('refuses %s, and reads what lies beside it', async (_what, change, structure, code) => {
    const { error, codes, folder } = await broken((image) => {
      change(image);
      return undefined;
    });
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure, source: 'disk.vmdk' } });
    expect(await codes()).toContain(code);
    const disk = await openChain('disk.vmdk', new Confinement(folder));
    await expect(disk.read(5 * GRAIN, 1)).rejects.toMatchObject({ kind: 'corrupt' });
    expect(Buffer.compare(await disk.read(0, 5 * GRAIN), model.subarray(0, 5 * GRAIN))).toBe(0);
    expect(Buffer.compare(await disk.read(6 * GRAIN, 94 * GRAIN), model.subarray(6 * GRAIN))).toBe(0);
    await disk.close();
  });

  it.each([
    ['more than a grain', (content: Buffer) => deflateSync(Buffer.concat([content, Buffer.alloc(1)]))],
    ['a decompression bomb', () => deflateSync(Buffer.alloc(12 << 20))],
    ['less than a grain', (content: Buffer) => deflateSync(content.subarray(0, 4096))],
    ['nothing', () => deflateSync(Buffer.alloc(0))],
  ])('refuses a grain that inflates to %s', async (_what, pack) => {
    const { error, codes } = await broken(() => undefined, {
      pack: (content, grain) => (grain === 5 ? pack(content) : deflateSync(content)),
    });
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure: 'VMDK compressed grain' } });
    expect(await codes()).toContain('compressed-grain-damaged');
  });

  it('lets only the last grain of the disk be short, as QEMU stores it', async () => {
    const folder = freshFolder();
    const odd = { ...layout, capacitySectors: 16 * 99 + 3 };
    const pack = (content: Buffer, grain: number) =>
      deflateSync(grain === 99 ? content.subarray(0, 3 * SECTOR) : content);
    writeStreamDisk(folder, 'disk', { ...odd, pack });
    await withDisk(folder, async (layer) => {
      expect((await readLayer(layer, 0, layer.virtualSize)).equals(modelOf(odd))).toBe(true);
      expect(await findings(layer)).toEqual([]);
    });
  });

  it('reads grains that compression made larger', async () => {
    const folder = freshFolder();
    writeStreamDisk(folder, 'disk', { ...layout, pack: (content) => deflateSync(content, { level: 0 }) });
    await withDisk(folder, async (layer) => {
      expect((await readLayer(layer, 0, layer.virtualSize)).equals(model)).toBe(true);
    });
  });

  it('finds grains that two entries share, and grains in tables', async () => {
    const { codes } = await broken((image) => {
      const table = image.at.tables.get(0)!;
      image.bytes.writeUInt32LE(image.bytes.readUInt32LE(table), table + 4);
      return undefined;
    });
    // The marker says that it is another's, too.
    expect(await codes()).toEqual(expect.arrayContaining(['grain-marker-wrong', 'grain-overlap']));
  });

  it('stops checking when it is told to', async () => {
    const folder = freshFolder();
    const grains = new Map<number, Grain>(Array.from({ length: 100 }, (_, n) => [n, pattern(n * GRAIN, GRAIN)]));
    const image = writeStreamDisk(folder, 'disk', { ...layout, grains });
    for (const at of image.at.grains.values()) image.bytes.fill(0xee, at + 12, at + 20);
    writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
    const stop = new AbortController();
    let count = 0;
    const check = withDisk(folder, async (layer) => {
      for await (const finding of layer.check(stop.signal)) {
        expect(finding.code).toBe('compressed-grain-damaged');
        if (++count === 3) stop.abort();
      }
    });
    await expect(check).rejects.toMatchObject({ kind: 'cancelled' });
    expect(count).toBeLessThan(20);
  });

  it.each<[string, (image: StreamImage) => void, object]>([
    [
      'a contradiction of flags and algorithm',
      (image) => image.bytes.writeUInt16LE(0, header.compressAlgorithm),
      { kind: 'corrupt', details: { structure: 'VMDK sparse extent header compressAlgorithm' } },
    ],
    [
      'an unknown algorithm',
      (image) => image.bytes.writeUInt16LE(2, header.compressAlgorithm),
      { kind: 'unsupported', details: { feature: 'VMDK compression algorithm 2' } },
    ],
    [
      'grains of 64 MiB',
      (image) => image.bytes.writeBigUInt64LE(131_072n, header.grainSize),
      { kind: 'unsupported', details: { feature: 'VMDK with compressed grains of 131072 sectors' } },
    ],
  ])('refuses %s', async (_what, change, expected) => {
    const { error } = await broken((image) => {
      change(image);
      return undefined;
    });
    expect(error).toMatchObject(expected);
  });

  it('refuses a compressed extent that lies askew on the disk', async () => {
    const folder = freshFolder();
    writeFileSync(join(folder, 'd-s001.vmdk'), buildStream(layout).bytes);
    const extents = ['RW 3 ZERO', 'RW 1600 SPARSE "d-s001.vmdk"'];
    writeFileSync(join(folder, 'disk.vmdk'), descriptorText({ createType: 'custom', extents }));
    expect(await wireOf(withDisk(folder, async () => undefined))).toMatchObject({
      kind: 'unsupported',
      details: { feature: 'VMDK compressed extent that does not begin on a grain of the disk' },
    });
  });
});

describe('the grain codec', () => {
  const unit = 65_536;
  const make = () => new GrainCodec({ grainBytes: unit, base: 0, capacity: 16 * unit, markers: true });
  /** Runs a computation on `source` and counts its reads. */
  function counted(codec: Codec, source: MemorySource, position: number, offset: number) {
    const requests: ReadRequest[] = [];
    const io = codec.unpack(source, position, 0, offset);
    let step = io.next();
    while (!step.done) {
      requests.push(step.value);
      const bytes = new Uint8Array(step.value.length);
      source.readIntoSync(bytes, step.value.offset);
      step = io.next(bytes);
    }
    return { bytes: step.value, requests };
  }

  it('reads marker and data at once, and no more than twice when the guess was short', () => {
    // Every grain takes more than half of what it holds.
    const random = (n: number) => pattern(n * unit, unit, n).map((byte, i) => (byte + Math.imul(i, i)) & 0xff);
    const grains = new Map<number, Grain>([0, 1, 2].map((n) => [n, Buffer.from(random(n))]));
    const image = buildStream({
      capacitySectors: 16 * 128,
      grains,
      pack: (content) => deflateSync(content, { level: 0 }),
    });
    const source = new MemorySource(image.bytes);
    const codec = make();
    const reads = [0, 1, 2].map((n) => {
      const { bytes, requests } = counted(codec, source, image.at.grains.get(n)!, n * unit);
      expect(Buffer.compare(bytes, grains.get(n) as Buffer)).toBe(0);
      return requests.length;
    });
    expect(reads).toEqual([2, 1, 1]);
  });

  it('never asks for bytes behind the end of the file', () => {
    const content = pattern(0, unit);
    const packed = deflateSync(content);
    const marker = Buffer.alloc(12);
    marker.writeUInt32LE(packed.length, 8);
    const source = new MemorySource(Buffer.concat([marker, packed]));
    expect(Buffer.compare(counted(make(), source, 0, 0).bytes, content)).toBe(0);
    const short = new MemorySource(Buffer.concat([marker, packed.subarray(0, -1)]));
    expect(() => runSync(make().unpack(short, 0, 0, 0))).toThrow(/up to the end of the file/);
  });
});

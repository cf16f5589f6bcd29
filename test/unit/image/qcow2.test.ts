import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { type Finding, type ImageLayer, snapshotPath } from '../../../main/engine/image/image.ts';
import { backingClaim } from '../../../main/engine/image/qcow2/backing.ts';
import { DeflateCodec } from '../../../main/engine/image/qcow2/deflate-codec.ts';
import { ZstdCodec } from '../../../main/engine/image/qcow2/zstd-codec.ts';
import { frameShape } from '../../../main/engine/image/qcow2/zstd-frame.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { runAsync, runSync } from '../../../main/engine/storage/io.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { buildQcow } from '../../support/qcow-builder.ts';
import {
  type BuiltQcow2,
  buildQcow2,
  type Cluster,
  modelOf,
  pattern,
  type Qcow2Options,
  zstdFrame,
} from '../../support/qcow2-builder.ts';
import { caseFolders, scratchFolder } from '../../support/scratch.ts';

const scratch = scratchFolder('qcow2');
const fresh = caseFolders(scratch);

const SIZE = 512;
const shared = pattern(1, SIZE);
const plain: Qcow2Options = {
  clusterBits: 9,
  size: 200 * SIZE,
  clusters: new Map<number, Cluster>([
    [0, pattern(0, SIZE)],
    [1, shared],
    [3, 'zero'],
    [4, 'zero-allocated'],
    [5, { packed: pattern(5, SIZE) }],
    [6, { packed: pattern(6, SIZE) }],
    [130, pattern(130, SIZE)],
  ]),
  snapshots: [
    {
      id: '1',
      name: 'before',
      size: 100 * SIZE,
      clusters: new Map([[1, shared]]),
      seconds: 1_700_000_000,
      nanoseconds: 5e8,
    },
    { id: '2', name: 'with memory', size: 200 * SIZE, clusters: new Map([[9, pattern(9, SIZE)]]), stateBytes: 12_345 },
  ],
};

/** Changes an image in place, or returns what stands in its place. */
type Change = (bytes: Buffer, built: BuiltQcow2) => unknown;

/** Opens the image, with one change made to its bytes. */
async function opened(options: Qcow2Options, change?: Change, snapshot?: string): Promise<ImageLayer> {
  const built = buildQcow2(options);
  const changed = change?.(built.bytes, built);
  const bytes = Buffer.isBuffer(changed) ? changed : built.bytes;
  const folder = fresh();
  const image = join(folder, 'disk.qcow2');
  writeFileSync(image, bytes);
  if (built.data !== undefined && options.dataFile?.name !== undefined) {
    writeFileSync(join(folder, options.dataFile.name), built.data);
  }
  return openLayer(snapshot === undefined ? image : snapshotPath(image, snapshot), new Confinement(folder));
}

async function codes(layer: ImageLayer, but: readonly Finding['severity'][] = []): Promise<string[]> {
  const found = await findings(layer);
  await layer.close();
  return [...new Set(found.filter(({ severity }) => !but.includes(severity)).map(({ code }) => code))].sort();
}

type At = BuiltQcow2['at'];
type Place = number | ((at: At) => number);

function put64(place: Place, value: bigint | ((at: At, bytes: Buffer) => bigint)): Change {
  return (bytes, { at }) =>
    bytes.writeBigUInt64BE(
      typeof value === 'bigint' ? value : value(at, bytes),
      typeof place === 'number' ? place : place(at),
    );
}
function put32(place: Place, value: number): Change {
  return (bytes, { at }) => bytes.writeUInt32BE(value, typeof place === 'number' ? place : place(at));
}
function all(...changes: readonly Change[]): Change {
  return (bytes, built) => {
    for (const change of changes) change(bytes, built);
  };
}

describe('QCOW2 header', () => {
  it('says what the image is', async () => {
    const layer = await opened({ ...plain, backing: { name: 'base.img', format: 'raw' }, compatible: 1n });
    expect(layer).toMatchObject({
      format: 'qcow2',
      variant: 'v3',
      virtualSize: 200 * SIZE,
      parent: { recorded: 'base.img', format: 'raw' },
      id: undefined,
      granularity: SIZE,
      properties: {
        clusterSize: SIZE,
        refcountBits: 16,
        lazyRefcounts: true,
        dirty: false,
        backingFormat: 'raw',
        snapshots: 2,
      },
    });
    await layer.close();
  });

  it.each([
    ['magic', put32(0, 0x12345678), 0],
    ['cluster_bits', put32(20, 8), 20],
    ['cluster_bits', put32(20, 0xffffffff), 20],
    ['size', put64(24, 2n ** 63n), 24],
    ['size', put64(24, 2n ** 64n - 1n), 24],
    ['l1_size', put64(24, 2n ** 53n - 1n), 36],
    ['l1_size', put32(36, 1), 36],
    ['l1_table_offset', put64(40, 513n), 40],
    ['l1_table_offset', put64(40, 0n), 40],
    ['l1_table_offset', put64(40, 2n ** 40n), 40],
    ['l1_table_offset', put64(40, 2n ** 63n), 40],
    ['refcount_order', put32(96, 7), 96],
    ['header_length', put32(100, 103), 100],
    ['header_length', put32(100, 109), 100],
    ['header_length', put32(100, 4096), 100],
    ['compression_type', (bytes: Buffer) => bytes.writeUInt8(1, 104), 104],
    ['compression_type', put64(72, 8n), 104],
    ['backing_file_offset', put64(8, 20n), 8],
    ['backing_file_offset', put64(8, 2n ** 62n), 8],
    ['backing_file_offset', put64(8, 513n), 8],
    ['backing_file_size', all(put64(8, 200n), put32(16, 1024)), 16],
    ['backing_file_size', all(put64(8, 500n), put32(16, 13)), 16],
    ['extension length', all(put32(112, 1), put32(116, 400)), 116],
  ] as const)('refuses a %s that can’t be true (%#)', async (field, change, position) => {
    const error = opened(plain, change);
    await expect(error).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: `QCOW2 header ${field}`, position, source: 'disk.qcow2' },
    });
  });

  it.each([
    ['QCOW version 4', put32(4, 4), {}],
    ['QCOW2 clusters of 4194304 bytes', put32(20, 22), {}],
    ['QCOW2 encryption method 3', put32(32, 3), {}],
    ['QCOW2 compression type 9', all(put64(72, 8n), (bytes) => bytes.writeUInt8(9, 104)), {}],
    ['QCOW2 incompatible feature 5, incompatible feature 63', put64(72, 2n ** 63n + 32n), {}],
    [
      'QCOW2 "time travel" (incompatible feature 7)',
      undefined,
      {
        incompatible: 128n,
        extensions: [{ type: 0x6803f857, data: featureNames([0, 7, 'time travel'], [1, 7, 'other']) }],
      },
    ],
    [
      'QCOW2 "??[31m?" (incompatible feature 7)',
      undefined,
      { incompatible: 128n, extensions: [{ type: 0x6803f857, data: featureNames([0, 7, '\n\x1b[31mé']) }] },
    ],
    ['QCOW2 L1 table of 4194305 entries', put32(36, 4_194_305), {}],
  ] as const)('refuses by name: %s', async (feature, change, options) => {
    await expect(opened({ ...plain, ...options }, change)).rejects.toMatchObject({
      kind: 'unsupported',
      details: { feature, source: 'disk.qcow2' },
    });
  });

  it.each([
    [1, 'aes'],
    [2, 'luks'],
  ])('asks for a key of encryption method %i', async (method, name) => {
    await expect(opened(plain, put32(32, method))).rejects.toMatchObject({
      kind: 'needs-key',
      details: { method: name },
    });
  });

  it.each([0, 3, 71, 103, 200, 511])('a file of %i bytes is damaged', async (length) => {
    await expect(opened(plain, (bytes) => bytes.subarray(0, length))).rejects.toMatchObject({ kind: 'corrupt' });
  });

  it('reads an empty disk', async () => {
    const layer = await opened({ clusterBits: 9, size: 0, clusters: new Map() });
    expect(layer.virtualSize).toBe(0);
    expect(await runAsync(layer.runs(0, 0))).toEqual([]);
    expect(await codes(layer)).toEqual([]);
  });
});

function featureNames(...features: readonly (readonly [number, number, string])[]): Buffer {
  return Buffer.concat(
    features.map(([type, bit, name]) => {
      const entry = Buffer.alloc(48);
      entry[0] = type;
      entry[1] = bit;
      entry.write(name, 2, 'latin1');
      return entry;
    }),
  );
}

describe('QCOW2 backing files', () => {
  it.each([
    ['base.qcow2', undefined, { recorded: 'base.qcow2' }],
    ['base.qcow2', 'qcow2', { recorded: 'base.qcow2', format: 'qcow2' }],
    ['/var/lib/a:b.img', 'raw', { recorded: '/var/lib/a:b.img', format: 'raw' }],
    ['./nbd:x', 'vpc', { recorded: './nbd:x', format: 'vhd' }],
    ['C:\\VMs\\base.vhdx', 'vhdx', { recorded: 'C:\\VMs\\base.vhdx', format: 'vhdx' }],
    ['file:base.img', 'file', { recorded: 'base.img', format: 'raw' }],
    ['json:{"driver":"qcow2","file":{"driver":"file","filename":"b"}}', undefined, { recorded: 'b', format: 'qcow2' }],
    ['json:{"driver":"raw","file.filename":"b"}', 'qcow2', { recorded: 'b', format: 'raw' }],
    ['json:{"file":{"filename":"b","locking":"off"},"node-name":"x"}', 'vmdk', { recorded: 'b', format: 'vmdk' }],
    ['json:{"driver":"file","filename":"b"}', 'qcow2', { recorded: 'b', format: 'raw' }],
  ])('%s of format %s', (name, format, expected) => {
    expect(backingClaim(name, format, 'a')).toEqual(expected);
  });

  it.each([
    ['nbd://host/disk', undefined, 'QCOW2 backing file over nbd ("nbd://host/disk")'],
    ['rbd:pool/disk', undefined, 'QCOW2 backing file over rbd ("rbd:pool/disk")'],
    ['nbd+unix:///x?socket=/y', undefined, 'QCOW2 backing file over nbd+unix ("nbd+unix:///x?socket=/y")'],
    ['base', 'luks', 'QCOW2 backing file of format "luks"'],
    ['base', 'constructor', 'QCOW2 backing file of format "constructor"'],
    ['json:{"driver":"nbd","host":"x"}', undefined, 'QCOW2 backing file with driver "nbd" and no file'],
    ['json:{"driver":"qcow2","file":{"driver":"ssh","path":"x"}}', undefined, 'QCOW2 backing file with driver "ssh"'],
    ['json:{"driver":"raw","offset":512,"file.filename":"b"}', undefined, 'QCOW2 backing file with option "offset"'],
    ['json:{"file.filename":"b","backing":null}', undefined, 'QCOW2 backing file with option "backing"'],
    ['json:{"file.filename":"http://x/y"}', undefined, 'QCOW2 backing file over http ("http://x/y")'],
    ['json:{}', undefined, 'QCOW2 backing file with no file name'],
  ])('refuses %s of format %s by name', (name, format, feature) => {
    expect(() => backingClaim(name, format, 'a')).toThrow(expect.objectContaining({ kind: 'unsupported' }));
    expect(() => backingClaim(name, format, 'a')).toThrow(feature);
  });

  it.each(['json:', 'json:[]', 'json:{', 'json:"x"', 'json:null'])('calls %s damaged', (name) => {
    expect(() => backingClaim(name, undefined, 'a')).toThrow(expect.objectContaining({ kind: 'corrupt' }));
  });

  it('takes a name up to its first NUL, and an empty one for none', async () => {
    const named = await opened({ ...plain, backing: { name: 'base\0rest' } });
    expect(named.parent).toEqual({ recorded: 'base' });
    const none = await opened({ ...plain, backing: { name: '' } });
    expect(none.parent).toBeUndefined();
    await Promise.all([named.close(), none.close()]);
  });

  it('opens nothing outside the folder, and no chain that is a loop', async () => {
    const folder = fresh();
    const image = (name: string, backing: string) => {
      const { bytes } = buildQcow2({ ...plain, snapshots: [], backing: { name: backing, format: 'qcow2' } });
      writeFileSync(join(folder, name), bytes);
    };
    image('a.qcow2', '../secret.qcow2');
    image('b.qcow2', 'c.qcow2');
    image('c.qcow2', 'b.qcow2');
    image('self.qcow2', 'self.qcow2');
    const confinement = new Confinement(folder);
    await expect(openChain('a.qcow2', confinement)).rejects.toMatchObject({ kind: 'denied' });
    await expect(openChain('b.qcow2', confinement)).rejects.toMatchObject({ kind: 'corrupt' });
    await expect(openChain('self.qcow2', confinement)).rejects.toMatchObject({ kind: 'corrupt' });
  });
});

describe('QCOW2 tables', () => {
  const l2 =
    (entry: bigint, cluster = 0) =>
    (bytes: Buffer, { at }: BuiltQcow2) => {
      bytes.writeBigUInt64BE(entry, at.l2.get(0)! + cluster * 8);
      return undefined;
    };
  const COPIED = 1n << 63n;

  it.each([
    ['reserved bit 1', 2n, 'reserved bits 1-8 and 56-61 of 0'],
    ['reserved bit 60', COPIED | (1n << 60n) | 4096n, 'reserved bits 1-8 and 56-61 of 0'],
    ['an offset of 0 that is used once', COPIED, 'an offset behind bit 63'],
    ['the header', COPIED | 0n | 512n, 'a place outside the L1 table'],
    ['far outside', COPIED | (1n << 55n), /^100 bytes inside the \d+ of disk.qcow2$/],
    ['a compressed cluster outside', (1n << 62n) | (1n << 50n), /^1 bytes inside/],
    ['a compressed cluster in the header', (1n << 62n) | 100n, 'a place outside the header'],
  ])('refuses an L2 entry with %s', async (_what, entry, expected) => {
    const layer = await opened({ ...plain, snapshots: [] }, l2(entry));
    const error = await runAsync(layer.runs(0, 100)).catch((reason) => reason);
    expect(error).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'QCOW2 L2 table entry', found: `0x${entry.toString(16).padStart(16, '0')}` },
    });
    expect(error.details.expected).toEqual(typeof expected === 'string' ? expected : expect.stringMatching(expected));
    // Its neighbours are read all the same.
    expect((await readLayer(layer, SIZE, SIZE)).equals(shared)).toBe(true);
    expect(await codes(layer, ['note'])).toContain('l2-entry');
  });

  it.each([
    ['unaligned in larger clusters', (1n << 63n) | 5120n, 'an offset that is a multiple of 4096'],
    ['zeros in version 2', 1n, 'no zero cluster (bit 0) in version 2'],
  ])('refuses an L2 entry %s', async (_what, entry, expected) => {
    const options: Qcow2Options = {
      version: 2,
      clusterBits: 12,
      size: 40_960,
      clusters: new Map([[0, pattern(0, 4096)]]),
    };
    const layer = await opened(options, l2(entry));
    await expect(runAsync(layer.runs(0, 1))).rejects.toMatchObject({ kind: 'corrupt', details: { expected } });
    await layer.close();
  });

  it.each([
    ['reserved bit 3', 8n],
    ['reserved bit 57', (1n << 57n) | 2048n],
    ['the header', 0x100n],
    ['itself: the L1 table', 512n],
    ['far outside', 1n << 54n],
  ])('refuses an L1 entry with %s', async (_what, entry) => {
    const layer = await opened(
      { ...plain, snapshots: [] },
      put64((at) => at.l1, entry),
    );
    await expect(runAsync(layer.runs(0, 1))).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: 'QCOW2 L1 table entry' },
    });
    expect((await readLayer(layer, 130 * SIZE, SIZE)).equals(pattern(130, SIZE))).toBe(true);
    expect(await codes(layer, ['note'])).toContain('l1-entry');
  });

  it('costs one damaged entry its own cluster, through the chain as well', async () => {
    const folder = fresh();
    const { bytes, at } = buildQcow2({ ...plain, snapshots: [] });
    bytes.writeBigUInt64BE(2n, at.l2.get(0)! + 8);
    writeFileSync(join(folder, 'd.qcow2'), bytes);
    const disk = await openChain('d.qcow2', new Confinement(folder));
    expect(Buffer.from(await disk.read(0, SIZE)).equals(pattern(0, SIZE))).toBe(true);
    await expect(disk.read(SIZE, 1)).rejects.toMatchObject({ kind: 'corrupt' });
    expect(Buffer.from(await disk.read(130 * SIZE, SIZE)).equals(pattern(130, SIZE))).toBe(true);
    await disk.close();
  });

  it.each([
    ['bit 0 set', 1n, 0n],
    ['subclusters both allocated and zeros', 0n, 0x0000_0001_0000_0001n],
  ])('refuses an extended entry with %s', async (_what, flags, bitmap) => {
    const bits = 14;
    const options: Qcow2Options = {
      clusterBits: bits,
      extendedL2: true,
      size: 1 << 18,
      clusters: new Map([[0, pattern(0, 1 << bits)]]),
    };
    const layer = await opened(options, (bytes, { at }) => {
      const entry = at.l2.get(0)!;
      bytes.writeBigUInt64BE(bytes.readBigUInt64BE(entry) | flags, entry);
      if (bitmap !== 0n) bytes.writeBigUInt64BE(bitmap, entry + 8);
      return undefined;
    });
    await expect(runAsync(layer.runs(0, 1))).rejects.toMatchObject({ kind: 'corrupt' });
    expect(await codes(layer, ['note'])).toContain('l2-entry');
  });

  it('refuses allocated subclusters without a place, and small clusters with subclusters', async () => {
    const options: Qcow2Options = {
      clusterBits: 14,
      extendedL2: true,
      size: 1 << 18,
      clusters: new Map([[0, 'zero']]),
    };
    const layer = await opened(
      options,
      put64((at) => at.l2.get(0)! + 8, 1n),
    );
    await expect(runAsync(layer.runs(0, 1))).rejects.toMatchObject({
      details: { expected: 'an offset for allocated subclusters' },
    });
    await layer.close();
    await expect(opened({ ...plain, incompatible: 16n })).rejects.toMatchObject({
      details: { structure: 'QCOW2 header cluster_bits' },
    });
  });

  it('reads a last cluster that is short where nothing of the disk is, and refuses one that lacks some of it', async () => {
    const clusters = new Map<number, Cluster>([
      [0, pattern(0, 4096)],
      [2, pattern(2, 4096)],
    ]);
    const options: Qcow2Options = { clusterBits: 12, size: 2 * 4096 + 1000, clusters };
    const { bytes, at } = buildQcow2(options);
    // The last cluster's data to the end of the file, as a program leaves it that writes no more than it has.
    const moved = Buffer.concat([bytes, pattern(2, 4096).subarray(0, 1000)]);
    moved.writeBigUInt64BE((1n << 63n) | BigInt(bytes.length), at.l2.get(0)! + 16);
    const whole = await opened(options, () => moved);
    expect((await readLayer(whole, 0, whole.virtualSize)).equals(modelOf(options, 12))).toBe(true);
    await whole.close();
    const cut = await opened(options, () => moved.subarray(0, moved.length - 1));
    await expect(runAsync(cut.runs(8192, 1000))).rejects.toMatchObject({ kind: 'corrupt' });
    // What is there of it is read.
    expect((await readLayer(cut, 8192, 999)).equals(pattern(2, 4096).subarray(0, 999))).toBe(true);
    expect(await codes(cut, ['note'])).toContain('l2-entry');
  });

  it('opens 64 TiB, and reads of its tables only what a range needs', async () => {
    const folder = fresh();
    const size = 64 * 2 ** 40;
    const entries = size / (8192 * 65_536);
    const { bytes } = buildQcow2({ size: 0, clusters: new Map() });
    const l1 = 1 << 20;
    bytes.writeBigUInt64BE(BigInt(size), 24);
    bytes.writeUInt32BE(entries, 36);
    bytes.writeBigUInt64BE(BigInt(l1), 40);
    const fd = openSync(join(folder, 'big.qcow2'), 'w');
    const word = (value: bigint, at: number) => {
      const eight = Buffer.alloc(8);
      eight.writeBigUInt64BE(value);
      writeSync(fd, eight, 0, 8, at);
    };
    writeSync(fd, bytes, 0, bytes.length, 0);
    const tables = l1 + 2 ** 20;
    for (let i = 0; i < 1000; i++) {
      const table = tables + i * 131_072;
      word((1n << 63n) | BigInt(table), l1 + i * 131 * 8);
      word((1n << 63n) | BigInt(table + 65_536), table + (i % 8192) * 8);
      writeSync(fd, Buffer.alloc(512, 1 + (i % 255)), 0, 512, table + 65_536);
    }
    ftruncateSync(fd, tables + 1001 * 131_072);
    closeSync(fd);
    const before = process.memoryUsage().arrayBuffers;
    const disk = await openChain('big.qcow2', new Confinement(folder, { synchronous: true }), { synchronous: true });
    for (let i = 0; i < 1000; i++) {
      const at = i * 131 * 8192 * 65_536 + (i % 8192) * 65_536;
      const read = await disk.read(at, 512);
      expect(read.every((byte) => byte === 1 + (i % 255))).toBe(true);
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 << 20);
    expect(await disk.layers[0]!.allocatedBytes()).toBe(1000 * 65_536);
    await disk.close();
  });
});

describe('QCOW2 snapshots', () => {
  it('are points with names of their own', async () => {
    const layer = await opened(plain);
    expect(layer.snapshots).toEqual([
      { id: '1', name: 'before', created: '2023-11-14T22:13:20.500Z', stateBytes: 0, virtualSize: 100 * SIZE },
      {
        id: '2',
        name: 'with memory',
        created: '2023-11-14T22:13:21.000Z',
        stateBytes: 12_345,
        virtualSize: 200 * SIZE,
      },
    ]);
    await layer.close();
    const point = await opened({ ...plain, backing: { name: 'base.img', format: 'raw' } }, undefined, '1');
    expect(point).toMatchObject({
      name: 'disk.qcow2/@1',
      virtualSize: 100 * SIZE,
      parent: { recorded: 'base.img', format: 'raw' },
      properties: { snapshotId: '1', snapshotName: 'before', vmStateBytes: 0 },
    });
    expect(point.path).toMatch(/\/disk\.qcow2\/@1$/);
    expect(point.snapshots).toBeUndefined();
    await point.close();
  });

  it.each([0, 8, 16])('are read with %i bytes of extra data', async (extra) => {
    const snapshots = [{ id: 'a', name: 'b', size: 200 * SIZE, clusters: new Map(), extra, stateBytes: 7 }];
    const layer = await opened({ ...plain, snapshots });
    expect(layer.snapshots).toMatchObject([{ id: 'a', stateBytes: 7, virtualSize: 200 * SIZE }]);
    await layer.close();
  });

  it('stand on the same parent as the present state', async () => {
    const folder = fresh();
    writeFileSync(join(folder, 'base.img'), pattern(77, 200 * SIZE));
    const options = { ...plain, backing: { name: 'base.img', format: 'raw' } };
    writeFileSync(join(folder, 'disk.qcow2'), buildQcow2(options).bytes);
    const disk = await openChain(snapshotPath(join(folder, 'disk.qcow2'), '1'), new Confinement(folder));
    const expected = Buffer.from(pattern(77, 100 * SIZE));
    shared.copy(expected, SIZE);
    expect(disk.layers.map(({ name }) => name)).toEqual(['disk.qcow2/@1', 'base.img']);
    expect(Buffer.from(await disk.read(0, disk.size)).equals(expected)).toBe(true);
    await disk.close();
  });

  it.each([
    ['too many', put32(60, 65_537), 0],
    ['out of the file', put64(64, 1n << 40n), 0],
    ['unaligned', put64(64, 700n), 0],
    ['more than there are', put32(60, 3), 2],
    ['an endless name', (bytes: Buffer, { at }: BuiltQcow2) => bytes.writeUInt16BE(0xffff, at.snapshotTable + 14), 0],
    ['endless extra data', put32((at) => at.snapshotTable + 36, 0xffffffff), 0],
    ['no id', (bytes: Buffer, { at }: BuiltQcow2) => bytes.writeUInt16BE(0, at.snapshotTable + 12), 0],
  ] as const)('a table that is damaged (%s) hides the present state in no way', async (_what, change, left) => {
    const layer = await opened(plain, change);
    expect((await readLayer(layer, 0, layer.virtualSize)).equals(modelOf(plain, 9))).toBe(true);
    expect(layer.snapshots).toHaveLength(left);
    expect(layer.properties.snapshots).toBe('damaged');
    expect(await codes(layer, ['note'])).toContain('snapshot-table');
    await expect(opened(plain, change, '3')).rejects.toMatchObject({ kind: 'corrupt' });
    if (left > 0) await (await opened(plain, change, '1')).close();
  });

  it('two of one id, and one with a table that can’t be', async () => {
    const twice = { ...plain, snapshots: plain.snapshots!.map((snapshot) => ({ ...snapshot, id: '1' })) };
    const layer = await opened(twice);
    expect(layer.snapshots).toHaveLength(1);
    expect(await codes(layer, ['note'])).toContain('snapshot-table');
    for (const change of [
      put64((at) => at.snapshotTable, 513n),
      put32((at) => at.snapshotTable + 8, 0),
      put32((at) => at.snapshotTable + 8, 0xffffffff),
      put64((at) => at.snapshotTable + 48, 2n ** 50n),
    ]) {
      await expect(opened(plain, change, '1')).rejects.toMatchObject({ kind: 'corrupt' });
      expect(await codes(await opened(plain, change), ['note'])).toContain('snapshot-l1-table');
      await (await opened(plain, change, '2')).close();
    }
  });

  it('names those there are when one is asked for that is not', async () => {
    await expect(opened(plain, undefined, '9')).rejects.toMatchObject({
      kind: 'not-found',
      details: { choices: ['1', '2'] },
    });
  });

  it('damage of one is not laid at the door of another', async () => {
    const change = put64((at) => at.snapshotL1[1]!, 7n);
    expect(await codes(await opened(plain, change, '1'))).toEqual([]);
    expect(await codes(await opened(plain, change, '2'))).toEqual(['l1-entry']);
    expect(await codes(await opened(plain, change), ['note'])).toEqual(['l1-entry']);
  });
});

describe('QCOW2 external data files', () => {
  const options: Qcow2Options = {
    clusterBits: 12,
    size: 10 * 4096,
    dataFile: { name: 'disk.data' },
    clusters: new Map<number, Cluster>([
      [0, pattern(0, 4096)],
      [9, pattern(9, 4096)],
    ]),
  };

  it('are looked for in the folder, and missed with what can be done', async () => {
    const folder = fresh();
    writeFileSync(join(folder, 'disk.qcow2'), buildQcow2(options).bytes);
    await expect(openLayer('disk.qcow2', new Confinement(folder))).rejects.toMatchObject({
      kind: 'not-found',
      message: 'The external data file "disk.data" of disk.qcow2 not found',
      details: { recorded: 'disk.data', remedy: expect.stringContaining('beside it') },
    });
  });

  it.each([
    ['no name', {}, 'unsupported'],
    ['another host', { name: 'nbd://host/x' }, 'unsupported'],
    ['outside', { name: '../../etc/passwd' }, 'denied'],
    ['the image itself', { name: 'disk.qcow2' }, 'corrupt'],
  ])('are refused: %s', async (_what, dataFile, kind) => {
    const folder = fresh();
    writeFileSync(join(folder, 'disk.qcow2'), buildQcow2({ ...options, dataFile }).bytes);
    await expect(openLayer('disk.qcow2', new Confinement(folder))).rejects.toMatchObject({ kind });
  });

  it('hold each cluster at its own place, and none compressed', async () => {
    const moved = await opened(
      options,
      put64((at) => at.l2.get(0)!, (1n << 63n) | 4096n),
    );
    await expect(runAsync(moved.runs(0, 1))).rejects.toMatchObject({
      details: { expected: 'the offset 0, as on the disk' },
    });
    await moved.close();
    const packed = await opened(
      options,
      put64((at) => at.l2.get(0)!, (1n << 62n) | 4096n),
    );
    await expect(runAsync(packed.runs(0, 1))).rejects.toMatchObject({ kind: 'corrupt' });
    await packed.close();
  });

  it('are damaged when they are cut off', async () => {
    const folder = fresh();
    const { bytes, data } = buildQcow2({ ...options, dataFile: { name: 'disk.data', raw: true } });
    writeFileSync(join(folder, 'disk.qcow2'), bytes);
    writeFileSync(join(folder, 'disk.data'), data!.subarray(0, 39_000));
    const layer = await openLayer('disk.qcow2', new Confinement(folder));
    await expect(runAsync(layer.runs(0, layer.virtualSize))).rejects.toMatchObject({ kind: 'corrupt' });
    expect(await codes(layer, ['note'])).toEqual(['data-file-short', 'l2-entry']);
  });
});

describe('compressed clusters', () => {
  const unit = 4096;
  const source = (bytes: Uint8Array) => new MemorySource(bytes, 'disk.qcow2');
  const content = pattern(3, unit);

  it.each([
    ['whole, with something behind it', Buffer.concat([deflateRawSync(content), Buffer.alloc(300, 0xaa)])],
    ['without its end', deflateRawSync(content, { finishFlush: 2 }).subarray(0, -2)],
    ['with a window of 32 KiB', deflateRawSync(content, { windowBits: 15 })],
  ])('inflate: %s', async (_what, packed) => {
    const codec = new DeflateCodec(unit, 'QCOW2');
    expect(Buffer.compare(runSync(codec.unpack(source(packed), 0, packed.length)), content)).toBe(0);
    expect(Buffer.compare(await codec.unpackAsync(source(packed), 0, packed.length), content)).toBe(0);
  });

  it.each([
    ['too little', deflateRawSync(content.subarray(0, unit - 1)), `${unit - 1} bytes`],
    ['too much', deflateRawSync(Buffer.concat([content, content.subarray(0, 1)])), 'more'],
    ['a bomb', deflateRawSync(Buffer.alloc(50 << 20)), 'more'],
    ['no stream', Buffer.alloc(100, 0xff), 'invalid block type'],
    ['nothing', Buffer.alloc(0), '0 bytes'],
  ])('that hold %s are damaged', async (_what, packed, found) => {
    const codec = new DeflateCodec(unit, 'QCOW2');
    const details = { structure: 'QCOW2 compressed cluster', position: 0, found };
    const expected = { kind: 'corrupt', details: expect.objectContaining(details) };
    expect(() => runSync(codec.unpack(source(packed), 0, packed.length))).toThrow(expect.objectContaining(expected));
    await expect(codec.unpackAsync(source(packed), 0, packed.length)).rejects.toMatchObject(expected);
  });

  const frame = (hex: string, ...rest: Buffer[]) => Buffer.concat([Buffer.from(hex, 'hex'), ...rest]);
  const half = content.subarray(0, unit / 2);
  const other = content.subarray(unit / 2);
  /** A frame that does not say how much it holds: one RLE block of `length` bytes. */
  const rle = (length: number, last = 1) => {
    const header = Buffer.alloc(3);
    header.writeUIntLE((length << 3) | 2 | last, 0, 3);
    return frame('28b52ffd0058', header, Buffer.from([0x41]));
  };

  it.each([
    ['one frame', zstdFrame(content), content],
    ['one frame, and the next cluster’s behind it', Buffer.concat([zstdFrame(content), zstdFrame(half)]), content],
    ['two frames', Buffer.concat([zstdFrame(half), zstdFrame(other)]), content],
    ['a skippable frame first', frame('502a4d18', Buffer.from([3, 0, 0, 0, 1, 2, 3]), zstdFrame(content)), content],
    ['a frame of unknown content', rle(unit), Buffer.alloc(unit, 0x41)],
    ['an empty frame first', Buffer.concat([zstdFrame(Buffer.alloc(0)), zstdFrame(content)]), content],
  ])('unpack with zstd: %s', async (_what, packed, expected) => {
    const codec = await ZstdCodec.create(unit);
    expect(Buffer.compare(runSync(codec.unpack(source(packed), 0, packed.length)), expected)).toBe(0);
  });

  it.each([
    ['nothing', Buffer.alloc(0)],
    ['no frame', Buffer.alloc(512, 0x28)],
    ['a frame that is cut off', zstdFrame(content).subarray(0, -1)],
    ['too little', zstdFrame(half)],
    ['a frame that says it holds too much', zstdFrame(Buffer.concat([content, half]))],
    ['a frame that holds too much and says nothing', rle(unit + 1)],
    ['a bomb', rle(1 << 17)],
    ['a frame with a block of the reserved type', frame('28b52ffd0058', Buffer.from([0x07, 0, 0]))],
    [
      'a compressed block that is none',
      frame('28b52ffda000100000', Buffer.from([0x2d, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff])),
    ],
    ['a frame with a dictionary', frame('28b52ffda107', Buffer.from([0, 0x10, 0, 0, 0x05, 0, 0]))],
    ['skippable frames alone', Buffer.concat([frame('502a4d1800000000'), frame('502a4d1800000000')])],
  ])('that hold %s are damaged (zstd)', async (_what, packed) => {
    const codec = await ZstdCodec.create(unit);
    expect(() => runSync(codec.unpack(source(packed), 0, packed.length))).toThrow(
      expect.objectContaining({
        kind: 'corrupt',
        details: expect.objectContaining({ structure: 'QCOW2 compressed cluster' }),
      }),
    );
    // The decoder goes on as before.
    const good = zstdFrame(content);
    expect(Buffer.compare(runSync(codec.unpack(source(good), 0, good.length)), content)).toBe(0);
  });

  it('zstd frames are measured by their headers', () => {
    expect(frameShape(zstdFrame(content), 0)).toEqual({ length: unit + 12, content: unit, skippable: false });
    expect(frameShape(rle(7), 0)).toEqual({ length: 10, content: undefined, skippable: false });
    // Single segment with one byte of content size, two bytes, eight bytes; checksum.
    expect(frameShape(frame('28b52ffd2005', Buffer.from([0x29, 0, 0]), Buffer.alloc(5)), 0)).toMatchObject({
      content: 5,
    });
    expect(frameShape(frame('28b52ffd60', Buffer.from([1, 0, 1, 0, 0])), 0)).toMatchObject({ content: 257 });
    expect(frameShape(frame('28b52ffde0', Buffer.from([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0])), 0)).toMatchObject({
      content: 2 ** 32 + 1,
    });
    expect(frameShape(frame('28b52ffd24', Buffer.from([0, 1, 0, 0, 9, 9, 9, 9])), 0)).toMatchObject({ length: 13 });
    expect(frameShape(frame('28b52ffd24', Buffer.from([0, 1, 0, 0, 9, 9, 9])), 0)).toBeUndefined();
  });
});

describe('QCOW2 check', () => {
  it('has nothing to say of a whole image', async () => {
    expect(await codes(await opened(plain))).toEqual([]);
  });

  it.each([
    ['the dirty bit', { incompatible: 1n }, undefined, ['dirty']],
    ['the corrupt bit', { incompatible: 2n }, undefined, ['corrupt-bit']],
    ['no backing format', { backing: { name: 'x' } }, undefined, ['backing-format-missing']],
    ['no refcount table', {}, put32(56, 0), ['refcount-table']],
    ['a refcount table out of the file', {}, put64(48, 1n << 40n), ['refcount-table']],
    ['an unaligned refcount table', {}, put64(48, 1000n), ['refcount-table']],
    [
      'a refcount table entry with reserved bits',
      {},
      put64(
        (at) => at.refcountTable,
        (at) => BigInt(at.refcountBlock + 1),
      ),
      ['refcount-table-entry', 'refcount-too-low'],
    ],
    [
      'a refcount table that leads to itself',
      {},
      put64(
        (at) => at.refcountTable,
        (at) => BigInt(at.refcountTable),
      ),
      ['metadata-overlap', 'refcount-leak', 'refcount-too-low'],
    ],
    [
      'a refcount of 0',
      {},
      (bytes: Buffer, { at }: BuiltQcow2) => bytes.writeUInt16BE(0, at.refcountBlock + 2),
      ['refcount-too-low'],
    ],
    [
      'a refcount too high',
      {},
      (bytes: Buffer, { at }: BuiltQcow2) => bytes.writeUInt16BE(4, at.refcountBlock + 2),
      ['refcount-leak'],
    ],
    [
      'the refcount of a cluster that is not there',
      {},
      (bytes: Buffer, { at }: BuiltQcow2) => bytes.writeUInt16BE(4, at.refcountBlock + 500),
      ['refcount-leak'],
    ],
    [
      'a COPIED flag that lies',
      {},
      (bytes: Buffer, { at }: BuiltQcow2) => {
        const entry = at.l2.get(0)! + 8;
        bytes.writeBigUInt64BE(bytes.readBigUInt64BE(entry) | (1n << 63n), entry);
      },
      ['copied-flag'],
    ],
    [
      'a COPIED flag that is not set',
      {},
      (bytes: Buffer, { at }: BuiltQcow2) => {
        const entry = at.l2.get(0)!;
        bytes.writeBigUInt64BE(bytes.readBigUInt64BE(entry) & ~(1n << 63n), entry);
      },
      ['copied-flag-unset'],
    ],
    [
      'two L1 entries for one L2 table',
      {},
      put64(
        (at) => at.l1,
        (at, bytes) => bytes.readBigUInt64BE(at.l1 + 16),
      ),
      ['copied-flag', 'metadata-overlap', 'refcount-leak', 'refcount-too-low'],
    ],
    [
      'an L2 table for a cluster',
      {},
      put64(
        (at) => at.l2.get(0)!,
        (at) => (1n << 63n) | BigInt(at.l2.get(2)!),
      ),
      ['cluster-in-metadata', 'copied-flag', 'refcount-leak', 'refcount-too-low'],
    ],
    [
      'a compressed cluster that is none',
      {},
      (bytes: Buffer, { at }: BuiltQcow2) => {
        const stored = Number(bytes.readBigUInt64BE(at.l2.get(0)! + 40) & 0xff_ffffn);
        bytes.fill(0xff, stored, stored + 40);
      },
      ['compressed-cluster'],
    ],
    ['bitmaps that are not there', { autoclear: 1n }, undefined, ['bitmap-directory']],
    [
      'bitmaps out of the file',
      { autoclear: 1n, extensions: [{ type: 0x23852875, data: bitmaps(1, 64n, 1n << 50n) }] },
      undefined,
      ['bitmap-directory'],
    ],
    [
      'too many bitmaps',
      { autoclear: 1n, extensions: [{ type: 0x23852875, data: bitmaps(0xffffffff, 64n, 512n) }] },
      undefined,
      ['bitmap-directory'],
    ],
  ] as const)('finds %s', async (_what, options, change, expected) => {
    expect(await codes(await opened({ ...plain, ...options } as Qcow2Options, change))).toEqual(expected);
  });

  it.each([0, 1, 2, 3, 4, 5, 6])('counts refcounts of 2^%i bits', async (refcountOrder) => {
    const options: Qcow2Options = {
      clusterBits: 9,
      size: 4000 * SIZE,
      refcountOrder,
      clusters: new Map(Array.from({ length: 300 }, (_, i) => [i * 13, pattern(i, SIZE)])),
    };
    expect(await codes(await opened(options))).toEqual([]);
    const change = (bytes: Buffer, { at }: BuiltQcow2) => bytes.fill(0, at.refcountBlock, at.refcountBlock + 8);
    expect(await codes(await opened(options, change))).toEqual(['refcount-too-low']);
  });

  it('costs no more than the file, whatever its tables lead to', async () => {
    // Every L1 entry leads to one L2 table, every entry of which leads to one cluster.
    const folder = fresh();
    const cluster = 65_536;
    const entries = 100_000;
    const l1Clusters = Math.ceil((entries * 8) / cluster);
    const { bytes } = buildQcow2({ size: 0, clusters: new Map() });
    const l1 = bytes.length;
    const l2 = l1 + l1Clusters * cluster;
    const image = Buffer.alloc(l2 + 2 * cluster);
    bytes.copy(image);
    image.writeBigUInt64BE(BigInt(entries) * 8192n * BigInt(cluster), 24);
    image.writeUInt32BE(entries, 36);
    image.writeBigUInt64BE(BigInt(l1), 40);
    for (let i = 0; i < entries; i++) image.writeBigUInt64BE(BigInt(l2), l1 + i * 8);
    for (let i = 0; i < 8192; i++) image.writeBigUInt64BE(BigInt(l2 + cluster), l2 + i * 8);
    writeFileSync(join(folder, 'd.qcow2'), image);
    const layer = await openLayer('d.qcow2', new Confinement(folder));
    const started = performance.now();
    const found = await codes(layer);
    expect(found).toContain('metadata-overlap');
    expect(found).toContain('refcount-too-low');
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});

function bitmaps(count: number, size: bigint, offset: bigint): Buffer {
  const data = Buffer.alloc(24);
  data.writeUInt32BE(count, 0);
  data.writeBigUInt64BE(size, 8);
  data.writeBigUInt64BE(offset, 16);
  return data;
}

describe('QCOW version 1', () => {
  const options = {
    size: 100 * 4096,
    clusters: new Map<number, Buffer | { readonly packed: Buffer }>([
      [0, pattern(0, 4096)],
      [1, { packed: pattern(1, 4096) }],
    ]),
  };
  async function openedV1(
    change?: (bytes: Buffer, at: ReturnType<typeof buildQcow>['at']) => void,
    more: { backing?: string; modified?: number; crypt?: number } = {},
  ): Promise<ImageLayer> {
    const { bytes, at } = buildQcow({ ...options, ...more });
    change?.(bytes, at);
    const folder = fresh();
    writeFileSync(join(folder, 'disk.img'), bytes);
    return openLayer('disk.img', new Confinement(folder));
  }

  it('says what the image is', async () => {
    const layer = await openedV1(undefined, { backing: 'base.img', modified: 1_700_000_000 });
    expect(layer).toMatchObject({
      format: 'qcow',
      variant: 'qcow',
      virtualSize: 409_600,
      granularity: 4096,
      parent: { recorded: 'base.img', modified: 1_700_000_000 },
    });
    await layer.close();
  });

  it.each([
    ['size', (bytes: Buffer) => bytes.writeBigUInt64BE(2n ** 63n, 24)],
    ['size', (bytes: Buffer) => bytes.writeBigUInt64BE(1n, 24)],
    ['cluster_bits', (bytes: Buffer) => bytes.writeUInt8(17, 32)],
    ['cluster_bits', (bytes: Buffer) => bytes.writeUInt8(0, 32)],
    ['l2_bits', (bytes: Buffer) => bytes.writeUInt8(14, 33)],
    ['l1_table_offset', (bytes: Buffer) => bytes.writeBigUInt64BE(2n ** 52n, 40)],
    ['l1_table_offset', (bytes: Buffer) => bytes.writeBigUInt64BE(8n, 40)],
    ['backing_file_size', (bytes: Buffer) => bytes.fill('00000000000000300000ffff', 8, 20, 'hex')],
    ['backing_file_offset', (bytes: Buffer) => bytes.fill('00040000000000000000000a', 8, 20, 'hex')],
  ])('refuses a %s that can’t be true (%#)', async (field, change) => {
    await expect(openedV1(change)).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: `QCOW header ${field}` },
    });
  });

  it('refuses AES, unknown encryption and what it has no room for by name', async () => {
    await expect(openedV1(undefined, { crypt: 1 })).rejects.toMatchObject({ kind: 'needs-key' });
    await expect(openedV1(undefined, { crypt: 2 })).rejects.toMatchObject({ kind: 'unsupported' });
    await expect(openedV1((bytes) => bytes.writeBigUInt64BE(2n ** 52n, 24))).rejects.toMatchObject({
      kind: 'unsupported',
    });
    const folder = fresh();
    writeFileSync(join(folder, 'd.qcow'), buildQcow(options).bytes);
    const path = snapshotPath(join(folder, 'd.qcow'), '1');
    await expect(openLayer(path, new Confinement(folder))).rejects.toMatchObject({ kind: 'not-found' });
  });

  it.each([
    ['a table out of the file', (bytes: Buffer, l1: number) => bytes.writeBigUInt64BE(2n ** 62n, l1), 'l1-entry'],
    ['a table that is the L1 table', (bytes: Buffer, l1: number) => bytes.writeBigUInt64BE(BigInt(l1), l1), 'l1-entry'],
    [
      'a cluster out of the file',
      (bytes: Buffer, _l1: number, l2: number) => bytes.writeBigUInt64BE(2n ** 50n, l2),
      'l2-entry',
    ],
    ['a cluster in the header', (bytes: Buffer, _l1: number, l2: number) => bytes.writeBigUInt64BE(7n, l2), 'l2-entry'],
    [
      'a cluster of no bytes',
      (bytes: Buffer, _l1: number, l2: number) => bytes.writeBigUInt64BE(2n ** 63n + 9000n, l2),
      'l2-entry',
    ],
    [
      'a cluster that is its own table',
      (bytes: Buffer, _l1: number, l2: number) => bytes.writeBigUInt64BE(BigInt(l2), l2),
      'cluster-in-metadata',
    ],
    [
      'a cluster used twice',
      (bytes: Buffer, _l1: number, l2: number) => bytes.copy(bytes, l2 + 80, l2, l2 + 8),
      'cluster-overlap',
    ],
    [
      'compressed data that is none',
      (bytes: Buffer, _l1: number, l2: number) => {
        const stored = Number(bytes.readBigUInt64BE(l2 + 8) & 0xff_ffffn);
        bytes.fill(0xff, stored, stored + 30);
      },
      'compressed-cluster',
    ],
  ])('finds %s', async (_what, change, code) => {
    const layer = await openedV1((bytes, { l1, l2 }) => void change(bytes, l1, l2.get(0)!));
    if (code === 'l1-entry' || code === 'l2-entry') {
      await expect(runAsync(layer.runs(0, 10))).rejects.toMatchObject({ kind: 'corrupt' });
    }
    expect(await codes(layer)).toEqual([code]);
  });
});

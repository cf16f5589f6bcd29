/**
 * Decompression bombs: what a few kilobytes of an image inflate to is bounded by the grain or cluster they stand for, and what many
 * entries of a table that lead to one place cost, by the size of the file.
 */
import { closeSync, mkdirSync, openSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { constants, crc32, deflateRawSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { buildQcow } from '../../support/qcow-builder.ts';
import { buildQcow2 } from '../../support/qcow2-builder.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { buildTar } from '../../support/tar-builder.ts';
import { buildVhd, sumFooter, sumHeader } from '../../support/vhd-builder.ts';
import { buildVhdx, DATA_WRITE_GUID, parentLocator } from '../../support/vhdx-builder.ts';
import { type Grain, pattern, SECTOR, writeCowdDisk, writeSparseDisk } from '../../support/vmdk-builder.ts';
import { writeStreamDisk } from '../../support/vmdk-stream-builder.ts';
import { attack, codes, refusal, scan, withinBounds } from './attack.ts';
import { fresh } from './fixtures.ts';

const MIB = 1 << 20;
const GIB = 1 << 30;

/** A piece of a deflate stream that inflates to 16 MiB of zeros and can be repeated. */
const ZEROS = 16 * MIB;
const piece = deflateRawSync(Buffer.alloc(ZEROS), { level: 9, finishFlush: constants.Z_FULL_FLUSH });
const END = Buffer.from([0x03, 0x00]);

/** A raw deflate stream (RFC 1951) of `bytes` zeros, which is as long as 1/1000 of them. */
function deflated(bytes: number): Buffer {
  return Buffer.concat([...new Array<Buffer>(Math.ceil(bytes / ZEROS)).fill(piece), END]);
}

/** The same as a zlib stream (RFC 1950), without its checksum: nobody should come that far. */
const zlibBomb = (bytes: number): Buffer =>
  Buffer.concat([Buffer.from([0x78, 0x9c]), deflated(bytes), Buffer.alloc(4)]);

/** A gzip file (RFC 1952) of `bytes` zeros, right in every field unless its end is not meant to be reached. */
function gzipBomb(bytes: number, sum = true): Buffer {
  const zeros = Buffer.alloc(ZEROS);
  let crc = 0;
  for (let at = 0; sum && at < bytes; at += ZEROS) crc = crc32(zeros, crc);
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc);
  trailer.writeUInt32LE(bytes % 2 ** 32, 4);
  return Buffer.concat([Buffer.from('1f8b0800000000000003', 'hex'), deflated(bytes), trailer]);
}

/** Zstandard blocks of one repeated byte (RFC 8878, "RLE_Block"), 128 KiB each; `header` is the frame's. */
function zstdBomb(header: string, blocks: number): Buffer {
  const bytes = Buffer.alloc(blocks * 4);
  for (let i = 0; i < blocks; i++) {
    bytes.writeUIntLE((131_072 << 3) | (1 << 1) | (i === blocks - 1 ? 1 : 0), i * 4, 3);
    bytes[i * 4 + 3] = 0x58;
  }
  return Buffer.concat([Buffer.from(header, 'hex'), bytes]);
}

describe('a compressed unit that inflates to gigabytes', () => {
  const scratch = scratchFolder('bombs');

  it.each([
    ['8 KiB', 16, 15 * MIB],
    ['64 KiB', 128, 120 * MIB],
    ['1 MiB', 2048, 2 * GIB - ZEROS],
    ['32 MiB', 65_536, 3 * GIB],
  ])('VMDK streamOptimized, grains of %s', async (_size, grainSectors, bytes) => {
    const folder = fresh(scratch.path);
    const content = Buffer.alloc(grainSectors * SECTOR, 1);
    const packed = zlibBomb(bytes).subarray(0, 2 * content.length);
    const { at } = writeStreamDisk(folder, 'disk', {
      capacitySectors: 4 * grainSectors,
      grainSectors,
      grains: new Map([
        [0, content],
        [1, content],
        [3, content],
      ]),
      pack: () => packed,
    });
    // A grain, and what it is inflated with.
    const { error, findings } = await attack(folder, 'disk.vmdk', { growth: (96 << 20) + 3 * content.length });
    expect(error).toMatchObject({
      kind: 'corrupt',
      details: {
        structure: 'VMDK compressed grain',
        position: at.grains.get(0)! + 12,
        expected: 'at most a grain when inflated',
      },
    });
    expect(codes(findings)).toEqual(['compressed-grain-damaged']);
  });

  /** A QCOW2 image whose guest cluster 0 is these bytes, wherever its tables say. */
  function qcow2With(folder: string, clusterBits: number, stored: Buffer, zstd: boolean): number {
    const image = buildQcow2({
      size: 4 * 2 ** clusterBits,
      clusterBits,
      zstd,
      clusters: new Map([[0, { packed: Buffer.alloc(2 ** clusterBits, 1) }]]),
    });
    const sectors = Math.ceil(stored.length / 512);
    const most = 2 ** (clusterBits - 8);
    const place = image.bytes.length;
    const length = Math.min(sectors, most);
    const entry = (1n << 62n) | (BigInt(length - 1) << BigInt(70 - clusterBits)) | BigInt(place);
    image.bytes.writeBigUInt64BE(entry, image.at.l2.get(0)!);
    writeFileSync(join(folder, 'disk.qcow2'), Buffer.concat([image.bytes, stored.subarray(0, length * 512)]));
    return place;
  }

  it.each([
    ['4 KiB', 12],
    ['64 KiB', 16],
    ['2 MiB', 21],
  ])('QCOW2 deflate, clusters of %s', async (_size, bits) => {
    const folder = fresh(scratch.path);
    const position = qcow2With(folder, bits, deflated(3 * GIB), false);
    const { error, findings } = await attack(folder, 'disk.qcow2');
    expect(error).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'QCOW2 compressed cluster', position, found: 'more' },
    });
    expect(codes(findings)).toContain('compressed-cluster');
  });

  it.each([
    ['that declares 2^60 bytes', '28b52ffde00000000000000010', 21],
    ['that declares 2^64-1 bytes', '28b52ffde0ffffffffffffffff', 16],
    ['of 128 GiB in blocks, that declares nothing', '28b52ffd0088', 21],
    ['of 128 GiB in blocks, in clusters of 64 KiB', '28b52ffd0088', 16],
    ['with a window of 3.75 TiB', '28b52ffd00ff', 21],
    ['that declares a cluster and holds more', '28b52ffda000002000', 21],
  ])('QCOW2 zstd, a frame %s', async (_what, header, bits) => {
    const folder = fresh(scratch.path);
    const position = qcow2With(folder, bits, zstdBomb(header, 2 ** 20), true);
    const { error, findings } = await attack(folder, 'disk.qcow2');
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure: 'QCOW2 compressed cluster', position } });
    expect(codes(findings)).toContain('compressed-cluster');
  });

  it('QCOW2 zstd, a million empty frames before the cluster', async () => {
    const folder = fresh(scratch.path);
    const empty = Buffer.from('28b52ffd2000010000', 'hex');
    qcow2With(folder, 21, Buffer.concat(new Array<Buffer>(400_000).fill(empty)), true);
    expect((await attack(folder, 'disk.qcow2')).error).toMatchObject({ kind: 'corrupt' });
  });

  it('QCOW deflate', async () => {
    const folder = fresh(scratch.path);
    const image = buildQcow({
      size: 4 << 16,
      clusterBits: 16,
      clusters: new Map([[0, { packed: Buffer.alloc(65_536, 1) }]]),
    });
    const stored = deflated(60 * MIB).subarray(0, 65_535);
    const entry = (1n << 63n) | (BigInt(stored.length) << 47n) | BigInt(image.bytes.length);
    image.bytes.writeBigUInt64BE(entry, image.at.l2.get(0)!);
    writeFileSync(join(folder, 'disk.qcow'), Buffer.concat([image.bytes, stored]));
    const { error, findings } = await attack(folder, 'disk.qcow');
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure: 'QCOW compressed cluster', found: 'more' } });
    expect(codes(findings)).toEqual(['compressed-cluster']);
  });
});

describe('gzip', () => {
  const scratch = scratchFolder('bombs-gzip');

  it('a disk of 1 GiB in a megabyte is read in place, in bounded memory', async () => {
    const folder = fresh(scratch.path);
    writeFileSync(join(folder, 'disk.raw.gz'), gzipBomb(GIB));
    await withinBounds(folder, async () => {
      const confinement = new Confinement(folder, { synchronous: true });
      await confinement.mountAbove('disk.raw.gz/disk.raw');
      const file = confinement.open('disk.raw.gz/disk.raw');
      expect(file.size).toBe(GIB);
      expect((await file.read(GIB - 4096, 4096)).every((byte) => byte === 0)).toBe(true);
      await file.close();
      await confinement.close();
    });
    expect((await scan(folder)).vms).toHaveLength(1);
  });

  it('of many gigabytes ends when it is told to, at once', async () => {
    const folder = fresh(scratch.path);
    writeFileSync(join(folder, 'disk.raw.gz'), gzipBomb(64 * GIB, false));
    await withinBounds(folder, async () => {
      const confinement = new Confinement(folder);
      const stop = new AbortController();
      const error = await refusal(() =>
        confinement.mount('disk.raw.gz', {
          signal: stop.signal,
          onProgress: (done) => {
            if (done > 0) stop.abort();
          },
        }),
      );
      expect(error).toMatchObject({ kind: 'cancelled' });
      await confinement.close();
    });
  });

  it('of gzip of gzip is looked into once: what it holds is no disk', async () => {
    const folder = fresh(scratch.path);
    const bomb = gzipSync(gzipSync(gzipBomb(GIB)));
    expect(bomb.length).toBeLessThan(20_000);
    writeFileSync(join(folder, 'disk.vmdk.gz'), bomb);
    expect(await attack(folder, 'disk.vmdk.gz/disk.vmdk')).toMatchObject({
      error: { kind: 'corrupt', details: { structure: 'VMDK magic number', found: expect.stringMatching(/^1f8b/) } },
    });
    for (const name of ['disk.raw.gz.gz.gz', 'disk.gz.gz.gz', 'web.ova.gz']) writeFileSync(join(folder, name), bomb);
    expect((await scan(folder)).vms.map(({ name }) => name)).not.toContain('disk.raw.gz.gz.gz');
  });

  it('of gzip of gzip inside an OVA, each called like a disk', async () => {
    const folder = fresh(scratch.path);
    const bomb = gzipSync(gzipSync(gzipBomb(GIB)));
    writeFileSync(join(folder, 'web.ova'), buildTar([{ name: 'disk.vmdk.gz', content: bomb }]));
    await scan(folder);
    expect((await attack(folder, 'web.ova/disk.vmdk.gz/disk.vmdk')).error).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'VMDK magic number' },
    });
  });

  it('with a name and a comment that never end', async () => {
    const folder = fresh(scratch.path);
    const header = Buffer.from('1f8b0818000000000003', 'hex');
    writeFileSync(join(folder, 'disk.vmdk.gz'), Buffer.concat([header, Buffer.alloc(4 * MIB, 0x61)]));
    expect((await attack(folder, 'disk.vmdk.gz/disk.vmdk')).error).toMatchObject({
      kind: 'corrupt',
      details: { structure: expect.stringContaining('Gzip header') },
    });
  });

  it('of 200,000 empty members', async () => {
    const folder = fresh(scratch.path);
    const empty = gzipSync(Buffer.alloc(0));
    writeFileSync(join(folder, 'disk.vmdk.gz'), Buffer.concat(new Array<Buffer>(200_000).fill(empty)));
    expect((await attack(folder, 'disk.vmdk.gz/disk.vmdk')).error).toMatchObject({ kind: 'corrupt' });
  });
});

describe('a tar member that claims more than there is', () => {
  const scratch = scratchFolder('bombs-tar');
  it.each([
    [
      '8 EiB in base 256',
      { name: 'disk.vmdk', base256: true, patch: (h: Buffer) => h.writeBigUInt64BE(2n ** 63n - 1n, 128) },
    ],
    [
      '2^64 bytes and more in base 256',
      { name: 'disk.vmdk', base256: true, patch: (h: Buffer) => h.fill(0xff, 124, 136) },
    ],
    ['-1 bytes in base 256', { name: 'disk.vmdk', patch: (h: Buffer) => h.fill(0xff, 124, 136) }],
    ['8 GiB in octal', { name: 'disk.vmdk', size: 0o77777777777 }],
    ['8 EiB in a pax header', { name: 'disk.vmdk', pax: { size: '9223372036854775807' } }],
    ['1e308 bytes in a pax header', { name: 'disk.vmdk', pax: { size: `1${'0'.repeat(308)}` } }],
    ['2^53-1 bytes in a pax header', { name: 'disk.vmdk', pax: { size: '9007199254740991' } }],
  ])('%s', async (_what, member) => {
    const folder = fresh(scratch.path);
    const text = Buffer.from('# Disk DescriptorFile\n');
    writeFileSync(
      join(folder, 'web.ova'),
      buildTar([
        { name: 'first.txt', content: text },
        { ...member, content: text },
      ]),
    );
    const { error } = await attack(folder, 'web.ova/disk.vmdk');
    expect(error?.kind).toMatch(/^(corrupt|io|not-found)$/);
    const { vms, findings } = await scan(folder);
    // Told of the folder, or of the VM that is in the archive.
    const all = [...findings, ...vms.flatMap((vm) => vm.findings)];
    expect(codes(all).join()).toMatch(/archive-(damaged|member-cut-off)/);
  });

  it.each(['x', 'g', 'L', 'K'])('an extension header "%s" of 4 GiB', async (type) => {
    const folder = fresh(scratch.path);
    const tar = buildTar([
      { name: 'first.txt', content: Buffer.from('x') },
      { name: 'long', type, size: 0o37777777777, format: 'gnu' },
      { name: 'disk.vmdk', content: Buffer.from('x') },
    ]);
    writeFileSync(join(folder, 'web.ova'), tar);
    expect(codes((await scan(folder)).findings)).toContain('archive-damaged');
  });
});

/** A walk over millions of runs leaves more garbage than other attacks before V8 takes it away. */
const GARBAGE = 192 * MIB;

describe('many entries that lead to one place: verify costs no more than the file', () => {
  const scratch = scratchFolder('bombs-verify');

  it('QCOW2, a full table of one compressed cluster of 2 MiB', async () => {
    const folder = fresh(scratch.path);
    const bits = 21;
    const entries = 2 ** 18;
    const image = buildQcow2({
      size: entries * 2 ** bits,
      clusterBits: bits,
      clusters: new Map([[0, { packed: Buffer.alloc(2 ** bits, 1) }]]),
    });
    const l2 = image.at.l2.get(0)!;
    for (let i = 1; i < entries; i++) image.bytes.copy(image.bytes, l2 + i * 8, l2, l2 + 8);
    writeFileSync(join(folder, 'disk.qcow2'), image.bytes);
    const { error, findings } = await attack(folder, 'disk.qcow2', { growth: GARBAGE });
    expect(error).toBeUndefined();
    expect(codes(findings)).toContain('refcount-too-low');
  });

  it('QCOW, full tables of one compressed cluster of 64 KiB', async () => {
    const folder = fresh(scratch.path);
    const tables = 32;
    const image = buildQcow({
      size: tables * 2 ** 29,
      clusterBits: 16,
      l2Bits: 13,
      clusters: new Map(Array.from({ length: tables }, (_, n) => [n * 8192, { packed: Buffer.alloc(65_536, 1) }])),
    });
    for (const l2 of image.at.l2.values())
      for (let i = 1; i < 8192; i++) image.bytes.copy(image.bytes, l2 + i * 8, l2, l2 + 8);
    writeFileSync(join(folder, 'disk.qcow'), image.bytes);
    const { error, findings } = await attack(folder, 'disk.qcow', { growth: GARBAGE });
    expect(error).toBeUndefined();
    expect(codes(findings)).toEqual(['cluster-overlap']);
  });

  it('VMDK streamOptimized, full tables of one grain of 32 MiB', async () => {
    const folder = fresh(scratch.path);
    const { bytes, at } = writeStreamDisk(folder, 'disk', {
      capacitySectors: 65_536 * 512,
      grainSectors: 65_536,
      grains: new Map([[0, Buffer.alloc(32 * MIB, 1)]]),
      markers: false,
    });
    const table = at.tables.get(0)!;
    for (let i = 1; i < 512; i++) bytes.copy(bytes, table + i * 4, table, table + 4);
    writeFileSync(join(folder, 'disk.vmdk'), bytes);
    const { error, findings } = await attack(folder, 'disk.vmdk', { growth: GARBAGE });
    expect(error).toBeUndefined();
    expect(codes(findings)).toContain('grain-overlap');
  });

  /** A VHD that is sparse in its file, every entry of whose table leads to one block. */
  function vhdOfOneBlock(folder: string, blockSize: number, entries: number): void {
    const front = buildVhd({ size: 4096, blockSize: 4096, tableEntries: entries, sectors: new Map() });
    const bytes = front.bytes.subarray(0, front.at.footer);
    const block = Math.ceil(bytes.length / SECTOR);
    const bitmap = Math.max(SECTOR, blockSize / SECTOR / 8);
    for (let i = 0; i < entries; i++) bytes.writeUInt32BE(block, front.at.table + i * 4);
    bytes.writeUInt32BE(blockSize, 512 + 32);
    sumHeader(bytes, 512);
    bytes.writeBigUInt64BE(BigInt(entries) * BigInt(blockSize), 48);
    sumFooter(bytes, 0);
    const fd = openSync(join(folder, 'disk.vhd'), 'w');
    writeSync(fd, bytes);
    // Every other sector is there.
    writeSync(fd, Buffer.alloc(bitmap, 0xaa), 0, bitmap, block * SECTOR);
    writeSync(fd, bytes, 0, SECTOR, block * SECTOR + bitmap + blockSize);
    closeSync(fd);
  }

  it.each([
    ['2 MiB', 2 * MIB, 2 ** 19],
    ['2 GiB, with a bitmap of 512 KiB', 2 ** 31, 2 ** 16],
  ])('VHD, a full table of one block of %s', async (_what, blockSize, entries) => {
    const folder = fresh(scratch.path);
    vhdOfOneBlock(folder, blockSize, entries);
    const { error, findings } = await attack(folder, 'disk.vhd', { growth: GARBAGE });
    expect(error).toBeUndefined();
    expect(codes(findings)).toContain('block-overlap');
  });

  it('VHDX, a full BAT of one block of which every other sector is there', async () => {
    const folder = fresh(scratch.path);
    const entries = 2 ** 18;
    writeFileSync(join(folder, 'base.vhdx'), buildVhdx({ virtualSize: entries * MIB, blocks: new Map() }).bytes);
    const sectors = new Map(Array.from({ length: 1024 }, (_, n) => [2 * n, Buffer.alloc(SECTOR, n)]));
    const image = buildVhdx({
      virtualSize: entries * MIB,
      blocks: new Map([[0, sectors]]),
      parent: parentLocator('base.vhdx', DATA_WRITE_GUID),
      dataWriteGuid: '99999999-2222-4333-8444-555555555555',
    });
    const { bytes, at } = image;
    bytes.fill(0x55, at.bitmaps.get(0)!, at.bitmaps.get(0)! + MIB);
    for (let n = 1; n < entries; n++) bytes.copy(bytes, at.entry(n), at.entry(0), at.entry(0) + 8);
    for (let chunk = 1; chunk < entries / 4096; chunk++)
      bytes.copy(bytes, at.bitmapEntry(chunk), at.bitmapEntry(0), at.bitmapEntry(0) + 8);
    writeFileSync(join(folder, 'disk.vhdx'), bytes);
    const { error, findings } = await attack(folder, 'disk.vhdx', { growth: GARBAGE });
    expect(error).toBeUndefined();
    expect(codes(findings)).toEqual(['block-overlap']);
  });

  it.each([
    ['QCOW2, an L1 table of one L2 table', 16, 2 ** 20],
    ['QCOW2, an L1 table of one L2 table of 2 MiB', 21, 2 ** 13],
  ])('%s', async (_what, bits, entries) => {
    const folder = fresh(scratch.path);
    const clusterSize = 2 ** bits;
    const clusters = new Map(Array.from({ length: 2 }, (_, n) => [n * 2, Buffer.alloc(clusterSize, n + 1)]));
    const image = buildQcow2({ size: clusterSize * (clusterSize / 8), clusterBits: bits, clusters });
    const l2 = image.at.l2.get(0)!;
    for (let i = 4; i < clusterSize / 8; i++)
      image.bytes.copy(image.bytes, l2 + i * 8, l2 + (i % 4) * 8, l2 + (i % 4) * 8 + 8);
    const l1 = Buffer.alloc(entries * 8);
    for (let i = 0; i < entries; i++) l1.writeBigUInt64BE(BigInt(l2), i * 8);
    const bytes = Buffer.concat([image.bytes, l1]);
    bytes.writeUInt32BE(entries, 36);
    bytes.writeBigUInt64BE(BigInt(image.bytes.length), 40);
    bytes.writeBigUInt64BE((BigInt(entries) * BigInt(clusterSize) ** 2n) / 8n, 24);
    writeFileSync(join(folder, 'disk.qcow2'), bytes);
    const { error, findings } = await attack(folder, 'disk.qcow2', { growth: GARBAGE });
    expect(error).toBeUndefined();
    expect(codes(findings)).toContain('metadata-overlap');
  });

  it('QCOW2 and QCOW, an L1 table of nothing for a disk of petabytes', async () => {
    const folder = fresh(scratch.path);
    const qcow2 = buildQcow2({ size: 2 ** 20, clusters: new Map() });
    const l1 = qcow2.bytes.length;
    qcow2.bytes.writeUInt32BE(2 ** 22, 36);
    qcow2.bytes.writeBigUInt64BE(BigInt(l1), 40);
    qcow2.bytes.writeBigUInt64BE(2n ** 51n, 24);
    writeFileSync(join(folder, 'disk.qcow2'), qcow2.bytes);
    truncateSync(join(folder, 'disk.qcow2'), l1 + 2 ** 25);
    const qcow = buildQcow({ size: 2 ** 20, clusterBits: 16, l2Bits: 13, clusters: new Map() });
    qcow.bytes.writeBigUInt64BE(2n ** 51n, 24);
    writeFileSync(join(folder, 'disk.qcow'), qcow.bytes);
    truncateSync(join(folder, 'disk.qcow'), 48 + 2 ** 25);
    expect(await attack(folder, 'disk.qcow2')).toMatchObject({ error: undefined, size: 2 ** 51 });
    expect(await attack(folder, 'disk.qcow')).toMatchObject({ error: undefined, size: 2 ** 51 });
  });

  it('QCOW, an L1 table of one L2 table', async () => {
    const folder = fresh(scratch.path);
    const entries = 2 ** 19;
    const image = buildQcow({
      size: entries * 2 ** 29,
      clusterBits: 16,
      l2Bits: 13,
      clusters: new Map([
        [0, Buffer.alloc(65_536, 1)],
        [2, Buffer.alloc(65_536, 2)],
      ]),
    });
    const l2 = image.at.l2.get(0)!;
    for (let i = 1; i < entries; i++) image.bytes.copy(image.bytes, image.at.l1 + i * 8, image.at.l1, image.at.l1 + 8);
    for (let i = 4; i < 8192; i++) image.bytes.copy(image.bytes, l2 + i * 8, l2 + (i % 4) * 8, l2 + (i % 4) * 8 + 8);
    writeFileSync(join(folder, 'disk.qcow'), image.bytes);
    const { error, findings } = await attack(folder, 'disk.qcow', { growth: GARBAGE });
    expect(error).toBeUndefined();
    expect(codes(findings)).toContain('metadata-overlap');
  });

  it.each([true, false])('VMDK, a grain directory of one table (hosted: %s)', async (hosted) => {
    const folder = fresh(scratch.path);
    const entries = 2 ** 20;
    const grains = new Map<number, Grain>([0, 2, 4, 6].map((n) => [n, pattern(n, SECTOR)]));
    const capacitySectors = hosted ? entries * 512 : 2 ** 32 - 4096;
    if (hosted) {
      const small = { capacitySectors: 512, grainSectors: 1, grains, redundant: false } as const;
      const image = writeSparseDisk(folder, 'disk', small, { extents: [`RW ${capacitySectors} SPARSE "disk.vmdk"`] });
      const directory = Buffer.alloc(entries * 4);
      for (let i = 0; i < entries; i++) directory.writeUInt32LE(image.at.tables[0]! / SECTOR, i * 4);
      image.bytes.writeBigUInt64LE(BigInt(image.bytes.length / SECTOR), 56);
      image.bytes.writeBigUInt64LE(BigInt(capacitySectors), 12);
      writeFileSync(join(folder, 'disk.vmdk'), Buffer.concat([image.bytes, directory]));
    } else {
      const extents = [`RW ${capacitySectors} VMFSSPARSE "disk-delta.vmdk"`];
      const { bytes, at } = writeCowdDisk(folder, 'disk', { capacitySectors, grains }, { extents });
      const [table] = at.tables.values();
      for (let i = 0; i < Math.ceil(capacitySectors / 4096); i++)
        bytes.writeUInt32LE(table! / SECTOR, at.directory + i * 4);
      writeFileSync(join(folder, 'disk-delta.vmdk'), bytes);
    }
    const { error, findings } = await attack(folder, 'disk.vmdk', { growth: GARBAGE });
    expect(error).toBeUndefined();
    expect(codes(findings)).toContain('table-overlap');
  });

  it('QCOW2, 60,000 bitmaps that share one large table', async () => {
    const folder = fresh(scratch.path);
    const count = 60_000;
    const entries = 2 ** 21;
    const extension = Buffer.alloc(24);
    const directoryEntries = Buffer.alloc(count * 32);
    const build = () =>
      buildQcow2({
        size: 2 ** 20,
        clusters: new Map(),
        autoclear: 1n,
        extensions: [{ type: 0x23852875, data: extension }],
      });
    const table = build().bytes.length;
    const directory = table + entries * 8;
    for (let i = 0; i < count; i++) {
      directoryEntries.writeBigUInt64BE(BigInt(table), i * 32);
      directoryEntries.writeUInt32BE(entries, i * 32 + 8);
      directoryEntries.writeUInt8(1, i * 32 + 16);
      directoryEntries.writeUInt8(16, i * 32 + 17);
      directoryEntries.writeUInt16BE(5, i * 32 + 18);
      directoryEntries.write(String(i).padStart(5, '0'), i * 32 + 24);
    }
    extension.writeUInt32BE(count, 0);
    extension.writeBigUInt64BE(BigInt(directoryEntries.length), 8);
    extension.writeBigUInt64BE(BigInt(directory), 16);
    writeFileSync(
      join(folder, 'disk.qcow2'),
      Buffer.concat([build().bytes, Buffer.alloc(entries * 8), directoryEntries]),
    );
    const { error, findings } = await attack(folder, 'disk.qcow2', { growth: GARBAGE });
    expect(error).toBeUndefined();
    expect(codes(findings)).toContain('bitmap-table');
  });

  it('QCOW2, 65,536 snapshots that share one large L1 table', async () => {
    const folder = fresh(scratch.path);
    mkdirSync(folder, { recursive: true });
    const image = buildQcow2({ size: 1 << 20, clusterBits: 9, clusters: new Map([[0, Buffer.alloc(512, 1)]]) });
    const l1Size = 4 * MIB;
    const count = 65_536;
    const l1 = Math.ceil(image.bytes.length / 512) * 512;
    const table = l1 + l1Size * 8;
    const entries = Buffer.alloc(count * 72);
    for (let i = 0; i < count; i++) {
      const at = i * 72;
      entries.writeBigUInt64BE(BigInt(l1), at);
      entries.writeUInt32BE(l1Size, at + 8);
      entries.writeUInt16BE(5, at + 12);
      entries.writeUInt32BE(24, at + 36);
      entries.writeBigUInt64BE(1n << 20n, at + 48);
      entries.write(String(i).padStart(5, '0'), at + 64);
    }
    const bytes = Buffer.concat([image.bytes, Buffer.alloc(l1 - image.bytes.length + l1Size * 8), entries]);
    bytes.writeUInt32BE(count, 60);
    bytes.writeBigUInt64BE(BigInt(table), 64);
    writeFileSync(join(folder, 'disk.qcow2'), bytes);
    const { error, findings } = await attack(folder, 'disk.qcow2', { scan: false });
    expect(error).toBeUndefined();
    expect(codes(findings)).toContain('metadata-overlap');
  });
});

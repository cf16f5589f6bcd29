/** Tables that lead to themselves, to each other, into headers and logs, and blocks that two entries share. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { buildExpanding } from '../../support/parallels-builder.ts';
import { type BuiltQcow, buildQcow } from '../../support/qcow-builder.ts';
import { type BuiltQcow2, buildQcow2 } from '../../support/qcow2-builder.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { buildVdi, type VdiImage } from '../../support/vdi-builder.ts';
import { buildVhd, sectorContent, sumFooter, sumHeader, type VhdImage } from '../../support/vhd-builder.ts';
import {
  buildVhdx,
  DATA_WRITE_GUID,
  dirty,
  LOG_GUID,
  logEntry,
  markDirty,
  parentLocator,
  placeEntry,
  regionsOf,
  type VhdxImage,
  writeHeader,
  writeRegionTables,
} from '../../support/vhdx-builder.ts';
import {
  type Grain,
  pattern,
  SECTOR,
  type SparseImage,
  writeCowdDisk,
  writeSparseDisk,
} from '../../support/vmdk-builder.ts';
import { writeSeSparseDisk } from '../../support/vmdk-sesparse-builder.ts';
import { writeStreamDisk } from '../../support/vmdk-stream-builder.ts';
import { attack, codes, type Outcome } from './attack.ts';
import {
  fresh,
  parallelsLayout,
  qcow2Layout,
  qcowLayout,
  vdiLayout,
  vhdLayout,
  vhdxLayout,
  vmdkLayout,
} from './fixtures.ts';

const MIB = 1 << 20;

/** What an attack must come to: an error whose structure is like this, or data with a finding of this code. */
type Answer = RegExp | { readonly finding: string };

function expectAnswer(outcome: Outcome, answer: Answer): void {
  const { error, findings } = outcome;
  if (answer instanceof RegExp) {
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure: expect.stringMatching(answer) } });
    expect(error!.details.position ?? 0).toBeGreaterThanOrEqual(0);
    // Verify, too, has something to say against it.
    expect(codes(findings)).not.toEqual([]);
  } else {
    expect(error).toBeUndefined();
    expect(codes(findings)).toContain(answer.finding);
    expect(findings.some(({ severity, code }) => severity === 'damaged' && code === answer.finding)).toBe(true);
  }
}

describe('QCOW2', () => {
  const scratch = scratchFolder('self-qcow2');
  const entry = (at: number): bigint => (1n << 63n) | BigInt(at);
  const put = (image: BuiltQcow2, at: number, value: bigint) => image.bytes.writeBigUInt64BE(value, at);
  const L1 = /^QCOW2 L1 table entry/;
  const L2 = /^QCOW2 L2 table entry/;
  it.each<[string, (image: BuiltQcow2) => void, Answer]>([
    ['L1 -> L1', (i) => put(i, i.at.l1, entry(i.at.l1)), L1],
    ['L1 -> header', (i) => put(i, i.at.l1, entry(0) | 512n), L1],
    ['L1 -> refcount table', (i) => put(i, i.at.l1, entry(i.at.refcountTable)), L1],
    ['L1 -> refcount block', (i) => put(i, i.at.l1, entry(i.at.refcountBlock)), L2],
    ['L1 -> L2 of another entry', (i) => put(i, i.at.l1, entry(i.at.l2.get(1)!)), { finding: 'metadata-overlap' }],
    ['L1 -> snapshot table', (i) => put(i, i.at.l1, entry(i.at.snapshotTable)), L1],
    ['L1 -> L1 of a snapshot', (i) => put(i, i.at.l1, entry(i.at.snapshotL1[0]!)), { finding: 'metadata-overlap' }],
    ['L2 -> L1', (i) => put(i, i.at.l2.get(0)!, entry(i.at.l1)), L2],
    ['L2 -> itself', (i) => put(i, i.at.l2.get(0)!, entry(i.at.l2.get(0)!)), { finding: 'cluster-in-metadata' }],
    ['L2 -> refcount table', (i) => put(i, i.at.l2.get(0)!, entry(i.at.refcountTable)), L2],
    [
      'L2 -> refcount block',
      (i) => put(i, i.at.l2.get(0)!, entry(i.at.refcountBlock)),
      { finding: 'cluster-in-metadata' },
    ],
    [
      'two L2 entries at one cluster',
      (i) => i.bytes.copy(i.bytes, i.at.l2.get(0)! + 40, i.at.l2.get(0)!, i.at.l2.get(0)! + 8),
      { finding: 'refcount-too-low' },
    ],
    [
      'refcount table -> itself',
      (i) => put(i, i.at.refcountTable, BigInt(i.at.refcountTable)),
      { finding: 'metadata-overlap' },
    ],
    ['refcount table -> L1', (i) => put(i, i.at.refcountTable, BigInt(i.at.l1)), { finding: 'metadata-overlap' }],
    ['refcount table at the L1 table', (i) => put(i, 48, BigInt(i.at.l1)), { finding: 'metadata-overlap' }],
    ['refcount table at the header', (i) => put(i, 48, 0n), { finding: 'refcount-table' }],
    ['L1 at the header', (i) => put(i, 40, 0n), /^QCOW2 header l1_table_offset/],
    ['L1 at the refcount table', (i) => put(i, 40, BigInt(i.at.refcountTable)), L2],
    ['snapshot table at the header', (i) => put(i, 64, 0n), { finding: 'snapshot-table' }],
    ['snapshot table at the L1 table', (i) => put(i, 64, BigInt(i.at.l1)), { finding: 'snapshot-table' }],
    [
      'a snapshot with the L1 table of the present',
      (i) => put(i, i.at.snapshotTable, BigInt(i.at.l1)),
      { finding: 'metadata-overlap' },
    ],
  ])('%s', async (_attack, change, answer) => {
    const folder = fresh(scratch.path);
    const snapshots = [{ id: '1', name: 'one', size: qcow2Layout.size, clusters: new Map([[3, pattern(3, 4096)]]) }];
    const image = buildQcow2({ ...qcow2Layout, snapshots });
    change(image);
    writeFileSync(join(folder, 'disk.qcow2'), image.bytes);
    expectAnswer(await attack(folder, 'disk.qcow2'), answer);
  });

  it('a data file that is the image', async () => {
    for (const name of [
      'disk.qcow2',
      './disk.qcow2',
      'file:disk.qcow2',
      'json:{"driver":"file","filename":"disk.qcow2"}',
    ]) {
      const folder = fresh(scratch.path);
      const { bytes } = buildQcow2({ size: 8192, clusterBits: 9, clusters: new Map(), dataFile: { name } });
      writeFileSync(join(folder, 'disk.qcow2'), bytes);
      expect((await attack(folder, 'disk.qcow2')).error).toMatchObject({
        kind: 'corrupt',
        details: { structure: 'QCOW2 external data file name' },
      });
    }
  });
});

describe('QCOW', () => {
  const scratch = scratchFolder('self-qcow');
  const put = (image: BuiltQcow, at: number, value: number) => image.bytes.writeBigUInt64BE(BigInt(value), at);
  it.each<[string, (image: BuiltQcow) => void, Answer]>([
    ['L1 -> L1', (i) => put(i, i.at.l1, i.at.l1), /^QCOW L1 table entry/],
    ['L1 -> header', (i) => put(i, i.at.l1, 8), /^QCOW L1 table entry/],
    ['L1 -> L2 of another entry', (i) => put(i, i.at.l1, i.at.l2.get(1)!), { finding: 'metadata-overlap' }],
    ['L2 -> L1', (i) => put(i, i.at.l2.get(0)!, i.at.l1), /^QCOW L2 table entry/],
    ['L2 -> itself', (i) => put(i, i.at.l2.get(0)!, i.at.l2.get(0)!), { finding: 'cluster-in-metadata' }],
    [
      'two entries at one cluster',
      (i) => i.bytes.copy(i.bytes, i.at.l2.get(0)! + 80, i.at.l2.get(0)!, i.at.l2.get(0)! + 8),
      { finding: 'cluster-overlap' },
    ],
    [
      'two entries at one compressed cluster',
      (i) => i.bytes.copy(i.bytes, i.at.l2.get(0)! + 80, i.at.l2.get(0)! + 40, i.at.l2.get(0)! + 48),
      { finding: 'cluster-overlap' },
    ],
    ['L1 in the header', (i) => put(i, 40, 0), /^QCOW header l1_table_offset/],
  ])('%s', async (_attack, change, answer) => {
    const folder = fresh(scratch.path);
    const image = buildQcow(qcowLayout);
    change(image);
    writeFileSync(join(folder, 'disk.qcow'), image.bytes);
    expectAnswer(await attack(folder, 'disk.qcow'), answer);
  });
});

describe('VMDK', () => {
  const scratch = scratchFolder('self-vmdk');
  const put = (image: { bytes: Buffer }, at: number, byte: number) => image.bytes.writeUInt32LE(byte / SECTOR, at);
  const DIRECTORY = /^VMDK grain directory entry/;
  const TABLE = /^VMDK grain table entry/;
  it.each<[string, (image: SparseImage) => void, Answer]>([
    ['grain directory -> itself', (i) => put(i, i.at.directory, i.at.directory), DIRECTORY],
    ['grain directory -> header', (i) => put(i, i.at.directory, SECTOR), DIRECTORY],
    [
      'grain directory -> the table of another entry',
      (i) => put(i, i.at.directory, i.at.tables[1]!),
      { finding: 'table-overlap' },
    ],
    ['grain table -> directory', (i) => put(i, i.at.tables[0]!, i.at.directory), TABLE],
    ['grain table -> descriptor', (i) => put(i, i.at.tables[0]!, SECTOR), TABLE],
    ['grain table -> itself', (i) => put(i, i.at.tables[0]!, i.at.tables[0]!), { finding: 'grain-in-tables' }],
    [
      'two entries at one grain',
      (i) => i.bytes.copy(i.bytes, i.at.tables[0]! + 8, i.at.tables[0]!, i.at.tables[0]! + 4),
      { finding: 'grain-overlap' },
    ],
    ['directory at the header', (i) => i.bytes.writeBigUInt64LE(0n, 56), /gdOffset/],
    ['directory at the descriptor', (i) => i.bytes.writeBigUInt64LE(1n, 56), /gdOffset/],
  ])('monolithicSparse without copies, %s', async (_attack, change, answer) => {
    const folder = fresh(scratch.path);
    const image = writeSparseDisk(folder, 'disk', { ...vmdkLayout, redundant: false });
    change(image);
    writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
    expectAnswer(await attack(folder, 'disk.vmdk'), answer);
  });

  it.each<[string, (image: SparseImage) => void]>([
    ['the directory -> itself', (i) => put(i, i.at.directory, i.at.directory)],
    ['the directory -> the redundant one', (i) => put(i, i.at.directory, i.at.redundantDirectory)],
    ['a table -> the directory', (i) => put(i, i.at.tables[0]!, i.at.directory)],
    ['a table -> the redundant directory', (i) => put(i, i.at.tables[0]!, i.at.redundantDirectory)],
  ])('monolithicSparse, %s: the copies are read', async (_attack, change) => {
    const folder = fresh(scratch.path);
    const image = writeSparseDisk(folder, 'disk', vmdkLayout);
    change(image);
    writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
    const { error, bytes, findings } = await attack(folder, 'disk.vmdk');
    expect(error).toBeUndefined();
    for (const n of [0, 1, 3, 40, 99]) {
      const grain = bytes.subarray(n * 16 * SECTOR, (n + 1) * 16 * SECTOR);
      expect(grain.equals(vmdkLayout.grains.get(n) as Buffer)).toBe(true);
    }
    expect(codes(findings)).not.toEqual([]);
  });

  it('streamOptimized, the directory -> itself, its table -> a marker, two entries at one grain', async () => {
    for (const [change, answer] of [
      [(i: ReturnType<typeof writeStreamDisk>) => put(i, i.at.directory, i.at.directory), DIRECTORY],
      [
        (i: ReturnType<typeof writeStreamDisk>) => put(i, i.at.tables.get(0)!, i.at.tables.get(0)! - SECTOR),
        /^VMDK grain marker/,
      ],
      [
        (i: ReturnType<typeof writeStreamDisk>) =>
          i.bytes.copy(i.bytes, i.at.tables.get(0)! + 8, i.at.tables.get(0)!, i.at.tables.get(0)! + 4),
        /^VMDK grain marker lba/,
      ],
    ] as const) {
      const folder = fresh(scratch.path);
      const image = writeStreamDisk(folder, 'disk', vmdkLayout);
      change(image);
      writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
      expectAnswer(await attack(folder, 'disk.vmdk'), answer);
    }
  });

  it('vmfsSparse, the directory -> itself and to the header, a table -> directory', async () => {
    const grains = new Map<number, Grain>([[0, pattern(0, SECTOR)]]);
    for (const [field, target, answer] of [
      ['directory', 'directory', /^COWD grain directory entry/],
      ['directory', 'header', /^COWD grain directory entry/],
      ['table', 'directory', /^COWD grain table entry/],
      ['table', 'table', { finding: 'grain-overlap' }],
    ] as const) {
      const folder = fresh(scratch.path);
      const image = writeCowdDisk(folder, 'disk', { capacitySectors: 64, grains });
      const place = { directory: image.at.directory, header: SECTOR, table: image.at.tables.get(0)! };
      put(image, place[field], place[target]);
      writeFileSync(join(folder, 'disk-delta.vmdk'), image.bytes);
      expectAnswer(await attack(folder, 'disk.vmdk'), answer);
    }
  });

  it('seSparse, tables and grains in the directory, tables among the grains', async () => {
    for (const [field, from] of [
      [152 - 8, 128],
      [192, 128],
      [192, 144],
    ] as const) {
      const folder = fresh(scratch.path);
      const grains = new Map<number, Grain>([[0, pattern(0, 4096)]]);
      const { bytes } = writeSeSparseDisk(folder, 'disk', { capacitySectors: 64, grains });
      bytes.copyWithin(field, from, from + 8);
      writeFileSync(join(folder, 'disk-sesparse.vmdk'), bytes);
      const { error, findings } = await attack(folder, 'disk.vmdk');
      if (error === undefined) expect(codes(findings)).toContain('areas-overlap');
      else expect(error.kind).toBe('corrupt');
    }
  });
});

describe('VHD', () => {
  const scratch = scratchFolder('self-vhd');
  const put = (image: VhdImage, block: number, byte: number) =>
    image.bytes.writeUInt32BE(byte / SECTOR, image.at.table + block * 4);
  const ENTRY = /^VHD block allocation table entry/;
  it.each<[string, (image: VhdImage) => void, Answer]>([
    ['entry -> footer copy', (i) => put(i, 0, 0), ENTRY],
    ['entry -> dynamic disk header', (i) => put(i, 0, 512), ENTRY],
    ['entry -> the table', (i) => put(i, 0, i.at.table), ENTRY],
    ['entry -> the last footer', (i) => put(i, 0, i.at.footer), ENTRY],
    [
      'entry -> a block whose end is in the footer',
      (i) => put(i, 0, i.at.footer - 65_536),
      { finding: 'block-out-of-file' },
    ],
    ['two entries at one block', (i) => put(i, 0, i.at.blocks.get(3)!.bitmap), { finding: 'block-overlap' }],
    ['entry -> the middle of a block', (i) => put(i, 0, i.at.blocks.get(1)!.data), { finding: 'block-overlap' }],
    ['the table at the footer copy', (i) => tableAt(i, 0n), /table offset/],
    ['the table at the header', (i) => tableAt(i, 512n), ENTRY],
    ['the header at the footer copy', (i) => headerAt(i, 0n), /data offset/],
    ['the header at the table', (i) => headerAt(i, BigInt(i.at.table)), /dynamic disk header cookie/],
  ])('dynamic, %s', async (_attack, change, answer) => {
    const folder = fresh(scratch.path);
    const image = buildVhd(vhdLayout);
    change(image);
    writeFileSync(join(folder, 'disk.vhd'), image.bytes);
    expectAnswer(await attack(folder, 'disk.vhd'), answer);
  });

  function tableAt(image: VhdImage, at: bigint): void {
    image.bytes.writeBigUInt64BE(at, image.at.header + 16);
    sumHeader(image.bytes, image.at.header);
  }
  function headerAt(image: VhdImage, at: bigint): void {
    for (const footer of [0, image.at.footer]) {
      image.bytes.writeBigUInt64BE(at, footer + 16);
      sumFooter(image.bytes, footer);
    }
  }

  it('differencing, a block in a parent locator, and a locator in the table', async () => {
    for (const change of [
      (i: VhdImage) => put(i, 1, i.at.locators[0]!),
      (i: VhdImage) => {
        i.bytes.writeBigUInt64BE(BigInt(i.at.table), i.at.header + 576 + 16);
        sumHeader(i.bytes, i.at.header);
      },
    ]) {
      const folder = fresh(scratch.path);
      const base = buildVhd(vhdLayout);
      writeFileSync(join(folder, 'base.vhd'), base.bytes);
      const image = buildVhd({
        ...vhdLayout,
        id: '0a0a0a0a-0000-4000-8000-000000000002',
        sectors: new Map([[0, sectorContent(0, 9)]]),
        parent: {
          id: vhdLayout.id,
          name: 'base.vhd',
          locators: [{ code: 'W2ru', data: Buffer.from('.\\base.vhd'.padEnd(300, '\0'), 'utf16le') }],
        },
      });
      change(image);
      writeFileSync(join(folder, 'disk.vhd'), image.bytes);
      const { findings } = await attack(folder, 'disk.vhd');
      expect(codes(findings).join()).toMatch(/block-in-metadata|locator-in-tables|block-out-of-file/);
    }
  });
});

describe('VHDX', () => {
  const scratch = scratchFolder('self-vhdx');
  const put = (image: VhdxImage, block: number, byte: number, state = 6) =>
    image.bytes.writeBigUInt64LE(BigInt(byte + state), image.at.entry(block));
  const ENTRY = /^VHDX BAT entry/;
  it.each<[string, (image: VhdxImage) => void, Answer]>([
    ['entry -> header section', (i) => put(i, 0, 0), ENTRY],
    ['entry -> log', (i) => put(i, 0, i.at.log), ENTRY],
    ['entry -> metadata', (i) => put(i, 0, i.at.metadata), ENTRY],
    ['entry -> the BAT', (i) => put(i, 0, i.at.bat), ENTRY],
    ['two entries at one block', (i) => put(i, 0, i.at.blocks.get(2)!), { finding: 'block-overlap' }],
    ['region table that lists itself as the BAT', (i) => regions(i, 0, 192 << 10), /^VHDX region table entry/],
    ['region table that lists itself as the metadata', (i) => regions(i, 1, 256 << 10), /^VHDX region table entry/],
    ['BAT and metadata in one place', (i) => regions(i, 0, i.at.metadata), /^VHDX region table entry/],
    ['metadata at the BAT', (i) => regions(i, 1, i.at.bat), /^VHDX region table entry/],
    ['the BAT at the log', (i) => regions(i, 0, i.at.log), { finding: 'region-overlap' }],
    ['the metadata at the log', (i) => regions(i, 1, i.at.log), /^VHDX metadata table/],
    ['a log of 4 GiB', (i) => both(i, { logLength: 0xffff_ffff, logGuid: LOG_GUID }), /^VHDX log/],
    ['a log of 0 bytes', (i) => both(i, { logLength: 0, logGuid: LOG_GUID }), /^VHDX log/],
    ['the log at the headers', (i) => both(i, { logOffset: 0, logGuid: LOG_GUID }), /^VHDX log/],
    ['the log at the BAT', (i) => both(i, { logOffset: i.at.bat, logGuid: LOG_GUID }), /^VHDX log/],
  ])('dynamic, %s', async (_attack, change, answer) => {
    const folder = fresh(scratch.path);
    const image = buildVhdx(vhdxLayout);
    change(image);
    writeFileSync(join(folder, 'disk.vhdx'), image.bytes);
    expectAnswer(await attack(folder, 'disk.vhdx'), answer);
  });

  function regions(image: VhdxImage, which: 0 | 1, position: number): void {
    const all = regionsOf(image);
    all[which]![1] = position;
    writeRegionTables(image.bytes, all);
  }
  function both(image: VhdxImage, fields: Parameters<typeof writeHeader>[2]): void {
    writeHeader(image, 0, { sequence: 8n, ...fields });
    writeHeader(image, 1, { sequence: 9n, ...fields });
  }

  it.each<[string, (image: VhdxImage, base: number) => void, Answer]>([
    [
      'a sector bitmap on a payload block',
      (i, block) => i.bytes.writeBigUInt64LE(BigInt(block + 6), i.at.bitmapEntry(0)),
      { finding: 'block-overlap' },
    ],
    ['a sector bitmap in the BAT', (i) => i.bytes.writeBigUInt64LE(BigInt(i.at.bat + 6), i.at.bitmapEntry(0)), ENTRY],
    ['a sector bitmap in the header section', (i) => i.bytes.writeBigUInt64LE(6n, i.at.bitmapEntry(0)), ENTRY],
    ['a payload block on the sector bitmap', (i) => put(i, 1, i.at.bitmaps.get(0)!), { finding: 'block-overlap' }],
  ])('differencing, %s', async (_attack, change, answer) => {
    const folder = fresh(scratch.path);
    writeFileSync(join(folder, 'base.vhdx'), buildVhdx(vhdxLayout).bytes);
    const image = buildVhdx({
      virtualSize: vhdxLayout.virtualSize,
      blocks: new Map<number, Buffer | ReadonlyMap<number, Buffer>>([
        [0, new Map([[3, pattern(0, SECTOR)]])],
        [3, pattern(3, MIB)],
      ]),
      parent: parentLocator('base.vhdx', DATA_WRITE_GUID),
      dataWriteGuid: '99999999-2222-4333-8444-555555555555',
    });
    change(image, image.at.blocks.get(3)!);
    writeFileSync(join(folder, 'disk.vhdx'), image.bytes);
    expectAnswer(await attack(folder, 'disk.vhdx'), answer);
  });

  it.each<[string, (image: VhdxImage) => void]>([
    ['the headers', (i) => relog(i, 64 << 10)],
    ['the log itself', (i) => relog(i, i.at.log)],
    ['a place behind the file', (i) => relog(i, 2 ** 40)],
  ])('a log that writes to %s', async (_attack, change) => {
    const folder = fresh(scratch.path);
    const image = buildVhdx(vhdxLayout);
    change(image);
    writeFileSync(join(folder, 'disk.vhdx'), image.bytes);
    expect((await attack(folder, 'disk.vhdx')).error).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'VHDX log descriptor FileOffset' },
    });
  });

  function relog(image: VhdxImage, position: number): void {
    const entry = logEntry({
      sequence: 5n,
      tail: 0,
      flushed: image.bytes.length,
      writes: [{ position, data: Buffer.alloc(4096, 0xee) }],
    });
    placeEntry(image, 0, entry);
    markDirty(image);
  }

  it('a log of zeros of 2^53 bytes, and one whose entries lead round and round', async () => {
    const zeros = buildVhdx(vhdxLayout);
    placeEntry(
      zeros,
      0,
      logEntry({
        sequence: 5n,
        tail: 0,
        flushed: zeros.bytes.length,
        last: 2 ** 53 - 1,
        writes: [{ position: 8 * MIB, zeros: 2 ** 53 - 9 * MIB - (2 ** 53 % 4096) }],
      }),
    );
    markDirty(zeros);
    const round = buildVhdx(vhdxLayout);
    dirty(round, [round.at.bat], undefined, 0);
    const whole = logEntry({ sequence: 9n, tail: 4096, flushed: round.bytes.length, writes: [] });
    for (let at = 0; at < MIB; at += 4096) placeEntry(round, at, whole);
    for (const image of [zeros, round]) {
      const folder = fresh(scratch.path);
      writeFileSync(join(folder, 'disk.vhdx'), image.bytes);
      await attack(folder, 'disk.vhdx');
    }
  });
});

describe('VDI', () => {
  const scratch = scratchFolder('self-vdi');
  it.each<[string, (image: VdiImage) => void, Answer]>([
    ['the map in the header', (i) => i.bytes.writeUInt32LE(0, 72 + 268), /^VDI header offBlocks/],
    ['the map in the text', (i) => i.bytes.writeUInt32LE(64, 72 + 268), /^VDI header offBlocks/],
    ['blocks in the map', (i) => i.bytes.writeUInt32LE(i.at.map, 72 + 272), /^VDI header offData/],
    ['blocks in the header', (i) => i.bytes.writeUInt32LE(0, 72 + 272), /^VDI header offData/],
    ['the map among the blocks', (i) => i.bytes.writeUInt32LE(i.at.data + 4096, 72 + 268), /^VDI header offData/],
    ['two entries at one block', (i) => i.bytes.writeUInt32LE(0, i.at.map + 12), { finding: 'block-overlap' }],
    ['entry -> a block behind the end', (i) => i.bytes.writeUInt32LE(3, i.at.map), /^VDI block map entry/],
    ['entry -> block 2^32-3', (i) => i.bytes.writeUInt32LE(0xffff_fffd, i.at.map), /^VDI block map entry/],
  ])('%s', async (_attack, change, answer) => {
    const folder = fresh(scratch.path);
    const image = buildVdi(vdiLayout);
    change(image);
    writeFileSync(join(folder, 'disk.vdi'), image.bytes);
    expectAnswer(await attack(folder, 'disk.vdi'), answer);
  });
});

describe('Parallels', () => {
  const scratch = scratchFolder('self-parallels');
  it.each<[string, number, number, Answer]>([
    ['entry -> header', 64, 1, /^Parallels BAT entry/],
    ['two entries at one cluster', 68, -1, { finding: 'cluster-overlap' }],
    ['entry -> the middle of a cluster', 68, -5, { finding: 'cluster-overlap' }],
    ['entry -> behind the end', 64, 0xffff_ffff, /^Parallels BAT entry/],
  ])('%s', async (_attack, at, value, answer) => {
    const folder = fresh(scratch.path);
    const { bytes } = buildExpanding({ ...parallelsLayout, noDataOffset: true });
    const first = bytes.readUInt32LE(64);
    bytes.writeUInt32LE(value === 1 ? 0x8000_0000 : value < 0 ? first - 1 - value : value, at);
    if (value === 1) bytes.writeUInt32LE(2, 48);
    writeFileSync(join(folder, 'disk.hdd'), bytes);
    expectAnswer(await attack(folder, 'disk.hdd'), answer);
  });
});

import { createHash } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, renameSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { ConstantHeaderOffsets as header } from '../../../main/engine/image/vmdk/se-sparse-layout.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { type ReadRequest, runAsync } from '../../../main/engine/storage/io.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { corpusHere, unpack, whySkipped } from '../../support/corpus.ts';
import { wireOf, withLayer } from '../../support/open-layer.ts';
import { caseFolders, scratchFolder } from '../../support/scratch.ts';
import { descriptorText, pattern, SECTOR } from '../../support/vmdk-builder.ts';
import {
  buildSeSparse,
  type SeGrain,
  type SeSparseImage,
  writeSeSparseDisk,
} from '../../support/vmdk-sesparse-builder.ts';

const scratch = scratchFolder('vmdk-sesparse');
const freshFolder = caseFolders(scratch);
const GRAIN = 4096;
const capacitySectors = 8 * 5000;
const layout = {
  capacitySectors,
  grains: new Map<number, SeGrain>([
    ...[0, 1, 7, 4095, 4096, 4999].map((n): [number, Buffer] => [n, pattern(n * GRAIN, GRAIN)]),
    [2, 'zero'],
    [3, 'unmapped'],
  ]),
};

async function broken(change: (image: SeSparseImage) => Buffer | undefined) {
  const folder = freshFolder();
  const image = writeSeSparseDisk(folder, 'd', layout);
  writeFileSync(join(folder, 'd-sesparse.vmdk'), change(image) ?? image.bytes);
  const read = () => wireOf(withLayer(folder, 'd.vmdk', (layer) => readLayer(layer, 0, layer.virtualSize)));
  const check = () => withLayer(folder, 'd.vmdk', findings);
  return { read, check };
}
const put = (at: number, value: bigint) => (image: SeSparseImage) => {
  image.bytes.writeBigUInt64LE(value, at);
  return undefined;
};

describe('seSparse', () => {
  it('hides its parent where the guest zeroed or unmapped, and asks it where it has nothing', async () => {
    const folder = freshFolder();
    const flat = pattern(0, capacitySectors * SECTOR, 3);
    writeFileSync(join(folder, 'web01-flat.vmdk'), flat);
    const extents = [`RW ${capacitySectors} VMFS "web01-flat.vmdk"`];
    writeFileSync(join(folder, 'web01.vmdk'), descriptorText({ createType: 'vmfs', cid: '0000000a', extents }));
    writeSeSparseDisk(folder, 'web01-000001', layout, { parentCid: '0000000a', parentFileNameHint: 'web01.vmdk' });
    const expected = Buffer.from(flat);
    for (const [n, content] of layout.grains) {
      if (Buffer.isBuffer(content)) content.copy(expected, n * GRAIN);
      else expected.fill(0, n * GRAIN, (n + 1) * GRAIN);
    }
    for (const synchronous of [true, false]) {
      const disk = await openChain('web01-000001.vmdk', new Confinement(folder, { synchronous }), { synchronous });
      expect(disk.layers[0]).toMatchObject({ variant: 'seSparse', granularity: GRAIN });
      expect(Buffer.compare(await disk.read(0, disk.size), expected)).toBe(0);
      await disk.close();
    }
    const files = await withLayer(folder, 'web01-000001.vmdk', async (layer) => layer.files);
    expect(files.map(({ role, name }) => [role, name])).toEqual([
      ['descriptor', 'web01-000001.vmdk'],
      ['extent', 'web01-000001-sesparse.vmdk'],
    ]);
  });

  it('reads grain numbers whose two parts are both in use', async () => {
    const folder = freshFolder();
    writeSeSparseDisk(folder, 'd', { ...layout, firstGrain: 4094 });
    await withLayer(folder, 'd.vmdk', async (layer) => {
      for (const [n, content] of layout.grains) {
        const got = await readLayer(layer, n * GRAIN, GRAIN);
        expect(got.equals(Buffer.isBuffer(content) ? content : Buffer.alloc(GRAIN)), `grain ${n}`).toBe(true);
      }
      expect(await findings(layer)).toEqual([]);
    });
  });

  it.each<[string, (image: SeSparseImage) => Buffer | undefined, string]>([
    ['version 3.0', put(header.version, 3n << 32n), 'VMDK seSparse of version 3.0'],
    ['another grain size', put(header.grainSize, 16n), 'VMDK seSparse with a grainSize of 16 sectors'],
    ['another table size', put(header.grainTableSize, 128n), 'VMDK seSparse with a grainTableSize of 128 sectors'],
    ['a flag', put(header.flags, 1n << 63n), 'VMDK seSparse flags 0x8000000000000000'],
    ['a reserved field', put(header.reserved + 8, 1n), 'VMDK seSparse with reserved header fields in use'],
    ['something behind the header', put(header.padding + 100, 1n), 'VMDK seSparse with reserved header fields in use'],
    [
      'a journal to replay',
      (image) => put(image.at.volatileHeader + 24, 1n)(image),
      'VMDK seSparse with a journal to replay (it was copied while in use, or after a crash)',
    ],
  ])('refuses %s by name', async (_what, change, feature) => {
    const { read } = await broken(change);
    expect(await read()).toMatchObject({ kind: 'unsupported', details: { feature, source: 'd-sesparse.vmdk' } });
  });

  it.each<[string, (image: SeSparseImage) => Buffer | undefined, string]>([
    ['version 0', put(header.version, 0n), 'seSparse constant header version'],
    ['grainSize 0', put(header.grainSize, 0n), 'seSparse constant header grainSize'],
    ['capacity 0', put(header.capacity, 0n), 'seSparse constant header capacity'],
    ['a capacity of 2^63', put(header.capacity, 1n << 63n), 'seSparse constant header capacity'],
    ['a smaller capacity', put(header.capacity, 8n), 'seSparse constant header capacity'],
    [
      'a directory behind the file',
      put(header.grainDirectoryOffset, 1n << 40n),
      'seSparse constant header grainDirectoryOffset',
    ],
    ['a directory of nothing', put(header.grainDirectorySize, 0n), 'seSparse constant header grainDirectorySize'],
    [
      'a volatile header behind the file',
      put(header.volatileHeaderOffset, 1n << 40n),
      'seSparse constant header volatileHeaderOffset',
    ],
    ['tables of 2^62 sectors', put(header.grainTablesSize, 1n << 62n), 'seSparse constant header grainTablesSize'],
    [
      'another volatile magic',
      (image) => put(image.at.volatileHeader, 0xcafebaben)(image),
      'seSparse volatile header magic',
    ],
    ['no room for grains', put(header.grainsSize, 8n), 'seSparse grain table entry'],
    ['no room for tables', put(header.grainTablesSize, 64n), 'seSparse grain directory entry'],
    [
      'a directory entry of another kind',
      (image) => put(image.at.directory, (3n << 60n) | 1n)(image),
      'seSparse grain directory entry',
    ],
    [
      'a directory entry without its mark',
      (image) => put(image.at.directory, 1n)(image),
      'seSparse grain directory entry',
    ],
    [
      'a table that is not there',
      (image) => put(image.at.directory, (1n << 60n) | 0xffff_ffffn)(image),
      'seSparse grain directory entry',
    ],
    [
      'a grain of an unknown type',
      (image) => put(image.at.tables.get(0)! + 8, 4n << 60n)(image),
      'seSparse grain table entry',
    ],
    [
      'an unallocated grain with a number',
      (image) => put(image.at.tables.get(0)! + 8, 5n)(image),
      'seSparse grain table entry',
    ],
    [
      'a grain that is not there',
      (image) => put(image.at.tables.get(0)! + 8, (3n << 60n) | (77n << 48n))(image),
      'seSparse grain table entry',
    ],
    [
      'a grain number over 2^53',
      (image) => put(image.at.tables.get(0)! + 8, (1n << 62n) - 1n)(image),
      'seSparse grain table entry',
    ],
    [
      'a grain that is cut off',
      (image) => image.bytes.subarray(0, image.bytes.length - 1),
      'seSparse grain table entry',
    ],
  ])('refuses %s as damage', async (_what, change, structure) => {
    const { read } = await broken(change);
    const error = await read();
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure, source: 'd-sesparse.vmdk' } });
    expect(error.details).toHaveProperty('position');
    expect(error.details.found).toBeDefined();
  });

  it.each<[string, (image: SeSparseImage) => Buffer | undefined]>([
    [
      'grain-overlap',
      (image) => put(image.at.tables.get(0)! + 8, image.bytes.readBigUInt64LE(image.at.tables.get(0)!))(image),
    ],
    ['table-overlap', (image) => put(image.at.directory, image.bytes.readBigUInt64LE(image.at.directory + 8))(image)],
    ['grain-out-of-file', (image) => put(image.at.tables.get(0)!, (3n << 60n) | (99n << 48n))(image)],
    ['table-out-of-file', (image) => put(image.at.directory, (1n << 60n) | 99n)(image)],
    ['areas-overlap', (image) => put(header.grainTablesSize, 1n << 20n)(image)],
  ])('check finds %s', async (code, change) => {
    const { check } = await broken(change);
    const found = await check();
    expect(found.map((finding) => finding.code)).toContain(code);
    expect(found.every(({ severity }) => severity === 'damaged')).toBe(true);
  });

  it('is refused by itself, with the name of its descriptor', async () => {
    const folder = freshFolder();
    writeSeSparseDisk(folder, 'web01-000001', layout);
    expect(await wireOf(openLayer('web01-000001-sesparse.vmdk', new Confinement(folder)))).toMatchObject({
      kind: 'unsupported',
      details: { source: 'web01-000001-sesparse.vmdk', role: 'extent', descriptor: 'web01-000001.vmdk' },
    });
  });

  it('opens 64 TiB and reads only what a range needs', async () => {
    const folder = freshFolder();
    const sectors = 2 ** 37 - 8;
    const small = buildSeSparse({ capacitySectors: 8, grains: new Map([[0, pattern(0, GRAIN)]]) });
    const directoryAt = small.bytes.length / SECTOR;
    const entries = Math.ceil(sectors / (4096 * 8));
    const directorySectors = Math.ceil((entries * 8) / SECTOR);
    small.bytes.writeBigUInt64LE(BigInt(sectors), header.capacity);
    small.bytes.writeBigUInt64LE(BigInt(directoryAt), header.grainDirectoryOffset);
    small.bytes.writeBigUInt64LE(BigInt(directorySectors), header.grainDirectorySize);
    // The one table now stands for the end of the disk, whose last grain it holds.
    const table = small.at.tables.get(0)!;
    const last = (sectors / 8 - 1) % 4096;
    small.bytes.copy(small.bytes, table + last * 8, table, table + 8);
    small.bytes.fill(0, table, table + 8);
    const fd = openSync(join(folder, 'big-sesparse.vmdk'), 'w');
    writeSync(fd, small.bytes, 0, small.bytes.length, 0);
    const entry = Buffer.alloc(8);
    entry.writeBigUInt64LE((1n << 60n) | 1n);
    writeSync(fd, entry, 0, 8, directoryAt * SECTOR + (entries - 1) * 8);
    ftruncateSync(fd, (directoryAt + directorySectors) * SECTOR);
    closeSync(fd);
    const extents = [`RW ${sectors} SESPARSE "big-sesparse.vmdk"`];
    writeFileSync(join(folder, 'big.vmdk'), descriptorText({ createType: 'seSparse', extents }));
    await withLayer(folder, 'big.vmdk', async (layer) => {
      expect(layer.virtualSize).toBe(sectors * SECTOR);
      const requests: ReadRequest[] = [];
      const io = layer.runs(layer.virtualSize - 2 ** 26, 2 ** 26);
      let step = io.next();
      while (!step.done) {
        requests.push(step.value);
        step = io.next(await step.value.source.read(step.value.offset, step.value.length));
      }
      expect(step.value.map(({ kind, length }) => [kind, length])).toEqual([
        ['absent', 2 ** 26 - GRAIN],
        ['data', GRAIN],
      ]);
      expect(requests.reduce((sum, { length }) => sum + length, 0)).toBeLessThan(40_000);
      expect(await runAsync(layer.runs(0, 2 ** 42))).toEqual([{ kind: 'absent', offset: 0, length: 2 ** 42 }]);
      expect((await readLayer(layer, layer.virtualSize - GRAIN, GRAIN)).equals(pattern(0, GRAIN))).toBe(true);
    });
  });
});

const REAL = 'fox-it+dissect.hypervisor/tests/_data/disk/vmdk/sesparse.vmdk.gz';
describe.skipIf(!corpusHere)(`a real seSparse extent${whySkipped}`, () => {
  it('reads as INDEX.md says, and checks without a finding', async () => {
    const folder = freshFolder();
    renameSync(join(folder, unpack(REAL, folder)), join(folder, 'd-sesparse.vmdk'));
    const extents = ['RW 1048576 SESPARSE "d-sesparse.vmdk"'];
    writeFileSync(join(folder, 'd.vmdk'), descriptorText({ createType: 'seSparse', extents }));
    await withLayer(folder, 'd.vmdk', async (layer) => {
      expect(layer).toMatchObject({ variant: 'seSparse', virtualSize: 512 << 20 });
      const hash = createHash('sha256');
      for (let at = 0; at < layer.virtualSize; at += 16 << 20) hash.update(await readLayer(layer, at, 16 << 20));
      expect(hash.digest('hex')).toBe('3afa48010241335528fe402f083fc9f3a1013a49485221443a78d9a8604e2f90');
      expect(await layer.allocatedBytes()).toBeGreaterThanOrEqual(16 << 20);
      expect((await findings(layer)).filter(({ severity }) => severity !== 'note')).toEqual([]);
    });
  });
});

import { closeSync, ftruncateSync, openSync, symlinkSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { WireError } from '../../../main/engine/errors.ts';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { SparseExtentHeaderOffsets as header } from '../../../main/engine/image/vmdk/layout.ts';
import { readDescriptor } from '../../../main/engine/image/vmdk/vmdk-layer.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { type ReadRequest, runAsync } from '../../../main/engine/storage/io.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { wireOf, withLayer } from '../../support/open-layer.ts';
import { caseFolders, scratchFolder } from '../../support/scratch.ts';
import {
  buildCowd,
  buildSparse,
  descriptorText,
  type Grain,
  modelOf,
  pattern,
  SECTOR,
  type SparseOptions,
  writeCowdDisk,
  writeSparseDisk,
} from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('vmdk');
const freshFolder = caseFolders(scratch);

const grain = (n: number, sectors: number): [number, Buffer] => [n, pattern(n * sectors * SECTOR, sectors * SECTOR)];
const layout = {
  capacitySectors: 16 * 100,
  grainSectors: 16,
  entriesPerTable: 32,
  grains: new Map<number, Grain>([0, 1, 5, 40, 99].map((n) => grain(n, 16))),
} satisfies SparseOptions;

/** Builds the usual sparse disk, changes its bytes, writes it and says what is thrown when it is opened and read whole. */
function broken(change: (image: ReturnType<typeof buildSparse>) => Buffer | undefined): Promise<WireError> {
  const folder = freshFolder();
  const image = writeSparseDisk(folder, 'disk', { ...layout, redundant: false });
  writeFileSync(join(folder, 'disk.vmdk'), change(image) ?? image.bytes);
  return wireOf(withLayer(folder, 'disk.vmdk', (layer) => readLayer(layer, 0, layer.virtualSize)));
}

describe('hosted sparse header, one field broken', () => {
  const u32 = (at: number, value: number) => (image: { bytes: Buffer }) => {
    image.bytes.writeUInt32LE(value, at);
    return undefined;
  };
  const u64 = (at: number, value: bigint) => (image: { bytes: Buffer }) => {
    image.bytes.writeBigUInt64LE(value, at);
    return undefined;
  };
  it.each([
    ['version 0', u32(header.version, 0), 'VMDK sparse extent header version', header.version],
    ['grainSize 0', u64(header.grainSize, 0n), 'VMDK sparse extent header grainSize', header.grainSize],
    ['grainSize 24', u64(header.grainSize, 24n), 'VMDK sparse extent header grainSize', header.grainSize],
    ['a huge grainSize', u64(header.grainSize, 1n << 40n), 'VMDK sparse extent header grainSize', header.grainSize],
    ['numGTEsPerGT 0', u32(header.numGTEsPerGT, 0), 'VMDK sparse extent header numGTEsPerGT', header.numGTEsPerGT],
    ['numGTEsPerGT 513', u32(header.numGTEsPerGT, 513), 'VMDK sparse extent header numGTEsPerGT', header.numGTEsPerGT],
    ['capacity 0', u64(header.capacity, 0n), 'VMDK sparse extent header capacity', header.capacity],
    ['a larger capacity', u64(header.capacity, 9999n), 'VMDK sparse extent header capacity', header.capacity],
    ['a smaller capacity', u64(header.capacity, 9n), 'VMDK sparse extent header capacity', header.capacity],
    ['a capacity over 2^53', u64(header.capacity, 1n << 60n), 'VMDK sparse extent header capacity', header.capacity],
    [
      'overHead behind the file',
      u64(header.overHead, 1n << 30n),
      'VMDK sparse extent header overHead',
      header.overHead,
    ],
    [
      'a directory behind the file',
      u64(header.gdOffset, 99999n),
      'VMDK sparse extent header gdOffset',
      header.gdOffset,
    ],
    ['a directory in the header', u64(header.gdOffset, 0n), 'VMDK sparse extent header gdOffset', header.gdOffset],
    ['a huge descriptor', u64(header.descriptorSize, 1n << 33n), 'VMDK embedded descriptor', SECTOR],
  ])('refuses %s', async (_what, change, structure, position) => {
    const error = await broken(change);
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure, position, source: 'disk.vmdk' } });
    expect(error.details.expected).toBeDefined();
    expect(error.details.found).toBeDefined();
  });

  it('says what a transfer in text mode did', async () => {
    const error = await broken((image) => {
      image.bytes.write('\r\n \r', header.singleEndLineChar, 'latin1');
      return undefined;
    });
    expect(error).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'VMDK sparse extent header newline detection bytes', position: 73, expected: '0a200d0a' },
    });
    expect(error.message).toMatch(/text mode/);
  });

  it.each([
    [
      'markers without compression',
      u32(header.flags, 0x20001),
      'VMDK sparse extent with markers and without compression',
    ],
    ['an unknown incompatible flag', u32(header.flags, 0x40001), 'VMDK sparse extent flags 0x40000'],
    ['version 4', u32(header.version, 4), 'VMDK sparse extent of version 4'],
  ])('refuses %s by name', async (_what, change, feature) => {
    expect(await broken(change)).toMatchObject({ kind: 'unsupported', details: { feature } });
  });

  it('goes on with an unknown compatible flag', async () => {
    const folder = freshFolder();
    const image = writeSparseDisk(folder, 'disk', layout);
    image.bytes.writeUInt32LE(0x8003, header.flags);
    writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
    await withLayer(folder, 'disk.vmdk', async (layer) => {
      expect((await readLayer(layer, 0, layer.virtualSize)).equals(modelOf(layout))).toBe(true);
    });
  });
});

describe('grain tables', () => {
  it('refuses a grain outside the file with structure, position, expected and found', async () => {
    let position = 0;
    const error = await broken((image) => {
      position = image.at.tables[1]! + 8 * 4;
      image.bytes.writeUInt32LE(0x00ff_ffff, position);
      return undefined;
    });
    expect(error).toMatchObject({
      kind: 'corrupt',
      details: {
        structure: 'VMDK grain table entry',
        source: 'disk.vmdk',
        position,
        expected: expect.stringMatching(/^a sector from 21 to \d+$/),
        found: 'sector 16777215',
      },
    });
  });

  it('refuses a grain that is cut in half by the end of the file, at its entry', async () => {
    let position = 0;
    const error = await broken((image) => {
      position = image.at.tables[3]! + 3 * 4;
      return image.bytes.subarray(0, image.bytes.length - 8 * SECTOR);
    });
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure: 'VMDK grain table entry', position } });
  });

  it('refuses a table outside the file, and grains in the header or the descriptor', async () => {
    expect(
      await broken((image) => {
        image.bytes.writeUInt32LE(0x0100_0000, image.at.directory + 4);
        return undefined;
      }),
    ).toMatchObject({ kind: 'corrupt', details: { structure: 'VMDK grain directory entry' } });
    // Value 1 is a zeroed grain only where the header says so; without it, it is a grain over the descriptor.
    expect(
      await broken((image) => {
        image.bytes.writeUInt32LE(1, image.at.tables[0]!);
        return undefined;
      }),
    ).toMatchObject({ kind: 'corrupt', details: { structure: 'VMDK grain table entry', found: 'sector 1' } });
  });

  it('reads what is whole beside what is not', async () => {
    const folder = freshFolder();
    const image = writeSparseDisk(folder, 'disk', { ...layout, redundant: false });
    image.bytes.writeUInt32LE(0xffff_ffff, image.at.tables[0]! + 4);
    writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
    await withLayer(folder, 'disk.vmdk', async (layer) => {
      const model = modelOf(layout);
      const start = 2 * 16 * SECTOR;
      expect((await readLayer(layer, start, model.length - start)).equals(model.subarray(start))).toBe(true);
      expect(await findings(layer)).toMatchObject([{ severity: 'damaged', code: 'grain-out-of-file' }]);
    });
  });

  it('uses the redundant tables where the primary can’t be true, and tells it', async () => {
    const changes: ((image: ReturnType<typeof buildSparse>) => void)[] = [
      (image) => image.bytes.writeUInt32LE(0xffff_ffff, image.at.tables[0]!),
      (image) => image.bytes.writeUInt32LE(0xffff_ffff, image.at.directory),
      (image) => image.bytes.fill(0, image.at.directory, image.at.directory + 16),
      (image) => image.bytes.writeBigUInt64LE(1n << 40n, header.gdOffset),
    ];
    for (const change of changes) {
      const folder = freshFolder();
      const image = writeSparseDisk(folder, 'disk', layout);
      change(image);
      writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
      await withLayer(folder, 'disk.vmdk', async (layer) => {
        expect((await readLayer(layer, 0, layer.virtualSize)).equals(modelOf(layout))).toBe(true);
        expect((await findings(layer)).some(({ severity }) => severity === 'damaged')).toBe(true);
      });
    }
  });

  it('refuses when both copies are damaged', async () => {
    const folder = freshFolder();
    const image = writeSparseDisk(folder, 'disk', layout);
    for (const table of [image.at.tables[0]!, image.at.redundantTables[0]!]) {
      image.bytes.writeUInt32LE(0xffff_ffff, table);
    }
    writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
    const error = await wireOf(withLayer(folder, 'disk.vmdk', (layer) => readLayer(layer, 0, 512)));
    expect(error.details).toMatchObject({ structure: 'VMDK grain table entry', position: image.at.tables[0] });
  });

  it.each([
    [
      'grain-overlap',
      (image: ReturnType<typeof buildSparse>) => {
        const first = image.bytes.readUInt32LE(image.at.tables[0]!);
        for (const tables of [image.at.tables, image.at.redundantTables])
          image.bytes.writeUInt32LE(first, tables[0]! + 4);
      },
    ],
    [
      'grain-overlap',
      (image: ReturnType<typeof buildSparse>) => {
        const first = image.bytes.readUInt32LE(image.at.tables[0]!);
        for (const tables of [image.at.tables, image.at.redundantTables])
          image.bytes.writeUInt32LE(first + 3, tables[0]! + 4);
      },
    ],
    [
      'grain-in-tables',
      (image: ReturnType<typeof buildSparse>) => {
        const inside = image.at.directory / SECTOR;
        for (const tables of [image.at.tables, image.at.redundantTables])
          image.bytes.writeUInt32LE(inside, tables[0]! + 4);
      },
    ],
    [
      'redundant-table-differs',
      (image: ReturnType<typeof buildSparse>) => {
        image.bytes.writeUInt32LE(0, image.at.redundantTables[3]! + 3 * 4);
      },
    ],
    [
      'redundant-directory-differs',
      (image: ReturnType<typeof buildSparse>) => {
        image.bytes.writeUInt32LE(0, image.at.redundantDirectory + 4);
      },
    ],
    [
      'redundant-table-out-of-file',
      (image: ReturnType<typeof buildSparse>) => {
        image.bytes.writeUInt32LE(0xfff_ffff, image.at.redundantDirectory + 4);
      },
    ],
    [
      'redundant-directory-out-of-file',
      (image: ReturnType<typeof buildSparse>) => {
        image.bytes.writeBigUInt64LE(1n << 33n, header.rgdOffset);
      },
    ],
    [
      'unclean-shutdown',
      (image: ReturnType<typeof buildSparse>) => {
        image.bytes[header.uncleanShutdown] = 1;
      },
    ],
  ] as const)('check finds %s', async (code, change) => {
    const folder = freshFolder();
    const image = writeSparseDisk(folder, 'disk', layout);
    change(image);
    writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
    const found = await withLayer(folder, 'disk.vmdk', findings);
    expect(found.map((finding) => finding.code)).toContain(code);
  });

  it('counts findings beyond the first twenty of a kind', async () => {
    const folder = freshFolder();
    const image = writeSparseDisk(folder, 'disk', { ...layout, redundant: false });
    image.bytes.fill(0xff, image.at.tables[0]!, image.at.tables[0]! + 32 * 4);
    writeFileSync(join(folder, 'disk.vmdk'), image.bytes);
    const found = await withLayer(folder, 'disk.vmdk', findings);
    expect(found.filter(({ code }) => code === 'grain-out-of-file')).toHaveLength(21);
    expect(found.at(-1)).toMatchObject({ found: 12, message: '12 more findings of this kind in disk.vmdk' });
  });

  it('opens 64 TiB and reads only the tables that a range needs', async () => {
    const folder = freshFolder();
    const sectors = 2 ** 37;
    const directorySectors = 2 ** 14;
    const small = buildSparse({
      capacitySectors: 65_536 * 16,
      grains: new Map(),
      descriptor: descriptorText({ createType: 'monolithicSparse', extents: [`RW ${sectors} SPARSE "big.vmdk"`] }),
      redundant: false,
    }).bytes;
    small.writeBigUInt64LE(BigInt(sectors), header.capacity);
    // 64 KiB grains, 512 to a table: 2^21 tables, all missing but the last, which holds the last grain.
    const table = 21 + directorySectors;
    const data = table + 8;
    const fd = openSync(join(folder, 'big.vmdk'), 'w');
    writeSync(fd, small.subarray(0, 21 * SECTOR), 0, 21 * SECTOR, 0);
    const word = Buffer.alloc(4);
    word.writeUInt32LE(table);
    writeSync(fd, word, 0, 4, 21 * SECTOR + (2 ** 21 - 1) * 4);
    word.writeUInt32LE(data);
    writeSync(fd, word, 0, 4, table * SECTOR + 511 * 4);
    ftruncateSync(fd, (data + 128) * SECTOR);
    closeSync(fd);
    await withLayer(folder, 'big.vmdk', async (layer) => {
      expect(layer.virtualSize).toBe(2 ** 46);
      const requests: ReadRequest[] = [];
      const io = layer.runs(2 ** 46 - 2 ** 26, 2 ** 26);
      let step = io.next();
      while (!step.done) {
        requests.push(step.value);
        step = io.next(await step.value.source.read(step.value.offset, step.value.length));
      }
      expect(step.value).toEqual([
        { kind: 'absent', offset: 2 ** 46 - 2 ** 26, length: 2 ** 26 - 65_536 },
        { kind: 'data', offset: 2 ** 46 - 65_536, length: 65_536, source: expect.anything(), position: data * SECTOR },
      ]);
      expect(requests.reduce((sum, { length }) => sum + length, 0)).toBeLessThan(4096);
      expect(await runAsync(layer.runs(0, 2 ** 40))).toEqual([{ kind: 'absent', offset: 0, length: 2 ** 40 }]);
    });
  });

  it('joins contiguous grains and reads neighbouring tables together', async () => {
    const folder = freshFolder();
    const all = new Map<number, Grain>(Array.from({ length: 96 }, (_, n) => grain(n, 16)));
    writeSparseDisk(folder, 'disk', { capacitySectors: 96 * 16, grainSectors: 16, entriesPerTable: 32, grains: all });
    await withLayer(folder, 'disk.vmdk', async (layer) => {
      const io = layer.runs(100, 96 * 16 * SECTOR - 200);
      let reads = 0;
      let step = io.next();
      while (!step.done) {
        reads++;
        step = io.next(await step.value.source.read(step.value.offset, step.value.length));
      }
      expect(step.value).toHaveLength(1);
      // Tables of 32 entries do not fill their sectors, so each is a read of its own here.
      expect(reads).toBe(4);
    });
  });
});

describe('COWD', () => {
  const cowd = { capacitySectors: 9000, grains: new Map<number, Grain>([3, 4, 4096, 8999].map((n) => grain(n, 1))) };

  function brokenCowd(change: (image: ReturnType<typeof buildCowd>) => Buffer | undefined) {
    const folder = freshFolder();
    const image = writeCowdDisk(folder, 'd', cowd);
    writeFileSync(join(folder, 'd-delta.vmdk'), change(image) ?? image.bytes);
    return { folder, read: () => withLayer(folder, 'd.vmdk', (layer) => readLayer(layer, 0, layer.virtualSize)) };
  }

  it.each([
    ['version', 4, 0, 'COWD header version'],
    ['numSectors', 12, 8999, 'COWD header capacity'],
    ['numSectors', 12, 0, 'COWD header numSectors'],
    ['grainSize', 16, 0, 'COWD header grainSize'],
    ['grainSize', 16, 0x400000, 'COWD header grainSize'],
    ['gdOffset', 20, 0, 'COWD header gdOffset'],
    ['gdOffset', 20, 0xffff_ffff, 'COWD header gdOffset'],
    ['numGDEntries', 24, 2, 'COWD header numGDEntries'],
    ['a directory entry', 2048, 0xffff, 'COWD grain directory entry'],
  ])('refuses a damaged %s', async (_what, at, value, structure) => {
    const { read } = brokenCowd((image) => {
      image.bytes.writeUInt32LE(value, at);
      return undefined;
    });
    expect(await wireOf(read())).toMatchObject({ kind: 'corrupt', details: { structure, source: 'd-delta.vmdk' } });
  });

  it('refuses another version by name', async () => {
    const { read } = brokenCowd((image) => {
      image.bytes.writeUInt32LE(2, 4);
      return undefined;
    });
    expect(await wireOf(read())).toMatchObject({
      kind: 'unsupported',
      details: { feature: 'COWD extent of version 2' },
    });
  });

  it('check finds grains that share a sector with a table or with each other', async () => {
    for (const target of ['table', 'grain'] as const) {
      const { folder } = brokenCowd((image) => {
        const to = target === 'table' ? image.at.tables.get(1)! : image.at.grains.get(4)!;
        image.bytes.writeUInt32LE(to / SECTOR, image.at.tables.get(0)! + 3 * 4);
        return undefined;
      });
      const found = await withLayer(folder, 'd.vmdk', findings);
      expect(found).toMatchObject([{ severity: 'damaged', code: 'grain-overlap' }]);
    }
  });

  it('is refused by itself, with the name of its descriptor', async () => {
    const { folder } = brokenCowd(() => undefined);
    const error = await wireOf(openLayer('d-delta.vmdk', new Confinement(folder)));
    expect(error).toMatchObject({
      kind: 'unsupported',
      details: { source: 'd-delta.vmdk', role: 'extent', descriptor: 'd.vmdk' },
    });
    expect(error.message).toContain('open its descriptor d.vmdk instead');
  });

  it('opens a redo log by its descriptor', async () => {
    const folder = freshFolder();
    writeFileSync(join(folder, 'android.vmdk-delta.REDO_TkLU1V'), buildCowd(cowd).bytes);
    const text = descriptorText({
      createType: 'vmfsSparse',
      parentCid: 'c3d4fd75',
      parentFileNameHint: 'android.vmdk',
      extents: ['RW 9000 VMFSSPARSE "android.vmdk-delta.REDO_TkLU1V"'],
    });
    writeFileSync(join(folder, 'android.vmdk.REDO_TkLU1V'), text);
    await withLayer(folder, 'android.vmdk.REDO_TkLU1V', async (layer) => {
      expect(layer).toMatchObject({ variant: 'vmfsSparse', parent: { recorded: 'android.vmdk', id: 'c3d4fd75' } });
      expect(layer.files.map(({ role, name }) => [role, name])).toEqual([
        ['descriptor', 'android.vmdk.REDO_TkLU1V'],
        ['extent', 'android.vmdk-delta.REDO_TkLU1V'],
      ]);
      expect((await readLayer(layer, 0, layer.virtualSize)).equals(modelOf({ ...cowd, grainSectors: 1 }))).toBe(true);
    });
  });
});

describe('a disk and its files', () => {
  function writeDescriptor(folder: string, extents: string[], createType = 'monolithicFlat'): void {
    writeFileSync(join(folder, 'd.vmdk'), descriptorText({ createType, extents }));
  }
  const open = (folder: string, name = 'd.vmdk') => openLayer(name, new Confinement(folder));

  it('says what it is', async () => {
    const folder = freshFolder();
    writeSparseDisk(
      folder,
      'web01-000001',
      { ...layout, uncleanShutdown: true },
      {
        version: 3,
        cid: '9abb023',
        parentCid: '0badcafe',
        parentFileNameHint: '../base/web01.vmdk',
        more: [
          'changeTrackPath="web01-ctk.vmdk"',
          'ddb.virtualHWVersion = "19"',
          'ddb.adapterType = "lsilogic"',
          'ddb.uuid = "60 00 C2 97"',
          'ddb.toolsVersion = "12352"',
          'ddb.longContentID = "7dfbf361d1fbbf2082b192cf09abb023"',
        ],
      },
    );
    await withLayer(folder, 'web01-000001.vmdk', async (layer) => {
      expect(layer).toMatchObject({
        format: 'vmdk',
        variant: 'monolithicSparse',
        name: 'web01-000001.vmdk',
        virtualSize: 1600 * SECTOR,
        granularity: 16 * SECTOR,
        id: '09abb023',
        parent: { recorded: '../base/web01.vmdk', id: '0badcafe' },
        properties: {
          createType: 'monolithicSparse',
          hardwareVersion: '19',
          adapterType: 'lsilogic',
          uuid: '60 00 C2 97',
          toolsVersion: '12352',
          changeTrackPath: 'web01-ctk.vmdk',
          grainSize: 8192,
          uncleanShutdown: true,
        },
      });
      expect(await layer.allocatedBytes()).toBe(5 * 8192);
      expect((await findings(layer)).map(({ severity, code }) => [severity, code])).toEqual([
        ['note', 'unclean-shutdown'],
      ]);
    });
  });

  it('notices a content id that was edited by hand', async () => {
    const folder = freshFolder();
    const more = ['ddb.longContentID = "7dfbf361d1fbbf2082b192cffffffffe"'];
    writeSparseDisk(folder, 'd', layout, { cid: 'ffffffee', more });
    expect(await withLayer(folder, 'd.vmdk', findings)).toMatchObject([
      { severity: 'suspicious', code: 'content-id-edited', expected: 'fffffffe', found: 'ffffffee' },
    ]);
  });

  it('names a missing extent', async () => {
    const folder = freshFolder();
    writeDescriptor(folder, ['RW 10 FLAT "d-flat.vmdk" 0']);
    const error = await wireOf(open(folder));
    expect(error).toMatchObject({ kind: 'not-found', details: { recorded: 'd-flat.vmdk', source: 'd.vmdk' } });
    expect(error.message).toContain('d-flat.vmdk');
  });

  it('names a flat extent that was cut off', async () => {
    const folder = freshFolder();
    writeDescriptor(folder, ['RW 10 FLAT "d-flat.vmdk" 2']);
    writeFileSync(join(folder, 'd-flat.vmdk'), Buffer.alloc(12 * SECTOR - 1));
    expect(await wireOf(open(folder))).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'VMDK flat extent', source: 'd-flat.vmdk', position: 6143 },
    });
  });

  it('never leaves the opened folder', async () => {
    const outside = freshFolder();
    writeFileSync(join(outside, 'secret-flat.vmdk'), Buffer.alloc(10 * SECTOR));
    const folder = freshFolder();
    writeDescriptor(folder, ['RW 10 FLAT "../secret-flat.vmdk" 0']);
    expect(await wireOf(open(folder))).toMatchObject({ kind: 'denied' });
    writeDescriptor(folder, [`RW 10 FLAT "${join(outside, 'secret-flat.vmdk')}" 0`]);
    expect(await wireOf(open(folder))).toMatchObject({ kind: 'not-found' });
    symlinkSync(join(outside, 'secret-flat.vmdk'), join(folder, 'link-flat.vmdk'));
    writeDescriptor(folder, ['RW 10 FLAT "link-flat.vmdk" 0']);
    expect(await wireOf(open(folder))).toMatchObject({ kind: 'denied' });
    writeDescriptor(folder, ['RW 1 FLAT "d.vmdk" 0']);
    expect(await wireOf(open(folder))).toMatchObject({ kind: 'denied' });
  });

  it('refuses devices, raw device mappings and unknown extents by name', async () => {
    const folder = freshFolder();
    writeFileSync(join(folder, 'x.bin'), Buffer.alloc(10 * SECTOR));
    for (const [line, feature] of [
      ['RW 10 FLAT "/dev/sda" 0', 'VMDK on a physical device'],
      ['RW 10 FLAT "\\\\.\\PhysicalDrive0" 0', 'VMDK on a physical device'],
      ['RW 10 VMFS "vsan://52cdfa80721ff516-ea1e993113acfc77/aa"', 'VMDK whose extent is a vsan object'],
      ['RW 10 VMFSRDM "x.bin"', 'VMDK vmfsRDM (raw device mapping)'],
      ['RW 10 VMFSRDMP "x.bin"', 'VMDK vmfsPassthroughRDM (raw device mapping)'],
      ['RW 10 VMFSRAW "x.bin"', 'VMDK vmfsRaw (raw device)'],
      ['RW 10 VSANSPARSE "x.bin"', 'VMDK vsanSparse'],
      ['RW 10 NEWTYPE "x.bin"', 'VMDK extent type NEWTYPE'],
    ]) {
      writeDescriptor(folder, [line!]);
      expect(await wireOf(open(folder)), line).toMatchObject({ kind: 'unsupported', details: { feature } });
    }
  });

  it.each([
    ['fullDevice', 'VMDK fullDevice (physical disk)'],
    ['partitionedDevice', 'VMDK partitionedDevice (physical disk)'],
    ['vmfsRDM', 'VMDK vmfsRDM (raw device mapping)'],
    ['vmfsRawDeviceMap', 'VMDK vmfsRDM (raw device mapping)'],
    ['vmfsRDMP', 'VMDK vmfsPassthroughRDM (raw device mapping)'],
    ['vmfsPassthroughRawDeviceMap', 'VMDK vmfsPassthroughRDM (raw device mapping)'],
    ['vmfsRaw', 'VMDK vmfsRaw (raw device)'],
    ['vsanSparse', 'VMDK vsanSparse'],
    ['somethingNew', 'VMDK createType "somethingNew"'],
  ])('refuses the createType %s by name', async (createType, feature) => {
    const folder = freshFolder();
    writeFileSync(join(folder, 'd-flat.vmdk'), Buffer.alloc(10 * SECTOR));
    writeDescriptor(folder, ['RW 10 FLAT "d-flat.vmdk" 0'], createType);
    expect(await wireOf(open(folder))).toMatchObject({ kind: 'unsupported', details: { feature } });
  });

  it.each([
    ['vmfs', 'vmfs'],
    ['vmfsThin', 'vmfsThin'],
    ['vmfsEagerZeroedThick', 'vmfsEagerZeroedThick'],
    ['vmfsPreallocated', 'vmfsPreallocated'],
    ['2GbMaxExtentFlat', 'twoGbMaxExtentFlat'],
    ['custom', 'custom'],
  ])('reads flat extents under the createType %s', async (createType, variant) => {
    const folder = freshFolder();
    writeFileSync(join(folder, 'd-flat.vmdk'), pattern(0, 10 * SECTOR));
    writeDescriptor(folder, ['RW 10 VMFS "d-flat.vmdk"', 'RW 3 ZERO'], createType);
    await withLayer(folder, 'd.vmdk', async (layer) => {
      expect(layer.variant).toBe(variant);
      const expected = Buffer.concat([pattern(0, 10 * SECTOR), Buffer.alloc(3 * SECTOR)]);
      expect((await readLayer(layer, 0, layer.virtualSize)).equals(expected)).toBe(true);
      expect(await findings(layer)).toEqual([]);
    });
  });

  it('opens and reads a disk of 2,000 sparse extents', async () => {
    const folder = freshFolder();
    const part = { capacitySectors: 16, grainSectors: 8, entriesPerTable: 4 };
    const extents: string[] = [];
    for (let i = 0; i < 2000; i++) {
      const name = `d-s${String(i + 1).padStart(3, '0')}.vmdk`;
      writeFileSync(
        join(folder, name),
        buildSparse({ ...part, grains: new Map([[i % 2, pattern(i, 8 * SECTOR, i)]]) }).bytes,
      );
      extents.push(`RW 16 SPARSE "${name}"`);
    }
    writeDescriptor(folder, extents, '2GbMaxExtentSparse');
    await withLayer(folder, 'd.vmdk', async (layer) => {
      expect(layer).toMatchObject({ variant: 'twoGbMaxExtentSparse', virtualSize: 2000 * 16 * SECTOR });
      expect(layer.files).toHaveLength(2001);
      expect(await layer.allocatedBytes()).toBe(2000 * 8 * SECTOR);
      for (const i of [0, 1, 999, 1998, 1999]) {
        const at = (i * 16 + (i % 2) * 8) * SECTOR;
        expect((await readLayer(layer, at, 8 * SECTOR)).equals(pattern(i, 8 * SECTOR, i)), `extent ${i}`).toBe(true);
      }
    });
  });

  it('keeps the place of a NOACCESS extent and refuses to read it', async () => {
    const folder = freshFolder();
    writeDescriptor(folder, ['RW 1 ZERO', 'NOACCESS 10 FLAT "gone.vmdk" 0', 'RW 2 FLAT "d-flat.vmdk" 0']);
    writeFileSync(join(folder, 'd-flat.vmdk'), pattern(0, 2 * SECTOR));
    await withLayer(folder, 'd.vmdk', async (layer) => {
      expect(layer.virtualSize).toBe(13 * SECTOR);
      expect((await readLayer(layer, 11 * SECTOR, 1024)).equals(pattern(0, 1024))).toBe(true);
      expect(await wireOf(readLayer(layer, 0, 1024))).toMatchObject({ kind: 'denied' });
      expect(await layer.allocatedBytes()).toBe(1024);
    });
  });

  it('refuses a hosted sparse extent of a split disk by itself', async () => {
    const folder = freshFolder();
    writeFileSync(join(folder, 'd-s001.vmdk'), buildSparse(layout).bytes);
    writeDescriptor(folder, ['RW 1600 SPARSE "d-s001.vmdk"'], 'twoGbMaxExtentSparse');
    expect(await wireOf(open(folder, 'd-s001.vmdk'))).toMatchObject({
      kind: 'unsupported',
      details: { role: 'extent', descriptor: 'd.vmdk' },
    });
    expect((await open(folder)).virtualSize).toBe(1600 * SECTOR);
  });

  it('opens a monolithicSparse disk under another name than it was made with', async () => {
    const folder = freshFolder();
    const image = writeSparseDisk(folder, 'old name', layout);
    writeFileSync(join(folder, 'new.vmdk'), image.bytes);
    await withLayer(folder, 'new.vmdk', async (layer) => {
      expect(layer.files).toMatchObject([{ role: 'image', name: 'new.vmdk', size: image.bytes.length }]);
    });
  });

  it('refuses an embedded descriptor that names other files', async () => {
    const folder = freshFolder();
    for (const extents of [['RW 1600 FLAT "other-flat.vmdk" 0'], ['RW 1600 SPARSE "d.vmdk"', 'RW 9 SPARSE "e.vmdk"']]) {
      writeSparseDisk(folder, 'd', layout, { extents });
      expect(await wireOf(open(folder))).toMatchObject({ kind: 'unsupported' });
    }
  });

  it('reads descriptors without opening extents', async () => {
    const folder = freshFolder();
    const confinement = new Confinement(folder);
    writeDescriptor(folder, ['RW 10 FLAT "gone.vmdk" 0']);
    writeSparseDisk(folder, 'sparse', layout);
    writeFileSync(join(folder, 'x-delta.vmdk'), buildCowd({ capacitySectors: 1, grains: new Map() }).bytes);
    writeFileSync(join(folder, 'x-flat.vmdk'), Buffer.alloc(1024));
    expect((await readDescriptor('d.vmdk', confinement))?.extents[0]?.name).toBe('gone.vmdk');
    expect((await readDescriptor('sparse.vmdk', confinement))?.createType).toBe('monolithicSparse');
    expect(await readDescriptor('x-delta.vmdk', confinement)).toBeUndefined();
    expect(await readDescriptor('x-flat.vmdk', confinement)).toBeUndefined();
  });
});

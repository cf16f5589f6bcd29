/**
 * Raw disks whose guest wrote the header of an image into its first sectors, or a footer into its last: they are raw, and what such a
 * header names is not opened, though it lies in the folder.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { buildExpanding, diskDescriptor, imageName, TOP, writeHdd } from '../../support/parallels-builder.ts';
import { buildQcow } from '../../support/qcow-builder.ts';
import { buildQcow2 } from '../../support/qcow2-builder.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { buildTar } from '../../support/tar-builder.ts';
import { buildVdi, uuidOf } from '../../support/vdi-builder.ts';
import { buildFixed, buildFooter, buildVhd } from '../../support/vhd-builder.ts';
import { buildVhdx, DATA_WRITE_GUID, parentLocator } from '../../support/vhdx-builder.ts';
import { buildCowd, buildSparse, descriptorText, pattern, SECTOR } from '../../support/vmdk-builder.ts';
import { attack, codes } from './attack.ts';
import { fresh, parallelsLayout, vdiLayout, vhdLayout, vmdkLayout } from './fixtures.ts';

const MIB = 1 << 20;
const SIZE = 2 * MIB;

const child = { cid: '0000000b', parentCid: '0000000a', parentFileNameHint: 'secret.vmdk' };
/** [what the guest wrote, its bytes]; each names `secret.*`, which lies in the folder. */
const FRONTS: readonly (readonly [string, () => Buffer])[] = [
  [
    'QCOW2',
    () => buildQcow2({ size: SIZE, clusters: new Map(), backing: { name: 'secret.raw', format: 'raw' } }).bytes,
  ],
  [
    'QCOW2 with a data file',
    () => buildQcow2({ size: SIZE, clusters: new Map(), dataFile: { name: 'secret.raw' } }).bytes,
  ],
  ['QCOW', () => buildQcow({ size: SIZE, clusters: new Map(), backing: 'secret.raw' }).bytes],
  [
    'a VMDK descriptor',
    () => Buffer.from(descriptorText({ createType: 'monolithicFlat', extents: ['RW 4096 FLAT "secret.raw" 0'] })),
  ],
  [
    'a VMDK sparse extent',
    () =>
      buildSparse({
        ...vmdkLayout,
        descriptor: descriptorText({ createType: 'monolithicSparse', extents: ['RW 1600 SPARSE "x.vmdk"'], ...child }),
      }).bytes,
  ],
  ['a COWD extent', () => buildCowd({ capacitySectors: 64, grains: new Map() }).bytes],
  [
    'VHDX',
    () =>
      buildVhdx({
        virtualSize: MIB,
        blocks: new Map(),
        parent: parentLocator('secret.vhdx', DATA_WRITE_GUID),
      }).bytes.subarray(0, 4 * MIB),
  ],
  [
    'a differencing VHD',
    () =>
      buildVhd({
        ...vhdLayout,
        parent: { id: vhdLayout.id, locators: [{ code: 'W2ru', data: Buffer.from('.\\secret.vhd', 'utf16le') }] },
      }).bytes,
  ],
  ['VDI', () => buildVdi({ ...vdiLayout, parent: uuidOf(9) }).bytes],
  ['Parallels', () => buildExpanding(parallelsLayout).bytes],
  ['a tar', () => buildTar([{ name: 'secret.raw', content: Buffer.from('x') }])],
  ['gzip', () => gzipSync(Buffer.alloc(MIB))],
  ['zstd', () => Buffer.from('28b52ffd', 'hex')],
  ['a ZIP', () => Buffer.from('504b0304', 'hex')],
  ['EWF', () => Buffer.from('455646090d0aff00', 'hex')],
  ['QED', () => Buffer.from('51454400', 'hex')],
  [
    'XML',
    () => Buffer.from('<?xml version="1.0"?><Envelope><References><File href="secret.raw"/></References></Envelope>'),
  ],
];
const FOOTERS: readonly (readonly [string, () => Buffer])[] = [
  ['a VHD footer', () => buildFooter({ size: SIZE })],
  ['the footer of a dynamic VHD', () => buildFooter({ size: SIZE, type: 3, dataOffset: 512n })],
  ['the footer of a differencing VHD', () => buildFooter({ size: SIZE, type: 4, dataOffset: 512n })],
];

const blank = pattern(0, SIZE, 3);

function guestDisk(front: Buffer | undefined, footer: Buffer | undefined, size = SIZE): Buffer {
  const disk = Buffer.from(size === SIZE ? blank : pattern(0, size, 3));
  front?.subarray(0, size).copy(disk, 0);
  footer?.copy(disk, size - footer.length);
  return disk;
}

/** [front, footer] of every attack. */
const GUESTS = [
  ...FRONTS.map(([name, front]) => [name, front, undefined] as const),
  ...FOOTERS.map(([name, footer]) => [name, undefined, footer] as const),
  [
    'a whole dynamic VHD, with both footers',
    FRONTS.find(([name]) => name === 'a differencing VHD')![1],
    FOOTERS[2]![1],
  ],
] as const;

describe.each(GUESTS)('%s, written by the guest', (_name, front, footer) => {
  const scratch = scratchFolder('guests');

  function secrets(folder: string): void {
    for (const name of ['secret.raw', 'secret.vmdk', 'secret.vhd', 'secret.vhdx'])
      writeFileSync(join(folder, name), Buffer.alloc(SIZE, 0x5e));
  }

  it.each(['disk.raw', 'disk.dd', 'disk.iso', 'DISK.RAW', 'disk.raw.001', 'web-flat.vmdk', 'web-f001.vmdk'])(
    'in %s: it is raw',
    async (name) => {
      const folder = fresh(scratch.path);
      secrets(folder);
      const disk = guestDisk(front?.(), footer?.());
      writeFileSync(join(folder, name), disk);
      const { error, formats, size, bytes, files, findings } = await attack(folder, name);
      expect(error).toBeUndefined();
      expect(formats).toEqual(['raw']);
      expect(size).toBe(disk.length);
      expect(bytes.equals(disk.subarray(0, bytes.length))).toBe(true);
      expect(files).toEqual([name]);
      expect(codes(findings)).toEqual([]);
    },
  );

  it.each(['base.raw', 'base.img', 'base.qcow2', 'base.vmdk', 'base'])(
    'in the raw backing file of a QCOW2, called %s: it is raw',
    async (name) => {
      const folder = fresh(scratch.path);
      secrets(folder);
      const disk = guestDisk(front?.(), footer?.());
      writeFileSync(join(folder, name), disk);
      const { bytes: image } = buildQcow2({ size: SIZE, clusters: new Map(), backing: { name, format: 'raw' } });
      writeFileSync(join(folder, 'disk.qcow2'), image);
      const { error, formats, bytes, files } = await attack(folder, 'disk.qcow2');
      expect(error).toBeUndefined();
      expect(formats).toEqual(['qcow2', 'raw']);
      expect(bytes.equals(disk.subarray(0, bytes.length))).toBe(true);
      expect(files).toEqual([name, 'disk.qcow2'].sort());
    },
  );

  it('in a flat extent, under its descriptor', async () => {
    const folder = fresh(scratch.path);
    secrets(folder);
    const disk = guestDisk(front?.(), footer?.());
    writeFileSync(join(folder, 'web-flat.vmdk'), disk);
    const extents = [`RW ${SIZE / SECTOR} FLAT "web-flat.vmdk" 0`];
    writeFileSync(join(folder, 'web.vmdk'), descriptorText({ createType: 'monolithicFlat', extents }));
    const { error, bytes, files } = await attack(folder, 'web.vmdk');
    expect(error).toBeUndefined();
    expect(bytes.equals(disk.subarray(0, bytes.length))).toBe(true);
    expect(files).toEqual(['web-flat.vmdk', 'web.vmdk']);
  });

  it('in a fixed VHD: it is a fixed VHD', async () => {
    const folder = fresh(scratch.path);
    secrets(folder);
    const disk = guestDisk(front?.(), footer?.());
    writeFileSync(join(folder, 'disk.vhd'), buildFixed(disk));
    const { error, formats, size, bytes, files } = await attack(folder, 'disk.vhd');
    expect(error).toBeUndefined();
    expect(formats).toEqual(['vhd']);
    expect(size).toBe(disk.length);
    expect(bytes.equals(disk.subarray(0, bytes.length))).toBe(true);
    expect(files).toEqual(['disk.vhd']);
  });

  it('in a plain Parallels image: it is plain', async () => {
    const folder = fresh(scratch.path);
    secrets(folder);
    const disk = guestDisk(front?.(), footer?.());
    const name = imageName('disk', 0, TOP);
    const images = [{ guid: TOP, type: 'Plain' as const, file: name }];
    const storages = [{ start: 0, end: SIZE / SECTOR, images }];
    const path = writeHdd(folder, 'disk', diskDescriptor({ sectors: SIZE / SECTOR, storages }), { [name]: disk });
    for (const leaf of [path, join(folder, 'disk.hdd', name)]) {
      const { error, bytes } = await attack(folder, leaf);
      expect(error).toBeUndefined();
      expect(bytes.equals(disk.subarray(0, bytes.length))).toBe(true);
    }
  });

  it('in a compressed raw disk: it is not looked into', async () => {
    const folder = fresh(scratch.path);
    secrets(folder);
    const disk = guestDisk(front?.(), footer?.());
    writeFileSync(join(folder, 'disk.raw.gz'), gzipSync(disk, { level: 1 }));
    const { error, formats, bytes, files } = await attack(folder, 'disk.raw.gz/disk.raw');
    expect(error).toBeUndefined();
    expect(formats).toEqual(['raw']);
    expect(bytes.equals(disk.subarray(0, bytes.length))).toBe(true);
    expect(files).toEqual(['disk.raw.gz']);
  });

  it('in a member of an OVA that is called raw', async () => {
    const folder = fresh(scratch.path);
    secrets(folder);
    const disk = guestDisk(front?.(), footer?.());
    writeFileSync(join(folder, 'web.ova'), buildTar([{ name: 'disk.raw', content: disk }]));
    const { error, formats, bytes, files } = await attack(folder, 'web.ova/disk.raw');
    expect(error).toBeUndefined();
    expect(formats).toEqual(['raw']);
    expect(bytes.equals(disk.subarray(0, bytes.length))).toBe(true);
    expect(files).toEqual(['web.ova']);
  });
});

it('what the guest wrote would be believed under another name', async () => {
  // Otherwise the tests above would prove nothing.
  const { detectFormat } = await import('../../../main/engine/image/formats.ts');
  const { Confinement } = await import('../../../main/engine/storage/confinement.ts');
  const { mkdtempSync, rmSync } = await import('node:fs');
  const { tmpdir } = await import('node:os');
  const folder = mkdtempSync(join(tmpdir(), 'chainlift-guests-'));
  const expected = ['qcow2', 'qcow2', 'qcow', 'vmdk', 'vmdk', 'vmdk', 'vhdx', 'vhd', 'vdi', 'parallels'];
  try {
    for (const [index, format] of expected.entries()) {
      writeFileSync(join(folder, 'disk.bak'), FRONTS[index]![1]());
      expect((await detectFormat('disk.bak', new Confinement(folder)))?.name, FRONTS[index]![0]).toBe(format);
      expect(readFileSync(join(folder, 'disk.bak')).length).toBeGreaterThan(0);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

import { describe, expect, it } from 'vitest';
import { IoError } from '../../../main/engine/errors.ts';
import { type ByteSource, MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { diskName } from '../../../main/engine/volume/partition.ts';
import type { VolumeSet } from '../../../main/engine/volume/volume.ts';
import { openVolumes } from '../../../main/engine/volume/volumes.ts';
import { FatBuilder } from '../../support/fat-builder.ts';
import {
  efiGuid,
  type GptPart,
  linuxGuid,
  signGptHeader,
  writeExtended,
  writeGpt,
  writeMbr,
} from '../../support/partition-builder.ts';

const MiB = 1 << 20;
const open = (disk: Uint8Array, index = 0): Promise<VolumeSet> =>
  openVolumes([{ index, source: new MemorySource(disk, `disk ${index}`) }]);
const shape = (set: VolumeSet): string[] => set.volumes.map((v) => `${v.name} ${v.start}+${v.size} ${v.typeCode}`);

describe('names of disks', () => {
  it('are those of Linux', () => {
    const names = [0, 1, 25, 26, 51, 52, 701, 702, 18_277, 18_278].map(diskName);
    expect(names).toEqual(['sda', 'sdb', 'sdz', 'sdaa', 'sdaz', 'sdba', 'sdzz', 'sdaaa', 'sdzzz', 'sdaaaa']);
  });
});

describe('a disk without a table', () => {
  it('is one volume, also when it is all zeros', async () => {
    const set = await open(new Uint8Array(MiB), 26);
    expect(set.warnings).toEqual([]);
    expect(set.volumes).toHaveLength(1);
    expect(set.volumes[0]).toMatchObject({ name: 'sdaa', scheme: 'none', start: 0, size: MiB, disk: 26, typeCode: '' });
  });

  it.each([0, 1, 511, 512, 600])('of %i bytes is one volume', async (size) => {
    const set = await open(new Uint8Array(size));
    expect(shape(set)).toEqual([`sda 0+${size} `]);
  });

  it('with a FAT boot sector is one volume, although it ends in 55 AA', async () => {
    for (const type of [12, 16, 32] as const) {
      const fat = new FatBuilder({ type, clusters: type === 12 ? 100 : 5000 });
      // Boot code where a table would be.
      for (let i = 446; i < 510; i++) fat.image[i] = 0x41 + (i % 26);
      const set = await open(fat.image);
      expect(set.volumes.map((v) => v.name)).toEqual(['sda']);
      expect(set.warnings).toEqual([]);
    }
  });

  it('with the fake table of mkfs.vfat --mbr, whose entry begins at sector 0, is one volume', async () => {
    const fat = new FatBuilder({ type: 16, clusters: 5000 });
    writeMbr(fat.image, [{ type: 0x0e, start: 0, sectors: fat.image.length / 512, status: 0x80 }]);
    expect((await open(fat.image)).volumes.map((v) => v.name)).toEqual(['sda']);
  });

  it('with an NTFS or exFAT boot sector is one volume', async () => {
    for (const oem of ['NTFS    ', 'EXFAT   ']) {
      const disk = new Uint8Array(MiB);
      disk.set([0xeb, 0x52, 0x90]);
      disk.set(Buffer.from(oem, 'latin1'), 3);
      if (oem.startsWith('NTFS')) disk.set([0, 2, 8], 11);
      disk[40] = 0xff;
      if (oem.startsWith('EXFAT')) disk.fill(0, 11, 64);
      // Looks like entries with valid status bytes that lie outside the disk.
      writeMbr(disk, [{ type: 0x72, start: 0x6e6f6973, sectors: 0x20646572 }]);
      expect((await open(disk)).volumes.map((v) => v.name)).toEqual(['sda']);
    }
  });

  it('says so when sector 0 is signed and its entries are garbage', async () => {
    const disk = new Uint8Array(MiB).fill(0x61);
    disk[510] = 0x55;
    disk[511] = 0xaa;
    const set = await open(disk);
    expect(shape(set)).toEqual([`sda 0+${MiB} `]);
    expect(set.warnings[0]).toMatchObject({ structure: 'Partition table', position: 446, found: '0x61' });
  });

  it('names a table of a kind that is not read', async () => {
    const disk = new Uint8Array(MiB);
    disk.set(Buffer.from('ER'), 0);
    disk.set(Buffer.from('PM'), 512);
    const set = await open(disk);
    expect(set.volumes.map((v) => v.name)).toEqual(['sda']);
    expect(set.warnings[0]).toMatchObject({ structure: 'Apple partition map' });
  });
});

describe('MBR', () => {
  const simple = (): Uint8Array => {
    const disk = new Uint8Array(4 * MiB);
    writeMbr(
      disk,
      [
        { type: 0x83, start: 64, sectors: 100, status: 0x80 },
        { type: 0x07, start: 256, sectors: 1000 },
        undefined,
        { type: 0x5f, start: 2000, sectors: 48 },
      ],
      0,
      0xcafe0102,
    );
    return disk;
  };

  it('gives primary partitions by slot', async () => {
    const set = await open(simple(), 1);
    expect(set.warnings).toEqual([]);
    expect(shape(set)).toEqual(['sdb1 32768+51200 0x83', 'sdb2 131072+512000 0x07', 'sdb4 1024000+24576 0x5f']);
    expect(set.volumes.map((v) => v.type)).toEqual(['Linux filesystem', 'NTFS or exFAT', '0x5f']);
    expect(set.volumes.map((v) => v.bootable)).toEqual([true, false, false]);
    expect(set.volumes[1]).toMatchObject({ scheme: 'mbr', disk: 1, uuid: 'cafe0102-02' });
  });

  it('reads and traces a volume within its disk', async () => {
    const disk = simple();
    disk.fill(0xaa, 32_768, 32_768 + 51_200);
    disk[32_767] = 1;
    disk[32_768 + 51_200] = 1;
    const volume = (await open(disk)).volumes[0]!;
    expect((await volume.read(0, volume.size)).every((byte) => byte === 0xaa)).toBe(true);
    const target = new Uint8Array(2);
    volume.readIntoSync!(target, volume.size - 2);
    expect([...target]).toEqual([0xaa, 0xaa]);
    expect(volume.runs(10, 20)).toEqual([{ offset: 10, length: 20, disk: 0, position: 32_778 }]);
    expect(volume.runs(5, 0)).toEqual([]);
    await expect(volume.read(volume.size - 1, 2)).rejects.toMatchObject({ kind: 'corrupt' });
    expect(() => volume.runs(volume.size, 1)).toThrow(/Read/);
    await volume.close();
  });

  it('offers synchronous reads only where the disk does', async () => {
    const memory = new MemorySource(simple());
    const source: ByteSource = {
      name: 'remote',
      size: memory.size,
      read: (o, l) => memory.read(o, l),
      close: async () => {},
    };
    const set = await openVolumes([{ index: 0, source }]);
    expect(set.volumes[0]!.readIntoSync).toBeUndefined();
  });

  it('numbers logical partitions from 5, in the order of their chain', async () => {
    const disk = new Uint8Array(8 * MiB);
    writeMbr(disk, [
      { type: 0x83, start: 2048, sectors: 100 },
      { type: 0x0f, start: 4096, sectors: 8000 },
    ]);
    writeExtended(disk, 4096, [
      { record: 4096, part: { type: 0x83, start: 63, sectors: 100 } },
      { record: 6000, part: { type: 0x82, start: 63, sectors: 200 } },
      { record: 5000, part: { type: 0x8e, start: 2, sectors: 300 } },
    ]);
    const set = await open(disk);
    expect(set.warnings).toEqual([]);
    expect(shape(set)).toEqual([
      `sda1 ${2048 * 512}+51200 0x83`,
      `sda5 ${4159 * 512}+51200 0x83`,
      `sda6 ${6063 * 512}+102400 0x82`,
      `sda7 ${5002 * 512}+153600 0x8e`,
    ]);
  });

  it('follows every extended partition of the table, whatever its type', async () => {
    const disk = new Uint8Array(8 * MiB);
    writeMbr(disk, [
      { type: 0x05, start: 100, sectors: 1000 },
      { type: 0x85, start: 2000, sectors: 1000 },
    ]);
    writeExtended(disk, 100, [{ record: 100, part: { type: 0x83, start: 1, sectors: 10 } }]);
    writeExtended(disk, 2000, [{ record: 2000, part: { type: 0x83, start: 1, sectors: 10 } }]);
    expect(shape(await open(disk))).toEqual(['sda5 51712+5120 0x83', `sda6 ${2001 * 512}+5120 0x83`]);
  });

  it('believes the last two slots of an extended record only when they lie inside it, as Linux does', async () => {
    const disk = new Uint8Array(8 * MiB);
    writeMbr(disk, [{ type: 0x05, start: 100, sectors: 1000 }]);
    const inside = { type: 0x83, start: 20, sectors: 10 };
    const beyond = { type: 0x83, start: 990, sectors: 11 };
    writeMbr(disk, [{ type: 0x83, start: 1, sectors: 10 }, undefined, beyond, inside], 100);
    expect(shape(await open(disk))).toEqual(['sda5 51712+5120 0x83', `sda6 ${120 * 512}+5120 0x83`]);
  });

  it('stops at a loop of extended records and says where', async () => {
    const disk = new Uint8Array(8 * MiB);
    writeMbr(disk, [{ type: 0x05, start: 100, sectors: 8000 }]);
    writeMbr(
      disk,
      [
        { type: 0x83, start: 1, sectors: 10 },
        { type: 0x05, start: 100, sectors: 50 },
      ],
      100,
    );
    writeMbr(
      disk,
      [
        { type: 0x83, start: 1, sectors: 10 },
        { type: 0x05, start: 0, sectors: 50 },
      ],
      200,
    );
    const set = await open(disk);
    expect(set.volumes.map((v) => v.name)).toEqual(['sda5', 'sda6']);
    expect(set.warnings).toMatchObject([
      { structure: 'Extended boot record', position: 51_200, found: 'a loop to sector 100' },
    ]);
  });

  it('stops at a record that is not signed or lies behind the disk', async () => {
    const disk = new Uint8Array(MiB);
    writeMbr(disk, [
      { type: 0x05, start: 100, sectors: 1000 },
      { type: 0x05, start: 9000, sectors: 100 },
    ]);
    const set = await open(disk);
    expect(set.volumes).toEqual([]);
    expect(set.warnings).toMatchObject([
      { structure: 'Extended boot record', position: 51_710, expected: '55 AA', found: '00 00' },
      { structure: 'Extended boot record', position: 9000 * 512, found: 'sector 9000' },
    ]);
  });

  it('bounds the number of logical partitions', async () => {
    const disk = new Uint8Array(2 * MiB);
    writeMbr(disk, [{ type: 0x05, start: 8, sectors: 4000 }]);
    writeExtended(
      disk,
      8,
      Array.from({ length: 600 }, (_, i) => ({ record: 8 + i * 2, part: { type: 0x83, start: 1, sectors: 1 } })),
    );
    const set = await open(disk);
    expect(set.volumes).toHaveLength(251);
    expect(set.volumes.at(-1)!.name).toBe('sda255');
    expect(set.warnings).toMatchObject([{ structure: 'Extended boot record', expected: 'at most 255 partitions' }]);
  });

  it('bounds a chain of records without partitions', async () => {
    const disk = new Uint8Array(2 * MiB);
    writeMbr(disk, [{ type: 0x05, start: 8, sectors: 4000 }]);
    for (let i = 0; i < 1000; i++) writeMbr(disk, [{ type: 0x05, start: i + 1, sectors: 1 }], 8 + i);
    const set = await open(disk);
    expect(set.volumes).toEqual([]);
    expect(set.warnings).toMatchObject([{ expected: 'at most 512 records' }]);
  });

  it('cuts a partition at the end of the disk and leaves out one behind it', async () => {
    const disk = new Uint8Array(MiB);
    writeMbr(disk, [
      { type: 0x83, start: 1000, sectors: 9000 },
      { type: 0x83, start: 0xffffffff, sectors: 0xffffffff },
    ]);
    const set = await open(disk);
    expect(shape(set)).toEqual([`sda1 512000+${MiB - 512_000} 0x83`]);
    expect(set.warnings).toMatchObject([
      { structure: 'Partition', position: 446, found: 10_000 * 512 },
      { structure: 'Partition', position: 462, found: 0xffffffff * 512 },
    ]);
  });

  it('warns of partitions that overlap', async () => {
    const disk = new Uint8Array(MiB);
    writeMbr(disk, [
      { type: 0x83, start: 500, sectors: 100 },
      { type: 0x83, start: 100, sectors: 500 },
      { type: 0x83, start: 700, sectors: 100 },
    ]);
    const set = await open(disk);
    expect(set.volumes).toHaveLength(3);
    expect(set.warnings.map((w) => w.message)).toEqual(['sda2 and sda1 overlap from byte 256000.']);
  });

  it('leaves out an entry with an impossible status and keeps the others', async () => {
    const disk = simple();
    disk[462] = 0x12;
    const set = await open(disk);
    expect(set.volumes.map((v) => v.name)).toEqual(['sda1', 'sda4']);
    expect(set.warnings).toMatchObject([{ structure: 'Partition table entry 2', position: 462, found: '0x12' }]);
  });

  it('wins over the parameter block of an earlier FAT that the boot loader left in place', async () => {
    const fat = new FatBuilder({ type: 16, clusters: 5000 });
    writeMbr(fat.image, [{ type: 0x83, start: 64, sectors: 1000 }]);
    const set = await open(fat.image);
    expect(set.volumes.map((v) => v.name)).toEqual(['sda1']);
    expect(set.warnings).toMatchObject([{ structure: 'Partition table', position: 446 }]);
  });
});

describe('GPT', () => {
  const parts: GptPart[] = [
    { number: 1, type: efiGuid, first: 64, last: 127, name: 'EFI Системный 😀', attributes: 4n },
    { number: 3, type: linuxGuid, first: 128, last: 1023, guid: 'ABCDEF01-2345-4678-89AB-CDEF01234567' },
    { number: 128, type: '00000000-1111-2222-3333-444444444444', first: 1024, last: 1024 },
  ];
  const make = (options: Parameters<typeof writeGpt>[2] = {}, size = MiB): Uint8Array => {
    const disk = new Uint8Array(size);
    writeGpt(disk, parts, options);
    return disk;
  };
  const names = ['sda1', 'sda3', 'sda128'];

  it('numbers partitions by their place in the array', async () => {
    const set = await open(make());
    expect(set.warnings).toEqual([]);
    expect(shape(set)).toEqual([
      `sda1 32768+32768 ${efiGuid}`,
      `sda3 65536+${896 * 512} ${linuxGuid}`,
      'sda128 524288+512 00000000-1111-2222-3333-444444444444',
    ]);
    expect(set.volumes[0]).toMatchObject({
      scheme: 'gpt',
      type: 'EFI System',
      label: 'EFI Системный 😀',
      bootable: true,
    });
    expect(set.volumes[1]).toMatchObject({
      type: 'Linux filesystem',
      uuid: 'abcdef01-2345-4678-89ab-cdef01234567',
      bootable: false,
    });
    expect(set.volumes[1]!.label).toBeUndefined();
    expect(set.volumes[2]!.type).toBe('00000000-1111-2222-3333-444444444444');
  });

  it.each([1024, 2048, 4096])('finds the block size %i', async (blockSize) => {
    const set = await open(make({ blockSize }, 8 * MiB));
    expect(set.warnings).toEqual([]);
    expect(set.volumes.map((v) => v.start)).toEqual([64 * blockSize, 128 * blockSize, 1024 * blockSize]);
  });

  it('reads larger entries', async () => {
    const same = await open(make({ entrySize: 256 }, 2 * MiB));
    expect(same.volumes.map((v) => v.name)).toEqual(names);
    const later = new Uint8Array(2 * MiB);
    writeGpt(later, [{ number: 129, type: linuxGuid, first: 200, last: 300 }], { entrySize: 512, entryCount: 130 });
    expect(shape(await open(later))).toEqual([`sda129 102400+${101 * 512} ${linuxGuid}`]);
  });

  // Each byte of the header and array that is broken must be noticed, and the backup used.
  const headerBreaks: [string, number, RegExp][] = [
    ['signature', 512, /signature/],
    ['revision', 512 + 10, /revision/],
    ['size', 512 + 13, /size/],
    ['checksum', 512 + 16, /checksum/],
    ['own block', 512 + 24, /checksum/],
    ['alternate block', 512 + 32, /checksum/],
    ['entry array block', 512 + 72, /checksum/],
    ['entry count', 512 + 80, /checksum/],
    ['entry', 1024 + 40, /GPT entry array checksum/],
    ['last unused entry', 1024 + 127 * 128 - 1, /GPT entry array checksum/],
  ];
  it.each(headerBreaks)('uses the backup when the %s is damaged, and says so', async (_, at, structure) => {
    const disk = make();
    disk[at]! ^= 0x40;
    const set = await open(disk);
    expect(set.volumes.map((v) => v.name)).toEqual(names);
    expect(set.warnings).toHaveLength(2);
    expect(set.warnings[0]!.structure).toMatch(structure);
    expect(set.warnings[0]!.position).toBeGreaterThanOrEqual(512);
    expect(set.warnings[1]!.message).toMatch(/backup table at the end of sda was used/);
  });

  const signedBreaks: [string, number, number, RegExp][] = [
    ['own block', 24, 7, /own block/],
    ['revision', 10, 9, /revision/],
    ['entry count', 83, 0xff, /entry count/],
    ['entry size 0', 84, 0, /entry size/],
    ['entry size', 85, 0x7f, /entry size/],
    ['array in block 0', 72, 0, /entry array block/],
    ['array behind the disk', 75, 0xff, /entry array block/],
    ['array beyond 2^53', 79, 0xff, /entry array block/],
  ];
  it.each(signedBreaks)('refuses a wrong %s whose checksum is right', async (_, at, value, structure) => {
    const disk = make();
    disk[512 + at] = value;
    signGptHeader(disk, 512);
    const set = await open(disk);
    expect(set.volumes.map((v) => v.name)).toEqual(names);
    expect(set.warnings[0]!.structure).toMatch(structure);
  });

  it('finds the backup of a wiped primary at any block size', async () => {
    for (const blockSize of [512, 4096]) {
      const disk = make({ blockSize }, 8 * MiB);
      disk.fill(0, 512, 34 * blockSize);
      const set = await open(disk);
      expect(set.volumes.map((v) => v.start)).toEqual([64 * blockSize, 128 * blockSize, 1024 * blockSize]);
    }
  });

  it('finds the backup of a disk that was grown, by the pointer of the damaged header', async () => {
    const disk = new Uint8Array(2 * MiB);
    disk.set(make());
    disk[512 + 60]! ^= 1;
    expect((await open(disk)).volumes.map((v) => v.name)).toEqual(names);
  });

  it('warns of a damaged backup beside a sound table', async () => {
    const disk = make();
    disk[MiB - 512]! ^= 1;
    const set = await open(disk);
    expect(set.volumes.map((v) => v.name)).toEqual(names);
    expect(set.warnings).toMatchObject([{ structure: 'Backup GPT header signature', position: MiB - 512 }]);
  });

  it('warns of tables that differ', async () => {
    const disk = make();
    const other = new Uint8Array(MiB);
    writeGpt(other, parts.slice(0, 1));
    disk.set(other.subarray(MiB - 33 * 512), MiB - 33 * 512);
    const set = await open(disk);
    expect(set.volumes.map((v) => v.name)).toEqual(names);
    expect(set.warnings).toMatchObject([{ structure: 'Backup GPT' }]);
  });

  it('shows the disk as one volume when both tables are damaged, and says what is wrong with each', async () => {
    const disk = make();
    disk[512]! ^= 1;
    disk[MiB - 512]! ^= 1;
    const set = await open(disk);
    expect(shape(set)).toEqual([`sda 0+${MiB} `]);
    expect(set.warnings.map((w) => w.structure)).toEqual([
      'GPT header signature',
      'Backup GPT header signature',
      'GPT',
    ]);
  });

  it('is used beside a hybrid MBR, whose entries are all that is left when it is damaged', async () => {
    const disk = make();
    writeMbr(disk, [
      { type: 0xee, start: 1, sectors: 63 },
      { type: 0x0c, start: 64, sectors: 64 },
    ]);
    const sound = await open(disk);
    expect(sound.volumes.map((v) => v.name)).toEqual(names);
    expect(sound.warnings).toMatchObject([{ structure: 'Hybrid MBR' }]);
    disk[512]! ^= 1;
    disk[MiB - 512]! ^= 1;
    const damaged = await open(disk);
    expect(shape(damaged)).toEqual(['sda2 32768+32768 0x0c']);
    expect(damaged.warnings.at(-1)!.message).toMatch(/hybrid MBR were used/);
  });

  it('is ignored as a remnant beside a plain MBR or under a file system', async () => {
    const disk = make({ protective: false });
    writeMbr(disk, [{ type: 0x83, start: 100, sectors: 100 }]);
    const set = await open(disk);
    expect(shape(set)).toEqual(['sda1 51200+51200 0x83']);
    expect(set.warnings).toMatchObject([{ structure: 'GPT', position: 512 }]);

    const fat = new FatBuilder({ type: 12, clusters: 500 });
    const stale = new Uint8Array(fat.image.length);
    writeGpt(stale, [], {});
    stale.set(fat.image.subarray(0, 512));
    expect((await open(stale)).volumes.map((v) => v.scheme)).toEqual(['none']);
  });

  it('is used where its protective MBR is missing, with a warning', async () => {
    const set = await open(make({ protective: false }));
    expect(set.volumes.map((v) => v.name)).toEqual(names);
    expect(set.warnings).toMatchObject([{ structure: 'Protective MBR' }]);
  });

  it('leaves out an entry that ends before it starts or lies beyond any disk', async () => {
    const disk = new Uint8Array(MiB);
    writeGpt(disk, [
      { number: 1, type: linuxGuid, first: 200, last: 199 },
      { number: 2, type: linuxGuid, first: 200, last: 300 },
      { number: 3, type: linuxGuid, first: 400, last: 2 ** 60 },
    ]);
    const set = await open(disk);
    expect(set.volumes.map((v) => v.name)).toEqual(['sda2']);
    expect(set.warnings.map((w) => w.structure)).toEqual(['GPT entry 1', 'GPT entry 3']);
  });

  it('cuts a partition at the end of a truncated disk', async () => {
    const set = await open(make().slice(0, 100_000));
    expect(shape(set)).toEqual([`sda1 32768+32768 ${efiGuid}`, `sda3 65536+${100_000 - 65_536} ${linuxGuid}`]);
    expect(set.warnings.map((w) => w.structure)).toEqual(['Backup GPT header', 'Partition', 'Partition']);
  });
});

describe('several disks', () => {
  it('keep their own names and warnings, and one that fails does not hide the others', async () => {
    const table = new Uint8Array(MiB);
    writeMbr(table, [{ type: 0x83, start: 64, sectors: 100 }]);
    const failing: ByteSource = {
      name: 'broken',
      size: MiB,
      read: async () => {
        throw new IoError('broken cannot be read', { position: 0 });
      },
      close: async () => {},
    };
    const set = await openVolumes([
      { index: 0, source: failing },
      { index: 2, source: new MemorySource(table) },
      { index: 1, source: new MemorySource(new Uint8Array(1000)) },
    ]);
    expect(set.volumes.map((v) => v.name)).toEqual(['sdc1', 'sdb']);
    expect(set.warnings).toMatchObject([{ disk: 0, structure: 'Disk', position: 0 }]);
  });

  it('lets an error that is none of ours through', async () => {
    const buggy: ByteSource = {
      name: 'buggy',
      size: MiB,
      read: async () => {
        throw new TypeError('a bug');
      },
      close: async () => {},
    };
    await expect(openVolumes([{ index: 0, source: buggy }])).rejects.toBeInstanceOf(TypeError);
  });
});

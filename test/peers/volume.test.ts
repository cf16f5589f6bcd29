/** Partition tables that sfdisk and sgdisk made, and real ones of the corpus, compared with what sfdisk reads in them. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { type ByteSource, MemorySource } from '../../main/engine/storage/byte-source.ts';
import { LocalFile } from '../../main/engine/storage/local-file.ts';
import type { VolumeSet } from '../../main/engine/volume/volume.ts';
import { openVolumes } from '../../main/engine/volume/volumes.ts';
import { corpus } from '../support/corpus.ts';
import { signGptHeader } from '../support/partition-builder.ts';
import { describePeers, missingLoopMounts, run } from '../support/peers.ts';
import { leavesUntouched, scratchFolder } from '../support/scratch.ts';

const MiB = 1 << 20;

interface Row {
  readonly number: number;
  readonly start: number;
  readonly size: number;
  readonly type: string;
  readonly bootable: boolean;
  readonly name?: string;
  readonly uuid?: string;
}

/** sfdisk's view, without the extended partitions, which hold no file system. */
function sfdiskRows(path: string): Row[] {
  const { partitiontable: table } = JSON.parse(run('sfdisk', ['--json', path])) as {
    partitiontable: {
      label: string;
      sectorsize: number;
      partitions?: {
        node: string;
        start: number;
        size: number;
        type: string;
        bootable?: boolean;
        attrs?: string;
        name?: string;
        uuid?: string;
      }[];
    };
  };
  const gpt = table.label === 'gpt';
  return (table.partitions ?? [])
    .filter((p) => gpt || !['5', 'f', '85', 'ee'].includes(p.type))
    .map((p) => ({
      number: Number(p.node.slice(path.length).replace(/^p/, '')),
      start: p.start * table.sectorsize,
      size: p.size * table.sectorsize,
      type: gpt ? p.type : `0x${p.type.padStart(2, '0')}`,
      bootable: p.bootable ?? p.attrs?.includes('LegacyBIOSBootable') ?? false,
      ...(p.name === undefined ? {} : { name: p.name }),
      ...(p.uuid === undefined ? {} : { uuid: p.uuid.toLowerCase() }),
    }));
}

function ourRows(set: VolumeSet): Row[] {
  return set.volumes.map((v) => ({
    number: Number(/\d+$/.exec(v.name)?.[0]),
    start: v.start,
    size: v.size,
    type: v.typeCode,
    bootable: v.bootable,
    ...(v.label === undefined ? {} : { name: v.label }),
    ...(v.scheme !== 'gpt' || v.uuid === undefined ? {} : { uuid: v.uuid }),
  }));
}

const byNumber = (rows: Row[]): Row[] => [...rows].sort((a, b) => a.number - b.number);

async function ours(path: string): Promise<VolumeSet> {
  const source = LocalFile.open(path);
  try {
    return await openVolumes([{ index: 0, source }]);
  } finally {
    await source.close();
  }
}

describePeers('tables of sfdisk and sgdisk', { peers: ['sfdisk', 'sgdisk'] }, () => {
  const folder = scratchFolder('volume');
  const disk = (name: string, size: number): string => {
    // A folder for each, since the proof that nothing was changed hashes the whole folder.
    const path = join(mkdtempSync(join(folder.path, 'disk-')), name);
    writeFileSync(path, '');
    truncateSync(path, size);
    return path;
  };
  const agree = async (path: string): Promise<VolumeSet> => {
    const set = await leavesUntouched(dirname(path), () => ours(path));
    expect(byNumber(ourRows(set))).toEqual(byNumber(sfdiskRows(path)));
    return set;
  };

  it('MBR with an extended partition in the middle', async () => {
    const path = disk('extended.img', 64 * MiB);
    const script = [
      'label: dos',
      'label-id: 0x12345678',
      '2048,2048,83,*',
      '4096,100000,5',
      '104448,2048,82',
      '106496,,fd',
      '6144,2048,83',
      '10240,4096,8e',
      '30000,5000,7',
    ];
    run('sfdisk', ['-q', path], { input: `${script.join('\n')}\n` });
    const set = await agree(path);
    expect(set.warnings).toEqual([]);
    expect(set.volumes.map((v) => v.name)).toEqual(['sda1', 'sda3', 'sda4', 'sda5', 'sda6', 'sda7']);
    expect(set.volumes[4]!.uuid).toBe('12345678-06');
  });

  it('MBR with 50 logical partitions, some deleted again', async () => {
    const path = disk('many.img', 128 * MiB);
    const script = ['label: dos', '2048,,f', ...Array.from({ length: 50 }, () => ',2048,83')];
    run('sfdisk', ['-q', path], { input: `${script.join('\n')}\n` });
    expect((await agree(path)).volumes).toHaveLength(50);
    run('sfdisk', ['-q', '--delete', path, '7', '20', '33']);
    expect((await agree(path)).volumes).toHaveLength(47);
  });

  it('GPT with gaps, names, types and attributes', async () => {
    const path = disk('gpt.img', 48 * MiB);
    run('sgdisk', ['-n', '1:2048:+10M', '-t', '1:ef00', '-c', '1:EFI System Partition', path]);
    run('sgdisk', ['-n', '5:0:+20M', '-t', '5:8300', '-c', '5:корень 🌱', '-A', '5:set:2', path]);
    run('sgdisk', ['-n', '128:0:+5M', '-t', '128:8e00', '-n', '7:0:0', '-t', '7:8200', path]);
    const set = await agree(path);
    expect(set.warnings).toEqual([]);
    expect(set.volumes.map((v) => v.type)).toEqual(['EFI System', 'Linux filesystem', 'Linux swap', 'Linux LVM']);
  });

  it('GPT with 256 entries and a moved array', async () => {
    const path = disk('large.img', 64 * MiB);
    run('sgdisk', ['-S', '256', '-n', '200:0:+1M', '-n', '1:0:+1M', path]);
    expect((await agree(path)).volumes.map((v) => v.name)).toEqual(['sda1', 'sda200']);
  });

  it('GPT whose primary is damaged: sfdisk and we use the same backup', async () => {
    const path = disk('damaged.img', 64 * MiB);
    run('sgdisk', ['-n', '1:0:+8M', '-c', '1:one', '-n', '2:0:0', '-c', '2:two', path]);
    const sound = ourRows(await ours(path));
    for (const at of [512, 560, 1024 + 33]) {
      const bytes = readFileSync(path);
      bytes[at]! ^= 0xff;
      const damaged = disk(`damaged-${at}.img`, bytes.length);
      writeFileSync(damaged, bytes);
      const set = await agree(damaged);
      expect(ourRows(set)).toEqual(sound);
      expect(set.warnings.map((w) => w.message).join()).toMatch(/start of sda is damaged.*backup table/);
    }
  });

  it('GPT with a damaged backup, and one whose disk was grown', async () => {
    const path = disk('backup.img', 64 * MiB);
    run('sgdisk', ['-n', '1:0:+8M', path]);
    const bytes = readFileSync(path);
    bytes[bytes.length - 512 + 60]! ^= 1;
    writeFileSync(path, bytes);
    expect((await agree(path)).warnings).toMatchObject([{ structure: 'Backup GPT header checksum' }]);

    const grown = disk('grown.img', 64 * MiB);
    run('sgdisk', ['-n', '1:0:+8M', grown]);
    truncateSync(grown, 80 * MiB);
    expect((await agree(grown)).volumes).toHaveLength(1);
    const wiped = readFileSync(grown);
    wiped[512 + 16]! ^= 1;
    const set = await openVolumes([{ index: 0, source: new MemorySource(new Uint8Array(wiped)) }]);
    expect(set.volumes).toHaveLength(1);
  });

  it('hybrid MBR', async () => {
    const path = disk('hybrid.img', 64 * MiB);
    run('sgdisk', ['-n', '1:0:+8M', '-n', '2:0:+8M', '-n', '3:0:0', path]);
    run('sgdisk', ['-h', '1:2', path]);
    const set = await leavesUntouched(dirname(path), () => ours(path));
    expect(set.volumes.map((v) => [v.name, v.scheme])).toEqual([
      ['sda1', 'gpt'],
      ['sda2', 'gpt'],
      ['sda3', 'gpt'],
    ]);
    const printed = run('sgdisk', ['-p', path]);
    for (const volume of set.volumes) {
      const number = volume.name.slice(3);
      const row = new RegExp(`^\\s*${number}\\s+(\\d+)\\s+(\\d+)`, 'm').exec(printed)!;
      expect([volume.start / 512, (volume.start + volume.size) / 512 - 1]).toEqual([Number(row[1]), Number(row[2])]);
    }
    expect(set.warnings).toMatchObject([{ structure: 'Hybrid MBR' }]);
  });

  it('an empty table is a disk without one', async () => {
    const path = disk('empty.img', 8 * MiB);
    run('sfdisk', ['-q', path], { input: 'label: dos\n' });
    expect((await ours(path)).volumes.map((v) => v.name)).toEqual(['sda']);
  });
});

describePeers('a table of 4096-byte sectors', { peers: ['sgdisk', 'losetup'], reasons: [missingLoopMounts()] }, () => {
  const folder = scratchFolder('volume-4k');
  it('GPT', async () => {
    const path = join(folder.path, '4k.img');
    writeFileSync(path, '');
    truncateSync(path, 128 * MiB);
    const loop = run('losetup', ['--find', '--show', '--sector-size', '4096', path]).trim();
    let printed: string;
    try {
      run('sgdisk', ['-n', '1:0:+16M', '-c', '1:first', '-n', '4:0:0', loop]);
      printed = run('sgdisk', ['-p', loop]);
    } finally {
      run('losetup', ['--detach', loop]);
    }
    const set = await leavesUntouched(dirname(path), () => ours(path));
    expect(set.warnings).toEqual([]);
    expect(set.volumes.map((v) => v.name)).toEqual(['sda1', 'sda4']);
    for (const volume of set.volumes) {
      const row = new RegExp(`^\\s*${volume.name.slice(3)}\\s+(\\d+)\\s+(\\d+)`, 'm').exec(printed)!;
      expect([volume.start / 4096, (volume.start + volume.size) / 4096 - 1]).toEqual([Number(row[1]), Number(row[2])]);
    }
  });
});

const missingXz = existsSync('/usr/bin/xz') ? undefined : 'xz is not installed (Debian package xz-utils)';
const inCorpus = existsSync(corpus) ? describe : describe.skip;

/** A disk of which only the first bytes were kept: zeros stand for the rest, as far as the table needs it. */
function grown(head: Uint8Array, size: number): ByteSource {
  return {
    name: 'grown',
    size,
    async read(offset, length) {
      const bytes = new Uint8Array(length);
      bytes.set(head.subarray(Math.min(offset, head.length), Math.min(offset + length, head.length)));
      return bytes;
    },
    async close() {},
  };
}

inCorpus(`real tables${existsSync(corpus) ? '' : ' (skipped: ../shared/corpus is not here)'}`, () => {
  const folder = (): string => join(corpus, 'fox-it+dissect.volume/tests/data');
  const head = (name: string): Uint8Array => new Uint8Array(readFileSync(join(folder(), name)));
  const read = (bytes: Uint8Array, size: number): Promise<VolumeSet> =>
    openVolumes([{ index: 0, source: grown(bytes, size) }]);
  const rows = (set: VolumeSet, sector = 512): unknown[] =>
    set.volumes.map((v) => [v.name, v.start / sector, v.size / sector, v.type, v.label]);

  // Numbers below are those in the tables' own bytes, as INDEX.md and a hex dump show them.
  it('reads GPT tables of macOS, ESXi and gdisk', async () => {
    await leavesUntouched(folder(), async () => {
      const esxi = await read(head('gpt_esxi.bin'), (0x11bfffff + 1) * 512);
      expect(rows(esxi)).toEqual([
        ['sda1', 64, 204_800, 'EFI System', 'BOOT'],
        ['sda5', 0x33000, 0x832800 - 0x33000, 'Microsoft basic data', 'BOOTBANK1'],
        ['sda6', 0x833000, 0x1032800 - 0x833000, 'Microsoft basic data', 'BOOTBANK2'],
        ['sda7', 0x1033000, 0x10000000 - 0x1033000, 'VMware VMFS-L (OSDATA)', 'OSDATA'],
        ['sda8', 0x10000800, 0x11bfffdf - 0x10000800, 'VMware VMFS', 'datastore1'],
      ]);
      // The end of the disk was not kept, so its backup table is missing; nothing else is wrong.
      expect(esxi.warnings.map((w) => w.structure)).toEqual(['Backup GPT header signature']);
      // The array of this one was edited without a new checksum: refused as it is, read once it is signed.
      const edited = head('gpt_no_name_xff.bin');
      const refused = await read(edited, 0x2800000 * 512);
      expect(refused.volumes.map((v) => v.name)).toEqual(['sda']);
      expect(refused.warnings[0]!.structure).toBe('GPT entry array checksum');
      const view = new DataView(edited.buffer, edited.byteOffset);
      view.setUint32(512 + 88, crc32(edited.subarray(1024, 1024 + 128 * 128)), true);
      signGptHeader(edited, 512);
      const noName = await read(edited, 0x2800000 * 512);
      expect(rows(noName)).toEqual([['sda1', 2048, 0x27ff800 - 2048 + 1, 'VMware VMFS', undefined]]);
      const hybrid = await read(head('gpt_hybrid.bin'), 4096 * 512);
      expect(rows(hybrid)).toEqual([
        ['sda1', 2048, 1025, 'Linux filesystem', 'Linux filesystem'],
        ['sda2', 34, 2014, 'Linux filesystem', 'Linux filesystem'],
        ['sda3', 3073, 990, 'Linux filesystem', 'Linux filesystem'],
      ]);
      expect(hybrid.warnings.map((w) => w.structure)).toContain('Hybrid MBR');
      const fourK = await read(head('gpt_4k.bin'), (0x105f + 1) * 4096);
      expect(rows(fourK, 4096)).toEqual([
        ['sda1', 256, 257, 'Linux filesystem', 'Linux filesystem'],
        ['sda2', 768, 257, 'Linux filesystem', 'Linux filesystem'],
        ['sda3', 1280, 0x105a - 1280 + 1, 'Linux filesystem', 'Linux filesystem'],
      ]);
      const mac = await read(head('gpt.bin'), 400_000_000 * 512);
      expect(mac.volumes.length).toBeGreaterThan(1);
      expect(mac.volumes.every((v) => v.scheme === 'gpt')).toBe(true);
    });
  });

  it('reads MBR tables, and names tables it does not read', async () => {
    await leavesUntouched(folder(), async () => {
      const mbr = await read(head('mbr.bin'), 200_000_000 * 512);
      expect(rows(mbr)).toEqual([
        ['sda1', 2048, 1_024_000, 'NTFS or exFAT', undefined],
        ['sda2', 1_026_048, 124_801_024, 'NTFS or exFAT', undefined],
      ]);
      expect(mbr.volumes.map((v) => v.bootable)).toEqual([true, false]);
      for (const [name, table] of [
        ['apm.bin', 'Apple partition map'],
        ['bsd.bin', 'BSD disklabel'],
      ] as const) {
        const set = await read(head(name), 1 << 20);
        expect(set.volumes.map((v) => v.name)).toEqual(['sda']);
        expect(set.warnings.map((w) => w.structure)).toEqual([table]);
      }
    });
    const dfvfs = join(corpus, 'log2timeline+dfvfs/test_data');
    for (const name of ['mbr.raw', 'tsk_volume_system.raw']) {
      const set = await ours(join(dfvfs, name));
      expect(rows(set)).toEqual([
        ['sda1', 1, 350, 'Linux filesystem', undefined],
        ['sda5', 352, 2528, 'Linux filesystem', undefined],
      ]);
      expect(set.warnings).toEqual([]);
    }
  });

  it('does not mistake file systems for tables', async () => {
    for (const name of [
      'dsoprea+go-exfat/test/assets/test.exfat',
      'rafalh+rust-fatfs/resources/fat12.img',
      'rafalh+rust-fatfs/resources/fat16.img',
      'log2timeline+dfvfs/test_data/bdetogo.raw',
      'log2timeline+dfvfs/test_data/ext2.splitraw.000',
      'log2timeline+dfvfs/test_data/iso9660.raw',
    ]) {
      const set = await ours(join(corpus, name));
      expect(set.volumes.map((v) => v.name)).toEqual(['sda']);
      expect(set.warnings).toEqual([]);
    }
  });

  describePeers('compressed tables of util-linux', { reasons: [missingXz] }, () => {
    const unpack = (name: string): Uint8Array => {
      const path = join(corpus, 'util-linux+util-linux/tests/ts/blkid', name);
      return new Uint8Array(execFileSync('xz', ['-dc', path], { maxBuffer: 1 << 30 }));
    };
    const whole = (bytes: Uint8Array): Promise<VolumeSet> =>
      openVolumes([{ index: 0, source: new MemorySource(bytes) }]);

    it('agree with what blkid is expected to say', async () => {
      const gpt = await whole(unpack('images-pt/gpt.img.xz'));
      const expected = readFileSync(join(corpus, 'util-linux+util-linux/tests/expected/blkid/lowprobe-pt-gpt'), 'utf8');
      const lines = [...expected.matchAll(/^#(\d+):\s+(\d+)\s+(\d+)\s+\S+ name='(.*?)' uuid='(.*?)' type='(.*?)'/gm)];
      expect(gpt.volumes.map((v) => [v.name, v.start / 512, v.size / 512, v.label, v.uuid, v.typeCode])).toEqual(
        lines.map(([, n, start, size, name, uuid, type]) => [
          `sda${n}`,
          Number(start),
          Number(size),
          name,
          uuid,
          type!.toUpperCase(),
        ]),
      );
      expect(gpt.volumes).toHaveLength(5);
      expect(gpt.warnings).toEqual([]);

      const bsd = await whole(unpack('images-pt/dos+bsd.img.xz'));
      expect(rows(bsd)).toEqual([
        ['sda1', 32, 7648, 'Linux filesystem', undefined],
        ['sda2', 7680, 8704, 'FreeBSD', undefined],
      ]);
      expect(bsd.volumes.map((v) => v.uuid)).toEqual(['8f8378c0-01', '8f8378c0-02']);
      expect(bsd.warnings).toMatchObject([{ structure: 'BSD disklabel' }]);
    });

    it('leave FAT, NTFS and exFAT images without a table', async () => {
      for (const name of [
        'fat',
        'fat16_noheads',
        'fat32_label_64MB',
        'fat32_xp_none',
        'small-fat32',
        'ntfs',
        'exfat',
      ]) {
        const set = await whole(unpack(`images-fs/${name}.img.xz`));
        expect({ name, volumes: set.volumes.map((v) => v.name) }).toEqual({ name, volumes: ['sda'] });
      }
    });
  });
});

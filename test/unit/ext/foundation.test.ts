/** What the file systems share: CRC-32C, the registry, and the naming of what is recognised but not read. */
import { describe, expect, it } from 'vitest';
import { crc32c, crc32cUpdate } from '../../../main/engine/crc32c.ts';
import { UnsupportedError } from '../../../main/engine/errors.ts';
import { crc16 } from '../../../main/engine/filesystem/ext/checksum.ts';
import { fileSystemTypes, openFileSystem } from '../../../main/engine/filesystem/file-systems.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { golden } from './golden.ts';

describe('checksums', () => {
  it('match the published values', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
    // RFC 3720 B.4
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(crc16(0, Buffer.from('123456789'))).toBe(0xbb3d);
  });
  it('can be fed in pieces of any length', () => {
    const bytes = Uint8Array.from({ length: 1000 }, (_, i) => (i * 7) & 0xff);
    const whole = crc32cUpdate(0xffffffff, bytes);
    for (const cut of [0, 1, 7, 8, 9, 500, 999, 1000]) {
      expect(crc32cUpdate(crc32cUpdate(0xffffffff, bytes, 0, cut), bytes, cut)).toBe(whole);
    }
  });
});

describe('the registry', () => {
  it('probes ext first, then FAT', () => {
    expect(fileSystemTypes.map((type) => type.name)).toEqual(['ext', 'fat']);
  });
  it('opens what it reads', async () => {
    const fs = await openFileSystem(new MemorySource(golden('ext4-1k'), 'sda1'));
    expect(fs.type).toBe('ext4');
  });
  it('finds an ext file system whose beginning was overwritten', async () => {
    const bytes = golden('ext4-two-groups');
    const fs = await openFileSystem(new MemorySource(bytes.fill(0, 0, 2048), 'sda1'));
    expect(fs.state.condition).toBe('errors');
    expect((await fs.entry('/etc/hostname')).kind).toBe('file');
  });

  const text = (s: string): number[] => [...Buffer.from(s, 'latin1')];
  it.each([
    ['XFS', 0, text('XFSB')],
    ['Btrfs', 0x10040, text('_BHRfS_M')],
    ['NTFS', 3, text('NTFS    ')],
    ['exFAT', 3, text('EXFAT   ')],
    ['ReFS', 3, text('ReFS\0\0\0\0')],
    ['LUKS encryption', 0, [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe, 0, 2]],
    ['BitLocker encryption', 3, text('-FVE-FS-')],
    [
      'BitLocker To Go encryption',
      0x1a8,
      [0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01],
    ],
    ['LVM2 physical volume', 536, text('LVM2 001')],
    ['Linux swap', 4086, text('SWAPSPACE2')],
    ['Linux swap (with a hibernated system)', 4086, text('S1SUSPEND')],
    ['md RAID member', 4096, [0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]],
    ['ISO 9660', 0x8001, text('CD001')],
    ['squashfs', 0, text('hsqs')],
    ['HFS+', 1024, text('H+')],
    ['APFS', 32, text('NXSB')],
    ['F2FS', 1024, [0x10, 0x20, 0xf5, 0xf2]],
    ['JFS', 0x8000, text('JFS1')],
    ['ReiserFS', 0x10034, text('ReIsEr2Fs')],
    ['ZFS', (128 << 10) + 4096, [0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]],
    ['VMFS', 1 << 20, [0x0d, 0xd0, 0x01, 0xc0]],
  ])('names %s', async (name, at, magic) => {
    const bytes = new Uint8Array(2 << 20);
    bytes.set(magic, at);
    const error = await openFileSystem(new MemorySource(bytes, 'sda1')).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(UnsupportedError);
    expect((error as UnsupportedError).details).toMatchObject({ feature: name, source: 'sda1', content: 'recognised' });
  });
  it.each([0, 100, 1 << 20])('says of %d bytes of zeros that the volume is empty', async (size) => {
    await expect(openFileSystem(new MemorySource(new Uint8Array(size), 'sdb'))).rejects.toMatchObject({
      kind: 'unsupported',
      details: { content: 'empty' },
    });
  });
  it('says that it does not know what it does not know', async () => {
    const bytes = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i * 2654435761) >>> 24);
    await expect(openFileSystem(new MemorySource(bytes, 'sdb'))).rejects.toMatchObject({
      details: { content: 'unknown' },
    });
  });
});

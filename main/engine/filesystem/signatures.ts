/**
 * Contents of a volume that are recognised by name although no reader for them exists here (yet), so that a person is told
 * what a volume is instead of that it is "unknown". Positions and magics: libblkid's superblock probes
 * (https://github.com/util-linux/util-linux/tree/master/libblkid/src/superblocks) and the formats' own specifications.
 */
import type { ByteSource } from '../storage/byte-source.ts';

interface Signature {
  readonly name: string;
  /** Any of these positions. */
  readonly at: readonly number[];
  readonly bytes: Uint8Array;
}

const ascii = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'latin1'));
const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
const sign = (name: string, at: number | readonly number[], bytes: Uint8Array): Signature => ({
  name,
  at: typeof at === 'number' ? [at] : at,
  bytes,
});

/** Where the last ten bytes of a swap header lie, for every page size Linux knows. */
const swapMagics = [4086, 8182, 16374, 32758, 65526];

/** All lie within the prefix that a probe reads (128 KiB). More specific ones first. */
const signatures: readonly Signature[] = [
  sign('LUKS encryption', 0, hex('4c 55 4b 53 ba be')),
  sign(
    'LUKS encryption (its second header; the first is damaged)',
    [0x4000, 0x8000, 0x10000],
    hex('53 4b 55 4c ba be'),
  ),
  sign('BitLocker encryption', 3, ascii('-FVE-FS-')),
  sign('LVM2 physical volume', [24, 536, 1048, 1560], ascii('LVM2 001')),
  sign('md RAID member', [0, 4096], hex('fc 4e 2b a9 01 00 00 00')),
  sign('bcachefs', 4096 + 24, hex('c6 85 73 f6 66 ce 90 a9 d9 6a 60 cf 80 3d f7 ef')),
  sign('bcachefs', 4096 + 24, hex('c6 85 73 f6 4e 1a 45 ca 82 65 f5 7f 48 ba 6d 81')),
  sign('VDO volume', 0, ascii('dmvdo001')),
  sign('Stratis block device', [512 + 4, 9 * 512 + 4], ascii('!Stra0tis\x86\xff\x02^\x41rh')),
  sign('Ceph BlueStore', 0, ascii('bluestore block device')),
  sign('XFS', 0, ascii('XFSB')),
  sign('Btrfs', 0x10040, ascii('_BHRfS_M')),
  sign('NTFS', 3, ascii('NTFS    ')),
  sign('exFAT', 3, ascii('EXFAT   ')),
  sign('ReFS', 3, ascii('ReFS\0\0\0\0')),
  sign('squashfs', 0, ascii('hsqs')),
  sign('squashfs', 0, ascii('sqsh')),
  sign('cramfs', 0, hex('45 3d cd 28')),
  sign('romfs', 0, ascii('-rom1fs-')),
  sign('EROFS', 1024, hex('e2 e1 f5 e0')),
  sign('F2FS', 1024, hex('10 20 f5 f2')),
  sign('APFS', 32, ascii('NXSB')),
  sign('HFS+', 1024, ascii('H+')),
  sign('HFS+', 1024, ascii('HX')),
  sign('HFS', 1024, ascii('BD')),
  sign('JFS', 0x8000, ascii('JFS1')),
  sign('ReiserFS', [0x10000 + 52, 0x2000 + 52], ascii('ReIsErFs')),
  sign('ReiserFS', [0x10000 + 52, 0x2000 + 52], ascii('ReIsEr2Fs')),
  sign('ReiserFS', [0x10000 + 52, 0x2000 + 52], ascii('ReIsEr3Fs')),
  sign('Reiser4', 0x10000, ascii('ReIsEr4')),
  sign('NILFS2', 1024 + 6, hex('34 34')),
  sign('GFS2', 0x10000, hex('01 16 19 70')),
  sign('OCFS2', [1024, 2048, 4096, 8192], ascii('OCFSV2')),
  sign('UFS2', 0x10000 + 1372, hex('19 01 54 19')),
  sign('UFS1', 0x2000 + 1372, hex('54 19 01 00')),
  sign('HPFS', 0x2000, hex('49 e8 95 f9')),
  sign('ISO 9660', 0x8001, ascii('CD001')),
  sign('UDF', 0x8001, ascii('BEA01')),
  sign('Linux swap (with a hibernated system)', swapMagics, ascii('S1SUSPEND')),
  sign('Linux swap (with a hibernated system)', swapMagics, ascii('S2SUSPEND')),
  sign('Linux swap (with a hibernated system)', swapMagics, ascii('ULSUSPEND')),
  sign('Linux swap', swapMagics, ascii('SWAPSPACE2')),
  sign('Linux swap', swapMagics, ascii('SWAP-SPACE')),
];

/** BitLocker To Go dresses as FAT32: its identifier stands where boot code would, so it is looked for before FAT is. */
const bitLockerToGo = sign('BitLocker To Go encryption', 0x1a8, hex('3b d6 67 49 29 2e d8 4a 83 99 f6 a3 39 e3 d0 01'));

function matches(signature: Signature, bytes: Uint8Array, base = 0): boolean {
  return signature.at.some((position) => {
    const start = position - base;
    if (start < 0 || start + signature.bytes.length > bytes.length) return false;
    for (let i = 0; i < signature.bytes.length; i++) if (bytes[start + i] !== signature.bytes[i]) return false;
    return true;
  });
}

/** What would be mistaken for a file system that is read here, or undefined. */
export function disguisedContent(prefix: Uint8Array): string | undefined {
  return matches(bitLockerToGo, prefix) ? bitLockerToGo.name : undefined;
}

/** The name of what a volume's first bytes show, or undefined. */
export function recognisedByPrefix(prefix: Uint8Array): string | undefined {
  return signatures.find((signature) => matches(signature, prefix))?.name;
}

/** The name of what only shows further inside a volume or at its end (ZFS, VMFS, md 0.90 and 1.0), or undefined. */
export async function recognisedElsewhere(volume: ByteSource): Promise<string | undefined> {
  const { size } = volume;
  // ZFS: uberblocks fill the second half of each 256 KiB label, in either byte order (on-disk format, section 1.2.5).
  const ring = 128 << 10;
  if (size >= 2 * ring) {
    const bytes = await volume.read(ring, ring);
    const little = hex('0c b1 ba 00 00 00 00 00');
    const big = hex('00 00 00 00 00 ba b1 0c');
    for (let at = 0; at < ring; at += 1024) {
      if (matches(sign('', at, little), bytes) || matches(sign('', at, big), bytes)) return 'ZFS';
    }
  }
  for (const at of [1 << 20, 2 << 20]) {
    if (at + 4 <= size && matches(sign('', 0, hex('0d d0 01 c0')), await volume.read(at, 4))) return 'VMFS';
  }
  // md: 0.90 lies in the last whole 64 KiB, 1.0 in the last whole 8 KiB minus 8 KiB (md(4)).
  const ends = [Math.floor(size / 65536) * 65536 - 65536, Math.floor((size - 8192) / 4096) * 4096];
  for (const at of ends) {
    if (at < 0 || at + 4 > size) continue;
    const magic = await volume.read(at, 4);
    if (matches(sign('', 0, hex('fc 4e 2b a9')), magic) || matches(sign('', 0, hex('a9 2b 4e fc')), magic)) {
      return 'md RAID member';
    }
  }
  return undefined;
}

/**
 * Tells a file system's boot sector from a partition table. Both end in 55 AA, and the bytes where an MBR keeps its four
 * entries hold boot code in a FAT, NTFS or exFAT boot sector, so a disk without a table must be recognised by what is there.
 *
 * Sources: Microsoft "FAT: General Overview of On-Disk Format" 1.03; MS exFAT specification 3.1; NTFS boot sector as Linux
 * fs/ntfs3 checks it.
 */
import { Fields } from '../binary.ts';

const powerOfTwo = (n: number): boolean => n > 0 && (n & (n - 1)) === 0;

/** Name of the file system whose boot sector these 512 bytes are, or undefined. Strict: a table's boot code must not pass. */
export function bootSectorOf(sector: Uint8Array): 'FAT' | 'NTFS' | 'exFAT' | undefined {
  if (sector.length < 512) return undefined;
  const f = new Fields(sector.subarray(0, 512), 'Boot sector', '', 0);
  const oem = f.ascii(3, 8);
  if (oem === 'EXFAT   ') return sector.subarray(11, 64).every((byte) => byte === 0) ? 'exFAT' : undefined;
  const sectorSize = f.u16(0x0b);
  if (!powerOfTwo(sectorSize) || sectorSize < 256 || sectorSize > 4096) return undefined;
  if (oem === 'NTFS    ') {
    // What FAT keeps in these fields is zero in NTFS: reserved sectors, FATs, root entries, sectors, sectors per FAT.
    const unused = f.u16(0x0e) === 0 && f.u8(0x10) === 0 && f.u16(0x11) === 0 && f.u16(0x13) === 0 && f.u16(0x16) === 0;
    return unused && f.big64(0x28) > 0n ? 'NTFS' : undefined;
  }
  const jump = f.u8(0) === 0xe9 || (f.u8(0) === 0xeb && f.u8(2) === 0x90);
  const media = f.u8(0x15);
  const fats = f.u8(0x10);
  const fat32 = f.u16(0x16) === 0;
  const sane =
    jump &&
    powerOfTwo(f.u8(0x0d)) &&
    f.u16(0x0e) > 0 &&
    fats >= 1 &&
    fats <= 2 &&
    (media === 0xf0 || media >= 0xf8) &&
    (f.u16(0x13) > 0 || f.u32(0x20) > 0) &&
    (fat32 ? f.u16(0x11) === 0 && f.u32(0x24) > 0 : f.u16(0x11) > 0);
  return sane ? 'FAT' : undefined;
}

/** A partition table of another kind, by its magic: reported by name, since this version does not read it. */
export function foreignTable(head: Uint8Array): { readonly name: string; readonly position: number } | undefined {
  const f = new Fields(head, 'Disk', '', 0);
  const has = (offset: number, ...bytes: number[]): boolean =>
    offset + bytes.length <= head.length && bytes.every((byte, i) => head[offset + i] === byte);
  if (has(0, 0x45, 0x52) && (has(512, 0x50, 0x4d) || has(2048, 0x50, 0x4d) || has(4096, 0x50, 0x4d))) {
    return { name: 'Apple partition map', position: 512 };
  }
  if (bsdLabelAt(head, 512)) return { name: 'BSD disklabel', position: 512 };
  if (bsdLabelAt(head, 64)) return { name: 'BSD disklabel', position: 64 };
  if (has(508, 0xda, 0xbe) && f.length >= 512) {
    let sum = 0;
    for (let at = 0; at < 512; at += 2) sum ^= f.u16(at);
    if (sum === 0) return { name: 'Sun disklabel', position: 0 };
  }
  if (has(0, 0x0b, 0xe5, 0xa9, 0x41)) return { name: 'SGI volume header', position: 0 };
  return undefined;
}

/** True when a BSD disklabel stands at `offset`: its magic 0x82564557 twice, 132 bytes apart. */
export function bsdLabelAt(bytes: Uint8Array, offset: number): boolean {
  if (offset + 136 > bytes.length) return false;
  const f = new Fields(bytes, 'BSD disklabel', '', 0);
  return f.u32(offset) === 0x82564557 && f.u32(offset + 132) === 0x82564557;
}

/**
 * How a FAT volume was left: the flags in the second FAT entry, the state byte of the boot sector, whether the FATs agree,
 * and what the FSInfo sector says is free.
 *
 * Sources: fatgen103, "FAT Data Structure" (ClnShutBitMask, HrdErrBitMask) and "FSInfo"; Linux fs/fat/inode.c
 * (FAT_STATE_DIRTY in the boot sector).
 */
import { Fields } from '../../binary.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import type { FileSystemState } from '../file-system.ts';
import type { FatLayout } from './boot-sector.ts';
import type { FatTable } from './table.ts';

const comparedBytes = 64 * 1024;

/** Reads every sign of the volume's state. `repairs` are sentences about damage met so far; they count as errors. */
export async function readCondition(
  volume: ByteSource,
  layout: FatLayout,
  table: FatTable,
  evidence: string[],
): Promise<FileSystemState['condition']> {
  let dirty = false;
  let errors = evidence.length > 0;
  if (layout.type !== 'fat12') {
    const flags = await table.raw(1);
    const [clean, noError] = layout.type === 'fat16' ? [0x8000, 0x4000] : [0x08000000, 0x04000000];
    if ((flags & clean) === 0) {
      dirty = true;
      evidence.push('FAT entry 1 says that the volume was not cleanly unmounted');
    }
    if ((flags & noError) === 0) {
      errors = true;
      evidence.push('FAT entry 1 says that the disk reported errors');
    }
  }
  if ((layout.stateByte & 1) !== 0) {
    dirty = true;
    evidence.push('The boot sector says that the volume is in use or was not cleanly unmounted');
  }
  if ((layout.stateByte & 2) !== 0) {
    errors = true;
    evidence.push('The boot sector asks for a surface test');
  }
  const media = (await table.raw(0)) & 0xff;
  if (media !== layout.media) {
    evidence.push(
      `FAT entry 0 holds media byte 0x${media.toString(16)}, the boot sector 0x${layout.media.toString(16)}`,
    );
  }
  const difference = await firstDifference(volume, layout);
  if (difference !== undefined) {
    errors = true;
    evidence.push(`FAT 1 and FAT ${difference.copy} differ from byte ${difference.position} of the volume on`);
  }
  return errors ? 'errors' : dirty ? 'dirty' : 'clean';
}

/** Compares the mirrored FATs' first 64 KiB: whole tables reach a gigabyte, and crashes leave their marks at the front too. */
async function firstDifference(
  volume: ByteSource,
  layout: FatLayout,
): Promise<{ copy: number; position: number } | undefined> {
  if (!layout.mirrored || layout.fatCount < 2) return undefined;
  const length = Math.min(comparedBytes, layout.fatSize);
  const first = await volume.read(layout.fatStart, length);
  // Two copies are the rule; a hostile count of 255 must not cost 255 reads.
  for (let copy = 1; copy < Math.min(layout.fatCount, 4); copy++) {
    const position = layout.fatStart + copy * layout.fatSize;
    const other = await volume.read(position, length);
    if (Buffer.compare(first, other) === 0) continue;
    const at = first.findIndex((byte, i) => byte !== other[i]);
    return { copy: copy + 1, position: layout.fatStart + at };
  }
  return undefined;
}

/** Free clusters as the volume's books say: counted in the FAT, on FAT32 as FSInfo keeps them; undefined where it doesn't. */
export async function readFree(volume: ByteSource, layout: FatLayout, table: FatTable): Promise<number | undefined> {
  if (layout.type !== 'fat32') return table.countFree();
  const at = layout.fsInfoAt;
  if (at === undefined || at + 512 > volume.size) return undefined;
  const f = new Fields(await volume.read(at, 512), 'FSInfo', volume.name, at);
  const signed = f.u32(0) === 0x41615252 && f.u32(484) === 0x61417272 && f.u32(508) === 0xaa550000;
  const free = f.u32(488);
  // 0xffffffff is "not known", and a count beyond the volume is none.
  return signed && free <= layout.clusterCount ? free : undefined;
}

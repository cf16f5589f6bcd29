/**
 * The DOS partition table (MBR): four entries in sector 0, and extended partitions that hold a chain of logical ones.
 *
 * Sources: Linux block/partitions/msdos.c (which entries count, numbering from 5, which slots of an extended boot record are
 * believed); UEFI specification 2.10, 5.2.1; https://en.wikipedia.org/wiki/Extended_boot_record.
 * Sectors are taken as 512 bytes: the table itself does not say, and images of disks carry no other hint.
 */
import { Fields } from '../binary.ts';
import { bootSectorOf, bsdLabelAt } from './boot-sector.ts';
import type { DiskView, PartitionRecord, PartitionScheme, SchemeResult } from './partition.ts';
import { gptProtective, isExtended, mbrTypeCode, mbrTypeName } from './partition-types.ts';

const sectorSize = 512;
const tableAt = 446;
const entrySize = 16;
/** Linux's own limit: 256 minors of one disk. */
const lastNumber = 255;
/** Links followed along one chain of extended boot records; a chain of logical partitions needs one a partition. */
const maxLinks = 512;

export interface MbrEntry {
  /** 1 to 4. */
  readonly slot: number;
  readonly status: number;
  readonly type: number;
  /** In sectors; inside an extended boot record relative to it or to the extended partition. */
  readonly start: number;
  readonly sectors: number;
  /** Byte position of the entry on the disk. */
  readonly position: number;
}

/** The four entries of a sector that ends in 55 AA; undefined where it does not. */
export function tableEntries(sector: Uint8Array, position: number, disk: string): MbrEntry[] | undefined {
  if (sector.length < sectorSize || sector[510] !== 0x55 || sector[511] !== 0xaa) return undefined;
  const f = new Fields(sector, 'Partition table', disk, position);
  return [0, 1, 2, 3].map((i) => {
    const at = tableAt + i * entrySize;
    return {
      slot: i + 1,
      status: f.u8(at),
      type: f.u8(at + 4),
      start: f.u32(at + 8),
      sectors: f.u32(at + 12),
      position: position + at,
    };
  });
}

const goodStatus = (entry: MbrEntry): boolean => entry.status === 0 || entry.status === 0x80;

/** An entry that boot code is most unlikely to look like: flags right, a type, a range on the disk that spares sector 0. */
function convincing(entry: MbrEntry, diskSize: number): boolean {
  return (
    goodStatus(entry) && entry.type !== 0 && entry.start > 0 && (entry.start + entry.sectors) * sectorSize <= diskSize
  );
}

function overlap(entries: readonly MbrEntry[]): boolean {
  const sorted = [...entries].sort((a, b) => a.start - b.start);
  return sorted.some((entry, i) => i > 0 && entry.start < sorted[i - 1]!.start + sorted[i - 1]!.sectors);
}

export const mbrScheme: PartitionScheme = {
  name: 'mbr',
  async read(disk: DiskView): Promise<SchemeResult> {
    const used = tableEntries(disk.head, 0, disk.name)?.filter((e) => e.sectors > 0 && e.type !== gptProtective) ?? [];
    if (used.length === 0) return {};
    const boot = bootSectorOf(disk.head);
    if (boot !== undefined) {
      // Boot loaders leave the parameter block of an earlier file system in place, so a flawless table still wins.
      if (!used.every((entry) => convincing(entry, disk.source.size)) || overlap(used)) return {};
      disk.warnings.add(
        'Partition table',
        `Sector 0 of ${disk.name} is both a ${boot} boot sector and a valid partition table; the table was used.`,
        { position: tableAt },
      );
    }
    const believed = used.filter(goodStatus);
    if (believed.length < used.length && !used.some((entry) => convincing(entry, disk.source.size))) {
      const first = used.find((entry) => !goodStatus(entry))!;
      disk.warnings.add(
        'Partition table',
        `Sector 0 of ${disk.name} ends in 55 AA, but its entries are no partition table; the disk is shown as one volume.`,
        { position: first.position, expected: 'status 0x00 or 0x80', found: mbrTypeCode(first.status) },
      );
      return {};
    }
    for (const entry of used) {
      if (goodStatus(entry)) continue;
      disk.warnings.add(
        `Partition table entry ${entry.slot}`,
        `Entry ${entry.slot} of ${disk.name} is damaged and left out.`,
        {
          position: entry.position,
          expected: 'status 0x00 or 0x80',
          found: mbrTypeCode(entry.status),
        },
      );
    }
    return { partitions: await partitionsOf(disk, believed) };
  },
};

async function partitionsOf(disk: DiskView, entries: readonly MbrEntry[]): Promise<PartitionRecord[]> {
  const signature = new Fields(disk.head, 'Partition table', disk.name, 0).u32(440);
  const records: PartitionRecord[] = [];
  const add = (entry: MbrEntry, number: number, startSector: number): void => {
    records.push({
      number,
      start: startSector * sectorSize,
      size: entry.sectors * sectorSize,
      type: mbrTypeName(entry.type),
      typeCode: mbrTypeCode(entry.type),
      bootable: entry.status === 0x80,
      entryAt: entry.position,
      ...(signature === 0 ? {} : { uuid: partitionUuid(signature, number) }),
    });
  };
  for (const entry of entries) {
    if (isExtended(entry.type)) continue;
    add(entry, entry.slot, entry.start);
    await warnOfNested(disk, entry);
  }
  let next = 5;
  for (const extended of entries) {
    if (!isExtended(extended.type)) continue;
    next = await readLogical(disk, extended, next, add);
  }
  return records;
}

/** As Linux makes PARTUUID of an MBR partition: disk signature and number, both hexadecimal. */
function partitionUuid(signature: number, number: number): string {
  return `${signature.toString(16).padStart(8, '0')}-${number.toString(16).padStart(2, '0')}`;
}

async function warnOfNested(disk: DiskView, entry: MbrEntry): Promise<void> {
  if (![0xa5, 0xa6, 0xa9].includes(entry.type)) return;
  const at = entry.start * sectorSize;
  if (at + 1024 > disk.source.size || !bsdLabelAt(await disk.source.read(at, 1024), sectorSize)) return;
  disk.warnings.add('BSD disklabel', `${disk.name}${entry.slot} holds a BSD disklabel, whose slices are not read.`, {
    position: at + sectorSize,
  });
}

/** Follows one chain of extended boot records. @returns the next free number. */
async function readLogical(
  disk: DiskView,
  extended: MbrEntry,
  first: number,
  add: (entry: MbrEntry, number: number, startSector: number) => void,
): Promise<number> {
  const structure = 'Extended boot record';
  const stop = (position: number, expected: string, found: string): void =>
    disk.warnings.add(
      structure,
      `The chain of logical partitions of ${disk.name} ends early: what follows is not shown.`,
      {
        position,
        expected,
        found,
      },
    );
  const end = extended.start + extended.sectors;
  const visited = new Set<number>();
  let next = first;
  let here = extended.start;
  let hereSectors = extended.sectors;
  for (;;) {
    const position = here * sectorSize;
    if (visited.has(here)) {
      stop(position, 'a record not seen before', `a loop to sector ${here}`);
      return next;
    }
    if (visited.size >= maxLinks) {
      stop(position, `at most ${maxLinks} records`, 'more');
      return next;
    }
    visited.add(here);
    if (position + sectorSize > disk.source.size) {
      stop(position, `a sector of the disk (${disk.source.size} bytes)`, `sector ${here}`);
      return next;
    }
    const sector = await disk.source.read(position, sectorSize);
    const entries = tableEntries(sector, position, disk.name);
    if (entries === undefined) {
      const found = `${hexByte(sector[510])} ${hexByte(sector[511])}`;
      stop(position + 510, '55 AA', found);
      return next;
    }
    for (const entry of entries) {
      if (entry.sectors === 0 || isExtended(entry.type)) continue;
      const start = here + entry.start;
      // Slots 3 and 4 are rarely used and often garbage: Linux believes them only when they lie inside both containers.
      const inside =
        entry.start + entry.sectors <= hereSectors && start >= extended.start && start + entry.sectors <= end;
      if (entry.slot > 2 && !inside) continue;
      if (next > lastNumber) {
        stop(entry.position, `at most ${lastNumber} partitions`, 'more');
        return next;
      }
      add(entry, next, start);
      next++;
    }
    const link = entries.find((entry) => entry.sectors > 0 && isExtended(entry.type));
    if (link === undefined) return next;
    here = extended.start + link.start;
    hereSectors = link.sectors;
  }
}

const hexByte = (byte: number | undefined): string => (byte ?? 0).toString(16).toUpperCase().padStart(2, '0');

/**
 * The volumes of a point: every disk's partitions, or the disk itself where it has no table.
 *
 * A damaged table never hides the rest: what could be read is given, and a warning says what was damaged and what was used.
 */
import { CorruptError, IoError } from '../errors.ts';
import type { ByteSource } from '../storage/byte-source.ts';
import { foreignTable } from './boot-sector.ts';
import { gptScheme } from './gpt.ts';
import { mbrScheme } from './mbr.ts';
import {
  type DiskView,
  diskName,
  headBytes,
  Partition,
  type PartitionRecord,
  type PartitionScheme,
  Warnings,
} from './partition.ts';
import type { Volume, VolumeSet } from './volume.ts';

/** Partition schemes in probe order. GPT first, because a disk that has one carries an MBR too. */
export const partitionSchemes: readonly PartitionScheme[] = [gptScheme, mbrScheme];

/**
 * Finds the volumes of the given disks; `index` decides a disk's name (0 is `sda`). Volumes read through the disks' sources,
 * which stay the caller's to close.
 *
 * Damage and failed reads become warnings of their disk, so that one bad disk does not hide the others.
 */
export async function openVolumes(
  disks: readonly { readonly index: number; readonly source: ByteSource }[],
): Promise<VolumeSet> {
  const sets = await Promise.all(disks.map((disk) => volumesOf(disk.index, disk.source)));
  return { volumes: sets.flatMap((set) => set.volumes), warnings: sets.flatMap((set) => set.warnings) };
}

async function volumesOf(index: number, source: ByteSource): Promise<VolumeSet> {
  const warnings = new Warnings(index);
  const name = diskName(index);
  try {
    const head = await source.read(0, Math.min(headBytes, source.size));
    const volumes = await readTables({ index, name, source, head, warnings });
    return { volumes, warnings: warnings.all() };
  } catch (error) {
    if (!(error instanceof CorruptError || error instanceof IoError)) throw error;
    const position = typeof error.details.position === 'number' ? { position: error.details.position } : {};
    warnings.add('Disk', `${name} cannot be searched for volumes: ${error.message}`, position);
    return { volumes: [], warnings: warnings.all() };
  }
}

async function readTables(disk: DiskView): Promise<Volume[]> {
  for (const scheme of partitionSchemes) {
    const { partitions } = await scheme.read(disk);
    if (partitions === undefined) continue;
    warnOfOverlaps(disk, partitions);
    return partitions.flatMap((record) => place(disk, scheme.name, record) ?? []);
  }
  const foreign = foreignTable(disk.head);
  if (foreign !== undefined) {
    disk.warnings.add(
      foreign.name,
      `${disk.name} has a partition table of a kind that is not read (${foreign.name}); the disk is shown as one volume.`,
      { position: foreign.position },
    );
  }
  const whole = { start: 0, size: disk.source.size, type: 'Whole disk', typeCode: '', bootable: false };
  return [new Partition(disk, disk.name, 'none', whole)];
}

/** A record as a volume of the disk: cut at the disk's end, undefined when it starts behind it. Either is warned of. */
function place(disk: DiskView, scheme: 'gpt' | 'mbr', record: PartitionRecord): Volume | undefined {
  const name = `${disk.name}${record.number}`;
  const room = disk.source.size - record.start;
  if (room <= 0) {
    disk.warnings.add('Partition', `${name} starts behind the end of the disk and is left out.`, {
      position: record.entryAt,
      expected: `a start below ${disk.source.size}`,
      found: record.start,
    });
    return undefined;
  }
  if (record.size <= room) return new Partition(disk, name, scheme, record);
  disk.warnings.add('Partition', `${name} reaches beyond the end of the disk; what is there of it is shown.`, {
    position: record.entryAt,
    expected: `an end of at most ${disk.source.size}`,
    found: record.start + record.size,
  });
  return new Partition(disk, name, scheme, { ...record, size: room });
}

function warnOfOverlaps(disk: DiskView, records: readonly PartitionRecord[]): void {
  const sorted = [...records].sort((a, b) => a.start - b.start || a.number - b.number);
  let widest: PartitionRecord | undefined;
  for (const record of sorted) {
    if (widest !== undefined && record.start < widest.start + widest.size) {
      disk.warnings.add(
        'Partition table',
        `${disk.name}${widest.number} and ${disk.name}${record.number} overlap from byte ${record.start}.`,
        { position: record.entryAt },
      );
    }
    if (widest === undefined || record.start + record.size > widest.start + widest.size) widest = record;
  }
}

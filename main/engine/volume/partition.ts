/**
 * What every partition scheme shares: the disk as a scheme sees it, the record a scheme makes of one partition, the volume
 * that comes of it, and the warnings met on the way.
 */
import { type ByteSource, checkRange, Window } from '../storage/byte-source.ts';
import type { Volume, VolumeRun, VolumeWarning } from './volume.ts';

/** A disk while its table is being looked for. */
export interface DiskView {
  readonly index: number;
  /** As Linux would name it: `sda`. */
  readonly name: string;
  readonly source: ByteSource;
  /** The disk's first bytes, up to `headBytes`. */
  readonly head: Uint8Array;
  readonly warnings: Warnings;
}

/** Enough for sector 0, a GPT header at any sector size, and the magics of file systems and foreign tables near the start. */
export const headBytes = 128 * 1024;

/** One partition as its table records it; nothing here has been compared with the disk's size yet. */
export interface PartitionRecord {
  /** Number behind the disk's name: `sda5` is 5. */
  readonly number: number;
  /** First byte on the disk. */
  readonly start: number;
  /** Size in bytes, more than 0. */
  readonly size: number;
  readonly type: string;
  readonly typeCode: string;
  readonly label?: string;
  readonly uuid?: string;
  readonly bootable: boolean;
  /** Byte position of the table entry. */
  readonly entryAt: number;
}

/** What a scheme found. Without `partitions` the disk is not, or not readably, of the scheme, and the next one is asked. */
export interface SchemeResult {
  readonly partitions?: readonly PartitionRecord[];
}

/** A way to divide a disk. `volumes.ts` lists them in probe order. */
export interface PartitionScheme {
  readonly name: 'gpt' | 'mbr';
  read(disk: DiskView): Promise<SchemeResult>;
}

/** Collects warnings up to a limit, so that a hostile table can't fill memory with them. */
export class Warnings {
  readonly #disk: number;
  readonly #limit: number;
  readonly #list: VolumeWarning[] = [];
  #dropped = 0;

  constructor(disk: number, limit = 100) {
    this.#disk = disk;
    this.#limit = limit;
  }

  add(structure: string, message: string, at: Pick<VolumeWarning, 'position' | 'expected' | 'found'> = {}): void {
    if (this.#list.length < this.#limit) this.#list.push({ disk: this.#disk, structure, message, ...at });
    else this.#dropped++;
  }

  all(): VolumeWarning[] {
    if (this.#dropped === 0) return this.#list;
    const rest = {
      disk: this.#disk,
      structure: 'Partition table',
      message: `${this.#dropped} further warnings left out.`,
    };
    return [...this.#list, rest];
  }
}

/** A stretch of one disk as a volume. Does not own the disk, so closing it does nothing. */
export class Partition extends Window implements Volume {
  readonly scheme: 'mbr' | 'gpt' | 'none';
  readonly type: string;
  readonly typeCode: string;
  readonly label?: string;
  readonly uuid?: string;
  readonly disk: number;
  readonly bootable: boolean;

  constructor(
    disk: { readonly index: number; readonly source: ByteSource },
    name: string,
    scheme: Volume['scheme'],
    record: Omit<PartitionRecord, 'number' | 'entryAt'>,
  ) {
    super(disk.source, record.start, record.size, name);
    this.scheme = scheme;
    this.type = record.type;
    this.typeCode = record.typeCode;
    if (record.label !== undefined) this.label = record.label;
    if (record.uuid !== undefined) this.uuid = record.uuid;
    this.disk = disk.index;
    this.bootable = record.bootable;
  }

  runs(offset: number, length: number): VolumeRun[] {
    checkRange(this, offset, length);
    return length === 0 ? [] : [{ offset, length, disk: this.disk, position: this.start + offset }];
  }
}

/**
 * The name Linux gives the SCSI disk of an index: 0 is `sda`, 25 `sdz`, 26 `sdaa`.
 * Source: Linux drivers/scsi/sd.c, sd_format_disk_name: the letters count in base 26 without a zero.
 */
export function diskName(index: number): string {
  let letters = '';
  for (let rest = index + 1; rest > 0; rest = Math.floor((rest - 1) / 26)) {
    letters = String.fromCharCode(97 + ((rest - 1) % 26)) + letters;
  }
  return `sd${letters}`;
}

/**
 * A volume is a stretch of one or more disks that can hold a file system: a partition, a logical volume, an unlocked
 * container, or a whole disk without a partition table. It is a ByteSource, and can say where its bytes are on its disks.
 */
import type { ByteSource } from '../storage/byte-source.ts';

/** `length` bytes of the volume from `offset` lie at `position` of disk number `disk`. */
export interface VolumeRun {
  readonly offset: number;
  readonly length: number;
  readonly disk: number;
  readonly position: number;
}

export interface Volume extends ByteSource {
  /** As Linux would name it: `sda1`, `sdb` (no table), later `vg0-root`, `md0`. Also `ByteSource.name`. */
  readonly name: string;
  readonly scheme: 'mbr' | 'gpt' | 'none';
  /** Partition type in words where it is known ("Linux filesystem", "EFI system"), else its code. */
  readonly type: string;
  /** MBR type byte as `0x83`, GPT type GUID, empty for `none`. */
  readonly typeCode: string;
  readonly label?: string;
  readonly uuid?: string;
  /** First byte on the disk. */
  readonly start: number;
  readonly disk: number;
  readonly bootable: boolean;
  /** Where the bytes of a range are. */
  runs(offset: number, length: number): VolumeRun[];
}

/** What was found on the disks of one point. `warnings` are sentences about damaged tables and what was used instead. */
export interface VolumeSet {
  readonly volumes: readonly Volume[];
  readonly warnings: readonly VolumeWarning[];
}

export interface VolumeWarning {
  readonly disk: number;
  readonly structure: string;
  readonly message: string;
  readonly position?: number;
  readonly expected?: string | number;
  readonly found?: string | number;
}

/**
 * What a new image will look like before a byte of it is written: where its tables are, where data begins, and how the disk is
 * cut into stretches for the workers. Plain data: it goes to the workers, and into the journal of an interrupted conversion.
 */
import { UnsupportedError, UsageError } from '../errors.ts';
import { planQcow2 } from './write/qcow2.ts';
import { planVhdx } from './write/vhdx.ts';
import { planSparseVmdk, planStreamVmdk } from './write/vmdk.ts';

export type TargetFormat = 'raw' | 'qcow2' | 'vmdk' | 'vhdx';

export const SECTOR = 512;
/** Smallest piece of a disk that a worker takes: what one grain table of a VMDK covers, and a region of a chain's map. */
const STRETCH_BYTES = 32 << 20;
/** Stretches of a disk at most; larger disks have larger ones, so that what is kept for each stays small. */
const MAX_STRETCHES = 1 << 20;
/** Zeros are left out of raw images in units of this: a block of nearly every file system. */
export const HOLE_BYTES = 4096;
/** Largest disk of every format but raw: VHDX's own limit; none of the others is in use beyond it. */
const MAX_DISK = 64 * 2 ** 40;

/** Positions are bytes in the new image's file. */
export type Layout =
  /** The file is the disk; zeros are holes. */
  | { readonly kind: 'plain' }
  /** VMDK monolithicSparse: all grain tables in one place, twice, then grains as they come. */
  | {
      readonly kind: 'grains';
      readonly redundantDirectory: number;
      readonly redundantTables: number;
      readonly directory: number;
      readonly tables: number;
      readonly tableCount: number;
      readonly dataStart: number;
    }
  /** VMDK streamOptimized: compressed grains in order, each grain table after its grains. */
  | { readonly kind: 'stream'; readonly tableCount: number; readonly dataStart: number }
  /** QCOW2: L1 table, then clusters of data and L2 tables as they come, then refcounts. */
  | { readonly kind: 'clusters'; readonly l1: number; readonly l1Entries: number; readonly dataStart: number }
  /** VHDX: block allocation table, then payload blocks as they come. `ratio` payload entries stand between two bitmap entries. */
  | {
      readonly kind: 'blocks';
      readonly table: number;
      readonly tableBytes: number;
      readonly blocks: number;
      readonly ratio: number;
      readonly dataStart: number;
    };

export interface Plan {
  readonly format: TargetFormat;
  readonly variant: string;
  /** Bytes of the disk that is read. */
  readonly size: number;
  /** Bytes of the disk that the new image says it is: a whole number of sectors for all but raw. */
  readonly imageSize: number;
  /** Bytes that are allocated, or left out, together. */
  readonly unit: number;
  /** Bytes of a stretch of the disk; a multiple of `unit`. */
  readonly stretch: number;
  readonly stretches: number;
  readonly layout: Layout;
}

/** Format -> its sub-formats, the usual one first. */
export const targetVariants: Readonly<Record<TargetFormat, readonly string[]>> = {
  raw: ['raw'],
  qcow2: ['qcow2'],
  vmdk: ['monolithicSparse', 'streamOptimized', 'monolithicFlat'],
  vhdx: ['dynamic'],
};

/** The sub-format that is meant. @throws UsageError with the choices. */
export function variantOf(format: TargetFormat, variant: string | undefined): string {
  const choices = targetVariants[format];
  if (variant === undefined) return choices[0]!;
  if (choices.includes(variant)) return variant;
  throw new UsageError(`There is no ${format} of the kind "${variant}" to write`, { option: 'variant', choices });
}

/** @param size of the disk in bytes. @throws UnsupportedError for a disk that the format has no place for. */
export function planImage(format: TargetFormat, variant: string, size: number): Plan {
  let stretch = STRETCH_BYTES;
  while (Math.ceil(size / stretch) > MAX_STRETCHES) stretch *= 2;
  const stretches = Math.ceil(size / stretch);
  const imageSize = format === 'raw' ? size : Math.ceil(size / SECTOR) * SECTOR;
  const common = { format, variant, size, imageSize, stretch, stretches };
  if (format === 'raw') return { ...common, unit: HOLE_BYTES, layout: { kind: 'plain' } };
  if (size === 0) throw new UnsupportedError(`an empty disk as ${format}`);
  if (size > MAX_DISK) throw new UnsupportedError(`a disk of more than 64 TiB as ${format}`);
  switch (variant) {
    case 'monolithicFlat':
      return { ...common, unit: HOLE_BYTES, layout: { kind: 'plain' } };
    case 'monolithicSparse':
      return { ...common, ...planSparseVmdk(imageSize) };
    case 'streamOptimized':
      return { ...common, ...planStreamVmdk(imageSize) };
    case 'qcow2':
      return { ...common, ...planQcow2(imageSize) };
    default:
      return { ...common, ...planVhdx(imageSize) };
  }
}

/** First and end byte of a stretch on the disk that is read. */
export function stretchRange({ stretch, size }: Plan, index: number): { start: number; end: number } {
  return { start: index * stretch, end: Math.min(size, (index + 1) * stretch) };
}

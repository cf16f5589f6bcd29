/** Findings and refusals that several kinds of sparse extents share. */
import { CorruptError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Finding } from '../image.ts';
import { SECTOR } from './layout.ts';

/** A finding: grain tables are read from their second copy. */
export function redundantUsed(source: string, tables: number): Finding {
  return {
    severity: 'note',
    code: 'redundant-table-used',
    message: `${tables === 1 ? 'One grain table' : `${tables} grain tables`} of ${source} can't be used as written; the redundant copy is read instead`,
    source,
    structure: 'VMDK redundant grain table',
    found: tables,
    remedy: 'The disk reads through the copy. Take the file from another copy of the backup before that is lost too.',
  };
}

/** A note: the writer had the extent open when it stopped, or has it open still. */
export function uncleanShutdown(file: OpenFile, structure: string, position: number): Finding {
  return {
    severity: 'note',
    code: 'unclean-shutdown',
    message: `${file.name} was not closed cleanly by what wrote it last`,
    source: file.name,
    structure: `${structure} uncleanShutdown`,
    position,
    expected: 0,
    found: 1,
    remedy: 'It reads as it is; compare it with another backup if the virtual machine was running when it was copied.',
  };
}

/** A finding: header and descriptor differ by less than a grain. */
export function sizeDiffers(
  structure: string,
  file: OpenFile,
  position: number,
  size: number,
  capacity: number,
): Finding {
  return {
    severity: 'note',
    code: 'capacity-rounded',
    message: `${file.name} says it holds ${capacity} bytes, its descriptor says ${size}; the descriptor is followed`,
    source: file.name,
    structure: `${structure} capacity`,
    position,
    expected: size,
    found: capacity,
  };
}

/**
 * Writers may round the capacity up to a grain. Any other difference leaves open where the next extent begins on the disk, or
 * promises sectors that the extent does not have. @throws CorruptError.
 */
export function checkExtentSize(
  structure: string,
  file: OpenFile,
  position: number,
  size: number,
  capacity: number,
  grainBytes: number,
): void {
  if (capacity >= size && capacity - size < grainBytes) return;
  throw new CorruptError(`${structure} capacity`, {
    source: file.name,
    position,
    expected: `${size / SECTOR} sectors, as its descriptor says`,
    found: `${capacity / SECTOR} sectors`,
  });
}

/** A note: something follows the last structure of a file. */
export function trailingData(source: string, end: number, size: number): Finding {
  return {
    severity: 'note',
    code: 'trailing-data',
    message: `${source} has ${size - end} bytes behind its last structure that belong to nothing; they are not read`,
    source,
    position: end,
    expected: end,
    found: size,
  };
}

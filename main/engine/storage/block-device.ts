/**
 * Block devices as sources: how large one is. `fstat` says 0 of them, and Node has no ioctl; Linux tells it in sysfs, and where
 * that is not mounted (or there is none, as on macOS) the end is found by reading.
 */
import { readFileSync, readSync, statSync } from 'node:fs';
import { IoError, UnsupportedError } from '../errors.ts';

/** Sysfs counts in these, whatever the device's own sectors are. */
const SECTOR = 512;
/** Sectors of the largest device that can be addressed. */
const MAX_SECTORS = Math.floor(Number.MAX_SAFE_INTEGER / SECTOR);

/** True for a path that is (or links to) a block device; false for what is not there, which is for its opener to say. */
export function isBlockDevice(path: string): boolean {
  try {
    return statSync(path).isBlockDevice();
  } catch {
    return false;
  }
}

/**
 * Bytes of the block device behind `fd`. @param rdev as `fstat` gives it. @param name what errors call it.
 * @throws IoError, UnsupportedError for one without a medium.
 */
export function deviceSize(fd: number, rdev: number, name: string): number {
  const sectors = sysfsSectors(rdev) ?? sectorsByReading(fd, name);
  if (sectors === 0) throw new UnsupportedError('a block device that holds no medium', { source: name });
  return sectors * SECTOR;
}

/** What Linux says; undefined where it says nothing. Numbers of device as in `gnu_dev_major` and `gnu_dev_minor`. */
function sysfsSectors(rdev: number): number | undefined {
  const [low, high] = [(rdev % 0x1_0000_0000) >>> 0, Math.floor(rdev / 0x1_0000_0000)];
  const major = ((low >>> 8) & 0xfff) + (high & 0xffff_f000);
  const minor = (low & 0xff) + ((low >>> 12) & 0xf_ff00);
  let text: string;
  try {
    text = readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'latin1').trim();
  } catch {
    // No sysfs here: the device itself is asked.
    return undefined;
  }
  const sectors = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  return sectors <= MAX_SECTORS ? sectors : undefined;
}

/** Errors that a read behind the end of a device gives where it does not just give nothing. */
const BEHIND_THE_END = new Set(['EINVAL', 'ENXIO', 'EOVERFLOW', 'EFBIG']);

/** Sectors of a device, by some eighty reads: doubling until nothing is there, then halving. @throws IoError. */
export function sectorsByReading(fd: number, name: string): number {
  const buffer = new Uint8Array(SECTOR);
  const exists = (sector: number): boolean => {
    try {
      return readSync(fd, buffer, 0, SECTOR, sector * SECTOR) > 0;
    } catch (error) {
      if (BEHIND_THE_END.has((error as NodeJS.ErrnoException).code ?? '')) return false;
      throw new IoError(`${name} cannot be read`, { source: name, position: sector * SECTOR }, error);
    }
  };
  if (!exists(0)) return 0;
  // Sector `low` is there, sector `high` is not.
  let low = 0;
  let high = 1;
  while (high < MAX_SECTORS && exists(high)) {
    low = high;
    high = Math.min(high * 2, MAX_SECTORS);
  }
  while (high - low > 1) {
    const middle = low + Math.floor((high - low) / 2);
    if (exists(middle)) low = middle;
    else high = middle;
  }
  return high;
}

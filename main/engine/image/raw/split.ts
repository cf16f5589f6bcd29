/**
 * A split raw image: parts side by side whose bytes, one after the other, are the disk's. Opened by its first part; the others are
 * the files beside it that continue its numbering, and a number that is missing is an error: what came after it would else slide
 * to another place of the disk.
 */
import { readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { CorruptError, IoError, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Confinement } from '../../storage/confinement.ts';
import type { Finding } from '../image.ts';
import { isLaterPartName, isPartOfRaw, type PartName, partAt, partName } from './parts.ts';

/** Parts of one image: 8 TiB of 2 GiB each. All are open at once. */
const MAX_PARTS = 4_096;

/**
 * Real paths of the parts of the image whose first part is at `path`, in order; only that one where nothing continues it.
 * @throws CorruptError for a missing part, UnsupportedError where `path` is a later part or a part of too many, IoError.
 */
export function partsOf(path: string, folder: Confinement): string[] {
  const part = partName(basename(path));
  if (part === undefined) return [path];
  const numbers = siblings(path, part, folder);
  const lowest = Math.min(...numbers);
  const highest = Math.max(...numbers);
  if (!(lowest === 0 || (lowest === 1 && part.kind === 'digits'))) {
    // A number alone makes no part: `disk.2024` is a name like any other. What looks like a second part is no disk, though.
    if (isLaterPartName(basename(path)) && (part.number < 100 || isPartOfRaw(basename(path)))) {
      throw missing(path, partAt(part, 1), partAt(part, highest), folder);
    }
    return [path];
  }
  if (!numbers.has(part.number)) return [path];
  if (part.number !== lowest) throw later(path, part, lowest, folder);
  if (numbers.size > MAX_PARTS) {
    throw new UnsupportedError(`a raw image split into ${numbers.size} parts`, { source: folder.label(path) });
  }
  const paths: string[] = [];
  for (let number = lowest; number <= highest; number++) {
    if (!numbers.has(number)) throw missing(path, partAt(part, number), partAt(part, highest), folder);
    paths.push(folder.realPath(join(dirname(path), partAt(part, number))));
  }
  return paths;
}

/** Numbers of the parts of one image that are in its folder. A part that comes after 999 is called 1000. */
function siblings(path: string, part: PartName, folder: Confinement): Set<number> {
  const numbers = new Set<number>([part.number]);
  for (const name of namesBeside(path, folder)) {
    const other = partName(name);
    if (other === undefined || other.stem !== part.stem || other.kind !== part.kind) continue;
    // A number of another width is one of this image only where it has outgrown it.
    if (other.width !== part.width && !(part.kind === 'digits' && partAt(part, other.number) === name)) continue;
    numbers.add(other.number);
  }
  return part.kind === 'letters' ? rowOf(numbers) : numbers;
}

/** Letters that go on from `aa`, leaving out no more than there are: `disk.aa`, `disk.ab`, `disk.ad`, but not `disk.gz`. */
function rowOf(numbers: ReadonlySet<number>): Set<number> {
  const row = new Set<number>();
  for (const number of [...numbers].sort((a, b) => a - b)) if (number <= 2 * row.size) row.add(number);
  return row.size === 0 ? new Set(numbers) : row;
}

function namesBeside(path: string, folder: Confinement): string[] {
  const inside = folder.archiveOf(path);
  if (inside !== undefined) {
    const place = dirname(inside.member);
    const names: string[] = [];
    for (const { name } of inside.archive.members()) if (dirname(name) === place) names.push(basename(name));
    return names;
  }
  try {
    return readdirSync(dirname(path), { withFileTypes: true })
      .filter((entry) => entry.isFile() || entry.isSymbolicLink())
      .map(({ name }) => name);
  } catch (error) {
    throw new IoError(`${folder.label(dirname(path))} cannot be listed`, { source: folder.label(path) }, error);
  }
}

/** The error for a later part that was opened, with the name of the first. */
function later(path: string, part: PartName, lowest: number, folder: Confinement): UnsupportedError {
  const first = folder.label(join(dirname(path), partAt(part, lowest)));
  return new UnsupportedError(`one part of a split raw image opened by itself; open its first part ${first} instead`, {
    source: folder.label(path),
    role: 'extent',
    descriptor: first,
  });
}

function missing(path: string, name: string, last: string, folder: Confinement): CorruptError {
  return new CorruptError('Split raw image', {
    source: folder.label(path),
    expected: `every part up to ${last}`,
    found: `no ${name}`,
  });
}

/** Parts are cut at one size; only the last one is what is left. */
export function* partFindings(files: readonly OpenFile[]): Generator<Finding> {
  const [first, ...others] = files;
  if (first === undefined) return;
  for (const [index, { name, size }] of others.entries()) {
    const last = index === others.length - 1;
    if (size === first.size || (last && size > 0 && size < first.size)) continue;
    yield {
      severity: 'suspicious',
      code: 'split-part-size',
      message: `${name} has ${size} bytes, the parts before it ${first.size}: it may have been cut off, or be of another image`,
      source: name,
      structure: 'Split raw image',
      expected: last ? `1 to ${first.size} bytes` : first.size,
      found: size,
      remedy: 'Compare it with another copy of the backup; everything behind it would be in another place of the disk.',
    };
  }
}

/** seSparse extents (`-sesparse.vmdk`): see `se-sparse-layout.ts` for where the format is known from. */
import { Fields, isZero } from '../../binary.ts';
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Io } from '../../storage/io.ts';
import type { Finding } from '../image.ts';
import type { RunList } from '../run-list.ts';
import type { Extent } from './extent.ts';
import { SECTOR, SESPARSE_MAGICNUMBER } from './layout.ts';
import { checkSeSparse } from './se-sparse-check.ts';
import type { ConstantHeader } from './se-sparse-layout.ts';
import * as layout from './se-sparse-layout.ts';
import { SeSparseMap } from './se-sparse-map.ts';
import { checkExtentSize, sizeDiffers } from './sparse-findings.ts';

const HEADER = 'seSparse constant header';
const VOLATILE = 'seSparse volatile header';

/**
 * Reads and checks both headers of an seSparse extent.
 * @throws CorruptError; UnsupportedError, also when there is a journal to replay; IoError.
 */
export async function readSeSparseHeader(file: OpenFile): Promise<ConstantHeader> {
  if (file.size < layout.SE_HEADER_BYTES) {
    throw new CorruptError(HEADER, {
      source: file.name,
      position: 0,
      expected: `${layout.SE_HEADER_BYTES} bytes`,
      found: `a file of ${file.size} bytes`,
    });
  }
  const fields = new Fields(await file.read(0, layout.SE_HEADER_BYTES), HEADER, file.name, 0);
  const at = layout.ConstantHeaderOffsets;
  const magic = fields.u64(at.magic, 'magic');
  fields.require(magic === SESPARSE_MAGICNUMBER, 'magic', at.magic, '0xcafebabe', `0x${magic.toString(16)}`);
  refuseUnknown(fields);
  const header = layout.readConstantHeader(fields);
  checkNumbers(header, fields, file);
  await checkVolatileHeader(header.volatileHeaderOffset * SECTOR, fields, file);
  return header;
}

/** The format is known in one form only; what differs from it is not damage, but can't be read for sure either. */
function refuseUnknown(fields: Fields): void {
  const at = layout.ConstantHeaderOffsets;
  const { source } = fields;
  const version = fields.big64(at.version);
  if (version !== layout.SE_SPARSE_VERSION) {
    fields.require(version !== 0n, 'version', at.version, '0x200000001', '0x0');
    const [major, minor] = [version >> 32n, version & 0xffff_ffffn];
    throw new UnsupportedError(`VMDK seSparse of version ${major}.${minor}`, { source });
  }
  for (const [name, only] of [
    ['grainSize', layout.SE_GRAIN_SECTORS],
    ['grainTableSize', layout.SE_TABLE_SECTORS],
  ] as const) {
    const size = fields.big64(at[name]);
    if (size === BigInt(only)) continue;
    fields.require(size !== 0n, name, at[name], only, '0');
    throw new UnsupportedError(`VMDK seSparse with a ${name} of ${size} sectors`, { source });
  }
  const flags = fields.big64(at.flags);
  if (flags !== 0n) throw new UnsupportedError(`VMDK seSparse flags 0x${flags.toString(16)}`, { source });
  const reserved = fields.slice(at.reserved, at.volatileHeaderOffset - at.reserved);
  const padding = fields.slice(at.padding, fields.length - at.padding);
  if (!isZero(reserved) || !isZero(padding)) {
    throw new UnsupportedError('VMDK seSparse with reserved header fields in use', { source });
  }
}

function checkNumbers(header: ConstantHeader, fields: Fields, file: OpenFile): void {
  const at = layout.ConstantHeaderOffsets;
  const most = Math.floor(Number.MAX_SAFE_INTEGER / SECTOR);
  const inside = (name: 'grainTablesOffset' | 'grainsOffset' | 'volatileHeaderOffset' | 'grainDirectoryOffset') => {
    const sectors = Math.floor(file.size / SECTOR);
    const value = header[name];
    // An extent without a grain has none behind its tables.
    const fits = value >= 1 && (name === 'grainsOffset' ? value <= most : value < sectors);
    fields.require(fits, name, at[name], `a sector from 1 to ${sectors - 1}`, value);
  };
  const { capacity } = header;
  fields.require(capacity >= 1 && capacity <= most, 'capacity', at.capacity, `1 to ${most} sectors`, capacity);
  inside('volatileHeaderOffset');
  inside('grainDirectoryOffset');
  inside('grainTablesOffset');
  inside('grainsOffset');
  for (const name of ['grainTablesSize', 'grainsSize', 'grainDirectorySize'] as const) {
    fields.require(header[name] <= most, name, at[name], `at most ${most} sectors`, header[name]);
  }
}

async function checkVolatileHeader(position: number, constant: Fields, file: OpenFile): Promise<void> {
  if (position + layout.SE_HEADER_BYTES > file.size) {
    const at = layout.ConstantHeaderOffsets.volatileHeaderOffset;
    throw constant.corrupt('volatileHeaderOffset', at, `a sector inside ${file.size} bytes`, position / SECTOR);
  }
  const fields = new Fields(await file.read(position, layout.SE_HEADER_BYTES), VOLATILE, file.name, position);
  const at = layout.VolatileHeaderOffsets;
  const magic = fields.big64(at.magic);
  fields.require(
    magic === BigInt(layout.VOLATILE_MAGIC),
    'magic',
    at.magic,
    `0x${layout.VOLATILE_MAGIC.toString(16)}`,
    `0x${magic.toString(16)}`,
  );
  if (fields.big64(at.replayJournal) !== 0n) {
    throw new UnsupportedError(
      'VMDK seSparse with a journal to replay (it was copied while in use, or after a crash)',
      {
        source: file.name,
      },
    );
  }
}

export class SeSparseExtent implements Extent {
  readonly kind = 'sesparse';
  readonly file: OpenFile;
  readonly size: number;
  readonly #header: ConstantHeader;
  readonly #map: SeSparseMap;

  /**
   * The extent over a header that `readSeSparseHeader` has checked. `size` is what the descriptor says it covers, in bytes.
   * @throws CorruptError when the size is not the header's, or the grain directory is too short or not in the file.
   */
  constructor(file: OpenFile, header: ConstantHeader, size: number) {
    this.file = file;
    this.size = size;
    this.#header = header;
    const at = layout.ConstantHeaderOffsets;
    const grainBytes = header.grainSize * SECTOR;
    const tableBytes = header.grainTableSize * SECTOR;
    checkExtentSize(HEADER, file, at.capacity, size, header.capacity * SECTOR, grainBytes);
    this.#map = new SeSparseMap({
      file,
      capacity: size,
      grainBytes,
      tableBytes,
      directory: header.grainDirectoryOffset * SECTOR,
      tables: header.grainTablesOffset * SECTOR,
      grains: header.grainsOffset * SECTOR,
      tableRoom: Math.floor((header.grainTablesSize * SECTOR) / tableBytes),
      grainRoom: Math.floor((header.grainsSize * SECTOR) / grainBytes),
    });
    const needed = this.#map.directoryEntries * layout.SE_ENTRY_BYTES;
    const room = Math.min(header.grainDirectorySize * SECTOR, file.size - header.grainDirectoryOffset * SECTOR);
    if (needed > room) {
      throw new CorruptError(`${HEADER} grainDirectorySize`, {
        source: file.name,
        position: at.grainDirectorySize,
        expected: `${this.#map.directoryEntries} entries inside the ${file.size} bytes of the file`,
        found: `room for ${Math.floor(room / layout.SE_ENTRY_BYTES)} at byte ${header.grainDirectoryOffset * SECTOR}`,
      });
    }
  }

  get granularity(): number {
    return this.#map.geometry.grainBytes;
  }
  get step(): number {
    return this.#map.step;
  }
  get properties(): Readonly<Record<string, string | number | boolean>> {
    return { grainSize: this.granularity };
  }

  runs(offset: number, length: number, base: number, out: RunList): Io<void> {
    return this.#map.runs(offset, length, base, out);
  }

  async *check(signal: AbortSignal | undefined): AsyncGenerator<Finding> {
    const { capacity } = this.#header;
    if (capacity * SECTOR !== this.size) {
      const at = layout.ConstantHeaderOffsets.capacity;
      yield sizeDiffers(HEADER, this.file, at, this.size, capacity * SECTOR);
    }
    yield* checkSeSparse(this.#map, this.#areas(), signal);
  }

  /** The areas of the file, which must not overlap. */
  #areas(): { name: string; start: number; end: number }[] {
    const h = this.#header;
    const area = (name: string, offset: number, size: number) => ({
      name,
      start: offset * SECTOR,
      end: (offset + size) * SECTOR,
    });
    return [
      area('constant header', 0, 1),
      area('volatile header', h.volatileHeaderOffset, 1),
      area('grain directory', h.grainDirectoryOffset, h.grainDirectorySize),
      area('grain tables', h.grainTablesOffset, h.grainTablesSize),
      area('grains', h.grainsOffset, h.grainsSize),
    ];
  }
}

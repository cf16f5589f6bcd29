/**
 * The region table of a VHDX ([MS-VHDX] 2.2.3): where in the file the BAT and the metadata are. It is there twice; the second is
 * used where the first is damaged.
 */
import { Fields, hex32 } from '../../binary.ts';
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { findingOf } from '../findings.ts';
import type { Finding } from '../image.ts';
import { guid } from './headers.ts';
import * as layout from './layout.ts';
import { MIB, overlap } from './layout.ts';

export interface Region {
  readonly guid: string;
  readonly position: number;
  readonly length: number;
  readonly required: boolean;
  /** Byte position of its entry in the table. */
  readonly entry: number;
}

export interface Regions {
  readonly bat: Region;
  readonly metadata: Region;
  /** Regions of a kind that is not known and need not be. */
  readonly others: readonly Region[];
  readonly findings: readonly Finding[];
}

/**
 * Reads the region table. @throws CorruptError when both copies are damaged or the regions can't be where it says,
 * UnsupportedError for a region that must be understood and is not, IoError.
 */
export async function readRegions(source: ByteSource): Promise<Regions> {
  const findings: Finding[] = [];
  let table = await readCopy(source, 0);
  if (table instanceof CorruptError) {
    const second = await readCopy(source, 1);
    if (second instanceof CorruptError) throw table;
    findings.push(findingOf(table, 'region-table-damaged', 'damaged', 'The second region table is used in its place.'));
    table = second;
  }
  const seen = new Set<string>();
  for (const region of table) {
    if (seen.has(region.guid)) {
      throw entryError(source, region, 'Guid', 'a region that is not listed yet', region.guid);
    }
    seen.add(region.guid);
    const known = region.guid === layout.REGION_BAT || region.guid === layout.REGION_METADATA;
    if (!known && region.required) throw new UnsupportedError(`VHDX region ${region.guid}`, { source: source.name });
  }
  const bat = knownRegion(table, layout.REGION_BAT, 'BAT', source);
  const metadata = knownRegion(table, layout.REGION_METADATA, 'metadata', source);
  if (overlap(bat.position, bat.length, metadata.position, metadata.length)) {
    throw entryError(
      source,
      metadata,
      'FileOffset',
      `a place outside the BAT, which has ${bat.length} bytes from ${bat.position}`,
      `${metadata.length} bytes from ${metadata.position}`,
    );
  }
  return { bat, metadata, others: table.filter((region) => region !== bat && region !== metadata), findings };
}

async function readCopy(source: ByteSource, copy: 0 | 1): Promise<readonly Region[] | CorruptError> {
  const position = layout.REGION_TABLE_POSITIONS[copy];
  const bytes = await source.read(position, layout.REGION_TABLE_BYTES);
  const fields = new Fields(bytes, `VHDX ${copy === 0 ? 'first' : 'second'} region table`, source.name, position);
  const signature = fields.ascii(0, 4);
  if (signature !== layout.REGION_TABLE_SIGNATURE) {
    const found = Buffer.from(fields.slice(0, 4)).toString('hex');
    return fields.corrupt('Signature', 0, `"${layout.REGION_TABLE_SIGNATURE}"`, found);
  }
  const checksum = layout.checksumOf(bytes);
  if (checksum !== fields.u32(4)) return fields.corrupt('Checksum', 4, hex32(checksum), hex32(fields.u32(4)));
  const count = fields.u32(8);
  if (count > layout.REGION_ENTRIES_MAX) {
    return fields.corrupt('EntryCount', 8, `at most ${layout.REGION_ENTRIES_MAX}`, count);
  }
  const regions: Region[] = [];
  for (let i = 0; i < count; i++) {
    const at = layout.REGION_HEADER_BYTES + i * layout.REGION_ENTRY_BYTES;
    regions.push({
      guid: guid(fields, at),
      position: fields.u64(at + 16, 'entry FileOffset'),
      length: fields.u32(at + 24),
      required: (fields.u32(at + 28) & 1) !== 0,
      entry: position + at,
    });
  }
  return regions;
}

function knownRegion(table: readonly Region[], id: string, name: string, source: ByteSource): Region {
  const region = table.find((candidate) => candidate.guid === id);
  if (region === undefined) {
    throw new CorruptError('VHDX region table', {
      source: source.name,
      position: layout.REGION_TABLE_POSITIONS[0],
      expected: `an entry for the ${name} region`,
      found: 'none',
    });
  }
  if (!regionFits(region, source)) throw misplaced(region, source);
  return region;
}

/** Whether a region is where a region can be. */
export function regionFits(region: Region, source: ByteSource): boolean {
  const { position, length } = region;
  return (
    position >= layout.HEADER_SECTION_BYTES &&
    position % MIB === 0 &&
    length > 0 &&
    length % MIB === 0 &&
    position + length <= source.size
  );
}

/** The error for a region that is not. */
export function misplaced(region: Region, source: ByteSource): CorruptError {
  return entryError(
    source,
    region,
    'FileOffset',
    `whole MiB behind the first and inside the ${source.size} bytes of the file`,
    `${region.length} bytes from ${region.position}`,
  );
}

function entryError(source: ByteSource, region: Region, field: string, expected: string, found: string): CorruptError {
  return new CorruptError(`VHDX region table entry ${field}`, {
    source: source.name,
    position: region.entry,
    expected,
    found,
  });
}

/** Findings on the copy of the table that opening did not look at: that it is whole, and says the same. */
export async function* checkSecondTable(source: ByteSource): AsyncGenerator<Finding> {
  const first = await readCopy(source, 0);
  if (first instanceof CorruptError) return;
  const second = await readCopy(source, 1);
  if (second instanceof CorruptError) {
    const remedy = 'The disk reads by the first region table; it has no second copy of it.';
    yield findingOf(second, 'second-region-table-damaged', 'damaged', remedy);
    return;
  }
  const told = ({ guid: id, position, length, required }: Region) => `${id} ${position} ${length} ${required}`;
  const differs = first.findIndex((region, i) => second[i] === undefined || told(region) !== told(second[i]));
  if (differs < 0 && first.length === second.length) return;
  yield {
    severity: 'suspicious',
    code: 'region-tables-differ',
    message: `The two region tables of ${source.name} do not say the same`,
    source: source.name,
    structure: 'VHDX second region table',
    position: layout.REGION_TABLE_POSITIONS[1],
    expected: differs < 0 ? `${first.length} entries` : told(first[differs]!),
    found: differs < 0 ? `${second.length} entries` : second[differs] === undefined ? 'none' : told(second[differs]),
    remedy: 'The first region table is read.',
  };
}

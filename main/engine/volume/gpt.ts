/**
 * The GUID Partition Table: a header in logical block 1 and its entry array, both with a CRC-32, and a copy of both at the
 * end of the disk. A damaged table is never used; its copy is, and a warning says so.
 *
 * Source: UEFI specification 2.10, chapter 5.3 (https://uefi.org/specs/UEFI/2.10/05_GUID_Partition_Table_Format.html);
 * numbering as Linux block/partitions/efi.c: the place in the array, from 1.
 */
import { Fields, hex32 } from '../binary.ts';
import { CorruptError } from '../errors.ts';
import { bootSectorOf } from './boot-sector.ts';
import { tableEntries } from './mbr.ts';
import type { DiskView, PartitionRecord, PartitionScheme, SchemeResult } from './partition.ts';
import { gptProtective, gptTypeName } from './partition-types.ts';

/** zlib's CRC-32. Loaded when there is a table to check: most disks have none, and every start would wait for it. */
function crc32(bytes: Uint8Array): number {
  return process.getBuiltinModule('node:zlib').crc32(bytes);
}

/** Logical block sizes a disk can have. The header stands in block 1, so where it is found tells the size. */
const blockSizes = [512, 4096, 2048, 1024] as const;
const signature = 'EFI PART';
const minHeader = 92;
const minEntry = 128;
const maxEntry = 4096;
const maxEntries = 16_384;
const maxArray = 4 * 1024 * 1024;
const unusedGuid = '00000000-0000-0000-0000-000000000000';
/** Attribute bit 2: legacy BIOS bootable. */
const legacyBoot = 4n;

interface Header {
  /** `GPT header` or `Backup GPT header`. */
  readonly structure: string;
  readonly blockSize: number;
  readonly block: number;
  readonly otherBlock: number;
  readonly firstUsable: number;
  readonly lastUsable: number;
  readonly diskGuid: string;
  readonly entriesBlock: number;
  readonly entryCount: number;
  readonly entrySize: number;
  readonly entriesCrc: number;
}

/** A header and an entry array whose checksums hold. */
interface Table {
  readonly header: Header;
  readonly entries: Fields;
}

export const gptScheme: PartitionScheme = {
  name: 'gpt',
  async read(disk: DiskView): Promise<SchemeResult> {
    const mbr = tableEntries(disk.head, 0, disk.name)?.filter((entry) => entry.sectors > 0) ?? [];
    const isProtected = mbr.some((entry) => entry.type === gptProtective);
    const blockSize = signedBlockSize(disk.head);
    if (!isProtected && (blockSize === undefined || bootSectorOf(disk.head) !== undefined)) return {};

    const primary = await tryTable(() => readTable(disk, 'GPT', blockSize ?? 512, 1));
    if (!isProtected) return adoptUnprotected(disk, primary, mbr.length);

    const others = mbr.filter((entry) => entry.type !== gptProtective);
    if (!(primary instanceof CorruptError)) {
      warnOfHybrid(disk, others.length);
      await compareWithBackup(disk, primary);
      return { partitions: partitionsOf(disk, primary) };
    }
    warnOf(disk, primary, 'The partition table at the start of');
    const backup = await findBackup(disk, primary, blockSize);
    if (!(backup instanceof CorruptError)) {
      disk.warnings.add(
        'GPT',
        `The backup table at the end of ${disk.name} was used in place of the damaged one at its start.`,
        { position: backup.header.block * backup.header.blockSize },
      );
      warnOfHybrid(disk, others.length);
      return { partitions: partitionsOf(disk, backup) };
    }
    warnOf(disk, backup, 'The backup partition table of');
    disk.warnings.add(
      'GPT',
      others.length === 0
        ? `Both partition tables of ${disk.name} are damaged; the disk is shown as one volume.`
        : `Both partition tables of ${disk.name} are damaged; the entries of its hybrid MBR were used.`,
    );
    return {};
  },
};

/** A valid table without its protective MBR: Linux ignores it; here it is used where sector 0 holds no other table. */
function adoptUnprotected(disk: DiskView, primary: Table | CorruptError, mbrEntries: number): SchemeResult {
  if (primary instanceof CorruptError) {
    // A remnant: the disk has been given another use since.
    return {};
  }
  if (mbrEntries > 0) {
    disk.warnings.add(
      'GPT',
      `${disk.name} has a valid GPT too, but its MBR does not announce one; the MBR was used, as Linux would.`,
      { position: primary.header.blockSize },
    );
    return {};
  }
  disk.warnings.add(
    'Protective MBR',
    `The protective MBR of ${disk.name} is missing; its GPT is valid and was used, while Linux would ignore it.`,
    { position: 0, expected: 'an entry of type 0xee', found: 'none' },
  );
  return { partitions: partitionsOf(disk, primary) };
}

/** The block size at whose block 1 the head has a GPT signature. A size whose header checksum holds goes first. */
function signedBlockSize(head: Uint8Array): number | undefined {
  const signed = blockSizes.filter(
    (size) =>
      size + minHeader <= head.length && Buffer.from(head.subarray(size, size + 8)).toString('latin1') === signature,
  );
  const sound = signed.find((size) => {
    const block = head.subarray(size, size + 512);
    const length = new Fields(block, 'GPT header', '', 0).u32(12);
    return length >= minHeader && length <= block.length && headerCrc(block, length) === crcField(block);
  });
  return sound ?? signed[0];
}

const crcField = (block: Uint8Array): number => new Fields(block, 'GPT header', '', 0).u32(16);

/** CRC-32 of the first `length` bytes with the checksum's own field taken as zero. */
function headerCrc(block: Uint8Array, length: number): number {
  const copy = Uint8Array.from(block.subarray(0, length));
  copy.fill(0, 16, 20);
  return crc32(copy);
}

async function tryTable(read: () => Promise<Table>): Promise<Table | CorruptError> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof CorruptError) return error;
    throw error;
  }
}

/** Reads and checks one header and its array. @throws CorruptError. */
async function readTable(disk: DiskView, title: string, blockSize: number, block: number): Promise<Table> {
  const header = await readHeader(disk, `${title} header`, blockSize, block);
  const entries = await readEntries(disk, `${title} entry array`, header);
  return { header, entries };
}

async function readHeader(disk: DiskView, structure: string, blockSize: number, block: number): Promise<Header> {
  const position = block * blockSize;
  if (!(position + blockSize <= disk.source.size)) {
    throw new CorruptError(structure, {
      source: disk.name,
      position,
      expected: `a block of the disk (${disk.source.size} bytes)`,
      found: `block ${block}`,
    });
  }
  const bytes = await disk.source.read(position, blockSize);
  const f = new Fields(bytes, structure, disk.name, position);
  f.require(f.ascii(0, 8) === signature, 'signature', 0, signature, JSON.stringify(f.ascii(0, 8)));
  f.require(f.u16(10) === 1, 'revision', 8, '1.x', `${f.u16(10)}.${f.u16(8)}`);
  const length = f.u32(12);
  f.require(length >= minHeader && length <= blockSize, 'size', 12, `${minHeader} to ${blockSize}`, length);
  const crc = headerCrc(bytes, length);
  f.require(crc === f.u32(16), 'checksum', 16, `0x${hex32(f.u32(16))}`, `0x${hex32(crc)}`);
  f.require(f.u64(24) === block, 'own block', 24, block, f.u64(24));
  const header: Header = {
    structure,
    blockSize,
    block,
    otherBlock: f.u64(32, 'alternate block'),
    firstUsable: f.u64(40, 'first usable block'),
    lastUsable: f.u64(48, 'last usable block'),
    diskGuid: f.guid(56),
    entriesBlock: f.u64(72, 'entry array block'),
    entryCount: f.u32(80),
    entrySize: f.u32(84),
    entriesCrc: f.u32(88),
  };
  f.require(header.entryCount <= maxEntries, 'entry count', 80, `at most ${maxEntries}`, header.entryCount);
  const sizeOk = header.entrySize >= minEntry && header.entrySize <= maxEntry && header.entrySize % 8 === 0;
  f.require(sizeOk, 'entry size', 84, `a multiple of 8 from ${minEntry} to ${maxEntry}`, header.entrySize);
  const array = header.entryCount * header.entrySize;
  f.require(array <= maxArray, 'entry array size', 80, `at most ${maxArray} bytes`, `${array} bytes`);
  const start = header.entriesBlock * blockSize;
  const onDisk = header.entriesBlock >= 2 && start + array <= disk.source.size;
  f.require(
    onDisk,
    'entry array block',
    72,
    `2 or more, within the disk (${disk.source.size} bytes)`,
    header.entriesBlock,
  );
  return header;
}

async function readEntries(disk: DiskView, structure: string, header: Header): Promise<Fields> {
  const position = header.entriesBlock * header.blockSize;
  const bytes = await disk.source.read(position, header.entryCount * header.entrySize);
  const f = new Fields(bytes, structure, disk.name, position);
  const crc = crc32(bytes);
  f.require(crc === header.entriesCrc, 'checksum', 0, `0x${hex32(header.entriesCrc)}`, `0x${hex32(crc)}`);
  return f;
}

/** The backup of a damaged primary: at the end of the disk, or where the primary's header says, at any block size. */
async function findBackup(
  disk: DiskView,
  primary: CorruptError,
  signed: number | undefined,
): Promise<Table | CorruptError> {
  let first: CorruptError | undefined;
  for (const blockSize of signed === undefined ? blockSizes : [signed]) {
    const places = new Set([Math.floor(disk.source.size / blockSize) - 1]);
    // On a disk that was grown the backup is no longer at the end; the primary's pointer is a hint even when damaged.
    if (signed !== undefined && signed + minHeader <= disk.head.length) {
      const pointer = new Fields(disk.head, 'GPT header', disk.name, 0).big64(signed + 32);
      if (pointer <= BigInt(Number.MAX_SAFE_INTEGER)) places.add(Number(pointer));
    }
    for (const block of places) {
      if (block < 2) continue;
      const table = await tryTable(() => readTable(disk, 'Backup GPT', blockSize, block));
      if (!(table instanceof CorruptError)) return table;
      first ??= table;
    }
  }
  return first ?? primary;
}

/** The primary is sound; says so when its backup is not, since the next damage would then be the last. */
async function compareWithBackup(disk: DiskView, primary: Table): Promise<void> {
  const { blockSize, otherBlock, entriesCrc } = primary.header;
  const backup = await tryTable(() => readTable(disk, 'Backup GPT', blockSize, otherBlock));
  if (backup instanceof CorruptError) {
    warnOf(disk, backup, 'The backup partition table of');
  } else if (backup.header.entriesCrc !== entriesCrc) {
    disk.warnings.add('Backup GPT', `The two partition tables of ${disk.name} differ; the one at its start was used.`, {
      position: otherBlock * blockSize,
      expected: `entries with checksum 0x${hex32(entriesCrc)}`,
      found: `0x${hex32(backup.header.entriesCrc)}`,
    });
  }
}

function warnOf(disk: DiskView, error: CorruptError, what: string): void {
  const { structure, position, expected, found } = error.details as {
    structure: string;
    position?: number;
    expected?: string | number;
    found?: string | number;
  };
  disk.warnings.add(structure, `${what} ${disk.name} is damaged.`, {
    ...(position === undefined ? {} : { position }),
    ...(expected === undefined ? {} : { expected }),
    ...(found === undefined ? {} : { found }),
  });
}

function warnOfHybrid(disk: DiskView, others: number): void {
  if (others === 0) return;
  disk.warnings.add(
    'Hybrid MBR',
    `The MBR of ${disk.name} lists ${others} partition${others === 1 ? '' : 's'} beside its GPT; the GPT was used.`,
    { position: 446 },
  );
}

function partitionsOf(disk: DiskView, table: Table): PartitionRecord[] {
  const { blockSize, entryCount, entrySize, firstUsable, lastUsable } = table.header;
  const records: PartitionRecord[] = [];
  for (let i = 0; i < entryCount; i++) {
    const position = table.entries.position + i * entrySize;
    const f = new Fields(table.entries.slice(i * entrySize, entrySize), `GPT entry ${i + 1}`, disk.name, position);
    const type = f.guid(0);
    if (type === unusedGuid) continue;
    const first = f.big64(32);
    const last = f.big64(40);
    const limit = BigInt(Math.floor(Number.MAX_SAFE_INTEGER / blockSize)) - 1n;
    if (first > last || last > limit) {
      disk.warnings.add(f.structure, `Entry ${i + 1} of ${disk.name} is damaged and left out.`, {
        position: position + 32,
        expected: `a last block from ${first} to ${limit}`,
        found: last.toString(),
      });
      continue;
    }
    if (Number(first) < firstUsable || Number(last) > lastUsable) {
      disk.warnings.add(f.structure, `${disk.name}${i + 1} lies outside the blocks its table calls usable.`, {
        position: position + 32,
        expected: `blocks ${firstUsable} to ${lastUsable}`,
        found: `${first} to ${last}`,
      });
    }
    const label = partitionName(f.slice(56, 72));
    records.push({
      number: i + 1,
      start: Number(first) * blockSize,
      size: Number(last - first + 1n) * blockSize,
      type: gptTypeName(type),
      typeCode: type,
      uuid: f.guid(16).toLowerCase(),
      bootable: (f.big64(48) & legacyBoot) !== 0n,
      entryAt: position,
      ...(label === '' ? {} : { label }),
    });
  }
  return records;
}

/** UTF-16 up to its NUL. 0xFFFF, which is no character, ends a name too: some writers leave the field so. */
function partitionName(bytes: Uint8Array): string {
  let name = '';
  for (let at = 0; at + 1 < bytes.length; at += 2) {
    const unit = bytes[at]! | (bytes[at + 1]! << 8);
    if (unit === 0 || unit === 0xffff) break;
    name += String.fromCharCode(unit);
  }
  return name.toWellFormed();
}

/** Disks with partition tables, built in memory from the specifications, so that tests know every byte and can break any. */
import { crc32 } from 'node:zlib';

export interface MbrPart {
  readonly type: number;
  readonly start: number;
  readonly sectors: number;
  readonly status?: number;
}

/** Writes up to four entries and 55 AA into the sector at `sector` of a disk of 512-byte sectors. */
export function writeMbr(disk: Uint8Array, parts: readonly (MbrPart | undefined)[], sector = 0, signature = 0): void {
  const at = sector * 512;
  const view = new DataView(disk.buffer, disk.byteOffset);
  if (signature !== 0) view.setUint32(at + 440, signature, true);
  parts.forEach((part, i) => {
    if (part === undefined) return;
    const entry = at + 446 + i * 16;
    disk[entry] = part.status ?? 0;
    disk[entry + 4] = part.type;
    view.setUint32(entry + 8, part.start, true);
    view.setUint32(entry + 12, part.sectors, true);
  });
  disk[at + 510] = 0x55;
  disk[at + 511] = 0xaa;
}

/**
 * An extended partition's chain: one record before each logical partition, as fdisk lays it out.
 * @param logical first sector of each record, with its partition relative to the record.
 */
export function writeExtended(
  disk: Uint8Array,
  extendedStart: number,
  logical: readonly { record: number; part: MbrPart }[],
): void {
  logical.forEach(({ record, part }, i) => {
    const next = logical[i + 1];
    const link: MbrPart | undefined =
      next === undefined
        ? undefined
        : { type: 5, start: next.record - extendedStart, sectors: next.part.start + next.part.sectors };
    writeMbr(disk, [part, link], record);
  });
}

export interface GptPart {
  /** Place in the array, from 1. */
  readonly number: number;
  readonly type: string;
  readonly guid?: string;
  readonly first: number;
  readonly last: number;
  readonly name?: string;
  readonly attributes?: bigint;
}

export interface GptOptions {
  readonly blockSize?: number;
  readonly entryCount?: number;
  readonly entrySize?: number;
  readonly protective?: boolean;
}

/** Text of a GUID as its 16 bytes in GPT's order. */
export function guidBytes(guid: string): Uint8Array {
  const hex = guid.replaceAll('-', '');
  const bytes = Buffer.from(hex, 'hex');
  return Uint8Array.of(
    bytes[3]!,
    bytes[2]!,
    bytes[1]!,
    bytes[0]!,
    bytes[5]!,
    bytes[4]!,
    bytes[7]!,
    bytes[6]!,
    ...bytes.subarray(8),
  );
}

export const linuxGuid = '0FC63DAF-8483-4772-8E79-3D69D8477DE4';
export const efiGuid = 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B';

/** Writes a protective MBR, the header and array at the start and their copies at the end. */
export function writeGpt(disk: Uint8Array, parts: readonly GptPart[], options: GptOptions = {}): void {
  const { blockSize = 512, entryCount = 128, entrySize = 128, protective = true } = options;
  const blocks = Math.floor(disk.length / blockSize);
  const arrayBlocks = Math.ceil((entryCount * entrySize) / blockSize);
  const array = new Uint8Array(entryCount * entrySize);
  const view = new DataView(array.buffer);
  for (const part of parts) {
    const at = (part.number - 1) * entrySize;
    array.set(guidBytes(part.type), at);
    array.set(guidBytes(part.guid ?? `00000000-0000-4000-8000-${String(part.number).padStart(12, '0')}`), at + 16);
    view.setBigUint64(at + 32, BigInt(part.first), true);
    view.setBigUint64(at + 40, BigInt(part.last), true);
    view.setBigUint64(at + 48, part.attributes ?? 0n, true);
    array.set(Buffer.from(part.name ?? '', 'utf16le').subarray(0, 72), at + 56);
  }
  if (protective) writeMbr(disk, [{ type: 0xee, start: 1, sectors: Math.min(blocks - 1, 0xffffffff) }]);
  const header = (own: number, other: number, arrayBlock: number): void => {
    const bytes = new Uint8Array(92);
    const h = new DataView(bytes.buffer);
    bytes.set(Buffer.from('EFI PART', 'latin1'));
    h.setUint32(8, 0x10000, true);
    h.setUint32(12, 92, true);
    h.setBigUint64(24, BigInt(own), true);
    h.setBigUint64(32, BigInt(other), true);
    h.setBigUint64(40, BigInt(2 + arrayBlocks), true);
    h.setBigUint64(48, BigInt(blocks - 2 - arrayBlocks), true);
    bytes.set(guidBytes('12345678-1234-4234-8234-123456789ABC'), 56);
    h.setBigUint64(72, BigInt(arrayBlock), true);
    h.setUint32(80, entryCount, true);
    h.setUint32(84, entrySize, true);
    h.setUint32(88, crc32(array), true);
    h.setUint32(16, crc32(bytes), true);
    disk.set(bytes, own * blockSize);
    disk.set(array, arrayBlock * blockSize);
  };
  header(1, blocks - 1, 2);
  header(blocks - 1, 1, blocks - 1 - arrayBlocks);
}

/** Recomputes the checksum of the header at `at`, after a test changed one of its fields on purpose. */
export function signGptHeader(disk: Uint8Array, at: number): void {
  const view = new DataView(disk.buffer, disk.byteOffset);
  view.setUint32(at + 16, 0, true);
  view.setUint32(at + 16, crc32(disk.subarray(at, at + view.getUint32(at + 12, true))), true);
}

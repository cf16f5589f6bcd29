/**
 * The log of a VHDX ([MS-VHDX] 2.3): a ring of entries, each of which describes writes to the file's tables that may not have been
 * done yet. After a crash, or in a copy made of a running machine, the tables are only true with these writes applied. Here they
 * are only collected; nothing is ever written to the file.
 *
 * The active sequence is the longest run of valid entries with ascending numbers that ends with the highest number and holds the
 * entry that its last one calls its tail. Valid is an entry whose signature, identity, checksum, descriptors and data sectors all
 * agree, so a torn one ends a sequence and does no harm.
 */
import { Fields } from '../../binary.ts';
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import type { VhdxHeader } from './headers.ts';
import { guid } from './headers.ts';
import * as layout from './layout.ts';
import { LOG_SECTOR, MIB, overlap } from './layout.ts';

/** A write that the log asks for: bytes, or zeros where there are none. Positions and lengths are multiples of 4 KiB. */
export interface LogWrite {
  readonly position: number;
  readonly length: number;
  readonly bytes: Uint8Array | undefined;
}

export interface LogReplay {
  /** Oldest first: later ones win. */
  readonly writes: readonly LogWrite[];
  readonly entries: number;
  /** The file had at least this size on stable storage when the last entry was written. */
  readonly flushedFileOffset: number;
  /** Everything that was allocated when the last entry was written lies below this. */
  readonly lastFileOffset: number;
}

/** A larger log that has to be replayed is refused: Hyper-V's have 1 MiB. */
const MAX_LOG_BYTES = 64 * MIB;
/** Bytes of entries that are checksummed at most, as a multiple of the log: honest entries don't overlap. */
const CHECKSUM_FACTOR = 8;

/**
 * Reads the log that `header` says has to be replayed; undefined when there is none to. @throws CorruptError when no sequence of
 * it is valid or the file is shorter than the log knows it was, UnsupportedError, IoError.
 */
export async function readLog(file: ByteSource, header: VhdxHeader): Promise<LogReplay | undefined> {
  const { logGuid } = header;
  if (logGuid === undefined) return undefined;
  if (header.logVersion !== 0) {
    throw new UnsupportedError(`VHDX log of version ${header.logVersion}`, { source: file.name });
  }
  if (!logFits(file, header)) {
    throw new CorruptError('VHDX log', {
      source: file.name,
      position: header.logOffset,
      expected: `whole MiB behind the first and inside the ${file.size} bytes of the file`,
      found: `${header.logLength} bytes from ${header.logOffset}`,
    });
  }
  if (header.logLength > MAX_LOG_BYTES) {
    throw new UnsupportedError(`VHDX log of ${header.logLength} bytes that has to be replayed`, { source: file.name });
  }
  const bytes = await file.read(header.logOffset, header.logLength);
  const sequence = new Log(bytes, file, header, logGuid).activeSequence();
  const head = sequence.at(-1);
  if (head === undefined) {
    throw new CorruptError('VHDX log', {
      source: file.name,
      position: header.logOffset,
      expected: `a whole sequence of entries of the log ${logGuid}`,
      found: 'none',
    });
  }
  if (head.flushedFileOffset > file.size) {
    throw new CorruptError('VHDX log entry FlushedFileOffset', {
      source: file.name,
      position: header.logOffset + head.offset + layout.LogEntryOffsets.flushedFileOffset,
      expected: `at most the ${file.size} bytes of the file, or a file that was not cut off`,
      found: head.flushedFileOffset,
    });
  }
  const writes = sequence.flatMap((entry) => entry.writes);
  for (const write of writes) checkTarget(write, file, header, Math.max(file.size, head.lastFileOffset));
  return {
    writes,
    entries: sequence.length,
    flushedFileOffset: head.flushedFileOffset,
    lastFileOffset: head.lastFileOffset,
  };
}

/** Whether the log is where a log can be. */
export function logFits(file: ByteSource, { logOffset, logLength }: VhdxHeader): boolean {
  return (
    logLength > 0 &&
    logLength % MIB === 0 &&
    logOffset % MIB === 0 &&
    logOffset >= layout.HEADER_SECTION_BYTES &&
    logOffset + logLength <= file.size
  );
}

/** The log changes neither the headers, which say where it is, nor itself, nor what lies behind the file's end. */
function checkTarget(write: LogWrite, file: ByteSource, header: VhdxHeader, end: number): void {
  const { position, length } = write;
  const headers = layout.HEADER_POSITIONS[0];
  if (
    position + length <= end &&
    !overlap(position, length, headers, layout.HEADERS_END - headers) &&
    !overlap(position, length, header.logOffset, header.logLength)
  ) {
    return;
  }
  throw new CorruptError('VHDX log descriptor FileOffset', {
    source: file.name,
    expected: `a place outside headers and log and inside the file's ${end} bytes`,
    found: `${length} bytes at ${position}`,
  });
}

interface LogEntry {
  /** Within the log. */
  readonly offset: number;
  readonly length: number;
  readonly tail: number;
  readonly sequenceNumber: bigint;
  readonly flushedFileOffset: number;
  readonly lastFileOffset: number;
  readonly writes: readonly LogWrite[];
}

class Log {
  readonly #bytes: Uint8Array;
  readonly #file: ByteSource;
  readonly #header: VhdxHeader;
  readonly #guid: string;
  /** Bytes that may still be checksummed. */
  #budget: number;

  constructor(bytes: Uint8Array, file: ByteSource, header: VhdxHeader, logGuid: string) {
    this.#bytes = bytes;
    this.#file = file;
    this.#header = header;
    this.#guid = logGuid;
    this.#budget = bytes.length * CHECKSUM_FACTOR;
  }

  /** The entries to replay, oldest first; none when no sequence is whole. */
  activeSequence(): LogEntry[] {
    const { length } = this.#bytes;
    let active: LogEntry[] = [];
    for (let start = 0; start < length; ) {
      const sequence = this.#sequenceAt(start);
      const head = sequence.at(-1);
      if (head === undefined) {
        start += LOG_SECTOR;
        continue;
      }
      const tail = sequence.findIndex((entry) => entry.offset === head.tail);
      const before = active.at(-1);
      if (tail >= 0 && (before === undefined || head.sequenceNumber > before.sequenceNumber)) {
        // What lies before the tail was done already, and may have been overwritten since.
        active = sequence.slice(tail);
      }
      // Whatever else could begin inside the sequence would end with the same entry.
      start += sequence.reduce((sum, entry) => sum + entry.length, 0);
    }
    return active;
  }

  /** The valid entries from `start` on that follow each other, round the end of the log, each with the next number. */
  #sequenceAt(start: number): LogEntry[] {
    const sequence: LogEntry[] = [];
    let taken = 0;
    for (let at = start; ; ) {
      const entry = this.#entryAt(at);
      const last = sequence.at(-1);
      if (entry === undefined || (last !== undefined && entry.sequenceNumber !== last.sequenceNumber + 1n)) break;
      taken += entry.length;
      if (taken > this.#bytes.length) break;
      sequence.push(entry);
      at = (at + entry.length) % this.#bytes.length;
    }
    return sequence;
  }

  /** `length` bytes of the ring from `offset`. */
  #slice(offset: number, length: number): Uint8Array {
    const { length: size } = this.#bytes;
    if (offset + length <= size) return this.#bytes.subarray(offset, offset + length);
    const joined = new Uint8Array(length);
    joined.set(this.#bytes.subarray(offset), 0);
    joined.set(this.#bytes.subarray(0, offset + length - size), size - offset);
    return joined;
  }

  /** The entry that begins at `offset`, if a valid one does. */
  #entryAt(offset: number): LogEntry | undefined {
    const at = layout.LogEntryOffsets;
    const position = this.#header.logOffset + offset;
    const first = new Fields(this.#slice(offset, LOG_SECTOR), 'VHDX log entry', this.#file.name, position);
    if (first.ascii(at.signature, 4) !== layout.LOG_ENTRY_SIGNATURE) return undefined;
    if (guid(first, at.logGuid) !== this.#guid) return undefined;
    const length = first.u32(at.entryLength);
    const tail = first.u32(at.tail);
    const sequenceNumber = first.big64(at.sequenceNumber);
    if (length === 0 || length % LOG_SECTOR !== 0 || length > this.#bytes.length) return undefined;
    if (tail % LOG_SECTOR !== 0 || tail >= this.#bytes.length || sequenceNumber === 0n) return undefined;
    this.#budget -= length;
    if (this.#budget < 0) {
      throw new CorruptError('VHDX log', {
        source: this.#file.name,
        position: this.#header.logOffset,
        expected: 'entries that follow each other',
        found: 'entries that overlap',
      });
    }
    const entry = new Fields(this.#slice(offset, length), 'VHDX log entry', this.#file.name, position);
    if (layout.checksumOf(entry.bytes) !== first.u32(at.checksum)) return undefined;
    const writes = entryWrites(entry, sequenceNumber);
    if (writes === undefined) return undefined;
    return {
      offset,
      length,
      tail,
      sequenceNumber,
      writes,
      flushedFileOffset: entry.u64(at.flushedFileOffset, 'FlushedFileOffset'),
      lastFileOffset: entry.u64(at.lastFileOffset, 'LastFileOffset'),
    };
  }
}

/** What the descriptors of an entry ask for; undefined when one of them, or a data sector, is not of this entry. */
function entryWrites(entry: Fields, sequenceNumber: bigint): LogWrite[] | undefined {
  const at = layout.LogDescriptorOffsets;
  const count = entry.u32(layout.LogEntryOffsets.descriptorCount);
  const descriptorBytes = layout.LOG_ENTRY_HEADER_BYTES + count * layout.LOG_DESCRIPTOR_BYTES;
  let sector = Math.ceil(descriptorBytes / LOG_SECTOR) * LOG_SECTOR;
  if (sector > entry.length) return undefined;
  const writes: LogWrite[] = [];
  for (let i = 0; i < count; i++) {
    const from = layout.LOG_ENTRY_HEADER_BYTES + i * layout.LOG_DESCRIPTOR_BYTES;
    const signature = entry.ascii(from + at.signature, 4);
    if (entry.big64(from + at.sequenceNumber) !== sequenceNumber) return undefined;
    const position = entry.u64(from + at.fileOffset, 'descriptor FileOffset');
    if (position % LOG_SECTOR !== 0) return undefined;
    if (signature === layout.LOG_ZERO_SIGNATURE) {
      const length = entry.u64(from + at.zeroLength, 'descriptor ZeroLength');
      if (length % LOG_SECTOR !== 0) return undefined;
      if (length > 0) writes.push({ position, length, bytes: undefined });
    } else if (signature === layout.LOG_DATA_SIGNATURE) {
      if (sector + LOG_SECTOR > entry.length) return undefined;
      const bytes = dataSector(entry, sector, from, sequenceNumber);
      if (bytes === undefined) return undefined;
      writes.push({ position, length: LOG_SECTOR, bytes });
      sector += LOG_SECTOR;
    } else {
      return undefined;
    }
  }
  return writes;
}

/** The 4 KiB of a data sector; its ends, which its own marks take the place of, are kept in its descriptor. */
function dataSector(entry: Fields, sector: number, descriptor: number, sequenceNumber: bigint): Uint8Array | undefined {
  const at = layout.LogDescriptorOffsets;
  if (entry.ascii(sector, 4) !== layout.LOG_SECTOR_SIGNATURE) return undefined;
  const written = (BigInt(entry.u32(sector + 4)) << 32n) | BigInt(entry.u32(sector + LOG_SECTOR - 4));
  if (written !== sequenceNumber) return undefined;
  const bytes = new Uint8Array(LOG_SECTOR);
  bytes.set(entry.slice(descriptor + at.leadingBytes, 8), 0);
  bytes.set(entry.slice(sector + 8, LOG_SECTOR - 12), 8);
  bytes.set(entry.slice(descriptor + at.trailingBytes, 4), LOG_SECTOR - 4);
  return bytes;
}

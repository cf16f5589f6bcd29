/**
 * The two headers of a VHDX ([MS-VHDX] 2.2.2). They are written in turn, so that one of them is whole at any moment: the valid one
 * with the higher sequence number is current, and nothing of the other is used.
 */
import { Fields, hex32 } from '../../binary.ts';
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { utf16 } from '../../text.ts';
import { findingOf } from '../findings.ts';
import type { Finding } from '../image.ts';
import * as layout from './layout.ts';

/** The current header. */
export interface VhdxHeader {
  readonly sequenceNumber: bigint;
  readonly fileWriteGuid: string;
  /** Changes with what the guest sees; children record it. */
  readonly dataWriteGuid: string;
  /** Undefined where there is nothing to replay. */
  readonly logGuid: string | undefined;
  readonly logVersion: number;
  readonly version: number;
  readonly logLength: number;
  readonly logOffset: number;
}

export interface VhdxHeaders {
  readonly header: VhdxHeader;
  /** Name and version of the program that made the file, as it wrote it. */
  readonly creator: string;
  /** What is wrong with the headers and could be done without. */
  readonly findings: readonly Finding[];
}

/**
 * Reads the file type identifier and the headers. @throws CorruptError when the identifier is not there or no header is valid,
 * UnsupportedError for another version of the format, IoError.
 */
export async function readHeaders(file: ByteSource): Promise<VhdxHeaders> {
  const creator = await readFileType(file);
  const parsed = [];
  for (const position of layout.HEADER_POSITIONS) {
    parsed.push(parseHeader(await file.read(position, layout.HEADER_BYTES), file.name, position));
  }
  const { current, findings } = chooseHeader(parsed[0]!, parsed[1]!, file);
  const header = readHeader(current);
  if (header.version !== layout.HEADER_VERSION) {
    throw new UnsupportedError(`VHDX version ${header.version}`, { source: file.name });
  }
  return { header, creator, findings };
}

async function readFileType(file: ByteSource): Promise<string> {
  const bytes = await file.read(0, Math.min(layout.FILE_TYPE_BYTES, file.size));
  const fields = new Fields(bytes, 'VHDX file type identifier', file.name, 0);
  const signature = bytes.length < 8 ? bytes : fields.slice(0, 8);
  const found = bytes.length === 0 ? 'an empty file' : Buffer.from(signature).toString('hex');
  const expected = Buffer.from(layout.FILE_TYPE_SIGNATURE, 'latin1');
  fields.require(expected.equals(signature), '', 0, `"${layout.FILE_TYPE_SIGNATURE}"`, found);
  if (file.size < layout.HEADER_SECTION_BYTES) {
    throw new CorruptError('VHDX header section', {
      source: file.name,
      position: 0,
      expected: `${layout.HEADER_SECTION_BYTES} bytes`,
      found: `a file of ${file.size} bytes`,
    });
  }
  return utf16(fields.slice(8, layout.FILE_TYPE_BYTES - 8));
}

type Parsed = { readonly fields: Fields } | { readonly problem: CorruptError };

function parseHeader(bytes: Uint8Array, source: string, position: number): Parsed {
  const fields = new Fields(bytes, 'VHDX header', source, position);
  const at = layout.HeaderOffsets;
  const signature = fields.ascii(at.signature, 4);
  if (signature !== layout.HEADER_SIGNATURE) {
    const found = Buffer.from(fields.slice(at.signature, 4)).toString('hex');
    return { problem: fields.corrupt('Signature', at.signature, `"${layout.HEADER_SIGNATURE}"`, found) };
  }
  const checksum = layout.checksumOf(bytes);
  const recorded = fields.u32(at.checksum);
  if (checksum !== recorded) {
    return { problem: fields.corrupt('Checksum', at.checksum, hex32(checksum), hex32(recorded)) };
  }
  return { fields };
}

function chooseHeader(first: Parsed, second: Parsed, file: ByteSource): { current: Fields; findings: Finding[] } {
  if ('problem' in first) {
    if ('problem' in second) {
      throw new CorruptError('VHDX headers', {
        source: file.name,
        position: layout.HEADER_POSITIONS[0],
        expected: 'one that is valid',
        found: `none: ${first.problem.message}; ${second.problem.message}`,
      });
    }
    return { current: second.fields, findings: [headerDamaged(first.problem, 'second')] };
  }
  if ('problem' in second) return { current: first.fields, findings: [headerDamaged(second.problem, 'first')] };
  const at = layout.HeaderOffsets.sequenceNumber;
  const [one, two] = [first.fields.big64(at), second.fields.big64(at)];
  if (one !== two) return { current: one > two ? first.fields : second.fields, findings: [] };
  if (Buffer.compare(first.fields.bytes, second.fields.bytes) !== 0) {
    throw second.fields.corrupt('SequenceNumber', at, 'another than that of the first header', String(two));
  }
  // Some programs write the same header twice; there is nothing to choose between.
  return { current: first.fields, findings: [] };
}

function headerDamaged(problem: CorruptError, other: string): Finding {
  return findingOf(
    problem,
    'header-damaged',
    'damaged',
    `The ${other} header is used in its place. If the damaged one was the newer, the disk may be that of an earlier moment.`,
  );
}

function readHeader(fields: Fields): VhdxHeader {
  const at = layout.HeaderOffsets;
  const logGuid = guid(fields, at.logGuid);
  return {
    sequenceNumber: fields.big64(at.sequenceNumber),
    fileWriteGuid: guid(fields, at.fileWriteGuid),
    dataWriteGuid: guid(fields, at.dataWriteGuid),
    logGuid: logGuid === layout.NO_GUID ? undefined : logGuid,
    logVersion: fields.u16(at.logVersion),
    version: fields.u16(at.version),
    logLength: fields.u32(at.logLength),
    logOffset: fields.u64(at.logOffset, 'LogOffset'),
  };
}

/** A GUID in lower-case digits, as identities are compared. */
export function guid(fields: Fields, offset: number): string {
  return fields.guid(offset).toLowerCase();
}

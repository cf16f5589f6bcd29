/** From a file to the archive it is, by its content. */
import { basename } from 'node:path';
import { UnsupportedError } from '../../errors.ts';
import {
  type Archive,
  type ArchiveFinding,
  type ArchiveOptions,
  isDiskName,
  type OpenFile,
  withoutCompression,
} from './archive.ts';
import { buildGzipIndex } from './gzip-index.ts';
import { GzipSource } from './gzip-source.ts';
import { type IndexPlace, loadIndex, type StoredIndex, storeIndex } from './index-cache.ts';
import { SingleArchive } from './single-archive.ts';
import { TarArchive } from './tar-archive.ts';
import { ScanTap, scanSource } from './tar-drive.ts';
import { isTarHeader, TAR_BLOCK } from './tar-header.ts';
import { scanTar } from './tar-scan.ts';

/** Compressions and archives that are recognised so that they can be refused by name; their first bytes in hexadecimal digits. */
const REFUSED: readonly (readonly [string, string])[] = [
  ['28b52ffd', 'an archive compressed with zstd'],
  ['fd377a585a00', 'an archive compressed with xz'],
  ['425a68', 'an archive compressed with bzip2'],
  ['04224d18', 'an archive compressed with LZ4'],
  ['4c5a4950', 'an archive compressed with lzip'],
  ['1f9d', 'an archive compressed with compress (.Z)'],
  ['504b0304', 'a ZIP archive'],
  ['377abcaf271c', 'a 7z archive'],
  ['526172211a07', 'a RAR archive'],
];

export interface OpenArchiveOptions extends ArchiveOptions {
  /** Where the index of a compressed archive is kept. */
  readonly cache?: IndexPlace | undefined;
}

/**
 * Reads the archive's index: of a tar its headers, of a compressed file all of it, once.
 * @returns undefined when the file is no archive; then `file` stays open. Otherwise the archive owns it.
 * @throws CorruptError, UnsupportedError, IoError, CancelledError; then `file` is closed.
 */
export async function openArchive(file: OpenFile, options: OpenArchiveOptions = {}): Promise<Archive | undefined> {
  try {
    const name = basename(file.path);
    // What a disk begins with, its guest wrote.
    const disk = isDiskName(name);
    if (disk && options.compressed !== true) return undefined;
    const head = await file.read(0, Math.min(TAR_BLOCK, file.size));
    if (disk && !(head[0] === 0x1f && head[1] === 0x8b)) return undefined;
    if (head[0] === 0x1f && head[1] === 0x8b)
      return await openGzip(file, isDiskName(withoutCompression(name)), options);
    refuseByName(head, file);
    if (head.length < TAR_BLOCK || !isTarHeader(head)) return undefined;
    const index = await scanSource(scanTar(file.name), file, options);
    return index === undefined ? undefined : new TarArchive('tar', file.path, file, index, index.findings);
  } catch (error) {
    await file.close();
    throw error;
  }
}

function refuseByName(head: Uint8Array, file: OpenFile): void {
  const hex = Buffer.from(head.subarray(0, 8)).toString('hex');
  const refused = REFUSED.find(([magic]) => hex.startsWith(magic));
  if (refused !== undefined) throw new UnsupportedError(refused[1], { source: file.name });
}

/** @param single the name says that the content is a disk: it is not looked into. */
async function openGzip(file: OpenFile, single: boolean, options: OpenArchiveOptions): Promise<Archive> {
  const findings: ArchiveFinding[] = [];
  const known = options.cache === undefined ? undefined : await loadIndex(options.cache, file.size);
  const index = known ?? (await readWhole(file, single, options));
  if (known === undefined && options.cache !== undefined) {
    const notKept = await storeIndex(options.cache, index, file);
    if (notKept !== undefined) findings.push(notKept);
  }
  const { places, tar } = index;
  if (places.trailing > 0) findings.push(trailingBytes(file, places.trailing));
  const stream = new GzipSource(file, places);
  if (tar === undefined) return new SingleArchive(file.path, basename(file.path), file.modified, stream, findings);
  return new TarArchive('tar.gz', file.path, stream, tar, [...findings, ...tar.findings]);
}

async function readWhole(file: OpenFile, single: boolean, options: OpenArchiveOptions): Promise<StoredIndex> {
  if (single) return { places: await buildGzipIndex(file, options), tar: undefined };
  const tap = new ScanTap(scanTar(file.name));
  const places = await buildGzipIndex(file, { ...options, onContent: (bytes, offset) => tap.push(bytes, offset) });
  return { places, tar: tap.end(places.size, file.name) };
}

function trailingBytes(file: OpenFile, count: number): ArchiveFinding {
  return {
    severity: 'suspicious',
    code: 'gzip-trailing-bytes',
    message: `${count} bytes follow the compressed content of ${file.name}; they are not read, as gzip does`,
    source: file.name,
    structure: 'Gzip stream',
    position: file.size - count,
    expected: 'the end of the file',
    found: `${count} bytes`,
  };
}

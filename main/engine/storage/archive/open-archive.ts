/** From a file to the archive it is, by its content. */
import type { LocalFile } from '../local-file.ts';
import type { Archive } from './archive.ts';

/**
 * Reads the archive's index.
 * @returns undefined for what is no archive; then `file` stays open. Otherwise the archive owns it.
 * @throws CorruptError, UnsupportedError, IoError; then `file` is closed.
 */
export async function openArchive(_file: LocalFile): Promise<Archive | undefined> {
  return undefined;
}

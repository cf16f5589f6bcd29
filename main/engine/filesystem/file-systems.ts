/**
 * The file systems that are read here, in the order in which a volume is probed for them. A new one is added to this list
 * and nowhere else.
 */
import { isZero } from '../binary.ts';
import { UnsupportedError } from '../errors.ts';
import type { ByteSource } from '../storage/byte-source.ts';
import { extFileSystem } from './ext/ext.ts';
import { hasBackupSuperblock } from './ext/superblock.ts';
import { fatFileSystem } from './fat/fat.ts';
import type { FileSystem, FileSystemType } from './file-system.ts';
import { disguisedContent, recognisedByPrefix, recognisedElsewhere } from './signatures.ts';

/** As many of a volume's first bytes as detectors see. */
export const prefixLength = 128 << 10;

export const fileSystemTypes: readonly FileSystemType[] = [extFileSystem, fatFileSystem];

/**
 * Opens the file system of a volume. Detecting is lenient, opening is strict: once a type claims the volume, its verdict
 * stands.
 *
 * @throws UnsupportedError that names what the volume holds when it is nothing that is read here (`XFS`, `LUKS encryption`),
 * or says that it is empty; CorruptError when what it holds is damaged beyond reading; IoError.
 */
export async function openFileSystem(volume: ByteSource): Promise<FileSystem> {
  const prefix = await volume.read(0, Math.min(prefixLength, volume.size));
  const disguised = disguisedContent(prefix);
  if (disguised !== undefined) throw notRead(disguised, volume);
  for (const type of fileSystemTypes) {
    if (type.detect(prefix, volume.size)) return type.open(volume);
  }
  const name = recognisedByPrefix(prefix) ?? (await recognisedElsewhere(volume));
  if (name !== undefined) throw notRead(name, volume);
  // Nothing at its beginning: an ext file system whose first blocks were overwritten still has copies of its superblock.
  if (await hasBackupSuperblock(volume)) return extFileSystem.open(volume);
  throw new UnsupportedError(
    isZero(prefix) ? 'an empty volume (nothing but zeros at its beginning)' : 'unknown content (no known file system)',
    { source: volume.name, content: isZero(prefix) ? 'empty' : 'unknown' },
  );
}

function notRead(name: string, volume: ByteSource): UnsupportedError {
  return new UnsupportedError(name, { source: volume.name, content: 'recognised' });
}

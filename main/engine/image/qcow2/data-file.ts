/** The external data file of a QCOW2 image: guest clusters at the places they have on the disk, the map in the image. */
import { CorruptError, NotFoundError, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { dataFileName } from './backing.ts';
import type { Qcow2Header } from './header.ts';

/**
 * Opens the data file that the image names, looked for only inside the opened folder.
 * @throws NotFoundError when it is not there, UnsupportedError when it has no name or is no file, DeniedError, IoError.
 */
export function openDataFile(file: OpenFile, header: Qcow2Header, folder: Confinement): OpenFile {
  if (header.dataFile === undefined) {
    throw new UnsupportedError('QCOW2 external data file that the image does not name', { source: file.name });
  }
  const recorded = dataFileName(header.dataFile, file.name);
  let path: string;
  try {
    path = folder.resolveRecorded(recorded, file.path);
  } catch (error) {
    if (!(error instanceof NotFoundError)) throw error;
    throw new NotFoundError(`The external data file "${recorded}" of ${file.name}`, {
      source: file.name,
      recorded,
      remedy:
        'The image holds only the map; put the data file beside it under the name that it records, then try again.',
    });
  }
  if (path === file.path) {
    throw new CorruptError('QCOW2 external data file name', {
      source: file.name,
      expected: 'another file than the image itself',
      found: recorded,
    });
  }
  return folder.open(path);
}

/** Opens what the extent lines of a descriptor name: looks the files up inside the opened folder and reads their headers. */
import { CorruptError, DeniedError, NotFoundError, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { CowdExtent, readCowdHeader } from './cowd-extent.ts';
import type { Descriptor, DescriptorExtent } from './descriptor.ts';
import { type Extent, NoAccessExtent, ZeroExtent } from './extent.ts';
import { FlatExtent } from './flat-extent.ts';
import { SECTOR, vmdkMagic } from './layout.ts';
import { readSeSparseHeader, SeSparseExtent } from './se-sparse-extent.ts';
import { SparseExtent } from './sparse-extent.ts';
import { readSparseHeader } from './sparse-header.ts';

/** Extent types that this version names but does not read. */
const REFUSED_TYPES: Readonly<Record<string, string>> = {
  VMFSRDM: 'VMDK vmfsRDM (raw device mapping)',
  VMFSRDMP: 'VMDK vmfsPassthroughRDM (raw device mapping)',
  VMFSRAW: 'VMDK vmfsRaw (raw device)',
  VSANSPARSE: 'VMDK vsanSparse',
};

/**
 * Opens every extent of a separate descriptor, in order. `path` is the real path of the descriptor file.
 * @throws NotFoundError for a missing file, CorruptError, UnsupportedError, DeniedError, IoError; nothing stays open then.
 */
export async function openExtents(descriptor: Descriptor, path: string, folder: Confinement): Promise<Extent[]> {
  const extents: Extent[] = [];
  try {
    let base = 0;
    for (const line of descriptor.extents) {
      const extent = await openExtent(descriptor, line, base, path, folder);
      extents.push(extent);
      base += extent.size;
    }
    return extents;
  } catch (error) {
    await Promise.all(extents.map((extent) => extent.file?.close()));
    throw error;
  }
}

async function openExtent(
  descriptor: Descriptor,
  line: DescriptorExtent,
  base: number,
  path: string,
  folder: Confinement,
): Promise<Extent> {
  const size = line.sectors * SECTOR;
  if (line.access === 'NOACCESS') return new NoAccessExtent(size, line.name ?? line.type, descriptor.source);
  if (line.type === 'ZERO') return new ZeroExtent(size);
  const refused = REFUSED_TYPES[line.type];
  if (refused !== undefined) throw new UnsupportedError(refused, { source: descriptor.source });
  const name = line.name ?? '';
  refuseElsewhere(name, descriptor.source);
  const file = findFile(descriptor, name, path, folder);
  try {
    switch (line.type) {
      case 'FLAT':
      case 'VMFS':
        return new FlatExtent(file, line.offset * SECTOR, size);
      case 'SPARSE':
      case 'VMFSSPARSE':
      case 'SESPARSE':
        return await openSparse(file, size, base);
      default:
        throw new UnsupportedError(`VMDK extent type ${line.type}`, { source: descriptor.source });
    }
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Extents that are no files: a device of the host, an object of a vSAN or vVol datastore. */
function refuseElsewhere(name: string, source: string): void {
  if (/^(\\\\[.?]\\|\/dev\/)/.test(name)) {
    throw new UnsupportedError('VMDK on a physical device', { source, recorded: name });
  }
  const scheme = /^(vsan|vvol|rfc4122\.[^:/]*|objtype):\/\//i.exec(name);
  if (scheme !== null) {
    throw new UnsupportedError(`VMDK whose extent is a ${scheme[1]!.toLowerCase()} object`, { source, recorded: name });
  }
}

function findFile(descriptor: Descriptor, name: string, path: string, folder: Confinement): OpenFile {
  let found: string;
  try {
    found = folder.resolveRecorded(name, path);
  } catch (error) {
    if (error instanceof NotFoundError) {
      throw new NotFoundError(`The extent "${name}" of ${descriptor.source}`, {
        recorded: name,
        source: descriptor.source,
      });
    }
    throw error;
  }
  if (found === path) {
    throw new DeniedError(`The extent "${name}"`, `${descriptor.source} names itself as its extent`, {
      recorded: name,
      source: descriptor.source,
    });
  }
  return folder.open(found);
}

/** SPARSE, VMFSSPARSE and SESPARSE are told apart by what the file is: writers have mixed the words. */
async function openSparse(file: OpenFile, size: number, base: number): Promise<Extent> {
  const prefix = await file.read(0, Math.min(8, file.size));
  switch (vmdkMagic(prefix)) {
    case 'sparse':
      return new SparseExtent(file, await readSparseHeader(file), size, base);
    case 'cowd':
      return new CowdExtent(file, await readCowdHeader(file), size);
    case 'sesparse':
      return new SeSparseExtent(file, await readSeSparseHeader(file), size);
    default:
      throw new CorruptError('VMDK sparse extent magic number', {
        source: file.name,
        position: 0,
        expected: '"KDMV", "COWD" or that of seSparse',
        found: prefix.length === 0 ? 'an empty file' : Buffer.from(prefix.subarray(0, 4)).toString('hex'),
      });
  }
}

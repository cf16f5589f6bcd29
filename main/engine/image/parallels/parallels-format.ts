/** Parallels disks as the registry sees them: what is opened by which name. */
import { basename } from 'node:path';
import { ChainliftError, CorruptError, DeniedError, NotFoundError, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import type { Confinement } from '../../storage/confinement.ts';
import type { Finding, ImageFormat, ImageLayer, InternalSnapshot, LayerFile, ParentClaim } from '../image.ts';
import { isRawByName } from '../raw/raw-layer.ts';
import {
  type DescriptorImage,
  type DescriptorStorage,
  type DiskDescriptor,
  isDescriptorName,
  readDescriptor,
} from './descriptor.ts';
import { HEADER_BYTES, magicOf, readHeader, SECTOR } from './layout.ts';
import { closeAll, ParallelsLayer, tooSmall } from './parallels-layer.ts';
import { ExpandingStorage, PlainStorage, type Storage } from './storage.ts';

/** Opens a DiskDescriptor.xml, an image that one beside it names, or an image by itself. */
async function openParallels(path: string, folder: Confinement, snapshot?: string): Promise<ImageLayer> {
  if (isDescriptorName(basename(path))) return openSnapshot(path, folder, snapshot);
  if (snapshot !== undefined) throw new NotFoundError(`Snapshot "${snapshot}" of ${folder.label(path)}`);
  const descriptorPath = descriptorBeside(path, folder);
  if (descriptorPath !== undefined) {
    const descriptor = await descriptorAt(descriptorPath, folder);
    const owner = ownerOf(path, descriptor, descriptorPath, folder);
    if (owner !== undefined) return openParts(path, owner, descriptor, descriptorPath, folder);
  }
  return openAlone(path, folder);
}

async function descriptorAt(path: string, folder: Confinement): Promise<DiskDescriptor> {
  const file = folder.open(path);
  try {
    return await readDescriptor(file);
  } finally {
    await file.close();
  }
}

/** DiskDescriptor.xml in the folder of an image; undefined where there is none. */
function descriptorBeside(path: string, folder: Confinement): string | undefined {
  try {
    return folder.resolveRecorded('DiskDescriptor.xml', path);
  } catch (error) {
    if (error instanceof NotFoundError) return undefined;
    throw error;
  }
}

/** GUID of the image at `path` in the descriptor; undefined when it names no such file. @throws UnsupportedError for a part. */
function ownerOf(
  path: string,
  descriptor: DiskDescriptor,
  descriptorPath: string,
  folder: Confinement,
): string | undefined {
  for (const [index, storage] of descriptor.storages.entries()) {
    for (const image of storage.images) {
      if (basename(image.file.replaceAll('\\', '/')) !== basename(path)) continue;
      if (placeOf(image, descriptorPath, folder) !== path) continue;
      if (index === 0) return image.guid;
      throw new UnsupportedError(
        `one part of a split Parallels disk opened by itself; open ${folder.label(descriptorPath)} instead`,
        { source: folder.label(path), role: 'extent', descriptor: folder.label(descriptorPath) },
      );
    }
  }
  return undefined;
}

function placeOf(image: DescriptorImage, descriptorPath: string, folder: Confinement): string | undefined {
  try {
    return folder.resolveRecorded(image.file, descriptorPath);
  } catch (error) {
    // Not there, or elsewhere: then it is not the file that is being opened.
    if (error instanceof ChainliftError) return undefined;
    throw error;
  }
}

async function openSnapshot(path: string, folder: Confinement, snapshot: string | undefined): Promise<ImageLayer> {
  const descriptor = await descriptorAt(path, folder);
  if (snapshot === undefined) return openParts(path, descriptor.top, descriptor, path, folder);
  if (!snapshotsOf(descriptor).some(({ id }) => id === snapshot)) {
    throw new NotFoundError(`Snapshot "${snapshot}" of ${folder.label(path)}`, {
      choices: snapshotsOf(descriptor).map(({ id }) => id),
    });
  }
  return openParts(path, snapshot, descriptor, path, folder);
}

/** The layer that the images of one GUID make. @param path what it was opened by. */
async function openParts(
  path: string,
  guid: string,
  descriptor: DiskDescriptor,
  descriptorPath: string,
  folder: Confinement,
): Promise<ImageLayer> {
  const parent = parentOf(guid, descriptor);
  const storages: Storage[] = [];
  const opened: OpenFile[] = [];
  const findings: Finding[] = [];
  try {
    for (const part of descriptor.storages) {
      const file = openImage(imageOf(part, guid, descriptor), descriptorPath, folder);
      const twice = opened.some(({ path: other }) => other === file.path);
      opened.push(file);
      if (twice) throw usedTwice(file, descriptor);
      storages.push(await storageOf(file, part, guid, descriptor, parent !== undefined, findings));
    }
    const byDescriptor = path === descriptorPath;
    const isTop = guid === descriptor.top;
    const label = folder.label(path);
    return new ParallelsLayer({
      name: byDescriptor && !isTop ? `${label}/@${guid}` : label,
      // A snapshot is told by its first image, which opens as it.
      path: byDescriptor && !isTop ? opened[0]!.path : path,
      storages,
      files: filesOf(opened, byDescriptor && isTop ? { path, size: descriptor.size } : undefined, folder),
      id: guid,
      parent,
      ...(byDescriptor && isTop ? { snapshots: snapshotsOf(descriptor) } : {}),
      properties: propertiesOf(guid, descriptor, storages),
      findings,
    });
  } catch (error) {
    await closeAll(opened);
    throw error;
  }
}

function usedTwice(file: OpenFile, descriptor: DiskDescriptor): CorruptError {
  return new CorruptError('Parallels DiskDescriptor.xml Image File', {
    source: descriptor.source,
    expected: 'a file of its own for each part of the disk',
    found: `${file.name} for two`,
  });
}

function imageOf(storage: DescriptorStorage, guid: string, descriptor: DiskDescriptor): DescriptorImage {
  const image = storage.images.find((candidate) => candidate.guid === guid);
  if (image !== undefined) return image;
  throw new CorruptError('Parallels DiskDescriptor.xml Storage', {
    source: descriptor.source,
    expected: `an image {${guid}} of the sectors from ${storage.start}`,
    found: storage.images
      .slice(0, 8)
      .map((other) => `{${other.guid}}`)
      .join(', '),
  });
}

function openImage(image: DescriptorImage, descriptorPath: string, folder: Confinement): OpenFile {
  const source = folder.label(descriptorPath);
  let path: string;
  try {
    path = folder.resolveRecorded(image.file, descriptorPath);
  } catch (error) {
    if (!(error instanceof NotFoundError)) throw error;
    throw new NotFoundError(`The image "${image.file}" of ${source}`, { recorded: image.file, source });
  }
  if (path === descriptorPath) {
    throw new DeniedError(`The image "${image.file}"`, `${source} names itself as its image`, { source });
  }
  return folder.open(path);
}

async function storageOf(
  file: OpenFile,
  part: DescriptorStorage,
  guid: string,
  descriptor: DiskDescriptor,
  hasParent: boolean,
  findings: Finding[],
): Promise<Storage> {
  const size = (part.end - part.start) * SECTOR;
  const { type } = imageOf(part, guid, descriptor);
  if (type === 'Plain') {
    // A plain image answers for every byte: over a parent it would hide all of it.
    if (hasParent)
      throw new UnsupportedError('Parallels HDD with a plain image over a snapshot', { source: file.name });
    return new PlainStorage(file, size);
  }
  const header = await readHeader(file);
  if (header.diskSize < size) throw tooSmall(file, size, header.diskSize);
  if (header.diskSize > size) findings.push(sizeDiffers(file, size, header.diskSize));
  if (part.blockSectors !== 0 && part.blockSectors * SECTOR !== header.clusterBytes) {
    findings.push(clusterDiffers(file, part.blockSectors * SECTOR, header.clusterBytes));
  }
  return new ExpandingStorage(file, header, size, hasParent);
}

function sizeDiffers(file: OpenFile, expected: number, found: number): Finding {
  return {
    severity: 'note',
    code: 'capacity-differs',
    message: `${file.name} says it holds ${found} bytes, its descriptor says ${expected}; the descriptor is followed`,
    source: file.name,
    structure: 'Parallels header nb_sectors',
    position: 36,
    expected: expected / SECTOR,
    found: found / SECTOR,
  };
}

function clusterDiffers(file: OpenFile, expected: number, found: number): Finding {
  return {
    severity: 'suspicious',
    code: 'cluster-size-differs',
    message: `${file.name} has clusters of ${found} bytes, its descriptor says ${expected}; it reads as its own header says`,
    source: file.name,
    structure: 'Parallels header tracks',
    position: 28,
    expected,
    found,
    remedy: 'Check that the image and the descriptor are of one disk.',
  };
}

/** The claim of a snapshot: its parent's first image, which opens as that parent. */
function parentOf(guid: string, descriptor: DiskDescriptor): ParentClaim | undefined {
  const { shots, source } = descriptor;
  // A disk that was never snapshotted may come without a list of snapshots.
  if (shots.size > 0 && !shots.has(guid)) {
    throw new CorruptError('Parallels DiskDescriptor.xml Snapshots', {
      source,
      expected: `the parent of {${guid}}`,
      found: 'no such snapshot',
    });
  }
  const parent = shots.get(guid);
  if (parent === undefined) return undefined;
  return { recorded: imageOf(descriptor.storages[0]!, parent, descriptor).file, id: parent, format: 'parallels' };
}

/** Points before the present one, parents before children. */
function snapshotsOf(descriptor: DiskDescriptor): InternalSnapshot[] {
  const { shots, storages, sectors, top } = descriptor;
  const held = new Set(storages[0]!.images.map(({ guid }) => guid));
  const depth = (guid: string): number => {
    let steps = 0;
    for (let at = shots.get(guid); at !== undefined && steps <= shots.size; at = shots.get(at)) steps++;
    return steps;
  };
  return [...shots.keys()]
    .filter((guid) => guid !== top && held.has(guid))
    .map((guid) => ({ guid, steps: depth(guid) }))
    .sort((a, b) => a.steps - b.steps)
    .map(({ guid }) => ({ id: guid, name: `{${guid}}`, stateBytes: 0, virtualSize: sectors * SECTOR }));
}

function filesOf(
  opened: readonly OpenFile[],
  descriptor: { readonly path: string; readonly size: number } | undefined,
  folder: Confinement,
): LayerFile[] {
  const files: LayerFile[] = [];
  if (descriptor !== undefined) {
    files.push({
      role: 'descriptor',
      name: folder.label(descriptor.path),
      path: descriptor.path,
      size: descriptor.size,
    });
  }
  for (const { path, size } of opened) {
    files.push({ role: files.length === 0 ? 'image' : 'extent', name: folder.label(path), path, size });
  }
  return files;
}

function propertiesOf(
  guid: string,
  descriptor: DiskDescriptor,
  storages: readonly Storage[],
): Record<string, string | number | boolean> {
  const first = storages.find((storage) => storage instanceof ExpandingStorage);
  return {
    ...(descriptor.name === undefined ? {} : { name: descriptor.name }),
    guid,
    storages: storages.length,
    snapshots: descriptor.shots.size,
    ...(first === undefined ? {} : { clusterSize: first.header.clusterBytes, magic: first.header.magic }),
  };
}

/** An expandable image that no descriptor names. */
async function openAlone(path: string, folder: Confinement): Promise<ImageLayer> {
  const file = folder.open(path);
  try {
    const header = await readHeader(file);
    const findings: Finding[] = [];
    if (/\.hds$/i.test(path)) {
      findings.push({
        severity: 'suspicious',
        code: 'descriptor-missing',
        message: `${file.name} is an image of a .hdd folder, and no DiskDescriptor.xml beside it names it: whether it stands on a snapshot is not known`,
        source: file.name,
        structure: 'Parallels DiskDescriptor.xml',
        expected: 'a descriptor that names it',
        found: 'none',
        remedy: 'Put the whole .hdd folder back together and open its DiskDescriptor.xml.',
      });
    }
    return new ParallelsLayer({
      name: file.name,
      path: file.path,
      storages: [new ExpandingStorage(file, header, header.diskSize, false)],
      files: [{ role: 'image', name: file.name, path: file.path, size: file.size }],
      id: undefined,
      parent: undefined,
      properties: { clusterSize: header.clusterBytes, magic: header.magic },
      findings,
    });
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Names of images whose first bytes may be their guest's (a fixed VHD's are): a magic number there means nothing. */
const OTHERS = /\.(a?vhdx?|vmdk|vdi)$/i;

/**
 * True for the magic numbers, for a DiskDescriptor.xml, and for `.hds` whatever it holds: what a plain image begins with its
 * guest wrote, and only the descriptor says that it is one.
 */
function detectParallels(prefix: Uint8Array, fileName: string): boolean {
  if (isRawByName(fileName)) return false;
  if (isDescriptorName(fileName) || /\.hds$/i.test(fileName)) return true;
  // Other programs keep raw disks as .hdd, but none without a sector in it.
  if (/\.hdd$/i.test(fileName) && prefix.length < HEADER_BYTES) return true;
  return !OTHERS.test(fileName) && magicOf(prefix) !== undefined;
}

export const parallelsFormat: ImageFormat = { name: 'parallels', detect: detectParallels, open: openParallels };

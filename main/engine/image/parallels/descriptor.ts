/**
 * DiskDescriptor.xml of a Parallels disk (`.hdd`, a folder): which image files hold which part of the disk at which snapshot, and
 * the tree of snapshots. QEMU docs/interop/prl-xml.rst (written by Virtuozzo); OpenVZ ploop lib/xml.c.
 *
 * The images themselves record nothing of their parents: all that is known of the tree is here.
 */
import { CorruptError, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { uuidIn } from '../../text.ts';
import { childOf, childrenOf, descend, readXml, type XmlElement } from '../../xml.ts';

/** Real ones have some KiB. */
const MAX_BYTES = 4 << 20;
/** Storages, images and snapshots of one disk, each. */
const MAX_COUNT = 4_096;
/** The top image where nothing else is said. */
export const TOP_GUID = '5fbaabe3-6958-40ff-92a7-860e329aab41';
const NONE = '00000000-0000-0000-0000-000000000000';
const STRUCTURE = 'Parallels DiskDescriptor.xml';

export interface DescriptorImage {
  readonly guid: string;
  readonly type: 'Plain' | 'Compressed';
  /** As recorded. */
  readonly file: string;
}

export interface DescriptorStorage {
  /** Sectors of 512 bytes. */
  readonly start: number;
  readonly end: number;
  /** Sectors of a cluster; 0 where it is not said. */
  readonly blockSectors: number;
  readonly images: readonly DescriptorImage[];
}

export interface DiskDescriptor {
  /** What errors call the file. */
  readonly source: string;
  /** Bytes of the file. */
  readonly size: number;
  readonly name: string | undefined;
  /** Sectors of 512 bytes. */
  readonly sectors: number;
  /** In the order of the disk, without gaps. */
  readonly storages: readonly DescriptorStorage[];
  /** Snapshot -> its parent; undefined for a root. */
  readonly shots: ReadonlyMap<string, string | undefined>;
  /** The image that the guest wrote to last. */
  readonly top: string;
}

/** True for the name that every such file has. */
export function isDescriptorName(fileName: string): boolean {
  return /^DiskDescriptor\.xml$/i.test(fileName);
}

/** @throws CorruptError, UnsupportedError, IoError. */
export async function readDescriptor(file: OpenFile): Promise<DiskDescriptor> {
  const root = await readXml(file, STRUCTURE, MAX_BYTES);
  const source = file.name;
  if (root.name !== 'Parallels_disk_image') throw corrupt(source, 'root element', 'Parallels_disk_image', root.name);
  const version = root.attributes.get('Version') ?? '';
  if (version !== '1.0') {
    throw new UnsupportedError(`Parallels DiskDescriptor.xml of version "${version.slice(0, 32)}"`, { source });
  }
  const parameters = childOf(root, 'Disk_Parameters');
  refuseFeatures(parameters, source);
  const sectors = numberOf(parameters, 'Disk_size', source);
  const storages = storagesOf(childOf(root, 'StorageData'), sectors, source);
  const shots = shotsOf(childOf(root, 'Snapshots'), source);
  return {
    source,
    size: file.size,
    name: childOf(parameters, 'Name')?.text.slice(0, 256) || undefined,
    sectors,
    storages,
    shots,
    top: topOf(childOf(root, 'Snapshots'), storages, shots, source),
  };
}

function corrupt(source: string, field: string, expected: string | number, found: string | number): CorruptError {
  return new CorruptError(`${STRUCTURE} ${field}`, { source, expected, found });
}

function refuseFeatures(parameters: XmlElement | undefined, source: string): void {
  const text = (...names: string[]): string => descend(parameters, ...names)?.text ?? '';
  const engine = text('Encryption', 'Engine').replace(/[{}]/g, '');
  if ((engine !== '' && engine !== NONE) || text('Encryption', 'Data') !== '') {
    throw new UnsupportedError('Parallels HDD encryption', { source });
  }
  const padding = text('Padding');
  // What it means is written down nowhere; the specification says to leave such disks alone.
  if (padding !== '' && padding !== '0') throw new UnsupportedError('Parallels HDD with padding', { source });
  const sector = text('LogicSectorSize');
  if (sector !== '' && sector !== '512') {
    throw new UnsupportedError(`Parallels HDD with sectors of "${sector.slice(0, 16)}" bytes`, { source });
  }
}

/** @throws CorruptError unless the child is a number of sectors that fits a disk. */
function numberOf(parent: XmlElement | undefined, name: string, source: string): number {
  const text = childOf(parent, name)?.text;
  const value = text !== undefined && /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= Math.floor(Number.MAX_SAFE_INTEGER / 512))) {
    throw corrupt(source, name, 'a number of sectors', text === undefined ? 'nothing' : text.slice(0, 64));
  }
  return value;
}

function storagesOf(data: XmlElement | undefined, sectors: number, source: string): DescriptorStorage[] {
  const elements = childrenOf(data, 'Storage');
  if (elements.length === 0 || elements.length > MAX_COUNT) {
    throw corrupt(source, 'StorageData', `1 to ${MAX_COUNT} storages`, elements.length);
  }
  const storages = elements
    .map((element): DescriptorStorage => {
      const images = childrenOf(element, 'Image');
      if (images.length === 0 || images.length > MAX_COUNT) {
        throw corrupt(source, 'Storage', `1 to ${MAX_COUNT} images`, images.length);
      }
      return {
        start: numberOf(element, 'Start', source),
        end: numberOf(element, 'End', source),
        blockSectors: childOf(element, 'Blocksize') === undefined ? 0 : numberOf(element, 'Blocksize', source),
        images: images.map((image) => imageOf(image, source)),
      };
    })
    .sort((a, b) => a.start - b.start);
  let end = 0;
  for (const storage of storages) {
    if (storage.start !== end) throw corrupt(source, 'Storage Start', end, storage.start);
    if (storage.end <= storage.start) throw corrupt(source, 'Storage End', `more than ${storage.start}`, storage.end);
    end = storage.end;
  }
  if (end !== sectors) throw corrupt(source, 'Storage End', `${sectors}, the size of the disk`, end);
  return storages;
}

function imageOf(element: XmlElement, source: string): DescriptorImage {
  const type = childOf(element, 'Type')?.text ?? '';
  if (type !== 'Plain' && type !== 'Compressed') {
    throw new UnsupportedError(`Parallels HDD image of type "${type.slice(0, 32)}"`, { source });
  }
  const file = childOf(element, 'File')?.text ?? '';
  if (file === '' || file.length > 4_096) throw corrupt(source, 'Image File', 'a file name', `"${file.slice(0, 64)}"`);
  return { guid: guidOf(element, 'GUID', source), type, file };
}

function guidOf(parent: XmlElement, name: string, source: string): string {
  const text = childOf(parent, name)?.text ?? '';
  const guid = uuidIn(text);
  if (guid === undefined) throw corrupt(source, name, 'a GUID', text.slice(0, 64));
  return guid;
}

function shotsOf(element: XmlElement | undefined, source: string): Map<string, string | undefined> {
  const shots = new Map<string, string | undefined>();
  const found = childrenOf(element, 'Shot');
  if (found.length > MAX_COUNT) throw corrupt(source, 'Snapshots', `at most ${MAX_COUNT} snapshots`, found.length);
  for (const shot of found) {
    const guid = guidOf(shot, 'GUID', source);
    const parent = guidOf(shot, 'ParentGUID', source);
    if (shots.has(guid)) throw corrupt(source, 'Shot GUID', 'one snapshot of each GUID', guid);
    shots.set(guid, parent === NONE ? undefined : parent);
  }
  return shots;
}

/** The top image: the one that is named, else the predefined GUID, else the only one that no other stands on. */
function topOf(
  element: XmlElement | undefined,
  storages: readonly DescriptorStorage[],
  shots: ReadonlyMap<string, string | undefined>,
  source: string,
): string {
  const named = childOf(element, 'TopGUID');
  if (named !== undefined && element !== undefined) return guidOf(element, 'TopGUID', source);
  const images = storages[0]!.images.map(({ guid }) => guid);
  if (images.includes(TOP_GUID)) return TOP_GUID;
  const parents = new Set(shots.values());
  const leaves = images.filter((guid) => !parents.has(guid));
  if (leaves.length !== 1)
    throw corrupt(source, 'TopGUID', 'the image that was written to last', `${leaves.length} that could be it`);
  return leaves[0]!;
}

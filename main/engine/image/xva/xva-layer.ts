/**
 * A disk inside a XenServer export (XVA), addressed by its folder in the archive: `/backups/web01.xva/Ref:12`. Every disk of an
 * export is whole: snapshots are exported as disks of their own, so there are no parents.
 */
import { CorruptError, NotFoundError, throwIfCancelled, UnsupportedError } from '../../errors.ts';
import type { Archive } from '../../storage/archive/archive.ts';
import { checkRange } from '../../storage/byte-source.ts';
import type { Confinement } from '../../storage/confinement.ts';
import type { Io } from '../../storage/io.ts';
import type { Finding, ImageFormat, ImageLayer, LayerFile, LayerRun } from '../image.ts';
import { RunList } from '../run-list.ts';
import { checkChunks } from './chunk-check.ts';
import { type ChunkMap, chunkLabel, findBlock, mapChunks } from './chunk-map.ts';
import { readOvaXml, type XenExport, type XenObject, xenNumber, xenText } from './ova-xml.ts';

/** True for the path of a disk inside a mounted export. */
export function isXvaDisk(path: string, folder: Confinement): boolean {
  const inside = folder.archiveOf(path);
  return inside?.archive.chunks(inside.member) !== undefined;
}

class XvaLayer implements ImageLayer {
  readonly format = 'xva';
  readonly variant = 'xva';
  readonly name: string;
  readonly path: string;
  readonly virtualSize: number;
  readonly parent = undefined;
  readonly id = undefined;
  readonly files: readonly LayerFile[];
  readonly granularity: number;
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  readonly #archive: Archive;
  readonly #map: ChunkMap;

  constructor(
    path: string,
    name: string,
    archive: Archive,
    map: ChunkMap,
    size: number,
    properties: XvaLayer['properties'],
  ) {
    this.path = path;
    this.name = name;
    this.virtualSize = size;
    this.granularity = map.chunkBytes;
    this.properties = properties;
    this.#archive = archive;
    this.#map = map;
    this.files = [{ role: 'image', name, path, size: this.#stored() }];
  }

  #stored(): number {
    let total = 0;
    for (let i = 0; i < this.#map.count; i++) total += this.#map.chunks.size(this.#map.indexes[i]!);
    return total;
  }

  // biome-ignore lint/correctness/useYield: the archive's index answers without reading, the interface allows for formats that read.
  *runs(offset: number, length: number): Io<LayerRun[]> {
    checkRange({ name: this.name, size: this.virtualSize }, offset, length);
    const out = new RunList();
    const { chunkBytes, blocks, indexes, chunks, count, knownTo } = this.#map;
    const { stream } = this.#archive;
    const end = offset + length;
    if (length > 0 && end > knownTo) throw this.#cutOff(Math.max(offset, knownTo));
    let next = length === 0 ? count : findBlock(this.#map, Math.floor(offset / chunkBytes));
    for (let at = offset; at < end; ) {
      const start = next < count ? blocks[next]! * chunkBytes : end;
      if (start > at) {
        const stop = Math.min(end, start);
        out.zero(at, stop - at);
        at = stop;
        continue;
      }
      const index = indexes[next]!;
      const size = chunks.size(index);
      const position = chunks.position(index);
      if (position + size > stream.size) throw this.#chunkCut(index);
      const stop = Math.min(end, start + size);
      out.data(at, stop - at, stream, position + (at - start));
      at = stop;
      next++;
    }
    return out.finish();
  }

  #cutOff(at: number): CorruptError {
    return new CorruptError('XVA disk', {
      source: this.name,
      position: at,
      expected: `chunks up to the disk's end at byte ${this.virtualSize}, the last of which is always there`,
      found: `the last one ends at byte ${this.#map.knownTo}: the export was cut off`,
    });
  }

  #chunkCut(index: number): CorruptError {
    const { chunks } = this.#map;
    return new CorruptError(`XVA chunk ${chunkLabel(chunks, index)}`, {
      source: this.#archive.name,
      position: chunks.position(index),
      expected: `${chunks.size(index)} bytes`,
      found: `${Math.max(0, this.#archive.stream.size - chunks.position(index))} bytes: the archive was cut off`,
    });
  }

  async allocatedBytes(signal?: AbortSignal): Promise<number> {
    throwIfCancelled(signal);
    return this.#stored();
  }

  async *check(signal?: AbortSignal): AsyncGenerator<Finding> {
    throwIfCancelled(signal, 'The check');
    if (this.#map.knownTo < this.virtualSize) {
      const { structure, position, expected, found } = this.#cutOff(this.#map.knownTo).details as Partial<Finding>;
      yield {
        severity: 'damaged',
        code: 'xva-cut-off',
        message: `${this.name} ends at byte ${this.#map.knownTo} of ${this.virtualSize}: the export was cut off`,
        source: this.name,
        ...(structure === undefined ? {} : { structure }),
        ...(position === undefined ? {} : { position }),
        ...(expected === undefined ? {} : { expected }),
        ...(found === undefined ? {} : { found }),
        remedy: 'Export the VM again, or take another copy of the export; what lies before can be read.',
      };
    }
    yield* checkChunks(this.name, this.#archive, this.#map, signal);
  }

  /** The archive is the folder's, which closes it. */
  async close(): Promise<void> {}
}

/** Opens the disk whose folder in a mounted export `path` names. */
async function openXva(path: string, folder: Confinement): Promise<ImageLayer> {
  const inside = folder.archiveOf(path);
  const chunks = inside?.archive.chunks(inside.member);
  if (inside === undefined || chunks === undefined) {
    throw new UnsupportedError('a XenServer disk outside its export', { source: folder.label(path) });
  }
  const { archive, member } = inside;
  const described = await readOvaXml(archive);
  const vdi = vdiOf(described, member);
  const name = folder.label(path);
  if (vdi === undefined) {
    throw new NotFoundError(`The VDI ${member} in ova.xml of ${archive.name}`, {
      source: name,
      choices: described.ofClass('VDI').map(({ id }) => id),
    });
  }
  const size = xenNumber(vdi.record, 'virtual_size');
  if (size === undefined || size < 0) {
    throw new CorruptError(`ova.xml VDI ${member} virtual_size`, {
      source: `${archive.name}/ova.xml`,
      expected: 'a number of bytes below 2^53',
      found: String(vdi.record.get('virtual_size')).slice(0, 40),
    });
  }
  const map = mapChunks(archive, chunks, size);
  return new XvaLayer(path, name, archive, map, size, propertiesOf(described, vdi, map, archive));
}

function vdiOf(described: XenExport, member: string): XenObject | undefined {
  const object = described.find(member);
  return object?.class === 'VDI' ? object : undefined;
}

function propertiesOf(
  described: XenExport,
  { record }: XenObject,
  map: ChunkMap,
  archive: Archive,
): Readonly<Record<string, string | number | boolean>> {
  const checksum = map.count === 0 ? undefined : map.chunks.checksum(map.indexes[0]!);
  const facts: Record<string, string | number | boolean | undefined> = {
    uuid: xenText(record, 'uuid'),
    nameLabel: xenText(record, 'name_label'),
    type: xenText(record, 'type'),
    chunks: map.count,
    chunkBytes: map.chunkBytes,
    checksums: checksum === undefined ? 'none' : checksum.kind === 'xxhash' ? 'XXH64' : 'SHA-1',
    archive: archive.kind,
    product: [xenText(described.version, 'product_brand'), xenText(described.version, 'product_version')]
      .filter((part) => part !== undefined)
      .join(' '),
    exportVersion: xenNumber(described.version, 'export_vsn'),
  };
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined && value !== '')) as Record<
    string,
    string | number | boolean
  >;
}

/** Found by `isXvaDisk`, not by a file's first bytes: there is no file. */
export const xvaFormat: ImageFormat = { name: 'xva', detect: () => false, open: openXva };

/**
 * A VMDK as one layer of a chain: a descriptor and its extents laid end to end. Opens monolithicSparse, streamOptimized,
 * monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat, vmfs (flat, whatever its allocation), vmfsSparse, seSparse and custom.
 *
 * The descriptor says how large the disk is and which files hold it; what it names is looked for only inside the opened folder.
 * An extent opened by itself is refused with the name of its descriptor: alone it has no parent, and would show zeros in place
 * of the parent's data.
 */
import { basename } from 'node:path';
import { CorruptError, NotFoundError, throwIfCancelled, UnsupportedError } from '../../errors.ts';
import type { OpenFile } from '../../storage/archive/archive.ts';
import { checkRange } from '../../storage/byte-source.ts';
import type { Confinement } from '../../storage/confinement.ts';
import { type Io, runAsync } from '../../storage/io.ts';
import type { Finding, ImageLayer, LayerFile, LayerRun, ParentClaim } from '../image.ts';
import { RunList } from '../run-list.ts';
import { SideBySide } from '../side-by-side.ts';
import { WalkBudget } from '../walk-budget.ts';
import { type Descriptor, MAX_DESCRIPTOR_BYTES, parseDescriptor } from './descriptor.ts';
import { checkDescriptor } from './descriptor-check.ts';
import type { Extent } from './extent.ts';
import { SECTOR, vmdkMagic } from './layout.ts';
import { openExtents } from './open-extents.ts';
import { parentOf, variantOf, virtualBoxIds } from './refusals.ts';
import { SparseExtent } from './sparse-extent.ts';
import { readFrontHeader, readSparseHeader } from './sparse-header.ts';

/** Opens the VMDK at `path`. @throws CorruptError, UnsupportedError, NotFoundError, IoError, DeniedError. */
export async function openVmdk(path: string, folder: Confinement): Promise<ImageLayer> {
  const file = folder.open(path);
  try {
    const prefix = await file.read(0, Math.min(SECTOR, file.size));
    switch (vmdkMagic(prefix)) {
      case 'sparse':
        return await openEmbedded(file, folder);
      case 'cowd':
        throw extentAlone('a vmfsSparse (COWD) extent', file, folder);
      case 'sesparse':
        throw extentAlone('an seSparse extent', file, folder);
      case 'ctk':
        throw new UnsupportedError('a change tracking file (-ctk.vmdk), which holds no disk', { source: file.name });
      default:
        return await openSeparate(file, prefix, folder);
    }
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Reads the descriptor of the VMDK at `path`, separate or embedded, without opening its extents: what a catalogue needs to know
 * which files belong together. Undefined for a file that has none (an extent, something else).
 * @throws CorruptError, UnsupportedError, IoError, DeniedError.
 */
export async function readDescriptor(path: string, folder: Confinement): Promise<Descriptor | undefined> {
  const file = folder.open(path);
  try {
    const prefix = await file.read(0, Math.min(SECTOR, file.size));
    const magic = vmdkMagic(prefix);
    if (magic === 'sparse') return (await embeddedDescriptor(file)).descriptor;
    if (magic !== undefined || !isText(prefix)) return undefined;
    return await separateDescriptor(file);
  } finally {
    await file.close();
  }
}

function isText(prefix: Uint8Array): boolean {
  const end = prefix.indexOf(0);
  const text = end < 0 ? prefix : prefix.subarray(0, end);
  return text.length > 0 && text.every((byte) => byte >= 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d);
}

async function separateDescriptor(file: OpenFile): Promise<Descriptor> {
  if (file.size > MAX_DESCRIPTOR_BYTES) {
    throw new CorruptError('VMDK descriptor', {
      source: file.name,
      position: 0,
      expected: `at most ${MAX_DESCRIPTOR_BYTES} bytes`,
      found: `a file of ${file.size} bytes`,
    });
  }
  return parseDescriptor(await file.read(0, file.size), file.name);
}

async function openSeparate(file: OpenFile, prefix: Uint8Array, folder: Confinement): Promise<ImageLayer> {
  if (!isText(prefix)) {
    if (/-rdmp?\.vmdk$/i.test(file.name)) {
      throw new UnsupportedError('VMDK raw device mapping', { source: file.name });
    }
    throw new CorruptError('VMDK magic number', {
      source: file.name,
      position: 0,
      expected: '"KDMV", "COWD" or a text descriptor',
      found: prefix.length === 0 ? 'an empty file' : Buffer.from(prefix.subarray(0, 8)).toString('hex'),
    });
  }
  const descriptor = await separateDescriptor(file);
  const variant = variantOf(descriptor);
  const extents = await openExtents(descriptor, file.path, folder);
  try {
    return new VmdkLayer(file, descriptor, variant, extents, folder);
  } catch (error) {
    await Promise.all(extents.map((extent) => extent.file?.close()));
    throw error;
  }
}

async function embeddedDescriptor(file: OpenFile) {
  const header = await readFrontHeader(file);
  const { descriptorOffset, descriptorSize } = header;
  if (descriptorOffset === 0 || descriptorSize === 0) return { header, descriptor: undefined };
  const position = descriptorOffset * SECTOR;
  const length = descriptorSize * SECTOR;
  if (length > MAX_DESCRIPTOR_BYTES || position + length > file.size) {
    throw new CorruptError('VMDK embedded descriptor', {
      source: file.name,
      position,
      expected: `at most ${MAX_DESCRIPTOR_BYTES} bytes inside the ${file.size} of the file`,
      found: `${length} bytes`,
    });
  }
  const bytes = await file.read(position, length);
  return { header, descriptor: bytes[0] === 0 ? undefined : parseDescriptor(bytes, file.name, position) };
}

async function openEmbedded(file: OpenFile, folder: Confinement): Promise<ImageLayer> {
  const { header, descriptor } = await embeddedDescriptor(file);
  if (descriptor === undefined) throw extentAlone('one extent of a split VMDK', file, folder);
  const variant = variantOf(descriptor);
  const [line, ...more] = descriptor.extents;
  // The one extent is this file, whatever name it had when the descriptor was written.
  if (line === undefined || more.length > 0 || line.type !== 'SPARSE') {
    throw new UnsupportedError('VMDK with an embedded descriptor that names other extents', { source: file.name });
  }
  const extent = new SparseExtent(file, await readSparseHeader(file, header), line.sectors * SECTOR);
  return new VmdkLayer(file, descriptor, variant, [extent], folder);
}

/** An extent was opened in place of its descriptor. Names the descriptor where the usual name for it is there. */
function extentAlone(what: string, file: OpenFile, folder: Confinement): UnsupportedError {
  const usual = basename(file.path).replace(/-(delta|sesparse|[sf]\d{3,})\.vmdk$|\.vmdk(-delta)?\.REDO_\w+$/i, '.vmdk');
  let descriptor: string | undefined;
  if (usual !== basename(file.path)) {
    try {
      descriptor = folder.label(folder.resolveRecorded(usual, file.path));
    } catch (error) {
      if (!(error instanceof NotFoundError)) throw error;
    }
  }
  return new UnsupportedError(
    `${what} opened by itself; open its descriptor ${descriptor ?? '(the small text file that names it)'} instead`,
    { source: file.name, role: 'extent', descriptor },
  );
}

class VmdkLayer implements ImageLayer {
  readonly format = 'vmdk';
  readonly variant: string;
  readonly name: string;
  readonly path: string;
  readonly virtualSize: number;
  readonly parent: ParentClaim | undefined;
  readonly id: string | undefined;
  readonly otherIds?: readonly string[];
  readonly stateId?: string;
  readonly files: readonly LayerFile[];
  readonly granularity: number;
  readonly properties: Readonly<Record<string, string | number | boolean>>;
  readonly #file: OpenFile;
  readonly #descriptor: Descriptor;
  readonly #extents: SideBySide<Extent>;

  /** Takes over `file` and the files of `extents`. */
  constructor(
    file: OpenFile,
    descriptor: Descriptor,
    variant: string,
    extents: readonly Extent[],
    folder: Confinement,
  ) {
    this.#file = file;
    this.#descriptor = descriptor;
    this.#extents = new SideBySide(extents);
    this.variant = variant;
    this.name = file.name;
    this.path = file.path;
    this.parent = parentOf(descriptor);
    this.id = descriptor.cid;
    const { image, state } = virtualBoxIds(descriptor);
    if (image !== undefined) this.otherIds = [image];
    if (state !== undefined) this.stateId = state;
    this.virtualSize = this.#extents.size;
    this.granularity = Math.min(...extents.map((extent) => extent.granularity));
    this.files = layerFiles(file, extents, folder);
    this.properties = layerProperties(descriptor, extents);
  }

  *runs(offset: number, length: number): Io<LayerRun[]> {
    checkRange({ name: this.name, size: this.virtualSize }, offset, length);
    const out = new RunList();
    for (const { part, base, start, end } of this.#extents.shares(offset, length)) {
      yield* part.runs(start - base, end - start, base, out);
    }
    return out.finish();
  }

  async allocatedBytes(signal?: AbortSignal): Promise<number> {
    let total = 0;
    const budget = new WalkBudget(
      this.name,
      this.files.reduce((sum, { size }) => sum + size, 0),
    );
    for (const extent of this.#extents.parts) {
      if (extent.kind === 'no-access') continue;
      for (let at = 0; at < extent.size; at += extent.step) {
        throwIfCancelled(signal);
        const step = runsOf(extent, at, Math.min(extent.step, extent.size - at));
        for (const run of await runAsync(
          budget.spend(step, (runs) => runs.length),
          signal,
        ))
          if (run.kind === 'data' || run.kind === 'compressed') total += run.length;
      }
    }
    return total;
  }

  async *check(signal?: AbortSignal): AsyncGenerator<Finding> {
    throwIfCancelled(signal, 'The check');
    yield* checkDescriptor(this.#descriptor, this.variant, this.#extents.parts);
    for (const extent of this.#extents.parts) {
      yield* extent.check(signal);
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.#file.close(), ...this.#extents.parts.map((extent) => extent.file?.close())]);
  }
}

/** What an extent alone says of a stretch of itself. */
function* runsOf(extent: Extent, offset: number, length: number): Io<LayerRun[]> {
  const out = new RunList();
  yield* extent.runs(offset, length, 0, out);
  return out.finish();
}

function layerFiles(file: OpenFile, extents: readonly Extent[], folder: Confinement): LayerFile[] {
  const embedded = extents.some((extent) => extent.file === file);
  const files = new Map<string, LayerFile>();
  files.set(file.path, {
    role: embedded ? 'image' : 'descriptor',
    name: file.name,
    path: file.path,
    size: file.size,
  });
  for (const { file: of } of extents) {
    if (of === undefined || files.has(of.path)) continue;
    files.set(of.path, { role: 'extent', name: folder.label(of.path), path: of.path, size: of.size });
  }
  return [...files.values()];
}

/** Key of `properties` -> key of the descriptor. */
const SHOWN: Readonly<Record<string, string>> = {
  hardwareVersion: 'ddb.virtualhwversion',
  adapterType: 'ddb.adaptertype',
  uuid: 'ddb.uuid',
  longContentId: 'ddb.longcontentid',
  toolsVersion: 'ddb.toolsversion',
  thinProvisioned: 'ddb.thinprovisioned',
  ioFilters: 'ddb.iofilters',
  changeTrackPath: 'changetrackpath',
};

function layerProperties(
  descriptor: Descriptor,
  extents: readonly Extent[],
): Readonly<Record<string, string | number | boolean>> {
  const properties: Record<string, string | number | boolean> = {
    createType: descriptor.createType,
    descriptorVersion: descriptor.version,
    encoding: descriptor.encoding,
    extents: extents.length,
  };
  for (const [name, key] of Object.entries(SHOWN)) {
    const value = descriptor.values.get(key);
    if (value) properties[name] = value;
  }
  // Extents of one disk are made alike; where they are not, the first of each kind speaks, and one unclean makes all unclean.
  for (const extent of extents) {
    for (const [name, value] of Object.entries(extent.properties)) {
      if (!(name in properties) || (name === 'uncleanShutdown' && value === true)) properties[name] = value;
    }
  }
  return properties;
}

/**
 * The file in which ESX keeps which blocks of a disk have changed (`-ctk.vmdk`, changed block tracking). VMware says that a descriptor
 * of version 3 names it in `changeTrackPath` and that a reader may ignore it (Virtual Disk Development Kit Programming Guide,
 * "VMDK versions"); its content has never been published. libyal's libvmdk has noted what its first bytes look like
 * (`documentation/VMWare Virtual Disk Format (VMDK).asciidoc`, "Change tracking file"): a signature and what is likely a version, then
 * fields of unknown meaning. Nothing public says where the map of blocks, its block size or the change ids are, so they are not read:
 * what a wrong guess called unchanged would be missing from a restore.
 *
 * What can be held against the disk is held against it: that the file the descriptor names is there, is one of these, and is the one
 * beside the disk.
 */
import { basename, dirname, join } from 'node:path';
import { Fields } from '../../binary.ts';
import { ChainliftError, CorruptError, DeniedError, NotFoundError } from '../../errors.ts';
import type { Confinement } from '../../storage/confinement.ts';
import type { Finding, ImageLayer } from '../image.ts';
import { CTK_MAGICNUMBER } from './layout.ts';

const HEADER = 'Change tracking header';
/** Bytes that libvmdk's notes describe. */
const DESCRIBED_BYTES = 60;
/** What has been met. */
const VERSION = 1;

/** What can be said of a change tracking file. */
export interface ChangeTracking {
  /** Path relative to the opened folder. */
  readonly name: string;
  readonly path: string;
  /** Length of the file in bytes. It is fixed by the size of the disk, in a way that is not published. */
  readonly size: number;
  /** The second word of the file, 1 in all that have been described. */
  readonly version: number;
}

/** Reads the header of the change tracking file at `path`. @throws CorruptError when it is none, IoError, DeniedError. */
export async function readChangeTracking(path: string, folder: Confinement): Promise<ChangeTracking> {
  const file = folder.open(path);
  try {
    if (file.size < DESCRIBED_BYTES) {
      throw new CorruptError(HEADER, {
        source: file.name,
        position: 0,
        expected: `at least ${DESCRIBED_BYTES} bytes`,
        found: `a file of ${file.size} bytes`,
      });
    }
    const fields = new Fields(await file.read(0, DESCRIBED_BYTES), HEADER, file.name, 0);
    const magic = fields.u32be(0);
    fields.require(magic === CTK_MAGICNUMBER, 'signature', 0, hex(CTK_MAGICNUMBER), hex(magic));
    return { name: file.name, path: file.path, size: file.size, version: fields.u32(4) };
  } finally {
    await file.close();
  }
}

function hex(value: number): string {
  return value.toString(16).padStart(8, '0');
}

/**
 * What there is to say of the change tracking of a VMDK layer: nothing for other formats and for disks without it. None of it touches
 * the disk's content, so nothing here is damage of the disk. @throws IoError when a file that is there can't be read.
 */
export async function* checkChangeTracking(layer: ImageLayer, folder: Confinement): AsyncGenerator<Finding> {
  if (layer.format !== 'vmdk') return;
  const recorded = layer.properties.changeTrackPath;
  const named = typeof recorded === 'string' ? resolved(recorded, layer, folder) : undefined;
  const beside = besideDisk(layer, folder);
  if (typeof recorded === 'string' && named === undefined) {
    yield {
      severity: 'note',
      code: 'change-tracking-missing',
      message: `${layer.name} names "${recorded}" as its map of changed blocks, which is not in the opened folder`,
      source: layer.name,
      structure: 'VMDK descriptor changeTrackPath',
      expected: recorded,
      found: 'no such file',
      remedy:
        'The disk reads without it. Where the virtual machine is put back by copying these files, reset its changed block tracking: the next backup has to be a full one.',
    };
  }
  if (named !== undefined) yield* checkFile(named, layer, folder);
  if (beside !== undefined && beside !== named) {
    yield {
      severity: 'note',
      code: 'change-tracking',
      message: `${folder.label(beside)} is a map of changed blocks that ${layer.name} does not name: it is left over from before, or tracking was switched off`,
      source: layer.name,
      structure: 'VMDK descriptor changeTrackPath',
      expected: basename(beside),
      found: typeof recorded === 'string' ? recorded : 'none',
    };
  }
}

async function* checkFile(path: string, layer: ImageLayer, folder: Confinement): AsyncGenerator<Finding> {
  let tracking: ChangeTracking;
  try {
    tracking = await readChangeTracking(path, folder);
  } catch (error) {
    if (!(error instanceof CorruptError)) throw error;
    const { structure, position, expected, found } = error.details;
    yield {
      severity: 'suspicious',
      code: 'change-tracking-damaged',
      message: error.message,
      source: folder.label(path),
      structure: String(structure),
      position: Number(position),
      expected: String(expected),
      found: String(found),
      remedy: `The disk of ${layer.name} reads without it. An incremental backup made with this map may have left changes out.`,
    };
    return;
  }
  const odd = tracking.version === VERSION ? '' : ` of the unknown version ${tracking.version}`;
  yield {
    severity: 'note',
    code: 'change-tracking',
    message: `${tracking.name} is a map of changed blocks${odd}; it is no part of the disk's content, and how it is laid out is not published: it is not read`,
    source: layer.name,
    structure: HEADER,
    position: 4,
    expected: VERSION,
    found: tracking.version,
  };
}

/** The file that a descriptor names; undefined where there is none in the folder. */
function resolved(recorded: string, layer: ImageLayer, folder: Confinement): string | undefined {
  try {
    return folder.resolveRecorded(recorded, layer.path);
  } catch (error) {
    if (error instanceof NotFoundError || error instanceof DeniedError) return undefined;
    throw error;
  }
}

/** The file that the disk's own name would give it, where it is there. */
function besideDisk(layer: ImageLayer, folder: Confinement): string | undefined {
  const stem = basename(layer.path).replace(/\.vmdk$/i, '');
  try {
    return folder.realPath(join(dirname(layer.path), `${stem}-ctk.vmdk`));
  } catch (error) {
    // Not there, or a link that leaves the folder: nothing to note either way.
    if (error instanceof ChainliftError) return undefined;
    throw error;
  }
}

/**
 * The disk image formats in probe order. Detecting is lenient (a damaged header behind the right magic still belongs to the
 * format), opening is strict.
 */
import { basename } from 'node:path';
import { UsageError } from '../errors.ts';
import type { Confinement } from '../storage/confinement.ts';
import { type ImageFormat, type ImageLayer, snapshotPath, splitSnapshotPath } from './image.ts';
import { parallelsFormat } from './parallels/parallels-format.ts';
import { qcowFormat } from './qcow/qcow-layer.ts';
import { qcow2Format } from './qcow2/qcow2-format.ts';
import { PREFIX_BYTES, rawFormat } from './raw/raw-layer.ts';
import { recognisedFormats } from './recognised.ts';
import { vdiFormat } from './vdi/vdi-layer.ts';
import { vhdFormat } from './vhd/vhd-format.ts';
import { vhdxFormat } from './vhdx/vhdx-format.ts';
import { vmdkFormat } from './vmdk/vmdk-format.ts';
import { isXvaDisk, xvaFormat } from './xva/xva-layer.ts';

/**
 * Formats that are read. Parallels and VHD come first, because the first bytes of a plain or fixed one are the guest's, who must
 * not make another format of it; their names tell them. Raw is the catch-all, so it comes last.
 */
export const imageFormats: readonly ImageFormat[] = [
  parallelsFormat,
  vhdFormat,
  vmdkFormat,
  vdiFormat,
  vhdxFormat,
  qcow2Format,
  qcowFormat,
  xvaFormat,
  rawFormat,
];

/** Every format that a file can be found to have, those that are refused by name included. */
const probeOrder: readonly ImageFormat[] = [
  parallelsFormat,
  vhdFormat,
  vmdkFormat,
  vdiFormat,
  vhdxFormat,
  qcow2Format,
  qcowFormat,
  xvaFormat,
  ...recognisedFormats,
  rawFormat,
];

/**
 * The format of a file that was met while looking around a folder: undefined for what is no disk image. `open` of the result may
 * still refuse it. Extents of a VMDK count as VMDK (or raw, where they are flat): which files belong together, their descriptor
 * says.
 * @throws IoError, DeniedError.
 */
export async function detectFormat(path: string, folder: Confinement): Promise<ImageFormat | undefined> {
  // A folder of chunks inside an archive: no file, and so no first bytes.
  if (isXvaDisk(path, folder)) return xvaFormat;
  const file = folder.open(path);
  try {
    const prefix = await file.read(0, Math.min(PREFIX_BYTES, file.size));
    const name = basename(file.path);
    return probeOrder.find((format) => format.detect(prefix, name));
  } finally {
    await file.close();
  }
}

/**
 * The real path of an image, as layers are told apart by it: of a file, of a member of an archive (which is mounted), or of a
 * snapshot inside an image. @throws DeniedError, IoError, CorruptError of a damaged archive.
 */
export async function imagePath(path: string, folder: Confinement): Promise<string> {
  const inside = splitSnapshotPath(path);
  if (inside !== undefined) return snapshotPath(await imagePath(inside.image, folder), inside.id);
  await folder.mountAbove(path);
  return folder.realPath(path);
}

/**
 * Opens one layer, never its parent. A file of no known format is opened as raw: the caller asked for this very file.
 * @param path of an image, or of a snapshot inside one (`snapshotPath`).
 * @param format the name of a format, to open the file as that whatever it looks like.
 * @throws CorruptError, UnsupportedError, UsageError, NotFoundError, IoError, DeniedError.
 */
export async function openLayer(path: string, folder: Confinement, format?: string): Promise<ImageLayer> {
  const inside = splitSnapshotPath(path);
  const image = await imagePath(inside?.image ?? path, folder);
  const opener = await formatOf(image, folder, format);
  return opener.open(image, folder, inside?.id);
}

async function formatOf(path: string, folder: Confinement, name: string | undefined): Promise<ImageFormat> {
  if (name !== undefined) {
    const asked = probeOrder.find((candidate) => candidate.name === name);
    if (asked !== undefined) return asked;
    throw new UsageError(`There is no image format "${name}"`, { choices: imageFormats.map((known) => known.name) });
  }
  // What a device begins with its guest or its owner wrote; a disk is what it was named as.
  if (folder.isDevice) return rawFormat;
  const detected = await detectFormat(path, folder);
  if (detected === undefined && /-ctk\.vmdk$/i.test(path)) return vmdkFormat;
  return detected ?? rawFormat;
}

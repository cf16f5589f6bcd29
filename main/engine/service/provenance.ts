/** Which layers of the chain hold the bytes of a file: file -> volume -> disk -> layer, through the runs of each. */
import type { LayerShare } from '../../../preload/api.ts';
import type { Entry, FileRun, FileSystem } from '../filesystem/file-system.ts';
import type { Volume } from '../volume/volume.ts';
import type { OpenPoint } from './open-point.ts';

/** Bytes of a file that are traced at a time. */
const WINDOW = 64 << 20;
/** What is traced of one file at most: beyond it the shares are those of the first part, which a list of rows can bear. */
const MAX_TRACED = 4 * 1024 ** 3;

/** Bytes by layer, most first. Holes that no layer stores are `zeros`. @throws what reading the file's map throws. */
export async function layerShares(
  point: OpenPoint,
  volume: Volume,
  fs: FileSystem,
  entry: Entry,
): Promise<LayerShare[]> {
  const shares = new Map<number | undefined, number>();
  const disk = await point.disk(volume.disk);
  const add = (layer: number | undefined, bytes: number): void => {
    shares.set(layer, (shares.get(layer) ?? 0) + bytes);
  };
  const trace = async (run: FileRun): Promise<void> => {
    if (run.kind === 'zero' || run.position === undefined) {
      add(undefined, run.length);
      return;
    }
    for (const part of volume.runs(run.position, run.length)) {
      for (const piece of await disk.runs(part.position, part.length)) add(piece.layer, piece.length);
    }
  };
  const content = await fs.open(entry);
  try {
    const end = Math.min(content.size, MAX_TRACED);
    for (let at = 0; at < end; at += WINDOW) {
      for (const run of await content.runs(at, Math.min(WINDOW, end - at))) await trace(run);
    }
  } finally {
    await content.close();
  }
  return [...shares]
    .sort((a, b) => b[1] - a[1])
    .map(([layer, bytes]) =>
      layer === undefined ? { name: 'zeros', bytes } : { layer, name: disk.layers[layer]!.name, bytes },
    );
}

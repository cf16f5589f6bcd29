/** Conversions as tests start them: without an engine, with the progress in hand. */
import { closeSync, ftruncateSync, openSync, readdirSync, writeSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { type Converted, type ConvertOptions, convertDisk } from '../../main/engine/convert/convert.ts';
import type { Progress } from '../../main/engine/task/task.ts';

export interface Started {
  readonly controller: AbortController;
  readonly progress: Progress;
  readonly end: Promise<Converted>;
}

/** Starts a conversion of the image at `source`. `onReport` is called whenever progress is told. */
export function startConversion(
  source: string,
  destination: string,
  options: Partial<ConvertOptions> & Pick<ConvertOptions, 'format'>,
  onReport: (started: Started) => void = () => undefined,
): Started {
  const controller = new AbortController();
  const progress: Progress = { bytesDone: 0, itemsDone: 0 };
  const started: Started = {
    controller,
    progress,
    end: convertDisk(
      {
        source: { path: source, root: dirname(source) },
        destination,
        verify: false,
        existing: 'refuse',
        resume: false,
        spare: () => false,
        ...options,
      },
      { signal: controller.signal, progress, report: () => onReport(started) },
    ),
  };
  return started;
}

/** Converts, to the end. */
export function convertImage(...args: Parameters<typeof startConversion>): Promise<Converted> {
  return startConversion(...args).end;
}

/** The temporary files that are left for a destination, by name. */
export function leftovers(destination: string): string[] {
  return readdirSync(dirname(destination)).filter((name) => name.startsWith(`.${basename(destination)}.`));
}

/** Writes a sparse raw disk: `pieces` are offset -> bytes. */
export function writeSparse(path: string, size: number, pieces: ReadonlyMap<number, Uint8Array>): void {
  const fd = openSync(path, 'w');
  try {
    ftruncateSync(fd, size);
    for (const [offset, bytes] of pieces) writeSync(fd, bytes, 0, bytes.length, offset);
  } finally {
    closeSync(fd);
  }
}

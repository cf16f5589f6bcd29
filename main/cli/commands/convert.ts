import { extname, resolve } from 'node:path';
import type { ConvertRequest } from '../../../preload/api.ts';
import { UsageError } from '../../engine/errors.ts';
import { type CommonOptions, followTask, runCommand, sayError, targetOf } from '../context.ts';
import { printable, say, size } from '../output.ts';

interface ConvertOptions extends CommonOptions {
  readonly format?: ConvertRequest['format'];
  readonly variant?: string;
  readonly verify: boolean;
  readonly replace?: boolean;
  readonly resume?: boolean;
}

const byEnding: Readonly<Record<string, ConvertRequest['format']>> = {
  '.raw': 'raw',
  '.img': 'raw',
  '.dd': 'raw',
  '.qcow2': 'qcow2',
  '.vmdk': 'vmdk',
  '.vhdx': 'vhdx',
};

/** @throws UsageError with the formats, where the name does not say which. */
function formatOf(out: string, format: ConvertRequest['format'] | undefined): ConvertRequest['format'] {
  const found = format ?? byEnding[extname(out).toLowerCase()];
  if (found !== undefined) return found;
  throw new UsageError(`The name "${out}" does not say which format is meant; say it with --format`, {
    option: 'format',
    choices: [...new Set(Object.values(byEnding))],
  });
}

/** `convert <source> <out>`: a whole disk as one new image. */
export function convert(source: string, out: string, options: ConvertOptions): Promise<void> {
  return runCommand(async (context) => {
    const end = await followTask(
      context,
      await context.engine.api.convert({
        target: targetOf(source, options),
        destination: resolve(out),
        format: formatOf(out, options.format),
        ...(options.variant === undefined ? {} : { variant: options.variant }),
        verify: options.verify,
        overwrite: options.replace === true ? 'replace' : 'refuse',
        resume: options.resume ?? false,
      }),
    );
    if (end.error !== undefined) {
      sayError(end.error);
      return 1;
    }
    if (end.result?.kind !== 'convert') return 1;
    const { kind: _kind, ...result } = end.result;
    if (options.resume && result.resumedBytes === 0) {
      say('chainlift: note: there was nothing of this disk, format and place to go on with; it was begun anew');
    }
    if (options.json) context.out.json(result);
    else {
      const kind = result.variant === result.format ? result.format : `${result.format} ${result.variant}`;
      context.out.line(
        `${result.files.map(printable).join(', ')}: ${kind}, a disk of ${size(result.size)} with ${size(result.dataBytes)} of data` +
          `${result.resumedBytes > 0 ? `, ${size(result.resumedBytes)} of it from before` : ''}` +
          `; ${result.verified ? 'read back and equal' : 'not read back'}`,
      );
    }
    return 0;
  });
}

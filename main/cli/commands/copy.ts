import { statSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import type { OverwritePolicy } from '../../../preload/api.ts';
import { IoError, UsageError } from '../../engine/errors.ts';
import { type CommonOptions, followTask, runCommand, sayError, targetOf } from '../context.ts';
import { plural, printable, say, size } from '../output.ts';

interface CopyOptions extends CommonOptions {
  readonly recursive?: boolean;
  readonly verify: boolean;
  readonly existing: OverwritePolicy;
}

/** @throws IoError for a path that can't be looked at: too long, below a file, behind a closed folder. */
function isFolder(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  } catch (error) {
    throw new IoError(`The destination ${path} cannot be used`, { destination: path }, error);
  }
}

/** `cp [-r] <source> <path>... <destination>`: into an existing folder, or a single path to a new name, as cp does. */
export function cp(source: string, paths: readonly string[], options: CopyOptions): Promise<void> {
  return runCommand(
    async (context) => {
      const { engine, out } = context;
      if (paths.length < 2) throw new UsageError('cp needs a path inside the VM and a destination');
      const from = paths.slice(0, -1);
      const to = resolve(paths.at(-1)!);
      const folder = isFolder(to);
      if (!folder && from.length > 1)
        throw new UsageError(`${to} is no folder, and there is more than one path to copy`);
      const end = await followTask(
        context,
        await engine.api.copy({
          target: targetOf(source, options),
          paths: from,
          destination: folder ? to : dirname(to),
          ...(folder ? {} : { name: basename(to) }),
          recursive: options.recursive ?? false,
          verify: options.verify,
          overwrite: options.existing,
        }),
      );
      if (end.error !== undefined) {
        sayError(end.error);
        return 1;
      }
      if (end.result?.kind !== 'copy') return 1;
      const { kind: _kind, ...result } = end.result;
      if (options.json) out.json(result);
      else {
        out.line(
          `${plural(result.files, 'file')}, ${plural(result.directories, 'folder')}, ${plural(result.links, 'link')}, ${size(result.bytes)}` +
            `${options.verify ? `; ${result.verified} verified` : ''}${result.skipped > 0 ? `; ${result.skipped} left out` : ''}`,
        );
        for (const { path, note } of result.notes) say(`chainlift: note: ${printable(path)}: ${note}`);
      }
      for (const { path, error } of result.problems)
        sayError({ ...error, message: `${printable(path)}: ${error.message}` });
      return result.problems.length === 0 ? 0 : 1;
    },
    { synchronous: true },
  );
}

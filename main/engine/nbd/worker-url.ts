/**
 * Finds the data worker's program. In a build it is `data-worker.js` in the folder of the main entries; this module then stands
 * beside it or in a folder of chunks below. Run from the TypeScript sources (tests), where Node can't start a thread on them,
 * it is bundled once per process with rolldown, which comes with vite, as a program of its own: nothing of it is part of a build.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { NotFoundError } from '../errors.ts';

let found: Promise<URL> | undefined;

/** URL of the data worker, for `new Worker`. @throws NotFoundError when the build lacks it. */
export function dataWorkerUrl(): Promise<URL> {
  found ??= locate();
  return found;
}

async function locate(): Promise<URL> {
  const here = fileURLToPath(import.meta.url);
  if (here.endsWith('.ts')) return bundle(here);
  const candidates = [join(dirname(here), 'data-worker.js'), join(dirname(here), '..', 'data-worker.js')];
  const path = candidates.find((candidate) => existsSync(candidate));
  if (path === undefined) throw new NotFoundError('data-worker.js', { lookedIn: candidates });
  return pathToFileURL(path);
}

async function bundle(here: string): Promise<URL> {
  const root = join(dirname(here), '..', '..', '..');
  const folder = join(root, 'node_modules', '.cache', 'chainlift');
  mkdirSync(folder, { recursive: true });
  const built = join(folder, `data-worker-${process.pid}.mjs`);
  const kept = join(folder, 'data-worker.mjs');
  const manifest = createRequire(import.meta.url).resolve('rolldown/package.json');
  await promisify(execFile)(
    process.execPath,
    [
      join(dirname(manifest), 'bin', 'cli.mjs'),
      join(dirname(here), 'data-worker.ts'),
      '--file',
      built,
      '--format',
      'esm',
      '--platform',
      'node',
    ],
    { cwd: root },
  );
  // Renamed into place: several test processes build the same thing at the same time.
  renameSync(built, kept);
  return pathToFileURL(kept);
}

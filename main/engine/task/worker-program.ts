/**
 * Finds the program of a worker thread. In a build it is a file in the folder of the main entries; this module then stands beside
 * it or in a folder of chunks below. Run from the TypeScript sources (tests), where Node can't start a thread on them, it is
 * bundled once per process with rolldown, which comes with vite, as a program of its own: nothing of it is part of a build.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { NotFoundError } from '../errors.ts';

const found = new Map<string, Promise<URL>>();

/**
 * URL of a worker's program, for `new Worker`.
 * @param name of its entry in the build: `data-worker`.
 * @param source its TypeScript file, relative to main/engine: `nbd/data-worker.ts`.
 * @throws NotFoundError when the build lacks it.
 */
export function workerProgram(name: string, source: string): Promise<URL> {
  let url = found.get(name);
  if (url === undefined) {
    url = locate(name, source);
    found.set(name, url);
  }
  return url;
}

async function locate(name: string, source: string): Promise<URL> {
  const here = fileURLToPath(import.meta.url);
  if (here.endsWith('.ts')) return bundle(name, join(dirname(here), '..', source), here);
  const file = `${name}.js`;
  const candidates = [join(dirname(here), file), join(dirname(here), '..', file)];
  const path = candidates.find((candidate) => existsSync(candidate));
  if (path === undefined) throw new NotFoundError(file, { lookedIn: candidates });
  return pathToFileURL(path);
}

async function bundle(name: string, source: string, here: string): Promise<URL> {
  const root = join(dirname(here), '..', '..', '..');
  const folder = join(root, 'node_modules', '.cache', 'chainlift');
  mkdirSync(folder, { recursive: true });
  const built = join(folder, `${name}-${process.pid}.mjs`);
  const kept = join(folder, `${name}.mjs`);
  const manifest = createRequire(import.meta.url).resolve('rolldown/package.json');
  await promisify(execFile)(
    process.execPath,
    [join(dirname(manifest), 'bin', 'cli.mjs'), source, '--file', built, '--format', 'esm', '--platform', 'node'],
    { cwd: root },
  );
  // Renamed into place: several test processes build the same thing at the same time.
  renameSync(built, kept);
  return pathToFileURL(kept);
}

/** Real images that others made, beside the project. Nothing of them is copied into it: where they are absent, tests of them are skipped. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';

export const corpus = resolve(import.meta.dirname, '../../../shared/corpus');

/** Whether they are here. */
export const corpusHere = existsSync(join(corpus, 'INDEX.md'));

/** For the titles of tests: why they are skipped. */
export const whySkipped = corpusHere ? '' : ` (skipped: ${corpus} is absent)`;

/** The line of INDEX.md on a file, by its name there; empty where there is none. */
export function indexed(name: string): string {
  const lines = readFileSync(join(corpus, 'INDEX.md'), 'utf8').split('\n');
  return lines.find((line) => line.startsWith(`| ${name} `)) ?? '';
}

/** SHA-256 of the disk in an image, as INDEX.md has it. */
export function recordedHash(name: string): string | undefined {
  return /raw sha256 ([0-9a-f]{64})/.exec(indexed(name))?.[1];
}

/** Writes a file of the corpus into `folder`, unpacked if it ends in `.gz`. Returns its name there. */
export function unpack(path: string, folder: string): string {
  const bytes = readFileSync(join(corpus, path));
  const name = basename(path).replace(/\.gz$/, '');
  writeFileSync(join(folder, name), path.endsWith('.gz') ? gunzipSync(bytes) : bytes);
  return name;
}

/** The same for every file of a folder whose name `wanted` takes, into `folder`, which is made. */
export function unpackFolder(path: string, folder: string, wanted: (name: string) => boolean = () => true): void {
  mkdirSync(folder);
  for (const name of readdirSync(join(corpus, path))) if (wanted(name)) unpack(join(path, name), folder);
}

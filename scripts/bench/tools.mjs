/** What every benchmark uses: a folder for fixtures, peers, medians, and our TypeScript run as it is shipped (bundled). */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

export const root = resolve(import.meta.dirname, '..', '..');
export const cli = join(root, 'out', 'main', 'cli.cjs');
/** Fixtures are kept between runs: they cost minutes, and the same bytes make runs comparable. */
export const fixtures = process.env.CHAINLIFT_BENCH_FOLDER ?? join(tmpdir(), 'chainlift-bench');
mkdirSync(fixtures, { recursive: true });

export function hasPeer(program) {
  return [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'].some((folder) =>
    existsSync(join(folder, program)),
  );
}

export function run(program, args, options = {}) {
  return execFileSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    ...options,
  });
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** Makes `name` in the fixtures folder once; `make` gets a temporary path that is renamed when it is whole. */
export function fixture(name, make) {
  const path = join(fixtures, name);
  if (existsSync(path)) return path;
  process.stderr.write(`making fixture ${name}\n`);
  const partial = `${path}.making`;
  rmSync(partial, { recursive: true, force: true });
  make(partial);
  renameSync(partial, path);
  return path;
}

/** Wall time in seconds and peak memory in KiB of whole commands, taken in turns so that noise hits all alike. */
export function timeCommands(commands, rounds) {
  const results = Object.fromEntries(Object.keys(commands).map((name) => [name, { seconds: [], peakKiB: [] }]));
  for (let round = 0; round < rounds; round++) {
    for (const [name, [program, ...args]] of Object.entries(commands)) {
      const started = process.hrtime.bigint();
      const { status, stderr } = spawnSync('/usr/bin/time', ['-f', '%M', program, ...args], {
        encoding: 'utf8',
        stdio: ['ignore', 'ignore', 'pipe'],
        maxBuffer: 1 << 28,
      });
      const seconds = Number(process.hrtime.bigint() - started) / 1e9;
      if (status !== 0) throw new Error(`${name} failed: ${stderr}`);
      results[name].seconds.push(seconds);
      results[name].peakKiB.push(Number(stderr.trim().split('\n').at(-1)));
    }
  }
  return Object.fromEntries(
    Object.entries(results).map(([name, { seconds, peakKiB }]) => [
      name,
      { seconds: median(seconds), peakKiB: median(peakKiB) },
    ]),
  );
}

/** Bundles a TypeScript module the way the product is bundled, and imports it. */
export async function importTypeScript(path, { minify = true } = {}) {
  const { build } = await import('rolldown');
  const out = join(
    root,
    'node_modules',
    '.cache',
    'chainlift-bench',
    `${path.replaceAll(/[^a-z0-9]+/gi, '-')}-${process.pid}`,
  );
  await build({
    input: join(root, path),
    platform: 'node',
    logLevel: 'warn',
    output: { dir: out, format: 'es', entryFileNames: 'entry.mjs', minify, codeSplitting: false },
  });
  try {
    return await import(pathToFileURL(join(out, 'entry.mjs')).href);
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

/** Bundles a program with what it imports of ours, for processes that are measured. @returns its path, kept until the next run. */
export async function bundleProgram(path) {
  const { build } = await import('rolldown');
  const out = join(root, 'node_modules', '.cache', 'chainlift-bench', path.replaceAll(/[^a-z0-9]+/gi, '-'));
  await build({
    input: join(root, path),
    platform: 'node',
    logLevel: 'warn',
    output: { dir: out, format: 'es', entryFileNames: 'entry.mjs', minify: true, codeSplitting: false },
  });
  return join(out, 'entry.mjs');
}

/**
 * `npm run soak [-- <minutes> [<seed>]]`: for half of the time breaks golden images of every format, for the other half copies of the
 * demo, and looks at all of each. Ten minutes by default.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { importTypeScript } from './bench/tools.mjs';
import { prepare } from './prepare.mjs';

prepare();
const minutes = Number(process.argv[2] ?? 10);
const seed = Number(process.argv[3] ?? Math.floor(Math.random() * 1e9));
const say = (text) => process.stdout.write(`${text}\n`);
say(`${minutes} minutes from seed ${seed}`);

/** Mutants looked at between two looks at the clock. */
const BATCH = 2_000;

process.env.CHAINLIFT_ROOT = resolve(import.meta.dirname, '..');
const { buildWorker, fuzz } = await importTypeScript('test/fuzz/run.ts', { minify: false });
const worker = await buildWorker();
const scratch = mkdtempSync(join(tmpdir(), 'chainlift-soak-'));
let mutants = 0;
try {
  for (const until = Date.now() + minutes * 30_000; Date.now() < until; mutants += BATCH) {
    const options = { first: seed + mutants, count: BATCH, processes: Math.min(4, cpus().length) };
    const outcome = await fuzz(worker, join(scratch, String(mutants)), options);
    rmSync(join(scratch, String(mutants)), { recursive: true, force: true });
    for (const { seed: failed, image, what, patches } of outcome.failures) {
      say(`mutant ${failed} of ${image}: ${what}\n${JSON.stringify({ image, seed: failed, patches })}`);
    }
    if (outcome.failures.length > 0) throw new Error(`${outcome.failures.length} mutants failed`);
    const figures = `slowest ${Math.round(outcome.slowest)} ms, largest ${Math.round(outcome.largest / 2 ** 20)} MiB`;
    say(`${mutants + BATCH} mutants, ${outcome.data} of the last ${BATCH} read as something; ${figures}`);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
  rmSync(worker, { force: true });
}

const { soak } = await importTypeScript('test/soak/fuzz.ts', { minify: false });
const rounds = await soak(minutes * 30, seed, say);
say(`${mutants} mutants and ${rounds} rounds of the demo, every one answered`);

/**
 * Mutants of every golden image: each yields data or a typed error within 5 s and 512 MB, never a crash, a hang or a read outside
 * its folder. 10,000 in CI, fewer where a person waits; `npm run soak` goes on for as long as one has patience. Mutants that once
 * failed are kept in test/data/regressions.
 */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildWorker, fuzz, replay } from '../../fuzz/run.ts';
import { goldenImages } from '../../support/golden.ts';
import { scratchFolder } from '../../support/scratch.ts';

const MUTANTS = process.env.CHAINLIFT_REQUIRE_PEERS === '1' ? 10_000 : 2_000;
const regressions = resolve(import.meta.dirname, '../../data/regressions');

describe('mutants of golden images', () => {
  const scratch = scratchFolder('fuzz');
  let worker = '';
  beforeAll(async () => {
    worker = await buildWorker();
  }, 60_000);
  afterAll(() => rmSync(worker, { force: true }));

  it(`${MUTANTS} of them end in data or a typed error`, { timeout: 900_000 }, async () => {
    const outcome = await fuzz(worker, scratch.path, { first: 1, count: MUTANTS, processes: 2 });
    expect(outcome.failures.map(({ seed, image, what }) => `${seed} (${image}): ${what}`)).toEqual([]);
    expect(outcome.mutants).toBe(MUTANTS);
    // Of a fuzzer that breaks nothing, or everything, nothing is learnt.
    expect(outcome.data).toBeGreaterThan(MUTANTS / 10);
    expect(outcome.data).toBeLessThan(MUTANTS * 0.9);
  });

  const known = existsSync(regressions) ? readdirSync(regressions).filter((name) => name.endsWith('.json')) : [];
  it.each(known)('%s no longer fails', { timeout: 60_000 }, async (name) => {
    const file = join(regressions, name);
    const { image } = JSON.parse(readFileSync(file, 'utf8')) as { image: string };
    expect(goldenImages().map(({ format, title }) => `${format}: ${title}`)).toContain(image);
    const outcome = await replay(worker, join(scratch.path, name), file, image);
    expect(outcome.failures).toEqual([]);
    expect(outcome.mutants).toBe(1);
  });
});

/**
 * Golden images: small ones of every format and sub-format, made by independent tools where there are any, with the SHA-256 of
 * the disk they hold. They run everywhere; `test/data/images/<format>/truth.json` says how each was made.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import type { Finding } from '../../../main/engine/image/image.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { goldenImages, goldenPath, unpackGolden } from '../../support/golden.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

describe.each(goldenImages().map((golden) => [`${golden.format}: ${golden.title}`, golden] as const))(
  '%s',
  (_, golden) => {
    const scratch = scratchFolder('golden');

    it.each([true, false])('reads as the disk it was made from (synchronous: %s)', async (synchronous) => {
      const folder = unpackGolden(golden, scratch.path);
      await leavesUntouched(folder, async () => {
        const confinement = new Confinement(folder, { synchronous });
        const disk = await openChain(goldenPath(golden, folder), confinement, { synchronous });
        try {
          expect(disk.size).toBe(golden.size);
          const hash = createHash('sha256');
          // An odd chunk, so that reads begin and end inside grains, blocks and clusters.
          const chunk = 1_000_003;
          for (let at = 0; at < disk.size; at += chunk)
            hash.update(await disk.read(at, Math.min(chunk, disk.size - at)));
          expect(hash.digest('hex')).toBe(golden.sha256);
        } finally {
          await disk.close();
          await confinement.close();
        }
      });
    });

    it('has nothing wrong with it, as far as verification can tell', async () => {
      const folder = unpackGolden(golden, scratch.path);
      const findings: Finding[] = [];
      for await (const finding of verifyChain(goldenPath(golden, folder), new Confinement(folder)))
        findings.push(finding);
      const allowed = new Set(golden.findings ?? []);
      expect(findings.filter(({ severity, code }) => severity !== 'note' && !allowed.has(code))).toEqual([]);
      for (const code of allowed) expect(findings.map((finding) => finding.code)).toContain(code);
    });
  },
);

it('golden images are there', () => {
  expect(existsSync('test/data/images')).toBe(true);
});

/** A real VDI that none of us made. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

const corpus = resolve(import.meta.dirname, '../../../../shared/corpus');
const here = existsSync(join(corpus, 'INDEX.md'));
const why = here ? '' : ` (skipped: ${corpus} is absent)`;

describe.skipIf(!here)(`corpus of real VDIs${why}`, () => {
  const scratch = scratchFolder('vdi-corpus');

  it('basic.vdi reads as INDEX.md says', async () => {
    const stored = join(corpus, 'fox-it+dissect.hypervisor/tests/_data/disk/vdi/basic.vdi.gz');
    writeFileSync(join(scratch.path, 'basic.vdi'), gunzipSync(readFileSync(stored)));
    await leavesUntouched(scratch.path, async () => {
      const layer = await openLayer('basic.vdi', new Confinement(scratch.path));
      expect(layer).toMatchObject({ variant: 'dynamic', virtualSize: 10_485_760 });
      const disk = await readLayer(layer, 0, layer.virtualSize);
      expect(createHash('sha256').update(disk).digest('hex')).toBe(
        '92d551781f9b62f3c8601ffd375cc7547efb1127e3cd2acc652f50f2d31afb8c',
      );
      expect((await findings(layer)).filter(({ severity }) => severity !== 'note')).toEqual([]);
      await layer.close();
    });
  });
});

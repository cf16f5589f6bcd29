/** A real VDI that none of us made. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { corpusHere, unpack, whySkipped } from '../../support/corpus.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

describe.skipIf(!corpusHere)(`corpus of real VDIs${whySkipped}`, () => {
  const scratch = scratchFolder('vdi-corpus');

  it('basic.vdi reads as INDEX.md says', async () => {
    unpack('fox-it+dissect.hypervisor/tests/_data/disk/vdi/basic.vdi.gz', scratch.path);
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

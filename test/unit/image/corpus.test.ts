/** Real VMDKs and descriptors that none of us made. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { parseDescriptor } from '../../../main/engine/image/vmdk/descriptor.ts';
import { parentOf, variantOf } from '../../../main/engine/image/vmdk/refusals.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { corpus, corpusHere, recordedHash, whySkipped } from '../../support/corpus.ts';
import { sha256File } from '../../support/scratch.ts';

describe.skipIf(!corpusHere)(`corpus of real VMDKs${whySkipped}`, () => {
  const folder = join(corpus, 'log2timeline+dfvfs/test_data');
  it.each(['ext2.vmdk', 'image.vmdk', 'ext2~c1275db.vmdk'])('%s reads as INDEX.md says', async (name) => {
    const expected = recordedHash(`test_data/${name}`);
    const before = sha256File(join(folder, name));
    const layer = await openLayer(name, new Confinement(folder));
    const disk = await readLayer(layer, 0, layer.virtualSize);
    expect(createHash('sha256').update(disk).digest('hex')).toBe(expected);
    expect(layer.variant).toBe('monolithicSparse');
    expect((await findings(layer)).filter(({ severity }) => severity !== 'note')).toEqual([]);
    await layer.close();
    expect(sha256File(join(folder, name))).toBe(before);
  });

  it('descriptors written by ESX parse', () => {
    const text = join(corpus, 'vmware-text');
    const parsed = (readdirSync(text, { recursive: true }) as string[])
      .filter((name) => name.endsWith('.vmdk'))
      .map((name) => parseDescriptor(readFileSync(join(text, name)), name));
    const summary = parsed.map((descriptor) => {
      let variant: string;
      try {
        variant = variantOf(descriptor);
      } catch (error) {
        variant = (error as Error).message.replace(/ \(.*/, '');
      }
      return `${variant} ${descriptor.extents[0]?.sectors} ${parentOf(descriptor)?.recorded ?? '-'}`;
    });
    expect(summary.sort()).toMatchInlineSnapshot(`
      [
        "Not supported: VMDK vmfsPassthroughRDM 1048576000 -",
        "Not supported: VMDK vmfsRDM 1048576000 -",
        "vmfs 268435456 -",
        "vmfsSparse 16777216 sql-000004.vmdk",
        "vmfsSparse 16777216 sql.vmdk",
        "vmfsSparse 16777216 sql.vmdk",
        "vmfsSparse 20971520 /vmfs/volumes/501d996c-86c66169-eea2-005056b007c1/sql/sql.vmdk",
        "vmfsSparse 20971520 vps.vmdk",
        "vmfsSparse 41943040 android.vmdk",
      ]
    `);
  });
});

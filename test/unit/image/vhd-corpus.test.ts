/** Real VHDs that none of us made: QEMU's, Hyper-V's, and some that were changed by hand. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { corpus, corpusHere, recordedHash, unpack, whySkipped } from '../../support/corpus.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { worseOf } from '../../support/vhd-open.ts';

describe.skipIf(!corpusHere)(`corpus of real VHDs${whySkipped}`, () => {
  const scratch = scratchFolder('vhd-corpus');
  const dfvfs = join(corpus, 'log2timeline+dfvfs/test_data');
  const dissect = 'fox-it+dissect.hypervisor/tests/_data/disk/vhd';

  async function look(leaf: string, folder: string) {
    const disk = await openChain(leaf, new Confinement(folder));
    const hash = createHash('sha256')
      .update(await disk.read(0, disk.size))
      .digest('hex');
    const { size } = disk;
    await disk.close();
    const found = [];
    for await (const finding of verifyChain(leaf, new Confinement(folder))) found.push(finding);
    return { hash, size, worse: worseOf(found) };
  }

  it.each([
    ['ext2.vhd', 4_212_736],
    ['ext2~67b5923.vhd', 4_212_736],
    ['image~678307d.vhd', 104_448],
  ])('%s reads as INDEX.md says', async (name, size) => {
    const truth = recordedHash(`test_data/${name}`);
    expect(truth).toMatch(/^[0-9a-f]{64}$/);
    await leavesUntouched(dfvfs, async () => {
      expect(await look(name, dfvfs)).toEqual({ hash: truth, size, worse: [] });
    });
  });

  it('a differencing image and its parent, both changed by hand, read as INDEX.md says', async () => {
    const hash = recordedHash('test_data/image-differential.vhd');
    expect(hash).toMatch(/^[0-9a-f]{64}$/);
    expect(await look('image.vhd', dfvfs)).toEqual({ hash, size: 104_448, worse: ['suspicious footer-checksum'] });
    expect(await look('image-differential.vhd', dfvfs)).toEqual({
      hash,
      size: 104_448,
      worse: ['suspicious footer-checksum', 'suspicious footer-checksum', 'suspicious header-checksum'],
    });
  });

  it('a differencing image without its parent says which it misses', async () => {
    await expect(openChain('fat-differential.vhd', new Confinement(dfvfs))).rejects.toMatchObject({
      kind: 'missing-parent',
      details: { recorded: '.\\fat-parent.vhd', expectedId: '5fa21a55-f394-aa4d-9958-1951a67d5540' },
    });
    const layer = await openLayer('fat-differential.vhd', new Confinement(dfvfs));
    expect(layer).toMatchObject({ variant: 'differencing', virtualSize: 4_194_304 });
    expect(layer.parent?.alternatives).toEqual(['C:\\Projects\\dfvfs\\test_data\\fat-parent.vhd']);
    await layer.close();
  });

  it.each(['dynamic.vhd', 'fixed.vhd'])('Hyper-V’s %s reads as it should', async (name) => {
    const folder = mkdtempSync(join(scratch.path, 'hyper-v-'));
    unpack(`${dissect}/${name}.gz`, folder);
    const bytes = readFileSync(join(folder, name));
    // INDEX.md has none for the fixed one: what stands before its footer.
    const before = createHash('sha256').update(bytes.subarray(0, 10_485_760)).digest('hex');
    const hash = name === 'fixed.vhd' ? before : recordedHash(`tests/_data/disk/vhd/${name}.gz`);
    expect(await look(name, folder)).toEqual({ hash, size: 10_485_760, worse: [] });
  });
});

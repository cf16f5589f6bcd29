/** Real Parallels disks that none of us made. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Disk } from '../../../main/engine/chain/disk.ts';
import { openChain } from '../../../main/engine/chain/open.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { findings } from '../../conformance/image-layer.ts';
import { corpusHere, unpackFolder, whySkipped } from '../../support/corpus.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

describe.skipIf(!corpusHere)(`corpus of real Parallels disks${whySkipped}`, () => {
  const scratch = scratchFolder('parallels-corpus');

  /** The .hdd folder with its images unpacked. */
  function unpacked(name: string): string {
    const folder = join(scratch.path, name);
    unpackFolder(join('fox-it+dissect.hypervisor/tests/_data/disk/hdd', name), folder);
    return folder;
  }
  async function hashOf(disk: Disk, start: number, end: number): Promise<string> {
    const hash = createHash('sha256');
    for (let at = start; at < end; at += 1 << 22) hash.update(await disk.read(at, Math.min(1 << 22, end - at)));
    return hash.digest('hex');
  }
  const open = (folder: string) => openChain('DiskDescriptor.xml', new Confinement(folder));

  it('expanding.hdd reads as INDEX.md says, and so does plain.hdd, which holds the same size of disk', async () => {
    const expanding = unpacked('expanding.hdd');
    await leavesUntouched(expanding, async () => {
      const disk = await open(expanding);
      expect(disk.layers[0]).toMatchObject({ variant: 'expanding', virtualSize: 104_857_600, parent: undefined });
      expect(await hashOf(disk, 0, disk.size)).toBe('7906281f7a25f13df78c907d7bc4e9313d9a26fa86386c6e2a737a784fe80b8f');
      expect((await findings(disk.layers[0]!)).filter(({ severity }) => severity !== 'note')).toEqual([]);
      await disk.close();
    });
    const plain = unpacked('plain.hdd');
    const disk = await open(plain);
    expect(disk.layers[0]).toMatchObject({ variant: 'plain', virtualSize: 104_857_600 });
    const file = readdirSync(plain).find((name) => name.endsWith('.hds'))!;
    const stored = createHash('sha256')
      .update(readFileSync(join(plain, file)))
      .digest('hex');
    expect(await hashOf(disk, 0, disk.size)).toBe(stored);
    await disk.close();
  });

  it('split.hdd reads as one disk of 10 GiB, whose last part is as INDEX.md says', async () => {
    const folder = unpacked('split.hdd');
    const disk = await open(folder);
    expect(disk.layers[0]).toMatchObject({ variant: 'split', virtualSize: 20_971_520 * 512 });
    expect(disk.layers[0]!.files).toHaveLength(7);
    expect((await findings(disk.layers[0]!)).filter(({ severity }) => severity !== 'note')).toEqual([]);
    const parts = [0, 3_989_504, 7_979_008, 11_968_512, 15_958_016, 19_947_520, 20_971_520].map((n) => n * 512);
    expect(await hashOf(disk, parts[5]!, parts[6]!)).toBe(
      'f20f115a6048613d055d913336e5d4a00304c4c33d8ddddc9dc82277c037ed33',
    );
    await disk.close();
  }, 60_000);
});

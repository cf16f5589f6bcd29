/** Real QCOW2 images that none of us made. */
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import { snapshotPath } from '../../../main/engine/image/image.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { corpus, corpusHere, indexed, recordedHash, unpackFolder, whySkipped } from '../../support/corpus.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

async function expectTruth(path: string, folder: string, expected: string | undefined): Promise<void> {
  const confinement = new Confinement(folder, { synchronous: true });
  const disk = await openChain(path, confinement, { synchronous: true });
  const hash = createHash('sha256');
  for (let at = 0; at < disk.size; at += 1 << 22) hash.update(await disk.read(at, Math.min(1 << 22, disk.size - at)));
  await disk.close();
  expect(hash.digest('hex')).toBe(expected);
  for await (const finding of verifyChain(path, confinement)) expect(finding).toMatchObject({ severity: 'note' });
}

describe.skipIf(!corpusHere)(`corpus of real QCOW2 images${whySkipped}`, () => {
  const scratch = scratchFolder('corpus-qcow');
  const plain = 'log2timeline+dfvfs/test_data';
  const packed = 'tests/_data/disk/qcow2';
  const packedFolder = `fox-it+dissect.hypervisor/${packed}`;

  beforeAll(() => {
    unpackFolder(plain, join(scratch.path, 'plain'), (name) => name.endsWith('.qcow2'));
    unpackFolder(packedFolder, join(scratch.path, 'packed'));
  });

  it.each(corpusHere ? readdirSync(join(corpus, plain)).filter((name) => name.endsWith('.qcow2')) : [])(
    '%s reads as INDEX.md says',
    async (name) => {
      const expected = recordedHash(`test_data/${name}`);
      const folder = join(scratch.path, 'plain');
      await leavesUntouched(folder, () => expectTruth(name, folder, expected));
    },
  );

  const names = corpusHere ? readdirSync(join(corpus, packedFolder)).filter((name) => name.endsWith('.qcow2.gz')) : [];
  it.each(names)('%s reads as INDEX.md says', async (name) => {
    const expected = recordedHash(`${packed}/${name}`);
    await expectTruth(name.replace(/\.gz$/, ''), join(scratch.path, 'packed'), expected);
  });

  it.each([
    ['1', "you can't see me"],
    ['2', 'confused'],
  ])('snapshot.qcow2 holds snapshot %s, "%s", as INDEX.md says', async (id, name) => {
    const line = indexed(`${packed}/snapshot.qcow2.gz`);
    const expected = new RegExp(`"${name}" (?:raw sha256 )?([0-9a-f]{64})`).exec(line)?.[1];
    const image = join(scratch.path, 'packed', 'snapshot.qcow2');
    await expectTruth(snapshotPath(image, id), join(scratch.path, 'packed'), expected);
  });
});

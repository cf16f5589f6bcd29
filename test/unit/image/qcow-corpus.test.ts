/** Real QCOW2 images that none of us made. */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import { snapshotPath } from '../../../main/engine/image/image.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

const corpus = resolve(import.meta.dirname, '../../../../shared/corpus');
const here = existsSync(join(corpus, 'INDEX.md'));
const why = here ? '' : ` (skipped: ${corpus} is absent)`;

/** The line of INDEX.md for a file. */
function indexed(path: string): string {
  const index = readFileSync(join(corpus, 'INDEX.md'), 'utf8');
  return index.split('\n').find((line) => line.startsWith(`| ${path} `)) ?? '';
}

async function expectTruth(path: string, folder: string, expected: string | undefined): Promise<void> {
  const confinement = new Confinement(folder, { synchronous: true });
  const disk = await openChain(path, confinement, { synchronous: true });
  const hash = createHash('sha256');
  for (let at = 0; at < disk.size; at += 1 << 22) hash.update(await disk.read(at, Math.min(1 << 22, disk.size - at)));
  await disk.close();
  expect(hash.digest('hex')).toBe(expected);
  for await (const finding of verifyChain(path, confinement)) expect(finding).toMatchObject({ severity: 'note' });
}

describe.skipIf(!here)(`corpus of real QCOW2 images${why}`, () => {
  const scratch = scratchFolder('corpus-qcow');
  const plain = join(corpus, 'log2timeline+dfvfs/test_data');
  const packed = 'tests/_data/disk/qcow2';
  const packedFolder = join(corpus, 'fox-it+dissect.hypervisor', packed);

  beforeAll(() => {
    mkdirSync(join(scratch.path, 'plain'));
    mkdirSync(join(scratch.path, 'packed'));
    for (const name of readdirSync(plain)) {
      if (name.endsWith('.qcow2')) cpSync(join(plain, name), join(scratch.path, 'plain', name));
    }
    for (const name of readdirSync(packedFolder)) {
      const bytes = gunzipSync(readFileSync(join(packedFolder, name)));
      writeFileSync(join(scratch.path, 'packed', name.replace(/\.gz$/, '')), bytes);
    }
  });

  it.each(here ? readdirSync(plain).filter((name) => name.endsWith('.qcow2')) : [])(
    '%s reads as INDEX.md says',
    async (name) => {
      const expected = /raw sha256 ([0-9a-f]{64})/.exec(indexed(`test_data/${name}`))?.[1];
      const folder = join(scratch.path, 'plain');
      await leavesUntouched(folder, () => expectTruth(name, folder, expected));
    },
  );

  const names = here ? readdirSync(packedFolder).filter((name) => name.endsWith('.qcow2.gz')) : [];
  it.each(names)('%s reads as INDEX.md says', async (name) => {
    const expected = /raw sha256 ([0-9a-f]{64})/.exec(indexed(`${packed}/${name}`))?.[1];
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

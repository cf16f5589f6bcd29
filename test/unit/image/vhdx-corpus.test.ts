/** Real VHDX files that none of us made: Hyper-V's, with the truth that INDEX.md records of them. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { runAsync } from '../../../main/engine/storage/io.ts';
import { expectCover, findings } from '../../conformance/image-layer.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { codesOf } from '../../support/vhdx-open.ts';

const corpus = resolve(import.meta.dirname, '../../../../shared/corpus');
const here = existsSync(join(corpus, 'INDEX.md'));
const why = here ? '' : ` (skipped: ${corpus} is absent)`;
const DISSECT = 'fox-it+dissect.hypervisor/tests/_data/disk/vhdx';
const DISCUTILS = 'DiscUtils+DiscUtils/Tests/LibraryTests';

const GIB = 2 ** 30;

describe.skipIf(!here)(`corpus of real VHDXs${why}`, () => {
  const scratch = scratchFolder('vhdx-corpus');

  function unpack(path: string): { name: string; index: string } {
    const name = path.split('/').at(-1)!.replace(/\.gz$/, '');
    writeFileSync(join(scratch.path, name), gunzipSync(readFileSync(join(corpus, path))));
    const index = readFileSync(join(corpus, 'INDEX.md'), 'utf8');
    return {
      name,
      index: index.split('\n').find((line) => line.includes(`${path.split('/').slice(1).join('/')} `)) ?? '',
    };
  }

  it.each([
    [`${DISSECT}/dynamic.vhdx.gz`, 'dynamic', 'empty'],
    [`${DISSECT}/fixed.vhdx.gz`, 'fixed', 'empty'],
    [`${DISCUTILS}/Btrfs/Data/btrfs.vhdx.gz`, 'dynamic', 'empty'],
    [`${DISCUTILS}/Vhdx/Data/vhdx-log-replay.vhdx.gz`, 'dynamic', 'replayed in memory'],
    // 10 GiB of mostly zeros: their hashes take minutes. QEMU compares them with what we read in test/peers/vhdx.test.ts.
    [`${DISCUTILS}/Swap/Data/swap.vhdx.gz`, 'dynamic', 'empty'],
  ])('%s reads as INDEX.md says', async (path, variant, log) => {
    const { name, index } = unpack(path);
    const size = Number(/virtual ([\d,]+)/.exec(index)?.[1]?.replaceAll(',', '') ?? Number.NaN);
    const sha256 = /raw sha256 ([0-9a-f]{64})/.exec(index)?.[1];
    expect(sha256).toBeDefined();
    await leavesUntouched(scratch.path, async () => {
      const layer = await openLayer(name, new Confinement(scratch.path));
      expect(layer).toMatchObject({ variant, parent: undefined });
      // INDEX.md gives no size for the one with a log.
      if (!Number.isNaN(size)) expect(layer.virtualSize).toBe(size);
      expect(layer.properties).toMatchObject({
        log,
        creator: expect.stringMatching(/^Microsoft Windows 10\.0\.\d+\.0$/),
      });
      expectCover(await runAsync(layer.runs(0, layer.virtualSize)), 0, layer.virtualSize);
      const all = await findings(layer);
      expect(codesOf(all)).toEqual([]);
      expect(all.some(({ code }) => code === 'log-replayed')).toBe(log !== 'empty');
      await layer.close();
      if (layer.virtualSize <= GIB || process.env.CHAINLIFT_WHOLE_CORPUS === '1') {
        const disk = await openChain(join(scratch.path, name), new Confinement(scratch.path));
        const hash = createHash('sha256');
        const chunk = 4 << 20;
        for (let at = 0; at < disk.size; at += chunk) hash.update(await disk.read(at, Math.min(chunk, disk.size - at)));
        await disk.close();
        expect(hash.digest('hex')).toBe(sha256);
      }
    });
  });

  it('a differencing disk of Hyper-V says who its parent is, and is refused without it', async () => {
    const { name } = unpack(`${DISSECT}/differencing.avhdx.gz`);
    const layer = await openLayer(name, new Confinement(scratch.path));
    const parent = 'Generation 1_49C4BAF3-4B25-4406-8C4B-D39E65C32385.avhdx';
    expect(layer).toMatchObject({
      variant: 'differencing',
      virtualSize: 8 * GIB,
      granularity: 512,
      id: 'b298d413-f67e-412a-9a72-c7c7fc9b6cb5',
    });
    expect(layer.parent).toEqual({
      recorded: `.\\${parent}`,
      alternatives: [
        `\\\\?\\Volume{0eba351e-5634-46d6-a8cf-4ddc2d6ac0b9}\\Users\\Public\\Documents\\Hyper-V\\Virtual hard disks\\${parent}`,
        `C:\\Users\\Public\\Documents\\Hyper-V\\Virtual hard disks\\${parent}`,
      ],
      id: 'ff34003b-11ed-4cf8-a166-b2be05e20b80',
    });
    const runs = await runAsync(layer.runs(0, layer.virtualSize));
    expectCover(runs, 0, layer.virtualSize);
    // Its blocks are partly there: sectors of its own among the parent's.
    expect(runs.filter(({ kind }) => kind === 'data').length).toBeGreaterThan(100);
    expect(runs.some(({ kind }) => kind === 'zero')).toBe(false);
    expect(await layer.allocatedBytes()).toBe(3_174_400);
    expect(codesOf(await findings(layer))).toEqual([]);
    await layer.close();
    await expect(openChain(join(scratch.path, name), new Confinement(scratch.path))).rejects.toMatchObject({
      kind: 'missing-parent',
      details: { recorded: `.\\${parent}`, expectedId: 'ff34003b-11ed-4cf8-a166-b2be05e20b80' },
    });
  });
});

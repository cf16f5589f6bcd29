import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { runAsync } from '../../../main/engine/storage/io.ts';
import { expectCover, findings } from '../../conformance/image-layer.ts';
import { corpusHere, indexed, unpack, whySkipped } from '../../support/corpus.ts';
import { hashChain } from '../../support/hash.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { codesOf } from '../../support/vhdx-open.ts';

const DISSECT = 'fox-it+dissect.hypervisor/tests/_data/disk/vhdx';
const DISCUTILS = 'DiscUtils+DiscUtils/Tests/LibraryTests';

const GIB = 2 ** 30;

describe.skipIf(!corpusHere)(`corpus of real VHDXs${whySkipped}`, () => {
  const scratch = scratchFolder('vhdx-corpus');

  it.each([
    [`${DISSECT}/dynamic.vhdx.gz`, 'dynamic', 'empty'],
    [`${DISSECT}/fixed.vhdx.gz`, 'fixed', 'empty'],
    [`${DISCUTILS}/Btrfs/Data/btrfs.vhdx.gz`, 'dynamic', 'empty'],
    [`${DISCUTILS}/Vhdx/Data/vhdx-log-replay.vhdx.gz`, 'dynamic', 'replayed in memory'],
    // 10 GiB of mostly zeros: their hashes take minutes. QEMU compares them with what we read in test/peers/vhdx.test.ts.
    [`${DISCUTILS}/Swap/Data/swap.vhdx.gz`, 'dynamic', 'empty'],
  ])('%s reads as INDEX.md says', async (path, variant, log) => {
    const name = unpack(path, scratch.path);
    const index = indexed(path.split('/').slice(1).join('/'));
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
        expect(await hashChain(name, scratch.path)).toBe(sha256);
      }
    });
  });

  it('a differencing disk of Hyper-V says who its parent is, and is refused without it', async () => {
    const name = unpack(`${DISSECT}/differencing.avhdx.gz`, scratch.path);
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

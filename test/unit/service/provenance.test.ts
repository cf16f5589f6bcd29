import { describe, expect, it } from 'vitest';
import { Disk } from '../../../main/engine/chain/disk.ts';
import type { FileRun } from '../../../main/engine/filesystem/file-system.ts';
import { layerShares } from '../../../main/engine/service/provenance.ts';
import type { Volume } from '../../../main/engine/volume/volume.ts';
import { damage, directory, file, MemoryFileSystem } from '../../support/memory-file-system.ts';
import { chainModel, randomLayer } from '../../support/memory-layer.ts';
import { randomFrom } from '../../support/random.ts';
import { fakePoint } from './fake-point.ts';

const size = 50_000;
const start = 4096;
/** A volume that begins at `start` of disk 0, in two pieces, so that one run of the volume is two of the disk. */
const volume = {
  name: 'sda1',
  disk: 0,
  runs: (offset: number, length: number) => {
    const split = 10_000;
    const parts = [];
    if (offset < split) {
      parts.push({ offset, length: Math.min(length, split - offset), disk: 0, position: start + offset });
    }
    const rest = Math.max(offset, split);
    if (offset + length > split) {
      parts.push({ offset: rest, length: offset + length - rest, disk: 0, position: start + 5000 + rest });
    }
    return parts;
  },
} as unknown as Volume;

function setup() {
  const random = randomFrom(31);
  const layers = ['leaf', 'middle', 'base'].map((name) =>
    randomLayer(random, name, { size, sources: 2, longest: 900, data: 0.3, zero: 0.1 }),
  );
  return { disk: new Disk(layers.map(({ layer }) => layer)), model: chainModel(size, layers) };
}

async function sharesOf(runs: FileRun[]) {
  const { disk, model } = setup();
  const total = runs.reduce((sum, run) => sum + run.length, 0);
  const node = file({ size: total, bytes: (_, length) => new Uint8Array(length), runs: () => runs });
  const fs = new MemoryFileSystem(directory({ f: node }));
  const shares = await layerShares(fakePoint([{ name: 'sda1', content: fs }], disk), volume, fs, await fs.entry('/f'));
  expect(fs.openContents).toBe(0);
  return { shares, model, total };
}

describe('layerShares', () => {
  it('counts every byte of a file for the layer that answers for it', async () => {
    const runs: FileRun[] = [
      { kind: 'volume', offset: 0, length: 6000, position: 7000 },
      { kind: 'zero', offset: 6000, length: 1234 },
      { kind: 'inline', offset: 7234, length: 60, position: 100 },
      { kind: 'volume', offset: 7294, length: 9000, position: 20_000 },
    ];
    const { shares, model, total } = await sharesOf(runs);
    const expected = new Map<number, number>();
    for (const run of runs) {
      for (let i = 0; i < run.length; i++) {
        const inVolume = (run.position ?? 0) + i;
        const byte = start + inVolume + (inVolume < 10_000 ? 0 : 5000);
        const layer = run.kind === 'zero' ? -1 : model.layer[byte]!;
        expected.set(layer, (expected.get(layer) ?? 0) + 1);
      }
    }
    expect(new Map(shares.map((share) => [share.layer ?? -1, share.bytes]))).toEqual(expected);
    expect(shares.reduce((sum, share) => sum + share.bytes, 0)).toBe(total);
    expect(shares.map((share) => share.bytes)).toEqual(shares.map((share) => share.bytes).sort((a, b) => b - a));
    for (const share of shares) {
      expect(share.name).toBe(share.layer === undefined ? 'zeros' : ['leaf', 'middle', 'base'][share.layer]);
    }
  });

  it('a file without content has none; one that is all hole is zeros', async () => {
    expect((await sharesOf([])).shares).toEqual([]);
    expect((await sharesOf([{ kind: 'zero', offset: 0, length: 77 }])).shares).toEqual([{ name: 'zeros', bytes: 77 }]);
  });

  it('damage is thrown, and the content closed', async () => {
    const { disk } = setup();
    const broken = file({
      size: 10,
      bytes: () => new Uint8Array(10),
      runs: () => {
        throw damage('Extent');
      },
    });
    const fs = new MemoryFileSystem(directory({ f: broken }));
    await expect(
      layerShares(fakePoint([{ name: 'sda1', content: fs }], disk), volume, fs, await fs.entry('/f')),
    ).rejects.toMatchObject({ kind: 'corrupt' });
    expect(fs.openContents).toBe(0);
  });
});

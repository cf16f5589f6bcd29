/** Which copy of a hosted sparse extent's tables is believed, at every kind of damage. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openLayer } from '../../../main/engine/image/formats.ts';
import type { Finding, ImageLayer } from '../../../main/engine/image/image.ts';
import { isDoubtful, settleEntries, UNSETTLED } from '../../../main/engine/image/vmdk/entry-block.ts';
import { SparseExtentHeaderOffsets as header } from '../../../main/engine/image/vmdk/layout.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { randomFrom } from '../../support/random.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { type buildSparse, type Grain, modelOf, pattern, SECTOR, writeSparseDisk } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('vmdk-redundant');
let number = 0;

const grainSectors = 16;
/** Two whole tables of 512 entries and a part of a third. */
const layout = {
  capacitySectors: grainSectors * 1100,
  grainSectors,
  grains: new Map<number, Grain>(
    [0, 1, 5, 130, 300, 511, 512, 700, 1023, 1024, 1099].map((n) => [
      n,
      pattern(n * grainSectors * SECTOR, grainSectors * SECTOR),
    ]),
  ),
};
type Image = ReturnType<typeof buildSparse>;

async function damaged<T>(change: (image: Image) => void, body: (layer: ImageLayer) => Promise<T>): Promise<T> {
  const folder = join(scratch.path, `case-${number++}`);
  mkdirSync(folder);
  const image = writeSparseDisk(folder, 'd', layout);
  change(image);
  writeFileSync(join(folder, 'd.vmdk'), image.bytes);
  const layer = await openLayer('d.vmdk', new Confinement(folder));
  try {
    return await body(layer);
  } finally {
    await layer.close();
  }
}

const garbage = (bytes: Buffer, at: number, length: number, seed: number): void => {
  const random = randomFrom(seed);
  for (let i = 0; i < length; i += 4) bytes.writeUInt32LE(Math.floor(random() * 2 ** 32), at + i);
};
const model = modelOf(layout);
const codes = (found: readonly Finding[]) => found.map(({ code }) => code);

describe('redundant grain tables', () => {
  it.each<[string, (image: Image) => void]>([
    ['gdOffset out of the file', (image) => image.bytes.writeBigUInt64LE(1n << 40n, header.gdOffset)],
    ['gdOffset in the header', (image) => image.bytes.writeBigUInt64LE(0n, header.gdOffset)],
    ['a directory entry out of the file', (image) => image.bytes.writeUInt32LE(0xff_ffff, image.at.directory)],
    ['a directory entry in the header', (image) => image.bytes.writeUInt32LE(1, image.at.directory + 4)],
    ['a directory entry that is gone', (image) => image.bytes.writeUInt32LE(0, image.at.directory + 4)],
    ['a directory of zeros', (image) => image.bytes.fill(0, image.at.directory, image.at.directory + SECTOR)],
    ['a directory of garbage', (image) => garbage(image.bytes, image.at.directory, SECTOR, 1)],
    ['one entry out of the file', (image) => image.bytes.writeUInt32LE(0xffff_ffff, image.at.tables[0]! + 5 * 4)],
    ['one entry in the header', (image) => image.bytes.writeUInt32LE(3, image.at.tables[0]! + 5 * 4)],
    ['a table of garbage', (image) => garbage(image.bytes, image.at.tables[0]!, 2048, 2)],
    ['a sector of garbage in a table', (image) => garbage(image.bytes, image.at.tables[1]! + SECTOR, SECTOR, 3)],
    ['a table of zeros', (image) => image.bytes.fill(0, image.at.tables[1]!, image.at.tables[1]! + 2048)],
    [
      'garbage of which some would fit by chance',
      (image) => {
        garbage(image.bytes, image.at.tables[0]!, 2048, 4);
        const somewhere = image.at.grains.get(700)! / SECTOR;
        for (const entry of [0, 2, 130, 200, 511])
          image.bytes.writeUInt32LE(somewhere, image.at.tables[0]! + entry * 4);
      },
    ],
  ])('stand in for %s', async (_what, change) => {
    await damaged(change, async (layer) => {
      // Whole, and by grains, so that reads of a part see the same table.
      expect((await readLayer(layer, 0, model.length)).equals(model)).toBe(true);
      for (let n = 0; n < 1100; n += 7) {
        const at = n * grainSectors * SECTOR;
        const length = grainSectors * SECTOR;
        expect((await readLayer(layer, at, length)).equals(model.subarray(at, at + length)), `grain ${n}`).toBe(true);
      }
      const found = await findings(layer);
      expect(codes(found)).toContain('redundant-table-used');
      expect(found.some(({ severity }) => severity === 'damaged')).toBe(true);
      expect(codes(found)).not.toContain('grain-overlap');
    });
  });

  it('are not used for a table that is whole, and damage in them changes nothing', async () => {
    await damaged(
      (image) => garbage(image.bytes, image.at.redundantTables[0]!, 2048, 5),
      async (layer) => {
        expect((await readLayer(layer, 0, model.length)).equals(model)).toBe(true);
        const found = await findings(layer);
        expect(codes(found)).toContain('redundant-table-differs');
        expect(codes(found)).not.toContain('redundant-table-used');
      },
    );
  });

  it('say nothing against an entry behind the end of a file that was cut off', async () => {
    const folder = join(scratch.path, `case-${number++}`);
    mkdirSync(folder);
    const image = writeSparseDisk(folder, 'd', layout);
    // The copy was not written any more when the file was cut.
    image.bytes.writeUInt32LE(0, image.at.redundantTables[2]! + 75 * 4);
    writeFileSync(join(folder, 'd.vmdk'), image.bytes.subarray(0, image.at.grains.get(1099)!));
    const layer = await openLayer('d.vmdk', new Confinement(folder));
    await expect(readLayer(layer, 1099 * grainSectors * SECTOR, 512)).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: 'VMDK grain table entry', position: image.at.tables[2]! + 75 * 4 },
    });
    await layer.close();
  });

  it('leave an error where both copies are ruined and disagree, and what they agree on readable', async () => {
    await damaged(
      (image) => {
        for (const tables of [image.at.tables, image.at.redundantTables]) {
          image.bytes.writeUInt32LE(0xffff_ffff, tables[0]! + 9 * 4);
        }
        image.bytes.writeUInt32LE(image.at.grains.get(0)! / SECTOR, image.at.tables[0]! + 7 * 4);
      },
      async (layer) => {
        const at = (n: number) => n * grainSectors * SECTOR;
        expect((await readLayer(layer, at(5), 512)).equals(model.subarray(at(5), at(5) + 512))).toBe(true);
        await expect(readLayer(layer, at(9), 512)).rejects.toMatchObject({ kind: 'corrupt' });
        await expect(readLayer(layer, at(7), 512)).rejects.toMatchObject({ kind: 'corrupt' });
      },
    );
  });
});

it('check finds directory entries that share a table, and goes through it once', async () => {
  await damaged(
    (image) => {
      for (const at of [image.at.directory, image.at.redundantDirectory]) {
        image.bytes.writeUInt32LE(image.bytes.readUInt32LE(at), at + 4);
      }
    },
    async (layer) => {
      const found = await findings(layer);
      expect(codes(found)).toContain('table-overlap');
      expect(codes(found)).not.toContain('grain-overlap');
    },
  );
});

describe('settling two copies', () => {
  const rules = {
    plausible: (_index: number, entry: number) => entry === 0 || (entry >= 10 && entry < 100),
    possible: (entry: number) => entry === 0 || (entry >= 10 && entry < 1000),
  };
  const read = (entries: readonly number[]) => (index: number) => entries[index]!;
  const settle = (own: readonly number[], copy?: readonly number[]) =>
    settleEntries(own.length, read(own), copy && read(copy), rules);

  it.each([
    ['a whole table stands', [11, 0, 12], [11, 13, 12], [11, 0, 12], false],
    ['a ruined sector is replaced', [11, 5000, 50], [11, 0, 12], [11, 0, 12], true],
    ['an entry behind the end is not replaced by nothing', [11, 500, 12], [11, 0, 12], [11, UNSETTLED, 12], false],
    ['an entry behind the end is replaced by another', [11, 500, 12], [11, 13, 12], [11, 13, 12], true],
    ['a wiped table is replaced', [0, 0, 0], [11, 0, 12], [11, 0, 12], true],
    ['a wiped table is not replaced by garbage', [0, 0, 0], [11, 5000, 12], [0, 0, 0], false],
    ['two ruined sectors', [11, 5000, 12, 13], [11, 14, 5000, 15], [11, 14, UNSETTLED, UNSETTLED], true],
    ['no copy', [11, 5000, 0], undefined, [11, UNSETTLED, 0], false],
  ])('%s', (_what, own, copy, expected, fromCopy) => {
    const settled = settle(own, copy);
    expect([...settled.entries]).toEqual(expected);
    expect(settled.fromCopy).toBe(fromCopy);
  });

  it('goes by sectors of the table', () => {
    const own = Array.from({ length: 256 }, (_, i) => (i === 5 ? 5000 : i === 200 ? 50 : 0));
    const copy = Array.from({ length: 256 }, () => 20);
    const { entries } = settle(own, copy);
    expect([...entries.subarray(0, 128)].every((entry) => entry === 20)).toBe(true);
    expect([...entries.subarray(128)]).toEqual(own.slice(128));
  });

  it('doubts empty tables and those with an entry that can’t be', () => {
    const doubt = (own: readonly number[]) => isDoubtful(own.length, read(own), rules);
    expect(doubt([0, 0])).toBe(true);
    expect(doubt([11, 500])).toBe(true);
    expect(doubt([11, 0])).toBe(false);
  });
});

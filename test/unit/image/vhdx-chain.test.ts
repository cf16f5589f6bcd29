/** Chains of differencing VHDX: what they read as, and how a parent is told from what is not it. */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import type { Finding } from '../../../main/engine/image/image.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { scratchFolder } from '../../support/scratch.ts';
import {
  type Block,
  buildVhdx,
  dirty,
  diskOf,
  MIB,
  parentLocator,
  type VhdxImage,
} from '../../support/vhdx-builder.ts';
import { codesOf } from '../../support/vhdx-open.ts';
import { pattern } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('vhdx-chain');
const ids = [1, 2, 3, 4].map((n) => `${String(n).repeat(8)}-1111-4222-8333-444444444444`);

const full = (block: number, seed: number, size = MIB): [number, Block] => [block, pattern(block * size, size, seed)];
const part = (block: number, seed: number, sectors: readonly number[], sectorSize = 512): [number, Block] => [
  block,
  new Map(sectors.map((s) => [s, pattern(block * MIB + s * sectorSize, sectorSize, seed)])),
];
const every = (step: number, count = 2048) => Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);

/** Base, child and grandchild. In block 1 the grandchild has some sectors, the child others, the base all. */
function chain(sectorSize = 512): { images: VhdxImage[]; disks: Buffer[] } {
  const per = MIB / sectorSize;
  const shared = { virtualSize: 8 * MIB, sectorSize };
  const base = buildVhdx({
    ...shared,
    dataWriteGuid: ids[0]!,
    blocks: new Map([full(0, 1), full(1, 1), full(2, 1), full(3, 1), full(4, 1), full(6, 1)]),
  });
  const child = buildVhdx({
    ...shared,
    dataWriteGuid: ids[1]!,
    parent: parentLocator('base.vhdx', ids[0]!),
    blocks: new Map<number, Block>([
      part(1, 2, every(3, per), sectorSize),
      [2, 'zero'],
      full(3, 2),
      [4, 'unmapped'],
      part(5, 2, every(2, per), sectorSize),
      [7, 'undefined'],
    ]),
  });
  const leaf = buildVhdx({
    ...shared,
    dataWriteGuid: ids[2]!,
    parent: parentLocator('child.avhdx', ids[1]!),
    // Blocks 0 and 6 are in none of the two, block 5 is a part over a part over nothing.
    blocks: new Map<number, Block>([
      part(1, 3, every(5, per), sectorSize),
      part(2, 3, [0, per - 1], sectorSize),
      [3, 'zero'],
      part(5, 3, every(7, per), sectorSize),
    ]),
  });
  const disks = [diskOf(base)];
  disks.push(diskOf(child, disks[0]!));
  disks.push(diskOf(leaf, disks[1]!));
  return { images: [base, child, leaf], disks };
}

/** Writes files into a folder of their own. */
function folderOf(files: Readonly<Record<string, VhdxImage>>): string {
  const folder = mkdtempSync(join(scratch.path, 'chain-'));
  for (const [name, { bytes }] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), bytes);
  }
  return folder;
}

async function readChain(folder: string, leaf: string): Promise<Buffer> {
  const disk = await openChain(join(folder, leaf), new Confinement(folder));
  try {
    return Buffer.from(await disk.read(0, disk.size));
  } finally {
    await disk.close();
  }
}

async function verify(folder: string, leaf: string): Promise<Finding[]> {
  const all: Finding[] = [];
  for await (const finding of verifyChain(join(folder, leaf), new Confinement(folder))) all.push(finding);
  return all;
}

const missing = (details: object) => ({ kind: 'missing-parent', details });

describe('a chain of VHDX', () => {
  it.each([512, 4096])('reads as it was written, at every depth: sectors of %i bytes', async (sectorSize) => {
    const { images, disks } = chain(sectorSize);
    const [base, child, leaf] = images as [VhdxImage, VhdxImage, VhdxImage];
    const folder = folderOf({ 'base.vhdx': base, 'child.avhdx': child, 'leaf.avhdx': leaf });
    for (const [i, name] of ['base.vhdx', 'child.avhdx', 'leaf.avhdx'].entries()) {
      expect((await readChain(folder, name)).equals(disks[i]!)).toBe(true);
    }
    expect(await verify(folder, 'leaf.avhdx')).toEqual([]);
  });

  it('reads through a log in the middle', async () => {
    const { images, disks } = chain();
    const [base, child, leaf] = images as [VhdxImage, VhdxImage, VhdxImage];
    dirty(child, [child.at.bat, child.at.bitmaps.get(0)!]);
    const folder = folderOf({ 'base.vhdx': base, 'child.avhdx': child, 'leaf.avhdx': leaf });
    expect((await readChain(folder, 'leaf.avhdx')).equals(disks[2]!)).toBe(true);
    expect((await verify(folder, 'leaf.avhdx')).map(({ code }) => code)).toEqual(['log-replayed']);
  });

  it('follows a disk that was made larger', async () => {
    const base = buildVhdx({ virtualSize: 2 * MIB, dataWriteGuid: ids[0]!, blocks: new Map([full(0, 1), full(1, 1)]) });
    const leaf = buildVhdx({
      virtualSize: 4 * MIB,
      parent: parentLocator('base.vhdx', ids[0]!),
      blocks: new Map([part(2, 2, [5])]),
    });
    const folder = folderOf({ 'base.vhdx': base, 'leaf.avhdx': leaf });
    expect((await readChain(folder, 'leaf.avhdx')).equals(diskOf(leaf, diskOf(base)))).toBe(true);
  });

  it('finds its parents by any of the names, inside the folder and nowhere else', async () => {
    const { images, disks } = chain();
    const [base] = images as [VhdxImage];
    const child = (paths: Record<string, string>) =>
      buildVhdx({ virtualSize: 8 * MIB, parent: { parent_linkage: `{${ids[0]}}`, ...paths }, blocks: new Map() });
    for (const [place, leaf, paths] of [
      ['base.vhdx', 'leaf.avhdx', { relative_path: 'base.vhdx' }],
      ['base.vhdx', 'vm/snap/leaf.avhdx', { relative_path: '..\\..\\base.vhdx' }],
      ['disks/base.vhdx', 'leaf.avhdx', { relative_path: '.\\disks\\base.vhdx' }],
      ['disks/base.vhdx', 'leaf.avhdx', { relative_path: 'disks\\base.vhdx' }],
      [
        'web 01.vhdx',
        'leaf.avhdx',
        {
          relative_path: '.\\gone.vhdx',
          volume_path: '\\\\?\\Volume{0eba351e-5634-46d6-a8cf-4ddc2d6ac0b9}\\x\\web 01.vhdx',
        },
      ],
      ['x/base.vhdx', 'leaf.avhdx', { absolute_win32_path: '\\\\?\\d:\\vms\\x\\base.vhdx' }],
      // Out of the folder by its first name, in it by its second.
      ['base.vhdx', 'leaf.avhdx', { relative_path: '..\\..\\..\\etc\\passwd', absolute_win32_path: 'C:\\base.vhdx' }],
    ] as [string, string, Record<string, string>][]) {
      const folder = folderOf({ [place]: base, [leaf]: child(paths) });
      expect((await readChain(folder, leaf)).equals(disks[0]!), JSON.stringify(paths)).toBe(true);
    }
    const folder = folderOf({ 'base.vhdx': base, 'leaf.avhdx': child({ relative_path: '..\\outside.vhdx' }) });
    await expect(readChain(folder, 'leaf.avhdx')).rejects.toMatchObject({ kind: 'denied' });
    const gone = folderOf({ 'leaf.avhdx': child({ relative_path: '.\\base.vhdx' }) });
    await expect(readChain(gone, 'leaf.avhdx')).rejects.toMatchObject(
      missing({ recorded: '.\\base.vhdx', expectedId: ids[0] }),
    );
  });

  it('takes no other disk for the parent', async () => {
    const { images } = chain();
    const [base, child] = images as [VhdxImage, VhdxImage];
    const other = buildVhdx({ virtualSize: 8 * MIB, dataWriteGuid: ids[3]!, blocks: new Map() });
    const folder = folderOf({ 'base.vhdx': other, 'child.avhdx': child });
    await expect(readChain(folder, 'child.avhdx')).rejects.toMatchObject(
      missing({ expectedId: ids[0], foundId: ids[3], candidate: 'base.vhdx' }),
    );
    expect(codesOf(await verify(folder, 'child.avhdx'))).toContain('cid-mismatch');
    expect(base.options.dataWriteGuid).toBe(ids[0]);
  });

  it('takes the parent that the second identity names', async () => {
    const { images, disks } = chain();
    const [base] = images as [VhdxImage];
    const linkage = (one: string, two: string) =>
      buildVhdx({
        virtualSize: 8 * MIB,
        parent: parentLocator('base.vhdx', one, { parent_linkage2: `{${two}}` }),
        blocks: new Map(),
      });
    const second = folderOf({ 'base.vhdx': base, 'leaf.avhdx': linkage(ids[3]!, ids[0]!) });
    expect((await readChain(second, 'leaf.avhdx')).equals(disks[0]!)).toBe(true);
    const none = folderOf({ 'base.vhdx': base, 'leaf.avhdx': linkage(ids[3]!, ids[2]!) });
    await expect(readChain(none, 'leaf.avhdx')).rejects.toMatchObject({ kind: 'missing-parent' });
    // Zeros are no identity, not even of a parent that has none.
    const zeros = '00000000-0000-0000-0000-000000000000';
    const blank = buildVhdx({ virtualSize: 8 * MIB, dataWriteGuid: zeros, blocks: new Map() });
    const nobody = folderOf({ 'base.vhdx': blank, 'leaf.avhdx': linkage(ids[3]!, zeros) });
    await expect(readChain(nobody, 'leaf.avhdx')).rejects.toMatchObject({ kind: 'missing-parent' });
  });

  it('finds a parent that is known by its identity alone', async () => {
    const { images, disks } = chain();
    const [base] = images as [VhdxImage];
    const leaf = buildVhdx({ virtualSize: 8 * MIB, parent: { parent_linkage: ids[0]! }, blocks: new Map() });
    const folder = folderOf({ 'what is this.vhdx': base, 'leaf.avhdx': leaf });
    expect((await readChain(folder, 'leaf.avhdx')).equals(disks[0]!)).toBe(true);
  });
});

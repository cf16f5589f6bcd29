/** Images of several files, as a scan lists them: a Parallels disk by its folder, a split raw image by its first part. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { scanRepository } from '../../../main/engine/catalog/catalog.ts';
import { imageStem } from '../../../main/engine/catalog/files.ts';
import { buildExpanding, diskDescriptor, imageName, SECTOR, TOP, writeHdd } from '../../support/parallels-builder.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { pattern } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('many-files');

it('a Parallels disk is one image with its snapshots, whatever its folder holds', async () => {
  const root = join(scratch.path, 'parallels');
  const [A, B] = ['aaaaaaaa-0000-4000-8000-000000000001', TOP];
  const image = (seed: number) =>
    buildExpanding({ sectors: 40, tracks: 4, clusters: new Map([[seed, pattern(0, 4 * SECTOR, seed)]]) }).bytes;
  const name = (guid: string) => imageName('web01', 0, guid);
  const descriptor = diskDescriptor({
    sectors: 40,
    blockSectors: 4,
    storages: [{ start: 0, end: 40, images: [A, B].map((guid) => ({ guid, type: 'Compressed', file: name(guid) })) }],
    shots: [
      [A, undefined],
      [B, A],
    ],
  });
  writeHdd(join(root, 'vm.pvm'), 'web01', descriptor, { [name(A)]: image(1), [name(B)]: image(2) });
  await leavesUntouched(root, async () => {
    const catalog = await scanRepository(root);
    expect(catalog.vms.map((vm) => vm.name)).toEqual(['web01']);
    const points = catalog.vms[0]!.points;
    expect(points.map((point) => [point.id, point.parent, point.disks[0]!.error])).toEqual([
      [A, undefined, undefined],
      ['web01.hdd', A, undefined],
    ]);
    expect(points.flatMap(({ findings }) => findings)).toEqual([]);
    expect(catalog.orphans).toEqual([]);
  });
});

it('a split raw image is one image, called as its parts', async () => {
  const root = join(scratch.path, 'raw');
  mkdirSync(root);
  for (const name of ['web01.raw.000', 'web01.raw.001', 'web01.raw.002', 'db.001', 'db.002', 'alone.001']) {
    writeFileSync(join(root, name), pattern(0, 4 * SECTOR));
  }
  for (const name of ['vm.log.001', 'backup.7z.001', 'backup.7z.002', 'notes.txt', 'web01.raw.md5']) {
    writeFileSync(join(root, name), 'no disk');
  }
  const { vms } = await scanRepository(root);
  expect(vms.map(({ name, points }) => [name, points[0]!.disks[0]!.size]).sort()).toEqual([
    ['alone', 4 * SECTOR],
    ['db', 8 * SECTOR],
    ['web01', 12 * SECTOR],
  ]);
});

it('names are without what makes them parts', () => {
  expect(
    ['/a/web01.hdd/DiskDescriptor.xml', '/a/web01.raw.000', '/a/db.001', '/a/c.img.aa', '/a/disk.vdi'].map(imageStem),
  ).toEqual(['web01', 'web01', 'db', 'c', 'disk']);
});

import { existsSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { beforeEach, describe, expect, it } from 'vitest';
import { scanRepository } from '../../../main/engine/catalog/catalog.ts';
import { imageStem } from '../../../main/engine/catalog/files.ts';
import { groupImages, imageChain, imageNames } from '../../../main/engine/catalog/images.ts';
import { LayerIndex } from '../../../main/engine/catalog/layers.ts';
import { isIntact, type VirtualMachine } from '../../../main/engine/catalog/model.ts';
import { compareWithParent, describeChain } from '../../../main/engine/catalog/point-disks.ts';
import { snapshotPath } from '../../../main/engine/image/image.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { corpus } from '../../support/corpus.ts';
import { layerName, writeVhdxChain } from '../../support/hyperv-builder.ts';
import { type StandIn, standIn } from '../../support/libvirt-builder.ts';
import { scratchFolder } from '../../support/scratch.ts';

const scratch = scratchFolder('images');
let root = '';
let count = 0;
beforeEach(() => {
  root = join(scratch.path, String(count++));
  mkdirSync(root);
});

const paths = (images: Readonly<Record<string, StandIn>>): string[] =>
  Object.keys(images).map((name) => {
    writeFileSync(join(root, name), 'QFI\xfb');
    return join(root, name);
  });
const indexOf = (images: Readonly<Record<string, StandIn>>) =>
  new LayerIndex(new Confinement(root), { open: standIn(images) });
const group = (images: Readonly<Record<string, StandIn>>) => groupImages(paths(images), indexOf(images));
const outline = (vm: VirtualMachine) => vm.points.map(({ id, parent, disks }) => [id, parent, disks[0]?.file]);

const TWO: StandIn = {
  snapshots: [
    { id: '1', name: 'installed', created: '2024-01-01T00:00:00.000Z' },
    { id: '2', name: 'running', created: '2024-01-02T00:00:00.000Z', stateBytes: 1000 },
  ],
};

describe('snapshots inside loose images', () => {
  it('are points before the image itself, in order, with their memory', async () => {
    const [vm] = await group({ 'web01.qcow2': TWO });
    expect(outline(vm!)).toEqual([
      ['1', undefined, 'web01.qcow2/@1'],
      ['2', '1', 'web01.qcow2/@2'],
      ['web01.qcow2', '2', 'web01.qcow2'],
    ]);
    expect(vm!.points[0]).toMatchObject({
      name: 'installed',
      created: '2024-01-01T00:00:00.000Z',
      memory: false,
      consistency: { level: 'unknown' },
      disks: [{ path: snapshotPath(join(root, 'web01.qcow2'), '1'), chain: ['web01.qcow2/@1'] }],
    });
    expect(vm!.points[1]).toMatchObject({
      memory: true,
      currentParent: true,
      consistency: {
        level: 'memory',
        evidence: ['snapshot "running" in web01.qcow2 holds 1000 bytes of VM state (memory and devices)'],
      },
    });
    expect(vm!.points[2]).toMatchObject({ current: true, currentParent: false });
    expect(vm!.findings.map(({ code }) => code)).toEqual(['snapshot-order-by-time']);
  });

  it('are in the order of their times, whatever that of the table', async () => {
    const snapshots = [...TWO.snapshots!].reverse();
    const [vm] = await group({ 'web01.qcow2': { snapshots } });
    expect(outline(vm!).map(([id]) => id)).toEqual(['1', '2', 'web01.qcow2']);
  });

  it('stand, with their image, on its backing file; ids that would clash say whose they are', async () => {
    const images = {
      'base.qcow2': { snapshots: [{ id: '1', name: 'old' }] },
      'top.qcow2': { parent: 'base.qcow2', snapshots: [{ id: '1', name: 'new' }] },
    };
    const [vm] = await group(images);
    expect(outline(vm!)).toEqual([
      ['base.qcow2/@1', undefined, 'base.qcow2/@1'],
      ['base.qcow2', 'base.qcow2/@1', 'base.qcow2'],
      ['top.qcow2/@1', 'base.qcow2', 'top.qcow2/@1'],
      ['top.qcow2', 'top.qcow2/@1', 'top.qcow2'],
    ]);
    expect(vm!.points[2]?.disks[0]?.chain).toEqual(['top.qcow2/@1', 'base.qcow2']);
    expect(vm!.points.every(isIntact)).toBe(true);
    expect(vm!.findings).toEqual([]);
    const opened = await imageChain(join(root, 'top.qcow2'), indexOf(images));
    expect(outline(opened)).toEqual(outline(vm!));
    expect(opened.points.at(-1)).toMatchObject({ current: true });
  });

  it('are bounded in number', async () => {
    const snapshots = Array.from({ length: 1_100 }, (_, n) => ({ id: String(n + 1) }));
    const [vm] = await group({ 'many.qcow2': { snapshots } });
    expect(vm!.points).toHaveLength(1_025);
    expect(vm!.findings[0]).toMatchObject({ code: 'too-many-snapshots', found: 1_100 });
  });

  it('a state inside an image comes before what the image holds now', async () => {
    const images = { 'a.qcow2': TWO, 'b.qcow2': { parent: 'a.qcow2' }, 'c.qcow2': {} };
    paths(images);
    const index = indexOf(images);
    const disk = async (name: string) => [await describeChain({ index: 0, node: 'vda' }, join(root, name), index)];
    const inside = [await describeChain({ index: 0, node: 'vda' }, snapshotPath(join(root, 'a.qcow2'), '1'), index)];
    const later = [await describeChain({ index: 0, node: 'vda' }, snapshotPath(join(root, 'a.qcow2'), '2'), index)];
    const before = { name: 'one', current: false, disks: inside };
    for (const disks of [later, await disk('a.qcow2'), await disk('b.qcow2')]) {
      expect(compareWithParent({ name: 'two', current: true, disks }, before)).toEqual([]);
    }
    const strange = compareWithParent({ name: 'two', current: true, disks: await disk('c.qcow2') }, before);
    expect(strange.map(({ code }) => code)).toEqual(['disk-off-the-tree']);
    const same = compareWithParent({ name: 'two', current: false, disks: inside }, before);
    expect(same.map(({ code }) => code)).toEqual(['same-disk-as-parent']);
  });
});

describe('names', () => {
  it.each([
    ['web01.qcow2', 'web01'],
    ['web01.before-update', 'web01'],
    ['web01-000002.vmdk', 'web01'],
    ['web01_0000AAAA-BBBB-4CCC-8DDD-000000000001.avhdx', 'web01'],
    ['web01-AutoRecovery.avhdx', 'web01'],
    ['web01_0000aaaa-bbbb-4ccc-8ddd-000000000001.avhd', 'web01'],
    ['web01_old.vhdx', 'web01_old'],
    ['.vhdx', '.vhdx'],
  ])('%s is of %s', (name, stem) => {
    expect(imageStem(join('/x', name))).toBe(stem);
  });

  it('overlays of libvirt are found by their content, in the folder of their image', async () => {
    for (const name of ['web01.qcow2', 'web01.snap1', 'other.snap1', 'web01.xml', 'web01.nvram']) {
      writeFileSync(join(root, name), Buffer.from('514649fb00000003', 'hex'));
    }
    writeFileSync(join(root, 'web01.notes'), 'text');
    const place = {
      path: root,
      files: ['other.snap1', 'web01.notes', 'web01.nvram', 'web01.qcow2', 'web01.snap1', 'web01.xml'],
    };
    expect(await imageNames(place, new LayerIndex(new Confinement(root)))).toEqual(['web01.qcow2', 'web01.snap1']);
  });

  it('a base that is gone: the chain has the name of the VM all the same', async () => {
    writeVhdxChain(root, 'web01', 2);
    unlinkSync(join(root, 'web01.vhdx'));
    const catalog = await scanRepository(root, { synchronous: true });
    expect(catalog.vms.map(({ name, points }) => [name, points.length])).toEqual([['web01', 2]]);
    expect(catalog.vms[0]!.points[1]!.disks[0]!.chain).toEqual([layerName('web01', 2), layerName('web01', 1)]);
    expect(catalog.vms[0]!.points[1]!.disks[0]!.error?.kind).toBe('missing-parent');
  });
});

const REAL = join(corpus, 'fox-it+dissect.hypervisor/tests/_data/disk/qcow2');
describe.skipIf(!existsSync(REAL))('a real image with snapshots (skipped without ../shared/corpus)', () => {
  it('shows both by their names, opened by itself and in a folder', async () => {
    writeFileSync(join(root, 'snapshot.qcow2'), gunzipSync(readFileSync(join(REAL, 'snapshot.qcow2.gz'))));
    for (const source of [root, join(root, 'snapshot.qcow2')]) {
      const { vms } = await scanRepository(source, { synchronous: true });
      expect(vms.map(({ points }) => points.map(({ name, current }) => [name, current]))).toEqual([
        [
          ["you can't see me", false],
          ['confused', false],
          ['snapshot', true],
        ],
      ]);
      expect(vms[0]!.points.every(isIntact)).toBe(true);
    }
  });
});

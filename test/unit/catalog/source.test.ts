import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { scanRepository } from '../../../main/engine/catalog/catalog.ts';
import { enterSource, sourceOf } from '../../../main/engine/catalog/source.ts';
import { NotFoundError, UsageError } from '../../../main/engine/errors.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { buildOva } from '../../support/ova-builder.ts';
import { buildQcow2 } from '../../support/qcow2-builder.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { buildXva } from '../../support/xva-builder.ts';

const scratch = scratchFolder('source');
let root = '';
const at = (...names: string[]): string => join(root, ...names);

beforeAll(() => {
  root = join(scratch.path, 'root');
  mkdirSync(at('vm', 'Virtual Machines'), { recursive: true });
  mkdirSync(at('mac.hdd'));
  const disk = { name: 'disk.raw', bytes: Buffer.alloc(1 << 20, 7), capacity: 1 << 20 };
  writeFileSync(at('app.ova'), buildOva('app', [disk]));
  const state = { size: 1 << 20, clusters: new Map([[0, Buffer.alloc(1 << 16, 1)]]) };
  const snapshots = [{ id: '1', name: 'first', ...state }];
  writeFileSync(at('kvm.qcow2'), buildQcow2({ ...state, snapshots }).bytes);
  const xva = buildXva([{ id: 'Ref:1', content: Buffer.alloc(1 << 20, 3) }]);
  writeFileSync(at('cut.xva'), xva.subarray(0, xva.length - 2_000));
  for (const name of ['web.vmx', 'app.ovf', 'vm/Virtual Machines/1.vmcx', 'mac.hdd/DiskDescriptor.xml', 'domain.xml']) {
    writeFileSync(at(name), '');
  }
  symlinkSync('kvm.qcow2', at('link.qcow2'));
});

describe('what a user names', () => {
  it.each([
    ['.', 'folder', '.', '.'],
    ['mac.hdd', 'folder', 'mac.hdd', 'mac.hdd'],
    ['app.ova', 'folder', 'app.ova', '.'],
    ['kvm.qcow2', 'image', 'kvm.qcow2', '.'],
    ['link.qcow2', 'image', 'kvm.qcow2', '.'],
    ['mac.hdd/DiskDescriptor.xml', 'image', 'mac.hdd/DiskDescriptor.xml', 'mac.hdd'],
    ['app.ova/disk.raw', 'image', 'app.ova/disk.raw', '.'],
    ['app.ova/inner/other.ova', 'folder', 'app.ova/inner/other.ova', '.'],
  ])('%s is a %s', (name, kind, path, confined) => {
    expect(sourceOf(at(name))).toMatchObject({ kind, source: at(name), path: at(path), root: at(confined) });
  });

  it('a snapshot inside an image, also of an archive, belongs to the image', () => {
    expect(sourceOf(at('kvm.qcow2/@a%2Fb'))).toMatchObject({ source: at('kvm.qcow2'), snapshot: 'a/b' });
    expect(sourceOf(at('app.ova/k.qcow2/@2'))).toMatchObject({ source: at('app.ova/k.qcow2'), snapshot: '2' });
    expect(() => sourceOf(at('nothing.qcow2/@1'))).toThrow(NotFoundError);
  });

  it('what is not there is not found, and a configuration is no image', () => {
    for (const name of ['nothing', 'vm/nothing.vmdk', 'nothing/at/all']) {
      expect(() => sourceOf(at(name))).toThrow(NotFoundError);
    }
    for (const name of ['web.vmx', 'app.ovf', 'domain.xml']) {
      expect(() => sourceOf(at(name))).toThrow(UsageError);
      expect(() => sourceOf(at(name))).toThrow(`open its folder, ${root}`);
    }
    // Disks of a Hyper-V VM lie beside the folder of its configuration.
    expect(() => sourceOf(at('vm/Virtual Machines/1.vmcx'))).toThrow(`open its folder, ${at('vm')}`);
  });

  it('a member is looked for in its archive', async () => {
    const folder = new Confinement(root);
    expect(await enterSource(sourceOf(at('app.ova/disk.raw')), folder)).toBe(at('app.ova/disk.raw'));
    await expect(enterSource(sourceOf(at('app.ova/gone.raw')), folder)).rejects.toMatchObject({
      kind: 'not-found',
      details: { choices: ['app.mf', 'app.ovf', 'disk.raw'] },
    });
    await expect(enterSource(sourceOf(at('kvm.qcow2/disk.raw')), folder)).rejects.toThrow(NotFoundError);
    await folder.close();
  });
});

describe('a scan of it', () => {
  it('shows a member of an archive, and the snapshots inside an image', async () => {
    const member = await scanRepository(at('app.ova/disk.raw'));
    expect(member).toMatchObject({
      kind: 'image',
      vms: [{ name: 'disk', folder: 'app.ova', points: [{ id: 'disk.raw' }] }],
    });
    const image = await scanRepository(at('kvm.qcow2'));
    expect(image.vms[0]!.points.map(({ id, name }) => [id, name])).toEqual([
      ['1', 'first'],
      ['kvm.qcow2', 'kvm'],
    ]);
    for (const { folder } of [member, image]) await folder.close();
  });

  it('says of a VM that its archive was cut off', async () => {
    const { vms, findings, folder } = await scanRepository(root);
    const codes = ['archive-member-cut-off', 'archive-no-end'];
    const cut = vms.find(({ folder: place }) => place === 'cut.xva');
    expect(cut?.findings.map(({ code }) => code)).toEqual(expect.arrayContaining([expect.stringMatching(/^archive-/)]));
    expect(findings.filter(({ code }) => codes.includes(code))).toEqual([]);
    await folder.close();
  });
});

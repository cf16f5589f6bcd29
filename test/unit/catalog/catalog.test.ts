import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { scanRepository } from '../../../main/engine/catalog/catalog.ts';
import { LayerIndex } from '../../../main/engine/catalog/layers.ts';
import { type Catalog, isIntact, type VirtualMachine } from '../../../main/engine/catalog/model.ts';
import { CancelledError, NotFoundError, UsageError } from '../../../main/engine/errors.ts';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import {
  contentId,
  layerName,
  stateFile,
  vmsdText,
  vmxText,
  writeDelta,
  writeDiskChain,
  writeFlatBase,
  writeLinearVm,
} from '../../support/vmware-folder.ts';

const scratch = scratchFolder('catalog');
let root = '';
let count = 0;
beforeEach(() => {
  root = join(scratch.path, String(count++));
  mkdirSync(root);
});

const scan = (source = root, options = {}): Promise<Catalog> =>
  leavesUntouched(root, () => scanRepository(source, { synchronous: true, ...options }));
const only = (catalog: Catalog): VirtualMachine => {
  expect(catalog.vms).toHaveLength(1);
  return catalog.vms[0]!;
};
const outline = (vm: VirtualMachine) =>
  vm.points.map(({ id, parent, disks }) => [id, parent, ...disks.map((disk) => basename(disk.file))]);
const allFindings = (catalog: Catalog) => [
  ...catalog.findings,
  ...catalog.vms.flatMap((vm) => [...vm.findings, ...vm.points.flatMap((point) => point.findings)]),
];
const codes = (findings: readonly { code: string }[]) => findings.map((finding) => finding.code);

describe('a VMware folder', () => {
  it('shows the points, each with the state that was current before it', async () => {
    writeLinearVm(root, { name: 'web01', snapshots: 2, nodes: ['scsi0:0', 'scsi0:1'], vmx: { cleanShutdown: 'TRUE' } });
    const catalog = await scan();
    const vm = only(catalog);
    expect(vm).toMatchObject({
      name: 'web01',
      origin: 'vmware',
      folder: 'web01',
      guest: 'debian12-64',
      cpus: 2,
      memoryBytes: 2 ** 31,
      firmware: 'efi',
      findings: [],
    });
    expect(outline(vm)).toEqual([
      ['1', undefined, 'web01.vmdk', 'web01_1.vmdk'],
      ['2', '1', 'web01-000001.vmdk', 'web01_1-000001.vmdk'],
      ['current', '2', 'web01-000002.vmdk', 'web01_1-000002.vmdk'],
    ]);
    const [first, second, current] = vm.points;
    expect(first).toMatchObject({
      name: 'snap 1',
      created: '2024-03-01T10:00:00.123Z',
      current: false,
      currentParent: false,
      changedBytes: 131_072,
    });
    expect(second).toMatchObject({ currentParent: true, changedBytes: 1024, created: '2024-03-01T11:00:00.123Z' });
    expect(current).toMatchObject({ current: true, changedBytes: 1024 });
    expect(current?.disks[0]).toMatchObject({
      index: 0,
      node: 'scsi0:0',
      file: 'web01/web01-000002.vmdk',
      path: join(root, 'web01/web01-000002.vmdk'),
      size: 65_536,
      changedBytes: 512,
      chain: ['web01/web01-000002.vmdk', 'web01/web01-000001.vmdk', 'web01/web01.vmdk'],
    });
    expect(current?.consistency).toEqual({ level: 'unknown', evidence: ['cleanShutdown is TRUE (the VM was off)'] });
    expect(first?.consistency).toEqual({ level: 'unknown', evidence: ['no quiesce mark', 'no memory file'] });
    expect(allFindings(catalog)).toEqual([]);
    expect(catalog.orphans).toEqual([]);
  });

  it('shows branches: parents before children, siblings by time, the present state last', async () => {
    const folder = join(root, 'web01');
    mkdirSync(folder);
    writeDiskChain(folder, 'web01', 2);
    const base = { hint: 'web01.vmdk', cid: contentId(0) };
    writeDelta(folder, 'web01-000003', base, contentId(3));
    writeDelta(folder, 'web01-000004', { hint: 'web01-000003.vmdk', cid: contentId(3) }, contentId(4));
    const at = (hour: number) => new Date(Date.UTC(2024, 0, 1, hour));
    const disk = (file: string) => [['scsi0:0', file]] as const;
    writeFileSync(
      join(folder, 'web01.vmsd'),
      vmsdText({
        current: 30,
        snapshots: [
          { uid: 30, parent: 10, name: 'branch', created: at(5), disks: disk('web01-000003.vmdk') },
          { uid: 20, parent: 10, name: 'main', created: at(2), disks: disk('web01-000001.vmdk') },
          { uid: 10, name: 'first', created: at(1), disks: disk('web01.vmdk') },
          { uid: 25, parent: 20, name: 'tip', created: at(3), disks: disk('web01-000002.vmdk') },
        ],
      }),
    );
    writeFileSync(join(folder, 'web01.vmx'), vmxText({ name: 'web01', disks: disk('web01-000004.vmdk') }));
    const catalog = await scan();
    expect(only(catalog).points.map((point) => point.id)).toEqual(['10', '20', '25', '30', 'current']);
    expect(only(catalog).points.find((point) => point.currentParent)?.id).toBe('30');
    expect(allFindings(catalog)).toEqual([]);
    expect(catalog.orphans).toEqual([]);
  });

  it('finds memory, VSS manifests, suspension and an unclean stop, and says what it found', async () => {
    const folder = writeLinearVm(root, {
      name: 'db',
      snapshots: 4,
      vmx: { cleanShutdown: 'FALSE' },
    });
    const text = readFileSync(join(folder, 'db.vmsd'), 'utf8');
    const states = [0, 1, 2, 3].map((n) => `snapshot${n}.filename = "db-Snapshot${n + 1}.vmsn"\n`).join('');
    writeFileSync(join(folder, 'db.vmsd'), `${text}${states}snapshot3.quiesced = "TRUE"\nsnapshot0.type = "1"\n`);
    writeFileSync(join(folder, 'db-Snapshot1.vmsn'), stateFile({ memory: Buffer.alloc(4096, 1) }));
    writeFileSync(join(folder, 'db-Snapshot2.vmsn'), stateFile());
    writeFileSync(join(folder, 'db-Snapshot2.vmem'), Buffer.alloc(100, 1));
    writeFileSync(join(folder, 'db-Snapshot3.vmsn'), 'this is no state file');
    writeFileSync(join(folder, 'db-vss_manifests3.zip'), 'PK');
    const catalog = await scan();
    const [one, two, three, four, current] = only(catalog).points;
    expect(one).toMatchObject({ memory: true, quiesced: false, consistency: { level: 'memory' } });
    expect(one?.consistency.evidence[0]).toBe('db-Snapshot1.vmsn holds 4096 bytes of guest memory');
    expect(two).toMatchObject({ memory: true, consistency: { level: 'memory' } });
    expect(three).toMatchObject({ memory: false, quiesced: true, consistency: { level: 'application' } });
    expect(codes(three?.findings ?? [])).toEqual(['state-file-damaged']);
    expect(four).toMatchObject({ quiesced: true, consistency: { level: 'file-system' } });
    expect(codes(four?.findings ?? [])).toEqual(['state-file-missing']);
    expect(current?.consistency).toEqual({
      level: 'crash',
      evidence: ['cleanShutdown is FALSE: the VM ran when this was copied, or lost its host'],
    });
    expect(catalog.orphans).toEqual([]);
  });

  it('a link that is gone breaks the points on it, and only those; the last intact one is named', async () => {
    const folder = writeLinearVm(root, { name: 'web01', snapshots: 4 });
    unlinkSync(join(folder, 'web01-000002.vmdk'));
    const vm = only(await scan());
    expect(vm.points.map((point) => isIntact(point))).toEqual([true, true, false, false, false]);
    expect(vm.points[2]?.disks[0]).toMatchObject({
      file: 'web01-000002.vmdk',
      chain: [],
      error: { kind: 'not-found' },
    });
    expect(vm.points[3]?.disks[0]).toMatchObject({
      chain: ['web01/web01-000003.vmdk'],
      error: { kind: 'missing-parent', details: { recorded: 'web01-000002.vmdk', child: 'web01/web01-000003.vmdk' } },
    });
    expect(vm.points[4]?.findings.at(-1)).toMatchObject({
      code: 'point-broken',
      remedy: 'The last intact point before it is "snap 2".',
    });
    expect(vm.points[1]?.findings).toEqual([]);
  });

  it('the extent of a missing descriptor is an orphan with its reason', async () => {
    const folder = writeLinearVm(root, { name: 'web01', snapshots: 2 });
    unlinkSync(join(folder, 'web01-000001.vmdk'));
    const catalog = await scan();
    expect(catalog.orphans).toMatchObject([{ file: 'web01/web01-000001-delta.vmdk' }]);
    expect(catalog.orphans[0]?.reason).toContain('no descriptor names');
    expect(catalog.orphans[0]?.bytes).toBeGreaterThan(512);
  });

  it('the extents of a broken descriptor are not taken for orphans', async () => {
    const folder = writeLinearVm(root, { name: 'web01', snapshots: 1 });
    unlinkSync(join(folder, 'web01-000001-delta.vmdk'));
    const descriptor = join(folder, 'web01.vmdk');
    writeFileSync(descriptor, readFileSync(descriptor, 'utf8').replace('RW 128 VMFS ', 'RW 999 VMFS '));
    const catalog = await scan();
    expect(catalog.orphans).toEqual([]);
    expect(only(catalog).points.every((point) => !isIntact(point))).toBe(true);
  });

  it('a changed base is told from a missing one', async () => {
    const folder = writeLinearVm(root, { name: 'web01', snapshots: 1 });
    const base = join(folder, 'web01.vmdk');
    writeFileSync(base, readFileSync(base, 'utf8').replace(`CID=${contentId(0)}`, 'CID=deadbeef'));
    const catalog = await scan();
    const [first, current] = only(catalog).points;
    expect(isIntact(first!)).toBe(true);
    expect(current?.disks[0]?.error).toMatchObject({
      kind: 'missing-parent',
      details: { expectedId: contentId(0), foundId: 'deadbeef', candidate: 'web01/web01.vmdk' },
    });
    expect(codes(current?.findings ?? [])).toEqual(['cid-mismatch', 'point-broken']);
    expect(catalog.orphans).toEqual([]);
  });

  it('parents and disks outside the repository are refused by name', async () => {
    const outside = join(scratch.path, `outside-${count}`);
    mkdirSync(outside);
    writeFlatBase(outside, 'secret', contentId(0));
    const folder = join(root, 'vm');
    mkdirSync(folder);
    writeDelta(folder, 'a', { hint: `../../${basename(outside)}/secret.vmdk`, cid: contentId(0) }, contentId(1));
    symlinkSync(join(outside, 'secret.vmdk'), join(folder, 'linked.vmdk'));
    writeDelta(folder, 'b', { hint: 'linked.vmdk', cid: contentId(0) }, contentId(2));
    writeFileSync(
      join(folder, 'vm.vmx'),
      vmxText({
        name: 'vm',
        disks: [
          ['scsi0:0', 'a.vmdk'],
          ['scsi0:1', 'b.vmdk'],
          ['scsi0:2', `../../${basename(outside)}/secret.vmdk`],
          ['scsi0:3', 'x|00y.vmdk'],
        ],
      }),
    );
    const catalog = await scan();
    const disks = only(catalog).points[0]!.disks;
    expect(disks.map((disk) => disk.error?.kind)).toEqual(['denied', 'denied', 'denied', 'denied']);
    expect(disks[0]?.error?.details).toMatchObject({ recorded: `../../${basename(outside)}/secret.vmdk` });
    expect(disks[2]?.path).toBeUndefined();
    expect(codes(catalog.findings)).toEqual(['link-not-followed']);
    rmSync(outside, { recursive: true });
  });

  it('leftovers of a removed snapshot: more layers than snapshots', async () => {
    const folder = writeLinearVm(root, { name: 'web01', snapshots: 3 });
    const disk = (n: number) => [['scsi0:0', `${layerName('web01', n)}.vmdk`]] as const;
    writeFileSync(
      join(folder, 'web01.vmsd'),
      vmsdText({ current: 1, needConsolidate: true, snapshots: [{ uid: 1, name: 'first', disks: disk(0) }] }),
    );
    const catalog = await scan();
    const vm = only(catalog);
    expect(codes(vm.findings)).toEqual(['needs-consolidation']);
    expect(vm.points[1]?.findings).toMatchObject([{ code: 'needs-consolidation' }]);
    expect(vm.points[1]?.findings[0]?.message).toContain('web01-000002.vmdk, web01-000001.vmdk');
    expect(isIntact(vm.points[1]!)).toBe(true);
    expect(catalog.orphans).toEqual([]);
  });

  it('a VM with no snapshot left that runs on deltas', async () => {
    writeLinearVm(root, { name: 'web01', snapshots: 2, vmsd: { snapshots: [] } });
    const vm = only(await scan());
    expect(codes(vm.findings)).toEqual(['current-unknown']);
    expect(codes(vm.points[0]?.findings ?? [])).toEqual(['needs-consolidation']);
  });

  it('a VM that writes to a disk that a snapshot froze, and disks of different moments', async () => {
    const folder = writeLinearVm(root, { name: 'web01', snapshots: 1, nodes: ['scsi0:0', 'scsi0:1'] });
    writeFileSync(
      join(folder, 'web01.vmx'),
      vmxText({
        name: 'web01',
        disks: [
          ['scsi0:0', 'web01-000001.vmdk'],
          ['scsi0:1', 'web01_1.vmdk'],
        ],
      }),
    );
    const catalog = await scan();
    expect(codes(only(catalog).points[1]?.findings ?? [])).toEqual([
      'writes-to-frozen-disk',
      'disks-of-different-moments',
    ]);
    expect(catalog.orphans.map((orphan) => orphan.file)).toEqual([
      'web01/web01_1-000001-delta.vmdk',
      'web01/web01_1-000001.vmdk',
    ]);
  });

  it('lists what belongs to no point, with sizes and reasons, and nothing that another VM uses', async () => {
    const folder = writeLinearVm(root, { name: 'web01', snapshots: 1 });
    writeDelta(folder, 'web01-000009', { hint: 'web01.vmdk', cid: contentId(0) }, contentId(9));
    writeDelta(folder, 'web01-000008', { hint: 'web01.vmdk', cid: contentId(0) }, contentId(8));
    writeFileSync(join(folder, 'web01-Snapshot7.vmsn'), stateFile());
    writeFileSync(join(folder, 'web01-Snapshot7.vmem'), Buffer.alloc(2000));
    writeFileSync(join(folder, 'web01-ctk.vmdk'), 'x');
    writeFileSync(join(folder, 'web01-000009-ctk.vmdk'), 'x');
    writeFileSync(join(folder, 'old-flat.vmdk'), Buffer.alloc(70_000));
    writeFileSync(join(folder, 'vmware.log'), 'log');
    writeFileSync(join(folder, 'web01.vmx~'), 'junk');
    mkdirSync(join(folder, 'web01.vmdk.lck'));
    writeFileSync(join(folder, 'web01.vmdk.lck', 'M1.vmdk'), 'x');
    // Another VM uses -000008.
    mkdirSync(join(root, 'clone'));
    writeFileSync(
      join(root, 'clone/clone.vmx'),
      vmxText({ name: 'clone', disks: [['scsi0:0', '/vmfs/volumes/5f/web01/web01-000008.vmdk']] }),
    );
    const catalog = await scan();
    expect(catalog.vms.map((vm) => vm.name)).toEqual(['clone', 'web01']);
    expect(allFindings(catalog).filter((finding) => finding.severity === 'damaged')).toEqual([]);
    const reasons = Object.fromEntries(catalog.orphans.map((orphan) => [basename(orphan.file), orphan.reason]));
    expect(Object.keys(reasons).sort()).toEqual(
      [
        'old-flat.vmdk',
        'web01-000009-ctk.vmdk',
        'web01-000009-delta.vmdk',
        'web01-000009.vmdk',
        'web01-Snapshot7.vmem',
        'web01-Snapshot7.vmsn',
      ].sort(),
    );
    expect(reasons['web01-000009.vmdk']).toBe(
      'No point of any VM uses this image; it stands on web01.vmdk. It can be opened by itself.',
    );
    expect(reasons['web01-000009-delta.vmdk']).toContain('Belongs to web01/web01-000009.vmdk');
    expect(catalog.orphans.find((orphan) => orphan.file.endsWith('old-flat.vmdk'))?.bytes).toBe(70_000);
  });

  it('a broken VM hides no other, and VMs of one name get their folder', async () => {
    writeLinearVm(root, { name: 'web01', snapshots: 1 });
    writeLinearVm(root, { name: 'web01', snapshots: 1 }, 'web01-copy');
    mkdirSync(join(root, 'broken'));
    writeFileSync(join(root, 'broken/broken.vmx'), Buffer.alloc(9 << 20));
    writeFileSync(join(root, 'broken/broken.vmsd'), '\0\0\0\0');
    const catalog = await scan();
    expect(catalog.vms.map((vm) => vm.name)).toEqual(['broken', 'web01 (web01)', 'web01 (web01-copy)']);
    expect(catalog.vms[0]?.findings[0]).toMatchObject({
      severity: 'damaged',
      code: 'config-unreadable',
      source: 'broken/broken.vmx',
    });
    expect(codes(catalog.findings)).toEqual(['duplicate-name']);
  });

  it('an encrypted VM is listed, and the images beside it are shown on their own', async () => {
    mkdirSync(join(root, 'enc'));
    writeFileSync(
      join(root, 'enc/enc.vmx'),
      '.encoding = "UTF-8"\ndisplayName = "Secret"\nencryption.keySafe = "vmware:key/list/"\n',
    );
    writeDiskChain(join(root, 'enc'), 'enc', 1);
    const catalog = await scan();
    expect(catalog.vms.map((vm) => [vm.name, vm.origin, vm.points.length])).toEqual([
      ['Secret', 'vmware', 1],
      ['enc', 'images', 2],
    ]);
    expect(codes(allFindings(catalog))).toEqual(['encrypted-vm', 'no-disks']);
  });

  it('a .vmsd without its .vmx still gives its snapshots; an empty one gives nothing', async () => {
    const folder = writeLinearVm(root, { name: 'web01', snapshots: 2 });
    unlinkSync(join(folder, 'web01.vmx'));
    mkdirSync(join(root, 'none'));
    writeFileSync(join(root, 'none/none.vmsd'), '');
    const catalog = await scan();
    const vm = only(catalog);
    expect(outline(vm).map(([id]) => id)).toEqual(['1', '2']);
    expect(codes(vm.findings)).toEqual(['vmx-missing']);
    // The layer that the VM wrote to last is still there to be found.
    expect(catalog.orphans.map((orphan) => basename(orphan.file))).toContain('web01-000002.vmdk');
  });

  it('recorded names cannot make the scan leave, loop or fail', async () => {
    const folder = join(root, 'evil');
    mkdirSync(folder);
    writeDelta(folder, 'l1', { hint: 'l2.vmdk', cid: contentId(2) }, contentId(1));
    writeDelta(folder, 'l2', { hint: 'l1.vmdk', cid: contentId(1) }, contentId(2));
    writeFileSync(
      join(folder, 'evil.vmsd'),
      vmsdText({
        current: 3,
        snapshots: [
          {
            uid: 1,
            parent: 2,
            name: '../../etc/passwd',
            stateFile: '../../../etc/passwd',
            disks: [['scsi0:0', 'l1.vmdk']],
          },
          { uid: 2, parent: 1, name: '\u0007bell', disks: [['scsi0:0', '..']] },
          { uid: 3, disks: [['__proto__', '/etc/passwd']] },
        ],
      }),
    );
    writeFileSync(join(folder, 'evil.vmx'), vmxText({ disks: [['scsi0:0', 'l1.vmdk']] }));
    const catalog = await scan();
    const vm = only(catalog);
    expect(vm.name).toBe('evil');
    expect(vm.points.map((point) => point.id).sort()).toEqual(['1', '2', '3', 'current']);
    expect(vm.points.find((point) => point.id === 'current')?.disks[0]?.error).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'Chain' },
    });
    expect(vm.points.find((point) => point.id === '2')?.name).toBe('bell');
    expect(vm.points.find((point) => point.id === '3')?.disks[0]?.error?.kind).toBe('not-found');
  });

  it('sixty points open each of their layers once', async () => {
    const folder = writeLinearVm(root, { name: 'long', snapshots: 60 });
    const opened = new Map<string, number>();
    const confinement = new Confinement(root, { synchronous: true });
    const index = new LayerIndex(confinement, {
      open: (path, within) => {
        opened.set(path, (opened.get(path) ?? 0) + 1);
        return openLayer(path, within);
      },
    });
    for (let n = 60; n >= 0; n--) {
      const { layers, error } = await index.chain(join(folder, `${layerName('long', n)}.vmdk`));
      expect(error).toBeUndefined();
      expect(layers).toHaveLength(n + 1);
    }
    expect(opened.size).toBe(61);
    expect([...opened.values()].every((times) => times === 1)).toBe(true);
    const vm = only(await scan());
    expect(vm.points).toHaveLength(61);
    expect(vm.points.every(isIntact)).toBe(true);
  });

  it('a .vmsd that forgot its current snapshot: the disks say which it is', async () => {
    const folder = writeLinearVm(root, { name: 'web01', snapshots: 2 });
    const vmsd = join(folder, 'web01.vmsd');
    writeFileSync(vmsd, readFileSync(vmsd, 'utf8').replace('snapshot.current = "2"\n', ''));
    const vm = only(await scan());
    expect(codes(vm.findings)).toEqual(['current-inferred']);
    expect(vm.points.map((point) => [point.id, point.parent, point.currentParent])).toEqual([
      ['1', undefined, false],
      ['2', '1', true],
      ['current', '2', false],
    ]);
  });

  it('a disk in a subfolder, a linked clone, and files that macOS left', async () => {
    const folder = writeLinearVm(root, { name: 'golden', snapshots: 1 });
    writeFileSync(join(folder, '._golden.vmdk'), 'x');
    writeFileSync(join(folder, '._golden.vmx'), 'x');
    const clone = join(root, 'clone');
    mkdirSync(join(clone, 'data'), { recursive: true });
    writeDiskChain(join(clone, 'data'), 'second', 0);
    writeDelta(clone, 'clone', { hint: '/vmfs/volumes/66f0/golden/golden.vmdk', cid: contentId(0) }, contentId(5));
    writeFileSync(
      join(clone, 'clone.vmx'),
      vmxText({
        name: 'clone',
        disks: [
          ['scsi0:0', 'clone.vmdk'],
          ['scsi0:1', 'data/second.vmdk'],
        ],
      }),
    );
    const catalog = await scan();
    expect(catalog.vms.map((vm) => vm.name)).toEqual(['clone', 'golden']);
    const [point] = catalog.vms[0]!.points;
    expect(point?.disks.map((disk) => disk.chain)).toEqual([
      ['clone/clone.vmdk', 'golden/golden.vmdk'],
      ['clone/data/second.vmdk'],
    ]);
    expect(codes(point?.findings ?? [])).toEqual(['linked-clone']);
    expect(catalog.orphans).toEqual([]);
  });

  it('thousands of snapshots on one deep chain stay cheap', async () => {
    const folder = join(root, 'deep');
    mkdirSync(folder);
    writeDiskChain(folder, 'deep', 100);
    const snapshots = Array.from({ length: 4_000 }, (_, n) => ({
      uid: n + 1,
      ...(n === 0 ? {} : { parent: n }),
      disks: [['scsi0:0', 'deep-000100.vmdk'] as const],
    }));
    writeFileSync(join(folder, 'deep.vmsd'), vmsdText({ snapshots, current: 4_000 }));
    writeFileSync(join(folder, 'deep.vmx'), vmxText({ disks: [['scsi0:0', 'deep-000100.vmdk']] }));
    const started = performance.now();
    const vm = only(await scan());
    expect(vm.points).toHaveLength(4_001);
    expect(new Set(vm.points.map((point) => point.disks[0]?.chain)).size).toBe(1);
    expect(performance.now() - started).toBeLessThan(15_000);
  });

  it('can be cancelled', async () => {
    writeLinearVm(root, { name: 'web01', snapshots: 2 });
    const controller = new AbortController();
    controller.abort();
    await expect(scan(root, { signal: controller.signal })).rejects.toThrow(CancelledError);
  });
});

describe('images without VM files', () => {
  it('are put together by their links: each layer a point, the one leaf the present state', async () => {
    writeDiskChain(root, 'disk', 2);
    writeFileSync(join(root, 'plain.raw'), Buffer.alloc(4096));
    const catalog = await scan();
    expect(catalog.vms.map((vm) => [vm.name, vm.origin, vm.folder])).toEqual([
      ['disk', 'images', '.'],
      ['plain', 'images', '.'],
    ]);
    expect(outline(catalog.vms[0]!)).toEqual([
      ['disk.vmdk', undefined, 'disk.vmdk'],
      ['disk-000001.vmdk', 'disk.vmdk', 'disk-000001.vmdk'],
      ['disk-000002.vmdk', 'disk-000001.vmdk', 'disk-000002.vmdk'],
    ]);
    expect(catalog.vms[0]?.points.map((point) => [point.current, point.currentParent])).toEqual([
      [false, false],
      [false, true],
      [true, false],
    ]);
    expect(catalog.orphans).toEqual([]);
  });

  it('several leaves are branches, and then no one of them is the present state', async () => {
    writeDiskChain(root, 'disk', 1);
    writeDelta(root, 'disk-000002', { hint: 'disk.vmdk', cid: contentId(0) }, contentId(2));
    const vm = only(await scan());
    expect(vm.points.every((point) => !point.current)).toBe(true);
    expect(codes(vm.findings)).toEqual(['several-leaves']);
  });

  it('loops, broken images and strangers are shown with what is wrong', async () => {
    writeDelta(root, 'l1', { hint: 'l2.vmdk', cid: contentId(2) }, contentId(1));
    writeDelta(root, 'l2', { hint: 'l1.vmdk', cid: contentId(1) }, contentId(2));
    writeFileSync(join(root, 'torn.vmdk'), 'KDMV');
    writeFileSync(join(root, 'later.vhdx'), 'vhdxfile');
    writeFileSync(join(root, 'notes.txt'), 'no image');
    const catalog = await scan();
    const errors = Object.fromEntries(
      catalog.vms.flatMap((vm) => vm.points.map((point) => [point.id, point.disks[0]?.error?.kind])),
    );
    const loops = catalog.vms.flatMap((vm) => vm.points).filter((point) => /^l\d/.test(point.id));
    for (const point of loops) expect(point.disks[0]?.error?.details.found).toContain('the chain is a loop');
    expect(errors).toEqual({
      'l1.vmdk': 'corrupt',
      'l2.vmdk': 'corrupt',
      'torn.vmdk': 'corrupt',
      'later.vhdx': 'corrupt',
    });
  });

  it('what a descriptor names as its extent is no image of its own, whatever it is called', async () => {
    writeFlatBase(root, 'disk');
    const descriptor = join(root, 'disk.vmdk');
    writeFileSync(descriptor, readFileSync(descriptor, 'utf8').replace('disk-flat.vmdk', 'content.img'));
    renameSync(join(root, 'disk-flat.vmdk'), join(root, 'content.img'));
    expect(outline(only(await scan()))).toEqual([['disk.vmdk', undefined, 'disk.vmdk']]);
  });

  it('one image opened by itself is the leaf; its folder confines it', async () => {
    writeDiskChain(root, 'disk', 3);
    const catalog = await scan(join(root, 'disk-000002.vmdk'));
    expect(catalog).toMatchObject({ kind: 'image', name: 'disk-000002.vmdk' });
    const vm = only(catalog);
    expect(vm.name).toBe('disk');
    expect(vm.points.map((point) => [point.id, point.current])).toEqual([
      ['disk.vmdk', false],
      ['disk-000001.vmdk', false],
      ['disk-000002.vmdk', true],
    ]);
  });

  it('says what else is no repository', async () => {
    await expect(scan(join(root, 'absent'))).rejects.toThrow(NotFoundError);
    writeFileSync(join(root, 'a.vmx'), '');
    await expect(scan(join(root, 'a.vmx'))).rejects.toThrow(UsageError);
    expect((await scan()).vms[0]).toMatchObject({ name: 'a', points: [{ id: 'current', disks: [] }] });
  });
});

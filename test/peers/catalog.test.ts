/**
 * VMware folders whose disks qemu-img wrote: the scan finds every point, sizes and contents are those that qemu-img itself
 * tells, and broken links are told apart.
 */
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, renameSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { scanRepository } from '../../main/engine/catalog/catalog.ts';
import { isIntact, type RestorePoint } from '../../main/engine/catalog/model.ts';
import { resolvePoint } from '../../main/engine/catalog/resolve.ts';
import { openChain } from '../../main/engine/chain/open.ts';
import { verifyChain } from '../../main/engine/chain/verify.ts';
import type { Confinement } from '../../main/engine/storage/confinement.ts';
import { describePeers, run } from '../support/peers.ts';
import { leavesUntouched, scratchFolder, sha256File } from '../support/scratch.ts';
import { vmsdText, vmxText } from '../support/vmware-folder.ts';

const MIB = 1 << 20;

/** base <- 1 <- 2 <- 3 (present), and 4 on 1: a branch. Each writes 1 MiB at its own place and some at a common one. */
const LAYERS = [
  { name: 'web01', parent: undefined },
  { name: 'web01-000001', parent: 'web01' },
  { name: 'web01-000002', parent: 'web01-000001' },
  { name: 'web01-000003', parent: 'web01-000002' },
  { name: 'web01-000004', parent: 'web01-000001' },
];

function writeDisks(folder: string, baseFormat: string): void {
  mkdirSync(folder, { recursive: true });
  for (const [index, { name, parent }] of LAYERS.entries()) {
    const args =
      parent === undefined
        ? ['create', '-q', '-f', 'vmdk', '-o', `subformat=${baseFormat}`, `${name}.vmdk`, '64M']
        : ['create', '-q', '-f', 'vmdk', '-b', `${parent}.vmdk`, '-F', 'vmdk', `${name}.vmdk`];
    run('qemu-img', args, { cwd: folder });
    const writes = [`write -P ${index + 1} ${(index + 1) * 4}M 1M`, `write -P ${index + 0x41} 40M 64k`];
    run('qemu-io', ['-f', 'vmdk', ...writes.flatMap((write) => ['-c', write]), `${name}.vmdk`], { cwd: folder });
  }
}

function writeVm(folder: string, current = 'web01-000003.vmdk'): void {
  const disk = (file: string) => [['scsi0:0', file]] as const;
  const at = (hour: number) => new Date(Date.UTC(2024, 4, 1, hour));
  writeFileSync(
    join(folder, 'web01.vmsd'),
    vmsdText({
      current: 2,
      snapshots: [
        {
          uid: 1,
          name: 'installed',
          description: 'before the |22big|22 update',
          created: at(1),
          disks: disk('web01.vmdk'),
        },
        { uid: 2, parent: 1, name: 'updated', created: at(3), disks: disk('web01-000002.vmdk') },
        { uid: 3, parent: 1, name: 'other try', created: at(2), disks: disk('web01-000004.vmdk') },
      ],
    }),
  );
  writeFileSync(join(folder, 'web01.vmx'), vmxText({ name: 'web01', disks: disk(current) }));
}

async function hashOf(point: RestorePoint, folder: Confinement): Promise<string> {
  const disk = await openChain(point.disks[0]!.path!, folder, { synchronous: true });
  try {
    const hash = createHash('sha256');
    for (let at = 0; at < disk.size; at += MIB) hash.update(await disk.read(at, Math.min(MIB, disk.size - at)));
    return hash.digest('hex');
  } finally {
    await disk.close();
  }
}

const scan = (root: string) => leavesUntouched(root, () => scanRepository(root, { synchronous: true }));

describePeers('catalog of folders that qemu-img wrote', { peers: ['qemu-img', 'qemu-io'] }, () => {
  const scratch = scratchFolder('catalog-peers');
  let pristine = '';
  beforeAll(() => {
    pristine = join(scratch.path, 'pristine');
    writeDisks(pristine, 'monolithicSparse');
    writeVm(pristine);
  });
  const copy = (label: string): { root: string; folder: string } => {
    const root = join(scratch.path, label);
    cpSync(pristine, join(root, 'web01'), { recursive: true });
    return { root, folder: join(root, 'web01') };
  };

  it.each(['monolithicSparse', 'monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat'])(
    'on a base of %s: every point, with sizes and contents as qemu-img says',
    async (format) => {
      const root = join(scratch.path, format);
      const folder = join(root, 'web01');
      writeDisks(folder, format);
      writeVm(folder);
      const catalog = await scan(root);
      expect(catalog.vms.map((vm) => vm.name)).toEqual(['web01']);
      const { points } = catalog.vms[0]!;
      expect(
        points.map(({ id, parent, name, disks }) => [id, parent, name, disks[0]?.file, disks[0]?.chain.length]),
      ).toEqual([
        ['1', undefined, 'installed', 'web01/web01.vmdk', 1],
        ['3', '1', 'other try', 'web01/web01-000004.vmdk', 3],
        ['2', '1', 'updated', 'web01/web01-000002.vmdk', 3],
        ['current', '2', 'Current state', 'web01/web01-000003.vmdk', 4],
      ]);
      expect(points[0]?.description).toBe('before the "big" update');
      expect(points.every(isIntact)).toBe(true);
      expect(catalog.orphans).toEqual([]);
      // -000001 froze nothing that a snapshot names: both branches stand on it.
      const told = points.flatMap((point) => point.findings.map((finding) => [point.id, finding.code]));
      expect(told).toEqual([
        ['3', 'needs-consolidation'],
        ['2', 'needs-consolidation'],
      ]);
      for (const point of points) {
        const leaf = join(root, point.disks[0]!.file);
        const info = JSON.parse(run('qemu-img', ['info', '-U', '--output=json', leaf], { cwd: folder })) as {
          'virtual-size': number;
        };
        expect(point.disks[0]?.size).toBe(info['virtual-size']);
        const raw = join(scratch.path, `${format}-${point.id}.raw`);
        run('qemu-img', ['convert', '-U', '-O', 'raw', leaf, raw], { cwd: folder });
        expect(await hashOf(point, catalog.folder), point.name).toBe(sha256File(raw));
        // One MiB of its own and 64 KiB of the common place; a flat base holds all of itself.
        if (point.id !== '1') expect(point.changedBytes).toBe(MIB + 65_536);
        else expect(point.changedBytes).toBe(format.endsWith('Flat') ? 64 * MIB : MIB + 65_536);
        const findings: string[] = [];
        for await (const finding of verifyChain(leaf, catalog.folder)) {
          if (finding.severity !== 'note') findings.push(`${finding.code} ${finding.message}`);
        }
        expect(findings).toEqual([]);
      }
      expect(resolvePoint(catalog, { point: 'updated' }).point.id).toBe('2');
    },
  );

  it('loose: the same disks without .vmx and .vmsd are one VM with two leaves', async () => {
    const { root, folder } = copy('loose');
    unlinkSync(join(folder, 'web01.vmx'));
    unlinkSync(join(folder, 'web01.vmsd'));
    const catalog = await scan(root);
    expect(catalog.vms.map((vm) => [vm.name, vm.origin])).toEqual([['web01', 'images']]);
    expect(catalog.vms[0]?.points.map((point) => [point.id, point.parent])).toEqual([
      ['web01.vmdk', undefined],
      ['web01-000001.vmdk', 'web01.vmdk'],
      ['web01-000002.vmdk', 'web01-000001.vmdk'],
      ['web01-000003.vmdk', 'web01-000002.vmdk'],
      ['web01-000004.vmdk', 'web01-000001.vmdk'],
    ]);
    expect(catalog.vms[0]?.findings.map((finding) => finding.code)).toEqual(['several-leaves']);
  });

  it('a missing link', async () => {
    const { root, folder } = copy('missing');
    unlinkSync(join(folder, 'web01-000001.vmdk'));
    const { points } = (await scan(root)).vms[0]!;
    expect(points.map(isIntact)).toEqual([true, false, false, false]);
    for (const point of points.slice(1)) {
      expect(point.disks[0]?.error).toMatchObject({
        kind: 'missing-parent',
        details: { recorded: 'web01-000001.vmdk' },
      });
      expect(point.findings.at(-1)?.remedy).toBe('The last intact point before it is "installed".');
    }
  });

  it('a base whose content id is no longer the recorded one', async () => {
    const { root, folder } = copy('cid');
    const base = join(folder, 'web01.vmdk');
    const bytes = readFileSync(base);
    const at = bytes.indexOf('\nCID=') + 5;
    expect(at).toBeGreaterThan(5);
    const before = bytes.toString('latin1', at, at + 8);
    bytes.write('0badcafe', at, 'latin1');
    writeFileSync(base, bytes);
    const catalog = await scan(root);
    const { points } = catalog.vms[0]!;
    expect(points.map(isIntact)).toEqual([true, false, false, false]);
    expect(points[3]?.disks[0]?.error).toMatchObject({
      kind: 'missing-parent',
      details: {
        child: 'web01/web01-000001.vmdk',
        expectedId: before,
        foundId: '0badcafe',
        candidate: 'web01/web01.vmdk',
      },
    });
    const codes: string[] = [];
    for await (const finding of verifyChain(join(folder, 'web01-000003.vmdk'), catalog.folder))
      codes.push(finding.code);
    expect(codes).toContain('cid-mismatch');
  });

  it('a parent outside the repository, by a link and by ../, is refused by name', async () => {
    const linked = copy('linked');
    renameSync(join(linked.folder, 'web01.vmdk'), join(scratch.path, 'stolen.vmdk'));
    symlinkSync(join(scratch.path, 'stolen.vmdk'), join(linked.folder, 'web01.vmdk'));
    const one = await scan(linked.root);
    const [first, , , current] = one.vms[0]!.points;
    expect(first?.disks[0]?.error).toMatchObject({ kind: 'denied' });
    expect(current?.disks[0]?.error).toMatchObject({ kind: 'denied', details: { recorded: 'web01.vmdk' } });

    const root = join(scratch.path, 'dots');
    mkdirSync(root);
    run('qemu-img', ['create', '-q', '-f', 'vmdk', '-b', '../stolen.vmdk', '-F', 'vmdk', 'child.vmdk'], { cwd: root });
    const two = await scan(root);
    expect(two.vms[0]?.points[0]?.disks[0]?.error).toMatchObject({
      kind: 'denied',
      details: { recorded: '../stolen.vmdk' },
    });
    expect(two.vms[0]?.points[0]?.findings[0]).toMatchObject({ code: 'outside-repository' });
  });
});

import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { scanRepository } from '../../../main/engine/catalog/catalog.ts';
import { type Catalog, isIntact, type VirtualMachine } from '../../../main/engine/catalog/model.ts';
import { openChain } from '../../../main/engine/chain/open.ts';
import { UsageError } from '../../../main/engine/errors.ts';
import { corpus } from '../../support/corpus.ts';
import {
  buildStore,
  type ConfigParts,
  configTree,
  guidOf,
  layerName,
  writeVhdxChain,
  xmlConfig,
} from '../../support/hyperv-builder.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

const scratch = scratchFolder('hyperv');
let root = '';
let count = 0;
beforeEach(() => {
  rmSync(root === '' ? join(scratch.path, 'none') : root, { recursive: true, force: true });
  root = join(scratch.path, String(count++));
  mkdirSync(root);
});

const MACHINE = guidOf(100);
const checkpointId = (n: number): string => guidOf(200 + n);
const at = (hour: number): Date => new Date(Date.UTC(2024, 4, 1, hour));
const HOST = 'D:\\VMs\\web01\\Virtual Hard Disks\\';

function writeConfig(folder: string, id: string, parts: Partial<ConfigParts>, xml = false): string {
  mkdirSync(folder, { recursive: true });
  const tree = configTree({ name: 'web01', id, disks: [], ...parts });
  const path = join(folder, `${id}.${xml ? 'xml' : 'vmcx'}`);
  writeFileSync(path, xml ? xmlConfig(tree) : buildStore(tree).bytes);
  return path;
}

interface VmOptions {
  readonly checkpoints?: number;
  readonly disks?: readonly string[];
  readonly home?: string;
  readonly xml?: boolean;
  readonly machine?: Partial<ConfigParts>;
  readonly checkpoint?: (n: number) => Partial<ConfigParts>;
}

/** An exported VM: every checkpoint froze one layer more of each disk, the VM writes to the last. */
function writeVm({
  checkpoints = 2,
  disks = ['web01'],
  home = 'web01',
  xml = false,
  machine,
  checkpoint,
}: VmOptions = {}): string {
  const folder = join(root, home);
  for (const disk of disks) writeVhdxChain(join(folder, 'Virtual Hard Disks'), disk, checkpoints);
  const paths = (n: number): string[] => disks.map((disk) => `${HOST}${layerName(disk, n)}`);
  const list = Array.from({ length: checkpoints }, (_, n) => checkpointId(n));
  writeConfig(join(folder, 'Virtual Machines'), MACHINE, { disks: paths(checkpoints), list, ...machine }, xml);
  for (const [n, id] of list.entries()) {
    const own = { name: `checkpoint ${n}`, created: at(n), disks: paths(n), vm: MACHINE, kind: 'Snapshots' };
    writeConfig(join(folder, 'Snapshots'), id, { ...own, ...checkpoint?.(n) }, xml);
  }
  return folder;
}

const scan = (source = root): Promise<Catalog> =>
  leavesUntouched(root, () => scanRepository(source, { synchronous: true }));
const only = (catalog: Catalog): VirtualMachine => {
  expect(catalog.vms.map(({ name }) => name)).toHaveLength(1);
  return catalog.vms[0]!;
};
const outline = (vm: VirtualMachine) =>
  vm.points.map(({ id, parent, disks }) => [id, parent, ...disks.map((disk) => basename(disk.file))]);
const codes = (findings: readonly { code: string }[]) => findings.map((finding) => finding.code);
const allFindings = (catalog: Catalog) => [
  ...catalog.findings,
  ...catalog.vms.flatMap((vm) => [...vm.findings, ...vm.points.flatMap((point) => point.findings)]),
];

describe('an exported VM', () => {
  it.each([
    ['.vmcx', false],
    ['XML', true],
  ])('shows its checkpoints from %s, each with the disks it froze', async (_, xml) => {
    writeVm({
      disks: ['web01', 'data'],
      xml,
      machine: { secureBoot: true, mac: '00-15-5D-01-02-03', network: 'LAN', notes: 'web' },
    });
    const catalog = await scan();
    const vm = only(catalog);
    expect(vm).toMatchObject({
      name: 'web01',
      origin: 'hyper-v',
      folder: 'web01',
      config: `web01/Virtual Machines/${MACHINE}.${xml ? 'xml' : 'vmcx'}`,
      cpus: 4,
      memoryBytes: 2 ** 31,
      firmware: 'efi, secure boot',
      networks: [{ device: '0', mac: '00:15:5d:01:02:03', network: 'LAN', model: 'synthetic' }],
      findings: [],
    });
    expect(outline(vm)).toEqual([
      [checkpointId(0), undefined, 'web01.vhdx', 'data.vhdx'],
      [checkpointId(1), checkpointId(0), layerName('web01', 1), layerName('data', 1)],
      ['current', checkpointId(1), layerName('web01', 2), layerName('data', 2)],
    ]);
    expect(vm.points[0]).toMatchObject({
      name: 'checkpoint 0',
      created: '2024-05-01T00:00:00.000Z',
      currentParent: false,
    });
    expect(vm.points[1]).toMatchObject({ currentParent: true, disks: [{ node: 'scsi0:0' }, { node: 'scsi0:1' }] });
    expect(vm.points.every(isIntact)).toBe(true);
    expect(allFindings(catalog)).toEqual([]);
    expect(catalog.orphans).toEqual([]);
  });

  it('opens each point with what it held', async () => {
    writeVm();
    const catalog = await scan();
    for (const [n, point] of only(catalog).points.entries()) {
      const disk = await openChain(point.disks[0]!.path!, catalog.folder);
      for (let block = 0; block < 3; block++) {
        expect((await disk.read(block << 20, 1))[0]).toBe(block <= n ? block + 1 : 0);
      }
      await disk.close();
    }
  });

  it('a branch: the tree is that of the disks', async () => {
    const folder = writeVm({ checkpoints: 3 });
    // The VM was set back to the first checkpoint: its disk stands on what that froze.
    const present = layerName('web01', 1);
    writeConfig(join(folder, 'Virtual Machines'), MACHINE, {
      disks: [`${HOST}${present.replace(guidOf(1), guidOf(9))}`],
      list: [0, 1, 2].map(checkpointId),
    });
    const disks = join(folder, 'Virtual Hard Disks');
    copyFileSync(join(disks, present), join(disks, present.replace(guidOf(1), guidOf(9))));
    unlinkSync(join(disks, layerName('web01', 3)));
    const vm = only(await scan());
    expect(vm.points.map(({ id, parent }) => [id, parent])).toEqual([
      [checkpointId(0), undefined],
      [checkpointId(1), checkpointId(0)],
      [checkpointId(2), checkpointId(1)],
      ['current', checkpointId(0)],
    ]);
    expect(vm.points.find((point) => point.currentParent)?.id).toBe(checkpointId(0));
  });

  it('several VMs of a host in shared folders, and copies of one VM in two', async () => {
    const other = guidOf(101);
    writeVm({ home: '.' });
    writeVhdxChain(join(root, 'Virtual Hard Disks'), 'db', 0);
    writeConfig(join(root, 'Virtual Machines'), other, { name: 'db', disks: [`${HOST}db.vhdx`] });
    const catalog = await scan();
    expect(catalog.vms.map(({ name, points }) => [name, points.length])).toEqual([
      ['web01', 3],
      ['db', 1],
    ]);
    expect(allFindings(catalog)).toEqual([]);
    expect(catalog.orphans).toEqual([]);
    rmSync(root, { recursive: true });
    mkdirSync(root);
    writeVm({ home: 'monday' });
    writeVm({ home: 'tuesday', checkpoints: 1 });
    const copies = await scan();
    expect(copies.vms.map(({ name, points }) => [name, points.length])).toEqual([
      ['web01 (monday)', 3],
      ['web01 (tuesday)', 2],
    ]);
    expect(copies.vms[1]!.points[1]!.disks[0]!.file).toBe(`tuesday/Virtual Hard Disks/${layerName('web01', 1)}`);
  });

  it('everything in one folder, as backup tools copy it', async () => {
    const folder = writeVm();
    for (const place of ['Virtual Machines', 'Snapshots', 'Virtual Hard Disks']) {
      for (const name of [MACHINE, checkpointId(0), checkpointId(1)].map((id) => `${id}.vmcx`)) {
        try {
          renameSync(join(folder, place, name), join(folder, name));
        } catch {
          // Each lies in one of the three.
        }
      }
    }
    for (let n = 0; n < 3; n++) {
      renameSync(join(folder, 'Virtual Hard Disks', layerName('web01', n)), join(folder, layerName('web01', n)));
    }
    const catalog = await scan();
    expect(outline(only(catalog)).map(([id]) => id)).toEqual([checkpointId(0), checkpointId(1), 'current']);
    expect(allFindings(catalog)).toEqual([]);
  });
});

describe('evidence', () => {
  it('memory, production checkpoints and what proves less', async () => {
    const LINUX = '272e7447-90a4-4563-a4b9-8e4ab00526ce';
    const folder = writeVm({
      checkpoints: 6,
      machine: { on: 2, off: 1 },
      checkpoint: (n) =>
        [
          { userType: 3 },
          { userType: 3, on: 2, off: 1 },
          { userType: 4, on: 2, off: 1, template: LINUX },
          { userType: 4 },
          { userType: 5, on: 2, off: 1 },
          { userType: 3, on: 2, off: 1, saved: true },
        ][n]!,
    });
    writeFileSync(join(folder, 'Snapshots', `${checkpointId(0)}.VMRS`), buildStore([], { memory: 3 << 20 }).bytes);
    writeFileSync(join(folder, 'Snapshots', `${checkpointId(1)}.vmrs`), buildStore([]).bytes);
    const vm = only(await scan());
    expect(vm.points.map(({ consistency, memory, quiesced }) => [consistency.level, memory, quiesced])).toEqual([
      ['memory', true, false],
      ['application', false, true],
      ['file-system', false, false],
      ['file-system', false, false],
      ['unknown', false, false],
      ['unknown', false, false],
      ['crash', false, false],
    ]);
    expect(vm.points[0]?.consistency.evidence[0]).toBe(`${checkpointId(0)}.VMRS holds 3145728 bytes of saved state`);
    expect(vm.points[1]?.consistency.evidence).toEqual([
      `${checkpointId(1)}.vmcx asks for production checkpoints, or standard ones with memory where that fails (user_type 3)`,
      `${checkpointId(1)}.vmcx says that the VM was on`,
      'no saved state with memory',
    ]);
    expect(codes(vm.points[5]?.findings ?? [])).toEqual(['state-file-missing']);
  });

  it('.bin and .vsv of a checkpoint are memory; those of a VM that runs are not', async () => {
    const folder = writeVm({ checkpoints: 1, xml: true });
    for (const [place, id] of [
      ['Snapshots', checkpointId(0)],
      ['Virtual Machines', MACHINE],
    ] as const) {
      const own = join(folder, place, id);
      mkdirSync(own);
      writeFileSync(join(own, `${id}.bin`), Buffer.alloc(100));
      writeFileSync(join(own, `${id}.vsv`), Buffer.alloc(10));
    }
    const catalog = await scan();
    expect(only(catalog).points.map(({ memory }) => memory)).toEqual([true, false]);
    expect(catalog.orphans).toEqual([]);
  });

  it('a damaged saved state is told, and the disks are shown', async () => {
    const folder = writeVm({ checkpoints: 1 });
    writeFileSync(join(folder, 'Snapshots', `${checkpointId(0)}.vmrs`), 'this is no store');
    const vm = only(await scan());
    expect(codes(vm.points[0]?.findings ?? [])).toEqual(['state-file-damaged']);
    expect(isIntact(vm.points[0]!)).toBe(true);
  });
});

describe('what is odd', () => {
  it('orphans, and what backups leave behind', async () => {
    const folder = writeVm({ checkpoints: 1 });
    const disks = join(folder, 'Virtual Hard Disks');
    writeVhdxChain(join(root, 'scratch'), 'web01', 3);
    renameSync(join(root, 'scratch', layerName('web01', 2)), join(disks, layerName('web01', 2)));
    renameSync(join(root, 'scratch', layerName('web01', 3)), join(disks, `web01-AutoRecovery.avhdx`));
    rmSync(join(root, 'scratch'), { recursive: true });
    writeFileSync(join(disks, 'web01.vhdx.rct'), 'rct');
    writeFileSync(join(disks, 'web01.vhdx.mrt'), 'mrt');
    writeFileSync(join(disks, 'web01.hrl'), 'hrl');
    const catalog = await scan();
    expect(codes(only(catalog).findings)).toEqual(['change-tracking', 'replica-log', 'auto-recovery-disk']);
    expect(catalog.orphans.map(({ file }) => basename(file)).sort()).toEqual([
      'web01-AutoRecovery.avhdx',
      layerName('web01', 2),
    ]);
    expect(catalog.orphans.find(({ file }) => file.endsWith(layerName('web01', 2)))?.reason).toContain(
      `stands on ${layerName('web01', 1)}`,
    );
  });

  it('a checkpoint that was removed and not merged, one that is gone, one of a backup', async () => {
    const folder = writeVm({
      checkpoints: 3,
      machine: { mergePending: true },
      checkpoint: (n) => (n === 2 ? { name: 'web01 - Backup - (5/1/2024 - 2:00:00 AM)' } : {}),
    });
    unlinkSync(join(folder, 'Snapshots', `${checkpointId(1)}.vmcx`));
    const vm = only(await scan());
    expect(codes(vm.findings)).toEqual(['needs-consolidation', 'checkpoint-missing']);
    expect(vm.points.map(({ id, parent }) => [id, parent])).toEqual([
      [checkpointId(0), undefined],
      [checkpointId(2), checkpointId(0)],
      ['current', checkpointId(2)],
    ]);
    expect(codes(vm.points[1]!.findings)).toEqual(['backup-checkpoint', 'needs-consolidation']);
    expect(vm.points[1]!.findings[1]?.message).toContain(layerName('web01', 1));
  });

  it('a broken link breaks the points on it, and names the last intact one', async () => {
    const folder = writeVm({ checkpoints: 2 });
    unlinkSync(join(folder, 'Virtual Hard Disks', layerName('web01', 1)));
    const vm = only(await scan());
    expect(vm.points.map(isIntact)).toEqual([true, false, false]);
    expect(codes(vm.points[1]!.findings)).toContain('disk-missing');
    expect(vm.points[2]!.disks[0]?.error?.kind).toBe('missing-parent');
  });

  it('a configuration that cannot be read: its VM is shown from its disks', async () => {
    const folder = writeVm({ checkpoints: 2 });
    rmSync(join(folder, 'Snapshots'), { recursive: true });
    const config = join(folder, 'Virtual Machines', `${MACHINE}.vmcx`);
    const bytes = readFileSync(config);
    writeFileSync(config, buildStore([], { version: 0x600 }).bytes);
    const one = only(await scan());
    expect(one).toMatchObject({ name: 'web01', origin: 'hyper-v' });
    expect(one.findings).toMatchObject([{ code: 'config-unreadable', severity: 'suspicious' }]);
    expect(one.findings[0]?.message).toContain('0x600');
    expect(one.points.map(({ name, current }) => [name, current])).toEqual([
      ['web01', false],
      [layerName('web01', 1).replace('.avhdx', ''), false],
      [layerName('web01', 2).replace('.avhdx', ''), true],
    ]);
    // Two disks: which layers belong together is not known, the present state is.
    writeVhdxChain(join(folder, 'Virtual Hard Disks'), 'data', 1);
    bytes[0]! ^= 1;
    bytes[0x1000]! ^= 1;
    writeFileSync(config, bytes);
    const catalog = await scan();
    expect(outline(only(catalog))).toEqual([['current', undefined, `data_${guidOf(1)}.avhdx`, layerName('web01', 2)]]);
    expect(only(catalog).findings[0]).toMatchObject({
      code: 'config-unreadable',
      severity: 'damaged',
      structure: 'Hyper-V storage header signature',
    });
    expect(catalog.orphans).toEqual([]);
  });

  it('a checkpoint that cannot be read is told with its VM; checkpoints without their VM are shown', async () => {
    const folder = writeVm({ checkpoints: 2 });
    writeFileSync(join(folder, 'Snapshots', `${checkpointId(1)}.vmcx`), 'damaged');
    const vm = only(await scan());
    expect(codes(vm.findings)).toEqual(['config-unreadable', 'checkpoint-missing']);
    expect(vm.points).toHaveLength(2);
    rmSync(join(folder, 'Virtual Machines'), { recursive: true });
    const rest = only(await scan());
    expect(codes(rest.findings)).toEqual(['config-unreadable', 'config-missing']);
    expect(rest.points.map(({ name, current }) => [name, current])).toEqual([['checkpoint 0', false]]);
  });

  it('files that are of no VM are none: the list of VMs, other XML, exports before 2012 by name', async () => {
    mkdirSync(join(root, 'x'));
    writeFileSync(join(root, 'x', 'data.vmcx'), buildStore([['Configurations', [['FormatVersion', 2]]]]).bytes);
    writeFileSync(join(root, 'x', 'app.xml'), '<configuration><appSettings/></configuration>');
    writeFileSync(join(root, 'x', 'broken.xml'), '<configuration><appSettings></configuration>');
    expect((await scan()).vms).toEqual([]);
    writeFileSync(join(root, 'x', `${guidOf(5)}.exp`), 'x');
    expect(codes(only(await scan()).findings)).toEqual(['config-unreadable']);
    await expect(scan(join(root, 'x', 'data.vmcx'))).rejects.toBeInstanceOf(UsageError);
  });

  it('a disk that lies nowhere near is not taken from another VM', async () => {
    const folder = writeVm({ checkpoints: 0, disks: ['disk'] });
    mkdirSync(join(root, 'db', 'Virtual Hard Disks'), { recursive: true });
    renameSync(join(folder, 'Virtual Hard Disks', 'disk.vhdx'), join(root, 'db', 'disk.vhdx'));
    const vm = (await scan()).vms.find(({ origin }) => origin === 'hyper-v')!;
    expect(vm.points[0]?.disks[0]).toMatchObject({ file: `${HOST}disk.vhdx`, error: { kind: 'not-found' } });
  });
});

const REAL = join(corpus, 'fox-it+dissect.target/tests/_data/loaders/hyperv');
describe.skipIf(!existsSync(REAL))('real configurations without their disks (skipped without ../shared/corpus)', () => {
  it('are VMs whose disks are missing', async () => {
    const { vms } = await scanRepository(REAL, { synchronous: true });
    expect(vms.map(({ name, firmware, cpus }) => [name.replace(/ \(.*/, ''), firmware, cpus]).sort()).toEqual([
      ['Default Generation 1', 'bios', 1],
      ['Default Generation 1', 'bios', 1],
      ['Default Generation 2', 'efi, secure boot', 1],
      ['Default Generation 2', 'efi, secure boot', 1],
    ]);
    for (const vm of vms) {
      expect(vm.points).toHaveLength(1);
      expect(codes(vm.points[0]!.findings)).toEqual(['disk-missing', 'point-broken']);
      expect(vm.points[0]!.disks[0]!.file).toMatch(/^C:\\Disks\\Default Generation [12]\.vhdx$/);
    }
  });
});

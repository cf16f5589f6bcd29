import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { scanRepository } from '../../../main/engine/catalog/catalog.ts';
import { LayerIndex } from '../../../main/engine/catalog/layers.ts';
import { libvirtReader } from '../../../main/engine/catalog/libvirt/machine.ts';
import { isIntact, type VirtualMachine } from '../../../main/engine/catalog/model.ts';
import type { ScannedMachine } from '../../../main/engine/catalog/reader.ts';
import { walk } from '../../../main/engine/catalog/walk.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import {
  type DomainParts,
  domainXml,
  type StandIn,
  snapshotXml,
  standIn,
  UUID,
  write,
  writeDomain,
  writeSnapshot,
} from '../../support/libvirt-builder.ts';
import { between, randomFrom } from '../../support/random.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

const scratch = scratchFolder('libvirt');
let root = '';
let count = 0;
beforeEach(() => {
  root = join(scratch.path, String(count++));
  mkdirSync(root);
});

const IMAGES = '/var/lib/libvirt/images';
const disk = (node: string, name: string, format?: string) => ({
  node,
  file: `${IMAGES}/${name}`,
  ...(format === undefined ? {} : { format }),
});

/** Scans the folder; every file in `images` is there and is what it says. */
async function scan(images: Readonly<Record<string, StandIn>>, folder = '.'): Promise<ScannedMachine[]> {
  for (const name of Object.keys(images)) write(join(root, folder, name), 'image');
  return leavesUntouched(root, async () => {
    const confinement = new Confinement(root);
    const { folders } = await walk(confinement);
    const index = new LayerIndex(confinement, { open: standIn(images) });
    const machines: ScannedMachine[] = [];
    for (const place of folders) machines.push(...(await libvirtReader.scan(place, index, folders)));
    return machines;
  });
}
const one = (machines: readonly ScannedMachine[]): VirtualMachine => {
  expect(machines).toHaveLength(1);
  return machines[0]!.vm;
};
const outline = (vm: VirtualMachine) =>
  vm.points.map(({ id, parent, disks }) => [
    id,
    parent,
    ...disks.map(({ file }) => (basename(dirname(file)) === '.' ? file : file)),
  ]);
const codes = (findings: readonly { code: string }[]) => findings.map((finding) => finding.code);
const allCodes = (vm: VirtualMachine) => codes([...vm.findings, ...vm.points.flatMap((point) => point.findings)]);

describe('a domain', () => {
  it('gives the machine and its disks beside it', async () => {
    writeDomain(join(root, 'web01.xml'), {
      name: 'web & <db>',
      disks: [disk('vda', 'web01.qcow2'), disk('vdb', 'data.img', 'raw')],
      os: "<os firmware='efi'><firmware><feature enabled='yes' name='secure-boot'/></firmware></os>",
      memory: "<memory unit='GB'>3</memory>",
    });
    const vm = one(await scan({ 'web01.qcow2': {}, 'data.img': { format: 'raw' } }));
    expect(vm).toMatchObject({
      name: 'web & <db>',
      origin: 'libvirt',
      folder: '.',
      config: 'web01.xml',
      guest: 'debian 12',
      cpus: 2,
      memoryBytes: 3e9,
      firmware: 'efi, secure boot',
      networks: [{ device: '0', mac: '52:54:00:ab:cd:01', network: 'default', model: 'virtio' }],
      findings: [],
    });
    expect(vm.points).toMatchObject([
      {
        id: 'current',
        current: true,
        consistency: { level: 'unknown', evidence: ['web01.xml does not say whether the VM ran'] },
        disks: [
          { index: 0, node: 'vda', file: 'web01.qcow2' },
          { index: 1, node: 'vdb', file: 'data.img' },
        ],
        findings: [],
      },
    ]);
  });

  it.each([
    ['<os/>', 'bios'],
    ["<os><loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader></os>", 'efi'],
    ["<os><loader secure='yes' type='pflash'>/x</loader></os>", 'efi, secure boot'],
    ["<os><loader type='rom'>/usr/share/seabios/bios.bin</loader></os>", 'bios'],
  ])('firmware of %s', async (os, firmware) => {
    writeDomain(join(root, 'a.xml'), { os, disks: [disk('vda', 'a.qcow2')] });
    expect(one(await scan({ 'a.qcow2': {} })).firmware).toBe(firmware);
  });

  it.each([
    ['<memory>1024</memory>', 2 ** 20],
    ["<memory unit='b'>4096</memory>", 4096],
    ["<memory unit='MiB'>512</memory>", 2 ** 29],
    ["<memory unit='T'>1</memory>", 2 ** 40],
    ["<memory unit='parsec'>1</memory>", undefined],
    ['<memory>lots</memory>', undefined],
    ["<memory unit='TiB'>9007199254740991</memory>", undefined],
  ])('%s', async (memory, bytes) => {
    writeDomain(join(root, 'a.xml'), { memory, disks: [disk('vda', 'a.qcow2')] });
    expect(one(await scan({ 'a.qcow2': {} })).memoryBytes).toBe(bytes);
  });

  it('is found as libvirt keeps it, its images in a copy of the host', async () => {
    writeDomain(join(root, 'etc/libvirt/qemu/web01.xml'), { disks: [disk('vda', 'web01.qcow2')] });
    write(join(root, 'etc/libvirt/qemu/networks/default.xml'), '<network><name>default</name></network>');
    write(join(root, 'old/web01.qcow2'), 'an older copy');
    const [machine] = await scan({ 'web01.qcow2': {} }, 'var/lib/libvirt/images');
    expect(machine!.vm.points[0]?.disks[0]?.file).toBe('var/lib/libvirt/images/web01.qcow2');
    expect(machine!.used.has(join(root, 'var/lib/libvirt/images/web01.qcow2'))).toBe(true);
    expect(machine!.opened).toBe(true);
  });

  it('tells what is no file, what is missing, and what a backup tool keeps in its own way', async () => {
    const block = "<disk type='block' device='disk'><source dev='/dev/vg0/web'/><target dev='vda'/></disk>";
    const rbd = "<disk type='network' device='disk'><source protocol='rbd' name='pool/x'/><target dev='vdb'/></disk>";
    const volume =
      "<disk type='volume' device='disk'><source pool='default' volume='v.qcow2'/><target dev='vdd'/></disk>";
    writeDomain(join(root, 'vmconfig.xml'), {
      disks: [
        { node: 'vda', xml: block },
        { node: 'vdb', xml: rbd },
        disk('vdc', 'gone.qcow2'),
        { node: 'vdd', xml: volume },
        { node: 'vde', file: '../../../etc/passwd' },
      ],
    });
    writeFileSync(join(root, 'vdc.full.data'), 'stream');
    writeFileSync(join(root, 'vdc.inc.virtnbdbackup.1.data'), 'stream');
    const vm = one(await scan({ 'v.qcow2': {} }));
    expect(vm.points[0]?.disks.map(({ node, file, error }) => [node, file, error?.kind])).toEqual([
      ['vda', '/dev/vg0/web', 'not-found'],
      ['vdb', 'rbd pool/x', 'not-found'],
      ['vdc', `${IMAGES}/gone.qcow2`, 'not-found'],
      ['vdd', 'v.qcow2', undefined],
      ['vde', '../../../etc/passwd', 'denied'],
    ]);
    expect(codes(vm.points[0]!.findings)).toEqual([
      'disk-is-no-file',
      'disk-is-no-file',
      'disk-missing',
      'backup-stream',
      'outside-repository',
      'point-broken',
    ]);
  });

  it('warns when an image is not of the format that is recorded', async () => {
    writeDomain(join(root, 'a.xml'), { disks: [disk('vda', 'a.img', 'raw'), disk('vdb', 'b.vhd', 'vpc')] });
    const vm = one(await scan({ 'a.img': { format: 'qcow2' }, 'b.vhd': { format: 'vhd' } }));
    expect(vm.points[0]?.findings).toMatchObject([
      { code: 'format-differs', expected: 'raw', found: 'qcow2', source: 'a.img', severity: 'suspicious' },
    ]);
  });

  it('of several definitions takes the last; a live state says that the VM ran', async () => {
    const parts: DomainParts = { disks: [disk('vda', 'a.qcow2')] };
    writeDomain(join(root, 'vmconfig.virtnbdbackup.2.xml'), parts);
    writeDomain(join(root, 'vmconfig.virtnbdbackup.10.xml'), { disks: [disk('vda', 'b.qcow2')] });
    const vm = one(await scan({ 'a.qcow2': {}, 'b.qcow2': {} }));
    expect(vm.config).toBe('vmconfig.virtnbdbackup.10.xml');
    expect(codes(vm.findings)).toEqual(['several-definitions']);
    write(
      join(root, 'run/web01.xml'),
      `<domstatus state='running' reason='booted' pid='7'>${domainXml(parts)}</domstatus>`,
    );
    const live = one(await scan({ 'a.qcow2': {}, 'b.qcow2': {} }));
    expect(live.config).toBe('run/web01.xml');
    expect(live.points[0]).toMatchObject({ consistency: { level: 'crash' }, disks: [{ file: 'a.qcow2' }] });
  });

  it('copies of one VM in two folders are two', async () => {
    for (const day of ['monday', 'tuesday']) {
      writeDomain(join(root, day, 'web01.xml'), { disks: [disk('vda', 'web01.qcow2')] });
      write(join(root, day, 'web01.qcow2'), 'image');
    }
    const machines = await scan({});
    expect(machines.map(({ vm }) => vm.points[0]?.disks[0]?.file)).toEqual([
      'monday/web01.qcow2',
      'tuesday/web01.qcow2',
    ]);
  });

  it('broken and hostile XML is told, and is nobody else', async () => {
    write(join(root, 'torn.xml'), domainXml({ disks: [] }).slice(0, 400));
    write(join(root, 'bomb.xml'), `<!DOCTYPE domain [<!ENTITY a "aaaa">]><domain><name>&a;</name></domain>`);
    write(join(root, 'deep.xml'), `<domain>${'<a>'.repeat(5_000)}${'</a>'.repeat(5_000)}</domain>`);
    write(join(root, 'other.xml'), '<project><name>x</name></project>');
    write(join(root, 'text.xml'), 'no XML at all');
    const machines = await scan({});
    expect(machines.map(({ vm, opened }) => [vm.name, codes(vm.findings), opened])).toEqual([
      ['deep', ['config-unreadable'], false],
      ['torn', ['config-unreadable'], false],
    ]);
    const names = await scanRepository(root, { synchronous: true });
    expect(names.vms).toHaveLength(2);
  });
});

describe('snapshots inside images', () => {
  const two: StandIn = {
    snapshots: [
      { id: '1', name: 'installed', created: '2023-11-14T22:13:20.000Z' },
      { id: '2', name: 'running', stateBytes: 5_000 },
    ],
  };
  const SNAPSHOTS = () => join(root, 'var/lib/libvirt/qemu/snapshot/web01');

  it('are opened inside every disk, with memory where it is there', async () => {
    const domain: DomainParts = { disks: [disk('vda', 'a.qcow2'), disk('vdb', 'b.qcow2')] };
    writeDomain(join(root, 'web01.xml'), domain);
    const internal = ['vda', 'vdb'].map((node) => ({ node, kept: 'internal' }));
    writeSnapshot(SNAPSHOTS(), { name: 'installed', disks: internal, domain, description: 'clean' });
    writeSnapshot(SNAPSHOTS(), {
      name: 'running',
      parent: 'installed',
      created: 1_700_003_600,
      state: 'running',
      memory: "<memory snapshot='internal'/>",
      disks: internal,
      domain,
      active: true,
    });
    const [machine] = await scan({
      'a.qcow2': two,
      'b.qcow2': { snapshots: two.snapshots!.map(({ id, name }) => ({ id, name: name! })) },
    });
    const { vm } = machine!;
    expect(outline(vm)).toEqual([
      ['installed', undefined, 'a.qcow2/@1', 'b.qcow2/@1'],
      ['running', 'installed', 'a.qcow2/@2', 'b.qcow2/@2'],
      ['current', 'running', 'a.qcow2', 'b.qcow2'],
    ]);
    expect(vm.points[0]).toMatchObject({
      description: 'clean',
      created: '2023-11-14T22:13:20.000Z',
      memory: false,
      consistency: {
        level: 'file-system',
        evidence: ['installed.xml says the VM was off (state shutoff)', 'no memory file'],
      },
    });
    expect(vm.points[1]).toMatchObject({ memory: true, currentParent: true, consistency: { level: 'memory' } });
    expect(vm.points[1]?.consistency.evidence[0]).toContain('holds 5000 bytes');
    expect(allCodes(vm)).toEqual([]);
    expect([...machine!.used].map((path) => basename(path)).sort()).toEqual([
      'a.qcow2',
      'b.qcow2',
      'installed.xml',
      'running.xml',
      'web01.xml',
    ]);
  });

  it('one that an image lacks breaks that disk alone; old files list no disks', async () => {
    const domain: DomainParts = { disks: [disk('vda', 'a.qcow2'), disk('vdb', 'b.qcow2')] };
    writeDomain(join(root, 'web01.xml'), domain);
    writeSnapshot(SNAPSHOTS(), { name: 'installed', domain, memory: '' });
    const vm = one(await scan({ 'a.qcow2': two, 'b.qcow2': {} }));
    expect(vm.points[0]?.disks.map(({ file, error }) => [file, error?.kind])).toEqual([
      ['a.qcow2/@1', undefined],
      ['b.qcow2', 'not-found'],
    ]);
    expect(vm.points[0]?.findings).toMatchObject([
      { code: 'internal-snapshot-missing', source: 'b.qcow2', expected: 'installed', found: 'no snapshots' },
      { code: 'point-broken' },
    ]);
    expect(isIntact(vm.points[1]!)).toBe(true);
    expect(codes(vm.findings)).toEqual(['current-inferred']);
  });

  it('memory that should be inside and is not', async () => {
    const domain: DomainParts = { disks: [disk('vda', 'a.qcow2')] };
    writeDomain(join(root, 'web01.xml'), domain);
    writeSnapshot(SNAPSHOTS(), {
      name: 'installed',
      state: 'running',
      memory: "<memory snapshot='internal'/>",
      domain,
      active: true,
    });
    const vm = one(await scan({ 'a.qcow2': two }));
    expect(vm.points[0]).toMatchObject({ memory: false, consistency: { level: 'crash' } });
    expect(codes(vm.points[0]!.findings)).toEqual(['memory-state-missing']);
  });
});

describe('external snapshots', () => {
  /** base <- s1 <- s2 (present). */
  const chain: Record<string, StandIn> = {
    'web01.qcow2': {},
    'web01.s1': { parent: 'web01.qcow2' },
    'web01.s2': { parent: 'web01.s1' },
  };
  const external = (overlay: string) => [{ node: 'vda', kept: 'external', overlay: `${IMAGES}/${overlay}` }];
  const then = (name: string): DomainParts => ({ disks: [disk('vda', name)] });

  function writeBoth(more: Partial<Parameters<typeof writeSnapshot>[1]> = {}): void {
    writeDomain(join(root, 'web01.xml'), then('web01.s2'));
    writeSnapshot(join(root, 'snapshot/web01'), {
      name: 's1',
      state: 'disk-snapshot',
      disks: external('web01.s1'),
      domain: then('web01.qcow2'),
    });
    writeSnapshot(join(root, 'snapshot/web01'), {
      name: 's2',
      parent: 's1',
      created: 1_700_003_600,
      state: 'running',
      disks: external('web01.s2'),
      domain: then('web01.s1'),
      active: true,
      ...more,
    });
  }

  it('are what the file under the new one holds', async () => {
    writeBoth();
    const vm = one(await scan(chain));
    expect(outline(vm)).toEqual([
      ['s1', undefined, 'web01.qcow2'],
      ['s2', 's1', 'web01.s1'],
      ['current', 's2', 'web01.s2'],
    ]);
    expect(vm.points[0]?.consistency.level).toBe('crash');
    expect(vm.points[0]?.consistency.evidence[0]).toContain('whether the file systems were frozen is not recorded');
    expect(vm.points[1]?.consistency).toMatchObject({ level: 'crash' });
    expect(vm.points[2]?.disks[0]?.chain).toEqual(['web01.s2', 'web01.s1', 'web01.qcow2']);
    expect(allCodes(vm)).toEqual([]);
  });

  it('memory in a file of its own is looked at', async () => {
    writeBoth({ memory: `<memory snapshot='external' file='${IMAGES}/web01.mem'/>` });
    const missing = one(await scan(chain));
    expect(missing.points[1]).toMatchObject({ memory: false, findings: [{ code: 'state-file-missing' }] });
    writeFileSync(join(root, 'web01.mem'), 'LibvirtQemudSave and the rest');
    expect(one(await scan(chain)).points[1]).toMatchObject({
      memory: true,
      consistency: { level: 'memory' },
      findings: [],
    });
    writeFileSync(join(root, 'web01.mem'), 'LibvirtQemudPart');
    expect(one(await scan(chain)).points[1]).toMatchObject({
      memory: false,
      findings: [{ code: 'state-file-damaged', expected: 'LibvirtQemudSave' }],
    });
  });

  it('an overlay on another base than the snapshot says', async () => {
    writeBoth();
    const vm = one(await scan({ ...chain, 'web01.s2': { parent: 'web01.qcow2' } }));
    expect(vm.points[1]?.disks[0]?.file).toBe('web01.qcow2');
    expect(codes(vm.points[1]!.findings)).toEqual(['overlay-on-other-base', 'same-disk-as-parent']);
  });

  it('a disk left out, one snapshotted by others, and a point whose overlay is gone', async () => {
    const domain: DomainParts = { disks: [disk('vda', 'web01.qcow2'), disk('vdb', 'b.qcow2'), disk('vdc', 'c.qcow2')] };
    writeDomain(join(root, 'web01.xml'), {
      disks: [disk('vda', 'web01.s1'), disk('vdb', 'b.qcow2'), disk('vdc', 'c.qcow2')],
    });
    writeSnapshot(root, {
      name: 's1',
      state: 'disk-snapshot',
      disks: [...external('web01.s1'), { node: 'vdb', kept: 'no' }, { node: 'vdc', kept: 'manual' }],
      domain,
      active: true,
    });
    const vm = one(await scan({ 'web01.qcow2': {}, 'b.qcow2': {}, 'c.qcow2': {} }));
    expect(
      vm.points.map(({ id, disks }) => [id, disks.map(({ node, error }) => `${node} ${error?.kind ?? 'ok'}`)]),
    ).toEqual([
      ['s1', ['vda ok']],
      ['current', ['vda not-found', 'vdb ok', 'vdc ok']],
    ]);
    expect(codes(vm.points[0]!.findings)).toEqual(['disk-not-in-snapshot', 'disk-not-in-snapshot']);
    expect(vm.points[1]?.findings.at(-1)?.remedy).toBe('The last intact point before it is "s1".');
  });

  it('without a domain the snapshots are shown; which one the VM is on is told by the disks', async () => {
    writeBoth({ active: false });
    const inferred = one(await scan(chain));
    expect(inferred.points.at(-1)).toMatchObject({ id: 'current', parent: 's2' });
    expect(codes(inferred.findings)).toEqual(['current-inferred']);
    writeFileSync(join(root, 'web01.xml'), '<project/>');
    const vm = one(await scan(chain));
    expect(vm).toMatchObject({ name: 'web01', cpus: 2 });
    expect(vm.points.map(({ id }) => id)).toEqual(['s1', 's2']);
    expect(codes(vm.findings)).toEqual(['domain-missing']);
  });

  it('loops, repeated names, lost parents, checkpoints', async () => {
    writeDomain(join(root, 'web01.xml'), then('web01.qcow2'));
    const folder = join(root, 'snapshot/web01');
    writeSnapshot(folder, { name: 'a', parent: 'b', domain: then('web01.qcow2') });
    writeSnapshot(folder, { name: 'b', parent: 'a', domain: then('web01.qcow2') });
    writeSnapshot(
      folder,
      { name: 'a', parent: 'lost', domain: then('web01.qcow2'), created: 1_700_009_999 },
      'other.xml',
    );
    write(
      join(root, 'checkpoint/web01/c1.xml'),
      `<domaincheckpoint><name>c1</name><domain><name>web01</name><uuid>${UUID}</uuid></domain></domaincheckpoint>`,
    );
    const vm = one(
      await scan({
        'web01.qcow2': {
          snapshots: [
            { id: '1', name: 'a' },
            { id: '2', name: 'b' },
          ],
        },
      }),
    );
    expect(vm.points.map(({ id }) => id).sort()).toEqual(['a', 'a 2', 'b', 'current']);
    expect(codes(vm.findings)).toEqual([
      'duplicate-snapshot',
      'parent-snapshot-missing',
      'snapshot-loop',
      'current-inferred',
      'checkpoints',
    ]);
  });
});

it('a folder of images and domains is scanned as one repository', async () => {
  writeDomain(join(root, 'web01.xml'), { disks: [disk('vda', 'web01.raw', 'raw')] });
  writeFileSync(join(root, 'web01.raw'), Buffer.alloc(4096));
  writeFileSync(join(root, 'left.raw'), Buffer.alloc(4096));
  const catalog = await leavesUntouched(root, () => scanRepository(root, { synchronous: true }));
  expect(catalog.vms.map(({ name, origin }) => [name, origin])).toEqual([['web01', 'libvirt']]);
  expect(catalog.orphans.map(({ file }) => file)).toEqual(['left.raw']);
  expect(readdirSync(root)).toHaveLength(3);
});

it('whatever is done to its files, a scan gives VMs or findings', async () => {
  const random = randomFrom(7);
  const whole = Buffer.from(
    snapshotXml({
      name: 's1',
      memory: "<memory snapshot='external' file='/x/mem'/>",
      disks: [{ node: 'vda', kept: 'external', overlay: '/x/web01.s1' }],
      domain: { disks: [disk('vda', 'web01.qcow2')] },
    }),
  );
  const pieces = [
    '<',
    '>',
    '&#x110000;',
    '&',
    " snapshot='internal'",
    '</disk>',
    '\0',
    '\u202e',
    '<name>',
    ']]>',
    '<!--',
    '-1',
    '99999999999999999999',
  ];
  const domain = domainXml({ disks: [disk('vda', 'web01.s1')] });
  for (let round = 0; round < 60; round++) {
    let bytes = round % 2 === 0 ? Buffer.from(whole) : Buffer.from(domain);
    for (let n = between(random, 1, 4); n > 0; n--) {
      const at = between(random, 0, bytes.length - 1);
      const piece = Buffer.from(pieces[between(random, 0, pieces.length - 1)]!);
      bytes = Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at + between(random, 0, 20))]);
    }
    write(join(root, String(round), 'a.xml'), bytes);
  }
  const machines = await scan({ 'web01.qcow2': {}, 'web01.s1': { parent: 'web01.qcow2' } });
  for (const { vm } of machines) expect(vm.points.length + vm.findings.length).toBeGreaterThan(0);
  expect(machines.length).toBeGreaterThan(1);
});

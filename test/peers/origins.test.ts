/**
 * The main job on a repository of every origin: what a user of the command line gets from each is what the guest's disk held at that
 * moment. The guest's file system is the kernel's and e2fsprogs'; images are written by QEMU, tar and gzip where they can.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Finding, RepositoryReport, VirtualMachine } from '../../preload/api.ts';
import { type CliResult, chainlift, chainliftWith } from '../support/cli.ts';
import { makeStates, type Repository, type State } from '../support/guest-states.ts';
import {
  gzip,
  writeExternalSnapshots,
  writeHyperV,
  writeInternalSnapshots,
  writeLone,
  writeOva,
  writeOvfFolder,
  writeParallels,
  writeRawBase,
  writeRawGz,
  writeSplitRaw,
  writeVirtualBox,
  writeVmware,
} from '../support/origins.ts';
import { vdiUuid, writeStorageRepository, writeXva } from '../support/origins-xen.ts';
import { describePeers, missingLoopMounts, run, tryRun } from '../support/peers.ts';
import { fingerprint, scratchFolder } from '../support/scratch.ts';

const scratch = scratchFolder('origins');
let states: State[] = [];
const at = (name: string): string => join(scratch.path, 'repositories', name);

/** Each writes its repository into the folder `name`. */
const WRITERS: Readonly<Record<string, (folder: string) => Repository>> = {
  vmware: (folder) => writeVmware(folder, 'esx01', states),
  ova: (folder) => writeOva(folder, 'shop', states[0]!),
  'ova, compressed, SHA-1': (folder) => {
    const written = writeOva(folder, 'shop-gz', states[0]!, 'SHA1');
    gzip(join(folder, 'shop-gz.ova'));
    return written;
  },
  'ovf package in a folder': (folder) => {
    writeOvfFolder(folder, 'shop-folder', states[0]!);
    return { folder, vm: 'shop-folder', origin: 'ovf', points: [{ point: 'exported', state: 0 }] };
  },
  xva: (folder) => writeXva(folder, 'xen01', states),
  'xva, compressed': (folder) => {
    const written = writeXva(folder, 'xen02', states);
    gzip(join(folder, 'xen02.xva'));
    return written;
  },
  'storage repository with metadata': (folder) => writeStorageRepository(folder, 'xen03', states, true),
  'hyper-v': (folder) => writeHyperV(folder, 'hv01', states),
  'libvirt, internal snapshots': (folder) =>
    writeInternalSnapshots(folder, 'kvm01', states, { xml: true, memory: true }),
  'libvirt, external snapshots': (folder) => writeExternalSnapshots(folder, 'kvm02', states),
  virtualbox: (folder) => writeVirtualBox(folder, 'box01', states),
  'qcow2 with snapshots, without XML': (folder) =>
    writeInternalSnapshots(folder, 'kvm03', states, { xml: false, memory: true }),
  'qcow2 on a raw base': (folder) => writeRawBase(folder, 'loose', states),
  'a lone VDI': (folder) => writeLone(folder, 'lone.vdi', 'vdi', states[0]!),
  'split raw': (folder) => writeSplitRaw(folder, 'parts', states[0]!),
  'compressed raw': (folder) => writeRawGz(folder, 'packed', states[0]!),
  'a Parallels disk': (folder) => writeParallels(folder, 'mac', states[0]!),
};

const written = new Map<string, Repository>();
function repository(name: string): Repository {
  const known = written.get(name) ?? WRITERS[name]!(at(name));
  written.set(name, known);
  return known;
}

const parsed = <T>({ stdout, stderr }: CliResult): T => {
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as T;
};
const scan = (source: string): RepositoryReport => parsed(chainlift('scan', '--json', source));
const allFindings = ({ findings, vms }: RepositoryReport): Finding[] => [
  ...findings,
  ...vms.flatMap((vm) => [...vm.findings, ...vm.points.flatMap((point) => point.findings)]),
];
const loud = (findings: readonly Finding[]): Finding[] => findings.filter(({ severity }) => severity !== 'note');
const damage = (source: string): { code: number; codes: string[] } => {
  const result = chainlift('verify', '--json', source);
  const { findings } = parsed<{ findings: Finding[] }>(result);
  return { code: result.code, codes: loud(findings).map(({ code }) => code) };
};

/** Every file below a folder, by its path. */
function filesBelow(root: string): Map<string, Buffer> {
  const entries = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(
    entries.map((entry) => {
      const path = join(entry.parentPath, entry.name);
      return [path.slice(root.length), readFileSync(path)];
    }),
  );
}

/** The disk, its list of files and the files themselves are those of the state. */
function expectState(source: string, options: readonly string[], state: State): void {
  const hash = chainlift('hash', source, ...options);
  expect(hash.stdout.slice(0, 64), hash.stderr).toBe(state.sha256);
  const destination = join(scratch.path, 'copies');
  rmSync(destination, { recursive: true, force: true });
  mkdirSync(destination);
  const copy = chainlift('cp', '-r', source, '/sda1', destination, ...options);
  expect(copy.code, copy.stderr).toBe(0);
  const files = filesBelow(join(destination, 'sda1'));
  expect([...files.keys()].sort()).toEqual([...state.files.keys()].sort());
  for (const [path, bytes] of state.files) expect(files.get(path)?.equals(bytes), path).toBe(true);
}

function expectLists(source: string, options: readonly string[], state: State): void {
  const list = chainlift('ls', '-R', source, '/sda1', ...options);
  expect(list.code, list.stderr).toBe(0);
  const names = list.stdout.split('\n').map((name) => `/${name}`);
  expect(names).toEqual(expect.arrayContaining([...state.files.keys()]));
  const volumes = parsed<{ volumes: { name: string; fileSystem: object }[] }>(
    chainlift('volumes', '--json', source, ...options),
  ).volumes;
  expect(volumes).toMatchObject([{ name: 'sda1', fileSystem: { type: 'ext4', label: 'data', condition: 'clean' } }]);
  const file = chainlift('cat', source, '/sda1/srv/orders.csv', ...options);
  expect(file.stdout).toBe(state.files.get('/srv/orders.csv')!.toString());
}

function expectPoints(vm: VirtualMachine, { points }: Repository): void {
  expect(vm.points.map(({ id, name }, i) => (points[i]?.point === id ? id : name))).toEqual(
    points.map(({ point }) => point),
  );
  expect(vm.points.map(({ parent }) => parent)).toEqual([undefined, ...vm.points.slice(0, -1).map(({ id }) => id)]);
  expect(vm.points.map(({ current }) => current)).toEqual(points.map((_, i) => i === points.length - 1));
  for (const [i, { memory = false, quiesced = false }] of points.entries()) {
    const { consistency, ...point } = vm.points[i]!;
    expect(point).toMatchObject({ memory, quiesced });
    expect(point.disks.map(({ error }) => error)).toEqual([undefined]);
    expect(consistency.evidence).not.toEqual([]);
    // The guest's file system was unmounted in every state; only what was recorded says otherwise.
    expect(consistency.level).not.toBe('unknown');
    if (memory) expect(consistency.level).toBe('memory');
    if (quiesced) expect(consistency.level).toBe('application');
  }
}

const PEERS = ['qemu-img', 'qemu-io', 'qemu-system-x86_64', 'mkfs.ext4', 'debugfs', 'sfdisk', 'tar', 'gzip'] as const;

describePeers('repositories of every origin', { peers: PEERS }, () => {
  beforeAll(() => {
    mkdirSync(join(scratch.path, 'states'));
    states = makeStates(join(scratch.path, 'states'));
    for (const { raw } of states) expect(tryRun('e2fsck', ['-fn', `${raw}?offset=1048576`]).code).toBe(0);
  });

  it.each(Object.keys(WRITERS))('%s: scan, verify, hash, list and copy', (name) => {
    const repo = repository(name);
    const before = fingerprint(repo.folder);
    const report = scan(repo.folder);
    expect(report.vms.map((vm) => [vm.name, vm.origin])).toEqual([[repo.vm, repo.origin]]);
    expect(report.orphans).toEqual([]);
    expect(loud(allFindings(report))).toEqual([]);
    expectPoints(report.vms[0]!, repo);
    expect(damage(repo.folder)).toEqual({ code: 0, codes: [] });
    for (const { point, state } of repo.points) expectState(repo.folder, ['--point', point], states[state]!);
    const first = repo.points[0]!;
    expectLists(repo.folder, ['--point', first.point], states[first.state]!);
    expect(fingerprint(repo.folder)).toEqual(before);
  });

  it('a storage repository without metadata: every VHD is a point', () => {
    const { folder, points } = writeStorageRepository(at('storage repository'), 'xen04', states, false);
    const report = scan(folder);
    expect(report.vms).toHaveLength(1);
    expect(loud(allFindings(report))).toEqual([]);
    const parents = new Map(report.vms[0]!.points.map(({ id, parent }) => [id, parent]));
    const file = (number: number): string => `${vdiUuid(number)}.vhd`;
    expect([1, 2, 10, 11, 20].map((number) => parents.get(file(number)))).toEqual([
      undefined,
      file(1),
      file(1),
      file(2),
      file(2),
    ]);
    expect(damage(folder)).toEqual({ code: 0, codes: [] });
    for (const { point, state } of points) expectState(folder, ['--point', point], states[state]!);
    expectState(join(folder, file(11)), [], states[1]!);
  });

  it('opens what a user names: archives, members, images, snapshots inside them, devices', () => {
    const ova = join(repository('ova').folder, 'shop.ova');
    const qcow2 = join(repository('qcow2 with snapshots, without XML').folder, 'kvm03.qcow2');
    const before = [fingerprint(repository('ova').folder), fingerprint(join(qcow2, '..'))];
    const named: [string, readonly string[], number][] = [
      [ova, [], 0],
      [join(ova, 'shop-disk1.vmdk'), [], 0],
      [join(repository('ova, compressed, SHA-1').folder, 'shop-gz.ova.gz', 'shop-gz-disk1.vmdk'), [], 0],
      [join(repository('xva').folder, 'xen01.xva'), ['--point', 'Before the update'], 1],
      [join(repository('xva').folder, 'xen01.xva', 'Ref:13'), [], 2],
      [qcow2, [], 2],
      [qcow2, ['--point', 'monday'], 0],
      [qcow2, ['--vm', 'kvm03', '--point', '2'], 1],
      [join(qcow2, '@1'), [], 0],
      [join(repository('compressed raw').folder, 'packed.raw.gz'), [], 0],
      [join(repository('split raw').folder, 'parts.001'), [], 0],
      [join(repository('a Parallels disk').folder, 'mac.hdd'), [], 0],
      [join(repository('qcow2 on a raw base').folder, 'loose-1.qcow2'), [], 1],
    ];
    for (const [source, options, state] of named) {
      const hash = chainlift('hash', source, ...options);
      expect([source, hash.stdout.slice(0, 64)], hash.stderr).toEqual([source, states[state]!.sha256]);
    }
    // The image with the snapshots inside it; and one of them.
    const disks = (...args: string[]): number =>
      parsed<{ disksChecked: number }>(chainlift('verify', '--json', ...args)).disksChecked;
    expect([disks(qcow2), disks(qcow2, '--point', 'monday'), disks(join(qcow2, '@2'))]).toEqual([3, 1, 1]);
    expect([fingerprint(repository('ova').folder), fingerprint(join(qcow2, '..'))]).toEqual(before);
  });

  it('says in words and by its exit code what a user got wrong', () => {
    const ova = join(repository('ova').folder, 'shop.ova');
    const qcow2 = join(repository('qcow2 with snapshots, without XML').folder, 'kvm03.qcow2');
    const hyperv = repository('hyper-v').folder;
    const config = readdirSync(join(hyperv, 'Virtual Machines'))[0]!;
    const wrong: [readonly string[], number, RegExp][] = [
      [
        ['ls', join(ova, 'disk9.vmdk'), '/'],
        1,
        /not-found: "disk9.vmdk" in shop.ova not found; there is: .*shop-disk1/,
      ],
      [['ls', join(scratch.path, 'nothing'), '/'], 1, /not-found: .*nothing" not found/],
      [['ls', join(states[0]!.raw, 'disk.vmdk'), '/'], 1, /not-found: /],
      [
        ['ls', qcow2, '--point', 'sunday', '/'],
        1,
        /not-found: Point "sunday".*there is: 1 \(monday\), 2 \(before-update\)/,
      ],
      [['ls', join(qcow2, '@9'), '/'], 1, /not-found: Point "9".*monday/],
      [['ls', join(repository('vmware').folder, 'esx01.vmx'), '/'], 2, /usage: esx01.vmx describes .*open its folder/],
      [['scan', join(hyperv, 'Virtual Machines', config)], 2, new RegExp(`open its folder, ${hyperv}$`, 'm')],
      [['hash', repository('vmware').folder], 2, /usage: VM "esx01" has several points.*1 \(Monday\)/],
      [['hash', repository('vmware').folder, '--point', 'x'], 1, /not-found: Point "x".*2 \(Before the update\)/],
      [['ls', ova, '/sda7'], 1, /not-found: Volume "sda7" not found; there is: sda1/],
    ];
    for (const [args, code, message] of wrong) {
      const result = chainlift(...args);
      expect([args, result.code]).toEqual([args, code]);
      expect(result.stderr).toMatch(message);
      expect(result.stdout).toBe('');
    }
  });

  describe('all of them in one folder, with what else lies in one', () => {
    it('every VM is found once, and strays are orphans', () => {
      for (const name of Object.keys(WRITERS)) repository(name);
      const big = join(scratch.path, 'all');
      cpSync(join(scratch.path, 'repositories'), big, { recursive: true });
      rmSync(join(big, 'storage repository'), { recursive: true, force: true });
      const stray = (from: string, to: string): void => cpSync(join(big, from), join(big, to));
      stray('vmware/esx01-000002.vmdk', 'vmware/esx01-000007.vmdk');
      stray('hyper-v/Virtual Hard Disks/hv01.vhdx', 'hyper-v/Virtual Hard Disks/forgotten.vhdx');
      stray('qcow2 on a raw base/loose.raw', 'virtualbox/before.raw');
      writeFileSync(join(big, 'README.txt'), 'backups of the shop');
      const report = scan(big);
      const expected = [...written.values()].map(({ vm, origin }) => [vm, origin]);
      expect(report.vms.map((vm) => [vm.name, vm.origin]).sort()).toEqual(expected.sort());
      expect(report.orphans.map(({ file }) => file).sort()).toEqual([
        'hyper-v/Virtual Hard Disks/forgotten.vhdx',
        'virtualbox/before.raw',
        'vmware/esx01-000007.vmdk',
      ]);
      expect(loud(allFindings(report))).toEqual([]);
      for (const repo of written.values()) expectPoints(report.vms.find(({ name }) => name === repo.vm)!, repo);
      expect(damage(big)).toEqual({ code: 0, codes: [] });
      const { point, state } = repository('hyper-v').points[1]!;
      expect(chainlift('hash', big, '--vm', 'hv01', '--point', point).stdout.slice(0, 64)).toBe(states[state]!.sha256);
      rmSync(big, { recursive: true });
    });
  });

  describe('what is broken', () => {
    let number = 0;
    /** A copy of a repository to break. */
    function broken(name: string, change: (folder: string) => void): string {
      const folder = join(scratch.path, `broken-${number++}`);
      cpSync(repository(name).folder, folder, { recursive: true });
      change(folder);
      return folder;
    }
    const cut = (folder: string, file: string, bytes: number): void => {
      const path = join(folder, file);
      truncateSync(path, statSync(path).size - bytes);
    };
    const flip = (folder: string, file: string, position: number): void => {
      const path = join(folder, file);
      const bytes = readFileSync(path);
      bytes[position]! ^= 1;
      writeFileSync(path, bytes);
    };
    const changedManifest = (folder: string): void =>
      flip(folder, 'shop-folder.mf', readFileSync(join(folder, 'shop-folder.mf')).indexOf('= ') + 2);
    const only = (folder: string, ending: RegExp): string =>
      readdirSync(folder, { recursive: true, encoding: 'utf8' }).find((name) => ending.test(name))!;

    /** What is broken, how, what `verify` calls it, and which points are what they were. */
    it.each<[string, string, (folder: string) => void, string[], number[]]>([
      ['vmware', 'no link', (f) => rmSync(join(f, 'esx01-000001.vmdk')), ['disk-missing', 'missing-parent'], [0]],
      ['vmware', 'leaf cut off', (f) => cut(f, 'esx01-000002.vmdk', 100_000), ['grain-out-of-file'], [0, 1]],
      ['ova', 'changed byte', (f) => flip(f, 'shop.ova', 2_000_000), ['manifest-mismatch'], []],
      ['ova', 'cut off', (f) => cut(f, 'shop.ova', 900_000), ['archive-member-cut-off'], []],
      ['ova, compressed, SHA-1', 'cut off', (f) => cut(f, 'shop-gz.ova.gz', 900_000), ['archive-unreadable'], []],
      ['ovf package in a folder', 'changed manifest', changedManifest, ['manifest-mismatch'], [0]],
      ['xva', 'changed chunk', (f) => flip(f, 'xen01.xva', 5_000_000), ['xva-checksum-mismatch'], [1, 3]],
      ['xva', 'cut off', (f) => cut(f, 'xen01.xva', 5_000_000), ['archive-member-cut-off'], [0, 2]],
      [
        'storage repository with metadata',
        'no node',
        (f) => rmSync(join(f, `${vdiUuid(2)}.vhd`)),
        ['missing-parent'],
        [0],
      ],
      ['hyper-v', 'no AVHDX', (f) => rmSync(join(f, only(f, /001\.avhdx$/))), ['missing-parent'], [0]],
      ['libvirt, external snapshots', 'no overlay', (f) => rmSync(join(f, 'kvm02.monday')), ['missing-parent'], [0]],
      ['libvirt, internal snapshots', 'cut off', (f) => cut(f, 'kvm01.qcow2', 300_000), [], [0]],
      ['virtualbox', 'no base', (f) => rmSync(join(f, 'box01.vdi')), ['missing-parent'], []],
      ['split raw', 'no part', (f) => rmSync(join(f, 'parts.002')), ['layer-damaged'], []],
      ['compressed raw', 'cut off', (f) => cut(f, 'packed.raw.gz', 90_000), ['archive-unreadable'], []],
    ])('%s, %s: verify fails and says why, and intact points stay intact', (name, _what, change, codes, intact) => {
      const folder = broken(name, change);
      const before = fingerprint(folder);
      const result = damage(folder);
      expect(result.code).toBe(1);
      expect(result.codes).toEqual(expect.arrayContaining(codes));
      for (const index of intact) {
        const { point, state } = repository(name).points[index]!;
        const hash = chainlift('hash', folder, '--point', point);
        expect(hash.stdout.slice(0, 64), hash.stderr).toBe(states[state]!.sha256);
      }
      const text = chainlift('verify', folder);
      expect([text.code, text.stdout]).toEqual([1, expect.stringMatching(/^damaged: .*\n[\s\S]*finding/)]);
      expect(fingerprint(folder)).toEqual(before);
    });

    it('a moved parent is located, and its identity checked', () => {
      const elsewhere = join(scratch.path, 'elsewhere');
      mkdirSync(elsewhere);
      const folder = broken('vmware', (f) => renameSync(join(f, 'esx01-000001.vmdk'), join(elsewhere, 'moved.vmdk')));
      const config = { CHAINLIFT_CONFIG: join(scratch.path, 'config') };
      const other = chainliftWith(config, 'locate', folder, 'esx01-000002.vmdk', join(folder, 'esx01.vmdk'));
      expect([other.code, other.stderr]).toEqual([1, expect.stringMatching(/missing-parent: .*content id/)]);
      const located = chainliftWith(config, 'locate', folder, 'esx01-000002.vmdk', join(elsewhere, 'moved.vmdk'));
      expect([located.code, located.stdout]).toEqual([0, expect.stringContaining('it has the identity')]);
      const hash = chainliftWith(config, 'hash', folder, '--point', 'current');
      expect(hash.stdout.slice(0, 64), hash.stderr).toBe(states[2]!.sha256);
    });
  });
});

describePeers('a block device', { peers: ['losetup', ...PEERS], reasons: [missingLoopMounts()] }, () => {
  it('is opened directly', () => {
    const { raw, sha256 } = states[0]!;
    const device = run('losetup', ['--find', '--show', '--read-only', raw]).trim();
    try {
      expect(existsSync(device)).toBe(true);
      expect(scan(device).vms[0]!.points).toHaveLength(1);
      expect(chainlift('hash', device).stdout.slice(0, 64)).toBe(sha256);
      expectLists(device, [], states[0]!);
      expect(chainlift('verify', device).code).toBe(0);
    } finally {
      run('losetup', ['--detach', device]);
    }
  });
});

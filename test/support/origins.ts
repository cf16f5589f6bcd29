/**
 * One repository for each origin of a backup, all of the same guest (guest-states.ts). Real programs write what they can (qemu-img,
 * qemu-io, QEMU's savevm, tar, gzip, split); the builders write what no program here can.
 */
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { changedUnits, DISK, MIB, put, type Repository, type State, writeDifference } from './guest-states.ts';
import { buildStore, configTree, guidOf, layerName } from './hyperv-builder.ts';
import { writeDomain, writeSnapshot } from './libvirt-builder.ts';
import { manifestOf, ovfDescriptor } from './ova-builder.ts';
import { diskDescriptor, TOP, writeHdd } from './parallels-builder.ts';
import { run } from './peers.ts';
import { uuidOf, type Block as VdiBlock, writeVdi } from './vdi-builder.ts';
import { SECTOR } from './vhd-builder.ts';
import { buildVhdx, parentLocator } from './vhdx-builder.ts';
import { type SnapshotParts, savedState, vboxText } from './virtualbox-folder.ts';

/** An OVA: qemu-img's stream-optimized disk, a manifest over all of it, put together by tar. */
export function writeOva(folder: string, name: string, state: State, algorithm = 'SHA256'): Repository {
  const parts = `${folder}.parts`;
  mkdirSync(folder, { recursive: true });
  writeOvfFolder(parts, name, state, algorithm);
  const members = [`${name}.ovf`, `${name}.mf`, `${name}-disk1.vmdk`];
  run('tar', ['--format=ustar', '-C', parts, '-cf', join(folder, `${name}.ova`), ...members]);
  rmSync(parts, { recursive: true });
  return { folder, vm: name, origin: 'ovf', points: [{ point: 'exported', state: 0 }] };
}

/** The same package as files of a folder. */
export function writeOvfFolder(folder: string, name: string, state: State, algorithm = 'SHA256'): void {
  mkdirSync(folder, { recursive: true });
  const disk = join(folder, `${name}-disk1.vmdk`);
  run('qemu-img', ['convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized', '-f', 'raw', state.raw, disk]);
  const bytes = readFileSync(disk);
  const disks = [{ name: basename(disk), bytes, capacity: DISK }];
  const descriptor = { name: `${name}.ovf`, bytes: Buffer.from(ovfDescriptor(name, disks)) };
  writeFileSync(join(folder, descriptor.name), descriptor.bytes);
  writeFileSync(join(folder, `${name}.mf`), manifestOf([descriptor, ...disks], algorithm));
}

/** Compresses a file with gzip, in place. */
export function gzip(path: string): string {
  run('gzip', ['-n', path]);
  return `${path}.gz`;
}

/** A Hyper-V export: configuration, two checkpoints, and a chain of VHDX and AVHDX. */
export function writeHyperV(folder: string, name: string, states: readonly State[]): Repository {
  const disks = join(folder, 'Virtual Hard Disks');
  const linkage = (n: number): string => `99999999-0000-4000-8000-${String(n).padStart(12, '0')}`;
  const content = states.map(({ raw }) => readFileSync(raw));
  for (const [n, after] of content.entries()) {
    const units = changedUnits(content[n - 1], after, n === 0 ? MIB : SECTOR);
    const blocks = new Map<number, Buffer | Map<number, Buffer>>();
    for (const [unit, bytes] of units) {
      if (n === 0) {
        blocks.set(unit, bytes);
        continue;
      }
      const block = Math.floor(unit / (MIB / SECTOR));
      const sectors = (blocks.get(block) as Map<number, Buffer> | undefined) ?? new Map<number, Buffer>();
      blocks.set(block, sectors.set(unit % (MIB / SECTOR), bytes));
    }
    const { bytes } = buildVhdx({
      virtualSize: DISK,
      blocks,
      dataWriteGuid: linkage(n),
      ...(n === 0 ? {} : { parent: parentLocator(layerName(name, n - 1), linkage(n - 1)) }),
    });
    put(join(disks, layerName(name, n)), bytes);
  }
  const host = `D:\\Hyper-V\\${name}\\Virtual Hard Disks\\`;
  const machine = guidOf(100);
  const list = [guidOf(201), guidOf(202)];
  const config = (place: string, id: string, parts: object): void =>
    put(join(folder, place, `${id}.vmcx`), buildStore(configTree({ name, id, disks: [], ...parts })).bytes);
  config('Virtual Machines', machine, { disks: [host + layerName(name, 2)], list, parent: list[1] });
  for (const [n, id] of list.entries()) {
    config('Snapshots', id, {
      name: ['Monday', 'Before the update'][n],
      created: new Date(Date.UTC(2026, 2, 2 + n, 3)),
      disks: [host + layerName(name, n)],
      vm: machine,
      kind: 'Snapshots',
      ...(n === 0 ? {} : { parent: list[n - 1] }),
    });
  }
  const points = [
    { point: 'Monday', state: 0 },
    { point: 'Before the update', state: 1 },
    { point: 'current', state: 2 },
  ];
  return { folder, vm: name, origin: 'hyper-v', points };
}

const LIBVIRT = '/var/lib/libvirt/images';

/** A QCOW2 with internal snapshots (the second with the VM's memory, by QEMU's own savevm where `memory` says so), and its XML. */
export function writeInternalSnapshots(
  folder: string,
  name: string,
  states: readonly State[],
  options: { readonly xml: boolean; readonly memory?: boolean },
): Repository {
  mkdirSync(folder, { recursive: true });
  const image = join(folder, `${name}.qcow2`);
  run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', states[0]!.raw, image]);
  run('qemu-img', ['snapshot', '-c', 'monday', image]);
  writeDifference(['-f', 'qcow2', image], states[0]!, states[1]!);
  if (options.memory) saveVm(image, 'before-update');
  else run('qemu-img', ['snapshot', '-c', 'before-update', image]);
  writeDifference(['-f', 'qcow2', image], states[1]!, states[2]!);
  const disks = [{ node: 'vda', file: `${LIBVIRT}/${name}.qcow2` }];
  if (options.xml) {
    writeDomain(join(folder, `${name}.xml`), { name, disks });
    const kept = [{ node: 'vda', kept: 'internal' }];
    const snapshots = join(folder, 'snapshot', name);
    writeSnapshot(snapshots, { name: 'monday', created: 1_772_420_400, disks: kept, domain: { name, disks } });
    writeSnapshot(snapshots, {
      name: 'before-update',
      parent: 'monday',
      created: 1_772_506_800,
      disks: kept,
      domain: { name, disks },
      active: true,
      ...(options.memory ? { state: 'running', memory: "<memory snapshot='internal'/>" } : {}),
    });
  }
  const points = [
    { point: 'monday', state: 0 },
    { point: 'before-update', state: 1, ...(options.memory ? { memory: true } : {}) },
    { point: options.xml ? 'current' : name, state: 2 },
  ];
  return { folder, vm: name, origin: options.xml ? 'libvirt' : 'images', points };
}

/** A snapshot with memory, by QEMU's own `savevm`: a machine without a processor's work to do. */
export function saveVm(image: string, tag: string): void {
  // In its folder: commas in a path mean something to QEMU.
  const drive = ['-drive', `file=${basename(image)},format=qcow2,if=virtio`];
  const machine = ['-M', 'pc,accel=tcg', '-m', '16', '-nodefaults', '-display', 'none', '-S', '-monitor', 'stdio'];
  const options = { input: `savevm ${tag}\nquit\n`, cwd: dirname(image) };
  const said = run('qemu-system-x86_64', [...machine, ...drive], options);
  if (/Error/.test(said)) throw new Error(said);
}

/** External snapshots: `name.qcow2`, `name.monday`, `name.before-update`, and the XML that says what is what. */
export function writeExternalSnapshots(folder: string, name: string, states: readonly State[]): Repository {
  mkdirSync(folder, { recursive: true });
  const files = [`${name}.qcow2`, `${name}.monday`, `${name}.before-update`];
  run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', states[0]!.raw, files[0]!], { cwd: folder });
  for (const at of [1, 2]) {
    run(
      'qemu-img',
      [
        'create',
        '-q',
        '-f',
        'qcow2',
        '-b',
        `${LIBVIRT}/${files[at - 1]}`,
        '-u',
        '-F',
        'qcow2',
        files[at]!,
        String(DISK),
      ],
      { cwd: folder },
    );
    // QEMU would look for the recorded place: the chain is put together for it by hand.
    const over = `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename: join(folder, files[at]!) }, backing: backing(at - 1) })}`;
    writeDifference([over], states[at - 1]!, states[at]!);
  }
  function backing(at: number): object {
    const file = { driver: 'file', filename: join(folder, files[at]!) };
    return { driver: 'qcow2', file, backing: at === 0 ? null : backing(at - 1) };
  }
  const disks = (at: number) => [{ node: 'vda', file: `${LIBVIRT}/${files[at]}` }];
  writeDomain(join(folder, `${name}.xml`), { name, disks: disks(2) });
  const snapshots = join(folder, 'snapshot', name);
  for (const [at, tag] of ['monday', 'before-update'].entries()) {
    writeSnapshot(snapshots, {
      name: tag,
      created: 1_772_420_400 + at * 86_400,
      state: 'disk-snapshot',
      disks: [{ node: 'vda', kept: 'external', overlay: `${LIBVIRT}/${files[at + 1]}` }],
      domain: { name, disks: disks(at) },
      ...(at === 0 ? {} : { parent: 'monday', active: true }),
    });
  }
  const points = [
    { point: 'monday', state: 0 },
    { point: 'before-update', state: 1 },
    { point: 'current', state: 2 },
  ];
  return { folder, vm: name, origin: 'libvirt', points };
}

/** A VirtualBox VM: differencing images and a saved state in `Snapshots`. */
export function writeVirtualBox(folder: string, name: string, states: readonly State[]): Repository {
  mkdirSync(join(folder, 'Snapshots'), { recursive: true });
  const content = states.map(({ raw }) => readFileSync(raw));
  const uuid = (n: number): string => uuidOf(0x700 + n);
  const location = (n: number): string => (n === 0 ? `${name}.vdi` : `Snapshots/{${uuid(n)}}.vdi`);
  for (const [n, after] of content.entries()) {
    writeVdi(folder, location(n), {
      size: DISK,
      blocks: changedUnits(content[n - 1], after, MIB) as Map<number, VdiBlock>,
      uuid: uuid(n),
      modification: uuidOf(0x780 + n),
      ...(n === 0 ? {} : { parent: uuid(n - 1), parentModification: uuidOf(0x77f + n) }),
    });
  }
  const attached = (n: number) => [{ controller: 'SATA', uuid: uuid(n) }];
  const snapshot = (n: number, label: string, parts: Partial<SnapshotParts> = {}): SnapshotParts => ({
    uuid: uuidOf(0x7a0 + n),
    name: label,
    timeStamp: `2026-03-0${2 + n}T03:00:00Z`,
    disks: attached(n),
    ...parts,
  });
  const saved = 'Snapshots/2026-03-03T03-00-00-000000000Z.sav';
  put(join(folder, saved), savedState());
  const vbox = vboxText({
    name,
    media: [
      {
        uuid: uuid(0),
        location: location(0),
        children: [{ uuid: uuid(1), location: location(1), children: [{ uuid: uuid(2), location: location(2) }] }],
      },
    ],
    snapshots: [snapshot(0, 'Monday', { children: [snapshot(1, 'Before the update', { stateFile: saved })] })],
    attributes: { currentSnapshot: `{${uuidOf(0x7a1)}}` },
    disks: attached(2),
  });
  put(join(folder, `${name}.vbox`), vbox);
  const points = [
    { point: 'Monday', state: 0 },
    { point: 'Before the update', state: 1, memory: true },
    { point: 'current', state: 2 },
  ];
  return { folder, vm: name, origin: 'virtualbox', points };
}

/** QCOW2 overlays on a base that is raw, without any XML. */
export function writeRawBase(folder: string, name: string, states: readonly State[]): Repository {
  mkdirSync(folder, { recursive: true });
  copyFileSync(states[0]!.raw, join(folder, `${name}.raw`));
  for (const [at, file] of [`${name}-1.qcow2`, `${name}-2.qcow2`].entries()) {
    const below = at === 0 ? [`${name}.raw`, 'raw'] : [`${name}-1.qcow2`, 'qcow2'];
    run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', below[0]!, '-F', below[1]!, file], { cwd: folder });
    writeDifference(['-f', 'qcow2', file], states[at]!, states[at + 1]!, folder);
  }
  const points = [
    { point: name, state: 0 },
    { point: `${name}-1`, state: 1 },
    { point: `${name}-2`, state: 2 },
  ];
  return { folder, vm: name, origin: 'images', points };
}

/** A lone image that qemu-img writes. */
export function writeLone(folder: string, file: string, format: string, state: State, options?: string): Repository {
  mkdirSync(folder, { recursive: true });
  const more = options === undefined ? [] : ['-o', options];
  run('qemu-img', ['convert', '-f', 'raw', '-O', format, ...more, state.raw, join(folder, file)]);
  const name = file.replace(/\.[^.]+$/, '');
  return { folder, vm: name, origin: 'images', points: [{ point: name, state: 0 }] };
}

/** A raw disk in parts, by split. */
export function writeSplitRaw(folder: string, name: string, state: State): Repository {
  mkdirSync(folder, { recursive: true });
  run('split', ['-b', '7M', '-d', '-a', '3', '--numeric-suffixes=1', state.raw, join(folder, `${name}.`)]);
  return { folder, vm: name, origin: 'images', points: [{ point: `${name}.001`, state: 0 }] };
}

/** A raw disk compressed by gzip. */
export function writeRawGz(folder: string, name: string, state: State): Repository {
  mkdirSync(folder, { recursive: true });
  copyFileSync(state.raw, join(folder, `${name}.raw`));
  gzip(join(folder, `${name}.raw`));
  return { folder, vm: name, origin: 'images', points: [{ point: name, state: 0 }] };
}

/** A Parallels disk, a folder with a descriptor and qemu-img's image. */
export function writeParallels(folder: string, name: string, state: State): Repository {
  mkdirSync(folder, { recursive: true });
  const file = `${name}.hdd.0.{${TOP}}.hds`;
  const made = join(dirname(state.raw), 'parallels');
  run('qemu-img', ['convert', '-f', 'raw', '-O', 'parallels', state.raw, made]);
  const sectors = DISK / SECTOR;
  const images = [{ guid: TOP, type: 'Compressed' as const, file }];
  writeHdd(folder, name, diskDescriptor({ name, sectors, storages: [{ start: 0, end: sectors, images }], top: TOP }), {
    [file]: readFileSync(made),
  });
  return { folder, vm: name, origin: 'images', points: [{ point: name, state: 0 }] };
}

/** A VMware VM with two snapshots: sparse links of qemu-img on its base. */
export function writeVmware(folder: string, name: string, states: readonly State[]): Repository {
  mkdirSync(folder, { recursive: true });
  const files = [`${name}.vmdk`, `${name}-000001.vmdk`, `${name}-000002.vmdk`];
  run('qemu-img', ['convert', '-f', 'raw', '-O', 'vmdk', states[0]!.raw, join(folder, files[0]!)]);
  for (const at of [1, 2]) {
    run('qemu-img', ['create', '-q', '-f', 'vmdk', '-b', files[at - 1]!, '-F', 'vmdk', files[at]!], { cwd: folder });
    writeDifference(['-f', 'vmdk', files[at]!], states[at - 1]!, states[at]!, folder);
  }
  put(
    join(folder, `${name}.vmx`),
    `.encoding = "UTF-8"\ndisplayName = "${name}"\nguestOS = "debian12-64"\nnumvcpus = "2"\nmemSize = "2048"\nscsi0.present = "TRUE"\nscsi0.virtualDev = "pvscsi"\nscsi0:0.present = "TRUE"\nscsi0:0.fileName = "${files[2]}"\n`,
  );
  const shots = ['Monday', 'Before the update'].flatMap((label, at) => [
    `snapshot${at}.uid = "${at + 1}"`,
    ...(at === 0 ? [] : [`snapshot${at}.parent = "${at}"`]),
    `snapshot${at}.displayName = "${label}"`,
    `snapshot${at}.createTimeHigh = "${Math.floor((1_772_420_400_000_000 + at * 86_400_000_000) / 2 ** 32)}"`,
    `snapshot${at}.createTimeLow = "${((1_772_420_400_000_000 + at * 86_400_000_000) % 2 ** 32) | 0}"`,
    `snapshot${at}.numDisks = "1"`,
    `snapshot${at}.disk0.fileName = "${files[at]}"`,
    `snapshot${at}.disk0.node = "scsi0:0"`,
  ]);
  put(
    join(folder, `${name}.vmsd`),
    `.encoding = "UTF-8"\nsnapshot.lastUID = "2"\nsnapshot.current = "2"\nsnapshot.numSnapshots = "2"\n${shots.join('\n')}\n`,
  );
  const points = [
    { point: 'Monday', state: 0 },
    { point: 'Before the update', state: 1 },
    { point: 'current', state: 2 },
  ];
  return { folder, vm: name, origin: 'vmware', points };
}

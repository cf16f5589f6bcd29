/** Writes VMware VM folders for tests: .vmx, .vmsd, .vmsn and small chains of disks, as ESXi lays them out. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { descriptorText, pattern, SECTOR, writeCowdDisk } from './vmdk-builder.ts';

/** 64 KiB: as small as a disk may be and still have more than one grain. */
export const DISK_SECTORS = 128;

export interface SnapshotParts {
  uid: number | string;
  parent?: number | string;
  name?: string;
  description?: string;
  created?: Date;
  stateFile?: string;
  type?: number;
  /** [node, recorded file name] */
  disks: readonly (readonly [string, string])[];
  /** Further lines, `key = value` below `snapshotN.`. */
  more?: Readonly<Record<string, string>>;
}

export interface VmsdParts {
  snapshots: readonly SnapshotParts[];
  current?: number | string;
  numSnapshots?: number;
  needConsolidate?: boolean;
}

const line = (key: string, value: string | number): string => `${key} = "${String(value).replaceAll('"', '|22')}"`;

/** The two halves of a time as .vmsd has them, the low one signed. */
export function timeHalves(time: Date): { high: number; low: number } {
  const microseconds = BigInt(time.getTime()) * 1000n;
  return { high: Number(microseconds >> 32n), low: Number(BigInt.asIntN(32, microseconds)) };
}

export function vmsdText(parts: VmsdParts): string {
  const lines = ['.encoding = "UTF-8"', line('snapshot.lastUID', parts.snapshots.length)];
  if (parts.current !== undefined) lines.push(line('snapshot.current', parts.current));
  if (parts.needConsolidate) lines.push(line('snapshot.needConsolidate', 'TRUE'));
  for (const [index, snapshot] of parts.snapshots.entries()) {
    const key = (name: string) => `snapshot${index}.${name}`;
    lines.push(line(key('uid'), snapshot.uid));
    if (snapshot.parent !== undefined) lines.push(line(key('parent'), snapshot.parent));
    if (snapshot.name !== undefined) lines.push(line(key('displayName'), snapshot.name));
    if (snapshot.description !== undefined) lines.push(line(key('description'), snapshot.description));
    if (snapshot.stateFile !== undefined) lines.push(line(key('filename'), snapshot.stateFile));
    if (snapshot.type !== undefined) lines.push(line(key('type'), snapshot.type));
    if (snapshot.created !== undefined) {
      const { high, low } = timeHalves(snapshot.created);
      lines.push(line(key('createTimeHigh'), high), line(key('createTimeLow'), low));
    }
    lines.push(line(key('numDisks'), snapshot.disks.length));
    for (const [disk, [node, file]] of snapshot.disks.entries()) {
      lines.push(line(key(`disk${disk}.fileName`), file), line(key(`disk${disk}.node`), node));
    }
    for (const [name, value] of Object.entries(snapshot.more ?? {})) lines.push(line(key(name), value));
  }
  lines.push(line('snapshot.numSnapshots', parts.numSnapshots ?? parts.snapshots.length));
  return `${lines.join('\n')}\n`;
}

export interface VmxParts {
  name?: string;
  disks: readonly (readonly [string, string])[];
  more?: Readonly<Record<string, string>>;
}

export function vmxText(parts: VmxParts): string {
  const lines = ['.encoding = "UTF-8"', line('config.version', 8), line('virtualHW.version', 20)];
  if (parts.name !== undefined) lines.push(line('displayName', parts.name));
  lines.push(line('guestOS', 'debian12-64'), line('numvcpus', 2), line('memSize', 2048), line('firmware', 'efi'));
  for (const [node, file] of parts.disks) {
    lines.push(
      line(`${node}.fileName`, file),
      line(`${node}.deviceType`, 'scsi-hardDisk'),
      line(`${node}.present`, 'TRUE'),
    );
  }
  for (const [key, value] of Object.entries(parts.more ?? {})) lines.push(line(key, value));
  return `${lines.join('\n')}\n`;
}

/** Writes `NAME.vmdk` and `NAME-flat.vmdk`: a base as ESXi makes it. */
export function writeFlatBase(folder: string, name: string, cid = '10000000', sectors = DISK_SECTORS): void {
  writeFileSync(join(folder, `${name}-flat.vmdk`), pattern(0, sectors * SECTOR));
  const text = descriptorText({ createType: 'vmfs', cid, extents: [`RW ${sectors} VMFS "${name}-flat.vmdk"`] });
  writeFileSync(join(folder, `${name}.vmdk`), text);
}

/** Writes `NAME.vmdk` and `NAME-delta.vmdk`, one changed sector on `parent`. */
export function writeDelta(
  folder: string,
  name: string,
  parent: { hint: string; cid: string },
  cid: string,
  options: { sectors?: number; grain?: number } = {},
): void {
  const grain = options.grain ?? 0;
  writeCowdDisk(
    folder,
    name,
    {
      capacitySectors: options.sectors ?? DISK_SECTORS,
      grains: new Map([[grain, pattern(grain * SECTOR, SECTOR, 7)]]),
    },
    { cid, parentCid: parent.cid, parentFileNameHint: parent.hint },
  );
}

/** Content id number `n`, as descriptors write it. */
export const contentId = (n: number): string => (0x10000000 + n).toString(16);

/** File name (without folder) of layer `n` of a linear chain: the base, then `-000001`... */
export const layerName = (name: string, n: number): string =>
  n === 0 ? name : `${name}-${String(n).padStart(6, '0')}`;

/** Writes a base and `deltas` links on it. */
export function writeDiskChain(folder: string, name: string, deltas: number): void {
  writeFlatBase(folder, name, contentId(0));
  for (let n = 1; n <= deltas; n++) {
    const parent = { hint: `${layerName(name, n - 1)}.vmdk`, cid: contentId(n - 1) };
    writeDelta(folder, layerName(name, n), parent, contentId(n), { grain: n % DISK_SECTORS });
  }
}

export interface LinearVm {
  name: string;
  /** Snapshots; the present state is one layer more. */
  snapshots: number;
  /** Nodes; the first disk is called as the VM, the others `NAME_1`... */
  nodes?: readonly string[];
  vmx?: Readonly<Record<string, string>>;
  vmsd?: Partial<VmsdParts>;
  /** When the first snapshot was taken; each further one an hour later. */
  first?: Date;
}

/** Writes a VM with a linear history, in a folder of its own below `root`; gives that folder. */
export function writeLinearVm(root: string, vm: LinearVm, folderName = vm.name): string {
  const folder = join(root, folderName);
  mkdirSync(folder, { recursive: true });
  const nodes = vm.nodes ?? ['scsi0:0'];
  const first = vm.first ?? new Date('2024-03-01T10:00:00.123Z');
  const diskName = (index: number) => (index === 0 ? vm.name : `${vm.name}_${index}`);
  for (const index of nodes.keys()) writeDiskChain(folder, diskName(index), vm.snapshots);
  const disks = (layer: number) =>
    nodes.map((node, index) => [node, `${layerName(diskName(index), layer)}.vmdk`] as const);
  const snapshots = Array.from({ length: vm.snapshots }, (_, index) => ({
    uid: index + 1,
    ...(index === 0 ? {} : { parent: index }),
    name: `snap ${index + 1}`,
    created: new Date(first.getTime() + index * 3_600_000),
    disks: disks(index),
  }));
  writeFileSync(
    join(folder, `${vm.name}.vmx`),
    vmxText({ name: vm.name, disks: disks(vm.snapshots), ...(vm.vmx === undefined ? {} : { more: vm.vmx }) }),
  );
  const listing = { snapshots, current: vm.snapshots, ...vm.vmsd };
  writeFileSync(join(folder, `${vm.name}.vmsd`), vm.snapshots === 0 && vm.vmsd === undefined ? '' : vmsdText(listing));
  return folder;
}

/** A .vmsn: header, groups, and the tags of the group `memory`, with or without the memory itself. */
export function stateFile(options: { memory?: Buffer; magic?: number; groups?: readonly string[] } = {}): Buffer {
  const groups = options.groups ?? ['Snapshot', 'memory', 'cpu'];
  const tags = [tag('regionsCount', Buffer.alloc(4))];
  if (options.memory !== undefined) tags.push(block('Memory', options.memory));
  const memory = Buffer.concat([...tags, Buffer.alloc(2)]);
  const start = 12 + groups.length * 80;
  const header = Buffer.alloc(start);
  header.writeUInt32LE(options.magic ?? 0xbed2bed2, 0);
  header.writeUInt32LE(8, 4);
  header.writeUInt32LE(groups.length, 8);
  const bodies: Buffer[] = [];
  let at = start;
  for (const [index, name] of groups.entries()) {
    const body = name === 'memory' ? memory : Buffer.alloc(2);
    header.write(name, 12 + index * 80, 'latin1');
    header.writeBigUInt64LE(BigInt(at), 12 + index * 80 + 64);
    header.writeBigUInt64LE(BigInt(body.length), 12 + index * 80 + 72);
    bodies.push(body);
    at += body.length;
  }
  return Buffer.concat([header, ...bodies]);
}

function tag(name: string, value: Buffer): Buffer {
  return Buffer.concat([Buffer.from([value.length, name.length]), Buffer.from(name, 'latin1'), value]);
}

function block(name: string, content: Buffer): Buffer {
  const padding = 6;
  const head = Buffer.alloc(18);
  head.writeBigUInt64LE(BigInt(content.length), 0);
  head.writeBigUInt64LE(BigInt(content.length), 8);
  head.writeUInt16LE(padding, 16);
  return Buffer.concat([
    Buffer.from([0x3f, name.length]),
    Buffer.from(name, 'latin1'),
    head,
    Buffer.alloc(padding),
    content,
  ]);
}

/** XenServer's repositories, all of the guest of guest-states.ts: exports, and a storage repository of linked VHDs. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { changedUnits, DISK, type ExpectedPoint, MIB, put, type Repository, type State } from './guest-states.ts';
import { buildTar } from './tar-builder.ts';
import { buildVhd, SECTOR, windowsLocator } from './vhd-builder.ts';
import { buildXva, ovaXml, type RpcValue, vdiRecord, type XenRecordOf } from './xva-builder.ts';

const NONE = 'OpaqueRef:NULL';
type Fields = Readonly<Record<string, RpcValue>>;

function xenVm(id: string, name: string, fields: Fields = {}): XenRecordOf {
  const snapshot = {
    uuid: `5b9c2d14-0000-4000-8000-${id.replace(/\D/g, '').padStart(12, '0')}`,
    name_label: name,
    name_description: '',
    is_a_template: false,
    is_a_snapshot: false,
    is_control_domain: false,
    snapshot_of: NONE,
    parent: NONE,
    snapshot_time: new Date(0),
    snapshot_info: {},
    power_state: 'Halted',
    suspend_VDI: NONE,
    VCPUs_max: 2,
    memory_static_max: 2 ** 31,
    HVM_boot_params: { firmware: 'uefi' },
    guest_metrics: NONE,
    ...fields,
  };
  return { class: 'VM', id, snapshot };
}

/** Records of a VM with a crash-consistent, a quiesced and a memory snapshot. `disks`: VDI of each, and the VM's own last. */
function xenRecords(name: string, disks: readonly [string, string, string, string]): XenRecordOf[] {
  const snapshot = (id: string, label: string, day: number, fields: Fields): XenRecordOf =>
    xenVm(id, label, {
      is_a_snapshot: true,
      is_a_template: true,
      snapshot_of: 'Ref:1',
      snapshot_time: new Date(Date.UTC(2026, 2, day, 3)),
      ...fields,
    });
  const info = (kind: string) => ({ 'power-state-at-snapshot': 'Running', 'disk-snapshot-type': kind });
  const vms = [
    xenVm('Ref:1', name, { parent: 'Ref:4' }),
    snapshot('Ref:2', 'Monday night', 2, { snapshot_info: info('crash_consistent') }),
    snapshot('Ref:3', 'Before the update', 3, { parent: 'Ref:2', snapshot_info: info('quiesced') }),
    snapshot('Ref:4', 'Running, with memory', 4, {
      parent: 'Ref:3',
      power_state: 'Suspended',
      suspend_VDI: 'Ref:19',
      snapshot_info: info('crash_consistent'),
    }),
  ];
  const owners = ['Ref:2', 'Ref:3', 'Ref:4', 'Ref:1'];
  const vbds = disks.map((vdi, at): XenRecordOf => {
    const place = { userdevice: '0', device: 'xvda', type: 'Disk', empty: false };
    return { class: 'VBD', id: `Ref:${50 + at}`, snapshot: { VM: owners[at]!, VDI: vdi, ...place } };
  });
  const vif = { VM: 'Ref:1', device: '0', MAC: '0e:90:cf:00:11:22', network: 'Ref:80' };
  return [
    ...vms,
    ...vbds,
    { class: 'VIF', id: 'Ref:81', snapshot: vif },
    { class: 'network', id: 'Ref:80', snapshot: { name_label: 'Pool-wide network', bridge: 'xenbr0' } },
  ];
}

const XEN_POINTS: readonly ExpectedPoint[] = [
  { point: 'Monday night', state: 0 },
  { point: 'Before the update', state: 1, quiesced: true },
  { point: 'Running, with memory', state: 1, memory: true },
  { point: 'Exported state', state: 2 },
];

/** A XenServer export with three snapshots, each of whose disks is whole in it. */
export function writeXva(folder: string, name: string, states: readonly State[]): Repository {
  const content = states.map(({ raw }) => readFileSync(raw));
  const memory = Buffer.alloc(2 * MIB, 'memory of the guest ');
  const disks = [
    { id: 'Ref:10', content: content[0]! },
    { id: 'Ref:11', content: content[1]!, checksum: 'sha1' as const },
    { id: 'Ref:12', content: content[1]! },
    { id: 'Ref:13', content: content[2]!, checksum: 'sha1' as const },
    { id: 'Ref:19', content: memory },
  ];
  put(join(folder, `${name}.xva`), buildXva(disks, xenRecords(name, ['Ref:10', 'Ref:11', 'Ref:12', 'Ref:13'])));
  return { folder, vm: name, origin: 'xenserver', points: XEN_POINTS };
}

/** UUIDs of the VHDs of a storage repository. */
export const vdiUuid = (number: number): string => `6f0c1d2e-0000-4000-8000-${String(number).padStart(12, '0')}`;

/**
 * A folder as XenServer keeps a storage repository: `<uuid>.vhd`, linked by parent locators. A snapshot leaves a read-only node that
 * the snapshot's (empty) VHD and the VM's own both stand on.
 * @param metadata write the VM's export without disks beside them, that says which is whose.
 */
export function writeStorageRepository(
  folder: string,
  name: string,
  states: readonly State[],
  metadata: boolean,
): Repository {
  const content = states.map(({ raw }) => readFileSync(raw));
  const vhd = (number: number, parent: number | undefined, sectors: Map<number, Buffer>, hidden = false): void => {
    const id = vdiUuid(number);
    const link =
      parent === undefined
        ? undefined
        : {
            id: vdiUuid(parent),
            name: `${vdiUuid(parent)}.vhd`,
            locators: [
              { code: 'MacX', data: Buffer.from(`file://./${vdiUuid(parent)}.vhd`) },
              windowsLocator('W2ku', `${vdiUuid(parent)}.vhd`),
              windowsLocator('W2ru', `.\\${vdiUuid(parent)}.vhd`),
            ],
          };
    const options = { size: DISK, id, creator: 'tap\0', creatorVersion: 0x0001_0003, creatorHost: 0, batmap: true };
    const { bytes } = buildVhd({
      ...options,
      sectors,
      ...(hidden ? { hidden: 1 } : {}),
      ...(link === undefined ? {} : { parent: link }),
    });
    put(join(folder, `${id}.vhd`), bytes);
  };
  const nothing = new Map<number, Buffer>();
  // Nodes 1 and 2 are read-only; 10 and 11 are the snapshots on them, 20 is the VM's disk.
  vhd(1, undefined, changedUnits(undefined, content[0]!, SECTOR), true);
  vhd(2, 1, changedUnits(content[0], content[1]!, SECTOR), true);
  vhd(10, 1, nothing);
  vhd(11, 2, nothing);
  vhd(20, 2, changedUnits(content[1], content[2]!, SECTOR));
  if (!metadata) {
    const points = [
      { point: `${vdiUuid(10)}.vhd`, state: 0 },
      { point: `${vdiUuid(11)}.vhd`, state: 1 },
      { point: `${vdiUuid(20)}.vhd`, state: 2 },
    ];
    return { folder, vm: vdiUuid(1), origin: 'images', points };
  }
  const vdis = [10, 11, 11, 20].map((number, at) =>
    vdiRecord(`Ref:${10 + at}`, DISK, { uuid: vdiUuid(number), location: vdiUuid(number) }),
  );
  const records = xenRecords(name, ['Ref:10', 'Ref:11', 'Ref:12', 'Ref:13']);
  const xml = ovaXml([...records, ...vdis]);
  put(join(folder, `${name}.xva`), buildTar([{ name: 'ova.xml', content: Buffer.from(xml) }]));
  const points = XEN_POINTS.map(({ point, state, quiesced }) =>
    quiesced === undefined ? { point, state } : { point, state, quiesced },
  );
  return { folder, vm: name, origin: 'xenserver', points };
}

/**
 * What the configuration of a Hyper-V VM says: its name, what it is made of, its disks, and where a checkpoint stands among the
 * others. A checkpoint has a configuration of its own, which is the VM's as it was then: its disks are those that were frozen.
 *
 * Facts: the XML and .vmcx files of Fox-IT's test data; Microsoft's reference of the Hyper-V WMI provider (v2) for what the numbers
 * mean (Msvm_VirtualSystemSettingData: UserSnapshotType, VirtualSystemSubType); virtual devices by their class ids, as the manifest
 * in each file names them.
 */
import type { Finding } from '../../image/image.ts';
import { uuidIn } from '../../text.ts';
import type { NetworkAdapter } from '../model.ts';
import { oneLine } from '../text.ts';
import { at, type ConfigNode, flagAt, integerAt, textAt, valuesBelow } from './node.ts';

/** Class ids of devices, as in the manifest. */
const DEVICE = {
  ide: '83f8638b-8dca-4152-9eda-2ca8b33039b4',
  scsi: 'd422512d-2bf2-4752-809d-7b82b5fcb1b4',
  synthetic: '2fc216b0-d2e2-4967-9b6d-b8a5c9ca2778',
  firmware: 'ac6b8dc1-3257-4a70-b1b2-a9c9215659ad',
} as const;
/** `secure_boot_template_id` of the template for Linux and others; the other one known is that of Windows. */
const OPEN_SOURCE_TEMPLATE = '272e7447-90a4-4563-a4b9-8e4ab00526ce';
const MAX_DISKS = 512;

export interface HyperVDisk {
  /** `scsi0:0`, `ide1:0`. */
  readonly node: string;
  /** As recorded: a path of the host. */
  readonly fileName: string;
}

/** What kind of checkpoints the VM makes (UserSnapshotType); the numbers as recorded. */
export const CHECKPOINTS = { disabled: 2, productionOrStandard: 3, productionOnly: 4, standard: 5 } as const;

export interface HyperVConfig {
  /** GUID in upper case. */
  readonly id: string | undefined;
  readonly name: string | undefined;
  readonly description: string | undefined;
  /** `Virtual Machines`; what a checkpoint is called here differs by version. */
  readonly kind: string | undefined;
  /** ISO 8601 UTC. */
  readonly created: string | undefined;
  readonly generation: 1 | 2 | undefined;
  readonly firmware: string | undefined;
  readonly cpus: number | undefined;
  readonly memoryBytes: number | undefined;
  /** In the order in which the guest counts them. */
  readonly disks: readonly HyperVDisk[];
  readonly networks: readonly NetworkAdapter[];
  /** GUIDs in the VM's list of checkpoints. */
  readonly listed: readonly string[];
  /** Number of checkpoints that the VM says it has. */
  readonly listSize: number | undefined;
  /** GUIDs that may be of the checkpoint before, or of the VM that a checkpoint is of. */
  readonly parents: readonly string[];
  readonly relatives: readonly string[];
  readonly checkpoints: number | undefined;
  /** The configuration has a saved state. */
  readonly saved: boolean;
  /** It was on when this was written: switched on later than off. Undefined where neither time is recorded. */
  readonly running: boolean | undefined;
  readonly linux: boolean;
  readonly mergePending: boolean;
  readonly findings: readonly Finding[];
}

/** Reads a configuration; undefined for a file that is of no VM. Never throws for what it says. */
export function readConfig(roots: readonly ConfigNode[], source: string): HyperVConfig | undefined {
  const root = roots.find(({ name }) => name.toLowerCase() === 'configuration');
  const properties = at(root, 'properties');
  if (properties === undefined || (at(root, 'settings') === undefined && at(root, 'manifest') === undefined)) {
    return undefined;
  }
  const findings: Finding[] = [];
  const global = at(root, 'global_settings');
  const snapshots = at(global, 'snapshots');
  const bios = at(root, `_${DEVICE.firmware}_`);
  const subtype = integerAt(properties, ['subtype'], 0, 1);
  const generation = subtype === undefined ? undefined : subtype === 1 ? 2 : 1;
  const memory = integerAt(root, ['settings', 'memory', 'bank', 'size'], 1, 1 << 30);
  const on = integerAt(properties, ['last_powered_on_time'], 0, Number.MAX_VALUE) ?? 0;
  const off = integerAt(properties, ['last_powered_off_time'], 0, Number.MAX_VALUE) ?? 0;
  return {
    id: guid(textAt(properties, 'global_id')),
    name: oneLine(textAt(properties, 'name') ?? '') || undefined,
    description: oneLine(textAt(properties, 'notes') ?? '') || undefined,
    kind: textAt(properties, 'type_id'),
    created: timeOf(at(properties, 'creation_time')),
    generation,
    firmware: firmwareOf(generation, flagAt(bios, 'secure_boot_enabled')),
    cpus: integerAt(root, ['settings', 'processors', 'count'], 1, 4_096),
    memoryBytes: memory === undefined ? undefined : memory * 0x10_0000,
    disks: disksOf(root!, source, findings),
    networks: networksOf(root!),
    listed: guidsBelow(at(snapshots, 'list')),
    listSize: integerAt(snapshots, ['list', 'size'], 0, 1_000_000),
    parents: parentsOf([properties, snapshots, at(root, 'settings', 'global')]),
    relatives: [
      ...new Set([...guidsBelow(at(root, 'settings', 'global')), ...guidsBelow(properties), ...guidsBelow(snapshots)]),
    ],
    checkpoints: integerAt(snapshots, ['user_type'], 0, 255),
    saved: (at(root, 'savedstate')?.children.length ?? 0) > 0,
    running: on === 0 && off === 0 ? undefined : on > off,
    linux: textAt(bios, 'secure_boot_template_id')?.toLowerCase() === OPEN_SOURCE_TEMPLATE,
    mergePending: flagAt(global, 'disk_merge_pending') === true,
    findings,
  };
}

/** A GUID in upper case without braces; undefined for what is none. */
export function guid(text: string | undefined): string | undefined {
  return uuidIn(text)?.toUpperCase();
}

function guidsBelow(node: ConfigNode | undefined): string[] {
  const found: string[] = [];
  for (const { value } of valuesBelow(node)) {
    const id = typeof value === 'string' ? guid(value) : undefined;
    if (id !== undefined) found.push(id);
  }
  return [...new Set(found)];
}

/** GUIDs under names that speak of a parent. Whether one is a checkpoint of this VM is for the caller to see. */
function parentsOf(nodes: readonly (ConfigNode | undefined)[]): string[] {
  return nodes.flatMap((node) =>
    (node?.children ?? []).filter(({ name }) => /parent/i.test(name)).flatMap((child) => guidsBelow(child)),
  );
}

function firmwareOf(generation: 1 | 2 | undefined, secure: boolean | undefined): string | undefined {
  if (generation === undefined) return undefined;
  if (generation === 1) return 'bios';
  return secure === true ? 'efi, secure boot' : 'efi';
}

interface Device {
  readonly device: string;
  readonly name: string;
  readonly node: ConfigNode | undefined;
}

/** The devices of the manifest, with the node that each is configured in. */
function devicesOf(root: ConfigNode): Device[] {
  return (at(root, 'manifest')?.children ?? [])
    .filter(({ name }) => /^vdev\d+$/i.test(name))
    .map((entry) => ({
      device: textAt(entry, 'device')?.toLowerCase() ?? '',
      name: textAt(entry, 'name') ?? '',
      node: at(root, `_${textAt(entry, 'instance') ?? ''}_`),
    }));
}

function disksOf(root: ConfigNode, source: string, findings: Finding[]): HyperVDisk[] {
  const disks: HyperVDisk[] = [];
  const devices = devicesOf(root);
  const listed = (device: string): ConfigNode[] =>
    devices.flatMap((candidate) =>
      candidate.device === device && candidate.node !== undefined ? [candidate.node] : [],
    );
  // Before 2016 the manifest leaves out what every VM has, its IDE controllers among it.
  const ide = new Set(listed(DEVICE.ide));
  const implied = at(root, `_${DEVICE.ide}_`);
  if (implied !== undefined) ide.add(implied);
  const scsi = new Set(listed(DEVICE.scsi));
  for (const node of root.children) if (!ide.has(node) && hasDisks(node)) scsi.add(node);
  for (const [bus, nodes] of [
    ['ide', ide],
    ['scsi', scsi],
  ] as const) {
    let controllers = 0;
    for (const node of nodes) {
      const [own, next] = drivesOf(node, bus, controllers, source, findings);
      disks.push(...own);
      controllers = next;
    }
  }
  if (disks.length > MAX_DISKS) {
    findings.push({
      severity: 'damaged',
      code: 'too-many-disks',
      message: `${source} names ${disks.length} disks; the first ${MAX_DISKS} are shown`,
      source,
      found: disks.length,
    });
    disks.length = MAX_DISKS;
  }
  return disks;
}

/** True for a device with controllers that have virtual disks on them. */
function hasDisks(node: ConfigNode): boolean {
  return numbered(node, 'controller').some(([, controller]) =>
    numbered(controller, 'drive').some(([, drive]) => textAt(drive, 'type')?.toUpperCase() === 'VHD'),
  );
}

/** The disks of one device, and the number of the next controller. */
function drivesOf(
  node: ConfigNode,
  bus: string,
  first: number,
  source: string,
  findings: Finding[],
): [HyperVDisk[], number] {
  const disks: HyperVDisk[] = [];
  const controllers = numbered(node, 'controller');
  for (const [position, controller] of controllers) {
    for (const [unit, drive] of numbered(controller, 'drive')) {
      const fileName = textAt(drive, 'pathname');
      const type = (textAt(drive, 'type') ?? 'VHD').toUpperCase();
      if (fileName === undefined || ['ISO', 'VFD', 'NONE'].includes(type)) continue;
      const place = `${bus}${first + position}:${unit}`;
      if (type === 'VHD') {
        disks.push({ node: place, fileName });
        continue;
      }
      findings.push({
        severity: 'note',
        code: 'pass-through-device',
        message: `${place} is a device of the host (${oneLine(type)}, ${oneLine(fileName)}); a backup does not hold it`,
        source,
        structure: place,
      });
    }
  }
  return [disks, first + Math.max(1, ...controllers.map(([position]) => position + 1))];
}

/** Children called `prefix` and a number, in the order of the numbers. */
function numbered(node: ConfigNode | undefined, prefix: string): [number, ConfigNode][] {
  const pattern = new RegExp(`^${prefix}(\\d{1,4})$`, 'i');
  return (node?.children ?? [])
    .flatMap((child): [number, ConfigNode][] => {
      const match = pattern.exec(child.name);
      return match === null ? [] : [[Number(match[1]), child]];
    })
    .sort(([a], [b]) => a - b);
}

function networksOf(root: ConfigNode): NetworkAdapter[] {
  return devicesOf(root)
    .filter(({ device, name }) => device === DEVICE.synthetic || /ethernet port/i.test(name))
    .slice(0, MAX_DISKS)
    .map(({ device, node }, position) => {
      const hex =
        textAt(node, 'MacAddress')
          ?.replace(/[^0-9a-f]/gi, '')
          .toLowerCase() ?? '';
      // All zeros: one is given when the VM is started.
      const mac = /^[0-9a-f]{12}$/.test(hex) && !/^0+$/.test(hex) ? hex.replace(/(..)(?=.)/g, '$1:') : undefined;
      const network = textAt(node, 'Connection', 'AltSwitchName') ?? textAt(node, 'SwitchName');
      return {
        device: String(position),
        ...(mac === undefined ? {} : { mac }),
        ...(network === undefined ? {} : { network: oneLine(network) }),
        model: device === DEVICE.synthetic ? 'synthetic' : 'legacy',
      };
    });
}

/** ISO 8601 UTC of a FILETIME: 100 ns since 1601, in eight bytes or as a number. */
function timeOf(node: ConfigNode | undefined): string | undefined {
  const value = node?.value;
  let ticks: bigint | undefined;
  if (typeof value === 'bigint') ticks = value;
  else if (value instanceof Uint8Array && value.length === 8) {
    ticks = new DataView(value.buffer, value.byteOffset, 8).getBigUint64(0, true);
  }
  if (ticks === undefined || ticks <= 0n) return undefined;
  const milliseconds = Number(ticks / 10_000n) - 11_644_473_600_000;
  // Years that are no times of a backup are no times at all.
  return milliseconds > 0 && milliseconds < 253_402_300_800_000 ? new Date(milliseconds).toISOString() : undefined;
}

/**
 * A VM's .vbox file: its hardware, its media, its snapshots and what is attached in each. VirtualBox's settings files follow
 * src/VBox/Main/xml/VirtualBox-settings.xsd; what older versions wrote is known from Settings.cpp there (`readMachine`,
 * `readMediumOne`, `readSnapshot`, `readStorageControllers`, `readHardDiskAttachments_pre1_7`).
 *
 * Images are known by UUID: the media registry is a forest whose trees are chains of images, and each point (a snapshot, or the
 * present state) attaches the image of its own.
 */
import { CorruptError, NeedsKeyError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import { uuidIn } from '../../text.ts';
import { childOf, childrenOf, descend, type XmlElement } from '../../xml.ts';
import type { NetworkAdapter } from '../model.ts';
import { oneLine } from '../text.ts';

export const STRUCTURE = 'VirtualBox settings';

export interface VboxMedium {
  readonly uuid: string;
  /** As recorded: relative to the .vbox, or absolute. */
  readonly location: string;
  /** `VDI`, `VMDK`, `VHD`, `iSCSI`... */
  readonly format: string;
  /** Of the base of its tree, in lower case: `normal`, `immutable`, `writethrough`, `shareable`, `readonly`, `multiattach`. */
  readonly type: string;
  /** The medium it was made on. */
  readonly parent: string | undefined;
  /** It, or what it stands on, is encrypted: VirtualBox keeps the key store here and not in the image. */
  readonly encrypted: boolean;
}

export interface VboxAttachment {
  /** `SATA-0-0`: the controller's name, port and device, as VBoxManage writes it. */
  readonly node: string;
  readonly uuid: string;
}

export interface VboxSnapshot {
  readonly id: string;
  readonly name: string;
  readonly description: string | undefined;
  /** ISO 8601 UTC. */
  readonly created: string | undefined;
  readonly parent: string | undefined;
  /** Recorded name of the saved state (.sav) of a VM that ran then. */
  readonly stateFile: string | undefined;
  readonly disks: readonly VboxAttachment[];
}

export interface VboxMachine {
  readonly name: string | undefined;
  readonly guest: string | undefined;
  readonly cpus: number | undefined;
  readonly memoryBytes: number | undefined;
  readonly firmware: string | undefined;
  readonly networks: readonly NetworkAdapter[];
  /** The rest of the file is encrypted: nothing but that is known. */
  readonly encrypted: boolean;
  readonly snapshotFolder: string;
  readonly stateFile: string | undefined;
  /** VirtualBox found its VM gone without having been stopped. */
  readonly aborted: boolean;
  readonly currentSnapshot: string | undefined;
  readonly media: ReadonlyMap<string, VboxMedium>;
  /** Parents before children. */
  readonly snapshots: readonly VboxSnapshot[];
  readonly disks: readonly VboxAttachment[];
  readonly findings: readonly Finding[];
}

/** Reads a settings file. @throws CorruptError when it is none, or lacks its machine. */
export function readSettings(root: XmlElement, source: string): VboxMachine {
  if (root.name !== 'VirtualBox') throw missing(source, 'root element', 'VirtualBox', root.name);
  const findings: Finding[] = [];
  const machine = childOf(root, 'Machine');
  if (machine === undefined) {
    if (childOf(root, 'MachineEncrypted') === undefined) throw missing(source, 'root element', 'Machine', 'none');
    findings.push({
      severity: 'suspicious',
      code: 'encrypted-vm',
      message: new NeedsKeyError(source).message,
      source,
      structure: 'MachineEncrypted',
      remedy: 'Decrypt the VM where its key is, and back it up again; encrypted configurations are not read here.',
    });
    return { ...NOTHING, encrypted: true, findings };
  }
  const hardware = childOf(machine, 'Hardware');
  // From settings 1.20 on a part of the hardware stands under Platform.
  const platform = childOf(machine, 'Platform');
  const media = mediaOf(childOf(machine, 'MediaRegistry'), source, findings);
  const snapshots = snapshotsOf(machine, source, findings);
  return {
    name: oneLine(machine.attributes.get('name') ?? '') || undefined,
    guest: oneLine(machine.attributes.get('OSType') ?? '') || undefined,
    cpus: integer(attribute('count', descend(hardware, 'CPU'), descend(platform, 'CPU')), 4_096) ?? 1,
    memoryBytes: bytesOf(attribute('RAMSize', descend(hardware, 'Memory'))),
    firmware: firmwareOf(childOf(hardware, 'Firmware') ?? childOf(platform, 'Firmware')),
    networks: networksOf(childOf(hardware, 'Network')),
    encrypted: false,
    snapshotFolder: machine.attributes.get('snapshotFolder') || 'Snapshots',
    stateFile: machine.attributes.get('stateFile') || undefined,
    aborted: isTrue(machine.attributes.get('aborted')),
    currentSnapshot: uuidIn(machine.attributes.get('currentSnapshot')),
    media,
    snapshots,
    disks: disksOf(machine, source, findings),
    findings,
  };
}

const NOTHING: VboxMachine = {
  name: undefined,
  guest: undefined,
  cpus: undefined,
  memoryBytes: undefined,
  firmware: undefined,
  networks: [],
  encrypted: false,
  snapshotFolder: 'Snapshots',
  stateFile: undefined,
  aborted: false,
  currentSnapshot: undefined,
  media: new Map(),
  snapshots: [],
  disks: [],
  findings: [],
};

function missing(source: string, field: string, expected: string, found: string): CorruptError {
  return new CorruptError(`${STRUCTURE} ${field}`, { source, expected, found: found.slice(0, 64) });
}

function isTrue(text: string | undefined): boolean {
  return text === 'true' || text === '1';
}

/** The attribute in the first of these elements that has it. */
function attribute(name: string, ...elements: readonly (XmlElement | undefined)[]): string | undefined {
  for (const element of elements) {
    const value = element?.attributes.get(name);
    if (value !== undefined) return value;
  }
  return undefined;
}

function integer(text: string | undefined, most: number): number | undefined {
  if (text === undefined || !/^\d{1,10}$/.test(text)) return undefined;
  const value = Number(text);
  return value >= 1 && value <= most ? value : undefined;
}

function bytesOf(megabytes: string | undefined): number | undefined {
  const value = integer(megabytes, 1 << 30);
  return value === undefined ? undefined : value * 0x10_0000;
}

/** VirtualBox leaves out what is its default, the BIOS. */
function firmwareOf(element: XmlElement | undefined): string {
  return oneLine(element?.attributes.get('type') ?? 'BIOS').toLowerCase();
}

/** How each kind of attachment is called, and which attribute names what it is attached to. */
const ATTACHMENTS: readonly (readonly [string, string, string])[] = [
  ['NAT', 'NAT', ''],
  ['BridgedInterface', 'bridged', 'name'],
  ['InternalNetwork', 'internal', 'name'],
  ['HostOnlyInterface', 'host-only', 'name'],
  ['HostOnlyNetwork', 'host-only', 'name'],
  ['NATNetwork', 'NAT network', 'name'],
  ['GenericInterface', 'generic', 'driver'],
  ['CloudNetwork', 'cloud', 'name'],
];

function networksOf(network: XmlElement | undefined): NetworkAdapter[] {
  return childrenOf(network, 'Adapter')
    .filter((adapter) => isTrue(adapter.attributes.get('enabled')))
    .map((adapter) => {
      const mac = adapter.attributes.get('MACAddress') ?? '';
      const model = oneLine(adapter.attributes.get('type') ?? '');
      const attached = networkOf(adapter);
      return {
        device: oneLine(adapter.attributes.get('slot') ?? ''),
        ...(/^[0-9a-f]{12}$/i.test(mac) ? { mac: mac.toLowerCase().match(/../g)!.join(':') } : {}),
        ...(attached === undefined ? {} : { network: attached }),
        ...(model === '' ? {} : { model }),
      };
    });
}

function networkOf(adapter: XmlElement): string | undefined {
  for (const [element, mode, name] of ATTACHMENTS) {
    const found = childOf(adapter, element);
    if (found === undefined) continue;
    const of = name === '' ? '' : oneLine(found.attributes.get(name) ?? '');
    return of === '' ? mode : `${mode} ${of}`;
  }
  return undefined;
}

/** Every hard disk of the registry by its UUID. */
function mediaOf(registry: XmlElement | undefined, source: string, findings: Finding[]): Map<string, VboxMedium> {
  const media = new Map<string, VboxMedium>();
  const work: { element: XmlElement; parent: VboxMedium | undefined }[] = childrenOf(
    childOf(registry, 'HardDisks'),
    'HardDisk',
  ).map((element) => ({ element, parent: undefined }));
  // The list grows while it is walked: parents before children.
  for (const { element, parent } of work) {
    const uuid = uuidIn(element.attributes.get('uuid'));
    const location = element.attributes.get('location');
    if (uuid === undefined || location === undefined || location === '' || media.has(uuid)) {
      findings.push({
        severity: 'suspicious',
        code: 'medium-unreadable',
        message: `A hard disk of the media registry in ${source} ${uuid !== undefined && media.has(uuid) ? 'is there twice' : 'lacks its UUID or its location'}`,
        source,
        structure: 'MediaRegistry HardDisk',
        found: oneLine(element.attributes.get('uuid') ?? 'no uuid').slice(0, 64),
      });
      continue;
    }
    const keyed = childrenOf(element, 'Property').some(({ attributes }) =>
      /^CRYPT\//.test(attributes.get('name') ?? ''),
    );
    const medium: VboxMedium = {
      uuid,
      location,
      format: oneLine(element.attributes.get('format') ?? ''),
      type: oneLine(element.attributes.get('type') ?? parent?.type ?? 'normal').toLowerCase(),
      parent: parent?.uuid,
      encrypted: keyed || parent?.encrypted === true,
    };
    media.set(uuid, medium);
    for (const child of childrenOf(element, 'HardDisk')) work.push({ element: child, parent: medium });
  }
  return media;
}

function snapshotsOf(machine: XmlElement, source: string, findings: Finding[]): VboxSnapshot[] {
  const snapshots: VboxSnapshot[] = [];
  const known = new Set<string>();
  const work: { element: XmlElement; parent: string | undefined }[] = childrenOf(machine, 'Snapshot').map(
    (element) => ({
      element,
      parent: undefined,
    }),
  );
  for (const { element, parent } of work) {
    const id = uuidIn(element.attributes.get('uuid'));
    const name = oneLine(element.attributes.get('name') ?? '');
    if (id === undefined || known.has(id)) {
      findings.push({
        severity: 'suspicious',
        code: 'snapshot-unreadable',
        message: `Snapshot "${name}" of ${source} ${id === undefined ? 'has no UUID' : 'has the UUID of another one'} and is left out`,
        source,
        structure: 'Snapshot uuid',
        found: oneLine(element.attributes.get('uuid') ?? 'none').slice(0, 64),
      });
    } else {
      known.add(id);
      snapshots.push({
        id,
        name: name || id,
        description: textOf(element.attributes.get('Description') ?? childOf(element, 'Description')?.text),
        created: timeOf(element.attributes.get('timeStamp')),
        parent,
        stateFile: element.attributes.get('stateFile') || undefined,
        disks: disksOf(element, source, findings),
      });
    }
    // Those under one that is left out descend from what is above it.
    for (const child of childrenOf(childOf(element, 'Snapshots'), 'Snapshot')) {
      work.push({ element: child, parent: id ?? parent });
    }
  }
  return snapshots;
}

function textOf(text: string | undefined): string | undefined {
  return text === undefined || text === '' ? undefined : text.slice(0, 4_096);
}

/** VirtualBox writes `2025-12-19T17:01:46Z`. */
function timeOf(text: string | undefined): string | undefined {
  if (text === undefined || !/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$/.test(text)) return undefined;
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? undefined : time.toISOString();
}

/** The hard disks attached in a machine or a snapshot, in the order of the file's controllers, then by port and device. */
function disksOf(owner: XmlElement, source: string, findings: Finding[]): VboxAttachment[] {
  const disks: { node: string; uuid: string; order: readonly number[] }[] = [];
  const add = (controller: number, name: string, port: string, device: string, uuid: string | undefined): void => {
    const node = oneLine(`${name}-${port}-${device}`);
    if (uuid === undefined) {
      findings.push({
        severity: 'suspicious',
        code: 'attachment-unreadable',
        message: `${node} of ${source} names no image`,
        source,
        structure: 'AttachedDevice Image',
      });
      return;
    }
    disks.push({ node, uuid, order: [controller, Number(port) || 0, Number(device) || 0] });
  };
  const controllers = descend(owner, 'Hardware', 'StorageControllers') ?? childOf(owner, 'StorageControllers');
  for (const [index, controller] of childrenOf(controllers, 'StorageController').entries()) {
    for (const device of childrenOf(controller, 'AttachedDevice')) {
      if (device.attributes.get('type') !== 'HardDisk') continue;
      const at = (name: string): string => device.attributes.get(name) ?? '0';
      const uuid = uuidIn(childOf(device, 'Image')?.attributes.get('uuid'));
      add(index, controller.attributes.get('name') ?? 'controller', at('port'), at('device'), uuid);
    }
  }
  // Settings before 1.7 (VirtualBox 2).
  for (const device of childrenOf(childOf(owner, 'HardDiskAttachments'), 'HardDiskAttachment')) {
    const at = (name: string): string => device.attributes.get(name) ?? '0';
    add(at('bus') === 'IDE' ? 0 : 1, at('bus'), at('channel'), at('device'), uuidIn(device.attributes.get('hardDisk')));
  }
  return disks
    .sort((a, b) => a.order[0]! - b.order[0]! || a.order[1]! - b.order[1]! || a.order[2]! - b.order[2]!)
    .map(({ node, uuid }) => ({ node, uuid }));
}

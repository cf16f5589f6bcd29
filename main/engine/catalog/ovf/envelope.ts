/**
 * The OVF descriptor: the VMs of a package with their hardware and disks. Format: DMTF DSP0243 (Open Virtualization Format), whose
 * hardware items are those of CIM's resource allocation settings (CIM_ResourceAllocationSettingData, `ResourceType`).
 */
import { CorruptError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { childOf, childrenOf, childText, readXml, type XmlElement } from '../../xml.ts';
import type { NetworkAdapter } from '../model.ts';
import { oneLine } from '../text.ts';

/** Real descriptors have some tens of KiB; those with product properties and licences some hundreds. */
const MAX_BYTES = 16 << 20;
/** Hardware items and disks of one VM. */
const MAX_ITEMS = 4_096;

/** `ResourceType` of CIM. */
const CPU = '3';
const MEMORY = '4';
const BUSES: Readonly<Record<string, string>> = { '5': 'ide', '6': 'scsi', '20': 'sata' };
const ETHERNET = '10';
const HARD_DISK = '17';

export interface OvfFile {
  readonly href: string;
  /** Only `gzip` is defined. */
  readonly compression?: string;
  /** Bytes of each part of a file that is stored in parts, `href.000000000` and so on. */
  readonly chunkSize?: string;
}

export interface OvfDisk {
  /** `scsi0:1`, where the package says so. */
  readonly node?: string;
  /** Undefined for a disk without content, which is made empty when the package is deployed. */
  readonly file: OvfFile | undefined;
  /** Capacity in bytes, where it can be told. */
  readonly capacity?: number;
}

export interface OvfMachine {
  readonly name: string;
  readonly guest?: string;
  readonly cpus?: number;
  readonly memoryBytes?: number;
  readonly firmware?: string;
  readonly networks: readonly NetworkAdapter[];
  readonly disks: readonly OvfDisk[];
  readonly findings: readonly Finding[];
}

export interface Envelope {
  readonly machines: readonly OvfMachine[];
  /** Every file that the package refers to. */
  readonly files: readonly OvfFile[];
}

/** Reads a descriptor. @throws CorruptError, UnsupportedError for a document type, IoError. */
export async function readEnvelope(file: ByteSource): Promise<Envelope> {
  const root = await readXml(file, 'OVF descriptor', MAX_BYTES);
  if (root.name !== 'Envelope') {
    throw new CorruptError('OVF descriptor', { source: file.name, expected: 'an Envelope', found: root.name });
  }
  const files = new Map<string, OvfFile>();
  for (const element of childrenOf(childOf(root, 'References'), 'File')) {
    const [id, href] = [element.attributes.get('id'), element.attributes.get('href')];
    if (id === undefined || href === undefined) continue;
    const compression = element.attributes.get('compression');
    const chunkSize = element.attributes.get('chunkSize');
    files.set(id, {
      href,
      ...(compression === undefined || compression === 'identity' || compression === '' ? {} : { compression }),
      ...(chunkSize === undefined || chunkSize === '' ? {} : { chunkSize }),
    });
  }
  const disks = new Map<string, Omit<OvfDisk, 'node'>>();
  for (const element of sections(root, 'DiskSection').flatMap((section) => childrenOf(section, 'Disk'))) {
    const id = element.attributes.get('diskId');
    if (id === undefined) continue;
    const capacity = bytesOf(element.attributes.get('capacity'), element.attributes.get('capacityAllocationUnits'));
    const reference = element.attributes.get('fileRef');
    disks.set(id, {
      file: reference === undefined ? undefined : files.get(reference),
      ...(capacity === undefined ? {} : { capacity }),
    });
  }
  const machines = systemsOf(root).map((system) => machineOf(system, disks, files, file.name));
  return { machines, files: [...files.values()] };
}

/** Sections may carry their type as the element's name, or (OVF 0.9) as `xsi:type`. */
function sections(element: XmlElement, name: string): XmlElement[] {
  return element.children.filter(
    (child) =>
      child.name === name ||
      (child.name === 'Section' && (child.attributes.get('type') ?? '').replace(/^.*:/, '').startsWith(name)),
  );
}

/** VirtualSystem elements, also those in (nested) collections; `Content` in OVF 0.9. */
function systemsOf(root: XmlElement): XmlElement[] {
  const found: XmlElement[] = [];
  const queue = [root];
  for (const element of queue) {
    for (const child of element.children) {
      if (child.name === 'VirtualSystem' || (child.name === 'Content' && element === root)) found.push(child);
      else if (child.name === 'VirtualSystemCollection') queue.push(child);
    }
  }
  return found;
}

function machineOf(
  system: XmlElement,
  disks: ReadonlyMap<string, Omit<OvfDisk, 'node'>>,
  files: ReadonlyMap<string, OvfFile>,
  source: string,
): OvfMachine {
  const findings: Finding[] = [];
  const [hardware] = sections(system, 'VirtualHardwareSection');
  const items = (hardware?.children ?? [])
    .filter(({ name }) => name === 'Item' || name === 'StorageItem' || name === 'EthernetPortItem')
    .slice(0, MAX_ITEMS);
  const ofType = (type: string): XmlElement[] => items.filter((item) => childText(item, 'ResourceType') === type);
  const byInstance = new Map(
    items.map((item) => [childText(item, 'InstanceID') ?? childText(item, 'InstanceId'), item]),
  );

  const attached = ofType(HARD_DISK).flatMap((item): OvfDisk[] => {
    const resource = childText(item, 'HostResource');
    const found = diskOf(resource, disks, files);
    if (found === undefined) {
      findings.push({
        severity: 'damaged',
        code: 'disk-not-described',
        message: `The package attaches a disk "${oneLine(resource ?? '')}" that it does not describe`,
        source,
        structure: 'VirtualHardwareSection',
      });
      return [];
    }
    const controller = byInstance.get(childText(item, 'Parent'));
    const bus = BUSES[controller === undefined ? '' : (childText(controller, 'ResourceType') ?? '')];
    const unit = childText(item, 'AddressOnParent');
    if (bus === undefined || unit === undefined || controller === undefined) return [found];
    return [{ ...found, node: oneLine(`${bus}${childText(controller, 'Address') ?? '0'}:${unit}`) }];
  });
  const cpus = Number(childText(ofType(CPU)[0] ?? EMPTY, 'VirtualQuantity'));
  const [memory] = ofType(MEMORY);
  const memoryBytes =
    memory === undefined
      ? undefined
      : bytesOf(childText(memory, 'VirtualQuantity'), childText(memory, 'AllocationUnits') ?? 'MegaBytes');
  const guest = operatingSystem(system);
  const firmware = childrenOf(hardware, 'Config').find((config) => config.attributes.get('key') === 'firmware');
  return {
    name: oneLine(childOf(system, 'Name')?.text || system.attributes.get('id') || ''),
    ...(guest === undefined ? {} : { guest }),
    ...(Number.isSafeInteger(cpus) && cpus > 0 ? { cpus } : {}),
    ...(memoryBytes === undefined ? {} : { memoryBytes }),
    ...(firmware === undefined ? {} : { firmware: oneLine(firmware.attributes.get('value') ?? '') }),
    networks: ofType(ETHERNET).map((item, at) => adapterOf(item, at)),
    disks: attached,
    findings,
  };
}

const EMPTY: XmlElement = { name: '', attributes: new Map(), children: [], text: '' };

/** `ovf:/disk/ID` or `/disk/ID` names a disk, `ovf:/file/ID` a file. */
function diskOf(
  resource: string | undefined,
  disks: ReadonlyMap<string, Omit<OvfDisk, 'node'>>,
  files: ReadonlyMap<string, OvfFile>,
): OvfDisk | undefined {
  const match = /(?:^|\/)(disk|file)\/([^/]+)$/.exec(resource ?? '');
  const id = match?.[2];
  if (id === undefined) return undefined;
  if (match?.[1] === 'file') {
    const file = files.get(id);
    return file === undefined ? undefined : { file };
  }
  return disks.get(id);
}

function adapterOf(item: XmlElement, at: number): NetworkAdapter {
  const value = (name: string): string | undefined => {
    const text = childOf(item, name)?.text;
    return text === undefined || text === '' ? undefined : oneLine(text);
  };
  const mac = macOf(value('Address'));
  const [network, model] = [value('Connection'), value('ResourceSubType')];
  return {
    device: value('ElementName') ?? String(at),
    ...(mac === undefined ? {} : { mac }),
    ...(network === undefined ? {} : { network }),
    ...(model === undefined ? {} : { model: model.toLowerCase() }),
  };
}

/** A MAC address in any common writing, as lower-case hexadecimal with colons; undefined for what is none. */
export function macOf(text: string | undefined): string | undefined {
  const digits = (text ?? '').replaceAll(/[:.-]/g, '').toLowerCase();
  return /^[0-9a-f]{12}$/.test(digits) ? digits.match(/../g)!.join(':') : undefined;
}

function operatingSystem(system: XmlElement): string | undefined {
  const [section] = sections(system, 'OperatingSystemSection');
  const text =
    childOf(section, 'Description')?.text || childOf(section, 'OSType')?.text || section?.attributes.get('osType');
  return text === undefined || text === '' ? undefined : oneLine(text);
}

/** `2` with `byte * 2^30`, `GigaBytes`, or bytes where no unit is named. Undefined for what is no size. */
export function bytesOf(quantity: string | undefined, units: string | undefined): number | undefined {
  const count = Number(quantity);
  if (quantity === undefined || quantity === '' || !(count >= 0)) return undefined;
  const power = /^byte\s*\*\s*(\d+)\s*\^\s*(\d{1,2})$/i.exec(units?.trim() ?? '');
  const named: Readonly<Record<string, number>> = { kilobytes: 1 << 10, megabytes: 1 << 20, gigabytes: 1 << 30 };
  const factor =
    power === null ? (named[units?.trim().toLowerCase() ?? ''] ?? 1) : Number(power[1]) ** Number(power[2]);
  const bytes = count * factor;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

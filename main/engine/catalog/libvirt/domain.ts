/**
 * A VM's domain XML: its name, what it is made of, and the disks it writes to now. A file holds a `<domain>`, or one inside
 * `<domstatus>`, which libvirt keeps of a running VM (the live state, its disks included).
 *
 * Facts: libvirt, "Domain XML format" (https://libvirt.org/formatdomain.html), src/conf/domain_conf.c; libosinfo's metadata
 * namespace (http://libosinfo.org/xmlns/libvirt/domain/1.0).
 */
import type { Finding } from '../../image/image.ts';
import { attribute, childOf, childrenOf, childText, type XmlElement } from '../../xml.ts';
import type { NetworkAdapter } from '../model.ts';
import { oneLine } from '../text.ts';

/** Disks and adapters read at most; libvirt itself has no such limit, QEMU's buses end well before. */
const MAX_DEVICES = 1_024;

export interface DomainDisk {
  /** Where the guest has it: `vda`. */
  readonly node: string | undefined;
  /** The recorded path of its image; undefined for a disk that is no file. */
  readonly file: string | undefined;
  /** What it is where it is no file: `rbd pool/web01`, `/dev/vg0/web01`. */
  readonly elsewhere: string | undefined;
  /** What the XML says its format is, as the image registry names it. */
  readonly format: string | undefined;
}

export interface Domain {
  readonly name: string | undefined;
  readonly uuid: string | undefined;
  readonly guest: string | undefined;
  readonly cpus: number | undefined;
  readonly memoryBytes: number | undefined;
  readonly firmware: string | undefined;
  readonly networks: readonly NetworkAdapter[];
  /** In the order of the XML, which is that of buses and targets. */
  readonly disks: readonly DomainDisk[];
  readonly findings: readonly Finding[];
}

/** Reads a `<domain>`. Never throws for what it says. */
export function readDomain(domain: XmlElement, source: string): Domain {
  const devices = childOf(domain, 'devices');
  const findings: Finding[] = [];
  const all = childrenOf(devices, 'disk').filter(isDisk);
  if (all.length > MAX_DEVICES) {
    findings.push({
      severity: 'damaged',
      code: 'too-many-disks',
      message: `${source} names ${all.length} disks; the first ${MAX_DEVICES} are shown`,
      source,
      structure: 'devices',
      found: all.length,
    });
  }
  return {
    name: oneLine(childText(domain, 'name') ?? '') || undefined,
    uuid: uuidOf(childText(domain, 'uuid')),
    guest: guestOf(domain),
    cpus: integer(childText(domain, 'vcpu'), 1, 4_096),
    memoryBytes: memoryOf(childOf(domain, 'memory')),
    firmware: firmwareOf(childOf(domain, 'os')),
    networks: childrenOf(devices, 'interface').slice(0, MAX_DEVICES).map(adapterOf),
    disks: all.slice(0, MAX_DEVICES).map(diskOf),
    findings,
  };
}

/** A UUID in lower case; undefined for what is none. */
export function uuidOf(text: string | undefined): string | undefined {
  const bare = text?.replace(/[{}-]/g, '').toLowerCase() ?? '';
  if (!/^[0-9a-f]{32}$/.test(bare)) return undefined;
  return bare.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

function isDisk(disk: XmlElement): boolean {
  // `lun` is a device of the host handed through; CD drives and floppies hold nothing of the VM.
  return ['disk', 'lun'].includes(attribute(disk, 'device') ?? 'disk');
}

/** libvirt's names of formats that the registry calls otherwise. */
const FORMATS: Readonly<Record<string, string>> = { vpc: 'vhd', parallels: 'parallels' };

function diskOf(disk: XmlElement): DomainDisk {
  const source = childOf(disk, 'source');
  const type = attribute(childOf(disk, 'driver'), 'type')?.toLowerCase();
  const node = attribute(childOf(disk, 'target'), 'dev');
  return {
    node: node === undefined ? undefined : oneLine(node),
    ...sourceOf(attribute(disk, 'type') ?? 'file', source),
    format: type === undefined ? undefined : (FORMATS[type] ?? type),
  };
}

/** What a `<source>` names, by the type of its disk. */
export function sourceOf(type: string, source: XmlElement | undefined): Pick<DomainDisk, 'file' | 'elsewhere'> {
  const text = (...names: string[]): string =>
    oneLine(names.map((name) => attribute(source, name) ?? '').join(' ')).trim();
  switch (type) {
    case 'file':
      return { file: source?.attributes.get('file') || undefined, elsewhere: undefined };
    case 'volume':
      // A pool's volume is called like its file, where the pool is a folder.
      return { file: attribute(source, 'volume'), elsewhere: undefined };
    case 'block':
      return { file: undefined, elsewhere: text('dev') || 'a block device' };
    case 'network':
      return { file: undefined, elsewhere: text('protocol', 'name') || 'a network disk' };
    default:
      return { file: undefined, elsewhere: oneLine(type) };
  }
}

function adapterOf(element: XmlElement, position: number): NetworkAdapter {
  const source = childOf(element, 'source');
  const mac = attribute(childOf(element, 'mac'), 'address')?.toLowerCase().replaceAll('-', ':');
  const network = ['network', 'bridge', 'dev', 'portgroup'].map((name) => attribute(source, name)).find(Boolean);
  const model = attribute(childOf(element, 'model'), 'type');
  return {
    device: String(position),
    ...(mac !== undefined && /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(mac) ? { mac } : {}),
    ...(network === undefined ? {} : { network: oneLine(network) }),
    ...(model === undefined ? {} : { model: oneLine(model) }),
  };
}

function firmwareOf(os: XmlElement | undefined): string | undefined {
  if (os === undefined) return undefined;
  const loader = childOf(os, 'loader');
  const features = childrenOf(childOf(os, 'firmware'), 'feature');
  // Before libvirt could choose a firmware by itself, UEFI was a loader in flash memory.
  if (attribute(os, 'firmware') !== 'efi' && attribute(loader, 'type') !== 'pflash') return 'bios';
  const secure =
    attribute(loader, 'secure') === 'yes' ||
    features.some((feature) => attribute(feature, 'name') === 'secure-boot' && attribute(feature, 'enabled') === 'yes');
  return secure ? 'efi, secure boot' : 'efi';
}

/** `debian 12` for `http://debian.org/debian/12`, as libosinfo identifies systems. */
function guestOf(domain: XmlElement): string | undefined {
  const id = attribute(childOf(childOf(childOf(domain, 'metadata'), 'libosinfo'), 'os'), 'id');
  if (id === undefined) return undefined;
  const path = id.replace(/^[a-z]+:\/\/[^/]*\//i, '');
  return oneLine(path.split('/').filter(Boolean).join(' ')) || undefined;
}

/** Bytes of libvirt's units; without one, KiB. */
const UNITS: Readonly<Record<string, number>> = {
  b: 1,
  bytes: 1,
  kb: 1e3,
  k: 2 ** 10,
  kib: 2 ** 10,
  mb: 1e6,
  m: 2 ** 20,
  mib: 2 ** 20,
  gb: 1e9,
  g: 2 ** 30,
  gib: 2 ** 30,
  tb: 1e12,
  t: 2 ** 40,
  tib: 2 ** 40,
};

function memoryOf(memory: XmlElement | undefined): number | undefined {
  const count = integer(memory?.text, 1, Number.MAX_SAFE_INTEGER);
  const unit = UNITS[(attribute(memory, 'unit') ?? 'KiB').toLowerCase()];
  if (count === undefined || unit === undefined) return undefined;
  const bytes = count * unit;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

function integer(text: string | undefined, least: number, most: number): number | undefined {
  if (text === undefined || !/^\d{1,16}$/.test(text)) return undefined;
  const number = Number(text);
  return number >= least && number <= most ? number : undefined;
}

/**
 * Writes libvirt's files for tests, as libvirt itself formats them (https://libvirt.org/formatdomain.html, formatsnapshot.html), and
 * stands in for images: a file of a test folder is a layer with the parent and the snapshots that the test says.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { NotFoundError } from '../../main/engine/errors.ts';
import type { openLayer } from '../../main/engine/image/formats.ts';
import {
  type ImageLayer,
  type InternalSnapshot,
  type ParentClaim,
  snapshotPath,
  splitSnapshotPath,
} from '../../main/engine/image/image.ts';

export const UUID = '4dea22b3-1d52-d8f3-2516-782e98ab3fa0';

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll("'", '&apos;');

export interface DiskParts {
  readonly node: string;
  readonly file?: string;
  readonly format?: string;
  /** The whole element, for what is no file. */
  readonly xml?: string;
}

export interface DomainParts {
  readonly name?: string;
  readonly uuid?: string;
  readonly disks: readonly DiskParts[];
  readonly os?: string;
  readonly memory?: string;
  readonly more?: string;
}

/** A `<domain>`, without a declaration. */
export function domainXml(parts: DomainParts): string {
  const disks = parts.disks.map(
    ({ node, file, format, xml }) =>
      xml ??
      `    <disk type='file' device='disk'>
      <driver name='qemu' type='${format ?? 'qcow2'}'/>
      <source file='${escaped(file!)}'/>
      <target dev='${node}' bus='virtio'/>
    </disk>`,
  );
  return `<domain type='kvm'>
  <name>${escaped(parts.name ?? 'web01')}</name>
  <uuid>${parts.uuid ?? UUID}</uuid>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
  </metadata>
  ${parts.memory ?? "<memory unit='KiB'>2097152</memory>"}
  <vcpu placement='static'>2</vcpu>
  ${parts.os ?? "<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><boot dev='hd'/></os>"}
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
${disks.join('\n')}
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='/var/lib/libvirt/images/debian.iso'/>
      <target dev='sda' bus='sata'/>
      <readonly/>
    </disk>
    <interface type='network'>
      <mac address='52:54:00:AB:cd:01'/>
      <source network='default'/>
      <model type='virtio'/>
    </interface>
${parts.more ?? ''}  </devices>
</domain>`;
}

const WARNING = `<!--
WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE
OVERWRITTEN AND LOST. Changes to this xml configuration should be made using:
  virsh edit web01
-->

`;

/** Writes a domain as libvirt keeps it. */
export function writeDomain(path: string, parts: DomainParts): void {
  write(path, `${WARNING}${domainXml(parts)}\n`);
}

export interface SnapshotParts {
  readonly name: string;
  readonly created?: number;
  readonly parent?: string;
  readonly state?: string;
  /** `<memory .../>` */
  readonly memory?: string;
  readonly disks?: readonly { readonly node: string; readonly kept: string; readonly overlay?: string }[];
  readonly domain?: DomainParts;
  readonly active?: boolean;
  readonly description?: string;
}

export function snapshotXml(parts: SnapshotParts): string {
  const disks = (parts.disks ?? []).map(
    ({ node, kept, overlay }) =>
      `    <disk name='${node}' snapshot='${kept}'${overlay === undefined ? '/>' : ` type='file'><driver type='qcow2'/><source file='${escaped(overlay)}'/></disk>`}`,
  );
  return `<domainsnapshot>
  <name>${escaped(parts.name)}</name>
  ${parts.description === undefined ? '' : `<description>${escaped(parts.description)}</description>`}
  <state>${parts.state ?? 'shutoff'}</state>
  ${parts.parent === undefined ? '' : `<parent><name>${escaped(parts.parent)}</name></parent>`}
  <creationTime>${parts.created ?? 1_700_000_000}</creationTime>
  ${parts.memory ?? "<memory snapshot='no'/>"}
  ${disks.length === 0 ? '' : `<disks>\n${disks.join('\n')}\n  </disks>`}
  ${parts.domain === undefined ? '' : domainXml(parts.domain)}
  ${parts.active === undefined ? '' : `<active>${parts.active ? 1 : 0}</active>`}
</domainsnapshot>`;
}

/** Writes a snapshot where libvirt keeps it below `folder`: `NAME/SNAPSHOT.xml`. */
export function writeSnapshot(folder: string, parts: SnapshotParts, file = `${parts.name}.xml`): void {
  write(join(folder, file), `${WARNING}${snapshotXml(parts)}\n`);
}

export function write(path: string, content: string | Buffer): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

export interface StandIn {
  readonly parent?: string;
  readonly format?: string;
  readonly snapshots?: readonly (Partial<InternalSnapshot> & { readonly id: string })[];
}

/** What stands in for `openLayer`: images by the name of their file; what is not listed is a base without snapshots. */
export function standIn(images: Readonly<Record<string, StandIn>>): typeof openLayer {
  return async (path, folder) => {
    const inside = splitSnapshotPath(path);
    const image = folder.realPath(inside?.image ?? path);
    const about = images[basename(image)] ?? {};
    const snapshots = (about.snapshots ?? []).map((snapshot) => ({
      name: `snap ${snapshot.id}`,
      stateBytes: 0,
      virtualSize: 4096,
      ...snapshot,
    }));
    if (inside !== undefined && !snapshots.some(({ id }) => id === inside.id)) {
      throw new NotFoundError(`Snapshot ${inside.id}`, { source: folder.label(image) });
    }
    const real = inside === undefined ? image : snapshotPath(image, inside.id);
    const parent: ParentClaim | undefined = about.parent === undefined ? undefined : { recorded: about.parent };
    const layer: Partial<ImageLayer> = {
      format: about.format ?? 'qcow2',
      variant: 'v3',
      name: folder.label(real),
      path: real,
      virtualSize: 4096,
      parent,
      id: undefined,
      files: [{ role: 'image', name: folder.label(image), path: image, size: 10 }],
      properties: {},
      ...(inside === undefined ? { snapshots } : {}),
      allocatedBytes: async () => 512,
      close: async () => {},
    };
    return layer as ImageLayer;
  };
}

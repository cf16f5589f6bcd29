/**
 * Writes OVAs: a tar of a descriptor, its manifest and disks, as DMTF DSP0243 (Open Virtualization Format), sections "Manifest" and
 * "Distribution as a single file", describes them.
 */
import { createHash } from 'node:crypto';
import { buildTar, type TarMember } from './tar-builder.ts';

export interface OvaDisk {
  readonly name: string;
  /** As it lies in the package. */
  readonly bytes: Uint8Array;
  /** Size of the virtual disk. */
  readonly capacity: number;
  readonly compression?: string;
}

/** A descriptor of one VM with these disks on one SCSI controller. */
export function ovfDescriptor(name: string, disks: readonly OvaDisk[]): string {
  const references = disks
    .map(
      ({ name: href, bytes, compression }, i) =>
        `<File ovf:id="file${i}" ovf:href="${href}" ovf:size="${bytes.length}"${compression === undefined ? '' : ` ovf:compression="${compression}"`}/>`,
    )
    .join('');
  const section = disks
    .map(
      ({ capacity }, i) =>
        `<Disk ovf:diskId="disk${i}" ovf:fileRef="file${i}" ovf:capacity="${capacity}" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>`,
    )
    .join('');
  const items = disks
    .map(
      (_, i) =>
        `<Item><rasd:AddressOnParent>${i}</rasd:AddressOnParent><rasd:ElementName>disk${i}</rasd:ElementName><rasd:HostResource>ovf:/disk/disk${i}</rasd:HostResource><rasd:InstanceID>${10 + i}</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>`,
    )
    .join('');
  return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References>${references}</References>
<DiskSection><Info>Disks</Info>${section}</DiskSection>
<VirtualSystem ovf:id="${name}"><Info>A VM</Info><Name>${name}</Name>
<VirtualHardwareSection><Info>Hardware</Info>
<Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
${items}</VirtualHardwareSection></VirtualSystem></Envelope>
`;
}

/** A manifest of these files. */
export function manifestOf(files: readonly { name: string; bytes: Uint8Array }[], algorithm = 'SHA256'): string {
  return files
    .map(({ name, bytes }) => {
      const digest = createHash(algorithm.toLowerCase()).update(bytes).digest('hex');
      return `${algorithm}(${name})= ${digest}\n`;
    })
    .join('');
}

/** A whole OVA: descriptor, manifest, disks. */
export function buildOva(name: string, disks: readonly OvaDisk[], algorithm = 'SHA256'): Buffer {
  return buildTar(ovaMembers(name, disks, algorithm));
}

export function ovaMembers(name: string, disks: readonly OvaDisk[], algorithm = 'SHA256'): TarMember[] {
  const descriptor = { name: `${name}.ovf`, bytes: Buffer.from(ovfDescriptor(name, disks)) };
  return [
    { name: descriptor.name, content: descriptor.bytes },
    { name: `${name}.mf`, content: Buffer.from(manifestOf([descriptor, ...disks], algorithm)) },
    ...disks.map((disk) => ({ name: disk.name, content: disk.bytes })),
  ];
}

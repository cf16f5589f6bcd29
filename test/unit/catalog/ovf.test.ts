import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { scanRepository } from '../../../main/engine/catalog/catalog.ts';
import { bytesOf, macOf, readEnvelope } from '../../../main/engine/catalog/ovf/envelope.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { corpus } from '../../support/corpus.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { writeFlatBase } from '../../support/vmware-folder.ts';

const scratch = scratchFolder('ovf');
let root = '';
let count = 0;
beforeEach(() => {
  root = join(scratch.path, String(count++));
  mkdirSync(root);
});

interface PackageParts {
  readonly files?: string;
  readonly disks?: string;
  readonly items?: string;
  readonly config?: string;
}

const CONTROLLER = item(3, '<rasd:Address>0</rasd:Address><rasd:InstanceID>3</rasd:InstanceID>', 6);
const diskItem = (id: string, unit: number): string =>
  item(
    9 + unit,
    `<rasd:AddressOnParent>${unit}</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/${id}</rasd:HostResource><rasd:Parent>3</rasd:Parent>`,
    17,
  );
function item(instance: number, inner: string, type: number): string {
  return `<Item>${inner.includes('InstanceID') ? '' : `<rasd:InstanceID>${instance}</rasd:InstanceID>`}${inner}<rasd:ResourceType>${type}</rasd:ResourceType></Item>`;
}

function ovf(parts: PackageParts): string {
  return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="x" xmlns:vmw="y">
  <References>${parts.files ?? '<File ovf:href="d.vmdk" ovf:id="f1"/>'}</References>
  <DiskSection>${parts.disks ?? '<Disk ovf:capacity="65536" ovf:diskId="d1" ovf:fileRef="f1"/>'}</DiskSection>
  <VirtualSystem ovf:id="web"><Name>web &amp; mail</Name>
    <OperatingSystemSection ovf:id="103"><Description>Debian 12</Description></OperatingSystemSection>
    <VirtualHardwareSection>
      ${item(1, '<rasd:VirtualQuantity>2</rasd:VirtualQuantity>', 3)}
      ${item(2, '<rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:VirtualQuantity>1024</rasd:VirtualQuantity>', 4)}
      ${CONTROLLER}${parts.items ?? diskItem('d1', 0)}
      ${item(40, '<rasd:ElementName>Network adapter 1</rasd:ElementName><rasd:Address>00:50:56:AB:CD:EF</rasd:Address><rasd:Connection>LAN</rasd:Connection><rasd:ResourceSubType>E1000</rasd:ResourceSubType>', 10)}
      ${parts.config ?? '<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>'}
    </VirtualHardwareSection></VirtualSystem></Envelope>`;
}

async function scanned(text: string) {
  writeFileSync(join(root, 'web.ovf'), text);
  return leavesUntouched(root, () => scanRepository(root, { synchronous: true }));
}

describe('an OVF package in a folder', () => {
  it('is a VM with one point, its hardware and its network adapters', async () => {
    writeFlatBase(root, 'd');
    writeFileSync(join(root, 'web.mf'), 'SHA256(web.ovf)= 00\n');
    const { vms, orphans } = await scanned(ovf({}));
    expect(orphans).toEqual([]);
    expect(vms).toMatchObject([
      {
        name: 'web & mail',
        origin: 'ovf',
        guest: 'Debian 12',
        cpus: 2,
        memoryBytes: 1 << 30,
        firmware: 'efi',
        networks: [{ device: 'Network adapter 1', mac: '00:50:56:ab:cd:ef', network: 'LAN', model: 'e1000' }],
        points: [
          {
            id: 'exported',
            current: true,
            disks: [{ index: 0, node: 'scsi0:0', file: 'd.vmdk', size: 65_536 }],
            findings: [],
          },
        ],
        findings: [],
      },
    ]);
  });

  it.each([
    ['a missing file', {}, 'disk-missing', 'damaged'],
    ['a disk that is not described', { items: diskItem('nope', 0) }, 'disk-not-described', 'damaged'],
    [
      'parts',
      { files: '<File ovf:href="d.vmdk" ovf:id="f1" ovf:chunkSize="1000"/>' },
      'layer-unsupported',
      'suspicious',
    ],
    [
      'another compression',
      { files: '<File ovf:href="d.vmdk" ovf:id="f1" ovf:compression="bzip2"/>' },
      'layer-unsupported',
      'suspicious',
    ],
    [
      'a disk on the network',
      { files: '<File ovf:href="http://x/d.vmdk" ovf:id="f1"/>' },
      'layer-unsupported',
      'suspicious',
    ],
    [
      'a path that leaves the folder',
      { files: '<File ovf:href="../d.vmdk" ovf:id="f1"/>' },
      'outside-repository',
      'damaged',
    ],
    [
      'an encoded path that leaves the folder',
      { files: '<File ovf:href="%2e%2e/d.vmdk" ovf:id="f1"/>' },
      'outside-repository',
      'damaged',
    ],
  ] as const)('tells of %s', async (_, parts, code, severity) => {
    const { vms } = await scanned(ovf(parts));
    const findings = vms.flatMap((vm) => [...vm.findings, ...vm.points.flatMap((point) => point.findings)]);
    expect(findings.find((finding) => finding.code === code)).toMatchObject({ severity });
  });

  it('tells of a capacity that is not the size of the disk, and of disks without content', async () => {
    writeFlatBase(root, 'd');
    const disks =
      '<Disk ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="d1" ovf:fileRef="f1"/><Disk ovf:capacity="8" ovf:capacityAllocationUnits="GigaBytes" ovf:diskId="d2"/>';
    const { vms } = await scanned(ovf({ disks, items: diskItem('d1', 0) + diskItem('d2', 1) }));
    expect(vms[0]!.findings).toMatchObject([{ code: 'disk-without-content' }]);
    expect(vms[0]!.findings[0]!.message).toContain(`of ${8 * 2 ** 30} bytes`);
    expect(vms[0]!.points[0]!.findings).toMatchObject([
      { code: 'capacity-mismatch', expected: 1 << 20, found: 65_536 },
    ]);
  });

  it('shows a VM whose descriptor is damaged, with what is wrong, and its disks by themselves', async () => {
    writeFlatBase(root, 'd');
    const { vms } = await scanned('<Envelope><References>');
    expect(vms.map(({ name, origin }) => [name, origin])).toEqual([
      ['web', 'ovf'],
      ['d', 'images'],
    ]);
    expect(vms[0]!.findings).toMatchObject([{ severity: 'damaged', code: 'config-unreadable' }]);
  });

  it('reads several systems of one package', async () => {
    writeFlatBase(root, 'd');
    const one = ovf({});
    const system = /<VirtualSystem [\s\S]*<\/VirtualSystem>/.exec(one)![0];
    const two = `<VirtualSystemCollection ovf:id="c">${system}${system.replace('web &amp; mail', 'db')}</VirtualSystemCollection>`;
    const { vms } = await scanned(one.replace(system, two));
    expect(vms.map(({ name }) => name)).toEqual(['web & mail', 'db']);
  });
});

describe('sizes and addresses', () => {
  it.each([
    ['2', 'byte * 2^30', 2 ** 31],
    ['16', 'GigaBytes', 2 ** 34],
    ['512', undefined, 512],
    ['1', 'byte*10^9', 10 ** 9],
    ['99999999', 'byte * 2^60', undefined],
    ['-1', undefined, undefined],
    ['', undefined, undefined],
    ['many', 'MegaBytes', undefined],
  ])('%s %s', (quantity, units, bytes) => {
    expect(bytesOf(quantity, units)).toBe(bytes);
  });

  it('MAC addresses in every writing', () => {
    expect(['00:50:56:AB:CD:EF', '00-50-56-ab-cd-ef', '005056ABCDEF', '0050.56ab.cdef'].map(macOf)).toEqual(
      Array(4).fill('00:50:56:ab:cd:ef'),
    );
    expect(['', 'zz:50:56:ab:cd:ef', '00:50:56', undefined].map(macOf)).toEqual(Array(4).fill(undefined));
  });
});

const samples = join(corpus, 'libguestfs+virt-v2v/tests');
describe.skipIf(!existsSync(samples))('descriptors of the corpus (skipped without ../shared/corpus)', () => {
  const names = existsSync(samples) ? readdirSync(samples).filter((name) => name.endsWith('.ovf')) : [];

  it.each(names)('%s gives what virt-v2v reads', async (name) => {
    const { machines } = await readEnvelope(new MemorySource(readFileSync(join(samples, name)), name));
    expect(machines).toHaveLength(1);
    const [machine] = machines;
    expect(machine!.findings).toEqual([]);
    expect(machine!.disks.every(({ file }) => file !== undefined)).toBe(true);
    const expected = join(samples, `${basename(name, '.ovf')}.expected`);
    if (!existsSync(expected)) return;
    const text = readFileSync(expected, 'utf8');
    const field = (label: string): string | undefined => new RegExp(`${label}: (\\S+)`).exec(text)?.[1];
    expect(machine!.name).toBe(field('source name'));
    expect(machine!.memoryBytes).toBe(Number(field('memory')));
    expect(machine!.cpus).toBe(Number(field('nr vCPUs')));
    expect(machine!.firmware).toBe(field('firmware')?.replace('uefi', 'efi'));
    expect(machine!.disks.map(({ node }) => node?.replace(/\d+:\d+$/, ''))).toEqual(
      [...text.matchAll(/^\t\d+ \[(\w+)\]/gm)].map((match) => match[1]),
    );
    expect(machine!.networks.map(({ network, model }) => `Bridge "${network}" [${model}]`)).toEqual(
      [...text.matchAll(/^\t(Bridge .*)$/gm)].map((match) => match[1]),
    );
  });
});

import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { scanRepository } from '../../../main/engine/catalog/catalog.ts';
import type { Catalog, RestorePoint, VirtualMachine } from '../../../main/engine/catalog/model.ts';
import { readSettings } from '../../../main/engine/catalog/virtualbox/settings.ts';
import { openChain } from '../../../main/engine/chain/open.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { decodeXml, parseXml } from '../../../main/engine/xml.ts';
import { corpus, corpusHere, whySkipped } from '../../support/corpus.ts';
import { caseFolders, leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { uuidOf, writeVdi } from '../../support/vdi-builder.ts';
import {
  HARDWARE,
  type MachineParts,
  savedState,
  vboxText,
  writeLinearMachine,
} from '../../support/virtualbox-folder.ts';
import { type Grain, pattern, SECTOR, writeSparseDisk } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('virtualbox');
const fresh = caseFolders(scratch);
const codes = (findings: readonly { code: string }[]): string[] => findings.map(({ code }) => code);
const only = (catalog: Catalog): VirtualMachine => {
  expect(catalog.vms).toHaveLength(1);
  return catalog.vms[0]!;
};
const allCodes = (vm: VirtualMachine): string[] => [
  ...codes(vm.findings),
  ...vm.points.flatMap(({ findings }) => codes(findings)),
];
async function content(catalog: Catalog, point: RestorePoint): Promise<Buffer> {
  const disk = await openChain(point.disks[0]!.path!, catalog.folder);
  const bytes = Buffer.from(await disk.read(0, disk.size));
  await disk.close();
  return bytes;
}

describe('a VirtualBox VM', () => {
  it('is shown with its points, each with the disk that was current before it', async () => {
    const root = fresh();
    const machine = writeLinearMachine(root, 'web01', 2, (parts) => ({
      ...parts,
      snapshots: [{ ...parts.snapshots![0]!, description: 'before the <update> & more', name: 'first\nsnapshot' }],
    }));
    await leavesUntouched(root, async () => {
      const catalog = await scanRepository(root);
      const vm = only(catalog);
      expect(vm).toMatchObject({
        name: 'web01',
        origin: 'virtualbox',
        folder: 'web01',
        config: 'web01/web01.vbox',
        guest: 'Debian_64',
        cpus: 2,
        memoryBytes: 2048 * 2 ** 20,
        firmware: 'efi',
        networks: [
          { device: '0', mac: '08:00:27:4c:9c:fb', network: 'NAT', model: '82540EM' },
          { device: '1', mac: '08:00:27:8c:c8:21', network: 'host-only vboxnet0', model: 'virtio' },
        ],
        findings: [],
      });
      expect(vm.networks).toHaveLength(2);
      expect(vm.points).toMatchObject([
        {
          id: machine.snapshot(0),
          name: 'first snapshot',
          description: 'before the <update> & more',
          created: '2025-12-19T10:00:00.000Z',
          current: false,
          currentParent: false,
          memory: false,
          disks: [{ index: 0, node: 'SATA-0-0', file: 'web01/web01.vdi' }],
          findings: [],
        },
        { id: machine.snapshot(1), parent: machine.snapshot(0), currentParent: true, findings: [] },
        { id: 'current', name: 'Current state', parent: machine.snapshot(1), current: true, findings: [] },
      ]);
      for (const [n, point] of vm.points.entries())
        expect((await content(catalog, point)).equals(machine.model(n))).toBe(true);
      expect(vm.points[2]!.disks[0]!.chain).toEqual(
        [2, 1, 0].map((n) => (n === 0 ? 'web01/web01.vdi' : `web01/Snapshots/{${machine.uuid(n)}}.vdi`)),
      );
      expect(catalog.orphans).toEqual([]);
      expect(catalog.findings).toEqual([]);
    });
  });

  it('says what proves the consistency of a point: saved states, an aborted VM', async () => {
    const root = fresh();
    const machine = writeLinearMachine(root, 'web01', 2, (parts) => {
      const first = parts.snapshots![0]!;
      return {
        ...parts,
        attributes: { ...parts.attributes, aborted: 'true' },
        snapshots: [
          {
            ...first,
            stateFile: 'Snapshots/2025-12-19T10-00-00-0Z.sav',
            children: [{ ...first.children![0]!, stateFile: 'Snapshots/gone.sav' }],
          },
        ],
      };
    });
    writeFileSync(join(machine.folder, 'Snapshots/2025-12-19T10-00-00-0Z.sav'), savedState());
    writeFileSync(join(machine.folder, 'Snapshots/left.sav'), savedState());
    const catalog = await scanRepository(root);
    const [first, second, current] = only(catalog).points;
    expect(first).toMatchObject({ memory: true, quiesced: false, consistency: { level: 'memory' } });
    expect(first!.consistency.evidence[0]).toContain('2025-12-19T10-00-00-0Z.sav is a saved state of');
    expect(second).toMatchObject({ memory: false, consistency: { level: 'unknown' } });
    expect(codes(second!.findings)).toEqual(['state-file-missing']);
    expect(current).toMatchObject({ memory: false, consistency: { level: 'crash' } });
    expect(current!.consistency.evidence[0]).toContain('aborted is true');
    expect(catalog.orphans.map(({ file }) => file)).toEqual(['web01/Snapshots/left.sav']);
  });

  it('knows a VM that was saved, and a file that only has the name of a saved state', async () => {
    const root = fresh();
    const saved = writeLinearMachine(root, 'saved', 0, (parts) => ({
      ...parts,
      attributes: { stateFile: 'Snapshots/now.sav' },
    }));
    writeFileSync(join(saved.folder, 'Snapshots/now.sav'), savedState());
    const fake = writeLinearMachine(root, 'fake', 0, (parts) => ({
      ...parts,
      attributes: { stateFile: 'Snapshots/now.sav' },
    }));
    writeFileSync(join(fake.folder, 'Snapshots/now.sav'), 'no state');
    const { vms } = await scanRepository(root);
    const current = (name: string) => vms.find((vm) => vm.name === name)!.points[0]!;
    expect(current('saved')).toMatchObject({ memory: true, consistency: { level: 'memory' } });
    expect(current('fake')).toMatchObject({ memory: false, consistency: { level: 'unknown' } });
    expect(codes(current('fake').findings)).toEqual(['state-file-damaged']);
  });

  it('shows branches, and the one that the present state descends from', async () => {
    const root = fresh();
    const machine = writeLinearMachine(root, 'web01', 1);
    const branch = uuidOf(5000);
    writeVdi(machine.folder, `Snapshots/{${branch}}.vdi`, {
      size: 16 * 4096,
      blockSize: 4096,
      blocks: new Map(),
      uuid: branch,
      parent: machine.uuid(0),
    });
    const parts: MachineParts = {
      ...machine.parts,
      media: [
        {
          ...machine.parts.media[0]!,
          children: [...machine.parts.media[0]!.children!, { uuid: branch, location: `Snapshots/{${branch}}.vdi` }],
        },
      ],
      snapshots: [
        {
          ...machine.parts.snapshots![0]!,
          children: [
            {
              uuid: uuidOf(5001),
              name: 'side',
              timeStamp: '2025-12-20T00:00:00Z',
              disks: [{ controller: 'SATA', uuid: branch }],
            },
          ],
        },
      ],
    };
    writeFileSync(join(machine.folder, 'web01.vbox'), vboxText(parts));
    const vm = only(await scanRepository(root));
    expect(vm.points.map(({ name, parent }) => [name, parent])).toEqual([
      ['snap 1', undefined],
      ['side', machine.snapshot(0)],
      ['Current state', machine.snapshot(0)],
    ]);
    expect(allCodes(vm)).toEqual([]);
  });

  it('finds its images where the backup has them, whatever host they were on', async () => {
    const root = fresh();
    const machine = writeLinearMachine(root, 'web01', 1, (parts) => {
      const base = parts.media[0]!;
      return {
        ...parts,
        attributes: { ...parts.attributes, snapshotFolder: 'D:/VMs/web01/Snapshots' },
        media: [
          {
            ...base,
            location: 'C:/Users/Jo/VirtualBox VMs/web01/web01.vdi',
            children: [{ ...base.children![0]!, location: `D:/VMs/web01/${base.children![0]!.location}` }],
          },
        ],
      };
    });
    writeVdi(machine.folder, 'Snapshots/stray.vdi', {
      size: 8192,
      blockSize: 4096,
      blocks: new Map(),
      uuid: uuidOf(7000),
    });
    const catalog = await scanRepository(root);
    expect(only(catalog).points.map(({ disks }) => disks[0]!.error)).toEqual([undefined, undefined]);
    expect((await content(catalog, only(catalog).points[1]!)).equals(machine.model(1))).toBe(true);
    expect(catalog.orphans.map(({ file }) => file)).toEqual(['web01/Snapshots/stray.vdi']);
  });

  it('finds an image that its registry lacks by its identity, and says so where there is none', async () => {
    const root = fresh();
    const machine = writeLinearMachine(root, 'web01', 1, (parts) => ({ ...parts, media: [] }));
    renameSync(join(machine.folder, 'web01.vdi'), join(machine.folder, 'renamed.vdi'));
    const catalog = await scanRepository(root);
    expect(allCodes(only(catalog))).toEqual(['found-by-identity', 'found-by-identity']);
    expect((await content(catalog, only(catalog).points[1]!)).equals(machine.model(1))).toBe(true);
    rmSync(join(machine.folder, 'renamed.vdi'));
    const [snapshot] = only(await scanRepository(root)).points;
    expect(snapshot!.disks[0]!).toMatchObject({ file: `{${machine.uuid(0)}}`, error: { kind: 'not-found' } });
  });

  it('is read from its .vbox-prev where the .vbox is missing or damaged', async () => {
    const root = fresh();
    const machine = writeLinearMachine(root, 'web01', 1);
    const vbox = join(machine.folder, 'web01.vbox');
    const text = readFileSync(vbox, 'utf8');
    writeFileSync(`${vbox}-prev`, text);
    expect(allCodes(only(await scanRepository(root)))).toEqual([]);
    writeFileSync(vbox, text.slice(0, text.length / 2));
    const damaged = only(await scanRepository(root));
    expect(damaged).toMatchObject({ name: 'web01', config: 'web01/web01.vbox-prev' });
    expect(codes(damaged.findings)).toEqual(['config-unreadable', 'previous-settings']);
    expect(damaged.points).toHaveLength(2);
    rmSync(vbox);
    expect(codes(only(await scanRepository(root)).findings)).toEqual(['previous-settings']);
    writeFileSync(`${vbox}-prev`, '');
    const catalog = await scanRepository(root);
    const lost = catalog.vms.find(({ origin }) => origin === 'virtualbox')!;
    expect(codes(lost.findings)).toEqual(['config-unreadable']);
    // Its images are then shown on their own.
    expect(catalog.vms.filter(({ origin }) => origin === 'images')).toMatchObject([{ points: [{}, {}] }]);
  });

  it('tells of media that snapshots do not hold, each once', async () => {
    const root = fresh();
    writeLinearMachine(root, 'web01', 1, (parts) => ({
      ...parts,
      media: [{ ...parts.media[0]!, type: 'Immutable' }],
    }));
    const vm = only(await scanRepository(root));
    expect(vm.findings).toMatchObject([{ severity: 'note', code: 'medium-immutable' }]);
  });

  it('refuses encrypted media by name, gives no path to them, and takes them for nobody else’s', async () => {
    const root = fresh();
    writeLinearMachine(root, 'web01', 1, (parts) => ({
      ...parts,
      media: [{ ...parts.media[0]!, properties: { 'CRYPT/KeyId': 'k', 'CRYPT/KeyStore': 'U0NORQ==' } }],
    }));
    const catalog = await scanRepository(root);
    const vm = only(catalog);
    for (const point of vm.points) {
      expect(point.disks[0]).toMatchObject({ error: { kind: 'needs-key' } });
      expect(point.disks[0]!.path).toBeUndefined();
    }
    expect(catalog.orphans).toEqual([]);
  });

  it('refuses an encrypted VM by name, and shows its images on their own', async () => {
    const root = fresh();
    const machine = writeLinearMachine(root, 'web01', 0);
    writeFileSync(
      join(machine.folder, 'web01.vbox'),
      `<VirtualBox version="1.19-linux"><MachineEncrypted uuid="{${uuidOf(1)}}" keyId="k" keyStore="x">AAAA</MachineEncrypted></VirtualBox>`,
    );
    const { vms } = await scanRepository(root);
    expect(vms.map(({ origin }) => origin).sort()).toEqual(['images', 'virtualbox']);
    expect(codes(vms.find(({ origin }) => origin === 'virtualbox')!.findings)).toEqual(['encrypted-vm']);
  });

  it('does not show a disk that lost its link as one that stands alone', async () => {
    const root = fresh();
    const machine = writeLinearMachine(root, 'web01', 1);
    // A base in the place of the differencing image: what it lacks would read as zeros.
    writeVdi(machine.folder, `Snapshots/{${machine.uuid(1)}}.vdi`, {
      size: 16 * 4096,
      blockSize: 4096,
      blocks: new Map(),
      uuid: machine.uuid(1),
    });
    const current = only(await scanRepository(root)).points.at(-1)!;
    expect(current.disks[0]).toMatchObject({ error: { kind: 'corrupt' } });
    expect(current.disks[0]!.path).toBeUndefined();
  });

  it('is suspicious of an image that is not the one it records', async () => {
    const root = fresh();
    writeLinearMachine(root, 'web01', 0, (parts) => ({
      ...parts,
      media: [{ ...parts.media[0]!, uuid: uuidOf(4000) }],
      disks: [{ controller: 'SATA', uuid: uuidOf(4000) }],
    }));
    const vm = only(await scanRepository(root));
    expect(codes(vm.points[0]!.findings)).toEqual(['medium-uuid-differs']);
  });

  it('keeps what can be read of damaged settings, and goes on', async () => {
    const root = fresh();
    writeLinearMachine(root, 'good', 1);
    writeLinearMachine(root, 'bad', 2, (parts) => {
      const first = parts.snapshots![0]!;
      return {
        ...parts,
        attributes: { currentSnapshot: '{nonsense}' },
        media: [
          ...parts.media,
          parts.media[0]!,
          { uuid: uuidOf(6000), location: 'iscsi://host/target', format: 'iSCSI' },
        ],
        snapshots: [{ ...first, children: [first.children![0]!, { ...first, name: 'twin', children: [] }] }],
        disks: [...parts.disks, { controller: 'SATA', port: 1, uuid: uuidOf(6000) }],
      };
    });
    mkdirSync(join(root, 'strange'));
    for (const [name, text] of [
      ['entity', '<!DOCTYPE x [<!ENTITY a "b">]><VirtualBox/>'],
      ['root', '<Other/>'],
      ['empty', '<VirtualBox/>'],
      ['bare', '<VirtualBox><Machine/></VirtualBox>'],
      ['deep', `<VirtualBox><Machine>${'<Snapshot><Snapshots>'.repeat(3000)}</Machine></VirtualBox>`],
    ]) {
      writeFileSync(join(root, 'strange', `${name}.vbox`), text!);
    }
    const catalog = await scanRepository(root);
    const find = (name: string) => catalog.vms.find((vm) => vm.name === name)!;
    expect(allCodes(find('good'))).toEqual([]);
    expect(codes(find('bad').findings)).toEqual(['medium-unreadable', 'snapshot-unreadable', 'current-inferred']);
    expect(find('bad').points.at(-1)).toMatchObject({ parent: find('bad').points[1]!.id });
    expect(find('bad').points.at(-1)!.disks[1]).toMatchObject({ node: 'SATA-1-0', error: { kind: 'unsupported' } });
    for (const name of ['entity', 'root', 'empty', 'deep']) {
      expect(codes(find(name).findings), name).toEqual(['config-unreadable']);
    }
    expect(find('bare')).toMatchObject({ points: [{ id: 'current', disks: [] }] });
  });

  it('does not leave the folder for what its settings name', async () => {
    const root = fresh();
    const outside = join(scratch.path, `outside-${basename(root)}`);
    mkdirSync(outside);
    writeVdi(outside, 'secret.vdi', { size: 8192, blockSize: 4096, blocks: new Map() });
    writeLinearMachine(root, 'web01', 0, (parts) => ({
      ...parts,
      attributes: { snapshotFolder: '../..', stateFile: '../../../etc/passwd' },
      media: [{ ...parts.media[0]!, location: `../../outside-${basename(root)}/secret.vdi` }],
    }));
    const { vms } = await scanRepository(root);
    const [current] = vms.find(({ origin }) => origin === 'virtualbox')!.points;
    expect(current!.disks[0]).toMatchObject({ error: { kind: 'denied' } });
    expect(current!.memory).toBe(false);
  });

  it('reads settings from before VirtualBox 4', () => {
    const root = parseXml(
      `<VirtualBox version="1.3-linux"><Machine uuid="{${uuidOf(1)}}" name="old"><HardDiskAttachments>
        <HardDiskAttachment hardDisk="{${uuidOf(3)}}" bus="SATA" channel="1" device="0"/>
        <HardDiskAttachment hardDisk="{${uuidOf(2)}}" bus="IDE" channel="0" device="1"/>
      </HardDiskAttachments><Hardware>${HARDWARE}</Hardware></Machine></VirtualBox>`,
      'VirtualBox settings',
      'old.xml',
    );
    expect(readSettings(root, 'old.xml').disks).toEqual([
      { node: 'IDE-0-1', uuid: uuidOf(2) },
      { node: 'SATA-1-0', uuid: uuidOf(3) },
    ]);
  });
});

describe.skipIf(!corpusHere)(`corpus of real .vbox files${whySkipped}`, () => {
  const real = (name: string) => {
    const path = join(corpus, 'fox-it+dissect.hypervisor/tests/_data/descriptor/vbox', name);
    return readSettings(parseXml(decodeXml(readFileSync(path)), 'VirtualBox settings', name), name);
  };

  it('GOAD-DC01.vbox: snapshots on VMDKs, with a branch that no snapshot names', () => {
    const machine = real('GOAD-DC01.vbox');
    expect(machine).toMatchObject({
      name: 'GOAD-DC01',
      guest: 'Windows2016_64',
      cpus: 2,
      memoryBytes: 3000 * 2 ** 20,
      firmware: 'bios',
      currentSnapshot: '264ccd7e-9ffd-45ba-bd0e-4e1968d3355a',
      snapshots: [
        { name: 'push_1766163705_7292', created: '2025-12-19T17:01:46.000Z', disks: [{ node: 'IDE Controller-0-0' }] },
        { name: 'push_1766170151_8843', parent: '95b1572d-c893-48f0-9bc9-6a01a0fd2cb6' },
      ],
      disks: [{ node: 'IDE Controller-0-0', uuid: 'e6800503-8273-4f16-b584-c7ba2c1df698' }],
      networks: [{ network: 'NAT' }, { network: 'host-only vboxnet0' }],
      findings: [],
    });
    expect(machine.media.size).toBe(5);
    expect([...machine.media.values()].at(-1)).toMatchObject({
      uuid: '706a96fe-0e11-4985-af32-7561d26612d4',
      parent: '35bf5129-1caa-4117-b20a-d73868d9d5d2',
      format: 'VMDK',
      encrypted: false,
    });
  });

  it('encrypted.vbox: one disk is encrypted with its snapshot, the other is not', () => {
    const machine = real('encrypted.vbox');
    expect([...machine.media.values()].map(({ location, encrypted }) => [location, encrypted])).toEqual([
      ['encrypted test.vdi', true],
      ['encrypted test_1.vdi', false],
      ['Snapshots/{742e6d0f-8896-4aa6-97f4-e05d70e73029}.vdi', true],
    ]);
    expect(machine).toMatchObject({ name: 'encrypted test', firmware: 'efi', encrypted: false, findings: [] });
    expect(machine.disks.map(({ node }) => node)).toEqual(['SATA-0-0', 'SATA-2-0']);
  });

  it('encrypted.vbox in a catalogue: refused by name where it is encrypted', async () => {
    const root = fresh();
    const path = join(corpus, 'fox-it+dissect.hypervisor/tests/_data/descriptor/vbox/encrypted.vbox');
    writeFileSync(join(root, 'encrypted test.vbox'), readFileSync(path));
    writeVdi(root, 'encrypted test_1.vdi', {
      size: 8192,
      blockSize: 4096,
      blocks: new Map(),
      uuid: '1db0b9fe-36c2-44e8-9b7c-61fa5b6d1462',
    });
    const vm = only(await scanRepository(root));
    expect(vm.points.at(-1)!.disks).toMatchObject([
      { node: 'SATA-0-0', error: { kind: 'needs-key' } },
      { node: 'SATA-2-0', file: 'encrypted test_1.vdi' },
    ]);
    expect(vm.points.at(-1)!.disks[1]!.error).toBeUndefined();
  });
});

describe('a VirtualBox VM on VMDKs', () => {
  /** As VirtualBox writes a differencing one: parentCID says "none", and only UUIDs of its own name the parent. */
  function write(folder: string, name: string, seed: number, ids: { image: string; parent?: string }): void {
    const grains = new Map<number, Grain>([[seed, pattern(seed * 8 * SECTOR, 8 * SECTOR, seed)]]);
    const none = '00000000-0000-0000-0000-000000000000';
    const more = [
      'ddb.virtualHWVersion = "4"',
      'ddb.adapterType="ide"',
      `ddb.uuid.image="${ids.image}"`,
      `ddb.uuid.parent="${ids.parent ?? none}"`,
      `ddb.uuid.modification="${none}"`,
      `ddb.uuid.parentmodification="${none}"`,
    ];
    writeSparseDisk(folder, name, { capacitySectors: 128, grainSectors: 8, grains }, { cid: `0000000${seed}`, more });
  }

  it('reads each snapshot on its parent, which no name leads to', async () => {
    const root = fresh();
    mkdirSync(join(root, 'Snapshots'));
    const [base, diff] = [uuidOf(31), uuidOf(32)];
    write(root, 'vm-disk001', 1, { image: base });
    write(root, `Snapshots/{${diff}}`, 2, { image: diff, parent: base });
    const location = `Snapshots/{${diff}}.vmdk`;
    const parts: MachineParts = {
      name: 'vm',
      attributes: { currentSnapshot: `{${uuidOf(40)}}` },
      media: [
        {
          uuid: base,
          location: 'vm-disk001.vmdk',
          format: 'VMDK',
          children: [{ uuid: diff, location, format: 'VMDK' }],
        },
      ],
      snapshots: [{ uuid: uuidOf(40), name: 's', disks: [{ controller: 'IDE', uuid: base }] }],
      disks: [{ controller: 'IDE', uuid: diff }],
    };
    writeFileSync(join(root, 'vm.vbox'), vboxText(parts));
    const catalog = await scanRepository(root);
    const vm = only(catalog);
    expect(allCodes(vm)).toEqual([]);
    expect(vm.points[1]!.disks[0]!.chain).toEqual([location, 'vm-disk001.vmdk']);
    const disk = await content(catalog, vm.points[1]!);
    const model = Buffer.alloc(128 * SECTOR);
    for (const seed of [1, 2]) pattern(seed * 8 * SECTOR, 8 * SECTOR, seed).copy(model, seed * 8 * SECTOR);
    expect(disk).toEqual(model);
    // Without the base it is refused, never shown with zeros in the base's place.
    rmSync(join(root, 'vm-disk001.vmdk'));
    await expect(openChain(location, new Confinement(root))).rejects.toMatchObject({
      kind: 'missing-parent',
      details: { expectedId: base },
    });
  });
});

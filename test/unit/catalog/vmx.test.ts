import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../../main/engine/catalog/vmware/config.ts';
import { readSavedState } from '../../../main/engine/catalog/vmware/vmsn.ts';
import { readMachine } from '../../../main/engine/catalog/vmware/vmx.ts';
import { CorruptError } from '../../../main/engine/errors.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { corpus } from '../../support/corpus.ts';
import { stateFile } from '../../support/vmware-folder.ts';

const read = (text: string | Buffer) => readMachine(parseConfig(Buffer.from(text as string), 'test.vmx'));
const codes = (machine: ReturnType<typeof read>) => machine.findings.map((finding) => finding.code);

describe('.vmx', () => {
  it('reads what the VM is made of', () => {
    expect(
      read(
        'displayName = "web|0A01"\nguestOS = "debian12-64"\nnumvcpus = "4"\nmemSize = "2048"\nfirmware = "efi"\nuefi.secureBoot.enabled = "TRUE"\ncleanShutdown = "FALSE"\n',
      ),
    ).toMatchObject({
      name: 'web 01',
      guest: 'debian12-64',
      cpus: 4,
      memoryBytes: 2 ** 31,
      firmware: 'efi, secure boot',
      cleanShutdown: false,
      encrypted: false,
    });
    const odd = read('numvcpus = "-3"\nmemSize = "99999999999"\n');
    expect(odd).toMatchObject({ cpus: 1, memoryBytes: undefined, name: undefined });
  });

  it('orders disks by controller, unit as numbers, and leaves out what is no disk', () => {
    const disk = (node: string, file: string, type?: string) =>
      `${node}.fileName = "${file}"\n${type === undefined ? '' : `${node}.deviceType = "${type}"\n`}`;
    const machine = read(
      disk('nvme0:0', 'n.vmdk') +
        disk('scsi0:10', 's10.vmdk', 'scsi-hardDisk') +
        disk('SCSI0:2', 's2.vmdk') +
        disk('scsi1:0', 's1-0.vmdk') +
        disk('ide0:0', 'i.vmdk', 'disk') +
        disk('sata0:1', 'sa.vmdk') +
        disk('ide1:0', 'auto detect', 'cdrom-raw') +
        disk('sata0:0', '/vmfs/x/install.iso') +
        disk('scsi0:3', 'off.vmdk') +
        'scsi0:3.present = "FALSE"\n' +
        disk('scsi2:0', 'none.vmdk') +
        'scsi2.present = "FALSE"\n' +
        disk('scsi0:4', '/dev/sg3', 'scsi-passthru') +
        disk('scsi0:99999', 'x.vmdk') +
        disk('floppy0', 'f.img'),
    );
    expect(machine.disks.map((entry) => `${entry.node} ${entry.fileName}`)).toEqual([
      'scsi0:2 s2.vmdk',
      'scsi0:10 s10.vmdk',
      'scsi1:0 s1-0.vmdk',
      'sata0:1 sa.vmdk',
      'ide0:0 i.vmdk',
      'nvme0:0 n.vmdk',
    ]);
    expect(codes(machine)).toEqual(['pass-through-device']);
  });

  it('tells of independent and nonpersistent disks and of redo logs', () => {
    const machine = read(
      'scsi0:0.fileName = "a.vmdk"\nscsi0:0.mode = "independent-persistent"\nscsi0:0.redo = ""\nscsi0:1.fileName = "b.vmdk"\nscsi0:1.mode = "independent-nonpersistent"\nscsi0:1.redo = "b.vmdk.REDO_a1b2c3"\n',
    );
    expect(codes(machine)).toEqual(['independent-disk', 'independent-disk', 'nonpersistent-disk', 'redo-log']);
    expect(machine.findings.at(-1)).toMatchObject({ structure: 'scsi0:1', found: 'b.vmdk.REDO_a1b2c3' });
  });
});

describe.skipIf(!existsSync(corpus))('.vmx of others (shared/corpus, skipped where absent)', () => {
  const sample = (path: string) => readMachine(parseConfig(readFileSync(join(corpus, path)), path));

  it('ESXi 8 with a disk in a subfolder', () => {
    const machine = sample('vmware-text/libvirt/esx-in-the-wild-17.vmx');
    expect(machine).toMatchObject({
      name: 'esx8.0-win11-with-second-disk-in-subfolder',
      guest: 'windows2019srvNext-64',
      cpus: 2,
      memoryBytes: 2 ** 32,
      cleanShutdown: true,
      findings: [],
    });
    expect(machine.disks.map((disk) => `${disk.node} ${disk.fileName}`)).toEqual([
      'scsi0:0 esx8.0-win11-with-second-disk-in-subfolder.vmdk',
      'scsi0:1 subfolder/esx8.0-win11-with-second-disk-in-subfolder_1.vmdk',
    ]);
  });

  it('an encrypted VM is named as such', () => {
    const machine = sample('fox-it+dissect.hypervisor/tests/_data/descriptor/vmx/encrypted.vmx');
    expect(machine).toMatchObject({ name: 'Encrypted VM', encrypted: true, disks: [] });
    expect(machine.findings).toMatchObject([{ code: 'encrypted-vm', structure: 'encryption.keySafe' }]);
  });

  it('21 disks on two controllers, a CD and a floppy', () => {
    const machine = sample('libguestfs+virt-v2v/tests/test-i-vmx-1.vmx');
    expect(machine.disks).toHaveLength(21);
    expect(machine.disks.every((disk) => disk.fileName.endsWith('.vmdk'))).toBe(true);
    expect(sample('libguestfs+virt-v2v/tests/test-i-vmx-2.vmx').disks.map((disk) => disk.fileName)).toEqual([
      'Fedora-20.vmdk',
    ]);
  });
});

describe('.vmsn', () => {
  const open = (bytes: Buffer) => readSavedState(new MemorySource(bytes, 'a.vmsn'));

  it('tells memory from none', async () => {
    expect(await open(stateFile())).toEqual({ groups: ['Snapshot', 'memory', 'cpu'], memoryBytes: 0 });
    expect((await open(stateFile({ memory: Buffer.alloc(8192, 1) }))).memoryBytes).toBe(8192);
  });

  it('refuses every truncation and a wrong magic with a typed error, or reads what is there', async () => {
    const whole = stateFile({ memory: Buffer.alloc(512, 1), groups: ['Snapshot', 'memory'] });
    for (let length = 0; length < whole.length; length += 7) {
      const result = await open(whole.subarray(0, length)).catch((error: unknown) => error);
      expect(result, `${length} bytes`).toBeInstanceOf(CorruptError);
    }
    const error = await open(stateFile({ magic: 0x12345678 })).catch((caught: unknown) => caught);
    expect(error).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'VMware state header magic', position: 0, found: '0x12345678' },
    });
  });

  it('bounds the number of groups and of tags', async () => {
    const many = stateFile();
    many.writeUInt32LE(0xffffffff, 8);
    await expect(open(many)).rejects.toThrow(CorruptError);
    many.writeUInt32LE(100, 8);
    await expect(open(many)).rejects.toThrow(
      /group count is damaged in a.vmsn at byte 8: expected at most 3, found 100/,
    );
    // A group of tags without an end.
    const start = 12 + 80;
    const endless = Buffer.alloc(start + 20_000, 0x01);
    endless.writeUInt32LE(0xbed2bed2, 0);
    endless.writeUInt32LE(1, 8);
    endless.fill(0, 12, start);
    endless.write('memory', 12, 'latin1');
    endless.writeBigUInt64LE(BigInt(start), 12 + 64);
    await expect(open(endless)).rejects.toThrow(/at most 1024 tags/);
  });
});

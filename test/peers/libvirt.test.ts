/**
 * Folders of QEMU VMs whose images qemu-img wrote, internal snapshots and backing chains among them: the scan finds every point, and
 * each opens to what qemu-img itself says it holds.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { scanRepository } from '../../main/engine/catalog/catalog.ts';
import { isIntact, type RestorePoint } from '../../main/engine/catalog/model.ts';
import { openChain } from '../../main/engine/chain/open.ts';
import { verifyChain } from '../../main/engine/chain/verify.ts';
import type { Finding } from '../../main/engine/image/image.ts';
import type { Confinement } from '../../main/engine/storage/confinement.ts';
import { domainXml, snapshotXml, writeDomain, writeSnapshot } from '../support/libvirt-builder.ts';
import { describePeers, run } from '../support/peers.ts';
import { leavesUntouched, scratchFolder } from '../support/scratch.ts';

const IMAGES = '/var/lib/libvirt/images';

/** Creates an image, or an overlay; writes and snapshots follow. */
function image(folder: string, name: string, size: string | { backing: string }): void {
  mkdirSync(folder, { recursive: true });
  const args = typeof size === 'string' ? [name, size] : ['-b', size.backing, '-F', 'qcow2', name];
  run('qemu-img', ['create', '-q', '-f', 'qcow2', ...args], { cwd: folder });
}
const fill = (folder: string, name: string, byte: number, at: string): string =>
  run('qemu-io', ['-f', 'qcow2', '-c', `write -P ${byte} ${at} 256k`, name], { cwd: folder });
const snapshot = (folder: string, name: string, tag: string): string =>
  run('qemu-img', ['snapshot', '-c', tag, name], { cwd: folder });

/** SHA-256 of what qemu-img reads of an image, or of a snapshot inside it. */
function truth(folder: string, name: string, tag?: string): string {
  const inside = tag === undefined ? [] : ['-l', `snapshot.name=${tag}`];
  const raw = `${name}.truth`;
  run('qemu-img', ['convert', '-f', 'qcow2', ...inside, '-O', 'raw', join(folder, name), join(scratch.path, raw)]);
  return createHash('sha256')
    .update(readFileSync(join(scratch.path, raw)))
    .digest('hex');
}

async function content(point: RestorePoint, folder: Confinement, disk = 0): Promise<string> {
  const chain = await openChain(point.disks[disk]!.path!, folder);
  const hash = createHash('sha256');
  for (let at = 0; at < chain.size; at += 1 << 20)
    hash.update(await chain.read(at, Math.min(1 << 20, chain.size - at)));
  await chain.close();
  return hash.digest('hex');
}

const scratch = scratchFolder('libvirt-peers');
const scan = (path: string, around = path) =>
  leavesUntouched(around, () => scanRepository(path, { synchronous: true }));

describePeers('folders of QEMU VMs', { peers: ['qemu-img', 'qemu-io'] }, () => {
  let loose = '';
  let host = '';
  beforeAll(() => {
    loose = join(scratch.path, 'loose');
    image(loose, 'base.qcow2', '8M');
    fill(loose, 'base.qcow2', 1, '0');
    snapshot(loose, 'base.qcow2', 'first');
    fill(loose, 'base.qcow2', 2, '1M');
    image(loose, 'base.before-update', { backing: 'base.qcow2' });
    fill(loose, 'base.before-update', 3, '2M');
    snapshot(loose, 'base.before-update', 'top 1');
    fill(loose, 'base.before-update', 4, '0');
    snapshot(loose, 'base.before-update', 'top 2');
    fill(loose, 'base.before-update', 5, '3M');

    host = join(scratch.path, 'host');
    const images = join(host, 'var/lib/libvirt/images');
    const kept = join(host, 'var/lib/libvirt/qemu/snapshot/web01');
    for (const name of ['web01.qcow2', 'data.qcow2']) {
      image(images, name, '4M');
      fill(images, name, 1, '0');
      snapshot(images, name, 'installed');
      fill(images, name, 2, '512k');
    }
    image(images, 'web01.live', { backing: 'web01.qcow2' });
    image(images, 'data.live', { backing: 'data.qcow2' });
    fill(images, 'web01.live', 3, '1M');
    const disks = (...names: string[]) => ({
      disks: names.map((name, index) => ({ node: `vd${'ab'[index]}`, file: `${IMAGES}/${name}` })),
    });
    const nodes = ['vda', 'vdb'];
    writeDomain(join(host, 'etc/libvirt/qemu/web01.xml'), disks('web01.live', 'data.live'));
    writeSnapshot(kept, {
      name: 'installed',
      disks: nodes.map((node) => ({ node, kept: 'internal' })),
      domain: disks('web01.qcow2', 'data.qcow2'),
    });
    writeSnapshot(kept, {
      name: 'live',
      parent: 'installed',
      created: 1_700_003_600,
      state: 'disk-snapshot',
      disks: nodes.map((node, index) => ({
        node,
        kept: 'external',
        overlay: `${IMAGES}/${index === 0 ? 'web01' : 'data'}.live`,
      })),
      domain: disks('web01.qcow2', 'data.qcow2'),
      active: true,
    });
  });

  it('loose images: chains and the snapshots inside them', async () => {
    const catalog = await scan(loose);
    expect(catalog.vms).toHaveLength(1);
    const [vm] = catalog.vms;
    expect(vm!.name).toBe('base');
    expect(vm!.points.map(({ name, disks }) => [name, disks[0]!.chain])).toEqual([
      ['first', ['base.qcow2/@1']],
      ['base', ['base.qcow2']],
      ['top 1', ['base.before-update/@1', 'base.qcow2']],
      ['top 2', ['base.before-update/@2', 'base.qcow2']],
      ['base.before-update', ['base.before-update', 'base.qcow2']],
    ]);
    const expected = [
      truth(loose, 'base.qcow2', 'first'),
      truth(loose, 'base.qcow2'),
      truth(loose, 'base.before-update', 'top 1'),
      truth(loose, 'base.before-update', 'top 2'),
      truth(loose, 'base.before-update'),
    ];
    expect(new Set(expected).size).toBe(5);
    for (const [index, point] of vm!.points.entries()) {
      expect(await content(point, catalog.folder), point.name).toBe(expected[index]);
      const findings: Finding[] = [];
      for await (const finding of verifyChain(point.disks[0]!.path!, catalog.folder)) findings.push(finding);
      expect(findings.filter(({ severity }) => severity !== 'note')).toEqual([]);
    }
  });

  it('an image opened by itself', async () => {
    const catalog = await scan(join(loose, 'base.qcow2'), loose);
    const [vm] = catalog.vms;
    expect(vm!.points.map(({ id, current }) => [id, current])).toEqual([
      ['1', false],
      ['base.qcow2', true],
    ]);
    expect(vm!.points[0]?.created).toMatch(/^\d{4}-\d\d-\d\dT/);
    expect(await content(vm!.points[0]!, catalog.folder)).toBe(truth(loose, 'base.qcow2', 'first'));
  });

  it('a copy of a libvirt host: internal and external snapshots of two disks', async () => {
    const catalog = await scan(host);
    expect(catalog.vms).toHaveLength(1);
    expect(catalog.orphans).toEqual([]);
    const [vm] = catalog.vms;
    expect(vm!.points.map(({ id, parent }) => [id, parent])).toEqual([
      ['installed', undefined],
      ['live', 'installed'],
      ['current', 'live'],
    ]);
    expect([...vm!.findings, ...vm!.points.flatMap(({ findings }) => findings)]).toEqual([]);
    expect(vm!.points.every(isIntact)).toBe(true);
    const images = join(host, 'var/lib/libvirt/images');
    const [installed, live, current] = vm!.points;
    for (const [index, name] of ['web01', 'data'].entries()) {
      expect(await content(installed!, catalog.folder, index)).toBe(truth(images, `${name}.qcow2`, 'installed'));
      expect(await content(live!, catalog.folder, index)).toBe(truth(images, `${name}.qcow2`));
      expect(await content(current!, catalog.folder, index)).toBe(truth(images, `${name}.live`));
    }
  });
});

/** What virsh's test driver, which formats XML with the same code as all of libvirt, makes of it. */
describePeers('XML that libvirt wrote', { peers: ['qemu-img', 'qemu-io', 'qemu-system-x86_64', 'virsh'] }, () => {
  let folder = '';
  beforeAll(() => {
    folder = join(scratch.path, 'virsh');
    for (const name of ['web01.qcow2', 'data.qcow2']) {
      image(folder, name, '4M');
      fill(folder, name, 1, '0');
      snapshot(folder, name, 'off');
      fill(folder, name, 2, '512k');
    }
    const drives = ['web01.qcow2', 'data.qcow2'].flatMap((name) => ['-drive', `file=${name},if=virtio,format=qcow2`]);
    const machine = ['-S', '-nodefaults', '-display', 'none', '-machine', 'pc,accel=tcg', '-m', '8'];
    run('qemu-system-x86_64', [...machine, '-monitor', 'stdio', ...drives], {
      input: 'savevm on\nquit\n',
      cwd: folder,
    });
    fill(folder, 'web01.qcow2', 3, '1M');
    image(folder, 'web01.ext', { backing: 'web01.qcow2' });
    fill(folder, 'web01.ext', 4, '2M');

    const parts = (first: string) => ({
      disks: [
        { node: 'vda', file: `${IMAGES}/${first}` },
        { node: 'vdb', file: `${IMAGES}/data.qcow2` },
      ],
    });
    const asTest = (xml: string): string =>
      xml
        .replace("type='kvm'", "type='test'")
        .replace(/<emulator>.*/, '')
        .replaceAll(/ machine='[^']*'/g, '')
        .replaceAll("arch='x86_64'", "arch='i686'")
        .replace(/ {4}<disk type='file' device='cdrom'>[\s\S]*?<\/disk>/, '');
    const work = join(scratch.path, 'virsh-work');
    mkdirSync(work);
    writeFileSync(join(work, 'before.xml'), asTest(domainXml(parts('web01.qcow2'))));
    writeFileSync(join(work, 'after.xml'), asTest(domainXml(parts('web01.ext'))));
    const ext = snapshotXml({
      name: 'ext',
      parent: 'on',
      state: 'disk-snapshot',
      created: 4_000_000_000,
      disks: [
        { node: 'vda', kept: 'external', overlay: `${IMAGES}/web01.ext` },
        { node: 'vdb', kept: 'no' },
      ],
      domain: parts('web01.qcow2'),
    });
    writeFileSync(join(work, 'ext.xml'), asTest(ext));
    const commands = [
      'define before.xml',
      'snapshot-create-as web01 off "switched off & <clean>"',
      'start web01',
      'snapshot-create-as web01 on',
      'destroy web01',
      'snapshot-create web01 ext.xml --redefine',
      ...['off', 'on', 'ext'].map((name) => `snapshot-dumpxml web01 ${name}`),
      'define after.xml',
      'dumpxml web01',
    ];
    const output = run('virsh', ['-q', '-c', 'test:///default', commands.join('; ')], { cwd: work });
    const snapshots = output.match(/<domainsnapshot>[\s\S]*?<\/domainsnapshot>/g) ?? [];
    expect(snapshots).toHaveLength(3);
    for (const [index, xml] of snapshots.entries()) writeFileSync(join(folder, `snapshot-${index}.xml`), xml);
    writeFileSync(
      join(folder, 'web01.xml'),
      /<domain type[\s\S]*?<\/domain>\s*$/.exec(output.slice(output.lastIndexOf('<domain type')))![0],
    );
  });

  it('internal, with memory, and external, all in one VM', async () => {
    const catalog = await scan(folder);
    expect(catalog.vms.map(({ name, origin }) => [name, origin])).toEqual([['web01', 'libvirt']]);
    const [vm] = catalog.vms;
    expect(vm).toMatchObject({
      cpus: 2,
      memoryBytes: 2 ** 31,
      networks: [{ mac: '52:54:00:ab:cd:01', model: 'virtio' }],
    });
    expect(vm!.points.map(({ id, parent, memory, consistency }) => [id, parent, memory, consistency.level])).toEqual([
      ['off', undefined, false, 'file-system'],
      ['on', 'off', true, 'memory'],
      ['ext', 'on', false, 'crash'],
      ['current', 'ext', false, 'unknown'],
    ]);
    expect(vm!.points[0]?.description).toBe('switched off & <clean>');
    expect(vm!.points[1]?.consistency.evidence[0]).toMatch(/^snapshot "on" in web01.qcow2 holds \d+ bytes of VM state/);
    expect(vm!.points.flatMap(({ findings }) => findings).map(({ code }) => code)).toEqual([
      'disk-not-in-snapshot',
      'disk-gone',
    ]);
    expect(catalog.orphans).toEqual([]);
    for (const [index, tag] of ['off', 'on'].entries()) {
      expect(await content(vm!.points[index]!, catalog.folder)).toBe(truth(folder, 'web01.qcow2', tag));
      expect(await content(vm!.points[index]!, catalog.folder, 1)).toBe(truth(folder, 'data.qcow2', tag));
    }
    expect(await content(vm!.points[2]!, catalog.folder)).toBe(truth(folder, 'web01.qcow2'));
    expect(await content(vm!.points[3]!, catalog.folder)).toBe(truth(folder, 'web01.ext'));
  });
});

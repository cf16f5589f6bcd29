/** A Hyper-V VM whose disks qemu-img wrote: what the scan finds for each disk opens to what qemu-img itself reads. */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { scanRepository } from '../../main/engine/catalog/catalog.ts';
import { openChain } from '../../main/engine/chain/open.ts';
import { buildStore, configTree, guidOf } from '../support/hyperv-builder.ts';
import { describePeers, run } from '../support/peers.ts';
import { leavesUntouched, scratchFolder } from '../support/scratch.ts';

const scratch = scratchFolder('hyperv-peers');
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describePeers('a Hyper-V VM with disks of qemu-img', { peers: ['qemu-img', 'qemu-io'] }, () => {
  it.each([
    ['vhdx', 'subformat=dynamic'],
    ['vhdx', 'subformat=fixed'],
    ['vpc', 'subformat=dynamic,force_size=on'],
  ])('%s, %s', async (format, options) => {
    const root = join(scratch.path, `${format}-${options.replace(/\W/g, '-')}`);
    const disks = join(root, 'web01', 'Virtual Hard Disks');
    mkdirSync(disks, { recursive: true });
    const ending = format === 'vpc' ? 'vhd' : 'vhdx';
    for (const [index, name] of ['system', 'data'].entries()) {
      run('qemu-img', ['create', '-q', '-f', format, '-o', options, `${name}.${ending}`, '8M'], { cwd: disks });
      run('qemu-io', ['-f', format, '-c', `write -P ${index + 1} ${index + 1}M 64k`, `${name}.${ending}`], {
        cwd: disks,
      });
    }
    const machines = join(root, 'web01', 'Virtual Machines');
    mkdirSync(machines);
    const tree = configTree({
      name: 'web01',
      id: guidOf(1),
      disks: ['system', 'data'].map((name) => `D:\\VMs\\web01\\Virtual Hard Disks\\${name}.${ending}`),
    });
    writeFileSync(join(machines, `${guidOf(1)}.vmcx`), buildStore(tree).bytes);
    const catalog = await leavesUntouched(root, () => scanRepository(root, { synchronous: true }));
    expect(catalog.vms).toHaveLength(1);
    const [point] = catalog.vms[0]!.points;
    expect(point!.findings).toEqual([]);
    for (const [index, name] of ['system', 'data'].entries()) {
      const found = point!.disks[index]!;
      expect(found.file).toBe(`web01/Virtual Hard Disks/${name}.${ending}`);
      const disk = await openChain(found.path!, catalog.folder);
      const raw = join(scratch.path, 'truth');
      run('qemu-img', ['convert', '-f', format, '-O', 'raw', join(disks, `${name}.${ending}`), raw]);
      expect(sha256(await disk.read(0, disk.size))).toBe(sha256(readFileSync(raw)));
      await disk.close();
    }
  });
});

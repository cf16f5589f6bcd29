/** Block devices as raw sources: loop devices of the kernel, and only where the user names the device itself. */
import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { scanRepository } from '../../main/engine/catalog/catalog.ts';
import { openChain } from '../../main/engine/chain/open.ts';
import { openLayer } from '../../main/engine/image/formats.ts';
import { openDevice } from '../../main/engine/nbd/device.ts';
import { LocatedParents } from '../../main/engine/service/located.ts';
import { Targets } from '../../main/engine/service/targets.ts';
import { sectorsByReading } from '../../main/engine/storage/block-device.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';
import { describePeers, missingLoopMounts, run } from '../support/peers.ts';
import { scratchFolder } from '../support/scratch.ts';
import { buildVdi, uuidOf } from '../support/vdi-builder.ts';
import { pattern } from '../support/vmdk-builder.ts';

describePeers('block devices', { peers: ['losetup'], reasons: [missingLoopMounts()] }, () => {
  const scratch = scratchFolder('peers-raw');

  /** A read-only loop device over these bytes, while `body` runs. */
  async function withDevice(bytes: Buffer, body: (device: string, file: string) => Promise<void>): Promise<void> {
    const file = join(scratch.path, 'disk.raw');
    writeFileSync(file, bytes);
    const device = run('losetup', ['--find', '--show', '--read-only', file]).trim();
    try {
      await body(device, file);
    } finally {
      run('losetup', ['--detach', device]);
    }
  }

  it.each([1, 3, 2047, 5000])('read as what they hold: %i sectors', async (sectors) => {
    const bytes = pattern(0, sectors * 512);
    await withDevice(bytes, async (device) => {
      const disk = await openChain(device, new Confinement(device));
      expect(disk.size).toBe(bytes.length);
      expect(disk.layers).toMatchObject([{ format: 'raw', variant: 'device', path: device }]);
      expect(Buffer.compare(await disk.read(0, disk.size), bytes)).toBe(0);
      await expect(disk.read(disk.size, 1)).rejects.toMatchObject({ kind: 'corrupt' });
      await disk.close();
      const fd = openSync(device, 'r');
      try {
        expect(sectorsByReading(fd, device)).toBe(sectors);
      } finally {
        closeSync(fd);
      }
    });
  });

  it('are found by the service, the catalogue and a data worker, by a link too', async () => {
    const bytes = pattern(0, 100 * 512);
    await withDevice(bytes, async (device) => {
      const link = join(scratch.path, 'by-id');
      symlinkSync(device, link);
      const targets = new Targets(false, new LocatedParents(undefined));
      for (const source of [device, link]) {
        const { folder, disks } = await targets.locate({ source });
        expect(disks).toMatchObject([{ index: 0, path: device }]);
        const worker = await openDevice({ kind: 'chain', path: disks[0]!.path!, root: folder.root });
        const target = new Uint8Array(bytes.length);
        worker.readIntoSync(target, 0);
        await worker.close();
        expect(createHash('sha256').update(target).digest()).toEqual(createHash('sha256').update(bytes).digest());
        const catalog = await scanRepository(source);
        expect(catalog.vms[0]!.points[0]!.disks[0]).toMatchObject({ size: bytes.length });
      }
    });
  });

  it('are raw whatever they begin with, and lead to nothing else', async () => {
    const blocks = new Map<number, Buffer>();
    const { bytes } = buildVdi({ size: 8192, blockSize: 4096, blocks, parent: uuidOf(3) });
    await withDevice(Buffer.concat([bytes, Buffer.alloc(1024 - (bytes.length % 512))]), async (device) => {
      const folder = new Confinement(device);
      const layer = await openLayer(device, folder);
      expect(layer).toMatchObject({ format: 'raw', parent: undefined });
      await layer.close();
      expect(() => folder.open(dirname(device))).toThrow(expect.objectContaining({ kind: 'denied' }));
      expect(() => folder.open('/etc/passwd')).toThrow(expect.objectContaining({ kind: 'denied' }));
    });
  });

  it('are refused where a folder leads to one', async () => {
    await withDevice(pattern(0, 512), async (device) => {
      const root = join(scratch.path, 'folder');
      mkdirSync(root);
      run('mknod', [join(root, 'disk.img'), 'b', ...numbersOf(device)]);
      symlinkSync(device, join(root, 'link.img'));
      const folder = new Confinement(root);
      await expect(openLayer('disk.img', folder)).rejects.toMatchObject({ kind: 'unsupported' });
      await expect(openLayer('link.img', folder)).rejects.toMatchObject({ kind: 'denied' });
      const catalog = await scanRepository(root);
      expect(catalog.vms).toEqual([]);
    });
  });

  it('are refused without a medium', async () => {
    let device = '';
    await withDevice(pattern(0, 512), async (attached) => {
      device = attached;
    });
    await expect(openLayer(device, new Confinement(device))).rejects.toMatchObject({
      kind: expect.stringMatching(/unsupported|io/),
    });
  });

  function numbersOf(device: string): [string, string] {
    const { rdev } = statSync(device);
    return [String((rdev >>> 8) & 0xfff), String((rdev & 0xff) | ((rdev >>> 12) & 0xfff00))];
  }
});

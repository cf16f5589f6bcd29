/**
 * Parallels images written and read by QEMU. It reads and writes expandable images of both magics and neither snapshots nor split
 * disks, for which the builder's word stands.
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openLayer } from '../../main/engine/image/formats.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';
import { runAsync } from '../../main/engine/storage/io.ts';
import { expectCover, findings } from '../conformance/image-layer.ts';
import { hashLayer } from '../support/hash.ts';
import {
  buildExpanding,
  diskDescriptor,
  type ExpandingOptions,
  expandingModel,
  SECTOR,
  TOP,
  writeHdd,
} from '../support/parallels-builder.ts';
import { describePeers, run, tryRun } from '../support/peers.ts';
import { randomFrom } from '../support/random.ts';
import { imageFolders, leavesUntouched, scratchFolder, sha256File } from '../support/scratch.ts';
import { pattern } from '../support/vmdk-builder.ts';

const MIB = 1 << 20;

describePeers('Parallels and QEMU', { peers: ['qemu-img', 'qemu-io'] }, () => {
  const scratch = scratchFolder('peers-parallels');
  const fresh = imageFolders(scratch);

  it.each([
    ['1M', 90 * MIB],
    ['64k', 37 * MIB + 5 * 512],
    ['256k', 3 * MIB + 512],
  ])('reads what qemu-img writes: clusters of %s, %i bytes', async (clusterSize, size) => {
    const { folder, raw } = fresh();
    const image = join(folder, 'web 01.hdd');
    run('qemu-img', ['create', '-q', '-f', 'parallels', '-o', `cluster_size=${clusterSize}`, image, String(size)]);
    const random = randomFrom(size % 1000);
    const commands: string[] = ['-c', `write -P 11 ${size - 512} 512`, '-c', 'write -P 12 0 4k'];
    for (let i = 0; i < 30; i++) {
      const offset = Math.floor((random() * size) / 512) * 512;
      const length = Math.min(size - offset, 512 * (1 + Math.floor(random() ** 4 * 3000)));
      commands.push('-c', `write -P ${1 + Math.floor(random() * 254)} ${offset} ${length}`);
    }
    run('qemu-io', ['-f', 'parallels', ...commands, image]);
    run('qemu-img', ['convert', '-f', 'parallels', '-O', 'raw', image, raw]);
    await leavesUntouched(folder, async () => {
      expect(await hashLayer(image, folder)).toBe(sha256File(raw));
      const layer = await openLayer(image, new Confinement(folder));
      expect(layer).toMatchObject({ format: 'parallels', variant: 'expanding', virtualSize: size, parent: undefined });
      expectCover(await runAsync(layer.runs(0, size)), 0, size);
      expect((await findings(layer)).filter(({ severity }) => severity !== 'note')).toEqual([]);
      await layer.close();
    });
  });

  it.each([
    ['old magic, clusters of 63 sectors', { sectors: 63 * 9 + 7, tracks: 63 }],
    ['old magic without data_off', { sectors: 504 * 5, tracks: 504, noDataOffset: true }],
    ['new magic', { sectors: 128 * 9 + 7, tracks: 128, extended: true }],
  ])('QEMU reads the builder’s images as we do: %s', async (_what, shape) => {
    const { folder, raw } = fresh();
    const count = Math.ceil(shape.sectors / shape.tracks);
    const clusters = new Map([count - 1, 0, 2].map((n) => [n, pattern(n * 7, shape.tracks * SECTOR, n)]));
    const options: ExpandingOptions = { ...shape, clusters };
    const image = join(folder, 'd.hdd');
    writeFileSync(image, buildExpanding(options).bytes);
    run('qemu-img', ['convert', '-f', 'parallels', '-O', 'raw', image, raw]);
    expect(await hashLayer(image, folder)).toBe(sha256File(raw));
    expect(createHash('sha256').update(expandingModel(options)).digest('hex')).toBe(sha256File(raw));
  });

  it('QEMU finds the damage that we find: a cluster behind the file', async () => {
    const { folder } = fresh();
    const { bytes } = buildExpanding({ sectors: 64, tracks: 8, clusters: new Map([[1, pattern(0, 8 * SECTOR)]]) });
    bytes.writeUInt32LE(500, 64);
    const image = join(folder, 'd.hdd');
    writeFileSync(image, bytes);
    expect(tryRun('qemu-img', ['check', '-f', 'parallels', image]).code).not.toBe(0);
    const layer = await openLayer(image, new Confinement(folder));
    expect((await findings(layer)).map(({ code }) => code)).toContain('cluster-out-of-file');
    await layer.close();
  });

  it('shows a snapshot without its parent to nobody: QEMU reads zeros where we ask the parent', async () => {
    const { folder, raw } = fresh();
    const PARENT = 'aaaaaaaa-0000-4000-8000-000000000001';
    const top = { sectors: 64, tracks: 8, clusters: new Map([[1, pattern(0, 8 * SECTOR)]]) };
    const images = [
      { guid: TOP, type: 'Compressed', file: 'top.hds' },
      { guid: PARENT, type: 'Plain', file: 'base.hds' },
    ] as const;
    const shots = [
      [PARENT, undefined],
      [TOP, PARENT],
    ] as const;
    const text = diskDescriptor({ sectors: 64, blockSectors: 8, storages: [{ start: 0, end: 64, images }], shots });
    const base = pattern(0, 64 * SECTOR, 5);
    writeHdd(folder, 'd', text, { 'top.hds': buildExpanding(top).bytes, 'base.hds': base });
    run('qemu-img', ['convert', '-f', 'parallels', '-O', 'raw', join(folder, 'd.hdd/top.hds'), raw]);
    expect(sha256File(raw)).toBe(createHash('sha256').update(expandingModel(top)).digest('hex'));
    const layer = await openLayer('d.hdd/top.hds', new Confinement(folder));
    expect(layer.parent).toEqual({ recorded: 'base.hds', id: PARENT, format: 'parallels' });
    expect((await runAsync(layer.runs(0, 64 * SECTOR))).map(({ kind }) => kind)).toEqual(['absent', 'data', 'absent']);
    await layer.close();
  });
});

/**
 * VDIs written and read by QEMU: what it writes we read the same, what our builder writes it reads as we do. QEMU reads no
 * differencing images and no block size but 1 MiB; VirtualBox itself is not in Debian main, so there the builder's word stands.
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
import { describePeers, run, tryRun } from '../support/peers.ts';
import { randomFrom } from '../support/random.ts';
import { imageFolders, leavesUntouched, scratchFolder, sha256File } from '../support/scratch.ts';
import { type Block, uuidOf, vdiModel, writeVdi } from '../support/vdi-builder.ts';
import { pattern } from '../support/vmdk-builder.ts';

const MIB = 1 << 20;

describePeers('VDI and QEMU', { peers: ['qemu-img', 'qemu-io'] }, () => {
  const scratch = scratchFolder('peers-vdi');
  const fresh = imageFolders(scratch);

  it.each([
    ['dynamic', 'off', 100 * MIB],
    ['dynamic', 'off', 37 * MIB + 5 * 512],
    ['dynamic', 'off', 260 * MIB],
    ['fixed', 'on', 40 * MIB + 512],
  ] as const)('reads what qemu-img writes: %s, %#', async (variant, fixed, size) => {
    const { folder, raw } = fresh();
    const image = join(folder, 'web 01.vdi');
    run('qemu-img', ['create', '-q', '-f', 'vdi', '-o', `static=${fixed}`, image, String(size)]);
    const random = randomFrom(size % 1000);
    const commands: string[] = ['-c', `write -P 11 ${size - 512} 512`, '-c', 'write -P 12 0 4k'];
    for (let i = 0; i < 30; i++) {
      const offset = Math.floor((random() * size) / 512) * 512;
      const length = Math.min(size - offset, 512 * (1 + Math.floor(random() ** 4 * 6000)));
      commands.push('-c', `write -P ${1 + Math.floor(random() * 254)} ${offset} ${length}`);
    }
    run('qemu-io', ['-f', 'vdi', ...commands, image]);
    run('qemu-img', ['convert', '-f', 'vdi', '-O', 'raw', image, raw]);
    await leavesUntouched(folder, async () => {
      expect(await hashLayer(image, folder)).toBe(sha256File(raw));
      const layer = await openLayer(image, new Confinement(folder));
      expect(layer).toMatchObject({ format: 'vdi', variant, virtualSize: size, parent: undefined });
      expect(layer.id).toMatch(/^[0-9a-f]{8}-[0-9a-f-]{27}$/);
      expectCover(await runAsync(layer.runs(0, size)), 0, size);
      expect((await findings(layer)).filter(({ severity }) => severity !== 'note')).toEqual([]);
      await layer.close();
    });
  });

  it.each(['plus', 'one'] as const)('QEMU reads the builder’s images as we do: header "%s"', async (header) => {
    const { folder, raw } = fresh();
    const blocks = new Map<number, Block>([
      [4, pattern(4 * MIB, MIB)],
      [0, pattern(0, MIB, 2)],
      [2, 'zero'],
      [6, pattern(6 * MIB, MIB)],
    ]);
    const options = { size: 6 * MIB + 1024, blocks, header };
    writeVdi(folder, 'd.vdi', options);
    const image = join(folder, 'd.vdi');
    run('qemu-img', ['convert', '-f', 'vdi', '-O', 'raw', image, raw]);
    expect(await hashLayer(image, folder)).toBe(sha256File(raw));
    expect(createHash('sha256').update(vdiModel(options)).digest('hex')).toBe(sha256File(raw));
    expect(tryRun('qemu-img', ['check', '-f', 'vdi', image]).code).toBe(0);
  });

  it('QEMU finds the damage that we find: a block used twice', async () => {
    const { folder } = fresh();
    const blocks = new Map<number, Block>([
      [0, pattern(0, MIB)],
      [1, pattern(MIB, MIB)],
    ]);
    const image = join(folder, 'd.vdi');
    const { bytes, at } = writeVdi(folder, 'd.vdi', { size: 4 * MIB, blocks });
    bytes.writeUInt32LE(0, at.map + 4);
    writeFileSync(image, bytes);
    expect(tryRun('qemu-img', ['check', '-f', 'vdi', image]).code).not.toBe(0);
    const layer = await openLayer(image, new Confinement(folder));
    expect((await findings(layer)).map(({ code }) => code)).toEqual(['block-overlap']);
    await layer.close();
  });

  it('QEMU refuses what it would show without its parent, and we read it', async () => {
    const { folder } = fresh();
    const blocks = new Map<number, Block>([[1, pattern(0, MIB)]]);
    writeVdi(folder, 'd.vdi', { size: 4 * MIB, blocks, parent: uuidOf(3) });
    expect(tryRun('qemu-img', ['info', join(folder, 'd.vdi')]).stderr).toContain('unsupported VDI image');
    const layer = await openLayer('d.vdi', new Confinement(folder));
    expect((await runAsync(layer.runs(0, 4 * MIB))).map(({ kind }) => kind)).toEqual(['absent', 'data', 'absent']);
    await layer.close();
  });
});

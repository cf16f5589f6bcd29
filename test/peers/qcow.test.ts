/** QCOW of version 1 written and read by QEMU. */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openChain } from '../../main/engine/chain/open.ts';
import { verifyChain } from '../../main/engine/chain/verify.ts';
import { openLayer } from '../../main/engine/image/formats.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';
import { describePeers, run } from '../support/peers.ts';
import { buildQcow } from '../support/qcow-builder.ts';
import { modelOf, pattern } from '../support/qcow2-builder.ts';
import { randomFrom } from '../support/random.ts';
import { imageFolders, leavesUntouched, scratchFolder, sha256File } from '../support/scratch.ts';

const MIB = 1 << 20;

describePeers('QCOW version 1 and QEMU', { peers: ['qemu-img', 'qemu-io'] }, () => {
  const scratch = scratchFolder('peers-qcow');
  const fresh = imageFolders(scratch);
  const truth = (image: string, raw: string) => {
    run('qemu-img', ['convert', '-O', 'raw', image, raw]);
    return sha256File(raw);
  };
  const workload = (size: number, seed: number, count: number) => {
    const random = randomFrom(seed);
    return Array.from({ length: count }).flatMap(() => {
      const length = 512 * (1 + Math.floor(random() ** 4 * 400));
      const at = Math.floor((random() * (size - length)) / 512) * 512;
      return ['-c', `write -P ${1 + Math.floor(random() * 254)} ${at} ${length}`];
    });
  };

  async function expectSame(image: string, folder: string, expected: string): Promise<void> {
    await leavesUntouched(folder, async () => {
      for (const synchronous of [true, false]) {
        const disk = await openChain(image, new Confinement(folder, { synchronous }), { synchronous });
        const hash = createHash('sha256');
        for (let at = 0; at < disk.size; at += 3_000_017) {
          hash.update(await disk.read(at, Math.min(3_000_017, disk.size - at)));
        }
        await disk.close();
        expect(hash.digest('hex')).toBe(expected);
      }
      for await (const finding of verifyChain(image, new Confinement(folder))) {
        expect(finding).toMatchObject({ severity: 'note' });
      }
    });
  }

  it.each([MIB, 37 * MIB + 512, 700 * MIB])('reads what qemu-io writes, %i bytes', async (size) => {
    const { folder, raw } = fresh();
    const image = join(folder, 'disk.qcow');
    run('qemu-img', ['create', '-q', '-f', 'qcow', image, String(size)]);
    run('qemu-io', ['-f', 'qcow', ...workload(size, 3, 40), image]);
    await expectSame(image, folder, truth(image, raw));
  });

  it('reads compressed clusters, some written over', async () => {
    const { folder, raw } = fresh();
    const image = join(folder, 'disk.qcow');
    run('qemu-img', ['create', '-q', '-f', 'qcow', image, '8M']);
    writeFileSync(join(folder, 'part'), pattern(1, 4096));
    const compressed = Array.from({ length: 200 }, (_, i) => {
      const what = i % 3 === 0 ? `-P ${1 + i}` : `-s ${join(folder, 'part')}`;
      // Each cluster once: QEMU writes a second compressed one over the first, and over its neighbours.
      return ['-c', `write -c ${what} ${((i * 37) % 2048) * 4}k 4k`];
    });
    run('qemu-io', ['-f', 'qcow', ...compressed.flat(), image]);
    run('qemu-io', ['-f', 'qcow', ...workload(8 * MIB, 4, 20), image]);
    await expectSame(image, folder, truth(image, raw));
  });

  it('reads chains with raw and QCOW2 below', async () => {
    const { folder, raw } = fresh();
    const size = 5 * MIB;
    const steps = [
      ['raw', 'base.raw'],
      ['qcow', 'one.qcow'],
      ['qcow2', 'two.qcow2'],
      ['qcow', 'three.qcow'],
    ] as const;
    for (const [i, [format, name]] of steps.entries()) {
      const below = i === 0 ? [] : ['-b', steps[i - 1]![1], '-F', steps[i - 1]![0]];
      run('qemu-img', ['create', '-q', '-f', format, ...below, join(folder, name), String(size)]);
      run('qemu-io', ['-f', format, ...workload(size, i, 10), join(folder, name)]);
    }
    await expectSame(join(folder, 'three.qcow'), folder, truth(join(folder, 'three.qcow'), raw));
  });

  it.each([
    [9, 6],
    [12, 9],
    [16, 13],
  ])(
    'QEMU reads the builder’s image as we do: clusters of 2^%i bytes, tables of 2^%i entries',
    async (bits, l2Bits) => {
      const { folder, raw } = fresh();
      const size = 2 ** bits;
      const options = {
        size: 300 * size,
        clusterBits: bits,
        l2Bits,
        clusters: new Map<number, Buffer | { readonly packed: Buffer }>([
          [0, pattern(0, size)],
          [63, { packed: pattern(63, size) }],
          [64, { packed: pattern(64, size) }],
          [65, pattern(65, size)],
          [299, { packed: pattern(299, size) }],
        ]),
      };
      const image = join(folder, 'disk.qcow');
      writeFileSync(image, buildQcow(options).bytes);
      const expected = truth(image, raw);
      expect(createHash('sha256').update(modelOf(options, bits)).digest('hex')).toBe(expected);
      await expectSame(image, folder, expected);
    },
  );

  it('refuses AES by name', async () => {
    const { folder } = fresh();
    const image = join(folder, 'disk.qcow');
    const secret = ['--object', 'secret,id=s,data=abc', '-o', 'encrypt.format=aes,encrypt.key-secret=s'];
    run('qemu-img', ['create', '-q', '-f', 'qcow', ...secret, image, '1M']);
    await expect(openLayer(image, new Confinement(folder))).rejects.toMatchObject({ kind: 'needs-key' });
  });
});

import { closeSync, ftruncateSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import { detectFormat, openLayer } from '../../../main/engine/image/formats.ts';
import type { Finding } from '../../../main/engine/image/image.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { runAsync } from '../../../main/engine/storage/io.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { caseFolders, leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import {
  type Block,
  buildVdi,
  overlay,
  uuidOf,
  type VdiOptions,
  vdiModel,
  writeVdi,
} from '../../support/vdi-builder.ts';
import { pattern } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('vdi');
const fresh = caseFolders(scratch);

const BLOCK = 4096;
const block = (index: number, seed = 1): [number, Block] => [index, pattern(index * BLOCK, BLOCK, seed)];
const simple: VdiOptions = { size: 10 * BLOCK, blockSize: BLOCK, blocks: new Map([block(3), block(0), block(9)]) };

/** Opens the image with `patch` applied to its bytes. */
async function opened(options: VdiOptions, patch: (bytes: Buffer, at: { map: number; data: number }) => void) {
  const folder = fresh();
  const image = buildVdi(options);
  patch(image.bytes, image.at);
  writeFileSync(join(folder, 'disk.vdi'), image.bytes);
  return openLayer('disk.vdi', new Confinement(folder));
}

describe('the header of a VDI', () => {
  it('says what the image is', async () => {
    const folder = fresh();
    writeVdi(folder, 'disk.vdi', { ...simple, comment: 'one\u0007\nline', flags: 1 });
    await leavesUntouched(folder, async () => {
      const layer = await openLayer('disk.vdi', new Confinement(folder));
      expect(layer).toMatchObject({
        format: 'vdi',
        variant: 'dynamic',
        virtualSize: 10 * BLOCK,
        id: uuidOf(1),
        stateId: uuidOf(2),
        parent: undefined,
        granularity: BLOCK,
        properties: { version: '1.1', comment: 'one line', modificationUuid: uuidOf(2) },
      });
      expect(await layer.allocatedBytes()).toBe(3 * BLOCK);
      await layer.close();
    });
  });

  it('names its parent by identity alone', async () => {
    const layer = await opened({ ...simple, parent: uuidOf(7), parentModification: uuidOf(8) }, () => {});
    expect(layer.variant).toBe('differencing');
    expect(layer.parent).toEqual({ recorded: uuidOf(7), nameless: true, id: uuidOf(7), stateId: uuidOf(8) });
    await layer.close();
  });

  it.each<[string, (bytes: Buffer, at: { map: number; data: number }) => void, string, RegExp]>([
    ['no signature', (b) => b.fill(0, 64, 68), 'corrupt', /u32Signature.*byte 64/],
    ['a later version', (b) => b.writeUInt32LE(0x00010002, 68), 'unsupported', /VDI version 1\.2/],
    ['a far later version', (b) => b.writeUInt32LE(0x00020000, 68), 'unsupported', /VDI version 2\.0/],
    ['a short header', (b) => b.writeUInt32LE(100, 72), 'corrupt', /cbHeader.*at least 384/],
    ['no such type', (b) => b.writeUInt32LE(5, 76), 'corrupt', /u32Type.*1 to 4, found 5/],
    ['an undo image', (b) => b.writeUInt32LE(3, 76), 'unsupported', /VDI undo image/],
    ['an unknown flag', (b) => b.writeUInt32LE(2, 80), 'unsupported', /VDI image flags 0x00000002/],
    ['a differencing image without a parent', (b) => b.writeUInt32LE(4, 76), 'corrupt', /uuidLinkage.*found none/],
    ['a base with a parent', (b) => b.fill(7, 424, 440), 'corrupt', /uuidLinkage.*none, as the image is dynamic/],
    ['a map in the header', (b) => b.writeUInt32LE(72, 340), 'corrupt', /offBlocks/],
    ['a map behind the file', (b) => b.writeUInt32LE(0x7fffffff, 340), 'corrupt', /offBlocks.*behind the header/],
    ['data in the map', (b, { map }) => b.writeUInt32LE(map, 344), 'corrupt', /offData/],
    ['a disk of nothing', (b) => b.fill(0, 368, 376), 'corrupt', /cbDisk/],
    ['a disk of 2^63', (b) => b.writeBigUInt64LE(1n << 63n, 368), 'corrupt', /cbDisk.*2\^53-1/],
    ['a disk larger than its map', (b) => b.writeBigUInt64LE(11n * 4096n, 368), 'corrupt', /cbDisk.*1 to 40960 bytes/],
    ['blocks of no bytes', (b) => b.writeUInt32LE(0, 376), 'corrupt', /cbBlock.*power of two/],
    ['blocks of odd bytes', (b) => b.writeUInt32LE(5000, 376), 'corrupt', /cbBlock.*power of two/],
    ['odd extra bytes', (b) => b.writeUInt32LE(3, 380), 'corrupt', /cbBlockExtra/],
    ['a map of 2^32 entries', (b) => b.writeUInt32LE(0xffffffff, 384), 'corrupt', /offBlocks/],
  ])('is refused with %s', async (_what, patch, kind, message) => {
    await expect(opened(simple, patch)).rejects.toMatchObject({ kind, message: expect.stringMatching(message) });
  });

  it.each([0, 10, 63, 70, 100, 471])('is refused when the file ends at byte %i', async (size) => {
    const folder = fresh();
    writeFileSync(join(folder, 'disk.vdi'), buildVdi(simple).bytes.subarray(0, size));
    await expect(openLayer('disk.vdi', new Confinement(folder))).rejects.toMatchObject({ kind: 'corrupt' });
  });

  it('is known by its signature and by its name, but never against a name that says raw', async () => {
    const folder = fresh();
    const { bytes } = buildVdi(simple);
    writeFileSync(join(folder, 'a.img'), bytes);
    writeFileSync(join(folder, 'b.raw'), bytes);
    writeFileSync(join(folder, 'c.VDI'), Buffer.alloc(4096));
    const within = new Confinement(folder);
    const named = async (name: string) => (await detectFormat(name, within))?.name;
    expect([await named('a.img'), await named('b.raw'), await named('c.VDI')]).toEqual(['vdi', 'raw', 'vdi']);
  });
});

describe('the block map of a VDI', () => {
  it('is refused where it leads out of the file, and nowhere else', async () => {
    const layer = await opened(simple, (bytes, { map }) => bytes.writeUInt32LE(3, map + 3 * 4));
    await expect(runAsync(layer.runs(3 * BLOCK, 1))).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: 'VDI block map entry', position: 524, expected: 'a block number up to 2', found: 3 },
    });
    expect((await runAsync(layer.runs(0, BLOCK)))[0]).toMatchObject({ kind: 'data', length: BLOCK });
    const found = await findings(layer);
    expect(found).toMatchObject([{ severity: 'damaged', code: 'block-out-of-file', position: 524, found: 3 }]);
    await layer.close();
  });

  it('is reported where two entries share a block, and where the header counts otherwise', async () => {
    const layer = await opened(simple, (bytes, { map }) => bytes.writeUInt32LE(1, map + 4));
    expect(await findings(layer)).toMatchObject([
      { severity: 'damaged', code: 'block-overlap', structure: 'VDI block map entry', found: 1 },
      { severity: 'suspicious', code: 'allocated-count', expected: 4, found: 3 },
    ]);
    await layer.close();
  });

  it('tells twenty of a kind one by one, and counts the rest', async () => {
    const size = 100 * BLOCK;
    const layer = await opened({ ...simple, size }, (bytes, { map }) => {
      for (let index = 20; index < 90; index++) bytes.writeUInt32LE(1000 + index, map + index * 4);
    });
    const found = (await findings(layer)).filter(({ code }) => code === 'block-out-of-file');
    expect(found).toHaveLength(21);
    expect(found.at(-1)).toMatchObject({ message: expect.stringContaining('50 more'), found: 50 });
    await layer.close();
  });

  it('costs nothing to open, and a read to ask, on a disk of 64 TiB', async () => {
    const folder = fresh();
    const size = 2 ** 46;
    const fd = openSync(join(folder, 'huge.vdi'), 'w');
    const { bytes } = buildVdi({ ...simple, size: 2 ** 20, blockSize: 2 ** 20, blocks: new Map() });
    const blocks = size / 2 ** 20;
    bytes.writeBigUInt64LE(BigInt(size), 368);
    bytes.writeUInt32LE(blocks, 384);
    bytes.writeUInt32LE(1, 388);
    bytes.writeUInt32LE(512 + blocks * 4, 344);
    writeSync(fd, bytes, 0, 512, 0);
    ftruncateSync(fd, 512 + blocks * 4 + 2 ** 20);
    // A hole in the map reads as entries of 0, which are block 0: only the last entry is asked.
    closeSync(fd);
    const before = process.memoryUsage().rss;
    const layer = await openLayer('huge.vdi', new Confinement(folder));
    expect(await runAsync(layer.runs(size - 512, 512))).toMatchObject([
      { kind: 'data', length: 512, position: 512 + blocks * 4 + 2 ** 20 - 512 },
    ]);
    expect(process.memoryUsage().rss - before).toBeLessThan(64 << 20);
    await layer.close();
  });
});

describe('a chain of VDIs as VirtualBox keeps it', () => {
  const base: VdiOptions = { ...simple, uuid: uuidOf(1), modification: uuidOf(2) };
  const middle: VdiOptions = {
    ...simple,
    blocks: new Map([block(0, 2), [9, 'zero'], block(5, 2)]),
    uuid: uuidOf(3),
    modification: uuidOf(4),
    parent: uuidOf(1),
    parentModification: uuidOf(2),
  };
  const leaf: VdiOptions = {
    ...simple,
    blocks: new Map([block(5, 3)]),
    uuid: uuidOf(5),
    modification: uuidOf(6),
    parent: uuidOf(3),
    parentModification: uuidOf(4),
  };
  const layout = (options: VdiOptions) =>
    options.parent === undefined ? 'web01/web01.vdi' : `web01/Snapshots/{${options.uuid}}.vdi`;

  function write(chain: readonly VdiOptions[]): string {
    const folder = fresh();
    for (const options of chain) {
      mkdirSync(join(folder, dirname(layout(options))), { recursive: true });
      writeVdi(folder, layout(options), options);
    }
    // Others that are not meant: another VM's, one that is broken, one of another family.
    mkdirSync(join(folder, 'web02'));
    writeVdi(folder, 'web02/web02.vdi', { ...simple, uuid: uuidOf(77) });
    writeFileSync(join(folder, 'web01/broken.vdi'), 'no image');
    return folder;
  }
  async function verified(folder: string, path: string): Promise<Finding[]> {
    const all: Finding[] = [];
    for await (const finding of verifyChain(path, new Confinement(folder))) all.push(finding);
    return all;
  }

  it('is put together by identity: the base in the VM’s folder, the others in Snapshots', async () => {
    const folder = write([base, middle, leaf]);
    await leavesUntouched(folder, async () => {
      const disk = await openChain(layout(leaf), new Confinement(folder));
      expect(disk.layers.map(({ name }) => name)).toEqual([leaf, middle, base].map(layout));
      const model = overlay(overlay(vdiModel(base), middle), leaf);
      expect(Buffer.compare(await disk.read(0, disk.size), model)).toBe(0);
      await disk.close();
      expect(await verified(folder, layout(leaf))).toEqual([]);
    });
  });

  it('is refused where a parent is missing, with its identity', async () => {
    const folder = write([base, leaf]);
    await expect(openChain(layout(leaf), new Confinement(folder))).rejects.toMatchObject({
      kind: 'missing-parent',
      details: { recorded: uuidOf(3), expectedId: uuidOf(3), child: layout(leaf) },
    });
  });

  it('opens, and is suspicious, where the base was written to after its snapshot', async () => {
    const folder = write([{ ...base, modification: uuidOf(99) }, middle, leaf]);
    const disk = await openChain(layout(leaf), new Confinement(folder));
    await disk.close();
    expect(await verified(folder, layout(leaf))).toMatchObject([
      {
        severity: 'suspicious',
        code: 'parent-modified',
        source: layout(base),
        expected: uuidOf(2),
        found: uuidOf(99),
      },
    ]);
  });

  it('takes the parent of the right moment where a copy of it from another lies nearer', async () => {
    const folder = write([base, middle]);
    // As a copy of the base that was put beside the snapshot would be.
    const stale = { ...base, blocks: new Map([block(1, 9)]), modification: uuidOf(99) };
    writeVdi(folder, 'web01/Snapshots/copy.vdi', stale);
    const disk = await openChain(layout(middle), new Confinement(folder));
    expect(disk.layers.map(({ name }) => name)).toEqual([layout(middle), layout(base)]);
    await disk.close();
  });

  it('is refused where images are each other’s parents', async () => {
    const folder = write([{ ...middle, parent: uuidOf(5) }, leaf]);
    await expect(openChain(layout(leaf), new Confinement(folder))).rejects.toMatchObject({
      kind: 'corrupt',
      message: expect.stringContaining('loop'),
    });
  });

  it('reads one link as it is: what it lacks is absent, what it zeroed is zero', async () => {
    const folder = write([base, middle]);
    const layer = await openLayer(layout(middle), new Confinement(folder));
    const kinds = await Promise.all(
      [0, 1, 5, 9].map(async (at) => (await runAsync(layer.runs(at * BLOCK, 1)))[0]!.kind),
    );
    expect(kinds).toEqual(['data', 'absent', 'data', 'zero']);
    expect(Buffer.compare(await readLayer(layer, 0, layer.virtualSize), vdiModel(middle))).toBe(0);
    await layer.close();
  });
});

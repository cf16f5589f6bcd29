import { closeSync, ftruncateSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import { detectFormat, openLayer } from '../../../main/engine/image/formats.ts';
import { type Finding, snapshotPath } from '../../../main/engine/image/image.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { runAsync } from '../../../main/engine/storage/io.ts';
import { findings } from '../../conformance/image-layer.ts';
import {
  buildExpanding,
  type DescriptorParts,
  diskDescriptor,
  type ExpandingOptions,
  expandingModel,
  imageName,
  overlay,
  SECTOR,
  TOP,
  writeHdd,
} from '../../support/parallels-builder.ts';
import { caseFolders, leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { pattern } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('parallels');
const fresh = caseFolders(scratch);

const TRACKS = 4;
const cluster = (n: number, seed = 1): [number, Buffer] => [n, pattern(n * TRACKS * SECTOR, TRACKS * SECTOR, seed)];
const simple: ExpandingOptions = {
  sectors: 40,
  tracks: TRACKS,
  clusters: new Map([cluster(3), cluster(0), cluster(9)]),
};

async function opened(patch: (bytes: Buffer) => void, options: Partial<ExpandingOptions> = {}) {
  const folder = fresh();
  const { bytes } = buildExpanding({ ...simple, ...options });
  patch(bytes);
  writeFileSync(join(folder, 'disk.hdd'), bytes);
  return openLayer('disk.hdd', new Confinement(folder));
}

describe('the header of an expandable Parallels image', () => {
  it('says what the image is', async () => {
    const layer = await opened(() => {});
    expect(layer).toMatchObject({
      format: 'parallels',
      variant: 'expanding',
      virtualSize: 40 * SECTOR,
      parent: undefined,
      id: undefined,
      granularity: TRACKS * SECTOR,
      properties: { magic: 'WithoutFreeSpace', clusterSize: TRACKS * SECTOR },
    });
    expect(await findings(layer)).toEqual([]);
    await layer.close();
  });

  it.each<[string, (bytes: Buffer) => void, string, RegExp]>([
    ['another version', (b) => b.writeUInt32LE(3, 16), 'unsupported', /Parallels HDD version 3/],
    ['clusters of nothing', (b) => b.writeUInt32LE(0, 28), 'corrupt', /tracks.*byte 28/],
    ['clusters of a terabyte', (b) => b.writeUInt32LE(0x80000000, 28), 'corrupt', /tracks/],
    ['no table', (b) => b.writeUInt32LE(0, 32), 'corrupt', /nb_bat_entries/],
    ['a table of 2^32 entries', (b) => b.writeUInt32LE(0xffffffff, 32), 'corrupt', /nb_bat_entries/],
    ['a disk of nothing', (b) => b.writeUInt32LE(0, 36), 'corrupt', /nb_sectors/],
    ['a disk larger than its table', (b) => b.writeUInt32LE(41, 36), 'corrupt', /nb_sectors.*1 to 40/],
    ['an extension at 2^63', (b) => b.writeBigUInt64LE(1n << 63n, 56), 'corrupt', /ext_off/],
  ])('is refused with %s', async (_what, patch, kind, message) => {
    await expect(opened(patch)).rejects.toMatchObject({ kind, message: expect.stringMatching(message) });
  });

  it('counts the upper half of its size for the newer magic only', async () => {
    const layer = await opened((bytes) => bytes.writeUInt32LE(7, 40));
    expect(layer.virtualSize).toBe(40 * SECTOR);
    await layer.close();
    await expect(opened((bytes) => bytes.writeUInt32LE(7, 40), { extended: true })).rejects.toMatchObject({
      kind: 'corrupt',
    });
  });

  it('is not looked for where the guest wrote the first bytes', async () => {
    const folder = fresh();
    const { bytes } = buildExpanding(simple);
    for (const name of ['a.img', 'a.raw', 'a.vhd', 'a-flat.vmdk']) writeFileSync(join(folder, name), bytes);
    const plain = Buffer.alloc(4096);
    plain.write('KDMV');
    writeFileSync(join(folder, 'a.hds'), plain);
    const within = new Confinement(folder);
    const format = async (name: string) => (await detectFormat(name, within))?.name;
    expect(await format('a.img')).toBe('parallels');
    expect(await format('a.raw')).toBe('raw');
    expect(await format('a-flat.vmdk')).toBe('raw');
    expect(await format('a.vhd')).not.toBe('parallels');
    expect(await format('a.hds')).toBe('parallels');
  });
});

describe('the BAT of an expandable Parallels image', () => {
  it.each([10, 1000, 0x7fffffff])('is refused where it leads out of the file, to sector %i', async (sector) => {
    const layer = await opened((bytes) => bytes.writeUInt32LE(sector, 64 + 3 * 4));
    await expect(runAsync(layer.runs(3 * TRACKS * SECTOR, 1))).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: 'Parallels BAT entry', position: 76, expected: 'a number from 1 to 9' },
    });
    expect(await findings(layer)).toMatchObject([{ severity: 'damaged', code: 'cluster-out-of-file', position: 76 }]);
    await layer.close();
  });

  it('is reported where it says one thing twice, lies askew, or is not as its flags say', async () => {
    const twice = await opened((bytes) => bytes.writeUInt32LE(bytes.readUInt32LE(64), 64 + 4));
    expect((await findings(twice)).map(({ code }) => code)).toEqual(['cluster-overlap']);
    await twice.close();
    const askew = await opened((bytes) => bytes.writeUInt32LE(bytes.readUInt32LE(64) + 1, 64));
    expect((await findings(askew)).map(({ code }) => code)).toContain('cluster-unaligned');
    await askew.close();
    const empty = await opened(() => {}, { flags: 1 });
    expect(await findings(empty)).toMatchObject([{ severity: 'suspicious', code: 'empty-flag', found: 3 }]);
    await empty.close();
    const used = await opened(() => {}, { inUse: 0x746f6e59 });
    expect(await findings(used)).toMatchObject([{ severity: 'note', code: 'unclean-shutdown' }]);
    await used.close();
    const extension = await opened((bytes) => bytes.writeBigUInt64LE(1n, 56));
    expect(await findings(extension)).toMatchObject([{ severity: 'suspicious', code: 'format-extension' }]);
    await extension.close();
  });

  it('costs nothing to open, and a read to ask, on a disk of 64 TiB', async () => {
    const folder = fresh();
    const sectors = 2 ** 37;
    const entries = sectors / 2048;
    const tableEnd = Math.ceil((64 + entries * 4) / 2 ** 20) * 2 ** 20;
    const { bytes } = buildExpanding({ sectors: 2048, tracks: 2048, clusters: new Map(), extended: true });
    bytes.writeUInt32LE(entries, 32);
    bytes.writeBigUInt64LE(BigInt(sectors), 36);
    bytes.writeUInt32LE(tableEnd / 512, 48);
    const fd = openSync(join(folder, 'huge.hdd'), 'w');
    writeSync(fd, bytes, 0, 64, 0);
    const entry = Buffer.alloc(4);
    entry.writeUInt32LE(tableEnd / 2 ** 20);
    writeSync(fd, entry, 0, 4, 64 + (entries - 1) * 4);
    ftruncateSync(fd, tableEnd + 2 ** 20);
    closeSync(fd);
    const layer = await openLayer('huge.hdd', new Confinement(folder));
    const end = sectors * 512;
    expect(await runAsync(layer.runs(end - 2 ** 21, 2 ** 21))).toMatchObject([
      { kind: 'zero', length: 2 ** 20 },
      { kind: 'data', length: 2 ** 20, position: tableEnd },
    ]);
    await layer.close();
  });
});

describe('a .hdd folder', () => {
  const [A, B] = ['aaaaaaaa-0000-4000-8000-000000000001', 'aaaaaaaa-0000-4000-8000-000000000002'] as const;
  const layers: Record<string, ExpandingOptions> = {
    [A]: { ...simple, clusters: new Map([cluster(0), cluster(5), cluster(9)]) },
    [B]: { ...simple, clusters: new Map([cluster(5, 2), cluster(6, 2)]) },
    [TOP]: { ...simple, clusters: new Map([cluster(0, 3)]) },
  };
  const guids = [A, B, TOP];
  const name = (guid: string) => imageName('web01', 0, guid);
  const parts: DescriptorParts = {
    name: 'web01',
    sectors: 40,
    blockSectors: TRACKS,
    storages: [
      { start: 0, end: 40, images: guids.map((guid) => ({ guid, type: 'Compressed' as const, file: name(guid) })) },
    ],
    shots: [
      [A, undefined],
      [B, A],
      [TOP, B],
    ],
  };
  const files = () =>
    Object.fromEntries(Object.entries(layers).map(([guid, layer]) => [name(guid), buildExpanding(layer).bytes]));
  function write(changed: Partial<DescriptorParts> = {}, more: Record<string, Buffer> = {}): string {
    const root = fresh();
    writeHdd(root, 'web01', diskDescriptor({ ...parts, ...changed }), { ...files(), ...more });
    return root;
  }
  const descriptor = 'web01.hdd/DiskDescriptor.xml';
  async function content(root: string, path: string): Promise<Buffer> {
    const disk = await openChain(path, new Confinement(root));
    const bytes = Buffer.from(await disk.read(0, disk.size));
    await disk.close();
    return bytes;
  }
  async function verified(root: string): Promise<Finding[]> {
    const all: Finding[] = [];
    for await (const finding of verifyChain(descriptor, new Confinement(root))) all.push(finding);
    return all;
  }

  it('opens as its present state, each snapshot under it, and says what they are', async () => {
    const root = write();
    await leavesUntouched(root, async () => {
      const disk = await openChain(descriptor, new Confinement(root));
      expect(disk.layers.map(({ id }) => id)).toEqual([TOP, B, A]);
      expect(disk.layers[0]).toMatchObject({
        name: descriptor,
        variant: 'expanding',
        parent: { recorded: name(B), id: B, format: 'parallels' },
        snapshots: [
          { id: A, name: `{${A}}`, virtualSize: 40 * SECTOR },
          { id: B, name: `{${B}}` },
        ],
      });
      expect(disk.layers[0]!.files.map(({ role }) => role)).toEqual(['descriptor', 'extent']);
      await disk.close();
      expect(await verified(root)).toEqual([]);
      const states = guids.map((_, index) =>
        guids
          .slice(0, index + 1)
          .reduce<Buffer>((bytes, guid) => overlay(bytes, layers[guid]!), Buffer.alloc(40 * SECTOR)),
      );
      expect((await content(root, descriptor)).equals(states[2]!)).toBe(true);
      expect((await content(root, snapshotPath(descriptor, B))).equals(states[1]!)).toBe(true);
      expect((await content(root, `web01.hdd/${name(B)}`)).equals(states[1]!)).toBe(true);
      expect((await content(root, snapshotPath(descriptor, A))).equals(states[0]!)).toBe(true);
    });
  });

  it('is led by TopGUID where it has one', async () => {
    const root = write({ top: B });
    const layer = await openLayer(descriptor, new Confinement(root));
    expect(layer).toMatchObject({ id: B, snapshots: [{ id: A }, { id: TOP }] });
    await layer.close();
  });

  it('is refused where an image of the chain is gone, with its name', async () => {
    const root = write();
    rmSync(join(root, 'web01.hdd', name(B)));
    await expect(openChain(descriptor, new Confinement(root))).rejects.toMatchObject({
      kind: 'missing-parent',
      details: { recorded: name(B), expectedId: B },
    });
    rmSync(join(root, 'web01.hdd', name(TOP)));
    await expect(openChain(descriptor, new Confinement(root))).rejects.toMatchObject({
      kind: 'not-found',
      message: expect.stringContaining(name(TOP)),
    });
  });

  it('is refused where a snapshot is its own ancestor', async () => {
    const root = write({
      shots: [
        [A, B],
        [B, A],
        [TOP, B],
      ],
    });
    await expect(openChain(descriptor, new Confinement(root))).rejects.toMatchObject({
      kind: 'corrupt',
      message: expect.stringContaining('loop'),
    });
  });

  const split = (start: number, end: number, file: string) => ({
    start,
    end,
    images: [{ guid: TOP, type: 'Compressed' as const, file }],
  });
  it.each<[string, Partial<DescriptorParts>, string, RegExp]>([
    [
      'a gap between its parts',
      { storages: [split(0, 20, 'a'), split(24, 40, 'b')] },
      'corrupt',
      /Storage Start.*20.*24/,
    ],
    ['parts that overlap', { storages: [split(0, 20, 'a'), split(16, 40, 'b')] }, 'corrupt', /Storage Start/],
    ['a part of nothing', { storages: [split(0, 0, 'a')] }, 'corrupt', /Storage End/],
    ['parts that are not the disk', { storages: [split(0, 36, 'a')] }, 'corrupt', /Storage End.*40/],
    ['no parts', { storages: [] }, 'corrupt', /StorageData/],
    ['padding', { padding: 1 }, 'unsupported', /padding/],
    ['encryption', { engine: A }, 'unsupported', /Parallels HDD encryption/],
    ['sectors of 4096 bytes', { logicSector: 4096 }, 'unsupported', /sectors of "4096" bytes/],
    ['a top that is not there', { top: '99999999-0000-4000-8000-000000000000' }, 'corrupt', /no such snapshot/],
    [
      'one file for two parts',
      { storages: [split(0, 20, name(TOP)), split(20, 40, name(TOP))], shots: [] },
      'corrupt',
      /Image File.*for two/,
    ],
    ['a file outside the folder', { storages: [split(0, 40, '../../etc/passwd')], shots: [] }, 'denied', /leaves/],
    ['itself as its image', { storages: [split(0, 40, 'DiskDescriptor.xml')], shots: [] }, 'denied', /names itself/],
    [
      'a smaller image',
      { sectors: 44, storages: [split(0, 44, name(TOP))], shots: [] },
      'corrupt',
      /nb_sectors.*at least 44/,
    ],
  ])('is refused with %s', async (_what, changed, kind, message) => {
    const root = write(changed);
    await expect(openLayer(descriptor, new Confinement(root))).rejects.toMatchObject({
      kind,
      message: expect.stringMatching(message),
    });
  });

  it.each([
    ['an entity', '<!DOCTYPE a [<!ENTITY b "c">]><Parallels_disk_image Version="1.0"/>', 'unsupported'],
    ['no XML', 'not at all', 'corrupt'],
    ['another root', '<a/>', 'corrupt'],
    ['another version', '<Parallels_disk_image Version="2.0"/>', 'unsupported'],
    ['elements without end', '<Parallels_disk_image Version="1.0">'.repeat(3000), 'corrupt'],
    [
      'a size that is no number',
      '<Parallels_disk_image Version="1.0"><Disk_Parameters><Disk_size>1e9</Disk_size></Disk_Parameters></Parallels_disk_image>',
      'corrupt',
    ],
  ])('is refused with a descriptor of %s', async (_what, text, kind) => {
    const root = fresh();
    writeHdd(root, 'web01', text, {});
    await expect(openLayer(descriptor, new Confinement(root))).rejects.toMatchObject({ kind });
  });

  it('is opened whole, and not by a later part of it', async () => {
    const root = fresh();
    const part = { ...simple, sectors: 20, clusters: new Map([cluster(2)]) };
    const names = [imageName('d', 0, TOP), imageName('d', 1, TOP)];
    const text = diskDescriptor({
      sectors: 40,
      blockSectors: TRACKS,
      storages: [split(0, 20, names[0]!), split(20, 40, names[1]!)],
    });
    const bytes = buildExpanding(part).bytes;
    writeHdd(root, 'd', text, { [names[0]!]: bytes, [names[1]!]: bytes });
    const model = Buffer.concat([expandingModel(part), expandingModel(part)]);
    expect((await content(root, 'd.hdd/DiskDescriptor.xml')).equals(model)).toBe(true);
    expect((await content(root, `d.hdd/${names[0]}`)).equals(model)).toBe(true);
    await expect(openLayer(`d.hdd/${names[1]}`, new Confinement(root))).rejects.toMatchObject({
      kind: 'unsupported',
      details: { role: 'extent', descriptor: 'd.hdd/DiskDescriptor.xml' },
    });
  });

  it('leaves an image without its descriptor readable, and says what is not known', async () => {
    const root = fresh();
    writeFileSync(join(root, name(TOP)), buildExpanding(layers[TOP]!).bytes);
    const layer = await openLayer(name(TOP), new Confinement(root));
    expect(await findings(layer)).toMatchObject([{ severity: 'suspicious', code: 'descriptor-missing' }]);
    await layer.close();
  });
});

/** What differencing VHDs record of their parents, and the chains it makes. */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openChain } from '../../../main/engine/chain/open.ts';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import type { Finding } from '../../../main/engine/image/image.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { findings } from '../../conformance/image-layer.ts';
import { randomFrom } from '../../support/random.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import {
  buildFixed,
  buildVhd,
  type Locator,
  MADE,
  SECTOR,
  sectorContent,
  sectorRange,
  sumHeader,
  type VhdImage,
  type VhdOptions,
  type VhdParent,
  vhdModel,
  windowsLocator,
} from '../../support/vhd-builder.ts';
import { type Change, codesOf, readAll, untouched, withImage, worseOf } from '../../support/vhd-open.ts';

const scratch = scratchFolder('vhd-parent');
const ID = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';
const NONE = '00000000-0000-0000-0000-000000000000';
const small = { size: 64 * SECTOR, blockSize: 4096, sectors: new Map(sectorRange(3, 2)) };
const idOf = (n: number) => `1c0ffee0-000${n.toString(16)}-4000-8000-00000000beef`;

const macX = (url: string): Locator => ({ code: 'MacX', data: Buffer.from(url) });
const ansi = (code: string, path: string): Locator => ({ code, data: Buffer.from(path, 'latin1') });
const claimOf = (parent: VhdParent, options: Partial<VhdOptions> = {}, change: Change = untouched) =>
  withImage(scratch.path, { ...small, ...options, parent }, change, async (layer) => layer.parent!);
const toldOf = (parent: VhdParent, change: Change = untouched): Promise<Finding[]> =>
  withImage(scratch.path, { ...small, parent }, change, findings);

describe('the parent of a differencing VHD', () => {
  it('is recorded by the relative name first, then by all others', async () => {
    const locators = [
      macX('file:///Users/x/VMs/base%20one.vhd'),
      windowsLocator('W2ku', 'C:\\VMs\\base one.vhd'),
      windowsLocator('W2ru', '..\\VMs\\base one.vhd'),
      ansi('Wi2k', 'C:\\VMS\\BASE\xc41.VHD'),
    ];
    expect(await claimOf({ id: ID, name: 'base one.vhd', modified: MADE, locators })).toEqual({
      recorded: '..\\VMs\\base one.vhd',
      alternatives: [
        'C:\\VMs\\base one.vhd',
        '/Users/x/VMs/base one.vhd',
        '/Users/x/VMs/base%20one.vhd',
        'C:\\VMS\\BASE\u00c41.VHD',
        'base one.vhd',
      ],
      id: ID,
      format: 'vhd',
      modified: MADE,
    });
  });

  it.each<[string, VhdParent, string]>([
    [
      'its unicode name',
      { name: 'Stammdaten \u00fc\u4e00\ud83d\ude00.vhd' },
      'Stammdaten \u00fc\u4e00\ud83d\ude00.vhd',
    ],
    ['a name of 256 characters', { name: 'n'.repeat(256) }, 'n'.repeat(256)],
    ['a Chinese relative name', { locators: [windowsLocator('W2ru', '\u4e00\u4e01.vhd')] }, '\u4e00\u4e01.vhd'],
    [
      'an absolute name alone',
      { locators: [windowsLocator('W2ku', '\\\\host\\share\\a.vhd')] },
      '\\\\host\\share\\a.vhd',
    ],
    ['a name with its NUL', { locators: [windowsLocator('W2ru', '.\\a.vhd\0rest')] }, '.\\a.vhd'],
    ['a URL as XenServer writes it', { locators: [macX('file://./8a1b.vhd')] }, './8a1b.vhd'],
    ['a URL of this host', { locators: [macX('file://localhost/x/a.vhd')] }, '/x/a.vhd'],
    ['a URL with a bare percent sign', { locators: [macX('file:///x/100%.vhd')] }, '/x/100%.vhd'],
    [
      'a deprecated name in two bytes',
      { locators: [{ code: 'Wi2r', data: Buffer.from('a.vhd', 'utf16le') }] },
      'a.vhd',
    ],
    ['space in sectors, as specified', { locators: [windowsLocator('W2ru', '.\\a.vhd', 1)] }, '.\\a.vhd'],
  ])('may be known by %s', async (_, parent, recorded) => {
    expect((await claimOf({ id: ID, ...parent })).recorded).toBe(recorded);
    expect(worseOf(await toldOf({ id: ID, ...parent }))).toEqual([]);
  });

  it('without any name is looked for by its identity, and that is told', async () => {
    const alias = { code: 'Mac ', data: Buffer.alloc(20, 1) };
    expect(await claimOf({ id: ID, locators: [alias] })).toEqual({
      recorded: ID,
      nameless: true,
      id: ID,
      format: 'vhd',
    });
    expect(worseOf(await toldOf({ id: ID, locators: [alias] }))).toEqual(['suspicious parent-nameless']);
  });

  it('without identity is a raw volume where XenServer says so, and anything elsewhere', async () => {
    const parent = { id: NONE, name: 'a.raw' };
    expect(await claimOf(parent, { creator: 'tap\0', creatorVersion: 0x10003 })).toEqual({
      recorded: 'a.raw',
      format: 'raw',
    });
    expect(await claimOf(parent)).toEqual({ recorded: 'a.raw' });
  });

  it('was named by tapdisk 0.1 in its own byte order', async () => {
    const name = Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from('old.vhd', 'utf16le')]);
    expect((await claimOf({ id: ID, name }, { creator: 'tap\0', creatorVersion: 1 })).recorded).toBe('old.vhd');
  });

  const field =
    (index: number, at: number, value: number) =>
    ({ bytes, at: { header } }: VhdImage) => {
      bytes.writeUInt32BE(value, header + 576 + index * 24 + at);
      sumHeader(bytes, header);
    };
  const two = { id: ID, locators: [windowsLocator('W2ru', '.\\a.vhd'), windowsLocator('W2ku', 'C:\\a.vhd')] };
  it.each<[string, Change, string]>([
    ['outside the file', field(0, 20, 0x7fff_0000), 'damaged locator-out-of-file'],
    ['at 2^63', field(0, 16, 0x8000_0000), 'damaged locator-out-of-file'],
    ['in the footer copy', field(0, 20, 0), 'damaged locator-out-of-file'],
    ['of no bytes', field(0, 8, 0), 'suspicious locator-length'],
    ['of 4 GiB', field(0, 8, 0xffff_ffff), 'damaged locator-out-of-file'],
    ['of an unknown code', field(0, 0, 0x41424344), 'suspicious locator-unknown'],
  ])('with a locator %s is known by the others', async (_, change, expected) => {
    expect(await claimOf(two, {}, change)).toEqual({ recorded: 'C:\\a.vhd', id: ID, format: 'vhd' });
    const [finding, ...more] = (await toldOf(two, change)).filter(({ severity }) => severity !== 'note');
    expect(codesOf([finding!])).toEqual([expected]);
    expect(more).toEqual([]);
    expect(finding).toMatchObject({ source: 'a.vhd', position: 512 + 576, remedy: expect.any(String) });
  });

  it('with a locator longer than its space is read, and told', async () => {
    const change = field(0, 4, 0);
    expect((await claimOf(two, {}, change)).recorded).toBe('.\\a.vhd');
    expect(worseOf(await toldOf(two, change))).toEqual(['suspicious locator-length']);
  });

  it('with a name longer than any path is known by the others', async () => {
    const long = { code: 'W2ru', data: Buffer.alloc(70_000, 'a') };
    const parent = { id: ID, locators: [long, windowsLocator('W2ku', 'C:\\a.vhd')] };
    expect((await claimOf(parent)).recorded).toBe('C:\\a.vhd');
    expect(worseOf(await toldOf(parent))).toEqual(['suspicious locator-length']);
  });

  it('with half surrogates in its names is told so', async () => {
    const parent = { id: ID, name: 'a\ud800.vhd', locators: [windowsLocator('W2ru', '.\\\udc00a.vhd')] };
    const claim = await claimOf(parent);
    expect([claim.recorded, ...claim.alternatives!]).toEqual(['.\\\ufffda.vhd', 'a\ufffd.vhd']);
    expect(worseOf(await toldOf(parent))).toEqual([
      'suspicious parent-name-not-text',
      'suspicious parent-name-not-text',
    ]);
  });

  it('under names of different files is told', async () => {
    const parent = { id: ID, name: 'b.vhd', locators: [windowsLocator('W2ru', '.\\a.vhd')] };
    expect(codesOf(await toldOf(parent))).toEqual(['note parent-names-differ']);
  });

  it('that is the image itself is damage', async () => {
    const found = await toldOf({ id: '11111111-2222-3333-4444-555555555555', name: 'a.vhd' });
    expect(worseOf(found)).toEqual(['damaged own-parent']);
  });

  it('with a name in the tables is damage', async () => {
    const found = await toldOf(two, field(0, 20, 1536));
    expect(worseOf(found)).toContain('damaged locator-in-tables');
  });
});

describe('chains of VHDs', () => {
  type Link = Partial<VhdOptions> & { file: string };
  /** Writes a base and links over it; returns the folder and the disk at every depth. */
  function write(links: readonly Link[], locators: (file: string) => Locator[], base?: Buffer) {
    const folder = mkdtempSync(join(scratch.path, 'chain-'));
    const disks: Buffer[] = [];
    for (const [i, { file, ...link }] of links.entries()) {
      const below = links[i - 1]?.file;
      const parent = below === undefined ? {} : { parent: { id: idOf(i - 1), name: below, locators: locators(below) } };
      const options: VhdOptions = {
        size: 96 * SECTOR,
        blockSize: 8192,
        id: idOf(i),
        sectors: new Map(),
        ...parent,
        ...link,
      };
      mkdirSync(join(folder, dirname(file)), { recursive: true });
      writeFileSync(join(folder, file), i === 0 && base !== undefined ? base : buildVhd(options).bytes);
      disks.push(i === 0 && base !== undefined ? base.subarray(0, -512) : vhdModel(options, disks.at(-1)));
    }
    return { folder, disks };
  }
  const windows = (file: string) => [windowsLocator('W2ku', `C:\\VMs\\${file}`), windowsLocator('W2ru', `.\\${file}`)];
  async function readChain(folder: string, leaf: string): Promise<Buffer> {
    const disk = await openChain(leaf, new Confinement(folder));
    const bytes = Buffer.from(await disk.read(0, disk.size));
    await disk.close();
    return bytes;
  }
  async function verify(folder: string, leaf: string): Promise<Finding[]> {
    const found: Finding[] = [];
    for await (const finding of verifyChain(leaf, new Confinement(folder))) found.push(finding);
    return found;
  }

  it('of random links read as their sectors laid over each other, at every depth', async () => {
    const random = randomFrom(21);
    const links = Array.from({ length: 12 }, (_, i) => {
      const sectors = new Map<number, Buffer>();
      for (let n = 0; n < 9; n++) {
        const first = Math.floor(random() * 96);
        for (let s = first; s < Math.min(96, first + 1 + random() * 6); s++) sectors.set(s, sectorContent(s, i));
      }
      const blockSize = [4096, 8192, 16_384][i % 3]!;
      return { file: `disk-${i}.avhd`, sectors, blockSize, backwards: i % 2 === 1 };
    });
    const { folder, disks } = write(links, windows);
    await leavesUntouched(folder, async () => {
      for (const [i, disk] of disks.entries()) {
        expect(
          createHash('sha256')
            .update(await readChain(folder, links[i]!.file))
            .digest('hex'),
        ).toBe(createHash('sha256').update(disk).digest('hex'));
      }
      expect(worseOf(await verify(folder, 'disk-11.avhd'))).toEqual([]);
    });
  });

  const relative = (path: string) => windowsLocator('W2ru', path);
  const absolute = (path: string) => windowsLocator('W2ku', path);
  it.each<[string, string, string, Locator]>([
    ['beside it, by `.\\`', 'a.vhd', 'base.vhd', relative('.\\base.vhd')],
    ['beside it, by a bare name', 'a.vhd', 'base.vhd', relative('base.vhd')],
    ['in a folder below', 'vm/a.vhd', 'vm/base/base.vhd', relative('.\\base\\base.vhd')],
    ['in a folder above', 'vm/a.vhd', 'base.vhd', relative('..\\base.vhd')],
    ['in another folder', 'vm/a.vhd', 'bases/base.vhd', relative('..\\bases\\base.vhd')],
    ['at an absolute place', 'vm/a.vhd', 'vm/base.vhd', absolute('D:\\Hyper-V\\base.vhd')],
    ['at an extended absolute place', 'vm/a.vhd', 'vm/base.vhd', absolute('\\\\?\\D:\\Hyper-V\\base.vhd')],
    ['on a share', 'vm/a.vhd', 'vm/base.vhd', absolute('\\\\host\\vms\\base.vhd')],
    ['outside, but copied to its side', 'vm/a.vhd', 'vm/base.vhd', relative('..\\..\\..\\else\\base.vhd')],
    ['by a URL', 'vm/a.vhd', 'vm/base.vhd', macX('file:///Volumes/VMs/base.vhd')],
  ])('find their parent %s', async (_, child, base, locator) => {
    const folder = mkdtempSync(join(scratch.path, 'place-'));
    for (const file of [child, base]) mkdirSync(join(folder, dirname(file)), { recursive: true });
    const below = { ...small, id: ID, sectors: new Map(sectorRange(0, 40)) };
    const above = {
      ...small,
      sectors: new Map(sectorRange(5, 3, 2)),
      parent: { id: ID, name: 'base.vhd', locators: [locator] },
    };
    writeFileSync(join(folder, base), buildVhd(below).bytes);
    writeFileSync(join(folder, child), buildVhd(above).bytes);
    expect(await readChain(folder, child)).toEqual(vhdModel(above, vhdModel(below)));
  });

  it('over a fixed base that no name gives away, and over a raw volume', async () => {
    const content = vhdModel({ size: 96 * SECTOR, sectors: new Map(sectorRange(0, 96)) });
    // Its first sector looks like another format: the child knows better.
    content.write('KDMV', 0, 'latin1');
    const fixed = write(
      [{ file: 'VHD-1' }, { file: 'VHD-2.vhd', sectors: new Map(sectorRange(9, 2, 2)) }],
      windows,
      buildFixed(content, { id: idOf(0) }),
    );
    expect(await readChain(fixed.folder, 'VHD-2.vhd')).toEqual(fixed.disks[1]);

    const folder = mkdtempSync(join(scratch.path, 'raw-'));
    const options = { size: 96 * SECTOR, blockSize: 8192, sectors: new Map(sectorRange(9, 2, 2)) };
    const parent = { id: NONE, name: 'LV-1', locators: [macX('file://./LV-1')] };
    writeFileSync(join(folder, 'LV-1'), content);
    const child = buildVhd({ ...options, parent, creator: 'tap\0', creatorVersion: 0x10003 });
    writeFileSync(join(folder, 'VHD-2.vhd'), child.bytes);
    expect(await readChain(folder, 'VHD-2.vhd')).toEqual(vhdModel(options, content));
  });

  it('whose parent has another identity are refused, with the file that is not it', async () => {
    const { folder } = write([{ file: 'base.vhd' }, { file: 'a.vhd' }], windows);
    writeFileSync(join(folder, 'base.vhd'), buildVhd({ ...small, size: 96 * SECTOR, id: idOf(9) }).bytes);
    await expect(readChain(folder, 'a.vhd')).rejects.toMatchObject({
      kind: 'missing-parent',
      details: {
        child: 'a.vhd',
        recorded: '.\\base.vhd',
        expectedId: idOf(0),
        foundId: idOf(9),
        candidate: 'base.vhd',
      },
    });
  });

  it('whose parent is missing name it', async () => {
    const { folder } = write([{ file: 'base.vhd' }, { file: 'a.vhd' }], () => [windowsLocator('W2ru', '.\\gone.vhd')]);
    writeFileSync(
      join(folder, 'b.vhd'),
      buildVhd({ ...small, parent: { id: ID, name: 'gone.vhd', locators: [windowsLocator('W2ru', '.\\gone.vhd')] } })
        .bytes,
    );
    await expect(readChain(folder, 'b.vhd')).rejects.toMatchObject({
      kind: 'missing-parent',
      details: { child: 'b.vhd', recorded: '.\\gone.vhd', expectedId: ID },
    });
  });

  it('that leave the folder are denied', async () => {
    const { folder } = write([{ file: 'vm/a.vhd' }], windows);
    writeFileSync(join(folder, 'base.vhd'), buildVhd({ ...small, id: ID }).bytes);
    const parent = { id: ID, locators: [windowsLocator('W2ru', '..\\base.vhd')] };
    writeFileSync(join(folder, 'vm/b.vhd'), buildVhd({ ...small, parent }).bytes);
    expect(await readChain(folder, 'vm/b.vhd')).toHaveLength(small.size);
    await expect(readChain(join(folder, 'vm'), 'b.vhd')).rejects.toMatchObject({ kind: 'denied' });
  });

  it('that are a ring are damage', async () => {
    const folder = mkdtempSync(join(scratch.path, 'ring-'));
    for (const [i, other] of [1, 0].entries()) {
      const parent = { id: idOf(other), name: `${other}.vhd` };
      writeFileSync(join(folder, `${i}.vhd`), buildVhd({ ...small, id: idOf(i), parent }).bytes);
    }
    await expect(readChain(folder, '0.vhd')).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: 'Chain' },
    });
  });

  it('without names are found by identity', async () => {
    const folder = mkdtempSync(join(scratch.path, 'nameless-'));
    writeFileSync(join(folder, 'x.vhd'), buildVhd({ ...small, id: ID }).bytes);
    writeFileSync(join(folder, 'y.vhd'), buildVhd({ ...small, id: idOf(3) }).bytes);
    const child = { ...small, sectors: new Map(sectorRange(50, 1, 2)), parent: { id: ID } };
    writeFileSync(join(folder, 'a.vhd'), buildVhd(child).bytes);
    expect(await readChain(folder, 'a.vhd')).toEqual(vhdModel(child, vhdModel(small)));
  });

  it('are checked from the base up, a damaged leaf leaving the points below it alone', async () => {
    const { folder } = write([{ file: 'base.vhd', sectors: new Map(sectorRange(0, 9)) }, { file: 'a.vhd' }], windows);
    const parent = { id: idOf(0), name: 'base.vhd', locators: windows('base.vhd') };
    const { bytes, at } = buildVhd({ size: 96 * SECTOR, blockSize: 8192, sectors: new Map(sectorRange(0, 2)), parent });
    bytes.writeUInt32BE(0x7fff_ffff, at.table);
    writeFileSync(join(folder, 'a.vhd'), bytes);
    const [finding, ...more] = (await verify(folder, 'a.vhd')).filter(({ severity }) => severity !== 'note');
    expect(more).toEqual([]);
    expect(finding).toMatchObject({
      severity: 'damaged',
      code: 'block-out-of-file',
      source: 'a.vhd',
      position: at.table,
      remedy: expect.stringContaining('base.vhd'),
    });
  });

  it('hold a layer’s own answers only: what the parent has is absent', async () => {
    const parent = { id: ID, name: 'gone.vhd' };
    await withImage(scratch.path, { ...small, parent }, untouched, async (layer) => {
      expect(await readAll(layer)).toEqual(vhdModel(small));
      expect(layer.variant).toBe('differencing');
    });
  });
});

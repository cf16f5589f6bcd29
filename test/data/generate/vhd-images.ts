/** The golden VHDs; see `vhd.sh`. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  buildFixed,
  buildVhd,
  type Locator,
  SECTOR,
  sectorRange,
  type VhdOptions,
  vhdModel,
  windowsLocator,
} from '../../support/vhd-builder.ts';
import { type Entry, KIB, MIB, qemuTruth, run, scattered, withScratch, writeGolden } from './golden-writer.ts';

const out = process.argv[2]!;
const BUILDER =
  'test/support/vhd-builder.ts after Microsoft, "Virtual Hard Disk Image Format Specification" 1.0, and blktap include/vhd.h';
const TRUTH_7Z = 'truth: what the builder put in, and 7z x -tVHD (p7zip 16.02), which agrees';
const TRUTH = 'truth: what the builder put in';

const idOf = (n: number): string => `1c0ffee0-000${n}-4000-8000-00000000beef`;

/** What 7-Zip reads out of an image and its parents. */
function sevenZip(image: string): Buffer {
  return execFileSync('7z', ['x', '-so', '-tVHD', image], { maxBuffer: 1 << 30, stdio: ['ignore', 'pipe', 'ignore'] });
}

function checked(entry: Entry): Entry {
  return withScratch((folder) => {
    for (const [name, bytes] of Object.entries(entry.files)) writeFileSync(join(folder, name), bytes);
    if (!sevenZip(join(folder, entry.leaf)).equals(entry.disk)) throw new Error(`7-Zip reads "${entry.title}" otherwise`);
    return entry;
  });
}

function byQemu(title: string, options: string, size: number): Entry {
  return withScratch((folder) => {
    const raw = join(folder, 'disk.raw');
    const image = join(folder, 'disk.vhd');
    const disk = scattered(size % 89, size, 120);
    // Two whole blocks of nothing, so that the table has holes.
    if (size > 8 * MIB) disk.fill(0, 2 * MIB, 6 * MIB);
    writeFileSync(raw, disk);
    const args = ['convert', '-f', 'raw', '-O', 'vpc', '-o', options];
    run('qemu-img', ...args, raw, image);
    const read = qemuTruth('vpc', image, folder);
    if (!read.subarray(0, size).equals(disk)) throw new Error('qemu-img does not give back what it was given');
    const made = `qemu-img 7.2 ${args.join(' ')} disk.raw disk.vhd; truth: qemu-img convert`;
    return { title, made, files: { 'web01.vhd': readFileSync(image) }, leaf: 'web01.vhd', disk: read };
  });
}

/** Links over a base, each with the name of the one below it. */
function chain(
  base: { name: string; bytes: Buffer; disk: Buffer; id: string },
  links: readonly (Partial<VhdOptions> & { name: string; sectors: ReadonlyMap<number, Buffer> })[],
  locators: (parent: string) => Locator[],
): Pick<Entry, 'files' | 'leaf' | 'disk'> {
  const files: Record<string, Buffer> = { [base.name]: base.bytes };
  let { disk } = base;
  let below = { name: base.name, id: base.id };
  for (const [i, { name, ...link }] of links.entries()) {
    const id = idOf(i + 2);
    const parent = { id: below.id, name: below.name, modified: 1_700_000_000, locators: locators(below.name) };
    const options: VhdOptions = { size: disk.length, parent, id, ...link };
    files[name] = buildVhd(options).bytes;
    disk = vhdModel(options, disk);
    below = { name, id };
  }
  return { files, leaf: below.name, disk };
}

const windows = (name: string): Locator[] => [
  windowsLocator('W2ku', `C:\\ClusterStorage\\web01\\${name}`),
  windowsLocator('W2ru', `.\\${name}`),
];
/** As libvhd writes them: the relative name in all three. */
const xen = (name: string): Locator[] => [
  { code: 'MacX', data: Buffer.from(`file://./${name}`) },
  windowsLocator('W2ku', `.\\${name}`),
  windowsLocator('W2ru', `.\\${name}`),
];
const tap = { creator: 'tap\0', creatorVersion: 0x0001_0003, creatorHost: 0 };

/** A dynamic base of three blocks: the first full, the second partly there, the third absent. */
function dynamicBase(name: string, more: Partial<VhdOptions> = {}) {
  const options: VhdOptions = {
    size: 3 * 2 * MIB,
    id: idOf(1),
    sectors: new Map([...sectorRange(0, 4096, 1), ...sectorRange(5000, 77, 1)]),
    ...more,
  };
  return { name, bytes: buildVhd(options).bytes, disk: vhdModel(options), id: idOf(1) };
}

function overQemuBase(): Entry {
  const base = byQemu('', 'subformat=dynamic,force_size=on', 9 * MIB + 512);
  const bytes = base.files['web01.vhd']!;
  const id = bytes.subarray(68, 84).toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  const link = {
    name: 'web01_1.avhd',
    sectors: new Map([...sectorRange(3, 9, 2), ...sectorRange(4096, 300, 2), ...sectorRange(18_432, 1, 2)]),
  };
  const made = `base: ${base.made}; child: ${BUILDER}; ${TRUTH_7Z}`;
  const built = chain({ name: 'web01.vhd', bytes, disk: base.disk, id }, [link], windows);
  return checked({ title: 'differencing, two links, over a base by QEMU', made, ...built });
}

const three = [
  { name: 'web01_1.avhd', sectors: new Map([...sectorRange(4100, 1, 2), ...sectorRange(4223, 40, 2)]) },
  // Sectors of the first and third block, which the link below does not have.
  {
    name: 'web01_2.avhd',
    sectors: new Map([...sectorRange(17, 3, 3), ...sectorRange(4230, 5, 3), ...sectorRange(9001, 30, 3)]),
    allocated: [1],
  },
];

/** Content that compresses: the whole disk in text of a few KiB. */
const small = new Map([...sectorRange(0, 40), ...sectorRange(100, 3), ...sectorRange(127, 1)]);

function footers(): Entry[] {
  const options: VhdOptions = { size: 2 * MIB + 3 * SECTOR, id: idOf(1), sectors: small, blockSize: 512 * KIB };
  const disk = vhdModel(options);
  const image = (change: (bytes: Buffer, footer: number) => Buffer | undefined, extra: Partial<VhdOptions> = {}) => {
    const { bytes, at } = buildVhd({ ...options, ...extra });
    return { 'web01.vhd': change(bytes, at.footer) ?? bytes };
  };
  const made = `${BUILDER}; ${TRUTH}`;
  const entry = { made, leaf: 'web01.vhd', disk };
  return [
    {
      ...entry,
      title: 'last footer damaged, the copy used',
      files: image((bytes, footer) => void bytes.fill(0x5a, footer + 40, footer + 60)),
      findings: ['footer-copy-used'],
    },
    {
      ...entry,
      title: 'last footer cut off, the copy used',
      files: image((bytes, footer) => bytes.subarray(0, footer)),
      findings: ['footer-copy-used'],
    },
    {
      ...entry,
      title: 'footer copy damaged, the last used',
      files: image((bytes) => void bytes.fill(0, 0, 512)),
      findings: ['footer-copy-damaged'],
    },
    {
      ...entry,
      title: 'copied while XenServer had it open',
      files: image((bytes, footer) => void bytes.fill(0xc7, footer), { ...tap, batmap: true }),
      findings: ['footer-copy-used'],
    },
    {
      ...entry,
      title: 'dynamic, a footer of 511 bytes',
      files: image((bytes) => bytes.subarray(0, -1), { creator: 'vpc ', creatorVersion: 0x0005_0000 }),
    },
  ];
}

function halfMib(): Entry {
  const sectors = new Map([...sectorRange(0, 1024), ...sectorRange(1500, 20), ...sectorRange(4096, 5)]);
  const options = { size: 4101 * SECTOR, id: idOf(1), sectors, blockSize: 512 * KIB, backwards: true };
  const base = { name: 'web01.vhd', bytes: buildVhd(options).bytes, disk: vhdModel(options), id: idOf(1) };
  const link = {
    name: 'web01_1.vhd',
    blockSize: 512 * KIB,
    sectors: new Map([...sectorRange(1000, 30, 2), ...sectorRange(4100, 1, 2)]),
  };
  const made = `${BUILDER}; ${TRUTH_7Z}`;
  return checked({ title: 'blocks of 512 KiB, two links', made, ...chain(base, [link], windows) });
}

function xenServer(): Entry[] {
  const made = `${BUILDER}; ${TRUTH_7Z}`;
  const base = dynamicBase(`${idOf(1)}.vhd`, { ...tap, batmap: true });
  const link = { ...tap, batmap: true, sectors: new Map([...sectorRange(60, 9, 2), ...sectorRange(4096, 4096, 2)]) };
  const old = { creator: 'tap\0', creatorVersion: 1, creatorHost: 0, lowBitFirst: true };
  const raw = vhdModel({ size: 2 * MIB, sectors: small });
  const parent = { name: 'LV-1.raw', modified: 1_700_000_000, locators: xen('LV-1.raw') };
  const overRaw: VhdOptions = { ...tap, size: 2 * MIB, batmap: true, parent, sectors: new Map(sectorRange(90, 20, 2)) };
  return [
    checked({
      title: 'XenServer: a base and its snapshot with batmaps',
      made,
      ...chain(base, [{ name: `${idOf(2)}.vhd`, ...link }], xen),
    }),
    {
      title: 'XenServer: over a raw volume',
      made: `${BUILDER}; ${TRUTH}`,
      files: { 'LV-1.raw': raw, 'VHD-2.vhd': buildVhd(overRaw).bytes },
      leaf: 'VHD-2.vhd',
      disk: vhdModel(overRaw, raw),
    },
    {
      title: 'XenServer: tapdisk 0.1, bitmaps from the lowest bit',
      made: `${BUILDER}; ${TRUTH}`,
      ...chain(dynamicBase('web01.vhd', old), [{ name: 'web01_1.vhd', ...old, sectors: three[1]!.sectors }], xen),
    },
  ];
}

function fixedBase(): Entry {
  const disk = scattered(5, MIB, 20);
  const base = { name: 'base.vhd', bytes: buildFixed(disk, { id: idOf(1) }), disk, id: idOf(1) };
  const link = { name: 'child.vhd', blockSize: 512 * KIB, sectors: new Map(sectorRange(33, 100, 2)) };
  const made = `${BUILDER}; ${TRUTH_7Z}`;
  return checked({ title: 'differencing over a fixed base', made, ...chain(base, [link], windows) });
}

writeGolden(
  'vhd',
  [
    byQemu('fixed', 'subformat=fixed,force_size=on', 2 * MIB + 3 * 512),
    byQemu('dynamic', 'subformat=dynamic,force_size=on', 11 * MIB + 512),
    byQemu('dynamic, as large as its geometry', 'subformat=dynamic', 9 * MIB),
    overQemuBase(),
    checked({
      title: 'differencing, three links',
      made: `${BUILDER}; ${TRUTH_7Z}`,
      ...chain(dynamicBase('web01.vhd'), three, windows),
    }),
    fixedBase(),
    halfMib(),
    ...xenServer(),
    ...footers(),
  ],
  out,
);

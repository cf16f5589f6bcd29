/**
 * Names that lead elsewhere, that mean a device or a protocol, or that are no text: as the name of a parent, of an extent, of a data
 * file, of a member of an archive. Where such a name points lies a file that would be taken if it were followed.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { buildExpanding, diskDescriptor, TOP, writeHdd } from '../../support/parallels-builder.ts';
import { buildQcow } from '../../support/qcow-builder.ts';
import { buildQcow2 } from '../../support/qcow2-builder.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { BLOCK, buildTar, type TarMember } from '../../support/tar-builder.ts';
import { buildVhd, sectorContent, sumHeader, type VhdParent } from '../../support/vhd-builder.ts';
import { buildVhdx, DATA_WRITE_GUID, parentLocator } from '../../support/vhdx-builder.ts';
import { descriptorText, pattern, SECTOR, writeSparseDisk } from '../../support/vmdk-builder.ts';
import { attack, codes, type Outcome, scan } from './attack.ts';
import { fresh, ova, vdiDynamic } from './fixtures.ts';

const MIB = 1 << 20;
const BASE_ID = '0badcafe-0001-4000-8000-000000000001';

interface Naming {
  readonly name: string;
  /** Writes the child (`child.<ext>`) that names `recorded`. */
  child(folder: string, recorded: string): string;
  /** Writes a right parent at this path. */
  parent(path: string): void;
  readonly extension: string;
  /** Windows wrote it: a backslash separates. */
  readonly windows: boolean;
  /** A name is of a file that is no parent, and missing is an error of its own. */
  readonly missing: 'missing-parent' | 'not-found';
}

const vhdBase = {
  size: 64 * SECTOR,
  blockSize: 4096,
  id: BASE_ID,
  sectors: new Map([[1, sectorContent(1, 1)]]),
} as const;
function vhdChild(folder: string, parent: Partial<VhdParent>): string {
  const { bytes } = buildVhd({
    ...vhdBase,
    id: '0badcafe-0001-4000-8000-000000000002',
    sectors: new Map([[2, sectorContent(2, 2)]]),
    parent: { id: BASE_ID, ...parent },
  });
  writeFileSync(join(folder, 'child.vhd'), bytes);
  return 'child.vhd';
}
const vhdParent = (path: string): void => writeFileSync(path, buildVhd(vhdBase).bytes);
const qcow2Base = buildQcow2({ size: 8192, clusterBits: 9, clusters: new Map([[1, pattern(1, 512)]]) }).bytes;
const vmdkLayout = { capacitySectors: 64, grainSectors: 8, grains: new Map([[1, pattern(1, 8 * SECTOR)]]) };

const namings: readonly Naming[] = [
  {
    name: 'VMDK parentFileNameHint',
    extension: 'vmdk',
    windows: true,
    missing: 'missing-parent',
    child(folder, recorded) {
      const claim = { cid: '0000000b', parentCid: '0000000a', parentFileNameHint: recorded };
      writeSparseDisk(folder, 'child', { ...vmdkLayout, grains: new Map() }, claim);
      return 'child.vmdk';
    },
    parent(path) {
      const at = path.lastIndexOf('/');
      writeSparseDisk(path.slice(0, at), path.slice(at + 1).replace(/\.vmdk$/, ''), vmdkLayout, { cid: '0000000a' });
    },
  },
  {
    name: 'VMDK extent',
    extension: 'bin',
    windows: true,
    missing: 'not-found',
    child(folder, recorded) {
      const extents = [`RW 64 FLAT "${recorded}" 0`];
      writeFileSync(join(folder, 'child.vmdk'), descriptorText({ createType: 'monolithicFlat', extents }));
      return 'child.vmdk';
    },
    parent: (path) => writeFileSync(path, pattern(0, 64 * SECTOR)),
  },
  {
    name: 'VHD locator W2ru',
    extension: 'vhd',
    windows: true,
    missing: 'missing-parent',
    child: (folder, recorded) =>
      vhdChild(folder, { locators: [{ code: 'W2ru', data: Buffer.from(recorded, 'utf16le') }] }),
    parent: vhdParent,
  },
  {
    name: 'VHD locator W2ku',
    extension: 'vhd',
    windows: true,
    missing: 'missing-parent',
    child: (folder, recorded) =>
      vhdChild(folder, { locators: [{ code: 'W2ku', data: Buffer.from(recorded, 'utf16le') }] }),
    parent: vhdParent,
  },
  {
    name: 'VHD locator MacX',
    extension: 'vhd',
    windows: false,
    missing: 'missing-parent',
    child: (folder, recorded) =>
      vhdChild(folder, { locators: [{ code: 'MacX', data: Buffer.from(recorded, 'utf8') }] }),
    parent: vhdParent,
  },
  {
    name: 'VHD unicode name',
    extension: 'vhd',
    windows: true,
    missing: 'missing-parent',
    child: (folder, recorded) => vhdChild(folder, { name: recorded.slice(0, 255) }),
    parent: vhdParent,
  },
  {
    name: 'VHDX relative_path',
    extension: 'vhdx',
    windows: true,
    missing: 'missing-parent',
    child(folder, recorded) {
      const parent = {
        parent_linkage: `{${DATA_WRITE_GUID}}`,
        relative_path: recorded,
        volume_path: recorded,
        absolute_win32_path: recorded,
      };
      const { bytes } = buildVhdx({
        virtualSize: MIB,
        blocks: new Map(),
        parent: recorded.length > 16_000 ? { ...parent, volume_path: '', absolute_win32_path: '' } : parent,
        dataWriteGuid: BASE_ID,
      });
      writeFileSync(join(folder, 'child.vhdx'), bytes);
      return 'child.vhdx';
    },
    parent: (path) => writeFileSync(path, buildVhdx({ virtualSize: MIB, blocks: new Map() }).bytes),
  },
  {
    name: 'QCOW2 backing file',
    extension: 'qcow2',
    windows: false,
    missing: 'missing-parent',
    child(folder, recorded) {
      const backing = { name: recorded.slice(0, 380), format: 'qcow2' };
      const { bytes } = buildQcow2({ size: 8192, clusterBits: 9, clusters: new Map(), backing });
      writeFileSync(join(folder, 'child.qcow2'), bytes);
      return 'child.qcow2';
    },
    parent: (path) => writeFileSync(path, qcow2Base),
  },
  {
    name: 'QCOW2 data file',
    extension: 'bin',
    windows: false,
    missing: 'not-found',
    child(folder, recorded) {
      const clusterBits = recorded.length > 4_000 ? 18 : 12;
      const size = 4 << clusterBits;
      const dataFile = { name: recorded };
      const clusters = new Map([[1, Buffer.alloc(1 << clusterBits, 1)]]);
      writeFileSync(join(folder, 'child.qcow2'), buildQcow2({ size, clusterBits, clusters, dataFile }).bytes);
      return 'child.qcow2';
    },
    parent: (path) => writeFileSync(path, Buffer.alloc(4 << 18, 1)),
  },
  {
    name: 'QCOW backing file',
    extension: 'qcow2',
    windows: false,
    missing: 'missing-parent',
    child(folder, recorded) {
      const { bytes } = buildQcow({
        size: 8192,
        clusterBits: 9,
        clusters: new Map(),
        backing: recorded.slice(0, 1_000),
      });
      writeFileSync(join(folder, 'child.qcow'), bytes);
      return 'child.qcow';
    },
    parent: (path) => writeFileSync(path, qcow2Base),
  },
  {
    name: 'Parallels image file',
    extension: 'hds',
    windows: true,
    missing: 'not-found',
    child(folder, recorded) {
      const escaped = recorded.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
      const images = [{ guid: TOP, type: 'Compressed' as const, file: escaped }];
      writeHdd(
        folder,
        'child',
        diskDescriptor({ sectors: 64, blockSectors: 8, storages: [{ start: 0, end: 64, images }] }),
        {},
      );
      return 'child.hdd/DiskDescriptor.xml';
    },
    parent: (path) => writeFileSync(path, buildExpanding({ sectors: 64, tracks: 8, clusters: new Map() }).bytes),
  },
];

const up = (secret: string): string => secret.split('/').at(-1)!;

/** [what the name is, the name for a file beside the repository]. */
const ELSEWHERE: readonly (readonly [string, (secret: string) => string])[] = [
  ['..', (secret) => `../${up(secret)}`],
  ['.. behind a folder', (secret) => `sub/../../${up(secret)}`],
  ['.. many times', (secret) => `${'../'.repeat(40)}${secret.slice(1)}`],
  ['.. after a file', (secret) => `child.vmdk/../../${up(secret)}`],
  ['.. with backslashes', (secret) => `..\\${up(secret)}`],
  ['.. with both', (secret) => `.\\..\\sub/../../${up(secret)}`],
  ['an absolute path', (secret) => secret],
  ['an absolute path with slashes to spare', (secret) => `///${secret}`],
  ['a UNC path', (secret) => `\\\\localhost\\c$${secret.replaceAll('/', '\\')}`],
  ['a UNC path with slashes', (secret) => `//localhost${secret}`],
  ['\\\\?\\', (secret) => `\\\\?\\C:${secret.replaceAll('/', '\\')}`],
  ['\\\\?\\UNC', (secret) => `\\\\?\\UNC\\host\\share${secret.replaceAll('/', '\\')}`],
  ['\\\\.\\PhysicalDrive0', () => '\\\\.\\PhysicalDrive0'],
  ['\\\\.\\ and a file', (secret) => `\\\\.\\${secret.replaceAll('/', '\\')}`],
  ['a drive', (secret) => `C:${secret}`],
  ['a drive without a root', (secret) => `C:..\\${up(secret)}`],
  ['CON', () => 'CON'],
  ['NUL with an ending', () => 'NUL.vhd'],
  ['/dev/zero', () => '/dev/zero'],
  ['/dev/stdin', () => '/dev/stdin'],
  ['/proc/self/mem', () => '/proc/self/mem'],
  ['/proc/self/environ', () => '/proc/self/environ'],
  ['file://', (secret) => `file://${secret}`],
  ['file://localhost', (secret) => `file://localhost${secret}`],
  ['file:// with ..', (secret) => `file://./../${up(secret)}`],
  ['percent-encoded ..', (secret) => `%2e%2e/${up(secret)}`],
  ['percent-encoded ../', (secret) => `%2e%2e%2f${up(secret)}`],
  ['file:// with percent-encoded ..', (secret) => `file://%2e%2e%2f${up(secret)}`],
  ['file:// with a percent-encoded NUL', () => 'file://%00'],
  ['a percent sign that encodes nothing', () => 'file://%zz%'],
  ['http', (secret) => `http://127.0.0.1:9${secret}`],
  ['nbd', () => 'nbd://127.0.0.1:10809/disk'],
  ['nbd over a socket', (secret) => `nbd+unix:///?socket=${secret}`],
  ['ssh', () => 'ssh://root@127.0.0.1/disk'],
  ['fat:', (secret) => `fat:rw:${secret}`],
  ['host_device:', () => 'host_device:/dev/zero'],
  ['json of a file outside', (secret) => `json:{"driver":"qcow2","file":{"driver":"file","filename":"${secret}"}}`],
  ['json of nbd', () => 'json:{"driver":"raw","file":{"driver":"nbd","host":"127.0.0.1"}}'],
  ['json of http', () => 'json:{"file.driver":"http","file.url":"http://127.0.0.1:9/x"}'],
  ['json of a host device', () => 'json:{"driver":"host_device","filename":"/dev/zero"}'],
  [
    'json with a backing file',
    (secret) =>
      `json:{"driver":"qcow2","file":{"filename":"base.qcow2"},"backing":{"driver":"file","filename":"${secret}"}}`,
  ],
  ['json of blkverify', (secret) => `json:{"driver":"blkverify","test":"base.qcow2","raw":"${secret}"}`],
  ['json that is cut off', () => 'json:{"driver":'],
  ['json of a list', () => 'json:[1,2]'],
  ['json that means something to JavaScript', () => 'json:{"__proto__":{"filename":"/etc/passwd"},"constructor":1}'],
  ['a datastore', (secret) => `[datastore1] ../${up(secret)}`],
  ['nothing but dots', () => '..'],
  ['one dot', () => '.'],
  ['a slash', () => '/'],
  ['a backslash', () => '\\'],
  ['blanks', () => '   '],
  ['a name with a line end', () => 'a\u2028b'],
  ['text that turns round', () => '\u202egnp.vhd'],
  ['half a surrogate pair', () => 'base\ud800'],
  ['the other half', () => '\udc00base'],
];

const REFUSED = /^(denied|missing-parent|not-found|unsupported|corrupt|io)$/;

/** It was refused, and says so in words an admin can read. */
function expectRefused(outcome: Outcome, name: string): void {
  expect(outcome.error?.kind, `${name} is followed`).toMatch(REFUSED);
  expect(outcome.findings.some(({ severity }) => severity !== 'note')).toBe(true);
}

describe.each(namings.map((naming) => [naming.name, naming] as const))('%s', (_name, naming) => {
  const scratch = scratchFolder('names');

  /** `repository` with a folder `sub` in it, and files beside it that a name that leaves it would find. */
  function places(): { outer: string; repository: string; secret: string } {
    const outer = fresh(scratch.path);
    const repository = join(outer, 'repository');
    mkdirSync(join(repository, 'sub'), { recursive: true });
    const secret = join(outer, `secret.${naming.extension}`);
    naming.parent(secret);
    return { outer, repository, secret };
  }

  it('a name that is followed is followed', async () => {
    const folder = fresh(scratch.path);
    const leaf = naming.child(folder, `base.${naming.extension}`);
    const at = leaf.includes('/') ? join(folder, 'child.hdd') : folder;
    naming.parent(join(at, `base.${naming.extension}`));
    expect((await attack(folder, leaf)).error).toBeUndefined();
  });

  it.each(ELSEWHERE)('%s', async (what, name) => {
    const { repository, secret } = places();
    const leaf = naming.child(repository, name(secret));
    expectRefused(await attack(repository, leaf, { scan: false }), what);
  });

  it('all of them in one folder, scanned', async () => {
    const { repository, secret } = places();
    for (const [index, [, name]] of ELSEWHERE.entries()) {
      const folder = join(repository, `child-${index}`);
      mkdirSync(folder);
      naming.child(folder, name(secret));
    }
    const { vms } = await scan(repository);
    expect(vms).toHaveLength(ELSEWHERE.length);
  });

  it.each([
    ['a trailing slash', (name: string) => `${name}/`],
    ['a trailing slash and dot', (name: string) => `${name}/.`],
    ['a NUL and what would follow', (name: string) => `${name}\0/../../secret`],
  ])('%s is the file, or nothing', async (_what, name) => {
    const folder = fresh(scratch.path);
    const leaf = naming.child(folder, name(`base.${naming.extension}`));
    const at = leaf.includes('/') ? join(folder, 'child.hdd') : folder;
    naming.parent(join(at, `base.${naming.extension}`));
    const { error, files } = await attack(folder, leaf);
    if (error !== undefined) expect(error.kind).toMatch(REFUSED);
    for (const file of files) expect(file).toMatch(/child|base/);
  });

  it('of 64 KiB', async () => {
    const folder = fresh(scratch.path);
    const leaf = naming.child(folder, 'a'.repeat(32_000));
    const outcome = await attack(folder, leaf);
    expectRefused(outcome, 'a long name');
  });

  it('of 10,000 folders', async () => {
    const folder = fresh(scratch.path);
    expectRefused(await attack(folder, naming.child(folder, 'a/'.repeat(10_000))), 'a deep name');
  });

  it('a symbolic link that leaves the folder, to a file and by a folder', async () => {
    const { repository, outer, secret } = places();
    const name = `base.${naming.extension}`;
    const leaf = naming.child(repository, name);
    const at = leaf.includes('/') ? join(repository, 'child.hdd') : repository;
    symlinkSync(secret, join(at, name));
    expect((await attack(repository, leaf)).error).toMatchObject({ kind: 'denied' });
    const other = join(outer, 'other');
    mkdirSync(other);
    const second = naming.child(other, `out/${up(secret)}`);
    symlinkSync(outer, join(second.includes('/') ? join(other, 'child.hdd') : other, 'out'));
    expect((await attack(other, second)).error).toMatchObject({ kind: 'denied' });
  });

  it('a symbolic link to a device', async () => {
    const { repository } = places();
    const name = `base.${naming.extension}`;
    const leaf = naming.child(repository, name);
    symlinkSync('/dev/zero', join(leaf.includes('/') ? join(repository, 'child.hdd') : repository, name));
    expect((await attack(repository, leaf)).error?.kind).toMatch(/^(denied|missing-parent|not-found)$/);
  });

  it('a FIFO and a folder of that name', async () => {
    for (const make of [(path: string) => execFileSync('mkfifo', [path]), (path: string) => mkdirSync(path)]) {
      const folder = fresh(scratch.path);
      const name = `base.${naming.extension}`;
      const leaf = naming.child(folder, name);
      make(join(leaf.includes('/') ? join(folder, 'child.hdd') : folder, name));
      expect((await attack(folder, leaf)).error).toMatchObject({ kind: naming.missing });
    }
  });
});

describe('VHD names that are no text', () => {
  const scratch = scratchFolder('names-vhd');
  const BASE = Buffer.from('.\\base.vhd', 'utf16le');
  it.each<[string, Partial<VhdParent>, string | undefined]>([
    [
      'an odd number of bytes',
      { locators: [{ code: 'W2ru', data: BASE.subarray(0, BASE.length - 1) }] },
      'missing-parent',
    ],
    [
      'an odd number of bytes behind a NUL',
      { locators: [{ code: 'W2ru', data: Buffer.concat([BASE, Buffer.of(0, 0, 9)]) }] },
      undefined,
    ],
    [
      'half a surrogate pair',
      { locators: [{ code: 'W2ru', data: Buffer.concat([BASE, Buffer.of(0, 0xd8)]) }] },
      'missing-parent',
    ],
    ['two second halves', { locators: [{ code: 'W2ku', data: Buffer.from([0, 0xdc, 0, 0xdc]) }] }, 'missing-parent'],
    ['no terminator in 512 bytes', { name: Buffer.alloc(512, Buffer.from('a', 'utf16le').swap16()) }, 'missing-parent'],
    ['surrogates in the header', { name: Buffer.alloc(512, 0xd8) }, 'missing-parent'],
    [
      'bytes that are no UTF-8',
      { locators: [{ code: 'MacX', data: Buffer.from('file://./\xff\xfebase.vhd', 'latin1') }] },
      'missing-parent',
    ],
    ['a code of control characters', { locators: [{ code: '\x01\x02\x03\x1b', data: BASE }] }, undefined],
    [
      'eight locators, the last of which is right',
      {
        locators: [
          ...Array.from({ length: 7 }, () => ({ code: 'W2ru', data: Buffer.from([0, 0xd8]) })),
          { code: 'W2ku', data: BASE },
        ],
      },
      undefined,
    ],
  ])('%s', async (_what, parent, kind) => {
    const folder = fresh(scratch.path);
    vhdParent(join(folder, 'base.vhd'));
    const leaf = vhdChild(folder, parent);
    const { error, findings } = await attack(folder, leaf);
    expect(error?.kind).toBe(kind);
    for (const { message } of findings) expect(message.isWellFormed()).toBe(true);
  });

  it('a locator of 4 GiB, and one of 0 bytes', async () => {
    for (const length of [0xffff_ffff, 0]) {
      const folder = fresh(scratch.path);
      vhdParent(join(folder, 'base.vhd'));
      const { bytes, at } = buildVhd({
        ...vhdBase,
        id: '0badcafe-0001-4000-8000-000000000002',
        parent: { id: BASE_ID, locators: [{ code: 'W2ru', data: BASE }] },
      });
      bytes.writeUInt32BE(length, at.header + 576 + 8);
      bytes.writeUInt32BE(length, at.header + 576 + 4);
      sumHeader(bytes, at.header);
      writeFileSync(join(folder, 'child.vhd'), bytes);
      const { error, findings } = await attack(folder, 'child.vhd');
      // Without a name the parent is found by its identity.
      expect(error).toBeUndefined();
      expect(codes(findings).join()).toMatch(/locator-/);
    }
  });
});

describe('VHDX names that are no text', () => {
  const scratch = scratchFolder('names-vhdx');
  it.each<[string, Record<string, string>]>([
    ['half a surrogate pair', { relative_path: '.\\base\ud83d.vhdx' }],
    ['a NUL in it', { relative_path: '.\\base.vhdx\0evil' }],
    ['an identity that is none', { parent_linkage: '{zzz}' }],
    ['an identity of half surrogates', { parent_linkage: '\ud800'.repeat(38) }],
    ['a key twice', { 'relative_path\0': '.\\other.vhdx' }],
    ['no names', { relative_path: '', volume_path: '', absolute_win32_path: '' }],
  ])('%s', async (_what, more) => {
    const folder = fresh(scratch.path);
    const base = buildVhdx({ virtualSize: MIB, blocks: new Map() });
    writeFileSync(join(folder, 'base.vhdx'), base.bytes);
    const parent = { ...parentLocator('elsewhere.vhdx', DATA_WRITE_GUID), ...more };
    const { bytes } = buildVhdx({ virtualSize: MIB, blocks: new Map(), parent, dataWriteGuid: BASE_ID });
    writeFileSync(join(folder, 'child.vhdx'), bytes);
    const { error, findings } = await attack(folder, 'child.vhdx');
    if (error !== undefined) expect(error.kind).toMatch(/^(corrupt|missing-parent)$/);
    for (const { message } of findings) expect(message.isWellFormed()).toBe(true);
  });
});

describe('QCOW2, descriptions of block devices', () => {
  const scratch = scratchFolder('names-json');
  it.each([
    ['20,000 objects within each other', `json:${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`],
    ['200 objects within each other', `json:${'{"a":'.repeat(200)}1${'}'.repeat(200)}`],
    ['a list of 100,000 lists', `json:{"filename":${'['.repeat(100_000)}${']'.repeat(100_000)}}`],
    ['a name of 200,000 letters', 'a'.repeat(200_000)],
  ])('a data file of %s', async (_what, name) => {
    const folder = fresh(scratch.path);
    const { bytes } = buildQcow2({ size: 1 << 20, clusterBits: 20, clusters: new Map(), dataFile: { name } });
    writeFileSync(join(folder, 'disk.qcow2'), bytes);
    const { error } = await attack(folder, 'disk.qcow2');
    expect(error?.kind).toMatch(/^(corrupt|unsupported)$/);
    expect(error!.message.length).toBeLessThan(20_000);
  });

  it('a backing format of a megabyte', async () => {
    const folder = fresh(scratch.path);
    const backing = { name: 'base.qcow2', format: 'x'.repeat(1_000_000) };
    writeFileSync(
      join(folder, 'disk.qcow2'),
      buildQcow2({ size: 1 << 20, clusterBits: 21, clusters: new Map(), backing }).bytes,
    );
    const { error } = await attack(folder, 'disk.qcow2');
    expect(error).toMatchObject({ kind: 'unsupported' });
    expect(error!.message.length).toBeLessThan(1_000);
  });
});

describe('members of a tar', () => {
  const scratch = scratchFolder('names-tar');
  const text = Buffer.from('secret');

  /** An OVA with a disk, and members called like this before and behind it. */
  function hostileOva(folder: string, members: readonly TarMember[]): void {
    const honest = fresh(scratch.path);
    const { file } = ova.write(honest);
    cpSync(join(honest, file), join(folder, file));
    const bytes = execFileSync('cat', [join(honest, file)], { maxBuffer: 1 << 28 });
    // Behind the descriptor, which comes first.
    const end = 512 + Math.ceil(Number.parseInt(bytes.toString('latin1', 124, 135), 8) / BLOCK) * BLOCK;
    const more = buildTar(members, { end: false });
    writeFileSync(join(folder, file), Buffer.concat([bytes.subarray(0, end), more, bytes.subarray(end)]));
  }

  it.each<[string, TarMember, string | undefined]>([
    ['..', { name: '../evil', content: text }, 'archive-name-refused'],
    ['.. in the middle', { name: 'a/../../evil', content: text }, 'archive-name-refused'],
    ['.. at the end', { name: 'a/..', content: text }, 'archive-name-refused'],
    ['an absolute name', { name: '/etc/passwd', content: text }, 'archive-name-refused'],
    ['.. in a pax header', { name: 'x', pax: { path: '../../evil' }, content: text }, 'archive-name-refused'],
    [
      '.. in a GNU long name',
      { name: '../'.repeat(60), longName: true, content: text, format: 'gnu' },
      'archive-name-refused',
    ],
    ['.. in the prefix', { name: 'evil', prefix: '../..', content: text }, 'archive-name-refused'],
    ['a drive', { name: 'C:\\Windows\\evil', content: text }, undefined],
    ['a drive with slashes', { name: 'C:/Windows/evil', content: text }, undefined],
    ['backslashes', { name: '..\\..\\evil', content: text }, undefined],
    ['the same name again', { name: 'disk.vmdk', content: text }, 'archive-duplicate-member'],
    ['the same name by a detour', { name: './/./disk.vmdk', content: text }, 'archive-duplicate-member'],
    ['the name of the archive', { name: 'web.ova', content: text }, undefined],
    ['the name of the archive, and a name below it', { name: 'web.ova/disk.vmdk', content: text }, undefined],
    ['a member below another member', { name: 'disk.vmdk/@1', content: text }, undefined],
    ['a symbolic link outside', { name: 'link.vmdk', type: '2', link: '/etc/passwd' }, undefined],
    ['a symbolic link to itself', { name: 'loop.vmdk', type: '2', link: 'loop.vmdk' }, undefined],
    ['a hard link outside', { name: 'link.vmdk', type: '1', link: '../../etc/passwd' }, undefined],
    ['a device', { name: 'zero.vmdk', type: '3' }, undefined],
    ['a FIFO', { name: 'fifo.vmdk', type: '6' }, undefined],
    ['no name', { name: '', content: text }, undefined],
    ['a dot', { name: '.', content: text }, undefined],
    ['a name of control characters', { name: '\x1b[2Jevil\r\n', content: text }, undefined],
    ['a NUL in a pax path', { name: 'x', pax: { path: 'disk.vmdk\0evil' }, content: text }, undefined],
    ['a name of 64 KiB', { name: 'x', pax: { path: 'a'.repeat(65_536) }, content: text }, undefined],
    ['20,000 folders', { name: 'x', pax: { path: 'a/'.repeat(20_000) }, content: text }, undefined],
  ])('%s', async (_what, member, code) => {
    const folder = fresh(scratch.path);
    hostileOva(folder, [member]);
    const { vms, findings } = await scan(folder);
    const all = [...findings, ...vms.flatMap((vm) => vm.findings)];
    if (code !== undefined) expect(all.map((finding) => finding.code)).toContain(code);
    // The disk behind it is the one that is read: the last of its name.
    const { error, files } = await attack(folder, 'web.ova/disk.vmdk');
    expect(error).toBeUndefined();
    expect(files).toEqual(['web.ova']);
    for (const name of [
      'link.vmdk',
      'loop.vmdk',
      'zero.vmdk',
      'fifo.vmdk',
      '../evil',
      'C:\\Windows\\evil',
      '..\\..\\evil',
    ]) {
      const other = await attack(folder, `web.ova/${name}`, { scan: false });
      if (other.error !== undefined) expect(other.error.kind).toMatch(REFUSED);
    }
    expect(readdirSync(folder)).toEqual(['web.ova']);
  });

  it('an archive that holds an archive of its own name, and so on', async () => {
    const folder = fresh(scratch.path);
    let inner = buildTar([{ name: 'disk.vdi', content: text }]);
    for (let depth = 0; depth < 50; depth++) inner = buildTar([{ name: 'web.ova', content: inner }]);
    writeFileSync(join(folder, 'web.ova'), inner);
    await scan(folder);
    const { error } = await attack(folder, `${'web.ova/'.repeat(51)}disk.vdi`);
    expect(error?.kind).toMatch(/^(corrupt|io|not-found)$/);
  });

  it('a disk in an archive whose parent is outside the archive', async () => {
    const folder = fresh(scratch.path);
    vdiDynamic.write(folder);
    naming0().parent(join(folder, 'base.vmdk'));
    const inside = fresh(scratch.path);
    naming0().child(inside, '../base.vmdk');
    const bytes = execFileSync('cat', [join(inside, 'child.vmdk')], { maxBuffer: 1 << 28 });
    writeFileSync(join(folder, 'web.ova'), buildTar([{ name: 'child.vmdk', content: bytes }]));
    const { files, error } = await attack(folder, 'web.ova/child.vmdk');
    // It lies in the folder that was opened, and so it may be found there.
    if (error !== undefined) expect(error.kind).toMatch(REFUSED);
    for (const file of files) expect(file).toMatch(/^(web\.ova|base\.vmdk)$/);
  });
});

const naming0 = (): Naming => namings[0]!;

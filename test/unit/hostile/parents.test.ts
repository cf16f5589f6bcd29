/** Parents that lead back to their children, by whatever way, and chains that don't end. */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MAX_DEPTH } from '../../../main/engine/chain/open.ts';
import { buildExpanding, diskDescriptor, imageName, writeHdd } from '../../support/parallels-builder.ts';
import { buildQcow } from '../../support/qcow-builder.ts';
import { buildQcow2 } from '../../support/qcow2-builder.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { buildVdi, uuidOf, writeVdi } from '../../support/vdi-builder.ts';
import { buildVhd, sectorContent } from '../../support/vhd-builder.ts';
import { buildVhdx, parentLocator, type VhdxImage, writeHeader } from '../../support/vhdx-builder.ts';
import { descriptorText, pattern, SECTOR, writeSparseDisk } from '../../support/vmdk-builder.ts';
import { attack, codes } from './attack.ts';
import { fresh } from './fixtures.ts';

const MIB = 1 << 20;

/** Writes image number `n`, whose parent is number `parent`, recorded as `recorded`; `n` of none is a base. */
interface Family {
  readonly name: string;
  /** The format records a name that is followed; otherwise only an identity. */
  readonly named: boolean;
  file(n: number): string;
  write(folder: string, n: number, parent?: number, recorded?: string): void;
}

const guid = (n: number): string => `0badcafe-${n.toString(16).padStart(4, '0')}-4000-8000-000000000001`;
let template: VhdxImage | undefined;
const hex = (n: number): string => (0xc0ff0000 + n).toString(16);

const families: readonly Family[] = [
  {
    name: 'VMDK',
    named: true,
    file: (n) => `d${n}.vmdk`,
    write(folder, n, parent, recorded) {
      const claim =
        parent === undefined ? {} : { parentCid: hex(parent), parentFileNameHint: recorded ?? this.file(parent) };
      writeSparseDisk(
        folder,
        `d${n}`,
        { capacitySectors: 64, grainSectors: 8, grains: new Map([[n % 8, pattern(n, 8 * SECTOR)]]) },
        { cid: hex(n), ...claim },
      );
    },
  },
  {
    name: 'VHD',
    named: true,
    file: (n) => `d${n}.vhd`,
    write(folder, n, parent, recorded) {
      const path = recorded ?? `.\\${this.file(parent ?? 0)}`;
      const { bytes } = buildVhd({
        size: 64 * SECTOR,
        blockSize: 4096,
        id: guid(n),
        sectors: new Map([[n % 64, sectorContent(n % 64, n)]]),
        ...(parent === undefined
          ? {}
          : { parent: { id: guid(parent), locators: [{ code: 'W2ru', data: Buffer.from(path, 'utf16le') }] } }),
      });
      writeFileSync(join(folder, this.file(n)), bytes);
    },
  },
  {
    name: 'VHDX',
    named: true,
    file: (n) => `d${String(n).padStart(3, '0')}.vhdx`,
    write(folder, n, parent, recorded) {
      const dataWriteGuid = guid(n);
      if (parent === undefined || recorded !== undefined) {
        const more = recorded === undefined ? {} : { relative_path: recorded };
        const child = parent === undefined ? {} : { parent: parentLocator(this.file(parent), guid(parent), more) };
        const { bytes } = buildVhdx({ virtualSize: MIB, blocks: new Map(), dataWriteGuid, ...child });
        writeFileSync(join(folder, this.file(n)), bytes);
        return;
      }
      // Its checksums take long: of many, only what differs is written.
      template ??= buildVhdx({ virtualSize: MIB, blocks: new Map(), parent: parentLocator(this.file(0), guid(0)) });
      const { bytes } = template;
      for (const which of [0, 1] as const) writeHeader(template, which, { sequence: BigInt(6 + which), dataWriteGuid });
      const fd = openSync(join(folder, this.file(n)), 'w');
      ftruncateSync(fd, bytes.length);
      const locator = template.at.content('parentLocator');
      const text = bytes
        .toString('utf16le', locator, locator + 2048)
        .replaceAll(this.file(0), this.file(parent))
        .replaceAll(guid(0), guid(parent));
      writeSync(fd, bytes, 0, 320 << 10, 0);
      writeSync(fd, bytes, template.at.metadata, 128 << 10, template.at.metadata);
      writeSync(fd, Buffer.from(text, 'utf16le'), 0, 2048, locator);
      closeSync(fd);
    },
  },
  {
    name: 'QCOW2',
    named: true,
    file: (n) => `d${n}.qcow2`,
    write(folder, n, parent, recorded) {
      const { bytes } = buildQcow2({
        size: 8192,
        clusterBits: 9,
        clusters: new Map([[n % 16, pattern(n, 512)]]),
        ...(parent === undefined ? {} : { backing: { name: recorded ?? this.file(parent), format: 'qcow2' } }),
      });
      writeFileSync(join(folder, this.file(n)), bytes);
    },
  },
  {
    name: 'QCOW',
    named: true,
    file: (n) => `d${n}.qcow`,
    write(folder, n, parent, recorded) {
      const { bytes } = buildQcow({
        size: 8192,
        clusterBits: 9,
        clusters: new Map([[n % 16, pattern(n, 512)]]),
        ...(parent === undefined ? {} : { backing: recorded ?? this.file(parent) }),
      });
      writeFileSync(join(folder, this.file(n)), bytes);
    },
  },
  {
    name: 'VDI',
    named: false,
    file: (n) => `d${n}.vdi`,
    write(folder, n, parent) {
      writeVdi(folder, this.file(n), {
        size: 16 * 512,
        blockSize: 512,
        blocks: new Map([[n % 16, pattern(n, 512)]]),
        uuid: uuidOf(n + 1),
        modification: uuidOf(n + 10_000),
        ...(parent === undefined ? {} : { parent: uuidOf(parent + 1), parentModification: uuidOf(parent + 10_000) }),
      });
    },
  },
  {
    name: 'VMDK of VirtualBox',
    named: false,
    file: (n) => `d${n}.vmdk`,
    write(folder, n, parent) {
      const more = [
        `ddb.uuid.image="${uuidOf(n + 1)}"`,
        `ddb.uuid.modification="${uuidOf(n + 10_000)}"`,
        ...(parent === undefined
          ? []
          : [`ddb.uuid.parent="${uuidOf(parent + 1)}"`, `ddb.uuid.parentmodification="${uuidOf(parent + 10_000)}"`]),
      ];
      writeSparseDisk(
        folder,
        `d${n}`,
        { capacitySectors: 64, grainSectors: 8, grains: new Map([[n % 8, pattern(n, 8 * SECTOR)]]) },
        { cid: hex(n), more },
      );
    },
  },
];

const LOOP = { kind: 'corrupt', details: { structure: 'Chain', expected: 'a parent further down' } };

describe.each(families.map((family) => [family.name, family] as const))('%s', (_name, family) => {
  const scratch = scratchFolder('parents');

  it('A -> B -> A', async () => {
    const folder = fresh(scratch.path);
    family.write(folder, 1, 2);
    family.write(folder, 2, 1);
    for (const n of [1, 2]) {
      const { error, findings } = await attack(folder, family.file(n));
      expect(error).toMatchObject(LOOP);
      expect(codes(findings)).toEqual(['chain-shape']);
    }
  });

  it('A -> A', async () => {
    const folder = fresh(scratch.path);
    family.write(folder, 1, 1);
    // By identity alone an image is never its own parent: then there is none.
    expect((await attack(folder, family.file(1))).error).toMatchObject(
      family.named ? LOOP : { kind: 'missing-parent' },
    );
  });

  it('A -> B -> C -> B', async () => {
    const folder = fresh(scratch.path);
    family.write(folder, 1, 2);
    family.write(folder, 2, 3);
    family.write(folder, 3, 2);
    expect((await attack(folder, family.file(1))).error).toMatchObject(LOOP);
  });

  it('A -> a copy of A', async () => {
    const folder = fresh(scratch.path);
    family.write(folder, 1, 1, family.file(2));
    copyFileSync(join(folder, family.file(1)), join(folder, family.file(2)));
    const { error } = await attack(folder, family.file(1));
    // The copy records itself.
    expect(error).toMatchObject(LOOP);
  });

  it.runIf(family.named)('A -> A, by a relative path with detours', async () => {
    const folder = fresh(scratch.path);
    mkdirSync(join(folder, 'x'));
    family.write(folder, 1, 1, `./x/.././x/../${family.file(1)}`);
    expect((await attack(folder, family.file(1))).error).toMatchObject(LOOP);
  });

  it.runIf(family.named)('A -> A, by an absolute path', async () => {
    for (const recorded of [
      join(fresh(scratch.path), family.file(1)),
      `/vmfs/volumes/5f3c-00/web/${family.file(1)}`,
      `C:\\VMs\\web\\${family.file(1)}`,
      `\\\\host\\share\\${family.file(1)}`,
    ]) {
      const folder = fresh(scratch.path);
      family.write(folder, 1, 1, recorded);
      const { error } = await attack(folder, family.file(1));
      // QEMU knows no Windows paths: there the backslashes are part of a name that is not there.
      if (error?.kind !== 'missing-parent') expect(error).toMatchObject(LOOP);
    }
  });

  it.runIf(family.named)('A -> A, by a symbolic link, and by one to the folder', async () => {
    const folder = fresh(scratch.path);
    family.write(folder, 1, 1, family.file(9));
    symlinkSync(family.file(1), join(folder, family.file(9)));
    expect((await attack(folder, family.file(1))).error).toMatchObject(LOOP);
    const other = fresh(scratch.path);
    symlinkSync('.', join(other, 'here'));
    family.write(other, 1, 1, `here/here/here/${family.file(1)}`);
    expect((await attack(other, family.file(1))).error).toMatchObject(LOOP);
  });

  it.runIf(family.named)('A -> a ring of symbolic links', async () => {
    const folder = fresh(scratch.path);
    family.write(folder, 1, 2);
    symlinkSync('ring', join(folder, family.file(2)));
    symlinkSync(family.file(2), join(folder, 'ring'));
    expect((await attack(folder, family.file(1))).error).toMatchObject({ kind: 'missing-parent' });
  });

  it.runIf(family.named)('A -> a FIFO, which nobody writes to', async () => {
    const folder = fresh(scratch.path);
    family.write(folder, 1, 2);
    execFileSync('mkfifo', [join(folder, family.file(2))]);
    expect((await attack(folder, family.file(1))).error).toMatchObject({ kind: 'missing-parent' });
  });

  it.runIf(family.named)('A -> a folder', async () => {
    const folder = fresh(scratch.path);
    family.write(folder, 1, 2);
    mkdirSync(join(folder, family.file(2)));
    expect((await attack(folder, family.file(1))).error).toMatchObject({ kind: 'missing-parent' });
  });

  it('A -> A, by a hard link, ends', async () => {
    const folder = fresh(scratch.path);
    family.write(folder, 1, 2);
    linkSync(join(folder, family.file(1)), join(folder, family.file(2)));
    const { error } = await attack(folder, family.file(1));
    expect(error?.kind).toMatch(/^(corrupt|missing-parent)$/);
  });

  it('a chain of 600 links', { timeout: 120_000 }, async () => {
    const folder = fresh(scratch.path);
    for (let n = 0; n < 600; n++) family.write(folder, n, n === 0 ? undefined : n - 1);
    const { error, findings } = await attack(folder, family.file(599));
    expect(error).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'Chain', source: family.file(599), expected: `at most ${MAX_DEPTH} layers` },
    });
    expect(codes(findings)).toContain('chain-shape');
    // One of as many as are read is no damage, and reads.
    const whole = await attack(folder, family.file(MAX_DEPTH - 1), { scan: false });
    expect(whole.error).toBeUndefined();
    expect(whole.formats).toHaveLength(MAX_DEPTH);
  });
});

describe('VDI, by identity', () => {
  const scratch = scratchFolder('parents-vdi');
  const disk = (n: number, more: Partial<Parameters<typeof buildVdi>[0]> = {}): Buffer =>
    buildVdi({ size: 16 * 512, blockSize: 512, blocks: new Map([[n, pattern(n, 512)]]), ...more }).bytes;

  it('a parent identity that is its own', async () => {
    const folder = fresh(scratch.path);
    writeFileSync(join(folder, 'a.vdi'), disk(1, { uuid: uuidOf(1), parent: uuidOf(1) }));
    expect((await attack(folder, 'a.vdi')).error).toMatchObject({ kind: 'missing-parent' });
  });

  it.each([
    ['a-right.vdi', 'z-other.vdi'],
    ['z-right.vdi', 'a-other.vdi'],
  ])(
    'two images with the identity of the parent: the one in the recorded state (%s) is taken',
    async (right, other) => {
      const folder = fresh(scratch.path);
      const base = { uuid: uuidOf(1), type: 'dynamic' } as const;
      writeFileSync(join(folder, right), disk(3, { ...base, modification: uuidOf(7) }));
      writeFileSync(join(folder, other), disk(4, { ...base, modification: uuidOf(8) }));
      const child = { uuid: uuidOf(2), parent: uuidOf(1), parentModification: uuidOf(7) };
      writeFileSync(join(folder, 'm-child.vdi'), disk(5, child));
      const { error, bytes, findings } = await attack(folder, 'm-child.vdi');
      expect(error).toBeUndefined();
      expect(bytes.subarray(3 * 512, 4 * 512).equals(pattern(3, 512))).toBe(true);
      expect(bytes.subarray(4 * 512, 5 * 512).every((byte) => byte === 0)).toBe(true);
      expect(codes(findings)).toEqual([]);
    },
  );

  it('two with the identity, none in the recorded state: verify says so', async () => {
    const folder = fresh(scratch.path);
    for (const [name, state] of [
      ['a.vdi', 8],
      ['b.vdi', 9],
    ] as const)
      writeFileSync(join(folder, name), disk(3, { uuid: uuidOf(1), modification: uuidOf(state) }));
    const child = { uuid: uuidOf(2), parent: uuidOf(1), parentModification: uuidOf(7) };
    writeFileSync(join(folder, 'child.vdi'), disk(5, child));
    expect(codes((await attack(folder, 'child.vdi')).findings)).toEqual(['parent-modified']);
  });
});

describe('through snapshots inside an image', () => {
  const scratch = scratchFolder('parents-inside');

  it('QCOW2, a backing file that is the image, below its snapshot', async () => {
    const folder = fresh(scratch.path);
    const { bytes } = buildQcow2({
      size: 8192,
      clusterBits: 9,
      clusters: new Map([[0, pattern(0, 512)]]),
      snapshots: [{ id: '1', name: 'before', size: 8192, clusters: new Map([[1, pattern(1, 512)]]) }],
      backing: { name: 'a.qcow2', format: 'qcow2' },
    });
    writeFileSync(join(folder, 'a.qcow2'), bytes);
    expect((await attack(folder, 'a.qcow2')).error).toMatchObject(LOOP);
    expect((await attack(folder, 'a.qcow2/@1')).error).toMatchObject(LOOP);
  });

  it.each(['a.qcow2/@1', './a.qcow2/@1', 'a.qcow2/@1/@1', 'a.qcow2/@%31', 'a.qcow2/'])(
    'QCOW2, a backing file called "%s"',
    async (name) => {
      const folder = fresh(scratch.path);
      const { bytes } = buildQcow2({
        size: 8192,
        clusterBits: 9,
        clusters: new Map([[0, pattern(0, 512)]]),
        snapshots: [{ id: '1', name: 'before', size: 8192, clusters: new Map([[1, pattern(1, 512)]]) }],
        backing: { name },
      });
      writeFileSync(join(folder, 'a.qcow2'), bytes);
      const { error } = await attack(folder, 'a.qcow2');
      if (error?.kind !== 'missing-parent') expect(error).toMatchObject(LOOP);
    },
  );

  const A = '0a0a0a0a-0000-4000-8000-00000000000a';
  const B = '0a0a0a0a-0000-4000-8000-00000000000b';
  it.each<[string, readonly (readonly [string, string | undefined])[]]>([
    [
      'A -> B -> A',
      [
        [A, B],
        [B, A],
      ],
    ],
    [
      'A -> A',
      [
        [A, A],
        [B, undefined],
      ],
    ],
  ])('Parallels, snapshots %s', async (_what, shots) => {
    const folder = fresh(scratch.path);
    const image = buildExpanding({ sectors: 64, tracks: 8, clusters: new Map([[0, pattern(0, 4096)]]) }).bytes;
    const names = [A, B].map((id) => imageName('disk', 0, id));
    const images = [A, B].map((id, i) => ({ guid: id, type: 'Compressed' as const, file: names[i]! }));
    writeHdd(
      folder,
      'disk',
      diskDescriptor({ sectors: 64, blockSectors: 8, storages: [{ start: 0, end: 64, images }], shots, top: A }),
      Object.fromEntries(names.map((name) => [name, image])),
    );
    expect((await attack(folder, 'disk.hdd/DiskDescriptor.xml')).error).toMatchObject({ kind: 'corrupt' });
    expect((await attack(folder, `disk.hdd/${names[0]!}`)).error).toMatchObject(LOOP);
  });
});

describe('a VMDK that is made of itself', () => {
  const scratch = scratchFolder('parents-self');
  it.each([
    ['its descriptor as a flat extent', ['RW 1 FLAT "disk.vmdk" 0'], 'denied'],
    ['its descriptor as a sparse extent', ['RW 1 SPARSE "disk.vmdk"'], 'denied'],
    ['its descriptor through a link', ['RW 1 FLAT "link.vmdk" 0'], 'denied'],
    ['another descriptor as a sparse extent', ['RW 64 SPARSE "other.vmdk"'], 'corrupt'],
  ])('%s', async (_what, extents, kind) => {
    const folder = fresh(scratch.path);
    const createType = extents[0]!.includes('FLAT') ? 'monolithicFlat' : 'twoGbMaxExtentSparse';
    writeFileSync(join(folder, 'disk.vmdk'), descriptorText({ createType, extents }));
    writeFileSync(join(folder, 'other.vmdk'), descriptorText({ createType, extents: ['RW 64 SPARSE "disk.vmdk"'] }));
    symlinkSync('disk.vmdk', join(folder, 'link.vmdk'));
    expect((await attack(folder, 'disk.vmdk')).error).toMatchObject({ kind });
  });
});

/** Archives as parts of a repository: found by a scan, mounted along a path, opened by themselves, and verified. */
import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { scanRepository } from '../../../main/engine/catalog/catalog.ts';
import { walk } from '../../../main/engine/catalog/walk.ts';
import { openChain } from '../../../main/engine/chain/open.ts';
import { CancelledError, CorruptError, DeniedError, IoError, UnsupportedError } from '../../../main/engine/errors.ts';
import type { Finding } from '../../../main/engine/image/image.ts';
import { parseManifest } from '../../../main/engine/image/ovf/manifest.ts';
import { verifyArchive, verifyManifest, verifyPackages } from '../../../main/engine/image/ovf/verify-package.ts';
import { isArchiveName } from '../../../main/engine/storage/archive/archive.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { buildOva, manifestOf, type OvaDisk, ovaMembers, ovfDescriptor } from '../../support/ova-builder.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { buildTar, type TarMember } from '../../support/tar-builder.ts';
import { buildSparse, descriptorText, type Grain, modelOf, pattern, SECTOR } from '../../support/vmdk-builder.ts';
import { buildXva } from '../../support/xva-builder.ts';

const layout = {
  capacitySectors: 16 * 60,
  grainSectors: 16,
  grains: new Map<number, Grain>([0, 2, 9, 59].map((grain) => [grain, pattern(grain * 16 * SECTOR, 16 * SECTOR)])),
};
const model = modelOf(layout);
const vmdk = buildSparse({
  ...layout,
  descriptor: descriptorText({ createType: 'monolithicSparse', extents: ['RW 960 SPARSE "web01-disk1.vmdk"'] }),
}).bytes;
const disk: OvaDisk = { name: 'web01-disk1.vmdk', bytes: vmdk, capacity: model.length };
const packed: OvaDisk = {
  name: 'web01-disk2.vmdk.gz',
  bytes: gzipSync(vmdk),
  capacity: model.length,
  compression: 'gzip',
};

async function collect(findings: AsyncIterable<Finding>): Promise<Finding[]> {
  const all: Finding[] = [];
  for await (const finding of findings) all.push(finding);
  return all;
}
const brief = (findings: readonly Finding[]) => findings.map(({ severity, code }) => `${severity} ${code}`);

describe('archives in a repository', () => {
  const scratch = scratchFolder('packages');
  const fresh = (): string => mkdtempSync(join(scratch.path, 'case-'));
  const put = (folder: string, name: string, bytes: Uint8Array | string): string => {
    writeFileSync(join(folder, name), bytes);
    return join(folder, name);
  };
  async function read(path: string, root: string): Promise<Buffer> {
    const folder = new Confinement(root);
    const chain = await openChain(path, folder);
    const bytes = Buffer.from(await chain.read(0, chain.size));
    await chain.close();
    await folder.close();
    return bytes;
  }

  it('are told by their names', () => {
    for (const name of [
      'a.ova',
      'A.OVA',
      'b.xva',
      'a.ova.gz',
      'b.xva.gz',
      'b.xva.zst',
      'd.vmdk.gz',
      'd.raw.gz',
      'd.img.xz',
      'd.vhdx.GZ',
    ]) {
      expect(isArchiveName(name), name).toBe(true);
    }
    for (const name of ['a.vmdk', 'a.tar', 'a.gz', 'notes.txt.gz', 'ova', '.ova.txt', 'web.xva.part', 'a.ovf']) {
      expect(isArchiveName(name), name).toBe(false);
    }
  });

  it('are opened along a path, compressed disks inside them too', async () => {
    const root = fresh();
    mkdirSync(join(root, 'backups'));
    put(join(root, 'backups'), 'web01.ova', buildOva('web01', [disk, packed]));
    put(root, 'whole.ova.gz', gzipSync(buildOva('web01', [disk, packed])));
    put(root, 'alone.vmdk.gz', gzipSync(vmdk));
    put(root, 'web01.xva', gzipSync(buildXva([{ id: 'Ref:1', content: model }])));
    const untold: OvaDisk = { ...packed, name: 'compressed.vmdk' };
    put(root, 'untold.ova', buildOva('web01', [untold]));
    await leavesUntouched(root, async () => {
      for (const path of [
        'backups/web01.ova/web01-disk1.vmdk',
        'backups/web01.ova/web01-disk2.vmdk.gz/web01-disk2.vmdk',
        'whole.ova.gz/web01-disk1.vmdk',
        'whole.ova.gz/web01-disk2.vmdk.gz/web01-disk2.vmdk',
        'alone.vmdk.gz/alone.vmdk',
        'web01.xva/Ref:1',
        // Compressed as the descriptor says, although its name does not.
        'untold.ova/compressed.vmdk/compressed.vmdk',
      ]) {
        expect((await read(path, root)).equals(model), path).toBe(true);
      }
    });
  });

  it('are links of a chain: a parent that was compressed is found where it was, by a child that was and by one that was not', async () => {
    const child: Parameters<typeof buildSparse>[0] = {
      ...layout,
      grains: new Map<number, Grain>([3, 9].map((grain) => [grain, pattern(grain * 16 * SECTOR, 16 * SECTOR, 7)])),
      descriptor: descriptorText({
        createType: 'monolithicSparse',
        extents: ['RW 960 SPARSE "snap.vmdk"'],
        parentCid: 'fffffffe',
        parentFileNameHint: 'base.vmdk',
      }),
    };
    const base = buildSparse({
      ...layout,
      descriptor: descriptorText({
        createType: 'monolithicSparse',
        cid: 'fffffffe',
        extents: ['RW 960 SPARSE "base.vmdk"'],
      }),
    }).bytes;
    const snap = buildSparse(child).bytes;
    const expected = Buffer.from(model);
    for (const grain of [3, 9]) pattern(grain * 16 * SECTOR, 16 * SECTOR, 7).copy(expected, grain * 16 * SECTOR);
    const root = fresh();
    put(root, 'base.vmdk.gz', gzipSync(base));
    put(root, 'snap.vmdk', snap);
    put(root, 'packed.vmdk.gz', gzipSync(snap));
    expect((await read('snap.vmdk', root)).equals(expected)).toBe(true);
    expect((await read('packed.vmdk.gz/packed.vmdk', root)).equals(expected)).toBe(true);
    put(root, 'base.vmdk', base);
    expect((await read('packed.vmdk.gz/packed.vmdk', root)).equals(expected)).toBe(true);
    const catalog = await scanRepository(root);
    const chains = catalog.vms.flatMap((vm) => vm.points.flatMap(({ disks }) => disks.map(({ chain }) => chain)));
    expect(chains).toContainEqual(['packed.vmdk.gz/packed.vmdk', 'base.vmdk']);
    await catalog.folder.close();
    const broken = fresh();
    put(broken, 'snap.vmdk', snap);
    put(broken, 'base.vmdk.gz', gzipSync(base).subarray(0, 300));
    await expect(read('snap.vmdk', broken)).rejects.toThrow(/base.vmdk.gz/);
  });

  it('do not let anything out of the folder', async () => {
    const outside = fresh();
    const root = fresh();
    put(outside, 'secret.ova', buildOva('web01', [disk]));
    symlinkSync(join(outside, 'secret.ova'), join(root, 'link.ova'));
    put(root, 'web01.ova', buildOva('web01', [disk]));
    const folder = new Confinement(root);
    await expect(folder.mount('link.ova')).rejects.toThrow(DeniedError);
    await expect(read('link.ova/web01-disk1.vmdk', root)).rejects.toThrow(DeniedError);
    await folder.mount('web01.ova');
    expect(() => folder.open('web01.ova/../../secret.ova')).toThrow(DeniedError);
    expect(() => folder.open('web01.ova/absent.vmdk')).toThrow(IoError);
    expect(() => folder.resolveRecorded('../../secret.ova', join(folder.root, 'web01.ova', 'x.vmdk'))).toThrow(
      DeniedError,
    );
    expect(folder.resolveRecorded('web01-disk1.vmdk', join(folder.root, 'web01.ova', 'x.vmdk'))).toBe(
      join(folder.root, 'web01.ova', 'web01-disk1.vmdk'),
    );
    await folder.close();
  });

  it('are mounted once, for however many ask at the same time, and one who gives up hinders nobody', async () => {
    const root = fresh();
    put(root, 'web01.ova', buildOva('web01', [disk]));
    put(root, 'big.raw.gz', gzipSync(Buffer.alloc(40 << 20)));
    const folder = new Confinement(root);
    const [one, two] = await Promise.all([folder.mount('web01.ova'), folder.mount('web01.ova')]);
    expect(one).toBe(two);
    const controller = new AbortController();
    const first = folder.mount('big.raw.gz', { signal: controller.signal, onProgress: () => controller.abort() });
    const second = folder.mount('big.raw.gz');
    await expect(first).rejects.toThrow(CancelledError);
    expect((await second)?.member('big.raw')?.size).toBe(40 << 20);
    await folder.close();
  });

  it('are folders of a walk; damaged ones are findings', async () => {
    const root = fresh();
    mkdirSync(join(root, 'deep'));
    put(root, 'web01.ova', buildOva('web01', [disk, packed]));
    put(
      join(root, 'deep'),
      'db.xva',
      buildXva([
        { id: 'Ref:1', content: model },
        { id: 'Ref:7', content: model },
      ]),
    );
    put(root, 'cut.raw.gz', gzipSync(vmdk).subarray(0, 200));
    put(root, 'modern.xva', Buffer.from('28b52ffd0000', 'hex'));
    put(root, 'text.ova', 'just text');
    put(root, 'empty.ova', '');
    const told: string[] = [];
    const folder = new Confinement(root);
    const { folders, findings } = await walk(folder, undefined, {
      onArchive: (path) => told.push(folder.label(path)),
    });
    expect(folders.map(({ path, files, archive }) => [folder.label(path), archive?.kind, files.length])).toEqual([
      [folder.label(folder.root), undefined, 5],
      ['web01.ova', 'tar', 4],
      ['web01.ova/web01-disk2.vmdk.gz', 'gzip', 1],
      ['deep', undefined, 1],
      ['deep/db.xva', 'tar', 3],
    ]);
    expect(findings.map(({ severity, code, source }) => [severity, code, source])).toEqual([
      ['damaged', 'archive-unreadable', 'cut.raw.gz'],
      ['damaged', 'archive-unreadable', 'empty.ova'],
      ['suspicious', 'archive-unsupported', 'modern.xva'],
      ['damaged', 'archive-unreadable', 'text.ova'],
    ]);
    expect(told).toContain('web01.ova');
    await expect(walk(folder, AbortSignal.abort())).rejects.toThrow(CancelledError);
    await folder.close();
  });

  it('are in a catalog: in their folder, and opened by themselves', async () => {
    const root = fresh();
    put(root, 'web01.ova', buildOva('web01', [disk, packed]));
    put(root, 'alone.vmdk.gz', gzipSync(vmdk));
    const whole = await scanRepository(root);
    expect(whole.findings).toEqual([]);
    expect(
      whole.vms.map(({ name, folder, points }) => [name, folder, points[0]?.disks.map(({ file }) => file)]),
    ).toEqual([
      ['web01', 'web01.ova', ['web01.ova/web01-disk1.vmdk', 'web01.ova/web01-disk2.vmdk.gz/web01-disk2.vmdk']],
      ['alone', 'alone.vmdk.gz', ['alone.vmdk.gz/alone.vmdk']],
    ]);
    expect(whole.orphans).toEqual([]);
    await whole.folder.close();
    for (const [file, name] of [
      ['web01.ova', 'web01'],
      ['alone.vmdk.gz', 'alone'],
    ] as const) {
      const catalog = await scanRepository(join(root, file));
      expect(catalog).toMatchObject({ kind: 'folder', name: file, source: join(root, file) });
      expect(catalog.vms.map((vm) => vm.name)).toEqual([name]);
      expect(catalog.vms[0]!.points[0]!.disks[0]!.error).toBeUndefined();
      await catalog.folder.close();
    }
    put(root, 'text.ova', 'just text');
    await expect(scanRepository(join(root, 'text.ova'))).rejects.toThrow(CorruptError);
    put(root, 'modern.ova', Buffer.from('fd377a585a000000', 'hex'));
    await expect(scanRepository(join(root, 'modern.ova'))).rejects.toThrow(UnsupportedError);
  });

  it('give a disk of an export that nothing else describes', async () => {
    const root = fresh();
    put(root, 'db.xva', buildXva([{ id: 'Ref:1', content: model }]));
    const catalog = await scanRepository(join(root, 'db.xva'));
    const files = catalog.vms.flatMap((vm) => vm.points.flatMap((point) => point.disks.map(({ file }) => file)));
    expect([...files, ...catalog.orphans.map(({ file }) => file)]).toContain('db.xva/Ref:1');
    await catalog.folder.close();
  });

  describe('are verified', () => {
    const members = ovaMembers('web01', [disk]);
    const [descriptor, manifest, image] = members as [TarMember, TarMember, TarMember];
    async function found(entries: readonly TarMember[]): Promise<Finding[]> {
      const root = fresh();
      put(root, 'web01.ova', buildTar(entries));
      const folder = new Confinement(root);
      const archive = (await folder.mount('web01.ova'))!;
      const findings = await collect(verifyArchive(archive, folder));
      await folder.close();
      return findings;
    }
    const withText = (text: string): TarMember[] => [descriptor, { ...manifest, content: Buffer.from(text) }, image];
    const whole = Buffer.from(manifest.content!).toString();

    it.each(['SHA1', 'SHA256', 'SHA384', 'SHA512'])('by their manifest (%s)', async (algorithm) => {
      expect(await found(ovaMembers('web01', [disk, packed], algorithm))).toEqual([]);
      const changed = Buffer.from(vmdk);
      changed[vmdk.length - 1]! ^= 1;
      const findings = await found([
        ...ovaMembers('web01', [disk], algorithm).slice(0, 2),
        { ...image, content: changed },
      ]);
      expect(findings).toMatchObject([
        {
          severity: 'damaged',
          code: 'manifest-mismatch',
          source: 'web01.ova/web01-disk1.vmdk',
          structure: `${algorithm} in web01.mf`,
        },
      ]);
      expect(findings[0]!.expected).not.toBe(findings[0]!.found);
    });

    it.each([
      ['a file that is missing', [descriptor, manifest], ['damaged manifest-file-missing']],
      [
        'a file that is not listed',
        [...members, { name: 'notes.txt', content: Buffer.from('x') }],
        ['note manifest-unlisted'],
      ],
      ['a descriptor that is not listed', withText(whole.split('\n')[1]!), ['suspicious manifest-unlisted']],
      [
        'a digest of another length',
        withText(whole.replace('SHA256', 'SHA1')),
        ['suspicious manifest-line', 'suspicious manifest-unlisted'],
      ],
      ['an algorithm nobody knows', withText(whole.replace('SHA256', 'MD7')), ['suspicious manifest-algorithm']],
      ['a line that is none', withText(`${whole}hello\n`), ['suspicious manifest-line']],
      [
        'a name that leads out',
        withText(`${whole}SHA1(../../etc/passwd)= ${'0'.repeat(40)}\n`),
        ['damaged manifest-file-unreadable'],
      ],
      ['a manifest of 2 MiB', withText('\n'.repeat(2 << 20)), ['damaged manifest-unreadable']],
      ['no manifest', [descriptor, image], ['note manifest-absent']],
      [
        'a certificate',
        [descriptor, manifest, { name: 'web01.cert', content: Buffer.from('x') }, image],
        ['note certificate-not-verified'],
      ],
      ['another order', [image, manifest, descriptor], ['note ova-member-order']],
      [
        'a manifest between disks',
        [descriptor, image, manifest, { name: 'x', content: Buffer.from('x') }],
        ['note ova-member-order', 'note manifest-unlisted'],
      ],
      ['a manifest at the end', [descriptor, image, manifest], []],
    ] as const)('and say of %s', async (_, entries, expected) => {
      expect(brief(await found(entries))).toEqual(expected);
    });

    it('with what was odd in the archive itself', async () => {
      const root = fresh();
      put(root, 'web01.ova', buildTar([...members, { name: '../x', content: Buffer.from('x') }]).subarray(0, -10_240));
      const folder = new Confinement(root);
      const archive = (await folder.mount('web01.ova'))!;
      expect(brief(await collect(verifyArchive(archive, folder))).sort()).toContain('suspicious archive-no-end');
      const cancelled = collect(verifyArchive(archive, folder, { signal: AbortSignal.abort() }));
      await expect(cancelled).rejects.toThrow(CancelledError);
      await folder.close();
    });

    it('as packages in folders, each once', async () => {
      const root = fresh();
      const ovf = Buffer.from(ovfDescriptor('web01', [disk]));
      put(root, 'web01.ovf', ovf);
      put(root, disk.name, disk.bytes);
      const mf = put(
        root,
        'web01.mf',
        manifestOf([{ name: 'web01.ovf', bytes: ovf }, disk], 'SHA1').replaceAll('(', ' ('),
      );
      put(root, 'other.ova', buildOva('other', [disk, packed]));
      const folder = new Confinement(root);
      await folder.mountAbove('other.ova/web01-disk2.vmdk.gz/web01-disk2.vmdk');
      const hashed: string[] = [];
      const paths = [disk.name, 'other.ova/web01-disk1.vmdk', 'other.ova/web01-disk2.vmdk.gz/web01-disk2.vmdk'];
      const real = paths.map((path) => folder.realPath(path));
      const onFile = (name: string): void => {
        hashed.push(name);
      };
      expect(await collect(verifyPackages([...real, ...real], folder, { onFile }))).toEqual([]);
      expect(hashed.sort()).toEqual([
        'other.ova/other.ovf',
        'other.ova/web01-disk1.vmdk',
        'other.ova/web01-disk2.vmdk.gz',
        'web01-disk1.vmdk',
        'web01.ovf',
      ]);
      put(root, 'web01.ovf', 'changed');
      expect(brief(await collect(verifyManifest(mf, folder)))).toEqual(['damaged manifest-mismatch']);
      await folder.close();
    });

    it('whatever blanks and line ends their manifest has', () => {
      const digest = 'A'.repeat(40);
      const { entries, unreadable } = parseManifest(
        `\ufeffSHA1(a.ovf)= ${digest}\r\nsha1 (b (2).vmdk) = ${digest}\rSHA-1(c)=${digest}\n\n  \nSHA1()= ${digest}\nSHA1(d)= xyz\n`,
      );
      expect(entries.map(({ name, algorithm, digest: hex, line }) => [name, algorithm, hex.length, line])).toEqual([
        ['a.ovf', 'sha1', 40, 1],
        ['b (2).vmdk', 'sha1', 40, 2],
        ['c', 'sha1', 40, 3],
      ]);
      expect(unreadable).toEqual([6, 7]);
    });
  });
});

/**
 * FAT volumes that mkfs.vfat made and mtools filled, compared with the files that went in and with Sleuth Kit's view; and real
 * ones of the corpus, compared with the truth recorded there.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fatFileSystem } from '../../main/engine/filesystem/fat/fat.ts';
import type { FileSystem } from '../../main/engine/filesystem/file-system.ts';
import { LocalFile } from '../../main/engine/storage/local-file.ts';
import {
  contentHash,
  type ExpectedEntry,
  fileSystemConformance,
  type OpenFileSystem,
  walkAll,
} from '../conformance/file-system.ts';
import { corpus } from '../support/corpus.ts';
import { pattern } from '../support/fat-builder.ts';
import { describePeers, run } from '../support/peers.ts';
import { leavesUntouched, scratchFolder, sha256File } from '../support/scratch.ts';

const KiB = 1 << 10;
const MiB = 1 << 20;

async function openFile(path: string): Promise<OpenFileSystem> {
  const volume = LocalFile.open(path);
  return { fs: await fatFileSystem.open(volume), volume };
}

/** mtools keep local time, as DOS did: with UTC as the zone, times come back as they were. */
const mtools = (program: string, ...args: string[]): string =>
  run('env', ['TZ=UTC', 'MTOOLS_SKIP_CHECK=1', program, ...args]);

/** A tree of files on the host: names of every sort, sizes around cluster boundaries, a folder of many. */
function writeTree(root: string, cluster: number, many: number): void {
  const file = (path: string, bytes: Uint8Array): void => {
    writeFileSync(join(root, path), bytes);
    // FAT keeps even seconds.
    const seconds = 1_500_000_000 + 2 * ((path.length * 7919) % 10_000_000);
    utimesSync(join(root, path), seconds, seconds);
  };
  mkdirSync(join(root, 'docs/deep/deeper/deepest of them all'), { recursive: true });
  mkdirSync(join(root, 'many'));
  mkdirSync(join(root, 'EMPTYDIR'));
  file('README.TXT', pattern(100));
  file('lower.txt', pattern(101));
  file('Mixed Case.Txt', pattern(102));
  file('empty', new Uint8Array(0));
  file('no extension but long', pattern(13));
  file('.hidden', pattern(5));
  file('a.b.c.d.tar.gz', pattern(6));
  file('Ünïcödé Größe ß.txt', pattern(7));
  // Only the first plane: mtools cut what is beyond it to 16 bits.
  file('日本語 имя ☃.dat', pattern(8));
  file('n'.repeat(120), pattern(9));
  file(`${'x'.repeat(12)}.exactly thirteen and on`, pattern(10));
  for (const [i, size] of [1, cluster - 1, cluster, cluster + 1, 3 * cluster, 7 * cluster + 11].entries()) {
    file(`docs/size ${i}.bin`, pattern(size, i));
  }
  file('docs/deep/deeper/deepest of them all/file.txt', pattern(42));
  for (let i = 0; i < many; i++) file(`many/entry number ${String(i).padStart(5, '0')}.txt`, pattern(i % 50, i));
}

function hostTree(root: string): ExpectedEntry[] {
  return readdirSync(root, { recursive: true, withFileTypes: true }).map((entry) => {
    const path = join(entry.parentPath, entry.name);
    const shown = `/${relative(root, path)}`;
    if (entry.isDirectory()) return { path: shown, kind: 'directory' };
    const { size, mtimeMs } = statSync(path);
    const modified = { seconds: mtimeMs / 1000, nanoseconds: 0 };
    return { path: shown, kind: 'file', size, sha256: sha256File(path), modified };
  });
}

const made = [
  { name: 'fat12', size: 4 * MiB, args: ['-F', '12', '-s', '4'], cluster: 2 * KiB, many: 200 },
  {
    name: 'fat12, 4096-byte sectors',
    size: 12 * MiB,
    args: ['-F', '12', '-S', '4096', '-s', '1'],
    cluster: 4 * KiB,
    many: 100,
  },
  { name: 'fat16', size: 20 * MiB, args: ['-F', '16', '-s', '1'], cluster: 512, many: 300 },
  { name: 'fat16, 64 KiB clusters', size: 400 * MiB, args: ['-F', '16', '-s', '128'], cluster: 64 * KiB, many: 300 },
  { name: 'fat32', size: 40 * MiB, args: ['-F', '32', '-s', '1'], cluster: 512, many: 400 },
  {
    name: 'fat32, 4096-byte sectors',
    size: 300 * MiB,
    args: ['-F', '32', '-S', '4096', '-s', '1'],
    cluster: 4 * KiB,
    many: 300,
  },
] as const;

describePeers('FAT of mkfs.vfat and mtools', { peers: ['mkfs.vfat', 'mcopy'] }, () => {
  for (const config of made) {
    describe(config.name, () => {
      const folder = scratchFolder('fat');
      const image = (): string => join(folder.path, 'image/volume.img');
      const tree = (): string => join(folder.path, 'tree');
      let before = '';
      beforeAll(() => {
        mkdirSync(join(folder.path, 'image'));
        mkdirSync(tree());
        writeTree(tree(), config.cluster, config.many);
        writeFileSync(image(), '');
        truncateSync(image(), config.size);
        run('mkfs.vfat', [...config.args, '-n', 'PEERVOL', '-i', 'cafe0123', image()]);
        const top = readdirSync(tree()).map((name) => join(tree(), name));
        mtools('mcopy', '-s', '-m', '-Q', '-i', image(), ...top, '::/');
        before = sha256File(image());
      });
      afterAll(() => {
        expect(sha256File(image())).toBe(before);
      });

      fileSystemConformance({
        name: config.name,
        open: () => openFile(image()),
        expected: () => hostTree(tree()),
        facts: {
          type: config.name.slice(0, 5),
          label: 'PEERVOL',
          uuid: 'CAFE-0123',
          condition: 'clean',
          caseInsensitive: true,
        },
      });

      it('has as much free space as mdir says', async () => {
        const said = /([\d ]+) bytes free/.exec(mtools('mdir', '-i', image(), '::/'))?.[1]?.replaceAll(' ', '');
        expect((await openFile(image())).fs.free).toBe(Number(said));
      });
    });
  }
});

describePeers('changes by mtools', { peers: ['mkfs.vfat', 'mcopy'] }, () => {
  const folder = scratchFolder('fat-changes');

  it.each([
    ['12', 4 * MiB, 4],
    ['16', 20 * MiB, 1],
    ['32', 40 * MiB, 1],
  ])('fat%s: a file spread over the holes that deleted ones left', async (type, size, perCluster) => {
    const image = join(folder.path, `${type}.img`);
    writeFileSync(image, '');
    truncateSync(image, size);
    run('mkfs.vfat', ['-F', type, '-s', String(perCluster), image]);
    const { fs: empty } = await openFile(image);
    const host = join(folder.path, `host${type}`);
    mkdirSync(host);
    const small = Array.from({ length: 100 }, (_, i) => `small${i}`);
    for (const [i, name] of small.entries()) writeFileSync(join(host, name), pattern(8 * KiB, i));
    mtools('mmd', '-i', image, '::/d');
    mtools('mcopy', '-i', image, ...small.map((name) => join(host, name)), '::/d');
    // Nearly everything else is taken, so that the next file has to use the holes.
    writeFileSync(join(host, 'filler'), new Uint8Array(empty.free! - 100 * 8 * KiB - 128 * KiB));
    mtools('mcopy', '-i', image, join(host, 'filler'), '::/');
    mtools('mdel', '-i', image, ...small.filter((_, i) => i % 2 === 0).map((name) => `::/d/${name}`));
    const spread = pattern(400 * KiB, 77);
    writeFileSync(join(host, 'spread'), spread);
    mtools('mcopy', '-i', image, join(host, 'spread'), '::/Spread file.bin');
    await leavesUntouched(folder.path, async () => {
      const { fs } = await openFile(image);
      const file = await fs.open(await fs.entry('/spread FILE.bin'));
      expect((await file.runs(0, file.size)).length).toBeGreaterThan(20);
      expect(Buffer.compare(await file.read(0, file.size), spread)).toBe(0);
      const left = (await walkAll(fs)).filter((w) => w.path.startsWith('/d/')).map((w) => w.path);
      expect(left).toEqual(small.filter((_, i) => i % 2 === 1).map((name) => `/d/${name}`));
    });
  });

  it('attributes, a renamed and a replaced file, a new label', async () => {
    const image = join(folder.path, 'attributes.img');
    writeFileSync(image, '');
    truncateSync(image, 4 * MiB);
    run('mkfs.vfat', ['-n', 'FIRST', image]);
    for (const name of ['one', 'two', 'three']) {
      const path = join(folder.path, name);
      writeFileSync(path, name);
      mtools('mcopy', '-i', image, path, '::/');
    }
    mtools('mattrib', '-i', image, '+r', '+h', '+s', '-a', '::/one');
    mtools('mren', '-i', image, '::/two', '::/A name that is new and longer');
    mtools('mdel', '-i', image, '::/three');
    mtools('mlabel', '-i', image, '::SECOND');
    await leavesUntouched(folder.path, async () => {
      const { fs } = await openFile(image);
      expect(fs.label).toBe('SECOND');
      expect((await walkAll(fs)).map((w) => w.path)).toEqual(['/one', '/A name that is new and longer']);
      expect((await fs.stat(await fs.entry('/one'))).flags).toEqual(['read-only', 'hidden', 'system']);
      const renamed = await fs.open(await fs.entry('/a NAME that is new and longer'));
      expect(Buffer.from(await renamed.read(0, 3)).toString()).toBe('two');
    });
  });
});

describePeers('Sleuth Kit', { peers: ['mkfs.vfat', 'mcopy', 'fls'] }, () => {
  const folder = scratchFolder('fat-tsk');
  it.each(['12', '16', '32'])('sees the same files in fat%s', async (type) => {
    const image = join(folder.path, `${type}.img`);
    const tree = join(folder.path, `tree${type}`);
    mkdirSync(tree);
    writeTree(tree, 512, 100);
    writeFileSync(image, '');
    truncateSync(image, type === '12' ? 2 * MiB : type === '16' ? 20 * MiB : 40 * MiB);
    run('mkfs.vfat', ['-F', type, '-s', '1', image]);
    const top = readdirSync(tree).map((name) => join(tree, name));
    mtools('mcopy', '-s', '-i', image, ...top, '::/');
    await leavesUntouched(folder.path, async () => {
      const { fs } = await openFile(image);
      const rows = run('fls', ['-r', '-p', '-u', image])
        .split('\n')
        .map((line) => /^([rd])\/[rd] (\d+):\t(.*)$/.exec(line))
        .filter((match) => match !== null)
        .filter(([, , , path]) => !/^\$|\(Volume Label Entry\)$/.test(path!));
      const walked = await walkAll(fs);
      expect(walked.map((w) => `${w.entry.kind === 'directory' ? 'd' : 'r'} ${w.path}`).sort()).toEqual(
        rows.map(([, kind, , path]) => `${kind} /${path}`).sort(),
      );
      for (const [, kind, inode, path] of rows) {
        if (kind !== 'r' || path!.startsWith('many/')) continue;
        const theirs = execFileSync('icat', [image, inode!], { maxBuffer: 64 * MiB });
        const content = await fs.open(await fs.entry(`/${path}`));
        expect({ path, sha256: await contentHash(content) }).toEqual({
          path,
          sha256: createHash('sha256').update(theirs).digest('hex'),
        });
      }
    });
  });
});

const here = existsSync(corpus);
const missingXz = existsSync('/usr/bin/xz') ? undefined : 'xz is not installed (Debian package xz-utils)';

/** Truth of Sleuth Kit as INDEX.md describes it, without the label, which is no file. */
function truth(name: string): ExpectedEntry[] {
  return readFileSync(join(corpus, 'truth', `${name}.tsk.tsv`), 'latin1')
    .split('\n')
    .slice(1)
    .map((line) => line.split('\t'))
    .filter((columns) => columns.length >= 7 && !columns[6]!.includes('(Volume Label Entry)'))
    .map(([kind, , , size, mtime, sha256, path]) => {
      const entry = { path: `/${Buffer.from(path!, 'latin1').toString('utf8')}`, size: Number(size) };
      const stamp = Date.parse(`${mtime!.replace(' (UTC)', '').replace(' ', 'T')}Z`);
      const modified = Number.isNaN(stamp) ? {} : { modified: { seconds: stamp / 1000, nanoseconds: 0 } };
      return kind === 'd'
        ? { ...entry, kind: 'directory', ...modified }
        : { ...entry, kind: 'file', sha256: sha256!, ...modified };
    });
}

(here ? describe : describe.skip)(`real FAT volumes${here ? '' : ' (skipped: ../shared/corpus is not here)'}`, () => {
  for (const [name, facts] of [
    ['rafalh+rust-fatfs/resources/fat12.img', { type: 'fat12', label: 'Test!', condition: 'clean' }],
    ['rafalh+rust-fatfs/resources/fat16.img', { type: 'fat16', label: 'Test!', condition: 'clean' }],
  ] as const) {
    fileSystemConformance({
      name: basename(name),
      open: () => openFile(join(corpus, name)),
      expected: () => truth(name),
      facts,
    });
  }

  it('reads what is there of the discovery volume of BitLocker To Go, whose end was cut off', async () => {
    const name = 'log2timeline+dfvfs/test_data/bdetogo.raw';
    const path = join(corpus, name);
    const before = sha256File(path);
    const { fs } = await openFile(path);
    expect(fs.state.condition).toBe('errors');
    expect(fs.state.evidence[0]).toMatch(/its end is missing/);
    const walked = await walkAll(fs);
    let whole = 0;
    for (const want of truth(name)) {
      const found = walked.find((w) => w.path === want.path);
      if (found === undefined || want.kind !== 'file') continue;
      const content = await fs.open(found.entry);
      expect({ path: want.path, size: content.size }).toEqual({ path: want.path, size: want.size });
      const hash = await contentHash(content).catch((error: unknown) => {
        // What lies behind the cut is refused, never zeros.
        expect(error).toMatchObject({ kind: 'corrupt' });
        return undefined;
      });
      if (hash === undefined) continue;
      expect({ path: want.path, hash }).toEqual({ path: want.path, hash: want.sha256 });
      whole++;
    }
    // As many as Sleuth Kit could read.
    expect(whole).toBe(4);
    expect(sha256File(path)).toBe(before);
  });
});

const utilLinux = join(corpus, 'util-linux+util-linux/tests');
describePeers('FAT volumes of util-linux and cryptsetup', { reasons: here ? [missingXz] : [] }, () => {
  if (!here) {
    it.skip('(../shared/corpus is not here)');
    return;
  }
  const folder = scratchFolder('fat-corpus');
  const unpack = (archive: string): string => {
    const path = join(folder.path, basename(archive, '.xz'));
    const target = openSync(path, 'wx');
    execFileSync('xz', ['-dc', join(corpus, archive)], { stdio: ['ignore', target, 'pipe'] });
    closeSync(target);
    return path;
  };
  const images = readdirSync(join(utilLinux, 'ts/blkid/images-fs'))
    .filter((name) => /^fat.*\.img\.xz$|^small-fat32\.img\.xz$/.test(name))
    .map((name) => basename(name, '.img.xz'));

  it('are what blkid and Sleuth Kit say', async () => {
    expect(images.length).toBeGreaterThan(20);
    for (const name of images) {
      const expected = readFileSync(join(utilLinux, 'expected/blkid', `low-probe-${name}`), 'utf8');
      const said = (key: string): string | undefined => {
        const raw = new RegExp(`^ID_FS_${key}=(.*)$`, 'm').exec(expected)?.[1];
        return raw?.replace(/\\x([0-9a-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
      };
      const { fs, volume } = await openFile(unpack(`util-linux+util-linux/tests/ts/blkid/images-fs/${name}.img.xz`));
      expect({ name, type: fs.type }).toEqual({ name, type: said('VERSION')!.toLowerCase() });
      expect({ name, uuid: fs.uuid }).toEqual({ name, uuid: said('UUID') });
      expect({ name, cluster: fs.blockSize }).toEqual({ name, cluster: Number(said('FSBLOCKSIZE')) });
      expect({ name, size: fs.size }).toEqual({ name, size: Number(said('FSSIZE')) });
      // Windows erased this label, which blkid shows from the boot sector's stale copy, though under another name.
      const label = name.endsWith('_xp_erase') ? undefined : (said('LABEL_ENC') ?? said('LABEL_FATBOOT_ENC'));
      expect({ name, label: fs.label }).toEqual({ name, label: label?.replaceAll('\xe5', 'σ') });
      await comparePaths(fs, name);
      await volume.close();
    }
  });

  const comparePaths = async (fs: FileSystem, name: string): Promise<void> => {
    const file = `util-linux+util-linux/tests/ts/blkid/images-fs/${name}.img`;
    if (!existsSync(join(corpus, 'truth', `${file}.tsk.tsv`))) return;
    const walked = await walkAll(fs);
    expect({ name, paths: walked.map((w) => w.path).sort() }).toEqual({
      name,
      paths: truth(file)
        .map((e) => e.path)
        .sort(),
    });
  };

  describe('of cryptsetup', () => {
    const name = 'mbroz+cryptsetup/tests/img_fs_vfat.img';
    let path = '';
    beforeAll(() => {
      path = unpack(`${name}.xz`);
    });
    fileSystemConformance({ name: 'img_fs_vfat', open: () => openFile(path), expected: () => truth(name) });
  });
});

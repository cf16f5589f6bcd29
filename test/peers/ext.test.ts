/** ext2/3/4 compared with the kernel, with e2fsprogs and with the corpus of images that others made. */
import { execFileSync } from 'node:child_process';

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { extFileSystem } from '../../main/engine/filesystem/ext/ext.ts';
import { nameHash } from '../../main/engine/filesystem/ext/name-hash.ts';
import type { Entry, FileSystem } from '../../main/engine/filesystem/file-system.ts';
import { Window } from '../../main/engine/storage/byte-source.ts';
import { LocalFile } from '../../main/engine/storage/local-file.ts';
import { contentHash, type ExpectedEntry, fileSystemConformance, walkAll } from '../conformance/file-system.ts';
import { corpus } from '../support/corpus.ts';
import { type FillOptions, fillVolume, pattern } from '../support/ext-volumes.ts';
import { kernelTruth, withMount } from '../support/loop-mount.ts';
import { describePeers, missingLoopMounts, run } from '../support/peers.ts';
import { leavesUntouched, scratchFolder } from '../support/scratch.ts';

interface Variant extends FillOptions {
  readonly name: string;
  readonly type: 'ext2' | 'ext3' | 'ext4';
  readonly options: readonly string[];
  readonly size?: string;
  /** Filled by mke2fs -d, for what this kernel mounts only read-only. */
  readonly fromFolder?: boolean;
}

const variants: readonly Variant[] = [
  { name: 'ext2 1k', type: 'ext2', options: ['-t', 'ext2', '-b', '1024'], extents: false },
  { name: 'ext2 4k', type: 'ext2', options: ['-t', 'ext2', '-b', '4096'], extents: false },
  {
    name: 'ext2 no filetype',
    type: 'ext2',
    options: ['-t', 'ext2', '-O', '^filetype,^dir_index', '-b', '1024'],
    extents: false,
  },
  { name: 'ext3 1k', type: 'ext3', options: ['-t', 'ext3', '-b', '1024'], extents: false },
  {
    name: 'ext3 4k, 128-byte inodes',
    type: 'ext3',
    options: ['-t', 'ext3', '-b', '4096', '-I', '128'],
    extents: false,
    bigInodes: false,
  },
  { name: 'ext4 default', type: 'ext4', options: ['-t', 'ext4'] },
  { name: 'ext4 1k', type: 'ext4', options: ['-t', 'ext4', '-b', '1024'], many: 3000 },
  { name: 'ext4 2k', type: 'ext4', options: ['-t', 'ext4', '-b', '2048'] },
  { name: 'ext4 ^64bit', type: 'ext4', options: ['-t', 'ext4', '-O', '^64bit'] },
  { name: 'ext4 bigalloc', type: 'ext4', options: ['-t', 'ext4', '-O', 'bigalloc', '-C', '16384'] },
  { name: 'ext4 bigalloc 1k', type: 'ext4', options: ['-t', 'ext4', '-b', '1024', '-O', 'bigalloc', '-C', '8192'] },
  { name: 'ext4 inline_data', type: 'ext4', options: ['-t', 'ext4', '-O', 'inline_data'] },
  { name: 'ext4 inline_data 1k inodes', type: 'ext4', options: ['-t', 'ext4', '-O', 'inline_data', '-I', '1024'] },
  {
    name: 'ext4 meta_bg',
    type: 'ext4',
    options: ['-t', 'ext4', '-b', '1024', '-O', 'meta_bg,^resize_inode'],
    size: '512M',
  },
  { name: 'ext4 without metadata_csum', type: 'ext4', options: ['-t', 'ext4', '-O', '^metadata_csum'] },
  { name: 'ext4 uninit_bg', type: 'ext4', options: ['-t', 'ext4', '-O', '^metadata_csum,uninit_bg', '-b', '1024'] },
  { name: 'ext4 uninit_bg ^64bit', type: 'ext4', options: ['-t', 'ext4', '-O', '^metadata_csum,uninit_bg,^64bit'] },
  { name: 'ext4 metadata_csum_seed', type: 'ext4', options: ['-t', 'ext4', '-O', 'metadata_csum_seed'] },
  { name: 'ext4 large_dir', type: 'ext4', options: ['-t', 'ext4', '-b', '1024', '-O', 'large_dir'] },
  { name: 'ext4 ea_inode', type: 'ext4', options: ['-t', 'ext4', '-O', 'ea_inode'], largeAttributes: true },
  {
    name: 'ext4 ea_inode ^metadata_csum',
    type: 'ext4',
    options: ['-t', 'ext4', '-O', 'ea_inode,^metadata_csum'],
    largeAttributes: true,
  },
  {
    name: 'ext4 128-byte inodes',
    type: 'ext4',
    options: ['-t', 'ext4', '-I', '128', '-O', '^extra_isize'],
    bigInodes: false,
  },
  {
    name: 'ext4 sparse_super2',
    type: 'ext4',
    options: ['-t', 'ext4', '-O', 'sparse_super2,^resize_inode', '-b', '1024'],
  },
  {
    name: 'ext4 ^flex_bg ^sparse_super',
    type: 'ext4',
    options: ['-t', 'ext4', '-O', '^flex_bg,^sparse_super,^resize_inode', '-b', '1024'],
  },
  { name: 'ext4 encrypt', type: 'ext4', options: ['-t', 'ext4', '-O', 'encrypt'] },
  { name: 'ext4 quota,project', type: 'ext4', options: ['-t', 'ext4', '-O', 'quota,project'], fromFolder: true },
  { name: 'ext4 no journal', type: 'ext4', options: ['-t', 'ext4', '-O', '^has_journal'] },
  { name: 'ext4 mmp', type: 'ext4', options: ['-t', 'ext4', '-O', 'mmp'] },
];

const needs = {
  peers: ['mkfs.ext4', 'debugfs', 'losetup', 'setfattr', 'setfacl'] as const,
  reasons: [missingLoopMounts()],
};

function makeImage(path: string, size: string, options: readonly string[]): void {
  writeFileSync(path, '');
  run('truncate', ['-s', size, path]);
  run('mke2fs', ['-q', '-F', ...options, path]);
}

async function open(path: string): Promise<{ fs: FileSystem; volume: LocalFile }> {
  const volume = LocalFile.open(path, { synchronous: true });
  return { fs: await extFileSystem.open(volume), volume };
}

describePeers('ext, filled and told by the kernel', needs, () => {
  const scratch = scratchFolder('ext');
  for (const variant of variants) {
    describe(variant.name, () => {
      const image = (): string => join(scratch.path, `${variant.name.replaceAll(/\W/g, '_')}.img`);
      let truth: ExpectedEntry[] = [];
      let hashBefore = '';
      const hash = (): string => run('sha256sum', [image()]).split(' ')[0]!;
      beforeAll(() => {
        // 4 KiB as on every volume of some size; mke2fs itself would choose 1 KiB for one as small as this.
        const options = ['-L', 'label', ...(variant.options.includes('-b') ? [] : ['-b', '4096']), ...variant.options];
        if (variant.fromFolder === true) {
          const folder = join(scratch.path, 'folder');
          mkdirSync(folder);
          fillVolume(folder, variant);
          makeImage(image(), variant.size ?? '96M', [...options, '-d', folder]);
          rmSync(folder, { recursive: true });
        } else {
          makeImage(image(), variant.size ?? '96M', options);
          withMount(image(), ['user_xattr', 'acl'], (at) => fillVolume(at, variant));
        }
        const bigInodes = variant.bigInodes !== false && variant.type === 'ext4';
        truth = withMount(image(), ['ro'], (at) => kernelTruth(at, { attributes: true, created: bigInodes }));
        // The kernel reports one sector more for inline content, which takes none, to please programs that skip files without.
        if (options.includes('inline_data')) {
          const own = (allocated: number): number => (allocated % 4096 === 512 ? allocated - 512 : allocated);
          truth = truth.map((entry) => ({ ...entry, allocated: own(entry.allocated!) }));
        }
        hashBefore = hash();
      });
      fileSystemConformance({
        name: variant.name,
        open: () => open(image()),
        expected: () => truth,
        facts: { type: variant.type, label: 'label', condition: 'clean', caseInsensitive: false },
      });
      it('names its features as dumpe2fs does, and its UUID and free space', async () => {
        const { fs, volume } = await open(image());
        const header = run('dumpe2fs', ['-h', image()]);
        const field = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(header)?.[1] ?? '';
        const rename: Record<string, string> = { extents: 'extent' };
        const theirs = field('Filesystem features')
          .split(/\s+/)
          .map((name) => rename[name] ?? name);
        expect([...fs.features].sort()).toEqual(theirs.sort());
        expect(fs.uuid).toBe(field('Filesystem UUID'));
        expect(fs.free).toBe(Number(field('Free blocks')) * fs.blockSize);
        await fs.close();
        await volume.close();
      });
      it('reads a file beyond 4 GiB where it has data, and zeros between', async () => {
        const { fs, volume } = await open(image());
        const huge = await fs.open(await fs.entry('/sparse/huge'));
        for (const [at, length] of [
          [2 ** 31 - 3, 6],
          [5 * 2 ** 30, 10_000],
        ] as const) {
          expect(Buffer.compare(await huge.read(at, length), pattern(length, at))).toBe(0);
        }
        expect((await huge.read(3 * 2 ** 30, 100_000)).every((byte) => byte === 0)).toBe(true);
        const stored = (await huge.runs(0, huge.size)).filter((run) => run.kind === 'volume');
        expect(stored.length).toBeLessThanOrEqual(8);
        await volume.close();
      });
      it('leaves the image as it was', () => {
        expect(hash()).toBe(hashBefore);
      });
    });
  }
});

describePeers('ext: directories with a hash tree', needs, () => {
  const scratch = scratchFolder('ext-htree');
  for (const [hash, blockSize] of [
    ['half_md4', 1024],
    ['tea', 1024],
    ['legacy', 4096],
  ] as const) {
    it(`lists and finds 20,000 names (${hash}, ${blockSize}-byte blocks)`, async () => {
      const image = join(scratch.path, `${hash}.img`);
      makeImage(image, '96M', ['-t', 'ext4', '-b', String(blockSize), '-N', '24000']);
      run('tune2fs', ['-E', `hash_alg=${hash}`, image]);
      const name = (i: number): string => `${i % 7 === 0 ? 'ü' : ''}a rather long name so that the tree grows ${i}`;
      const ids = withMount(image, ['rw'], (at) => {
        mkdirSync(join(at, 'huge'));
        for (let i = 0; i < 20_000; i++) writeFileSync(join(at, 'huge', name(i)), '');
        return new Map(
          run('ls', ['-1Ui', join(at, 'huge')])
            .trim()
            .split('\n')
            .map((line) => {
              const [, id, shown] = /^\s*(\d+) (.*)$/.exec(line)!;
              return [shown!, Number(id)] as const;
            }),
        );
      });
      expect(ids.size).toBe(20_000);
      await leavesUntouched(scratch.path, async () => {
        const { fs, volume } = await open(image);
        const listed: Entry[] = [];
        for await (const batch of fs.list(await fs.entry('/huge'))) listed.push(...batch);
        expect(listed.filter((e) => e.error !== undefined)).toEqual([]);
        expect(new Map(listed.map((e) => [e.name, e.id]))).toEqual(ids);
        for (let i = 0; i < 20_000; i += 13) {
          expect((await fs.entry(`/huge/${name(i)}`)).id).toBe(ids.get(name(i)));
        }
        await volume.close();
      });
    });
  }

  it('hashes names as debugfs does', () => {
    const seed = '01234567-89ab-cdef-0123-456789abcdef';
    const bytes = Buffer.from(seed.replaceAll('-', ''), 'hex');
    const words = [0, 4, 8, 12].map((at) => bytes.readUInt32LE(at)) as [number, number, number, number];
    const names = ['a', 'abcd', 'file number 17', 'x'.repeat(31), 'y'.repeat(32), 'z'.repeat(33), 'q'.repeat(200)];
    ['legacy', 'half_md4', 'tea'].forEach((algorithm, version) => {
      for (const text of names) {
        const said = run('debugfs', ['-R', `dx_hash -h ${algorithm} -s ${seed} "${text}"`]);
        const theirs = Number.parseInt(/is 0x([0-9a-f]+)/.exec(said)![1]!, 16);
        expect(nameHash(version, Buffer.from(text), words, false), `${algorithm} ${text}`).toBe(theirs);
      }
    });
  });
});

describePeers('ext: how it was left', needs, () => {
  const scratch = scratchFolder('ext-state');
  it('needs replay while it is mounted, and is clean afterwards', async () => {
    const image = join(scratch.path, 'journal.img');
    makeImage(image, '32M', ['-t', 'ext4']);
    const copy = join(scratch.path, 'copy.img');
    withMount(image, ['rw'], (at) => {
      writeFileSync(join(at, 'file'), 'content');
      run('sync', ['-f', at]);
      run('cp', [image, copy]);
    });
    const { fs } = await open(copy);
    expect(fs.state.condition).toBe('needs-replay');
    expect(fs.state.evidence.join('\n')).toMatch(/needs_recovery[\s\S]*journal \(inode 8\)/);
    expect((await open(image)).fs.state.condition).toBe('clean');
  });
  it('is dirty while an ext2 is mounted', async () => {
    const image = join(scratch.path, 'ext2.img');
    makeImage(image, '8M', ['-t', 'ext2']);
    withMount(image, ['rw'], (at) => {
      run('sync', ['-f', at]);
      run('cp', [image, join(scratch.path, 'ext2-copy.img')]);
    });
    expect((await open(join(scratch.path, 'ext2-copy.img'))).fs.state.condition).toBe('dirty');
  });
  it('names an external journal and refuses the journal device itself', async () => {
    const journal = join(scratch.path, 'journal-device.img');
    makeImage(journal, '8M', ['-O', 'journal_dev', '-b', '4096']);
    await expect(open(journal)).rejects.toMatchObject({
      kind: 'unsupported',
      details: { feature: expect.stringMatching(/journal device/) },
    });
  });
  it('opens with a copy of the superblock when the first is destroyed', async () => {
    const image = join(scratch.path, 'backup.img');
    makeImage(image, '160M', ['-t', 'ext4', '-b', '4096']);
    withMount(image, ['rw'], (at) => fillVolume(at));
    const truth = withMount(image, ['ro'], (at) => kernelTruth(at));
    run('dd', ['if=/dev/zero', `of=${image}`, 'bs=4096', 'count=3', 'conv=notrunc']);
    const { fs } = await open(image);
    expect(fs.state.condition).toBe('errors');
    expect(fs.state.evidence.join()).toMatch(/group 1/);
    const walked = await walkAll(fs);
    expect(walked.map((w) => w.path).sort()).toEqual(truth.map((t) => t.path).sort());
    for (const want of truth) {
      if (want.kind !== 'file' || want.size! > 10 << 20) continue;
      expect(await contentHash(await fs.open(await fs.entry(want.path)))).toBe(want.sha256);
    }
  });
});

describePeers(
  'ext: directories encrypted by the kernel (fscrypt)',
  { ...needs, reasons: [...needs.reasons, missingPython()] },
  () => {
    const scratch = scratchFolder('ext-crypt');
    it('lists them escaped, says that they are encrypted and refuses their content', async () => {
      const image = join(scratch.path, 'encrypted.img');
      makeImage(image, '32M', ['-t', 'ext4', '-O', 'encrypt']);
      const plain = withMount(image, ['rw'], (at) => {
        mkdirSync(join(at, 'secret'));
        run('python3', ['-c', encryptFolder, at, join(at, 'secret')]);
        for (let i = 0; i < 400; i++) writeFileSync(join(at, 'secret', `file ${i}`), `content ${i}`);
        run('ln', ['-s', 'file 1', join(at, 'secret', 'link')]);
        return run('ls', ['-1Ui', join(at, 'secret')])
          .trim()
          .split('\n')
          .map((line) => Number(/^\s*(\d+)/.exec(line)![1]));
      });
      await leavesUntouched(scratch.path, async () => {
        const { fs, volume } = await open(image);
        const secret = await fs.entry('/secret');
        expect((await fs.stat(secret)).flags).toContain('encrypted');
        const listed: Entry[] = [];
        for await (const batch of fs.list(secret)) listed.push(...batch);
        expect(listed.map((e) => e.id).sort()).toEqual(plain.sort());
        expect(listed.filter((e) => !/^([\w-]|\\x[0-9a-f]{2})+$/.test(e.name))).toEqual([]);
        const file = listed.find((e) => e.kind === 'file')!;
        expect((await fs.entry(`/secret/${file.name}`)).id).toBe(file.id);
        const refused = { kind: 'unsupported', details: { feature: 'ext4 encryption (fscrypt)' } };
        await expect(fs.open(file)).rejects.toMatchObject(refused);
        await expect(fs.readLink(listed.find((e) => e.kind === 'symlink')!)).rejects.toMatchObject(refused);
        expect(await fs.extendedAttributes(file)).toEqual([]);
        await volume.close();
      });
    });
  },
);

function missingPython(): string | undefined {
  return ['/usr/bin/python3', '/usr/local/bin/python3'].some((path) => existsSync(path))
    ? undefined
    : 'python3 is not installed (Debian package python3)';
}

/** FS_IOC_ADD_ENCRYPTION_KEY and FS_IOC_SET_ENCRYPTION_POLICY (include/uapi/linux/fscrypt.h), policy version 2, AES-256. */
const encryptFolder = `
import fcntl, os, struct, sys
key = bytes(range(64))
arg = bytearray(struct.pack('<II32sII32s', 2, 0, b'', len(key), 0, b'') + key)
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0xc0506617, arg)
identifier = bytes(arg[8:24])
policy = struct.pack('<BBBBB3s16s', 2, 1, 4, 3, 0, b'', identifier)
fcntl.ioctl(os.open(sys.argv[2], os.O_RDONLY), 0x800c6613, policy)
`;

describePeers(
  'ext: images that others made',
  { peers: ['qemu-img'], reasons: [existsSync(corpus) ? undefined : 'the corpus is not at ../shared/corpus'] },
  () => {
    const scratch = scratchFolder('ext-corpus');
    const truths = existsSync(corpus)
      ? (readdirSync(join(corpus, 'truth'), { recursive: true }) as string[]).filter((name) =>
          name.endsWith('.kernel.tsv'),
        )
      : [];
    let compared = 0;
    for (const truth of truths.sort()) {
      const [, relative, offset] = /^(.*?)(?:@(\d+))?\.kernel\.tsv$/.exec(truth)!;
      it(`${relative}${offset === undefined ? '' : ` at ${offset}`}`, async ({ skip }) => {
        const raw = rawImage(join(corpus, relative!), join(scratch.path, 'raw.img'));
        const file = LocalFile.open(raw, { synchronous: true });
        const start = Number(offset ?? 0);
        const volume = new Window(file, start, file.size - start, relative!);
        if (!extFileSystem.detect(await volume.read(0, Math.min(4096, volume.size)), volume.size))
          return skip('not ext');
        const fs = await extFileSystem.open(volume);
        const lines = readFileSync(join(corpus, 'truth', truth), 'utf8')
          .trim()
          .split('\n')
          .slice(1);
        const mine: string[] = [];
        for (const { path, entry } of await walkAll(fs)) {
          const stat = await fs.stat(entry);
          const letter = { file: 'f', directory: 'd', symlink: 'l' }[stat.kind as string] ?? '?';
          const time = `${stat.modified!.seconds}.${String(stat.modified!.nanoseconds).padStart(9, '0')}`;
          const extra =
            stat.kind === 'file'
              ? await contentHash(await fs.open(entry))
              : stat.kind === 'symlink'
                ? `-> ${await fs.readLink(entry)}`
                : '';
          mine.push(
            [letter, stat.mode!.toString(8), `${stat.uid}:${stat.gid}`, stat.size, time, extra, path.slice(1)].join(
              '\t',
            ),
          );
        }
        expect(mine.map(normal).sort()).toEqual(lines.map(normal).sort());
        compared++;
        await file.close();
        return undefined;
      });
    }
    it('were some', () => expect(compared).toBeGreaterThanOrEqual(14));
  },
);

/** One line of truth with times as numbers, so that `.000000000` and `.0` are the same. */
function normal(line: string): string {
  const fields = line.split('\t');
  fields[4] = Number(fields[4]).toFixed(6);
  return fields.join('\t');
}

/** The raw disk behind an image of the corpus: as it is, unpacked, or converted by qemu-img. */
function rawImage(path: string, scratch: string): string {
  if (existsSync(path)) {
    if (!/\.(qcow2|vhd|vhdx|vmdk)$/.test(path)) return path;
    const vpc = path.endsWith('.vhd') ? ['-f', 'vpc'] : [];
    run('qemu-img', ['convert', ...vpc, '-O', 'raw', path, scratch]);
    return scratch;
  }
  if (existsSync(`${path}.gz`))
    writeFileSync(scratch, execFileSync('gzip', ['-dc', `${path}.gz`], { maxBuffer: 1 << 30 }));
  else if (existsSync(`${path}.xz`))
    writeFileSync(scratch, execFileSync('xz', ['-dc', `${path}.xz`], { maxBuffer: 1 << 30 }));
  else throw new Error(`${path} is not in the corpus`);
  return scratch;
}

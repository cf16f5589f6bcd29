/**
 * Archives made by other programs read as those programs read them, and archives that our builders make are what they take them
 * for: tar, gzip, Python's tarfile, 7-Zip, qemu-img for the disks inside, xxhsum for checksums.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { openChain } from '../../main/engine/chain/open.ts';
import { verifyChain } from '../../main/engine/chain/verify.ts';
import type { Finding } from '../../main/engine/image/image.ts';
import { verifyArchive } from '../../main/engine/image/ovf/verify-package.ts';
import { xxh64 } from '../../main/engine/image/xva/xxh64.ts';
import { Confinement } from '../../main/engine/storage/confinement.ts';
import { ovfDescriptor } from '../support/ova-builder.ts';
import { describePeers, run } from '../support/peers.ts';
import { randomFrom } from '../support/random.ts';
import { leavesUntouched, scratchFolder, sha256File } from '../support/scratch.ts';
import { tarHeader } from '../support/tar-builder.ts';
import { buildXva, CHUNK, ovaXml, vdiRecord } from '../support/xva-builder.ts';

const MIB = 1 << 20;

/** A disk as disks are: text, noise, long stretches of nothing. */
function writeDisk(path: string, size: number, seed: number): void {
  const random = randomFrom(seed);
  const fd = openSync(path, 'w');
  for (let at = 0; at < size; ) {
    const length = Math.min(size - at, 4096 * (1 + Math.floor(random() * 200)));
    const kind = random();
    if (kind < 0.6) {
      const bytes = Buffer.alloc(length);
      if (kind < 0.15) for (let i = 0; i < length; i += 4) bytes.writeInt32LE((random() * 2 ** 32) | 0, i);
      else if (kind < 0.4) bytes.fill(`line ${at} of a log, as there are many ${seed}\n`);
      else for (let i = 0; i < length; i++) bytes[i] = 60 + Math.floor(random() ** 2 * 30);
      writeSync(fd, bytes, 0, length, at);
    }
    at += length;
  }
  closeSync(fd);
  truncateSync(path, size);
}

async function hashDisk(path: string, root: string, synchronous: boolean): Promise<string> {
  const folder = new Confinement(root, { synchronous });
  const disk = await openChain(path, folder, { synchronous });
  const hash = createHash('sha256');
  for (let at = 0; at < disk.size; at += 3 * MIB + 17)
    hash.update(await disk.read(at, Math.min(3 * MIB + 17, disk.size - at)));
  await disk.close();
  await folder.close();
  return hash.digest('hex');
}

async function collect(findings: AsyncIterable<Finding>): Promise<Finding[]> {
  const all: Finding[] = [];
  for await (const finding of findings) all.push(finding);
  return all;
}

describePeers('archives and other programs', { peers: ['tar', 'gzip', 'python3', '7z', 'qemu-img', 'xxhsum'] }, () => {
  const scratch = scratchFolder('peers-archive');
  let number = 0;
  const fresh = (): string => {
    const folder = join(scratch.path, `case-${number++}`);
    mkdirSync(folder);
    return folder;
  };

  it.each([1, 2, 3, 4, 5, 6, 7, 8, 9])('gzip -%i: thousands of ranges are those of gunzip', async (level) => {
    const root = fresh();
    const plain = join(root, 'disk.raw');
    writeDisk(plain, 24 * MIB + level * 512, level);
    run('sh', ['-c', `gzip -${level} -k '${plain}' && gunzip -c '${plain}.gz' > '${plain}.out'`]);
    const expected = readFileSync(`${plain}.out`);
    const random = randomFrom(level * 101);
    for (const synchronous of [true, false]) {
      const folder = new Confinement(root, { synchronous });
      const archive = (await folder.mount('disk.raw.gz'))!;
      const file = archive.open('disk.raw', 'disk.raw');
      expect(file.size).toBe(expected.length);
      for (let i = 0; i < 1500; i++) {
        const offset = Math.floor(random() * expected.length);
        const length = Math.min(expected.length - offset, Math.floor(random() ** 4 * 300_000));
        const bytes = await file.read(offset, length);
        if (Buffer.compare(bytes, expected.subarray(offset, offset + length)) !== 0) {
          expect.fail(`${length} bytes from ${offset} differ`);
        }
      }
      await folder.close();
    }
  });

  it('reads what 7-Zip, and Python with every strategy, compress', async () => {
    const root = fresh();
    const plain = join(root, 'disk.raw');
    writeDisk(plain, 12 * MIB, 77);
    const sum = sha256File(plain);
    run('7z', ['a', '-tgzip', '-mx=9', '-bso0', '-bsp0', join(root, 'seven.raw.gz'), plain]);
    const strategies = ['Z_FIXED', 'Z_HUFFMAN_ONLY', 'Z_RLE', 'Z_FILTERED', 'Z_DEFAULT_STRATEGY'];
    for (const strategy of strategies) {
      run('python3', [
        '-c',
        `import sys, zlib
c = zlib.compressobj(6, 8, 31, 4, zlib.${strategy})
open(sys.argv[2], 'wb').write(c.compress(open(sys.argv[1], 'rb').read()) + c.flush())`,
        plain,
        join(root, `${strategy}.raw.gz`),
      ]);
    }
    run('python3', [
      '-c',
      `import sys, gzip
with open(sys.argv[1], 'rb') as f, open(sys.argv[2], 'wb') as out:
    while piece := f.read(65280): out.write(gzip.compress(piece, 6))`,
      plain,
      join(root, 'members.raw.gz'),
    ]);
    for (const name of ['seven', ...strategies, 'members']) {
      expect(await hashDisk(`${name}.raw.gz/${name}.raw`, root, name !== 'members'), name).toBe(sum);
    }
  });

  it.each(['v7', 'oldgnu', 'gnu', 'ustar', 'pax'])(
    'reads members of tar --format=%s, as tar and 7-Zip list them',
    async (format) => {
      const root = fresh();
      const place = join(root, 'in');
      const names = ['web01.ovf', 'disks/web01-disk1.vmdk', 'disks/empty.nvram', 'sp ace/ünï.txt'];
      if (format !== 'v7') names.push(`${'folder-of-some-length/'.repeat(5)}disk.vmdk`);
      if (format === 'gnu' || format === 'pax')
        names.push(`${'folder-of-some-length/'.repeat(11)}${'n'.repeat(120)}.vmdk`);
      for (const [i, name] of names.entries()) {
        mkdirSync(dirname(join(place, name)), { recursive: true });
        writeFileSync(join(place, name), name.includes('empty') ? '' : `${name}\n`.repeat(1 + i * 100));
      }
      const path = join(root, 'web01.ova');
      run('tar', ['-C', place, `--format=${format}`, '--mtime=@1700000000', '-cf', path, ...names]);
      const folder = new Confinement(root);
      const archive = (await folder.mount(path))!;
      expect(archive.findings).toEqual([]);
      expect(archive.names()).toEqual([...names].sort());
      expect(run('tar', ['-tf', path, '--quoting-style=literal']).trim().split('\n')).toEqual(
        [...archive.members()].map(({ name }) => name),
      );
      for (const name of names) {
        const file = archive.open(name, name);
        const bytes = Buffer.from(await file.read(0, file.size));
        expect(bytes.toString()).toBe(run('tar', ['-xOf', path, name]));
        expect(file.modified).toBe(1_700_000_000_000);
      }
      expect(run('7z', ['l', '-ba', '-slt', path]).match(/^Path = /gm)).toHaveLength(names.length);
      await folder.close();
    },
  );

  it.each(['USTAR_FORMAT', 'GNU_FORMAT', 'PAX_FORMAT'])(
    'reads what Python writes as %s, and refuses its links',
    async (format) => {
      const root = fresh();
      run('python3', [
        '-c',
        `import io, sys, tarfile
with tarfile.open(sys.argv[1], 'w', format=tarfile.${format}) as tar:
    def add(name, data=b'', **fields):
        info = tarfile.TarInfo(name); info.size = len(data); info.mtime = 1600000000.5
        for key, value in fields.items(): setattr(info, key, value)
        tar.addfile(info, io.BytesIO(data))
    add('vm', type=tarfile.DIRTYPE)
    add('vm/disk.vmdk', b'x' * 100000)
    add('vm/link.vmdk', type=tarfile.SYMTYPE, linkname='/etc/passwd')
    add('vm/hard.vmdk', type=tarfile.LNKTYPE, linkname='vm/disk.vmdk')
    add('/absolute.vmdk', b'a')
    add('../up.vmdk', b'b')
    add('vm/last.vmdk', b'y' * 513)
`,
        join(root, 'web01.ova'),
      ]);
      const folder = new Confinement(root);
      const archive = (await folder.mount('web01.ova'))!;
      expect(archive.names()).toEqual(['vm/disk.vmdk', 'vm/last.vmdk']);
      expect(archive.findings.map(({ code }) => code)).toEqual(['archive-name-refused', 'archive-name-refused']);
      expect(Buffer.from(await archive.open('vm/last.vmdk', 'l').read(0, 513)).toString()).toBe('y'.repeat(513));
      expect(() => archive.open('vm/link.vmdk', 'l')).toThrow(/link/);
      await folder.close();
    },
  );

  it('refuses sparse members of GNU tar by name, and reads those around them', async () => {
    for (const options of [
      ['--format=gnu'],
      ['--format=pax', '--sparse-version=0.1'],
      ['--format=pax', '--sparse-version=1.0'],
    ]) {
      const root = fresh();
      // Sparse with more pieces than a header describes, so that its map goes on in further blocks.
      const disk = join(root, 'sparse.raw');
      const fd = openSync(disk, 'w');
      for (let i = 0; i < 60; i++) writeSync(fd, Buffer.alloc(4096, 1 + i), 0, 4096, i * 262_144);
      closeSync(fd);
      truncateSync(disk, 20 * MIB);
      writeFileSync(join(root, 'before.ovf'), 'before');
      writeFileSync(join(root, 'behind.mf'), 'behind');
      run('tar', [
        '-C',
        root,
        ...options,
        '--sparse',
        '-cf',
        join(root, 'x.ova'),
        'before.ovf',
        'sparse.raw',
        'behind.mf',
      ]);
      const folder = new Confinement(root);
      const archive = (await folder.mount('x.ova'))!;
      expect(archive.names()).toEqual(['before.ovf', 'behind.mf']);
      expect(() => archive.open([...archive.members()].find(({ kind }) => kind === 'sparse')!.name, 's')).toThrow(
        /sparse member/,
      );
      expect(Buffer.from(await archive.open('behind.mf', 'b').read(0, 6)).toString()).toBe('behind');
      await folder.close();
    }
  });

  it.each([
    ['as it is', false, false],
    ['with its disk compressed', true, false],
    ['compressed as a whole', false, true],
  ])('reads a stream-optimized disk out of an OVA, %s, as qemu-img does', async (_, packed, whole) => {
    const root = fresh();
    const raw = join(root, 'disk.raw');
    writeDisk(raw, 40 * MIB, 5);
    const sum = sha256File(raw);
    run('qemu-img', [
      'convert',
      '-f',
      'raw',
      '-O',
      'vmdk',
      '-o',
      'subformat=streamOptimized',
      raw,
      join(root, 'web01-disk1.vmdk'),
    ]);
    rmSync(raw);
    if (packed) run('gzip', [join(root, 'web01-disk1.vmdk')]);
    const name = packed ? 'web01-disk1.vmdk.gz' : 'web01-disk1.vmdk';
    const bytes = readFileSync(join(root, name));
    writeFileSync(
      join(root, 'web01.ovf'),
      ovfDescriptor('web01', [{ name, bytes, capacity: 40 * MIB, ...(packed ? { compression: 'gzip' } : {}) }]),
    );
    run('sh', [
      '-c',
      `cd '${root}' && for f in web01.ovf ${name}; do echo "SHA256($f)= $(sha256sum $f | cut -c-64)"; done > web01.mf`,
    ]);
    run('tar', ['-C', root, '--format=ustar', '-cf', join(root, 'web01.ova'), 'web01.ovf', 'web01.mf', name]);
    for (const file of ['web01.ovf', 'web01.mf', name]) rmSync(join(root, file));
    if (whole) run('gzip', [join(root, 'web01.ova')]);
    const ova = whole ? 'web01.ova.gz' : 'web01.ova';
    const leaf = `${ova}/${name}${packed ? '/web01-disk1.vmdk' : ''}`;
    await leavesUntouched(root, async () => {
      expect(await hashDisk(leaf, root, true)).toBe(sum);
      expect(await hashDisk(leaf, root, false)).toBe(sum);
      const folder = new Confinement(root);
      const archive = (await folder.mount(ova))!;
      expect(await collect(verifyArchive(archive, folder))).toEqual([]);
      await folder.close();
    });
  });

  it('writes exports in its builder that tar and 7-Zip read, with the checksums of sha1sum and xxhsum', async () => {
    const root = fresh();
    const raw = join(root, 'disk.raw');
    writeDisk(raw, 12 * MIB + 4096, 9);
    const content = readFileSync(raw);
    const path = join(root, 'web01.xva');
    writeFileSync(
      path,
      buildXva([
        { id: 'Ref:1', content },
        { id: 'Ref:2', content, checksum: 'sha1' },
      ]),
    );
    const out = join(root, 'out');
    mkdirSync(out);
    run('tar', ['-C', out, '-xf', path]);
    expect(run('7z', ['l', '-ba', '-slt', path]).match(/^Path = /gm)!.length).toBe(
      run('tar', ['-tf', path]).trim().split('\n').length,
    );
    run('sh', [
      '-c',
      `cd '${out}/Ref:2' && for f in *.checksum; do echo "$(cat $f)  \${f%.checksum}"; done | sha1sum -c --quiet`,
    ]);
    run('sh', [
      '-c',
      `cd '${out}/Ref:1' && for f in *.xxhash; do test "$(xxhsum -H1 \${f%.xxhash} | cut -c-16 | tr a-f A-F)" = "$(cat $f)" || exit 1; done`,
    ]);
    // As every converter for these files does it: chunk by chunk to its place.
    const plain = join(root, 'plain.raw');
    run('sh', [
      '-c',
      `truncate -s ${content.length} '${plain}' && cd '${out}/Ref:1' && for f in $(ls | grep -v xxhash); do dd if=$f of='${plain}' bs=1M seek=$(echo $f | sed 's/^0*//;s/^$/0/') conv=notrunc status=none; done`,
    ]);
    expect(sha256File(plain)).toBe(sha256File(raw));
    for (const id of ['Ref:1', 'Ref:2']) {
      expect(await hashDisk(`web01.xva/${id}`, root, id === 'Ref:1')).toBe(sha256File(raw));
      expect(await collect(verifyChain(`web01.xva/${id}`, new Confinement(root)))).toEqual([]);
    }
    const random = randomFrom(5);
    for (let i = 0; i < 40; i++) {
      const from = Math.floor(random() * content.length);
      const piece = content.subarray(from, from + Math.floor(random() * 70_000));
      writeFileSync(join(root, 'piece'), piece);
      expect(xxh64(piece)).toBe(run('xxhsum', ['-H1', join(root, 'piece')]).slice(0, 16));
    }
  });

  it('opens an export of a terabyte and a quarter with little memory, and reads from its end', async () => {
    const root = fresh();
    const path = join(root, 'huge.xva');
    const chunks = 1_300_000;
    const size = chunks * CHUNK;
    // A sparse file: headers are written, chunks are holes.
    const fd = openSync(path, 'w');
    const xml = Buffer.from(ovaXml([vdiRecord('Ref:1', size)]));
    writeSync(fd, tarHeader({ name: 'ova.xml', size: xml.length }), 0, 512, 0);
    writeSync(fd, xml, 0, xml.length, 512);
    let at = 512 + Math.ceil(xml.length / 512) * 512;
    // One chunk in a hundred is there, and the last.
    const present = Array.from({ length: chunks / 100 }, (_, i) => i * 100);
    for (const chunk of [...present, chunks - 1]) {
      const name = `Ref:1/${String(chunk).padStart(8, '0')}`;
      const pair = Buffer.concat([tarHeader({ name: `${name}.xxhash`, size: 16 }), Buffer.alloc(512, '0')]);
      writeSync(fd, tarHeader({ name, size: CHUNK }), 0, 512, at);
      writeSync(fd, pair, 0, 1024, at + 512 + CHUNK);
      at += 512 + CHUNK + 1024;
    }
    const last = at - 1024 - CHUNK;
    writeSync(fd, Buffer.from('the last chunk'), 0, 14, last);
    truncateSync(path, at + 1024);
    closeSync(fd);
    expect(statSync(path).size).toBeGreaterThan(12 * 2 ** 30);
    const before = process.memoryUsage().rss;
    const started = performance.now();
    const folder = new Confinement(root);
    const disk = await openChain('huge.xva/Ref:1', folder);
    expect(disk.size).toBe(size);
    expect(Buffer.from(await disk.read(size - CHUNK, 14)).toString()).toBe('the last chunk');
    expect((await disk.runs(0, 400 * CHUNK)).filter(({ kind }) => kind === 'data')).toHaveLength(4);
    expect(performance.now() - started).toBeLessThan(60_000);
    expect(process.memoryUsage().rss - before).toBeLessThan(150 << 20);
    await disk.close();
    await folder.close();
  });
});

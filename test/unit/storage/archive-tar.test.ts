/** The index of a tar in every dialect, and of damaged and hostile ones. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { CancelledError, CorruptError, NotFoundError, UnsupportedError } from '../../../main/engine/errors.ts';
import type { Archive, ArchiveFinding } from '../../../main/engine/storage/archive/archive.ts';
import { openArchive } from '../../../main/engine/storage/archive/open-archive.ts';
import { ScanTap, scanSource } from '../../../main/engine/storage/archive/tar-drive.ts';
import type { TarIndex } from '../../../main/engine/storage/archive/tar-index.ts';
import { scanTar } from '../../../main/engine/storage/archive/tar-scan.ts';
import { type ByteSource, MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { LocalFile } from '../../../main/engine/storage/local-file.ts';
import { randomFrom } from '../../support/random.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { BLOCK, buildTar, type TarMember, tarHeader, tarMember } from '../../support/tar-builder.ts';

const text = (content: string): Buffer => Buffer.from(content);

/** Reads the index both ways: from a file, and from a stream in pieces of odd lengths. Both must agree. */
async function indexOf(bytes: Buffer): Promise<TarIndex | undefined> {
  const fromFile = await scanSource(scanTar('x.ova'), new MemorySource(bytes, 'x.ova'));
  for (const piece of [1, 511, 100_000]) {
    if (piece === 1 && bytes.length > 50_000) continue;
    const tap = new ScanTap(scanTar('x.ova'));
    for (let at = 0; at < bytes.length; at += piece) tap.push(bytes.subarray(at, at + piece), at);
    const fromStream = tap.end(bytes.length, 'x.ova');
    expect(fromStream).toEqual(fromFile);
  }
  return fromFile;
}

const names = (index: TarIndex | undefined): string[] => [...(index?.members.keys() ?? [])];
const codes = (findings: readonly ArchiveFinding[] | undefined): string[] => (findings ?? []).map(({ code }) => code);

describe('a tar', () => {
  const scratch = scratchFolder('tar');
  let number = 0;
  async function open(bytes: Uint8Array, name = 'x.ova'): Promise<Archive | undefined> {
    const folder = join(scratch.path, `case-${number++}`);
    mkdirSync(folder);
    writeFileSync(join(folder, name), bytes);
    return openArchive(LocalFile.open(join(folder, name)));
  }

  it.each([
    ['POSIX ustar', { name: 'a.vmdk', content: text('abc') }, 'a.vmdk', 3],
    [
      'POSIX ustar with a prefix',
      { name: 'disk.vmdk', prefix: 'vm/disks', content: text('abc') },
      'vm/disks/disk.vmdk',
      3,
    ],
    ['V7', { name: 'a.vmdk', format: 'v7', content: text('abcd') }, 'a.vmdk', 4],
    ['GNU', { name: 'a.vmdk', format: 'gnu', content: text('abcd') }, 'a.vmdk', 4],
    ['GNU, whose prefix is none', { name: 'a.vmdk', format: 'gnu', prefix: '12345', content: text('ab') }, 'a.vmdk', 2],
    [
      'a GNU long name',
      { name: `${'long/'.repeat(60)}a.vmdk`, longName: true, content: text('ab') },
      `${'long/'.repeat(60)}a.vmdk`,
      2,
    ],
    ['a size in base 256', { name: 'a.vmdk', base256: true, content: text('abc') }, 'a.vmdk', 3],
    ['a pax path', { name: 'short', pax: { path: 'Büro/web 01.vmdk' }, content: text('abc') }, 'Büro/web 01.vmdk', 3],
    ['a pax size', { name: 'a', size: 0, pax: { size: '3' }, content: text('abc') }, 'a', 3],
    ['a name of 100 bytes', { name: 'n'.repeat(100), content: text('a') }, 'n'.repeat(100), 1],
    ['a contiguous file', { name: 'a', type: '7', content: text('abc') }, 'a', 3],
    ['a name with ./', { name: './vm/./a.ovf', content: text('abc') }, 'vm/a.ovf', 3],
  ] as const)('is read: %s', async (_, member: TarMember, name, size) => {
    const archive = (await open(
      buildTar([{ name: 'before', content: text('x'.repeat(700)) }, member, { name: 'behind', content: text('y') }]),
    ))!;
    expect(archive.kind).toBe('tar');
    expect(archive.names()).toEqual(['before', 'behind', name].sort());
    expect(archive.findings).toEqual([]);
    expect(archive.member(name)).toMatchObject({ size, kind: 'file' });
    const file = archive.open(name, `x.ova/${name}`);
    expect(Buffer.from(await file.read(0, file.size)).equals(Buffer.from(member.content!.subarray(0, size)))).toBe(
      true,
    );
    expect(file.name).toBe(`x.ova/${name}`);
    expect(file.path).toBe(join(archive.path, name));
    await expect(file.read(file.size, 1)).rejects.toThrow(CorruptError);
    await file.close();
    expect(archive.open('behind', 'b').size).toBe(1);
    await archive.close();
  });

  it('gives times of header and pax header', async () => {
    const archive = (await open(
      buildTar([
        { name: 'a', mtime: 1_700_000_000, content: text('a') },
        { name: 'b', pax: { mtime: '1700000001.25' }, content: text('b') },
      ]),
    ))!;
    expect(archive.member('a')?.modified).toBe(1_700_000_000_000);
    expect(archive.open('b', 'b').modified).toBe(1_700_000_001_250);
    await archive.close();
  });

  it('takes a global pax header for those after it', async () => {
    const global = tarMember({
      name: 'g',
      type: 'g',
      content: Buffer.from('18 mtime=1234567.5\n'.replace('18', '19')),
    });
    const bytes = Buffer.concat([
      global,
      buildTar([
        { name: 'a', content: text('a') },
        { name: 'b', pax: { mtime: '5' } },
      ]),
    ]);
    const index = await indexOf(bytes);
    expect(index?.members.get('a')?.modified).toBe(1_234_567_500);
    expect(index?.members.get('b')?.modified).toBe(5000);
  });

  it('reads a large size in base 256, and content behind 8 GiB', async () => {
    const size = 10 * 2 ** 30;
    const header = tarHeader({ name: 'huge', size, base256: true });
    const tail = buildTar([{ name: 'behind', content: text('here') }]);
    const source: ByteSource = {
      name: 'x.ova',
      size: BLOCK + size + tail.length,
      async read(offset, length) {
        const bytes = Buffer.alloc(length);
        for (const [part, at] of [
          [header, 0],
          [tail, BLOCK + size],
        ] as const) {
          const from = Math.max(offset, at);
          const to = Math.min(offset + length, at + part.length);
          if (from < to) part.copy(bytes, from - offset, from - at, to - at);
        }
        return bytes;
      },
      async close() {},
    };
    const index = await scanSource(scanTar('x.ova'), source);
    expect(index?.members.get('huge')?.size).toBe(size);
    expect(index?.members.get('behind')?.position).toBe(size + 2 * BLOCK);
  });

  it('does not follow links, and refuses what is no plain file by name', async () => {
    const archive = (await open(
      buildTar([
        { name: 'disk.vmdk', content: text('real') },
        { name: 'folder/', type: '5' },
        { name: 'v7folder/', format: 'v7' },
        { name: 'soft.vmdk', type: '2', link: '/etc/passwd', size: 512 },
        { name: 'hard.vmdk', type: '1', link: 'disk.vmdk', size: 4 },
        { name: 'pipe', type: '6' },
        { name: 'sparse.raw', type: 'S', format: 'gnu', content: text('data') },
        { name: 'paxsparse.raw', pax: { 'GNU.sparse.major': '1' }, content: text('data') },
        { name: 'label', type: 'V' },
      ]),
    ))!;
    expect(archive.names()).toEqual(['disk.vmdk']);
    for (const name of ['soft.vmdk', 'hard.vmdk', 'pipe', 'sparse.raw', 'paxsparse.raw']) {
      expect(() => archive.open(name, name), name).toThrow(UnsupportedError);
    }
    expect(() => archive.open('folder', 'folder')).toThrow(NotFoundError);
    expect(archive.findings).toEqual([]);
    await archive.close();
  });

  it('passes over the map of an old GNU sparse member', async () => {
    const more = (extended: boolean): Buffer => {
      const block = Buffer.alloc(BLOCK, 0x31);
      block[504] = extended ? 1 : 0;
      return block;
    };
    const bytes = Buffer.concat([
      tarHeader({ name: 's', type: 'S', format: 'gnu', size: 5, patch: (header) => header.fill(1, 482, 483) }),
      more(true),
      more(false),
      Buffer.concat([text('hello'), Buffer.alloc(BLOCK - 5)]),
      buildTar([{ name: 'behind', content: text('b') }]),
    ]);
    const index = await indexOf(bytes);
    expect(names(index)).toEqual(['s', 'behind']);
  });

  it('leaves out names that lead out of it, and says so', async () => {
    const index = await indexOf(
      buildTar([
        { name: '/etc/passwd', content: text('a') },
        { name: '../../x.vmdk', content: text('b') },
        { name: 'vm/../../y.vmdk', content: text('c') },
        { name: 'a', pax: { path: '../z' }, content: text('d') },
        { name: '..hidden.vmdk', content: text('e') },
      ]),
    );
    expect(names(index)).toEqual(['..hidden.vmdk']);
    expect(codes(index?.findings)).toEqual(Array(4).fill('archive-name-refused'));
  });

  it('tells of many odd members without a finding for each', async () => {
    const index = await indexOf(
      buildTar(Array.from({ length: 500 }, (_, i) => ({ name: `../${i}`, content: text('a') }))),
    );
    expect(index?.findings.length).toBe(21);
    expect(index?.findings.at(-1)?.message).toContain('500');
  });

  it('reads the last of two members of one name, as tar does', async () => {
    const archive = (await open(
      buildTar([{ name: 'a', content: text('first') }, { name: 'b' }, { name: './a', content: text('second') }]),
    ))!;
    const file = archive.open('a', 'a');
    expect(Buffer.from(await file.read(0, file.size)).toString()).toBe('second');
    expect(codes(archive.findings)).toEqual(['archive-duplicate-member']);
    expect(archive.count).toBe(2);
    await archive.close();
  });

  it('keeps what was before a damaged header, and nothing behind it', async () => {
    const index = await indexOf(
      Buffer.concat([
        tarMember({ name: 'a', content: text('a') }),
        tarMember({ name: 'b', content: text('b'), breakChecksum: true }),
        buildTar([{ name: 'c' }]),
      ]),
    );
    expect(names(index)).toEqual(['a']);
    expect(index?.findings).toMatchObject([
      { severity: 'damaged', code: 'archive-damaged', structure: 'Tar header', position: 2 * BLOCK + 148 },
    ]);
  });

  it.each([
    ['a size that is no number', { name: 'b', patch: (header: Buffer) => header.write('12x45678901', 124) }],
    ['a size of 2^63', { name: 'b', patch: (header: Buffer) => header.fill(0x80, 124, 125).fill(0x80, 128, 129) }],
    ['a negative size', { name: 'b', patch: (header: Buffer) => header.fill(0xff, 124, 136) }],
    ['a pax size that is no number', { name: 'b', pax: { size: '-5' } }],
    ['a pax size of 2^63', { name: 'b', pax: { size: '9223372036854775808' } }],
    ['a pax record of another length', { name: 'b', type: 'x', content: text('99 path=x\n') }],
    ['a pax record without end', { name: 'b', type: 'x', content: text('11 path=xx ') }],
    ['a pax header of 2 GiB', { name: 'b', type: 'x', size: 2 ** 31 }],
    ['a long name of 2 GiB', { name: 'b', type: 'L', size: 2 ** 31 }],
  ] as const)('ends its index at %s', async (_, member: TarMember) => {
    const index = await indexOf(buildTar([{ name: 'a', content: text('a') }, member, { name: 'c' }]));
    expect(names(index)).toEqual(['a']);
    expect(index?.findings).toMatchObject([{ severity: 'damaged', code: 'archive-damaged' }]);
    expect(index?.findings[0]?.position).toBeGreaterThan(BLOCK);
  });

  it('that was cut off keeps the members that are whole', async () => {
    const bytes = buildTar([
      { name: 'a', content: Buffer.alloc(3000, 1) },
      { name: 'b', content: Buffer.alloc(3000, 2) },
    ]);
    const archive = (await open(bytes.subarray(0, 6000)))!;
    expect(archive.open('a', 'a').size).toBe(3000);
    expect(() => archive.open('b', 'x.ova/b')).toThrow(CorruptError);
    expect(archive.findings.map(({ severity, code }) => [severity, code])).toEqual([
      ['suspicious', 'archive-no-end'],
      ['damaged', 'archive-member-cut-off'],
    ]);
    await archive.close();
    expect(codes((await indexOf(bytes.subarray(0, BLOCK + 3072 + 100)))?.findings)).toEqual(['archive-cut-off']);
    expect(codes((await indexOf(bytes.subarray(0, BLOCK + 3072)))?.findings)).toEqual(['archive-no-end']);
  });

  it('that ends with one block of zeros is read to there', async () => {
    const index = await indexOf(
      Buffer.concat([tarMember({ name: 'a' }), Buffer.alloc(BLOCK), buildTar([{ name: 'b' }])]),
    );
    expect(names(index)).toEqual(['a']);
    expect(codes(index?.findings)).toEqual(['archive-lone-zero-block']);
  });

  it('of too many members is refused by name', async () => {
    const member = tarMember({ name: 'member-000000.txt' });
    const bytes = Buffer.alloc(200_001 * BLOCK);
    for (let i = 0; i <= 200_000; i++) {
      const header = tarHeader({ name: `member-${String(i).padStart(6, '0')}` });
      header.copy(bytes, i * member.length);
    }
    await expect(scanSource(scanTar('x.ova'), new MemorySource(bytes, 'x.ova'))).rejects.toThrow(
      /more than 200000 members/,
    );
  });

  it('of chunks is read many headers at a time, and keeps no object for each', async () => {
    const count = 3000;
    const chunk = 8192;
    const parts: Buffer[] = [tarMember({ name: 'ova.xml', content: text('<value/>') })];
    for (let i = 0; i < count; i++) {
      const name = `Ref:7/${String(i * 2).padStart(8, '0')}`;
      parts.push(
        tarMember({ name, content: Buffer.alloc(chunk, i) }),
        tarMember({ name: `${name}.checksum`, content: text('0'.repeat(40)) }),
      );
    }
    const bytes = Buffer.concat([...parts, Buffer.alloc(1024)]);
    let inFlight = 0;
    let most = 0;
    let reads = 0;
    const source: ByteSource = {
      name: 'x.xva',
      size: bytes.length,
      async read(offset, length) {
        reads++;
        most = Math.max(most, ++inFlight);
        await new Promise((resolve) => setImmediate(resolve));
        inFlight--;
        return bytes.subarray(offset, offset + length);
      },
      async close() {},
    };
    const index = await scanSource(scanTar('x.xva'), source);
    expect(most).toBeGreaterThan(8);
    expect(reads).toBeLessThan(count * 1.1);
    expect(names(index)).toEqual(['ova.xml']);
    expect(index?.folders.get('Ref:7')).toMatchObject({ count, digits: 8 });
    expect(index?.count).toBe(1 + 2 * count);
    expect(index?.find('Ref:7/00000200')).toMatchObject({ size: chunk });
    expect(index?.find('Ref:7/00000200.checksum')).toMatchObject({ size: 40 });
    expect(index?.find('Ref:7/00000201')).toBeUndefined();
    expect(await indexOf(bytes)).toEqual(index);
  });

  it('answers cancellation, and tells progress', async () => {
    const bytes = buildTar(Array.from({ length: 2000 }, (_, i) => ({ name: `m${i}`, content: Buffer.alloc(600, i) })));
    const told: number[] = [];
    await scanSource(scanTar('x'), new MemorySource(bytes), { onProgress: (done) => told.push(done) });
    expect(told.length).toBeGreaterThan(3);
    const signal = AbortSignal.abort();
    await expect(scanSource(scanTar('x'), new MemorySource(bytes), { signal })).rejects.toThrow(CancelledError);
  });

  it('is no archive when it does not begin with a header', async () => {
    expect(await indexOf(Buffer.alloc(0))).toBeUndefined();
    expect(await indexOf(Buffer.alloc(4096))).toBeUndefined();
    expect(await indexOf(text('KDMV'.repeat(300)))).toBeUndefined();
    expect(await open(text('just text'), 'x.ova')).toBeUndefined();
  });

  it('whatever is changed in it, answers with an index or a typed error, in time', async () => {
    const original = buildTar([
      { name: 'web01.ovf', content: text('<Envelope/>') },
      { name: 'a', pax: { path: 'vm/disk.vmdk', mtime: '12.5' }, content: Buffer.alloc(1500, 7) },
      { name: `${'long/'.repeat(40)}b.vmdk`, longName: true, content: Buffer.alloc(700, 9) },
      { name: 'Ref:1/00000000', content: Buffer.alloc(512) },
      { name: 'Ref:1/00000000.checksum', content: Buffer.alloc(40) },
      { name: 's', type: 'S', format: 'gnu', content: text('data') },
    ]);
    const random = randomFrom(19);
    for (let round = 0; round < 400; round++) {
      const bytes = Buffer.from(original);
      for (let n = 1 + Math.floor(random() * 3); n > 0; n--) {
        const header = Math.floor(random() * 14) * BLOCK;
        const at = header + Math.floor(random() * BLOCK);
        bytes[at % bytes.length] = Math.floor(random() * 256);
        // A checksum that is right again lets the change through.
        if (random() < 0.8) {
          const block = bytes.subarray(header, header + BLOCK);
          block.fill(0x20, 148, 156);
          block.write(
            `${block
              .reduce((sum, byte) => sum + byte, 0)
              .toString(8)
              .padStart(6, '0')}\0 `,
            148,
            'latin1',
          );
        }
      }
      const index = await indexOf(bytes);
      for (const { name } of index?.members.values() ?? []) {
        expect(name.startsWith('/') || name.split('/').includes('..')).toBe(false);
      }
    }
  });

  describe('in gzip', () => {
    const members: TarMember[] = [
      { name: 'web01.ovf', content: text('<Envelope/>') },
      { name: 'web01.vmdk', content: Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * i) >> 7)) },
    ];

    it('is read as one, whatever it is called', async () => {
      for (const name of ['web01.ova.gz', 'web01.ova', 'web01.xva']) {
        const archive = (await open(gzipSync(buildTar(members)), name))!;
        expect(archive.kind).toBe('tar.gz');
        expect(archive.names()).toEqual(['web01.ovf', 'web01.vmdk']);
        const disk = archive.open('web01.vmdk', 'd');
        expect(
          Buffer.from(await disk.read(123_456, 1000)).equals(
            Buffer.from(members[1]!.content!.subarray(123_456, 124_456)),
          ),
        ).toBe(true);
        expect(archive.findings).toEqual([]);
        await archive.close();
      }
    });

    it('that holds a disk is not looked into, whatever its guest wrote', async () => {
      for (const name of ['disk.raw.gz', 'disk.img.gz', 'disk.vmdk.gz', 'disk.qcow2.gz']) {
        const archive = (await open(gzipSync(buildTar(members)), name))!;
        expect(archive.kind).toBe('gzip');
        expect(archive.names()).toEqual([name.slice(0, -3)]);
        await archive.close();
      }
      for (const name of ['disk.raw', 'disk.img', 'disk.vmdk']) {
        expect(await open(buildTar(members), name)).toBeUndefined();
        expect(await open(gzipSync(buildTar(members)), name)).toBeUndefined();
      }
    });

    it('of a single file is called after it', async () => {
      const recorded = (name: string): Buffer => {
        const packed = gzipSync(text('content of a disk'));
        packed[3] = 8;
        return Buffer.concat([packed.subarray(0, 10), text(`${name}\0`), packed.subarray(10)]);
      };
      for (const [file, inside, expected] of [
        ['disk.vmdk.gz', 'other.vmdk', 'disk.vmdk'],
        ['DISK.VMDK.GZ', '', 'DISK.VMDK'],
        ['export.xva', 'disk.vmdk', 'disk.vmdk'],
        ['export.xva', '../../etc/passwd', 'content'],
        ['export.xva', '..', 'content'],
        ['export.xva', 'a\nb', 'content'],
      ] as const) {
        const archive = (await open(recorded(inside), file))!;
        expect(archive.names()).toEqual([expected]);
        expect(Buffer.from(await archive.open(expected, expected).read(0, 7)).toString()).toBe('content');
        expect(() => archive.open('else', 'else')).toThrow(NotFoundError);
        await archive.close();
      }
    });
  });

  it.each([
    ['28b52ffd', 'zstd'],
    ['fd377a585a00', 'xz'],
    ['425a6839', 'bzip2'],
    ['04224d18', 'LZ4'],
    ['1f9d90', 'compress'],
    ['504b0304', 'ZIP'],
    ['377abcaf271c', '7z'],
  ])('compressed otherwise (%s) is refused by name', async (magic, name) => {
    const bytes = Buffer.concat([Buffer.from(magic, 'hex'), Buffer.alloc(2000, 1)]);
    await expect(open(bytes, 'web01.ova')).rejects.toThrow(UnsupportedError);
    await expect(open(bytes, 'disk.raw.zst')).rejects.toThrow(new RegExp(name));
  });
});

import { describe, expect, it } from 'vitest';
import { CorruptError, NotFoundError, UnsupportedError } from '../../../main/engine/errors.ts';
import { foldCase } from '../../../main/engine/filesystem/ext/casefold.ts';
import { extFileSystem } from '../../../main/engine/filesystem/ext/ext.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { type ExpectedEntry, fileSystemConformance, walkAll } from '../../conformance/file-system.ts';
import { type GoldenName, golden, goldenTree, listAll, openBytes, positionOf } from './golden.ts';

const types: Partial<Record<GoldenName, string>> = {
  'ext2-1k': 'ext2',
  'ext3-4k': 'ext3',
  'ext4-1k': 'ext4',
  'ext4-inline': 'ext4',
  'ext4-two-groups': 'ext4',
  'ext4-casefold': 'ext4',
};

for (const [name, type] of Object.entries(types) as [GoldenName, string][]) {
  fileSystemConformance({
    name,
    open: async () => {
      const volume = new MemorySource(golden(name), name);
      return { fs: await extFileSystem.open(volume), volume };
    },
    expected: (): ExpectedEntry[] => goldenTree(),
    facts: { type, label: 'golden', uuid: '11111111-2222-3333-4444-555555555555', condition: 'clean' },
  });
}

describe('ext: paths', () => {
  it('follows links inside the volume, in the middle always and at the end when asked', async () => {
    const fs = await openBytes(golden('ext4-1k'));
    const target = await fs.entry('/srv/www/numbers');
    expect((await fs.entry('/www/numbers')).id).toBe(target.id);
    expect((await fs.entry('/www')).kind).toBe('symlink');
    expect((await fs.entry('/www', { follow: true })).kind).toBe('directory');
    expect((await fs.entry('/www/')).kind).toBe('directory');
    expect((await fs.entry('//srv/./../www/../../../srv/www/numbers')).id).toBe(target.id);
    expect((await fs.entry('/srv/link', { follow: true })).id).toBe((await fs.entry('/etc/hostname')).id);
  });
  it('ends a loop of links', async () => {
    const fs = await openBytes(golden('ext4-1k'));
    await expect(fs.entry('/loop-a', { follow: true })).rejects.toBeInstanceOf(NotFoundError);
    await expect(fs.entry('/loop-a/x')).rejects.toMatchObject({ details: { reason: 'more than 40 symbolic links' } });
    expect((await fs.entry('/loop-a')).kind).toBe('symlink');
  });
  it('does not run in circles in a directory that is its own descendant', async () => {
    const fs = await openBytes(golden('ext4-odd'));
    const again = await fs.entry('/a/b/again');
    expect(again.id).toBe((await fs.entry('/a')).id);
    expect((await walkAll(fs)).filter((w) => w.path.startsWith('/a')).map((w) => w.path)).toEqual([
      '/a',
      '/a/b',
      '/a/b/again',
    ]);
    expect((await fs.entry(`/a${'/b/again'.repeat(100)}`)).id).toBe(again.id);
  });
});

describe('ext: special inodes', () => {
  it('gives device numbers in both encodings', async () => {
    const fs = await openBytes(golden('ext4-odd'));
    expect(await fs.stat(await fs.entry('/empty/null'))).toMatchObject({
      kind: 'character-device',
      device: { major: 1, minor: 3 },
    });
    expect(await fs.stat(await fs.entry('/empty/disk'))).toMatchObject({
      kind: 'block-device',
      device: { major: 259, minor: 60_000 },
    });
    expect((await fs.stat(await fs.entry('/empty/pipe'))).kind).toBe('fifo');
  });
  it('names encryption and refuses the content', async () => {
    const fs = await openBytes(golden('ext4-odd'));
    const secret = await fs.entry('/empty/secret');
    expect((await fs.stat(secret)).flags).toContain('encrypted');
    await expect(fs.open(secret)).rejects.toMatchObject({
      kind: 'unsupported',
      details: { feature: 'ext4 encryption (fscrypt)' },
    });
  });
  it('tells inline content from blocks', async () => {
    const fs = await openBytes(golden('ext4-inline'));
    const content = await fs.open(await fs.entry('/inline-100'));
    expect((await content.runs(0, 100)).map((r) => [r.kind, r.length])).toEqual([
      ['inline', 60],
      ['inline', 40],
    ]);
    expect((await fs.stat(await fs.entry('/inline-100'))).flags).toContain('inline-data');
    expect((await fs.stat(await fs.entry('/empty'))).flags).toContain('inline-data');
  });
  it('looks up in a casefold directory without regard to case, exact names first', async () => {
    const fs = await openBytes(golden('ext4-casefold'));
    expect((await fs.stat(await fs.entry('/etc'))).flags).toContain('casefold');
    expect((await fs.entry('/etc/HostName')).name).toBe('hostname');
    expect((await fs.entry('/etc/HOSTNAME-again')).name).toBe('hostname-again');
    await expect(fs.entry('/srv/slashname')).rejects.toBeInstanceOf(NotFoundError);
  });
  it.each([
    ['Straße', 'STRASSE', true],
    ['Ünïcode', 'u\u0308NI\u0308CODE', true],
    ['ΣΊΣΥΦΟΣ', 'σίσυφος', true],
    ['a\u200db', 'AB', true],
    ['a', 'b', false],
  ])('folds %s and %s alike: %s', (a, b, same) => {
    expect(foldCase(a) === foldCase(b)).toBe(same);
  });
});

describe('ext: names that no path can have', () => {
  it('stay visible, escaped, with an error', async () => {
    const bytes = golden('ext2-1k');
    bytes[positionOf(bytes, 'SLASHNAME') + 5] = 0x2f;
    bytes[positionOf(bytes, 'DOTNAME') + 1] = 0;
    const dots = positionOf(bytes, 'hostname-again');
    bytes.set([0x2e, 0x2e], dots);
    bytes[dots - 2] = 2;
    const fs = await openBytes(bytes);
    const srv = await listAll(fs, '/srv');
    expect(srv.find((e) => e.name === 'SLASH\\x2fAME')?.error).toBeInstanceOf(CorruptError);
    expect(srv.find((e) => e.name === 'D\\x00TNAME')?.error).toBeInstanceOf(CorruptError);
    expect(
      srv
        .filter((e) => e.error === undefined)
        .map((e) => e.name)
        .sort(),
    ).toEqual(['link', 'slow-link', 'sparse', 'www']);
    const etc = await listAll(fs, '/etc');
    expect(etc.map((e) => [e.name, e.error === undefined])).toEqual([
      ['hostname', true],
      ['\\x2e\\x2e', false],
    ]);
    // An entry that says why it can't be read is believed by everything that is asked of it.
    const bad = etc[1]!;
    await expect(fs.stat(bad)).rejects.toBe(bad.error);
    await expect(fs.open(bad)).rejects.toBe(bad.error);
    await expect(fs.entry('/etc/\\x2e\\x2e/x')).rejects.toBeInstanceOf(CorruptError);
  });
});

describe('ext: damaged directories', () => {
  it('keeps the entries before a broken one and the blocks after it', async () => {
    const bytes = golden('ext2-1k');
    // rec_len of the entry of one name in the middle of a leaf of `many`.
    const at = positionOf(bytes, 'file number 100') - 8;
    bytes[at + 4] = 7;
    const fs = await openBytes(bytes);
    const many = await listAll(fs, '/many');
    const damaged = many.filter((e) => e.error !== undefined);
    expect(damaged.map((e) => e.name)).toEqual([expect.stringMatching(/^<damaged block \d+>$/)]);
    expect(damaged[0]!.error!.details).toMatchObject({ position: at, found: 7 });
    expect(many.length).toBeGreaterThan(150);
    expect(new Set(many.map((e) => e.id)).size).toBe(many.length);
    expect(many.some((e) => e.name === 'file number 100')).toBe(false);
    // Absence can't be told from damage: the answer is the damage.
    await expect(fs.entry('/many/file number 100')).rejects.toBeInstanceOf(CorruptError);
    expect((await fs.entry('/many/file number 1')).kind).toBe('file');
    expect((await listAll(fs, '/srv')).every((e) => e.error === undefined)).toBe(true);
  });
  it('shows the names of a block with a wrong checksum, and trusts none of them', async () => {
    const bytes = golden('ext4-1k');
    const at = positionOf(bytes, 'file number 100');
    bytes[at] = 'F'.charCodeAt(0);
    const fs = await openBytes(bytes);
    const many = await listAll(fs, '/many');
    const bad = many.filter((e) => e.error !== undefined);
    expect(bad[0]).toMatchObject({ name: expect.stringMatching(/^<damaged block \d+>$/), kind: 'unknown' });
    expect(bad.some((e) => e.name === 'File number 100')).toBe(true);
    expect(many.filter((e) => e.error === undefined).length).toBeGreaterThan(100);
    expect(many.length).toBe(201);
    await expect(fs.entry('/many/file number 100')).rejects.toBeInstanceOf(CorruptError);
    await expect(fs.stat(bad.find((e) => e.kind === 'file')!)).rejects.toBeInstanceOf(CorruptError);
    await expect(fs.entry(`/many/${bad[0]!.name}`)).rejects.toBeInstanceOf(CorruptError);
  });
  it('finds every name without the index when its root is damaged', async () => {
    const bytes = golden('ext4-1k');
    const fs = await openBytes(bytes);
    const before = await listAll(fs, '/many');
    const content = positionOf(bytes, '..', 0);
    expect(content).toBeGreaterThan(0);
    const root = indexRoot(bytes);
    bytes[root + 28] = 77;
    bytes[root + 40] = bytes[root + 40]! ^ 0xff;
    const damaged = await openBytes(bytes);
    expect(await listAll(damaged, '/many')).toEqual(before);
    for (const entry of before) expect((await damaged.entry(`/many/${entry.name}`)).id).toBe(entry.id);
  });
});

/** Position of the root block of the only index in the image: `.`, `..` to the end of the block, then dx_root_info of 8 bytes. */
function indexRoot(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 1024 <= bytes.length; at += 1024) {
    const dots =
      view.getUint16(at + 4, true) === 12 && view.getUint16(at + 16, true) === 1012 && bytes[at + 20] === 0x2e;
    if (bytes[at + 8] === 0x2e && bytes[at + 20] === 0x2e && dots && bytes[at + 29] === 8) return at;
  }
  throw new Error('no index');
}

describe('ext: the superblock', () => {
  const sb = 1024;
  it.each([
    ['needs replay', 0x60, (b: number) => b | 4, 'needs-replay'],
    ['recorded errors', 0x3a, (b: number) => b | 2, 'errors'],
    ['was not unmounted', 0x3a, (b: number) => b & ~1, 'dirty'],
  ] as const)('says that it %s', async (_, at, change, condition) => {
    const bytes = golden('ext2-1k');
    bytes[sb + at] = change(bytes[sb + at]!);
    expect((await openBytes(bytes)).state.condition).toBe(condition);
  });
  it('names every incompatible feature that it does not know', async () => {
    const bytes = golden('ext2-1k');
    bytes[sb + 0x61] = 0x18;
    bytes[sb + 0x63] = 0x40;
    const error = await openBytes(bytes).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(UnsupportedError);
    expect((error as UnsupportedError).details.feature).toBe(
      'ext4 incompatible features: unknown incompat 0x800, dirdata, unknown incompat 0x40000000',
    );
  });
  it('reads on with unknown read-only features, and lists them', async () => {
    const bytes = golden('ext2-1k');
    bytes[sb + 0x67] = 0x80;
    const fs = await openBytes(bytes);
    expect(fs.features).toContain('unknown ro_compat 0x80000000');
    expect((await listAll(fs, '/etc')).length).toBe(2);
  });
  // Field, offset, value: each must be refused as damage that names the field.
  it.each([
    ['s_magic', 0x38, [0, 0]],
    ['s_log_block_size', 0x18, [9, 0, 0, 0]],
    ['s_blocks_per_group', 0x20, [0, 0, 0, 0]],
    ['s_blocks_per_group', 0x20, [0xff, 0xff, 0xff, 0xff]],
    ['s_first_data_block', 0x14, [2, 0, 0, 0]],
    ['s_blocks_count', 0x4, [0, 0, 0, 0]],
    ['s_inode_size', 0x58, [0, 0]],
    ['s_inode_size', 0x58, [129, 0]],
    ['s_inode_size', 0x58, [0, 8]],
    ['s_inodes_per_group', 0x28, [0, 0, 0, 0]],
    ['s_inodes_count', 0x0, [0, 0, 0, 0]],
    ['s_inodes_count', 0x0, [0xff, 0xff, 0xff, 0xff]],
  ] as const)('refuses a wrong %s (byte 0x%s)', async (field, at, value) => {
    const bytes = golden('ext2-1k');
    bytes.set(value, sb + at);
    await expect(openBytes(bytes)).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: `ext superblock ${field}`, source: 'golden', position: sb + at },
    });
  });
  it('uses the copy in another group when its checksum is wrong', async () => {
    const bytes = golden('ext4-two-groups');
    bytes[sb + 0x78] = bytes[sb + 0x78]! ^ 1;
    const fs = await openBytes(bytes);
    expect(fs.state.condition).toBe('errors');
    expect(fs.state.evidence[0]).toMatch(/s_checksum is damaged.*group 1 at byte 8389632/);
    expect(fs.label).toBe('golden');
    expect((await listAll(fs, '/many')).length).toBe(200);
  });
  it('uses the copy of a group descriptor when its checksum is wrong', async () => {
    const bytes = golden('ext4-two-groups');
    bytes[2048 + 8] = bytes[2048 + 8]! ^ 1;
    const fs = await openBytes(bytes);
    expect((await listAll(fs, '/many')).length).toBe(200);
  });
  it('reads what is there of a volume that is cut short, and says so', async () => {
    const bytes = golden('ext2-1k');
    const fs = await openBytes(bytes.subarray(0, 300 * 1024));
    expect(fs.state.condition).toBe('errors');
    expect(fs.state.evidence.join()).toMatch(/the volume only 307200/);
    expect((await fs.root()).kind).toBe('directory');
  });
});

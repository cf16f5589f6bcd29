import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { CorruptError, NotFoundError, UnsupportedError, UsageError } from '../../../main/engine/errors.ts';
import { fatFileSystem } from '../../../main/engine/filesystem/fat/fat.ts';
import type { Entry, FileSystem } from '../../../main/engine/filesystem/file-system.ts';
import { type ByteSource, MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { type ExpectedEntry, fileSystemConformance, walkAll } from '../../conformance/file-system.ts';
import { FatBuilder, pattern, someDate, someTime } from '../../support/fat-builder.ts';

const open = (image: Uint8Array): Promise<FileSystem> => fatFileSystem.open(new MemorySource(image, 'volume'));
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const someSecond = Date.UTC(2021, 5, 15, 12, 30, 20) / 1000;

async function listing(fs: FileSystem, path = '/'): Promise<Entry[]> {
  const entries: Entry[] = [];
  for await (const batch of fs.list(await fs.entry(path))) entries.push(...batch);
  return entries;
}
const names = async (fs: FileSystem, path = '/'): Promise<string[]> => (await listing(fs, path)).map((e) => e.name);
async function content(fs: FileSystem, path: string): Promise<Uint8Array> {
  const file = await fs.open(await fs.entry(path));
  return file.read(0, file.size);
}

const types = [
  { type: 12, clusters: 400, sectorSize: 512, sectorsPerCluster: 2 },
  { type: 12, clusters: 4084, sectorSize: 512, sectorsPerCluster: 1 },
  { type: 16, clusters: 4085, sectorSize: 512, sectorsPerCluster: 1 },
  { type: 16, clusters: 5000, sectorSize: 4096, sectorsPerCluster: 1 },
  { type: 32, clusters: 65_525, sectorSize: 512, sectorsPerCluster: 1 },
  // Fewer clusters than the specification asks of FAT32; mkfs.vfat -F 32 makes such volumes and guests read them.
  { type: 32, clusters: 1000, sectorSize: 1024, sectorsPerCluster: 8 },
] as const;

for (const options of types) {
  const built = new FatBuilder(options);
  const expected: ExpectedEntry[] = [];
  const cs = built.clusterSize;
  const time = { seconds: someSecond, nanoseconds: 0 };
  const file = (path: string, bytes: Uint8Array): void => {
    expected.push({ path, kind: 'file', size: bytes.length, sha256: sha256(bytes), modified: time, links: 1 });
  };
  built.entry(built.root, 'MY LABEL', 0, 0, { attributes: 0x08 });
  built.file(built.root, 'README  TXT', pattern(100));
  file('/README.TXT', pattern(100));
  built.file(built.root, 'EMPTY', new Uint8Array(0));
  file('/EMPTY', new Uint8Array(0));
  built.file(built.root, 'EXACT   BIN', pattern(cs * 3, 2), { longName: 'Exactly three clusters.bin' });
  file('/Exactly three clusters.bin', pattern(cs * 3, 2));
  built.file(built.root, 'FRAGME~1BIN', pattern(cs * 9 + 17, 3), { longName: 'fragmented 😀.bin', fragmented: true });
  file('/fragmented 😀.bin', pattern(cs * 9 + 17, 3));
  const folder = built.folder(built.root, 'FOLDER');
  expected.push({ path: '/FOLDER', kind: 'directory', allocated: cs * Math.ceil((82 * 32) / cs) });
  // More entries than one cluster holds at 512 or 1024 bytes, with long names across the boundaries.
  for (let i = 0; i < 20; i++) {
    const name = `a file whose name is longer than thirteen ${i}`;
    built.file(folder, `AFILE~${i}`, pattern(10 + i, i), { longName: name });
    file(`/FOLDER/${name}`, pattern(10 + i, i));
  }
  const deep = built.folder(folder, 'DEEP');
  expected.pop();
  expected.push(
    { path: '/FOLDER/DEEP', kind: 'directory', size: cs },
    { path: '/FOLDER/a file whose name is longer than thirteen 19', kind: 'file', size: 29 },
  );
  built.file(deep, 'LAST    BIN', pattern(cs + 1, 9));
  file('/FOLDER/DEEP/LAST.BIN', pattern(cs + 1, 9));
  const folderSlots = 2 + 20 * 5 + 1;
  const at = expected.findIndex((e) => e.path === '/FOLDER');
  expected[at] = { path: '/FOLDER', kind: 'directory', size: cs * Math.ceil((folderSlots * 32) / cs) };

  const volume = new MemorySource(built.image, 'volume');
  fileSystemConformance({
    name: `fat${options.type}, ${options.clusters} clusters of ${cs} bytes, ${options.sectorSize}-byte sectors`,
    open: async () => ({ fs: await fatFileSystem.open(volume), volume }),
    expected: () => expected,
    facts: {
      type: `fat${options.type}`,
      label: 'MY LABEL',
      uuid: 'DEAD-BEEF',
      condition: 'clean',
      caseInsensitive: true,
    },
  });
}

describe('detecting FAT', () => {
  it('claims FAT and leaves exFAT, NTFS, zeros and short volumes alone', () => {
    const fat = new FatBuilder({ type: 16, clusters: 5000 }).image;
    const detect = (bytes: Uint8Array): boolean => fatFileSystem.detect(bytes.subarray(0, 131_072), bytes.length);
    expect(detect(fat)).toBe(true);
    for (const oem of ['EXFAT   ', 'NTFS    ']) {
      const other = Uint8Array.from(fat);
      other.set(Buffer.from(oem, 'latin1'), 3);
      expect(detect(other)).toBe(false);
    }
    expect(detect(new Uint8Array(65_536))).toBe(false);
    expect(detect(fat.subarray(0, 511))).toBe(false);
    const noise = pattern(65_536);
    noise[510] = 0x55;
    noise[511] = 0xaa;
    expect(detect(noise)).toBe(false);
  });

  it('claims a boot sector without signature (DOS 2) and one with a name but damaged parameters', async () => {
    const { image } = new FatBuilder({ type: 12, clusters: 400 });
    image[510] = 0;
    expect(fatFileSystem.detect(image, image.length)).toBe(true);
    expect((await open(image)).type).toBe('fat12');
    image[510] = 0x55;
    image[13] = 3;
    expect(fatFileSystem.detect(image, image.length)).toBe(true);
    await expect(open(image)).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: 'FAT boot sector sectors per cluster', position: 13, found: 3 },
    });
  });
});

describe('a damaged boot sector', () => {
  const breaks: [string, number, number[], RegExp][] = [
    ['bytes per sector', 11, [0, 0], /bytes per sector/],
    ['bytes per sector', 11, [0, 0x20], /bytes per sector/],
    ['sectors per cluster', 13, [0], /sectors per cluster/],
    ['reserved sectors', 14, [0, 0], /reserved sectors/],
    ['number of FATs', 16, [0], /number of FATs/],
    ['root entries', 17, [0, 0], /root entries/],
    ['media', 21, [1], /media byte/],
    ['total sectors', 19, [1, 0], /total sectors/],
    ['sectors per FAT', 22, [0xff, 0xff], /total sectors/],
    ['sectors per cluster too many', 13, [128], /data region|cluster count|total sectors/],
  ];
  it.each(breaks)('names the field: %s', async (_, at, bytes, structure) => {
    const { image } = new FatBuilder({ type: 16, clusters: 5000 });
    image.set(bytes, at);
    const error = await open(image).then(
      (fs) => fs.type,
      (e: unknown) => e,
    );
    if (at === 13 && bytes[0] === 128) {
      // Fewer, larger clusters: still a consistent volume, of another type.
      expect(error).toBe('fat12');
      return;
    }
    expect(error).toBeInstanceOf(CorruptError);
    expect((error as CorruptError).message).toMatch(structure);
    expect((error as CorruptError).details.position).toBeTypeOf('number');
  });

  it('of FAT32 is replaced by its copy, with evidence', async () => {
    const built = new FatBuilder({ type: 32, clusters: 1000 });
    built.file(built.root, 'A', pattern(10));
    built.image[13] = 0;
    const fs = await open(built.image);
    expect(await names(fs)).toEqual(['A']);
    expect(fs.state.condition).toBe('errors');
    expect(fs.state.evidence[0]).toMatch(/sectors per cluster is damaged .*copy in sector 6 was used/);
  });

  it('of FAT32 is reported when its copy is damaged too', async () => {
    const { image } = new FatBuilder({ type: 32, clusters: 1000 });
    image[13] = 0;
    image[6 * 512 + 14] = 0;
    image[6 * 512 + 15] = 0;
    await expect(open(image)).rejects.toMatchObject({ details: { position: 13 } });
  });

  it('refuses a FAT32 version that does not exist, by name', async () => {
    const { image } = new FatBuilder({ type: 32, clusters: 1000 });
    image[43] = 1;
    await expect(open(image)).rejects.toBeInstanceOf(UnsupportedError);
  });

  it('refuses an active FAT or root cluster that is not there', async () => {
    const active = new FatBuilder({ type: 32, clusters: 1000 }).image;
    active[40] = 0x85;
    active[6 * 512] = 0;
    active.fill(0, 6 * 512, 7 * 512);
    await expect(open(active)).rejects.toThrow(/active FAT/);
    const root = new FatBuilder({ type: 32, clusters: 1000 }).image;
    root.fill(0, 6 * 512, 7 * 512);
    root[44] = 1;
    await expect(open(root)).rejects.toThrow(/root cluster/);
  });

  it('opens a truncated volume, says so, and refuses what is beyond', async () => {
    const built = new FatBuilder({ type: 16, clusters: 5000 });
    built.file(built.root, 'NEAR', pattern(1000));
    built.chain(4000);
    built.file(built.root, 'FAR', pattern(1000));
    const fs = await open(built.image.slice(0, built.clusterAt(100)));
    expect(fs.state).toMatchObject({ condition: 'errors' });
    expect(fs.state.evidence[0]).toMatch(/its end is missing/);
    expect(await content(fs, '/near')).toEqual(pattern(1000));
    await expect(content(fs, '/far')).rejects.toBeInstanceOf(CorruptError);
  });

  it('of a volume too short for one is reported', async () => {
    await expect(open(new Uint8Array(100))).rejects.toMatchObject({ details: { structure: 'FAT boot sector' } });
  });
});

describe('names', () => {
  const volume = (): FatBuilder => new FatBuilder({ type: 12, clusters: 400 });

  it('decodes short names: case bits, code page, a first byte 0xe5, dots', async () => {
    const built = volume();
    built.file(built.root, 'LOWER   TXT', pattern(1), { caseBits: 0x18 });
    built.file(built.root, 'BASE    TXT', pattern(1), { caseBits: 0x08 });
    built.file(built.root, 'EXT     TXT', pattern(1), { caseBits: 0x10 });
    built.file(built.root, '\x05BC     \x84\x8e', pattern(1));
    built.file(built.root, '\x9aBER', pattern(1), { caseBits: 0x08 });
    built.file(built.root, 'NOEXT', pattern(1));
    built.file(built.root, 'A B     C D', pattern(1));
    expect(await names(await open(built.image))).toEqual([
      'lower.txt',
      'base.TXT',
      'EXT.txt',
      'σBC.äÄ',
      'über',
      'NOEXT',
      'A B.C D',
    ]);
  });

  it('reads long names of every length up to 255, and pairs of surrogates', async () => {
    const built = new FatBuilder({ type: 16, clusters: 5000, rootEntries: 4096 });
    const long = [1, 12, 13, 14, 26, 27, 254, 255].map((n) => `${'n'.repeat(n - 1)}é`);
    for (const [i, name] of [...long, '日本語のとても長いファイル名.txt', '🎉🎉🎉🎉🎉🎉🎉'].entries()) {
      built.file(built.root, `N~${i}`, pattern(i + 1), { longName: name });
    }
    const fs = await open(built.image);
    expect(await names(fs)).toEqual([...long, '日本語のとても長いファイル名.txt', '🎉🎉🎉🎉🎉🎉🎉']);
  });

  it('shows a lone surrogate escaped, and finds it again', async () => {
    const built = volume();
    built.file(built.root, 'L~1', pattern(7), { longName: 'x\ud83d.txt' });
    const fs = await open(built.image);
    expect(await names(fs)).toEqual(['x\\ud83d.txt']);
    expect(await content(fs, '/x\\ud83d.txt')).toEqual(pattern(7));
  });

  it('falls back to the short name where the long one is an orphan', async () => {
    const make = (spoil: (built: FatBuilder, positions: number[]) => void): FatBuilder => {
      const built = volume();
      const short = Buffer.from('SHORT   TXT', 'latin1');
      const positions = built.longName(built.root, 'a long name of three parts, to spoil', FatBuilder.checksum(short));
      built.file(built.root, 'SHORT   TXT', pattern(3));
      spoil(built, positions);
      return built;
    };
    // Which part (0 is stored first), which byte of it, and what it becomes: checksum, order, type, deleted mark.
    const spoils: [part: number, byte: number, value: number][] = [
      [0, 13, 0x11],
      [1, 13, 0x11],
      [0, 0, 0x03],
      [1, 0, 0x01],
      [2, 0, 0x02],
      [2, 0, 0xe5],
      [0, 0, 0x55],
      [1, 12, 1],
    ];
    for (const [part, byte, value] of spoils) {
      const built = make((b, positions) => {
        b.image[positions[part]! + byte] = value;
      });
      expect(await names(await open(built.image))).toEqual(['SHORT.TXT']);
    }
    // Parts that agree with each other but belong to another short name.
    const strangers = make((b, positions) => {
      for (const position of positions) b.image[position + 13]! ^= 1;
    });
    expect(await names(await open(strangers.image))).toEqual(['SHORT.TXT']);
    expect(await names(await open(make(() => {}).image))).toEqual(['a long name of three parts, to spoil']);
  });

  it('skips deleted entries with their long names', async () => {
    const built = volume();
    const gone = built.file(built.root, 'GONE', pattern(1), { longName: 'gone but not its parts' });
    built.file(built.root, 'HERE', pattern(1));
    built.image[gone.at] = 0xe5;
    expect(await names(await open(built.image))).toEqual(['HERE']);
  });

  it('ends at the end mark, whatever stands behind it', async () => {
    const built = volume();
    const end = built.file(built.root, 'END', pattern(1));
    built.file(built.root, 'BEHIND', pattern(1));
    built.image[end.at] = 0;
    expect(await names(await open(built.image))).toEqual([]);
  });

  it('finds names in any case, long or short, the exact long name first', async () => {
    const built = volume();
    const a = built.file(built.root, 'PROGRA~1', pattern(1), { longName: 'Program Files Größe' });
    const b = built.file(built.root, 'OTHER', pattern(2), { longName: 'PROGRA~1' });
    const fs = await open(built.image);
    expect((await fs.entry('/PROGRAM FILES GRÖßE')).id).toBe(a.at);
    expect((await fs.entry('/progra~1')).id).toBe(b.at);
    expect((await fs.entry('/other')).id).toBe(b.at);
    await expect(fs.entry('/Program Files GRÖSSE')).rejects.toBeInstanceOf(NotFoundError);
  });

  it('keeps names that are none in the listing, harmless and marked', async () => {
    const built = volume();
    built.file(built.root, 'A', pattern(1), { longName: '../../etc/passwd' });
    built.file(built.root, 'B', pattern(1), { longName: '..' });
    built.file(built.root, 'C/D', pattern(1));
    built.file(built.root, 'E\0F', pattern(1));
    built.file(built.root, '           ', pattern(1));
    const entries = await listing(await open(built.image));
    expect(entries.map((e) => e.name)).toEqual([
      '..\\u002f..\\u002fetc\\u002fpasswd',
      '\\u002e\\u002e',
      'C\\u002fD',
      'E\\u0000F',
      '\\u0000',
    ]);
    for (const entry of entries) expect(entry.error).toMatchObject({ kind: 'corrupt' });
  });
});

describe('what an entry says', () => {
  it('times, attributes and sizes', async () => {
    const built = new FatBuilder({ type: 12, clusters: 400 });
    built.file(built.root, 'ALL', pattern(513), {
      attributes: 0x27,
      created: [someDate, someTime, 137],
      modified: [(127 << 9) | (12 << 5) | 31, (23 << 11) | (59 << 5) | 29],
      accessed: (0 << 9) | (1 << 5) | 1,
    });
    built.file(built.root, 'NONE', pattern(1), {
      created: [0, 0, 0],
      modified: [0x21a0, 0],
      accessed: 0,
      attributes: 0,
    });
    built.file(built.root, 'WRONG', pattern(1), {
      created: [someDate, 31 << 11, 0],
      modified: [((2021 - 1980) << 9) | (2 << 5) | 30, 0],
    });
    const fs = await open(built.image);
    expect(await fs.stat(await fs.entry('/all'))).toEqual({
      kind: 'file',
      id: built.rootStart,
      size: 513,
      allocated: 1024,
      links: 1,
      flags: ['read-only', 'hidden', 'system', 'archive'],
      created: { seconds: someSecond + 1, nanoseconds: 370_000_000 },
      modified: { seconds: Date.UTC(2107, 11, 31, 23, 59, 58) / 1000, nanoseconds: 0 },
      accessed: { seconds: Date.UTC(1980, 0, 1) / 1000, nanoseconds: 0 },
    });
    const none = await fs.stat(await fs.entry('/none'));
    expect(none.created).toBeUndefined();
    expect(none.modified).toBeUndefined();
    expect(none.accessed).toBeUndefined();
    expect(none.flags).toEqual([]);
    const wrong = await fs.stat(await fs.entry('/wrong'));
    expect([wrong.created, wrong.modified]).toEqual([undefined, undefined]);
  });

  it('stats and opens an entry that came back as plain data', async () => {
    const built = new FatBuilder({ type: 32, clusters: 1000 });
    built.file(built.root, 'A', pattern(600));
    const fs = await open(built.image);
    const copy = structuredClone({ ...(await fs.entry('/a')) });
    expect((await fs.stat(copy)).size).toBe(600);
    const file = await fs.open(copy);
    expect(await file.read(0, 600)).toEqual(pattern(600));
    const root = structuredClone({ ...(await fs.root()) });
    const batches: Entry[][] = [];
    for await (const batch of fs.list(root)) batches.push(batch);
    expect(batches.flat().map((e) => e.name)).toEqual(['A']);
    for (const id of [-32, 7, 1e15, 0.5]) {
      await expect(fs.stat({ name: 'x', kind: 'file', id })).rejects.toBeInstanceOf(UsageError);
    }
  });

  it('ignores the high half of the cluster number before FAT32', async () => {
    const built = new FatBuilder({ type: 16, clusters: 5000 });
    const { at } = built.file(built.root, 'OS2', pattern(600));
    built.image[at + 20] = 0x77;
    expect(await content(await open(built.image), '/os2')).toEqual(pattern(600));
  });

  it('ignores the top four bits of FAT32 entries and cluster numbers', async () => {
    const built = new FatBuilder({ type: 32, clusters: 1000 });
    const { at, clusters } = built.file(built.root, 'HIGH', pattern(1200));
    built.image[at + 21] = 0xf0;
    for (const cluster of clusters) built.image[built.fatEntryAt(cluster) + 3]! |= 0xf0;
    expect(await content(await open(built.image), '/high')).toEqual(pattern(1200));
  });
});

describe('labels', () => {
  const label = async (boot: string, ...root: string[]): Promise<string | undefined> => {
    const built = new FatBuilder({ type: 12, clusters: 400, bootLabel: boot });
    for (const text of root) built.entry(built.root, text, 0, 0, { attributes: 0x08 });
    return (await open(built.image)).label;
  };
  it('come from the root, else from the boot sector unless the owner erased it', async () => {
    expect(await label('BOOT', 'ROOT')).toBe('ROOT');
    expect(await label('BOOT')).toBe('BOOT');
    expect(await label('NO NAME')).toBeUndefined();
    expect(await label('BOOT', '\xe5OOT')).toBeUndefined();
    expect(await label('BOOT', '\xe5OOT', 'NEW')).toBe('NEW');
    expect(await label('BOOT', '\x05OOT')).toBe('σOOT');
  });
});

describe('state', () => {
  const sixteen = (): FatBuilder => new FatBuilder({ type: 16, clusters: 5000 });
  const thirtyTwo = (): FatBuilder => new FatBuilder({ type: 32, clusters: 1000 });

  it.each([
    ['FAT16 not unmounted', sixteen, 0x7fff, 'dirty', /not cleanly unmounted/],
    ['FAT16 with disk errors', sixteen, 0xbfff, 'errors', /disk reported errors/],
    ['FAT32 not unmounted', thirtyTwo, 0x07ffffff, 'dirty', /not cleanly unmounted/],
    ['FAT32 with disk errors', thirtyTwo, 0x0bffffff, 'errors', /disk reported errors/],
  ] as const)('%s', async (_, make, value, condition, evidence) => {
    const built = make();
    built.setFat(1, value);
    const { state } = await open(built.image);
    expect(state.condition).toBe(condition);
    expect(state.evidence.join()).toMatch(evidence);
  });

  it('of the boot sector counts too', async () => {
    for (const [built, at] of [
      [sixteen(), 37],
      [thirtyTwo(), 65],
    ] as const) {
      built.image[at] = 1;
      expect((await open(built.image)).state.condition).toBe('dirty');
      built.image[at] = 3;
      expect((await open(built.image)).state.condition).toBe('errors');
    }
  });

  it('compares the FATs', async () => {
    const built = sixteen();
    built.setFat(100, 7, 1);
    const { state } = await open(built.image);
    expect(state.condition).toBe('errors');
    expect(state.evidence[0]).toBe(`FAT 1 and FAT 2 differ from byte ${built.fatEntryAt(100)} of the volume on`);
  });

  it('counts free space in the FAT, and takes it from a valid FSInfo on FAT32', async () => {
    for (const type of [12, 16] as const) {
      const built = new FatBuilder({ type, clusters: type === 12 ? 401 : 5000, sectorsPerCluster: 2 });
      built.file(built.root, 'A', pattern(5000));
      expect((await open(built.image)).free).toBe(((type === 12 ? 401 : 5000) - 5) * 1024);
    }
    const built = thirtyTwo();
    expect((await open(built.image)).free).toBe(999 * 512);
    new DataView(built.image.buffer).setUint32(512 + 488, 1001, true);
    expect((await open(built.image)).free).toBeUndefined();
    new DataView(built.image.buffer).setUint32(512 + 488, 0xffffffff, true);
    expect((await open(built.image)).free).toBeUndefined();
    new DataView(built.image.buffer).setUint32(512 + 488, 5, true);
    expect((await open(built.image)).free).toBe(5 * 512);
    built.image[512 + 484] = 0;
    expect((await open(built.image)).free).toBeUndefined();
  });

  it('reads only the active FAT where mirroring is off', async () => {
    const built = thirtyTwo();
    const { clusters } = built.file(built.root, 'A', pattern(2000));
    for (const cluster of [2, ...clusters]) built.setFat(cluster, 0, 0);
    built.image[40] = 0x81;
    const fs = await open(built.image);
    expect(fs.features).toContain('only FAT 2 active');
    expect(await content(fs, '/a')).toEqual(pattern(2000));
    built.image[40] = 0x80;
    await expect(content(await open(built.image), '/a')).rejects.toBeInstanceOf(CorruptError);
  });
});

describe('damaged chains', () => {
  const make = (type: 12 | 16 | 32): { built: FatBuilder; clusters: number[]; data: Uint8Array } => {
    const built = new FatBuilder({ type, clusters: type === 16 ? 5000 : 1000 });
    const data = pattern(512 * 10);
    return { built, data, clusters: built.file(built.root, 'FILE', data).clusters };
  };

  for (const type of [12, 16, 32] as const) {
    const bad = type === 12 ? 0xff7 : type === 16 ? 0xfff7 : 0x0ffffff7;
    const beyond = type === 16 ? 5002 : 1002;
    it.each([
      ['free', 0, '0 (free)'],
      ['reserved', 1, '0x1'],
      ['bad', bad, `0x${bad.toString(16)} (bad cluster)`],
      ['out of range', beyond, `0x${beyond.toString(16)}`],
    ])(`fat${type}: a %s entry names the FAT entry and what it holds`, async (_, value, found) => {
      const { built, clusters, data } = make(type);
      built.setFat(clusters[4]!, value);
      const fs = await open(built.image);
      const file = await fs.open(await fs.entry('/file'));
      // What lies before the break is there.
      expect(await file.read(0, 5 * 512)).toEqual(data.slice(0, 5 * 512));
      const expected = {
        kind: 'corrupt',
        details: { structure: `FAT entry ${clusters[4]}`, position: built.fatEntryAt(clusters[4]!), found },
      };
      await expect(file.read(0, file.size)).rejects.toMatchObject(expected);
      await expect(file.read(9 * 512, 1)).rejects.toMatchObject(expected);
      await expect(file.runs(0, file.size)).rejects.toMatchObject(expected);
    });

    it(`fat${type}: the second FAT answers for the first, with evidence`, async () => {
      const { built, clusters, data } = make(type);
      built.setFat(clusters[4]!, beyond, 0);
      const fs = await open(built.image);
      expect(await content(fs, '/file')).toEqual(data);
      expect(await content(fs, '/file')).toEqual(data);
      expect(fs.state.condition).toBe('errors');
      expect(fs.state.evidence.filter((e) => /FAT 2 was used/.test(e))).toHaveLength(1);
    });

    it(`fat${type}: a loop is found where it closes`, async () => {
      const { built, clusters } = make(type);
      built.setFat(clusters[6]!, clusters[2]!);
      const fs = await open(built.image);
      await expect(content(fs, '/file')).rejects.toMatchObject({
        details: { structure: `FAT entry ${clusters[6]}`, found: `a loop to cluster ${clusters[2]}` },
      });
    });
  }

  it('a chain shorter than the file says so', async () => {
    const { built, clusters } = make(16);
    built.setFat(clusters[4]!, 0xffff);
    await expect(content(await open(built.image), '/file')).rejects.toMatchObject({
      details: { structure: 'FAT cluster chain', expected: '10 clusters for 5120 bytes', found: 'an end after 5' },
    });
  });

  it('a chain longer than the file is no damage', async () => {
    const { built, clusters, data } = make(16);
    const more = built.chain(3);
    built.setFat(clusters.at(-1)!, more[0]!);
    expect(await content(await open(built.image), '/file')).toEqual(data);
  });

  it('marks entries whose cluster, size or attributes are impossible, and lists the rest', async () => {
    const built = new FatBuilder({ type: 16, clusters: 5000 });
    built.entry(built.root, 'CLUSTER1', 1, 10);
    built.entry(built.root, 'BEYOND', 5002, 10);
    built.entry(built.root, 'NOWHERE', 0, 10);
    built.entry(built.root, 'HUGE', 2, 0xffffffff);
    built.entry(built.root, 'DIR0', 0, 0, { attributes: 0x10 });
    built.entry(built.root, 'ATTR', 2, 10, { attributes: 0xc0 });
    built.file(built.root, 'GOOD', pattern(10));
    const fs = await open(built.image);
    const entries = await listing(fs);
    expect(entries.map((e) => [e.name, e.error?.details.structure])).toEqual([
      ['CLUSTER1', 'FAT directory entry first cluster'],
      ['BEYOND', 'FAT directory entry first cluster'],
      ['NOWHERE', 'FAT directory entry first cluster'],
      ['HUGE', 'FAT directory entry file size'],
      ['DIR0', 'FAT directory entry first cluster'],
      ['ATTR', 'FAT directory entry attributes'],
      ['GOOD', undefined],
    ]);
    expect(entries[1]!.error!.details.position).toBe(entries[1]!.id + 26);
    await expect(fs.open(entries[0]!)).rejects.toBe(entries[0]!.error);
    expect((await fs.stat(entries[3]!)).size).toBe(0xffffffff);
    await expect(fs.stat(entries[4]!)).rejects.toBe(entries[4]!.error);
    await expect(fs.entry('/dir0/x')).rejects.toMatchObject({ details: { position: entries[4]!.id + 26 } });
  });
});

describe('damaged directories', () => {
  const make = (): { built: FatBuilder; folder: ReturnType<FatBuilder['folder']> } => {
    const built = new FatBuilder({ type: 16, clusters: 5000 });
    const folder = built.folder(built.root, 'FOLDER');
    for (let i = 0; i < 62; i++) built.file(folder, `F${String(i).padStart(2, '0')}`, pattern(1));
    return { built, folder };
  };

  it('give what lies before the break and an entry that says why there is no more', async () => {
    const { built, folder } = make();
    built.setFat(folder.clusters[1]!, 0);
    const fs = await open(built.image);
    const entries = await listing(fs, '/folder');
    expect(entries).toHaveLength(2 * 16 - 2 + 1);
    expect(entries.at(-1)).toMatchObject({ kind: 'unknown', error: { details: { found: '0 (free)' } } });
    expect(entries.slice(0, -1).every((e) => e.error === undefined)).toBe(true);
    expect((await fs.entry('/folder/f05')).kind).toBe('file');
    // That a name is not in the readable part does not say that it is not there.
    await expect(fs.entry('/folder/f39')).rejects.toMatchObject({ kind: 'corrupt' });
    await expect(fs.stat(entries.at(-1)!)).rejects.toBe(entries.at(-1)!.error);
  });

  it('that loop end there', async () => {
    const { built, folder } = make();
    built.setFat(folder.clusters[2]!, folder.clusters[0]!);
    const entries = await listing(await open(built.image), '/folder');
    expect(entries.at(-1)!.error!.message).toMatch(/a loop to cluster/);
    expect(new Set(entries.map((e) => e.name)).size).toBe(entries.length);
  });

  it('that were overwritten do not pass for empty', async () => {
    const { built, folder } = make();
    built.image.fill(0, built.clusterAt(folder.cluster), built.clusterAt(folder.cluster) + 512);
    const entries = await listing(await open(built.image), '/folder');
    expect(entries).toMatchObject([{ kind: 'unknown', error: { details: { expected: 'the entry "."' } } }]);
  });

  it('are not entered again through an entry below them or beside them', async () => {
    const { built, folder } = make();
    built.entry(folder, 'UP', folder.cluster, 0, { attributes: 0x10 });
    built.entry(built.root, 'TWIN', folder.cluster, 0, { attributes: 0x10 });
    const fs = await open(built.image);
    const walked = await walkAll(fs);
    const refused = walked.filter((w) => w.entry.error !== undefined);
    expect(refused.map((w) => w.path).sort()).toEqual(['/FOLDER/UP', '/TWIN']);
    for (const { entry } of refused) {
      expect(entry.error).toMatchObject({ kind: 'corrupt', details: { expected: 'a cluster of its own' } });
    }
    await expect(listing(fs, '/twin')).rejects.toBeInstanceOf(CorruptError);
    expect((await listing(fs, '/folder')).length).toBe(63);
  });

  it('of FAT32 that point to the root are refused', async () => {
    const built = new FatBuilder({ type: 32, clusters: 1000 });
    built.entry(built.root, 'ROOT', 2, 0, { attributes: 0x10 });
    const entries = await listing(await open(built.image));
    expect(entries[0]!.error!.message).toMatch(/directory of the root/);
  });

  it('a tangle of directories, each in two of the next level, is walked in linear time', async () => {
    const built = new FatBuilder({ type: 16, clusters: 5000 });
    let level = [built.folder(built.root, 'A'), built.folder(built.root, 'B')];
    for (let depth = 0; depth < 60; depth++) {
      const next = [built.folder(level[0]!, 'A'), built.folder(level[1]!, 'B')];
      built.entry(level[0]!, 'CROSS', next[1]!.cluster, 0, { attributes: 0x10 });
      built.entry(level[1]!, 'CROSS', next[0]!.cluster, 0, { attributes: 0x10 });
      level = next;
    }
    const fs = await open(built.image);
    let listed = 0;
    const visit = async (entry: Entry): Promise<void> => {
      listed++;
      expect(listed).toBeLessThan(1000);
      for await (const batch of fs.list(entry)) {
        for (const child of batch) if (child.kind === 'directory' && child.error === undefined) await visit(child);
      }
    };
    await visit(await fs.root());
    expect(listed).toBe(1 + 2 * 61);
  });

  it('longer than FAT allows end at 65,536 entries', async () => {
    const built = new FatBuilder({ type: 32, clusters: 70_000 });
    const folder = built.folder(built.root, 'LONG');
    const chain = built.chain(5000);
    built.setFat(folder.cluster, chain[0]!);
    for (const cluster of [folder.cluster, ...chain]) {
      const at = built.clusterAt(cluster);
      for (let i = cluster === folder.cluster ? 64 : 0; i < 512; i += 32) built.image[at + i] = 0xe5;
    }
    const entries = await listing(await open(built.image), '/long');
    expect(entries).toMatchObject([
      { error: { details: { structure: 'FAT directory', found: 'a longer chain of clusters' } } },
    ]);
  });

  it('exactly as long as FAT allows are read to their end', async () => {
    const built = new FatBuilder({ type: 32, clusters: 70_000 });
    const folder = built.folder(built.root, 'FULL');
    for (let i = 2; i < 65_536; i++) built.entry(folder, `N${i}`, 0, 0);
    expect(folder.clusters).toHaveLength(4096);
    const entries = await listing(await open(built.image), '/full');
    expect(entries).toHaveLength(65_534);
    expect(entries.every((e) => e.error === undefined)).toBe(true);
  });
});

describe('reading', () => {
  it('merges contiguous clusters into one read', async () => {
    const built = new FatBuilder({ type: 16, clusters: 5000 });
    built.file(built.root, 'ONE', pattern(512 * 1000));
    const memory = new MemorySource(built.image, 'volume');
    const reads: number[] = [];
    const counting: ByteSource = {
      name: 'counting',
      size: memory.size,
      read: (offset, length) => {
        reads.push(length);
        return memory.read(offset, length);
      },
      close: async () => {},
    };
    const fs = await fatFileSystem.open(counting);
    const file = await fs.open(await fs.entry('/one'));
    await file.read(0, 1);
    reads.length = 0;
    expect(Buffer.compare(await file.read(0, file.size), pattern(512 * 1000))).toBe(0);
    expect(reads).toEqual([512 * 1000]);
    expect(await file.runs(0, file.size)).toHaveLength(1);
  });

  it('does not follow a chain further than it is asked to', async () => {
    const built = new FatBuilder({ type: 32, clusters: 66_000 });
    const { clusters } = built.file(built.root, 'BIG', pattern(512 * 60_000));
    built.setFat(clusters[50_000]!, 0);
    const fs = await open(built.image);
    const file = await fs.open(await fs.entry('/big'));
    expect((await file.read(0, 512)).length).toBe(512);
    expect((await file.read(512 * 49_999, 1024)).length).toBe(1024);
    await expect(file.read(512 * 50_001, 1)).rejects.toBeInstanceOf(CorruptError);
  });

  it('is right when many reads walk the chain at once', async () => {
    const built = new FatBuilder({ type: 12, clusters: 2000 });
    const data = pattern(512 * 300 + 3);
    built.file(built.root, 'F', data, { fragmented: true });
    const fs = await open(built.image);
    const file = await fs.open(await fs.entry('/f'));
    const offsets = Array.from({ length: 100 }, (_, i) => (i * 7919) % (data.length - 700));
    const parts = await Promise.all(offsets.map((at) => file.read(at, 700)));
    offsets.forEach((at, i) => {
      expect(parts[i]).toEqual(data.slice(at, at + 700));
    });
  });
});

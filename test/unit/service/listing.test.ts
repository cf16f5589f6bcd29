import { describe, expect, it } from 'vitest';
import { CancelledError, CorruptError, NotFoundError, UnsupportedError } from '../../../main/engine/errors.ts';
import { type ListOptions, listRows } from '../../../main/engine/service/listing.ts';
import type { EntryRow } from '../../../preload/api.ts';
import {
  type DirectoryNode,
  damage,
  directory,
  file,
  MemoryFileSystem,
  type Node,
  special,
  symlink,
} from '../../support/memory-file-system.ts';
import { fakePoint } from './fake-point.ts';

const options = (more: Partial<ListOptions> = {}): ListOptions => ({
  long: false,
  recursive: false,
  disk: undefined,
  signal: new AbortController().signal,
  ...more,
});

async function rowsOf(
  point: ReturnType<typeof fakePoint>,
  path: string,
  more: Partial<ListOptions> = {},
): Promise<EntryRow[]> {
  const rows: EntryRow[] = [];
  for await (const batch of listRows(point, path, options(more))) rows.push(...batch);
  return rows;
}

const onVolume = (root: DirectoryNode, batch?: number) =>
  fakePoint([{ name: 'sda1', content: new MemoryFileSystem(root, batch) }]);
const paths = (rows: readonly EntryRow[]): string[] => rows.map((row) => row.path);
/** Path and kind of error of the rows that have one. */
const errors = (rows: readonly EntryRow[]): string[][] =>
  rows.filter((row) => row.error !== undefined).map((row) => [row.path, row.error!.kind]);

const tree = () =>
  directory({
    etc: directory({
      hosts: file('127.0.0.1', { mode: 0o644, uid: 0, gid: 0, modified: { seconds: 5, nanoseconds: 6 } }),
    }),
    bin: symlink('usr/bin'),
    usr: directory({ bin: directory({ ls: file('elf'), deep: directory({ er: file('x') }) }) }),
    dev: directory({ null: special('character-device', { device: { major: 1, minor: 3 } }) }),
    'a file': file('content'),
  });

describe('a folder', () => {
  it('is listed with its own entries', async () => {
    for (const batch of [1, 2, 100]) {
      const rows = await rowsOf(onVolume(tree(), batch), '/sda1');
      expect(rows.map(({ name, path, kind }) => [name, path, kind])).toEqual([
        ['etc', '/sda1/etc', 'directory'],
        ['bin', '/sda1/bin', 'symlink'],
        ['usr', '/sda1/usr', 'directory'],
        ['dev', '/sda1/dev', 'directory'],
        ['a file', '/sda1/a file', 'file'],
      ]);
      expect(rows.every((row) => !('size' in row))).toBe(true);
    }
  });

  it('long, with what is known of each', async () => {
    const [hosts] = await rowsOf(onVolume(tree()), '/sda1/etc/', { long: true });
    expect(hosts).toMatchObject({
      path: '/sda1/etc/hosts',
      size: 9,
      mode: 0o644,
      uid: 0,
      links: 1,
      modified: { seconds: 5, nanoseconds: 6 },
    });
    const rows = await rowsOf(onVolume(tree()), '/sda1', { long: true });
    expect(rows.find((row) => row.name === 'bin')).toMatchObject({ kind: 'symlink', linkTarget: 'usr/bin' });
    expect((await rowsOf(onVolume(tree()), '/sda1/dev', { long: true }))[0]).toMatchObject({
      device: { major: 1, minor: 3 },
    });
    expect(structuredClone(rows)).toEqual(rows);
  });

  it('is followed to when the path ends in a slash, as a shell does', async () => {
    expect(paths(await rowsOf(onVolume(tree()), '/sda1/bin'))).toEqual(['/sda1/bin']);
    expect(paths(await rowsOf(onVolume(tree()), '/sda1/bin/'))).toEqual(['/sda1/bin/ls', '/sda1/bin/deep']);
    expect(paths(await rowsOf(onVolume(tree()), '/sda1/bin/deep'))).toEqual(['/sda1/bin/deep/er']);
  });

  it('a file is listed as itself', async () => {
    expect(await rowsOf(onVolume(tree()), '/sda1/a file')).toMatchObject([{ path: '/sda1/a file', kind: 'file' }]);
  });

  it('recursively: each folder before its content, every path once', async () => {
    for (const batch of [1, 2, 100]) {
      expect(paths(await rowsOf(onVolume(tree(), batch), '/sda1/', { recursive: true }))).toEqual([
        '/sda1/etc',
        '/sda1/etc/hosts',
        '/sda1/bin',
        '/sda1/usr',
        '/sda1/usr/bin',
        '/sda1/usr/bin/ls',
        '/sda1/usr/bin/deep',
        '/sda1/usr/bin/deep/er',
        '/sda1/dev',
        '/sda1/dev/null',
        '/sda1/a file',
      ]);
    }
  });

  it('that is not there says so', async () => {
    await expect(rowsOf(onVolume(tree()), '/sda1/absent')).rejects.toThrow(NotFoundError);
    await expect(rowsOf(onVolume(tree()), '/sdb1/etc')).rejects.toMatchObject({ details: { choices: ['sda1'] } });
    await expect(rowsOf(onVolume(tree()), 'etc')).rejects.toMatchObject({ kind: 'usage' });
  });

  it('names with anything in them are listed, and found again', async () => {
    const names = ['line\nfeed', 'caf\\xe9', ' ', '-rf', '\u202e', '*'];
    const point = onVolume(
      directory({ d: directory(names.map((name): [string, Node] => [name, directory({ in: file(name) })])) }),
    );
    const rows = await rowsOf(point, '/sda1/d');
    expect(rows.map((row) => row.name)).toEqual(names);
    for (const row of rows) expect(paths(await rowsOf(point, row.path))).toEqual([`${row.path}/in`]);
  });
});

describe('the volumes', () => {
  const good = () => new MemoryFileSystem(tree());
  const volumes = () => [
    { name: 'sda1', content: good(), size: 1000 },
    { name: 'sda2', content: new UnsupportedError('LUKS') },
    { name: 'sdb1', disk: 1, content: good() },
  ];

  it('are the folders of /', async () => {
    const rows = await rowsOf(fakePoint(volumes()), '/');
    expect(rows[0]).toEqual({ name: 'sda1', path: '/sda1', kind: 'directory', id: 0, size: 1000 });
    expect(paths(rows)).toEqual(['/sda1', '/sda2', '/sdb1']);
    expect(errors(rows)).toEqual([['/sda2', 'unsupported']]);
    expect(paths(await rowsOf(fakePoint(volumes()), '//', { disk: 1 }))).toEqual(['/sdb1']);
  });

  it('are walked one after the other, and one that fails does not hide the next', async () => {
    const rootless = good();
    rootless.root = async () => {
      throw damage('Root directory');
    };
    const unlistable = new MemoryFileSystem(
      directory({ a: file('a'), b: file('b') }, {}, { list: { after: 1, error: damage() } }),
    );
    const rows = await rowsOf(
      fakePoint([
        { name: 'sda1', content: rootless },
        { name: 'sda2', content: new UnsupportedError('LUKS') },
        { name: 'sda3', content: unlistable },
        { name: 'sda4', content: new MemoryFileSystem(directory({ last: file('x') })) },
      ]),
      '/',
      { recursive: true },
    );
    expect(errors(rows)).toEqual([
      ['/sda2', 'unsupported'],
      ['/sda1', 'corrupt'],
      ['/sda3', 'corrupt'],
    ]);
    expect(paths(rows)).toContain('/sda3/a');
    expect(paths(rows).at(-1)).toBe('/sda4/last');
  });
});

describe('damage', () => {
  it('stays in its row, and the rest is listed', async () => {
    const point = onVolume(
      directory({
        a: file('a'),
        entry: file('?', {}, { entry: damage('Directory entry') }),
        stat: file('?', {}, { stat: damage() }),
        'bad folder': directory(
          { one: file('1'), two: file('2') },
          {},
          { list: { after: 1, error: damage('Directory block') } },
        ),
        'bad entry folder': directory({ hidden: file('x') }, {}, { entry: damage() }),
        z: file('z'),
      }),
    );
    expect(errors(await rowsOf(point, '/sda1'))).toEqual([
      ['/sda1/entry', 'corrupt'],
      ['/sda1/bad entry folder', 'corrupt'],
    ]);
    expect(errors(await rowsOf(point, '/sda1', { long: true }))).toEqual([
      ['/sda1/entry', 'corrupt'],
      ['/sda1/stat', 'corrupt'],
      ['/sda1/bad entry folder', 'corrupt'],
    ]);
    const rows = await rowsOf(point, '/sda1', { recursive: true });
    expect(paths(rows)).toEqual([
      '/sda1/a',
      '/sda1/entry',
      '/sda1/stat',
      '/sda1/bad folder',
      '/sda1/bad folder/one',
      '/sda1/bad folder',
      '/sda1/bad entry folder',
      '/sda1/z',
    ]);
    expect(rows[5]!.error).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'Directory block', position: 4096 },
    });
  });

  it('of the folder itself is thrown, after what could be read', async () => {
    const point = onVolume(directory({ one: file('1'), two: file('2') }, {}, { list: { after: 1, error: damage() } }));
    const rows: EntryRow[] = [];
    await expect(
      (async () => {
        for await (const batch of listRows(point, '/sda1', options())) rows.push(...batch);
      })(),
    ).rejects.toThrow(CorruptError);
    expect(paths(rows)).toEqual(['/sda1/one']);
  });

  it('a bug of ours is thrown, wherever it is', async () => {
    const fs = new MemoryFileSystem(directory({ d: directory({ f: file('f') }) }));
    fs.stat = async () => {
      throw new RangeError('a bug');
    };
    await expect(rowsOf(fakePoint([{ name: 'sda1', content: fs }]), '/sda1', { long: true })).rejects.toThrow(
      RangeError,
    );
    await expect(
      rowsOf(fakePoint([{ name: 'sda1', content: fs }]), '/', { long: true, recursive: true }),
    ).rejects.toThrow(RangeError);
  });

  it('a loop is named where it closes', async () => {
    const inner: DirectoryNode = directory({ f: file('f') });
    const outer = directory({ inner, g: file('g') });
    inner.children.push(['back', outer], ['self', inner]);
    const rows = await rowsOf(onVolume(directory({ outer })), '/sda1', { recursive: true });
    expect(paths(rows)).toEqual([
      '/sda1/outer',
      '/sda1/outer/inner',
      '/sda1/outer/inner/f',
      '/sda1/outer/inner/back',
      '/sda1/outer/inner/self',
      '/sda1/outer/g',
    ]);
    expect(errors(rows)).toEqual([
      ['/sda1/outer/inner/back', 'corrupt'],
      ['/sda1/outer/inner/self', 'corrupt'],
    ]);
    expect(rows[3]!.error!.message).toContain('loop');
  });

  it('a root that holds itself ends', async () => {
    const root = directory({ f: file('f') });
    root.children.push(['again', root]);
    expect(errors(await rowsOf(onVolume(root), '/', { recursive: true }))).toEqual([['/sda1/again', 'corrupt']]);
  });

  it('folders that share folders do not multiply without end', async () => {
    let level = directory({ end: file('end') });
    for (let i = 0; i < 60; i++) level = directory({ left: level, right: level });
    const rows = await rowsOf(onVolume(level), '/sda1', { recursive: true });
    expect(rows).toHaveLength(121);
    expect(errors(rows)).toHaveLength(60);
  });

  it('a depth without end has one', async () => {
    let level = directory({ bottom: file('x') });
    for (let i = 0; i < 1100; i++) level = directory({ d: level });
    const rows = await rowsOf(onVolume(level), '/sda1', { recursive: true });
    expect(rows).toHaveLength(1024);
    expect(rows.at(-1)!.error).toMatchObject({ kind: 'corrupt' });
  });
});

describe('a consumer', () => {
  it('that cancels gets through to a listing that never waits', async () => {
    const fs = new MemoryFileSystem(directory({}));
    let count = 0;
    fs.list = async function* () {
      for (;;) yield [{ name: `f${count++}`, kind: 'file', id: count + 10 }];
    };
    const controller = new AbortController();
    setImmediate(() => controller.abort());
    await expect(
      rowsOf(fakePoint([{ name: 'sda1', content: fs }]), '/sda1', { signal: controller.signal }),
    ).rejects.toThrow(CancelledError);
  });

  it('that stops early stops the reading', async () => {
    let listed = 0;
    const fs = new MemoryFileSystem(
      directory(Array.from({ length: 100 }, (_, i): [string, Node] => [`f${i}`, file('')])),
      1,
    );
    const list = fs.list.bind(fs);
    fs.list = async function* (at, signal) {
      try {
        for await (const batch of list(at, signal)) {
          listed += batch.length;
          yield batch;
        }
      } finally {
        listed += 1000;
      }
    };
    for await (const rows of listRows(fakePoint([{ name: 'sda1', content: fs }]), '/sda1', options()))
      if (rows[0]!.name === 'f4') break;
    expect(listed).toBe(1005);
  });
});

import { execFileSync } from 'node:child_process';
import {
  closeSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { CancelledError } from '../../../main/engine/errors.ts';
import type { OverwritePolicy } from '../../../main/engine/restore/output-folder.ts';
import {
  type Content,
  type DirectoryNode,
  damage,
  directory,
  file,
  MemoryFileSystem,
  type Node,
  symlink,
} from '../../support/memory-file-system.ts';
import { fingerprint, scratchFolder } from '../../support/scratch.ts';
import { contentsOf, copySources, copyTree, problemsOf } from './copy-helpers.ts';

const scratch = scratchFolder('hostile');
const root = process.getuid?.() === 0;
const MiB = 1 << 20;
let destination = '';
beforeEach(() => {
  destination = mkdtempSync(join(scratch.path, 'to-'));
});

/** A file of so many MiB that does something before one of its reads. */
function big(size: number, beforeRead?: Content['beforeRead']): Content {
  return {
    size,
    bytes: (offset, length) => new Uint8Array(length).fill(1 + (Math.floor(offset / MiB) % 250)),
    ...(beforeRead === undefined ? {} : { beforeRead }),
  };
}

const policies: readonly OverwritePolicy[] = ['refuse', 'replace', 'rename', 'skip'];

describe('hostile names', () => {
  it('never leave the destination', async () => {
    const outer = mkdtempSync(join(scratch.path, 'outer-'));
    const to = join(outer, 'a', 'b', 'to');
    mkdirSync(to, { recursive: true });
    writeFileSync(join(outer, 'evil'), 'untouched');
    const names = [
      '../evil',
      '../../evil',
      '..',
      '.',
      '/etc/evil',
      'a/b',
      'nul\0byte',
      '',
      '../../../evil\0',
      'a\\..\\b',
      '-rf',
      '~root',
      '$(id)',
      'line\nfeed',
    ];
    const children = names.flatMap((name): [string, Node][] => [
      [name, file(`file ${name}`)],
      [`${name}`, directory({ inner: file('inner') })],
      [name, symlink('/tmp/x')],
    ]);
    for (const overwrite of policies) {
      const { report } = await copyTree(directory({ d: directory(children) }), '/d', { destination: to, overwrite });
      expect(report.problems.filter((problem) => overwrite !== 'refuse' || problem.path !== '/sda1/d')).toEqual([]);
      expect(readdirSync(outer).sort()).toEqual(['a', 'evil']);
      expect(readdirSync(join(outer, 'a'))).toEqual(['b']);
      expect(readdirSync(join(outer, 'a', 'b'))).toEqual(['to']);
      expect(readFileSync(join(outer, 'evil'), 'utf8')).toBe('untouched');
      // All three of every name are there: none took the place of another.
      const made = readdirSync(join(to, 'd'), { withFileTypes: true });
      expect(made.filter((entry) => entry.isFile())).toHaveLength(names.length);
      expect(made.filter((entry) => entry.isDirectory())).toHaveLength(names.length);
      expect(made.filter((entry) => entry.isSymbolicLink())).toHaveLength(names.length);
      expect(report.notes.length).toBeGreaterThan(names.length);
      execFileSync('rm', ['-r', join(to, 'd')]);
    }
  });

  it('one name twice: nothing goes through the link, and nothing is lost', async () => {
    const trap = mkdtempSync(join(scratch.path, 'trap-'));
    for (const order of [0, 1]) {
      const pair: [string, Node][] = [
        ['a', symlink(trap)],
        ['a', directory({ payload: file('gotcha') })],
      ];
      const to = mkdtempSync(join(scratch.path, 'twice-'));
      await copyTree(directory({ d: directory(order === 0 ? pair : pair.reverse()) }), '/d', {
        destination: to,
        overwrite: 'replace',
      });
      expect(readdirSync(trap)).toEqual([]);
      expect(contentsOf(to)).toEqual(['d/', `d/a (2)->${trap}`, 'd/a/', 'd/a/payload=gotcha'].sort());
    }
    // Across sources, where the link does come first.
    const first = new MemoryFileSystem(directory({ a: symlink(trap) }));
    const second = new MemoryFileSystem(directory({ a: directory({ payload: file('gotcha') }) }));
    for (const overwrite of policies) {
      const to = mkdtempSync(join(scratch.path, 'sources-'));
      const { report } = await copySources([await first.source('/a'), await second.source('/a')], {
        destination: to,
        overwrite,
      });
      expect(readdirSync(trap)).toEqual([]);
      expect(contentsOf(to)).toEqual(['a (2)/', 'a (2)/payload=gotcha', `a->${trap}`].sort());
      expect(report.notes).toHaveLength(1);
    }
  });

  it("two sources of one name do not take each other's place, whatever the policy", async () => {
    const fs = new MemoryFileSystem(
      directory({
        one: directory({ x: file('1'), d: directory({ p: file('1') }) }),
        two: directory({ x: file('2'), d: directory({ p: file('2') }) }),
      }),
    );
    const sources = await Promise.all(['/one/x', '/two/x', '/one/d', '/two/d'].map((path) => fs.source(path)));
    for (const overwrite of policies) {
      const to = mkdtempSync(join(scratch.path, 'same-'));
      const { report } = await copySources(sources, { destination: to, overwrite });
      expect(contentsOf(to)).toEqual(['d (2)/', 'd (2)/p=2', 'd/', 'd/p=1', 'x=1', 'x (2)=2'].sort());
      expect(report).toMatchObject({ files: 4, directories: 2, problems: [], skipped: 0 });
      expect(report.written).toHaveLength(4);
    }
  });

  it('long names are cut and kept apart', async () => {
    const children = ['a', 'b'].map((end): [string, Node] => [`${'日本語'.repeat(40)}${end}.txt`, file(end)]);
    const { report } = await copyTree(directory({ d: directory(children) }), '/d', { destination });
    expect(report.problems).toEqual([]);
    expect(readdirSync(join(destination, 'd'))).toHaveLength(2);
    const again = await copyTree(directory({ d: directory(children) }), '/d', { destination, overwrite: 'replace' });
    expect(again.report.problems).toEqual([]);
    const third = await copyTree(directory({ [children[0]![0]]: children[0]![1] }), `/${children[0]![0]}`, {
      destination: join(destination, 'd'),
      overwrite: 'rename',
    });
    expect(third.report.problems).toEqual([]);
    expect(readdirSync(join(destination, 'd'))).toHaveLength(3);
  });
});

describe('damaged trees', () => {
  it('a loop ends where it closes, and is named', async () => {
    const inner: DirectoryNode = directory({ f: file('f') });
    const outer = directory({ inner, g: file('g') });
    inner.children.push(['back', outer], ['self', inner]);
    const { report, progress } = await copyTree(directory({ outer }), '/outer', { destination });
    expect(problemsOf(report)).toEqual([
      ['/sda1/outer/inner/back', 'corrupt'],
      ['/sda1/outer/inner/self', 'corrupt'],
    ]);
    expect(contentsOf(destination)).toEqual(['outer/', 'outer/g=g', 'outer/inner/', 'outer/inner/f=f'].sort());
    expect(progress.itemsDone).toBe(progress.itemsTotal);
  });

  it('folders that share folders do not multiply without end', async () => {
    // 60 levels, each reached twice from the one above: 2^60 paths.
    let level = directory({ end: file('end') });
    for (let i = 0; i < 60; i++) level = directory({ left: level, right: level });
    const { report } = await copyTree(directory({ top: level }), '/top', { destination });
    expect(report.files).toBe(1);
    expect(report.problems).toHaveLength(60);
  });

  it('a depth without end has one', async () => {
    let level = directory({});
    for (let i = 0; i < 1500; i++) level = directory({ d: level });
    const { report } = await copyTree(directory({ d: level }), '/d', { destination });
    expect(report.problems).toHaveLength(1);
    expect(['corrupt', 'io']).toContain(report.problems[0]!.error.kind);
    expect(report.directories).toBeGreaterThan(500);
  });

  it('what can not be read is a problem, and the rest is copied', async () => {
    const { report, progress } = await copyTree(
      directory({
        d: directory({
          a: file('a'),
          entry: file('?', {}, { entry: damage('Directory entry') }),
          stat: file('?', {}, { stat: damage() }),
          open: file('four', {}, { open: damage('Extent') }),
          'half list': directory(
            { one: file('1'), two: file('2'), three: file('3') },
            {},
            { list: { after: 2, error: damage('Directory block') } },
          ),
          'no stat': directory({ in: file('in') }, {}, { stat: damage() }),
          z: file('z'),
        }),
      }),
      '/d',
      { destination },
    );
    expect(problemsOf(report).map(([path]) => path)).toEqual(
      ['entry', 'stat', 'open', 'half list', 'no stat'].map((name) => `/sda1/d/${name}`),
    );
    expect(contentsOf(destination)).toEqual(
      [
        'd/',
        'd/a=a',
        'd/half list/',
        'd/half list/one=1',
        'd/half list/two=2',
        'd/no stat/',
        'd/no stat/in=in',
        'd/z=z',
      ].sort(),
    );
    expect(report.problems[0]!.error.details).toMatchObject({ structure: 'Directory entry', position: 4096 });
    expect(progress).toMatchObject({ bytesDone: progress.bytesTotal, itemsDone: progress.itemsTotal });
  });

  it('a bug of ours is no problem of one file: it is thrown', async () => {
    const broken = file(big(10, () => Promise.reject(new RangeError('a bug'))));
    await expect(copyTree(directory({ d: directory({ broken }) }), '/d', { destination })).rejects.toThrow(RangeError);
    expect(contentsOf(destination)).toEqual(['d/']);
  });

  it('more problems than are listed are said to be', async () => {
    const children = Array.from({ length: 1500 }, (_, i): [string, Node] => [
      `f${i}`,
      file('?', {}, { open: damage() }),
    ]);
    const { report, progress } = await copyTree(directory({ d: directory(children) }), '/d', { destination });
    expect(report.problems).toHaveLength(1000);
    expect(report.notes).toEqual([{ path: '/', note: 'There are more problems than are listed here' }]);
    expect(progress.itemsDone).toBe(1501);
  });
});

describe('content that fails half-way', () => {
  it('leaves nothing under any name, and closes what was open', async () => {
    const fs = new MemoryFileSystem(
      directory({
        d: directory({
          before: file('1'),
          broken: file(
            big(3 * MiB, (offset) => {
              if (offset >= 2 * MiB) throw damage('Extent');
            }),
          ),
          after: file('2'),
        }),
      }),
    );
    const { report, progress } = await copyTree(fs, '/d', { destination });
    expect(contentsOf(destination)).toEqual(['d/', 'd/after=2', 'd/before=1'].sort());
    expect(problemsOf(report)).toEqual([['/sda1/d/broken', 'corrupt']]);
    expect(fs.openContents).toBe(0);
    expect(progress.bytesDone).toBe(3 * MiB + 2);
    expect(progress.bytesTotal).toBe(3 * MiB + 2);
  });

  for (const [what, runs] of [
    [
      'a hole',
      () => [
        { kind: 'zero' as const, offset: 0, length: 50 },
        { kind: 'zero' as const, offset: 60, length: 40 },
      ],
    ],
    [
      'runs at the wrong places',
      () => [
        { kind: 'zero' as const, offset: 0, length: 50 },
        { kind: 'zero' as const, offset: 60, length: 50 },
      ],
    ],
    ['too little', () => [{ kind: 'zero' as const, offset: 0, length: 50 }]],
    ['too much', () => [{ kind: 'zero' as const, offset: 0, length: 200 }]],
    [
      'an overlap',
      () => [
        { kind: 'zero' as const, offset: 0, length: 60 },
        { kind: 'zero' as const, offset: 50, length: 50 },
      ],
    ],
  ] as const) {
    it(`a map with ${what} is refused, verified or not`, async () => {
      for (const verify of [true, false]) {
        const content: Content = { size: 100, bytes: (_, length) => new Uint8Array(length).fill(1), runs };
        const { report } = await copyTree(directory({ f: file(content) }), '/f', { destination, verify });
        expect(problemsOf(report)).toEqual([['/sda1/f', 'corrupt']]);
        expect(readdirSync(destination)).toEqual([]);
      }
    });
  }

  it('is found by reading back when what was written is not what was read', async () => {
    // While the third MiB is read, somebody changes a byte of the first in the unfinished copy.
    const tamper = (offset: number): void => {
      if (offset < 2 * MiB) return;
      const [partial] = readdirSync(destination).filter((name) => name.endsWith('.part'));
      expect(lstatSync(join(destination, partial!)).mode & 0o777).toBe(0o600);
      const fd = openSync(join(destination, partial!), 'r+');
      writeSync(fd, Uint8Array.of(0xff), 0, 1, 4711);
      closeSync(fd);
    };
    const node = file(big(3 * MiB, tamper));
    const { report } = await copyTree(directory({ f: node }), '/f', { destination });
    expect(problemsOf(report)).toEqual([['/sda1/f', 'corrupt']]);
    expect(report.problems[0]!.error.details).toMatchObject({
      structure: 'Written copy',
      source: join(destination, 'f'),
    });
    expect(report).toMatchObject({ files: 0, verified: 0, written: [] });
    expect(readdirSync(destination)).toEqual([]);
    // Not asked to verify, nobody looks.
    const unverified = await copyTree(directory({ f: node }), '/f', { destination, verify: false });
    expect(unverified.report).toMatchObject({ files: 1, verified: 0, problems: [] });
  });
});

describe('cancelling', () => {
  it('in the middle of a file removes its beginning, and keeps whole files', async () => {
    const controller = new AbortController();
    const fs = new MemoryFileSystem(
      directory({
        d: directory({
          first: file('whole'),
          second: file(
            big(8 * MiB, (offset) => {
              if (offset >= 4 * MiB) controller.abort();
            }),
          ),
          third: file('never'),
        }),
      }),
    );
    await expect(copyTree(fs, '/d', { destination, signal: controller.signal })).rejects.toThrow(CancelledError);
    expect(contentsOf(destination)).toEqual(['d/', 'd/first=whole'].sort());
    expect(fs.openContents).toBe(0);
  });

  it('gets through to a file that is all hole', async () => {
    const controller = new AbortController();
    const size = 64 * 1024 * MiB;
    const content: Content = { size, holes: [{ offset: 0, length: size }], bytes: () => new Uint8Array(0) };
    const copying = copyTree(directory({ f: file(content) }), '/f', {
      destination,
      signal: controller.signal,
      onReport: ({ bytesDone }) => {
        // Asked for by something that needs the event loop, as a signal or a message does.
        if (bytesDone > 0 && bytesDone <= MiB) setImmediate(() => controller.abort());
      },
    });
    await expect(copying).rejects.toThrow(CancelledError);
    expect(readdirSync(destination)).toEqual([]);
  });

  it('gets through while the totals are counted', async () => {
    const controller = new AbortController();
    // A folder that never ends, and never waits.
    const endless: Node = directory({});
    const fs = new MemoryFileSystem(directory({ d: endless }));
    const names = { count: 0 };
    fs.list = async function* () {
      for (;;) {
        if (names.count === 100) setImmediate(() => controller.abort());
        yield [{ name: `f${names.count++}`, kind: 'fifo', id: 1000 + names.count }];
      }
    };
    await expect(copyTree(fs, '/d', { destination, signal: controller.signal })).rejects.toThrow(CancelledError);
    expect(names.count).toBeGreaterThan(100);
    expect(readdirSync(destination)).toEqual([]);
  });
});

describe('what is there already', () => {
  /** A destination of the user's: a file, a folder with things in it, links. */
  function occupied(): string {
    const to = mkdtempSync(join(scratch.path, 'occupied-'));
    writeFileSync(join(to, 'f'), 'old');
    writeFileSync(join(to, 'f.tar.gz'), 'old');
    mkdirSync(join(to, 'd'), { mode: 0o705 });
    writeFileSync(join(to, 'd', 'kept'), 'kept');
    writeFileSync(join(to, 'd', 'x'), 'old x');
    return to;
  }
  const tree = () =>
    directory({
      f: file('new'),
      'f.tar.gz': file('new'),
      d: directory({ x: file('new x'), y: file('new y') }, { mode: 0o751 }),
    });
  const paths = ['/f', '/f.tar.gz', '/d'];

  it('is refused', async () => {
    const to = occupied();
    const before = fingerprint(to);
    const { report } = await copyTree(tree(), paths, { destination: to });
    expect(fingerprint(to)).toEqual(before);
    expect(problemsOf(report)).toEqual(paths.map((path) => [`/sda1${path}`, 'denied']));
    expect(report.problems[0]!.error.details).toMatchObject({ destination: join(to, 'f'), exists: true });
    expect(report.written).toEqual([]);
  });

  it('is replaced, files by files and folders merged', async () => {
    const to = occupied();
    const { report } = await copyTree(tree(), paths, { destination: to, overwrite: 'replace' });
    expect(contentsOf(to)).toEqual(['d/', 'd/kept=kept', 'd/x=new x', 'd/y=new y', 'f.tar.gz=new', 'f=new'].sort());
    expect(report.problems).toEqual([]);
    expect(statSync(join(to, 'd')).mode & 0o777).toBe(0o751);
  });

  it('is left, and the copy gets another name', async () => {
    const to = occupied();
    const { report } = await copyTree(tree(), paths, { destination: to, overwrite: 'rename' });
    expect(contentsOf(to)).toEqual(
      [
        'd (2)/',
        'd (2)/x=new x',
        'd (2)/y=new y',
        'd/',
        'd/kept=kept',
        'd/x=old x',
        'f (2)=new',
        'f.tar (2).gz=new',
        'f.tar.gz=old',
        'f=old',
      ].sort(),
    );
    expect(report.written).toEqual(['f (2)', 'f.tar (2).gz', 'd (2)'].map((name) => join(to, name)));
    await copyTree(tree(), '/f', { destination: to, overwrite: 'rename' });
    expect(readFileSync(join(to, 'f (3)'), 'utf8')).toBe('new');
  });

  it('is left, and what is not there is added', async () => {
    const to = occupied();
    const { report, progress } = await copyTree(tree(), paths, { destination: to, overwrite: 'skip' });
    expect(contentsOf(to)).toEqual(['d/', 'd/kept=kept', 'd/x=old x', 'd/y=new y', 'f.tar.gz=old', 'f=old'].sort());
    expect(report).toMatchObject({ files: 1, skipped: 3, problems: [] });
    // The folder is the user's, and so is its mode.
    expect(statSync(join(to, 'd')).mode & 0o777).toBe(0o705);
    expect(progress).toMatchObject({ bytesDone: progress.bytesTotal, itemsDone: progress.itemsTotal });
  });

  it('a link in the way is never written through', async () => {
    const trap = mkdtempSync(join(scratch.path, 'trap-'));
    writeFileSync(join(trap, 'victim'), 'mine');
    for (const overwrite of policies) {
      const to = mkdtempSync(join(scratch.path, 'linked-'));
      symlinkSync(join(trap, 'victim'), join(to, 'f'));
      symlinkSync(trap, join(to, 'd'));
      symlinkSync(join(trap, 'absent'), join(to, 'dangling'));
      const { report } = await copyTree(
        directory({ f: file('new'), d: directory({ victim: file('new') }), dangling: file('new') }),
        ['/f', '/d', '/dangling'],
        { destination: to, overwrite },
      );
      expect(readdirSync(trap)).toEqual(['victim']);
      expect(readFileSync(join(trap, 'victim'), 'utf8')).toBe('mine');
      expect(readlinkSync(join(to, 'd'))).toBe(trap);
      if (overwrite === 'replace') {
        // The links to files are replaced themselves; a folder is not put in the place of one.
        expect(problemsOf(report)).toEqual([['/sda1/d', 'denied']]);
        expect(report.problems[0]!.error.message).toContain('a symbolic link is in the way');
        expect(lstatSync(join(to, 'f')).isFile()).toBe(true);
        expect(readFileSync(join(to, 'dangling'), 'utf8')).toBe('new');
      } else {
        expect(readlinkSync(join(to, 'f'))).toBe(join(trap, 'victim'));
        if (overwrite === 'rename') expect(readdirSync(join(to, 'd (2)'))).toEqual(['victim']);
      }
    }
  });

  it('links replace what is there only when asked, and never a folder', async () => {
    const links = directory({ f: symlink('new target'), l: symlink('new target'), d: symlink('new target') });
    const make = (): string => {
      const to = mkdtempSync(join(scratch.path, 'links-'));
      writeFileSync(join(to, 'f'), 'old');
      symlinkSync('old target', join(to, 'l'));
      mkdirSync(join(to, 'd'));
      return to;
    };
    const contents = async (overwrite: OverwritePolicy) => {
      const to = make();
      const { report } = await copyTree(links, ['/f', '/l', '/d'], { destination: to, overwrite });
      return { contents: contentsOf(to), problems: problemsOf(report).length };
    };
    const untouched = ['d/', 'f=old', 'l->old target'];
    expect(await contents('refuse')).toEqual({ contents: untouched, problems: 3 });
    expect(await contents('skip')).toEqual({ contents: untouched, problems: 0 });
    expect(await contents('replace')).toEqual({ contents: ['d/', 'f->new target', 'l->new target'], problems: 1 });
    expect(await contents('rename')).toEqual({
      contents: [...untouched, ...['d', 'f', 'l'].map((name) => `${name} (2)->new target`)].sort(),
      problems: 0,
    });
  });

  it('a file in the way of a folder, and a folder in the way of a file, stay', async () => {
    for (const overwrite of ['replace', 'skip', 'refuse'] as const) {
      const to = mkdtempSync(join(scratch.path, 'way-'));
      writeFileSync(join(to, 'd'), 'a file');
      mkdirSync(join(to, 'f'));
      const { report } = await copyTree(directory({ d: directory({ x: file('x') }), f: file('f') }), ['/d', '/f'], {
        destination: to,
        overwrite,
      });
      expect(contentsOf(to)).toEqual(['d=a file', 'f/'].sort());
      expect(report.problems.length + report.skipped).toBe(2);
    }
  });

  it('what comes there meanwhile is not replaced', async () => {
    const late = file(big(MiB, () => writeFileSync(join(destination, 'f'), 'came meanwhile')));
    const { report } = await copyTree(directory({ f: late }), '/f', { destination, overwrite: 'skip' });
    expect(contentsOf(destination)).toEqual(['f=came meanwhile']);
    expect(report.problems[0]!.error).toMatchObject({ kind: 'io', details: { code: 'EEXIST' } });
  });
});

describe('a destination that can not be used', () => {
  it('is said to be, before anything is done', async () => {
    writeFileSync(join(destination, 'file'), 'x');
    for (const [path, code] of [
      ['absent', 'ENOENT'],
      ['file', 'ENOTDIR'],
    ] as const) {
      await expect(
        copyTree(directory({ f: file('f') }), '/f', { destination: join(destination, path) }),
      ).rejects.toMatchObject({
        kind: 'io',
        details: { code, destination: join(destination, path) },
      });
    }
    expect(contentsOf(destination)).toEqual(['file=x']);
  });

  it('a file larger than any the host can have is refused at once', async () => {
    const size = Number.MAX_SAFE_INTEGER;
    const content: Content = { size, holes: [{ offset: 0, length: size }], bytes: () => new Uint8Array(0) };
    const { report } = await copyTree(directory({ f: file(content) }), '/f', { destination });
    expect(problemsOf(report)).toEqual([['/sda1/f', 'io']]);
    expect(readdirSync(destination)).toEqual([]);
  });

  describe.runIf(root && process.platform === 'linux')('mounted for the test', () => {
    async function mounted(options: string, body: (path: string) => Promise<void>): Promise<void> {
      const path = mkdtempSync(join(scratch.path, 'mount-'));
      execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'chainlift-test', path]);
      try {
        await body(path);
      } finally {
        execFileSync('umount', [path]);
      }
    }

    it('a full one loses no more than what has no room, and keeps no partial file', async () => {
      await mounted('size=2m', async (path) => {
        const { report, progress } = await copyTree(
          directory({ d: directory({ a: file('a'), large: file(big(5 * MiB)), z: file('z') }) }),
          '/d',
          { destination: path },
        );
        expect(contentsOf(path)).toEqual(['d/', 'd/a=a', 'd/z=z'].sort());
        expect(report.problems).toHaveLength(1);
        expect(report.problems[0]).toMatchObject({
          path: '/sda1/d/large',
          error: { kind: 'io', details: { code: 'ENOSPC', destination: join(path, 'd', 'large') } },
        });
        expect(progress.bytesDone).toBe(5 * MiB + 2);
        // The room is given back.
        const again = await copyTree(directory({ fits: file(big(MiB)) }), '/fits', { destination: path });
        expect(again.report.problems).toEqual([]);
      });
    });

    it('one without room for names says so', async () => {
      await mounted('size=1m,nr_inodes=4', async (path) => {
        const files = Object.fromEntries(Array.from({ length: 6 }, (_, i) => [`f${i}`, file('x')]));
        const { report } = await copyTree(directory({ d: directory(files) }), '/d', { destination: path });
        expect(report.files).toBe(2);
        expect(report.problems.map((problem) => problem.error.details.code)).toEqual([
          'ENOSPC',
          'ENOSPC',
          'ENOSPC',
          'ENOSPC',
        ]);
      });
    });

    it('a read-only one is a problem for each source', async () => {
      await mounted('size=1m,ro', async (path) => {
        const { report } = await copyTree(
          directory({ f: file('f'), d: directory({ x: file('x') }), l: symlink('x') }),
          ['/f', '/d', '/l'],
          { destination: path },
        );
        expect(report.problems.map(({ path: at, error }) => [at, error.kind, error.details.code])).toEqual([
          ['/sda1/f', 'io', 'EROFS'],
          ['/sda1/d', 'io', 'EROFS'],
          ['/sda1/l', 'io', 'EROFS'],
        ]);
        expect(readdirSync(path)).toEqual([]);
      });
    });
  });

  it('a folder that goes away in the middle is a typed error', async () => {
    const gone = file(big(2 * MiB, () => void execFileSync('rm', ['-rf', join(destination, 'd')])));
    const { report } = await copyTree(directory({ d: directory({ gone, next: file('x') }) }), '/d', { destination });
    expect(report.problems.length).toBeGreaterThanOrEqual(2);
    expect(report.problems.every(({ error }) => error.kind === 'io')).toBe(true);
    expect(readdirSync(destination)).toEqual([]);
  });
});

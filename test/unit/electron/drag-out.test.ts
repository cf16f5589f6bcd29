import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { DragOut, type DragOutOptions } from '../../../main/electron/drag-out.ts';
import { removeTree, StagingArea } from '../../../main/electron/staging.ts';
import { CorruptError } from '../../../main/engine/errors.ts';
import type { ChainliftApi, CopyRequest, CopyResult, EntryRow, TaskSnapshot } from '../../../preload/api.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { fakeEngine, fileEntry, target } from '../web/fake-engine.ts';

/** An engine whose copies a test finishes by hand. */
class CopyingEngine {
  readonly copies: { request: CopyRequest; finish: (end: Partial<CopyResult> | TaskSnapshot['state']) => void }[] = [];
  readonly #ends = new Map<string, Promise<TaskSnapshot>>();
  sizes: Record<string, number> = {};
  readonly api: ChainliftApi = fakeEngine({
    stat: async ({ path }) => fileEntry(path, this.sizes[path] ?? 5),
    copy: async (request) => {
      const id = String(this.copies.length + 1);
      const running: TaskSnapshot = {
        id,
        kind: 'copy',
        title: 'Copy',
        state: 'running',
        started: '2026-01-01T00:00:00Z',
        progress: { bytesDone: 0, itemsDone: 0 },
        bytesPerSecond: 0,
      };
      this.#ends.set(
        id,
        new Promise((resolve) => {
          this.copies.push({
            request,
            finish: (end) => {
              if (typeof end === 'string') {
                resolve({
                  ...running,
                  state: end,
                  ...(end === 'failed' ? { error: { kind: 'io', message: 'gone', details: {} } } : {}),
                });
                return;
              }
              const written = request.paths.map((path) =>
                join(request.destination, path.slice(path.lastIndexOf('/') + 1)),
              );
              for (const path of written) writeFileSync(path, 'bytes');
              const none = {
                files: 1,
                directories: 0,
                links: 0,
                bytes: 5,
                verified: 1,
                skipped: 0,
                copied: [],
                problems: [],
                notes: [],
              };
              resolve({ ...running, state: 'done', result: { kind: 'copy', ...none, written, ...end } });
            },
          });
        }),
      );
      return running;
    },
    watchTask: ({ id }) => this.#watch(id),
  });
  async *#watch(id: string): AsyncGenerator<TaskSnapshot> {
    yield await this.#ends.get(id)!;
  }
}

describe('dragging guest files out', () => {
  const scratch = scratchFolder('drag');
  let temporary = '';
  let engine: CopyingEngine;
  let dragged: (readonly string[])[] = [];
  let count = 0;
  beforeEach(() => {
    count++;
    temporary = join(scratch.path, String(count));
    mkdirSync(temporary);
    engine = new CopyingEngine();
    dragged = [];
  });
  const dragOut = (options: Partial<DragOutOptions> = {}): DragOut =>
    new DragOut({
      engine: () => engine.api,
      staging: new StagingArea(temporary),
      startDrag: (files) => dragged.push(files),
      patience: 20_000,
      ...options,
    });
  /** The n-th copy, once it was begun. */
  const copy = async (n: number) => {
    await expect.poll(() => engine.copies.length, { interval: 2 }).toBeGreaterThan(n);
    return engine.copies[n]!;
  };
  const stagedFolders = (): string[] => readdirSync(temporary).flatMap((run) => readdirSync(join(temporary, run)));

  it('drags at once what is staged within the gesture', async () => {
    const tasks: string[] = [];
    const begun = dragOut({ onTask: (id) => tasks.push(id) }).begin(target, ['/sda1/a.txt', '/sda1/b.txt']);
    const { request, finish } = await copy(0);
    expect(request).toMatchObject({
      target,
      paths: ['/sda1/a.txt', '/sda1/b.txt'],
      recursive: true,
      verify: true,
      overwrite: 'rename',
    });
    expect(dragged).toEqual([]);
    finish({});
    expect(await begun).toBe('dragging');
    expect(dragged).toEqual([[join(request.destination, 'a.txt'), join(request.destination, 'b.txt')]]);
    expect(tasks).toEqual(['1']);
  });

  it('stages into a folder that is the user’s alone', async () => {
    void dragOut().begin(target, ['/sda1/a.txt']);
    const { request, finish } = await copy(0);
    const run = dirname(request.destination);
    expect(dirname(run)).toBe(temporary);
    expect(run).toMatch(new RegExp(`/chainlift-drag-${process.pid}-[A-Za-z0-9]{6}$`));
    for (const folder of [run, request.destination]) expect(lstatSync(folder).mode & 0o777).toBe(0o700);
    finish({});
  });

  it('says `ready` when staging outlasts the gesture, and the next gesture starts at once', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const out = dragOut({ patience: 1_000 });
    const first = out.begin(target, ['/sda1/big.iso']);
    await vi.advanceTimersByTimeAsync(1_001);
    vi.useRealTimers();
    (await copy(0)).finish({});
    expect(await first).toBe('ready');
    expect(dragged).toEqual([]);
    expect(await out.begin(target, ['/sda1/big.iso'])).toBe('dragging');
    expect(dragged).toHaveLength(1);
    expect(engine.copies).toHaveLength(1);
  });

  it('says `ready` when the button was released while it staged', async () => {
    const out = dragOut();
    const first = out.begin(target, ['/sda1/big.iso']);
    const { finish } = await copy(0);
    out.released();
    finish({});
    expect(await first).toBe('ready');
    expect(dragged).toEqual([]);
    expect(await out.begin(target, ['/sda1/big.iso'])).toBe('dragging');
  });

  it('lets only the latest gesture begin a drag, and stages one selection once', async () => {
    const out = dragOut();
    const first = out.begin(target, ['/sda1/a']);
    const again = out.begin(target, ['/sda1/a']);
    const other = out.begin(target, ['/sda1/b']);
    (await copy(0)).finish({});
    (await copy(1)).finish({});
    expect(await Promise.all([first, again, other])).toEqual(['ready', 'ready', 'dragging']);
    expect(dragged.map((files) => files.map((file) => file.slice(-1)))).toEqual([['b']]);
    expect(engine.copies).toHaveLength(2);
    // The same path of another point is another selection.
    const point = out.begin({ ...target, point: '3' }, ['/sda1/a']);
    (await copy(2)).finish({});
    expect(await point).toBe('dragging');
  });

  it('stages anew what was moved away by a drop', async () => {
    const out = dragOut();
    const first = out.begin(target, ['/sda1/a']);
    const { request, finish } = await copy(0);
    finish({});
    await first;
    rmSync(join(request.destination, 'a'));
    const second = out.begin(target, ['/sda1/a']);
    (await copy(1)).finish({});
    expect(await second).toBe('dragging');
    expect(existsSync(request.destination)).toBe(false);
  });

  it.each<[string, Partial<CopyResult> | TaskSnapshot['state'], string]>([
    [
      'a file cannot be read',
      { problems: [{ path: '/sda1/a', error: new CorruptError('Grain', {}).toWire() }] },
      'corrupt',
    ],
    ['the copy fails', 'failed', 'io'],
    ['the copy is cancelled', 'cancelled', 'cancelled'],
    ['nothing was written', { written: [] }, 'io'],
    ['a file lies elsewhere', { written: ['/etc/passwd'] }, 'denied'],
    ['the folder itself was written', { written: ['.'] }, 'denied'],
  ])('does not drag when %s, and leaves nothing behind', async (_, end, kind) => {
    const out = dragOut();
    const begun = out.begin(target, ['/sda1/a']);
    const { request, finish } = await copy(0);
    finish(typeof end !== 'string' && end.written?.[0] === '.' ? { written: [request.destination] } : end);
    await expect(begun).rejects.toMatchObject({ kind });
    expect(dragged).toEqual([]);
    expect(stagedFolders()).toEqual([]);
    // It is not kept as a failure: the next gesture tries anew.
    const next = out.begin(target, ['/sda1/a']);
    (await copy(1)).finish({});
    expect(await next).toBe('dragging');
  });

  it('refuses before anything is written what is too big, too many or has no room', async () => {
    const refused = (paths: string[], options: Partial<DragOutOptions> = {}) =>
      expect(dragOut(options).begin(target, paths)).rejects;
    engine.sizes = { '/sda1/big': 2 * 1024 ** 3 + 1, '/sda1/half': 2 ** 30 + 1, '/sda1/half2': 2 ** 30 };
    await refused(['/sda1/big']).toMatchObject({ kind: 'denied', message: expect.stringContaining('use Copy to') });
    await refused(['/sda1/half', '/sda1/half2']).toMatchObject({ kind: 'denied', details: { limit: 2 * 1024 ** 3 } });
    await refused(Array.from({ length: 1_001 }, (_, i) => `/sda1/${i}`)).toMatchObject({ kind: 'denied' });
    const staging = new StagingArea(temporary);
    vi.spyOn(staging, 'room').mockResolvedValue(100 * 1024 ** 2);
    await refused(['/sda1/a'], { staging }).toMatchObject({ kind: 'denied', details: { room: 0 } });
    // A folder counts with all that is in it, and counting stops when it is too much.
    let batches = 0;
    const row = (i: number): EntryRow => ({ name: `${i}`, path: `/sda1/d/${i}`, kind: 'file', id: i, size: 1 });
    const folder = {
      ...engine.api,
      stat: async () => fileEntry('/sda1/d', undefined, { kind: 'directory' }),
      list: async function* (request: { recursive?: boolean; long?: boolean }) {
        expect(request).toMatchObject({ recursive: true, long: true });
        for (;;) {
          batches++;
          yield Array.from({ length: 1_000 }, (_, i) => row(i));
        }
      },
    };
    await refused(['/sda1/d'], { engine: () => folder as ChainliftApi }).toMatchObject({ details: { limit: 50_000 } });
    expect(batches).toBeLessThan(60);
    await refused(['/sda1/d'], { engine: () => folder as ChainliftApi, maxBytes: 5_500 }).toMatchObject({
      details: { limit: 5_500 },
    });
    expect(batches).toBeLessThan(70);
    expect(engine.copies).toEqual([]);
    expect(readdirSync(temporary)).toEqual([]);
  });

  it('keeps a bounded number of selections staged, the latest', async () => {
    const out = dragOut();
    for (let i = 0; i < 20; i++) {
      const begun = out.begin(target, [`/sda1/${i}`]);
      (await copy(i)).finish({});
      expect(await begun).toBe('dragging');
    }
    await expect.poll(() => stagedFolders().length).toBe(16);
    expect(existsSync(engine.copies[19]!.request.destination)).toBe(true);
    expect(existsSync(engine.copies[0]!.request.destination)).toBe(false);
  });
});

describe('the staging area', () => {
  const scratch = scratchFolder('staging');

  it('removes at the start what runs that are gone left, and nothing else', async () => {
    const temporary = join(scratch.path, 'stale');
    const keep = join(scratch.path, 'keep');
    mkdirSync(keep, { recursive: true });
    writeFileSync(join(keep, 'file'), '');
    mkdirSync(temporary);
    for (const name of [
      'chainlift-drag-11-abcdef',
      'chainlift-drag-12-abcdef',
      `chainlift-drag-${process.pid}-abcdef`,
      'chainlift-drag-13-abc',
      'chainlift-drag-x-abcdef',
      'somebody-else',
    ]) {
      mkdirSync(join(temporary, name, 'inner'), { recursive: true });
      writeFileSync(join(temporary, name, 'inner', 'file'), '');
    }
    writeFileSync(join(temporary, 'chainlift-drag-14-abcdef'), 'a file');
    symlinkSync(keep, join(temporary, 'chainlift-drag-15-abcdef'));
    symlinkSync(keep, join(temporary, 'chainlift-drag-11-abcdef', 'inner', 'link'));
    await new StagingArea(temporary).removeStale((pid) => pid === 12);
    expect(readdirSync(temporary).sort()).toEqual(
      [
        'chainlift-drag-12-abcdef',
        `chainlift-drag-${process.pid}-abcdef`,
        'chainlift-drag-13-abc',
        'chainlift-drag-x-abcdef',
        'chainlift-drag-14-abcdef',
        'chainlift-drag-15-abcdef',
        'somebody-else',
      ].sort(),
    );
    expect(existsSync(join(keep, 'file'))).toBe(true);
  });

  it('removes all it made, also behind guest permissions', async () => {
    const temporary = join(scratch.path, 'area');
    mkdirSync(temporary);
    const area = new StagingArea(temporary);
    const one = await area.make();
    const two = await area.make();
    expect(one).not.toBe(two);
    expect(dirname(one)).toBe(dirname(two));
    mkdirSync(join(one, 'locked', 'inner'), { recursive: true });
    writeFileSync(join(one, 'locked', 'inner', 'file'), '');
    chmodSync(join(one, 'locked', 'inner'), 0o500);
    chmodSync(join(one, 'locked'), 0o000);
    await area.remove();
    expect(readdirSync(temporary)).toEqual([]);
    await area.remove();
    await removeTree(join(temporary, 'absent'));
    expect(await area.room()).toBeGreaterThan(0);
  });
});

/** What the service does when things end at the wrong moment, fail in part, or come in great numbers. */
import { EventEmitter } from 'node:events';
import { homedir } from 'node:os';
import { parse } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { CancelledError, IoError, NotFoundError } from '../../../main/engine/errors.ts';
import type { NbdServer } from '../../../main/engine/nbd/server.ts';
import { startNbdServer } from '../../../main/engine/nbd/server.ts';
import { Reporter } from '../../../main/engine/restore/report.ts';
import { copyTitle, findSources } from '../../../main/engine/service/copy-sources.ts';
import { homeFolder } from '../../../main/engine/service/home.ts';
import { NbdExports } from '../../../main/engine/service/nbd-exports.ts';
import { OpenPoint, type PointLocation } from '../../../main/engine/service/open-point.ts';
import { PointPool } from '../../../main/engine/service/point-pool.ts';
import type { TaskContext } from '../../../main/engine/task/task.ts';
import type { CopyRequest } from '../../../preload/api.ts';
import { directory, file, MemoryFileSystem } from '../../support/memory-file-system.ts';
import { fakePoint } from './fake-point.ts';

vi.mock('node:os', async (original) => ({ ...(await original<typeof import('node:os')>()), homedir: vi.fn() }));
vi.mock('../../../main/engine/nbd/server.ts', () => ({ startNbdServer: vi.fn() }));

const location = {
  source: '/backups',
  vm: 'web01',
  point: '2',
  pointName: 'before-upgrade',
  folder: { root: '/backups', options: {} },
  disks: [{ index: 0, file: 'a.vmdk', path: '/backups/a.vmdk' }],
} as unknown as PointLocation;

describe('exports', () => {
  let server: NbdServer & { close: ReturnType<typeof vi.fn> };
  beforeEach(() => {
    const events: NbdServer['events'] = new EventEmitter();
    server = {
      events,
      address: { socket: '/run/nbd.sock' },
      stats: () => ({ exports: [{ uri: 'nbd+unix:///', size: 512, clients: 0, requests: 0, bytesRead: 0 }] }),
      close: vi.fn(async () => void events.emit('closed')),
    } as unknown as typeof server;
    vi.mocked(startNbdServer).mockReset().mockResolvedValue(server);
  });

  it('one whose server ended by itself is not shown any more', async () => {
    const exports = new NbdExports();
    const { id } = await exports.start({ target: { source: '/backups' } }, location, 0);
    const seen: number[] = [];
    const watching = (async () => {
      for await (const list of exports.watch()) {
        seen.push(list.length);
        if (list.length === 0) return;
      }
    })();
    await vi.waitFor(() => expect(seen).toEqual([1]));
    server.events.emit('closed');
    await watching;
    await expect(exports.stop(id)).rejects.toThrow(NotFoundError);
  });

  it('one that is being started when the engine closes is closed with it', async () => {
    let started = (_: NbdServer): void => {};
    vi.mocked(startNbdServer).mockReturnValue(
      new Promise((resolve) => {
        started = resolve;
      }),
    );
    const exports = new NbdExports();
    const starting = exports.start({ target: { source: '/backups' } }, location, 0);
    const refused = expect(starting).rejects.toThrow(CancelledError);
    await vi.waitFor(() => expect(startNbdServer).toHaveBeenCalled());
    const closing = exports.close();
    started(server);
    await closing;
    await refused;
    expect(server.close).toHaveBeenCalledOnce();
    expect(exports.list()).toEqual([]);
    await expect(exports.start({ target: { source: '/backups' } }, location, 0)).rejects.toThrow(CancelledError);
  });
});

describe('points', () => {
  it('whose files fail to close end nobody else', async () => {
    const close = vi.spyOn(OpenPoint.prototype, 'close').mockRejectedValue(new IoError('The disk is gone', {}));
    const unhandled = vi.fn();
    process.on('unhandledRejection', unhandled);
    try {
      const pool = new PointPool(true);
      for (let i = 0; i < 12; i++) pool.lease({ ...location, point: String(i) }).release();
      await new Promise(setImmediate);
      expect(close).toHaveBeenCalled();
      expect(unhandled).not.toHaveBeenCalled();
    } finally {
      process.off('unhandledRejection', unhandled);
      close.mockRestore();
    }
  });
});

describe('a selection', () => {
  const request = (paths: readonly string[]): CopyRequest => ({
    target: { source: '/backups' },
    paths,
    destination: '/out',
    recursive: true,
    verify: true,
    overwrite: 'refuse',
  });
  const point = fakePoint([{ name: 'sda1', content: new MemoryFileSystem(directory({ a: file('x'), b: file('y') })) }]);
  const task = (signal = new AbortController().signal): TaskContext => ({
    signal,
    progress: { bytesDone: 0, itemsDone: 0 },
    report: () => undefined,
  });

  it('with rows that are gone is copied without them, and says so', async () => {
    const { sources, problems } = await findSources(
      point,
      request(['/sda1/a', '/sda1/gone', '/sdz/x', '/sda1/b']),
      task(),
    );
    expect(sources.map(({ path }) => path)).toEqual(['/sda1/a', '/sda1/b']);
    expect(problems).toMatchObject([
      { path: '/sda1/gone', error: { kind: 'not-found' } },
      { path: '/sdz/x', error: { kind: 'not-found' } },
    ]);
  });

  it('with nothing left fails as its first row does', async () => {
    await expect(findSources(point, request(['/sda1/gone', '/sdz/x']), task())).rejects.toThrow(/gone/);
  });

  it('of very many rows has a short title, bounded lists, and can be cancelled', async () => {
    const rows = Array.from({ length: 100_000 }, (_, i) => `/sda1/gone-${i}`);
    expect(copyTitle(request(rows))).toBe('Copy gone-0, gone-1, gone-2 and 99,997 more to /out');
    expect(copyTitle(request(['/sda1/a', '/sda1/b']))).toBe('Copy a, b to /out');
    const { problems } = await findSources(point, request(['/sda1/a', ...rows]), task());
    expect(problems).toHaveLength(1000);
    await expect(findSources(point, request(rows), task(AbortSignal.abort()))).rejects.toThrow(CancelledError);
    const reporter = new Reporter();
    for (const row of rows) reporter.madeTop(row);
    expect(reporter.report.written).toHaveLength(1000);
  });
});

describe('the home folder', () => {
  it('is the root for a user that has none', () => {
    vi.mocked(homedir).mockReturnValueOnce('/home/ann');
    expect(homeFolder()).toBe('/home/ann');
    vi.mocked(homedir).mockImplementationOnce(() => {
      throw new Error('ENOENT: no such file or directory, uv_os_homedir');
    });
    expect(homeFolder()).toBe(parse(process.cwd()).root);
  });
});

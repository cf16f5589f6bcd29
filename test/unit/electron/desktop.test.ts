import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { runDesktop } from '../../../main/electron/desktop.ts';
import { electronChannel } from '../../../main/electron/port.ts';
import type { ChainliftApi, TaskSnapshot } from '../../../preload/api.ts';
import { type connectApi as ConnectApi, connectApi, serveApi } from '../../../preload/rpc.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { fakeEngine, fileEntry, target } from '../web/fake-engine.ts';
import * as electron from './fake-electron.ts';

vi.mock('electron', () => import('./fake-electron.ts'));

const page = 'chainlift://app/';
type Port = Parameters<typeof electronChannel>[0];
const channelOf = (port: electron.FakePort) => electronChannel(port as unknown as Port);

/** A `watchTasks` that a test feeds. */
function taskFeed() {
  const waiting: ((task: TaskSnapshot) => void)[] = [];
  const queued: TaskSnapshot[] = [];
  return {
    push(task: TaskSnapshot): void {
      const next = waiting.shift();
      if (next === undefined) queued.push(task);
      else next(task);
    },
    watchTasks: async function* (): AsyncGenerator<TaskSnapshot> {
      for (;;) yield queued.shift() ?? (await new Promise<TaskSnapshot>((resolve) => waiting.push(resolve)));
    },
  };
}

function copyTask(
  id: string,
  state: TaskSnapshot['state'],
  written: string[] = [],
  rest: Partial<TaskSnapshot> = {},
): TaskSnapshot {
  const result = {
    kind: 'copy' as const,
    files: written.length,
    directories: 0,
    links: 0,
    bytes: 1,
    verified: written.length,
    skipped: 0,
    written,
    copied: [],
    problems: [],
    notes: [],
  };
  return {
    id,
    kind: 'copy',
    title: `Copy ${id}`,
    state,
    started: '2026-01-01T00:00:00Z',
    progress: { bytesDone: 0, itemsDone: 0 },
    bytesPerSecond: 0,
    ...(state === 'done' ? { result } : {}),
    ...rest,
  };
}

describe('the desktop shell', () => {
  const scratch = scratchFolder('desktop');
  const argv = process.argv;
  let out = '';
  let run = 0;
  beforeAll(() => {
    out = join(scratch.path, 'out');
    mkdirSync(join(out, 'renderer'), { recursive: true });
    writeFileSync(join(out, 'renderer', 'index.html'), '<title>Chainlift</title>');
  });
  beforeEach(() => {
    electron.reset();
    run++;
    for (const name of ['temp', 'userData']) {
      const folder = join(scratch.path, `${name}-${run}`);
      mkdirSync(folder);
      electron.app.paths[name] = folder;
    }
    vi.stubEnv('ELECTRON_RENDERER_URL', undefined);
    vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  });
  afterEach(() => {
    process.argv = argv;
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
  });

  async function start(
    args: readonly string[] = [],
    methods: Partial<ChainliftApi> = {},
  ): Promise<electron.BrowserWindow> {
    const api = fakeEngine({ watchTasks: taskFeed().watchTasks, ...methods });
    electron.utilityProcess.serve = (port) => void serveApi(api, channelOf(port));
    process.argv = ['/opt/Chainlift/chainlift', ...args];
    runDesktop(out);
    await electron.app.becomeReady();
    const window = electron.BrowserWindow.made[0];
    if (window === undefined) throw new Error('There is no window');
    return window;
  }
  /** An event of the window's own page. */
  const own = (window: electron.BrowserWindow) => ({
    sender: window.webContents,
    senderFrame: window.webContents.mainFrame,
  });
  /** The engine as the window gets it. */
  function engineOf(window: electron.BrowserWindow): ReturnType<typeof ConnectApi> {
    electron.ipcMain.emit('chainlift:port', own(window));
    const port = window.webContents.posted.at(-1)?.ports[0];
    if (port === undefined) throw new Error('There was no port');
    return connectApi(channelOf(port));
  }

  describe('security', () => {
    it('gives the page no way to Node and none out of its sandbox', async () => {
      const window = await start();
      expect(window.options.webPreferences).toEqual({
        preload: join(out, 'preload', 'bridge.cjs'),
        contextIsolation: true,
        sandbox: true,
        nodeIntegration: false,
        nodeIntegrationInWorker: false,
        nodeIntegrationInSubFrames: false,
        webSecurity: true,
        allowRunningInsecureContent: false,
        experimentalFeatures: false,
        webviewTag: false,
        navigateOnDragDrop: false,
        safeDialogs: true,
        spellcheck: false,
        devTools: false,
      });
      expect(electron.app.enableSandbox).toHaveBeenCalledOnce();
      expect(window.loaded).toEqual([page]);
      expect(electron.protocol.registerSchemesAsPrivileged).toHaveBeenCalledWith([
        { scheme: 'chainlift', privileges: { standard: true, secure: true, supportFetchAPI: true } },
      ]);
    });

    it('denies navigation, redirects, new windows and embedded views to any web content', async () => {
      await start();
      const contents = new electron.FakeContents();
      electron.app.emit('web-contents-created', new electron.FakeEvent(), contents);
      expect(contents.openHandler?.({ url: 'https://example.org/' })).toEqual({ action: 'deny' });
      for (const name of ['will-navigate', 'will-frame-navigate', 'will-redirect', 'will-attach-webview']) {
        for (const url of ['https://example.org/', page, 'file:///etc/passwd', 'javascript:alert(1)']) {
          const event = new electron.FakeEvent({ url, isMainFrame: true });
          contents.emit(name, event);
          expect(event.defaultPrevented, `${name} ${url}`).toBe(true);
        }
      }
    });

    it('denies permissions, devices, downloads and the network', async () => {
      await start();
      const { handlers } = electron.session.defaultSession;
      const request = (permission: string, requestingUrl: string, isMainFrame = true): unknown => {
        let granted: unknown;
        handlers.request?.({}, permission, (answer: unknown) => (granted = answer), { requestingUrl, isMainFrame });
        expect(handlers.check?.({}, permission, requestingUrl, { requestingUrl, isMainFrame })).toBe(granted);
        return granted;
      };
      for (const permission of [
        'media',
        'geolocation',
        'notifications',
        'clipboard-read',
        'openExternal',
        'fileSystem',
        'unknown',
      ]) {
        expect(request(permission, page), permission).toBe(false);
      }
      // The one that the window uses: the copy buttons of the mount panel.
      expect(request('clipboard-sanitized-write', page)).toBe(true);
      expect(request('clipboard-sanitized-write', 'https://example.org/')).toBe(false);
      expect(request('clipboard-sanitized-write', page, false)).toBe(false);
      expect(handlers.check?.(null, 'clipboard-sanitized-write', '', { isMainFrame: true })).toBe(false);
      expect(handlers.device?.({})).toBe(false);
      const download = new electron.FakeEvent();
      electron.session.defaultSession.emit('will-download', download);
      expect(download.defaultPrevented).toBe(true);
      const cancelled = (url: string): unknown => {
        let answer: unknown;
        handlers.beforeRequest?.({ url }, (result: { cancel: boolean }) => (answer = result.cancel));
        return answer;
      };
      for (const url of [
        'https://example.org/',
        'http://127.0.0.1/',
        'ws://localhost/',
        'file:///etc/passwd',
        'ftp://a/',
        ':',
      ]) {
        expect(cancelled(url), url).toBe(true);
      }
      expect(cancelled(`${page}assets/a.js`)).toBe(false);
      expect(cancelled('blob:chainlift://app/1')).toBe(false);
    });

    it('answers calls of the main frame of its own page only', async () => {
      const window = await start(['/backups']);
      const contents = window.webContents;
      const strangers = {
        'another web content': { sender: new electron.FakeContents(), senderFrame: contents.mainFrame },
        'a frame in the page': { sender: contents, senderFrame: { parent: contents.mainFrame, url: page } },
        'another page': { sender: contents, senderFrame: { parent: null, url: 'https://example.org/' } },
        'a page that looks alike': { sender: contents, senderFrame: { parent: null, url: 'chainlift://app.evil/' } },
        'a page with a name in front': { sender: contents, senderFrame: { parent: null, url: 'chainlift://x@app/' } },
        'a file': { sender: contents, senderFrame: { parent: null, url: 'file:///chainlift://app/' } },
        'a frame that is gone': { sender: contents, senderFrame: null },
      };
      const calls: [string, unknown[]][] = [
        ['chainlift:choose-folder', ['open']],
        ['chainlift:start-drag', [target, ['/sda1/a']]],
        ['chainlift:reveal', ['/tmp/a']],
      ];
      expect([...electron.ipcMain.handlers.keys()].sort()).toEqual(calls.map(([name]) => name).sort());
      expect(electron.ipcMain.eventNames().sort()).toEqual(['chainlift:initial-source', 'chainlift:port']);
      for (const [who, event] of Object.entries(strangers)) {
        for (const [channel, args] of calls) {
          const outcome = await electron.ipcMain.invoke(channel, event, ...args);
          expect(outcome, `${channel} from ${who}`).toMatchObject({ ok: false, error: { kind: 'denied' } });
        }
        const question = { ...event, returnValue: 'unanswered' as unknown };
        electron.ipcMain.emit('chainlift:initial-source', question);
        expect(question.returnValue, who).toBeUndefined();
        electron.ipcMain.emit('chainlift:port', event);
        expect(contents.posted, who).toEqual([]);
      }
      expect(electron.dialog.showOpenDialog).not.toHaveBeenCalled();
      const question = { ...own(window), returnValue: undefined as unknown };
      electron.ipcMain.emit('chainlift:initial-source', question);
      expect(question.returnValue).toBe('/backups');
    });

    it.each<[string, unknown[]]>([
      ['chainlift:choose-folder', []],
      ['chainlift:choose-folder', ['delete']],
      ['chainlift:choose-folder', ['open', 'more']],
      ['chainlift:start-drag', [target]],
      ['chainlift:start-drag', [target, []]],
      ['chainlift:start-drag', [target, ['relative']]],
      ['chainlift:start-drag', [target, ['/a\0b']]],
      ['chainlift:start-drag', [{ ...target, source: 'relative' }, ['/sda1/a']]],
      ['chainlift:start-drag', [{ ...target, extra: 1 }, ['/sda1/a']]],
      ['chainlift:start-drag', [null, ['/sda1/a']]],
      ['chainlift:reveal', [7]],
      ['chainlift:reveal', ['']],
      ['chainlift:reveal', [{ path: '/a' }]],
    ])('refuses %s of %j by its schema', async (channel, args) => {
      const window = await start();
      expect(await electron.ipcMain.invoke(channel, own(window), ...args)).toMatchObject({
        ok: false,
        error: { kind: 'usage' },
      });
      expect(electron.dialog.showOpenDialog).not.toHaveBeenCalled();
    });

    it('loads electron-vite’s page only when it is not packaged, and only from this computer', async () => {
      vi.stubEnv('ELECTRON_RENDERER_URL', 'http://localhost:5173/');
      expect((await start()).loaded).toEqual([page]);
      electron.reset();
      electron.app.isPackaged = false;
      const development = await start(['.']);
      expect(development.loaded).toEqual(['http://localhost:5173/']);
      expect(electron.session.defaultSession.protocol.handled.size).toBe(0);
      electron.reset();
      vi.stubEnv('ELECTRON_RENDERER_URL', 'http://example.org/');
      electron.app.isPackaged = false;
      expect((await start(['.'])).loaded).toEqual([page]);
    });

    it('serves the built page under its policy', async () => {
      await start();
      const handle = electron.session.defaultSession.protocol.handled.get('chainlift');
      const answer = await handle?.({ method: 'GET', url: page });
      expect(answer?.status).toBe(200);
      expect(await answer?.text()).toBe('<title>Chainlift</title>');
      expect(answer?.headers.get('content-security-policy')).toBe(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      );
      for (const url of [
        `${page}../secret`,
        `${page}%2e%2e/secret`,
        `${page}..%2f..%2fpackage.json`,
        'chainlift://other/index.html',
        `${page}nothing`,
      ]) {
        expect((await handle?.({ method: 'GET', url }))?.status, url).toBe(404);
      }
      expect((await handle?.({ method: 'POST', url: page }))?.status).toBe(405);
    });
  });

  describe('one instance', () => {
    it('hands its folder to the one that runs, and ends', () => {
      electron.app.firstInstance = false;
      process.argv = ['/opt/Chainlift/chainlift', '--flag', '/backups/web01'];
      runDesktop(out);
      expect(electron.app.lockData).toEqual({ source: '/backups/web01' });
      expect(electron.app.quit).toHaveBeenCalledOnce();
      expect(electron.app.eventNames()).toEqual([]);
      expect(electron.protocol.registerSchemesAsPrivileged).not.toHaveBeenCalled();
    });

    it('opens the folder of a second start in its window', async () => {
      const window = await start();
      window.minimized = true;
      electron.app.emit('second-instance', {}, [], '/', { source: '/backups/db02' });
      expect(electron.BrowserWindow.made).toHaveLength(1);
      expect(window.restore).toHaveBeenCalledOnce();
      expect(window.focus).toHaveBeenCalledOnce();
      expect(window.webContents.reload).toHaveBeenCalledOnce();
      const question = { ...own(window), returnValue: undefined as unknown };
      electron.ipcMain.emit('chainlift:initial-source', question);
      expect(question.returnValue).toBe('/backups/db02');
      expect(electron.app.addRecentDocument).toHaveBeenCalledWith('/backups/db02');
    });

    it.each([[undefined], [null], [{ source: null }], [{ source: 'relative' }], [{ source: 7 }], ['/backups']])(
      'only comes to the front for %j',
      async (data) => {
        const window = await start();
        electron.app.emit('second-instance', {}, ['chainlift', '/evil'], '/', data);
        expect(window.focus).toHaveBeenCalledOnce();
        expect(window.webContents.reload).not.toHaveBeenCalled();
      },
    );

    it('keeps a folder that macOS asks for before the start', async () => {
      process.argv = ['/opt/Chainlift/chainlift'];
      runDesktop(out);
      const event = new electron.FakeEvent();
      electron.app.emit('open-file', event, '/backups/early');
      expect(event.defaultPrevented).toBe(true);
      await electron.app.becomeReady();
      const window = electron.BrowserWindow.made[0]!;
      const question = { ...own(window), returnValue: undefined as unknown };
      electron.ipcMain.emit('chainlift:initial-source', question);
      expect(question.returnValue).toBe('/backups/early');
    });
  });

  describe('menu and dialogs', () => {
    it('opens a folder from the menu', async () => {
      const window = await start();
      electron.dialog.showOpenDialog.mockResolvedValue({ canceled: false, filePaths: ['/backups/chosen'] });
      const items = electron.Menu.template.flatMap((menu) => (Array.isArray(menu.submenu) ? menu.submenu : []));
      const open = items.find((item) => item.id === 'open-folder');
      expect(open).toMatchObject({ label: 'Open Folder…', accelerator: 'CmdOrCtrl+O' });
      open.click();
      await expect.poll(() => window.webContents.reload.mock.calls.length).toBe(1);
      expect(electron.dialog.showOpenDialog.mock.calls[0]?.[0]).toBe(window);
      expect(electron.dialog.showOpenDialog.mock.calls[0]?.[1]).toMatchObject({ properties: ['openDirectory'] });
      expect(electron.app.addRecentDocument).toHaveBeenCalledWith('/backups/chosen');
      expect(items.some((item) => item.role === 'toggleDevTools' || item.role === 'reload')).toBe(false);
    });

    it('answers the page’s wish for a folder', async () => {
      const window = await start();
      expect(await electron.ipcMain.invoke('chainlift:choose-folder', own(window), 'open')).toEqual({
        ok: true,
        value: undefined,
      });
      electron.dialog.showOpenDialog.mockResolvedValue({ canceled: false, filePaths: ['/home/me/out'] });
      expect(await electron.ipcMain.invoke('chainlift:choose-folder', own(window), 'copy-to')).toEqual({
        ok: true,
        value: '/home/me/out',
      });
      expect(electron.dialog.showOpenDialog.mock.calls.at(-1)?.[1]).toMatchObject({
        properties: ['openDirectory', 'createDirectory'],
      });
      expect(electron.app.addRecentDocument).not.toHaveBeenCalled();
      electron.dialog.showOpenDialog.mockRejectedValue(new Error('no dialog here'));
      expect(await electron.ipcMain.invoke('chainlift:choose-folder', own(window), 'open')).toEqual({
        ok: false,
        error: { kind: 'internal', message: 'no dialog here', details: {} },
      });
    });

    it('remembers where the window was', async () => {
      const window = await start();
      expect(window.options).toMatchObject({ width: 1280, height: 820, show: false });
      expect(window.close()).toBe(true);
      electron.app.emit('activate');
      expect(electron.BrowserWindow.made[1]?.options).toMatchObject({ x: 10, y: 20, width: 1000, height: 700 });
    });
  });

  describe('the engine', () => {
    it('is started once, with its parent’s process id, and served to every window that asks', async () => {
      const window = await start([], { recent: async () => [] });
      expect(await engineOf(window).recent({})).toEqual([]);
      expect(await engineOf(window).recent({})).toEqual([]);
      expect(electron.utilityProcess.children).toHaveLength(1);
      expect(electron.utilityProcess.children[0]?.arguments).toMatchObject({
        path: join(out, 'main', 'engine-process.js'),
        args: [`--parent=${process.pid}`],
      });
    });

    it('is started again once when it crashes; calls under way fail, a new port works', async () => {
      const window = await start([], { recent: async () => [], about: () => new Promise(() => undefined) });
      const before = engineOf(window);
      const pending = before.about({});
      electron.utilityProcess.children[0]?.end(139);
      await expect(pending).rejects.toMatchObject({ kind: 'io', details: { code: 'DISCONNECTED' } });
      expect(electron.utilityProcess.children).toHaveLength(2);
      expect(await engineOf(window).recent({})).toEqual([]);
      expect(electron.dialog.showMessageBox).not.toHaveBeenCalled();
    });

    it('asks after the second crash, and starts again when told to', async () => {
      const window = await start([], { recent: async () => [] });
      engineOf(window);
      let answer: (value: { response: number }) => void = () => undefined;
      electron.dialog.showMessageBox.mockReturnValue(new Promise((resolve) => (answer = resolve)));
      electron.utilityProcess.children[0]?.end(139);
      electron.utilityProcess.children[1]?.end(139);
      expect(electron.utilityProcess.children).toHaveLength(2);
      expect(electron.dialog.showMessageBox).toHaveBeenCalledOnce();
      electron.ipcMain.emit('chainlift:port', own(window));
      expect(window.webContents.posted).toHaveLength(1);
      expect(await electron.ipcMain.invoke('chainlift:start-drag', own(window), target, ['/sda1/a'])).toMatchObject({
        ok: false,
        error: { kind: 'io', details: { code: 'DISCONNECTED' } },
      });
      answer({ response: 0 });
      await expect.poll(() => electron.utilityProcess.children.length).toBe(3);
      expect(await engineOf(window).recent({})).toEqual([]);
    });

    it('is closed, with all that was staged, before the program ends', async () => {
      const window = await start([], { recent: async () => [] });
      await engineOf(window).recent({});
      const event = new electron.FakeEvent();
      electron.app.emit('will-quit', event);
      expect(event.defaultPrevented).toBe(true);
      await expect.poll(() => electron.app.exit.mock.calls).toEqual([[0]]);
      expect(electron.utilityProcess.children).toHaveLength(1);
      expect(electron.utilityProcess.children[0]?.messages.at(-1)).toEqual({ type: 'close' });
    });
  });

  describe('copies', () => {
    it('are asked about before their window closes', async () => {
      const feed = taskFeed();
      const window = await start([], { watchTasks: feed.watchTasks, recent: async () => [] });
      await engineOf(window).recent({});
      feed.push(copyTask('1', 'running'));
      await expect.poll(() => window.close(), { interval: 10 }).toBe(false);
      await expect.poll(() => electron.dialog.showMessageBox.mock.calls.length).toBeGreaterThan(0);
      expect(electron.app.quit).not.toHaveBeenCalled();
      electron.dialog.showMessageBox.mockResolvedValue({ response: 1 });
      await expect
        .poll(() => {
          window.close();
          return electron.app.quit.mock.calls.length;
        })
        .toBeGreaterThan(0);
      expect(window.close()).toBe(true);
    });

    it('do not hold the window once they have ended', async () => {
      const feed = taskFeed();
      const window = await start([], { watchTasks: feed.watchTasks, recent: async () => [] });
      await engineOf(window).recent({});
      feed.push(copyTask('1', 'running'));
      feed.push(copyTask('1', 'failed'));
      feed.push(copyTask('2', 'done', ['/home/me/out/a']));
      await expect
        .poll(() => electron.ipcMain.invoke('chainlift:reveal', own(window), '/home/me/out/a'))
        .toMatchObject({ ok: true });
      expect(window.close()).toBe(true);
      expect(electron.dialog.showMessageBox).not.toHaveBeenCalled();
    });

    it('are all that is shown in its folder', async () => {
      const feed = taskFeed();
      const window = await start([], { watchTasks: feed.watchTasks, recent: async () => [] });
      await engineOf(window).recent({});
      feed.push(copyTask('1', 'failed', [], {}));
      feed.push(copyTask('2', 'running'));
      feed.push(copyTask('2', 'done', ['/home/me/out/www']));
      const reveal = (path: string) => electron.ipcMain.invoke('chainlift:reveal', own(window), path);
      await expect.poll(() => reveal('/home/me/out/www')).toEqual({ ok: true, value: undefined });
      expect(electron.shell.showItemInFolder).toHaveBeenLastCalledWith('/home/me/out/www');
      electron.shell.showItemInFolder.mockClear();
      for (const path of ['/home/me/out', '/home/me/out/www/../../x', '/etc/passwd', '/home/me/out/www/']) {
        expect(await reveal(path), path).toMatchObject({ ok: false, error: { kind: 'denied' } });
      }
      expect(electron.shell.showItemInFolder).not.toHaveBeenCalled();
    });

    it('stage what is dragged out, and that alone is not asked about', async () => {
      const feed = taskFeed();
      let staged = '';
      const window = await start([], {
        watchTasks: feed.watchTasks,
        stat: async ({ path }) => fileEntry(path, 5),
        copy: async ({ destination, paths }) => {
          staged = join(destination, 'index.php');
          expect(paths).toEqual(['/sda1/srv/index.php']);
          writeFileSync(staged, '<?php');
          feed.push(copyTask('9', 'running'));
          return copyTask('9', 'running');
        },
        watchTask: async function* () {
          yield copyTask('9', 'done', [staged]);
        },
      });
      const outcome = await electron.ipcMain.invoke('chainlift:start-drag', own(window), target, [
        '/sda1/srv/index.php',
      ]);
      expect(outcome).toEqual({ ok: true, value: 'dragging' });
      expect(window.webContents.startDrag).toHaveBeenCalledOnce();
      const [item] = window.webContents.startDrag.mock.calls[0] ?? [];
      expect(item).toMatchObject({ file: staged, files: [staged] });
      expect(item.icon.isEmpty()).toBe(false);
      expect(readFileSync(item.files[0], 'utf8')).toBe('<?php');
      expect(window.close()).toBe(true);
      electron.app.emit('will-quit', new electron.FakeEvent());
      await expect.poll(() => electron.app.exit.mock.calls.length).toBe(1);
      expect(existsSync(staged)).toBe(false);
      expect(readdirSync(electron.app.paths.temp!)).toEqual([]);
    });
  });

  it('loads a page that crashed again once, then says so', async () => {
    const window = await start();
    window.webContents.emit('render-process-gone', {}, { reason: 'clean-exit' });
    expect(window.webContents.reload).not.toHaveBeenCalled();
    window.webContents.emit('render-process-gone', {}, { reason: 'crashed' });
    expect(window.webContents.reload).toHaveBeenCalledOnce();
    window.webContents.emit('render-process-gone', {}, { reason: 'oom' });
    expect(window.webContents.reload).toHaveBeenCalledOnce();
    expect(electron.dialog.showErrorBox).toHaveBeenCalledOnce();
  });

  it('says why it cannot start without a built window', async () => {
    process.argv = ['/opt/Chainlift/chainlift'];
    runDesktop(join(scratch.path, 'not-built'));
    await electron.app.becomeReady();
    expect(electron.dialog.showErrorBox).toHaveBeenCalledWith(
      'Chainlift cannot start',
      expect.stringContaining('cannot be read'),
    );
    expect(electron.app.exit).toHaveBeenCalledWith(1);
  });
});

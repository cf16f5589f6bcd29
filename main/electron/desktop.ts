/**
 * The desktop shell put together: one instance, one window, one engine process. Thin: what it does not have to do itself,
 * the engine does.
 */
import { join } from 'node:path';
import {
  app,
  type BrowserWindow,
  dialog,
  ipcMain,
  Menu,
  MessageChannelMain,
  nativeImage,
  session,
  shell,
  utilityProcess,
} from 'electron';
import { z } from 'zod';
import { REQUEST_SCHEMAS } from '../../preload/schemas.ts';
import { sourceOf } from './command-line.ts';
import { dragIcon } from './drag-icon.ts';
import { DragOut } from './drag-out.ts';
import { EngineHost } from './engine-host.ts';
import { hardenContents, hardenSession } from './hardening.ts';
import { WindowCalls } from './ipc.ts';
import { warn } from './log.ts';
import { menuTemplate } from './menu.ts';
import { pageAddress, pageUrl, registerScheme, servePage } from './page.ts';
import { StagingArea } from './staging.ts';
import { TaskWatch } from './tasks.ts';
import { createWindow } from './window.ts';

/** As electron-builder.yml names it; Windows joins windows, recent folders and the launcher by it. */
const applicationId = 'org.chainlift.Chainlift';

const { target: targetSchema } = REQUEST_SCHEMAS.info.shape;
const { source: sourceSchema } = REQUEST_SCHEMAS.scan.shape;
const { paths: pathsSchema } = REQUEST_SCHEMAS.copy.shape;
const launchSchema = z.object({ source: sourceSchema.nullable() });

/** A page that crashes again within this time is not loaded again by itself. */
const calm = 60_000;

/** Runs the desktop shell from the built files in `out`. A second start hands its folder to the first and ends. */
export function runDesktop(out: string): void {
  const source = sourceOf(process.argv, process.cwd(), app.isPackaged);
  if (!app.requestSingleInstanceLock({ source: source ?? null })) {
    app.quit();
    return;
  }
  const page = pageAddress(app.isPackaged, process.env);
  app.enableSandbox();
  if (process.platform === 'win32') app.setAppUserModelId(applicationId);
  registerScheme();
  hardenContents(app, page);
  const desktop = new Desktop(out, page, source);
  desktop.listen();
  app.whenReady().then(
    () => desktop.start(),
    (error: unknown) => fail(error),
  );
}

function fail(error: unknown): void {
  dialog.showErrorBox('Chainlift cannot start', error instanceof Error ? error.message : String(error));
  app.exit(1);
}

/** The system's dialogs by what they are for. */
const DIALOGS = {
  open: { title: 'Open a backup folder', buttonLabel: 'Open', properties: ['openDirectory'] },
  'copy-to': { title: 'Copy to', buttonLabel: 'Copy here', properties: ['openDirectory', 'createDirectory'] },
  locate: { title: 'Where is the parent?', buttonLabel: 'Use this image', properties: ['openFile'] },
} as const;

class Desktop {
  readonly #out: string;
  readonly #page: string;
  readonly #mac = process.platform === 'darwin';
  readonly #tasks = new TaskWatch();
  readonly #staging = new StagingArea(app.getPath('temp'));
  readonly #host: EngineHost;
  readonly #dragOut: DragOut;
  /** What the page opens when it loads. */
  #source: string | undefined;
  #window: BrowserWindow | undefined;
  #quitting = false;
  #leaveCopies = false;
  #cleaning = false;
  #asking = false;
  #lastPageCrash = Number.NEGATIVE_INFINITY;

  constructor(out: string, page: string, source: string | undefined) {
    this.#out = out;
    this.#page = page;
    this.#source = source;
    this.#host = new EngineHost({
      fork: () =>
        utilityProcess.fork(join(out, 'main', 'engine-process.js'), [`--parent=${process.pid}`], {
          serviceName: 'Chainlift engine',
          stdio: 'inherit',
        }),
      createChannel: () => new MessageChannelMain(),
      onStarted: () => {
        const api = this.#host.api();
        if (api !== undefined) void this.#tasks.follow(api);
      },
      onGivenUp: (code) => void this.#engineGivenUp(code),
    });
    this.#dragOut = new DragOut({
      engine: () => this.#host.api(),
      staging: this.#staging,
      onTask: (id) => this.#tasks.own(id),
      startDrag: (files) => {
        this.#window?.webContents.startDrag({
          file: files[0] ?? '',
          files: [...files],
          icon: nativeImage.createFromDataURL(dragIcon),
        });
      },
    });
  }

  /** Takes the program's events. Those that come before it is ready are kept. */
  listen(): void {
    app.on('second-instance', (_event, _argv, _folder, data) => {
      const launch = launchSchema.safeParse(data);
      if (launch.success && launch.data.source !== null) this.open(launch.data.source);
      else this.#show();
    });
    // macOS: a folder dropped on the icon, or chosen among the recent ones.
    app.on('open-file', (event, path) => {
      event.preventDefault();
      this.open(path);
    });
    app.on('activate', () => this.#show());
    app.on('window-all-closed', () => {
      if (!this.#mac) app.quit();
    });
    app.on('before-quit', () => {
      this.#quitting = true;
    });
    app.on('will-quit', (event) => {
      event.preventDefault();
      void this.#cleanUp();
    });
  }

  /** Called once the program is ready. */
  start(): void {
    try {
      hardenSession(session.defaultSession, this.#page);
      if (this.#page === pageUrl) servePage(session.defaultSession, join(this.#out, 'renderer'));
      this.#takeCalls();
      Menu.setApplicationMenu(
        Menu.buildFromTemplate(
          menuTemplate(process.platform, !app.isPackaged, { openFolder: () => void this.#openByDialog() }),
        ),
      );
      this.#staging
        .removeStale()
        .catch((error: unknown) => warn(`what earlier drags left cannot be removed: ${String(error)}`));
      if (this.#source !== undefined) app.addRecentDocument(this.#source);
      this.#show();
    } catch (error) {
      fail(error);
    }
  }

  /** Opens a source in the window. The page is loaded anew with it; tasks and exports are the engine's and go on. */
  open(source: string): void {
    this.#source = source;
    if (!app.isReady()) return;
    app.addRecentDocument(source);
    const window = this.#window;
    this.#show();
    window?.webContents.reload();
  }

  /** Brings the window to the front, or makes it. */
  #show(): void {
    if (!app.isReady() || this.#cleaning) return;
    if (this.#window !== undefined) {
      if (this.#window.isMinimized()) this.#window.restore();
      this.#window.focus();
      return;
    }
    const window = createWindow({
      page: this.#page,
      preload: join(this.#out, 'preload', 'bridge.cjs'),
      boundsFile: join(app.getPath('userData'), 'window.json'),
      developerTools: !app.isPackaged,
      mayClose: () => this.#mayClose(),
    });
    this.#window = window;
    window.on('closed', () => {
      this.#window = undefined;
    });
    window.webContents.on('input-event', (_event, input) => {
      if (input.type === 'mouseUp') this.#dragOut.released();
    });
    window.webContents.on('render-process-gone', (_event, details) => {
      if (details.reason !== 'clean-exit') this.#pageGone(details.reason);
    });
    window.loadURL(this.#page).catch((error: unknown) => warn(`the window cannot be loaded: ${String(error)}`));
  }

  #takeCalls(): void {
    const calls = new WindowCalls(ipcMain, () => this.#window?.webContents, this.#page);
    calls.answer('chainlift:initial-source', () => this.#source);
    calls.on('chainlift:port', () => {
      const port = this.#host.connect();
      if (port !== undefined) this.#window?.webContents.postMessage('chainlift:port', null, [port]);
    });
    calls.handle('chainlift:choose-folder', z.tuple([z.enum(['open', 'copy-to', 'locate'])]), async (purpose) => {
      const folder = await this.#chooseFolder(purpose);
      if (folder !== undefined && purpose === 'open') {
        this.#source = folder;
        app.addRecentDocument(folder);
      }
      return folder;
    });
    calls.handle('chainlift:start-drag', z.tuple([targetSchema, pathsSchema]), (target, paths) =>
      // The schema's optional members are absent or present, never undefined: they came through structured clone checks.
      this.#dragOut.begin(target as Parameters<DragOut['begin']>[0], paths),
    );
    calls.handle('chainlift:reveal', z.tuple([z.string().min(1).max(32_767)]), (path) =>
      shell.showItemInFolder(this.#tasks.made(path)),
    );
  }

  async #chooseFolder(purpose: keyof typeof DIALOGS): Promise<string | undefined> {
    const { title, buttonLabel, properties } = DIALOGS[purpose];
    const dialogOptions = { title, buttonLabel, properties: [...properties] };
    const answer = await (this.#window === undefined
      ? dialog.showOpenDialog(dialogOptions)
      : dialog.showOpenDialog(this.#window, dialogOptions));
    return answer.canceled ? undefined : answer.filePaths[0];
  }

  async #openByDialog(): Promise<void> {
    const folder = await this.#chooseFolder('open');
    if (folder !== undefined) this.open(folder);
  }

  /** Closing the last window ends the copies under way: a person is asked first. */
  #mayClose(): boolean {
    const copies = this.#tasks.copies;
    if (this.#leaveCopies || copies.length === 0 || (this.#mac && !this.#quitting)) return true;
    if (!this.#asking) void this.#askToLeave(copies);
    return false;
  }

  async #askToLeave(copies: readonly string[]): Promise<void> {
    this.#asking = true;
    // Keeping the window open has called off the quitting.
    this.#quitting = false;
    const options = {
      type: 'warning' as const,
      message: copies.length === 1 ? 'A copy is still running.' : `${copies.length} copies are still running.`,
      detail: `${copies.slice(0, 5).join('\n')}\n\nFiles that are whole already stay; the rest is not copied.`,
      buttons: ['Keep copying', 'Stop and quit'],
      defaultId: 0,
      cancelId: 0,
    };
    const answer = await (this.#window === undefined
      ? dialog.showMessageBox(options)
      : dialog.showMessageBox(this.#window, options)
    ).finally(() => {
      this.#asking = false;
    });
    if (answer.response !== 1) return;
    this.#leaveCopies = true;
    app.quit();
  }

  #pageGone(reason: string): void {
    warn(`the window's page ended: ${reason}`);
    const now = performance.now();
    const again = now - this.#lastPageCrash < calm;
    this.#lastPageCrash = now;
    if (!again) this.#window?.webContents.reload();
    else
      dialog.showErrorBox(
        'The window stopped twice',
        `Open it again from the menu, or start Chainlift again. (${reason})`,
      );
  }

  async #engineGivenUp(code: number): Promise<void> {
    const options = {
      type: 'error' as const,
      message: 'The engine stopped twice within a minute.',
      detail: `Your backups were only read and are unchanged. Copies and mounts that were running have ended. (Exit code ${code})`,
      buttons: ['Start it again', 'Quit'],
      defaultId: 0,
      cancelId: 0,
    };
    const answer = await (this.#window === undefined
      ? dialog.showMessageBox(options)
      : dialog.showMessageBox(this.#window, options));
    if (answer.response === 1) app.quit();
    else this.#host.restart();
  }

  async #cleanUp(): Promise<void> {
    if (this.#cleaning) return;
    this.#cleaning = true;
    // The engine first: it may still be writing into what is staged.
    const results = [await settled(this.#host.stop()), await settled(this.#staging.remove())];
    for (const error of results) if (error !== undefined) warn(`not all was cleaned up: ${String(error)}`);
    // Not quit(), which would ask everything again.
    app.exit(0);
  }
}

/** What a promise failed with, undefined when it did not. */
async function settled(promise: Promise<void>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

/**
 * Electron as far as the desktop shell uses it, for tests where its binary is not: what is called is noted, what Electron
 * would tell is emitted. `vi.mock('electron', () => import('./fake-electron.ts'))`.
 */
import { EventEmitter } from 'node:events';
import { type MessagePort, MessageChannel as NodeMessageChannel } from 'node:worker_threads';
import { vi } from 'vitest';

type Row = Record<string, unknown>;

class FakeApp extends EventEmitter {
  isPackaged = true;
  firstInstance = true;
  paths: Record<string, string> = {};
  lockData: unknown;
  ready = false;
  #whenReady: (() => void)[] = [];
  quit = vi.fn();
  exit = vi.fn();
  enableSandbox = vi.fn();
  addRecentDocument = vi.fn();
  setAppUserModelId = vi.fn();
  isReady = (): boolean => this.ready;
  getPath = (name: string): string => this.paths[name] ?? '/nonexistent';
  requestSingleInstanceLock(data: unknown): boolean {
    this.lockData = data;
    return this.firstInstance;
  }
  whenReady(): Promise<void> {
    return new Promise((resolve) => this.#whenReady.push(resolve));
  }
  async becomeReady(): Promise<void> {
    this.ready = true;
    for (const resolve of this.#whenReady.splice(0)) resolve();
    await Promise.resolve();
  }
}
export const app = new FakeApp();

export class FakeEvent {
  defaultPrevented = false;
  readonly [key: string]: unknown;
  constructor(fields: Row = {}) {
    Object.assign(this, fields);
  }
  preventDefault(): void {
    this.defaultPrevented = true;
  }
}

export class FakeContents extends EventEmitter {
  openHandler: ((details: Row) => unknown) | undefined;
  mainFrame = { parent: null, url: 'chainlift://app/' };
  posted: { channel: string; message: unknown; ports: FakePort[] }[] = [];
  reload = vi.fn();
  startDrag = vi.fn();
  setWindowOpenHandler(handler: (details: Row) => unknown): void {
    this.openHandler = handler;
  }
  postMessage(channel: string, message: unknown, ports: FakePort[]): void {
    this.posted.push({ channel, message, ports });
  }
}

export class BrowserWindow extends EventEmitter {
  static made: BrowserWindow[] = [];
  readonly options: Row & { webPreferences: Row };
  readonly webContents = new FakeContents();
  loaded: string[] = [];
  minimized = false;
  focus = vi.fn();
  show = vi.fn();
  maximize = vi.fn();
  restore = vi.fn();
  constructor(options: Row & { webPreferences: Row }) {
    super();
    this.options = options;
    BrowserWindow.made.push(this);
    app.emit('web-contents-created', new FakeEvent(), this.webContents);
  }
  async loadURL(url: string): Promise<void> {
    this.loaded.push(url);
  }
  isMinimized = (): boolean => this.minimized;
  isMaximized = (): boolean => false;
  getNormalBounds = (): Row => ({ x: 10, y: 20, width: 1000, height: 700 });
  /** What a click on its close button does. @returns whether it closed. */
  close(): boolean {
    const event = new FakeEvent();
    this.emit('close', event);
    if (!event.defaultPrevented) this.emit('closed', new FakeEvent());
    return !event.defaultPrevented;
  }
}

type Listener = (event: Row, ...args: unknown[]) => unknown;
class FakeIpc extends EventEmitter {
  handlers = new Map<string, Listener>();
  handle(channel: string, listener: Listener): void {
    if (this.handlers.has(channel)) throw new Error(`${channel} has a handler already`);
    this.handlers.set(channel, listener);
  }
  async invoke(channel: string, event: Row, ...args: unknown[]): Promise<unknown> {
    const handler = this.handlers.get(channel);
    if (handler === undefined) throw new Error(`No handler for ${channel}`);
    // What crosses is cloned, as Electron does.
    return structuredClone(await handler(event, ...structuredClone(args)));
  }
}
export const ipcMain = new FakeIpc();

/** Electron's MessagePortMain over Node's port: an emitter of `{data, ports}`. */
export class FakePort extends EventEmitter {
  readonly inner: MessagePort;
  constructor(inner: MessagePort) {
    super();
    this.inner = inner;
    inner.on('close', () => this.emit('close'));
  }
  start(): void {
    this.inner.on('message', (data) => this.emit('message', { data, ports: [] }));
  }
  postMessage(message: unknown): void {
    this.inner.postMessage(message);
  }
  close(): void {
    this.inner.close();
  }
}
export class MessageChannelMain {
  readonly port1: FakePort;
  readonly port2: FakePort;
  constructor() {
    const { port1, port2 } = new NodeMessageChannel();
    this.port1 = new FakePort(port1);
    this.port2 = new FakePort(port2);
  }
}

export class FakeChild extends EventEmitter {
  readonly arguments: { path: string; args: readonly string[]; options: Row };
  readonly ports: FakePort[] = [];
  messages: unknown[] = [];
  kill = vi.fn(() => this.end(15));
  constructor(path: string, args: readonly string[], options: Row) {
    super();
    this.arguments = { path, args, options };
  }
  postMessage(message: Row, ports: FakePort[] = []): void {
    this.messages.push(message);
    for (const port of ports) {
      this.ports.push(port);
      utilityProcess.serve(port);
    }
    if (message.type === 'close') queueMicrotask(() => this.end(0));
  }
  /** Ends as a process does: its ports close, then its parent hears of it. */
  end(code: number): void {
    for (const port of this.ports) port.close();
    this.emit('exit', code);
  }
}
export const utilityProcess = {
  children: [] as FakeChild[],
  /** What the engine does with a port. */
  serve: (_port: FakePort): void => undefined,
  fork(path: string, args: readonly string[], options: Row): FakeChild {
    const child = new FakeChild(path, args, options);
    this.children.push(child);
    return child;
  },
};

export const protocol = { registerSchemesAsPrivileged: vi.fn() };

type PermissionHandler = (...args: unknown[]) => unknown;
class FakeSession extends EventEmitter {
  handlers: Record<string, PermissionHandler> = {};
  readonly protocol = {
    handled: new Map<string, (request: Row) => Promise<Response>>(),
    handle(scheme: string, handler: (request: Row) => Promise<Response>): void {
      this.handled.set(scheme, handler);
    },
  };
  readonly webRequest = {
    onBeforeRequest: (handler: PermissionHandler): void => {
      this.handlers.beforeRequest = handler;
    },
  };
  setPermissionRequestHandler(handler: PermissionHandler): void {
    this.handlers.request = handler;
  }
  setPermissionCheckHandler(handler: PermissionHandler): void {
    this.handlers.check = handler;
  }
  setDevicePermissionHandler(handler: PermissionHandler): void {
    this.handlers.device = handler;
  }
}
export const session = { defaultSession: new FakeSession() };

export const dialog = {
  showOpenDialog: vi.fn(async (..._args: unknown[]) => ({ canceled: true, filePaths: [] as string[] })),
  showMessageBox: vi.fn(async (..._args: unknown[]) => ({ response: 0 })),
  showErrorBox: vi.fn(),
};
export const shell = { showItemInFolder: vi.fn() };
export const nativeImage = {
  createFromDataURL: (url: string) => ({ isEmpty: () => !url.startsWith('data:image/png;base64,iVBORw0KGgo') }),
};
export const screen = { getAllDisplays: () => [{ workArea: { x: 0, y: 0, width: 1920, height: 1080 } }] };
export const Menu = {
  template: [] as Row[],
  buildFromTemplate(template: Row[]) {
    return { template };
  },
  setApplicationMenu(menu: { template: Row[] }): void {
    this.template = menu.template;
  },
};

/** Everything as after a fresh start. */
export function reset(): void {
  app.removeAllListeners();
  app.isPackaged = true;
  app.firstInstance = true;
  app.ready = false;
  app.lockData = undefined;
  ipcMain.removeAllListeners();
  ipcMain.handlers.clear();
  BrowserWindow.made.length = 0;
  for (const child of utilityProcess.children.splice(0)) {
    child.removeAllListeners();
    child.end(0);
  }
  utilityProcess.serve = () => undefined;
  session.defaultSession = new FakeSession();
  Menu.template = [];
  vi.clearAllMocks();
  dialog.showOpenDialog.mockResolvedValue({ canceled: true, filePaths: [] });
  dialog.showMessageBox.mockResolvedValue({ response: 0 });
}

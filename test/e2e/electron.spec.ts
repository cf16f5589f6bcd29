/**
 * The desktop shell in the real Electron, where its binary is (npm downloads it on install; an offline computer may not have
 * it) and a display to show it on.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { _electron, type ElectronApplication, expect, type Page, test } from '@playwright/test';

const root = join(import.meta.dirname, '..', '..');

/** Electron's program, or why it can't be run here. */
function electronProgram(): { program: string } | { reason: string } {
  const folder = join(root, 'node_modules', 'electron');
  const pathFile = join(folder, 'path.txt');
  if (!existsSync(pathFile)) return { reason: 'the Electron binary was not downloaded (npm rebuild electron does)' };
  const program = join(folder, 'dist', readFileSync(pathFile, 'utf8').trim());
  if (!existsSync(program)) return { reason: 'the Electron binary was not downloaded (npm rebuild electron does)' };
  if (!existsSync(join(root, 'out', 'main', 'electron.js'))) return { reason: 'there is no build (npm run build)' };
  if (process.platform === 'linux' && !process.env.DISPLAY && !process.env.WAYLAND_DISPLAY) {
    return { reason: 'there is no display' };
  }
  return { program };
}

/** What of the page's global object is used inside `evaluate`; the tests themselves are compiled for Node. */
interface PageGlobals {
  readonly chainlift: object;
  readonly location: { href: string };
  open(url: string): unknown;
}

const electron = electronProgram();
const reason = 'reason' in electron ? electron.reason : '';

test.describe('the desktop shell', () => {
  test.skip(reason !== '', reason);
  let folder = '';
  let application: ElectronApplication;
  let page: Page;

  test.beforeAll(async () => {
    if (!('program' in electron)) return;
    folder = mkdtempSync(join(tmpdir(), 'chainlift-electron-'));
    const demo = join(folder, 'demo');
    execFileSync(process.execPath, [join(root, 'out', 'main', 'cli.cjs'), 'demo', demo], { stdio: 'pipe' });
    application = await _electron.launch({
      executablePath: electron.program,
      // Chromium refuses its own sandbox to root, whom CI runs as; the page's isolation from Node does not depend on it.
      args: [
        ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
        `--user-data-dir=${join(folder, 'profile')}`,
        root,
        demo,
      ],
      env: { ...(process.env as Record<string, string>), ELECTRON_RENDERER_URL: '' },
    });
    page = await application.firstWindow();
  });
  test.afterAll(async () => {
    await application?.close();
    if (folder !== '') rmSync(folder, { recursive: true, force: true });
  });

  test('shows the folder of its command line, read by the engine process', async () => {
    await expect(page.getByText('web01').first()).toBeVisible();
    expect(page.url()).toBe('chainlift://app/');
  });

  test('keeps the page from Node, from the network and on its place', async () => {
    const found = await page.evaluate(async () => ({
      globals: ['require', 'process', 'module', 'Buffer', '__dirname'].filter((name) => name in globalThis),
      bridge: Object.keys((globalThis as unknown as PageGlobals).chainlift).sort(),
      network: await fetch('http://127.0.0.1:9/').then(
        () => 'answered',
        () => 'refused',
      ),
      traversal: await fetch('/..%2f..%2fpackage.json').then((answer) => answer.status),
      opened: (globalThis as unknown as PageGlobals).open('https://example.org/') === null,
    }));
    expect(found).toEqual({
      globals: [],
      bridge: ['chooseFolder', 'connect', 'initialSource', 'kind', 'platform', 'reveal', 'startDrag'],
      network: 'refused',
      traversal: 404,
      opened: true,
    });
    await page.evaluate(() => {
      (globalThis as unknown as PageGlobals).location.href = 'https://example.org/';
    });
    await expect(page.getByText('web01').first()).toBeVisible();
    expect(page.url()).toBe('chainlift://app/');
    expect(application.windows()).toHaveLength(1);
  });

  test('runs its page isolated and sandboxed', async () => {
    const preferences = await application.evaluate(({ BrowserWindow }) => {
      const contents = BrowserWindow.getAllWindows()[0]?.webContents as unknown as {
        getLastWebPreferences(): Record<string, unknown>;
      };
      const { contextIsolation, sandbox, nodeIntegration, webSecurity, webviewTag } = contents.getLastWebPreferences();
      return { contextIsolation, sandbox, nodeIntegration, webSecurity, webviewTag: webviewTag ?? false };
    });
    expect(preferences).toEqual({
      contextIsolation: true,
      sandbox: true,
      nodeIntegration: false,
      webSecurity: true,
      webviewTag: false,
    });
  });
});

/** The browser shell on a demo of its own, for tests of the window. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Browser, test as base, chromium } from '@playwright/test';

export const root = join(import.meta.dirname, '..', '..');
export const cli = join(root, 'out', 'main', 'cli.cjs');

const candidates = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const program = candidates.find((path) => existsSync(path));

/** Why the window can't be driven here, or undefined when it can. */
export const missingBrowser = program === undefined ? 'no Chromium is installed (Debian package chromium)' : undefined;

export interface Shell {
  /** Temporary folder of this test. */
  readonly scratch: string;
  /** The demo repository. */
  readonly demo: string;
  /** Starts the browser shell, on a repository or on nothing; returns its one-time address. */
  serve(source?: string): Promise<string>;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  await exited;
}

export const test = base.extend<{ shell: Shell }, { chromiumOfTheSystem: Browser }>({
  // Playwright's own browsers can't be downloaded everywhere; the system's one is what users have.
  chromiumOfTheSystem: [
    // biome-ignore lint/correctness/noEmptyPattern: Playwright wants an object pattern here
    async ({}, use) => {
      const browser = await chromium.launch({
        ...(program === undefined ? {} : { executablePath: program }),
        args: [
          '--no-sandbox',
          '--disable-quic',
          '--disable-background-networking',
          '--disable-component-update',
          '--disable-sync',
        ],
      });
      await use(browser);
      await browser.close();
    },
    { scope: 'worker' },
  ],
  page: async ({ chromiumOfTheSystem, colorScheme }, use) => {
    const context = await chromiumOfTheSystem.newContext({
      viewport: { width: 1440, height: 900 },
      colorScheme: colorScheme ?? 'light',
      locale: 'en-GB',
      timezoneId: 'UTC',
      acceptDownloads: true,
      permissions: ['clipboard-read', 'clipboard-write'],
    });
    const page = await context.newPage();
    const broken: string[] = [];
    page.on('pageerror', (error) => broken.push(error.message));
    page.on('console', (message) => {
      // A page that breaks its own content policy, or React's complaints, are defects like any other.
      if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) broken.push(message.text());
    });
    await use(page);
    await context.close();
    if (broken.length > 0) throw new Error(`the page complained: ${broken.join('\n')}`);
  },
  // biome-ignore lint/correctness/noEmptyPattern: Playwright wants an object pattern here
  shell: async ({}, use) => {
    const scratch = mkdtempSync(join(tmpdir(), 'chainlift-e2e-'));
    const demo = join(scratch, 'demo');
    execFileSync(process.execPath, [cli, 'demo', demo]);
    const children: ChildProcess[] = [];
    await use({
      scratch,
      demo,
      async serve(source) {
        const child = spawn(process.execPath, [cli, 'serve', ...(source === undefined ? [] : [source])], {
          stdio: ['ignore', 'pipe', 'inherit'],
          env: { ...process.env, CHAINLIFT_CONFIG: join(scratch, 'config'), CHAINLIFT_CACHE: join(scratch, 'cache') },
        });
        children.push(child);
        for await (const line of createInterface({ input: child.stdout! })) return line;
        throw new Error('the browser shell ended before it said its address');
      },
    });
    await Promise.all(children.map(end));
    rmSync(scratch, { recursive: true, force: true });
  },
});

export { expect } from '@playwright/test';

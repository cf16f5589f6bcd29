/**
 * The whole job in a real browser: open, pick an older point, find a file that was deleted later, get it out, mount the disk.
 * With CHAINLIFT_SCREENSHOTS=1 the pictures of docs/screenshots are made anew.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from '@playwright/test';
import truth from '../data/demo-truth.json' with { type: 'json' };
import { expect, missingBrowser, root, test } from './serve.ts';

const peersRequired = process.env.CHAINLIFT_REQUIRE_PEERS === '1';
test.skip(missingBrowser !== undefined && !peersRequired, missingBrowser ?? '');

const LOST = '/srv/www/orders-2025.csv';
const lostTruth = truth['before-upgrade'][LOST];

const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');

/** Hash and time of each image: what must be the same after everything. */
function fingerprint(folder: string): string[] {
  const names = [
    'web01.vmdk',
    'web01-000001.vmdk',
    'web01-000002.vmdk',
    'web01-000003.vmdk',
    'web01.vmx',
    'web01.vmsd',
  ];
  return names.map((name) => `${name} ${sha256(join(folder, name))} ${statSync(join(folder, name)).mtimeMs}`);
}

async function picture(page: Page, name: string): Promise<void> {
  if (process.env.CHAINLIFT_SCREENSHOTS !== '1') return;
  await page.mouse.move(0, 899);
  await page.screenshot({ path: join(root, 'docs', 'screenshots', `${name}.png`), animations: 'disabled' });
}

const point = (page: Page, name: string) =>
  page.getByRole('listbox', { name: 'Points in time' }).getByRole('option', { name: new RegExp(`^${name},`) });
const files = (page: Page) => page.getByRole('region', { name: 'Files' });
const row = (page: Page, name: string) =>
  files(page).getByRole('row', { name: new RegExp(`^${name.replaceAll('.', '\\.')}\\b`) });

/** Opens a folder of the file pane by double click, as one does. */
async function enter(page: Page, ...names: string[]): Promise<void> {
  for (const name of names) {
    await row(page, name).dblclick();
    await expect(
      files(page).getByRole('navigation', { name: 'Folder' }).getByText(name, { exact: true }),
    ).toBeVisible();
  }
}

async function toLostFile(page: Page): Promise<void> {
  await point(page, 'before-upgrade').click();
  await expect(
    page.getByRole('region', { name: 'Selected point' }).getByRole('heading', { name: 'before-upgrade' }),
  ).toBeVisible();
  await page.getByRole('group', { name: 'Volumes' }).getByRole('button', { name: /^sda2/ }).click();
  await enter(page, 'srv', 'www');
  await expect(row(page, 'orders-2025.csv')).toBeVisible();
}

test('opens a folder from nothing, as a first user does', async ({ page, shell }) => {
  await page.goto(await shell.serve());
  await picture(page, 'first-run');
  await page
    .getByRole('region', { name: 'Open a backup' })
    .getByRole('button', { name: /Open a folder/ })
    .click();
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('textbox', { name: 'Path' }).fill(shell.demo);
  await dialog.getByRole('textbox', { name: 'Path' }).press('Enter');
  await dialog.getByRole('button', { name: /^Open/ }).click();
  await expect(page.getByRole('listbox', { name: 'Points in time' }).getByRole('option')).toHaveCount(4);
});

test('finds a file that was deleted later, and downloads it', async ({ page, shell }) => {
  const before = fingerprint(shell.demo);
  await page.goto(await shell.serve(shell.demo));
  await expect(point(page, 'Current state')).toHaveAttribute('aria-selected', 'true');
  await page.getByRole('group', { name: 'Volumes' }).getByRole('button', { name: /^sda2/ }).click();
  await enter(page, 'srv', 'www');
  // The present state shows it as gone since the point before, and it can't be selected as if it were there.
  await expect(row(page, 'config.php')).toBeVisible();
  await expect(row(page, 'orders-2025.csv')).toHaveText(/gone$/);

  // Going back in time stays in the folder.
  await point(page, 'before-upgrade').click();
  await expect(row(page, 'orders-2025.csv')).toContainText('gone later');
  await expect(row(page, 'config.php')).toContainText('changed');
  await expect(row(page, 'budget.xlsx')).toContainText('added');
  await expect(row(page, 'config.php')).toContainText('-000001');
  await row(page, 'orders-2025.csv').click();
  await expect(page.getByRole('complementary', { name: 'Inspector' })).toContainText('orders-2025.csv');
  await picture(page, 'browse-light');

  const waiting = page.waitForEvent('download');
  await files(page).getByRole('button', { name: 'Download' }).click();
  const download = await waiting;
  expect(download.suggestedFilename()).toBe('orders-2025.csv');
  const saved = join(shell.scratch, 'downloaded.csv');
  await download.saveAs(saved);
  expect(sha256(saved)).toBe(lostTruth.sha256);
  expect(fingerprint(shell.demo)).toEqual(before);
});

test('drags a file out with its name, type and a working address', async ({ page, shell }) => {
  await page.goto(await shell.serve(shell.demo));
  await toLostFile(page);
  const offered = await row(page, 'orders-2025.csv').evaluate((element: unknown) => {
    // Compiled for Node, run in the page.
    const page = globalThis as unknown as {
      DataTransfer: new () => { getData(type: string): string };
      DragEvent: new (type: string, init: object) => object;
    };
    const dataTransfer = new page.DataTransfer();
    (element as { dispatchEvent(event: object): void }).dispatchEvent(
      new page.DragEvent('dragstart', { bubbles: true, cancelable: true, dataTransfer }),
    );
    return dataTransfer.getData('DownloadURL');
  });
  const match = /^([^:]+):([^:]+):(https?:.*)$/.exec(offered);
  expect(match?.[2]).toBe('orders-2025.csv');
  // The browser fetches this address when the drop lands on the desktop.
  const response = await page.request.get(match![3]!);
  expect(response.ok()).toBe(true);
  expect(
    createHash('sha256')
      .update(await response.body())
      .digest('hex'),
  ).toBe(lostTruth.sha256);
});

test('copies a folder with progress, verified', async ({ page, shell }) => {
  const before = fingerprint(shell.demo);
  const destination = join(shell.scratch, 'desktop');
  mkdirSync(destination);
  await page.goto(await shell.serve(shell.demo));
  await point(page, 'before-upgrade').click();
  await page.getByRole('group', { name: 'Volumes' }).getByRole('button', { name: /^sda2/ }).click();
  await enter(page, 'srv');
  await row(page, 'www').click();
  await files(page)
    .getByRole('button', { name: /Copy to/ })
    .click();
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('textbox', { name: 'Folder on this computer' }).fill(destination);
  await dialog.getByRole('button', { name: 'Copy', exact: true }).click();
  await expect(page.getByRole('region', { name: 'Tasks' })).toContainText(/verified/);
  await picture(page, 'copied');
  const entries = Object.entries(truth['before-upgrade']).filter(([path]) => path.startsWith('/srv/www/'));
  for (const [path, entry] of entries) {
    const copy = join(destination, path.slice('/srv/'.length));
    const stat = statSync(copy);
    expect(stat.mode & 0o777).toBe(entry.mode);
    if (entry.kind === 'file') expect(sha256(copy)).toBe((entry as { sha256: string }).sha256);
    expect(Math.round(stat.mtimeMs)).toBe(Number(BigInt(entry.mtime) / 1_000_000n));
  }
  expect(fingerprint(shell.demo)).toEqual(before);
});

test('mounts a point as an NBD export that reads the right bytes', async ({ page, shell }) => {
  const before = fingerprint(shell.demo);
  await page.goto(await shell.serve(shell.demo));
  await point(page, 'before-upgrade').click();
  await page.getByRole('region', { name: 'Selected point' }).getByRole('button', { name: 'Mount' }).click();
  const inspector = page.getByRole('complementary', { name: 'Inspector' });
  await inspector.getByRole('button', { name: /^(Mount|Start)/ }).click();
  const uri = inspector.getByText(/^nbd(\+unix)?:\/\//).first();
  await expect(uri).toBeVisible();
  await picture(page, 'mount');
  const address = (await uri.textContent())!;
  let nbdcopy = true;
  try {
    execFileSync('nbdcopy', ['--version'], { stdio: 'ignore' });
  } catch (error) {
    if (peersRequired) throw error;
    nbdcopy = false;
  }
  if (nbdcopy) {
    const image = join(shell.scratch, 'disk.raw');
    execFileSync('nbdcopy', [address, image]);
    const ours = execFileSync(process.execPath, [
      join(root, 'out', 'main', 'cli.cjs'),
      'hash',
      shell.demo,
      '--point',
      'before-upgrade',
      '--json',
    ]).toString();
    expect(sha256(image)).toBe(JSON.parse(ours).sha256);
  }
  await inspector.getByRole('button', { name: /^(Stop|Unmount)/ }).click();
  await expect(page.getByRole('region', { name: 'Exports' })).toContainText('No exports');
  expect(fingerprint(shell.demo)).toEqual(before);
});

test('works by keyboard alone', async ({ page, shell }) => {
  await page.goto(await shell.serve(shell.demo));
  const history = page.getByRole('listbox', { name: 'Points in time' });
  await expect(history.getByRole('option')).toHaveCount(4);
  await history.focus();
  await page.keyboard.press('Home');
  await expect(point(page, 'base')).toHaveAttribute('aria-selected', 'true');
  await page.keyboard.press('ArrowRight');
  await expect(point(page, 'before-upgrade')).toHaveAttribute('aria-selected', 'true');
  await page.getByRole('group', { name: 'Volumes' }).getByRole('button', { name: /^sda2/ }).focus();
  await page.keyboard.press('Enter');
  await expect(row(page, 'srv')).toBeVisible();
  const grid = files(page).getByRole('grid');
  await grid.focus();
  // Type-ahead, then in; and up again.
  await page.keyboard.type('sr');
  await page.keyboard.press('Enter');
  await expect(row(page, 'www')).toBeVisible();
  await page.keyboard.press('Backspace');
  await expect(row(page, 'home')).toBeVisible();
});

test('says what is wrong with a broken chain, and still shows the rest', async ({ page, shell }) => {
  renameSync(join(shell.demo, 'web01-000001.vmdk'), join(shell.scratch, 'elsewhere.vmdk'));
  await page.goto(await shell.serve(shell.demo));
  await point(page, 'before-upgrade').click();
  await expect(page.getByRole('main')).toContainText('web01-000001.vmdk');
  await picture(page, 'missing-link');
  await point(page, 'base').click();
  await page.getByRole('group', { name: 'Volumes' }).getByRole('button', { name: /^sda2/ }).click();
  await expect(row(page, 'srv')).toBeVisible();
});

test.describe('in the dark', () => {
  test.use({ colorScheme: 'dark' });
  test('shows the same window', async ({ page, shell }) => {
    await page.goto(await shell.serve(shell.demo));
    await toLostFile(page);
    await row(page, 'config.php').click();
    await page.getByRole('tab', { name: 'Preview' }).click();
    await expect(page.getByRole('complementary', { name: 'Inspector' })).toContainText('shop.example.org');
    await picture(page, 'browse-dark');
  });
});

/**
 * The whole job in a real browser: open, pick an older point, find a file that was deleted later, get it out, mount the disk.
 * With CHAINLIFT_SCREENSHOTS=1 the pictures of docs/screenshots are made anew.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from '@playwright/test';
import truth from '../data/demo-truth.json' with { type: 'json' };
import { buildOva } from '../support/ova-builder.ts';
import { linuxGuid, writeGpt } from '../support/partition-builder.ts';
import { buildQcow2 } from '../support/qcow2-builder.ts';
import { cli, expect, missingBrowser, root, test } from './serve.ts';

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

/** A disk whose first partition table is damaged and whose backup is whole. */
function damagedGpt(): Buffer {
  const image = Buffer.alloc(8 * 1024 * 1024);
  writeGpt(image, [{ number: 1, type: linuxGuid, first: 2048, last: 8191 }]);
  image.fill(0xa5, 512 + 8, 512 + 24);
  return image;
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
  // One press leads to the nearest point that can be opened.
  await page.getByRole('button', { name: 'Go to base' }).click();
  await expect(point(page, 'base')).toHaveAttribute('aria-selected', 'true');
  await page.getByRole('group', { name: 'Volumes' }).getByRole('button', { name: /^sda2/ }).click();
  await expect(row(page, 'srv')).toBeVisible();
  // The findings of the whole repository say which point each is about.
  await page.getByRole('button', { name: /^Actions for/ }).click();
  await page.getByRole('menuitem', { name: /^Findings/ }).click();
  const findings = page.getByRole('dialog');
  for (const name of ['before-upgrade', 'Current state']) {
    await expect(findings.getByRole('region', { name: `web01 at ${name}` })).toBeVisible();
  }
});

test('lets a moved parent be located, and opens what stands on it', async ({ page, shell }) => {
  const elsewhere = join(shell.scratch, 'elsewhere');
  mkdirSync(elsewhere);
  const moved = join(elsewhere, 'renamed.vmdk');
  renameSync(join(shell.demo, 'web01-000001.vmdk'), moved);
  const wrong = join(shell.demo, 'web01-000002.vmdk');
  const before = [sha256(moved), sha256(wrong)];
  await page.goto(await shell.serve(shell.demo));
  await point(page, 'Current state').click();
  await page.getByRole('button', { name: 'Say where it is…' }).click();
  const dialog = page.getByRole('dialog');
  await expect(dialog).toContainText('web01-000001.vmdk');
  // Another image is refused, with both identities.
  await dialog.getByRole('textbox', { name: 'File on this computer' }).fill(wrong);
  await dialog.getByRole('button', { name: 'Use this file' }).click();
  await expect(dialog).toContainText('A link of the chain is missing');
  // The right one is chosen by hand, in the folder dialog.
  await dialog.getByRole('button', { name: 'Choose…' }).click();
  const browser = page.getByRole('dialog').last();
  await browser.getByRole('textbox', { name: 'Path' }).fill(elsewhere);
  await browser.getByRole('textbox', { name: 'Path' }).press('Enter');
  await browser.getByRole('option', { name: 'renamed.vmdk' }).click();
  await browser.getByRole('button', { name: /^Choose/ }).click();
  await expect(dialog.getByRole('textbox', { name: 'File on this computer' })).toHaveValue(moved);
  await picture(page, 'locate-parent');
  await dialog.getByRole('button', { name: 'Use this file' }).click();
  await expect(dialog.getByRole('status')).toContainText('has the identity that');
  await dialog.getByRole('contentinfo').getByRole('button', { name: 'Close' }).click();
  // The chain is read anew and opens.
  await page.getByRole('group', { name: 'Volumes' }).getByRole('button', { name: /^sda2/ }).click();
  await expect(row(page, 'srv')).toBeVisible();
  expect([sha256(moved), sha256(wrong)]).toEqual(before);
});

test('ranks what the chain doctor finds, and says what can still be done', async ({ page, shell }) => {
  renameSync(join(shell.demo, 'web01-000001.vmdk'), join(shell.scratch, 'elsewhere.vmdk'));
  await page.goto(await shell.serve(shell.demo));
  await page.getByRole('button', { name: 'More for this point' }).click();
  await page.getByRole('menuitem', { name: 'Verify all points' }).click();
  await page.getByRole('region', { name: 'Tasks' }).getByRole('button', { name: 'Show' }).click();
  const dialog = page.getByRole('dialog');
  const damaged = dialog.getByRole('region', { name: 'Damaged' });
  await expect(damaged).toContainText('web01-000001.vmdk');
  await expect(damaged).toContainText('The last intact point before it is "base"');
  await picture(page, 'chain-doctor');
  // What can be done is one press away.
  await damaged.getByRole('button', { name: 'Say where it is…' }).first().click();
  await expect(page.getByRole('dialog', { name: /Where is the parent/ })).toBeVisible();
});

test('shows the evidence of consistency, and what is known of the machine', async ({ page, shell }) => {
  await page.goto(await shell.serve(shell.demo));
  await point(page, 'before-upgrade').click();
  const inspector = page.getByRole('complementary', { name: 'Inspector' });
  await expect(inspector.getByRole('region', { name: 'Consistency' })).toContainText('sda2: ext4 is clean');
  await expect(inspector.getByRole('region', { name: 'Machine' })).toContainText('VMware');
});

test('restores a whole disk to a new image', async ({ page, shell }) => {
  const destination = join(shell.scratch, 'restored');
  mkdirSync(destination);
  const before = fingerprint(shell.demo);
  await page.goto(await shell.serve(shell.demo));
  await point(page, 'before-upgrade').click();
  await page.getByRole('button', { name: 'More for this point' }).click();
  await page.getByRole('menuitem', { name: 'Restore disk…' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('radio', { name: /^QCOW2/ }).check({ force: true });
  await dialog.getByRole('textbox', { name: 'Folder on this computer' }).fill(destination);
  await expect(dialog.getByRole('textbox', { name: 'Name' })).toHaveValue('web01 before-upgrade.qcow2');
  await picture(page, 'restore-disk');
  await dialog.getByRole('button', { name: 'Restore', exact: true }).click();
  const tasks = page.getByRole('region', { name: 'Tasks' });
  await tasks.getByRole('button', { name: 'Show' }).click();
  await expect(page.getByRole('dialog')).toContainText('equal to the point byte for byte');
  const image = join(destination, 'web01 before-upgrade.qcow2');
  const hashed = (...args: string[]): string =>
    JSON.parse(execFileSync(process.execPath, [cli, 'hash', '--json', ...args], { encoding: 'utf8' })).sha256;
  expect(hashed(image)).toBe(hashed(shell.demo, '--point', 'before-upgrade'));
  expect(fingerprint(shell.demo)).toEqual(before);
});

test('gives the state of the file systems as evidence beside what was recorded', async ({ page, shell }) => {
  await page.goto(await shell.serve(shell.demo));
  await point(page, 'before-upgrade').click();
  await expect(page.getByRole('region', { name: 'Selected point' })).toContainText(
    'File-system consistent: sda1: fat16 is clean, sda2: ext4 is clean',
  );
});

test('says that a partition table is damaged', async ({ page, shell }) => {
  const folder = join(shell.scratch, 'gpt');
  mkdirSync(folder);
  const image = damagedGpt();
  writeFileSync(join(folder, 'disk.img'), image);
  await page.goto(await shell.serve(folder));
  const header = page.getByRole('region', { name: 'Selected point' });
  await header.getByRole('button', { name: /suspicious|damaged/ }).click();
  await expect(page.getByRole('dialog')).toContainText('partition table');
  expect(readFileSync(join(folder, 'disk.img')).equals(image)).toBe(true);
});

/** The demo's disk at a point, as a new image. */
function demoDisk(shell: { demo: string; scratch: string }, point: string, ...format: string[]): Buffer {
  const image = join(shell.scratch, `${point}.image`);
  execFileSync(process.execPath, [cli, 'convert', shell.demo, image, '--point', point, '--no-verify', ...format]);
  return readFileSync(image);
}

test('opens an OVA, verifies it, and gives files and its disk out of it', async ({ page, shell }) => {
  const folder = join(shell.scratch, 'exports');
  mkdirSync(folder);
  const ova = join(folder, 'shop.ova');
  const bytes = demoDisk(shell, 'before-upgrade', '--format', 'vmdk', '--variant', 'streamOptimized');
  writeFileSync(ova, buildOva('shop', [{ name: 'shop-disk1.vmdk', bytes, capacity: 96 << 20 }]));
  const before = sha256(ova);
  await page.goto(await shell.serve());
  await page
    .getByRole('region', { name: 'Open a backup' })
    .getByRole('button', { name: /Open a folder/ })
    .click();
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('textbox', { name: 'Path' }).fill(folder);
  await dialog.getByRole('textbox', { name: 'Path' }).press('Enter');
  await dialog.getByRole('option', { name: 'shop.ova' }).click();
  await dialog.getByRole('button', { name: 'Open “shop.ova”' }).click();
  await expect(point(page, 'Exported state')).toHaveAttribute('aria-selected', 'true');
  await page.getByRole('group', { name: 'Volumes' }).getByRole('button', { name: /^sda2/ }).click();
  await enter(page, 'srv', 'www');
  await row(page, 'orders-2025.csv').click();
  const inspector = page.getByRole('complementary', { name: 'Inspector' });
  await expect(inspector).toContainText('orders-2025.csv');
  const waiting = page.waitForEvent('download');
  await files(page).getByRole('button', { name: 'Download' }).click();
  const saved = join(shell.scratch, 'downloaded.csv');
  await (await waiting).saveAs(saved);
  expect(sha256(saved)).toBe(lostTruth.sha256);

  // The manifest is part of it.
  const header = page.getByRole('region', { name: 'Selected point' });
  await header.getByRole('button', { name: 'Verify' }).click();
  const tasks = page.getByRole('region', { name: 'Tasks' });
  await tasks.getByRole('button', { name: 'Show' }).click();
  await expect(dialog).toContainText('Nothing is wrong');
  await dialog.getByRole('contentinfo').getByRole('button', { name: 'Close' }).click();
  await tasks.getByRole('button', { name: /^Dismiss/ }).click();
  await expect(tasks).toContainText('Nothing is running');

  await header.getByRole('button', { name: 'Mount' }).click();
  await inspector.getByRole('button', { name: /^(Mount|Start)/ }).click();
  await expect(inspector.getByText(/^nbd(\+unix)?:\/\//).first()).toBeVisible();
  await inspector.getByRole('button', { name: /^(Stop|Unmount)/ }).click();
  await expect(page.getByRole('region', { name: 'Exports' })).toContainText('No exports');
  expect(sha256(ova)).toBe(before);

  // A changed byte is told by the manifest.
  const broken = readFileSync(ova);
  broken[broken.length >> 1]! ^= 1;
  writeFileSync(ova, broken);
  await header.getByRole('button', { name: 'Verify' }).click();
  await tasks.getByRole('button', { name: 'Show' }).click();
  await expect(dialog.getByRole('region', { name: 'Damaged' })).toContainText('shop.mf');
});

test('shows the snapshots inside a QCOW2 as points, and what each holds', async ({ page, shell }) => {
  const CLUSTER = 1 << 16;
  const zeros = Buffer.alloc(CLUSTER);
  const disks = ['base', 'before-upgrade', 'current'].map((name) => demoDisk(shell, name, '--format', 'raw'));
  const states = disks.map((disk) => {
    const clusters = new Map<number, Buffer>();
    for (let at = 0; at < disk.length; at += CLUSTER) {
      const cluster = disk.subarray(at, at + CLUSTER);
      if (!cluster.equals(zeros)) clusters.set(at / CLUSTER, cluster);
    }
    return { size: disk.length, clusters };
  });
  const snapshots = [
    { id: '1', name: 'installed', seconds: 1_772_420_400, ...states[0]! },
    { id: '2', name: 'before-upgrade', seconds: 1_772_506_800, stateBytes: 1 << 16, ...states[1]! },
  ];
  const image = join(shell.scratch, 'kvm01.qcow2');
  writeFileSync(image, buildQcow2({ ...states[2]!, snapshots }).bytes);
  const before = sha256(image);
  await page.goto(await shell.serve(image));
  const options = page.getByRole('listbox', { name: 'Points in time' }).getByRole('option');
  await expect(options).toHaveCount(3);
  await expect(point(page, 'kvm01')).toHaveAttribute('aria-selected', 'true');
  await page.getByRole('group', { name: 'Volumes' }).getByRole('button', { name: /^sda2/ }).click();
  await enter(page, 'srv', 'www');
  await expect(row(page, 'orders-2025.csv')).toHaveText(/gone$/);

  await point(page, 'before-upgrade').click();
  const header = page.getByRole('region', { name: 'Selected point' });
  await expect(header).toContainText('with memory');
  await expect(row(page, 'orders-2025.csv')).toContainText('gone later');
  await expect(row(page, 'orders-2025.csv')).toContainText('kvm01.qcow2 @2');
  const consistency = page
    .getByRole('complementary', { name: 'Inspector' })
    .getByRole('region', { name: /^Consisten/ });
  await expect(consistency).toContainText('65536 bytes of VM state');
  const waiting = page.waitForEvent('download');
  await row(page, 'orders-2025.csv').click();
  await files(page).getByRole('button', { name: 'Download' }).click();
  const saved = join(shell.scratch, 'downloaded.csv');
  await (await waiting).saveAs(saved);
  expect(sha256(saved)).toBe(lostTruth.sha256);
  expect(sha256(image)).toBe(before);
});

test('tells what was verified, and gives it as text', async ({ page, shell }) => {
  await page.goto(await shell.serve(shell.demo));
  await page.getByRole('button', { name: 'More for this point' }).click();
  await page.getByRole('menuitem', { name: 'Verify all points' }).click();
  const tasks = page.getByRole('region', { name: 'Tasks' });
  await tasks.getByRole('button', { name: 'Show' }).click();
  const dialog = page.getByRole('dialog');
  await expect(dialog).toContainText('Nothing is wrong');
  await expect(dialog).toContainText('2 disks');
  await dialog.getByRole('button', { name: 'Copy the report as text' }).click();
  await expect(dialog.getByRole('status')).toHaveText('Copied');
  // Compiled for Node, run in the page.
  const text = await page.evaluate(() =>
    (
      globalThis as unknown as { navigator: { clipboard: { readText(): Promise<string> } } }
    ).navigator.clipboard.readText(),
  );
  expect(text).toContain('Outcome: done');
  expect(text).toContain('Findings: none');
});

test('says why nothing was copied over what is there already', async ({ page, shell }) => {
  const destination = join(shell.scratch, 'full');
  mkdirSync(destination);
  writeFileSync(join(destination, 'orders-2025.csv'), 'mine');
  await page.goto(await shell.serve(shell.demo));
  await toLostFile(page);
  await row(page, 'orders-2025.csv').click();
  await files(page)
    .getByRole('button', { name: /Copy to/ })
    .click();
  await page.getByRole('dialog').getByRole('textbox', { name: 'Folder on this computer' }).fill(destination);
  await page.getByRole('dialog').getByRole('button', { name: 'Copy', exact: true }).click();
  await page.getByRole('region', { name: 'Tasks' }).getByRole('button', { name: 'Show' }).click();
  await expect(page.getByRole('dialog')).toContainText('It exists already');
  await expect(page.getByRole('dialog')).toContainText('was left as it is');
  expect(readFileSync(join(destination, 'orders-2025.csv'), 'utf8')).toBe('mine');
});

test.describe('with an engine that takes its time', () => {
  /** Holds back the engine's answers to a method until `release` is called. */
  async function hold(page: Page, method: string): Promise<() => void> {
    const ids = new Set<unknown>();
    const held: (() => void)[] = [];
    let open = false;
    await page.routeWebSocket(/\/api$/, (socket) => {
      const server = socket.connectToServer();
      socket.onMessage((message) => {
        const call = JSON.parse(String(message));
        if (call.method === method) ids.add(call.id);
        server.send(message);
      });
      server.onMessage((message) => {
        if (!open && ids.has(JSON.parse(String(message)).id)) held.push(() => socket.send(message));
        else socket.send(message);
      });
    });
    return () => {
      open = true;
      for (const send of held) send();
    };
  }

  test('says which repository is read, and can be told to stop', async ({ page, shell }) => {
    await hold(page, 'watchTask');
    await page.goto(await shell.serve(shell.demo));
    const repository = page.getByRole('region', { name: 'Repository' });
    await expect(repository).toContainText(shell.demo);
    await repository.getByRole('button', { name: 'Cancel' }).click();
    await expect(page.getByRole('region', { name: 'Open a backup' })).toBeVisible();
  });

  test('keeps what is typed into the folder dialog when a listing comes late', async ({ page, shell }) => {
    const release = await hold(page, 'browse');
    await page.goto(await shell.serve());
    await page
      .getByRole('region', { name: 'Open a backup' })
      .getByRole('button', { name: /Open a folder/ })
      .click();
    const path = page.getByRole('dialog').getByRole('textbox', { name: 'Path' });
    await path.fill(shell.demo);
    release();
    await expect(page.getByRole('dialog').getByRole('listbox')).toBeVisible();
    await expect(path).toHaveValue(shell.demo);
  });
});

test.describe('in a small window', () => {
  test('a double click opens the row it was made on, though few are seen', async ({ page, shell }) => {
    // Scrolling the pressed row into sight would move it from the pointer before the second click.
    for (const height of [560, 500]) {
      await page.setViewportSize({ width: 900, height });
      await page.goto(await shell.serve(shell.demo));
      await page.getByRole('group', { name: 'Volumes' }).getByRole('button', { name: /^sda2/ }).click();
      await expect(row(page, 'srv')).toBeAttached();
      await row(page, 'srv').dblclick();
      await expect(row(page, 'www')).toBeAttached();
    }
  });
  test('the end of the way is seen where all of it has no room', async ({ page, shell }) => {
    await page.goto(await shell.serve(shell.demo));
    await page.getByRole('group', { name: 'Volumes' }).getByRole('button', { name: /^sda2/ }).click();
    await enter(page, 'srv');
    await page.setViewportSize({ width: 720, height: 900 });
    await row(page, 'www').dblclick();
    const way = files(page).getByRole('navigation', { name: 'Folder' });
    await expect(way.getByText('www')).toBeInViewport({ ratio: 0.9 });
    // It would be no trial if all of it had room.
    await expect(way.getByRole('button', { name: 'web01' })).not.toBeInViewport();
  });
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

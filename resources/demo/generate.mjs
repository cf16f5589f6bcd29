#!/usr/bin/env node
/**
 * Makes the golden images of the demo repository: VM web01, a base and three points, one of them on a branch.
 *
 *   base --- before-upgrade --- current
 *                         \---- try-php83
 *
 * The disk has an MBR, a FAT16 boot partition and an ext4 root that looks like a small web server. The states are made by the
 * kernel on a loop mount, the images by qemu-img and qemu-io: nothing of ours writes them, so they test our readers.
 * Needs root, qemu-utils, fdisk, e2fsprogs, dosfstools, mtools. Run it only to change the demo; results are committed, gzipped.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';

const here = import.meta.dirname;
const work = mkdtempSync(join(tmpdir(), 'chainlift-demo-'));
const mount = join(work, 'mnt');
mkdirSync(mount);
const run = (program, ...args) =>
  execFileSync(program, args, { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' });

const MiB = 1 << 20;
const DISK = 96 * MiB;
const BOOT = { start: 1 * MiB, size: 15 * MiB };
const ROOT = { start: 16 * MiB, size: 80 * MiB };
const GRAIN = 65536;
const raw = join(work, 'disk.raw');

/** Deterministic bytes that do not compress to nothing, so that sizes on screen mean something. */
function noise(length, seed) {
  const bytes = Buffer.alloc(length);
  let x = seed >>> 0 || 1;
  for (let i = 0; i < length; i++) {
    x ^= x << 13;
    x >>>= 0;
    x ^= x >>> 17;
    x ^= x << 5;
    x >>>= 0;
    bytes[i] = x & 0xff;
  }
  return bytes;
}

const touched = [];
let now = new Date('2026-11-02T09:31:00Z');
function put(path, content, mode = 0o644, owner = [0, 0]) {
  const whole = join(mount, path);
  mkdirSync(dirname(whole), { recursive: true });
  writeFileSync(whole, content);
  chmodSync(whole, mode);
  chownSync(whole, ...owner);
  touched.push([path, now]);
}
function link(target, path) {
  const whole = join(mount, path);
  mkdirSync(dirname(whole), { recursive: true });
  symlinkSync(target, whole);
  touched.push([path, now]);
}
function remove(path) {
  unlinkSync(join(mount, path));
}
const WWW = [33, 33];

/** What the kernel sees of the root file system at each point: what tests compare our readers with. */
const truth = {};
function record(point) {
  const entries = {};
  for (const entry of readdirSync(mount, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const stat = lstatSync(path, { bigint: true });
    entries[path.slice(mount.length)] = {
      kind: entry.isDirectory() ? 'directory' : entry.isSymbolicLink() ? 'symlink' : 'file',
      mode: Number(stat.mode) & 0o7777,
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      mtime: String(stat.mtimeNs),
      ...(entry.isFile()
        ? { size: Number(stat.size), sha256: createHash('sha256').update(readFileSync(path)).digest('hex') }
        : {}),
      ...(entry.isSymbolicLink() ? { target: readlinkSync(path) } : {}),
    };
  }
  truth[point] = entries;
}

function withRoot(point, body) {
  const loop = run(
    'losetup',
    '--find',
    '--show',
    '--offset',
    String(ROOT.start),
    '--sizelimit',
    String(ROOT.size),
    raw,
  ).trim();
  try {
    run('mount', '-t', 'ext4', loop, mount);
    try {
      touched.length = 0;
      body();
      for (const [path, time] of touched) lutimesSync(join(mount, path), time, time);
      // Folders get the time of the newest thing in them, as a living system would show.
      const folders = new Map();
      for (const [path, time] of touched)
        for (let d = dirname(path); d !== '.' && d !== '/'; d = dirname(d)) folders.set(d, time);
      for (const [path, time] of folders) utimesSync(join(mount, path), time, time);
      run('sync');
      record(point);
    } finally {
      run('umount', mount);
    }
  } finally {
    run('losetup', '--detach', loop);
  }
}

const config = (host, tls) => `<?php
/** Shop configuration. Read by index.php and cron.php. */
return [
  'site' => 'shop.example.org',
  'debug' => false,
  'db' => [
    'host' => '${host}',
    'port' => 3306,
${tls ? "    'tls'  => false,\n" : ''}    'name' => 'shop',
    'user' => 'shop',
  ],
  'mail' => ['from' => 'orders@example.org', 'smtp' => 'mail.example.org'],
];
`;
const page = (n) =>
  `<!doctype html>\n<title>Article ${n}</title>\n<p>${'All work and no backup makes a dull restore. '.repeat(20)}</p>\n`;
const orders = (year, count) => {
  const lines = ['order,date,customer,total'];
  for (let i = 1; i <= count; i++) {
    const day = String(1 + (i % 28)).padStart(2, '0');
    const month = String(1 + (Math.floor(i / 28) % 12)).padStart(2, '0');
    lines.push(
      `${year}-${String(i).padStart(5, '0')},${year}-${month}-${day},C${(i * 7919) % 10007},${((i * 37) % 9000) / 10}`,
    );
  }
  return `${lines.join('\n')}\n`;
};

// ---- base -------------------------------------------------------------------------------------------------------------
writeFileSync(raw, '');
run('truncate', '-s', String(DISK), raw);
execFileSync('sfdisk', ['--quiet', raw], {
  input: `label: dos\nlabel-id: 0x43484c46\nstart=${BOOT.start / 512}, size=${BOOT.size / 512}, type=e, bootable\nstart=${ROOT.start / 512}, size=${ROOT.size / 512}, type=83\n`,
});
const fat = join(work, 'boot.fat');
run('truncate', '-s', String(BOOT.size), fat);
run('mkfs.vfat', '-F', '16', '-s', '4', '-n', 'BOOT', '-i', '43484c31', fat);
for (const [name, content] of [
  ['vmlinuz-6.1.0-26-amd64', noise(96 * 1024, 26)],
  ['Boot Loader Configuration.txt', 'timeout=3\ndefault=6.1.0-26-amd64\n'],
]) {
  const file = join(work, 'f');
  writeFileSync(file, content);
  utimesSync(file, now, now);
  run('mcopy', '-m', '-i', fat, file, `::/${name}`);
}
run(
  'mkfs.ext4',
  '-q',
  '-F',
  '-b',
  '1024',
  '-L',
  'root',
  '-U',
  '63686169-6e6c-4966-8174-726f6f740001',
  '-E',
  'hash_seed=63686169-6e6c-4966-8174-686173680001,root_owner=0:0',
  '-J',
  'size=2',
  '-O',
  'metadata_csum,64bit',
  join(work, 'root.ext4'),
  `${ROOT.size / 1024}`,
);
const into = openSync(raw, 'r+');
writeSync(into, readFileSync(fat), 0, BOOT.size, BOOT.start);
writeSync(into, readFileSync(join(work, 'root.ext4')), 0, ROOT.size, ROOT.start);
closeSync(into);

withRoot('base', () => {
  put('etc/hostname', 'web01\n');
  put(
    'etc/os-release',
    'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n',
  );
  put(
    'etc/passwd',
    'root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nanna:x:1000:1000:Anna Weber:/home/anna:/bin/bash\n',
  );
  put('etc/shadow', 'root:*:19700:0:99999:7:::\nanna:*:19700:0:99999:7:::\n', 0o640, [0, 42]);
  put('etc/fstab', '/dev/sda2 / ext4 errors=remount-ro 0 1\n/dev/sda1 /boot vfat umask=0077 0 2\n');
  put(
    'etc/nginx/nginx.conf',
    'worker_processes auto;\nevents { worker_connections 768; }\nhttp {\n  include /etc/nginx/sites-enabled/*;\n}\n',
  );
  put('etc/nginx/sites-available/shop', 'server {\n  listen 80;\n  root /srv/www;\n  index index.php;\n}\n');
  link('../sites-available/shop', 'etc/nginx/sites-enabled/shop');
  put(
    'home/anna/notes.txt',
    'Ask the bank about the invoice of October.\nUpgrade PHP before Christmas.\n',
    0o600,
    [1000, 1000],
  );
  put('home/anna/Übersicht März.txt', 'Umsatz und Ausgaben, erstes Quartal.\n', 0o644, [1000, 1000]);
  put('root/.bashrc', 'export PS1="\\u@\\h:\\w# "\n');
  put('srv/www/.htaccess', 'Options -Indexes\n', 0o644, WWW);
  put(
    'srv/www/index.php',
    `<?php\nrequire __DIR__ . '/vendor/autoload.php';\n$config = require __DIR__ . '/config.php';\necho (new Shop\\Front($config))->render();\n`,
    0o644,
    WWW,
  );
  put('srv/www/config.php', config('db-prod', false), 0o640, WWW);
  put(
    'srv/www/cron.php',
    "<?php\n// Runs every five minutes.\n(new Shop\\Jobs(require 'config.php'))->run();\n",
    0o644,
    WWW,
  );
  put('srv/www/robots.txt', 'User-agent: *\nDisallow: /admin/\n', 0o644, WWW);
  put(
    'srv/www/maintenance.html',
    '<!doctype html><title>Back soon</title><h1>We are improving the shop</h1>\n',
    0o644,
    WWW,
  );
  put(
    'srv/www/sitemap.xml',
    `<?xml version="1.0"?><urlset>${'<url><loc>https://shop.example.org/a</loc></url>'.repeat(60)}</urlset>\n`,
    0o644,
    WWW,
  );
  for (let n = 1; n <= 120; n++)
    put(`srv/www/articles/article-${String(n).padStart(3, '0')}.html`, page(n), 0o644, WWW);
  put('srv/www/assets/shop.css', 'body { font: 16px/1.5 system-ui; margin: 0 auto; max-width: 72ch }\n', 0o644, WWW);
  put('srv/www/assets/logo.png', readFileSync(join(here, 'logo.png')), 0o644, WWW);
  put('srv/www/uploads/2026/scan-0001.bin', noise(180_000, 1), 0o644, WWW);
  put('srv/www/uploads/2026/scan-0002.bin', noise(140_000, 2), 0o644, WWW);
  put(
    'srv/www/vendor/autoload.php',
    "<?php\nspl_autoload_register(fn ($c) => require __DIR__ . '/' . strtr($c, '\\\\', '/') . '.php');\n",
    0o644,
    WWW,
  );
  put('var/lib/mysql/shop/orders.ibd', noise(262_144, 3), 0o660, [106, 113]);
  put(
    'var/log/nginx/access.log',
    '192.0.2.10 - - [02/Nov/2026:09:30:12 +0000] "GET / HTTP/1.1" 200 5120\n'.repeat(400),
    0o640,
    [33, 4],
  );
  put('var/log/dpkg.log', '2026-11-02 09:12:44 status installed php8.2-fpm:amd64 8.2.24-1\n');
  // A sparse file, as databases and logs leave them.
  put('var/lib/mysql/ibtmp1', '', 0o660, [106, 113]);
  run('truncate', '-s', '12M', join(mount, 'var/lib/mysql/ibtmp1'));
  link('/srv/www', 'var/www');
  link('usr/bin', 'bin');
  put('usr/bin/backup-shop', '#!/bin/sh\nmysqldump shop | gzip > /var/backups/shop.sql.gz\n', 0o755);
});
const deltas = join(work, 'web01');
mkdirSync(deltas);
run(
  'qemu-img',
  'convert',
  '-f',
  'raw',
  '-O',
  'vmdk',
  '-o',
  'subformat=monolithicSparse,adapter_type=lsilogic',
  raw,
  join(deltas, 'web01.vmdk'),
);

/** A new link under `parent` that holds the grains in which `raw` differs from `before`. */
function snapshotLink(name, parent, before) {
  const image = join(deltas, name);
  execFileSync(
    'qemu-img',
    [
      'create',
      '-q',
      '-f',
      'vmdk',
      '-o',
      'subformat=monolithicSparse,adapter_type=lsilogic',
      '-F',
      'vmdk',
      '-b',
      parent,
      name,
    ],
    { cwd: deltas },
  );
  const a = openSync(before, 'r');
  const b = openSync(raw, 'r');
  const old = Buffer.alloc(GRAIN);
  const fresh = Buffer.alloc(GRAIN);
  const commands = [];
  for (let at = 0; at < DISK; at += GRAIN) {
    readSync(a, old, 0, GRAIN, at);
    readSync(b, fresh, 0, GRAIN, at);
    if (old.equals(fresh)) continue;
    const piece = join(work, `piece-${at}`);
    writeFileSync(piece, fresh);
    commands.push('-c', `write -q -s ${piece} ${at} ${GRAIN}`);
  }
  closeSync(a);
  closeSync(b);
  execFileSync('qemu-io', ['-f', 'vmdk', ...commands, image], { cwd: deltas, stdio: ['ignore', 'ignore', 'inherit'] });
  const back = join(work, 'back.raw');
  execFileSync('qemu-img', ['convert', '-O', 'raw', name, back], { cwd: deltas });
  if (!readFileSync(back).equals(readFileSync(raw))) throw new Error(`${name} does not read back`);
}

// ---- before-upgrade: two weeks of life ----------------------------------------------------------------------------------
const baseState = join(work, 'base.raw');
copyFileSync(raw, baseState);
now = new Date('2026-11-13T22:18:00Z');
withRoot('before-upgrade', () => {
  put('srv/www/config.php', config('10.0.4.17', true), 0o640, WWW);
  put('srv/www/orders-2025.csv', orders(2025, 9000), 0o640, WWW);
  put('srv/www/budget.xlsx', noise(60_000, 4), 0o644, WWW);
  put('srv/www/uploads/2026/scan-0003.bin', noise(90_000, 5), 0o644, WWW);
  put(
    'srv/www/sitemap.xml',
    `<?xml version="1.0"?><urlset>${'<url><loc>https://shop.example.org/a</loc></url>'.repeat(75)}</urlset>\n`,
    0o644,
    WWW,
  );
  for (let n = 1; n <= 12; n++)
    put(`srv/www/articles/article-${String(n).padStart(3, '0')}.html`, `${page(n)}<p>Updated.</p>\n`, 0o644, WWW);
  appendFileSync(
    join(mount, 'var/log/nginx/access.log'),
    '192.0.2.77 - - [13/Nov/2026:21:59:03 +0000] "POST /cart HTTP/1.1" 200 311\n'.repeat(900),
  );
  touched.push(['var/log/nginx/access.log', now]);
});
snapshotLink('web01-000001.vmdk', 'web01.vmdk', baseState);
const upgradeState = join(work, 'upgrade.raw');
copyFileSync(raw, upgradeState);

// ---- try-php83: the branch ----------------------------------------------------------------------------------------------
now = new Date('2026-11-14T10:05:00Z');
withRoot('try-php83', () => {
  put('etc/php/8.3/fpm/php.ini', '[PHP]\nmemory_limit = 256M\nerror_reporting = E_ALL\n');
  put(
    'srv/www/index.php',
    `<?php\ndeclare(strict_types=1);\nrequire __DIR__ . '/vendor/autoload.php';\necho (new Shop\\Front(require __DIR__ . '/config.php'))->render();\n`,
    0o644,
    WWW,
  );
  put(
    'var/log/php8.3-fpm.log',
    '[14-Nov-2026 10:04:58] NOTICE: fpm is running, pid 812\n[14-Nov-2026 10:05:00] WARNING: Deprecated: dynamic property\n',
  );
});
snapshotLink('web01-000002.vmdk', 'web01-000001.vmdk', upgradeState);

// ---- current: the line that went on -------------------------------------------------------------------------------------
copyFileSync(upgradeState, raw);
now = new Date('2026-11-19T16:40:00Z');
withRoot('current', () => {
  remove('srv/www/orders-2025.csv');
  remove('srv/www/maintenance.html');
  touched.push(['srv/www/robots.txt', now]);
  put('srv/www/robots.txt', 'User-agent: *\nDisallow: /admin/\nDisallow: /cart/\n', 0o644, WWW);
  put('srv/www/config.php', config('10.0.4.18', true), 0o640, WWW);
  put('srv/www/uploads/2026/scan-0004.bin', noise(70_000, 6), 0o644, WWW);
  put('home/anna/notes.txt', 'Upgrade PHP before Christmas.\nWhere did the orders of 2025 go?\n', 0o600, [1000, 1000]);
  appendFileSync(
    join(mount, 'var/log/nginx/access.log'),
    '198.51.100.4 - - [19/Nov/2026:16:39:41 +0000] "GET /orders-2025.csv HTTP/1.1" 404 153\n'.repeat(120),
  );
  touched.push(['var/log/nginx/access.log', now]);
});
snapshotLink('web01-000003.vmdk', 'web01-000001.vmdk', upgradeState);

let total = 0;
for (const name of readdirSync(deltas)) {
  const packed = gzipSync(readFileSync(join(deltas, name)), { level: 9 });
  writeFileSync(join(here, `${name}.gz`), packed);
  total += packed.length;
  process.stderr.write(`${name}: ${statSync(join(deltas, name)).size} bytes, ${packed.length} gzipped\n`);
}
writeFileSync(join(here, '..', '..', 'test', 'data', 'demo-truth.json'), `${JSON.stringify(truth)}\n`);
process.stderr.write(`${total} bytes in all\n`);
rmSync(work, { recursive: true });

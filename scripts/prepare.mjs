/**
 * What `npm start` and `npm test` do first on any clone, with nothing there but Node: install what is missing, build what is
 * stale. Plain Node, no dependencies.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export const root = resolve(import.meta.dirname, '..');
const wanted = [20, 19];

/** Runs a program to its end with this terminal; ends this process with its code when it fails. */
export function must(program, args, options = {}) {
  const { status, error } = spawnSync(program, args, {
    cwd: root,
    stdio: 'inherit',
    shell: process.platform === 'win32',
    ...options,
  });
  if (error) {
    process.stderr.write(`${program}: ${error.message}\n`);
    process.exit(1);
  }
  if (status !== 0) process.exit(status ?? 1);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > wanted[0] || (major === wanted[0] && minor >= wanted[1])) return;
  process.stderr.write(`Chainlift needs Node ${wanted.join('.')} or later; this is ${process.versions.node}.\n`);
  process.exit(1);
}

/** npm writes node_modules/.package-lock.json at the end of every install: older than the lock file means stale. */
function install() {
  const lock = join(root, 'package-lock.json');
  const installed = join(root, 'node_modules', '.package-lock.json');
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return;
  process.stderr.write('Installing dependencies...\n');
  must('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { stdio: ['ignore', 2, 2] });
  // A lock file checked out after the install's clock is not newer in content: remember that it was installed.
  if (statSync(installed).mtimeMs < statSync(lock).mtimeMs) writeFileSync(installed, readFileSync(installed));
}

const sources = [
  'main',
  'preload',
  'renderer',
  'native',
  'resources',
  'scripts/build',
  'package.json',
  'package-lock.json',
  'electron.vite.config.ts',
  'tsconfig.base.json',
];
const stamp = join(root, 'out', '.built');

function newest(path) {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return 0;
  if (!stat.isDirectory()) return stat.mtimeMs;
  return readdirSync(path).reduce((latest, name) => Math.max(latest, newest(join(path, name))), stat.mtimeMs);
}

function build() {
  const built = statSync(stamp, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (sources.every((source) => newest(join(root, source)) <= built)) return;
  process.stderr.write('Building...\n');
  const electronVite = join(root, 'node_modules', 'electron-vite', 'bin', 'electron-vite.js');
  // What a build says is no part of what `npm start` and `npm test` answer.
  const quiet = { stdio: ['ignore', 2, 2] };
  must(process.execPath, [electronVite, 'build', '--logLevel', 'warn'], quiet);
  must(process.execPath, [join(root, 'scripts', 'build', 'build-cli.mjs')], quiet);
  mkdirSync(join(root, 'out'), { recursive: true });
  writeFileSync(stamp, `${new Date().toISOString()}\n`);
}

export function prepare() {
  checkNode();
  install();
  build();
}

if (process.argv[1] === import.meta.filename) prepare();

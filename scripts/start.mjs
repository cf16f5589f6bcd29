/**
 * `npm start [-- <repository>]`: installs, builds, and opens the window. Electron where its binary can be had; else the browser shell,
 * which shows the very same window. Without a repository the demo is opened.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { prepare, root } from './prepare.mjs';

prepare();

const cli = join(root, 'out', 'main', 'cli.cjs');
const args = process.argv.slice(2);
const browserAsked = args.includes('--browser');
const named = args.find((arg) => !arg.startsWith('--'));

function demoFolder() {
  const base =
    process.env.XDG_DATA_HOME ??
    (process.platform === 'win32' ? process.env.LOCALAPPDATA : undefined) ??
    join(homedir(), '.local', 'share');
  const folder = join(base, 'chainlift', 'demo');
  const { status } = spawnSync(process.execPath, [cli, 'demo', folder], { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) process.exit(status ?? 1);
  return folder;
}
const source = named === undefined ? demoFolder() : resolve(named);

/** Electron's program, or why there is none. */
function electron() {
  if (browserAsked) return { why: 'the browser was asked for' };
  if (process.platform === 'linux' && !process.env.DISPLAY && !process.env.WAYLAND_DISPLAY)
    return { why: 'there is no display here' };
  const folder = join(root, 'node_modules', 'electron');
  const find = () => {
    const path = join(folder, 'path.txt');
    const program = existsSync(path) ? join(folder, 'dist', readFileSync(path, 'utf8').trim()) : undefined;
    return program !== undefined && existsSync(program) ? program : undefined;
  };
  let program = find();
  if (program === undefined && existsSync(join(folder, 'install.js'))) {
    spawnSync(process.execPath, [join(folder, 'install.js')], { stdio: 'ignore', timeout: 120_000 });
    program = find();
  }
  return program === undefined ? { why: "Electron's binary cannot be had here" } : { program };
}

const { program, why } = electron();
if (why !== undefined) process.stderr.write(`Opening the window in the browser: ${why}.\n`);
const child =
  program !== undefined
    ? spawn(program, [root, source], { stdio: 'inherit' })
    : spawn(process.execPath, [cli, 'serve', source, '--open'], { stdio: 'inherit' });
// Ctrl-C reaches the child by itself: it shares this terminal. Wait for it, and end as it ends.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => child.kill('SIGTERM'));
child.on('exit', (code) => process.exit(code ?? 1));

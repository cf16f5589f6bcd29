/**
 * `npm test`: installs, builds, then everything a machine can check: types, lint, layering, unit tests, tests with real peers
 * (those that are installed; all of them under CHAINLIFT_REQUIRE_PEERS=1), and the window in a real browser.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { prepare, root } from './prepare.mjs';

prepare();

const bin = (name) => join(root, 'node_modules', '.bin', process.platform === 'win32' ? `${name}.cmd` : name);
const steps = [
  ['types', bin('tsc'), ['-p', 'tsconfig.node.json']],
  ['types of the window', bin('tsc'), ['-p', 'tsconfig.web.json']],
  ['lint and format', bin('biome'), ['check', '.']],
  ['layering', bin('depcruise'), ['--config', '.dependency-cruiser.cjs', 'main', 'preload', 'renderer']],
  ['unit tests', bin('vitest'), ['run', '--project', 'unit']],
  ['tests with peers', bin('vitest'), ['run', '--project', 'peers']],
  ['the window in a browser', bin('playwright'), ['test']],
];
const outcomes = [];
for (const [title, program, args] of steps) {
  process.stdout.write(`\n== ${title}\n`);
  const started = Date.now();
  const { status } = spawnSync(program, args, { cwd: root, stdio: 'inherit', shell: process.platform === 'win32' });
  outcomes.push({ title, ok: status === 0, seconds: Math.round((Date.now() - started) / 1000) });
}
/** What was left out here, and what to install for it. */
function leftOut() {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  const runs = (program) =>
    folders.some((folder) => {
      try {
        accessSync(join(folder, program), constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
  const peers = JSON.parse(readFileSync(join(root, 'test', 'support', 'peers.json'), 'utf8'));
  const missing = Object.entries(peers).filter(([program]) => !runs(program));
  const reasons = missing.map(
    ([program, debian]) => `comparisons with ${program}: it is not installed (Debian package ${debian})`,
  );
  if (process.getuid?.() !== 0) reasons.push('comparisons with kernel mounts: loop mounts need root');
  if (!['chromium', 'chromium-browser', 'google-chrome'].some(runs))
    reasons.push('the window in a browser: no Chromium is installed (Debian package chromium)');
  if (!existsSync(join(root, 'node_modules', 'electron', 'path.txt')))
    reasons.push('the window in Electron: its binary was not downloaded');
  if (!existsSync(join(root, '..', 'shared', 'corpus')))
    reasons.push('the corpus of real images: ../shared/corpus is not here');
  return reasons;
}

process.stdout.write('\n');
for (const reason of leftOut()) process.stdout.write(`skipped  ${reason}\n`);
for (const { title, ok, seconds } of outcomes)
  process.stdout.write(`${ok ? 'passed' : 'FAILED'}  ${title} (${seconds} s)\n`);
const failed = outcomes.filter(({ ok }) => !ok).length;
process.stdout.write(`${outcomes.length - failed} passed, ${failed} failed\n`);
process.exit(failed === 0 ? 0 : 1);

/**
 * Builds the command line: main/cli as CommonJS in pieces that are loaded when a command needs them, V8's compiled code of each
 * beside it, and the launcher that takes both. Runs after electron-vite's builds.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { build } from 'rolldown';

const root = resolve(import.meta.dirname, '..', '..');
const out = join(root, 'out', 'main', 'cli');
const launcher = join(root, 'out', 'main', 'cli.cjs');

/**
 * Commander loads child_process, and with it the network stack, for sub-commands that are programs of their own. There are
 * none here, and each start of the command line would pay for it.
 */
const commanderWithoutPrograms = {
  name: 'commander-without-programs',
  transform(code, id) {
    if (!/commander[\\/]lib[\\/]command\.js$/.test(id)) return undefined;
    const load = "const childProcess = require('node:child_process');";
    if (!code.includes(load)) this.error('commander no longer loads child_process as it did; look at it anew');
    return code.replace(
      load,
      "const childProcess = { spawn: (...args) => require('node:child_process').spawn(...args) };",
    );
  },
};

rmSync(out, { recursive: true, force: true });
const { output } = await build({
  input: { cli: join(root, 'main', 'cli', 'cli.ts') },
  platform: 'node',
  external: ['bufferutil', 'utf-8-validate'],
  plugins: [commanderWithoutPrograms],
  logLevel: 'warn',
  output: {
    dir: out,
    format: 'cjs',
    minify: true,
    entryFileNames: '[name]-[hash].cjs',
    chunkFileNames: '[name]-[hash].cjs',
  },
});
const entry = output.find((chunk) => chunk.type === 'chunk' && chunk.isEntry);
const text = readFileSync(join(import.meta.dirname, 'cli-launcher.cjs'), 'utf8');
writeFileSync(launcher, text.replace('@ENTRY@', entry.fileName));
chmodSync(launcher, 0o755);

const scratch = mkdtempSync(join(tmpdir(), 'chainlift-build-'));

/** Runs a command and keeps the compiled code of every piece it used, with the functions that it called. */
function warm(...args) {
  const program = `
    const launcher = require(${JSON.stringify(launcher)});
    process.argv = [process.argv[0], ${JSON.stringify(launcher)}, ...${JSON.stringify(args)}];
    process.on('exit', () => {
      for (const [path, { script }] of launcher.loaded) {
        require('node:fs').writeFileSync(path + '.cache', script.createCachedData());
      }
    });
    launcher.start();`;
  const file = join(scratch, 'warm.cjs');
  writeFileSync(file, program);
  const { status, stderr } = spawnSync(process.execPath, [file], {
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (status !== 0) throw new Error(`chainlift ${args.join(' ')} failed in the build: ${stderr}`);
}

try {
  const demo = join(scratch, 'demo');
  const point = ['--point', 'before-upgrade'];
  warm('demo', demo);
  warm('verify', demo);
  warm('hash', demo, ...point);
  warm('info', demo, ...point);
  warm('volumes', demo, ...point);
  warm('cp', '-r', demo, '/sda2/etc', scratch, ...point);
  warm('scan', demo);
  // Last, for what they share: a listing is what is asked for most.
  warm('ls', '-l', demo, '/sda2/srv/www', ...point);
  warm('ls', '-R', join(demo, 'web01-000003.vmdk'), '/sda2/');
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** How commands end when they are interrupted, or when what they write to, or who they run as, is not what one expects. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, cpSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { chainlift } from '../../support/cli.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

const scratch = scratchFolder('endings');
const program = resolve(import.meta.dirname, '..', '..', '..', 'out', 'main', 'cli.cjs');
const point = ['--point', 'before-upgrade'];
/** More than a pipe holds. */
const LARGE = '/sda2/srv/www/orders-2025.csv';
let demo = '';
beforeAll(() => {
  demo = join(scratch.path, 'demo');
  chainlift('demo', demo);
});

describe.skipIf(process.platform === 'win32')('interrupted', () => {
  it('cat ends at once, also while its reader takes nothing', async () => {
    const fifo = join(scratch.path, 'pipe');
    expect(spawnSync('mkfifo', [fifo]).status).toBe(0);
    // Open for both, so that neither end waits for the other; nobody reads.
    const pipe = openSync(fifo, constants.O_RDWR);
    try {
      const child = spawn(process.execPath, [program, 'cat', demo, LARGE, ...point], {
        stdio: ['ignore', pipe, 'inherit'],
      });
      const ended = once(child, 'exit');
      // It waits in the write when the system says so: state S in the call for pipes.
      await expect
        .poll(() => readFileSync(`/proc/${child.pid}/wchan`, 'utf8'), { timeout: 20_000, interval: 20 })
        .toMatch(/pipe/);
      child.kill('SIGTERM');
      expect(await ended).toEqual([null, 'SIGTERM']);
    } finally {
      closeSync(pipe);
    }
  });

  it('a hang-up is taken as Ctrl-C is: nothing is left behind', async () => {
    const folder = join(scratch.path, 'hang-up');
    cpSync(demo, folder, { recursive: true });
    const before = readdirSync(folder);
    const child = spawn(process.execPath, [program, 'nbd', folder, ...point, '--socket', join(folder, 'nbd.sock')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    expect(readdirSync(folder).length).toBeGreaterThan(before.length);
    const ended = once(child, 'exit');
    // Twice, as a shell that passes on what the system says too.
    child.kill('SIGHUP');
    child.kill('SIGHUP');
    expect(await ended).toEqual([null, 'SIGHUP']);
    expect(readdirSync(folder)).toEqual(before);
  });
});

describe.skipIf(process.platform !== 'linux')('where nothing can be written', () => {
  const toFull = (descriptor: 1 | 2, ...args: string[]) => {
    const full = openSync('/dev/full', 'w');
    try {
      const stdio: ('ignore' | 'pipe' | number)[] = ['ignore', 'pipe', 'pipe'];
      stdio[descriptor] = full;
      return spawnSync(process.execPath, [program, ...args], { stdio, encoding: 'utf8', timeout: 20_000 });
    } finally {
      closeSync(full);
    }
  };

  it('serve ends when its address can be told to nobody', () => {
    const { status, stderr } = toFull(1, 'serve', demo);
    expect(stderr).toContain('Standard output cannot be written');
    expect(status).toBe(1);
  });

  it('a copy that could not say its notes is still done, and a failure still a failure', () => {
    const out = join(scratch.path, 'quiet');
    expect(toFull(2, 'cp', '-r', demo, '/sda2/etc', out, ...point).status).toBe(0);
    expect(toFull(2, 'cat', demo, '/sda2/nope', ...point).status).toBe(1);
  });
});

describe('odd places', () => {
  it.each([
    ['below a file', () => join(demo, 'web01.vmx', 'x')],
    ['too long', () => join(scratch.path, 'x'.repeat(300))],
  ])('a destination that is %s is refused in one line', (_title, to) => {
    const { code, stdout, stderr } = chainlift('cp', demo, LARGE, to(), ...point);
    expect(code).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^chainlift: io: The destination .*\n$/);
  });

  it.skipIf(process.getuid?.() !== 0)('a user that the system does not know can have the window', async () => {
    const { HOME: _home, XDG_CONFIG_HOME: _config, CHAINLIFT_CONFIG: _own, ...env } = process.env;
    const child = spawn(process.execPath, [program, 'serve'], {
      stdio: ['ignore', 'pipe', 'inherit'],
      uid: 54_321,
      gid: 54_321,
      env,
      cwd: '/',
    });
    const [first] = await once(child.stdout, 'data');
    expect(String(first)).toMatch(/^http:\/\/127\.0\.0\.1:/);
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([0, null]);
  });
});

describe('the backup itself', () => {
  it('is never replaced by a copy into its own folder, whatever was asked', async () => {
    const folder = join(scratch.path, 'own');
    cpSync(demo, folder, { recursive: true });
    await leavesUntouched(folder, () => {
      for (const name of ['web01-000001.vmdk', 'web01.vmsd']) {
        const { code, stderr } = chainlift('cp', '--existing', 'replace', folder, LARGE, join(folder, name), ...point);
        expect(code).toBe(1);
        expect(stderr).toContain('denied');
      }
    });
    // What is no part of it may be.
    const note = join(folder, 'note.txt');
    writeFileSync(note, 'mine');
    expect(chainlift('cp', '--existing', 'replace', folder, LARGE, note, ...point).code).toBe(0);
    expect(readFileSync(note, 'utf8')).not.toBe('mine');
  });
});

describe('hostile words', () => {
  it('neither a VM file nor a user can forge a line or reach the controls of the terminal', async () => {
    const folder = join(scratch.path, 'hostile');
    cpSync(demo, folder, { recursive: true });
    const vmx = join(folder, 'web01.vmx');
    const text = readFileSync(vmx, 'utf8');
    const hostile = text.replace('web01-000003.vmdk', 'gone|0Achainlift: forged|1B[31m.vmdk');
    expect(hostile).not.toBe(text);
    writeFileSync(vmx, hostile);
    await leavesUntouched(folder, () => {
      for (const args of [
        ['scan', folder],
        ['verify', folder],
        ['ls', folder, '/', '--point', 'current'],
      ]) {
        const { stdout, stderr } = chainlift(...args);
        expect(`${stdout}${stderr}`).toContain('gone');
        expect(`${stdout}${stderr}`).not.toMatch(/^chainlift: forged/m);
        expect(`${stdout}${stderr}`).not.toContain('\x1b');
      }
    });
    const { code, stderr } = chainlift('cat', demo, '/sda2/no\nchainlift: forged', ...point);
    expect(code).toBe(1);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });
});

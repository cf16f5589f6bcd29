import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import truth from '../../data/demo-truth.json' with { type: 'json' };
import { chainlift } from '../../support/cli.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

const scratch = scratchFolder('cli');
let demo = '';
beforeAll(() => {
  demo = join(scratch.path, 'demo');
  expect(chainlift('demo', demo)).toEqual({ code: 0, stdout: `${demo}\n`, stderr: '' });
});

const LOST = '/srv/www/orders-2025.csv';
const point = ['--point', 'before-upgrade'];

describe('the command line on the demo', () => {
  it('scans in JSON, one document', () => {
    const { code, stdout, stderr } = chainlift('scan', demo, '--json');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const report = JSON.parse(stdout);
    expect(report.vms[0].points.map((p: { name: string }) => p.name)).toEqual([
      'base',
      'before-upgrade',
      'try-php83',
      'Current state',
    ]);
    // Where things lie on this computer is the engine's business.
    expect(stdout).not.toContain('"folder":{');
  });

  it('lists, and streams one object a line in JSON', () => {
    const { code, stdout } = chainlift('ls', demo, '/sda2/srv/www', ...point, '--sort');
    expect(code).toBe(0);
    const names = Object.keys(truth['before-upgrade'])
      .filter((path) => /^\/srv\/www\/[^/]+$/.test(path))
      .map((path) => path.slice('/srv/www/'.length));
    expect(stdout.trim().split('\n')).toEqual(names.sort());
    const rows = chainlift('ls', '-R', '--json', demo, '/sda2/', ...point)
      .stdout.trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(rows.map((row) => row.path.slice('/sda2'.length)).sort()).toEqual(
      Object.keys(truth['before-upgrade']).sort(),
    );
  });

  it('lists the volumes at /', () => {
    expect(chainlift('ls', demo, '/', ...point).stdout).toBe('sda1\nsda2\n');
    expect(chainlift('ls', demo, ...point).stdout).toBe('sda1\nsda2\n');
  });

  it('prints content byte for byte', () => {
    const { stdout } = chainlift('cat', demo, `/sda2${LOST}`, ...point);
    expect(createHash('sha256').update(stdout).digest('hex')).toBe(truth['before-upgrade'][LOST].sha256);
  });

  it('copies with times, modes and links, and says what it did', async () => {
    const out = join(scratch.path, 'out');
    mkdirSync(out);
    await leavesUntouched(demo, () => {
      const { code, stdout } = chainlift('cp', '-r', '--json', demo, '/sda2/srv', '/sda2/etc', out, ...point);
      expect(code).toBe(0);
      const result = JSON.parse(stdout);
      expect(result.problems).toEqual([]);
      expect(result.verified).toBe(result.files);
    });
    for (const [path, entry] of Object.entries(truth['before-upgrade'])) {
      if (!/^\/(srv|etc)(\/|$)/.test(path)) continue;
      const stat = lstatSync(join(out, path));
      expect(stat.isDirectory()).toBe(entry.kind === 'directory');
      expect(Math.round(stat.mtimeMs)).toBe(Number(BigInt(entry.mtime) / 1_000_000n));
      if (entry.kind === 'file') {
        expect(
          createHash('sha256')
            .update(readFileSync(join(out, path)))
            .digest('hex'),
        ).toBe((entry as { sha256: string }).sha256);
        expect(stat.mode & 0o7777).toBe(entry.mode);
      }
    }
    expect(readdirSync(out).sort()).toEqual(['etc', 'srv']);
    // A second time nothing is overwritten, and nothing partial is left.
    const again = chainlift('cp', demo, `/sda2${LOST}`, join(out, 'srv', 'www'), ...point);
    expect(again.code).toBe(1);
    expect(again.stderr).toContain('denied');
    expect(readdirSync(join(out, 'srv', 'www')).filter((name) => name.includes('part'))).toEqual([]);
  });

  it('copies one file to a new name', () => {
    const to = join(scratch.path, 'orders.csv');
    expect(chainlift('cp', demo, `/sda2${LOST}`, to, ...point).code).toBe(0);
    expect(statSync(to).size).toBe(truth['before-upgrade'][LOST].size);
  });

  it('serves NBD until it is interrupted, and leaves no socket behind', async () => {
    const socket = join(scratch.path, 'nbd.sock');
    const program = resolve(import.meta.dirname, '..', '..', '..', 'out', 'main', 'cli.cjs');
    const child = spawn(process.execPath, [program, 'nbd', demo, ...point, '--socket', socket], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [first] = await once(child.stdout, 'data');
    expect(String(first).split('\n')[0]).toBe(`nbd+unix:///web01/before-upgrade/disk0?socket=${socket}`);
    expect(statSync(socket).mode & 0o777).toBe(0o600);
    child.kill('SIGINT');
    const [code] = await once(child, 'exit');
    expect(code).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  it('finds nothing wrong', () => {
    expect(chainlift('verify', demo)).toMatchObject({ code: 0, stderr: '' });
  });
});

describe('wrong usage ends with 2 and says what is possible', () => {
  it.each([
    ['no command', [], /Usage/],
    ['an unknown command', ['frobnicate'], /unknown command/],
    ['an unknown option', ['scan', '--frobnicate', '/'], /unknown option/],
    ['a missing argument', ['stat'], /missing required argument/],
    ['a disk that is no number', ['hash', '--disk', 'x', '/'], /disk/],
  ])('%s', (_title, args, message) => {
    const { code, stdout, stderr } = chainlift(...args);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toMatch(message);
  });

  it('a point that is needed and missing, with the choices', () => {
    const { code, stderr } = chainlift('ls', demo, '/');
    expect(code).toBe(2);
    expect(stderr).toContain('2 (before-upgrade)');
  });
});

describe('failures end with 1, kind and message on standard error', () => {
  it.each([
    ['a folder that is not there', () => ['scan', join(scratch.path, 'nowhere')], /chainlift: (io|not-found): /],
    ['a point that is not there', () => ['ls', demo, '/', '--point', 'yesterday'], /not-found: .*before-upgrade/],
    ['a volume that is not there', () => ['ls', demo, '/sdz9/', ...point], /not-found: .*sda1, sda2/],
    ['a file that is not there', () => ['cat', demo, '/sda2/nope', ...point], /not-found: /],
    ['a folder as content', () => ['cat', demo, '/sda2/srv', ...point], /chainlift: /],
    ['NBD beyond this computer', () => ['nbd', demo, ...point, '--listen', '0.0.0.0:0'], /denied: /],
  ])('%s', (_title, args, message) => {
    const { code, stdout, stderr } = chainlift(...args());
    expect([1, 2]).toContain(code);
    expect(stdout).toBe('');
    expect(stderr).toMatch(message);
  });
});

import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '..', '..', '..');

/** The rules that dependency-cruiser finds broken in `paths`. */
function broken(...paths: string[]): string[] {
  const { stdout } = spawnSync(
    process.execPath,
    [
      join(root, 'node_modules', 'dependency-cruiser', 'bin', 'dependency-cruise.mjs'),
      '--config',
      '.dependency-cruiser.cjs',
      '--output-type',
      'json',
      ...paths,
    ],
    { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 },
  );
  const report = JSON.parse(stdout) as { summary: { violations: { rule: { name: string } }[] } };
  return [...new Set(report.summary.violations.map(({ rule }) => rule.name))];
}

describe('the layering', () => {
  const planted: string[] = [];
  afterEach(() => {
    for (const path of planted.splice(0)) rmSync(path, { force: true });
  });
  /** A file that breaks a rule on purpose. Its name keeps it out of builds and of the other checks' way. */
  function plant(folder: string, text: string): string {
    const path = join(root, folder, `planted-violation-${process.pid}.ts`);
    writeFileSync(path, text);
    planted.push(path);
    return path;
  }

  it('holds', { timeout: 120_000 }, () => {
    expect(broken('main', 'preload', 'renderer')).toEqual([]);
  });

  it.each([
    ['main/engine/filesystem', "import '../image/formats.ts';", 'engine-filesystem-stands-on'],
    [
      'main/engine/storage',
      "import type { Disk } from '../chain/disk.ts';\nexport type D = Disk;",
      'engine-storage-stands-on',
    ],
    ['main/engine/task', "import 'electron';", 'engine-is-pure-node'],
    [
      'main/engine/volume',
      "import type { About } from '../../../preload/api.ts';\nexport type A = About;",
      'engine-service-implements-contract',
    ],
    ['main/cli', "import '../engine/chain/disk.ts';", 'shells-stand-on-the-service'],
    ['preload', "import '../main/engine/errors.ts';", 'contract-knows-nobody'],
    ['renderer', "import '../main/engine/errors.ts';", 'window-knows-only-the-contract'],
  ])('catches a deliberate violation in %s', { timeout: 120_000 }, (folder, text, rule) => {
    expect(broken(plant(folder, text).slice(root.length + 1))).toContain(rule);
  });
});

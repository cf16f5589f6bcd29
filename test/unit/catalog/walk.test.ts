import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { walk } from '../../../main/engine/catalog/walk.ts';
import { CancelledError } from '../../../main/engine/errors.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { scratchFolder } from '../../support/scratch.ts';

const scratch = scratchFolder('walk');
const codes = (findings: readonly { code: string }[]) => findings.map((finding) => finding.code);

describe('walk', () => {
  let root = '';
  beforeAll(() => {
    root = join(scratch.path, 'root');
    mkdirSync(join(root, 'a/b/c/d/e/f/g/h'), { recursive: true });
    for (const folder of ['', 'a/b', 'a/b/c/d/e/f', 'a/b/c/d/e/f/g']) writeFileSync(join(root, folder, 'x.vmx'), '');
    mkdirSync(join(root, 'x.vmx.lck'));
    symlinkSync('..', join(root, 'a/up'));
    symlinkSync(scratch.path, join(root, 'a/outside'));
    symlinkSync('nowhere', join(root, 'a/broken'));
  });

  it('goes six folders deep, past locks and links, and says what it did not look into', async () => {
    const { folders, findings } = await walk(new Confinement(root));
    expect(folders.map((folder) => folder.path.slice(root.length))).toEqual([
      '',
      '/a',
      '/a/b',
      '/a/b/c',
      '/a/b/c/d',
      '/a/b/c/d/e',
      '/a/b/c/d/e/f',
    ]);
    expect(folders[2]?.files).toEqual(['x.vmx']);
    expect(codes(findings).sort()).toEqual(['link-not-followed', 'link-not-followed', 'too-deep']);
    expect(findings.find((finding) => finding.code === 'too-deep')?.message).toContain('a/b/c/d/e/f/g');
    expect(findings.filter((finding) => finding.severity !== 'note')).toEqual([]);
  });

  it('stops at its limit of entries, with what it has', async () => {
    const { folders, findings } = await walk(new Confinement(root), undefined, { entries: 3 });
    expect(folders.length).toBeGreaterThan(0);
    expect(folders.length).toBeLessThan(4);
    expect(codes(findings)).toContain('too-many-files');
  });

  it('can be cancelled', async () => {
    const controller = new AbortController();
    controller.abort();
    await expect(walk(new Confinement(root), controller.signal)).rejects.toThrow(CancelledError);
  });
});

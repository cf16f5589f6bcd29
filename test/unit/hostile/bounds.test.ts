/** The instruments first: an honest image of every format reads whole within the bounds, and what breaks them is noticed. */
import { symlinkSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { LocalFile } from '../../../main/engine/storage/local-file.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { attack, codes, withinBounds } from './attack.ts';
import { fresh, raw, structured } from './fixtures.ts';

describe('honest images', () => {
  const scratch = scratchFolder('hostile');
  it.each([...structured, raw].map((fixture) => [fixture.name, fixture] as const))('%s', async (_name, fixture) => {
    const folder = fresh(scratch.path);
    const { leaf, model } = fixture.write(folder);
    const { error, bytes, size, formats, findings } = await attack(folder, leaf);
    expect(error).toBeUndefined();
    expect(size).toBe(model.length);
    expect(formats[0]).toBe(fixture.format);
    expect(bytes.equals(model.subarray(0, bytes.length))).toBe(true);
    expect(codes(findings)).toEqual([]);
  });
});

describe('what breaks the bounds is noticed', () => {
  const scratch = scratchFolder('hostile-bounds');
  it('a file outside, opened as the engine opens files', async () => {
    const folder = fresh(scratch.path);
    writeFileSync(join(scratch.path, 'secret'), 'x');
    const opening = withinBounds(folder, () => LocalFile.open(join(folder, '../secret')).close());
    await expect(opening).rejects.toThrow('outside the folder');
  });
  it('a file outside, through a link and a promise', async () => {
    const folder = fresh(scratch.path);
    writeFileSync(join(scratch.path, 'secret'), 'x');
    symlinkSync(join(scratch.path, 'secret'), join(folder, 'link'));
    const opening = withinBounds(folder, async () => void (await readFile(join(folder, 'link'))));
    await expect(opening).rejects.toThrow('outside the folder');
  });
  it('memory, though it is given back at once', async () => {
    const taking = withinBounds(fresh(scratch.path), async () => void Buffer.alloc(200 << 20, 1));
    await expect(taking).rejects.toThrow('MiB more at the peak');
  });
});

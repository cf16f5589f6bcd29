import { mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { verifyChain } from '../../../main/engine/chain/verify.ts';
import { detectFormat, openLayer } from '../../../main/engine/image/formats.ts';
import type { Finding } from '../../../main/engine/image/image.ts';
import { isFirstPartName, isLaterPartName, partAt, partName } from '../../../main/engine/image/raw/parts.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { pattern } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('raw');
let number = 0;
/** A folder with files of these sizes; their bytes follow on each other in the order given. */
function write(sizes: Readonly<Record<string, number>>): { folder: Confinement; root: string; whole: Buffer } {
  const root = join(scratch.path, `case-${number++}`);
  mkdirSync(root);
  const pieces: Buffer[] = [];
  let at = 0;
  for (const [name, size] of Object.entries(sizes)) {
    const bytes = pattern(at, size);
    pieces.push(bytes);
    writeFileSync(join(root, name), bytes);
    at += size;
  }
  return { folder: new Confinement(root), root, whole: Buffer.concat(pieces) };
}

describe('names of the parts of a raw image', () => {
  it.each([
    ['disk.001', true, false],
    ['disk.000', true, false],
    ['disk.002', false, true],
    ['disk.1000', false, true],
    ['disk.raw.000', true, false],
    ['ext2.splitraw.017', false, true],
    ['disk.img.aa', true, false],
    ['disk.aaa', true, false],
    ['disk.img.ab', false, false],
    ['disk.01', false, false],
    ['disk.img', false, false],
    ['backup.7z.001', false, false],
    ['backup.zip.002', false, false],
    ['messages.log.001', false, false],
    ['libc.so.1.001', false, false],
    ['.001', false, false],
  ])('%s: first part %s, later part %s', (name, first, later) => {
    expect([isFirstPartName(name), isLaterPartName(name)]).toEqual([first, later]);
  });

  it('go on where the digits or the letters end', () => {
    expect(partAt(partName('d.999')!, 1000)).toBe('d.1000');
    expect(partAt(partName('d.aa')!, 26)).toBe('d.ba');
    expect(partAt(partName('d.aaa')!, 675)).toBe('d.azz');
  });
});

describe('a split raw image', () => {
  it.each([
    ['numbers from 1', ['disk.001', 'disk.002', 'disk.003']],
    ['numbers from 0', ['disk.raw.000', 'disk.raw.001', 'disk.raw.002']],
    ['letters', ['disk.img.aa', 'disk.img.ab', 'disk.img.ac']],
    ['two digits', ['disk.01', 'disk.02', 'disk.03']],
    ['a number that outgrows its width', Array.from({ length: 101 }, (_, n) => `d.${String(n).padStart(2, '0')}`)],
  ])('is one disk: %s', async (_what, names) => {
    const sizes = Object.fromEntries(names.map((name, index) => [name, index === names.length - 1 ? 512 : 1024]));
    const { folder, root, whole } = write(sizes);
    await leavesUntouched(root, async () => {
      const layer = await openLayer(names[0]!, folder);
      expect(layer).toMatchObject({ format: 'raw', variant: 'split', virtualSize: whole.length });
      expect(layer.files.map(({ name }) => name)).toEqual(names);
      expect(await readLayer(layer, 0, whole.length)).toEqual(whole);
      expect(await readLayer(layer, 1000, 100)).toEqual(whole.subarray(1000, 1100));
      expect(await findings(layer)).toEqual([]);
      await layer.close();
    });
  });

  it('does not mind files beside it that only look like parts', async () => {
    const { folder, whole } = write({ 'disk.aa': 512, 'disk.ab': 512 });
    for (const name of ['disk.gz', 'disk.md', 'disk.abc', 'disk.001', 'other.ac', 'disk.ac.log']) {
      writeFileSync(join(folder.root, name), 'x');
    }
    const layer = await openLayer('disk.aa', folder);
    expect(layer.virtualSize).toBe(whole.length);
    await layer.close();
  });

  it.each([
    [['disk.001', 'disk.003', 'disk.004'], 'disk.002'],
    [['disk.000', 'disk.002'], 'disk.001'],
    [['disk.img.aa', 'disk.img.ac'], 'disk.img.ab'],
  ])('is refused with a gap: %j', async (names, gone) => {
    const { folder } = write(Object.fromEntries(names.map((name) => [name, 512])));
    await expect(openLayer(names[0]!, folder)).rejects.toMatchObject({
      kind: 'corrupt',
      message: expect.stringContaining(`no ${gone}`),
      details: { structure: 'Split raw image' },
    });
  });

  it('names its first part where a later one is opened', async () => {
    const { folder } = write({ 'disk.001': 512, 'disk.002': 512, 'disk.img.aa': 512, 'disk.img.ab': 512 });
    for (const [name, first] of [
      ['disk.002', 'disk.001'],
      ['disk.img.ab', 'disk.img.aa'],
    ] as const) {
      await expect(openLayer(name, folder)).rejects.toMatchObject({
        kind: 'unsupported',
        details: { role: 'extent', descriptor: first },
      });
    }
    const alone = write({ 'disk.002': 512, 'disk.003': 512 });
    await expect(openLayer('disk.002', alone.folder)).rejects.toMatchObject({
      kind: 'corrupt',
      message: expect.stringContaining('no disk.001'),
    });
  });

  it('is no split image where there is one file, whatever its number', async () => {
    const { folder } = write({ 'disk.001': 512, 'backup.2024': 512, 'vm.aa': 512, 'x.gz': 512 });
    for (const name of ['disk.001', 'backup.2024', 'vm.aa', 'x.gz']) {
      const layer = await openLayer(name, folder);
      expect(layer).toMatchObject({ format: 'raw', variant: 'raw', virtualSize: 512, properties: {} });
      await layer.close();
    }
  });

  it('is suspicious where its parts are not of one size', async () => {
    const { folder, root } = write({ 'disk.001': 1024, 'disk.002': 1024, 'disk.003': 1024, 'disk.004': 512 });
    truncateSync(join(root, 'disk.002'), 512);
    const all: Finding[] = [];
    for await (const finding of verifyChain('disk.001', folder)) all.push(finding);
    expect(all).toMatchObject([
      { severity: 'suspicious', code: 'split-part-size', source: 'disk.002', expected: 1024, found: 512 },
    ]);
    truncateSync(join(root, 'disk.002'), 1024);
    writeFileSync(join(root, 'disk.004'), Buffer.alloc(2048));
    const layer = await openLayer('disk.001', folder);
    expect(await findings(layer)).toMatchObject([{ code: 'split-part-size', source: 'disk.004' }]);
    await layer.close();
  });

  it('does not follow a part out of the folder', async () => {
    const { folder, root } = write({ 'disk.001': 512 });
    const outside = join(scratch.path, `outside-${number}`);
    writeFileSync(outside, Buffer.alloc(512));
    symlinkSync(outside, join(root, 'disk.002'));
    await expect(openLayer('disk.001', folder)).rejects.toMatchObject({ kind: 'denied' });
    rmSync(outside);
  });

  it('is known by its name, and by its content only where the name leaves that open', async () => {
    const { folder, root } = write({ 'disk.001': 512, 'disk.raw.000': 512, 'plain.txt': 512 });
    for (const name of ['disk.001', 'disk.raw.000']) {
      const bytes = Buffer.alloc(70_000);
      bytes.write('WithoutFreeSpace');
      writeFileSync(join(root, name), bytes);
    }
    const format = async (name: string) => (await detectFormat(name, folder))?.name;
    expect(await format('disk.001')).toBe('parallels');
    expect(await format('disk.raw.000')).toBe('raw');
    expect(await format('plain.txt')).toBeUndefined();
  });
});

/** An honest image under the name of another format: opened by what it is or refused by name, never read as a raw disk. */
import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { scratchFolder } from '../../support/scratch.ts';
import { attack } from './attack.ts';
import {
  type Fixture,
  fresh,
  parallelsAlone,
  qcow,
  qcow2v2,
  qcow2v3,
  vdiDynamic,
  vhdDifferencing,
  vhdDynamic,
  vhdFixed,
  vhdxDifferencing,
  vhdxDynamic,
  vmdkSparse,
  vmdkStream,
} from './fixtures.ts';

const IMAGES: readonly Fixture[] = [
  vmdkSparse,
  vmdkStream,
  vhdDynamic,
  vhdDifferencing,
  vhdxDynamic,
  vhdxDifferencing,
  vdiDynamic,
  qcow2v3,
  qcow2v2,
  qcow,
  parallelsAlone,
];
/** Names that say a format. */
const FORMATS = [
  'vmdk',
  'vhd',
  'avhd',
  'vhdx',
  'avhdx',
  'vdi',
  'qcow2',
  'qcow',
  'hdd',
  'hds',
  'qed',
  'e01',
  'VHDX',
  'Vmdk',
];
/** Names that say nothing, or that it may be anything. */
const ANY = ['img', 'bin', 'bak', 'disk', '2024-01-01', '1', 'aa'];

describe.each(IMAGES.map((fixture) => [fixture.name, fixture] as const))('%s', (_name, fixture) => {
  const scratch = scratchFolder('renamed');
  const renamed = (ending: string): { folder: string; leaf: string; model: Buffer } => {
    const folder = fresh(scratch.path);
    const { leaf, model } = fixture.write(folder);
    renameSync(join(folder, leaf), join(folder, `other.${ending}`));
    return { folder, leaf: `other.${ending}`, model };
  };

  it.each(FORMATS)('as .%s: opened by its content, or refused', async (ending) => {
    const { folder, leaf, model } = renamed(ending);
    const { error, formats, bytes, size, findings } = await attack(folder, leaf);
    if (error === undefined) {
      expect(formats[0]).toBe(fixture.format);
      expect(size).toBe(model.length);
      expect(bytes.equals(model.subarray(0, bytes.length))).toBe(true);
    } else {
      expect(error.kind).toMatch(/^(corrupt|unsupported)$/);
      // Found by its name, it says what it expected and what it found.
      expect(error.details.structure ?? error.details.feature).toBeDefined();
      expect(findings.some(({ severity }) => severity !== 'note')).toBe(true);
    }
  });

  it.each(ANY)('as .%s: opened by its content', async (ending) => {
    const { folder, leaf, model } = renamed(ending);
    const { error, formats, bytes, size } = await attack(folder, leaf);
    expect(error).toBeUndefined();
    expect(formats[0]).toBe(fixture.format);
    expect(size).toBe(model.length);
    expect(bytes.equals(model.subarray(0, bytes.length))).toBe(true);
  });

  it('without an ending: opened by its content', async () => {
    const folder = fresh(scratch.path);
    const { leaf, model } = fixture.write(folder);
    renameSync(join(folder, leaf), join(folder, 'image'));
    const { error, formats, bytes } = await attack(folder, 'image');
    expect(error).toBeUndefined();
    expect(formats[0]).toBe(fixture.format);
    expect(bytes.equals(model.subarray(0, bytes.length))).toBe(true);
  });
});

describe('a fixed VHD, which shows what it is at its end only', () => {
  const scratch = scratchFolder('renamed-fixed');
  // A .hdd may be a raw disk.
  it.each(FORMATS.filter((ending) => ending !== 'hdd'))('as .%s: a VHD, or refused', async (ending) => {
    const folder = fresh(scratch.path);
    vhdFixed.write(folder);
    renameSync(join(folder, 'disk.vhd'), join(folder, `other.${ending}`));
    const { error, formats } = await attack(folder, `other.${ending}`);
    if (error === undefined) expect(formats).toEqual(['vhd']);
    else expect(error.kind).toMatch(/^(corrupt|unsupported)$/);
  });

  it.each(['img', 'raw', 'bin'])('as .%s: the bytes of its disk', async (ending) => {
    const folder = fresh(scratch.path);
    const { model } = vhdFixed.write(folder);
    renameSync(join(folder, 'disk.vhd'), join(folder, `other.${ending}`));
    const { error, bytes } = await attack(folder, `other.${ending}`);
    expect(error).toBeUndefined();
    expect(bytes.subarray(0, model.length).equals(model)).toBe(true);
  });
});

/**
 * Bad input as a user meets it: the demo, broken in one place. Each time a typed error with structure, position, expected and
 * found; what is not broken is still shown; exit 1; nothing is written.
 */
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { chainlift } from '../../support/cli.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

const scratch = scratchFolder('bad-input');
let demo = '';
let folder = '';
let round = 0;
beforeAll(() => {
  demo = join(scratch.path, 'demo');
  chainlift('demo', demo);
});
beforeEach(() => {
  folder = join(scratch.path, `broken-${++round}`, 'repository');
  cpSync(demo, folder, { recursive: true });
});

const at = (name: string): string => join(folder, name);

/** Changes bytes of an image in place. */
function patch(name: string, position: number, bytes: Uint8Array): void {
  const content = readFileSync(at(name));
  content.set(bytes, position);
  writeFileSync(at(name), content);
}
/** Replaces text of the same length in an image's embedded descriptor. */
function replaceText(name: string, from: RegExp, to: string): void {
  const content = readFileSync(at(name));
  const text = content.subarray(0, 65_536).toString('latin1');
  const match = from.exec(text)!;
  expect(match, `${from} in ${name}`).not.toBeNull();
  content.set(Buffer.from(to.padEnd(match[0].length, ' ').slice(0, match[0].length), 'latin1'), match.index);
  writeFileSync(at(name), content);
}
const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
};

/** The point fails with these words; the points that do not need the broken part are whole. */
async function expectRefused(point: string, message: RegExp, intact: readonly string[] = ['base']): Promise<void> {
  await leavesUntouched(folder, () => {
    const out = join(scratch.path, `out-${round}`);
    mkdirSync(out);
    for (const args of [
      ['ls', folder, '/sda2/'],
      ['hash', folder],
      ['cp', '-r', folder, '/sda2/etc', out],
      ['nbd', folder],
    ]) {
      const { code, stdout, stderr } = chainlift(...args, '--point', point);
      expect({ args: args[0], code, stdout }).toEqual({ args: args[0], code: 1, stdout: '' });
      expect(stderr).toMatch(message);
    }
    expect(readdirSync(out)).toEqual([]);
    expect(chainlift('verify', folder).code).toBe(1);
    // The catalog still shows every point, and says which are broken.
    const scan = chainlift('scan', folder, '--json');
    expect(scan.code).toBe(0);
    const points: { name: string; disks: { error?: unknown }[] }[] = JSON.parse(scan.stdout).vms[0].points;
    expect(points).toHaveLength(4);
    for (const { name, disks } of points) {
      if (intact.includes(name)) expect({ name, error: disks[0]!.error }).toEqual({ name, error: undefined });
    }
    for (const name of intact)
      expect(chainlift('ls', folder, '/sda2/srv/www', '--point', name).stdout).toContain('index.php');
  });
}

describe('a broken chain', () => {
  it('a truncated image', async () => {
    truncateSync(at('web01-000001.vmdk'), 700_000);
    const { stderr } = chainlift('hash', folder, '--point', 'before-upgrade');
    expect(stderr).toMatch(
      /^chainlift: corrupt: VMDK grain table entry is damaged in web01-000001.vmdk at byte \d+: expected .*, found /,
    );
    // What the cut did not take is still there.
    expect(chainlift('ls', folder, '/', '--point', 'before-upgrade').stdout).toContain('sda1');
    const verify = chainlift('verify', folder);
    expect(verify.code).toBe(1);
    expect(verify.stdout).toContain('web01-000001.vmdk');
  });

  it('an image cut off within its tables', () => {
    truncateSync(at('web01-000001.vmdk'), 20_000);
    return expectRefused(
      'before-upgrade',
      /corrupt: VMDK .* damaged in web01-000001.vmdk at byte \d+: expected .*found/,
    );
  });

  it('wrong magic behind a right name', () => {
    patch('web01-000001.vmdk', 0, Buffer.from('NOPE'));
    return expectRefused(
      'before-upgrade',
      /corrupt: VMDK magic number is damaged in web01-000001.vmdk at byte 0: expected .*, found 4e4f5045/,
    );
  });

  it('a content id that is not the one the child recorded', () => {
    replaceText('web01.vmdk', /(?<![a-zA-Z])CID=[0-9a-f]+/, 'CID=0badf00d');
    return expectRefused('before-upgrade', /missing-parent: .*"web01.vmdk" of web01-000001.vmdk .*0badf/);
  });

  it('a loop of parents', () => {
    const text = readFileSync(at('web01-000001.vmdk')).toString('latin1');
    const own = /(?<![a-zA-Z])CID=([0-9a-f]+)/.exec(text)![1]!;
    const parent = /parentCID=([0-9a-f]+)/.exec(text)![1]!;
    // The base becomes a child of its own child, with the ids that each of them expects.
    copyFileSync(at('web01-000001.vmdk'), at('web01.vmdk'));
    replaceText('web01.vmdk', /(?<![a-zA-Z])CID=[0-9a-f]+/, `CID=${parent}`);
    replaceText('web01.vmdk', /parentCID=[0-9a-f]+/, `parentCID=${own}`);
    replaceText('web01.vmdk', /parentFileNameHint="web01.vmdk"/, 'parentFileNameHint="l.vmdk"');
    symlinkSync('web01-000001.vmdk', at('l.vmdk'));
    const { code, stderr } = chainlift('hash', folder, '--point', 'before-upgrade');
    expect(code).toBe(1);
    expect(stderr).toMatch(/corrupt: Chain is damaged in web01.vmdk: expected .*, found .*loop/);
    expect(chainlift('verify', folder).code).toBe(1);
  });

  it('a parent outside the repository, by its recorded name', () => {
    renameSync(at('web01.vmdk'), join(folder, '..', 'x.vmdk'));
    replaceText('web01-000001.vmdk', /parentFileNameHint="web01.vmdk"/, 'parentFileNameHint="../x.vmdk"');
    return expectRefused(
      'before-upgrade',
      /denied: .*"\.\.\/x\.vmdk" of web01-000001.vmdk.*leaves the opened folder/,
      [],
    );
  });

  it('a parent outside the repository, by a symbolic link', () => {
    renameSync(at('web01.vmdk'), join(folder, '..', 'x.vmdk'));
    symlinkSync('../x.vmdk', at('web01.vmdk'));
    return expectRefused('before-upgrade', /denied: .*"web01\.vmdk".*leaves the opened folder/, []);
  });

  it('a grain beyond the end of the file', () => {
    const image = readFileSync(at('web01-000001.vmdk'));
    const gdOffset = Number(image.readBigUInt64LE(56)) * 512;
    const rgdOffset = Number(image.readBigUInt64LE(48)) * 512;
    let broken = 0;
    // The last one of the table: file content, not what the file system begins with.
    for (let i = 0; i < 512; i++) {
      const entry = image.readUInt32LE(image.readUInt32LE(gdOffset) * 512 + i * 4);
      if (entry > 1) broken = i;
    }
    for (const directory of [gdOffset, rgdOffset]) {
      patch('web01-000001.vmdk', image.readUInt32LE(directory) * 512 + broken * 4, u32(0x7fff_ffff));
    }
    const { code, stderr } = chainlift('hash', folder, '--point', 'before-upgrade');
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /corrupt: VMDK grain table entry is damaged in web01-000001.vmdk at byte \d+: expected a sector .*, found sector 2147483647/,
    );
    // One bad entry costs its own grain and no more.
    const good = chainlift('ls', folder, '/sda2/srv/www', '--point', 'before-upgrade');
    expect(good.stdout).toContain('orders-2025.csv');
  });

  it('an unknown incompatible feature is refused by its name', () => {
    // Flag bit 5 is none that any writer has.
    const flags = readFileSync(at('web01-000001.vmdk')).readUInt32LE(8);
    patch('web01-000001.vmdk', 8, u32((flags | 0x8000_0000) >>> 0));
    const { code, stderr } = chainlift('hash', folder, '--point', 'before-upgrade');
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/unsupported: .*flags 0x80000000/),
    });
  });
});

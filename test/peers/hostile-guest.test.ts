/** Guests that lie: directory loops and impossible names, made by patching kernel-made file systems. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { chainlift } from '../support/cli.ts';
import { describePeers, run } from '../support/peers.ts';
import { leavesUntouched, scratchFolder } from '../support/scratch.ts';

describePeers('a guest that lies', { peers: ['mkfs.ext4', 'debugfs'] }, () => {
  const scratch = scratchFolder('hostile');

  /** An ext4 without checksums, so that a patched name is all that is wrong with it. */
  function volume(name: string, files: Record<string, string>): string {
    const tree = join(scratch.path, `${name}.tree`);
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(join(tree, path, '..'), { recursive: true });
      writeFileSync(join(tree, path), content);
    }
    const image = join(scratch.path, `${name}.img`);
    run('mkfs.ext4', ['-q', '-F', '-O', '^metadata_csum,^has_journal', '-d', tree, image, '8M']);
    return image;
  }

  it('a directory loop is named, the rest is listed, and nothing runs for ever', async () => {
    const image = volume('loop', { 'a/b/file.txt': 'inside', 'after.txt': 'after' });
    // A second name for /a, inside /a/b. debugfs writes what a kernel would refuse to.
    run('debugfs', ['-w', '-R', 'link /a /a/b/again', image]);
    await leavesUntouched(scratch.path, () => {
      const { code, stdout, stderr } = chainlift('ls', '-R', image, '/sda/');
      expect(code).toBe(1);
      expect(stdout.split('\n')).toEqual(
        expect.arrayContaining(['a', 'a/b', 'a/b/file.txt', 'a/b/again', 'after.txt']),
      );
      expect(stderr).toMatch(/corrupt: \/sda\/a\/b\/again: Directory tree is damaged .*expected .*found .*/);
    });
    const out = join(scratch.path, 'loop-out');
    mkdirSync(out);
    const copy = chainlift('cp', '-r', image, '/sda/a', '/sda/after.txt', out);
    expect(copy.code).toBe(1);
    expect(copy.stderr).toContain('again');
    expect(readFileSync(join(out, 'a', 'b', 'file.txt'), 'utf8')).toBe('inside');
    expect(readFileSync(join(out, 'after.txt'), 'utf8')).toBe('after');
    expect(existsSync(join(out, 'a', 'b', 'again'))).toBe(false);
  });

  it('a damaged attribute block takes nothing away from the rest of its file', () => {
    const image = volume('attribute', { 'file.txt': 'content' });
    // Too long for the inode: the value gets a block of its own, whose magic is then broken.
    writeFileSync(join(scratch.path, 'value'), 'v'.repeat(800));
    run('debugfs', ['-w', '-R', `ea_set -f ${join(scratch.path, 'value')} file.txt user.long`, image]);
    const bytes = readFileSync(image);
    const block = bytes.indexOf(Buffer.from([0x00, 0x00, 0x02, 0xea, 0x01, 0x00, 0x00, 0x00]));
    expect(block % 1024).toBe(0);
    bytes.writeUInt32LE(0, block);
    writeFileSync(image, bytes);
    const { code, stdout, stderr } = chainlift('stat', '--json', image, '/sda/file.txt');
    expect(code).toBe(1);
    expect(stderr).toMatch(/corrupt: .*expected .*found /);
    expect(JSON.parse(stdout)).toMatchObject({
      size: 7,
      attributes: [],
      problems: [{ kind: 'corrupt' }],
      layers: [{ bytes: 7 }],
    });
    expect(chainlift('cat', image, '/sda/file.txt')).toEqual({ code: 0, stdout: 'content', stderr: '' });
  });

  it.each([
    ['a path upwards', '../../evil', '../../evil'],
    ['an absolute path', '/tmp/evilx', '/tmp/evilx'],
    ['a NUL', 'evil\0name\0', 'evil'],
  ])('%s as a name stays inside, is listed with its reason, and is not written', async (_title, hostile, outside) => {
    const image = volume(`name-${hostile.length}-${hostile.charCodeAt(0)}`, {
      'dir/PLACEHOLDR': 'evil',
      'dir/honest.txt': 'good',
    });
    const bytes = readFileSync(image);
    const position = bytes.indexOf('PLACEHOLDR');
    expect(position).toBeGreaterThan(0);
    bytes.set(Buffer.from(hostile, 'latin1'), position);
    writeFileSync(image, bytes);
    const out = join(scratch.path, 'name-out', `${hostile.charCodeAt(0)}`, 'deep', 'er');
    mkdirSync(out, { recursive: true });
    await leavesUntouched(image.replace(/\.img$/, '.tree'), () => {
      const { code, stdout, stderr } = chainlift('ls', image, '/sda/dir');
      expect(code).toBe(1);
      expect(stdout).toContain('honest.txt');
      expect(stderr).toMatch(/corrupt: .*expected .*found /);
      const copy = chainlift('cp', '-r', image, '/sda/dir', out);
      expect(copy.code).toBe(1);
    });
    expect(readdirSync(join(out, 'dir'))).toEqual(['honest.txt']);
    expect(existsSync(join(out, 'dir', outside))).toBe(false);
    expect(existsSync('/tmp/evilx')).toBe(false);
  });
});

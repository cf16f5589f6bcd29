import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { ChainliftError, DeniedError, IoError, NotFoundError, UnsupportedError } from '../../../main/engine/errors.ts';
import { Confinement, splitRecorded } from '../../../main/engine/storage/confinement.ts';
import { scratchFolder } from '../../support/scratch.ts';

const scratch = scratchFolder('confinement');
let root = '';
let outside = '';
let confinement: Confinement;

/** Everything stands in `root`; the same names stand `outside`, and must never be found. */
beforeAll(() => {
  root = realpathSync(mkdtempSync(join(scratch.path, 'root-')));
  outside = realpathSync(mkdtempSync(join(scratch.path, 'outside-')));
  const file = (...parts: string[]) => writeFileSync(join(...parts), parts.join('/'));
  mkdirSync(join(root, 'web01', 'disks'), { recursive: true });
  mkdirSync(join(root, 'sql'));
  file(root, 'web01', 'web01.vmdk');
  file(root, 'web01', 'base.vmdk');
  file(root, 'web01', 'disks', 'inner.vmdk');
  file(root, 'web01', 'back\\slash.vmdk');
  file(root, 'web01', '..hidden.vmdk');
  file(root, 'sql', 'sql.vmdk');
  file(root, 'top.vmdk');
  file(outside, 'secret.vmdk');
  file(outside, 'base.vmdk');
  symlinkSync(join(outside, 'secret.vmdk'), join(root, 'web01', 'leads-out.vmdk'));
  symlinkSync(outside, join(root, 'web01', 'folder-out'));
  symlinkSync('base.vmdk', join(root, 'web01', 'leads-in.vmdk'));
  symlinkSync('ring-b.vmdk', join(root, 'web01', 'ring-a.vmdk'));
  symlinkSync('ring-a.vmdk', join(root, 'web01', 'ring-b.vmdk'));
  symlinkSync('nowhere.vmdk', join(root, 'web01', 'dangling.vmdk'));
  execFileSync('mkfifo', [join(root, 'web01', 'fifo.vmdk')]);
  confinement = new Confinement(root);
});

const from = () => join(root, 'web01', 'web01.vmdk');
const found = (recorded: string) => confinement.label(confinement.resolveRecorded(recorded, from()));

describe('a recorded name', () => {
  for (const [recorded, expected] of [
    ['base.vmdk', 'web01/base.vmdk'],
    ['./base.vmdk', 'web01/base.vmdk'],
    ['disks/inner.vmdk', 'web01/disks/inner.vmdk'],
    ['disks/../base.vmdk', 'web01/base.vmdk'],
    ['..hidden.vmdk', 'web01/..hidden.vmdk'],
    ['../sql/sql.vmdk', 'sql/sql.vmdk'],
    ['../top.vmdk', 'top.vmdk'],
    ['leads-in.vmdk', 'web01/base.vmdk'],
    ['back\\slash.vmdk', 'web01/back\\slash.vmdk'],
    ['disks\\inner.vmdk', 'web01/disks/inner.vmdk'],
    ['.\\base.vmdk', 'web01/base.vmdk'],
    ['..\\sql\\sql.vmdk', 'sql/sql.vmdk'],
    ['/vmfs/volumes/5f1d-uuid/web01/base.vmdk', 'web01/base.vmdk'],
    ['/vmfs/volumes/5f1d-uuid/sql/sql.vmdk', 'sql/sql.vmdk'],
    ['/somewhere/else/top.vmdk', 'top.vmdk'],
    ['[datastore1] web01/base.vmdk', 'web01/base.vmdk'],
    ['[ds (2)]   sql/sql.vmdk', 'sql/sql.vmdk'],
    ['C:\\VMs\\web01\\base.vmdk', 'web01/base.vmdk'],
    ['c:/VMs/sql/sql.vmdk', 'sql/sql.vmdk'],
    ['\\\\server\\share\\sql\\sql.vmdk', 'sql/sql.vmdk'],
    ['//server/share/base.vmdk', 'web01/base.vmdk'],
  ] as const) {
    it(`${JSON.stringify(recorded)} is ${expected}`, () => expect(found(recorded)).toBe(expected));
  }

  for (const recorded of [
    '../../outside/secret.vmdk',
    '../../../../../../../../etc/passwd',
    'disks/../../../etc/passwd',
    '..\\..\\..\\etc\\passwd',
    'disks\\..\\..\\..\\etc\\passwd',
    'leads-out.vmdk',
    'folder-out/secret.vmdk',
    'folder-out/base.vmdk',
    '/anywhere/leads-out.vmdk',
    'nul\0.vmdk',
    'base.vmdk\0/../../x',
  ]) {
    it(`${JSON.stringify(recorded)} is refused`, () => {
      expect(() => confinement.resolveRecorded(recorded, from())).toThrow(DeniedError);
    });
  }

  for (const recorded of [
    '',
    '.',
    '/',
    '[datastore1] ',
    'C:\\',
    'absent.vmdk',
    'disks',
    'fifo.vmdk',
    'dangling.vmdk',
    'ring-a.vmdk',
    'base.vmdk/inside-a-file.vmdk',
    `${'a'.repeat(300)}.vmdk`,
    `${'a/'.repeat(3000)}x.vmdk`,
    '/etc/passwd',
    '/etc/..',
    '/..',
    'C:\\..\\..\\Windows\\win.ini',
    '[datastore1] ../../etc/passwd',
    '\\\\server\\share\\..\\..\\etc\\passwd',
  ]) {
    it(`${JSON.stringify(recorded.slice(0, 40))} is not there`, () => {
      expect(() => confinement.resolveRecorded(recorded, from())).toThrow(NotFoundError);
    });
  }

  it('names what was looked for, and where', () => {
    try {
      confinement.resolveRecorded('absent.vmdk', from());
      expect.unreachable();
    } catch (error) {
      expect((error as ChainliftError).details).toMatchObject({ recorded: 'absent.vmdk', lookedIn: 'web01' });
    }
    try {
      confinement.resolveRecorded('leads-out.vmdk', from());
      expect.unreachable();
    } catch (error) {
      expect((error as ChainliftError).message).toContain('leads-out.vmdk');
    }
  });

  it('never makes anything but a typed error, whatever it holds', () => {
    const parts = [
      '..',
      '.',
      '',
      'a',
      'base.vmdk',
      '\\',
      '/',
      'C:',
      '[x]',
      '\0',
      '\n',
      'ü',
      '%2e%2e',
      '~',
      'folder-out',
      'disks',
      '\ud800',
    ];
    let state = 1;
    const next = (below: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state >>> 8) % below;
    };
    for (let i = 0; i < 5000; i++) {
      const separator = ['/', '\\', ''][next(3)]!;
      const name = Array.from({ length: next(6) }, () => parts[next(parts.length)]).join(separator);
      try {
        const real = confinement.resolveRecorded(name, from());
        expect(real.startsWith(`${root}/`)).toBe(true);
        expect(realpathSync(real)).toBe(real);
      } catch (error) {
        if (!(error instanceof ChainliftError)) throw new Error(`${JSON.stringify(name)} gave ${String(error)}`);
      }
    }
  });
});

describe('a path', () => {
  it('inside is opened under its own name', async () => {
    const file = confinement.open('web01/leads-in.vmdk');
    expect(file.name).toBe('web01/base.vmdk');
    await file.close();
    const absolute = confinement.open(join(root, 'top.vmdk'));
    expect(absolute.name).toBe('top.vmdk');
    await absolute.close();
  });

  it('outside is refused, there or not', () => {
    for (const path of [
      '..',
      '../x',
      '/etc/passwd',
      join(outside, 'absent'),
      'web01/leads-out.vmdk',
      'web01/folder-out/base.vmdk',
      `${root}-sibling/x`,
      'a\0b',
    ]) {
      expect(() => confinement.realPath(path), path).toThrow(DeniedError);
      expect(() => confinement.open(path), path).toThrow(DeniedError);
    }
  });

  it('that can not be opened says why', () => {
    expect(() => confinement.open('absent')).toThrow(IoError);
    expect(() => confinement.open('web01/ring-a.vmdk')).toThrow(IoError);
    expect(() => confinement.open('web01/dangling.vmdk')).toThrow(IoError);
    expect(() => confinement.open('top.vmdk/x')).toThrow(IoError);
    expect(() => confinement.open('web01')).toThrow(UnsupportedError);
    expect(() => confinement.open('web01/fifo.vmdk')).toThrow(UnsupportedError);
    expect(() => new Confinement(join(root, 'absent'))).toThrow(IoError);
  });

  it('is named relative to the root', () => {
    expect(confinement.label(join(root, 'web01', 'disks', 'inner.vmdk'))).toBe('web01/disks/inner.vmdk');
    expect(confinement.label(root)).toBe(root.split('/').at(-1));
  });

  it('may be the root of the whole computer', () => {
    const all = new Confinement('/');
    expect(all.realPath(join(root, 'top.vmdk'))).toBe(join(root, 'top.vmdk'));
    expect(() => all.resolveRecorded('../'.repeat(20), from())).toThrow(NotFoundError);
  });
});

describe('splitRecorded', () => {
  it('keeps a backslash where no Windows host wrote it', () => {
    expect(splitRecorded('a\\b/c')).toEqual({ names: ['a\\b', 'c'], absolute: false });
    expect(splitRecorded('C:\\a\\b')).toEqual({ names: ['C:', 'a', 'b'], absolute: true });
    expect(splitRecorded('[ds] a/b')).toEqual({ names: ['a', 'b'], absolute: true });
    expect(splitRecorded('[ds]')).toEqual({ names: [], absolute: true });
    expect(splitRecorded('//a///b/./c/')).toEqual({ names: ['a', 'b', 'c'], absolute: true });
  });
});

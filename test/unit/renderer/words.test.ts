import { describe, expect, it } from 'vitest';
import type { ErrorKind, WireError } from '../../../preload/api.ts';
import { EngineError } from '../../../preload/rpc/client.ts';
import { asWire, detailLines, shortWords, wordsFor } from '../../../renderer/words.ts';

const KINDS: Record<ErrorKind, WireError['details']> = {
  io: { source: '/srv/web01.vmdk', code: 'ENOENT' },
  unsupported: { feature: 'stream-optimised VMDK', source: '/srv/a.vmdk' },
  corrupt: { structure: 'ext4 inode 12', source: 'sda1', position: 4096, expected: '0xf30a', found: '0x0000' },
  'not-found': { what: 'point "x"', choices: ['base', 'current'] },
  'missing-parent': { child: 'db-3.vmdk', recorded: 'db-2.vmdk', reason: 'no file of that name' },
  'needs-key': { what: 'The volume sda3' },
  cancelled: { what: 'The copy' },
  denied: { what: 'The parent /etc/shadow', why: 'it leaves the repository' },
  usage: { problem: 'must be an absolute path' },
  internal: {},
};
const error = (kind: ErrorKind, details: WireError['details'], message = 'SECRET MESSAGE'): WireError => ({
  kind,
  message,
  details,
});

describe.each(Object.keys(KINDS) as ErrorKind[])('words for %s', (kind) => {
  it.each([
    ['with details', KINDS[kind]],
    ['without any', {}],
    ['with details of other types', { source: 5, structure: null, choices: 'x', recorded: [], code: { a: 1 } }],
  ])('%s are whole sentences that say what happened and what to do', (_case, details) => {
    const words = wordsFor(error(kind, details));
    for (const text of [words.text, words.next]) {
      expect(text).toMatch(/^[A-Z“]/);
      expect(text).toMatch(/\.$/);
      expect(text).not.toMatch(/undefined|null|\[object/);
    }
    expect(words.title).toMatch(/^[A-Z][^.]*$/);
    expect(JSON.stringify(words)).not.toContain('SECRET');
  });
});

describe('words', () => {
  it('never depend on the message', () => {
    for (const kind of Object.keys(KINDS) as ErrorKind[]) {
      expect(wordsFor(error(kind, KINDS[kind], 'a'))).toEqual(wordsFor(error(kind, KINDS[kind], 'ENOSPC no space')));
    }
  });
  it('name what the details name', () => {
    expect(wordsFor(error('io', KINDS.io)).text).toContain('“web01.vmdk”');
    expect(wordsFor(error('corrupt', KINDS.corrupt)).text).toBe(
      'Ext4 inode 12 is damaged in “sda1” at byte 4096: 0xf30a was expected, 0x0000 was found.',
    );
    expect(wordsFor(error('missing-parent', KINDS['missing-parent'])).text).toContain('“db-2.vmdk”');
    expect(wordsFor(error('not-found', KINDS['not-found'])).next).toBe('There is: base, current.');
    expect(wordsFor(error('denied', KINDS.denied)).text).toContain('it leaves the repository');
    expect(wordsFor(error('usage', { choices: ['a', 'b'] })).next).toBe('Choose one of: a, b.');
  });
  it('tell a parent that was changed from one that is absent', () => {
    const changed = { ...KINDS['missing-parent'], candidate: 'db-2.vmdk', reason: 'content id differs' };
    expect(wordsFor(error('missing-parent', changed)).next).toContain('changed since');
    expect(wordsFor(error('missing-parent', KINDS['missing-parent'])).next).toContain('Put “db-2.vmdk” back');
  });
  it.each([
    ['ENOENT', 'It is not there'],
    ['EPERM', 'No permission'],
    ['ENOSPC', 'The disk is full'],
    ['EDQUOT', 'The disk is full'],
    ['EIO', 'The drive reports a read error'],
    ['ECONNREFUSED', 'No answer in time'],
    ['EWHATEVER', 'Reading or writing failed'],
    ['constructor', 'Reading or writing failed'],
  ])('for system error %s are "%s"', (code, title) => {
    expect(wordsFor(error('io', { code, source: '/x' })).title).toBe(title);
  });
  it('offer to reconnect when the connection is lost', () => {
    expect(wordsFor(error('io', { code: 'DISCONNECTED' })).remedy).toBe('reconnect');
  });
  it('shorten long lists of choices', () => {
    const choices = Array.from({ length: 30 }, (_, index) => `p${index}`);
    expect(wordsFor(error('not-found', { what: 'The image', file: 'web01-000001.vmdk' }))).toMatchObject({
      title: 'An image is missing',
      text: '“web01-000001.vmdk” is not in the backup’s folder.',
      remedy: 'retry',
    });
    expect(wordsFor(error('not-found', { what: 'x', choices })).next).toMatch(/p7 and 22 more\.$/);
  });
  it('are short where room is short', () => expect(shortWords(error('needs-key', {}))).toBe('Encrypted'));
});

describe('details', () => {
  it('hold the message, the kind and every value', () => {
    const lines = detailLines(error('corrupt', { ...KINDS.corrupt, extra: [1, 2], none: undefined }));
    expect(lines).toContainEqual({ label: 'Message', value: 'SECRET MESSAGE' });
    expect(lines).toContainEqual({ label: 'At byte', value: '4096' });
    expect(lines).toContainEqual({ label: 'extra', value: '[1,2]' });
    expect(lines.map((line) => line.label)).not.toContain('none');
  });
});

describe('any thrown value becomes an error with words', () => {
  it.each([
    ['of the engine', new EngineError(error('denied', KINDS.denied)), 'denied'],
    ['of Electron’s bridge, as plain data', error('io', KINDS.io), 'io'],
    ['of our own making', new TypeError('x'), 'internal'],
    ['that is no error', 'text', 'internal'],
    ['that only looks like one', { kind: 'toString', message: 'x' }, 'internal'],
  ])('%s', (_what, thrown, kind) => expect(asWire(thrown).kind).toBe(kind));
});

import { describe, expect, it } from 'vitest';
import { nameFromBytes } from '../../../main/engine/filesystem/names.ts';
import { fitName, safeName } from '../../../main/engine/restore/safe-name.ts';
import { between, randomFrom } from '../../support/random.ts';

const platforms = ['linux', 'darwin', 'win32'] as const;
const guest = (bytes: string): string => nameFromBytes(Buffer.from(bytes, 'latin1'));

describe('safeName', () => {
  it('leaves honest names as they are', () => {
    for (const platform of platforms) {
      for (const name of [
        'index.php',
        'Müller.txt',
        '日本語',
        '🎉',
        '.bashrc',
        '..hidden',
        '...',
        'a b',
        '%2f',
        '~',
        '-rf',
        'con1',
        'nulled',
        'aconcagua.txt',
      ]) {
        if (platform === 'win32' && name === '...') continue;
        expect(safeName(name, platform), platform).toEqual({ name, changed: false });
      }
    }
    for (const name of ['a:b', 'what?', 'nul', 'con.txt', 'end.', 'dev\\x2duuid', 'a\nb', 'a\\b']) {
      expect(safeName(name, 'linux')).toEqual({ name, changed: false });
    }
  });

  it('makes one harmless component of any name', () => {
    const pieces = [
      '..',
      '.',
      '/',
      '\\',
      '\0',
      ':',
      'CON',
      'nul',
      ' ',
      'a',
      '%',
      '\n',
      '\xff',
      'é',
      '\ud83d',
      '~',
      '*',
      '?',
      '<',
      '|',
      '"',
      'x',
      '5c',
      '80',
    ];
    const random = randomFrom(5);
    for (let i = 0; i < 20_000; i++) {
      const name = Array.from(
        { length: between(random, 0, 8) },
        () => pieces[between(random, 0, pieces.length - 1)],
      ).join('');
      for (const platform of platforms) {
        const safe = safeName(name, platform).name;
        const fault =
          safe === '' || safe === '.' || safe === '..' || /[/\0]/.test(safe) || Buffer.byteLength(safe) > 255
            ? 'is no component'
            : platform === 'win32' &&
                (/[<>:"|?*\\\n]/.test(safe) || /[. ]$/.test(safe) || /^(con|nul) *(\.|$)/i.test(safe))
              ? 'is none for Windows'
              : platform === 'darwin' && safe.includes(':')
                ? 'is none for macOS'
                : undefined;
        if (fault !== undefined)
          expect.unreachable(`${JSON.stringify(name)} became ${JSON.stringify(safe)}, which ${fault}`);
      }
    }
  });

  it('says when a name was changed', () => {
    for (const [name, expected] of [
      ['', '_'],
      ['.', '․'],
      ['..', '․․'],
      ['a/b', 'a∕b'],
      ['../../etc/passwd', '..∕..∕etc∕passwd'],
      ['/', '∕'],
      ['a\0b', 'a␀b'],
    ] as const) {
      for (const platform of platforms) expect(safeName(name, platform)).toEqual({ name: expected, changed: true });
    }
    expect(safeName('a:b', 'darwin')).toEqual({ name: 'a%3ab', changed: true });
  });

  it('follows the rules of Windows', () => {
    for (const [name, expected] of [
      ['a:b', 'a%3ab'],
      ['what?*|<>"', 'what%3f%2a%7c%3c%3e%22'],
      ['back\\slash', 'back%5cslash'],
      ['line\nfeed\u0001', 'line%0afeed%01'],
      ['dot.', 'dot%2e'],
      ['dots. .', 'dots%2e%20%2e'],
      ['...', '%2e%2e%2e'],
      [' ', '%20'],
      ['CON', '_CON'],
      ['con.tar.gz', '_con.tar.gz'],
      ['Aux .txt', '_Aux .txt'],
      ['com1', '_com1'],
      ['LPT¹', '_LPT¹'],
      ['conin$', '_conin$'],
      ['COM10', 'COM10'],
      ['console', 'console'],
      ['C:', 'C%3a'],
    ] as const) {
      expect(safeName(name, 'win32')).toEqual({ name: expected, changed: name !== expected });
    }
  });

  it('gives a backslash back that was only protected', () => {
    expect(safeName(guest('unit\\x5cname'), 'linux')).toEqual({ name: 'unit\\x5cname', changed: false });
    // No byte 0x80 is meant here; but a file whose name has that byte may stand beside it.
    expect(safeName(guest('\\x80'), 'linux').name).not.toBe(safeName(guest('\x80'), 'linux').name);
  });

  it('keeps names apart that are not hostile', () => {
    const random = randomFrom(8);
    const pieces = ['\\', 'x', '5', 'c', '8', '0', 'f', '\xff', '\x80', '\xc3', '\xa9', 'a', '.', '\\x5c', '\\x80'];
    const madeOf = new Map<string, string>();
    for (let i = 0; i < 60_000; i++) {
      const bytes = Array.from(
        { length: between(random, 1, 8) },
        () => pieces[between(random, 0, pieces.length - 1)],
      ).join('');
      if (bytes === '.' || bytes === '..') continue;
      const { name } = safeName(guest(bytes), 'linux');
      const other = madeOf.get(name);
      if (other !== undefined && other !== bytes)
        expect.unreachable(`${JSON.stringify([bytes, other])} both became ${name}`);
      madeOf.set(name, bytes);
    }
  });

  it('cuts what is too long, at a character, with its extension, and keeps it apart', () => {
    const long = (end: string) => `${'日本語の長い名前'.repeat(20)}${end}`;
    for (const platform of ['linux', 'darwin'] as const) {
      const a = safeName(long('a.docx'), platform);
      const b = safeName(long('b.docx'), platform);
      expect(a.changed).toBe(true);
      expect(Buffer.byteLength(a.name)).toBeLessThanOrEqual(255);
      expect(Buffer.byteLength(a.name)).toBeGreaterThan(250);
      expect(a.name).toMatch(/~[0-9a-f]{8}\.docx$/);
      expect(a.name).not.toContain('\ufffd');
      expect(a.name).not.toBe(b.name);
    }
    // 166 characters: Windows counts those, not their bytes.
    expect(safeName(long('a.docx'), 'win32')).toEqual({ name: long('a.docx'), changed: false });
    const wide = '😀'.repeat(200);
    expect(safeName(wide, 'win32').name.length).toBeLessThanOrEqual(255);
    expect(safeName(wide, 'win32').name.isWellFormed()).toBe(true);
    expect(safeName(wide, 'linux').name.isWellFormed()).toBe(true);
    expect(safeName('a'.repeat(255), 'linux').changed).toBe(false);
    expect(safeName('a'.repeat(256), 'linux').changed).toBe(true);
    expect(Buffer.byteLength(safeName(`x.${'e'.repeat(400)}`, 'linux').name)).toBe(255);
    // 64 bytes that are no Unicode take four characters each.
    expect(Buffer.byteLength(safeName(guest('\xff'.repeat(64)), 'linux').name)).toBe(255);
    for (const bad of ['/', '\0'])
      expect(Buffer.byteLength(safeName(bad.repeat(255), 'linux').name)).toBeLessThanOrEqual(255);
  });

  it('fitName finds room for a tail', () => {
    expect(fitName('name', ' (2).txt')).toBe('name (2).txt');
    expect(Buffer.byteLength(fitName('é'.repeat(200), ' (2).txt', 'linux'))).toBeLessThanOrEqual(255);
    expect(fitName('é'.repeat(200), ' (2).txt', 'linux').endsWith('é (2).txt')).toBe(true);
  });
});

import { describe, expect, it } from 'vitest';
import { nameFromBytes, nameFromUtf16, nameToBytes } from '../../../main/engine/filesystem/names.ts';
import { between, randomFrom } from '../../support/random.ts';

const bytesOf = (text: string) => Buffer.from(text, 'latin1');

/** Undoes `nameFromUtf16`, as its description says. */
function toUtf16(name: string): string {
  return name.replace(/\\u(005c|d[89a-f][0-9a-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

describe('names stored as bytes', () => {
  it('are shown as they are where they are Unicode', () => {
    for (const name of [
      'plain.txt',
      'Müller',
      '日本語',
      '🎉 party',
      'e\u0301',
      '\ufeffbom',
      'a\u202eb',
      ' ',
      '\u0001',
      '\u{10ffff}',
      '\ufffd',
    ]) {
      expect(nameFromBytes(Buffer.from(name))).toBe(name);
      expect(Buffer.from(nameToBytes(name)).toString()).toBe(name);
    }
  });

  it('leave backslashes alone that can not be mistaken', () => {
    for (const name of [
      'dev-disk-by\\x2duuid.device',
      'a\\b',
      '\\',
      '\\\\',
      '\\x',
      '\\x5',
      '\\x7f',
      '\\xFF',
      '\\x8g',
      'C:\\x64',
    ]) {
      expect(nameFromBytes(bytesOf(name))).toBe(name);
      expect(Buffer.from(nameToBytes(name))).toEqual(bytesOf(name));
    }
  });

  it('show a byte that is no Unicode as its escape, and protect what looks like one', () => {
    for (const [stored, shown] of [
      ['caf\xe9.txt', 'caf\\xe9.txt'],
      ['\xff', '\\xff'],
      ['\\xff', '\\x5cxff'],
      ['\\x5c', '\\x5cx5c'],
      ['\\x5cxff', '\\x5cx5cxff'],
      ['\\\xff', '\\\\xff'],
      ['\xffx80', '\\xffx80'],
      ['\xc3', '\\xc3'],
      ['\xc3\xa9', 'é'],
      ['\xc0\xaf', '\\xc0\\xaf'],
      ['\xed\xa0\x80', '\\xed\\xa0\\x80'],
      ['\xf4\x90\x80\x80', '\\xf4\\x90\\x80\\x80'],
      ['\xe2\x82', '\\xe2\\x82'],
      ['\xe0\x80\x80', '\\xe0\\x80\\x80'],
      ['\xf0\x9f\x8e\x89\xff', '🎉\\xff'],
    ] as const) {
      expect(nameFromBytes(bytesOf(stored))).toBe(shown);
      expect(Buffer.from(nameToBytes(shown))).toEqual(bytesOf(stored));
    }
  });

  it('come back from what is shown, whatever they are, and are never mistaken for each other', () => {
    const random = randomFrom(20_26);
    const pieces = [
      '\\',
      'x',
      '5',
      'c',
      '8',
      '0',
      'f',
      'a',
      '\xff',
      '\x80',
      '\xc3',
      '\xa9',
      '\xe2\x82\xac',
      '\xed\xa0\x80',
      '/',
      '\0',
      '\n',
      '\xf0\x9f\x8e\x89',
    ];
    const shownBy = new Map<string, string>();
    for (let i = 0; i < 60_000; i++) {
      const stored = bytesOf(
        Array.from({ length: between(random, 0, 9) }, () =>
          i % 3 === 0 ? String.fromCharCode(between(random, 0, 255)) : pieces[between(random, 0, pieces.length - 1)],
        ).join(''),
      );
      const shown = nameFromBytes(stored);
      const key = stored.toString('latin1');
      if (!shown.isWellFormed()) expect.unreachable(`${JSON.stringify(key)} is shown as no Unicode`);
      if (Buffer.compare(nameToBytes(shown), stored) !== 0)
        expect.unreachable(`${JSON.stringify(key)} does not come back`);
      const other = shownBy.get(shown);
      if (other !== undefined && other !== key) expect.unreachable(`${JSON.stringify([key, other])} are shown as one`);
      shownBy.set(shown, key);
    }
  });

  it('do not depend on where in memory they lie', () => {
    const large = Buffer.from('xxxxcaf\xe9yyyy', 'latin1');
    expect(nameFromBytes(large.subarray(4, 8))).toBe('caf\\xe9');
    expect(nameFromBytes(new Uint8Array(large.buffer, large.byteOffset + 4, 3))).toBe('caf');
  });
});

describe('names stored as UTF-16', () => {
  it('are shown as they are where they are Unicode', () => {
    for (const name of ['README.TXT', 'Müller', '🎉', 'a\\b', '\\x5c', '\\u0041', '\\ud7ff', '\\uD83D']) {
      expect(nameFromUtf16(name)).toBe(name);
    }
  });

  it('show lone surrogates as escapes, and protect what looks like one', () => {
    for (const [stored, shown] of [
      ['a\ud83d', 'a\\ud83d'],
      ['\ude00b', '\\ude00b'],
      ['\ude00\ud83d', '\\ude00\\ud83d'],
      ['\ud83d\ud83d\ude00', '\\ud83d😀'],
      ['\\ud83d', '\\u005cud83d'],
      ['\\u005c', '\\u005cu005c'],
      ['\\\ud83d', '\\\\ud83d'],
    ] as const) {
      expect(nameFromUtf16(stored)).toBe(shown);
    }
  });

  it('come back from what is shown, and are never mistaken for each other', () => {
    const random = randomFrom(16);
    const pieces = ['\\', 'u', '0', '5', 'c', 'd', '8', 'f', '\ud83d', '\ude00', 'é', 'a'];
    const shownBy = new Map<string, string>();
    for (let i = 0; i < 40_000; i++) {
      const stored = Array.from(
        { length: between(random, 0, 9) },
        () => pieces[between(random, 0, pieces.length - 1)],
      ).join('');
      const shown = nameFromUtf16(stored);
      if (!shown.isWellFormed()) expect.unreachable(`${JSON.stringify(stored)} is shown as no Unicode`);
      if (toUtf16(shown) !== stored) expect.unreachable(`${JSON.stringify(stored)} does not come back`);
      const other = shownBy.get(shown);
      if (other !== undefined && other !== stored)
        expect.unreachable(`${JSON.stringify([stored, other])} are shown as one`);
      shownBy.set(shown, stored);
    }
  });
});

import { describe, expect, it } from 'vitest';
import { contentDisposition, downloadName } from '../../../main/web/content-disposition.ts';

describe('the name a guest file is downloaded under', () => {
  it.each([
    ['index.php', 'index.php'],
    ['.bashrc', '.bashrc'],
    ['Rechnung für März.pdf', 'Rechnung für März.pdf'],
    ['a/../../etc/passwd', 'a_.._.._etc_passwd'],
    ['..\\..\\boot.ini', '.._.._boot.ini'],
    ['C:evil.exe', 'C_evil.exe'],
    ['x\r\nSet-Cookie: a=b', 'x__Set-Cookie_ a=b'],
    ['nul\0.txt', 'nul_.txt'],
    ['CON', '_CON'],
    ['aux.tar.gz', '_aux.tar.gz'],
    ['console.log', 'console.log'],
    ['COM¹.txt', '_COM¹.txt'],
    ['trailing. . ', 'trailing'],
    ['..', 'download'],
    ['', 'download'],
    ['   ', 'download'],
    ['a"b\'c;d', "a_b'c;d"],
    ['photo\u202egpj.exe', 'photo_gpj.exe'],
    ['lone\ud800surrogate', 'lone\ufffdsurrogate'],
    ['naïve'.normalize('NFD'), 'naïve'.normalize('NFC')],
    ['نمی‌خواهم.txt', 'نمی‌خواهم.txt'],
  ])('%j is saved as %j', (guest, safe) => {
    expect(downloadName(guest)).toBe(safe);
  });

  it('is bounded in bytes, keeps its ending and no broken character', () => {
    const long = downloadName(`${'ü€😀'.repeat(100)}.tar`);
    expect(Buffer.byteLength(long)).toBeLessThanOrEqual(200);
    expect(Buffer.byteLength(long)).toBeGreaterThan(190);
    expect(long.endsWith('.tar')).toBe(true);
    expect(long.isWellFormed()).toBe(true);
    expect(Buffer.byteLength(downloadName(`a.${'b'.repeat(5000)}`))).toBe(200);
  });
});

describe('Content-Disposition', () => {
  it('has an ASCII form and the exact UTF-8 form', () => {
    expect(contentDisposition('50% für\'(*)".txt')).toBe(
      `attachment; filename="50_ f_r'(_)_.txt"; filename*=UTF-8''50%25%20f%C3%BCr%27%28_%29_.txt`,
    );
  });

  it.each(['a\r\nX: y', 'a"; filename=evil.exe; x="', '\ud83d', '😀', 'a\\"b', '\u0000\u007f\u0085'])(
    'stays one header value of printable ASCII for %j',
    (name) => {
      const value = contentDisposition(name);
      expect(value).toMatch(
        /^attachment; filename="[\x20-\x21\x23-\x5b\x5d-\x7e]*"; filename\*=UTF-8''[A-Za-z0-9!#$&+.^_`|~%-]+$/,
      );
      const encoded = value.slice(value.indexOf("''") + 2);
      expect(decodeURIComponent(encoded)).toBe(downloadName(name));
    },
  );
});

import { describe, expect, it } from 'vitest';
import { duration, modeString, printable, size, time } from '../../../main/cli/output.ts';

describe('what the command line prints', () => {
  it('sizes', () => {
    for (const [bytes, text] of [
      [0, '0 B'],
      [1023, '1023 B'],
      [1024, '1.0 KiB'],
      [5939, '5.8 KiB'],
      [102_300, '99.9 KiB'],
      [102_391, '100 KiB'],
      [102_400, '100 KiB'],
      [1_048_575, '1.0 MiB'],
      [1_048_064, '1.0 MiB'],
      [1_047_000, '1022 KiB'],
      [2 ** 40, '1.0 TiB'],
      [2 ** 53, '8.0 PiB'],
      [2 ** 60, '1024 PiB'],
    ] as const) {
      expect(size(bytes)).toBe(text);
    }
  });

  it('durations', () => {
    expect([0, 0.2, 59, 59.5, 60, 130, 3599.1, 3900, 90_000].map(duration)).toEqual([
      '0 s',
      '1 s',
      '59 s',
      '1 min 0 s',
      '1 min 0 s',
      '2 min 10 s',
      '1 h 0 min',
      '1 h 5 min',
      '25 h 0 min',
    ]);
  });

  it('times with all their digits, of any year', () => {
    expect(time(undefined)).toBe('-');
    expect(time({ seconds: 0, nanoseconds: 0 })).toBe('1970-01-01T00:00:00Z');
    expect(time({ seconds: 1_700_000_000, nanoseconds: 120_000_000 })).toBe('2023-11-14T22:13:20.12Z');
    expect(time({ seconds: 1_700_000_000, nanoseconds: 1 })).toBe('2023-11-14T22:13:20.000000001Z');
    expect(time({ seconds: -1, nanoseconds: 500_000_000 })).toBe('1969-12-31T23:59:59.5Z');
    expect(time({ seconds: 253_402_300_800, nanoseconds: 0 })).toBe('+010000-01-01T00:00:00Z');
    expect(time({ seconds: -62_198_755_200, nanoseconds: 0 })).toBe('-000001-01-01T00:00:00Z');
    expect(time({ seconds: 2 ** 52, nanoseconds: 0 })).toBe(`@${2 ** 52}`);
  });

  it('modes as ls does', () => {
    for (const [kind, mode, text] of [
      ['file', 0o644, '-rw-r--r--'],
      ['directory', 0o1777, 'drwxrwxrwt'],
      ['directory', 0o1776, 'drwxrwxrwT'],
      ['file', 0o4755, '-rwsr-xr-x'],
      ['file', 0o4644, '-rwSr--r--'],
      ['file', 0o2755, '-rwxr-sr-x'],
      ['file', 0o2745, '-rwxr-Sr-x'],
      ['symlink', 0o777, 'lrwxrwxrwx'],
      ['block-device', 0o660, 'brw-rw----'],
      ['character-device', 0, 'c---------'],
      ['fifo', 0o7777, 'prwsrwsrwt'],
      ['socket', undefined, 's---------'],
      ['what', 0o777, '?rwxrwxrwx'],
    ] as const) {
      expect(modeString(kind, mode)).toBe(text);
    }
  });

  it('lets no name steer the terminal', () => {
    expect(printable('plain Müller 日本 🎉')).toBe('plain Müller 日本 🎉');
    expect(printable('\x1b]0;owned\x07')).toBe('\\x1b]0;owned\\x07');
    expect(printable('a\nb\tc\rd\0e\x7f\x9b1m')).toBe('a\\x0ab\\x09c\\x0dd\\x00e\\x7f\\x9b1m');
    expect(printable('gpj.\u202eexe')).toBe('gpj.\\u202eexe');
    expect(printable('a\u2028b\u2066c')).toBe('a\\u2028b\\u2066c');
    for (let code = 0; code < 0x20; code++)
      expect(printable(String.fromCharCode(code))).not.toContain(String.fromCharCode(code));
  });
});

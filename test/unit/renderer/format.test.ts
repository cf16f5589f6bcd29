import { describe, expect, it } from 'vitest';
import * as format from '../../../renderer/logic/format.ts';

describe('sizes', () => {
  it.each([
    [0, '0 B'],
    [512, '512 B'],
    [1023, '1,023 B'],
    [1024, '1 KB'],
    [5902, '5.8 KB'],
    [184 * 1024, '184 KB'],
    [1000 * 1024, '1,000 KB'],
    [1024 * 1024 - 1, '1 MB'],
    [40_055_603, '38.2 MB'],
    [412 * 1024 ** 2, '412 MB'],
    [64 * 1024 ** 4, '64 TB'],
    [Number.MAX_SAFE_INTEGER, '8 PB'],
  ])('%d bytes are %s', (bytes, text) => expect(format.size(bytes)).toBe(text));

  it('are exact where asked', () => {
    expect(format.exactSize(5902)).toBe('5,902 bytes');
    expect(format.exactSize(1)).toBe('1 byte');
    expect(format.rate(212 * 1024 ** 2)).toBe('212 MB/s');
  });
});

describe('durations', () => {
  it.each([
    [0.2, '0 s'],
    [4, '4 s'],
    [59.6, '1 min'],
    [200, '3 min 20 s'],
    [900, '15 min'],
    [3900, '1 h 5 min'],
    [187_200, '2 d 4 h'],
  ])('%d seconds are %s', (seconds, text) => expect(format.duration(seconds)).toBe(text));
});

describe('times', () => {
  const ms = Date.UTC(2026, 10, 14, 2, 0);
  it('are short, long and in full', () => {
    expect(format.dateTime(ms, 'UTC')).toBe('14 Nov 2026, 02:00');
    expect(format.dateTimeLong(ms, 'UTC')).toBe('Sat 14 Nov 2026, 02:00');
    expect(format.dayShort(Date.UTC(2026, 8, 3), 'UTC')).toBe('3 Sep');
    expect(format.clock(Date.UTC(2026, 8, 3), 'UTC')).toBe('00:00');
    expect(format.stamp({ seconds: ms / 1000, nanoseconds: 5 }, 'UTC')).toBe('14 Nov 2026, 02:00');
    expect(format.stampExact({ seconds: ms / 1000, nanoseconds: 123_456_789 })).toBe(
      '2026-11-14 02:00:00.123456789 UTC',
    );
    expect(format.stampExact({ seconds: -1, nanoseconds: 0 })).toBe('1969-12-31 23:59:59 UTC');
    expect(format.stampExact({ seconds: 253_402_300_800, nanoseconds: 0 })).toBe('+010000-01-01 00:00:00 UTC');
  });
  it('beyond every calendar are the seconds that are stored', () => {
    expect(format.stamp({ seconds: 9e15, nanoseconds: 0 })).toBe('@9000000000000000');
    expect(format.stampExact({ seconds: 9e15, nanoseconds: 0 })).toBe('9000000000000000 seconds since 1970');
  });
  it('that are no times are absent', () => {
    expect(format.isoTime('yesterday')).toBeUndefined();
    expect(format.isoTime(undefined)).toBeUndefined();
    expect(format.isoTime('2026-11-14T02:00:00Z')).toBe(ms);
  });
});

describe('modes', () => {
  it.each([
    ['file', 0o644, '-rw-r--r--', '0644'],
    ['file', 0o100640, '-rw-r-----', '0640'],
    ['directory', 0o40755, 'drwxr-xr-x', '0755'],
    ['symlink', 0o777, 'lrwxrwxrwx', '0777'],
    ['file', 0o4755, '-rwsr-xr-x', '4755'],
    ['file', 0o2644, '-rw-r-Sr--', '2644'],
    ['directory', 0o1777, 'drwxrwxrwt', '1777'],
    ['directory', 0o1776, 'drwxrwxrwT', '1776'],
    ['block-device', 0o660, 'brw-rw----', '0660'],
    ['unknown', 0, '?---------', '0000'],
  ] as const)('of a %s with %o are %s', (kind, mode, text, octal) => {
    expect(format.modeText(kind, mode)).toBe(text);
    expect(format.modeOctal(mode)).toBe(octal);
  });
});

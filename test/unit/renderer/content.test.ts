import { describe, expect, it } from 'vitest';
import { contentOf, hexLines } from '../../../renderer/logic/content.ts';

const bytes = (...values: (number | string)[]) =>
  Uint8Array.from(values.flatMap((value) => (typeof value === 'number' ? [value] : [...Buffer.from(value, 'utf8')])));

describe('content', () => {
  it('is text in UTF-8, with lines of any ending', () => {
    expect(contentOf(bytes('a\r\nbé\rc\n'), false)).toEqual({
      kind: 'text',
      lines: ['a', 'bé', 'c'],
      encoding: 'UTF-8',
      cut: false,
    });
  });
  it('is text when a character was cut off at the end of what was read, and only then', () => {
    const cutOff = bytes('abc', 0xc3);
    expect(contentOf(cutOff, true)).toMatchObject({ kind: 'text', encoding: 'UTF-8', lines: ['abc'] });
    expect(contentOf(bytes('plain text before ', 0xc3), false)).toMatchObject({ encoding: 'Windows-1252' });
  });
  it('is UTF-16 with its mark', () => {
    expect(contentOf(bytes(0xff, 0xfe, 0x41, 0, 0x42, 0), false)).toMatchObject({
      lines: ['AB'],
      encoding: 'UTF-16 LE',
    });
    expect(contentOf(bytes(0xfe, 0xff, 0, 0x41), false)).toMatchObject({ lines: ['A'], encoding: 'UTF-16 BE' });
  });
  it('is bytes with a NUL or many control characters', () => {
    expect(contentOf(bytes('text', 0, 'text'), false).kind).toBe('binary');
    expect(
      contentOf(
        Uint8Array.from({ length: 64 }, (_, index) => 1 + (index % 8)),
        false,
      ).kind,
    ).toBe('binary');
  });
  it('is never markup: HTML and SVG are text', () => {
    expect(contentOf(bytes('<svg onload="alert(1)"/>'), false).kind).toBe('text');
    expect(contentOf(bytes('<!doctype html><script>'), false).kind).toBe('text');
  });
  it.each([
    ['image/png', bytes(0x89, 'PNG\r\n', 0x1a, '\n')],
    ['image/jpeg', bytes(0xff, 0xd8, 0xff, 0xe0)],
    ['image/gif', bytes('GIF89a')],
    ['image/webp', bytes('RIFF', 1, 2, 3, 4, 'WEBP')],
  ])('is %s by its first bytes, not by its name', (type, head) => {
    const whole = contentOf(head, true);
    // The PNG signature is bytes, not text, and so are these.
    expect(whole).toEqual({ kind: 'image', type });
  });
  it('is bounded: long lines and many lines are cut and said to be', () => {
    const wide = contentOf(bytes('x'.repeat(9_000)), false);
    expect(wide).toMatchObject({ kind: 'text', cut: true });
    expect(wide.kind === 'text' ? wide.lines[0]?.length : 0).toBeLessThan(2_100);
    const tall = contentOf(bytes('\n'.repeat(20_000)), false);
    expect(tall.kind === 'text' ? tall.lines.length : 0).toBe(5_000);
  });
  it('may be nothing', () => expect(contentOf(new Uint8Array(0), false)).toEqual({ kind: 'empty' }));
});

it('shows bytes in hexadecimal', () => {
  expect(hexLines(bytes('Hello, ', 0, 255, '!'), 100)).toEqual([
    { offset: '00000000', hex: '48 65 6c 6c 6f 2c 20 00', text: 'Hello, .' },
    { offset: '00000008', hex: 'ff 21                  ', text: '.!' },
  ]);
});

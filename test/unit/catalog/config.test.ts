import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  flagOf,
  integerOf,
  MAX_CONFIG_BYTES,
  MAX_CONFIG_KEYS,
  parseConfig,
  readConfig,
  textOf,
} from '../../../main/engine/catalog/vmware/config.ts';
import { CorruptError } from '../../../main/engine/errors.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';

const parse = (text: string | Buffer) => parseConfig(Buffer.from(text as string), 'test.vmx');

describe('VMware configuration files', () => {
  it('reads keys without regard to case, the last of two wins, CRLF and blanks do not matter', () => {
    const config = parse(
      '#!/usr/bin/vmware\r\n\r\ndisplayName = "old"\r\n  DISPLAYNAME="new"  \r\nnumVCPUs = 4\r\nmem = ""\r\n',
    );
    expect(textOf(config, 'displayName')).toBe('new');
    expect(integerOf(config, 'numvcpus', 1, 64)).toBe(4);
    expect(textOf(config, 'mem')).toBeUndefined();
    expect(config.findings).toEqual([]);
  });

  it('undoes |XX, also where several bytes are one character', () => {
    const config = parse('a = "say |22hi|22 |7C |0Aend"\nb = "caf|C3|A9"\nc = "50|zz"\n');
    expect(textOf(config, 'a')).toBe('say "hi" | \nend');
    expect(textOf(config, 'b')).toBe('café');
    expect(textOf(config, 'c')).toBe('50|zz');
  });

  it.each([
    ['UTF-8', 'Büro 日本', Buffer.from('Büro 日本', 'utf8')],
    ['windows-1252', 'Büro', Buffer.from('42fc726f', 'hex')],
    ['GBK', '虚拟机', Buffer.from('d0e9c4e2bbfa', 'hex')],
    ['windows-936', '虚拟机', Buffer.from('d0e9c4e2bbfa', 'hex')],
    ['Shift_JIS', 'ソフト', Buffer.from('835c83748367', 'hex')],
    ['windows-1251', 'база', Buffer.from('e1e0e7e0', 'hex')],
    ['cp932', 'ソ', Buffer.from('835c', 'hex')],
  ])('reads names in %s', (encoding, name, bytes) => {
    for (const dot of ['.', '']) {
      const text = Buffer.concat([
        Buffer.from(`${dot}encoding = "${encoding}"\ndisplayName = "`),
        bytes,
        Buffer.from('"\nguestOS = "x"\n'),
      ]);
      const config = parseConfig(text, 'test.vmx');
      expect(textOf(config, 'displayName')).toBe(name);
      expect(textOf(config, 'guestOS')).toBe('x');
      expect(config.findings).toEqual([]);
    }
  });

  it('says when the encoding is unknown or wrong, and reads ASCII all the same', () => {
    const unknown = parse('.encoding = "klingon-8"\ndisplayName = "web01"\n');
    expect(textOf(unknown, 'displayName')).toBe('web01');
    expect(unknown.findings.map((finding) => finding.code)).toEqual(['config-encoding']);
    const wrong = parseConfig(
      Buffer.concat([Buffer.from('.encoding = "UTF-8"\na = "b'), Buffer.from([0xff]), Buffer.from('"\nc = "d"\n')]),
      't',
    );
    expect(textOf(wrong, 'c')).toBe('d');
    expect(wrong.encoding).toBe('windows-1252');
    expect(wrong.findings[0]?.code).toBe('config-encoding');
  });

  it('reads UTF-16 by its mark', () => {
    const text = Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from('displayName = "日本"\n', 'utf16le')]);
    expect(textOf(parseConfig(text, 't'), 'displayName')).toBe('日本');
  });

  it('passes over broken lines and reports the first few with their number', () => {
    const config = parse(`a = "1"\nnonsense\n= "x"\n${'junk\n'.repeat(20)}b = "2`);
    expect(textOf(config, 'a')).toBe('1');
    expect(textOf(config, 'b')).toBe('2');
    expect(config.findings).toHaveLength(6);
    expect(config.findings[0]).toMatchObject({ code: 'config-line', structure: 'line 2', found: 'nonsense' });
    expect(config.findings.at(-1)?.message).toContain('17 more lines');
  });

  it('keeps NULs, so that whoever uses the value can refuse it', () => {
    expect(textOf(parse('a = "x\0y"\nb = "p|00q"\n'), 'a')).toBe('x\0y');
    expect(textOf(parse('b = "p|00q"\n'), 'b')).toBe('p\0q');
  });

  it('reads a million lines within bounds', () => {
    const started = performance.now();
    const config = parse('x=y\n'.repeat(1_000_000));
    expect(config.values.size).toBe(1);
    expect(parse('junk\n'.repeat(1_000_000)).findings).toHaveLength(6);
    expect(performance.now() - started).toBeLessThan(10_000);
    const keys = Array.from({ length: MAX_CONFIG_KEYS + 1 }, (_, n) => `k${n}=1`).join('\n');
    expect(() => parse(keys)).toThrow(CorruptError);
  });

  it('keys that name properties of objects are plain keys', () => {
    const config = parse('__proto__ = "a"\nconstructor = "b"\n');
    expect(textOf(config, '__proto__')).toBe('a');
    expect(flagOf(config, 'toString')).toBeUndefined();
  });

  describe('from a folder', () => {
    const folder = mkdtempSync(join(tmpdir(), 'chainlift-config-'));
    afterAll(() => rmSync(folder, { recursive: true }));
    it('refuses a file larger than any real one', async () => {
      writeFileSync(join(folder, 'big.vmsd'), Buffer.alloc(MAX_CONFIG_BYTES + 1, 0x20));
      await expect(readConfig(join(folder, 'big.vmsd'), new Confinement(folder))).rejects.toThrow(CorruptError);
    });
  });
});

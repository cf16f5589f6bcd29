import { describe, expect, it } from 'vitest';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { childOf, childrenOf, decodeXml, descend, parseXml, readXml } from '../../../main/engine/xml.ts';

const parse = (text: string) => parseXml(text, 'Settings', 'a.xml');

describe('XML', () => {
  it('becomes elements with their attributes, children and text', () => {
    const root = parse(`<?xml version="1.0"?><!-- one --><v:a xmlns:v="u" x="1 &lt; 2&#10;3" y=''>
      <b> t&#233;xt &amp;amp; <![CDATA[<raw>]]></b><c/><b z="2"/></v:a>`);
    expect(root.name).toBe('a');
    expect(root.attributes.get('x')).toBe('1 < 2\n3');
    expect(root.attributes.get('y')).toBe('');
    expect(childrenOf(root, 'b').map(({ text }) => text)).toEqual(['téxt &amp; <raw>', '']);
    expect(root.children.map(({ name }) => name)).toEqual(['b', 'c', 'b']);
    expect(descend(root, 'c')?.children).toEqual([]);
    expect([childOf(undefined, 'x'), descend(root, 'c', 'd'), childOf(root, 'q')]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });

  it.each([
    ['&#0;', '\ufffd'],
    ['&#xD800;', '\ufffd'],
    ['&#x110000;', '\ufffd'],
    ['&#x1F600;', '😀'],
    ['&nbsp;&unknown;', '&nbsp;&unknown;'],
    ['&quot;&apos;&gt;', '"\'>'],
  ])('knows characters by number and the five names: %s', (text, expected) => {
    expect(parse(`<a>${text}</a>`).text).toBe(expected);
  });

  it.each([
    ['utf-8 with a mark', Buffer.from('\ufeff<?xml version="1.0"?><a>é</a>', 'utf8')],
    ['utf-16le', Buffer.from('\ufeff<?xml version="1.0" encoding="UTF-16"?><a>é</a>', 'utf16le')],
    ['utf-16be', Buffer.from('\ufeff<?xml version="1.0"?><a>é</a>', 'utf16le').swap16()],
    ['latin1', Buffer.from('<?xml version="1.0" encoding="ISO-8859-1"?><a>é</a>', 'latin1')],
    ['an unknown encoding', Buffer.from('<?xml version="1.0" encoding="x-none"?><a>é</a>', 'utf8')],
    ['NULs at its end', Buffer.from('<a>é</a>\0\0\0', 'utf8')],
  ])('is decoded: %s', async (_what, bytes) => {
    expect((await readXml(new MemorySource(bytes), 'Settings', 1000)).text).toBe('é');
    expect(decodeXml(bytes)).toContain('é');
  });

  it.each([
    ['nothing', '', 'corrupt'],
    ['text', 'hello', 'corrupt'],
    ['no end', '<a><b></a>', 'corrupt'],
    ['two roots', '<a/><b/>', 'corrupt'],
    ['a document type', '<!DOCTYPE a><a/>', 'unsupported'],
    ['entities that grow', '<!DOCTYPE a [<!ENTITY b "&c;&c;">]><a>&b;</a>', 'unsupported'],
    ['an external entity', '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', 'unsupported'],
    ['elements without end', '<a>'.repeat(100_000) + '</a>'.repeat(100_000), 'corrupt'],
    ['an attribute without end', `<a b="${'x'.repeat(100_000)}`, 'corrupt'],
    ['a comment without end', `<a>${'<!--'.repeat(100_000)}</a>`, 'corrupt'],
    ['names of a prototype', '<a><__proto__ x="1"/></a>', 'corrupt'],
  ])('is refused: %s', (_what, text, kind) => {
    expect(() => parse(text)).toThrow(expect.objectContaining({ kind }));
    expect(({} as { x?: string }).x).toBeUndefined();
  });

  it('is not read beyond its limit', async () => {
    const bytes = Buffer.from('<a/>');
    await expect(readXml(new MemorySource(bytes), 'Settings', 3)).rejects.toMatchObject({ kind: 'corrupt' });
  });

  it('takes a deep tree of snapshots and a long list in their stride', () => {
    expect(parse(`${'<a>'.repeat(900)}${'</a>'.repeat(900)}`).children).toHaveLength(1);
    expect(parse(`<a>${'<b c="d"/>'.repeat(20_000)}</a>`).children).toHaveLength(20_000);
  });
});

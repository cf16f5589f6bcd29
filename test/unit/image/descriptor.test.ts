import { describe, expect, it } from 'vitest';
import { ChainliftError } from '../../../main/engine/errors.ts';
import { looksLikeDescriptor, parseDescriptor } from '../../../main/engine/image/vmdk/descriptor.ts';
import { parentOf, variantOf } from '../../../main/engine/image/vmdk/refusals.ts';
import { descriptorText } from '../../support/vmdk-builder.ts';

const bytes = (text: string) => Buffer.from(text, 'utf8');
const parse = (text: string | Buffer) => parseDescriptor(typeof text === 'string' ? bytes(text) : text, 'a.vmdk');
const flat = 'RW 1000 FLAT "a-flat.vmdk" 0';
const base = { createType: 'monolithicFlat', extents: [flat] };

/** The error that `body` throws, as it would cross a process. */
function wire(body: () => unknown) {
  try {
    body();
  } catch (error) {
    if (error instanceof ChainliftError) return error.toWire();
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('VMDK descriptor', () => {
  it('reads the specification’s example with every kind of extent line', () => {
    const descriptor = parse(
      descriptorText({
        createType: 'custom',
        version: 3,
        encoding: 'UTF-8',
        cid: '9AB023',
        parentCid: 'FFFFFFFF',
        extents: [
          'RW 4192256 SPARSE "my disk-s001.vmdk"',
          '  RDONLY\t1048576 FLAT "disk f.vmdk" 63  ',
          'NOACCESS 10 ZERO',
          'rw 20 vmfs "/vmfs/volumes/x y/d-flat.vmdk"',
          'RW 63 FLAT "\\\\.\\PhysicalDrive0" 0 partitionUUID "a b" deviceIdentifier "x"',
        ],
        more: ['changeTrackPath="web-ctk.vmdk"', 'ddb.uuid = "60 00 C2 97"', 'ddb.empty = ""', 'ddb.bare = yes'],
        newline: '\r\n',
      }),
    );
    expect(descriptor).toMatchObject({
      version: 3,
      createType: 'custom',
      cid: '009ab023',
      parentCid: 'ffffffff',
      parentFileNameHint: undefined,
    });
    expect(descriptor.extents.map(({ position: _, ...extent }) => extent)).toEqual([
      { access: 'RW', sectors: 4192256, type: 'SPARSE', name: 'my disk-s001.vmdk', offset: 0 },
      { access: 'RDONLY', sectors: 1048576, type: 'FLAT', name: 'disk f.vmdk', offset: 63 },
      { access: 'NOACCESS', sectors: 10, type: 'ZERO', name: undefined, offset: 0 },
      { access: 'RW', sectors: 20, type: 'VMFS', name: '/vmfs/volumes/x y/d-flat.vmdk', offset: 0 },
      { access: 'RW', sectors: 63, type: 'FLAT', name: '\\\\.\\PhysicalDrive0', offset: 0 },
    ]);
    expect(descriptor.values.get('changetrackpath')).toBe('web-ctk.vmdk');
    expect(descriptor.values.get('ddb.uuid')).toBe('60 00 C2 97');
    expect(descriptor.values.get('ddb.bare')).toBe('yes');
  });

  it('stops at the padding of an embedded descriptor', () => {
    const text = Buffer.concat([bytes(descriptorText(base)), Buffer.alloc(100), bytes('rubbish')]);
    expect(parse(text).extents).toHaveLength(1);
  });

  it.each([
    ['UTF-8', Buffer.from('Übung 磁盘.vmdk', 'utf8'), 'Übung 磁盘.vmdk'],
    ['windows-1252', Buffer.from('\xdcbung \x80.vmdk', 'latin1'), 'Übung €.vmdk'],
    ['GBK', Buffer.from('b4c5c5cc2e766d646b', 'hex'), '磁盘.vmdk'],
    ['windows-936', Buffer.from('b4c5c5cc2e766d646b', 'hex'), '磁盘.vmdk'],
    // 0x5c (a backslash in ASCII) is the second byte of 表 in Shift_JIS.
    ['Shift_JIS', Buffer.from('955c2e766d646b', 'hex'), '表.vmdk'],
    [
      'Big5',
      Buffer.from('baab2e766d646b', 'hex'),
      new TextDecoder('big5').decode(Buffer.from('baab2e766d646b', 'hex')),
    ],
    ['windows-949', Buffer.from('b5f0bdbac5a92e766d646b', 'hex'), '디스크.vmdk'],
  ])('decodes names in %s', (encoding, name, expected) => {
    const [before, after] = descriptorText({ ...base, encoding, extents: ['RW 1 FLAT "@" 0'] }).split('@');
    const descriptor = parse(Buffer.concat([bytes(before!), name, bytes(after!)]));
    expect(descriptor.extents[0]!.name).toBe(expected);
    expect(descriptor.encoding).toBe(encoding);
  });

  it('takes text without an encoding for UTF-8, or windows-1252 where it can’t be that', () => {
    const utf8 = descriptorText({ ...base, extents: ['RW 1 FLAT "Ü.vmdk" 0'] });
    expect(parse(utf8).extents[0]!.name).toBe('Ü.vmdk');
    expect(parse(Buffer.from(utf8, 'latin1')).extents[0]!.name).toBe('Ü.vmdk');
  });

  it.each(['EBCDIC-CP-US', 'UTF-16', 'UTF-7', 'ISO-2022-JP'])('refuses the encoding %s by name', (encoding) => {
    expect(wire(() => parse(descriptorText({ ...base, encoding })))).toMatchObject({
      kind: 'unsupported',
      details: { feature: `VMDK descriptor encoding "${encoding}"` },
    });
  });

  it('refuses bytes that the declared encoding does not have, and says where', () => {
    const text = descriptorText({ ...base, encoding: 'UTF-8', more: ['ddb.comment = "Ü"'] });
    const error = wire(() => parse(Buffer.from(text, 'latin1')));
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure: 'VMDK descriptor text' } });
    expect(error.details.position).toBe(text.indexOf('ddb.comment'));
  });

  const without = (line: string) => descriptorText(base).replace(line, '# gone');
  it.each([
    ['no version', without('version=1'), 'VMDK descriptor version'],
    ['a version of 0', descriptorText({ ...base, version: 0 }), 'VMDK descriptor version'],
    ['no createType', without('createType="monolithicFlat"'), 'VMDK descriptor createType'],
    ['no extents', without(flat), 'VMDK descriptor extent list'],
    ['a CID that is no number', descriptorText({ ...base, cid: 'xyz' }), 'VMDK descriptor CID'],
    ['a CID of nine digits', descriptorText({ ...base, cid: '123456789' }), 'VMDK descriptor CID'],
    ['two different CIDs', descriptorText({ ...base, more: ['CID=1'] }), 'VMDK descriptor CID'],
    ['a quote that is not closed', descriptorText({ ...base, more: ['ddb.x = "abc'] }), 'VMDK descriptor ddb.x'],
    ['a damaged extent line', descriptorText({ ...base, extents: [flat, 'RX 10 FLAT "b" 0'] }), 'VMDK descriptor line'],
    ['an extent of no sectors', descriptorText({ ...base, extents: ['RW 0 ZERO'] }), 'VMDK descriptor extent size'],
    ['an extent without a name', descriptorText({ ...base, extents: ['RW 9 FLAT'] }), 'VMDK descriptor extent line'],
    ['a name cut off', descriptorText({ ...base, extents: ['RW 9 FLAT "abc'] }), 'VMDK descriptor extent line'],
    [
      'a size beyond all numbers',
      descriptorText({ ...base, extents: ['RW 9999999999999999 ZERO'] }),
      'VMDK descriptor extent size',
    ],
    [
      'extents beyond 2^53 bytes together',
      descriptorText({ ...base, extents: Array<string>(3).fill(`RW ${2 ** 43} ZERO`) }),
      'VMDK descriptor extent list',
    ],
    [
      'too many extents',
      descriptorText({ ...base, extents: Array<string>(4097).fill('RW 1 ZERO') }),
      'VMDK descriptor extent list',
    ],
    ['too much text', `${descriptorText(base)}#${'x'.repeat(1 << 20)}`, 'VMDK descriptor'],
  ])('refuses %s', (_what, text, structure) => {
    const error = wire(() => parse(text));
    expect(error).toMatchObject({ kind: 'corrupt', details: { structure, source: 'a.vmdk' } });
    expect(error.details.position).toBeTypeOf('number');
    expect(error.details.expected).toBeDefined();
    expect(error.details.found).toBeDefined();
  });

  it('is recognised with white space, a byte order mark or no comment before it', () => {
    const text = descriptorText(base);
    for (const good of [text, `\n\n  ${text}`, `\ufeff${text}`, text.replace(/^.*\n/, '\n'), text.toUpperCase()]) {
      expect(looksLikeDescriptor(bytes(good)), good.slice(0, 40)).toBe(true);
    }
    for (const bad of ['', 'config.version = "8"\n', 'version=1\nfoo=2\n', '#!DescriptorFile\n', '\0\0']) {
      expect(looksLikeDescriptor(bytes(bad)), bad).toBe(false);
    }
  });
});

describe('what a VMDK descriptor asks of a reader', () => {
  const variant = (createType: string, more: string[] = [], version = 1) =>
    variantOf(parse(descriptorText({ createType, extents: [flat], more, version })));

  it('reads the six kinds and the names of VMFS allocation', () => {
    expect(variant('monolithicSparse')).toBe('monolithicSparse');
    expect(variant('2GbMaxExtentFlat')).toBe('twoGbMaxExtentFlat');
    expect(variant('twoGbMaxExtentSparse')).toBe('twoGbMaxExtentSparse');
    expect(variant('VMFS')).toBe('vmfs');
    expect(variant('vmfsEagerZeroedThick')).toBe('vmfsEagerZeroedThick');
    expect(variant('vmfsThin', ['ddb.iofilters = "vmwarelwd"', 'isNativeSnapshot="no"'], 4)).toBe('vmfsThin');
    expect(variant('vmfsSparse')).toBe('vmfsSparse');
  });

  it.each([
    ['vmfsRawDeviceMap', [], 1, 'VMDK vmfsRDM (raw device mapping)'],
    ['vmfsPassthroughRawDeviceMap', [], 1, 'VMDK vmfsPassthroughRDM (raw device mapping)'],
    ['fullDevice', [], 1, 'VMDK fullDevice (physical disk)'],
    ['newThing', [], 1, 'VMDK createType "newThing"'],
    ['vmfs', ['ddb.iofilters = "vmwarelwd,vmwarevmcrypt"'], 1, 'VMDK encrypted by VMware'],
    ['monolithicFlat', ['encryption.keySafe = "vmware:key/list/x"'], 1, 'VMDK encrypted by VMware'],
    ['vmfs', ['isNativeSnapshot="yes"'], 1, 'VMDK native snapshot (kept by the storage array)'],
    ['vmfs', [], 9, 'VMDK descriptor of version 9'],
  ])('refuses %s %j of version %i by name', (createType, more, version, feature) => {
    expect(wire(() => variant(createType, more, version))).toMatchObject({ kind: 'unsupported', details: { feature } });
  });

  const parent = (parentCid: string, parentFileNameHint?: string) =>
    parentOf(
      parse(
        descriptorText({ ...base, parentCid, ...(parentFileNameHint === undefined ? {} : { parentFileNameHint }) }),
      ),
    );

  it('gives the parent exactly as recorded', () => {
    expect(parent('ffffffff')).toBeUndefined();
    expect(parent('ffffffff', '')).toBeUndefined();
    expect(parent('ABC', '/vmfs/volumes/x/a b.vmdk')).toEqual({ recorded: '/vmfs/volumes/x/a b.vmdk', id: '00000abc' });
  });

  it('refuses a parent whose name and content id contradict each other', () => {
    expect(wire(() => parent('12345678'))).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'VMDK descriptor parentFileNameHint' },
    });
    expect(wire(() => parent('ffffffff', 'base.vmdk'))).toMatchObject({
      kind: 'corrupt',
      details: { structure: 'VMDK descriptor parentCID' },
    });
  });
});

/** Footers and dynamic disk headers of VHDs: what is read, what is done without, what is refused. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { scratchFolder } from '../../support/scratch.ts';
import {
  buildFixed,
  buildVhd,
  SECTOR,
  sectorRange,
  sumFooter,
  sumHeader,
  type VhdImage,
  type VhdOptions,
  vhdModel,
} from '../../support/vhd-builder.ts';
import {
  type Change,
  codesOf,
  plain,
  readAll,
  untouched,
  withBytes,
  withImage,
  worseOf,
} from '../../support/vhd-open.ts';

const scratch = scratchFolder('vhd');
const tap = { creator: 'tap\0', creatorVersion: 0x0001_0003, creatorHost: 0 };
const opening = (options: VhdOptions, change: Change) => withImage(scratch.path, options, change, async () => 'opened');

describe('a VHD', () => {
  it('says what it is', async () => {
    await withImage(scratch.path, { ...plain, ...tap, hidden: 1, batmap: true }, untouched, async (layer) => {
      expect(layer).toMatchObject({
        format: 'vhd',
        variant: 'dynamic',
        virtualSize: 500 * SECTOR,
        granularity: 512,
        parent: undefined,
        id: '11111111-2222-3333-4444-555555555555',
        properties: {
          creatorApplication: 'XenServer (tap)',
          creatorVersion: '1.3',
          creatorHostOs: 'none',
          created: '2023-11-14T22:13:20Z',
          geometry: '7/4/17',
          originalSize: 256_000,
          blockSize: 65_536,
          maxTableEntries: 4,
          batmap: true,
          hidden: 1,
          savedState: false,
          temporary: false,
        },
      });
      expect(layer.files).toEqual([{ role: 'image', name: 'a.vhd', path: layer.path, size: expect.any(Number) }]);
      expect(await layer.allocatedBytes()).toBe(138 * SECTOR);
      expect(await findings(layer)).toEqual([]);
    });
  });

  it('without a unique id has none', async () => {
    await withImage(
      scratch.path,
      { ...plain, id: '00000000-0000-0000-0000-000000000000' },
      untouched,
      async (layer) => {
        expect(layer.id).toBeUndefined();
      },
    );
  });

  it('has no snapshots inside', async () => {
    const folder = mkdtempSync(join(scratch.path, 'case-'));
    writeFileSync(join(folder, 'a.vhd'), buildVhd(plain).bytes);
    await expect(openLayer(join(folder, 'a.vhd/@1'), new Confinement(folder))).rejects.toMatchObject({
      kind: 'not-found',
    });
  });

  it('is told by its footer copy, its header or its name, and never by what the guest of a fixed disk wrote', async () => {
    const folder = mkdtempSync(join(scratch.path, 'case-'));
    const { bytes } = buildVhd(plain);
    writeFileSync(join(folder, 'no-name'), bytes);
    writeFileSync(join(folder, 'no-copy'), Buffer.concat([Buffer.alloc(512), bytes.subarray(512)]));
    const guest = Buffer.concat([bytes, Buffer.alloc(512)]);
    writeFileSync(join(folder, 'fixed.vhd'), buildFixed(guest));
    for (const [name, variant, size] of [
      ['no-name', 'dynamic', 256_000],
      ['no-copy', 'dynamic', 256_000],
      ['fixed.vhd', 'fixed', guest.length],
    ] as const) {
      const layer = await openLayer(name, new Confinement(folder));
      expect(layer).toMatchObject({ format: 'vhd', variant, virtualSize: size });
      expect((await findings(layer)).filter(({ severity }) => severity === 'damaged')).toEqual([]);
      await layer.close();
    }
    for (const magic of ['KDMV', 'QFI\xfb', 'vhdxfile']) {
      const content = Buffer.alloc(4096);
      content.write(magic, 'latin1');
      writeFileSync(join(folder, 'guest.vhd'), buildFixed(content));
      const layer = await openLayer('guest.vhd', new Confinement(folder));
      expect(layer.variant).toBe('fixed');
      expect(await readAll(layer)).toEqual(content);
      await layer.close();
    }
  });

  it('is as large as its footer says, whatever the geometry', async () => {
    for (const creator of ['vpc ', 'qemu', 'win ']) {
      await withImage(scratch.path, { ...plain, creator, geometry: [3, 4, 17] }, untouched, async (layer) => {
        expect(layer.virtualSize).toBe(256_000);
        expect(codesOf(await findings(layer))).toEqual(creator === 'win ' ? [] : ['note geometry-differs']);
      });
    }
  });
});

describe('the footers', () => {
  const model = vhdModel(plain);
  it.each<[string, Change, string[]]>([
    [
      'a wrong byte in the last',
      ({ bytes, at }) => void bytes.writeUInt8(9, at.footer + 55),
      ['suspicious footer-copy-used'],
    ],
    ['no last', ({ bytes, at }) => bytes.subarray(0, at.footer), ['suspicious footer-copy-used']],
    ['half of the last', ({ bytes, at }) => bytes.subarray(0, at.footer + 200), ['suspicious footer-copy-used']],
    ['the mark of an open disk', ({ bytes, at }) => void bytes.fill(0xc7, at.footer), ['suspicious footer-copy-used']],
    [
      'the last with a size of 2^63',
      ({ bytes, at }) => {
        bytes.writeUInt8(0x80, at.footer + 48);
        sumFooter(bytes, at.footer);
      },
      ['suspicious footer-copy-used'],
    ],
    ['a wrong byte in the copy', ({ bytes }) => void bytes.writeUInt8(9, 55), ['suspicious footer-copy-damaged']],
    ['no copy', ({ bytes }) => void bytes.fill(0, 0, 512), ['suspicious footer-copy-damaged']],
    ['511 bytes', ({ bytes }) => bytes.subarray(0, -1), ['note footer-short']],
    [
      '511 bytes, damaged',
      ({ bytes, at }) => {
        bytes.writeUInt8(9, at.footer + 55);
        return bytes.subarray(0, -1);
      },
      ['suspicious footer-copy-used', 'note footer-short'],
    ],
    [
      'copies that differ',
      ({ bytes }) => {
        bytes.writeUInt8(1, 84);
        sumFooter(bytes, 0);
      },
      ['suspicious footer-copy-differs'],
    ],
    [
      'wrong checksums, otherwise alike',
      ({ bytes, at }) => {
        for (const footer of [0, at.footer]) bytes.fill(7, footer + 68, footer + 84);
      },
      ['suspicious footer-checksum'],
    ],
  ])('%s', async (_, change, expected) => {
    await withImage(scratch.path, plain, change, async (layer) => {
      expect(await readAll(layer)).toEqual(model);
      const found = await findings(layer);
      expect(codesOf(found)).toEqual(expected);
      for (const finding of found) {
        expect(finding).toMatchObject({ source: 'a.vhd', structure: expect.any(String), position: expect.any(Number) });
        if (finding.severity !== 'note') expect(finding.remedy).toBeTypeOf('string');
      }
    });
  });

  it('of which neither is whole are refused, with the place of the last', async () => {
    const both = ({ bytes, at }: VhdImage) => {
      bytes.writeUInt8(9, at.footer + 55);
      bytes.writeUInt8(8, 55);
    };
    const at = buildVhd(plain).at.footer;
    await expect(opening(plain, both)).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: 'VHD footer checksum', source: 'a.vhd', position: at + 64 },
    });
  });

  it.each<[string, Buffer]>([
    ['an empty file', Buffer.alloc(0)],
    ['510 bytes', Buffer.alloc(510)],
    ['a sector of zeros', Buffer.alloc(512)],
    ['a fixed disk whose footer is damaged', buildFixed(Buffer.alloc(4096)).fill(3, 4096 + 30, 4096 + 40)],
    ['a fixed disk whose footer is cut off', buildFixed(Buffer.alloc(4096, 1)).subarray(0, 4200)],
    [
      'a copy in the first sector of what calls itself fixed',
      Buffer.concat([buildFixed(Buffer.alloc(0)), Buffer.alloc(512)]),
    ],
  ])('%s is damaged', async (_, bytes) => {
    await expect(withBytes(scratch.path, bytes, async () => 0)).rejects.toMatchObject({ kind: 'corrupt' });
  });

  const changed =
    (offset: number, value: number) =>
    ({ bytes, at }: VhdImage) => {
      for (const footer of [0, at.footer]) {
        bytes.writeUInt32BE(value, footer + offset);
        sumFooter(bytes, footer);
      }
    };
  it.each<[string, Change, object]>([
    ['version 2.0', changed(12, 0x20000), { kind: 'unsupported', details: { feature: 'VHD file format version 2.0' } }],
    ['type 0', changed(60, 0), { kind: 'unsupported', details: { feature: 'VHD disk type 0' } }],
    ['type 6', changed(60, 6), { kind: 'unsupported', details: { feature: 'VHD disk type 6' } }],
    ['a size of 0', changed(52, 0), { kind: 'corrupt', details: { structure: 'VHD footer current size' } }],
    [
      'a size of 2^63',
      changed(48, 0x8000_0000),
      { kind: 'corrupt', details: { structure: 'VHD footer current size' } },
    ],
    [
      'a size of 2^52',
      changed(48, 0x0010_0000),
      { kind: 'corrupt', details: { structure: 'VHD dynamic disk header max table entries' } },
    ],
    ['a header at 0', changed(20, 0), { kind: 'corrupt', details: { structure: 'VHD footer data offset' } }],
    [
      'a header at 2^63',
      changed(16, 0x8000_0000),
      { kind: 'corrupt', details: { structure: 'VHD footer data offset' } },
    ],
    [
      'a header at the end',
      changed(20, 0x7f_ffff),
      { kind: 'corrupt', details: { structure: 'VHD footer data offset' } },
    ],
    [
      'an interrupted resize',
      (image) => {
        for (const footer of [0, image.at.footer]) {
          image.bytes.write('v_poison', footer, 'latin1');
          sumFooter(image.bytes, footer);
        }
      },
      { kind: 'unsupported', details: { feature: expect.stringContaining('v_poison') } },
    ],
  ])('%s is refused', async (_, change, expected) => {
    await expect(opening({ ...plain, size: 0x3_e800 }, change)).rejects.toMatchObject(expected);
  });

  it('minor versions are read', async () => {
    await withImage(scratch.path, plain, changed(12, 0x10001), async (layer) =>
      expect(await readAll(layer)).toEqual(model),
    );
  });

  it('images split into several files are refused by name', async () => {
    const folder = mkdtempSync(join(scratch.path, 'case-'));
    writeFileSync(join(folder, 'a.vhd'), Buffer.alloc(4096));
    writeFileSync(join(folder, 'a.v01'), Buffer.alloc(4096));
    await expect(openLayer('a.vhd', new Confinement(folder))).rejects.toMatchObject({
      kind: 'unsupported',
      details: { feature: expect.stringContaining('.v01') },
    });
  });

  it('early XenServer hid disks without summing anew', async () => {
    const old = { ...plain, creator: 'tap\0', creatorVersion: 0x0001_0001 };
    const hide = ({ bytes }: VhdImage) => void bytes.writeUInt8(1, 85);
    await withImage(scratch.path, old, hide, async (layer) => {
      expect(worseOf(await findings(layer))).toEqual([]);
      expect(layer.properties.hidden).toBe(1);
    });
    // Somebody else's wrong checksum is one.
    await withImage(scratch.path, plain, hide, async (layer) => {
      expect(worseOf(await findings(layer))).toEqual(['suspicious footer-copy-damaged']);
    });
  });

  it.each<[string, Partial<VhdOptions>, string[]]>([
    ['a saved state', { savedState: 1 }, ['note saved-state']],
    ['another original size', { originalSize: 1000 }, ['note resized']],
    ['a missing reserved feature', { features: 0 }, ['note footer-features']],
    ['an unknown feature', { features: 0x12 }, ['suspicious footer-features']],
    ['a partial sector', { size: 500 * SECTOR - 100 }, ['suspicious size-partial-sector']],
    ['room for more blocks', { tableEntries: 200 }, ['note table-larger']],
  ])('%s is told', async (_, options, expected) => {
    const all = { ...plain, ...options };
    await withImage(scratch.path, all, untouched, async (layer) => {
      expect(codesOf(await findings(layer))).toEqual(expected);
      expect(await readAll(layer)).toEqual(vhdModel(all));
    });
  });

  it('a time to come and reserved bytes in use are told', async () => {
    const change = ({ bytes, at }: VhdImage) => {
      for (const footer of [0, at.footer]) {
        bytes.writeUInt32BE(0xffff_ffff, footer + 24);
        bytes.writeUInt8(1, footer + 300);
        sumFooter(bytes, footer);
      }
    };
    await withImage(scratch.path, plain, change, async (layer) => {
      expect(codesOf(await findings(layer))).toEqual(['note created-in-future', 'note reserved-not-zero']);
      expect(layer.properties.created).toBe('2136-02-07T06:28:15Z');
    });
  });
});

describe('a fixed disk', () => {
  const content = vhdModel({ size: 64 * SECTOR, sectors: new Map(sectorRange(0, 64)) });

  it('too short reads as far as it goes', async () => {
    await withBytes(scratch.path, buildFixed(content, { size: 80 * SECTOR }), async (layer) => {
      expect(await readLayer(layer, 0, content.length)).toEqual(content);
      await expect(readLayer(layer, 63 * SECTOR, 2 * SECTOR)).rejects.toMatchObject({ kind: 'corrupt' });
      expect(await layer.allocatedBytes()).toBe(content.length);
      expect(worseOf(await findings(layer))).toEqual(['damaged fixed-too-short']);
    });
  });

  it('too long, or with a footer of 511 bytes, is as large as its footer says', async () => {
    await withBytes(scratch.path, buildFixed(content, { size: 60 * SECTOR }), async (layer) => {
      expect(await readAll(layer)).toEqual(content.subarray(0, 60 * SECTOR));
      expect(worseOf(await findings(layer))).toEqual(['suspicious fixed-too-long']);
    });
    await withBytes(scratch.path, buildFixed(content).subarray(0, -1), async (layer) => {
      expect(await readAll(layer)).toEqual(content);
      expect(codesOf(await findings(layer))).toEqual(['note footer-short']);
    });
  });
});

describe('the dynamic disk header', () => {
  const changed =
    (body: (bytes: Buffer, at: number) => void, sum = true) =>
    ({ bytes, at }: VhdImage) => {
      body(bytes, at.header);
      if (sum) sumHeader(bytes, at.header);
    };
  it.each<[string, Change, string]>([
    ['another cookie', changed((bytes, at) => void bytes.write('cxsparsf', at)), 'cookie'],
    ['a wrong checksum', changed((bytes, at) => void bytes.writeUInt8(5, at + 20), false), 'checksum'],
    ['blocks of 0 bytes', changed((bytes, at) => void bytes.writeUInt32BE(0, at + 32)), 'block size'],
    ['blocks of 256 bytes', changed((bytes, at) => void bytes.writeUInt32BE(256, at + 32)), 'block size'],
    ['blocks of 3 sectors', changed((bytes, at) => void bytes.writeUInt32BE(1536, at + 32)), 'block size'],
    ['too few entries', changed((bytes, at) => void bytes.writeUInt32BE(3, at + 28)), 'max table entries'],
    ['a table at 0', changed((bytes, at) => void bytes.writeUInt32BE(0, at + 20)), 'table offset'],
    ['a table at 2^63', changed((bytes, at) => void bytes.writeUInt8(0x80, at + 16)), 'table offset'],
    [
      'a table at the end',
      changed((bytes, at) => void bytes.writeUInt32BE(bytes.length - 520, at + 20)),
      'table offset',
    ],
  ])('with %s is damaged', async (_, change, field) => {
    await expect(opening(plain, change)).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: `VHD dynamic disk header ${field}`, source: 'a.vhd' },
    });
  });

  it('of version 2 is refused by name', async () => {
    const change = changed((bytes, at) => void bytes.writeUInt32BE(0x20000, at + 24));
    await expect(opening(plain, change)).rejects.toMatchObject({
      kind: 'unsupported',
      details: { feature: 'VHD dynamic disk header version 2.0' },
    });
  });

  it('somewhere else is followed there', async () => {
    const options = { ...plain, sectors: new Map(sectorRange(0, 5)), tableEntries: 500 };
    const move = ({ bytes, at }: VhdImage): Buffer => {
      // Behind the last block, in place of the footer, which moves on.
      const header = bytes.subarray(512, 1536);
      const all = Buffer.concat([bytes.subarray(0, at.footer), header, bytes.subarray(at.footer)]);
      all.fill(0xee, 512, 1536);
      for (const footer of [0, all.length - 512]) {
        all.writeBigUInt64BE(BigInt(at.footer), footer + 16);
        sumFooter(all, footer);
      }
      return all;
    };
    await withImage(scratch.path, options, move, async (layer) => {
      expect(await readAll(layer)).toEqual(vhdModel(options));
      expect(worseOf(await findings(layer))).toEqual([]);
    });
  });

  it('given a parent without summing anew is read, and told', async () => {
    const change = ({ bytes, at }: VhdImage) => {
      for (const footer of [0, at.footer]) {
        bytes.writeUInt32BE(4, footer + 60);
        sumFooter(bytes, footer);
      }
      bytes.fill(0xab, at.header + 40, at.header + 56);
      bytes.write('\0b\0.\0v\0h\0d', at.header + 64, 'latin1');
    };
    await withImage(scratch.path, plain, change, async (layer) => {
      expect(layer.parent).toMatchObject({ recorded: 'b.vhd', id: 'abababab-abab-abab-abab-abababababab' });
      expect(worseOf(await findings(layer))).toEqual(['suspicious header-checksum']);
    });
  });

  it('with odd fields is told', async () => {
    const change = changed((bytes, at) => {
      bytes.writeUInt32BE(77, at + 8);
      bytes.writeUInt8(1, at + 900);
      bytes.writeUInt8(1, at + 40);
    });
    await withImage(scratch.path, plain, change, async (layer) => {
      expect(codesOf(await findings(layer))).toEqual([
        'note header-followed',
        'note reserved-not-zero',
        'suspicious parent-of-dynamic',
      ]);
    });
    const big = changed((bytes, at) => void bytes.writeUInt32BE(0x4000_0000, at + 28));
    await withImage(scratch.path, plain, big, async (layer) => {
      expect(await readAll(layer)).toEqual(vhdModel(plain));
      expect(codesOf(await findings(layer))).toEqual(['suspicious table-out-of-file']);
    });
  });
});

/** Headers, region tables, metadata and parent locators of VHDX: what is read, what is done without, what is refused. */
import { describe, expect, it } from 'vitest';
import { runAsync } from '../../../main/engine/storage/io.ts';
import { readLayer } from '../../conformance/image-layer.ts';
import { scratchFolder } from '../../support/scratch.ts';
import {
  type Block,
  buildVhdx,
  DATA_WRITE_GUID,
  DISK_ID,
  diskOf,
  FILE_WRITE_GUID,
  guidBytes,
  MIB,
  parentLocator,
  regionsOf,
  seal,
  type VhdxImage,
  type VhdxOptions,
  writeHeader,
  writeRegionTables,
} from '../../support/vhdx-builder.ts';
import { codesOf, findingsOf, withVhdx } from '../../support/vhdx-open.ts';
import { pattern } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('vhdx');
const LINKAGE = '99999999-1111-4222-8333-444444444444';
const OTHER_GUID = 'abcdef01-2345-4678-89ab-cdef01234567';

function build(options: Partial<VhdxOptions> = {}): VhdxImage {
  return buildVhdx({ virtualSize: 3 * MIB, blocks: new Map<number, Block>([[1, pattern(0, MIB)]]), ...options });
}
const child = (values: Record<string, string>) => build({ parent: values });

/** Changes a built image. */
function changed(change: (image: VhdxImage) => void, options: Partial<VhdxOptions> = {}): VhdxImage {
  const image = build(options);
  change(image);
  return image;
}

/** Reads as its builder says, with exactly these findings besides notes. */
async function readsWith(image: VhdxImage, codes: readonly string[]): Promise<void> {
  await withVhdx(scratch.path, image, async (layer) => {
    expect((await readLayer(layer, 0, layer.virtualSize)).equals(diskOf(image))).toBe(true);
  });
  expect(codesOf(await findingsOf(scratch.path, image))).toEqual(codes);
}

function refused(image: Pick<VhdxImage, 'bytes'>, details: object) {
  return expect(withVhdx(scratch.path, image, async () => undefined)).rejects.toMatchObject(details);
}
const corrupt = (structure: string) => ({ kind: 'corrupt', details: { structure, source: 'disk.vhdx' } });
const unsupported = (feature: string) => ({ kind: 'unsupported', details: { feature, source: 'disk.vhdx' } });

describe('a VHDX', () => {
  it('says what it is', async () => {
    const image = build({ fixed: true, creator: 'Microsoft Windows 10.0.20348.0', sectorSize: 4096 });
    await withVhdx(scratch.path, image, async (layer) => {
      expect(layer).toMatchObject({
        format: 'vhdx',
        variant: 'fixed',
        name: 'disk.vhdx',
        virtualSize: 3 * MIB,
        parent: undefined,
        id: DATA_WRITE_GUID,
        granularity: MIB,
        files: [{ role: 'image', name: 'disk.vhdx', size: image.bytes.length }],
      });
      expect(layer.properties).toEqual({
        creator: 'Microsoft Windows 10.0.20348.0',
        version: 1,
        blockSize: MIB,
        logicalSectorSize: 4096,
        physicalSectorSize: 4096,
        page83Id: DISK_ID,
        log: 'empty',
        dataWriteGuid: DATA_WRITE_GUID,
        fileWriteGuid: FILE_WRITE_GUID,
      });
    });
  });

  it('takes half a surrogate pair in its creator for no text', async () => {
    const image = build();
    image.bytes.writeUInt16LE(0xd800, 8);
    await withVhdx(scratch.path, image, async (layer) => {
      expect(layer.properties.creator).toBe('\ufffdhainlift test builder');
    });
  });

  it('is refused when its beginning is not there', async () => {
    await refused({ bytes: Buffer.alloc(0) }, corrupt('VHDX file type identifier'));
    await refused({ bytes: Buffer.from('vhdxfil') }, corrupt('VHDX file type identifier'));
    await refused({ bytes: Buffer.alloc(4 * MIB) }, corrupt('VHDX file type identifier'));
    await refused({ bytes: build().bytes.subarray(0, MIB - 1) }, corrupt('VHDX header section'));
    await refused({ bytes: build().bytes.subarray(0, 2 * MIB) }, { kind: 'corrupt' });
  });
});

describe('headers of a VHDX', () => {
  const NEW = 'cafe0000-1111-4222-8333-444444444444';
  it.each([
    [0, 5n, DATA_WRITE_GUID],
    [0, 8n, NEW],
    [1, 8n, NEW],
    [1, 5n, DATA_WRITE_GUID],
    // More than 2^53, and than 2^63.
    [0, 0x8000_0000_0000_0001n, NEW],
  ] as const)('the newer one is current: header %i with number %s', async (which, sequence, expected) => {
    const image = build();
    writeHeader(image, which, { sequence, dataWriteGuid: NEW });
    await withVhdx(scratch.path, image, async (layer) => expect(layer.id).toBe(expected));
    expect(codesOf(await findingsOf(scratch.path, image))).toEqual([]);
  });

  it.each([
    ['signature', 0],
    ['checksum', 5],
    ['sequence number', 9],
    ['reserved bytes', 4095],
  ])('one of them is enough: damage in the %s', async (_, offset) => {
    for (const which of [0, 1] as const) {
      const image = changed(({ bytes, at }) => (bytes[at.headers[which] + offset]! ^= 0x40));
      await readsWith(image, ['header-damaged']);
      const finding = (await findingsOf(scratch.path, image)).find(({ code }) => code === 'header-damaged')!;
      expect(finding).toMatchObject({ severity: 'damaged', source: 'disk.vhdx' });
      expect(finding.position).toBeGreaterThanOrEqual(image.at.headers[which]);
      expect(finding.remedy).toContain(which === 0 ? 'second' : 'first');
    }
  });

  it('none of them is not', async () => {
    const image = changed(({ bytes, at }) => {
      for (const position of at.headers) bytes[position + 20]! ^= 1;
    });
    await refused(image, corrupt('VHDX headers'));
  });

  it('may be the same, but not of one number with different content', async () => {
    const same = changed((image) => {
      writeHeader(image, 0, { sequence: 7n });
      writeHeader(image, 1, { sequence: 7n });
    });
    await readsWith(same, []);
    const differ = changed((image) => writeHeader(image, 0, { sequence: 7n, dataWriteGuid: NEW }));
    await refused(differ, corrupt('VHDX header SequenceNumber'));
  });

  it('of another version are refused by name', async () => {
    await refused(
      changed((image) => writeHeader(image, 1, { sequence: 9n, version: 2 })),
      unsupported('VHDX version 2'),
    );
  });

  it('may record a log that is nowhere, while nothing is in it', async () => {
    const image = changed((image) => writeHeader(image, 1, { sequence: 9n, logOffset: 5 * MIB + 1, logVersion: 3 }));
    await readsWith(image, ['log-misplaced']);
  });
});

describe('region tables of a VHDX', () => {
  const EXTRA = 5 * MIB;
  /** An image with these regions instead of its own. */
  function withRegions(make: (own: ReturnType<typeof regionsOf>) => ReturnType<typeof regionsOf>): VhdxImage {
    return changed((image) => writeRegionTables(image.bytes, make(regionsOf(image))));
  }

  it('are there twice', async () => {
    for (const offset of [0, 4, 9, 40, 65_535]) {
      const flip = (which: 0 | 1) => changed(({ bytes, at }) => (bytes[at.regionTables[which] + offset]! ^= 0x80));
      await readsWith(flip(0), ['region-table-damaged']);
      await readsWith(flip(1), ['second-region-table-damaged']);
    }
  });

  it('are refused when both are damaged', async () => {
    const image = changed(({ bytes, at }) => {
      for (const position of at.regionTables) bytes[position + 100] = 1;
    });
    await refused(image, corrupt('VHDX first region table Checksum'));
  });

  it('that do not agree are told; the first is read', async () => {
    const image = build();
    const second = Buffer.from(image.bytes);
    writeRegionTables(second, [...regionsOf(image), [OTHER_GUID, EXTRA, MIB, false]]);
    second.copy(image.bytes, image.at.regionTables[1], image.at.regionTables[1], image.at.regionTables[1] + 65_536);
    await readsWith(image, ['region-tables-differ']);
  });

  it('may have unknown regions, unless they are required', async () => {
    await refused(
      withRegions((own) => [...own, [OTHER_GUID, 4 * MIB, MIB, true]]),
      unsupported(`VHDX region ${OTHER_GUID}`),
    );
    await readsWith(
      withRegions((own) => [...own, [OTHER_GUID, MIB + 1, MIB, false]]),
      ['region-misplaced'],
    );
    await readsWith(
      withRegions((own) => [...own, [OTHER_GUID, 2 ** 52, MIB, false]]),
      ['region-misplaced'],
    );
    const image = withRegions((own) => [...own, [OTHER_GUID, MIB, MIB, false]]);
    await readsWith(image, ['region-overlap']);
  });

  it.each<[string, (own: ReturnType<typeof regionsOf>) => ReturnType<typeof regionsOf>, string]>([
    ['no BAT', ([, metadata]) => [metadata!], 'VHDX region table'],
    ['no metadata', ([bat]) => [bat!], 'VHDX region table'],
    ['no region', () => [], 'VHDX region table'],
    ['a region twice', ([bat, metadata]) => [bat!, metadata!, bat!], 'VHDX region table entry Guid'],
    ['a BAT off the MiB', ([bat, m]) => [[bat![0], bat![1] + 4096, MIB], m!], 'VHDX region table entry FileOffset'],
    ['a BAT of half a MiB', ([bat, m]) => [[bat![0], bat![1], MIB / 2], m!], 'VHDX region table entry FileOffset'],
    ['a BAT of nothing', ([bat, m]) => [[bat![0], bat![1], 0], m!], 'VHDX region table entry FileOffset'],
    ['a BAT in the headers', ([bat, m]) => [[bat![0], 0, MIB], m!], 'VHDX region table entry FileOffset'],
    ['a BAT behind the file', ([bat, m]) => [[bat![0], 5 * MIB, MIB], m!], 'VHDX region table entry FileOffset'],
    ['a BAT over the metadata', ([bat, m]) => [[bat![0], m![1], MIB], m!], 'VHDX region table entry FileOffset'],
  ])('are refused with %s', async (_, make, structure) => {
    await refused(withRegions(make), corrupt(structure));
  });

  it('are refused with a position beyond 2^53 and a count beyond the table', async () => {
    const far = changed(({ bytes, at }) => {
      for (const position of at.regionTables) {
        bytes.writeBigUInt64LE(1n << 63n, position + 16 + 16);
        seal(bytes, position, 65_536);
      }
    });
    await refused(far, corrupt('VHDX first region table entry FileOffset'));
    const many = changed(({ bytes, at }) => {
      for (const position of at.regionTables) {
        bytes.writeUInt32LE(2048, position + 8);
        seal(bytes, position, 65_536);
      }
    });
    await refused(many, corrupt('VHDX first region table EntryCount'));
  });
});

describe('metadata of a VHDX', () => {
  const item = (name: Parameters<VhdxImage['at']['content']>[0], write: (bytes: Buffer, at: number) => void) =>
    changed((image) => write(image.bytes, image.at.content(name)), { parent: parentLocator('base.vhdx', LINKAGE) });
  const entry = (name: Parameters<VhdxImage['at']['item']>[0], write: (bytes: Buffer, at: number) => void) =>
    changed((image) => write(image.bytes, image.at.item(name)), { parent: parentLocator('base.vhdx', LINKAGE) });
  /** Appends an item to the table. */
  const more = (guid: string, flags: number, offset = 128 * 1024, length = 8) =>
    changed(({ bytes, at }) => {
      const count = bytes.readUInt16LE(at.metadata + 10);
      bytes.writeUInt16LE(count + 1, at.metadata + 10);
      const position = at.metadata + 32 + count * 32;
      guidBytes(guid).copy(bytes, position);
      bytes.writeUInt32LE(offset, position + 16);
      bytes.writeUInt32LE(length, position + 20);
      bytes.writeUInt32LE(flags, position + 24);
    });

  it.each([0, 1, 512 * 1024, 3 * MIB, 512 * MIB, 0x8000_0000])('block size %i is refused', async (size) => {
    await refused(
      item('fileParameters', (bytes, at) => bytes.writeUInt32LE(size, at)),
      corrupt('VHDX file parameters BlockSize'),
    );
  });

  it('file parameters that are not known are refused', async () => {
    await refused(
      item('fileParameters', (bytes, at) => bytes.writeUInt32LE(0x8000_0002, at + 4)),
      unsupported('VHDX file parameters 0x80000000'),
    );
  });

  it.each([0n, 513n, (64n << 40n) + 512n, 1n << 53n, 1n << 63n, 0xffff_ffff_ffff_fe00n])(
    'a disk of %s bytes is refused',
    async (size) => {
      const image = item('virtualDiskSize', (bytes, at) => bytes.writeBigUInt64LE(size, at));
      await refused(image, { kind: 'corrupt' });
    },
  );

  it('a disk whose BAT has no room for it is refused', async () => {
    const image = item('virtualDiskSize', (bytes, at) => bytes.writeBigUInt64LE(1n << 40n, at));
    await refused(image, corrupt('VHDX BAT'));
  });

  it.each([0, 513, 520, 1024, 8192, 0xffff_ffff])('sectors of %i bytes are refused', async (size) => {
    for (const name of ['logicalSectorSize', 'physicalSectorSize'] as const) {
      await refused(
        item(name, (bytes, at) => bytes.writeUInt32LE(size, at)),
        { kind: 'corrupt' },
      );
    }
  });

  it('a table without its signature, or with too many entries, is refused', async () => {
    await refused(
      changed(({ bytes, at }) => bytes.write('metaData', at.metadata)),
      corrupt('VHDX metadata table Signature'),
    );
    await refused(
      changed(({ bytes, at }) => bytes.writeUInt16LE(2048, at.metadata + 10)),
      corrupt('VHDX metadata table EntryCount'),
    );
    const users = changed(({ bytes, at }) => {
      bytes.writeUInt16LE(5 + 1025, at.metadata + 10);
      for (let i = 0; i < 1025; i++) {
        const position = at.metadata + 32 + (5 + i) * 32;
        bytes.writeUInt32LE(i, position);
        bytes.writeUInt32LE(1, position + 24);
      }
    });
    await refused(users, corrupt('VHDX metadata table EntryCount'));
  });

  it('items that are not known are done without, unless they are required', async () => {
    await readsWith(more(OTHER_GUID, 0), []);
    await readsWith(more(OTHER_GUID, 1), []);
    await refused(more(OTHER_GUID, 4), unsupported(`VHDX metadata item ${OTHER_GUID}`));
    await refused(more(OTHER_GUID, 5), unsupported(`VHDX metadata item ${OTHER_GUID}`));
    await refused(more('caa16737-fa36-4d43-b3b6-33f0aa44e76b', 0), corrupt('VHDX metadata table entry ItemId'));
    // A user's item of the same id is another item.
    await readsWith(more('caa16737-fa36-4d43-b3b6-33f0aa44e76b', 1), []);
  });

  it('items that are not needed may be misplaced', async () => {
    await readsWith(more(OTHER_GUID, 0, 4096), ['metadata-out-of-region']);
    await readsWith(more(OTHER_GUID, 0, MIB, 1), ['metadata-out-of-region']);
    await readsWith(more(OTHER_GUID, 0, 64 * 1024, 4), ['metadata-overlap']);
  });

  it('items that are needed must be there, in the region and of their size', async () => {
    for (const name of ['fileParameters', 'virtualDiskSize', 'logicalSectorSize', 'parentLocator'] as const) {
      await refused(
        entry(name, (bytes, at) => {
          bytes.fill(0, at, at + 16);
          bytes.writeUInt32LE(0, at + 24);
        }),
        corrupt('VHDX metadata table'),
      );
      for (const offset of [0, 65_535, MIB, 0xffff_fff8]) {
        await refused(
          entry(name, (bytes, at) => bytes.writeUInt32LE(offset, at + 16)),
          corrupt('VHDX metadata table entry Offset'),
        );
      }
    }
    await refused(
      entry('fileParameters', (bytes, at) => bytes.writeUInt32LE(4, at + 20)),
      corrupt('VHDX metadata table entry Length'),
    );
  });

  it('the disk reads without its page 83 id and its physical sector size', async () => {
    const image = changed(({ bytes, at }) => {
      for (const name of ['virtualDiskId', 'physicalSectorSize'] as const) {
        bytes.fill(0, at.item(name), at.item(name) + 16);
        bytes[at.item(name)] = name.length;
        bytes.writeUInt32LE(0, at.item(name) + 24);
      }
    });
    await readsWith(image, ['metadata-item-missing', 'metadata-item-missing']);
    await withVhdx(scratch.path, image, async (layer) => {
      expect(Object.keys(layer.properties)).not.toContain('page83Id');
    });
  });
});

describe('parent locator of a VHDX', () => {
  const claimOf = (values: Record<string, string>) =>
    withVhdx(scratch.path, child(values), async (layer) => layer.parent);
  const locator = (write: (bytes: Buffer, at: number) => void) =>
    changed((image) => write(image.bytes, image.at.content('parentLocator')), {
      parent: parentLocator('base.vhdx', LINKAGE),
    });

  it('says which disk the parent is, and where it was', async () => {
    expect(await claimOf(parentLocator('web 01.vhdx', LINKAGE.toUpperCase()))).toEqual({
      recorded: '.\\web 01.vhdx',
      alternatives: [
        '\\\\?\\Volume{0eba351e-5634-46d6-a8cf-4ddc2d6ac0b9}\\Hyper-V\\Virtual hard disks\\web 01.vhdx',
        'C:\\Hyper-V\\Virtual hard disks\\web 01.vhdx',
      ],
      id: LINKAGE,
    });
    expect(await claimOf({ absolute_win32_path: 'D:\\a.vhdx', parent_linkage: LINKAGE })).toEqual({
      recorded: 'D:\\a.vhdx',
      id: LINKAGE,
    });
  });

  it('may name a second identity', async () => {
    expect(await claimOf(parentLocator('a.vhdx', LINKAGE, { parent_linkage2: `{${OTHER_GUID}}` }))).toMatchObject({
      id: LINKAGE,
      alternativeIds: [OTHER_GUID],
    });
    for (const same of [LINKAGE, '00000000-0000-0000-0000-000000000000']) {
      const claim = await claimOf(parentLocator('a.vhdx', LINKAGE, { parent_linkage2: `{${same}}` }));
      expect(claim).not.toHaveProperty('alternativeIds');
    }
  });

  it('without a path leaves the identity to go by', async () => {
    const image = child({ parent_linkage: `{${LINKAGE}}`, relative_path: '' });
    await withVhdx(scratch.path, image, async (layer) => {
      expect(layer.parent).toEqual({ recorded: LINKAGE, nameless: true, id: LINKAGE });
      expect(layer.variant).toBe('differencing');
    });
    expect(codesOf(await findingsOf(scratch.path, image))).toEqual(['parent-path-missing']);
  });

  it('with half a surrogate pair in a name is no reason to fail', async () => {
    expect(await claimOf({ parent_linkage: LINKAGE, relative_path: '\ud800.vhdx' })).toMatchObject({
      recorded: '\ufffd.vhdx',
    });
  });

  it('is refused when it says nothing that can be gone by', async () => {
    await refused(child({ relative_path: 'a.vhdx' }), corrupt('VHDX parent locator'));
    await refused(
      child({ parent_linkage: '{1234}', relative_path: 'a' }),
      corrupt('VHDX parent locator parent_linkage'),
    );
    await refused(
      child({ parent_linkage: LINKAGE, parent_linkage2: 'none', relative_path: 'a' }),
      corrupt('VHDX parent locator parent_linkage2'),
    );
    await refused(
      locator((bytes, at) => guidBytes(OTHER_GUID).copy(bytes, at)),
      unsupported(`VHDX parent locator of type ${OTHER_GUID}`),
    );
  });

  it('is refused when its entries are not in it', async () => {
    for (const [offset, value] of [
      [20, 0xffff_fff0],
      [24, 0xffff_fff0],
    ] as const) {
      await refused(
        locator((bytes, at) => bytes.writeUInt32LE(value, at + offset)),
        corrupt('VHDX parent locator'),
      );
    }
    await refused(
      locator((bytes, at) => bytes.writeUInt16LE(9, at + 28)),
      corrupt('VHDX parent locator entry length'),
    );
    await refused(
      locator((bytes, at) => bytes.copyWithin(at + 32, at + 20, at + 32)),
      corrupt('VHDX parent locator entry key'),
    );
    await refused(
      locator((bytes, at) => bytes.writeUInt16LE(0xffff, at + 18)),
      { kind: 'corrupt' },
    );
  });

  it('of entries that all share one text is refused before the text is made', async () => {
    const image = child({ parent_linkage: LINKAGE, relative_path: 'a.vhdx' });
    const { bytes, at } = image;
    const content = at.content('parentLocator');
    bytes.writeUInt32LE(900_000, at.item('parentLocator') + 20);
    bytes.writeUInt16LE(0xffff, content + 18);
    for (let i = 0; i < 50_000; i++) bytes.writeUInt16LE(1 + i, content + 800_000 + 2 * i);
    for (let i = 0; i < 0xffff; i++) {
      const entry = content + 20 + i * 12;
      bytes.writeUInt32LE(800_000 + 2 * (i % 10_000), entry);
      bytes.writeUInt32LE(0, entry + 4);
      bytes.writeUInt16LE(65_534, entry + 8);
      bytes.writeUInt16LE(65_534, entry + 10);
    }
    const start = performance.now();
    await refused(image, corrupt('VHDX parent locator entry lengths'));
    expect(performance.now() - start).toBeLessThan(2000);
  });

  it('is not asked for where there is no parent', async () => {
    await withVhdx(scratch.path, build(), async (layer) => {
      expect(layer.parent).toBeUndefined();
      expect((await runAsync(layer.runs(0, 1)))[0]!.kind).toBe('zero');
    });
  });
});

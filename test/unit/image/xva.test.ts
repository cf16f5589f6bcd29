/** What a XenServer export says of its disks, and what is refused. */
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CorruptError, NotFoundError, UnsupportedError } from '../../../main/engine/errors.ts';
import { detectFormat, openLayer } from '../../../main/engine/image/formats.ts';
import {
  isXva,
  readOvaXml,
  xenFlag,
  xenMap,
  xenNumber,
  xenRef,
  xenRefs,
  xenText,
  xenTime,
} from '../../../main/engine/image/xva/ova-xml.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { runAsync } from '../../../main/engine/storage/io.ts';
import { findings, readLayer } from '../../conformance/image-layer.ts';
import { randomFrom } from '../../support/random.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { buildTar, type TarMember } from '../../support/tar-builder.ts';
import { buildXva, CHUNK, diskMembers, ovaXml, vdiRecord, type XenRecordOf } from '../../support/xva-builder.ts';

const SMALL = 4096;
const random = randomFrom(3);
const noise = (length: number): Buffer => Buffer.from(Uint8Array.from({ length }, () => Math.floor(random() * 256)));

describe('a XenServer export', () => {
  const scratch = scratchFolder('xva');
  let number = 0;
  function write(bytes: Uint8Array, name = 'web01.xva'): { folder: Confinement; path: string; root: string } {
    const root = join(scratch.path, `case-${number++}`);
    mkdirSync(root);
    writeFileSync(join(root, name), bytes);
    return { folder: new Confinement(root), path: join(root, name), root };
  }
  const tarOf = (xml: string, ...members: TarMember[]): Buffer =>
    buildTar([{ name: 'ova.xml', content: Buffer.from(xml) }, ...members]);

  it('gives every record of its description', async () => {
    const snapshotTime = new Date('2024-03-01T22:15:30Z');
    const objects: XenRecordOf[] = [
      {
        class: 'VM',
        id: 'Ref:0',
        snapshot: {
          uuid: 'b5f2',
          name_label: 'Büro & "web" <01>',
          power_state: 'Halted',
          VBDs: ['Ref:3', 'OpaqueRef:NULL'],
          memory_static_max: 268435456,
          is_a_snapshot: false,
          snapshot_of: 'OpaqueRef:NULL',
          snapshots: ['Ref:20'],
          parent: 'Ref:20',
          snapshot_time: new Date(0),
          snapshot_info: {},
          other_config: { mac_seed: 'x', auto_poweron: 'true' },
        },
      },
      {
        class: 'VM',
        id: 'Ref:20',
        snapshot: {
          name_label: 'before update',
          is_a_snapshot: true,
          snapshot_of: 'Ref:0',
          snapshot_time: snapshotTime,
          snapshot_info: { 'disk-snapshot-type': 'quiesced', 'power-state-at-snapshot': 'Running' },
          suspend_VDI: 'Ref:31',
          VBDs: [],
        },
      },
      {
        class: 'VBD',
        id: 'Ref:3',
        snapshot: { VM: 'Ref:0', VDI: 'Ref:12', userdevice: '0', empty: false, type: 'Disk' },
      },
      { class: 'network', id: 'Ref:5', snapshot: { name_label: 'Pool-wide network' } },
    ];
    const { folder, path } = write(
      buildXva([{ id: 'Ref:12', content: Buffer.alloc(SMALL), chunkBytes: SMALL }], objects),
    );
    const archive = (await folder.mount(path))!;
    expect(isXva(archive)).toBe(true);
    const described = await readOvaXml(archive);
    expect(await readOvaXml(archive)).toBe(described);
    expect(xenText(described.version, 'product_version')).toBe('8.2.1');
    expect(xenNumber(described.version, 'export_vsn')).toBe(2);
    expect(described.ofClass('VM').map(({ id }) => id)).toEqual(['Ref:0', 'Ref:20']);
    const vm = described.find('Ref:0')!.record;
    expect(xenText(vm, 'name_label')).toBe('Büro & "web" <01>');
    expect(xenNumber(vm, 'memory_static_max')).toBe(268_435_456);
    expect(xenRef(vm, 'snapshot_of')).toBeUndefined();
    expect(xenRef(vm, 'parent')).toBe('Ref:20');
    expect(xenRefs(vm, 'VBDs')).toEqual(['Ref:3']);
    expect(xenTime(vm, 'snapshot_time')).toBeUndefined();
    expect(Object.fromEntries(xenMap(vm, 'other_config'))).toEqual({ mac_seed: 'x', auto_poweron: 'true' });
    const point = described.find('Ref:20')!.record;
    expect(xenFlag(point, 'is_a_snapshot')).toBe(true);
    expect(xenTime(point, 'snapshot_time')).toBe(snapshotTime.toISOString());
    expect(xenText(xenMap(point, 'snapshot_info'), 'disk-snapshot-type')).toBe('quiesced');
    expect(described.find('Ref:99')).toBeUndefined();
    expect(described.find(undefined)).toBeUndefined();
    await folder.close();
  });

  it('lists a folder of chunks as one name, and gives single chunks to who asks', async () => {
    const content = Buffer.concat([noise(CHUNK), Buffer.alloc(2 * CHUNK), noise(CHUNK)]);
    const { folder, path, root } = write(
      buildXva([
        { id: 'Ref:12', content },
        { id: 'Ref:4', content },
      ]),
    );
    const archive = (await folder.mount(path))!;
    expect(archive.names()).toEqual(['Ref:12', 'Ref:4', 'ova.xml']);
    expect(archive.count).toBe(9);
    const chunk = folder.open(join(path, 'Ref:12/00000003'));
    expect(Buffer.from(await chunk.read(0, chunk.size)).equals(content.subarray(3 * CHUNK))).toBe(true);
    expect(archive.member('Ref:12/00000001')).toBeUndefined();
    expect(archive.member('Ref:12/3')).toBeUndefined();
    expect(archive.has('Ref:12/00000003.xxhash')).toBe(true);
    expect(archive.has('Ref:12/00000003.checksum')).toBe(false);
    expect(() => folder.open(join(path, 'Ref:12'))).toThrow(UnsupportedError);
    expect((await detectFormat(join(path, 'Ref:12'), folder))?.name).toBe('xva');
    const layer = await openLayer('web01.xva/Ref:12', new Confinement(root));
    expect(layer).toMatchObject({
      format: 'xva',
      name: 'web01.xva/Ref:12',
      path: join(path, 'Ref:12'),
      virtualSize: content.length,
      granularity: CHUNK,
      properties: { chunks: 2, checksums: 'XXH64', archive: 'tar', product: 'XenServer 8.2.1', exportVersion: 2 },
    });
    expect(await layer.allocatedBytes()).toBe(2 * CHUNK);
    await folder.close();
  });

  it.each(['sha1', 'xxhash'] as const)('has its checksums (%s) verified', async (checksum) => {
    const content = noise(6 * SMALL);
    const { folder, path } = write(
      tarOf(
        ovaXml([vdiRecord('Ref:1', content.length)]),
        ...diskMembers({ id: 'Ref:1', content, checksum, chunkBytes: SMALL }).map((member, i) => {
          // A bit of chunk 2 changes, and the checksum of chunk 4.
          const bytes = Buffer.from(member.content!);
          if (i === 4) bytes[100]! ^= 1;
          if (i === 9) bytes.write('zz', 3);
          return { ...member, content: bytes };
        }),
      ),
    );
    const layer = await openLayer(join(path, 'Ref:1'), folder);
    const found = await findings(layer);
    expect(found.map(({ severity, code, structure }) => [severity, code, structure?.slice(0, 24)])).toEqual([
      ['damaged', 'xva-checksum-mismatch', 'XVA chunk Ref:1/00000002'],
      ['damaged', 'xva-checksum-mismatch', 'XVA chunk Ref:1/00000004'],
    ]);
    expect(found[0]!.expected).toMatch(checksum === 'sha1' ? /^[0-9a-f]{40}$/ : /^[0-9A-F]{16}$/);
    const chunk = Buffer.from(content.subarray(2 * SMALL, 3 * SMALL));
    chunk[100]! ^= 1;
    if (checksum === 'sha1') expect(found[0]!.found).toBe(createHash('sha1').update(chunk).digest('hex'));
    await folder.close();
  });

  it('says where checksums are missing', async () => {
    const content = noise(4 * SMALL);
    const members = diskMembers({ id: 'Ref:1', content, chunkBytes: SMALL });
    const codes = async (kept: TarMember[]) => {
      const { folder, path } = write(tarOf(ovaXml([vdiRecord('Ref:1', content.length)]), ...kept));
      const found = await findings(await openLayer(join(path, 'Ref:1'), folder));
      await folder.close();
      return found.map(({ severity, code, found: with_ }) => [severity, code, with_]);
    };
    expect(await codes(members.filter(({ name }) => !name.endsWith('xxhash')))).toEqual([
      ['note', 'xva-no-checksum', 0],
    ]);
    expect(await codes(members.filter(({ name }) => !name.endsWith('2.xxhash')))).toEqual([
      ['suspicious', 'xva-no-checksum', 3],
    ]);
  });

  it('that was cut off is read as far as it goes, and never as zeros behind', async () => {
    const content = Buffer.concat([noise(SMALL), Buffer.alloc(SMALL), noise(4 * SMALL)]);
    const whole = buildXva([{ id: 'Ref:1', content, chunkBytes: SMALL }]);
    // Behind chunk 2, inside chunk 3.
    for (const [at, known, code] of [
      [whole.indexOf('Ref:1/00000003\0'), 3 * SMALL, 'xva-cut-off'],
      [whole.indexOf('Ref:1/00000003\0') + 512 + 1000, 3 * SMALL, 'xva-chunk-cut-off'],
    ] as const) {
      const { folder, path } = write(whole.subarray(0, at));
      const layer = await openLayer(join(path, 'Ref:1'), folder);
      expect(layer.virtualSize).toBe(content.length);
      expect((await readLayer(layer, 0, known)).equals(content.subarray(0, known))).toBe(true);
      for (const [offset, length] of [
        [known, 1],
        [known - 1, 2],
        [content.length - 1, 1],
      ] as const) {
        await expect(runAsync(layer.runs(offset, length))).rejects.toThrow(CorruptError);
      }
      const found = await findings(layer);
      expect(found.filter(({ severity }) => severity === 'damaged').map((finding) => finding.code)).toContain(code);
      await folder.close();
    }
  });

  describe('is refused', () => {
    const content = noise(5 * SMALL);
    const disk = diskMembers({ id: 'Ref:1', content, chunkBytes: SMALL });
    const xml = ovaXml([vdiRecord('Ref:1', content.length)]);
    const named = (name: string, bytes = content.subarray(0, SMALL)): TarMember => ({ name, content: bytes });

    it.each([
      [
        'when a chunk comes after a higher one',
        tarOf(xml, ...disk.slice(0, 4), ...disk.slice(6), ...disk.slice(4, 6)),
        /order/,
      ],
      ['when a chunk comes twice', tarOf(xml, ...disk, ...disk.slice(2, 3)), /order/],
      ['when numbers have different lengths', tarOf(xml, ...disk, named('Ref:1/000000009')), /order/],
      ['when the first chunk is missing', tarOf(xml, ...disk.slice(2)), /expected the first, 0, found 1/],
      [
        'when the first chunk is empty',
        tarOf(xml, named('Ref:1/00000000', Buffer.alloc(0)), ...disk.slice(2)),
        /00000000 size/,
      ],
      [
        'when a chunk is shorter',
        tarOf(xml, ...disk.slice(0, 2), named('Ref:1/00000001', content.subarray(0, 100)), ...disk.slice(4)),
        /expected 4096, found 100/,
      ],
      [
        'when the disk is smaller than its chunks',
        tarOf(ovaXml([vdiRecord('Ref:1', 3 * SMALL)]), ...disk),
        /disk's last/,
      ],
      [
        'when the last chunk is longer than the disk',
        tarOf(ovaXml([vdiRecord('Ref:1', content.length - 512)]), ...disk),
        /expected 3584, found 4096/,
      ],
      [
        'when chunks are of no sensible size',
        tarOf(xml, named('Ref:1/00000000', content.subarray(0, 700)), ...disk.slice(2)),
        /00000000 size/,
      ],
      [
        'when its size is no number',
        tarOf(ovaXml([vdiRecord('Ref:1', 1, { virtual_size: '2e9' })]), ...disk),
        /virtual_size/,
      ],
      [
        'when its size is beyond 2^53',
        tarOf(ovaXml([vdiRecord('Ref:1', 1, { virtual_size: '9223372036854775808' })]), ...disk),
        /virtual_size/,
      ],
      [
        'when its size is negative',
        tarOf(ovaXml([vdiRecord('Ref:1', 1, { virtual_size: '-1' })]), ...disk),
        /virtual_size/,
      ],
      ['when the description is no XML', tarOf('<value><struct>', ...disk), /ova.xml/],
      ['when the description has another shape', tarOf('<value><struct/></value>', ...disk), /struct "version"/],
      [
        'when the description never ends',
        tarOf(`${'<value><array><data>'.repeat(400)}${'</data></array></value>'.repeat(400)}`, ...disk),
        /ova.xml/,
      ],
    ])('%s', async (_, bytes, message) => {
      const { folder, path } = write(bytes);
      const opening = openLayer(join(path, 'Ref:1'), folder);
      await expect(opening).rejects.toThrow(CorruptError);
      await expect(opening).rejects.toThrow(message);
      await folder.close();
    });

    it('by name when it is of the first version', async () => {
      const { folder, path } = write(
        tarOf('<?xml version="1.0"?><appliance version="0.1"><vm name="vm"/></appliance>', ...disk),
      );
      await expect(openLayer(join(path, 'Ref:1'), folder)).rejects.toThrow(
        /Not supported: XenServer export of version 0.1/,
      );
      await folder.close();
    });

    it('when nothing describes the disk, or there is no description', async () => {
      const other = write(tarOf(ovaXml([vdiRecord('Ref:2', 100)]), ...disk));
      await expect(openLayer(join(other.path, 'Ref:1'), other.folder)).rejects.toThrow(NotFoundError);
      const none = write(buildTar(disk));
      await expect(openLayer(join(none.path, 'Ref:1'), none.folder)).rejects.toThrow(NotFoundError);
      await Promise.all([other.folder.close(), none.folder.close()]);
    });
  });

  it('of a disk of a terabyte is opened with little memory', { timeout: 120_000 }, async () => {
    // A million chunks: as many headers, and no content worth the room.
    const { ChunkList } = await import('../../../main/engine/storage/archive/tar-index.ts');
    const { mapChunks, findBlock } = await import('../../../main/engine/image/xva/chunk-map.ts');
    const list = new ChunkList('Ref:1', 8);
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 1 << 20; i++) {
      list.add(i, i * 1_050_112 + 512, CHUNK);
      list.addChecksum('xxhash', i, i * 1_050_112 + 1_049_600, 16);
    }
    const archive = { name: 'x', members: () => [] } as unknown as Parameters<typeof mapChunks>[0];
    const map = mapChunks(archive, list, 2 ** 40);
    expect(map.count).toBe(1 << 20);
    expect(findBlock(map, 777_777)).toBe(777_777);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(100 << 20);
    expect(list.find(999_999)).toBe(999_999);
  });
});

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readConfig } from '../../../main/engine/catalog/hyperv/config.ts';
import { readConfiguration, savedBytes } from '../../../main/engine/catalog/hyperv/keys.ts';
import { at, type ConfigNode, textAt, valuesBelow } from '../../../main/engine/catalog/hyperv/node.ts';
import { openStorage } from '../../../main/engine/catalog/hyperv/storage.ts';
import { configFromXml } from '../../../main/engine/catalog/hyperv/xml-config.ts';
import { ChainliftError, CorruptError, UnsupportedError } from '../../../main/engine/errors.ts';
import { MemorySource } from '../../../main/engine/storage/byte-source.ts';
import { decodeXml, parseXml } from '../../../main/engine/xml.ts';
import { corpus } from '../../support/corpus.ts';
import {
  buildStore,
  configTree,
  crc32,
  guidOf,
  sealCrc,
  type Tree,
  writeLog,
  writeObject,
  writeStoreHeader,
  xmlConfig,
} from '../../support/hyperv-builder.ts';
import { between, randomFrom } from '../../support/random.ts';

const TARGET = `${corpus}/fox-it+dissect.target/tests/_data`;
const HYPERVISOR = `${corpus}/fox-it+dissect.hypervisor/tests/_data/descriptor/hyperv`;

const read = (bytes: Uint8Array) => readConfiguration(new MemorySource(bytes, 'test.vmcx'));
const plain = (nodes: readonly ConfigNode[]): unknown =>
  nodes.map(({ name, value, children }) => [name, value ?? plain(children)]);

const SAMPLE: Tree = [
  [
    'configuration',
    [
      ['text', 'Zürich \u{1f600}'],
      ['empty', ''],
      ['minus', -5],
      ['big', 2n ** 62n],
      ['half', 0.5],
      ['yes', true],
      ['no', false],
      ['bytes', Buffer.from([1, 2, 3])],
      ['twice', [['a', 1]]],
      ['twice', [['a', 2]]],
    ],
  ],
];

describe('the store of .vmcx files', () => {
  it('gives every type of value, repeated names, and what lies in file objects', async () => {
    const expected = [
      [
        'configuration',
        [
          ['text', 'Zürich \u{1f600}'],
          ['empty', ''],
          ['minus', -5n],
          ['big', 2n ** 62n],
          ['half', 0.5],
          ['yes', true],
          ['no', false],
          ['bytes', Uint8Array.of(1, 2, 3)],
          ['twice', [['a', 1n]]],
          ['twice', [['a', 2n]]],
        ],
      ],
    ];
    const nodes = await read(buildStore(SAMPLE).bytes);
    expect(JSON.stringify(plain(nodes), jsonable)).toBe(JSON.stringify(expected, jsonable));
    const long = 'x'.repeat(5_000);
    const [root] = await read(buildStore([['configuration', [['long', long]]]], { longest: 100 }).bytes);
    expect(textAt(root, 'long')).toBe(long);
  });

  it('spreads over many tables', async () => {
    const many: Tree = [['configuration', Array.from({ length: 900 }, (_, i) => [`key${i}`, `value ${i}`] as const)]];
    const store = buildStore(many);
    expect(store.at.tables.length).toBeGreaterThan(10);
    const [root] = await read(store.bytes);
    expect(root?.children).toHaveLength(900);
    expect(textAt(root, 'key899')).toBe('value 899');
  });

  it('takes the newer of the headers that are whole, also when the sequence begins again', async () => {
    const store = buildStore(SAMPLE);
    writeStoreHeader(store.bytes, 0, 0xffff);
    writeStoreHeader(store.bytes, 0x1000, 3, 0x500);
    await expect(read(store.bytes)).rejects.toThrow(/version 0x500/);
    store.bytes[0x1000 + 20]! ^= 1;
    expect(await read(store.bytes)).toHaveLength(1);
  });

  it('replays the log in memory, every checksum of it checked', async () => {
    const store = buildStore([['configuration', [['name', 'aaaa']]]]);
    const entry = store.at.keys.get('configuration/name')!;
    const changed = Buffer.from(store.bytes.subarray(entry, entry + 21 + 5 + 4 + 8));
    changed.write('bbbb', 30, 'utf16le');
    sealCrc(changed, 0, changed.length, 12);
    writeLog(store.bytes, store.at.log, [{ position: entry, data: changed }]);
    const [root] = await read(store.bytes);
    expect(textAt(root, 'name')).toBe('bbbb');
    expect((await openStorage(new MemorySource(store.bytes))).replayed).toBe(1);
    const torn = Buffer.from(store.bytes);
    torn[store.at.log + 0x1000 + 5]! ^= 1;
    await expect(read(torn)).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure: 'Hyper-V storage log entry 0 data checksum', position: store.at.log + 34 + 24 },
    });
  });

  it('says which structure is broken, where', async () => {
    const whole = buildStore(SAMPLE);
    const table = whole.at.tables[0]!;
    const key = whole.at.keys.get('configuration/minus')!;
    const broken = (change: (bytes: Buffer) => void): Promise<unknown> => {
      const bytes = Buffer.from(whole.bytes);
      change(bytes);
      return read(bytes).then(
        () => 'read',
        (error: unknown) => {
          if (!(error instanceof ChainliftError)) throw error;
          return { kind: error.kind, ...error.details };
        },
      );
    };
    const flip = (position: number) => (bytes: Buffer) => {
      bytes[position]! ^= 1;
    };
    expect(await broken((bytes) => bytes.fill(0))).toMatchObject({ structure: 'Hyper-V storage header signature' });
    expect(
      await broken((bytes) => {
        flip(20)(bytes);
        flip(0x1000 + 20)(bytes);
      }),
    ).toMatchObject({ structure: 'Hyper-V storage header checksum', position: 4 });
    expect(await broken(flip(whole.at.log + 20))).toMatchObject({ structure: 'Hyper-V storage log checksum' });
    expect(await broken(flip(whole.at.objects))).toMatchObject({ structure: 'Hyper-V object table signature' });
    expect(await broken(flip(whole.at.objects + 8 + 6))).toMatchObject({ structure: 'Hyper-V object 0 checksum' });
    expect(await broken(flip(table + 4))).toMatchObject({
      structure: 'Hyper-V key table checksum',
      position: table + 6,
    });
    expect(await broken(flip(key + 30))).toMatchObject({ structure: 'Hyper-V key checksum', position: key + 12 });
    expect(await broken((bytes) => bytes.writeUInt32LE(5, key + 2))).toMatchObject({ position: key + 2, found: 5 });
    expect(await broken((bytes) => bytes.writeUInt32LE(0xffff_ffff, whole.at.objects + 4))).toMatchObject({
      structure: 'Hyper-V object table entry count',
    });
    expect(await broken((bytes) => writeObject(bytes, 0, [2, table, 0xffff_ffff]))).toMatchObject({
      structure: 'Hyper-V key table',
    });
    expect(await broken((bytes) => writeObject(bytes, 1, [2, 2 ** 52, 4096]))).toMatchObject({
      structure: 'Hyper-V object 1 position',
    });
    await expect(read(whole.bytes.subarray(0, 100))).rejects.toBeInstanceOf(CorruptError);
    await expect(read(new Uint8Array(0))).rejects.toBeInstanceOf(CorruptError);
    await expect(read(buildStore(SAMPLE, { version: 0x300 }).bytes)).rejects.toBeInstanceOf(UnsupportedError);
  });

  it('refuses keys under each other and under what is no node', async () => {
    const store = buildStore([['configuration', [['a', [['b', 1]]]]]]);
    const place = (path: string): number => store.at.keys.get(path)! - store.at.tables[0]!;
    const under = (child: string, parent: number): void => {
      const at = store.at.keys.get(child)!;
      store.bytes.writeUInt16LE(1, at + 6);
      store.bytes.writeUInt32LE(parent, at + 8);
      sealCrc(store.bytes, at, store.bytes.readUInt32LE(at + 2), 12);
    };
    under('configuration', place('configuration/a'));
    await expect(read(store.bytes)).rejects.toThrow(/stand under each other/);
    under('configuration/a', place('configuration/a/b'));
    await expect(read(store.bytes)).rejects.toThrow(/place of a node/);
  });

  it('follows object tables that name each other once', async () => {
    const store = buildStore(SAMPLE);
    writeObject(store.bytes, 3, [1, store.at.objects, 4096]);
    expect(await read(store.bytes)).toHaveLength(1);
  });

  it('knows a saved state from the .vmrs of a VM that is off', async () => {
    expect(await savedBytes(new MemorySource(buildStore(SAMPLE).bytes))).toBe(0);
    expect(await savedBytes(new MemorySource(buildStore(SAMPLE, { memory: 2 << 20 }).bytes))).toBe(2 << 20);
  });

  it('gives data or an error of ours for any damage, in bounded time', async () => {
    const random = randomFrom(20_240_301);
    const whole = buildStore(configTree({ name: 'web01', id: guidOf(1), disks: ['C:\\a.vhdx'] }), {
      longest: 10,
    }).bytes;
    let refused = 0;
    for (let round = 0; round < 400; round++) {
      const bytes = Buffer.from(whole);
      for (let count = between(random, 1, 6); count > 0; count--) {
        const position = between(random, 0, bytes.length - 5);
        const kind = between(random, 0, 3);
        if (kind === 0) bytes.writeUInt32LE(0xffff_ffff, position);
        else if (kind === 1) bytes.writeUInt32LE(0, position);
        else bytes[position] = between(random, 0, 255);
      }
      // Half of them with headers and tables that say they are whole, so that what stands behind the checksums is met.
      if (round % 2 === 0) {
        for (const header of [0, 0x1000]) sealCrc(bytes, header, 46, 4);
        sealCrc(bytes, 0x3000, 34, 4);
      }
      try {
        readConfig(await read(bytes), 'test.vmcx');
      } catch (error) {
        if (!(error instanceof ChainliftError)) throw error;
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(20);
  });
});

describe('what a configuration says', () => {
  const config = (parts: Partial<Parameters<typeof configTree>[0]>) => {
    const tree = configTree({ name: 'web01', id: guidOf(1), disks: ['C:\\VMs\\a.vhdx', 'D:\\b.vhdx'], ...parts });
    return read(buildStore(tree).bytes).then((nodes) => readConfig(nodes, 'test.vmcx')!);
  };

  it('reads machine, disks and adapters of both generations', async () => {
    expect(
      await config({
        secureBoot: true,
        mac: '00-15-5D-01-02-0A',
        network: 'External',
        created: new Date(1_700_000_000_000),
      }),
    ).toMatchObject({
      id: guidOf(1),
      name: 'web01',
      generation: 2,
      firmware: 'efi, secure boot',
      cpus: 4,
      memoryBytes: 2 ** 31,
      created: '2023-11-14T22:13:20.000Z',
      disks: [
        { node: 'scsi0:0', fileName: 'C:\\VMs\\a.vhdx' },
        { node: 'scsi0:1', fileName: 'D:\\b.vhdx' },
      ],
      networks: [{ device: '0', mac: '00:15:5d:01:02:0a', network: 'External', model: 'synthetic' }],
      findings: [],
    });
    expect(await config({ generation: 1, disks: ['a', 'b', 'c'] })).toMatchObject({
      firmware: 'bios',
      disks: [{ node: 'ide0:0' }, { node: 'ide0:1' }, { node: 'ide1:0' }],
      networks: [{ device: '0', model: 'synthetic' }],
    });
  });

  it('is the same from XML and from the store', async () => {
    const tree = configTree({
      name: 'a & <b>',
      id: guidOf(1),
      disks: ['C:\\x.vhdx'],
      created: new Date(0),
      userType: 4,
    });
    const xml = configFromXml(parseXml(decodeXml(xmlConfig(tree)), 'XML', 'x.xml'));
    const [stored] = await read(buildStore(tree).bytes);
    expect(readConfig([xml], 'x')).toEqual(readConfig([stored!], 'x'));
    expect(readConfig([xml], 'x')?.name).toBe('a & <b>');
  });

  it('is none for a file that is of no VM', async () => {
    expect(readConfig(await read(buildStore([['Configurations', [['FormatVersion', 2]]]]).bytes), 'data.vmcx')).toBe(
      undefined,
    );
    expect(readConfig(await read(buildStore(SAMPLE).bytes), 'x')).toBe(undefined);
  });
});

describe.skipIf(!existsSync(TARGET))('real files of Hyper-V (skipped without ../shared/corpus)', () => {
  const real = async (path: string) => readConfiguration(new MemorySource(readFileSync(path), path));

  it.each([
    [
      `${TARGET}/loaders/hyperv/EC04F346-DB96-4700-AF5B-77B3C56C38BD.vmcx`,
      'Default Generation 1',
      1,
      'ide0:0',
      'C:\\Disks\\Default Generation 1.vhdx',
      2 ** 30,
    ],
    [
      `${TARGET}/loaders/hyperv/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx`,
      'Default Generation 2',
      2,
      'scsi0:0',
      'C:\\Disks\\Default Generation 2.vhdx',
      2 ** 30,
    ],
    [
      `${HYPERVISOR}/test.vmcx`,
      'Other Location',
      1,
      'ide0:0',
      'C:\\Users\\Public\\Documents\\Hyper-V\\Virtual Hard Disks\\Other Location.vhdx',
      2 ** 30,
    ],
  ])('%s', async (path, name, generation, node, fileName, memoryBytes) => {
    const config = readConfig(await real(path), 'x')!;
    expect(config).toMatchObject({
      name,
      generation,
      memoryBytes,
      cpus: 1,
      disks: [{ node, fileName }],
      listed: [],
      listSize: 0,
    });
    expect(config.disks).toHaveLength(1);
    expect(config.networks).toEqual([{ device: '0', model: 'synthetic' }]);
    expect(config.checkpoints).toBe(3);
  });

  it('XML of Windows Server 2012', async () => {
    for (const [file, name, generation, node] of [
      ['B90AC31B-C6F8-479F-9B91-07B894A6A3F6', 'Default Generation 1', 1, 'ide0:0'],
      ['D351C151-DAC7-4042-B434-B72D522C1E4A', 'Default Generation 2', 2, 'scsi0:0'],
    ] as const) {
      const xml = parseXml(decodeXml(readFileSync(`${TARGET}/loaders/hyperv/${file}.xml`)), 'XML', file);
      expect(readConfig([configFromXml(xml)], file)).toMatchObject({
        id: file,
        name,
        generation,
        firmware: generation === 1 ? 'bios' : 'efi, secure boot',
        memoryBytes: 512 * 2 ** 20,
        cpus: 1,
        disks: [{ node, fileName: `C:\\Disks\\${name}.vhdx` }],
        running: false,
      });
    }
  });

  it('every checksum of every structure and key holds, and nothing is left over', async () => {
    const files = [
      ...readdirSync(`${TARGET}/loaders/hyperv`)
        .filter((name) => name.endsWith('.vmcx'))
        .map((name) => `${TARGET}/loaders/hyperv/${name}`),
      `${TARGET}/plugins/child/hyperv/data.vmcx`,
      `${HYPERVISOR}/test.vmcx`,
      `${HYPERVISOR}/test.VMRS`,
    ];
    let values = 0;
    for (const path of files) for (const root of await real(path)) values += [...valuesBelow(root)].length;
    // Counted from the bytes by a program of its own: 1,320 keys, of which 326 are nodes and 12 free.
    expect(values).toBe(1_320 - 326 - 12);
    const [registry] = await real(`${TARGET}/plugins/child/hyperv/data.vmcx`);
    expect(at(registry, 'VirtualMachines')?.children).toHaveLength(4);
    expect(await savedBytes(new MemorySource(readFileSync(`${HYPERVISOR}/test.VMRS`)))).toBe(0);
  });
});

function jsonable(_: string, value: unknown): unknown {
  if (typeof value === 'bigint') return `${value}n`;
  return value instanceof Uint8Array || (value as { type?: string } | null)?.type === 'Buffer'
    ? [...Buffer.from(value as Uint8Array)]
    : value;
}

it('the builder has its own CRC-32, and the right one', () => {
  expect(crc32(Buffer.from('123456789'))).toBe(0xcbf4_3926);
});

/**
 * Writes Hyper-V's files for tests: the binary store of .vmcx and .vmrs, the XML before it, and whole folders with chains of VHDX as
 * Export-VM lays them out. The store follows Fox-IT's description of it (dissect.hypervisor, descriptor/c_hyperv.py) and what was
 * measured in real files; nothing here is the engine's, so that the two can disagree.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildVhdx, MIB, parentLocator } from './vhdx-builder.ts';

/** A value by its name; a node is a list of them. Arrays of one name may be written by pairs. */
export type Tree = readonly (readonly [string, Tree | string | number | bigint | boolean | Buffer])[];

const PAGE = 0x1000;

/** CRC-32 bit by bit: slow, and not the engine's. */
export function crc32(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb8_8320 : crc >>> 1;
  }
  return (crc ^ 0xffff_ffff) >>> 0;
}

/** Writes the CRC of `[from, from + length)` at `at` within it. */
export function sealCrc(bytes: Buffer, from: number, length: number, at: number): void {
  bytes.writeUInt32LE(0, from + at);
  bytes.writeUInt32LE(crc32(bytes.subarray(from, from + length)), from + at);
}

export interface LogWrite {
  readonly position: number;
  readonly data: Buffer;
}

export interface StoreOptions {
  readonly version?: number;
  /** Changes left in the log. */
  readonly log?: readonly LogWrite[];
  /** Strings of more characters than this lie in file objects. */
  readonly longest?: number;
  /** Bytes of a file object that no key names, as the memory in a .vmrs. */
  readonly memory?: number;
}

export interface Store {
  readonly bytes: Buffer;
  readonly at: {
    readonly log: number;
    readonly objects: number;
    readonly tables: readonly number[];
    /** Position of the entry of each key, by its path: `configuration/properties/name`. */
    readonly keys: ReadonlyMap<string, number>;
  };
}

interface Key {
  readonly path: string;
  readonly name: string;
  readonly type: number;
  readonly value: Buffer;
  readonly parent: string | undefined;
  readonly order: number;
}

const LOG_BYTES = 4 * PAGE;

/** A store with the keys of `tree`, spread over as many tables of 4 KiB as they need. */
export function buildStore(tree: Tree, options: StoreOptions = {}): Store {
  const files: { position: number; data: Buffer }[] = [];
  const log = 3 * PAGE;
  const keys = keysOf(tree, undefined, '');
  const longest = options.longest ?? 0x400;
  const tables: { key: Key; at: number }[][] = [[]];
  let filled = 10;
  const size = (key: Key): number =>
    21 + Buffer.byteLength(key.name) + 1 + (key.value.length - 4 > longest * 2 ? 12 : key.value.length);
  for (const key of keys) {
    if (filled + size(key) > PAGE) {
      tables.push([]);
      filled = 10;
    }
    tables.at(-1)!.push({ key, at: filled });
    filled += size(key);
  }
  const places = new Map<string, { table: number; at: number }>();
  for (const [index, table] of tables.entries()) {
    for (const { key, at } of table) places.set(key.path, { table: index + 1, at });
  }
  const first = log + LOG_BYTES;
  let end = first + tables.length * PAGE;
  const entries: Buffer[][] = tables.map((table) =>
    table.map(({ key }) => {
      const name = Buffer.from(`${key.name}\0`, 'utf8');
      const inFile = key.value.length - 4 > longest * 2;
      let value = key.value;
      if (inFile) {
        const data = key.value.subarray(4);
        files.push({ position: end, data });
        value = Buffer.alloc(12);
        value.writeUInt32LE(data.length, 0);
        value.writeBigUInt64LE(BigInt(end), 4);
        end += Math.ceil(data.length / PAGE) * PAGE;
      }
      const entry = Buffer.concat([Buffer.alloc(21), name, value]);
      entry.writeUInt16LE(key.type | (inFile ? 0x100 : 0), 0);
      entry.writeUInt32LE(entry.length, 2);
      const parent = key.parent === undefined ? undefined : places.get(key.parent)!;
      entry.writeUInt16LE(parent?.table ?? 0, 6);
      entry.writeUInt32LE(parent?.at ?? 0, 8);
      entry.writeUInt32LE(key.order, 16);
      entry[20] = name.length;
      sealCrc(entry, 0, entry.length, 12);
      return entry;
    }),
  );
  if (options.memory !== undefined) {
    files.push({ position: end, data: Buffer.alloc(options.memory, 7) });
    end += Math.ceil(options.memory / PAGE) * PAGE;
  }
  const bytes = Buffer.alloc(end);
  writeStoreHeader(bytes, 0, 7, options.version);
  writeStoreHeader(bytes, PAGE, 6, options.version);
  bytes.writeUInt32LE(0x0111_0001, 2 * PAGE);
  const objects: [number, number, number][] = [
    ...tables.map((_, index): [number, number, number] => [2, first + index * PAGE, PAGE]),
    ...files.map(({ position, data }): [number, number, number] => [3, position, Math.ceil(data.length / PAGE) * PAGE]),
  ];
  bytes.writeUInt32LE(227, 2 * PAGE + 4);
  for (let index = 0; index < 227; index++) writeObject(bytes, index, objects[index]);
  const keyPlaces = new Map<string, number>();
  for (const [index, table] of entries.entries()) {
    const at = first + index * PAGE;
    bytes.writeUInt16LE(2, at);
    bytes.writeUInt16LE(index + 1, at + 2);
    bytes.writeUInt16LE(1, at + 4);
    sealCrc(bytes, at, 10, 6);
    let position = at + 10;
    for (const [which, entry] of table.entries()) {
      entry.copy(bytes, position);
      keyPlaces.set(tables[index]![which]!.key.path, position);
      position += entry.length;
    }
  }
  for (const { position, data } of files) data.copy(bytes, position);
  writeLog(bytes, log, options.log ?? []);
  return {
    bytes,
    at: { log, objects: 2 * PAGE, tables: tables.map((_, index) => first + index * PAGE), keys: keyPlaces },
  };
}

export function writeStoreHeader(bytes: Buffer, at: number, sequence: number, version = 0x400): void {
  bytes.writeUInt32LE(0x0128_2014, at);
  bytes.writeUInt16LE(sequence, at + 8);
  bytes.writeUInt32LE(version, at + 10);
  bytes.writeUInt32LE(PAGE, at + 22);
  bytes.writeBigUInt64LE(BigInt(3 * PAGE), at + 26);
  bytes.writeBigUInt64LE(BigInt(LOG_BYTES), at + 34);
  bytes.writeUInt32LE(PAGE, at + 42);
  sealCrc(bytes, at, 46, 4);
}

/** Writes an entry of the object table: type, position, size; or one that is free. */
export function writeObject(bytes: Buffer, index: number, object: readonly [number, number, number] | undefined): void {
  const at = 2 * PAGE + 8 + index * 18;
  bytes.fill(0, at, at + 18);
  if (object !== undefined) {
    bytes[at] = object[0];
    bytes.writeBigUInt64LE(BigInt(object[1]), at + 5);
    bytes.writeUInt32LE(object[2], at + 13);
    bytes[at + 17] = 1;
  }
  sealCrc(bytes, at, 18, 1);
}

export function writeLog(bytes: Buffer, at: number, writes: readonly LogWrite[]): void {
  bytes.fill(0, at, at + LOG_BYTES);
  bytes.writeUInt32LE(0x0111_0003, at);
  bytes.writeUInt32LE(writes.length, at + 8);
  bytes.writeUInt32LE(0x91, at + 13);
  let data = PAGE;
  for (const [index, write] of writes.entries()) {
    const entry = at + 34 + index * 28;
    write.data.copy(bytes, at + data);
    bytes.writeBigUInt64LE(BigInt(write.position), entry);
    bytes.writeUInt32LE(write.data.length, entry + 8);
    bytes.writeBigUInt64LE(BigInt(data), entry + 12);
    bytes.writeUInt32LE(crc32(write.data), entry + 24);
    sealCrc(bytes, entry, 28, 20);
    data += write.data.length;
  }
  sealCrc(bytes, at, 34, 4);
}

function keysOf(tree: Tree, parent: string | undefined, prefix: string): Key[] {
  return tree.flatMap(([name, value], index): Key[] => {
    // Names may occur twice; places are remembered by path, so that a second one gets a mark.
    const twice = tree.slice(0, index).filter(([other]) => other === name).length;
    const path = `${prefix}${name}${twice === 0 ? '' : `#${twice}`}`;
    const key = { path, name, parent, order: index + 1 };
    if (Array.isArray(value))
      return [{ ...key, type: 9, value: Buffer.alloc(12) }, ...keysOf(value as Tree, path, `${path}/`)];
    return [{ ...key, ...typed(value as string | number | bigint | boolean | Buffer) }];
  });
}

function typed(value: string | number | bigint | boolean | Buffer): { type: number; value: Buffer } {
  if (typeof value === 'string') return { type: 6, value: sized(Buffer.from(value, 'utf16le')) };
  if (Buffer.isBuffer(value)) return { type: 7, value: sized(value) };
  const bytes = Buffer.alloc(typeof value === 'boolean' ? 4 : 8);
  if (typeof value === 'boolean') bytes.writeUInt32LE(value ? 1 : 0);
  else if (typeof value === 'bigint' || Number.isInteger(value)) bytes.writeBigInt64LE(BigInt(value));
  else bytes.writeDoubleLE(value);
  return {
    type: typeof value === 'boolean' ? 8 : typeof value === 'number' && !Number.isInteger(value) ? 5 : 3,
    value: bytes,
  };
}

function sized(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** The same tree as Hyper-V's XML before 2016: UTF-16 with a byte order mark. */
export function xmlConfig(tree: Tree): Buffer {
  const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  const write = (list: Tree): string =>
    list
      .map(([name, value]) => {
        if (Array.isArray(value)) return `<${name}>${write(value as Tree)}</${name}>`;
        if (typeof value === 'string') return `<${name} type="string">${escaped(value)}</${name}>`;
        if (typeof value === 'boolean') return `<${name} type="bool">${value ? 'True' : 'False'}</${name}>`;
        if (Buffer.isBuffer(value)) return `<${name} type="bytes">${value.toString('base64')}</${name}>`;
        return `<${name} type="integer">${value}</${name}>`;
      })
      .join('');
  return Buffer.from(`\ufeff<?xml version="1.0" encoding="UTF-16" standalone="yes"?>\r\n${write(tree)}`, 'utf16le');
}

export interface ConfigParts {
  readonly name: string;
  readonly id: string;
  readonly generation?: 1 | 2;
  readonly secureBoot?: boolean;
  readonly template?: string;
  readonly created?: Date;
  readonly notes?: string;
  /** Paths of the host, on one SCSI controller (generation 2) or on IDE. */
  readonly disks: readonly string[];
  readonly list?: readonly string[];
  readonly listSize?: number;
  readonly userType?: number;
  readonly on?: number;
  readonly off?: number;
  readonly saved?: boolean;
  readonly parent?: string;
  readonly vm?: string;
  readonly mergePending?: boolean;
  readonly kind?: string;
  readonly mac?: string;
  readonly network?: string;
}

const IDE = '83f8638b-8dca-4152-9eda-2ca8b33039b4';
const SCSI = 'd422512d-2bf2-4752-809d-7b82b5fcb1b4';
const NET = '2fc216b0-d2e2-4967-9b6d-b8a5c9ca2778';
const BIOS = 'ac6b8dc1-3257-4a70-b1b2-a9c9215659ad';

/** A FILETIME in eight bytes. */
export function fileTime(time: Date): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE((BigInt(time.getTime()) + 11_644_473_600_000n) * 10_000n);
  return bytes;
}

/** A configuration with the names and places that real ones have. */
export function configTree(parts: ConfigParts): Tree {
  const generation = parts.generation ?? 2;
  const instance = '3afc77d9-23ab-4c97-be1c-f47a18ce3b4a';
  const adapter = '761106cc-1c7c-42cd-b42d-fc1370654ef0';
  const drive = (path: string): Tree => [
    ['pathname', path],
    ['type', path === '' ? 'NONE' : 'VHD'],
  ];
  const controllers: Tree =
    generation === 2
      ? [['controller0', parts.disks.map((path, index) => [`drive${index}`, drive(path)] as const)]]
      : [0, 1].map((number) => [
          `controller${number}`,
          [0, 1].map((unit) => [`drive${unit}`, drive(parts.disks[number * 2 + unit] ?? '')] as const),
        ]);
  const device = (number: number, id: string, own: string, name: string): Tree[number] => [
    `vdev${String(number).padStart(3, '0')}`,
    [
      ['device', id],
      ['instance', own.toUpperCase()],
      ['name', name],
    ],
  ];
  const list = (parts.list ?? []).map((id, index) => [`node${index}`, [['guid', id]]] as const);
  return [
    [
      'configuration',
      [
        [`_${generation === 2 ? instance : IDE}_`, controllers],
        [
          `_${adapter}_`,
          [
            ['Connection', [['AltSwitchName', parts.network ?? '']]],
            ['MacAddress', parts.mac ?? '00-00-00-00-00-00'],
            ['SwitchName', ''],
          ],
        ],
        [
          `_${BIOS}_`,
          [
            ['secure_boot_enabled', parts.secureBoot ?? false],
            ...(parts.template === undefined ? [] : [['secure_boot_template_id', parts.template] as const]),
          ],
        ],
        [
          'global_settings',
          [
            ['disk_merge_pending', parts.mergePending ?? false],
            [
              'snapshots',
              [
                ['list', [...list, ['size', parts.listSize ?? list.length]]],
                ...(parts.userType === undefined ? [] : [['user_type', parts.userType] as const]),
              ],
            ],
          ],
        ],
        [
          'manifest',
          [
            ['size', 3],
            device(1, BIOS, BIOS, 'Microsoft Virtual BIOS'),
            device(2, NET, adapter, 'Synthetic Ethernet Port'),
            generation === 2
              ? device(3, SCSI, instance, 'Synthetic SCSI Controller')
              : device(3, IDE, IDE, 'Microsoft Emulated IDE Controller'),
          ],
        ],
        [
          'properties',
          [
            ['global_id', parts.id],
            ['last_powered_off_time', parts.off ?? 0],
            ['last_powered_on_time', parts.on ?? 0],
            ['name', parts.name],
            ['notes', parts.notes ?? ''],
            ...(parts.parent === undefined ? [] : [['parent_id', parts.parent] as const]),
            ['subtype', generation - 1],
            ['type_id', parts.kind ?? 'Virtual Machines'],
            ...(parts.created === undefined ? [] : [['creation_time', fileTime(parts.created)] as const]),
          ],
        ],
        ...(parts.saved ? [['savedstate', [['vsvlocation', 'C:\\VMs\\x.vsv']]] as const] : []),
        [
          'settings',
          [
            ['global', [['logical_id', parts.vm ?? parts.id]]],
            ['memory', [['bank', [['size', 2048]]]]],
            ['processors', [['count', 4]]],
          ],
        ],
      ],
    ],
  ];
}

/** GUIDs of layers and files, told apart by their last digits. */
export function guidOf(number: number): string {
  return `0000AAAA-BBBB-4CCC-8DDD-${String(number).padStart(12, '0')}`;
}

/** Name of the n-th layer of a disk: `web01.vhdx`, then as Hyper-V names what checkpoints make. */
export function layerName(disk: string, n: number): string {
  return n === 0 ? `${disk}.vhdx` : `${disk}_${guidOf(n)}.avhdx`;
}

/** Writes a chain of dynamic VHDX files of 4 MiB disks; layer n fills its block n with the byte n + 1. Returns the names. */
export function writeVhdxChain(folder: string, disk: string, deltas: number): string[] {
  mkdirSync(folder, { recursive: true });
  const names: string[] = [];
  const linkage = (n: number): string => `99999999-0000-4000-8000-${String(n).padStart(12, '0')}`;
  for (let n = 0; n <= deltas; n++) {
    const name = layerName(disk, n);
    const { bytes } = buildVhdx({
      virtualSize: 4 * MIB,
      blocks: new Map([[n % 4, Buffer.alloc(MIB, n + 1)]]),
      dataWriteGuid: linkage(n),
      ...(n === 0 ? {} : { parent: parentLocator(layerName(disk, n - 1), linkage(n - 1)) }),
    });
    writeFileSync(join(folder, name), bytes);
    names.push(name);
  }
  return names;
}

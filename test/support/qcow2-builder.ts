/**
 * Writes QCOW2 images after the specification (QEMU, docs/interop/qcow2.txt), with refcounts and COPIED flags that are right, so that
 * a test can have what no program makes, or change one field of it. QEMU reads what it writes: test/peers/qcow2.test.ts.
 */
import { deflateRawSync } from 'node:zlib';

/** What a cluster is: its bytes, zeros with or without a place, bytes compressed, or its 32 subclusters. */
export type Cluster =
  | Buffer
  | 'zero'
  | 'zero-allocated'
  | { readonly packed: Buffer }
  | readonly (Buffer | 'zero' | 'absent')[];

export interface State {
  /** Bytes of the disk. */
  readonly size: number;
  /** By guest cluster. The same object in two states is one cluster of the file. */
  readonly clusters: ReadonlyMap<number, Cluster>;
}

export interface SnapshotOptions extends State {
  readonly id: string;
  readonly name: string;
  readonly seconds?: number;
  readonly nanoseconds?: number;
  readonly stateBytes?: number;
  /** Bytes of extra data, 24 unless told; less leaves out fields. */
  readonly extra?: number;
}

export interface Qcow2Options extends State {
  readonly version?: 2 | 3;
  readonly clusterBits?: number;
  readonly extendedL2?: boolean;
  readonly refcountOrder?: number;
  readonly zstd?: boolean;
  readonly backing?: { readonly name: string; readonly format?: string };
  readonly snapshots?: readonly SnapshotOptions[];
  readonly dataFile?: { readonly name?: string; readonly raw?: boolean };
  /** Further incompatible, compatible and autoclear features. */
  readonly incompatible?: bigint;
  readonly compatible?: bigint;
  readonly autoclear?: bigint;
  readonly extensions?: readonly { readonly type: number; readonly data: Buffer }[];
  readonly headerLength?: number;
  /** Tables behind the data, not before it. */
  readonly dataFirst?: boolean;
}

export interface BuiltQcow2 {
  readonly bytes: Buffer;
  /** The external data file. */
  readonly data: Buffer | undefined;
  /** Byte positions of structures. */
  readonly at: {
    readonly l1: number;
    /** By L1 index of the present state. */
    readonly l2: ReadonlyMap<number, number>;
    readonly refcountTable: number;
    readonly refcountBlock: number;
    readonly snapshotTable: number;
    readonly snapshotL1: readonly number[];
  };
}

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;

/** A Zstandard frame (RFC 8878) of blocks that are stored as they are. */
export function zstdFrame(content: Buffer): Buffer {
  const parts: Buffer[] = [Buffer.from('28b52ffda0', 'hex'), Buffer.alloc(4)];
  parts[1]!.writeUInt32LE(content.length);
  for (let at = 0; at < content.length || at === 0; at += 65_536) {
    const block = content.subarray(at, at + 65_536);
    const last = at + 65_536 >= content.length;
    const header = Buffer.alloc(3);
    header.writeUIntLE((block.length << 3) | (last ? 1 : 0), 0, 3);
    parts.push(header, block);
  }
  return Buffer.concat(parts);
}

interface Table {
  readonly state: State;
  l1: number;
  readonly l1Size: number;
  readonly l2: Map<number, number>;
  /** Entries by guest cluster: descriptor and subcluster bitmap. */
  readonly entries: Map<number, { entry: bigint; bitmap: bigint; host: number | undefined }>;
}

export function buildQcow2(options: Qcow2Options): BuiltQcow2 {
  const bits = options.clusterBits ?? 16;
  const size = 2 ** bits;
  const version = options.version ?? 3;
  const extended = options.extendedL2 ?? false;
  const perTable = size / (extended ? 16 : 8);
  const external = options.dataFile !== undefined;
  const chunks = new Map<number, Buffer>();
  const counts = new Map<number, number>();
  let end = 1;
  const take = (clusters: number): number => {
    const first = end;
    end += clusters;
    for (let i = first; i < end; i++) counts.set(i, 1);
    return first * size;
  };
  counts.set(0, 1);
  const place = (bytes: Buffer): number => {
    const at = take(Math.max(1, Math.ceil(bytes.length / size)));
    chunks.set(at, bytes);
    return at;
  };
  const data = external ? Buffer.alloc(options.size, 0) : undefined;

  const states: State[] = [options, ...(options.snapshots ?? [])];
  const tables: Table[] = states.map((state) => ({
    state,
    l1: 0,
    l1Size: Math.ceil(state.size / (perTable * size)),
    l2: new Map(),
    entries: new Map(),
  }));
  const placeTables = () => {
    for (const table of tables) {
      if (table.l1Size > 0) table.l1 = take(Math.ceil((table.l1Size * 8) / size));
      for (const cluster of table.state.clusters.keys()) {
        const index = Math.floor(cluster / perTable);
        if (!table.l2.has(index)) table.l2.set(index, take(1));
      }
    }
  };

  if (!options.dataFirst) placeTables();
  const shared = new Map<Cluster, { entry: bigint; bitmap: bigint; host: number | undefined }>();
  let packedEnd = 0;
  const pack = (content: Buffer): bigint => {
    const stored = options.zstd ? zstdFrame(content) : deflateRawSync(content, { windowBits: 12, level: 6 });
    // Side by side, as QEMU packs them; a new cluster when the next bytes of the file are not free.
    if (packedEnd === 0 || packedEnd !== end * size - (size - (packedEnd % size || size))) packedEnd = end * size;
    const at = packedEnd;
    const first = Math.floor(at / size);
    const last = Math.floor((at + stored.length - 1) / size);
    for (let cluster = first; cluster <= last; cluster++) {
      counts.set(cluster, (cluster < end ? (counts.get(cluster) ?? 0) : 0) + 1);
    }
    end = Math.max(end, last + 1);
    chunks.set(at, stored);
    packedEnd = at + stored.length;
    const sectors = Math.floor((at + stored.length - 1) / 512) - Math.floor(at / 512);
    return COMPRESSED | (BigInt(sectors) << BigInt(70 - bits)) | BigInt(at);
  };
  const entryOf = (cluster: number, content: Cluster) => {
    if (content === 'zero')
      return { entry: extended ? 0n : 1n, bitmap: extended ? 0xffff_ffff_0000_0000n : 0n, host: undefined };
    if (typeof content === 'object' && 'packed' in content) {
      return { entry: pack(content.packed), bitmap: 0n, host: undefined };
    }
    const subclusters = Array.isArray(content) ? (content as readonly (Buffer | 'zero' | 'absent')[]) : undefined;
    let bitmap = extended ? 0xffff_ffffn : 0n;
    let bytes: Buffer;
    if (subclusters !== undefined) {
      bitmap = 0n;
      bytes = Buffer.alloc(size, 0xdb);
      subclusters.forEach((sub, i) => {
        if (sub === 'zero') bitmap |= 1n << BigInt(32 + i);
        else if (sub !== 'absent') {
          bitmap |= 1n << BigInt(i);
          sub.copy(bytes, (i * size) / 32);
        }
      });
    } else if (content === 'zero-allocated') {
      bytes = Buffer.alloc(size, 0xee);
      if (extended) bitmap = 0xffff_ffff_0000_0000n;
    } else {
      bytes = content as Buffer;
    }
    const zeroFlag = content === 'zero-allocated' && !extended ? 1n : 0n;
    if (data !== undefined) {
      bytes.copy(data, cluster * size);
      return { entry: COPIED | BigInt(cluster * size) | zeroFlag, bitmap, host: undefined };
    }
    const host = place(bytes);
    return { entry: BigInt(host) | zeroFlag, bitmap, host: host / size };
  };
  for (const table of tables) {
    for (const [cluster, content] of table.state.clusters) {
      const known = typeof content === 'object' ? shared.get(content) : undefined;
      const made = known ?? entryOf(cluster, content);
      if (known !== undefined && known.host !== undefined) counts.set(known.host, counts.get(known.host)! + 1);
      if (typeof content === 'object') shared.set(content, made);
      table.entries.set(cluster, made);
    }
  }
  if (options.dataFirst) placeTables();
  const snapshotTable = writeSnapshots(options.snapshots ?? [], tables.slice(1));
  const snapshotAt = snapshotTable.length === 0 ? 0 : place(snapshotTable);

  // Refcounts last: their blocks count themselves.
  const order = options.refcountOrder ?? 4;
  const perBlock = (size * 8) / 2 ** order;
  const tableAt = take(1);
  let blocks = 0;
  while (blocks * perBlock < end) {
    take(1);
    blocks++;
  }
  const firstBlock = end - blocks;
  for (const table of tables)
    writeTables(chunks, counts, table, { size, perTable, extended, active: table === tables[0] });
  const refcountTable = Buffer.alloc(size);
  for (let i = 0; i < blocks; i++) refcountTable.writeBigUInt64BE(BigInt((firstBlock + i) * size), i * 8);
  chunks.set(tableAt, refcountTable);
  for (let i = 0; i < blocks; i++) {
    const block = Buffer.alloc(size);
    for (let k = 0; k < perBlock; k++) setRefcount(block, k, order, counts.get(i * perBlock + k) ?? 0);
    chunks.set((firstBlock + i) * size, block);
  }

  const bytes = Buffer.alloc(end * size);
  for (const [at, chunk] of chunks) chunk.copy(bytes, at);
  writeHeader(bytes, options, {
    version,
    bits,
    order,
    l1: tables[0]!.l1,
    l1Size: tables[0]!.l1Size,
    refcountTable: tableAt,
    snapshots: snapshotAt,
  });
  return {
    bytes,
    data,
    at: {
      l1: tables[0]!.l1,
      l2: tables[0]!.l2,
      refcountTable: tableAt,
      refcountBlock: firstBlock * size,
      snapshotTable: snapshotAt,
      snapshotL1: tables.slice(1).map(({ l1 }) => l1),
    },
  };
}

function writeTables(
  chunks: Map<number, Buffer>,
  counts: ReadonlyMap<number, number>,
  table: Table,
  { size, perTable, extended, active }: { size: number; perTable: number; extended: boolean; active: boolean },
): void {
  const l1 = Buffer.alloc(table.l1Size * 8);
  for (const [index, at] of table.l2) {
    l1.writeBigUInt64BE(BigInt(at) | (active ? COPIED : 0n), index * 8);
    chunks.set(at, Buffer.alloc(size));
  }
  if (table.l1Size > 0) chunks.set(table.l1, l1);
  for (const [cluster, { entry, bitmap, host }] of table.entries) {
    const l2 = chunks.get(table.l2.get(Math.floor(cluster / perTable))!)!;
    const at = (cluster % perTable) * (extended ? 16 : 8);
    const copied = active && host !== undefined && counts.get(host) === 1 ? COPIED : 0n;
    l2.writeBigUInt64BE(entry | copied, at);
    if (extended) l2.writeBigUInt64BE(bitmap, at + 8);
  }
}

function writeSnapshots(snapshots: readonly SnapshotOptions[], tables: readonly Table[]): Buffer {
  const entries = snapshots.map((snapshot, i) => {
    const id = Buffer.from(snapshot.id);
    const name = Buffer.from(snapshot.name);
    const extra = Buffer.alloc(24);
    extra.writeBigUInt64BE(BigInt(snapshot.stateBytes ?? 0), 0);
    extra.writeBigUInt64BE(BigInt(snapshot.size), 8);
    const fixed = Buffer.alloc(40);
    fixed.writeBigUInt64BE(BigInt(tables[i]!.l1), 0);
    fixed.writeUInt32BE(tables[i]!.l1Size, 8);
    fixed.writeUInt16BE(id.length, 12);
    fixed.writeUInt16BE(name.length, 14);
    fixed.writeUInt32BE(snapshot.seconds ?? 1_700_000_000 + i, 16);
    fixed.writeUInt32BE(snapshot.nanoseconds ?? 0, 20);
    fixed.writeUInt32BE(snapshot.stateBytes ?? 0, 32);
    fixed.writeUInt32BE(snapshot.extra ?? 24, 36);
    const entry = Buffer.concat([fixed, extra.subarray(0, snapshot.extra ?? 24), id, name]);
    return Buffer.concat([entry, Buffer.alloc((8 - (entry.length % 8)) % 8)]);
  });
  return Buffer.concat(entries);
}

function setRefcount(block: Buffer, index: number, order: number, count: number): void {
  if (order < 3) {
    const bit = index * 2 ** order;
    block[bit >>> 3]! |= count << (bit & 7);
  } else {
    const bytes = 2 ** (order - 3);
    if (bytes === 8) block.writeBigUInt64BE(BigInt(count), index * 8);
    else block.writeUIntBE(count, index * bytes, bytes);
  }
}

interface Places {
  readonly version: 2 | 3;
  readonly bits: number;
  readonly order: number;
  readonly l1: number;
  readonly l1Size: number;
  readonly refcountTable: number;
  readonly snapshots: number;
}

function writeHeader(bytes: Buffer, options: Qcow2Options, places: Places): void {
  bytes.write('QFI\xfb', 0, 'latin1');
  bytes.writeUInt32BE(places.version, 4);
  bytes.writeUInt32BE(places.bits, 20);
  bytes.writeBigUInt64BE(BigInt(options.size), 24);
  bytes.writeUInt32BE(places.l1Size, 36);
  bytes.writeBigUInt64BE(BigInt(places.l1), 40);
  bytes.writeBigUInt64BE(BigInt(places.refcountTable), 48);
  bytes.writeUInt32BE(1, 56);
  bytes.writeUInt32BE(options.snapshots?.length ?? 0, 60);
  bytes.writeBigUInt64BE(BigInt(places.snapshots), 64);
  let at = 72;
  if (places.version === 3) {
    const incompatible =
      (options.incompatible ?? 0n) |
      (options.dataFile === undefined ? 0n : 4n) |
      (options.zstd ? 8n : 0n) |
      (options.extendedL2 ? 16n : 0n);
    bytes.writeBigUInt64BE(incompatible, 72);
    bytes.writeBigUInt64BE(options.compatible ?? 0n, 80);
    bytes.writeBigUInt64BE((options.autoclear ?? 0n) | (options.dataFile?.raw ? 2n : 0n), 88);
    bytes.writeUInt32BE(places.order, 96);
    at = options.headerLength ?? 112;
    bytes.writeUInt32BE(at, 100);
    if (options.zstd) bytes.writeUInt8(1, 104);
  }
  const extensions = [...(options.extensions ?? [])];
  if (options.backing?.format !== undefined) {
    extensions.push({ type: 0xe2792aca, data: Buffer.from(options.backing.format) });
  }
  if (options.dataFile?.name !== undefined) {
    extensions.push({ type: 0x44415441, data: Buffer.from(options.dataFile.name) });
  }
  for (const { type, data } of extensions) {
    bytes.writeUInt32BE(type, at);
    bytes.writeUInt32BE(data.length, at + 4);
    data.copy(bytes, at + 8);
    at += 8 + Math.ceil(data.length / 8) * 8;
  }
  at += 8;
  if (options.backing !== undefined) {
    bytes.writeBigUInt64BE(BigInt(at), 8);
    bytes.writeUInt32BE(Buffer.byteLength(options.backing.name), 16);
    bytes.write(options.backing.name, at);
  }
}

/** The disk that a state is, with zeros where it has no answer. */
export function modelOf(state: State, clusterBits = 16): Buffer {
  const size = 2 ** clusterBits;
  const disk = Buffer.alloc(Math.max(state.size, 0));
  for (const [cluster, content] of state.clusters) {
    const at = cluster * size;
    if (content === 'zero' || content === 'zero-allocated') continue;
    if (Buffer.isBuffer(content)) content.copy(disk, at);
    else if ('packed' in content) content.packed.copy(disk, at);
    else {
      content.forEach((sub, i) => {
        if (Buffer.isBuffer(sub)) sub.copy(disk, at + (i * size) / 32);
      });
    }
  }
  return disk;
}

/** Bytes that differ from place to place and compress to about a half. */
export function pattern(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = (seed + 1) * 2654435761;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = (i >>> 3) % 2 === 0 ? 0x30 + ((seed + i) % 10) : state >>> 24;
  }
  return bytes;
}

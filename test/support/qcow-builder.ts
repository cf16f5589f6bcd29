/** Writes QCOW images of version 1 after QEMU's block/qcow.c. QEMU reads what it writes: test/peers/qcow.test.ts. */
import { deflateRawSync } from 'node:zlib';

export interface QcowOptions {
  /** Bytes of the disk. */
  readonly size: number;
  readonly clusterBits?: number;
  readonly l2Bits?: number;
  /** By guest cluster. */
  readonly clusters: ReadonlyMap<number, Buffer | { readonly packed: Buffer }>;
  readonly backing?: string;
  readonly modified?: number;
  readonly crypt?: number;
}

export interface BuiltQcow {
  readonly bytes: Buffer;
  readonly at: { readonly l1: number; readonly l2: ReadonlyMap<number, number> };
}

export function buildQcow(options: QcowOptions): BuiltQcow {
  const bits = options.clusterBits ?? 12;
  const l2Bits = options.l2Bits ?? 9;
  const size = 2 ** bits;
  const perTable = 2 ** l2Bits;
  const backing = Buffer.from(options.backing ?? '');
  const l1At = Math.ceil((48 + backing.length) / 8) * 8;
  const l1 = Buffer.alloc(Math.ceil(options.size / (perTable * size)) * 8);
  const chunks: { at: number; bytes: Buffer }[] = [];
  let end = l1At + l1.length;
  const place = (bytes: Buffer, aligned: boolean): number => {
    const at = aligned ? Math.ceil(end / size) * size : end;
    chunks.push({ at, bytes });
    end = at + bytes.length;
    return at;
  };
  const l2 = new Map<number, number>();
  const tables = new Map<number, Buffer>();
  for (const [cluster, content] of options.clusters) {
    const index = Math.floor(cluster / perTable);
    let table = tables.get(index);
    if (table === undefined) {
      table = Buffer.alloc(perTable * 8);
      tables.set(index, table);
      const at = place(table, true);
      l2.set(index, at);
      l1.writeBigUInt64BE(BigInt(at), index * 8);
    }
    let entry: bigint;
    if (Buffer.isBuffer(content)) {
      entry = BigInt(place(content, true));
    } else {
      const stored = deflateRawSync(content.packed, { windowBits: 12, level: 6 });
      entry = (1n << 63n) | (BigInt(stored.length) << BigInt(63 - bits)) | BigInt(place(stored, false));
    }
    table.writeBigUInt64BE(entry, (cluster % perTable) * 8);
  }
  const bytes = Buffer.alloc(end);
  for (const { at, bytes: chunk } of chunks) chunk.copy(bytes, at);
  l1.copy(bytes, l1At);
  bytes.write('QFI\xfb', 0, 'latin1');
  bytes.writeUInt32BE(1, 4);
  if (options.backing !== undefined) {
    bytes.writeBigUInt64BE(48n, 8);
    bytes.writeUInt32BE(backing.length, 16);
    backing.copy(bytes, 48);
  }
  bytes.writeUInt32BE(options.modified ?? 0, 20);
  bytes.writeBigUInt64BE(BigInt(options.size), 24);
  bytes.writeUInt8(bits, 32);
  bytes.writeUInt8(l2Bits, 33);
  bytes.writeUInt32BE(options.crypt ?? 0, 36);
  bytes.writeBigUInt64BE(BigInt(l1At), 40);
  return { bytes, at: { l1: l1At, l2 } };
}

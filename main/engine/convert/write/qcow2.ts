/**
 * QCOW2 version 3 as it is written: no backing file, no snapshots, refcounts of 16 bits, clusters of 64 KiB.
 * QEMU, docs/interop/qcow2.txt.
 *
 * Header, L1 table, then clusters of data and L2 tables in the order in which they were needed, then refcount blocks and the
 * refcount table: only at the end is it known how many there are.
 */
import type { FileHandle } from 'node:fs/promises';
import type { Layout, Plan } from '../plan.ts';
import { put, Structure, setLength } from './put.ts';

const CLUSTER_BITS = 16;
export const CLUSTER_BYTES = 1 << CLUSTER_BITS;
/** L2 entries are 64 bits, and a table is one cluster. */
export const ENTRIES_PER_L2 = CLUSTER_BYTES / 8;
/** Bit 63 of L1 and L2 entries: the cluster's refcount is exactly one. In the upper half of the entry. */
export const COPIED_HIGH = 0x8000_0000;
const REFCOUNT_ORDER = 4;
const REFCOUNTS_PER_BLOCK = CLUSTER_BYTES / 2;
const HEADER_BYTES = 104;

export function planQcow2(imageSize: number): { unit: number; layout: Extract<Layout, { kind: 'clusters' }> } {
  const l1Entries = Math.ceil(imageSize / (CLUSTER_BYTES * ENTRIES_PER_L2));
  const l1 = CLUSTER_BYTES;
  return {
    unit: CLUSTER_BYTES,
    layout: {
      kind: 'clusters',
      l1,
      l1Entries,
      dataStart: l1 + Math.ceil((l1Entries * 8) / CLUSTER_BYTES) * CLUSTER_BYTES,
    },
  };
}

/** Places that were handed out and hold nothing: `count` from `start`. */
export interface Gap {
  readonly start: number;
  readonly count: number;
}

/** One entry of an L1 or L2 table that points at the cluster at `position`. */
export function putEntry(bytes: Buffer, at: number, position: number): void {
  bytes.writeUInt32BE(Math.floor(position / 2 ** 32) + COPIED_HIGH, at);
  bytes.writeUInt32BE(position % 2 ** 32, at + 4);
}

/**
 * Writes L1 table, refcounts and header of an image whose clusters and L2 tables are written.
 * @param l1 place of each L2 table plus one, 0 for none. @param places handed out. @param gaps those that hold nothing.
 * @throws IoError.
 */
export async function finishQcow2(
  handle: FileHandle,
  name: string,
  plan: Plan,
  layout: Extract<Layout, { kind: 'clusters' }>,
  l1: Int32Array,
  places: number,
  gaps: readonly Gap[],
): Promise<void> {
  const used = layout.dataStart / CLUSTER_BYTES + places;
  // Blocks count themselves and the table, which grows with them.
  let blocks = 0;
  let tableClusters = 0;
  for (;;) {
    const total = used + blocks + tableClusters;
    const wanted = Math.ceil(total / REFCOUNTS_PER_BLOCK);
    const table = Math.ceil((wanted * 8) / CLUSTER_BYTES);
    if (wanted === blocks && table === tableClusters) break;
    blocks = wanted;
    tableClusters = table;
  }
  const total = used + blocks + tableClusters;
  await setLength(handle, name, total * CLUSTER_BYTES);

  const ordered = [...gaps].sort((a, b) => a.start - b.start);
  const base = layout.dataStart / CLUSTER_BYTES;
  const block = Buffer.alloc(CLUSTER_BYTES);
  const table = new Structure(tableClusters * CLUSTER_BYTES);
  let next = 0;
  for (let index = 0; index < blocks; index++) {
    const first = index * REFCOUNTS_PER_BLOCK;
    const end = first + REFCOUNTS_PER_BLOCK;
    block.fill(0);
    for (let i = 0; i < Math.min(REFCOUNTS_PER_BLOCK, total - first); i++) block[i * 2 + 1] = 1;
    while (next < ordered.length && base + ordered[next]!.start + ordered[next]!.count <= first) next++;
    for (let at = next; at < ordered.length && base + ordered[at]!.start < end; at++) {
      const from = Math.max(first, base + ordered[at]!.start);
      const to = Math.min(end, base + ordered[at]!.start + ordered[at]!.count);
      block.fill(0, (from - first) * 2, (to - first) * 2);
    }
    const position = (used + index) * CLUSTER_BYTES;
    await put(handle, name, block, position);
    table.u64be(index * 8, position);
  }
  const tableAt = (used + blocks) * CLUSTER_BYTES;
  await put(handle, name, table.bytes, tableAt);

  const entries = Buffer.alloc(layout.dataStart - layout.l1);
  for (const [i, place] of l1.entries()) {
    if (place !== 0) putEntry(entries, i * 8, layout.dataStart + (place - 1) * CLUSTER_BYTES);
  }
  await put(handle, name, entries, layout.l1);
  await put(handle, name, header(plan, layout, tableAt, tableClusters), 0);
}

function header(plan: Plan, layout: Extract<Layout, { kind: 'clusters' }>, table: number, clusters: number): Buffer {
  // One cluster: what follows the header is the end mark of its extensions, which is all zeros.
  return new Structure(CLUSTER_BYTES)
    .put(0, Buffer.from('QFI\xfb', 'latin1'))
    .u32be(4, 3)
    .u32be(20, CLUSTER_BITS)
    .u64be(24, plan.imageSize)
    .u32be(36, layout.l1Entries)
    .u64be(40, layout.l1)
    .u64be(48, table)
    .u32be(56, clusters)
    .u32be(96, REFCOUNT_ORDER)
    .u32be(100, HEADER_BYTES).bytes;
}

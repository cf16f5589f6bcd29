/**
 * Compares the refcounts that a QCOW2 image stores with those that its tables make. Too high is a leak: room that nothing uses.
 * Too low is damage: the next writer takes a cluster that is in use. Neither changes what is read.
 */
import { Fields } from '../../binary.ts';
import { CorruptError, throwIfCancelled } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type FindingLimit, findingOf, readOr } from '../findings.ts';
import type { Finding } from '../image.ts';
import { type ClusterCounts, MANY } from './cluster-counts.ts';
import { type Qcow2Header, tableProblem } from './header.ts';
import * as layout from './layout.ts';

const TABLE = 'QCOW2 refcount table entry';
const BLOCK = 'refcount block';
/** Refcount table entries read at a time. */
const BATCH = 4096;

export interface RefcountCheck {
  readonly file: ByteSource;
  readonly header: Qcow2Header;
  readonly counts: ClusterCounts;
  readonly limit: FindingLimit;
  readonly signal: AbortSignal | undefined;
}

/** The error for a refcount table whose place can't be true; undefined for one that can be read. */
export function refcountTableError(file: ByteSource, header: Qcow2Header): CorruptError | undefined {
  const { refcountTableOffset: start, refcountTableClusters: clusters, clusterSize } = header;
  const bytes = clusters * clusterSize;
  const fail = (field: 'refcount_table_clusters' | 'refcount_table_offset', expected: string, found: string | number) =>
    new CorruptError(`QCOW2 header ${field}`, {
      source: file.name,
      position: layout.HeaderOffsets[field],
      expected,
      found,
    });
  if (clusters === 0 || bytes > layout.MAX_REFCOUNT_TABLE_BYTES) {
    return fail('refcount_table_clusters', `1 to ${layout.MAX_REFCOUNT_TABLE_BYTES / clusterSize}`, clusters);
  }
  // A small file may end inside the table's last cluster.
  const problem = tableProblem(start, Math.min(bytes, Math.max(8, file.size - start)), clusterSize, file.size);
  return problem === undefined ? undefined : fail('refcount_table_offset', problem, `byte ${start}`);
}

/** First pass: the table itself, and the clusters that it and its blocks take. */
export async function* surveyRefcounts(check: RefcountCheck): AsyncGenerator<Finding> {
  const { header, counts, limit } = check;
  const { clusterSize, refcountTableOffset, refcountTableClusters } = header;
  for (let i = 0; i < refcountTableClusters; i++) {
    const cluster = refcountTableOffset / clusterSize + i;
    const before = counts.mark(cluster, 'refcount table');
    counts.add(cluster, 1);
    if (before !== undefined) {
      const error = new CorruptError('QCOW2 refcount table', {
        source: check.file.name,
        position: cluster * clusterSize,
        expected: 'clusters that nothing else uses',
        found: `one of the ${before}`,
      });
      yield* limit.tell(findingOf(error, 'metadata-overlap'));
    }
  }
  for await (const step of tableEntries(check)) {
    if (!('fields' in step)) {
      yield* limit.tell(step);
      continue;
    }
    const { fields, at, position } = step;
    const problem = blockProblem(check, fields, at, position);
    if (problem !== undefined) {
      yield* limit.tell(findingOf(fields.corrupt('', at, problem, entryText(fields, at)), 'refcount-table-entry'));
      continue;
    }
    const cluster = position / clusterSize;
    const before = counts.mark(cluster, BLOCK);
    counts.add(cluster, 1);
    if (before !== undefined) {
      const found = `byte ${position}, which is in the ${before}`;
      const error = fields.corrupt('', at, 'a cluster that nothing else uses', found);
      yield* limit.tell(findingOf(error, 'metadata-overlap'));
    }
  }
}

interface TableStep {
  readonly fields: Fields;
  readonly at: number;
  readonly index: number;
  readonly position: number;
}

/** The entries of the refcount table that are not 0. */
async function* tableEntries(check: RefcountCheck): AsyncGenerator<TableStep | Finding> {
  const { file, header, signal } = check;
  const start = header.refcountTableOffset;
  const whole = Math.min(header.refcountTableClusters * header.clusterSize, file.size - start);
  const entries = Math.floor(whole / 8);
  for (let first = 0; first < entries; first += BATCH) {
    throwIfCancelled(signal, 'The check');
    const position = start + first * 8;
    const bytes = await readOr(file, position, Math.min(BATCH, entries - first) * 8);
    if (!(bytes instanceof Uint8Array)) {
      yield bytes;
      continue;
    }
    const fields = new Fields(bytes, TABLE, file.name, position);
    for (let at = 0; at < bytes.length; at += 8) {
      const high = fields.u32be(at);
      const low = fields.u32be(at + 4);
      if (high === 0 && low === 0) continue;
      // Bits 9 to 63 are the offset here. Above 2^53 it is inexact, and beyond the end of any file.
      yield { fields, at, index: first + at / 8, position: high * 0x1_0000_0000 + ((low & layout.OFFSET_LOW) >>> 0) };
    }
  }
}

function entryText(fields: Fields, at: number): string {
  return layout.hex64(fields.u32be(at), fields.u32be(at + 4));
}

function blockProblem(check: RefcountCheck, fields: Fields, at: number, position: number): string | undefined {
  const { clusterSize } = check.header;
  if ((fields.u32be(at + 4) & layout.L1_RESERVED_LOW) !== 0) return 'reserved bits 0-8 of 0';
  return tableProblem(position, 1, clusterSize, check.file.size);
}

/** Last pass: each stored refcount against the uses that were counted. */
export async function* compareRefcounts(check: RefcountCheck): AsyncGenerator<Finding> {
  const { file, header, counts, limit, signal } = check;
  const perBlock = (header.clusterSize * 8) / 2 ** header.refcountOrder;
  const clusters = Math.ceil(file.size / header.clusterSize);
  const totals = new Leaks();
  const walked = new Set<number>();
  /** Clusters before this one have been compared. */
  let compared = 0;
  for await (const step of tableEntries(check)) {
    if (!('fields' in step)) continue;
    const { fields, at, index, position } = step;
    if (blockProblem(check, fields, at, position) !== undefined || walked.has(position)) continue;
    walked.add(position);
    throwIfCancelled(signal, 'The check');
    const first = index * perBlock;
    yield* missingBlocks(check, compared, first);
    compared = first + perBlock;
    const block = await readOr(file, position, Math.min(header.clusterSize, file.size - position));
    if (!(block instanceof Uint8Array)) {
      yield* limit.tell(block);
      continue;
    }
    const stored = new Fields(block, `QCOW2 ${BLOCK}`, file.name, position);
    const present = Math.min(perBlock, Math.floor((block.length * 8) / 2 ** header.refcountOrder));
    for (let i = 0; i < present; i++) {
      const cluster = first + i;
      const refcount = refcountAt(stored, i, header.refcountOrder);
      const uses = counts.count(cluster);
      if (refcount === uses || cluster >= counts.uncounted) continue;
      if (refcount > uses) {
        // A count that stands at its end may be higher.
        if (uses < MANY) totals.add(cluster, cluster < clusters);
      } else {
        yield* limit.tell(tooLow(check, cluster, refcount, uses));
      }
    }
  }
  yield* missingBlocks(check, compared, clusters);
  yield* totals.findings(check);
}

/** Clusters in use that no refcount block covers: their refcount is 0. */
function* missingBlocks(check: RefcountCheck, first: number, end: number): Generator<Finding> {
  for (const cluster of check.counts.used(first, end)) {
    yield* check.limit.tell(tooLow(check, cluster, 0, check.counts.count(cluster)));
  }
}

function tooLow(check: RefcountCheck, cluster: number, stored: number, uses: number): Finding {
  const { file, header } = check;
  const position = cluster * header.clusterSize;
  return {
    // Refcounts are written late on purpose, and a file that was not closed says so.
    severity: header.dirty ? 'note' : 'damaged',
    code: 'refcount-too-low',
    message: `The cluster at byte ${position} of ${file.name} is in use ${uses} times, and its refcount is ${stored}`,
    source: file.name,
    structure: 'QCOW2 refcount',
    position,
    expected: uses,
    found: stored,
    remedy:
      'It reads right. Before a machine is started from it, repair a copy with "qemu-img check -r all": the next write could go over data.',
  };
}

/** The stored refcount number `index` of a block whose entries are 2^order bits wide. */
function refcountAt(block: Fields, index: number, order: number): number {
  switch (order) {
    case 3:
      return block.u8(index);
    case 4:
      return block.u16be(index * 2);
    case 5:
      return block.u32be(index * 4);
    case 6:
      return block.u32be(index * 8) * 0x1_0000_0000 + block.u32be(index * 8 + 4);
    default: {
      const bits = 2 ** order;
      const bit = index * bits;
      return (block.u8(bit >>> 3) >>> (bit & 7)) & (2 ** bits - 1);
    }
  }
}

class Leaks {
  #clusters = 0;
  #behind = 0;
  #first = 0;

  add(cluster: number, inFile: boolean): void {
    if (this.#clusters + this.#behind === 0) this.#first = cluster;
    if (inFile) this.#clusters++;
    else this.#behind++;
  }

  *findings({ file, header }: RefcountCheck): Generator<Finding> {
    if (this.#clusters + this.#behind === 0) return;
    const bytes = this.#clusters * header.clusterSize;
    const behind = this.#behind === 0 ? '' : `, and ${this.#behind} behind the end of the file`;
    yield {
      severity: 'note',
      code: 'refcount-leak',
      message: `${this.#clusters} clusters of ${file.name} (${bytes} bytes) are counted as used more often than they are${behind}; they only take room`,
      source: file.name,
      structure: 'QCOW2 refcount',
      position: this.#first * header.clusterSize,
      found: this.#clusters + this.#behind,
    };
  }
}

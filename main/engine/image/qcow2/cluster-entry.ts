/**
 * What one L2 entry says: absent, zeros, data, a compressed cluster, or (extended entries) a mixture by subcluster. One object is
 * filled again for each entry, so that a walk over millions of them makes no garbage.
 */
import type { Fields } from '../../binary.ts';
import * as layout from './layout.ts';

export type EntryKind = 'absent' | 'zero' | 'data' | 'compressed' | 'mixed';

export interface EntryFormat {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly clusterSize: number;
  readonly extendedL2: boolean;
  readonly externalData: boolean;
}

export class ClusterEntry {
  kind: EntryKind = 'absent';
  /** Place of the cluster, 0 where it has none (or, in an external data file, that is its place); of compressed data, its first byte. */
  position = 0;
  /** Has a host cluster: data, or one kept for zeros. */
  allocated = false;
  /** Bytes of compressed data, at most. */
  stored = 0;
  /** Bit 63: nobody else uses the cluster. */
  copied = false;
  /** For `mixed`: bit n for subcluster n. */
  dataBits = 0;
  zeroBits = 0;
  /** What is expected of the entry and does not hold. */
  problem: string | undefined;
  high = 0;
  low = 0;
  readonly #format: EntryFormat;
  readonly #offsetBits: number;

  constructor(format: EntryFormat) {
    this.#format = format;
    // x of the specification's "Compressed Clusters Descriptor": the offset takes bits 0 to x-1.
    this.#offsetBits = 70 - format.clusterBits;
  }

  /** Bytes of an entry. */
  get bytes(): number {
    return this.#format.extendedL2 ? 16 : 8;
  }

  /** Takes the entry at byte `at` of a table. `cluster` is the guest cluster's number, which an external data file is laid out by. */
  read(fields: Fields, at: number, cluster: number): void {
    const { extendedL2, clusterSize, externalData, version } = this.#format;
    const high = fields.u32be(at);
    const low = fields.u32be(at + 4);
    this.high = high;
    this.low = low;
    this.problem = undefined;
    this.copied = (high & layout.COPIED_HIGH) !== 0;
    if ((high & layout.COMPRESSED_HIGH) !== 0) {
      this.#compressed(high, low);
      if (extendedL2 && (fields.u32be(at + 8) !== 0 || fields.u32be(at + 12) !== 0)) {
        this.problem = 'no subclusters for compressed data';
      }
      return;
    }
    const position = layout.offsetOf(high, low);
    this.position = position;
    this.stored = 0;
    // An external data file has a place 0, which is told by bit 63.
    this.allocated = position !== 0 || (externalData && this.copied);
    if ((high & layout.L2_RESERVED_HIGH) !== 0 || (low & layout.L2_RESERVED_LOW) !== 0) {
      this.problem = 'reserved bits 1-8 and 56-61 of 0';
    } else if ((low & (clusterSize - 1) & ~0x1ff) !== 0) {
      this.problem = `an offset that is a multiple of ${clusterSize}`;
    } else if (!this.allocated && this.copied) {
      this.problem = 'an offset behind bit 63';
    } else if (this.allocated && externalData && position !== cluster * clusterSize) {
      this.problem = `the offset ${cluster * clusterSize}, as on the disk`;
    }
    if (extendedL2) {
      this.#subclusters(fields.u32be(at + 12), fields.u32be(at + 8), low);
    } else if ((low & layout.ZERO_LOW) === 0) {
      this.kind = this.allocated ? 'data' : 'absent';
    } else {
      this.kind = 'zero';
      if (version === 2) this.problem = 'no zero cluster (bit 0) in version 2';
    }
  }

  #compressed(high: number, low: number): void {
    const highBits = this.#offsetBits - 32;
    this.kind = 'compressed';
    this.allocated = true;
    this.position = (high & (2 ** highBits - 1)) * 0x1_0000_0000 + low;
    const sectors = ((high >>> highBits) & (2 ** (62 - this.#offsetBits) - 1)) + 1;
    this.stored = sectors * layout.SECTOR - (low & (layout.SECTOR - 1));
    if (this.#format.externalData) this.problem = 'no compressed cluster beside an external data file';
  }

  #subclusters(data: number, zeros: number, low: number): void {
    this.dataBits = data;
    this.zeroBits = zeros;
    if ((low & layout.ZERO_LOW) !== 0) this.problem = 'bit 0 clear in an extended entry';
    else if ((data & zeros) !== 0) this.problem = 'subclusters that are either allocated or zeros';
    else if (data !== 0 && !this.allocated) this.problem = 'an offset for allocated subclusters';
    if (data === 0 && zeros === 0) this.kind = 'absent';
    else if (data === 0xffff_ffff) this.kind = 'data';
    else if (zeros === 0xffff_ffff) this.kind = 'zero';
    else this.kind = 'mixed';
  }

  /** Whether subcluster `n` of a mixed entry is data, zeros or absent. */
  subcluster(n: number): 'data' | 'zero' | 'absent' {
    const bit = 1 << n;
    if ((this.dataBits & bit) !== 0) return 'data';
    return (this.zeroBits & bit) !== 0 ? 'zero' : 'absent';
  }
}

/**
 * XenServer's batmap: a bit for every block of which all sectors are there, so that its bitmap need not be read (blktap,
 * `vhd/lib/libvhd.c`). It is believed only when its checksum holds; without it the bitmaps say the same.
 */
import type { Fields } from '../../binary.ts';
import type { ByteSource } from '../../storage/byte-source.ts';
import { type Io, readBytes } from '../../storage/io.ts';
import * as layout from './layout.ts';
import { type BatmapHeader, SECTOR } from './layout.ts';

/** For 16 TiB in blocks of 2 MiB; what is larger is not read, and bitmaps are. */
const MAX_BATMAP_BYTES = 1 << 20;

/** Why a batmap can't be used, for `check`; undefined when it can. */
export function batmapFault(
  header: BatmapHeader,
  fields: Fields,
  blocks: number,
  dataEnd: number,
): { readonly field: string; readonly at: number; readonly expected: string; readonly found: string } | undefined {
  const at = layout.BatmapOffsets;
  if (header.version > layout.BATMAP_VERSION_MAX || header.version >>> 16 !== layout.MAJOR_VERSION) {
    const expected = `1.1 to ${layout.versionText(layout.BATMAP_VERSION_MAX)}`;
    return { field: 'version', at: at.version, expected, found: layout.versionText(header.version) };
  }
  if (header.sectors * SECTOR * 8 < blocks) {
    return {
      field: 'size',
      at: at.sectors,
      expected: `a bit for ${blocks} blocks`,
      found: `${header.sectors} sectors`,
    };
  }
  const end = header.offset + header.sectors * SECTOR;
  if (header.offset < fields.position + layout.BATMAP_HEADER_BYTES || end > dataEnd) {
    const expected = `a map of ${header.sectors} sectors behind its header, within ${dataEnd} bytes`;
    return { field: 'offset', at: at.offset, expected, found: `one from byte ${header.offset}` };
  }
  return undefined;
}

/**
 * Whether the map has its checksum. Over which sectors it goes differs: those in use for the size of the disk (in blocks of 2 MiB,
 * as tapdisk has them) or all; version 1.1 summed signed bytes, but not everywhere.
 */
export function batmapChecksumHolds(header: BatmapHeader, map: Uint8Array, size: number): boolean {
  const inUse = Math.min(map.length, layout.paddedBytes(Math.floor(size / 2 ** 24)));
  for (const length of new Set([map.length, inUse])) {
    let sum = 0;
    let signed = 0;
    for (let i = 0; i < length; i++) {
      const byte = map[i]!;
      sum += byte;
      signed += byte < 0x80 ? byte : byte - 0x100;
    }
    if (~sum >>> 0 === header.checksum) return true;
    if (header.version === layout.BATMAP_VERSION_SIGNED && ~signed >>> 0 === header.checksum) return true;
  }
  return false;
}

export class Batmap {
  readonly header: BatmapHeader;
  readonly fields: Fields;
  readonly #file: ByteSource;
  readonly #blocks: number;
  readonly #size: number;
  readonly #dataEnd: number;
  /** Undefined before it was read, null when it can't be used. */
  #map: Uint8Array | null | undefined;

  constructor(
    file: ByteSource,
    batmap: { readonly header: BatmapHeader; readonly fields: Fields },
    disk: { readonly blocks: number; readonly size: number; readonly dataEnd: number },
  ) {
    this.#file = file;
    this.header = batmap.header;
    this.fields = batmap.fields;
    this.#blocks = disk.blocks;
    this.#size = disk.size;
    this.#dataEnd = disk.dataEnd;
  }

  /** Why it can't be used, as far as its header shows. */
  get fault(): ReturnType<typeof batmapFault> {
    return batmapFault(this.header, this.fields, this.#blocks, this.#dataEnd);
  }

  /** The map, or null where it can't be used. Read once. @throws IoError. */
  *map(): Io<Uint8Array | null> {
    if (this.#map !== undefined) return this.#map;
    const length = this.header.sectors * SECTOR;
    if (this.fault !== undefined || length > MAX_BATMAP_BYTES) {
      this.#map = null;
      return null;
    }
    const bytes = yield* readBytes(this.#file, this.header.offset, length);
    this.#map = batmapChecksumHolds(this.header, bytes, this.#size) ? bytes : null;
    return this.#map;
  }

  /** Whether the map is small enough to be read at all. */
  get readable(): boolean {
    return this.header.sectors * SECTOR <= MAX_BATMAP_BYTES;
  }
}

/** Whether the bit of block number `block` is set; the first block has the highest bit of the first byte. */
export function batmapBit(map: Uint8Array, block: number): boolean {
  return (map[Math.floor(block / 8)]! & (0x80 >> (block % 8))) !== 0;
}

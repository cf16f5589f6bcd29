/**
 * Decompressed units of a disk, kept for the next read: a guest's 4 KiB reads meet the same 64 KiB cluster sixteen times. The
 * cache has a ceiling in bytes, and a unit that two readers want at once is decompressed once.
 */
import { CorruptError } from '../errors.ts';
import type { Codec } from '../image/image.ts';
import type { ByteSource } from '../storage/byte-source.ts';
import { runAsync, runSync } from '../storage/io.ts';

/** Default ceiling of a disk's unit cache, in bytes. */
export const UNIT_CACHE_BYTES = 32 << 20;

/** Where a unit is stored, and how it is read. */
export interface UnitPlace {
  readonly source: ByteSource;
  readonly codec: Codec;
  readonly position: number;
  readonly stored: number;
  /** First byte of the unit on the virtual disk. */
  readonly offset: number;
}

interface Unit {
  readonly bytes: Uint8Array;
  used: number;
}

export class UnitCache {
  readonly #ceiling: number;
  /** By codec, which is one per layer, then by the unit's first byte on the disk. */
  readonly #units = new Map<Codec, Map<number, Unit>>();
  readonly #arriving = new Map<Codec, Map<number, Promise<Uint8Array>>>();
  #held = 0;
  #tick = 0;

  constructor(ceiling: number) {
    this.#ceiling = ceiling;
  }

  /** Bytes held now. */
  get held(): number {
    return this.#held;
  }

  #known(place: UnitPlace): Uint8Array | undefined {
    const unit = this.#units.get(place.codec)?.get(place.offset);
    if (unit === undefined) return undefined;
    unit.used = ++this.#tick;
    return unit.bytes;
  }

  #keep(place: UnitPlace, bytes: Uint8Array): Uint8Array {
    if (bytes.length !== place.codec.unit) {
      throw new CorruptError('Compressed unit', {
        source: place.source.name,
        position: place.position,
        expected: `${place.codec.unit} bytes`,
        found: `${bytes.length} bytes`,
      });
    }
    let units = this.#units.get(place.codec);
    if (units === undefined) {
      units = new Map();
      this.#units.set(place.codec, units);
    }
    if (!units.has(place.offset)) this.#held += bytes.length;
    units.set(place.offset, { bytes, used: ++this.#tick });
    if (this.#held > this.#ceiling) this.#evict();
    return bytes;
  }

  /** Drops what was used longest ago until a quarter of the ceiling is free: seldom, so that a hit costs one store. */
  #evict(): void {
    const byAge = [...this.#units.values()].flatMap((units) =>
      [...units].map(([offset, unit]) => ({ units, offset, unit })),
    );
    byAge.sort((a, b) => a.unit.used - b.unit.used);
    // The one used last stays, however large: somebody is about to read it.
    for (const { units, offset, unit } of byAge.slice(0, -1)) {
      if (this.#held <= this.#ceiling * 0.75) break;
      units.delete(offset);
      this.#held -= unit.bytes.length;
    }
  }

  /** The unit's bytes, which stay the cache's: read, never written. @throws CorruptError, IoError. */
  getSync(place: UnitPlace): Uint8Array {
    const known = this.#known(place);
    if (known !== undefined) return known;
    return this.#keep(place, runSync(place.codec.unpack(place.source, place.position, place.stored, place.offset)));
  }

  /** As `getSync`, with asynchronous reads, and off this thread where the codec can. */
  async get(place: UnitPlace): Promise<Uint8Array> {
    const known = this.#known(place);
    if (known !== undefined) return known;
    let arriving = this.#arriving.get(place.codec);
    if (arriving === undefined) {
      arriving = new Map();
      this.#arriving.set(place.codec, arriving);
    }
    let unit = arriving.get(place.offset);
    if (unit === undefined) {
      unit = this.#fetch(place).finally(() => arriving.delete(place.offset));
      arriving.set(place.offset, unit);
    }
    return unit;
  }

  async #fetch(place: UnitPlace): Promise<Uint8Array> {
    const { source, codec, position, stored, offset } = place;
    const bytes =
      codec.unpackAsync === undefined
        ? await runAsync(codec.unpack(source, position, stored, offset))
        : await codec.unpackAsync(source, position, stored, offset);
    return this.#keep(place, bytes);
  }

  clear(): void {
    this.#units.clear();
    this.#held = 0;
  }
}

/**
 * What a tar holds and where. Ordinary members are few and kept as objects; the chunks of a XenServer export are many (a million for
 * a disk of 1 TiB) and kept as columns of numbers, 29 bytes each.
 */
import type { ArchiveFinding, ArchiveMember, ChunkChecksum, Chunks } from './archive.ts';

const CHUNK_NAME = /^(.+)\/(\d{8,10})(?:\.(checksum|xxhash))?$/;
const KINDS = [undefined, 'checksum', 'xxhash'] as const;

/** The columns of a folder of chunks, as they are stored. Arrays may be longer than `count`. */
export interface ChunkColumns {
  numbers: Uint32Array;
  sizes: Uint32Array;
  positions: Float64Array;
  sumPositions: Float64Array;
  sumSizes: Uint32Array;
  sumKinds: Uint8Array;
}

export class ChunkList implements Chunks {
  readonly name: string;
  readonly digits: number;
  count = 0;
  columns: ChunkColumns = {
    numbers: new Uint32Array(64),
    sizes: new Uint32Array(64),
    positions: new Float64Array(64),
    sumPositions: new Float64Array(64),
    sumSizes: new Uint32Array(64),
    sumKinds: new Uint8Array(64),
  };

  constructor(name: string, digits: number) {
    this.name = name;
    this.digits = digits;
  }

  number(index: number): number {
    return this.columns.numbers[index]!;
  }
  position(index: number): number {
    return this.columns.positions[index]!;
  }
  size(index: number): number {
    return this.columns.sizes[index]!;
  }
  checksum(index: number): ChunkChecksum | undefined {
    const kind = KINDS[this.columns.sumKinds[index]!];
    if (kind === undefined) return undefined;
    return { kind, position: this.columns.sumPositions[index]!, size: this.columns.sumSizes[index]! };
  }

  /** The place of the chunk of this number; -1 when there is none. */
  find(number: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.columns.numbers[middle]! < number) low = middle + 1;
      else high = middle;
    }
    return low < this.count && this.columns.numbers[low] === number ? low : -1;
  }

  /** @returns false when it does not come after the ones before. */
  add(number: number, position: number, size: number): boolean {
    if (this.count > 0 && number <= this.columns.numbers[this.count - 1]!) return false;
    if (this.count === this.columns.numbers.length) this.#grow();
    this.columns.numbers[this.count] = number;
    this.columns.positions[this.count] = position;
    this.columns.sizes[this.count] = size;
    this.count++;
    return true;
  }

  /** @returns false when it is not the checksum of the last chunk, or a second one. */
  addChecksum(kind: 'checksum' | 'xxhash', number: number, position: number, size: number): boolean {
    const last = this.count - 1;
    if (last < 0 || this.columns.numbers[last] !== number || this.columns.sumKinds[last] !== 0) return false;
    this.columns.sumKinds[last] = KINDS.indexOf(kind);
    this.columns.sumPositions[last] = position;
    this.columns.sumSizes[last] = size;
    return true;
  }

  #grow(): void {
    const longer = <T extends Uint32Array | Float64Array | Uint8Array>(
      Column: { new (length: number): T },
      old: T,
    ): T => {
      const column = new Column(old.length * 2);
      column.set(old);
      return column;
    };
    this.columns = {
      numbers: longer(Uint32Array, this.columns.numbers),
      sizes: longer(Uint32Array, this.columns.sizes),
      positions: longer(Float64Array, this.columns.positions),
      sumPositions: longer(Float64Array, this.columns.sumPositions),
      sumSizes: longer(Uint32Array, this.columns.sumSizes),
      sumKinds: longer(Uint8Array, this.columns.sumKinds),
    };
  }

  /** Chunks and checksums. */
  get members(): number {
    let sums = 0;
    for (let i = 0; i < this.count; i++) if (this.columns.sumKinds[i] !== 0) sums++;
    return this.count + sums;
  }
}

/** What a name says, if it is that of a chunk or of a chunk's checksum. */
export function chunkName(
  name: string,
): { folder: string; number: number; digits: number; checksum: 'checksum' | 'xxhash' | undefined } | undefined {
  const match = CHUNK_NAME.exec(name);
  if (match === null) return undefined;
  const number = Number(match[2]);
  if (number > 0xffff_ffff) return undefined;
  return {
    folder: match[1]!,
    number,
    digits: match[2]!.length,
    checksum: match[3] as 'checksum' | 'xxhash' | undefined,
  };
}

export class TarIndex {
  /** By name, in the order of the archive. */
  readonly members = new Map<string, ArchiveMember>();
  readonly folders = new Map<string, ChunkList>();
  readonly findings: ArchiveFinding[] = [];

  /** Adds a member; of two with one name the last is meant, as tar takes it. @returns false for a second one. */
  add(member: ArchiveMember): boolean {
    if (member.kind === 'file' && this.#addChunk(member)) return true;
    const fresh = !this.members.delete(member.name);
    this.members.set(member.name, member);
    return fresh;
  }

  #addChunk({ name, position, size }: ArchiveMember): boolean {
    const chunk = chunkName(name);
    if (chunk === undefined || size > 0xffff_ffff) return false;
    let list = this.folders.get(chunk.folder);
    if (list === undefined) {
      if (chunk.checksum !== undefined) return false;
      list = new ChunkList(chunk.folder, chunk.digits);
      this.folders.set(chunk.folder, list);
    }
    if (chunk.digits !== list.digits) return false;
    return chunk.checksum === undefined
      ? list.add(chunk.number, position, size)
      : list.addChecksum(chunk.checksum, chunk.number, position, size);
  }

  /** A member by its name, chunks among them. */
  find(name: string): ArchiveMember | undefined {
    const member = this.members.get(name);
    if (member !== undefined) return member;
    const chunk = chunkName(name);
    const list = chunk === undefined ? undefined : this.folders.get(chunk.folder);
    if (chunk === undefined || list === undefined || chunk.digits !== list.digits) return undefined;
    const at = list.find(chunk.number);
    if (at < 0) return undefined;
    if (chunk.checksum === undefined) {
      return { name, kind: 'file', modified: 0, position: list.position(at), size: list.size(at) };
    }
    const sum = list.checksum(at);
    if (sum?.kind !== chunk.checksum) return undefined;
    return { name, kind: 'file', modified: 0, position: sum.position, size: sum.size };
  }

  get count(): number {
    let count = 0;
    for (const { kind } of this.members.values()) if (kind === 'file') count++;
    for (const list of this.folders.values()) count += list.members;
    return count;
  }
}

/** The content of a FAT file: its chain of clusters, cut at the size that the directory entry states. */
import { CorruptError } from '../../errors.ts';
import { type ByteSource, checkRange } from '../../storage/byte-source.ts';
import type { FileContent, FileRun } from '../file-system.ts';
import type { ClusterChain } from './cluster-chain.ts';

/** Pieces of a fragmented range that are read at once: a remote volume answers them together. */
const readsInFlight = 16;

export class FatContent implements FileContent {
  readonly name: string;
  readonly size: number;
  readonly #volume: ByteSource;
  readonly #clusterSize: number;
  readonly #chain: ClusterChain | undefined;

  /** @param chain undefined for an empty file. */
  constructor(volume: ByteSource, name: string, size: number, clusterSize: number, chain: ClusterChain | undefined) {
    this.name = name;
    this.size = size;
    this.#volume = volume;
    this.#clusterSize = clusterSize;
    this.#chain = chain;
  }

  /** Contiguous clusters are one read. @throws CorruptError where the chain is damaged or ends before the file does. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const stretches = await this.#stretches(offset, length);
    const only = stretches[0];
    if (stretches.length === 1 && only !== undefined) return this.#volume.read(only.position, only.length);
    const target = new Uint8Array(length);
    for (let i = 0; i < stretches.length; i += readsInFlight) {
      const parts = stretches.slice(i, i + readsInFlight).map(async (stretch) => {
        target.set(await this.#volume.read(stretch.position, stretch.length), stretch.offset - offset);
      });
      await Promise.all(parts);
    }
    return target;
  }

  async runs(offset: number, length: number): Promise<FileRun[]> {
    const stretches = await this.#stretches(offset, length);
    return stretches.map((stretch) => ({ kind: 'volume', ...stretch }));
  }

  async #stretches(offset: number, length: number): Promise<{ offset: number; position: number; length: number }[]> {
    checkRange(this, offset, length);
    if (length === 0 || this.#chain === undefined) return [];
    const needed = Math.ceil((offset + length) / this.#clusterSize);
    const reached = await this.#chain.reach(needed);
    if (reached < needed) {
      throw new CorruptError('FAT cluster chain', {
        source: this.name,
        position: this.#chain.lastEntryPosition,
        expected: `${Math.ceil(this.size / this.#clusterSize)} clusters for ${this.size} bytes`,
        found: `an end after ${reached}`,
      });
    }
    return [...this.#chain.stretches(offset, length)];
  }

  async close(): Promise<void> {}
}

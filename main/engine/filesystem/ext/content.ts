/** The content of a file as a ByteSource that knows where its bytes are in the volume. */
import { type ByteSource, checkRange } from '../../storage/byte-source.ts';
import { type Io, runAsync, runSync } from '../../storage/io.ts';
import type { FileContent, FileRun } from '../file-system.ts';
import type { InlinePart } from './inline-data.ts';
import type { Inode, InodeTable } from './inode.ts';
import { mapBlocks } from './mapping.ts';

/** Reads of one request that are under way at the same time. */
const maxInFlight = 16;

/** Content in blocks. Each request maps its range once and reads every contiguous stretch with one read. */
export class BlockContent implements FileContent {
  readonly name: string;
  readonly size: number;
  readonly #table: InodeTable;
  readonly #inode: Inode;
  readonly #volume: ByteSource;
  readonly readIntoSync?: (target: Uint8Array, offset: number) => void;

  constructor(table: InodeTable, inode: Inode, name: string) {
    this.#table = table;
    this.#inode = inode;
    this.#volume = table.cache.source;
    this.name = name;
    this.size = inode.size;
    const sync = this.#volume.readIntoSync;
    if (sync !== undefined) {
      this.readIntoSync = (target, offset) => {
        checkRange(this, offset, target.length);
        let done = 0;
        for (const run of runSync(this.#map(offset, target.length))) {
          const part = target.subarray(done, done + run.length);
          if (run.position === undefined) part.fill(0);
          else sync(part, run.position);
          done += run.length;
        }
      };
    }
  }

  *#map(offset: number, length: number): Io<FileRun[]> {
    if (length === 0) return [];
    const { blockSize } = this.#table.superblock;
    const first = Math.floor(offset / blockSize);
    const end = offset + length;
    const blocks = yield* mapBlocks(this.#table, this.#inode, first, Math.ceil(end / blockSize) - first);
    const runs: FileRun[] = [];
    let at = offset;
    for (const run of blocks) {
      const start = Math.max(offset, run.logical * blockSize);
      const stop = Math.min(end, (run.logical + run.count) * blockSize);
      if (start > at) runs.push({ kind: 'zero', offset: at, length: start - at });
      runs.push({
        kind: 'volume',
        offset: start,
        length: stop - start,
        position: run.physical * blockSize + (start - run.logical * blockSize),
      });
      at = stop;
    }
    if (at < end) runs.push({ kind: 'zero', offset: at, length: end - at });
    return runs;
  }

  async runs(offset: number, length: number): Promise<FileRun[]> {
    checkRange(this, offset, length);
    return runAsync(this.#map(offset, length));
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const runs = await runAsync(this.#map(offset, length));
    const only = runs.length === 1 ? runs[0]! : undefined;
    if (only?.position !== undefined) return this.#volume.read(only.position, length);
    const target = new Uint8Array(length);
    const stored = runs.filter((run) => run.position !== undefined);
    for (let i = 0; i < stored.length; i += maxInFlight) {
      await Promise.all(
        stored.slice(i, i + maxInFlight).map(async (run) => {
          target.set(await this.#volume.read(run.position!, run.length), run.offset - offset);
        }),
      );
    }
    return target;
  }

  async close(): Promise<void> {}
}

/** Content that lies inside the inode. */
export class InlineContent implements FileContent {
  readonly name: string;
  readonly size: number;
  readonly #parts: readonly InlinePart[];

  constructor(parts: readonly InlinePart[], size: number, name: string) {
    this.#parts = parts;
    this.size = size;
    this.name = name;
  }

  #map(offset: number, length: number): { run: FileRun; bytes: Uint8Array }[] {
    checkRange(this, offset, length);
    const result: { run: FileRun; bytes: Uint8Array }[] = [];
    let base = 0;
    for (const part of this.#parts) {
      const start = Math.max(offset, base);
      const stop = Math.min(offset + length, base + part.bytes.length);
      if (start < stop) {
        result.push({
          run: { kind: 'inline', offset: start, length: stop - start, position: part.position + start - base },
          bytes: part.bytes.subarray(start - base, stop - base),
        });
      }
      base += part.bytes.length;
    }
    return result;
  }

  async runs(offset: number, length: number): Promise<FileRun[]> {
    return this.#map(offset, length).map(({ run }) => run);
  }

  readonly readIntoSync = (target: Uint8Array, offset: number): void => {
    for (const { run, bytes } of this.#map(offset, target.length)) target.set(bytes, run.offset - offset);
  };

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const target = new Uint8Array(length);
    this.readIntoSync(target, offset);
    return target;
  }

  async close(): Promise<void> {}
}

/**
 * Collects the runs of a range in order and joins neighbours that continue each other, so that a table of a million
 * contiguous grains becomes one run.
 */
import type { ByteSource } from '../storage/byte-source.ts';
import type { Codec, LayerRun } from './image.ts';

export class RunList {
  readonly #runs: LayerRun[] = [];
  #kind: 'data' | 'zero' | 'absent' | undefined;
  #offset = 0;
  #length = 0;
  #source: ByteSource | undefined;
  #position = 0;

  /** `length` bytes from disk offset `offset` lie at `position` of `source`. */
  data(offset: number, length: number, source: ByteSource, position: number): void {
    if (
      this.#kind === 'data' &&
      this.#source === source &&
      this.#position + this.#length === position &&
      this.#offset + this.#length === offset
    ) {
      this.#length += length;
      return;
    }
    this.#start('data', offset, length);
    this.#source = source;
    this.#position = position;
  }

  /** `length` bytes from `offset` lie inside one compressed unit; such runs are never joined. */
  compressed(offset: number, length: number, source: ByteSource, position: number, stored: number, codec: Codec): void {
    this.#flush();
    if (length > 0) this.#runs.push({ kind: 'compressed', offset, length, source, position, stored, codec });
  }

  zero(offset: number, length: number): void {
    if (this.#kind === 'zero' && this.#offset + this.#length === offset) this.#length += length;
    else this.#start('zero', offset, length);
  }

  absent(offset: number, length: number): void {
    if (this.#kind === 'absent' && this.#offset + this.#length === offset) this.#length += length;
    else this.#start('absent', offset, length);
  }

  /** Everything added so far. The list is the caller's; nothing is added to it afterwards. */
  finish(): LayerRun[] {
    this.#flush();
    return this.#runs;
  }

  #start(kind: 'data' | 'zero' | 'absent', offset: number, length: number): void {
    this.#flush();
    this.#kind = kind;
    this.#offset = offset;
    this.#length = length;
  }

  #flush(): void {
    if (this.#kind === undefined || this.#length === 0) return;
    const offset = this.#offset;
    const length = this.#length;
    if (this.#kind === 'data') {
      this.#runs.push({ kind: 'data', offset, length, source: this.#source!, position: this.#position });
    } else {
      this.#runs.push({ kind: this.#kind, offset, length });
    }
    this.#kind = undefined;
  }
}

/** Reads structures of different lengths that follow each other, a piece of the file at a time. */
import { Fields } from '../../binary.ts';
import { CorruptError } from '../../errors.ts';
import type { ByteSource } from '../../storage/byte-source.ts';

const AHEAD = 16_384;

export class SlidingWindow {
  readonly #file: ByteSource;
  #start = 0;
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(file: ByteSource) {
    this.#file = file;
  }

  /** @throws CorruptError when the structure does not lie in the file, IoError. */
  async fields(structure: string, position: number, length: number): Promise<Fields> {
    const { name, size } = this.#file;
    if (!(position + length <= size)) {
      throw new CorruptError(structure, {
        source: name,
        position,
        expected: `${length} bytes inside the ${size} of the file`,
        found: `${Math.max(0, size - position)} bytes`,
      });
    }
    if (position < this.#start || position + length > this.#start + this.#bytes.length) {
      const ahead = Math.min(size - position, Math.max(length, AHEAD));
      this.#bytes = await this.#file.read(position, ahead);
      this.#start = position;
    }
    const from = position - this.#start;
    return new Fields(this.#bytes.subarray(from, from + length), structure, name, position);
  }
}

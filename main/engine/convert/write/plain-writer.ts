/** Raw images and flat extents: data at its own offset, zeros left out so that the file system makes holes of them. */
import type { StretchRecord } from '../messages.ts';
import type { Plan } from '../plan.ts';
import { ZeroFinder } from '../zeros.ts';
import { type OutputFile, putSync } from './put.ts';
import type { StretchWriter } from './writer.ts';

export class PlainWriter implements StretchWriter {
  readonly unit: number;
  readonly left = [];
  readonly #file: OutputFile;
  readonly #finder: ZeroFinder;
  #stretch = 0;
  #data = 0;

  constructor(plan: Plan, file: OutputFile) {
    this.unit = plan.unit;
    this.#file = file;
    this.#finder = new ZeroFinder(plan.unit);
  }

  begin(stretch: number): void {
    this.#stretch = stretch;
    this.#data = 0;
  }

  write(at: number, bytes: Buffer, length: number): void {
    const { unit } = this;
    this.#finder.runs(bytes, length, (first, count) => {
      const start = first * unit;
      const end = Math.min(length, start + count * unit);
      putSync(this.#file, bytes.subarray(start, end), at + start);
      this.#data += end - start;
    });
  }

  finish(): StretchRecord {
    return { stretch: this.#stretch, data: this.#data };
  }
}

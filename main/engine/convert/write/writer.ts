/** How a worker turns stretches of a disk into a file: one kind of writer for each kind of layout. */
import type { Control, Job, StretchRecord } from '../messages.ts';
import { BlockWriter } from './block-writer.ts';
import { PlainWriter } from './plain-writer.ts';
import type { OutputFile } from './put.ts';
import type { Gap } from './qcow2.ts';
import { StreamWriter } from './stream-writer.ts';
import { UnitWriter } from './unit-writer.ts';

export interface StretchWriter {
  /** Units in which data is to be handed over: each `write` begins at a multiple of it. */
  readonly unit: number;
  /** A stretch begins. `turn` counts those of the job; `expected` is how many bytes of data it has at most. */
  begin(stretch: number, turn: number, expected: number): void;
  /**
   * The disk's bytes from `at`, `length` of them; `bytes` holds zeros from there to the end of the last unit. Calls come in order.
   * @throws IoError, UnsupportedError when the format can't hold more.
   */
  write(at: number, bytes: Buffer, length: number): void;
  /** The stretch is complete: its tables are written. Undefined when the worker was told to stop. */
  finish(): StretchRecord | undefined;
  /** Places that were taken and not used. */
  readonly left: readonly Gap[];
}

export function stretchWriter(job: Extract<Job, { kind: 'write' }>, file: OutputFile, control: Control): StretchWriter {
  const { plan } = job;
  const { layout } = plan;
  switch (layout.kind) {
    case 'plain':
      return new PlainWriter(plan, file);
    case 'grains':
      return new UnitWriter({ plan, layout, file, control, gaps: job.gaps, l1: undefined });
    case 'clusters':
      return new UnitWriter({ plan, layout, file, control, gaps: job.gaps, l1: new Int32Array(job.l1!) });
    case 'blocks':
      return new BlockWriter(plan, layout, file, control, job.gaps);
    case 'stream':
      return new StreamWriter(plan, file, control);
  }
}

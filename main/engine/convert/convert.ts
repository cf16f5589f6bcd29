/**
 * A whole disk at one point in time, restored to one new image.
 *
 * The order of its life: workers open the chain -> the map is looked through -> room is checked -> an interrupted attempt is taken up,
 * or a new one begun -> workers write stretches, each noted in the journal once it has reached the storage -> tables -> the
 * chain's files are found unchanged -> everything reaches the storage -> the image is read back and compared -> it gets its name.
 * Until then it has a temporary name beside its place. What is left when it is interrupted is a part and its journal, which the
 * same request can go on with; every other failure leaves nothing.
 */
import { basename } from 'node:path';
import { UnsupportedError, UsageError } from '../errors.ts';
import { imageFormats } from '../image/formats.ts';
import type { TaskContext } from '../task/task.ts';
import { Conversion, WHAT } from './conversion.ts';
import { Crew, usualWorkers } from './crew.ts';
import type { DiskSource } from './messages.ts';
import { checkOutput, type Existing, type OutputFiles, outputFiles } from './output.ts';
import { type TargetFormat, variantOf } from './plan.ts';

export interface ConvertOptions {
  readonly source: DiskSource;
  /** Absolute path of the new image. */
  readonly destination: string;
  readonly format: TargetFormat;
  /** Sub-format; the format's usual one when absent. */
  readonly variant?: string;
  readonly verify: boolean;
  readonly existing: Existing;
  readonly resume: boolean;
  /** True for a file that is never replaced, whatever was asked: those of the backup. */
  readonly spare: (path: string) => boolean;
  /** Workers; as many as there are cores, at most four, when absent. */
  readonly workers?: number;
  /** Milliseconds between two notes in the journal, which is what an interruption costs; 2,000 when absent. */
  readonly journalInterval?: number;
}

export interface Converted {
  readonly files: readonly string[];
  readonly format: string;
  readonly variant: string;
  readonly size: number;
  readonly dataBytes: number;
  readonly resumedBytes: number;
  readonly verified: boolean;
}

/**
 * Checks what can be told before anything is opened. @throws UsageError, DeniedError, IoError.
 */
export async function checkRequest(options: Omit<ConvertOptions, 'source'>): Promise<OutputFiles> {
  const variant = variantOf(options.format, options.variant);
  const files = outputFiles(options.destination, variant);
  if (basename(options.destination) === '') throw new UsageError(`"${options.destination}" is no name of a file`);
  // A VMDK's descriptor names its file between quotes.
  if (options.format === 'vmdk' && /["\0\r\n]/.test(basename(options.destination))) {
    throw new UsageError('A VMDK cannot have a name with quotes or line ends', { destination: options.destination });
  }
  // Found out now, not after hours of writing.
  if (options.verify && !imageFormats.some(({ name }) => name === options.format)) {
    throw new UnsupportedError(`reading ${options.format} back to verify it`);
  }
  await checkOutput(files, options.existing, undefined, options.spare);
  return files;
}

/**
 * Converts. @throws UsageError, DeniedError, CancelledError, IoError (with the code ENOSPC where there is no room), UnsupportedError for
 * a disk that the format can't hold, CorruptError when the source is damaged or the image does not read back as the source.
 */
export async function convertDisk(options: ConvertOptions, task: TaskContext): Promise<Converted> {
  const files = await checkRequest(options);
  const count = options.workers ?? usualWorkers();
  const { crew, disk } = await Crew.start(
    Array.from({ length: count }, () => options.source),
    task.signal,
    WHAT,
  );
  try {
    return await new Conversion(options, files, crew, disk!, task).run();
  } finally {
    await crew.close();
  }
}

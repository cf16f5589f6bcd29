/**
 * The jobs of a conversion, as a worker does them: synchronous loops that look at the shared control between two reads. Stretches
 * are taken from a shared counter, so a worker that meets little data does more of them.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { Disk } from '../chain/disk.ts';
import { CorruptError, IoError } from '../errors.ts';
import { openLayer } from '../image/formats.ts';
import { Confinement } from '../storage/confinement.ts';
import type { Control, Job, JobResults, StretchRecord } from './messages.ts';
import { HOLE_BYTES, stretchRange } from './plan.ts';
import { dataSpans, spanBytes, unite } from './spans.ts';
import { stretchWriter } from './write/writer.ts';

/** Bytes read at a time: small enough to still be in the processor's cache when they are written. A multiple of every unit. */
const CHUNK = 512 << 10;
/** Stretches between two looks at the control where nothing is read. */
const LOOK_EVERY = 16;

type JobOf<K extends Job['kind']> = Extract<Job, { kind: K }>;

/** What the map says must be read. `marks` gets the sectors of each stretch. */
export function surveyJob(
  disk: Disk,
  { plan, marks }: JobOf<'survey'>,
  control: Control,
  index: number,
): JobResults['survey'] | undefined {
  const sectors = new Uint32Array(marks);
  const layers = disk.layers.map(() => 0);
  for (let stretch = control.next(); stretch < plan.stretches; stretch = control.next()) {
    if (control.cancelled) return undefined;
    const { start, end } = stretchRange(plan, stretch);
    let bytes = 0;
    for (const span of dataSpans(disk, start, end, HOLE_BYTES)) bytes += span.end - span.start;
    sectors[stretch] = Math.ceil(bytes / 512);
    if (bytes === 0) continue;
    for (const run of disk.runsSync(start, end - start)) {
      if (run.kind !== 'zero') layers[run.layer!]! += run.length;
    }
    control.progress(index, bytes);
  }
  return { layers };
}

/** Writes stretches until there are no more. */
export function writeJob(
  disk: Disk,
  job: JobOf<'write'>,
  control: Control,
  index: number,
  finished: (record: StretchRecord) => void,
): JobResults['write'] | undefined {
  const { plan, target } = job;
  const list = new Uint32Array(job.list);
  const file = { fd: openTarget(target.path, target.name), name: target.name };
  try {
    const writer = stretchWriter(job, file, control);
    const buffer = Buffer.alloc(CHUNK);
    for (let turn = control.next(); turn < list.length; turn = control.next()) {
      const stretch = list[turn]!;
      const { start, end } = stretchRange(plan, stretch);
      const spans = dataSpans(disk, start, end, writer.unit);
      writer.begin(stretch, turn, spanBytes(spans));
      for (const span of spans) {
        for (let at = span.start; at < span.end; at += CHUNK) {
          if (control.cancelled) return undefined;
          const length = Math.min(CHUNK, span.end - at);
          disk.readIntoSync(length === CHUNK ? buffer : buffer.subarray(0, length), at);
          if (length % writer.unit !== 0) buffer.fill(0, length, Math.ceil(length / writer.unit) * writer.unit);
          writer.write(at, buffer, length);
          control.progress(index, length);
        }
      }
      if (control.cancelled) return undefined;
      const record = writer.finish();
      if (record === undefined) return undefined;
      finished(record);
    }
    return { gaps: [...writer.left] };
  } finally {
    closeSync(file.fd);
  }
}

function openTarget(path: string, name: string): number {
  try {
    return openSync(path, constants.O_WRONLY | (constants.O_NOFOLLOW ?? 0));
  } catch (error) {
    throw new IoError(`${name} cannot be written`, { destination: name }, error);
  }
}

/**
 * Compares the disk with a written image, wherever one of the two has data. @throws CorruptError naming the first byte of the
 * stretch that differs, and what opening the image throws.
 */
export async function compareJob(
  disk: Disk,
  { plan, image }: JobOf<'compare'>,
  control: Control,
  index: number,
): Promise<JobResults['compare'] | undefined> {
  const folder = new Confinement(image.folder, { synchronous: true });
  const written = new Disk([await openLayer(image.path, folder, image.format)], { synchronous: true });
  try {
    if (written.size !== plan.imageSize) {
      throw new CorruptError('Written image', {
        source: image.name,
        expected: `a disk of ${plan.imageSize} bytes`,
        found: `${written.size} bytes`,
      });
    }
    const ours = Buffer.alloc(CHUNK);
    const theirs = Buffer.alloc(CHUNK);
    let since = 0;
    for (let stretch = control.next(); stretch < plan.stretches; stretch = control.next()) {
      if (++since % LOOK_EVERY === 0 && control.cancelled) return undefined;
      const { start, end } = stretchRange(plan, stretch);
      // The last sector of the image may reach beyond the disk.
      const last = end === disk.size ? plan.imageSize : end;
      const spans = unite(dataSpans(disk, start, end, HOLE_BYTES), dataSpans(written, start, last, HOLE_BYTES));
      for (const span of spans) {
        for (let at = span.start; at < span.end; at += CHUNK) {
          if (control.cancelled) return undefined;
          const length = Math.min(CHUNK, span.end - at);
          written.readIntoSync(theirs.subarray(0, length), at);
          const real = Math.max(0, Math.min(length, disk.size - at));
          disk.readIntoSync(ours.subarray(0, real), at);
          ours.fill(0, real, length);
          if (ours.compare(theirs, 0, length, 0, length) !== 0) throw different(image.name, ours, theirs, at, length);
          control.progress(index, length);
        }
      }
    }
    return {};
  } finally {
    await written.close();
    await folder.close();
  }
}

function different(name: string, ours: Buffer, theirs: Buffer, at: number, length: number): CorruptError {
  let i = 0;
  while (i < length - 1 && ours[i] === theirs[i]) i++;
  return new CorruptError('Written image', {
    source: name,
    position: at + i,
    expected: `byte 0x${ours[i]!.toString(16).padStart(2, '0')} of the disk`,
    found: `0x${theirs[i]!.toString(16).padStart(2, '0')}`,
  });
}

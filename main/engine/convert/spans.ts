/** Which parts of a disk must be read: what the map does not say is zeros, in whole units. */
import { type Disk, REGION_BYTES } from '../chain/disk.ts';

/** `[start, end)` of the disk. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/**
 * The parts of `[start, end)` that are not zeros by the map, rounded to whole units (but not beyond `end`), in order, none touching
 * the next. `start` is a multiple of `unit`.
 */
export function dataSpans(disk: Disk, start: number, end: number, unit: number): Span[] {
  const spans: { start: number; end: number }[] = [];
  for (let at = start; at < end; ) {
    const stop = Math.min(end, (Math.floor(at / REGION_BYTES) + 1) * REGION_BYTES);
    for (const run of disk.runsSync(at, stop - at)) {
      if (run.kind === 'zero') continue;
      const from = Math.max(start, Math.floor(run.offset / unit) * unit);
      const to = Math.min(end, Math.ceil((run.offset + run.length) / unit) * unit);
      const last = spans.at(-1);
      if (last !== undefined && from <= last.end) last.end = Math.max(last.end, to);
      else spans.push({ start: from, end: to });
    }
    at = stop;
  }
  return spans;
}

/** The parts of two lists taken together, in order. */
export function unite(a: readonly Span[], b: readonly Span[]): Span[] {
  const united: { start: number; end: number }[] = [];
  for (const span of [...a, ...b].sort((x, y) => x.start - y.start)) {
    const last = united.at(-1);
    if (last !== undefined && span.start <= last.end) last.end = Math.max(last.end, span.end);
    else united.push({ ...span });
  }
  return united;
}

/** Bytes of all of them. */
export function spanBytes(spans: readonly Span[]): number {
  return spans.reduce((sum, { start, end }) => sum + (end - start), 0);
}

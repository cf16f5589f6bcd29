/** How far a conversion is: which stretches are done, and what their records say of the new image's tables. */
import type { StretchRecord } from './messages.ts';
import { type Plan, SECTOR } from './plan.ts';
import type { Gap } from './write/qcow2.ts';

export class Progress {
  readonly #plan: Plan;
  readonly #done: Uint8Array;
  /** Bytes written that are not zeros. */
  data = 0;
  /** QCOW2: place of each L2 table plus one; shared with the workers. */
  readonly l1: SharedArrayBuffer | undefined;
  /** streamOptimized: sector of each grain table. */
  readonly directory: Uint32Array;

  constructor(plan: Plan) {
    this.#plan = plan;
    this.#done = new Uint8Array(plan.stretches);
    const { layout } = plan;
    this.l1 = layout.kind === 'clusters' ? new SharedArrayBuffer(layout.l1Entries * 4) : undefined;
    this.directory = new Uint32Array(layout.kind === 'stream' ? layout.tableCount : 0);
  }

  add({ stretch, data, tables = [], directory = [] }: StretchRecord): void {
    this.#done[stretch] = 1;
    this.data += data;
    if (this.l1 !== undefined) {
      const l1 = new Int32Array(this.l1);
      for (let i = 0; i < tables.length; i += 2) l1[tables[i]!] = tables[i + 1]! + 1;
    }
    for (let i = 0; i < directory.length; i += 2) this.directory[directory[i]!] = directory[i + 1]!;
  }

  isDone(stretch: number): boolean {
    return this.#done[stretch] === 1;
  }

  /** Stretches that are to be written: those with data by the map (`marks`) that are not done, ascending. */
  remaining(marks: Uint32Array): SharedArrayBuffer {
    let count = 0;
    for (let i = 0; i < this.#plan.stretches; i++) if (marks[i] !== 0 && this.#done[i] === 0) count++;
    const buffer = new SharedArrayBuffer(count * 4);
    const list = new Uint32Array(buffer);
    for (let i = 0, at = 0; i < this.#plan.stretches; i++) if (marks[i] !== 0 && this.#done[i] === 0) list[at++] = i;
    return buffer;
  }

  /** Bytes that the map says must be read of the stretches that are done. */
  doneBytes(marks: Uint32Array): number {
    let sectors = 0;
    for (let i = 0; i < this.#plan.stretches; i++) if (this.#done[i] === 1) sectors += marks[i]!;
    return sectors * SECTOR;
  }
}

/** Where writing goes on after an interruption. */
export interface Restart {
  readonly records: readonly StretchRecord[];
  /** Places that are handed out, and those among them that hold nothing that counts. */
  readonly places: number;
  readonly gaps: readonly Gap[];
  /** streamOptimized: where the next stretch goes. */
  readonly position: number;
}

/** From an interrupted run's records. `marks` says which stretches have data at all. */
export function restart(plan: Plan, records: readonly StretchRecord[], marks: Uint32Array): Restart {
  const { layout } = plan;
  if (layout.kind === 'plain') return { records, places: 0, gaps: [], position: 0 };
  if (layout.kind === 'stream') return restartStream(records, marks, layout.dataStart);
  const taken = new Map<number, number>();
  for (const { placed = [], tables = [] } of records) {
    for (let i = 0; i < placed.length; i += 2) taken.set(placed[i]!, placed[i + 1]!);
    for (let i = 0; i < tables.length; i += 2) taken.set(tables[i + 1]!, 1);
  }
  const gaps: Gap[] = [];
  let at = 0;
  for (const [start, count] of [...taken].sort((a, b) => a[0] - b[0])) {
    if (start > at) gaps.push({ start: at, count: start - at });
    at = Math.max(at, start + count);
  }
  return { records, places: at, gaps, position: 0 };
}

/** Only what lies without a gap from the beginning on counts: grains are in the order of the disk. */
function restartStream(records: readonly StretchRecord[], marks: Uint32Array, dataStart: number): Restart {
  const byStretch = new Map(records.map((record) => [record.stretch, record]));
  const kept: StretchRecord[] = [];
  let position = dataStart;
  for (let stretch = 0; stretch < marks.length; stretch++) {
    if (marks[stretch] === 0) continue;
    const record = byStretch.get(stretch);
    if (record === undefined || record.at !== position) break;
    kept.push(record);
    position += record.length!;
  }
  return { records: kept, places: 0, gaps: [], position };
}

/** True when every record is one that a conversion by this plan can have written: a journal may be anybody's. */
export function recordsFit(plan: Plan, records: readonly StretchRecord[]): boolean {
  return records.every((record) => recordFits(plan, record));
}

const whole = (value: unknown, below: number): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < below;

function pairs(list: unknown, first: number, second: number): boolean {
  if (!Array.isArray(list) || list.length % 2 !== 0) return false;
  return list.every((value, i) => whole(value, i % 2 === 0 ? first : second));
}

function recordFits(plan: Plan, record: StretchRecord | null): boolean {
  if (typeof record !== 'object' || record === null) return false;
  if (!whole(record.stretch, plan.stretches) || !whole(record.data, plan.stretch + 1)) return false;
  const { layout } = plan;
  const places = 2 ** 31;
  if (layout.kind === 'plain') return true;
  if (layout.kind === 'stream') {
    return (
      whole(record.at, Number.MAX_SAFE_INTEGER) &&
      whole(record.length, plan.stretch * 2) &&
      pairs(record.directory, layout.tableCount, 2 ** 32)
    );
  }
  if (!pairs(record.placed, places, plan.stretch / plan.unit + 1)) return false;
  return layout.kind !== 'clusters' || pairs(record.tables, layout.l1Entries, places);
}

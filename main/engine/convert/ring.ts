/**
 * A ring of buffers between two threads: one reads a disk from end to end, the other hashes what comes. So reading costs nothing
 * that hashing does not hide, and neither keeps the event loop. Zeros that no layer stores are neither read nor passed on: a slot
 * says only how many there are.
 */
import { createHash } from 'node:crypto';
import type { Disk } from '../chain/disk.ts';
import type { Control, JobResults } from './messages.ts';

/** Bytes of a slot. */
const SLOT = 512 << 10;
const SLOTS = 8;
/** Longest wait for the other side between two looks at the control, in milliseconds. */
const LOOK_MS = 50;

/** Slots filled, slots emptied; both only grow. */
const FILLED = 0;
const EMPTIED = 1;
/** 1 once everything is in. */
const ENDED = 2;
const HEAD = 64;

export function ringBuffer(): SharedArrayBuffer {
  return new SharedArrayBuffer(HEAD + SLOTS * 8 + SLOTS * SLOT);
}

class Ring {
  readonly #ints: Int32Array;
  /** What each slot holds: so many bytes of data, or of zeros as a negative number. */
  readonly lengths: Float64Array;
  readonly #buffer: SharedArrayBuffer;

  constructor(buffer: SharedArrayBuffer) {
    this.#buffer = buffer;
    this.#ints = new Int32Array(buffer, 0, 3);
    this.lengths = new Float64Array(buffer, HEAD, SLOTS);
  }

  slot(index: number): Uint8Array {
    return new Uint8Array(this.#buffer, HEAD + SLOTS * 8 + (index % SLOTS) * SLOT, SLOT);
  }

  /** Waits for a free slot; its number, or undefined when it is to stop. */
  free(control: Control): number | undefined {
    const filled = this.#ints[FILLED]!;
    return this.#until(control, EMPTIED, (emptied) => filled - emptied < SLOTS) ? filled : undefined;
  }
  fill(): void {
    Atomics.add(this.#ints, FILLED, 1);
    Atomics.notify(this.#ints, FILLED);
  }
  end(): void {
    Atomics.store(this.#ints, ENDED, 1);
    Atomics.notify(this.#ints, FILLED);
  }

  /** Waits for a full slot; its number, `end` after the last, or undefined when it is to stop. */
  full(control: Control): number | 'end' | undefined {
    const emptied = this.#ints[EMPTIED]!;
    const more = this.#until(control, FILLED, (filled) => filled > emptied || Atomics.load(this.#ints, ENDED) === 1);
    if (!more) return undefined;
    return Atomics.load(this.#ints, FILLED) > emptied ? emptied : 'end';
  }
  empty(): void {
    Atomics.add(this.#ints, EMPTIED, 1);
    Atomics.notify(this.#ints, EMPTIED);
  }

  #until(control: Control, counter: number, reached: (value: number) => boolean): boolean {
    for (;;) {
      if (control.cancelled) return false;
      const now = Atomics.load(this.#ints, counter);
      if (reached(now)) return true;
      Atomics.wait(this.#ints, counter, now, LOOK_MS);
    }
  }
}

/** Reads the whole disk into the ring. Undefined when it was stopped. */
export async function feedJob(
  disk: Disk,
  buffer: SharedArrayBuffer,
  control: Control,
): Promise<JobResults['feed'] | undefined> {
  const ring = new Ring(buffer);
  for await (const runs of disk.walk()) {
    for (let i = 0; i < runs.length; i++) {
      const { offset, length, kind } = runs[i]!;
      if (kind === 'zero') {
        if (!pass(ring, control, -length)) return undefined;
        continue;
      }
      // Neighbouring runs with data fill slots together: fragments would otherwise cost a slot each.
      let end = offset + length;
      while (i + 1 < runs.length && runs[i + 1]!.kind !== 'zero') end += runs[++i]!.length;
      for (let at = offset; at < end; at += SLOT) {
        const count = Math.min(SLOT, end - at);
        const slot = ring.free(control);
        if (slot === undefined) return undefined;
        disk.readIntoSync(ring.slot(slot).subarray(0, count), at);
        ring.lengths[slot % SLOTS] = count;
        ring.fill();
      }
    }
  }
  ring.end();
  return {};
}

function pass(ring: Ring, control: Control, length: number): boolean {
  const slot = ring.free(control);
  if (slot === undefined) return false;
  ring.lengths[slot % SLOTS] = length;
  ring.fill();
  return true;
}

/** Hashes what comes through the ring. Undefined when it was stopped. */
export function hashJob(buffer: SharedArrayBuffer, control: Control, index: number): JobResults['hash'] | undefined {
  const ring = new Ring(buffer);
  const hash = createHash('sha256');
  const zeros = new Uint8Array(SLOT);
  let bytes = 0;
  for (let slot = ring.full(control); slot !== 'end'; slot = ring.full(control)) {
    if (slot === undefined) return undefined;
    const length = ring.lengths[slot % SLOTS]!;
    if (length > 0) {
      hash.update(ring.slot(slot).subarray(0, length));
      control.progress(index, length);
    }
    for (let left = -length; left > 0; left -= SLOT) {
      if (control.cancelled) return undefined;
      const count = Math.min(SLOT, left);
      hash.update(count === SLOT ? zeros : zeros.subarray(0, count));
      control.progress(index, count);
    }
    bytes += Math.abs(length);
    ring.empty();
  }
  return { sha256: hash.digest('hex'), bytes };
}

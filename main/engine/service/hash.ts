/** SHA-256 of a disk's content, with progress. */
import { createHash } from 'node:crypto';
import type { HashResult } from '../../../preload/api.ts';
import type { Disk } from '../chain/disk.ts';
import { Crew } from '../convert/crew.ts';
import { Control, type DiskSource } from '../convert/messages.ts';
import { ringBuffer } from '../convert/ring.ts';
import { throwIfCancelled } from '../errors.ts';
import { Breather } from '../task/breather.ts';
import type { TaskContext } from '../task/task.ts';

const WHAT = 'Hashing';
/** Bytes read at a time. */
const CHUNK = 1 << 20;
/** Disks up to this are hashed before two threads would have started. */
const SMALL = 64 << 20;

/**
 * Hashes the disk from end to end; zeros that no layer stores are hashed without being read. Of a large disk, one thread reads while
 * another hashes, and this one is free.
 * @param source how another thread opens the same disk. @throws CancelledError, read errors.
 */
export async function hashDisk(disk: Disk, source: DiskSource, task: TaskContext): Promise<HashResult> {
  task.progress.bytesTotal = disk.size;
  return disk.size <= SMALL ? hashHere(disk, task) : hashInThreads(source, task);
}

async function hashInThreads(source: DiskSource, task: TaskContext): Promise<HashResult> {
  const { crew } = await Crew.start([source, undefined], task.signal, WHAT);
  try {
    const ring = ringBuffer();
    const control = Control.of(2);
    const results = await crew.run<'feed' | 'hash'>(
      [
        { kind: 'feed', ring },
        { kind: 'hash', ring },
      ],
      {
        what: WHAT,
        signal: task.signal,
        control,
        onProgress: (bytes) => {
          task.progress.bytesDone = bytes;
          task.report();
        },
      },
    );
    const hashed = results[1]!;
    if (!('sha256' in hashed)) throw new TypeError('the hashing worker gave no hash');
    return { sha256: hashed.sha256, bytes: hashed.bytes };
  } finally {
    await crew.close();
  }
}

async function hashHere(disk: Disk, task: TaskContext): Promise<HashResult> {
  const hash = createHash('sha256');
  const zeros = new Uint8Array(CHUNK);
  const breather = new Breather();
  for await (const runs of disk.walk()) {
    for (const run of runs) {
      for (let at = run.offset; at < run.offset + run.length; at += CHUNK) {
        throwIfCancelled(task.signal, WHAT);
        const length = Math.min(CHUNK, run.offset + run.length - at);
        hash.update(run.kind === 'zero' ? zeros.subarray(0, length) : await disk.read(at, length));
        task.progress.bytesDone += length;
        task.report();
        // Synchronous sources never leave the thread: give cancellation and progress their turn.
        if (breather.due) await breather.breathe();
      }
    }
  }
  return { sha256: hash.digest('hex'), bytes: disk.size };
}

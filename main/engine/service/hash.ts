/** SHA-256 of a disk's content, with progress. */
import { createHash } from 'node:crypto';
import type { HashResult } from '../../../preload/api.ts';
import type { Disk } from '../chain/disk.ts';
import { throwIfCancelled } from '../errors.ts';
import { Breather } from '../task/breather.ts';
import type { TaskContext } from '../task/task.ts';

/** Bytes read at a time. */
const CHUNK = 1 << 20;

/** Reads the disk from end to end; zeros that no layer stores are hashed without being read. @throws CancelledError, read errors. */
export async function hashDisk(disk: Disk, task: TaskContext): Promise<HashResult> {
  const hash = createHash('sha256');
  const zeros = new Uint8Array(CHUNK);
  const breather = new Breather();
  task.progress.bytesTotal = disk.size;
  for await (const runs of disk.walk()) {
    for (const run of runs) {
      for (let at = run.offset; at < run.offset + run.length; at += CHUNK) {
        throwIfCancelled(task.signal, 'Hashing');
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

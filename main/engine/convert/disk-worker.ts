/**
 * Entry of a disk worker: a thread with its own synchronous chain, that does one job after the other: looks through a map, writes
 * stretches of a new image, compares one with the disk, reads or hashes a disk.
 */
import { parentPort, workerData } from 'node:worker_threads';
import type { Disk } from '../chain/disk.ts';
import { openChain } from '../chain/open.ts';
import { toWireError } from '../errors.ts';
import { Confinement } from '../storage/confinement.ts';
import { compareJob, surveyJob, writeJob } from './jobs.ts';
import {
  Control,
  type FromWorker,
  type JobResults,
  type OpenedDisk,
  type ToWorker,
  type WorkerSetup,
} from './messages.ts';
import { feedJob, hashJob } from './ring.ts';

if (parentPort === null) throw new Error('disk-worker is started as a worker thread');
const port = parentPort;
const { source } = workerData as WorkerSetup;

/** A job passes once over the disk: little of its map is needed twice. */
const MAP_CACHE_BYTES = 16 << 20;

function say(message: FromWorker): void {
  port.postMessage(message);
}

let disk: Disk | undefined;

async function open(): Promise<void> {
  let opened: OpenedDisk | undefined;
  if (source !== undefined) {
    const { path, root, located, cacheFolder } = source;
    const folder = new Confinement(root, {
      synchronous: true,
      ...(located === undefined ? {} : { located }),
      ...(cacheFolder === undefined ? {} : { cacheFolder }),
    });
    disk = await openChain(path, folder, { synchronous: true, mapCacheBytes: MAP_CACHE_BYTES });
    opened = {
      size: disk.size,
      files: disk.layers.flatMap((layer) => layer.files.map((file) => ({ path: file.path, size: file.size }))),
      layers: disk.layers.map(({ granularity, virtualSize }) => ({ granularity, virtualSize })),
    };
  }
  say({ type: 'opened', disk: opened });
}

/** The result; undefined when it was stopped. */
async function run({ job, control: buffer, index }: ToWorker): Promise<JobResults[keyof JobResults] | undefined> {
  const control = new Control(buffer);
  switch (job.kind) {
    case 'survey':
      return surveyJob(disk!, job, control, index);
    case 'write':
      return writeJob(disk!, job, control, index, (record) => say({ type: 'stretch', record }));
    case 'compare':
      return compareJob(disk!, job, control, index);
    case 'feed':
      return feedJob(disk!, job.ring, control);
    case 'hash':
      return hashJob(job.ring, control, index);
  }
}

port.on('message', (message: ToWorker) => {
  run(message)
    .then((result) => say(result === undefined ? { type: 'stopped' } : { type: 'done', result }))
    .catch((error: unknown) => say({ type: 'failed', error: toWireError(error) }));
});

open().catch((error: unknown) => say({ type: 'failed', error: toWireError(error) }));

import { workerProgram } from '../task/worker-program.ts';

/** URL of the data worker, for `new Worker`. @throws NotFoundError when the build lacks it. */
export function dataWorkerUrl(): Promise<URL> {
  return workerProgram('data-worker', 'nbd/data-worker.ts');
}

/** Restoring a whole disk to a new image, as a task. */
import { basename } from 'node:path';
import type { ConvertRequest, TaskResult, TaskSnapshot } from '../../../preload/api.ts';
import type { DiskSource } from '../convert/messages.ts';
import { NotFoundError } from '../errors.ts';
import type { TaskManager } from '../task/task.ts';
import { isOfBackup } from './copy-sources.ts';
import type { PointLocation } from './open-point.ts';

/** How a worker opens disk `index` of the point. @throws NotFoundError where its image is missing. */
export function diskSource({ disks, folder, vm }: PointLocation, index: number): DiskSource {
  const disk = disks.find((candidate) => candidate.index === index);
  if (disk?.path === undefined) {
    throw new NotFoundError(`The image "${disk?.file ?? ''}" of disk ${index} of ${vm}`, { file: disk?.file });
  }
  const { located, cacheFolder } = folder.options;
  return {
    path: disk.path,
    root: folder.root,
    ...(located === undefined ? {} : { located }),
    ...(cacheFolder === undefined ? {} : { cacheFolder }),
  };
}

/**
 * Starts the conversion of disk `index`. What can be told from the request alone is refused before there is a task.
 * @throws UsageError, DeniedError, NotFoundError, IoError.
 */
export async function convertPoint(
  request: ConvertRequest,
  location: PointLocation,
  index: number,
  tasks: TaskManager<TaskSnapshot['kind'], TaskResult>,
): Promise<TaskSnapshot> {
  const { checkRequest, convertDisk } = await import('../convert/convert.ts');
  const options = {
    source: diskSource(location, index),
    destination: request.destination,
    format: request.format,
    ...(request.variant === undefined ? {} : { variant: request.variant }),
    verify: request.verify,
    existing: request.overwrite,
    resume: request.resume,
    spare: isOfBackup(location),
  };
  await checkRequest(options);
  const title = `Restore disk ${index} of ${location.vm} at ${location.pointName} to ${basename(request.destination)}`;
  return tasks.start('convert', title, async (task) => ({ kind: 'convert', ...(await convertDisk(options, task)) }));
}

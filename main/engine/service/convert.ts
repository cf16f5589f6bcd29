/** Restoring a whole disk to a new image, as a task. */
import type { ConvertRequest, TaskResult, TaskSnapshot } from '../../../preload/api.ts';
import { UnsupportedError } from '../errors.ts';
import type { TaskManager } from '../task/task.ts';
import type { PointLocation } from './open-point.ts';

export async function convertPoint(
  request: ConvertRequest,
  _location: PointLocation,
  _index: number,
  _tasks: TaskManager<TaskSnapshot['kind'], TaskResult>,
): Promise<TaskSnapshot> {
  throw new UnsupportedError(`writing ${request.format}`);
}

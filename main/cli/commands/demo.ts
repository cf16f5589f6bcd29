import { resolve } from 'node:path';
import { writeDemo } from '../../engine/demo/demo.ts';
import { runCommand } from '../context.ts';

/** `demo <folder>`: writes the demo repository and prints where. */
export function demo(folder: string): Promise<void> {
  return runCommand(async ({ out }) => {
    const path = resolve(folder);
    await writeDemo(path);
    out.line(path);
    return 0;
  });
}

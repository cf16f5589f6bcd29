/** What the tests of copying share: a task of their own, and what a folder holds afterwards. */
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type CopyOptions, type CopyReport, copyOut } from '../../../main/engine/restore/copy.ts';
import type { CopySource } from '../../../main/engine/restore/source.ts';
import type { Progress, TaskContext } from '../../../main/engine/task/task.ts';
import type { DirectoryNode, MemoryFileSystem } from '../../support/memory-file-system.ts';
import { MemoryFileSystem as FileSystem } from '../../support/memory-file-system.ts';

export interface Run {
  readonly report: CopyReport;
  readonly progress: Progress;
}

export interface RunOptions extends Partial<CopyOptions> {
  readonly destination: string;
  readonly signal?: AbortSignal;
  readonly onReport?: (progress: Progress) => void;
}

/** Copies sources with the usual options; what is not said is recursive, verified, and refuses to overwrite. */
export async function copySources(sources: readonly CopySource[], options: RunOptions): Promise<Run> {
  const { destination, signal, onReport, ...rest } = options;
  const progress: Progress = { bytesDone: 0, itemsDone: 0 };
  const task: TaskContext = {
    signal: signal ?? new AbortController().signal,
    progress,
    report: () => onReport?.(progress),
  };
  const report = await copyOut(
    sources,
    { destination, recursive: true, verify: true, overwrite: 'refuse', ...rest },
    task,
  );
  return { report, progress };
}

/** Copies one path (or several) of a tree. */
export async function copyTree(
  root: DirectoryNode | MemoryFileSystem,
  paths: string | readonly string[],
  options: RunOptions,
): Promise<Run> {
  const fs = root instanceof FileSystem ? root : new FileSystem(root);
  const sources = [];
  for (const path of [paths].flat()) sources.push(await fs.source(path));
  return copySources(sources, options);
}

/** What is below a folder: `dir/`, `file=content`, `link->target`, sorted; nothing is followed. */
export function contentsOf(folder: string): string[] {
  return entriesBelow(folder, '').sort();
}

function entriesBelow(folder: string, prefix: string): string[] {
  const out: string[] = [];
  for (const name of readdirSync(join(folder, prefix))) {
    const path = prefix === '' ? name : `${prefix}/${name}`;
    const whole = join(folder, path);
    const stat = lstatSync(whole);
    if (stat.isDirectory()) out.push(`${path}/`, ...entriesBelow(folder, path));
    else if (stat.isSymbolicLink()) out.push(`${path}->${readlinkSync(whole)}`);
    else out.push(`${path}=${stat.size > 100 ? `${stat.size} bytes` : readFileSync(whole, 'latin1')}`);
  }
  return out;
}

/** `[path, kind]` of each problem of a report. */
export function problemsOf(report: CopyReport): string[][] {
  return report.problems.map(({ path, error }) => [path, error.kind]);
}

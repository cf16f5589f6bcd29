/**
 * What the shell has to know of the engine's tasks: whether any still writes to this computer (asked before quitting), and which
 * files finished copies made (the only ones that may be shown in their folder).
 */
import { isAbsolute, resolve } from 'node:path';
import type { ChainliftApi, TaskSnapshot } from '../../preload/api.ts';
import { EngineError } from '../../preload/rpc.ts';
import { DeniedError } from '../engine/errors.ts';
import { warn } from './log.ts';

/** Paths remembered; the oldest are forgotten. */
const maxPaths = 100_000;

export class TaskWatch {
  readonly #running = new Map<string, TaskSnapshot>();
  readonly #made = new Set<string>();
  /** Tasks that are the shell's own and no concern of a person who quits. */
  readonly #own = new Set<string>();

  /** Follows the engine's tasks until its connection ends. */
  async follow(api: ChainliftApi): Promise<void> {
    try {
      for await (const task of api.watchTasks({})) this.#note(task);
    } catch (error) {
      // The engine was lost, and every task with it; the host follows the next one.
      if (!(error instanceof EngineError)) throw error;
      warn(`tasks are not followed any more: ${error.message}`);
    } finally {
      this.#running.clear();
      // The next engine numbers its tasks anew.
      this.#own.clear();
    }
  }

  /** Says that a task is the shell's own: staging for a drag. */
  own(id: string): void {
    this.#own.add(id);
  }

  #note(task: TaskSnapshot): void {
    if (task.state === 'running') {
      this.#running.set(task.id, task);
      return;
    }
    this.#running.delete(task.id);
    if (task.state !== 'done' || task.result?.kind !== 'copy' || this.#own.has(task.id)) return;
    for (const path of task.result.written) this.#add(path);
    for (const file of task.result.copied) this.#add(file.destination);
  }

  #add(path: string): void {
    if (!isAbsolute(path)) return;
    this.#made.add(resolve(path));
    if (this.#made.size <= maxPaths) return;
    for (const oldest of this.#made) {
      this.#made.delete(oldest);
      return;
    }
  }

  /** Titles of the copies that are under way for a person. */
  get copies(): readonly string[] {
    return [...this.#running.values()]
      .filter((task) => task.kind === 'copy' && !this.#own.has(task.id))
      .map((task) => task.title);
  }

  /** The path, if a finished copy made it. @throws DeniedError for any other. */
  made(path: string): string {
    if (!this.#made.has(path))
      throw new DeniedError(`Showing ${path}`, 'it was not made by a copy of this session', { path });
    return path;
  }
}

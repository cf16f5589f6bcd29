/** The repositories opened lately: a small JSON file in the user's configuration folder. Losing it loses comfort, no more. */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { RecentRepository } from '../../../preload/api.ts';
import { IoError } from '../errors.ts';
import { homeFolder } from './home.ts';

const KEEP = 20;

/** Where Chainlift keeps its few settings, by the system's own custom. */
export function defaultConfigFolder(): string {
  if (process.env.CHAINLIFT_CONFIG) return process.env.CHAINLIFT_CONFIG;
  if (process.platform === 'win32') return join(process.env.APPDATA ?? homeFolder(), 'Chainlift');
  if (process.platform === 'darwin') return join(homeFolder(), 'Library', 'Application Support', 'Chainlift');
  return join(process.env.XDG_CONFIG_HOME ?? join(homeFolder(), '.config'), 'chainlift');
}

/**
 * Where indexes of compressed archives are kept, by the system's own custom: losing it costs time. `CHAINLIFT_CACHE` says otherwise;
 * empty, nothing is kept.
 */
export function defaultCacheFolder(): string | undefined {
  const { CHAINLIFT_CACHE: chosen, LOCALAPPDATA, XDG_CACHE_HOME } = process.env;
  if (chosen !== undefined) return chosen === '' ? undefined : chosen;
  if (process.platform === 'win32') return join(LOCALAPPDATA ?? homeFolder(), 'Chainlift', 'Cache');
  if (process.platform === 'darwin') return join(homeFolder(), 'Library', 'Caches', 'Chainlift');
  return join(XDG_CACHE_HOME || join(homeFolder(), '.cache'), 'chainlift');
}

export class RecentRepositories {
  readonly #folder: string;
  /** Changes one after the other, so that two at once do not lose one. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(folder: string) {
    this.#folder = folder;
  }

  get #file(): string {
    return join(this.#folder, 'recent.json');
  }

  async list(): Promise<RecentRepository[]> {
    let text: string;
    try {
      text = await readFile(this.#file, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw new IoError('The list of recent repositories cannot be read', { source: this.#file }, error);
    }
    let stored: unknown;
    try {
      stored = JSON.parse(text);
    } catch {
      // Cut off by a full disk or a crash: start anew.
      return [];
    }
    return Array.isArray(stored) ? stored.filter(isRecent).slice(0, KEEP) : [];
  }

  add(path: string): Promise<void> {
    return this.#change((list) => [
      { path, name: basename(path) || path, opened: new Date().toISOString() },
      ...list.filter((entry) => entry.path !== path),
    ]);
  }

  remove(path: string): Promise<void> {
    return this.#change((list) => list.filter((entry) => entry.path !== path));
  }

  #change(edit: (list: RecentRepository[]) => RecentRepository[]): Promise<void> {
    const change = this.#queue.then(async () => {
      const list = edit(await this.list()).slice(0, KEEP);
      try {
        await mkdir(this.#folder, { recursive: true, mode: 0o700 });
        const partial = `${this.#file}.${process.pid}.part`;
        await writeFile(partial, `${JSON.stringify(list, null, 2)}\n`, { mode: 0o600 });
        await rename(partial, this.#file);
      } catch (error) {
        throw new IoError('The list of recent repositories cannot be written', { source: this.#file }, error);
      }
    });
    // The next change waits for this one's end, however it ends; its own caller hears of the failure.
    this.#queue = change.catch(() => undefined);
    return change;
  }
}

function isRecent(value: unknown): value is RecentRepository {
  const entry = value as Partial<RecentRepository> | null;
  return typeof entry?.path === 'string' && typeof entry.name === 'string' && typeof entry.opened === 'string';
}

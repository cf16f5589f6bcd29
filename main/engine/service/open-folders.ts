/**
 * Folders whose archives are open. A catalog that was read anew takes its folder out of use, but whoever still reads from it (an open
 * point, a verification) keeps it until it has done: then its files are closed. A long-running engine would lose descriptors otherwise.
 */
import type { Confinement } from '../storage/confinement.ts';

export class OpenFolders {
  /** How many read from a folder. */
  readonly #users = new Map<Confinement, number>();
  /** No catalog stands on them any more. */
  readonly #retired = new WeakSet<Confinement>();

  /** Keeps the folder open until the result is called, which may happen more than once. */
  hold(folder: Confinement): () => void {
    this.#users.set(folder, (this.#users.get(folder) ?? 0) + 1);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const users = this.#users.get(folder)! - 1;
      if (users > 0) this.#users.set(folder, users);
      else this.#users.delete(folder);
      this.#settle(folder);
    };
  }

  /** Nothing new will be opened in the folder: it is closed now, or when its last user is done. */
  retire(folder: Confinement): void {
    this.#retired.add(folder);
    this.#settle(folder);
  }

  #settle(folder: Confinement): void {
    if (this.#users.has(folder) || !this.#retired.has(folder)) return;
    // Only reading was going on: there is nothing that closing could lose, and nobody left who could be told.
    folder.close().catch(() => undefined);
  }
}

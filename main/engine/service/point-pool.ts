/**
 * Open points, shared by everybody who looks at them. A point in use is never closed; idle ones are kept for the next look,
 * up to a number, since opening a chain again for every folder would be felt.
 */
import { OpenFolders } from './open-folders.ts';
import { OpenPoint, type PointLocation } from './open-point.ts';

const KEEP_IDLE = 8;

interface Slot {
  readonly point: OpenPoint;
  /** Lets go of the folder that the point is in. */
  readonly letGo: () => void;
  users: number;
  /** Its catalog was read anew: it ends with its last user. */
  forgotten: boolean;
}

export interface Lease {
  readonly point: OpenPoint;
  release(): void;
}

export class PointPool {
  readonly #slots = new Map<string, Slot>();
  /** Forgotten points that are still in use. */
  readonly #leaving = new Set<Slot>();
  readonly #synchronous: boolean;
  readonly #folders: OpenFolders;

  constructor(synchronous: boolean, folders = new OpenFolders()) {
    this.#synchronous = synchronous;
    this.#folders = folders;
  }

  /** Takes the point for use; `release` it exactly once. */
  lease(location: PointLocation): Lease {
    const key = JSON.stringify([location.source, location.vm, location.point]);
    let slot = this.#slots.get(key);
    if (slot === undefined) {
      const point = new OpenPoint(location, this.#synchronous);
      slot = { point, letGo: this.#folders.hold(location.folder), users: 0, forgotten: false };
    }
    // Deleting and setting again keeps the map in order of use.
    this.#slots.delete(key);
    this.#slots.set(key, slot);
    const taken = slot;
    taken.users++;
    let released = false;
    return {
      point: taken.point,
      release: () => {
        if (released) return;
        released = true;
        taken.users--;
        if (taken.forgotten && taken.users === 0) this.#end(taken);
        else this.#trim();
      },
    };
  }

  #trim(): void {
    let idle = [...this.#slots.values()].filter((slot) => slot.users === 0).length;
    for (const [key, slot] of this.#slots) {
      if (idle <= KEEP_IDLE) break;
      if (slot.users > 0) continue;
      this.#slots.delete(key);
      this.#end(slot);
      idle--;
    }
  }

  #end(slot: Slot): void {
    this.#leaving.delete(slot);
    // Whoever let go of it is done and can't be told; only reading was going on, so there is nothing that closing could lose.
    closed(slot).catch(() => undefined);
  }

  /** Lets go of every point of a source, after its catalog was read anew: of idle ones now, of others with their last user. */
  async forget(source: string): Promise<void> {
    const closing: Promise<void>[] = [];
    for (const [key, slot] of this.#slots) {
      if (slot.point.location.source !== source) continue;
      this.#slots.delete(key);
      if (slot.users === 0) {
        closing.push(closed(slot));
      } else {
        slot.forgotten = true;
        this.#leaving.add(slot);
      }
    }
    await Promise.all(closing);
  }

  async close(): Promise<void> {
    const slots = [...this.#slots.values(), ...this.#leaving];
    this.#slots.clear();
    this.#leaving.clear();
    await Promise.all(slots.map(closed));
  }
}

async function closed({ point, letGo }: Slot): Promise<void> {
  try {
    await point.close();
  } finally {
    letGo();
  }
}

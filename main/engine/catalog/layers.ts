/**
 * The layers of a repository, each opened once in a scan however many points stand on it, asked what the catalog needs to know,
 * and closed again. Links between them are followed and checked once, so that sixty points on one chain cost sixty layers, and
 * a repository of thousands of images holds one of them open at a time.
 */
import { dirname } from 'node:path';
import { checkLink, findParent, loop, MAX_DEPTH, type ParentPlace, tooDeep } from '../chain/open.ts';
import { CancelledError, ChainliftError, throwIfCancelled } from '../errors.ts';
import { openLayer } from '../image/formats.ts';
import type { ImageLayer } from '../image/image.ts';
import { readDescriptor } from '../image/vmdk/vmdk-layer.ts';
import type { Confinement } from '../storage/confinement.ts';

/** What stays known of a layer when it has been closed. */
export interface LayerFacts
  extends Pick<
    ImageLayer,
    | 'format'
    | 'variant'
    | 'name'
    | 'path'
    | 'virtualSize'
    | 'parent'
    | 'id'
    | 'otherIds'
    | 'files'
    | 'properties'
    | 'snapshots'
  > {
  /** Bytes it holds itself, or why they can't be counted. */
  readonly allocated: number | ChainliftError;
}

/** A chain as far as it could be followed, from leaf to base. */
export interface ChainFacts {
  readonly layers: readonly LayerFacts[];
  /** Names of the layers; one array for all who ask for this chain. */
  readonly names: readonly string[];
  readonly error?: ChainliftError;
}

/** The step from a layer to its parent: neither for a base. */
interface Link {
  readonly parent?: LayerFacts;
  readonly error?: ChainliftError;
}

export class LayerIndex {
  readonly folder: Confinement;
  readonly #open: typeof openLayer;
  readonly #signal: AbortSignal | undefined;
  readonly #onImage: ((path: string) => void) | undefined;
  readonly #facts = new Map<string, Promise<LayerFacts | ChainliftError>>();
  readonly #links = new Map<string, Promise<Link>>();
  /** Folders of layers that lie outside the repository. */
  readonly #elsewhere = new Map<string, Confinement>();
  readonly #chains = new Map<string, Promise<ChainFacts>>();
  /** Chains that `claim` has walked, by the set it filled: the next point on them stops where they meet. */
  readonly #claimed = new WeakMap<Set<string>, Set<string>>();

  /** @param options.open stands in for `openLayer` in tests. */
  constructor(
    folder: Confinement,
    options: { signal?: AbortSignal; onImage?: (path: string) => void; open?: typeof openLayer } = {},
  ) {
    this.folder = folder;
    this.#onImage = options.onImage;
    this.#signal = options.signal;
    this.#open = options.open ?? openLayer;
  }

  /**
   * The layer in the file at `path` (a real path), or why it can't be opened. @param place how it is opened where a child says so,
   * or the user pointed at it. @throws CancelledError.
   */
  facts(path: string, place?: ParentPlace): Promise<LayerFacts | ChainliftError> {
    let known = this.#facts.get(path);
    if (known === undefined) {
      known = this.#read(path, place);
      this.#facts.set(path, known);
    }
    return known;
  }

  async #read(path: string, place: ParentPlace | undefined): Promise<LayerFacts | ChainliftError> {
    throwIfCancelled(this.#signal);
    this.#onImage?.(path);
    let layer: ImageLayer | undefined;
    try {
      layer = await this.#open(path, place?.folder ?? this.folder, place?.format);
      const { format, variant, name, virtualSize, parent, id, otherIds, files, properties, snapshots } = layer;
      const allocated = await layer.allocatedBytes(this.#signal).catch(ours);
      const ids = otherIds === undefined ? { id } : { id, otherIds };
      const facts = { format, variant, name, path, virtualSize, parent, ...ids, files, properties, allocated };
      return snapshots === undefined ? facts : { ...facts, snapshots };
    } catch (error) {
      return ours(error);
    } finally {
      await layer?.close();
    }
  }

  #link(child: LayerFacts): Promise<Link> {
    let known = this.#links.get(child.path);
    if (known === undefined) {
      known = this.#follow(child);
      this.#links.set(child.path, known);
    }
    return known;
  }

  async #follow(child: LayerFacts): Promise<Link> {
    if (child.parent === undefined) return {};
    try {
      const place = await findParent(child, this.#folderOf(child));
      if (place.folder !== this.folder) this.#elsewhere.set(place.path, place.folder);
      const parent = await this.facts(place.path, place);
      if (parent instanceof ChainliftError) return { error: parent };
      checkLink(child, parent);
      return { parent };
    } catch (error) {
      return { error: ours(error) };
    }
  }

  /** The file that a layer names as its parent, whether or not it is the right one; undefined when there is none. */
  async namedParent(child: LayerFacts): Promise<string | undefined> {
    if (child.parent === undefined) return undefined;
    try {
      return (await findParent(child, this.#folderOf(child))).path;
    } catch (error) {
      ours(error);
      return undefined;
    }
  }

  /** What confines a layer: the repository, or the folder of a parent that the user pointed at. */
  #folderOf(layer: LayerFacts): Confinement {
    return this.#elsewhere.get(layer.path) ?? this.folder;
  }

  /** Names of the images asked so far that have this identity, those nearest to `child` first. */
  async withId(id: string, child: string): Promise<string[]> {
    const found: string[] = [];
    for (const known of this.#facts.values()) {
      const facts = await known;
      if (facts instanceof ChainliftError || facts.name === child) continue;
      if (facts.id === id || facts.otherIds?.includes(id)) found.push(facts.name);
    }
    const place = (name: string): number => (dirname(name) === dirname(child) ? 0 : 1);
    return found.sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
  }

  /** The files that the image at `path` consists of; where it can't be opened, those that its descriptor names and that are there. */
  async filesOf(path: string): Promise<string[]> {
    const facts = await this.facts(path);
    if (!(facts instanceof ChainliftError)) return facts.files.map((file) => file.path);
    const files = [path];
    try {
      for (const { name } of (await readDescriptor(path, this.folder))?.extents ?? []) {
        if (name !== undefined) files.push(this.folder.resolveRecorded(name, path));
      }
    } catch (error) {
      // It is broken, and that has been told where it is used; what could be learnt until then is enough.
      ours(error);
    }
    return files;
  }

  /**
   * Adds to `used` every file of every layer under the image at `path`, including what a broken link names: a parent that was
   * changed is still the one that was meant.
   */
  async claim(path: string, used: Set<string>): Promise<void> {
    for (let next: string | undefined = path, depth = 0; next !== undefined && depth < MAX_DEPTH; depth++) {
      if (this.#claimed.get(used)?.has(next)) return;
      this.#claimed.set(used, (this.#claimed.get(used) ?? new Set()).add(next));
      for (const file of await this.filesOf(next)) used.add(file);
      const facts = await this.facts(next);
      next = facts instanceof ChainliftError ? undefined : await this.namedParent(facts);
    }
  }

  /** The chain under the image at `path`. @throws CancelledError. */
  chain(path: string): Promise<ChainFacts> {
    let known = this.#chains.get(path);
    if (known === undefined) {
      known = this.#walk(path).then((chain) => ({ ...chain, names: chain.layers.map((layer) => layer.name) }));
      this.#chains.set(path, known);
    }
    return known;
  }

  async #walk(path: string): Promise<Omit<ChainFacts, 'names'>> {
    const leaf = await this.facts(path);
    if (leaf instanceof ChainliftError) return { layers: [], error: leaf };
    const layers = [leaf];
    const visited = new Set([leaf.path]);
    for (let at = leaf; ; ) {
      const { parent, error } = await this.#link(at);
      if (error !== undefined) return { layers, error };
      if (parent === undefined) return { layers };
      if (visited.has(parent.path)) return { layers, error: loop(at, parent) };
      if (layers.length >= MAX_DEPTH) return { layers, error: tooDeep(leaf) };
      layers.push(parent);
      visited.add(parent.path);
      at = parent;
    }
  }
}

/** An error of our families as a value; cancellation and everything else goes on being thrown. */
function ours(error: unknown): ChainliftError {
  if (error instanceof ChainliftError && !(error instanceof CancelledError)) return error;
  throw error;
}

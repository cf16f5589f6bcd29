/**
 * Parents that the user pointed at, because the names that images record lead nowhere any more. What is said is checked (the
 * parent must have the identity that its child records, where the format has one) and remembered in a small JSON file of the
 * user's configuration folder, by the folder that was opened.
 */
import { existsSync, realpathSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Finding, LocatedParent } from '../../../preload/api.ts';
import { sourceOf } from '../catalog/source.ts';
import { checkLink } from '../chain/open.ts';
import { IoError, UsageError } from '../errors.ts';
import { imagePath, openLayer } from '../image/formats.ts';
import { type ImageLayer, splitSnapshotPath } from '../image/image.ts';
import { Confinement } from '../storage/confinement.ts';

/** By opened folder (real path), then by the child's path in it (absolute where it lies outside); values are real paths of parents. */
type Stored = Record<string, Record<string, string>>;

export class LocatedParents {
  readonly #folder: string | undefined;
  #known: Promise<Stored> | undefined;
  /** Changes one after the other, so that two at once do not lose one. */
  #queue: Promise<unknown> = Promise.resolve();

  /** @param folder the configuration folder; undefined to remember only while the engine lives. */
  constructor(folder: string | undefined) {
    this.#folder = folder;
  }

  /** What is known for a repository folder or image file, as `ConfinementOptions.located` takes it. */
  async of(source: string): Promise<ReadonlyMap<string, string>> {
    const stored = await this.#stored();
    if (Object.keys(stored).length === 0) return new Map();
    const root = rootOf(source);
    return new Map(Object.entries(stored[root] ?? {}).map(([child, parent]) => [resolve(root, child), parent]));
  }

  /**
   * Checks and remembers where a parent is. @throws MissingParentError when the file is another one, UsageError when the child has
   * no parent, and what opening the two throws.
   */
  async locate(request: { source: string; child: string; parent: string }): Promise<LocatedParent> {
    const root = rootOf(request.source);
    const known = (await this.#stored())[root] ?? {};
    // A layer that was itself pointed at lies outside, and is called by its name alone.
    const outside = Object.values(known).find(
      (path) => basename(path) === request.child && !existsSync(join(root, request.child)),
    );
    const folder = new Confinement(outside === undefined ? root : dirname(outside));
    const parentPath = realPathOf(request.parent);
    const beside = new Confinement(dirname(parentPath));
    const opened: ImageLayer[] = [];
    try {
      const child = await openLayer(request.child, folder);
      opened.push(child);
      if (child.parent === undefined) {
        throw new UsageError(`${child.name} is a base: it has no parent`, { child: child.name });
      }
      if (parentPath === child.path) throw new UsageError('An image is not its own parent', { child: child.name });
      const parent = await openLayer(parentPath, beside, child.parent.format);
      opened.push(parent);
      checkLink(child, parent);
      const childPath = outside ?? folder.label(await imagePath(imageOf(request.child), folder));
      await this.#change((stored) => ({ ...stored, [root]: { ...stored[root], [childPath]: parentPath } }));
      return {
        child: child.name,
        parent: parentPath,
        proved: child.parent.id !== undefined,
        findings: misfits(child, parent),
      };
    } finally {
      await Promise.all(opened.map((layer) => layer.close()));
      await Promise.all([folder.close(), beside.close()]);
    }
  }

  /** Forgets what was said of a child's parent. */
  async forget(request: { source: string; child: string }): Promise<void> {
    const root = rootOf(request.source);
    await this.#change((stored) => {
      const { [imageOf(request.child)]: _gone, ...rest } = stored[root] ?? {};
      const { [root]: _all, ...others } = stored;
      return Object.keys(rest).length === 0 ? others : { ...others, [root]: rest };
    });
  }

  #stored(): Promise<Stored> {
    this.#known ??= this.#read();
    return this.#known;
  }

  async #read(): Promise<Stored> {
    if (this.#folder === undefined) return {};
    const file = join(this.#folder, 'located.json');
    let text: string;
    try {
      text = await readFile(file, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
      throw new IoError('The list of located parents cannot be read', { source: file }, error);
    }
    try {
      return storedIn(JSON.parse(text));
    } catch {
      // Cut off by a full disk or a crash: the user is asked again where the parents are.
      return {};
    }
  }

  #change(edit: (stored: Stored) => Stored): Promise<void> {
    const change = this.#queue.then(async () => {
      const next = edit(await this.#stored());
      if (this.#folder !== undefined) await write(this.#folder, next);
      this.#known = Promise.resolve(next);
    });
    // The next change waits for this one's end, however it ends; its own caller hears of the failure.
    this.#queue = change.catch(() => undefined);
    return change;
  }
}

async function write(folder: string, stored: Stored): Promise<void> {
  const file = join(folder, 'located.json');
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const partial = `${file}.${process.pid}.part`;
    await writeFile(partial, `${JSON.stringify(stored, null, 2)}\n`, { mode: 0o600 });
    await rename(partial, file);
  } catch (error) {
    throw new IoError('The list of located parents cannot be written', { source: file }, error);
  }
}

/** What of a parsed file has the right shape. */
function storedIn(value: unknown): Stored {
  const result: Stored = {};
  if (typeof value !== 'object' || value === null) return result;
  for (const [root, links] of Object.entries(value)) {
    if (typeof links !== 'object' || links === null) continue;
    const fit = Object.entries(links).filter((link): link is [string, string] => typeof link[1] === 'string');
    if (fit.length > 0) result[root] = Object.fromEntries(fit);
  }
  return result;
}

/** What does not fit, and still proves nothing. */
function misfits(child: ImageLayer, parent: ImageLayer): Finding[] {
  if (child.virtualSize === parent.virtualSize) return [];
  return [
    {
      severity: 'suspicious',
      code: 'size-mismatch',
      message: `${child.name} is a disk of ${child.virtualSize} bytes, and ${parent.name} one of ${parent.virtualSize}`,
      source: child.name,
      structure: 'virtual size',
      expected: child.virtualSize,
      found: parent.virtualSize,
    },
  ];
}

/** A snapshot inside an image has that image's parent. */
function imageOf(child: string): string {
  return splitSnapshotPath(child)?.image ?? child;
}

/** The folder that a source opens: itself, or the one its image lies in. @throws as `sourceOf`. */
function rootOf(source: string): string {
  return sourceOf(source).root;
}

function realPathOf(path: string): string {
  try {
    return realpathSync(resolve(path));
  } catch (error) {
    throw new IoError(`${path} cannot be opened`, { source: path }, error);
  }
}

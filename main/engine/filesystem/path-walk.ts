/**
 * Paths inside a guest volume, resolved the way the guest's kernel would (path_resolution(7)) but never leaving the volume:
 * `..` of the root is the root, and an absolute link target begins at the volume's root.
 *
 * Components are names as `list` shows them (escaped by names.ts), so a path put together from listed names always leads back.
 */
import { ChainliftError, NotFoundError } from '../errors.ts';
import type { Entry } from './file-system.ts';

/** As many symbolic links as Linux follows in one path before it gives up with ELOOP. */
export const maxLinks = 40;
/** Link targets can multiply a path; no honest path has this many components. */
const maxComponents = 10_000;

/** What a walk needs of a file system. */
export interface PathTree {
  root(): Promise<Entry>;
  /**
   * The entry called `name` (one component, neither `.` nor `..`) in a directory, undefined when there is none.
   * @throws CorruptError when a damaged directory can't say.
   */
  lookup(directory: Entry, name: string): Promise<Entry | undefined>;
  /** Target of a symbolic link. */
  readLink(entry: Entry): Promise<string>;
}

/** The components of a path; empty ones and `.` mean nothing and are left out. */
export function splitPath(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}

/**
 * Walks `path` from the root of `tree`. Symbolic links are followed in every component but the last, and there too when
 * `follow` is set or the path ends in `/`.
 *
 * @throws NotFoundError when a component is absent, is no directory although more follows, or more than 40 links were met;
 * the error of a damaged entry when one is met.
 */
export async function walkPath(tree: PathTree, path: string, options: { follow?: boolean } = {}): Promise<Entry> {
  const followLast = (options.follow ?? false) || /\/\.?$/.test(path);
  // Reversed, so that the next component is popped off the end and a link's target is pushed on top of what is left.
  const rest = splitPath(path).reverse();
  const ancestors: Entry[] = [];
  let at = await tree.root();
  let links = 0;
  let seen = 0;
  while (rest.length > 0) {
    const name = rest.pop()!;
    if (++seen > maxComponents) throw notFound(path, name, `more than ${maxComponents} components`);
    if (at.kind !== 'directory') throw notFound(path, name, `${shown(at)} is not a directory`);
    if (name === '..') {
      at = ancestors.pop() ?? at;
      continue;
    }
    const next = await tree.lookup(at, name);
    if (next === undefined) throw notFound(path, name, `there is no such entry in ${shown(at)}`);
    if (next.error !== undefined && (rest.length > 0 || next.kind === 'unknown')) throw next.error;
    if (next.kind === 'symlink' && (rest.length > 0 || followLast)) {
      if (++links > maxLinks) throw notFound(path, name, `more than ${maxLinks} symbolic links`);
      const target = await tree.readLink(next);
      if (target === '') throw notFound(path, name, 'an empty symbolic link');
      if (target.startsWith('/')) {
        ancestors.length = 0;
        at = await tree.root();
      }
      const parts = splitPath(target);
      for (let i = parts.length - 1; i >= 0; i--) rest.push(parts[i]!);
      continue;
    }
    ancestors.push(at);
    at = next;
  }
  return at;
}

function shown(entry: Entry): string {
  return entry.name === '' ? '/' : JSON.stringify(entry.name);
}

function notFound(path: string, component: string, reason: string): NotFoundError {
  return new NotFoundError(`"${path}"`, { path, component, reason });
}

/** The error itself when it belongs to the engine's families; anything else is a bug and is thrown on. */
export function asEntryError(error: unknown): ChainliftError {
  if (error instanceof ChainliftError) return error;
  throw error;
}

/**
 * Parents that are known by their identity alone (VDI records no name), and candidates for parents whose recorded name leads
 * nowhere: images of the same family in and around the child's folder, each asked for its identity.
 */
import { statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, extname, join } from 'node:path';
import { CancelledError, ChainliftError } from '../errors.ts';
import { openLayer } from '../image/formats.ts';
import type { ImageLayer } from '../image/image.ts';
import type { Confinement } from '../storage/confinement.ts';
import type { LinkEnd } from './open.ts';

/** Images asked at most, and entries of one folder looked at. */
const MAX_IMAGES = 4_096;
const MAX_ENTRIES = 20_000;

/** Endings under which one family of formats is kept. */
const FAMILIES = [/\.vdi$/i, /\.a?vhd$/i, /\.a?vhdx$/i, /\.vmdk$/i];

/**
 * Real path of the image whose identity is the one that `child` records of its parent; undefined when none is found. Looked for in
 * the child's folder, the folders below it, the one above and those beside (VirtualBox keeps snapshots in a folder of their own),
 * never outside the opened folder.
 */
export async function findById(
  child: Pick<LinkEnd, 'path' | 'parent'>,
  folder: Confinement,
): Promise<string | undefined> {
  // What was asked before is taken as it was then; where that leads nowhere, a file may have changed since.
  return (await search(child, folder, false)) ?? (await search(child, folder, true));
}

async function search(
  child: Pick<LinkEnd, 'path' | 'parent'>,
  folder: Confinement,
  anew: boolean,
): Promise<string | undefined> {
  const wanted = child.parent?.id;
  if (wanted === undefined) return undefined;
  const family = FAMILIES.find((endings) => endings.test(child.path)) ?? endingLike(child.path);
  // A copy of the parent from another moment has its identity, but another state: the right one is preferred.
  const state = child.parent?.stateId;
  let found: string | undefined;
  let asked = 0;
  for await (const path of around(child.path, folder)) {
    if (path === child.path || !family.test(path)) continue;
    if (++asked > MAX_IMAGES) break;
    let layer = await identity(path, folder, anew);
    if (layer !== undefined && isWanted(layer, wanted)) layer = await identity(path, folder, true);
    if (layer === undefined || !isWanted(layer, wanted)) continue;
    if (state === undefined || layer.stateId === state) return path;
    found ??= path;
  }
  return found;
}

function isWanted({ id, otherIds }: Identity, wanted: string): boolean {
  return id === wanted || otherIds?.includes(wanted) === true;
}

function endingLike(path: string): RegExp {
  const ending = extname(path).replaceAll(/[^a-z0-9.]/gi, '');
  return new RegExp(`${ending.replace('.', '\\.')}$`, 'i');
}

type Identity = Pick<ImageLayer, 'id' | 'otherIds' | 'stateId'>;

/** Identities that are remembered for one folder. */
const MAX_KNOWN = 4_096;

/**
 * Identities of images that were asked, by their real path: every link of a chain asks all images around it, which would open each as
 * often as the chain is deep. `stamp` changes with the file.
 */
const known = new WeakMap<
  Confinement,
  Map<string, { readonly stamp: string; readonly identity: Identity | undefined }>
>();

/**
 * The identity of an image; undefined for what can't be opened, which is nobody's parent. @param anew look whether the file has changed
 * since it was asked last.
 */
async function identity(path: string, folder: Confinement, anew: boolean): Promise<Identity | undefined> {
  let asked = known.get(folder);
  if (asked === undefined) {
    asked = new Map();
    known.set(folder, asked);
  }
  const before = asked.get(path);
  if (before !== undefined && !anew) return before.identity;
  const stamp = stampOf(path, folder);
  if (before !== undefined && before.stamp === stamp) return before.identity;
  const found = await readIdentity(path, folder);
  if (asked.size >= MAX_KNOWN) asked.clear();
  if (stamp !== undefined) asked.set(path, { stamp, identity: found });
  return found;
}

/** What changes when the file does; undefined where it can't be told. A mounted archive does not change. */
function stampOf(path: string, folder: Confinement): string | undefined {
  if (folder.archiveOf(path) !== undefined) return 'member';
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join();
  } catch {
    // Opening it will say why.
    return undefined;
  }
}

async function readIdentity(path: string, folder: Confinement): Promise<Identity | undefined> {
  try {
    const layer = await openLayer(path, folder);
    await layer.close();
    const { id, otherIds, stateId } = layer;
    return { id, ...(otherIds === undefined ? {} : { otherIds }), ...(stateId === undefined ? {} : { stateId }) };
  } catch (error) {
    if (error instanceof ChainliftError && !(error instanceof CancelledError)) return undefined;
    throw error;
  }
}

/** Files around an image, nearest first. */
async function* around(path: string, folder: Confinement): AsyncIterable<string> {
  const inside = folder.archiveOf(path);
  if (inside !== undefined) {
    for (const { name } of inside.archive.members()) yield join(inside.archive.path, name);
    return;
  }
  const own = dirname(path);
  const above = own === folder.root ? undefined : dirname(own);
  const seen = new Set<string>();
  for (const place of above === undefined ? [own] : [own, above]) {
    const below: string[] = [];
    for (const entry of await entries(place)) {
      if (entry.isFile()) yield join(place, entry.name);
      else if (entry.isDirectory()) below.push(join(place, entry.name));
    }
    seen.add(place);
    for (const deeper of below) {
      if (seen.has(deeper)) continue;
      seen.add(deeper);
      for (const entry of await entries(deeper)) if (entry.isFile()) yield join(deeper, entry.name);
    }
  }
}

async function entries(place: string) {
  try {
    const found = await readdir(place, { withFileTypes: true });
    return found.slice(0, MAX_ENTRIES).sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch {
    // A folder that can't be listed has no candidates; the missing parent is what is told.
    return [];
  }
}

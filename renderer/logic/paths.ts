/** Paths inside a VM: `/<volume>/<path>`, always with `/`. Names may hold any character but `/`. */

export const ROOT = '/';

/** `/sda1` + `srv` -> `/sda1/srv`. */
export function joinPath(folder: string, name: string): string {
  return folder === ROOT ? `/${name}` : `${folder}/${name}`;
}

/** The folder that holds it; the root's is the root. */
export function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash <= 0 ? ROOT : path.slice(0, slash);
}

export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** `sda1` of `/sda1/srv/www`; undefined for the root. */
export function volumeOf(path: string): string | undefined {
  return path.split('/')[1] || undefined;
}

export interface Crumb {
  readonly name: string;
  readonly path: string;
}

/** The folders on the way to a path, volume first; empty for the root. */
export function crumbs(path: string): Crumb[] {
  const names = path.split('/').filter((name) => name !== '');
  return names.map((name, index) => ({ name, path: `/${names.slice(0, index + 1).join('/')}` }));
}

/** All folders above a path, nearest first, ending with the root. */
export function ancestors(path: string): string[] {
  const result: string[] = [];
  for (let at = path; at !== ROOT; ) {
    at = parentOf(at);
    result.push(at);
  }
  return result;
}

/**
 * Where a symbolic link leads, inside the volume that holds it: an absolute target begins at the volume's root (where the
 * guest mounted it is not known), and `..` never leaves the volume.
 */
export function linkDestination(linkPath: string, target: string): string | undefined {
  const volume = volumeOf(linkPath);
  if (volume === undefined) return undefined;
  const start = target.startsWith('/')
    ? []
    : crumbs(parentOf(linkPath))
        .slice(1)
        .map((crumb) => crumb.name);
  const names = [...start];
  for (const part of target.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') names.pop();
    else names.push(part);
  }
  return `/${[volume, ...names].join('/')}`;
}

/** Last component of a path of this computer, Windows' or POSIX. */
export function hostName(path: string): string {
  const parts = path.split(/[\\/]/).filter((part) => part !== '');
  return parts.at(-1) ?? path;
}

/**
 * What an image is called where there is no room for its whole path: a snapshot inside an image together with that image
 * (`web01.qcow2 @2`), a Parallels disk as its folder.
 */
export function imageName(path: string): string {
  const [last, above] = path
    .split('/')
    .filter((part) => part !== '')
    .reverse();
  if (last === undefined) return path;
  if (above === undefined) return last;
  if (/^DiskDescriptor\.xml$/i.test(last)) return above;
  return last.startsWith('@') ? `${above} ${decoded(last)}` : last;
}

/** As it stands where a "%" encodes nothing. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A folder of this computer and a name in it. */
export function hostJoin(folder: string, name: string): string {
  const separator = folder.includes('\\') && !folder.includes('/') ? '\\' : '/';
  return folder.endsWith(separator) ? `${folder}${name}` : `${folder}${separator}${name}`;
}

/** The folder above a path of this computer; undefined for a root and for what is no absolute path. */
export function hostParent(path: string): string | undefined {
  const root = /^(?:[A-Za-z]:[\\/]|[\\/])/.exec(path)?.[0];
  const bare = path.replace(/[\\/]+$/, '');
  if (root === undefined || bare.length < root.length) return undefined;
  const cut = Math.max(bare.lastIndexOf('/'), bare.lastIndexOf('\\'));
  return cut < root.length ? root : bare.slice(0, cut);
}

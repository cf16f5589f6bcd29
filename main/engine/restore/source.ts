/** What is copied: entries of mounted volumes, named by their paths inside the VM. */
import { UsageError } from '../errors.ts';
import type { Entry, FileSystem } from '../filesystem/file-system.ts';

export interface CopySource {
  /** Absolute path inside the VM: `/sda1/srv/www`. */
  readonly path: string;
  readonly fileSystem: FileSystem;
  readonly entry: Entry;
  /** Name to give the copy: the last component of `path`. */
  readonly name: string;
}

/** Splits `/sda1/srv/www` into the volume's name and the path inside it. @throws UsageError when there is no volume in it. */
export function splitVmPath(path: string): { volume: string; inside: string } {
  const match = /^\/+([^/]+)(\/.*)?$/s.exec(path);
  if (match === null)
    throw new UsageError(`"${path}" names no volume; a path inside a VM is /<volume>/<path>`, { path });
  return { volume: match[1]!, inside: match[2] ?? '/' };
}

/** Joins a path inside the VM and a name. */
export function joinVmPath(folder: string, name: string): string {
  return folder.endsWith('/') ? `${folder}${name}` : `${folder}/${name}`;
}

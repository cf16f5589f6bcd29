/**
 * Indexes of compressed archives, kept in a private folder from one run to the next: making one means reading the whole file. An
 * entry is named by a hash of what identifies the file (path, size, times, inode); it is used only when its own hash is right
 * and it fits the file, and made anew otherwise. The folder's size is limited; what was used longest ago goes first.
 *
 * A cache that can't be read or written costs time and nothing else, so that is told as a note, and no error.
 */
import { createHash, randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, mkdir, open, readdir, rename, stat, unlink, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { deserialize, serialize } from 'node:v8';
import type { ArchiveFinding, ArchiveMember } from './archive.ts';
import type { GzipPlaces } from './gzip-index.ts';
import { type ChunkColumns, ChunkList, TarIndex } from './tar-index.ts';

/** All entries together, and one of them, in bytes. */
const FOLDER_BYTES = 1 << 30;
const ENTRY_BYTES = 256 << 20;
/** A temporary file this old was left by a process that ended early. */
const STALE_MS = 24 * 60 * 60 * 1000;
const ENDING = '.gzindex';
/** Changes when the shape of an entry does. */
const MAGIC = Buffer.from('chainlift gzip index 1\n', 'latin1');
const HASH_BYTES = 32;

/** Where the index of one file is kept. */
export interface IndexPlace {
  readonly folder: string;
  /** What identifies the file and its state. */
  readonly identity: string;
  /** Ceiling of the folder in bytes; 1 GiB when absent. */
  readonly folderBytes?: number;
}

export interface StoredIndex {
  readonly places: GzipPlaces;
  /** When the content is a tar. */
  readonly tar: TarIndex | undefined;
}

/** An entry's content: structured-clone data. */
interface Entry {
  readonly identity: string;
  readonly fileSize: number;
  readonly places: GzipPlaces;
  readonly tar:
    | {
        readonly members: readonly ArchiveMember[];
        readonly folders: readonly { name: string; digits: number; count: number; columns: ChunkColumns }[];
        readonly findings: readonly ArchiveFinding[];
      }
    | undefined;
}

/** The kept index of a file of `fileSize` bytes; undefined when there is none that can be used. Never throws. */
export async function loadIndex(place: IndexPlace, fileSize: number): Promise<StoredIndex | undefined> {
  const path = entryPath(place);
  try {
    if ((await privateFolder(place.folder)) !== undefined) return undefined;
    const file = await open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0));
    let bytes: Buffer;
    try {
      const { size } = await file.stat();
      if (size > ENTRY_BYTES || size < MAGIC.length + HASH_BYTES) return undefined;
      bytes = await file.readFile();
    } finally {
      await file.close();
    }
    const body = bytes.subarray(MAGIC.length + HASH_BYTES);
    if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
    if (!bytes.subarray(MAGIC.length, MAGIC.length + HASH_BYTES).equals(sha256(body))) return undefined;
    const entry = deserialize(body) as Entry;
    if (entry.identity !== place.identity || entry.fileSize !== fileSize || !isSound(entry.places, fileSize))
      return undefined;
    const now = new Date();
    await utimes(path, now, now);
    return { places: entry.places, tar: entry.tar === undefined ? undefined : revived(entry.tar) };
  } catch {
    // Not there, or not to be used: the index is made from the file, and nobody misses anything but time.
    return undefined;
  }
}

/** Keeps an index. @returns why it could not be kept, as a finding. */
export async function storeIndex(
  place: IndexPlace,
  index: StoredIndex,
  file: { readonly name: string; readonly size: number },
): Promise<ArchiveFinding | undefined> {
  const temporary = join(place.folder, `${randomUUID()}.tmp`);
  try {
    const refused = await privateFolder(place.folder);
    if (refused !== undefined) return notKept(file.name, refused);
    const body = serialize(entryOf(place.identity, file.size, index));
    const limit = place.folderBytes ?? FOLDER_BYTES;
    if (body.length > Math.min(ENTRY_BYTES, limit)) return notKept(file.name, 'it is larger than the cache may be');
    const handle = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      await handle.writeFile(Buffer.concat([MAGIC, sha256(body), body]));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, entryPath(place));
    await prune(place.folder, limit, entryPath(place));
    return undefined;
  } catch (error) {
    await unlink(temporary).catch(() => {});
    return notKept(file.name, error instanceof Error ? error.message : String(error));
  }
}

function notKept(source: string, why: string): ArchiveFinding {
  return {
    severity: 'note',
    code: 'index-not-kept',
    message: `The index of ${source} could not be kept for the next time, when it will be made anew: ${why}`,
    source,
  };
}

function entryPath({ folder, identity }: IndexPlace): string {
  return join(folder, `${createHash('sha256').update(identity).digest('hex')}${ENDING}`);
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** Makes the folder if it is not there. @returns why it must not be used: others could have written what is in it. */
async function privateFolder(folder: string): Promise<string | undefined> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const stats = await lstat(folder);
  if (!stats.isDirectory()) return `${folder} is no folder`;
  if (process.getuid === undefined) return undefined;
  if (stats.uid !== process.getuid()) return `${folder} belongs to another user`;
  return (stats.mode & 0o077) === 0 ? undefined : `${folder} is open to other users`;
}

/** Removes what was used longest ago until the folder is within its limit; `keep` stays. */
async function prune(folder: string, limit: number, keep: string): Promise<void> {
  const entries: { path: string; size: number; used: number }[] = [];
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    if (!name.endsWith(ENDING) && !name.endsWith('.tmp')) continue;
    // Another process may have removed it meanwhile.
    const stats = await stat(path).catch(() => undefined);
    if (stats === undefined) continue;
    if (name.endsWith('.tmp')) {
      if (Date.now() - stats.mtimeMs > STALE_MS) await unlink(path).catch(() => {});
    } else {
      entries.push({ path, size: stats.size, used: stats.mtimeMs });
    }
  }
  let total = entries.reduce((sum, { size }) => sum + size, 0);
  for (const { path, size } of entries.sort((a, b) => a.used - b.used)) {
    if (total <= limit) return;
    if (path === keep) continue;
    await unlink(path).catch(() => {});
    total -= size;
  }
}

function entryOf(identity: string, fileSize: number, { places, tar }: StoredIndex): Entry {
  return {
    identity,
    fileSize,
    places: { ...places },
    tar:
      tar === undefined
        ? undefined
        : {
            members: [...tar.members.values()],
            folders: [...tar.folders.values()].map(({ name, digits, count, columns }) => ({
              name,
              digits,
              count,
              columns: {
                numbers: columns.numbers.slice(0, count),
                sizes: columns.sizes.slice(0, count),
                positions: columns.positions.slice(0, count),
                sumPositions: columns.sumPositions.slice(0, count),
                sumSizes: columns.sumSizes.slice(0, count),
                sumKinds: columns.sumKinds.slice(0, count),
              },
            })),
            findings: tar.findings,
          },
  };
}

function revived(stored: NonNullable<Entry['tar']>): TarIndex {
  const index = new TarIndex();
  for (const member of stored.members) index.members.set(member.name, member);
  for (const { name, digits, count, columns } of stored.folders) {
    const list = new ChunkList(name, digits);
    list.columns = columns;
    list.count = count;
    index.folders.set(name, list);
  }
  index.findings.push(...stored.findings);
  return index;
}

/** Whether places can be those of a file of this size: whatever they are used for stays inside it. */
function isSound(places: GzipPlaces, fileSize: number): boolean {
  const { count, offsets, bits, blockBits, joints, windows, size } = places;
  const columns = [offsets, bits, blockBits, joints, windows];
  if (!(count >= 1 && size >= 0) || columns.some(({ length }) => length !== count) || offsets[0] !== 0) return false;
  for (let i = 0; i < count; i++) {
    if (!(bits[i]! <= fileSize * 8 && blockBits[i]! <= bits[i]! && offsets[i]! <= size)) return false;
    if (i > 0 && !(offsets[i]! > offsets[i - 1]! && bits[i]! > bits[i - 1]!)) return false;
  }
  return true;
}

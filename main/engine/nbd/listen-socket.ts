/**
 * Where a server may listen: a Unix socket only its owner can open, or TCP on this computer alone.
 *
 * Every data worker listens on a Unix socket of its own, inside a folder of mode 0700. Clients know one path: a second name (a hard
 * link) of the socket whose worker has the fewest clients, moved on by rename as clients come and go. A client that has found
 * the name reaches that worker, so nothing is lost in between, and what is bound to a socket's file (a container's mount)
 * stays with it.
 *
 * The folder also keeps others out: a socket's file gets its mode when it is bound, from the process's umask, which can't be changed
 * without changing it for every other thread too. It gets mode 0600 in there, before it gets its public name.
 */
import {
  chmodSync,
  linkSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  unlinkSync,
} from 'node:fs';
import { BlockList, connect, isIP } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { DeniedError, IoError, UsageError } from '../errors.ts';

/** `sun_path` has 108 bytes with its NUL on Linux, 104 on macOS and the BSDs. */
const MAX_SOCKET_PATH = process.platform === 'linux' ? 107 : 103;
/** Name of the folder beside a socket that the user placed. */
const BESIDE = '.nbd-';

/** A server's sockets: where workers bind, and the name that clients use. Plain data, for the workers. */
export interface SocketPlace {
  readonly folder: string;
  readonly path: string;
}

/** Where worker `index` binds. */
export function workerSocket(place: SocketPlace, index: number): string {
  return join(place.folder, String(index));
}

/**
 * Prepares a place for a server's sockets. Without `path` it is a new private folder. A socket at `path` that is ours and that
 * nobody listens on any more (its server was killed) is removed.
 *
 * @throws DeniedError when something else is at `path`, UsageError when the path is too long, IoError.
 */
export async function prepareSocket(path?: string): Promise<SocketPlace> {
  if (path === undefined) {
    const folder = makeFolder(join(runtimeFolder(), 'chainlift-'));
    return { folder, path: join(folder, 'nbd.sock') };
  }
  const wanted = resolve(path);
  await clearStale(wanted);
  const prefix = join(dirname(wanted), BESIDE);
  checkLength(wanted, Math.max(Buffer.byteLength(wanted), Buffer.byteLength(`${prefix}XXXXXX/00`)));
  return { folder: makeFolder(prefix), path: wanted };
}

/**
 * Makes the sockets reachable, once all workers listen. A link never replaces a file that is there.
 * @returns what the sockets are, for `hideSocket`. @throws DeniedError when there is a file, IoError.
 */
export function publishSocket(place: SocketPlace, workers: number): Stats[] {
  const sockets: Stats[] = [];
  for (let i = 0; i < workers; i++) {
    chmodSync(workerSocket(place, i), 0o600);
    sockets.push(lstatSync(workerSocket(place, i)));
  }
  try {
    linkSync(workerSocket(place, 0), place.path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw occupied(place.path);
    throw new IoError(`${place.path} cannot be made`, { path: place.path }, error);
  }
  return sockets;
}

/** Points the public name at a worker's socket, unless somebody took the name away. @throws what the file system says. */
export function pointSocket(place: SocketPlace, workers: number, to: number): void {
  const there = lstatSync(place.path, { throwIfNoEntry: false });
  if (there === undefined) return;
  const sockets = Array.from({ length: workers }, (_, i) => lstatSync(workerSocket(place, i)));
  if (!sockets.some((socket) => isSame(there, socket))) return;
  const next = join(place.folder, 'next');
  linkSync(workerSocket(place, to), next);
  renameSync(next, place.path);
  // Renaming a file over another name of itself does nothing and leaves both.
  rmSync(next, { force: true });
}

/** Removes the public name, while it is one of our sockets (as `publishSocket` returned them). */
export function hideSocket(place: SocketPlace, sockets: readonly Stats[]): void {
  const there = lstatSync(place.path, { throwIfNoEntry: false });
  if (there !== undefined && sockets.some((socket) => isSame(there, socket))) rmSync(place.path, { force: true });
}

/** Removes the folder of the sockets. */
export function removeFolder(place: SocketPlace): void {
  rmSync(place.folder, { recursive: true, force: true });
}

function isSame(one: Stats, other: Stats): boolean {
  return other.ino === one.ino && other.dev === one.dev;
}

/** Where a user's sockets belong; the folder for temporary files where the system has no such place. */
function runtimeFolder(): string {
  const folder = process.env.XDG_RUNTIME_DIR;
  const usable = folder !== undefined && (statSync(folder, { throwIfNoEntry: false })?.isDirectory() ?? false);
  return usable ? folder : tmpdir();
}

function makeFolder(prefix: string): string {
  try {
    return mkdtempSync(prefix);
  } catch (error) {
    throw new IoError(`A folder ${prefix}… for the socket cannot be made`, { path: dirname(prefix) }, error);
  }
}

function checkLength(path: string, bytes: number): void {
  if (bytes <= MAX_SOCKET_PATH) return;
  const over = bytes - MAX_SOCKET_PATH;
  throw new UsageError(`The socket path ${path} is too long by ${over} bytes for this system`, { path });
}

function occupied(path: string): DeniedError {
  return new DeniedError(`The socket ${path}`, 'there is a file of that name already', { path });
}

/** Removes a socket of ours that nobody listens on, and the folder that its server left beside it. */
async function clearStale(path: string): Promise<void> {
  let there: Stats | undefined;
  try {
    there = lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw new IoError(`${path} cannot be made`, { path }, error);
  }
  if (there === undefined) return;
  const ours = process.getuid === undefined || there.uid === process.getuid();
  if (!there.isSocket() || !ours) throw occupied(path);
  if (await answers(path)) throw new DeniedError(`The socket ${path}`, 'another server listens there', { path });
  try {
    unlinkSync(path);
    for (const name of readdirSync(dirname(path))) {
      const folder = join(dirname(path), name);
      if (!name.startsWith(BESIDE) || !holds(folder, there)) continue;
      rmSync(folder, { recursive: true, force: true });
    }
  } catch (error) {
    throw new IoError(`The stale socket ${path} cannot be removed`, { path }, error);
  }
}

/** True for a folder of ours with the socket in it. */
function holds(folder: string, socket: Stats): boolean {
  const stat = lstatSync(folder);
  if (!stat.isDirectory() || stat.uid !== socket.uid) return false;
  return readdirSync(folder).some((name) => isSame(socket, lstatSync(join(folder, name))));
}

/** True unless the system says that nobody listens. */
function answers(path: string): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      done(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => done(error.code !== 'ECONNREFUSED'));
  });
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/**
 * The numeric address of a host that only this computer reaches. Names other than `localhost` are not looked up: what they mean is
 * not ours to say. @throws DeniedError for every other address, UsageError for a port that is none.
 */
export function loopbackAddress(host: string, port: number): { host: string; port: number } {
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new UsageError(`${port} is not a TCP port`, { port });
  const address = host === 'localhost' ? '127.0.0.1' : host.replace(/^\[(.*)\]$/, '$1');
  const version = isIP(address);
  if (version === 0 || !loopback.check(address, version === 6 ? 'ipv6' : 'ipv4')) {
    throw new DeniedError(`Listening on ${host}`, 'exports are served to this computer only (127.0.0.1, ::1)', {
      host,
    });
  }
  return { host: address, port };
}

/**
 * A read-only NBD server: data workers that answer clients, and the handle that starts, watches and ends them.
 *
 * The order of its life: a place prepared -> workers open their devices -> each listens -> the socket gets its public name -> serving
 * -> close. Whatever fails on the way undoes what was done before it.
 *
 * There is no way to write: workers open everything read-only, and refuse every command that would change something.
 */
import { EventEmitter } from 'node:events';
import type { Stats } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { ChainliftError, CorruptError, type ErrorKind, UsageError, type WireError } from '../errors.ts';
import { loadBytes } from './balance.ts';
import { type ExportCommand, exportCommands } from './commands.ts';
import { HANDSHAKE_MS } from './connection.ts';
import { checkExportNames } from './exports.ts';
import {
  hideSocket,
  loopbackAddress,
  prepareSocket,
  publishSocket,
  removeFolder,
  type SocketPlace,
  workerSocket,
} from './listen-socket.ts';
import {
  COUNTERS,
  counterAt,
  counterBytes,
  type FromWorker,
  type ToWorker,
  type WorkerExport,
  type WorkerSetup,
} from './messages.ts';
import { exportUri, type ServerAddress } from './uri.ts';
import { dataWorkerUrl } from './worker-url.ts';

export interface NbdServerOptions {
  /** What is served; the first is also the default export. */
  readonly exports: readonly WorkerExport[];
  /**
   * Where: a Unix socket at a path, TCP on a loopback address (port 0 lets the system choose), or, when absent, a Unix socket in a
   * private folder (TCP on Windows, which has no Unix sockets for other programs' NBD clients).
   */
  readonly listen?: { readonly socket?: string } | { readonly host: string; readonly port: number };
  /** Data workers; the number of cores, at most 4, when absent. One where several can't listen at one address. */
  readonly workers?: number;
  /** Clients at a time, over all workers. */
  readonly maxConnections?: number;
  /** Time a client has to choose an export, in milliseconds. */
  readonly handshakeMs?: number;
}

export interface NbdExportStats {
  readonly name: string;
  readonly description: string;
  readonly uri: string;
  /** Bytes. */
  readonly size: number;
  /** Connected now. */
  readonly clients: number;
  /** Connected since the start. */
  readonly connections: number;
  readonly requests: number;
  readonly bytesRead: number;
  /** Requests that the device failed. */
  readonly errors: number;
}

export interface NbdServerEvents {
  connected: [{ export: string }];
  /** `reason` is there when the client did not end properly; `export` when it had chosen one. */
  disconnected: [{ export?: string; reason?: string }];
  /** A client was told EIO. At most ten a second and worker; `more` counts those left out before this one. */
  readFailed: [{ export: string; offset: number; length: number; error: WireError; more: number }];
  /** Clients can't be spread over the workers any more (the folder of the socket became read-only); they are served. */
  unbalanced: [{ error: WireError }];
  /** A worker died; the server has closed. */
  failed: [{ error: WireError }];
  /** Nothing is served any more. */
  closed: [];
}

export interface NbdServer {
  /** URI and size in bytes of the first export. */
  readonly uri: string;
  readonly size: number;
  readonly address: ServerAddress;
  /** Data workers. */
  readonly workers: number;
  readonly events: EventEmitter<NbdServerEvents>;
  /** Every export with its counters, in the order they were given; cheap. */
  stats(): { readonly exports: readonly NbdExportStats[] };
  /** Clients of each worker now. */
  loads(): number[];
  /** Commands ready to paste, for an export (the first when absent). @throws UsageError for a name that is not served. */
  commands(name?: string): ExportCommand[];
  /** Ends connections and workers and removes the socket's file, within three seconds. May be called again. */
  close(): Promise<void>;
}

/** Clients at a time, when not told otherwise. nbdcopy uses four connections, a kernel client one per core. */
const MAX_CONNECTIONS = 256;
/** Workers that don't end by themselves (a read that hangs in the kernel) are abandoned after this time. */
const CLOSE_MS = 3000;

/**
 * Starts a server. It serves until `close`; its workers keep the process alive.
 * @throws what opening the devices throws, with its kind kept; DeniedError and UsageError for an address that is not allowed.
 */
export async function startNbdServer(options: NbdServerOptions): Promise<NbdServer> {
  checkExportNames(options.exports);
  const wanted = options.workers ?? Math.min(4, availableParallelism());
  if (!Number.isInteger(wanted) || wanted < 1 || wanted > 64) {
    throw new UsageError(`An NBD server has 1 to 64 data workers, not ${wanted}`);
  }
  const { address, place } = await preparePlace(options.listen);
  const server = new Server(options, usableWorkers(wanted, place), place);
  try {
    await server.start(address, await dataWorkerUrl());
  } catch (error) {
    await server.close();
    throw error;
  }
  return server;
}

type TcpAddress = { readonly host: string; readonly port: number };

async function preparePlace(
  listen: NbdServerOptions['listen'],
): Promise<{ address: TcpAddress | undefined; place: SocketPlace | undefined }> {
  if (listen !== undefined && 'host' in listen) {
    return { address: loopbackAddress(listen.host, listen.port), place: undefined };
  }
  if (listen === undefined && process.platform === 'win32') {
    return { address: { host: '127.0.0.1', port: 0 }, place: undefined };
  }
  return { address: undefined, place: await prepareSocket(listen?.socket) };
}

/**
 * How many workers can listen at one address. Several listen on a Unix socket each, which needs links of sockets, and on one TCP port
 * with SO_REUSEPORT, where Linux spreads clients over them and Node (since 22.12) can ask for it.
 */
function usableWorkers(wanted: number, place: SocketPlace | undefined): number {
  if (process.platform !== 'linux') return 1;
  return place !== undefined || canReusePort() ? wanted : 1;
}

function canReusePort(): boolean {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  return major > 23 || (major === 23 && minor >= 1) || (major === 22 && minor >= 12);
}

/** An error that happened in a worker, with the kind and details it had there. */
class WorkerError extends ChainliftError {
  readonly kind: ErrorKind;
  constructor(kind: ErrorKind, wire: WireError) {
    super(wire.message, wire.details);
    this.kind = kind;
  }
}

function fromWire(wire: WireError): Error {
  return wire.kind === 'internal' ? new Error(wire.message) : new WorkerError(wire.kind, wire);
}

type Opened = Extract<FromWorker, { type: 'opened' }>;
type Listening = Extract<FromWorker, { type: 'listening' }>;

/** A promise that others settle; rejecting one nobody waits for is no unhandled rejection. */
class Signal<T> {
  readonly promise: Promise<T>;
  resolve!: (value: T) => void;
  reject!: (error: Error) => void;
  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.promise.catch(() => undefined);
  }
}

interface WorkerState {
  readonly thread: Worker;
  readonly opened: Signal<Opened>;
  readonly listening: Signal<Listening>;
  readonly exited: Signal<void>;
}

class Server implements NbdServer {
  readonly events = new EventEmitter<NbdServerEvents>();
  readonly workers: number;
  readonly #options: NbdServerOptions;
  readonly #place: SocketPlace | undefined;
  readonly #load: SharedArrayBuffer;
  #sockets: readonly Stats[] = [];
  readonly #counters: SharedArrayBuffer;
  readonly #values: Float64Array;
  readonly #states: WorkerState[] = [];
  #address: ServerAddress | undefined;
  #sizes: readonly number[] = [];
  #closing: Promise<void> | undefined;

  constructor(options: NbdServerOptions, workers: number, place: SocketPlace | undefined) {
    this.#options = options;
    this.workers = workers;
    this.#place = place;
    this.#load = new SharedArrayBuffer(loadBytes(workers));
    this.#counters = new SharedArrayBuffer(counterBytes(workers, options.exports.length));
    this.#values = new Float64Array(this.#counters);
  }

  async start(tcp: TcpAddress | undefined, workerUrl: URL): Promise<void> {
    for (let index = 0; index < this.workers; index++) this.#states.push(this.#spawn(index, workerUrl));
    const opened = await Promise.all(this.#states.map((state) => state.opened.promise));
    this.#sizes = opened[0]!.sizes;
    for (const { sizes } of opened) this.#checkSizes(sizes);

    if (this.#place !== undefined) {
      const place = this.#place;
      for (const [i, state] of this.#states.entries()) {
        tell(state, { type: 'listen', address: { path: workerSocket(place, i) } });
      }
      await Promise.all(this.#states.map((state) => state.listening.promise));
      this.#sockets = publishSocket(place, this.workers);
      this.#address = { socket: place.path };
    } else {
      this.#address = await this.#listenTcp(tcp!);
    }
  }

  /** The first worker settles the port, the others join it. */
  async #listenTcp({ host, port }: TcpAddress): Promise<ServerAddress> {
    const shared = this.workers > 1 ? { reusePort: true } : {};
    let settled = port;
    for (const state of this.#states) {
      tell(state, { type: 'listen', address: { host, port: settled, exclusive: true, ...shared } });
      settled = (await state.listening.promise).port ?? settled;
    }
    return { host, port: settled };
  }

  #checkSizes(sizes: readonly number[]): void {
    for (const [i, size] of sizes.entries()) {
      const expected = this.#sizes[i]!;
      if (size === expected) continue;
      const source = this.#options.exports[i]!.name;
      throw new CorruptError('Disk', {
        source,
        expected: `${expected} bytes`,
        found: `${size}: it changed while it was opened`,
      });
    }
  }

  #spawn(workerIndex: number, url: URL): WorkerState {
    const { exports, maxConnections = MAX_CONNECTIONS, handshakeMs = HANDSHAKE_MS } = this.#options;
    const setup: WorkerSetup = {
      exports,
      counters: this.#counters,
      load: this.#load,
      place: this.#place,
      workerIndex,
      maxConnections: Math.max(1, Math.ceil(maxConnections / this.workers)),
      handshakeMs,
    };
    const thread = new Worker(url, {
      name: `nbd-${workerIndex}`,
      workerData: setup,
      // A map cache and small change; a worker that wants more is stopped before it takes the engine with it.
      resourceLimits: { maxOldGenerationSizeMb: 1024 },
    });
    const state: WorkerState = { thread, opened: new Signal(), listening: new Signal(), exited: new Signal() };
    thread.on('message', (message: FromWorker) => this.#received(state, message));
    thread.on('error', (error) => this.#died(state, error));
    thread.on('exit', (code) => {
      state.exited.resolve();
      if (this.#closing === undefined) this.#died(state, new Error(`A data worker ended with code ${code}`));
    });
    return state;
  }

  #received(state: WorkerState, message: FromWorker): void {
    switch (message.type) {
      case 'opened':
        state.opened.resolve(message);
        return;
      case 'listening':
        state.listening.resolve(message);
        return;
      case 'connected':
        this.events.emit('connected', { export: this.#name(message.exportIndex) });
        return;
      case 'disconnected':
        this.events.emit('disconnected', {
          ...(message.exportIndex === undefined ? {} : { export: this.#name(message.exportIndex) }),
          ...(message.reason === undefined ? {} : { reason: message.reason }),
        });
        return;
      case 'read-failed': {
        const { exportIndex, offset, length, error, more } = message;
        this.events.emit('readFailed', { export: this.#name(exportIndex), offset, length, error, more });
        return;
      }
      case 'unbalanced':
        if (this.#closing === undefined) this.events.emit('unbalanced', { error: message.error });
        return;
      case 'failed':
        this.#died(state, fromWire(message.error));
        return;
      case 'closed':
        state.exited.resolve();
    }
  }

  /** Before it serves, a worker's failure fails `start`; afterwards it ends the server. */
  #died(state: WorkerState, error: Error): void {
    state.opened.reject(error);
    state.listening.reject(error);
    if (this.#address === undefined || this.#closing !== undefined) return;
    const wire: WireError =
      error instanceof ChainliftError ? error.toWire() : { kind: 'internal', message: error.message, details: {} };
    this.events.emit('failed', { error: wire });
    // Closing is one promise for all who ask: what it fails with is heard by whoever closes the server.
    this.close().catch(() => undefined);
  }

  #name(index: number): string {
    return this.#options.exports[index]!.name;
  }

  get address(): ServerAddress {
    return this.#address!;
  }
  get uri(): string {
    return exportUri(this.address, this.#name(0));
  }
  get size(): number {
    return this.#sizes[0]!;
  }

  stats(): { exports: NbdExportStats[] } {
    const exports = this.#options.exports;
    const sum = (exportIndex: number, counter: number): number => {
      let total = 0;
      for (let worker = 0; worker < this.workers; worker++) {
        total += this.#values[counterAt(worker, exports.length, exportIndex) + counter]!;
      }
      return total;
    };
    return {
      exports: exports.map(({ name, description }, i) => ({
        name,
        description,
        uri: exportUri(this.address, name),
        size: this.#sizes[i]!,
        clients: sum(i, COUNTERS.clients),
        connections: sum(i, COUNTERS.connections),
        requests: sum(i, COUNTERS.requests),
        bytesRead: sum(i, COUNTERS.bytesRead),
        errors: sum(i, COUNTERS.errors),
      })),
    };
  }

  loads(): number[] {
    return [...new Int32Array(this.#load).subarray(0, this.workers)];
  }

  commands(name = this.#name(0)): ExportCommand[] {
    const names = this.#options.exports.map((one) => one.name);
    if (!names.includes(name)) throw new UsageError(`No export named "${name}"`, { choices: names });
    return exportCommands({ uri: exportUri(this.address, name), name, ...this.address });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const place = this.#place;
    // Before the workers end, so that no client comes meanwhile; after it, lest one moved the name on at that moment.
    try {
      if (place !== undefined) hideSocket(place, this.#sockets);
    } finally {
      // Whatever became of the name: the workers end, or they would keep the process alive.
      try {
        await Promise.all(this.#states.map(end));
        if (place !== undefined) {
          hideSocket(place, this.#sockets);
          removeFolder(place);
        }
      } finally {
        this.events.emit('closed');
      }
    }
  }
}

function tell(state: WorkerState, message: ToWorker): void {
  state.thread.postMessage(message);
}

async function end(state: WorkerState): Promise<void> {
  tell(state, { type: 'close' });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), CLOSE_MS);
  });
  const outcome = await Promise.race([state.exited.promise, late]);
  clearTimeout(timer);
  const terminated = state.thread.terminate();
  // A thread inside a system call that does not return can't be ended; it must not keep the process, or its user, waiting.
  if (outcome === 'late') state.thread.unref();
  else await terminated;
}

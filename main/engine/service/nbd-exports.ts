/** The exports of an engine: each serves one disk of one point until it is stopped. */
import type { ExportInfo, ExportRequest } from '../../../preload/api.ts';
import { CancelledError, NotFoundError, UsageError } from '../errors.ts';
import { exportCommands } from '../nbd/commands.ts';
import type { DeviceDescription } from '../nbd/device.ts';
import type { NbdServer } from '../nbd/server.ts';
import type { Confinement } from '../storage/confinement.ts';
import { changeStream } from '../task/change-stream.ts';
import type { PointLocation } from './open-point.ts';

interface RunningExport {
  readonly id: string;
  readonly server: NbdServer;
  readonly request: ExportRequest;
  readonly name: string;
  readonly description: string;
  readonly started: string;
}

const REPORT_MS = 1000;

export class NbdExports {
  readonly #running = new Map<string, RunningExport>();
  readonly #watchers = new Set<() => void>();
  /** Servers on their way, which are no exports yet. */
  readonly #starting = new Set<Promise<NbdServer>>();
  #closed = false;

  #changed(): void {
    for (const watcher of this.#watchers) watcher();
  }

  /** Serves disk `index` of the located point. @throws what opening the chain or listening throws. */
  async start(request: ExportRequest, location: PointLocation, index: number): Promise<ExportInfo> {
    const path = location.disks.find((disk) => disk.index === index)?.path;
    if (path === undefined) throw new NotFoundError(`The image of disk ${index} of ${location.vm}`);
    const name = [location.vm, location.pointName, `disk${index}`]
      .filter((part, i, all) => all.indexOf(part) === i)
      .join('/');
    const description = `${location.vm} at ${location.pointName}, disk ${index}, read-only`;
    // Sockets and workers are loaded when there is something to serve.
    const { startNbdServer } = await import('../nbd/server.ts');
    if (this.#closed) throw new CancelledError('The export');
    const starting = startNbdServer({
      exports: [{ name, description, device: chainDevice(path, location.folder) }],
      listen: listenAddress(request),
      ...(request.workers === undefined ? {} : { workers: request.workers }),
    });
    this.#starting.add(starting);
    const server = await starting.finally(() => this.#starting.delete(starting));
    // The engine was closed meanwhile, and has closed this server too.
    if (this.#closed) throw new CancelledError('The export');
    const running = { id: crypto.randomUUID(), server, request, name, description, started: new Date().toISOString() };
    this.#running.set(running.id, running);
    // It also closes by itself, when a data worker dies: then it serves nobody, and must not be shown as if it did.
    server.events.once('closed', () => {
      if (this.#running.delete(running.id)) this.#changed();
    });
    this.#changed();
    return infoOf(running);
  }

  /** Ends the export: its clients are disconnected, its socket is removed. */
  async stop(id: string): Promise<void> {
    const running = this.#running.get(id);
    if (running === undefined) throw new NotFoundError(`Export ${id}`);
    this.#running.delete(id);
    this.#changed();
    await running.server.close();
  }

  list(): ExportInfo[] {
    return [...this.#running.values()].map(infoOf);
  }

  /** The list now and after each change; counters and clients are looked at once a second. */
  watch(): AsyncIterable<ExportInfo[]> {
    let last: string | undefined;
    return changeStream(
      (wake) => {
        const timer = setInterval(wake, REPORT_MS);
        timer.unref();
        this.#watchers.add(wake);
        return () => {
          clearInterval(timer);
          this.#watchers.delete(wake);
        };
      },
      () => {
        const list = this.list();
        const now = JSON.stringify(list);
        if (now === last) return 'wait';
        last = now;
        return { item: list };
      },
    );
  }

  /** Ends every export, also those that are being started: their workers would keep the process alive. */
  async close(): Promise<void> {
    this.#closed = true;
    const running = [...this.#running.values()];
    this.#running.clear();
    const late = [...this.#starting].map(async (starting) => {
      const [result] = await Promise.allSettled([starting]);
      // One that failed to start has tidied up, and told who asked for it.
      if (result.status === 'fulfilled') await result.value.close();
    });
    await Promise.all([...running.map(({ server }) => server.close()), ...late]);
  }
}

function chainDevice(path: string, { root, options }: Confinement): DeviceDescription {
  const { located, cacheFolder } = options;
  return {
    kind: 'chain',
    path,
    root,
    ...(located === undefined ? {} : { located }),
    ...(cacheFolder === undefined ? {} : { cacheFolder }),
  };
}

function infoOf({ id, server, request, name, description, started }: RunningExport): ExportInfo {
  const stats = server.stats();
  const served = stats.exports[0]!;
  return {
    id,
    name,
    description,
    target: request.target,
    ...server.address,
    uri: served.uri,
    size: served.size,
    started,
    clients: served.clients,
    requests: served.requests,
    bytesRead: served.bytesRead,
    commands: exportCommands({ uri: served.uri, name, ...server.address }),
  };
}

function listenAddress(request: ExportRequest): { socket?: string } | { host: string; port: number } {
  if (request.listen === undefined) return request.socket === undefined ? {} : { socket: request.socket };
  if (request.socket !== undefined) throw new UsageError('An export has a socket or an address, not both');
  const match = /^(?:\[([0-9a-f:]+)\]|([^:\s]+)):(\d{1,5})$/i.exec(request.listen);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535)
    throw new UsageError(`"${request.listen}" is no HOST:PORT`, { option: 'listen' });
  return { host: match[1] ?? match[2]!, port };
}

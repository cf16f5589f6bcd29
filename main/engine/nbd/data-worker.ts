/**
 * Entry of a data worker: a thread with its own devices and its own listening socket, that answers its clients with synchronous
 * reads. Which worker a client meets is decided by balance.ts for Unix sockets, by the system for TCP.
 */
import { createServer, type Server } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import { IoError, toWireError } from '../errors.ts';
import { Balance } from './balance.ts';
import { Connection, type ConnectionHost } from './connection.ts';
import { type NbdDevice, openDevice } from './device.ts';
import { ExportDirectory } from './exports.ts';
import {
  COUNTERS,
  counterAt,
  type FromWorker,
  type ListenAddress,
  type ToWorker,
  type WorkerSetup,
} from './messages.ts';
import { SlabPool } from './slabs.ts';
import type { Observer } from './transmission.ts';

/** Failed reads reported a second; all are counted. A client that reads a dead disk must not flood the engine. */
const REPORTS_PER_SECOND = 10;

if (parentPort === null) throw new Error('data-worker is started as a worker thread');
const port = parentPort;
const setup = workerData as WorkerSetup;
const counters = new Float64Array(setup.counters);

const connections = new Set<Connection>();
let devices: NbdDevice[] = [];
let host: ConnectionHost | undefined;
let server: Server | undefined;

function say(message: FromWorker): void {
  port.postMessage(message);
}

let reportedAt = 0;
let reported = 0;
let unreported = 0;

function readFailed(exportIndex: number, error: unknown, offset: number, length: number): void {
  const now = performance.now();
  if (now - reportedAt >= 1000) {
    reportedAt = now;
    reported = 0;
  }
  if (++reported > REPORTS_PER_SECOND) {
    unreported++;
    return;
  }
  say({ type: 'read-failed', exportIndex, offset, length, error: toWireError(error), more: unreported });
  unreported = 0;
}

function observer(exportIndex: number): Observer {
  const at = counterAt(setup.workerIndex, setup.exports.length, exportIndex);
  const requests = at + COUNTERS.requests;
  const bytesRead = at + COUNTERS.bytesRead;
  return {
    request() {
      counters[requests]!++;
    },
    read(bytes) {
      counters[bytesRead]! += bytes;
    },
    failed(error, offset, length) {
      counters[at + COUNTERS.errors]!++;
      readFailed(exportIndex, error, offset, length);
    },
  };
}

async function open(): Promise<void> {
  devices = await Promise.all(setup.exports.map((entry) => openDevice(entry.device)));
  const entries = setup.exports.map(({ name, description }, i) => ({ name, description, size: devices[i]!.size }));
  host = {
    exports: new ExportDirectory(entries),
    devices,
    pool: new SlabPool(),
    attached(exportIndex) {
      const at = counterAt(setup.workerIndex, setup.exports.length, exportIndex);
      counters[at + COUNTERS.clients]!++;
      counters[at + COUNTERS.connections]!++;
      say({ type: 'connected', exportIndex });
      return observer(exportIndex);
    },
    detached(exportIndex, reason) {
      if (exportIndex !== undefined) {
        counters[counterAt(setup.workerIndex, setup.exports.length, exportIndex) + COUNTERS.clients]!--;
      }
      say({ type: 'disconnected', exportIndex, reason });
    },
  };
  say({ type: 'opened', sizes: entries.map((entry) => entry.size) });
}

const balance = new Balance(setup.load, setup.workerIndex, setup.place, (error) => {
  say({ type: 'unbalanced', error: toWireError(new IoError('The socket cannot be moved on', {}, error)) });
});

function listen(address: ListenAddress): void {
  const created = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const connection = new Connection(socket, host!, setup.handshakeMs);
    connections.add(connection);
    balance.change(1);
    socket.once('close', () => {
      connections.delete(connection);
      balance.change(-1);
    });
  });
  server = created;
  created.maxConnections = setup.maxConnections;
  created.once('error', (error) => {
    say({ type: 'failed', error: toWireError(new IoError('The NBD server cannot listen', {}, error)) });
  });
  created.once('listening', () => {
    const bound = created.address();
    say({ type: 'listening', port: typeof bound === 'object' && bound !== null ? bound.port : undefined });
  });
  created.listen(address);
}

async function close(): Promise<void> {
  for (const connection of connections) connection.close();
  if (server?.listening) {
    const closing = server;
    await new Promise<void>((resolve) => closing.close(() => resolve()));
  }
  await Promise.all(devices.map((device) => device.close()));
  say({ type: 'closed' });
  port.close();
}

port.on('message', (message: ToWorker) => {
  if (message.type === 'listen') listen(message.address);
  else void close();
});

open().catch((error: unknown) => say({ type: 'failed', error: toWireError(error) }));

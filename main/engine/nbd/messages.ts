/** What the server and its data workers say to each other, and the counters they share. */
import type { WireError } from '../errors.ts';
import type { DeviceDescription } from './device.ts';
import type { SocketPlace } from './listen-socket.ts';

export interface WorkerExport {
  readonly name: string;
  readonly description: string;
  readonly device: DeviceDescription;
}

/** A worker's `workerData`. */
export interface WorkerSetup {
  readonly exports: readonly WorkerExport[];
  /** One block of counters per worker and export, see `counterAt`. */
  readonly counters: SharedArrayBuffer;
  /** Clients per worker, see balance.ts. */
  readonly load: SharedArrayBuffer;
  /** Where the server's Unix sockets are; undefined for TCP. */
  readonly place: SocketPlace | undefined;
  readonly workerIndex: number;
  readonly maxConnections: number;
  readonly handshakeMs: number;
}

export type ListenAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number; readonly exclusive: true; readonly reusePort?: boolean };

export type ToWorker = { readonly type: 'listen'; readonly address: ListenAddress } | { readonly type: 'close' };

export type FromWorker =
  /** All devices are open. */
  | { readonly type: 'opened'; readonly sizes: readonly number[] }
  /** `port` for TCP. */
  | { readonly type: 'listening'; readonly port: number | undefined }
  | { readonly type: 'connected'; readonly exportIndex: number }
  | { readonly type: 'disconnected'; readonly exportIndex: number | undefined; readonly reason: string | undefined }
  | {
      readonly type: 'read-failed';
      readonly exportIndex: number;
      readonly offset: number;
      readonly length: number;
      readonly error: WireError;
      /** Failures since the last message that were only counted. */
      readonly more: number;
    }
  /** Clients can no longer be spread over the workers; they are served all the same. */
  | { readonly type: 'unbalanced'; readonly error: WireError }
  /** Opening or listening failed; the worker serves nothing. */
  | { readonly type: 'failed'; readonly error: WireError }
  | { readonly type: 'closed' };

/**
 * Counters are float64 (exact to 2^53), each written by one worker only and read by the server at any time: no locks, and
 * nothing to send while requests are answered.
 */
export const COUNTERS = { clients: 0, connections: 1, requests: 2, bytesRead: 3, errors: 4 } as const;
/** Spread so that two workers never write to one cache line. */
const COUNTER_STRIDE = 16;

export function counterBytes(workers: number, exports: number): number {
  return workers * exports * COUNTER_STRIDE * 8;
}

/** Index of the first counter of an export in a worker. */
export function counterAt(worker: number, exports: number, exportIndex: number): number {
  return (worker * exports + exportIndex) * COUNTER_STRIDE;
}

/** Messages of the window's protocol, and the limits both sides keep. Nothing here depends on a carrier. */
import type { ChainliftApi, WireError } from '../api.ts';

/** A carrier of messages in order, each delivered once, in both directions. */
export interface Channel {
  /** Throws when the message can't be carried (not cloneable, too large). After `close` it does nothing. */
  send(message: unknown): void;
  /** One handler; a later one replaces it. */
  onMessage(handler: (message: unknown) => void): void;
  /** Called once, whichever side closed; at once when it is closed already. */
  onClose(handler: () => void): void;
  close(): void;
}

type MethodKind<Name extends keyof ChainliftApi> =
  ReturnType<ChainliftApi[Name]> extends Promise<unknown> ? 'call' : 'stream';

/** Every method and whether it answers once or many times. The type makes this list agree with the contract. */
export const METHODS: { readonly [Name in keyof ChainliftApi]: MethodKind<Name> } = {
  about: 'call',
  recent: 'call',
  forget: 'call',
  browse: 'call',
  scan: 'call',
  report: 'call',
  info: 'call',
  map: 'stream',
  volumes: 'call',
  list: 'stream',
  stat: 'call',
  read: 'stream',
  preview: 'call',
  changes: 'call',
  layers: 'call',
  copy: 'call',
  hash: 'call',
  verify: 'call',
  convert: 'call',
  locateParent: 'call',
  forgetParent: 'call',
  watchTasks: 'stream',
  watchTask: 'stream',
  cancelTask: 'call',
  dismissTask: 'call',
  startExport: 'call',
  stopExport: 'call',
  watchExports: 'stream',
};

export type CallMethod = { [N in keyof ChainliftApi]: MethodKind<N> extends 'call' ? N : never }[keyof ChainliftApi];
export type StreamMethod = Exclude<keyof ChainliftApi, CallMethod>;

/** From the window. `id` is the window's own number for the call, never used twice on one channel. */
export type ClientMessage =
  | { readonly t: 'call'; readonly id: number; readonly method: string; readonly params: unknown }
  /** The consumer has taken `count` more items of stream `id`. */
  | { readonly t: 'ack'; readonly id: number; readonly count: number }
  /** The consumer of stream `id` has stopped. */
  | { readonly t: 'stop'; readonly id: number };

/** From the engine. A call is answered by one `done` or `fail`, a stream by any number of `item` and one `done` or `fail`. */
export type ServerMessage =
  | { readonly t: 'done'; readonly id: number; readonly value?: unknown }
  | { readonly t: 'fail'; readonly id: number; readonly error: WireError }
  | { readonly t: 'item'; readonly id: number; readonly value: unknown };

/** Items of a stream that may be under way without having been taken. */
export const STREAM_WINDOW = 8;
/** Calls and streams open at once on one channel. A window needs a few dozen; more is a fault or an attack. */
export const MAX_OPEN_CALLS = 1024;
/**
 * Longest JSON message either way. A copy of 100,000 selected rows is about 10 MB; the report of a VM with 4,000 points, each on the
 * one before it, about 40 MB for each disk.
 */
export const MAX_MESSAGE_CHARACTERS = 128 * 1024 * 1024;
/** Chunks of a file's content are cut to this many bytes, so that one message never holds up the others for long. */
export const MAX_CHUNK_BYTES = 256 * 1024;

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
const isId = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;

/** The message if it is one that a window may send, else undefined. */
export function asClientMessage(value: unknown): ClientMessage | undefined {
  if (!isObject(value) || !isId(value.id)) return undefined;
  if (value.t === 'call' && typeof value.method === 'string' && value.method.length <= 64) {
    return { t: 'call', id: value.id, method: value.method, params: value.params };
  }
  if (value.t === 'ack' && isId(value.count)) return { t: 'ack', id: value.id, count: value.count };
  if (value.t === 'stop') return { t: 'stop', id: value.id };
  return undefined;
}

/** The message if it is one that an engine may send, else undefined. */
export function asServerMessage(value: unknown): ServerMessage | undefined {
  if (!isObject(value) || !isId(value.id)) return undefined;
  if (value.t === 'done') return { t: 'done', id: value.id, value: value.value };
  if (value.t === 'item') return { t: 'item', id: value.id, value: value.value };
  if (value.t === 'fail') {
    const error = asWireError(value.error);
    if (error !== undefined) return { t: 'fail', id: value.id, error };
  }
  return undefined;
}

const ERROR_KINDS: { readonly [Kind in WireError['kind']]: true } = {
  io: true,
  unsupported: true,
  corrupt: true,
  'not-found': true,
  'missing-parent': true,
  'needs-key': true,
  cancelled: true,
  denied: true,
  usage: true,
  internal: true,
};

/** The error if it has the shape of one, else undefined. */
export function asWireError(value: unknown): WireError | undefined {
  if (!isObject(value) || typeof value.kind !== 'string' || typeof value.message !== 'string') return undefined;
  if (!Object.hasOwn(ERROR_KINDS, value.kind)) return undefined;
  const details = isObject(value.details) ? (value.details as WireError['details']) : {};
  return { kind: value.kind as WireError['kind'], message: value.message, details };
}

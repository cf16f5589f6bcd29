/** The window's side of the protocol: `ChainliftApi` over a channel. */
import type { ChainliftApi, Detail, ErrorKind, WireError } from '../api.ts';
import type { CallMethod, Channel, ClientMessage, ServerMessage, StreamMethod } from './protocol.ts';
import { asServerMessage, STREAM_WINDOW } from './protocol.ts';

/** An error of the engine, as thrown on the window's side. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
  readonly kind: ErrorKind;
  readonly details: { readonly [key: string]: Detail };

  constructor(wire: WireError) {
    super(wire.message);
    this.kind = wire.kind;
    this.details = wire.details;
  }

  toWire(): WireError {
    return { kind: this.kind, message: this.message, details: this.details };
  }
}

const lost = () =>
  new EngineError({ kind: 'io', message: 'The connection to the engine was lost', details: { code: 'DISCONNECTED' } });

interface Waiting {
  settle(message: ServerMessage): void;
  fail(error: EngineError): void;
}

/**
 * The engine behind a channel. A call whose channel closes is rejected, and a stream throws, with kind `io` and code
 * `DISCONNECTED`: a listing that was cut off never looks complete.
 */
export function connectApi(channel: Channel): ChainliftApi {
  const waiting = new Map<number, Waiting>();
  let lastId = 0;
  let closed = false;

  const send = (message: ClientMessage) => channel.send(message);
  channel.onMessage((data) => {
    const message = asServerMessage(data);
    if (message !== undefined) waiting.get(message.id)?.settle(message);
  });
  channel.onClose(() => {
    closed = true;
    const all = [...waiting.values()];
    waiting.clear();
    for (const one of all) one.fail(lost());
  });

  const open = (method: string, params: unknown, handler: Waiting): number => {
    if (closed) throw lost();
    lastId += 1;
    const id = lastId;
    waiting.set(id, handler);
    try {
      send({ t: 'call', id, method, params });
    } catch (error) {
      waiting.delete(id);
      throw error;
    }
    return id;
  };

  const call = <Name extends CallMethod>(method: Name): ChainliftApi[Name] => {
    const invoke = (params: unknown) =>
      new Promise((resolve, reject) => {
        const id = open(method, params, {
          settle(message) {
            waiting.delete(id);
            if (message.t === 'fail') reject(new EngineError(message.error));
            else if (message.t === 'done') resolve(message.value);
          },
          fail: reject,
        });
      });
    return invoke as ChainliftApi[Name];
  };

  const stream = <Name extends StreamMethod>(method: Name): ChainliftApi[Name] => {
    const invoke = (params: unknown) => ({
      [Symbol.asyncIterator]: () =>
        new StreamIterator({
          open: (handler) => open(method, params, handler),
          forget: (id) => waiting.delete(id),
          send,
        }),
    });
    return invoke as unknown as ChainliftApi[Name];
  };

  return {
    about: call('about'),
    recent: call('recent'),
    forget: call('forget'),
    browse: call('browse'),
    scan: call('scan'),
    report: call('report'),
    info: call('info'),
    map: stream('map'),
    volumes: call('volumes'),
    list: stream('list'),
    stat: call('stat'),
    read: stream('read'),
    preview: call('preview'),
    changes: call('changes'),
    layers: call('layers'),
    copy: call('copy'),
    hash: call('hash'),
    verify: call('verify'),
    convert: call('convert'),
    locateParent: call('locateParent'),
    forgetParent: call('forgetParent'),
    watchTasks: stream('watchTasks'),
    watchTask: stream('watchTask'),
    cancelTask: call('cancelTask'),
    dismissTask: call('dismissTask'),
    startExport: call('startExport'),
    stopExport: call('stopExport'),
    watchExports: stream('watchExports'),
  } satisfies ChainliftApi;
}

interface StreamHost {
  open(handler: Waiting): number;
  forget(id: number): void;
  send(message: ClientMessage): void;
}

interface Taker {
  resolve(result: IteratorResult<unknown>): void;
  reject(error: unknown): void;
}

/** One stream being read. It is asked for with the first `next`, and stopped by `return`. */
class StreamIterator implements AsyncIterator<unknown> {
  private readonly host: StreamHost;
  private readonly items: unknown[] = [];
  private readonly takers: Taker[] = [];
  private id: number | undefined;
  private ended = false;
  private failure: EngineError | undefined;
  private untold = 0;

  constructor(host: StreamHost) {
    this.host = host;
  }

  next(): Promise<IteratorResult<unknown>> {
    return new Promise((resolve, reject) => {
      if (this.id === undefined && !this.ended) {
        this.id = this.host.open({ settle: (message) => this.settle(message), fail: (error) => this.end(error) });
      }
      this.takers.push({ resolve, reject });
      this.serve();
    });
  }

  return(): Promise<IteratorResult<unknown>> {
    if (!this.ended && this.id !== undefined) {
      this.host.forget(this.id);
      this.host.send({ t: 'stop', id: this.id });
    }
    this.items.length = 0;
    this.failure = undefined;
    this.ended = true;
    this.serve();
    return Promise.resolve({ done: true, value: undefined });
  }

  private settle(message: ServerMessage): void {
    if (message.t === 'item') this.items.push(message.value);
    else {
      this.host.forget(message.id);
      this.end(message.t === 'fail' ? new EngineError(message.error) : undefined);
      return;
    }
    this.serve();
  }

  private end(failure: EngineError | undefined): void {
    this.ended = true;
    this.failure = failure;
    this.serve();
  }

  /** Gives what has come to those who wait for it. What came before a failure is given before the failure. */
  private serve(): void {
    while (this.takers.length > 0) {
      if (this.items.length > 0) {
        this.takers.shift()?.resolve({ done: false, value: this.items.shift() });
        this.acknowledge();
      } else if (this.failure !== undefined) {
        this.takers.shift()?.reject(this.failure);
        this.failure = undefined;
      } else if (this.ended) {
        this.takers.shift()?.resolve({ done: true, value: undefined });
      } else return;
    }
  }

  private acknowledge(): void {
    this.untold += 1;
    if (this.ended || this.id === undefined || this.untold < STREAM_WINDOW / 2) return;
    this.host.send({ t: 'ack', id: this.id, count: this.untold });
    this.untold = 0;
  }
}

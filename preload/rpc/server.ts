/** The engine's side of the protocol: what a channel asks for is checked, done and answered. */
import type { ZodError } from 'zod';
import type { ChainliftApi, WireError } from '../api.ts';
import { REQUEST_SCHEMAS } from '../schemas.ts';
import type { Channel, ServerMessage } from './protocol.ts';
import { asClientMessage, asWireError, MAX_CHUNK_BYTES, MAX_OPEN_CALLS, METHODS, STREAM_WINDOW } from './protocol.ts';

/**
 * Serves an engine over a channel until the channel closes or the returned function is called. Parameters are checked with
 * the method's schema; unknown methods and messages are refused. A stream sends at most `STREAM_WINDOW` items ahead of its
 * consumer; when the consumer stops or the channel closes, `return()` of its iterator is called at once, also while a
 * `next()` is pending.
 */
export function serveApi(api: ChainliftApi, channel: Channel): () => void {
  const open = new Map<number, OpenStream | undefined>();
  let stopped = false;

  const answer = (message: ServerMessage) => {
    if (stopped) return;
    try {
      channel.send(message);
    } catch (error) {
      // Not cloneable or too large: the caller must hear of it, or it would wait for ever.
      channel.send({ t: 'fail', id: message.id, error: wireOf(error) } satisfies ServerMessage);
    }
  };
  const fail = (id: number, error: WireError) => answer({ t: 'fail', id, error });

  const start = (id: number, method: string, params: unknown) => {
    if (open.has(id)) return fail(id, usage(`Call ${id} is under way already`, { method }));
    if (open.size >= MAX_OPEN_CALLS) {
      return fail(id, usage(`More than ${MAX_OPEN_CALLS} calls at once`, { method, limit: MAX_OPEN_CALLS }));
    }
    if (!isMethod(method)) return fail(id, usage(`There is no method "${method}"`, { method }));
    const checked = REQUEST_SCHEMAS[method].safeParse(params);
    if (!checked.success) return fail(id, badRequest(method, checked.error));
    if (METHODS[method] === 'stream') {
      const stream = new OpenStream(iterate(api, method, checked.data), (message) => answer({ ...message, id }));
      open.set(id, stream);
      void stream.run().finally(() => open.delete(id));
    } else {
      open.set(id, undefined);
      void invoke(api, method, checked.data)
        .then(
          (value) => answer({ t: 'done', id, value }),
          (error: unknown) => fail(id, wireOf(error)),
        )
        .finally(() => open.delete(id));
    }
  };

  const stop = () => {
    if (stopped) return;
    stopped = true;
    for (const stream of open.values()) stream?.stop();
    open.clear();
  };

  channel.onMessage((data) => {
    if (stopped) return;
    const message = asClientMessage(data);
    if (message === undefined) return;
    if (message.t === 'call') start(message.id, message.method, message.params);
    else if (message.t === 'ack') open.get(message.id)?.acknowledge(message.count);
    else open.get(message.id)?.stop();
  });
  channel.onClose(stop);
  return stop;
}

const isMethod = (name: string): name is keyof ChainliftApi => Object.hasOwn(METHODS, name);

async function invoke(api: ChainliftApi, method: keyof ChainliftApi, params: unknown): Promise<unknown> {
  // The schema of the method has checked the parameters, which is more than a type could say here.
  return (api[method] as (request: unknown) => Promise<unknown>)(params);
}

function iterate(api: ChainliftApi, method: keyof ChainliftApi, params: unknown): () => AsyncIterator<unknown> {
  return () => (api[method] as (request: unknown) => AsyncIterable<unknown>)(params)[Symbol.asyncIterator]();
}

type StreamMessage =
  | { readonly t: 'item'; readonly value: unknown }
  | { readonly t: 'done' }
  | { readonly t: 'fail'; readonly error: WireError };

class OpenStream {
  private readonly begin: () => AsyncIterator<unknown>;
  private readonly answer: (message: StreamMessage) => void;
  private iterator: AsyncIterator<unknown> | undefined;
  private credit = STREAM_WINDOW;
  private wake: (() => void) | undefined;
  private stopped = false;

  constructor(begin: () => AsyncIterator<unknown>, answer: (message: StreamMessage) => void) {
    this.begin = begin;
    this.answer = answer;
  }

  async run(): Promise<void> {
    try {
      this.iterator = this.begin();
      while (!this.stopped) {
        const { done, value } = await this.iterator.next();
        if (this.stopped) return;
        if (done === true) return this.answer({ t: 'done' });
        for (const piece of pieces(value)) {
          while (this.credit === 0 && !this.stopped) {
            await new Promise<void>((resolve) => {
              this.wake = resolve;
            });
          }
          if (this.stopped) return;
          this.credit -= 1;
          this.answer({ t: 'item', value: piece });
        }
      }
    } catch (error) {
      if (!this.stopped) this.answer({ t: 'fail', error: wireOf(error) });
    }
  }

  acknowledge(count: number): void {
    this.credit = Math.min(STREAM_WINDOW, this.credit + count);
    this.wake?.();
  }

  stop(): void {
    if (this.stopped) return;
    this.stopped = true;
    this.wake?.();
    // A failure of the clean-up has nobody left to tell: its consumer is gone, and the engine's own log has it.
    this.iterator?.return?.().then(undefined, () => undefined);
  }
}

/** Content is cut into chunks of a bounded size, since a source may hand out megabytes at once. */
function* pieces(value: unknown): Generator<unknown> {
  if (!(value instanceof Uint8Array) || value.length <= MAX_CHUNK_BYTES) yield value;
  else for (let at = 0; at < value.length; at += MAX_CHUNK_BYTES) yield value.slice(at, at + MAX_CHUNK_BYTES);
}

function usage(message: string, details: WireError['details']): WireError {
  return { kind: 'usage', message, details };
}

function badRequest(method: string, error: ZodError): WireError {
  const issue = error.issues[0];
  const at = issue === undefined ? '' : issue.path.map(String).join('.');
  const problem = issue?.message ?? 'not valid';
  return usage(`${method}: ${at === '' ? '' : `${at}: `}${problem}`, { method, at, problem });
}

/** Errors of the engine say themselves how they cross (`toWire`); anything else is a fault of ours and named so. */
function wireOf(error: unknown): WireError {
  const own = (error as { toWire?: unknown } | null | undefined)?.toWire;
  if (typeof own === 'function') {
    const wire = asWireError(own.call(error));
    if (wire !== undefined) return wire;
  }
  return { kind: 'internal', message: error instanceof Error ? error.message : String(error), details: {} };
}

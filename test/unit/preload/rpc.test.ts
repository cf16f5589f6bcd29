import { MessageChannel } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import type { ChainliftApi, EntryRow, WireError } from '../../../preload/api.ts';
import { MAX_MESSAGE_CHARACTERS, STREAM_WINDOW } from '../../../preload/rpc/protocol.ts';
import type { Channel } from '../../../preload/rpc.ts';
import { connectApi, EngineError, jsonChannel, portChannel, serveApi } from '../../../preload/rpc.ts';
import { fakeApi } from '../renderer/fake-api.ts';

const target = { source: '/srv/backups', vm: 'web01', point: '8' };

/** Two ends of a WebSocket, without the network. */
function socketPair() {
  type Listener = (event: { readonly data: unknown }) => void;
  const make = () => {
    const listeners: Record<string, Listener[]> = { message: [], close: [] };
    return {
      peer: undefined as unknown as { emit(type: string, data: unknown): void },
      closed: undefined as { code: number | undefined } | undefined,
      emit(type: string, data: unknown) {
        for (const listener of listeners[type] ?? []) listener({ data });
      },
      send(text: string) {
        queueMicrotask(() => this.peer.emit('message', text));
      },
      close(code?: number) {
        if (this.closed !== undefined) return;
        this.closed = { code };
        queueMicrotask(() => {
          this.emit('close', undefined);
          this.peer.emit('close', undefined);
        });
      },
      addEventListener(type: string, listener: Listener) {
        listeners[type]?.push(listener);
      },
    };
  };
  const a = make();
  const b = make();
  a.peer = b;
  b.peer = a;
  return { a, b };
}

const cleanUp: (() => void)[] = [];
afterEach(() => {
  for (const one of cleanUp.splice(0)) one();
});

function pair(kind: 'port' | 'socket'): { near: Channel; far: Channel } {
  if (kind === 'socket') {
    const { a, b } = socketPair();
    return { near: jsonChannel(a), far: jsonChannel(b) };
  }
  const { port1, port2 } = new MessageChannel();
  const ends = { near: portChannel(port1), far: portChannel(port2) };
  cleanUp.push(() => ends.near.close());
  return ends;
}

function connect(api: ChainliftApi, kind: 'port' | 'socket' = 'port') {
  const { near, far } = pair(kind);
  const stop = serveApi(api, far);
  return { api: connectApi(near), near, far, stop };
}

async function rejection(work: Promise<unknown>): Promise<EngineError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(EngineError);
  return error as EngineError;
}

async function collect<Item>(stream: AsyncIterable<Item>): Promise<Item[]> {
  const items: Item[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

/** A stream that counts how far it was asked, and whether it was told to stop. */
function counted(total: number) {
  const seen = { made: 0, stopped: false };
  const iterable: AsyncIterable<EntryRow[]> = {
    [Symbol.asyncIterator]: () => ({
      next: async () => {
        if (seen.made >= total || seen.stopped) return { done: true, value: undefined };
        seen.made += 1;
        return { done: false, value: [{ name: `${seen.made}`, path: `/a/${seen.made}`, kind: 'file', id: seen.made }] };
      },
      return: async () => {
        seen.stopped = true;
        return { done: true, value: undefined };
      },
    }),
  };
  return { seen, iterable };
}

async function until(condition: () => boolean): Promise<void> {
  await expect.poll(condition, { timeout: 5_000, interval: 5 }).toBe(true);
}

/** Lets everything that is under way on the channel arrive. */
async function settle(api: ChainliftApi): Promise<void> {
  await api.about({});
  await api.about({});
}

describe.each(['port', 'socket'] as const)('the protocol over a %s', (kind) => {
  it('answers calls', async () => {
    const { api } = connect(fakeApi(), kind);
    expect((await api.about({})).home).toBe('/home/anna');
    expect((await api.report({ source: '/srv/x' })).vms.map((vm) => vm.name)).toContain('web01');
  });

  it('streams batches in order and to the end', async () => {
    const { api } = connect(fakeApi({ rows: 50_000 }), kind);
    const batches = await collect(api.list({ target, path: '/sda2/usr' }));
    expect(batches.length).toBeGreaterThan(STREAM_WINDOW * 2);
    expect(batches.flat().map((row) => row.id)).toEqual(Array.from({ length: 50_000 }, (_, index) => index));
  });

  it('carries bytes unchanged, in bounded pieces', async () => {
    const bytes = Uint8Array.from({ length: 700_001 }, (_, index) => (index * 31) % 256);
    const read = async function* () {
      yield bytes;
      yield new Uint8Array(0);
    };
    const { api } = connect({ ...fakeApi(), read }, kind);
    const chunks = await collect(api.read({ target, path: '/sda2/a' }));
    for (const chunk of chunks) {
      expect(chunk).toBeInstanceOf(Uint8Array);
      expect(chunk.length).toBeLessThanOrEqual(256 * 1024);
    }
    expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
  });

  it('rethrows errors with kind and details', async () => {
    const { api } = connect(fakeApi(), kind);
    const error = await rejection(api.stat({ target, path: '/sda2/srv/www/nothing' }));
    expect(error.kind).toBe('not-found');
    expect(error.details.what).toBe('/sda2/srv/www/nothing');
    const inStream = await rejection(collect(api.list({ target, path: '/sda2/nothing' })));
    expect(inStream.kind).toBe('not-found');
  });

  it('names a fault of ours internal', async () => {
    const broken = async () => {
      throw new TypeError('x is undefined');
    };
    const { api } = connect({ ...fakeApi(), about: broken }, kind);
    const error = await rejection(api.about({}));
    expect(error.toWire()).toEqual({ kind: 'internal', message: 'x is undefined', details: {} });
  });

  it('refuses parameters that break the schema, before anything is done', async () => {
    let asked = 0;
    const stat: ChainliftApi['stat'] = async () => {
      asked += 1;
      throw new Error('must not be reached');
    };
    const { api } = connect({ ...fakeApi(), stat }, kind);
    const error = await rejection(api.stat({ target, path: 'srv' }));
    expect(error.kind).toBe('usage');
    expect(error.details).toMatchObject({ method: 'stat', at: 'path' });
    const stream = await rejection(collect(api.list({ target: { source: 'relative' }, path: '/' })));
    expect(stream.details).toMatchObject({ method: 'list', at: 'target.source' });
    expect(asked).toBe(0);
  });

  it('rejects what is pending and ends streams with an error when the channel closes', async () => {
    const forever = new Promise<never>(() => undefined);
    const { api, near } = connect({ ...fakeApi(), about: () => forever }, kind);
    const pending = rejection(api.about({}));
    const stream = api.watchTasks({})[Symbol.asyncIterator]();
    const waiting = rejection(stream.next());
    near.close();
    for (const error of [await pending, await waiting, await rejection(api.recent({}))]) {
      expect(error.kind).toBe('io');
      expect(error.details.code).toBe('DISCONNECTED');
    }
  });

  it('tells the engine to stop when the other side goes away', async () => {
    const { seen, iterable } = counted(1_000_000);
    const { api, near } = connect({ ...fakeApi(), list: () => iterable }, kind);
    await api.list({ target, path: '/a' })[Symbol.asyncIterator]().next();
    near.close();
    await until(() => seen.stopped);
  });
});

describe('streams', () => {
  it('go no further than the window ahead of a consumer that does not take', async () => {
    const { seen, iterable } = counted(1_000);
    const { api } = connect({ ...fakeApi(), list: () => iterable });
    const stream = api.list({ target, path: '/a' })[Symbol.asyncIterator]();
    await stream.next();
    await settle(api);
    // One that is made and waits for credit is allowed beyond those under way.
    expect(seen.made).toBeLessThanOrEqual(STREAM_WINDOW + 2);
    for (let taken = 1; taken < 100; taken++) await stream.next();
    await settle(api);
    expect(seen.made).toBeGreaterThanOrEqual(100);
    expect(seen.made).toBeLessThanOrEqual(100 + STREAM_WINDOW + 1);
  });

  it('are cancelled when their consumer stops', async () => {
    const { seen, iterable } = counted(1_000_000);
    const { api } = connect({ ...fakeApi(), list: () => iterable });
    for await (const rows of api.list({ target, path: '/a' })) {
      if (rows[0]?.id === 20) break;
    }
    await until(() => seen.stopped);
    expect(seen.made).toBeLessThanOrEqual(20 + STREAM_WINDOW + 2);
  });

  it('are cancelled while they wait for something to happen', async () => {
    let stopped = false;
    const quiet: AsyncIterable<never> = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise(() => undefined),
        return: async () => {
          stopped = true;
          return { done: true, value: undefined };
        },
      }),
    };
    const { api } = connect({ ...fakeApi(), watchTasks: () => quiet });
    const stream = api.watchTasks({})[Symbol.asyncIterator]();
    const waiting = stream.next();
    await stream.return?.();
    expect(await waiting).toEqual({ done: true, value: undefined });
    await until(() => stopped);
  });

  it('do not begin before they are read', async () => {
    let begun = 0;
    const list: ChainliftApi['list'] = () => {
      begun += 1;
      return counted(1).iterable;
    };
    const { api } = connect({ ...fakeApi(), list });
    const stream = api.list({ target, path: '/a' });
    await settle(api);
    expect(begun).toBe(0);
    await collect(stream);
    expect(begun).toBe(1);
  });

  it('give what came before a failure first', async () => {
    const list = async function* (): AsyncGenerator<EntryRow[]> {
      yield [{ name: 'good', path: '/a/good', kind: 'file', id: 1 }];
      throw new Error('then it broke');
    };
    const { api } = connect({ ...fakeApi(), list });
    const names: string[] = [];
    const error = await rejection(
      (async () => {
        for await (const rows of api.list({ target, path: '/a' })) names.push(...rows.map((row) => row.name));
      })(),
    );
    expect(names).toEqual(['good']);
    expect(error.message).toBe('then it broke');
  });
});

describe('the serving side', () => {
  /** Talks to it as a stranger would. */
  function stranger(api: ChainliftApi = fakeApi()) {
    const { near, far } = pair('port');
    const stop = serveApi(api, far);
    const answers: { t: string; id: number; error?: WireError }[] = [];
    near.onMessage((message) => answers.push(message as (typeof answers)[number]));
    const answerOf = async (id: number) => {
      await until(() => answers.some((one) => one.id === id));
      return answers.find((one) => one.id === id);
    };
    return { near, answers, answerOf, stop };
  }

  it('refuses methods that are not in the contract, inherited names among them', async () => {
    const { near, answerOf } = stranger();
    for (const [id, method] of [
      [1, 'format'],
      [2, 'constructor'],
      [3, '__proto__'],
      [4, 'toString'],
    ] as const) {
      near.send({ t: 'call', id, method, params: {} });
      expect((await answerOf(id))?.error?.kind).toBe('usage');
    }
  });

  it('ignores what is no message and goes on', async () => {
    const { near, answers, answerOf } = stranger();
    for (const junk of [null, 7, 'x', [], {}, { t: 'call', id: -1, method: 'about' }, { t: 'ack', id: 1, count: 0 }]) {
      near.send(junk);
    }
    near.send({ t: 'call', id: 9, method: 'about', params: {} });
    expect((await answerOf(9))?.t).toBe('done');
    expect(answers).toHaveLength(1);
  });

  it('bounds how many calls are open at once', async () => {
    const { near, answerOf } = stranger({ ...fakeApi(), about: () => new Promise(() => undefined) });
    for (let id = 1; id <= 1025; id++) near.send({ t: 'call', id, method: 'about', params: {} });
    expect((await answerOf(1025))?.error?.details.limit).toBe(1024);
  });

  it('says so when an answer cannot be carried', async () => {
    const { near, answerOf } = stranger({
      ...fakeApi(),
      about: async () => ({ version: '', formats: [], fileSystems: [], home: (() => '') as unknown as string }),
    });
    near.send({ t: 'call', id: 1, method: 'about', params: {} });
    expect((await answerOf(1))?.error?.kind).toBe('internal');
  });

  it('answers nothing after it was stopped', async () => {
    const { near, answers, answerOf, stop } = stranger();
    near.send({ t: 'call', id: 1, method: 'about', params: {} });
    await answerOf(1);
    stop();
    near.send({ t: 'call', id: 2, method: 'about', params: {} });
    await new Promise((resolve) => setImmediate(resolve));
    expect(answers.map((one) => one.id)).toEqual([1]);
  });
});

describe('a JSON channel', () => {
  it.each([
    ['binary', new Uint8Array(3), 1003],
    ['not JSON', '{', 1003],
    ['too long', ' '.repeat(MAX_MESSAGE_CHARACTERS + 1), 1009],
    ['bytes that are not Base64', '{"t":"item","id":1,"value":{"$bytes":"*"}}', 1003],
  ])('closes on a message that is %s', (_what, data, code) => {
    const { a, b } = socketPair();
    const got: unknown[] = [];
    const channel = jsonChannel(b);
    channel.onMessage((message) => got.push(message));
    let closed = 0;
    channel.onClose(() => {
      closed += 1;
    });
    a.peer.emit('message', data);
    expect(b.closed?.code).toBe(code);
    expect(closed).toBe(1);
    expect(got).toEqual([]);
  });

  it('leaves a `$bytes` of a call alone: only items of streams carry bytes', () => {
    const { a, b } = socketPair();
    const got: unknown[] = [];
    jsonChannel(b).onMessage((message) => got.push(message));
    a.peer.emit('message', '{"t":"done","id":1,"value":{"$bytes":"AAAA"}}');
    expect(got).toEqual([{ t: 'done', id: 1, value: { $bytes: 'AAAA' } }]);
  });
});

import { afterEach, describe, expect, it, vi } from 'vitest';
import { electronChannel } from '../../../main/electron/port.ts';
import { type EngineProcessOptions, type ParentPort, serveEngine } from '../../../main/electron/serve-engine.ts';
import { connectApi } from '../../../preload/rpc.ts';
import { fakeEngine } from '../web/fake-engine.ts';
import { type FakePort, MessageChannelMain } from './fake-electron.ts';

type Port = Parameters<typeof electronChannel>[0];
type Message = Parameters<Parameters<ParentPort['on']>[1]>[0];

function engineProcess(options: Partial<EngineProcessOptions> = {}) {
  let listener: (event: Message) => void = () => undefined;
  const exit = vi.fn();
  const close = vi.fn(async () => undefined);
  serveEngine({
    parentPort: { on: (_, given) => (listener = given) },
    engine: { api: fakeEngine({ recent: async () => [] }), close },
    parent: process.pid,
    exit,
    ...options,
  });
  const send = (data: unknown, ports: FakePort[] = []) => listener({ data, ports: ports as unknown as Port[] });
  return { exit, close, send };
}

describe('the engine process', () => {
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
  });

  it('serves the engine over every port it is sent', async () => {
    const { send, exit } = engineProcess();
    const channels = [new MessageChannelMain(), new MessageChannelMain()];
    for (const { port1, port2 } of channels) {
      send({ type: 'connect' }, [port1]);
      expect(await connectApi(electronChannel(port2 as unknown as Port)).recent({})).toEqual([]);
    }
    for (const { port2 } of channels) port2.close();
    send({ type: 'close' });
    await expect.poll(() => exit.mock.calls).toEqual([[0]]);
  });

  it('names messages that it does not know, and goes on', () => {
    const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const { send, exit, close } = engineProcess();
    for (const message of [undefined, 'close', { type: 'other' }, { type: 'close', now: true }, { type: 'connect' }])
      send(message);
    expect(said).toHaveBeenCalledTimes(5);
    expect(exit).not.toHaveBeenCalled();
    expect(close).not.toHaveBeenCalled();
  });

  it('closes the engine once, and then exits', async () => {
    let done: () => void = () => undefined;
    const close = vi.fn(() => new Promise<void>((resolve) => (done = resolve)));
    const { send, exit } = engineProcess({ engine: { api: fakeEngine({}), close } });
    send({ type: 'close' });
    send({ type: 'close' });
    expect(close).toHaveBeenCalledOnce();
    expect(exit).not.toHaveBeenCalled();
    done();
    await expect.poll(() => exit.mock.calls).toEqual([[0]]);
  });

  it('exits with an error when the engine fails to close, or takes too long', async () => {
    vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const failing = engineProcess({ engine: { api: fakeEngine({}), close: () => Promise.reject(new Error('busy')) } });
    failing.send({ type: 'close' });
    await expect.poll(() => failing.exit.mock.calls).toEqual([[1]]);
    vi.useFakeTimers();
    const hanging = engineProcess({ engine: { api: fakeEngine({}), close: () => new Promise(() => undefined) } });
    hanging.send({ type: 'close' });
    await vi.advanceTimersByTimeAsync(4_999);
    expect(hanging.exit).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1);
    expect(hanging.exit.mock.calls).toEqual([[1]]);
  });

  it('ends with its parent', async () => {
    vi.useFakeTimers();
    let there = true;
    const asked: number[] = [];
    const { exit, close } = engineProcess({
      parent: 4711,
      alive: (pid) => {
        asked.push(pid);
        return there;
      },
    });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked).toContain(4711);
    expect(exit).not.toHaveBeenCalled();
    there = false;
    await vi.advanceTimersByTimeAsync(2_000);
    expect(close).toHaveBeenCalledOnce();
    expect(exit.mock.calls).toEqual([[0]]);
  });
});

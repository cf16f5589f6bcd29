import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { CancelledError, IoError, NotFoundError, throwIfCancelled } from '../../../main/engine/errors.ts';
import { Breather } from '../../../main/engine/task/breather.ts';
import { changeStream, type Taken } from '../../../main/engine/task/change-stream.ts';
import { Rate, type Snapshot, type TaskContext, TaskManager } from '../../../main/engine/task/task.ts';

type State = Snapshot<'copy', string>;

/** A clock that only the test moves. */
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date', 'performance'], now: new Date('2026-01-02T03:04:05Z') });
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});
const pass = (milliseconds: number): void => void vi.advanceTimersByTime(milliseconds);

/** A task whose body does what the test says, when it says so. */
function controlled(manager: TaskManager<'copy', string>, title = 'Copy www') {
  let context: TaskContext | undefined;
  let end = (_: string): void => {};
  let fail = (_: unknown): void => {};
  const started = manager.start('copy', title, (given) => {
    context = given;
    return new Promise((resolve, reject) => {
      end = resolve;
      fail = reject;
    });
  });
  return { id: started.id, started, context: context!, end: (r: string) => end(r), fail: (e: unknown) => fail(e) };
}

/** Everything that is ready has happened. */
async function settled(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

/** Collects what a stream gives, without waiting for more. */
function collect(stream: AsyncIterable<State>): { items: State[]; ended: boolean; stop(): Promise<void> } {
  const iterator = stream[Symbol.asyncIterator]();
  const out = {
    items: [] as State[],
    ended: false,
    async stop() {
      await iterator.return?.();
    },
  };
  void (async () => {
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) out.items.push(next.value);
    out.ended = true;
  })();
  return out;
}

describe('a task', () => {
  it('that is started after everything was asked to end is cancelled from the start', async () => {
    const manager = new TaskManager<'copy', string>();
    await manager.cancelAll();
    const late = controlled(manager);
    expect(late.context.signal.aborted).toBe(true);
    late.fail(new CancelledError('The copy'));
    await settled();
    expect(manager.running).toBe(0);
  });

  it('says what it is from its start to its end', async () => {
    const manager = new TaskManager<'copy', string>();
    const task = controlled(manager);
    expect(task.started).toEqual({
      id: task.id,
      kind: 'copy',
      title: 'Copy www',
      state: 'running',
      started: '2026-01-02T03:04:05.000Z',
      progress: { bytesDone: 0, itemsDone: 0 },
      bytesPerSecond: 0,
    });
    expect(manager.running).toBe(1);
    const seen = collect(manager.watch(task.id));
    await settled();
    pass(4000);
    task.context.progress.bytesDone = 8000;
    task.end('all of it');
    await settled();
    expect(seen.ended).toBe(true);
    expect(seen.items.at(-1)).toMatchObject({
      state: 'done',
      result: 'all of it',
      ended: '2026-01-02T03:04:09.000Z',
      bytesPerSecond: 2000,
    });
    expect(seen.items.at(-1)).not.toHaveProperty('secondsLeft');
    expect(manager.running).toBe(0);
  });

  it('that fails says why, as data', async () => {
    const manager = new TaskManager<'copy', string>();
    const typed = controlled(manager);
    typed.fail(new IoError('The disk is gone', { source: 'base.vmdk' }));
    const bug = controlled(manager);
    bug.fail(new RangeError('a bug of ours'));
    const sync = manager.start('copy', 'throws at once', () => {
      throw new IoError('at once', {});
    });
    await settled();
    const states = collect(manager.watchAll());
    await settled();
    const byId = new Map(states.items.map((item) => [item.id, item]));
    expect(byId.get(typed.id)).toMatchObject({
      state: 'failed',
      error: { kind: 'io', message: 'The disk is gone', details: { source: 'base.vmdk' } },
    });
    expect(byId.get(bug.id)).toMatchObject({ state: 'failed', error: { kind: 'internal', message: 'a bug of ours' } });
    expect(byId.get(sync.id)).toMatchObject({ state: 'failed', error: { kind: 'io' } });
    await states.stop();
  });

  it('ends at its next step when it is cancelled', async () => {
    const manager = new TaskManager<'copy', string>();
    let release = (): void => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { id } = manager.start('copy', 'Copy', async ({ signal }) => {
      await gate;
      throwIfCancelled(signal, 'The copy');
      return 'not reached';
    });
    const seen = collect(manager.watch(id));
    manager.cancel(id);
    await settled();
    expect(manager.running).toBe(1);
    release();
    await settled();
    expect(seen.items.at(-1)).toMatchObject({ state: 'cancelled', error: { kind: 'cancelled' } });
    // Cancelling what has ended changes nothing.
    manager.cancel(id);
    expect(() => manager.cancel('no such task')).toThrow(NotFoundError);
  });

  it('can finish although it was cancelled too late', async () => {
    const manager = new TaskManager<'copy', string>();
    const task = controlled(manager);
    let ended = false;
    const cancelling = manager.cancelAll().then(() => {
      ended = true;
    });
    expect(task.context.signal.aborted).toBe(true);
    await settled();
    expect(ended).toBe(false);
    task.end('whole');
    await cancelling;
    await manager.cancelAll();
    const seen = collect(manager.watch(task.id));
    await settled();
    expect(seen.items).toMatchObject([{ state: 'done', result: 'whole' }]);
    expect(seen.ended).toBe(true);
  });
});

describe('watching', () => {
  it('reports at most ten times a second, and the end always', async () => {
    const manager = new TaskManager<'copy', string>();
    const task = controlled(manager);
    const seen = collect(manager.watch(task.id));
    await settled();
    expect(seen.items).toHaveLength(1);
    for (let ms = 0; ms < 1000; ms++) {
      task.context.progress.bytesDone++;
      task.context.report();
      await settled();
      pass(1);
    }
    expect(seen.items.length).toBeGreaterThanOrEqual(10);
    expect(seen.items.length).toBeLessThanOrEqual(12);
    task.context.progress.bytesDone = 5000;
    task.end('done');
    await settled();
    expect(seen.items.at(-1)).toMatchObject({ state: 'done', progress: { bytesDone: 5000 } });
  });

  it('goes on when somebody sets the clock back', async () => {
    const manager = new TaskManager<'copy', string>();
    const task = controlled(manager);
    const seen = collect(manager.watch(task.id));
    await settled();
    pass(200);
    task.context.report();
    await settled();
    const before = seen.items.length;
    vi.setSystemTime(new Date('2020-01-01T00:00:00Z'));
    pass(200);
    task.context.progress.bytesDone = 1000;
    task.context.report();
    await settled();
    expect(seen.items.length).toBe(before + 1);
    expect(seen.items.at(-1)!.bytesPerSecond).toBeGreaterThan(0);
    await seen.stop();
  });

  it('gives a slow watcher the newest state, not all of them', async () => {
    const manager = new TaskManager<'copy', string>();
    const task = controlled(manager);
    const iterator = manager.watch(task.id)[Symbol.asyncIterator]();
    await iterator.next();
    for (let i = 1; i <= 50; i++) {
      pass(100);
      task.context.progress.itemsDone = i;
      task.context.report();
    }
    expect((await iterator.next()).value).toMatchObject({ progress: { itemsDone: 50 } });
    task.end('x');
    await settled();
    expect((await iterator.next()).value).toMatchObject({ state: 'done' });
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });

  it('shows a task from its start, to those who watched before', async () => {
    const manager = new TaskManager<'copy', string>();
    const all = manager.watchAll();
    // Asked for, and not yet looked at: what starts now is not to be missed.
    const first = controlled(manager, 'first');
    const seen = collect(all);
    await settled();
    expect(seen.items.map((item) => item.title)).toEqual(['first']);
    const second = controlled(manager, 'second');
    await settled();
    expect(seen.items.map((item) => item.title)).toEqual(['first', 'second']);
    first.end('1');
    second.fail(new CancelledError());
    await settled();
    expect(seen.items.slice(2).map((item) => [item.title, item.state])).toEqual([
      ['first', 'done'],
      ['second', 'cancelled'],
    ]);
    expect(seen.ended).toBe(false);
    await seen.stop();
    expect(seen.ended).toBe(true);
  });

  it('snapshots do not change afterwards', async () => {
    const manager = new TaskManager<'copy', string>();
    const task = controlled(manager);
    const seen = collect(manager.watch(task.id));
    await settled();
    task.context.progress.current = '/sda1/etc';
    task.context.progress.bytesDone = 7;
    expect(seen.items[0]!.progress).toEqual({ bytesDone: 0, itemsDone: 0 });
    expect(structuredClone(seen.items[0])).toEqual(seen.items[0]);
    await seen.stop();
  });

  it('a dismissed or unknown task is not there', async () => {
    const manager = new TaskManager<'copy', string>();
    const task = controlled(manager);
    manager.dismiss(task.id);
    expect(manager.running).toBe(1);
    const waiting = manager.watch(task.id);
    task.end('x');
    await settled();
    manager.dismiss(task.id);
    expect(() => manager.watch(task.id)).toThrow(NotFoundError);
    expect(() => manager.dismiss(task.id)).toThrow(NotFoundError);
    const seen = collect(waiting);
    await settled();
    expect(seen).toMatchObject({ items: [], ended: true });
  });

  it('keeps a hundred ended tasks, and every running one', async () => {
    const manager = new TaskManager<'copy', string>();
    const running = controlled(manager, 'running');
    for (let i = 0; i < 150; i++) {
      controlled(manager, `task ${i}`).end('x');
      await settled();
    }
    const last = controlled(manager, 'last');
    const seen = collect(manager.watchAll());
    await settled();
    for (let i = 0; i < 10; i++) await settled();
    const titles = seen.items.map((item) => item.title);
    expect(titles).toContain('running');
    expect(titles).toContain('last');
    expect(titles).toContain('task 149');
    expect(titles).not.toContain('task 0');
    expect(seen.items).toHaveLength(102);
    expect(running.id).not.toBe(last.id);
    await seen.stop();
  });
});

describe('Rate', () => {
  it('is that of the last seconds', () => {
    const rate = new Rate();
    rate.add(0, 0, 0);
    expect(rate.bytesPerSecond).toBe(0);
    expect(rate.secondsLeft({ bytesDone: 0, bytesTotal: 100, itemsDone: 0 })).toBeUndefined();
    for (let at = 100; at <= 10_000; at += 100) rate.add(at, at * 10, at / 100);
    expect(rate.bytesPerSecond).toBeCloseTo(10_000);
    expect(rate.secondsLeft({ bytesDone: 100_000, bytesTotal: 150_000, itemsDone: 0 })).toBeCloseTo(5);
    // Ten times slower from now on: after the window it is as if it never had been faster.
    for (let at = 10_100; at <= 16_000; at += 100) rate.add(at, 100_000 + (at - 10_000), 0);
    expect(rate.bytesPerSecond).toBeCloseTo(1000);
  });

  it('forecasts by items where there are no bytes to go by', () => {
    const rate = new Rate();
    for (let at = 0; at <= 1000; at += 100) rate.add(at, 0, at / 50);
    expect(rate.secondsLeft({ bytesDone: 0, itemsDone: 20, itemsTotal: 60 })).toBeCloseTo(2);
    expect(rate.secondsLeft({ bytesDone: 0, bytesTotal: 0, itemsDone: 20, itemsTotal: 60 })).toBeCloseTo(2);
    expect(rate.secondsLeft({ bytesDone: 0, itemsDone: 20 })).toBeUndefined();
  });

  it('never forecasts less than nothing', () => {
    const rate = new Rate();
    for (let at = 0; at <= 1000; at += 100) rate.add(at, at, 0);
    expect(rate.secondsLeft({ bytesDone: 2000, bytesTotal: 1000, itemsDone: 0 })).toBe(0);
  });

  it('takes no more samples than it needs', () => {
    const rate = new Rate();
    rate.add(0, 0, 0);
    rate.add(50, 1_000_000, 0);
    expect(rate.bytesPerSecond).toBe(0);
    rate.add(100, 1000, 0);
    expect(rate.bytesPerSecond).toBeCloseTo(10_000);
  });
});

describe('changeStream', () => {
  function queue() {
    const items: (number | 'end')[] = [];
    const wakers = new Set<() => void>();
    let subscribed = 0;
    const stream = changeStream<number>(
      (wake) => {
        subscribed++;
        wakers.add(wake);
        return () => wakers.delete(wake);
      },
      (): Taken<number> => {
        const item = items.shift();
        return item === undefined ? 'wait' : item === 'end' ? 'end' : { item };
      },
    );
    return {
      stream,
      wakers,
      subscribed: () => subscribed,
      put(...added: (number | 'end')[]) {
        items.push(...added);
        for (const wake of [...wakers]) wake();
      },
    };
  }

  it('subscribes when it is first asked, and once', async () => {
    const { stream, wakers, subscribed, put } = queue();
    put(1, 2);
    expect(wakers.size).toBe(0);
    expect(await stream.next()).toEqual({ done: false, value: 1 });
    expect(await stream.next()).toEqual({ done: false, value: 2 });
    expect(subscribed()).toBe(1);
    expect(wakers.size).toBe(1);
    await stream.return!();
    expect(wakers.size).toBe(0);
  });

  it('ends at once for a consumer that waits', async () => {
    const { stream, wakers } = queue();
    const waiting = stream.next();
    await settled();
    await stream.return!();
    expect(await waiting).toEqual({ done: true, value: undefined });
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    expect(wakers.size).toBe(0);
  });

  it('leaves no watcher behind a consumer that breaks off, throws or comes to the end', async () => {
    for (const leave of ['break', 'throw', 'end'] as const) {
      const { stream, wakers, put } = queue();
      const consuming = (async () => {
        for await (const item of stream) {
          if (item === 2 && leave === 'break') break;
          if (item === 2 && leave === 'throw') throw new Error('enough');
        }
      })().catch((error: Error) => expect(error.message).toBe('enough'));
      await settled();
      expect(wakers.size).toBe(1);
      put(1);
      await settled();
      put(2, 'end');
      await consuming;
      expect(wakers.size).toBe(0);
    }
  });

  it('that was never asked has nothing to undo', async () => {
    const { stream, subscribed } = queue();
    await stream.return!();
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    expect(subscribed()).toBe(0);
  });

  it('answers those who ask before they were answered, in their order', async () => {
    const { stream, put } = queue();
    const asked = [stream.next(), stream.next(), stream.next(), stream.next()];
    put(1);
    put(2, 3);
    put('end');
    expect(await Promise.all(asked)).toEqual([
      { done: false, value: 1 },
      { done: false, value: 2 },
      { done: false, value: 3 },
      { done: true, value: undefined },
    ]);
  });
});

describe('Breather', () => {
  it('is due every now and then, and lets others run', async () => {
    let seconds = 100;
    vi.spyOn(process, 'uptime').mockImplementation(() => seconds);
    const breather = new Breather();
    expect(breather.due).toBe(false);
    seconds += 0.06;
    expect(breather.due).toBe(true);
    let ran = false;
    setImmediate(() => {
      ran = true;
    });
    await settled();
    expect(ran).toBe(false);
    await breather.breathe();
    expect(ran).toBe(true);
    expect(breather.due).toBe(false);
  });
});

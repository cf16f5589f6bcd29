import { describe, expect, it } from 'vitest';
import { CancelledError, CorruptError, IoError } from '../../../main/engine/errors.ts';
import { type ByteSource, checkRange, MemorySource, Window } from '../../../main/engine/storage/byte-source.ts';
import { type Io, readBytes, runAsync, runSync } from '../../../main/engine/storage/io.ts';

const source = new MemorySource(
  Uint8Array.from({ length: 256 }, (_, i) => i),
  'bytes',
);

/** Follows a chain of single-byte pointers: each read depends on the one before. */
function* follow(start: number, steps: number): Io<number[]> {
  const seen: number[] = [];
  let at = start;
  for (let i = 0; i < steps; i++) {
    const [byte] = yield* readBytes(source, at, 1);
    seen.push(byte!);
    at = (byte! * 7 + 3) % 256;
  }
  return seen;
}

/** Reads out of range, recovers, and says what it met and whether its `finally` ran. */
function* recovering(log: string[]): Io<string> {
  try {
    yield* readBytes(source, 250, 10);
    return 'no error';
  } catch (error) {
    log.push((error as Error).name);
    const [byte] = yield* readBytes(source, 5, 1);
    return `recovered with ${byte}`;
  } finally {
    log.push('finally');
  }
}

/** biome: a computation that never reads. */
// biome-ignore lint/correctness/useYield: answers without reading, as raw images do
function* immediate(): Io<string> {
  return 'at once';
}

describe('a computation that reads', () => {
  it('comes out the same on this thread and beside it', async () => {
    for (let start = 0; start < 256; start += 17) {
      expect(runSync(follow(start, 20))).toEqual(await runAsync(follow(start, 20)));
    }
    expect(runSync(immediate())).toBe('at once');
    expect(await runAsync(immediate())).toBe('at once');
  });

  it('is thrown the error of its read, and may go on', async () => {
    for (const run of [async (io: Io<string>) => runSync(io), (io: Io<string>) => runAsync(io)]) {
      const log: string[] = [];
      expect(await run(recovering(log))).toBe('recovered with 5');
      expect(log).toEqual(['CorruptError', 'finally']);
    }
  });

  it('fails with the error that it does not catch', async () => {
    function* failing(): Io<void> {
      yield* readBytes(source, 0, 257);
    }
    expect(() => runSync(failing())).toThrow(CorruptError);
    await expect(runAsync(failing())).rejects.toThrow(CorruptError);
    function* throwing(): Io<void> {
      yield* readBytes(source, 0, 1);
      throw new IoError('mine', {});
    }
    expect(() => runSync(throwing())).toThrow(IoError);
    await expect(runAsync(throwing())).rejects.toThrow(IoError);
  });

  it('takes no memory for a length that no source has', async () => {
    function* greedy(length: number): Io<Uint8Array> {
      return yield* readBytes(source, 0, length);
    }
    for (const length of [2 ** 50, 2 ** 53, Number.NaN, -1, Number.POSITIVE_INFINITY]) {
      expect(() => runSync(greedy(length))).toThrow(CorruptError);
      await expect(runAsync(greedy(length))).rejects.toThrow(CorruptError);
    }
  });

  it('can not be run on this thread over a source that can not read there', async () => {
    const remote: ByteSource = {
      name: 'remote',
      size: 10,
      read: async (_offset, length) => new Uint8Array(length),
      close: async () => {},
    };
    function* reading(): Io<number> {
      return (yield* readBytes(remote, 0, 4)).length;
    }
    expect(() => runSync(reading())).toThrow(TypeError);
    expect(await runAsync(reading())).toBe(4);
  });

  it('stops at the next read once it is cancelled', async () => {
    const controller = new AbortController();
    let reads = 0;
    function* endless(): Io<never> {
      for (;;) {
        yield* readBytes(source, 0, 1);
        if (++reads === 3) controller.abort();
      }
    }
    await expect(runAsync(endless(), controller.signal)).rejects.toThrow(CancelledError);
    expect(reads).toBe(3);
  });
});

describe('sources', () => {
  it('a window is its own source, inside the other', async () => {
    const window = new Window(source, 10, 20, 'window');
    expect([...(await window.read(0, 3))]).toEqual([10, 11, 12]);
    const target = new Uint8Array(2);
    window.readIntoSync!(target, 18);
    expect([...target]).toEqual([28, 29]);
    await expect(window.read(19, 2)).rejects.toMatchObject({ details: { source: 'window' } });
    expect(() => window.readIntoSync!(new Uint8Array(2), 19)).toThrow(CorruptError);
    await expect(window.read(-1, 1)).rejects.toThrow(CorruptError);
    expect(() => new Window(source, 250, 10, 'beyond')).toThrow(CorruptError);
    expect(() => new Window(source, -1, 10, 'before')).toThrow(CorruptError);
    const nested = new Window(window, 5, 5, 'nested');
    expect([...(await nested.read(0, 5))]).toEqual([15, 16, 17, 18, 19]);
  });

  it('bytes in memory belong to whoever read them', async () => {
    const bytes = await source.read(0, 4);
    bytes.fill(0xff);
    expect([...(await source.read(0, 4))]).toEqual([0, 1, 2, 3]);
  });

  it('a range is checked without overflow', () => {
    const huge = { name: 'huge', size: Number.MAX_SAFE_INTEGER };
    expect(() => checkRange(huge, Number.MAX_SAFE_INTEGER, 0)).not.toThrow();
    expect(() => checkRange(huge, Number.MAX_SAFE_INTEGER, 1)).toThrow(CorruptError);
    expect(() => checkRange(huge, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)).toThrow(CorruptError);
  });
});

import { writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Output, progressLine, say } from '../../../main/cli/output.ts';
import { IoError } from '../../../main/engine/errors.ts';

vi.mock('node:fs', async (original) => ({ ...(await original<typeof import('node:fs')>()), writeSync: vi.fn() }));

/** What went to each descriptor, write by write. */
let written: Record<number, string[]> = {};
/** Bytes that the next write takes, or the code it fails with; everything when there is none. */
let next: (number | string)[] = [];

beforeEach(() => {
  written = { 1: [], 2: [] };
  next = [];
  vi.mocked(writeSync).mockImplementation(((fd: number, data: Uint8Array | string) => {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    const answer = next.shift() ?? bytes.length;
    if (typeof answer === 'string') throw Object.assign(new Error(answer), { code: answer });
    written[fd]!.push(Buffer.from(bytes.subarray(0, answer)).toString('latin1'));
    return answer;
  }) as typeof writeSync);
});
afterEach(() => {
  vi.restoreAllMocks();
});
const output = (): string => written[1]!.join('');

describe('Output', () => {
  it('collects lines and writes them whole, in large pieces', async () => {
    const out = new Output();
    await out.flush();
    out.line('one');
    out.json({ two: 2 });
    await out.breathe();
    expect(written[1]).toEqual([]);
    for (let i = 0; i < 70; i++) out.line('x'.repeat(1000));
    await out.breathe();
    expect(written[1]).toHaveLength(1);
    expect(output().startsWith('one\n{"two":2}\nxxx')).toBe(true);
    expect(output().endsWith('x\n')).toBe(true);
    await out.flush();
    expect(written[1]).toHaveLength(1);
  });

  it('goes on where a write took only a part', async () => {
    next = [3, 1, 2];
    await new Output().bytes('a whole line');
    expect(written[1]).toEqual(['a w', 'h', 'ol', 'e line']);
    await new Output().bytes(Uint8Array.of(0xff, 0x00, 0x80));
    expect(output().slice(-3)).toBe('\xff\0\x80');
  });

  it('waits for the reader of a pipe that does not wait by itself', async () => {
    const streamed: string[] = [];
    let room = false;
    const before = process.stdout.listeners('error');
    vi.spyOn(process.stdout, 'write').mockImplementation((bytes) => {
      streamed.push(Buffer.from(bytes as Uint8Array).toString('latin1'));
      return room;
    });
    try {
      const out = new Output();
      next = [2, 'EAGAIN'];
      let done = false;
      out.line('answer');
      const flushing = out.flush().then(() => {
        done = true;
      });
      await new Promise(setImmediate);
      expect(done).toBe(false);
      process.stdout.emit('drain');
      await flushing;
      expect([output(), ...streamed]).toEqual(['an', 'swer\n']);
      // What comes later may not overtake what the stream still holds.
      room = true;
      out.line('more');
      await out.flush();
      expect(streamed).toEqual(['swer\n', 'more\n']);
      expect(written[1]).toEqual(['an']);
    } finally {
      for (const listener of process.stdout.listeners('error')) {
        if (!before.includes(listener)) process.stdout.off('error', listener as () => void);
      }
    }
  });

  it('ends when the reader has seen enough, and says what else is wrong', async () => {
    const exit = vi.spyOn(process, 'exit').mockImplementation(() => {
      throw new Error('exit');
    });
    next = ['EPIPE'];
    await expect(new Output().bytes('x')).rejects.toThrow('exit');
    expect(exit).toHaveBeenCalledWith(0);
    next = ['ENOSPC'];
    await expect(new Output().bytes('x')).rejects.toThrow(IoError);
  });
});

describe('beside the answer', () => {
  it('nothing that an image or a guest says steers the terminal', () => {
    say('chainlift: corrupt: The parent "\x1b]0;owned\x07\u202egpj" is missing\n  second line');
    expect(written[2]).toEqual([
      'chainlift: corrupt: The parent "\\x1b]0;owned\\x07\\u202egpj" is missing\n  second line\n',
    ]);
  });

  it('nobody to tell it to is no failure of the command', () => {
    for (const code of ['EPIPE', 'ENOSPC', 'EIO']) {
      next = [code];
      expect(() => say('chainlift: note')).not.toThrow();
    }
    expect(written[2]).toEqual([]);
  });

  it('a live line is cut to the terminal, and only shown on one', () => {
    const shown: string[] = [];
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
      shown.push(String(text));
      return true;
    });
    const { isTTY, columns } = process.stderr;
    try {
      Object.assign(process.stderr, { isTTY: false });
      progressLine('unseen');
      Object.assign(process.stderr, { isTTY: true, columns: 20 });
      progressLine('Copy \x1b[2Jwww to somewhere far away');
      expect(shown).toEqual(['\r\x1b[KCopy \\x1b[2Jwww to ']);
    } finally {
      Object.assign(process.stderr, { isTTY, columns });
    }
  });
});

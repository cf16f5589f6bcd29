/** What the command line prints. Nothing but the answer goes to standard output; everything else to standard error. */
import { once } from 'node:events';
import { fstatSync, statSync, writeSync } from 'node:fs';
import { IoError } from '../engine/errors.ts';

/** Collects standard output and writes it in large pieces; waits where the reader is slower. */
export class Output {
  #pending: string[] = [];
  #length = 0;
  #stream = false;

  line(text: string): void {
    this.#pending.push(text);
    this.#length += text.length;
  }

  /** Writes what is pending once there is a good deal of it. Call it between batches. */
  async breathe(): Promise<void> {
    if (this.#length > 1 << 16) await this.flush();
  }

  async flush(): Promise<void> {
    if (this.#pending.length === 0) return;
    const text = `${this.#pending.join('\n')}\n`;
    this.#pending = [];
    this.#length = 0;
    await this.bytes(text);
  }

  /**
   * Writes to standard output and waits where its reader is slower. Directly as long as that works: `process.stdout` loads
   * sockets and streams, which a listing would wait for. Ends the process when the reader has seen enough.
   */
  async bytes(bytes: Uint8Array | string): Promise<void> {
    let rest = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    while (rest.length > 0 && !this.#stream) {
      try {
        rest = rest.subarray(writeSync(1, rest));
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === 'EPIPE') process.exit(0);
        if (code !== 'EAGAIN') throw new IoError('Standard output cannot be written', {}, error);
        // Somebody gave us a pipe that does not wait: the stream does.
        this.#stream = true;
        process.stdout.on('error', (failure: NodeJS.ErrnoException) => process.exit(failure.code === 'EPIPE' ? 0 : 1));
      }
    }
    if (rest.length > 0 && !process.stdout.write(rest)) await once(process.stdout, 'drain');
  }

  json(value: unknown): void {
    this.line(JSON.stringify(value));
  }
}

/** Whether standard output is a terminal. Asked of the system first: `process.stdout` is slow to load. */
export function onTerminal(): boolean {
  const stat = fstatSync(1);
  if (!stat.isCharacterDevice() || stat.rdev === statSync('/dev/null', { throwIfNoEntry: false })?.rdev) return false;
  return process.stdout.isTTY === true;
}

/** Says something beside the answer. Images and guests have their words in messages: they can't reach the terminal's controls. */
export function say(text: string): void {
  const safe = `${text.split('\n').map(printable).join('\n')}\n`;
  try {
    writeSync(2, safe);
  } catch (error) {
    // A full disk, a reader or a terminal that is gone: nobody is left to be told, and the command's work is not undone by it.
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
    // A pipe that does not wait: the stream keeps what does not fit.
    beside().write(safe);
  }
}

/** Standard error as a stream that may fail: a terminal that has gone must not take the command, and what it would tidy up, with it. */
function beside(): NodeJS.WriteStream {
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => undefined);
  return process.stderr;
}

/** A live line on standard error, where that is a terminal. */
export function progressLine(text: string): void {
  if (process.stderr.isTTY) {
    beside().write(`\r\x1b[K${printable(text).slice(0, (process.stderr.columns ?? 80) - 1)}`);
  }
}
export function endProgressLine(): void {
  if (process.stderr.isTTY) beside().write('\r\x1b[K');
}

/** `1 layer`, `3 layers`. */
export function plural(count: number, one: string): string {
  return `${count} ${one}${count === 1 ? '' : 's'}`;
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
/** Bytes for people: `5.8 KiB`. */
export function size(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // By what would be printed: 1,048,575 bytes are 1.0 MiB, not 1024 KiB.
  while (Math.round(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  const short = unit === 0 ? '' : value.toFixed(1);
  return `${unit === 0 || short.length > 4 ? Math.round(value) : short} ${units[unit]}`;
}

/** Seconds for people: `4 s`, `2 min 10 s`, `1 h 5 min`. */
export function duration(seconds: number): string {
  const s = Math.ceil(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** Control characters, line separators and what turns the direction of text round. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is replaced
const unprintable = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** The names a line each, when none of them has anything unprintable in it; undefined when each has to be looked at. */
export function plainLines(names: readonly string[]): string | undefined {
  // Joined by what is printable first: a line end within a name must not pass for one between two.
  return names.join(' ').search(unprintable) < 0 ? names.join('\n') : undefined;
}

/** A guest's text for a terminal: it can neither steer it nor make a name look like another. */
export function printable(text: string): string {
  return text.replace(unprintable, (c) => {
    const code = c.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code.padStart(4, '0')}` : `\\x${code.padStart(2, '0')}`;
  });
}

const kinds: Record<string, string> = {
  file: '-',
  directory: 'd',
  symlink: 'l',
  fifo: 'p',
  socket: 's',
  'block-device': 'b',
  'character-device': 'c',
  unknown: '?',
};

/** `drwxr-xr-x`, with set-id and sticky bits as ls shows them. */
export function modeString(kind: string, mode: number | undefined): string {
  if (mode === undefined) return `${kinds[kind] ?? '?'}---------`;
  const bit = (read: number, write: number, run: number, special: number, mark: string): string => {
    const x = (mode & run) !== 0;
    const s = (mode & special) !== 0;
    return `${mode & read ? 'r' : '-'}${mode & write ? 'w' : '-'}${s ? (x ? mark : mark.toUpperCase()) : x ? 'x' : '-'}`;
  };
  return `${kinds[kind] ?? '?'}${bit(0o400, 0o200, 0o100, 0o4000, 's')}${bit(0o40, 0o20, 0o10, 0o2000, 's')}${bit(4, 2, 1, 0o1000, 't')}`;
}

/** A guest's time as ISO 8601 UTC with all its digits; `-` where there is none. */
export function time(stamp: { seconds: number; nanoseconds: number } | undefined): string {
  if (stamp === undefined) return '-';
  const whole = new Date(stamp.seconds * 1000);
  if (Number.isNaN(whole.getTime())) return `@${stamp.seconds}`;
  const fraction = stamp.nanoseconds === 0 ? '' : `.${String(stamp.nanoseconds).padStart(9, '0').replace(/0+$/, '')}`;
  return `${whole.toISOString().replace(/\.\d+Z$/, '')}${fraction}Z`;
}

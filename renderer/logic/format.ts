/** Numbers, sizes, times and modes as the window shows them. Sizes count in 1024s, as file managers do. */
import type { EntryKind, Timestamp } from '../../preload/api.ts';

const LOCALE = 'en-GB';
const whole = new Intl.NumberFormat(LOCALE);
const UNITS = ['B', 'KB', 'MB', 'GB', 'TB', 'PB', 'EB'] as const;

/** `1,284`. */
export function count(n: number): string {
  return whole.format(n);
}

/** `1 file`, `1,284 files`; `many` where the plural is not made with s. */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** `512 B`, `5.8 KB`, `184 KB`. */
export function size(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // From 1023.5 on it would be shown as 1,024 of the smaller unit.
  while (Math.abs(value) >= (unit === 0 ? 1024 : 1023.5) && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  if (unit === 0) return `${whole.format(value)} B`;
  return `${Math.abs(value) < 99.95 ? trimmed(value) : whole.format(Math.round(value))} ${UNITS[unit]}`;
}

const trimmed = (value: number) => value.toFixed(1).replace(/\.0$/, '');

/** `5,902 bytes`. */
export function exactSize(bytes: number): string {
  return plural(bytes, 'byte');
}

/** `212 MB/s`. */
export function rate(bytesPerSecond: number): string {
  return `${size(Math.round(bytesPerSecond))}/s`;
}

/** `4 s`, `3 min 20 s`, `1 h 5 min`, `2 d 4 h`. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  const pair = (big: number, bigUnit: string, small: number, smallUnit: string) =>
    small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${small} ${smallUnit}`;
  if (s < 3600) return pair(Math.floor(s / 60), 'min', s < 600 ? s % 60 : 0, 's');
  if (s < 86_400) return pair(Math.floor(s / 3600), 'h', Math.floor((s % 3600) / 60), 'min');
  return pair(Math.floor(s / 86_400), 'd', Math.floor((s % 86_400) / 3600), 'h');
}

/** Dates beyond what a JS Date holds occur in damaged inodes; they are shown as the seconds that are stored. */
const MAX_DATE_MS = 8.64e15;

/** ISO text as milliseconds; undefined when absent or no date. */
export function isoTime(iso: string | undefined): number | undefined {
  if (iso === undefined) return undefined;
  const ms = Date.parse(iso);
  return Number.isNaN(ms) ? undefined : ms;
}

type Parts = Partial<Record<Intl.DateTimeFormatPartTypes, string>>;

const formats = new Map<string, Intl.DateTimeFormat>();
function parts(ms: number, zone: string | undefined): Parts {
  const key = zone ?? '';
  let format = formats.get(key);
  if (format === undefined) {
    format = new Intl.DateTimeFormat(LOCALE, {
      weekday: 'short',
      day: 'numeric',
      month: 'short',
      year: 'numeric',
      hour: '2-digit',
      minute: '2-digit',
      second: '2-digit',
      hourCycle: 'h23',
      ...(zone === undefined ? {} : { timeZone: zone }),
    });
    formats.set(key, format);
  }
  const result: Parts = {};
  for (const part of format.formatToParts(ms)) result[part.type] = part.value;
  // en-GB abbreviates September with four letters, which breaks columns.
  if (result.month === 'Sept') result.month = 'Sep';
  return result;
}

/** `14 Nov 2026` in this computer's time zone (or `zone`). */
export function day(ms: number, zone?: string): string {
  const p = parts(ms, zone);
  return `${p.day} ${p.month} ${p.year}`;
}

/** `14 Nov`. */
export function dayShort(ms: number, zone?: string): string {
  const p = parts(ms, zone);
  return `${p.day} ${p.month}`;
}

/** `Nov 2026`. */
export function month(ms: number, zone?: string): string {
  const p = parts(ms, zone);
  return `${p.month} ${p.year}`;
}

/** `02:00`. */
export function clock(ms: number, zone?: string): string {
  const p = parts(ms, zone);
  return `${p.hour}:${p.minute}`;
}

/** `14 Nov 2026, 02:00`. */
export function dateTime(ms: number, zone?: string): string {
  return `${day(ms, zone)}, ${clock(ms, zone)}`;
}

/** `Sat 14 Nov 2026, 02:00`. */
export function dateTimeLong(ms: number, zone?: string): string {
  return `${parts(ms, zone).weekday} ${dateTime(ms, zone)}`;
}

/** A guest's time as `14 Nov 2026, 01:12`. */
export function stamp(time: Timestamp, zone?: string): string {
  const ms = time.seconds * 1000;
  if (!Number.isFinite(ms) || Math.abs(ms) > MAX_DATE_MS) return `@${time.seconds}`;
  return dateTime(ms, zone);
}

/** A guest's time in full: `2026-11-14 01:12:33.123456789 UTC`. */
export function stampExact(time: Timestamp): string {
  const ms = time.seconds * 1000;
  if (!Number.isFinite(ms) || Math.abs(ms) > MAX_DATE_MS) return `${time.seconds} seconds since 1970`;
  const text = new Date(ms).toISOString();
  const nanoseconds = time.nanoseconds === 0 ? '' : `.${String(time.nanoseconds).padStart(9, '0')}`;
  return `${text.slice(0, text.lastIndexOf('T'))} ${text.slice(text.lastIndexOf('T') + 1, -5)}${nanoseconds} UTC`;
}

const KIND_LETTERS: Record<EntryKind, string> = {
  file: '-',
  directory: 'd',
  symlink: 'l',
  fifo: 'p',
  socket: 's',
  'block-device': 'b',
  'character-device': 'c',
  unknown: '?',
};

/** Kind and POSIX permission bits as `ls` writes them: `-rwxr-sr-t`. A file type in the mode is not looked at. */
export function modeText(kind: EntryKind, mode: number): string {
  const triplet = (bits: number, special: boolean, letter: string) => {
    const x = (bits & 1) !== 0;
    return `${bits & 4 ? 'r' : '-'}${bits & 2 ? 'w' : '-'}${special ? (x ? letter : letter.toUpperCase()) : x ? 'x' : '-'}`;
  };
  return [
    KIND_LETTERS[kind],
    triplet(mode >> 6, (mode & 0o4000) !== 0, 's'),
    triplet(mode >> 3, (mode & 0o2000) !== 0, 's'),
    triplet(mode, (mode & 0o1000) !== 0, 't'),
  ].join('');
}

/** Permission bits in octal: `0644`. */
export function modeOctal(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, '0');
}

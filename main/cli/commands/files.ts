import type { EntryRow } from '../../../preload/api.ts';
import { type CommonOptions, runCommand, sayError, targetOf } from '../context.ts';
import { modeString, onTerminal, plainLines, printable, time } from '../output.ts';

interface LsOptions extends CommonOptions {
  readonly long?: boolean;
  readonly recursive?: boolean;
  readonly sort?: boolean;
}

/**
 * `ls [-l] [-R] <source> [path]`: a name a line; below -R paths relative to the folder. Streams in stored order, sorted only on a
 * terminal or when asked. Entries that can't be read are listed, their reasons go to standard error, and the exit code is 1.
 */
export function ls(source: string, path: string, options: LsOptions): Promise<void> {
  return runCommand(async ({ engine, out }) => {
    const target = targetOf(source, options);
    const long = options.long ?? false;
    const recursive = options.recursive ?? false;
    const prefix = path.endsWith('/') ? path.length : path.length + 1;
    const sorted = options.sort === true || (onTerminal() && !options.json);
    const kept: EntryRow[] = [];
    let damaged = false;
    const reportErrors = (rows: readonly EntryRow[]): void => {
      for (let i = 0; i < rows.length; i++) {
        const { error, path } = rows[i]!;
        if (error === undefined) continue;
        damaged = true;
        sayError({ ...error, message: `${printable(path)}: ${error.message}` });
      }
    };
    const nameOf = (row: EntryRow): string => (recursive ? row.path.slice(prefix) || row.name : row.name);
    const textOf = (row: EntryRow): string => {
      if (options.json) return JSON.stringify(row);
      if (!long) return printable(nameOf(row));
      const target = row.linkTarget === undefined ? '' : ` -> ${printable(row.linkTarget)}`;
      return `${longColumns(row)} ${printable(nameOf(row))}${target}`;
    };
    const printAll = async (rows: readonly EntryRow[]): Promise<void> => {
      reportErrors(rows);
      // Names alone, and nearly always harmless: one look at all of them is much cheaper than one at each.
      const lines = long || options.json || rows.length === 0 ? undefined : plainLines(rows.map(nameOf));
      if (lines !== undefined) out.line(lines);
      else for (const row of rows) out.line(textOf(row));
      await out.breathe();
    };
    for await (const rows of engine.api.list({ target, path, long, recursive })) {
      if (sorted) for (const row of rows) kept.push(row);
      else {
        await printAll(rows);
      }
    }
    kept.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
    await printAll(kept);
    return damaged ? 1 : 0;
  });
}

function longColumns(row: EntryRow): string {
  const size = row.device === undefined ? String(row.size ?? '-') : `${row.device.major}, ${row.device.minor}`;
  return [
    modeString(row.kind, row.mode),
    String(row.links ?? '-').padStart(3),
    String(row.uid ?? '-').padStart(5),
    String(row.gid ?? '-').padStart(5),
    size.padStart(12),
    time(row.modified).padEnd(20),
  ].join(' ');
}

/** `stat <source> <path>`. */
export function stat(source: string, path: string, options: CommonOptions): Promise<void> {
  return runCommand(async ({ engine, out }) => {
    const details = await engine.api.stat({ target: targetOf(source, options), path });
    if (options.json) out.json(details);
    else {
      const rows: [string, string | undefined][] = [
        ['path', printable(details.path)],
        ['kind', details.kind],
        ['link to', details.linkTarget === undefined ? undefined : printable(details.linkTarget)],
        ['id', String(details.id)],
        ['size', details.size === undefined ? undefined : `${details.size} bytes`],
        ['allocated', details.allocated === undefined ? undefined : `${details.allocated} bytes`],
        [
          'mode',
          details.mode === undefined
            ? undefined
            : `${modeString(details.kind, details.mode)} (${details.mode.toString(8).padStart(4, '0')})`,
        ],
        ['owner', details.uid === undefined ? undefined : `${details.uid}:${details.gid}`],
        ['links', details.links === undefined ? undefined : String(details.links)],
        ['device', details.device === undefined ? undefined : `${details.device.major}, ${details.device.minor}`],
        ['modified', details.modified && time(details.modified)],
        ['changed', details.changed && time(details.changed)],
        ['accessed', details.accessed && time(details.accessed)],
        ['created', details.created && time(details.created)],
        ['flags', details.flags?.length ? details.flags.join(', ') : undefined],
      ];
      for (const [key, value] of rows) if (value !== undefined) out.line(`${key.padEnd(10)} ${value}`);
      for (const { name, value } of details.attributes)
        out.line(`${'attribute'.padEnd(10)} ${printable(name)} = ${attributeText(value)}`);
      for (const { name, bytes } of details.layers)
        out.line(`${'layer'.padEnd(10)} ${printable(name)}: ${bytes} bytes`);
    }
    const problems = details.error === undefined ? details.problems : [details.error];
    for (const problem of problems) sayError(problem);
    return problems.length === 0 ? 0 : 1;
  });
}

/** A value as text where it is text, else as hexadecimal. */
function attributeText(base64: string): string {
  const bytes = Buffer.from(base64, 'base64');
  const text = bytes.toString('utf8').replace(/\0$/, '');
  return /^[\p{L}\p{N}\p{P}\p{S}\p{Zs}]*$/u.test(text) && !text.includes('�')
    ? JSON.stringify(text)
    : `0x${bytes.toString('hex')}`;
}

/** `cat <source> <path>`: the content, byte for byte. */
export function cat(source: string, path: string, options: CommonOptions): Promise<void> {
  return runCommand(async ({ engine, out }) => {
    for await (const chunk of engine.api.read({ target: targetOf(source, options), path })) {
      await out.bytes(chunk);
    }
    return 0;
  });
}

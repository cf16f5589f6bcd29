/** Folders of a point as rows. A recursive listing streams depth first and survives damage and loops. */
import type { EntryRow } from '../../../preload/api.ts';
import { ChainliftError, CorruptError, throwIfCancelled, toWireError, type WireError } from '../errors.ts';
import type { Entry, FileSystem } from '../filesystem/file-system.ts';
import { joinVmPath, splitVmPath } from '../restore/source.ts';
import { Breather } from '../task/breather.ts';
import type { OpenPoint } from './open-point.ts';

export interface ListOptions {
  readonly long: boolean;
  readonly recursive: boolean;
  readonly disk: number | undefined;
  readonly signal: AbortSignal;
}

const MAX_DEPTH = 1024;

/** A row for an entry, with its attributes when `long`. What can't be read stays in the row as its error. */
export async function entryRow(fs: FileSystem, entry: Entry, path: string, long: boolean): Promise<EntryRow> {
  const base = { name: entry.name, path, kind: entry.kind, id: entry.id };
  if (entry.error !== undefined) return { ...base, error: toWireError(entry.error) };
  if (!long) return base;
  try {
    const stat = await fs.stat(entry);
    const linkTarget = stat.kind === 'symlink' ? await fs.readLink(entry) : undefined;
    return { ...base, ...stat, ...(linkTarget === undefined ? {} : { linkTarget }) };
  } catch (error) {
    if (!(error instanceof ChainliftError)) throw error;
    return { ...base, error: toWireError(error) };
  }
}

/** The volumes as folders of `/`. */
async function* volumeRows(point: OpenPoint, disk: number | undefined): AsyncGenerator<EntryRow[]> {
  const { volumes } = await point.volumes();
  const rows: EntryRow[] = [];
  for (const volume of volumes) {
    if (disk !== undefined && volume.disk !== disk) continue;
    const row: EntryRow = { name: volume.name, path: `/${volume.name}`, kind: 'directory', id: 0, size: volume.size };
    try {
      await point.fileSystem(volume.name);
      rows.push(row);
    } catch (error) {
      if (!(error instanceof ChainliftError)) throw error;
      rows.push({ ...row, error: toWireError(error) });
    }
  }
  yield rows;
}

/**
 * Rows of the folder at `path`, or one row when `path` is no folder. @throws NotFoundError and what reading the folder throws; below
 * it, errors stay in their rows.
 */
export async function* listRows(point: OpenPoint, path: string, options: ListOptions): AsyncGenerator<EntryRow[]> {
  if (/^\/*$/.test(path)) {
    for await (const rows of volumeRows(point, options.disk)) {
      yield rows;
      if (!options.recursive) continue;
      for (const row of rows) {
        if (row.error !== undefined) continue;
        // One damaged volume does not hide the ones after it.
        try {
          const fs = await point.fileSystem(row.name);
          yield* walk(fs, await fs.root(), row.path, new Walk(options), 0);
        } catch (error) {
          yield [{ ...row, error: rowError(error) }];
        }
      }
    }
    return;
  }
  const { volume, inside } = splitVmPath(path);
  const fs = await point.fileSystem(volume);
  // As a shell does: a link to a folder is followed when the path ends in a slash, or is listed itself.
  const entry = await fs.entry(inside, { follow: inside.endsWith('/') });
  const clean = path.length > 1 ? path.replace(/\/+$/, '') : path;
  if (entry.kind !== 'directory') {
    yield [await entryRow(fs, entry, clean, options.long)];
    return;
  }
  yield* walk(fs, entry, clean, new Walk(options), 0);
}

/** What stands in a row in place of what could not be read; cancelling, and bugs, are thrown on. */
function rowError(error: unknown): WireError {
  if (!(error instanceof ChainliftError) || error.kind === 'cancelled') throw error;
  return toWireError(error);
}

/** One listing on its way through a volume. */
class Walk {
  readonly options: ListOptions;
  /** Folders met. A tree has none twice: a second time is a loop, or a listing without end. */
  readonly met = new Set<number>();
  readonly #breather = new Breather();

  constructor(options: ListOptions) {
    this.options = options;
  }

  /** Between batches: an end when it was asked for, and room for others. */
  async step(): Promise<void> {
    if (this.#breather.due) await this.#breather.breathe();
    throwIfCancelled(this.options.signal, 'The listing');
  }
}

function plainRow(entry: Entry, prefix: string): EntryRow {
  const { name, kind, id, error } = entry;
  const path = prefix + name;
  return error === undefined ? { name, path, kind, id } : { name, path, kind, id, error: toWireError(error) };
}

/** Rows of names and kinds alone. A function of its own, for it is compiled at once where a generator's loop is not. */
function plainRows(batch: readonly Entry[], prefix: string): EntryRow[] {
  const rows: EntryRow[] = [];
  for (let i = 0; i < batch.length; i++) rows.push(plainRow(batch[i]!, prefix));
  return rows;
}

async function* walk(
  fs: FileSystem,
  directory: Entry,
  path: string,
  state: Walk,
  depth: number,
): AsyncGenerator<EntryRow[]> {
  const { options, met } = state;
  met.add(directory.id);
  const prefix = joinVmPath(path, '');
  for await (const batch of fs.list(directory, options.signal)) {
    await state.step();
    if (!options.recursive && !options.long) {
      yield plainRows(batch, prefix);
      continue;
    }
    let rows: EntryRow[] = [];
    for (const entry of batch) {
      const child = prefix + entry.name;
      if (!options.recursive || entry.kind !== 'directory' || entry.error !== undefined) {
        rows.push(options.long ? await entryRow(fs, entry, child, true) : plainRow(entry, prefix));
        continue;
      }
      const row = await entryRow(fs, entry, child, options.long);
      const misplaced = treeError(entry, child, met, depth + 1);
      rows.push(misplaced === undefined ? row : { ...row, error: misplaced.toWire() });
      if (misplaced !== undefined) continue;
      yield rows;
      rows = [];
      try {
        yield* walk(fs, entry, child, state, depth + 1);
      } catch (error) {
        rows.push({ ...row, error: rowError(error) });
      }
    }
    if (rows.length > 0) yield rows;
  }
}

/** Why a folder can't be at this place of a tree, when it can't. */
function treeError(entry: Entry, path: string, met: ReadonlySet<number>, depth: number): CorruptError | undefined {
  if (met.has(entry.id)) {
    return new CorruptError('Directory tree', {
      source: path,
      expected: 'a folder not met before',
      found: `the folder with id ${entry.id} again: a loop, or one folder at two places`,
    });
  }
  if (depth < MAX_DEPTH) return undefined;
  return new CorruptError('Directory tree', { source: path, expected: `at most ${MAX_DEPTH} levels`, found: 'more' });
}

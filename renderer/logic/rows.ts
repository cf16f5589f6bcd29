/** The rows of the file pane: which entries are shown, and in what order. Pure. */
import type { EntryRow } from '../../preload/api.ts';

export interface Row {
  /** The name; for an entry that is gone, its name with a prefix that no name can have. */
  readonly key: string;
  readonly entry: EntryRow;
  /** The point before had it, this one has not. */
  readonly gone: boolean;
  /** The name as it is compared. */
  readonly order: string;
  readonly folder: boolean;
}

export type SortColumn = 'name' | 'size' | 'modified' | 'since';
export interface Sort {
  readonly column: SortColumn;
  readonly descending: boolean;
}

export type Mark = 'added' | 'changed' | 'gone' | 'gone-later';

const GONE = '/gone/';
export const rowOf = (entry: EntryRow): Row => ({
  key: entry.name,
  entry,
  gone: false,
  order: naturalOrder(entry.name),
  folder: entry.kind === 'directory',
});
export const goneRowOf = (entry: EntryRow): Row => ({ ...rowOf(entry), key: `${GONE}${entry.name}`, gone: true });

/**
 * A name as text whose plain comparison is the natural order: `file2` before `file10`, case and accents aside. Made once a row, for
 * comparing with a collator costs twenty times as much, which a folder of 100,000 files makes felt.
 */
export function naturalOrder(name: string): string {
  const plain = isAscii(name) ? name : name.normalize('NFKD').replace(/\p{M}/gu, '');
  return plain.toLowerCase().replace(/[0-9]+/g, (digits) => {
    const number = digits.replace(/^0+(?=.)/, '');
    // A longer number is a greater one; its length stands before it, after a digit so that numbers stay before letters.
    return `0${String.fromCharCode(0x30 + Math.min(number.length, 0xff))}${number}`;
  });
}

function isAscii(text: string): boolean {
  for (let at = 0; at < text.length; at++) if (text.charCodeAt(at) > 0x7f) return false;
  return true;
}

/** Ties are settled by code units, so that the order is always the same. */
function byName(a: Row, b: Row): number {
  if (a.order !== b.order) return a.order < b.order ? -1 : 1;
  return a.entry.name < b.entry.name ? -1 : a.entry.name > b.entry.name ? 1 : Number(a.gone) - Number(b.gone);
}

/** Missing values come last in either direction, as an unknown is neither small nor old. */
function byNumber(a: number | undefined, b: number | undefined, sign: number): number {
  if (a === undefined || b === undefined) return a === b ? 0 : a === undefined ? 1 : -1;
  return sign * (a - b);
}

const SINCE_RANK: Record<Mark, number> = { added: 0, changed: 1, gone: 2, 'gone-later': 3 };

/** Folders come first in every order, as in most file managers. */
export function comparison(sort: Sort, markOf: (row: Row) => Mark | undefined): (a: Row, b: Row) => number {
  const own = columnOrder(sort, markOf);
  return (a, b) => {
    if (a.folder !== b.folder) return a.folder ? -1 : 1;
    return own(a, b) || byName(a, b);
  };
}

function columnOrder(sort: Sort, markOf: (row: Row) => Mark | undefined): (a: Row, b: Row) => number {
  const sign = sort.descending ? -1 : 1;
  if (sort.column === 'name') return (a, b) => sign * byName(a, b);
  // What a folder's own size is means nothing to a person.
  if (sort.column === 'size') return (a, b) => (a.folder ? 0 : byNumber(a.entry.size, b.entry.size, sign));
  if (sort.column === 'modified') {
    return (a, b) =>
      byNumber(a.entry.modified?.seconds, b.entry.modified?.seconds, sign) ||
      byNumber(a.entry.modified?.nanoseconds, b.entry.modified?.nanoseconds, sign);
  }
  const rank = (row: Row) => {
    const mark = markOf(row);
    return mark === undefined ? undefined : SINCE_RANK[mark];
  };
  return (a, b) => byNumber(rank(a), rank(b), sign);
}

export interface ViewInput {
  /** What has come so far; a listing only ever appends to it. */
  readonly entries: readonly EntryRow[];
  /** How many of `entries` count: the array grows while it is shown. */
  readonly length: number;
  readonly gone: readonly EntryRow[];
  readonly sort: Sort;
  readonly showHidden: boolean;
  readonly markOf: (row: Row) => Mark | undefined;
}

export interface View {
  readonly input: ViewInput;
  readonly rows: readonly Row[];
  /** Rows of all entries that have come, in their own order; kept, since making them costs more than sorting them. */
  readonly all: Row[];
}

/**
 * The rows to show. While a folder streams in, only `length` grows: then the new rows are appended to the sorted ones and
 * sorted again, which costs the engine's merge sort (two runs) about one comparison a row.
 */
export function extendView(before: View | undefined, input: ViewInput): View {
  const same = before !== undefined && before.input.entries === input.entries && before.input.length <= input.length;
  const grows =
    same &&
    before.input.gone === input.gone &&
    before.input.sort === input.sort &&
    before.input.showHidden === input.showHidden &&
    (before.input.markOf === input.markOf || input.sort.column !== 'since');
  if (grows && before.input.length === input.length) return before;
  const known = same ? before.all : [];
  const fresh = input.entries.slice(known.length, input.length).map(rowOf);
  const all = [...known, ...fresh];
  const visible = (row: Row) => input.showHidden || !row.entry.name.startsWith('.');
  const rows = grows
    ? [...before.rows, ...fresh.filter(visible)]
    : [...all.filter(visible), ...input.gone.map(goneRowOf).filter(visible)];
  rows.sort(comparison(input.sort, input.markOf));
  return { input, rows, all };
}

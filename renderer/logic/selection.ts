/**
 * The selection of a list, as file managers do it: a click selects one, Ctrl toggles, Shift selects from the anchor, arrows move
 * the focus and the selection with it (Ctrl: the focus alone). Pure: every function answers a new state. Rows are known by
 * key, so that a selection survives sorting, streaming and a change of the point in time.
 */

export interface Selection {
  readonly keys: ReadonlySet<string>;
  /** Where a range begins. */
  readonly anchor: string | undefined;
  /** The row with the focus ring. */
  readonly focus: string | undefined;
}

export interface Modifiers {
  /** Ctrl, or Cmd on a Mac. */
  readonly toggle?: boolean;
  readonly range?: boolean;
}

export const NOTHING: Selection = { keys: new Set(), anchor: undefined, focus: undefined };

export type Step = 'previous' | 'next' | 'page-up' | 'page-down' | 'first' | 'last';

function span(order: readonly string[], from: string | undefined, to: string): string[] {
  const a = from === undefined ? -1 : order.indexOf(from);
  const b = order.indexOf(to);
  if (a < 0) return [to];
  return order.slice(Math.min(a, b), Math.max(a, b) + 1);
}

/** A click on a row. */
export function click(state: Selection, order: readonly string[], key: string, how: Modifiers = {}): Selection {
  if (how.range === true) {
    const anchor = state.anchor !== undefined && order.includes(state.anchor) ? state.anchor : key;
    const range = span(order, anchor, key);
    return { keys: new Set(how.toggle === true ? [...state.keys, ...range] : range), anchor, focus: key };
  }
  if (how.toggle === true) return toggle(state, key);
  return { keys: new Set([key]), anchor: key, focus: key };
}

/** Puts a row in or takes it out, and begins ranges from it. */
export function toggle(state: Selection, key: string): Selection {
  const keys = new Set(state.keys);
  if (!keys.delete(key)) keys.add(key);
  return { keys, anchor: key, focus: key };
}

/** An arrow, page or end key. `page` is how many rows a page has. */
export function move(
  state: Selection,
  order: readonly string[],
  step: Step,
  page: number,
  how: Modifiers = {},
): Selection {
  if (order.length === 0) return NOTHING;
  const at = state.focus === undefined ? -1 : order.indexOf(state.focus);
  const last = order.length - 1;
  const next = {
    previous: at < 0 ? last : at - 1,
    next: at + 1,
    'page-up': at - page,
    'page-down': at + page,
    first: 0,
    last,
  }[step];
  const key = order[Math.min(last, Math.max(0, next))];
  if (key === undefined) return state;
  if (how.range === true) return click(state, order, key, { range: true });
  if (how.toggle === true) return { ...state, focus: key };
  return { keys: new Set([key]), anchor: key, focus: key };
}

export function selectAll(state: Selection, order: readonly string[]): Selection {
  return { keys: new Set(order), anchor: order[0], focus: state.focus ?? order[0] };
}

export function clear(state: Selection): Selection {
  return { keys: new Set(), anchor: state.focus, focus: state.focus };
}

/** The selection among the rows that there are now. */
export function retain(state: Selection, present: ReadonlySet<string>): Selection {
  const keys = [...state.keys].filter((key) => present.has(key));
  const known = (key: string | undefined) => (key !== undefined && present.has(key) ? key : undefined);
  if (keys.length === state.keys.size && known(state.anchor) === state.anchor && known(state.focus) === state.focus) {
    return state;
  }
  return { keys: new Set(keys), anchor: known(state.anchor), focus: known(state.focus) };
}

/**
 * The row that typed letters lead to: the next whose name begins with them, after the focus when a single letter was typed
 * (or the same one again), from the focus on otherwise; wraps around. -1 when there is none.
 */
export function typeAhead(names: readonly string[], from: number, typed: string): number {
  if (typed === '' || names.length === 0) return -1;
  const letters = [...typed.toLocaleLowerCase()];
  const repeated = letters.every((letter) => letter === letters[0]);
  const wanted = repeated ? (letters[0] ?? '') : letters.join('');
  const start = repeated ? from + 1 : Math.max(0, from);
  for (let step = 0; step < names.length; step++) {
    const at = (start + step) % names.length;
    if (names[at]?.toLocaleLowerCase().startsWith(wanted) === true) return at;
  }
  return -1;
}

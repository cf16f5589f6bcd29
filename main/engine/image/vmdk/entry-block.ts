/**
 * Which copy of a grain table is believed. A hosted sparse extent keeps its tables twice, and damage comes in sectors of the file
 * that holds them, so the two are compared sector by sector (128 entries):
 *
 * - a sector in which every entry can be true is taken as it is, except in a table that is empty although its copy is not: that
 *   was wiped, since no writer fills the copy only (one that is ruined says nothing, though);
 * - a sector with an entry that no file of this disk could have is ruined: one that is whole in the copy replaces it;
 * - otherwise entry by entry: what can be true stands for what can't. A copy that says "not there" is no evidence against an entry
 *   that leads behind the end of the file: that is what a file looks like that was cut off.
 *
 * What neither copy settles is an error for whoever asks for that grain.
 */
import { GTE_EMPTY } from './layout.ts';

/** Entries in one sector of a table. */
const BLOCK = 128;

/** How the entries of a table look, by what the file could hold. */
export interface EntryRules {
  /** The entry is empty, a zeroed grain, or leads to a grain inside the file. `index` counts from the table's first entry. */
  plausible(index: number, entry: number): boolean;
  /** The entry could be true in a file of another length. */
  possible(entry: number): boolean;
}

export interface Settled {
  /** An entry each; UNSETTLED where neither copy can be believed. */
  readonly entries: Float64Array;
  /** Something was taken from the copy. */
  readonly fromCopy: boolean;
}

export const UNSETTLED = -1;

export type EntryReader = (index: number) => number;

/** True when a table can't be used without a look at its copy. */
export function isDoubtful(count: number, entry: EntryReader, rules: EntryRules): boolean {
  let empty = true;
  for (let i = 0; i < count; i++) {
    const value = entry(i);
    if (value !== GTE_EMPTY) empty = false;
    if (!rules.plausible(i, value)) return true;
  }
  return empty;
}

/** The entries of a table of `count`, from itself and from its copy where there is one. */
export function settleEntries(
  count: number,
  primary: EntryReader,
  copy: EntryReader | undefined,
  rules: EntryRules,
): Settled {
  const entries = new Float64Array(count);
  let fromCopy = false;
  const wiped = copy !== undefined && isEmpty(count, primary) && !isEmpty(count, copy);
  for (let first = 0; first < count; first += BLOCK) {
    const end = Math.min(first + BLOCK, count);
    const state = blockState(first, end, primary, rules);
    const copyState = copy === undefined ? 'ruined' : blockState(first, end, copy, rules);
    const takeCopy = copyState === 'whole' && (wiped || state === 'ruined');
    for (let i = first; i < end; i++) {
      const own = primary(i);
      const other = copy?.(i);
      let entry = own;
      if (takeCopy) entry = other!;
      else if (wiped && copyState === 'damaged') entry = rules.plausible(i, other!) ? other! : UNSETTLED;
      else if (state !== 'whole') entry = settleOne(i, own, other, state, rules);
      if (entry !== own && entry !== UNSETTLED) fromCopy = true;
      entries[i] = entry;
    }
  }
  return { entries, fromCopy };
}

type BlockState = 'whole' | 'damaged' | 'ruined';

function blockState(first: number, end: number, entry: EntryReader, rules: EntryRules): BlockState {
  let state: BlockState = 'whole';
  for (let i = first; i < end; i++) {
    const value = entry(i);
    if (rules.plausible(i, value)) continue;
    if (!rules.possible(value)) return 'ruined';
    state = 'damaged';
  }
  return state;
}

function settleOne(
  index: number,
  own: number,
  other: number | undefined,
  state: BlockState,
  rules: EntryRules,
): number {
  const ownFits = rules.plausible(index, own);
  if (other === undefined) return ownFits ? own : UNSETTLED;
  const otherFits = rules.plausible(index, other);
  if (ownFits && otherFits && own === other) return own;
  // Both sectors are ruined and say different things, or one of them says something: chance may have made it fit.
  if (ownFits) return state === 'ruined' ? UNSETTLED : own;
  return otherFits && other !== GTE_EMPTY ? other : UNSETTLED;
}

function isEmpty(count: number, entry: EntryReader): boolean {
  for (let i = 0; i < count; i++) if (entry(i) !== GTE_EMPTY) return false;
  return true;
}

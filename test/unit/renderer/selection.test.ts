import { describe, expect, it } from 'vitest';
import * as model from '../../../renderer/logic/selection.ts';

const order = ['a', 'b', 'c', 'd', 'e'];
const keys = (state: model.Selection) => [...state.keys].sort().join('');
const at = (key: string) => model.click(model.NOTHING, order, key);

describe('the mouse', () => {
  it('selects one, toggles with Ctrl, ranges with Shift', () => {
    let state = at('b');
    expect(keys(state)).toBe('b');
    state = model.click(state, order, 'd', { toggle: true });
    expect(keys(state)).toBe('bd');
    state = model.click(state, order, 'b', { toggle: true });
    expect(keys(state)).toBe('d');
    state = model.click(at('b'), order, 'd', { range: true });
    expect(keys(state)).toBe('bcd');
  });
  it('keeps the anchor of a range as its other end moves, also backwards', () => {
    let state = model.click(at('c'), order, 'e', { range: true });
    state = model.click(state, order, 'a', { range: true });
    expect(keys(state)).toBe('abc');
    expect(state.anchor).toBe('c');
    expect(state.focus).toBe('a');
  });
  it('adds a range with Ctrl and Shift', () => {
    let state = model.click(at('a'), order, 'c', { toggle: true });
    state = model.click(state, order, 'e', { toggle: true, range: true });
    expect(keys(state)).toBe('acde');
  });
  it('begins a range anew when its anchor is gone', () => {
    const state = model.click({ keys: new Set(['x']), anchor: 'x', focus: 'x' }, order, 'b', { range: true });
    expect(keys(state)).toBe('b');
  });
});

describe('the keyboard', () => {
  it('moves the selection and stops at the ends', () => {
    expect(keys(model.move(at('b'), order, 'next', 3))).toBe('c');
    expect(keys(model.move(at('a'), order, 'previous', 3))).toBe('a');
    expect(keys(model.move(at('b'), order, 'page-down', 3))).toBe('e');
    expect(keys(model.move(at('e'), order, 'page-down', 3))).toBe('e');
    expect(keys(model.move(at('d'), order, 'first', 3))).toBe('a');
    expect(keys(model.move(at('b'), order, 'last', 3))).toBe('e');
  });
  it('begins at the top going down, at the bottom going up', () => {
    expect(keys(model.move(model.NOTHING, order, 'next', 3))).toBe('a');
    expect(keys(model.move(model.NOTHING, order, 'previous', 3))).toBe('e');
    expect(model.move(model.NOTHING, [], 'next', 3)).toBe(model.NOTHING);
  });
  it('extends with Shift and moves the focus alone with Ctrl', () => {
    let state = model.move(at('b'), order, 'next', 3, { range: true });
    state = model.move(state, order, 'next', 3, { range: true });
    expect(keys(state)).toBe('bcd');
    state = model.move(state, order, 'previous', 3, { range: true });
    expect(keys(state)).toBe('bc');
    state = model.move(state, order, 'last', 3, { toggle: true });
    expect(keys(state)).toBe('bc');
    expect(state.focus).toBe('e');
    expect(keys(model.toggle(state, 'e'))).toBe('bce');
  });
  it('selects all and nothing', () => {
    const all = model.selectAll(at('c'), order);
    expect(keys(all)).toBe('abcde');
    expect(all.focus).toBe('c');
    expect(keys(model.clear(all))).toBe('');
    expect(model.clear(all).focus).toBe('c');
  });
});

it('keeps what is still there when the rows change, and is the same object when all is', () => {
  const state = model.click(at('b'), order, 'd', { range: true });
  expect(model.retain(state, new Set(order))).toBe(state);
  const fewer = model.retain(state, new Set(['c', 'd']));
  expect(keys(fewer)).toBe('cd');
  expect(fewer.anchor).toBeUndefined();
  expect(fewer.focus).toBe('d');
});

describe('type-ahead', () => {
  const names = ['assets', 'budget', 'Budget-2', 'config', 'cron', 'über'];
  it.each([
    [-1, 'c', 3],
    [3, 'c', 4],
    [4, 'c', 3],
    [3, 'cr', 4],
    [0, 'BUDGET-', 2],
    [1, 'budget', 1],
    [2, 'a', 0],
    [0, 'ü', 5],
    [3, 'cc', 4],
    [0, 'x', -1],
    [0, '', -1],
  ])('from %d, "%s" leads to %d', (from, typed, found) => {
    expect(model.typeAhead(names, from, typed)).toBe(found);
  });
  it('finds nothing in an empty folder', () => expect(model.typeAhead([], -1, 'a')).toBe(-1));
});

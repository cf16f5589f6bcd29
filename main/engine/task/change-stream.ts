/**
 * A stream of states that ends at once when its consumer stops. An async generator that waits for the next change can't:
 * its `return` is queued behind the wait.
 */

/** What `take` answers: an item, nothing for now, or the end. */
export type Taken<T> = { readonly item: T } | 'wait' | 'end';

/**
 * @param subscribe called at the first `next`; is given what to call when there may be something to take; returns its own undoing.
 * @param take the next item, if there is one.
 */
export function changeStream<T>(
  subscribe: (wake: () => void) => () => void,
  take: () => Taken<T>,
): AsyncIterableIterator<T> {
  let unsubscribe: (() => void) | undefined;
  let ended = false;
  let waiting: ((result: IteratorResult<T>) => void) | undefined;

  const finish = (): IteratorResult<T> => {
    ended = true;
    unsubscribe?.();
    unsubscribe = undefined;
    return { done: true, value: undefined };
  };
  const attempt = (): IteratorResult<T> | undefined => {
    if (ended) return { done: true, value: undefined };
    const taken = take();
    if (taken === 'end') return finish();
    return taken === 'wait' ? undefined : { done: false, value: taken.item };
  };
  const settle = (): void => {
    if (waiting === undefined) return;
    const result = attempt();
    if (result === undefined) return;
    const resolve = waiting;
    waiting = undefined;
    resolve(result);
  };

  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    next(): Promise<IteratorResult<T>> {
      if (!ended) unsubscribe ??= subscribe(settle);
      const result = attempt();
      if (result !== undefined) return Promise.resolve(result);
      return new Promise((resolve) => {
        waiting = resolve;
      });
    },
    return(): Promise<IteratorResult<T>> {
      const result = finish();
      waiting?.(result);
      waiting = undefined;
      return Promise.resolve(result);
    },
  };
}

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
  /** Those who wait, in the order they asked: a consumer may ask again before it was answered. */
  const waiting: ((result: IteratorResult<T>) => void)[] = [];

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
    while (waiting.length > 0) {
      const result = attempt();
      if (result === undefined) return;
      waiting.shift()!(result);
    }
  };

  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    next(): Promise<IteratorResult<T>> {
      if (!ended) unsubscribe ??= subscribe(settle);
      return new Promise((resolve) => {
        waiting.push(resolve);
        settle();
      });
    },
    return(): Promise<IteratorResult<T>> {
      const result = finish();
      for (const resolve of waiting.splice(0)) resolve(result);
      return Promise.resolve(result);
    },
  };
}

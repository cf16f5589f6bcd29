import { useEffect, useState } from 'react';
import type { EntryRow, Target, WireError } from '../../preload/api.ts';
import { useServices } from '../context.ts';
import { asWire } from '../words.ts';

/** A folder's rows as far as they have come. */
export interface Listing {
  /** The place that the rows are of; behind `wanted` while another one is on its way. */
  readonly place: string;
  readonly entries: readonly EntryRow[];
  /** How many of `entries` to show; the array itself grows while the folder streams in. */
  readonly length: number;
  readonly state: 'loading' | 'done' | 'error';
  readonly error?: WireError;
}

/** Rows are handed to the screen at most this often, and less often the more there are, since showing them is what costs. */
const FLUSH_MS = 60;
/** For so long the folder before stays on screen, so that moving along the history does not flicker. */
const HOLD_MS = 250;

export const placeOf = (target: Target, path: string, generation: number): string =>
  JSON.stringify([target.source, target.vm, target.point, path, generation]);

const emptyListing = (place: string): Listing => ({ place, entries: [], length: 0, state: 'loading' });

/** Streams a folder in. `generation` is raised to read it anew. */
export function useListing(target: Target, path: string, generation: number): Listing {
  const { api } = useServices();
  const place = placeOf(target, path, generation);
  const [listing, setListing] = useState<Listing>(() => emptyListing(place));

  // biome-ignore lint/correctness/useExhaustiveDependencies: `place` stands for the target, whose identity changes more often.
  useEffect(() => {
    const entries: EntryRow[] = [];
    const stream = api.list({ target, path, long: true })[Symbol.asyncIterator]();
    let stopped = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const show = (state: Listing['state'], error?: WireError) => {
      clearTimeout(timer);
      timer = undefined;
      setListing({ place, entries, length: entries.length, state, ...(error === undefined ? {} : { error }) });
    };
    const hold = setTimeout(() => show('loading'), HOLD_MS);
    const run = async () => {
      try {
        for (let step = await stream.next(); step.done !== true; step = await stream.next()) {
          if (stopped) return;
          clearTimeout(hold);
          const first = entries.length === 0;
          for (const entry of step.value) entries.push(entry);
          const wait = first ? 0 : FLUSH_MS + entries.length / 200;
          timer ??= setTimeout(() => show('loading'), wait);
        }
        if (!stopped) show('done');
      } catch (error) {
        if (!stopped) show('error', asWire(error));
      } finally {
        clearTimeout(hold);
      }
    };
    void run();
    return () => {
      stopped = true;
      clearTimeout(timer);
      clearTimeout(hold);
      // Whether the engine could stop its work is its own concern; the rows are not wanted any more.
      stream.return?.().then(undefined, () => undefined);
    };
  }, [api, place]);

  return listing;
}

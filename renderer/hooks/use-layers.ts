import { useEffect, useRef, useState } from 'react';
import type { LayerShare, Target } from '../../preload/api.ts';
import { useServices } from '../context.ts';

const SETTLE_MS = 80;
const BATCH = 200;

export type LayersOf = (path: string) => readonly LayerShare[] | null | undefined;

/** Layers of the rows on screen, asked for when scrolling has settled, one request at a time; `undefined` while not known. */
export function useLayers(target: Target, place: string, visible: readonly string[]): LayersOf {
  const { api, offline } = useServices();
  const known = useRef({ place, answers: new Map<string, readonly LayerShare[] | null>() });
  const [, redraw] = useState(0);
  const busy = useRef(false);
  const [asked, setAsked] = useState(0);
  if (known.current.place !== place) known.current = { place, answers: new Map() };
  const { answers } = known.current;

  // biome-ignore lint/correctness/useExhaustiveDependencies: `place` stands for the target; `asked` makes it look for the next batch.
  useEffect(() => {
    if (offline) return;
    const missing = visible.filter((path) => !answers.has(path)).slice(0, BATCH);
    if (missing.length === 0) return;
    const timer = setTimeout(() => {
      if (busy.current) return;
      busy.current = true;
      api
        .layers({ target, paths: missing })
        .then(
          (shares) => {
            for (const [index, path] of missing.entries()) answers.set(path, shares[index] ?? null);
          },
          // The column then says that it can't be told; the file itself says why when it is selected.
          () => {
            for (const path of missing) answers.set(path, null);
          },
        )
        .finally(() => {
          busy.current = false;
          redraw((n) => n + 1);
          setAsked((n) => n + 1);
        });
    }, SETTLE_MS);
    return () => clearTimeout(timer);
  }, [api, place, visible, asked, offline]);

  return (path) => answers.get(path);
}

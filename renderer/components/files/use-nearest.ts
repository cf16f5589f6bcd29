import { useEffect, useState } from 'react';
import type { Target } from '../../../preload/api.ts';
import { useServices } from '../../context.ts';
import { ancestors, ROOT } from '../../logic/paths.ts';

/** The nearest folder above `path` that is there at this point in time; undefined while it is looked for. */
export function useNearest(target: Target, path: string, wanted: boolean): string | undefined {
  const { api } = useServices();
  const [found, setFound] = useState<string>();
  const key = JSON.stringify(target);
  // biome-ignore lint/correctness/useExhaustiveDependencies: `key` stands for the target.
  useEffect(() => {
    setFound(undefined);
    if (!wanted) return;
    let stopped = false;
    const look = async () => {
      for (const folder of ancestors(path)) {
        if (stopped) return;
        if (folder === ROOT) break;
        const kind = await api.stat({ target, path: folder }).then(
          (details) => details.kind,
          () => undefined, // Not there, or not readable: the one above it may be.
        );
        if (kind === 'directory') {
          if (!stopped) setFound(folder);
          return;
        }
      }
      if (!stopped) setFound(ROOT);
    };
    void look();
    return () => {
      stopped = true;
    };
  }, [api, key, path, wanted]);
  return found;
}

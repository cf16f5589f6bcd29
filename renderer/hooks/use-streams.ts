import { useCallback, useEffect, useState } from 'react';
import type { ExportInfo, TaskSnapshot } from '../../preload/api.ts';
import { useServices } from '../context.ts';

/** Consumes a stream for as long as the component is there. A lost connection shows itself elsewhere (the banner). */
function follow<Item>(stream: AsyncIterable<Item>, take: (item: Item) => void): () => void {
  const iterator = stream[Symbol.asyncIterator]();
  let stopped = false;
  const run = async () => {
    for (let step = await iterator.next(); step.done !== true && !stopped; step = await iterator.next())
      take(step.value);
  };
  run().catch(() => undefined);
  return () => {
    stopped = true;
    iterator.return?.().then(undefined, () => undefined);
  };
}

export interface Tasks {
  /** Newest first, without the reading of repositories. */
  readonly all: readonly TaskSnapshot[];
  /** Repositories that are being read, newest first: shown where they are waited for. */
  readonly scans: readonly TaskSnapshot[];
  readonly dismiss: (id: string) => void;
  readonly cancel: (id: string) => void;
}

export function useTasks(): Tasks {
  const { api } = useServices();
  const [tasks, setTasks] = useState<ReadonlyMap<string, TaskSnapshot>>(new Map());
  useEffect(() => {
    setTasks(new Map());
    return follow(api.watchTasks({}), (task) => setTasks((before) => new Map(before).set(task.id, task)));
  }, [api]);
  const dismiss = useCallback(
    (id: string) => {
      setTasks((before) => new Map([...before].filter(([other]) => other !== id)));
      api.dismissTask({ id }).catch(() => undefined); // Gone there already, or the connection is: both are fine.
    },
    [api],
  );
  const cancel = useCallback((id: string) => void api.cancelTask({ id }).catch(() => undefined), [api]);
  const sorted = [...tasks.values()].sort((a, b) => (a.started < b.started ? 1 : a.started > b.started ? -1 : 0));
  const all = sorted.filter((task) => task.kind !== 'scan');
  const scans = sorted.filter((task) => task.kind === 'scan' && task.state === 'running');
  return { all, scans, dismiss, cancel };
}

export function useExports(): readonly ExportInfo[] {
  const { api } = useServices();
  const [exports, setExports] = useState<readonly ExportInfo[]>([]);
  useEffect(() => {
    setExports([]);
    return follow(api.watchExports({}), setExports);
  }, [api]);
  return exports;
}

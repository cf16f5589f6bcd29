/** Questions to the engine whose answers are kept while the window is open. Points in time never change, so neither do these. */
import { QueryClient, queryOptions, useQuery } from '@tanstack/react-query';
import type { ChainliftApi, RepositoryReport, Target } from '../preload/api.ts';
import { EngineError } from '../preload/rpc/client.ts';
import { useServices } from './context.ts';

export function makeQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        staleTime: Number.POSITIVE_INFINITY,
        retry: false,
        refetchOnWindowFocus: false,
        networkMode: 'always',
      },
    },
  });
}

export function useRecent() {
  const { api } = useServices();
  return useQuery({ queryKey: ['recent'], queryFn: () => api.recent({}) });
}

export function useAbout() {
  const { api } = useServices();
  return useQuery({ queryKey: ['about'], queryFn: () => api.about({}) });
}

/** Reads a repository: a task that can be watched and cancelled, then what it found. Nobody waiting for it any more cancels it. */
async function readRepository(api: ChainliftApi, source: string, signal: AbortSignal): Promise<RepositoryReport> {
  const { id } = await api.scan({ source });
  // It may have ended in the meantime, or the connection may be gone: then there is nothing to cancel.
  const cancel = () => void api.cancelTask({ id }).catch(() => undefined);
  if (signal.aborted) cancel();
  signal.addEventListener('abort', cancel, { once: true });
  try {
    let failure: EngineError | undefined;
    for await (const task of api.watchTask({ id })) {
      failure = task.error === undefined ? undefined : new EngineError(task.error);
    }
    // Its outcome is shown in its place, not among the tasks.
    await api.dismissTask({ id });
    if (failure !== undefined) throw failure;
    return await api.report({ source });
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}

export function useScanOptions() {
  const { api } = useServices();
  return (source: string) =>
    queryOptions({ queryKey: ['scan', source], queryFn: ({ signal }) => readRepository(api, source, signal) });
}

const keyOf = (target: Target) => [target.source, target.vm, target.point, target.disk];

export function useVolumes(target: Target, generation: number) {
  const { api } = useServices();
  return useQuery({
    queryKey: ['volumes', ...keyOf(target), generation],
    queryFn: () => api.volumes({ target }),
  });
}

export function useChanges(target: Target, path: string, generation: number, wanted: boolean) {
  const { api } = useServices();
  return useQuery({
    queryKey: ['changes', ...keyOf(target), path, generation],
    queryFn: () => api.changes({ target, path }),
    enabled: wanted && path !== '/',
    gcTime: 60_000,
  });
}

export function useStat(target: Target, path: string | undefined) {
  const { api } = useServices();
  return useQuery({
    queryKey: ['stat', ...keyOf(target), path],
    queryFn: () => api.stat({ target, path: path ?? '/' }),
    enabled: path !== undefined,
    gcTime: 60_000,
  });
}

export const PREVIEW_LIMIT = 256 * 1024;

export function usePreview(target: Target, path: string | undefined) {
  const { api } = useServices();
  return useQuery({
    queryKey: ['preview', ...keyOf(target), path],
    queryFn: () => api.preview({ target, path: path ?? '/', limit: PREVIEW_LIMIT }),
    enabled: path !== undefined,
    gcTime: 10_000,
  });
}

export function useBrowse(path: string | undefined) {
  const { api } = useServices();
  return useQuery({
    queryKey: ['browse', path],
    queryFn: () => api.browse(path === undefined ? {} : { path }),
    staleTime: 0,
    gcTime: 0,
    placeholderData: (before) => before,
  });
}

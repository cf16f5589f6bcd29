/** Questions to the engine whose answers are kept while the window is open. Points in time never change, so neither do these. */
import { QueryClient, queryOptions, useQuery } from '@tanstack/react-query';
import type { Target } from '../preload/api.ts';
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

export function useScanOptions() {
  const { api } = useServices();
  return (source: string) => queryOptions({ queryKey: ['scan', source], queryFn: () => api.scan({ source }) });
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

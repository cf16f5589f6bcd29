/** A `ChainliftApi` for tests of the shells: every method refuses unless the test supplies it. */
import type { ChainliftApi, EntryDetails, Target } from '../../../preload/api.ts';
import { METHODS } from '../../../preload/rpc/protocol.ts';

export const target: Target = { source: '/backups/web01', vm: 'web01', point: '2' };

export function fakeEngine(methods: Partial<ChainliftApi>): ChainliftApi {
  const api = Object.fromEntries(
    Object.keys(METHODS).map((name) => [
      name,
      () => {
        throw new Error(`The test did not expect a call of ${name}`);
      },
    ]),
  );
  return { ...(api as unknown as ChainliftApi), ...methods };
}

export function fileEntry(path: string, size: number | undefined, rest: Partial<EntryDetails> = {}): EntryDetails {
  return {
    name: path.slice(path.lastIndexOf('/') + 1),
    path,
    kind: 'file',
    id: 12,
    ...(size === undefined ? {} : { size }),
    attributes: [],
    layers: [],
    problems: [],
    ...rest,
  };
}

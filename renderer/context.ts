/** What every component may need: the engine and the shell. */
import { createContext, useContext } from 'react';
import type { ChainliftApi, ShellApi } from '../preload/api.ts';

export interface Services {
  readonly api: ChainliftApi;
  readonly shell: ShellApi;
  /** The connection to the engine was lost; what is shown may be read but not acted on. */
  readonly offline: boolean;
  readonly reconnect: () => void;
  /** Why the last attempt to reconnect failed, when one did. */
  readonly reconnectError: unknown;
}

export const ServicesContext = createContext<Services | undefined>(undefined);

export function useServices(): Services {
  const services = useContext(ServicesContext);
  if (services === undefined) throw new Error('Components need a ServicesContext around them');
  return services;
}

import { QueryClientProvider } from '@tanstack/react-query';
import { Unplug } from 'lucide-react';
import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { App } from './app.tsx';
import { type Carrier, type Engine, NotAdmittedError } from './carrier.ts';
import { Button } from './components/ui/button.tsx';
import { Brand, Empty, Skeleton } from './components/ui/small.tsx';
import { type Services, ServicesContext } from './context.ts';
import { useTheme } from './hooks/use-theme.ts';
import { makeQueryClient } from './queries.ts';

type Connection =
  | { readonly state: 'connecting' }
  | { readonly state: 'online'; readonly engine: Engine }
  /** `error` is why the last attempt to connect again failed. */
  | { readonly state: 'offline'; readonly engine: Engine; readonly error?: unknown }
  | { readonly state: 'failed'; readonly error: unknown };

interface Props {
  readonly openCarrier: () => Promise<Carrier>;
}

/** Connects to the engine, keeps the window when the connection is lost, and connects again when asked. */
export function Root({ openCarrier }: Props) {
  const [theme, setTheme] = useTheme();
  const [carrier, setCarrier] = useState<Carrier>();
  const [connection, setConnection] = useState<Connection>({ state: 'connecting' });
  const [client] = useState(makeQueryClient);
  const attempt = useRef(0);

  const connect = useCallback(async () => {
    attempt.current += 1;
    const own = attempt.current;
    const latest = () => attempt.current === own;
    setConnection((before) => ('engine' in before ? before : { state: 'connecting' }));
    try {
      const made = await openCarrier();
      const engine = await made.connect();
      if (!latest()) return;
      setCarrier((before) => before ?? made);
      setConnection({ state: 'online', engine });
      // Answers that were missed while there was no connection are asked for again.
      void client.invalidateQueries({ predicate: (query) => query.state.status === 'error' });
      void engine.lost.then(() => {
        if (latest()) setConnection({ state: 'offline', engine });
      });
    } catch (error) {
      if (!latest()) return;
      setConnection((before) =>
        'engine' in before ? { state: 'offline', engine: before.engine, error } : { state: 'failed', error },
      );
    }
  }, [openCarrier, client]);
  useEffect(() => void connect(), [connect]);

  const services = useMemo<Services | undefined>(() => {
    if (carrier === undefined || !('engine' in connection)) return undefined;
    return {
      api: connection.engine.api,
      shell: carrier.shell,
      offline: connection.state === 'offline',
      reconnectError: connection.state === 'offline' ? connection.error : undefined,
      reconnect: () => void connect(),
    };
  }, [carrier, connection, connect]);

  if (services === undefined) return <Starting connection={connection} onRetry={() => void connect()} />;
  return (
    <QueryClientProvider client={client}>
      <ServicesContext value={services}>
        <App theme={theme} onTheme={setTheme} />
      </ServicesContext>
    </QueryClientProvider>
  );
}

function Starting({ connection, onRetry }: { readonly connection: Connection; readonly onRetry: () => void }) {
  const failed = connection.state === 'failed';
  const admitted = !(failed && connection.error instanceof NotAdmittedError);
  return (
    <div className="starting">
      <Brand />
      {failed ? (
        <Empty icon={Unplug} title={admitted ? 'The engine is not answering' : 'This address is not open any more'}>
          <p className="quiet">
            {admitted
              ? 'It may still be starting, or it has ended. Nothing of your backups is affected.'
              : 'Each address that chainlift prints works in one browser, for as long as it runs. Start it again and open the new address.'}
          </p>
          <Button onPress={onRetry}>Try again</Button>
        </Empty>
      ) : (
        <Skeleton lines={2} label="Connecting to the engine" />
      )}
    </div>
  );
}

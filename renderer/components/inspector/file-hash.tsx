import { useEffect, useRef, useState } from 'react';
import type { Target, WireError } from '../../../preload/api.ts';
import { useServices } from '../../context.ts';
import { size as sizeText } from '../../logic/format.ts';
import { asWire } from '../../words.ts';
import { Button } from '../ui/button.tsx';
import { CopyButton } from '../ui/copy-button.tsx';
import { ErrorNote } from '../ui/error-note.tsx';

/** The browser's digest wants the whole content in memory; a copy verifies and records the hash of files of any size. */
const LIMIT = 64 * 1024 * 1024;

type State =
  | { readonly kind: 'idle' | 'busy' }
  | { readonly kind: 'done'; readonly hash: string }
  | { readonly kind: 'failed'; readonly error: WireError };

interface Props {
  readonly target: Target;
  readonly path: string;
  readonly size: number;
}

/** SHA-256 of a file's content, when asked for. */
export function FileHash({ target, path, size }: Props) {
  const { api } = useServices();
  const [state, setState] = useState<State>({ kind: 'idle' });
  const alive = useRef(true);
  useEffect(() => {
    alive.current = true;
    return () => {
      alive.current = false;
    };
  }, []);
  if (size > LIMIT) return null;

  const run = async () => {
    setState({ kind: 'busy' });
    try {
      const chunks: Uint8Array[] = [];
      for await (const chunk of api.read({ target, path })) {
        if (!alive.current) return;
        chunks.push(chunk);
      }
      const digest = await crypto.subtle.digest('SHA-256', await new Blob(chunks as BlobPart[]).arrayBuffer());
      const hash = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
      if (alive.current) setState({ kind: 'done', hash });
    } catch (error) {
      if (alive.current) setState({ kind: 'failed', error: asWire(error) });
    }
  };

  return (
    <section aria-label="SHA-256" className="file-hash">
      <h4>SHA-256</h4>
      {state.kind === 'done' ? (
        <p className="hash">
          <code>{state.hash}</code>
          <CopyButton text={state.hash} label="Copy SHA-256" />
        </p>
      ) : (
        <Button small look="quiet" isDisabled={state.kind === 'busy'} onPress={() => void run()}>
          {state.kind === 'busy' ? `Reading ${sizeText(size)}…` : 'Calculate'}
        </Button>
      )}
      {state.kind === 'failed' && <ErrorNote error={state.error} look="inline" />}
    </section>
  );
}

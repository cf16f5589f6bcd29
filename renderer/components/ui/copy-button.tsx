import { Check, Copy } from 'lucide-react';
import { useEffect, useState } from 'react';
import { IconButton } from './button.tsx';

const SHOWN_MS = 1_600;

/** Puts a text on the clipboard and says so. */
export function CopyButton({ text, label }: { readonly text: string; readonly label: string }) {
  const [state, setState] = useState<'idle' | 'done' | 'failed'>('idle');
  useEffect(() => {
    if (state === 'idle') return;
    const timer = setTimeout(() => setState('idle'), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [state]);
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => setState('done'),
      () => setState('failed'),
    );
  const said = state === 'done' ? 'Copied' : state === 'failed' ? 'The clipboard is not available' : '';
  return (
    <span className="copy-button">
      <IconButton label={label} icon={state === 'done' ? Check : Copy} onPress={() => void copy()} />
      <span role="status" className={state === 'failed' ? 'copy-said' : 'sr-only'}>
        {said}
      </span>
    </span>
  );
}

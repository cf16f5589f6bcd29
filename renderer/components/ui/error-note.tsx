import { CircleX, Info, TriangleAlert } from 'lucide-react';
import type { ReactNode } from 'react';
import type { WireError } from '../../../preload/api.ts';
import { useServices } from '../../context.ts';
import { detailLines, wordsFor } from '../../words.ts';
import { Button } from './button.tsx';

interface Props {
  readonly error: WireError;
  readonly onRetry?: (() => void) | undefined;
  /** In the middle of an empty pane, or as lines in a list. */
  readonly look?: 'panel' | 'inline';
  readonly children?: ReactNode;
}

/** What happened, to what, and what to do; the details are one click away. */
export function ErrorNote({ error, onRetry, look = 'panel', children }: Props) {
  const { reconnect } = useServices();
  const words = wordsFor(error);
  // What is not read is no failure: nothing is wrong with it.
  const plain = error.kind === 'unsupported' || error.kind === 'needs-key' || error.kind === 'cancelled';
  const Icon = plain ? Info : error.kind === 'corrupt' || error.kind === 'missing-parent' ? TriangleAlert : CircleX;
  return (
    <div className={`error-note ${look}`} role={look === 'panel' ? 'alert' : undefined}>
      <Icon
        className={plain ? 'error-icon plain' : 'error-icon'}
        size={look === 'panel' ? 22 : 15}
        strokeWidth={1.75}
        aria-hidden="true"
      />
      <div className="error-words">
        <p className="error-title">{words.title}</p>
        <p>{words.text}</p>
        <p className="quiet">{words.next}</p>
        <div className="error-actions">
          {words.remedy === 'reconnect' ? (
            <Button small onPress={reconnect}>
              Reconnect
            </Button>
          ) : (
            onRetry !== undefined && (
              <Button small onPress={onRetry}>
                Try again
              </Button>
            )
          )}
          {children}
        </div>
        <details className="error-details">
          <summary>Details</summary>
          <dl>
            {detailLines(error).map((line) => (
              <div key={line.label}>
                <dt>{line.label}</dt>
                <dd>{line.value}</dd>
              </div>
            ))}
          </dl>
        </details>
      </div>
    </div>
  );
}

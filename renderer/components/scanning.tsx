import { useEffect, useState } from 'react';
import type { TaskSnapshot } from '../../preload/api.ts';
import { duration, plural } from '../logic/format.ts';
import { hostName } from '../logic/paths.ts';
import { Button } from './ui/button.tsx';
import { Progress } from './ui/small.tsx';

/** A scan that takes no longer than this needs no words. */
const PATIENCE_S = 1;

/** A repository that is being read: what is read, for how long already, and the way out. */
interface Props {
  readonly source: string;
  readonly task: TaskSnapshot | undefined;
  readonly onStop: () => void;
}

export function Scanning({ source, task, onStop }: Props) {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    const started = performance.now();
    const timer = setInterval(() => setSeconds(Math.floor((performance.now() - started) / 1000)), 1000);
    return () => clearInterval(timer);
  }, []);
  if (seconds < PATIENCE_S) {
    return (
      <p className="sr-only" role="status">
        Reading the repository
      </p>
    );
  }
  return (
    <div className="empty">
      <Progress label="Reading the repository" value={undefined} />
      <p className="empty-title" role="status">
        Reading the repository
      </p>
      <p className="quiet path-text">{source}</p>
      <p className="quiet">
        For <span className="figure">{duration(seconds)}</span>
        {task !== undefined && task.progress.itemsDone > 0 && (
          <>
            , <span className="figure">{plural(task.progress.itemsDone, 'image')}</span> so far
            {task.progress.current === undefined ? '' : `, now ${hostName(task.progress.current)}`}
          </>
        )}
        . A folder of many images, or one on a slow drive or network, takes its time; other repositories can be used
        meanwhile.
      </p>
      <div className="empty-actions">
        <Button onPress={onStop}>Cancel</Button>
      </div>
    </div>
  );
}

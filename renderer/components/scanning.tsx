import { useEffect, useState } from 'react';
import { duration } from '../logic/format.ts';
import { Button } from './ui/button.tsx';
import { Progress } from './ui/small.tsx';

/** A scan that takes no longer than this needs no words. */
const PATIENCE_S = 1;

/** A repository that is being read: what is read, for how long already, and the way out. */
export function Scanning({ source, onStop }: { readonly source: string; readonly onStop: () => void }) {
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
        For <span className="figure">{duration(seconds)}</span>. A folder of many images, or one on a slow drive or
        network, takes its time; other repositories can be used meanwhile.
      </p>
      <div className="empty-actions">
        <Button onPress={onStop}>Do not wait</Button>
      </div>
    </div>
  );
}

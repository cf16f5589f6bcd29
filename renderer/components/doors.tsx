import { FolderOpen, ShieldCheck } from 'lucide-react';
import { day, isoTime } from '../logic/format.ts';
import { useRecent } from '../queries.ts';
import { Button } from './ui/button.tsx';

interface Props {
  readonly onOpenFolder: () => void;
  readonly onOpen: (source: string) => void;
}

/** First run, or nothing opened: the ways in. */
export function Doors({ onOpenFolder, onOpen }: Props) {
  const recent = useRecent().data ?? [];
  return (
    <section className="doors" aria-label="Open a backup">
      <h1>Open a backup</h1>
      <p className="quiet">
        Choose the folder that holds a virtual machine’s files: its disks, their snapshots and, if there, its .vmx and
        .vmsd.
      </p>
      <Button look="primary" onPress={onOpenFolder}>
        <FolderOpen size={15} aria-hidden="true" />
        Open a folder…
      </Button>
      {recent.length > 0 && (
        <>
          <h2>Opened before</h2>
          <ul className="plain-list recent">
            {recent.map((one) => {
              const opened = isoTime(one.opened);
              return (
                <li key={one.path}>
                  <button type="button" onClick={() => onOpen(one.path)}>
                    <b>{one.name}</b>
                    <span className="quiet path-text">{one.path}</span>
                    {opened !== undefined && <span className="quiet figure">{day(opened)}</span>}
                  </button>
                </li>
              );
            })}
          </ul>
        </>
      )}
      <p className="quiet assurance">
        <ShieldCheck size={14} aria-hidden="true" />
        Backups are only ever read. Nothing you do here can change them.
      </p>
    </section>
  );
}

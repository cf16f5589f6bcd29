import { CircleCheck } from 'lucide-react';
import type { FindingAction, Orphan } from '../../../preload/api.ts';
import { size } from '../../logic/format.ts';
import type { FindingGroup } from '../../logic/health.ts';
import { DialogBox } from '../ui/dialog.tsx';
import { Empty, HealthDot } from '../ui/small.tsx';
import { FindingList } from './finding-list.tsx';

interface Props {
  readonly title: string;
  readonly groups: readonly FindingGroup[];
  readonly orphans?: readonly Orphan[];
  readonly onLocate: (action: FindingAction) => void;
  readonly onClose: () => void;
}

/** What was found, with where and what was expected, and files that belong to nothing. */
export function FindingsDialog({ title, groups, orphans = [], onLocate, onClose }: Props) {
  return (
    <DialogBox title={title} onClose={onClose} wide>
      {groups.length === 0 && orphans.length === 0 && (
        <Empty icon={CircleCheck} title="Nothing was found">
          <p className="quiet">Every link that was looked at is there and fits the next. Verify reads further.</p>
        </Empty>
      )}
      {groups.map((group) => (
        <section key={group.title ?? ''} aria-label={group.title}>
          {group.title !== undefined && <h3 className="list-heading">{group.title}</h3>}
          <FindingList findings={group.findings} onLocate={onLocate} />
        </section>
      ))}
      {orphans.length > 0 && (
        <section aria-label="Orphaned files">
          <h3 className="list-heading">Files that belong to no point</h3>
          <ul className="plain-list findings">
            {orphans.map((orphan) => (
              <li key={orphan.file}>
                <HealthDot health="note" />
                <div>
                  <p>
                    <code>{orphan.file}</code> <span className="quiet figure">{size(orphan.bytes)}</span>
                  </p>
                  <p className="quiet">{orphan.reason}</p>
                </div>
              </li>
            ))}
          </ul>
        </section>
      )}
    </DialogBox>
  );
}

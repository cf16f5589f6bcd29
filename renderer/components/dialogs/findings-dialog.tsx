import { CircleCheck } from 'lucide-react';
import type { Finding, Orphan } from '../../../preload/api.ts';
import { count, size } from '../../logic/format.ts';
import { DialogBox } from '../ui/dialog.tsx';
import { Empty, HealthDot } from '../ui/small.tsx';

interface Props {
  readonly title: string;
  readonly findings: readonly Finding[];
  readonly orphans?: readonly Orphan[];
  readonly onClose: () => void;
}

/** What was found, with where and what was expected, and files that belong to nothing. */
export function FindingsDialog({ title, findings, orphans = [], onClose }: Props) {
  return (
    <DialogBox title={title} onClose={onClose} wide>
      {findings.length === 0 && orphans.length === 0 && (
        <Empty icon={CircleCheck} title="Nothing was found">
          <p className="quiet">Every link that was looked at is there and fits the next. Verify reads further.</p>
        </Empty>
      )}
      {findings.length > 0 && <FindingList findings={findings} />}
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

export function FindingList({ findings }: { readonly findings: readonly Finding[] }) {
  return (
    <ul className="plain-list findings">
      {findings.map((finding) => (
        <li key={JSON.stringify([finding.code, finding.message, finding.source, finding.position])}>
          <HealthDot health={finding.severity} />
          <div>
            <p>{finding.message}</p>
            {finding.remedy !== undefined && <p className="quiet">{finding.remedy}</p>}
            <p className="finding-facts quiet">{findingFacts(finding).join(' · ')}</p>
          </div>
        </li>
      ))}
    </ul>
  );
}

function findingFacts(finding: Finding): string[] {
  const fact = (label: string, value: string | number | undefined) =>
    value === undefined ? [] : [`${label} ${value}`];
  return [
    ...fact('', finding.source).map((text) => text.trim()),
    ...fact('', finding.structure).map((text) => text.trim()),
    ...(finding.position === undefined ? [] : [`byte ${count(finding.position)}`]),
    ...fact('expected', finding.expected),
    ...fact('found', finding.found),
    finding.code,
  ];
}

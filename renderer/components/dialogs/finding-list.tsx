import type { Finding, FindingAction } from '../../../preload/api.ts';
import { findingFacts } from '../../logic/report.ts';
import { Button } from '../ui/button.tsx';
import { HealthDot } from '../ui/small.tsx';

interface Props {
  readonly findings: readonly Finding[];
  /** Offered where a finding can be acted upon. */
  readonly onLocate?: ((action: FindingAction) => void) | undefined;
}

/** What was found: what is wrong, what can still be done, and the facts that show it. */
export function FindingList({ findings, onLocate }: Props) {
  return (
    <ul className="plain-list findings">
      {findings.map((finding) => (
        <li key={JSON.stringify([finding.code, finding.message, finding.source, finding.position])}>
          <HealthDot health={finding.severity} />
          <div>
            <p>{finding.message}</p>
            {finding.remedy !== undefined && <p className="quiet">{finding.remedy}</p>}
            <p className="finding-facts quiet">{findingFacts(finding).join(' · ')}</p>
            {finding.action !== undefined && onLocate !== undefined && (
              <Button small onPress={() => onLocate(finding.action!)}>
                Say where it is…
              </Button>
            )}
          </div>
        </li>
      ))}
    </ul>
  );
}

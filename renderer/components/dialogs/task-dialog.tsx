import type { FindingAction, Severity, TaskResult, TaskSnapshot } from '../../../preload/api.ts';
import { useServices } from '../../context.ts';
import { count, dateTime, exactSize, isoTime, plural, size } from '../../logic/format.ts';
import { findingCounts } from '../../logic/health.ts';
import { taskReport, timeTaken } from '../../logic/report.ts';
import { shortWords, wordsFor } from '../../words.ts';
import { Facts } from '../inspector/facts.tsx';
import { Button } from '../ui/button.tsx';
import { CopyButton } from '../ui/copy-button.tsx';
import { DialogBox } from '../ui/dialog.tsx';
import { ErrorNote } from '../ui/error-note.tsx';
import { FindingList } from './finding-list.tsx';

interface Props {
  readonly task: TaskSnapshot;
  readonly onClose: () => void;
  /** Somebody wants to say where a parent is. @param source of the repository it was found in. */
  readonly onLocate: (source: string, action: FindingAction) => void;
}

/** How a task ended: its result, or why it has none. */
export function TaskDialog({ task, onClose, onLocate }: Props) {
  return (
    <DialogBox
      title={task.title}
      onClose={onClose}
      wide
      footer={
        <>
          <span className="dialog-note">{whenText(task)}</span>
          <CopyButton text={taskReport(task)} label="Copy the report as text" />
          <Button onPress={onClose}>Close</Button>
        </>
      }
    >
      {task.error !== undefined && <ErrorNote error={task.error} look="inline" />}
      {task.result !== undefined && <Result result={task.result} onLocate={onLocate} />}
    </DialogBox>
  );
}

/** `20 Nov 2026, 14:02, took 4 s`. */
function whenText(task: TaskSnapshot): string {
  const ended = isoTime(task.ended);
  const taken = timeTaken(task);
  return [ended === undefined ? undefined : dateTime(ended), taken === undefined ? undefined : `took ${taken}`]
    .filter((part) => part !== undefined)
    .join(', ');
}

type Of<Kind extends TaskResult['kind']> = Extract<TaskResult, { kind: Kind }>;

interface ResultProps {
  readonly result: TaskResult;
  readonly onLocate: Props['onLocate'];
}

function Result({ result, onLocate }: ResultProps) {
  if (result.kind === 'copy') return <CopyOutcome result={result} />;
  if (result.kind === 'hash') {
    return (
      <Facts
        facts={[
          { label: 'Read', value: exactSize(result.bytes) },
          {
            label: 'SHA-256',
            value: (
              <span className="hash">
                <code>{result.sha256}</code>
                <CopyButton text={result.sha256} label="Copy SHA-256" />
              </span>
            ),
          },
        ]}
      />
    );
  }
  if (result.kind === 'scan') {
    return (
      <Facts
        facts={[
          { label: 'VMs', value: String(result.vms) },
          { label: 'Points', value: String(result.points) },
        ]}
      />
    );
  }
  if (result.kind === 'convert') return <ConvertOutcome result={result} />;
  return <VerifyOutcome result={result} onLocate={(action) => onLocate(result.source, action)} />;
}

const RANKS: readonly { readonly severity: Severity; readonly title: string }[] = [
  { severity: 'damaged', title: 'Damaged' },
  { severity: 'suspicious', title: 'Suspicious' },
  { severity: 'note', title: 'Notes' },
];

interface VerifyProps {
  readonly result: Of<'verify'>;
  readonly onLocate: (action: FindingAction) => void;
}

/** What was looked at stands beside what was found: "nothing is wrong" is worth no more than what was checked. */
function VerifyOutcome({ result, onLocate }: VerifyProps) {
  return (
    <>
      <Facts
        facts={[
          { label: 'Checked', value: `${plural(result.disksChecked, 'disk')}, from the newest layer to the base` },
          { label: 'Found', value: findingCounts(result.findings) ?? 'Nothing is wrong' },
        ]}
      />
      <p className="callout">
        {result.disksChecked === 0
          ? 'No disk could be opened to be checked.'
          : 'Checked are the links between the layers, their sizes and their tables, and checksums where the format or the package has them. What the guest wrote has nothing to be compared with; hash a disk to compare it with another copy.'}
      </p>
      {RANKS.map(({ severity, title }) => {
        const ranked = result.findings.filter((finding) => finding.severity === severity);
        return (
          ranked.length > 0 && (
            <section key={severity} aria-label={title}>
              <h3 className="list-heading">{`${title} (${count(ranked.length)})`}</h3>
              <FindingList findings={ranked.slice(0, SHOWN)} onLocate={onLocate} />
              {ranked.length > SHOWN && (
                <p className="quiet more">and {count(ranked.length - SHOWN)} more, all of them in the report</p>
              )}
            </section>
          )
        );
      })}
    </>
  );
}

const SHOWN = 200;

function ConvertOutcome({ result }: { readonly result: Of<'convert'> }) {
  const { shell } = useServices();
  return (
    <>
      <Facts
        facts={[
          {
            label: 'Format',
            value: result.variant === result.format ? result.format : `${result.format}, ${result.variant}`,
          },
          { label: 'Disk', value: exactSize(result.size) },
          { label: 'Data', value: exactSize(result.dataBytes) },
          result.resumedBytes === 0
            ? undefined
            : { label: 'Resumed', value: `${size(result.resumedBytes)} were there already` },
          {
            label: 'Verified',
            value: result.verified
              ? 'Read back, and equal to the point byte for byte'
              : 'No: the image was not read back',
          },
          result.sha256 === undefined ? undefined : { label: 'SHA-256', value: <code>{result.sha256}</code> },
        ]}
      />
      <h3 className="list-heading">Written</h3>
      <ul className="plain-list written">
        {result.files.map((path) => (
          <li key={path}>
            <code>{path}</code>
            <CopyButton text={path} label={`Copy path of ${path}`} />
            {shell.reveal !== undefined && (
              <Button small look="quiet" onPress={() => void shell.reveal?.(path)}>
                Show in folder
              </Button>
            )}
          </li>
        ))}
      </ul>
    </>
  );
}

/** The line under a list that was cut. */
const more = (length: number) =>
  length > SHOWN && <li className="quiet more">and {count(length - SHOWN)} more, all of them in the report</li>;

function CopyOutcome({ result }: { readonly result: Of<'copy'> }) {
  const { shell } = useServices();
  return (
    <>
      <Facts
        facts={[
          { label: 'Copied', value: `${plural(result.files, 'file')}, ${size(result.bytes)}` },
          result.files === 0
            ? undefined
            : {
                label: 'Verified',
                value:
                  result.verified === 0
                    ? 'No: the copies were not read back'
                    : `${count(result.verified)} of ${plural(result.files, 'file')} read back and equal`,
              },
          result.problems.length === 0
            ? undefined
            : { label: 'Failed', value: <b className="bad">{plural(result.problems.length, 'item')}</b> },
          result.directories === 0 ? undefined : { label: 'Folders', value: count(result.directories) },
          result.links === 0 ? undefined : { label: 'Links', value: count(result.links) },
          result.skipped === 0 ? undefined : { label: 'Skipped', value: plural(result.skipped, 'file') },
        ]}
      />
      {result.problems.length > 0 && <h3 className="list-heading">{plural(result.problems.length, 'problem')}</h3>}
      <ul className="plain-list findings">
        {result.problems.slice(0, SHOWN).map((problem, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: one path may have several, and the list never changes.
          <li key={index}>
            <span className="dot damaged" aria-hidden="true" />
            <div>
              <p>
                <code>{problem.path}</code>
              </p>
              <p>
                {shortWords(problem.error)}. {wordsFor(problem.error).text}
              </p>
              <p className="quiet">{wordsFor(problem.error).next}</p>
            </div>
          </li>
        ))}
        {more(result.problems.length)}
      </ul>
      {result.notes.length > 0 && <h3 className="list-heading">{plural(result.notes.length, 'note')}</h3>}
      <ul className="plain-list findings">
        {result.notes.slice(0, SHOWN).map((note) => (
          <li key={`${note.path} ${note.note}`}>
            <span className="dot note" aria-hidden="true" />
            <div>
              <p>
                <code>{note.path}</code>
              </p>
              <p className="quiet">{note.note}</p>
            </div>
          </li>
        ))}
      </ul>
      {result.written.length > 0 && <h3 className="list-heading">Written</h3>}
      <ul className="plain-list written">
        {result.written.slice(0, SHOWN).map((path) => (
          <li key={path}>
            <code>{path}</code>
            <CopyButton text={path} label={`Copy path of ${path}`} />
            {shell.reveal !== undefined && (
              <Button small look="quiet" onPress={() => void shell.reveal?.(path)}>
                Show in folder
              </Button>
            )}
          </li>
        ))}
      </ul>
      {result.copied.length > 0 && (
        <details className="copied">
          <summary>
            {plural(result.copied.length, 'copied item')}
            {result.files > result.copied.length ? ` of ${count(result.files)}` : ''} with SHA-256
          </summary>
          <ul className="plain-list">
            {result.copied.map((file) => (
              <li key={file.destination}>
                <code>{file.destination}</code>
                {file.sha256 !== undefined && <code className="quiet">{file.sha256}</code>}
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}

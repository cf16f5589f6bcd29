import { CircleCheck } from 'lucide-react';
import type { TaskResult, TaskSnapshot } from '../../../preload/api.ts';
import { useServices } from '../../context.ts';
import { count, exactSize, plural, size } from '../../logic/format.ts';
import { shortWords, wordsFor } from '../../words.ts';
import { Facts } from '../inspector/facts.tsx';
import { Button } from '../ui/button.tsx';
import { CopyButton } from '../ui/copy-button.tsx';
import { DialogBox } from '../ui/dialog.tsx';
import { ErrorNote } from '../ui/error-note.tsx';
import { Empty } from '../ui/small.tsx';
import { FindingList } from './findings-dialog.tsx';

interface Props {
  readonly task: TaskSnapshot;
  readonly onClose: () => void;
}

/** How a task ended: its result, or why it has none. */
export function TaskDialog({ task, onClose }: Props) {
  return (
    <DialogBox title={task.title} onClose={onClose} wide>
      {task.error !== undefined && <ErrorNote error={task.error} look="inline" />}
      {task.result !== undefined && <Result result={task.result} />}
    </DialogBox>
  );
}

type Of<Kind extends TaskResult['kind']> = Extract<TaskResult, { kind: Kind }>;

function Result({ result }: { readonly result: TaskResult }) {
  if (result.kind === 'copy') return <CopyReport result={result} />;
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
  return result.findings.length === 0 ? (
    <Empty icon={CircleCheck} title="Nothing is wrong">
      <p className="quiet">
        Every link, size, table and checksum of {plural(result.disksChecked, 'disk')} was checked.
      </p>
    </Empty>
  ) : (
    <FindingList findings={result.findings} />
  );
}

const SHOWN = 200;

function CopyReport({ result }: { readonly result: Of<'copy'> }) {
  const { shell } = useServices();
  return (
    <>
      <Facts
        facts={[
          { label: 'Copied', value: `${plural(result.files, 'file')}, ${size(result.bytes)}` },
          {
            label: 'Verified',
            value: `${count(result.verified)} of ${plural(result.files, 'file')} read back and equal`,
          },
          result.directories === 0 ? undefined : { label: 'Folders', value: count(result.directories) },
          result.links === 0 ? undefined : { label: 'Links', value: count(result.links) },
          result.skipped === 0 ? undefined : { label: 'Skipped', value: plural(result.skipped, 'file') },
        ]}
      />
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
      {result.problems.length > 0 && <h3 className="list-heading">{plural(result.problems.length, 'problem')}</h3>}
      <ul className="plain-list findings">
        {result.problems.slice(0, SHOWN).map((problem) => (
          <li key={problem.path}>
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
      </ul>
      {result.notes.length > 0 && <h3 className="list-heading">Notes</h3>}
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

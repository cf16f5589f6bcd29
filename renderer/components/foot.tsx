import { X } from 'lucide-react';
import { useState } from 'react';
import { Button as AriaButton, Dialog, DialogTrigger, Popover } from 'react-aria-components';
import type { ExportInfo, FindingAction, TaskSnapshot } from '../../preload/api.ts';
import type { Tasks } from '../hooks/use-streams.ts';
import { count, duration, plural, rate, size } from '../logic/format.ts';
import { findingCounts, type Health, healthOf } from '../logic/health.ts';
import { hostName } from '../logic/paths.ts';
import { shortWords } from '../words.ts';
import { TaskDialog } from './dialogs/task-dialog.tsx';
import { IconButton } from './ui/button.tsx';
import { Progress } from './ui/small.tsx';

interface Props {
  readonly tasks: Tasks;
  readonly exports: readonly ExportInfo[];
  readonly offline: boolean;
  readonly onExports: () => void;
  readonly onLocate: (source: string, action: FindingAction) => void;
}

/** The truth about now: what runs, how far it is, what it brought, and who is connected. */
export function Foot({ tasks, exports, offline, onExports, onLocate }: Props) {
  const [shown, setShown] = useState<string>();
  const [listOpen, setListOpen] = useState(false);
  // Last what has ended: running tasks come first, then the newest result.
  const ordered = [...tasks.all].sort((a, b) => Number(b.state === 'running') - Number(a.state === 'running'));
  const [first, ...rest] = ordered;
  const open = tasks.all.find((task) => task.id === shown);
  return (
    <footer className="foot">
      <section className="foot-tasks" aria-label="Tasks">
        {first === undefined ? (
          <span className="quiet">Nothing is running</span>
        ) : (
          <TaskLine task={first} tasks={tasks} onShow={setShown} />
        )}
        {rest.length > 0 && (
          <DialogTrigger isOpen={listOpen} onOpenChange={setListOpen}>
            <AriaButton className="button quiet small">{rest.length} more</AriaButton>
            <Popover className="popover tasks-popover" placement="top start">
              <Dialog aria-label="All tasks" className="tasks-list">
                {ordered.map((task) => (
                  <TaskLine
                    key={task.id}
                    task={task}
                    tasks={tasks}
                    onShow={(id) => {
                      setListOpen(false);
                      setShown(id);
                    }}
                  />
                ))}
              </Dialog>
            </Popover>
          </DialogTrigger>
        )}
      </section>
      <section className="foot-now" aria-label="Exports">
        {offline ? (
          <span className="bad">Not connected</span>
        ) : exports.length === 0 ? (
          <span className="quiet">No exports</span>
        ) : (
          <button type="button" className="link quiet" onClick={onExports}>
            NBD: {plural(exports.length, 'export')},{' '}
            {plural(
              exports.reduce((sum, one) => sum + one.clients, 0),
              'client',
            )}
          </button>
        )}
      </section>
      {open !== undefined && <TaskDialog task={open} onClose={() => setShown(undefined)} onLocate={onLocate} />}
    </footer>
  );
}

interface LineProps {
  readonly task: TaskSnapshot;
  readonly tasks: Tasks;
  readonly onShow: (id: string) => void;
}

function TaskLine({ task, tasks, onShow }: LineProps) {
  if (task.state === 'running') {
    return (
      <div className="task" title={task.progress.current}>
        <span className="task-title">{task.title}</span>
        <Progress label={task.title} value={fractionOf(task)} />
        <span className="figure">{progressText(task)}</span>
        <IconButton label={`Cancel ${task.title}`} icon={X} onPress={() => tasks.cancel(task.id)} />
      </div>
    );
  }
  return (
    <div className="task">
      <span className={`dot ${outcomeOf(task)}`} aria-hidden="true" />
      <span className="task-title" role="status">
        {task.title}: {resultText(task)}
      </span>
      {(task.result !== undefined || task.error !== undefined) && (
        <button type="button" className="link" onClick={() => onShow(task.id)}>
          Show
        </button>
      )}
      <IconButton label={`Dismiss ${task.title}`} icon={X} onPress={() => tasks.dismiss(task.id)} />
    </div>
  );
}

/** How far it is, 0 to 1: by bytes where they are counted, else by items. */
function fractionOf({ progress }: TaskSnapshot): number | undefined {
  if (progress.bytesTotal !== undefined && progress.bytesTotal > 0) return progress.bytesDone / progress.bytesTotal;
  if (progress.itemsTotal !== undefined && progress.itemsTotal > 1) return progress.itemsDone / progress.itemsTotal;
  return undefined;
}

/** What the items of a task are. */
const UNITS = { copy: 'file', hash: 'disk', verify: 'disk', scan: 'image', convert: 'disk' } as const;

/** `1,204 of 1,880 files, 212 MB/s, 4 s left`. */
export function progressText(task: TaskSnapshot): string {
  const { progress } = task;
  const unit = UNITS[task.kind];
  const items =
    task.kind === 'hash' || task.kind === 'convert'
      ? `${size(progress.bytesDone)}${progress.bytesTotal === undefined ? '' : ` of ${size(progress.bytesTotal)}`}`
      : progress.itemsTotal === undefined
        ? plural(progress.itemsDone, unit)
        : `${count(progress.itemsDone)} of ${plural(progress.itemsTotal, unit)}`;
  return [
    items,
    task.bytesPerSecond > 0 ? rate(task.bytesPerSecond) : undefined,
    task.secondsLeft === undefined ? undefined : `${duration(task.secondsLeft)} left`,
  ]
    .filter((part) => part !== undefined)
    .join(', ');
}

function outcomeOf({ state, result }: TaskSnapshot): Health {
  if (state !== 'done') return state === 'cancelled' ? 'note' : 'damaged';
  if (result?.kind === 'verify') return healthOf(result.findings);
  return result?.kind === 'copy' && result.problems.length > 0 ? 'damaged' : 'good';
}

export function resultText(task: TaskSnapshot): string {
  if (task.state === 'cancelled') return 'cancelled';
  if (task.state === 'failed') return task.error === undefined ? 'failed' : shortWords(task.error).toLowerCase();
  const { result } = task;
  if (result === undefined) return 'done';
  if (result.kind === 'hash') return `SHA-256 ${result.sha256.slice(0, 12)}…`;
  if (result.kind === 'verify') return findingCounts(result.findings) ?? 'nothing is wrong';
  if (result.kind === 'convert') {
    return [hostName(result.files[0] ?? ''), size(result.dataBytes), result.verified ? 'verified' : undefined]
      .filter((part) => part !== undefined)
      .join(', ');
  }
  if (result.kind === 'scan') return `${plural(result.vms, 'VM')}, ${plural(result.points, 'point')}`;
  return [
    plural(result.files, 'file'),
    result.verified > 0 ? `${count(result.verified)} verified` : undefined,
    result.skipped > 0 ? `${count(result.skipped)} skipped` : undefined,
    result.problems.length > 0 ? plural(result.problems.length, 'problem') : undefined,
  ]
    .filter((part) => part !== undefined)
    .join(', ');
}

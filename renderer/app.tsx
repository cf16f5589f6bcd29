import { useQuery, useQueryClient } from '@tanstack/react-query';
import { FolderSearch } from 'lucide-react';
import { useCallback, useEffect, useState } from 'react';
import type { FindingAction, Orphan, RepositoryReport, VirtualMachine } from '../preload/api.ts';
import { NotAdmittedError } from './carrier.ts';
import { FindingsDialog } from './components/dialogs/findings-dialog.tsx';
import { FolderDialog } from './components/dialogs/folder-dialog.tsx';
import { LocateDialog } from './components/dialogs/locate-dialog.tsx';
import { Doors } from './components/doors.tsx';
import { Foot } from './components/foot.tsx';
import type { InspectorTab } from './components/inspector/inspector.tsx';
import { Repositories, vmKey } from './components/repositories.tsx';
import { Scanning } from './components/scanning.tsx';
import { TopBar } from './components/top-bar.tsx';
import { Button } from './components/ui/button.tsx';
import { DialogBox } from './components/ui/dialog.tsx';
import { ErrorNote } from './components/ui/error-note.tsx';
import { Empty } from './components/ui/small.tsx';
import { VmView } from './components/vm-view.tsx';
import { useServices } from './context.ts';
import { useExports, useTasks } from './hooks/use-streams.ts';
import type { Theme } from './hooks/use-theme.ts';
import { plural } from './logic/format.ts';
import { type FindingGroup, repositoryFindingGroups, vmOrphans } from './logic/health.ts';
import { hostName, hostParent } from './logic/paths.ts';
import { useScanOptions } from './queries.ts';
import { asWire } from './words.ts';

interface Props {
  readonly theme: Theme;
  readonly onTheme: (theme: Theme) => void;
}

/** The window: what is open, which VM is shown, and the dialogs that belong to no part of it. */
export function App({ theme, onTheme }: Props) {
  const { api, shell, offline, reconnect, reconnectError } = useServices();
  const client = useQueryClient();
  const [opened, setOpened] = useState<readonly string[]>(
    shell.initialSource === undefined ? [] : [shell.initialSource],
  );
  const [source, setSource] = useState(shell.initialSource);
  const [vm, setVm] = useState<string>();
  const [choosing, setChoosing] = useState(false);
  const [findings, setFindings] = useState<{
    title: string;
    groups: readonly FindingGroup[];
    orphans?: readonly Orphan[];
  }>();
  const [locating, setLocating] = useState<{ source: string; root: string; action: FindingAction }>();
  const [problem, setProblem] = useState<unknown>();
  const [tab, setTab] = useState<InspectorTab>('details');
  const [generation, setGeneration] = useState(0);
  const tasks = useTasks();
  const exports = useExports();
  const scanOptions = useScanOptions();
  const scan = useQuery({ ...scanOptions(source ?? ''), enabled: source !== undefined });
  const report = scan.data;
  const shown = report?.vms.find((one) => vmKey(one) === vm) ?? report?.vms[0];

  // A scan has just put its repository among the recent ones.
  useEffect(() => {
    if (report !== undefined) void client.invalidateQueries({ queryKey: ['recent'] });
  }, [client, report]);
  useEffect(() => {
    const name = shown?.name ?? report?.name;
    document.title = name === undefined ? 'Chainlift' : `${name} – Chainlift`;
  }, [shown, report]);

  const open = useCallback((path: string) => {
    setOpened((before) => (before.includes(path) ? before : [path, ...before]));
    setSource(path);
    setVm(undefined);
    setChoosing(false);
  }, []);
  const openFolder = async () => {
    if (shell.chooseFolder === undefined) return setChoosing(true);
    try {
      const path = await shell.chooseFolder('open');
      if (path !== undefined) open(path);
    } catch (error) {
      setProblem(error);
    }
  };
  const close = (path: string) => {
    setOpened((before) => before.filter((one) => one !== path));
    if (source === path) setSource(undefined);
  };
  const rescan = async (path: string) => {
    await client.invalidateQueries({ queryKey: ['scan', path] });
    // What was read through the old catalog may belong to files that have changed since.
    client.removeQueries({ predicate: (query) => query.queryKey[1] === path && query.queryKey[0] !== 'scan' });
    setGeneration((before) => before + 1);
  };
  /** The dialog that asks where a parent is. Names of images are relative to the folder, also where one image or archive was opened. */
  const locate = (where: string, action: FindingAction) => {
    const file = (where === source && report?.kind === 'image') || /\.(ova|xva|gz)$/i.test(where);
    setLocating({ source: where, root: file ? (hostParent(where) ?? where) : where, action });
  };
  const showFindings = (of: RepositoryReport) =>
    setFindings({ title: `Findings in ${of.name}`, groups: repositoryFindingGroups(of), orphans: of.orphans });

  return (
    <div className="app">
      <TopBar
        repository={source === undefined ? undefined : { name: report?.name ?? hostName(source), path: source }}
        vm={shown?.name}
        theme={theme}
        onTheme={onTheme}
      />
      {offline && (
        <div className="banner" role="alert">
          <span>{offlineWords(reconnectError)}</span>
          <Button small onPress={reconnect}>
            Reconnect
          </Button>
        </div>
      )}
      <main className="main">
        <Repositories
          opened={opened}
          active={{ source, vm: shown === undefined ? undefined : vmKey(shown) }}
          onOpen={open}
          onVm={(path: string, one: VirtualMachine) => {
            setSource(path);
            setVm(vmKey(one));
          }}
          onClose={close}
          onFindings={showFindings}
          onRescan={(path) => void rescan(path)}
          onVerify={(path) => void api.verify({ target: { source: path } }).catch(setProblem)}
          onOpenFolder={() => void openFolder()}
        />
        {source === undefined ? (
          <Doors onOpenFolder={() => void openFolder()} onOpen={open} />
        ) : scan.isError ? (
          <section className="center-only" aria-label="Repository">
            <ErrorNote error={asWire(scan.error)} onRetry={() => void scan.refetch()} />
          </section>
        ) : report === undefined ? (
          <section className="center-only" aria-label="Repository">
            <Scanning key={source} source={source} task={tasks.scans[0]} onStop={() => close(source)} />
          </section>
        ) : shown === undefined ? (
          <NoBackups report={report} onFindings={() => showFindings(report)} onOpenFolder={() => void openFolder()} />
        ) : (
          <VmView
            key={`${source}\n${vmKey(shown)}`}
            source={source}
            vm={shown}
            orphans={vmOrphans(report, shown)}
            generation={generation}
            tab={tab}
            onTab={setTab}
            exports={exports}
            tasks={tasks}
            onFindings={(title, groups, orphans) =>
              setFindings({ title, groups, ...(orphans === undefined ? {} : { orphans }) })
            }
            onProblem={setProblem}
            onLocate={(action) => locate(source, action)}
            onRetry={() => setGeneration((before) => before + 1)}
            onRescan={() => void rescan(source)}
          />
        )}
      </main>
      <Foot tasks={tasks} exports={exports} offline={offline} onExports={() => setTab('mount')} onLocate={locate} />
      {choosing && <FolderDialog purpose="open" onChoose={open} onClose={() => setChoosing(false)} />}
      {findings !== undefined && (
        <FindingsDialog
          title={findings.title}
          groups={findings.groups}
          {...(findings.orphans === undefined ? {} : { orphans: findings.orphans })}
          onLocate={(action) => {
            setFindings(undefined);
            if (source !== undefined) locate(source, action);
          }}
          onClose={() => setFindings(undefined)}
        />
      )}
      {locating !== undefined && (
        <LocateDialog
          {...locating}
          onLocated={() => void rescan(locating.source)}
          onClose={() => setLocating(undefined)}
        />
      )}
      {problem !== undefined && (
        <DialogBox title="That did not work" onClose={() => setProblem(undefined)}>
          <ErrorNote error={asWire(problem)} look="inline" />
        </DialogBox>
      )}
    </div>
  );
}

function offlineWords(reconnectError: unknown): string {
  if (reconnectError === undefined) {
    return 'The engine is not answering. What is shown can still be read; nothing new can be done.';
  }
  if (reconnectError instanceof NotAdmittedError) {
    return 'Chainlift was started anew, and this address is not open any more. Open the address that it printed.';
  }
  return 'Still no answer. Start Chainlift again if it has ended, then reconnect.';
}

interface NoBackupsProps {
  readonly report: RepositoryReport;
  readonly onFindings: () => void;
  readonly onOpenFolder: () => void;
}

function NoBackups({ report, onFindings, onOpenFolder }: NoBackupsProps) {
  const noticed = report.findings.length + report.orphans.length;
  return (
    <section className="center-only" aria-label="Repository">
      <Empty icon={FolderSearch} title="No backups were found in this folder">
        <p className="quiet path-text">{report.source}</p>
        <p className="quiet">
          Chainlift looks for backups and disk images of VMware, Hyper-V, XenServer, QEMU and VirtualBox, in the folder
          and in the folders below.
        </p>
        <div className="empty-actions">
          {noticed > 0 && <Button onPress={onFindings}>Show {plural(noticed, 'finding')}</Button>}
          <Button onPress={onOpenFolder}>Open another folder…</Button>
        </div>
      </Empty>
    </section>
  );
}

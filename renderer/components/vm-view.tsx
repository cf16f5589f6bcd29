import { History, TriangleAlert } from 'lucide-react';
import { useCallback, useEffect, useMemo, useState } from 'react';
import type {
  ExportInfo,
  Finding,
  FindingAction,
  Orphan,
  Target,
  VirtualMachine,
  VolumeInfo,
} from '../../preload/api.ts';
import { useServices } from '../context.ts';
import type { Tasks } from '../hooks/use-streams.ts';
import { plural } from '../logic/format.ts';
import { type FindingGroup, findingCounts, healthOf, nearestIntact } from '../logic/health.ts';
import { ROOT, volumeOf } from '../logic/paths.ts';
import type { Row } from '../logic/rows.ts';
import { useVolumes } from '../queries.ts';
import { asWire } from '../words.ts';
import { CopyDialog } from './dialogs/copy-dialog.tsx';
import { RestoreDialog } from './dialogs/restore-dialog.tsx';
import { FilePane } from './files/file-pane.tsx';
import { VolumeBar } from './files/volume-bar.tsx';
import { HistoryStrip } from './history/history-strip.tsx';
import { PointHeader } from './history/point-header.tsx';
import { Inspector, type InspectorTab } from './inspector/inspector.tsx';
import { Button } from './ui/button.tsx';
import { ErrorNote } from './ui/error-note.tsx';
import { Empty, Skeleton } from './ui/small.tsx';

interface Props {
  readonly source: string;
  readonly vm: VirtualMachine;
  /** Files in its folder that belong to no point. */
  readonly orphans: readonly Orphan[];
  readonly generation: number;
  readonly tab: InspectorTab;
  readonly onTab: (tab: InspectorTab) => void;
  readonly exports: readonly ExportInfo[];
  readonly tasks: Tasks;
  readonly onFindings: (title: string, groups: readonly FindingGroup[], orphans?: readonly Orphan[]) => void;
  readonly onProblem: (error: unknown) => void;
  readonly onLocate: (action: FindingAction) => void;
  readonly onRetry: () => void;
  readonly onRescan: () => void;
}

/** One VM: its history, the selected point, the files of that moment, and the inspector. */
export function VmView({ source, vm, generation, tab, onTab, exports, tasks, onProblem, orphans, ...props }: Props) {
  const { api } = useServices();
  const [chosen, setChosen] = useState<string>();
  // Until a folder is chosen, the only volume that can be browsed is entered by itself.
  const [chosenPath, setChosenPath] = useState<string>();
  const [selected, setSelected] = useState<readonly Row[]>([]);
  const [copying, setCopying] = useState<readonly string[]>();
  const [restoring, setRestoring] = useState<number>();
  const point = vm.points.find((one) => one.id === chosen) ?? vm.points.find((one) => one.current) ?? vm.points.at(-1);
  const pointId = point?.id ?? '';
  const target = useMemo<Target>(() => ({ source, vm: vm.name, point: pointId }), [source, vm.name, pointId]);
  const volumes = useVolumes(target, generation);
  const list = volumes.data?.volumes;
  const path = chosenPath ?? onlyVolume(list) ?? ROOT;
  const openVolume = useCallback((volume: VolumeInfo) => setChosenPath(`/${volume.name}`), []);
  const onSelected = useCallback((rows: readonly Row[]) => setSelected(rows), []);
  useEffect(() => {
    if (path === ROOT) setSelected([]);
  }, [path]);

  if (point === undefined) {
    return (
      <section className="center-only" aria-label={vm.name}>
        <Empty icon={History} title={`${vm.name} has no points in time`}>
          <p className="quiet">Its files name no disk that is here.</p>
        </Empty>
      </section>
    );
  }

  const start = (work: Promise<unknown>) => void work.catch(onProblem);
  const findings = [...point.findings, ...(volumes.data?.findings ?? [])];
  const ofVm = [findingCounts(vm.findings), orphans.length === 0 ? undefined : plural(orphans.length, 'orphaned file')]
    .filter((part) => part !== undefined)
    .join(', ');
  const whole = volumes.isError ? nearestIntact(vm.points, point.id) : undefined;
  const moved = point.findings.find((finding) => finding.action !== undefined)?.action;
  const verifying = tasks.all.some((task) => task.state === 'running' && task.kind === 'verify');
  return (
    <>
      <div className="center">
        <h1 className="sr-only">{vm.name}</h1>
        <HistoryStrip vm={vm} selected={point.id} onSelect={setChosen}>
          {ofVm !== '' && (
            <button
              type="button"
              className={`tag ${healthOf(vm.findings)}`}
              onClick={() => props.onFindings(`Findings about ${vm.name}`, asGroups(vm.findings), orphans)}
            >
              <TriangleAlert size={12} aria-hidden="true" /> {ofVm}
            </button>
          )}
        </HistoryStrip>
        <PointHeader
          point={point}
          volumes={list}
          findings={findings}
          busy={verifying}
          onMount={() => onTab('mount')}
          onVerify={() => start(api.verify({ target }))}
          onVerifyAll={vm.points.length > 1 ? () => start(api.verify({ target: { source, vm: vm.name } })) : undefined}
          onHash={(disk) => start(api.hash({ target: { ...target, disk } }))}
          onRestore={setRestoring}
          onFindings={() => props.onFindings(`Findings at ${point.name}`, asGroups(findings))}
        />
        {volumes.isError ? (
          <ErrorNote error={asWire(volumes.error)} onRetry={props.onRescan}>
            {moved !== undefined && (
              <Button small look="primary" onPress={() => props.onLocate(moved)}>
                Say where it is…
              </Button>
            )}
            {whole !== undefined && (
              <Button small onPress={() => setChosen(whole.id)}>
                Go to {whole.name}
              </Button>
            )}
          </ErrorNote>
        ) : (
          <>
            {list === undefined ? (
              <div className="volume-bar">
                <Skeleton lines={1} label="Reading the volumes" />
              </div>
            ) : (
              list.length > 0 && <VolumeBar volumes={list} active={volumeOf(path)} onOpen={openVolume} />
            )}
            <FilePane
              target={target}
              vm={vm.name}
              point={point}
              path={path}
              volumes={list}
              generation={generation}
              onNavigate={setChosenPath}
              onPoint={setChosen}
              onCopy={setCopying}
              onSelected={onSelected}
              alone={vm.points.length === 1}
              onMount={() => onTab('mount')}
              onPreview={() => onTab('preview')}
              onDetails={() => onTab('details')}
              onProblem={onProblem}
              onRetry={props.onRetry}
            />
          </>
        )}
      </div>
      <Inspector
        tab={tab}
        onTab={onTab}
        target={target}
        vm={vm}
        point={point}
        selected={selected}
        exports={exports}
        disk={list?.find((volume) => volume.name === volumeOf(path))?.disk ?? 0}
      />
      {restoring !== undefined && (
        <RestoreDialog
          target={{ ...target, disk: restoring }}
          vm={vm.name}
          point={point.name}
          bytes={point.disks.find((disk) => disk.index === restoring)?.size}
          onClose={() => setRestoring(undefined)}
        />
      )}
      {copying !== undefined && (
        <CopyDialog target={target} point={point.name} paths={copying} onClose={() => setCopying(undefined)} />
      )}
    </>
  );
}

const asGroups = (findings: readonly Finding[]): FindingGroup[] =>
  findings.length === 0 ? [] : [{ title: undefined, findings }];

/** The path of the volume to enter first: the only one that can be browsed. */
function onlyVolume(volumes: readonly VolumeInfo[] | undefined): string | undefined {
  const browsable = volumes?.filter((volume) => volume.error === undefined && volume.fileSystem !== undefined) ?? [];
  return browsable.length === 1 && browsable[0] !== undefined ? `/${browsable[0].name}` : undefined;
}

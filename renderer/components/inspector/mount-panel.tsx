import { Plug } from 'lucide-react';
import { useState } from 'react';
import { Radio, RadioGroup } from 'react-aria-components';
import type { ExportInfo, PointDisk, RestorePoint, Target, WireError } from '../../../preload/api.ts';
import { useServices } from '../../context.ts';
import { plural, size } from '../../logic/format.ts';
import { asWire } from '../../words.ts';
import { diskName } from '../history/point-header.tsx';
import { Button } from '../ui/button.tsx';
import { CopyButton } from '../ui/copy-button.tsx';
import { ErrorNote } from '../ui/error-note.tsx';

interface Props {
  readonly target: Target;
  readonly point: RestorePoint;
  readonly exports: readonly ExportInfo[];
}

type Way = 'socket' | 'tcp';

const ofPoint = (target: Target) => (one: ExportInfo) =>
  one.target.source === target.source && one.target.vm === target.vm && one.target.point === target.point;

/** The point's disks over NBD: started, watched and stopped here. Exports of other points are listed below. */
export function MountPanel({ target, point, exports }: Props) {
  const { api, shell, offline } = useServices();
  const windows = /^win/i.test(shell.platform);
  const [way, setWay] = useState<Way>(windows ? 'tcp' : 'socket');
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<WireError>();
  const own = exports.filter(ofPoint(target));
  const others = exports.filter((one) => !own.includes(one));
  const mounted = new Set(own.map((one) => one.target.disk ?? 0));
  const waiting = point.disks.filter((disk) => disk.error === undefined && !mounted.has(disk.index));
  const unopened = point.disks.filter((disk) => disk.error !== undefined);

  const run = async (work: () => Promise<unknown>) => {
    setBusy(true);
    setError(undefined);
    try {
      await work();
    } catch (thrown) {
      setError(asWire(thrown));
    } finally {
      setBusy(false);
    }
  };
  const start = (disks: readonly PointDisk[]) =>
    run(async () => {
      for (const disk of disks) {
        await api.startExport({
          target: { ...target, disk: disk.index },
          ...(way === 'tcp' ? { listen: '127.0.0.1:0' } : {}),
        });
      }
    });
  const stop = (id: string) => void run(() => api.stopExport({ id }));

  return (
    <>
      <header className="panel-head">
        <h3>Mount {point.name}</h3>
        <p className="quiet">
          Its {point.disks.length === 1 ? 'disk' : 'disks'} as {point.disks.length === 1 ? 'it was' : 'they were'},
          read-only over NBD. The backup cannot be changed through it.
        </p>
      </header>
      {waiting.length > 0 && (
        <div className="mount-start">
          <RadioGroup
            className="radios"
            aria-label="Serve over"
            value={way}
            onChange={(value) => setWay(value as Way)}
            isDisabled={busy}
          >
            <Radio value="socket" className="radio" isDisabled={windows}>
              <span>
                Unix socket <small className="quiet">Fastest; for programs of your account</small>
              </span>
            </Radio>
            <Radio value="tcp" className="radio">
              <span>
                TCP on this computer <small className="quiet">For any program on this computer</small>
              </span>
            </Radio>
          </RadioGroup>
          <div className="mount-buttons">
            <Button look="primary" isDisabled={busy || offline} onPress={() => void start(waiting)}>
              <Plug size={14} aria-hidden="true" />
              {waiting.length === 1 ? 'Start' : `Start all ${waiting.length} disks`}
            </Button>
            {waiting.length > 1 &&
              waiting.map((disk) => (
                <Button key={disk.index} isDisabled={busy || offline} onPress={() => void start([disk])}>
                  {diskName(disk.index)}
                </Button>
              ))}
          </div>
        </div>
      )}
      {unopened.map((disk) => disk.error && <ErrorNote key={disk.index} error={disk.error} look="inline" />)}
      {error !== undefined && <ErrorNote error={error} look="inline" />}
      {own.map((one) => (
        <ExportCard key={one.id} export={one} onStop={() => stop(one.id)} />
      ))}
      {others.length > 0 && <h4 className="others">Mounted from other points</h4>}
      {others.map((one) => (
        <ExportCard key={one.id} export={one} onStop={() => stop(one.id)} named />
      ))}
    </>
  );
}

interface CardProps {
  readonly export: ExportInfo;
  readonly onStop: () => void;
  readonly named?: boolean;
}

function ExportCard({ export: one, onStop, named = false }: CardProps) {
  const [first, ...rest] = one.commands;
  const title = named ? one.description : `Disk ${diskName(one.target.disk ?? 0)}`;
  return (
    <section className="export" aria-label={`Export of ${title}`}>
      <header>
        <h4>
          {title} <span className="quiet figure">{size(one.size)}</span>
        </h4>
        <Button small onPress={onStop}>
          Stop
        </Button>
      </header>
      <p className="quiet figure" role="status">
        {one.clients === 0 ? 'No client is connected' : plural(one.clients, 'client')}
        {one.requests > 0 && `, ${size(one.bytesRead)} read in ${plural(one.requests, 'request')}`}
      </p>
      <Command title="URI" text={one.uri} />
      {first !== undefined && <Command title={first.title} text={first.command} />}
      {rest.length > 0 && (
        <details className="commands">
          <summary>{plural(rest.length, 'more command')}</summary>
          {rest.map((command) => (
            <Command key={command.title} title={command.title} text={command.command} />
          ))}
        </details>
      )}
    </section>
  );
}

function Command({ title, text }: { readonly title: string; readonly text: string }) {
  return (
    <div className="command">
      <span className="command-title">{title}</span>
      <code>{text}</code>
      <CopyButton text={text} label={`Copy ${title}`} />
    </div>
  );
}

import type { PointDisk, RestorePoint, Target, VirtualMachine } from '../../../preload/api.ts';
import { exactSize, plural, size } from '../../logic/format.ts';
import { imageName } from '../../logic/paths.ts';
import { levelWords, originWords } from '../../logic/volumes.ts';
import { diskName } from '../history/point-header.tsx';
import { CopyButton } from '../ui/copy-button.tsx';
import { ErrorNote } from '../ui/error-note.tsx';
import { MiddleCut } from '../ui/small.tsx';
import { Facts } from './facts.tsx';
import { hueOf } from './layers-bar.tsx';

/** With nothing selected: the point itself, its disks and the chain each is made of. */
interface Props {
  readonly point: RestorePoint;
  readonly target: Target;
  readonly vm: VirtualMachine;
}

export function PointPanel({ point, target, vm }: Props) {
  return (
    <>
      <header className="panel-head">
        <h3>{point.name}</h3>
        <p className="quiet path-text">
          <span title={target.source}>{target.source}</span>
          <CopyButton text={target.source} label="Copy path of the backup" />
        </p>
      </header>
      <section aria-label="Consistency" className="disk">
        <h4>{levelWords(point.consistency.level)}</h4>
        <ul className="plain-list evidence">
          {point.consistency.evidence.map((line) => (
            <li key={line}>{line}</li>
          ))}
        </ul>
      </section>
      {point.disks.map((disk) => (
        <DiskFacts key={disk.index} disk={disk} />
      ))}
      <MachineFacts vm={vm} />
    </>
  );
}

/** What the backup says of the machine, kept for the day it is made anew. */
function MachineFacts({ vm }: { readonly vm: VirtualMachine }) {
  return (
    <section aria-label="Machine" className="disk">
      <h4>Machine</h4>
      <Facts
        facts={[
          { label: 'Described by', value: originWords(vm.origin) },
          vm.guest === undefined ? undefined : { label: 'Guest', value: vm.guest },
          vm.cpus === undefined ? undefined : { label: 'CPUs', value: String(vm.cpus) },
          vm.memoryBytes === undefined ? undefined : { label: 'Memory', value: size(vm.memoryBytes) },
          vm.firmware === undefined ? undefined : { label: 'Firmware', value: vm.firmware },
          ...(vm.networks ?? []).map((adapter) => ({
            label: `Network ${adapter.device}`,
            value: [adapter.mac, adapter.network, adapter.model].filter((part) => part !== undefined).join(', '),
          })),
        ]}
      />
    </section>
  );
}

function DiskFacts({ disk }: { readonly disk: PointDisk }) {
  return (
    <section aria-label={`Disk ${diskName(disk.index)}`} className="disk">
      <h4>
        Disk {diskName(disk.index)}
        {disk.node !== undefined && <span className="quiet"> at {disk.node}</span>}
      </h4>
      {disk.error !== undefined && <ErrorNote error={disk.error} look="inline" />}
      <Facts
        facts={[
          disk.size === undefined
            ? undefined
            : {
                label: 'Size',
                value: (
                  <>
                    {size(disk.size)}
                    <small className="figure">{exactSize(disk.size)}</small>
                  </>
                ),
              },
          disk.changedBytes === undefined ? undefined : { label: 'Leaf holds', value: size(disk.changedBytes) },
        ]}
      />
      {disk.chain.length > 0 && <h5>{plural(disk.chain.length, 'layer')}, newest first</h5>}
      <ol className="chain">
        {disk.chain.map((file, index) => (
          <li key={file} title={file}>
            <span className={`swatch ${hueOf(index, disk.chain.length)}`} aria-hidden="true" />
            <MiddleCut text={imageName(file)} />
          </li>
        ))}
      </ol>
    </section>
  );
}

import type { PointDisk, RestorePoint, Target } from '../../../preload/api.ts';
import { exactSize, plural, size } from '../../logic/format.ts';
import { hostName } from '../../logic/paths.ts';
import { diskName } from '../history/point-header.tsx';
import { CopyButton } from '../ui/copy-button.tsx';
import { ErrorNote } from '../ui/error-note.tsx';
import { Facts } from './facts.tsx';
import { hueOf } from './layers-bar.tsx';

/** With nothing selected: the point itself, its disks and the chain each is made of. */
export function PointPanel({ point, target }: { readonly point: RestorePoint; readonly target: Target }) {
  return (
    <>
      <header className="panel-head">
        <h3>{point.name}</h3>
        <p className="quiet path-text">
          <span title={target.source}>{target.source}</span>
          <CopyButton text={target.source} label="Copy path of the backup" />
        </p>
      </header>
      {point.disks.map((disk) => (
        <DiskFacts key={disk.index} disk={disk} />
      ))}
    </>
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
            {hostName(file)}
          </li>
        ))}
      </ol>
    </section>
  );
}

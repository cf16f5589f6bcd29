import { HardDrive } from 'lucide-react';
import type { VolumeInfo } from '../../../preload/api.ts';
import { size } from '../../logic/format.ts';
import { volumeCondition } from '../../logic/volumes.ts';
import { Empty, Skeleton } from '../ui/small.tsx';
import { volumeTitle } from './volume-bar.tsx';

interface Props {
  readonly volumes: readonly VolumeInfo[];
  readonly onOpen: (volume: VolumeInfo) => void;
}

/** The root of a moment: every volume with what it is, before one is entered. */
function VolumeList({ volumes, onOpen }: Props) {
  return (
    <div className="volume-list">
      <table aria-label="Volumes of this point">
        <thead>
          <tr>
            <th>Volume</th>
            <th>File system</th>
            <th>Label</th>
            <th className="number">Size</th>
            <th>Condition</th>
          </tr>
        </thead>
        <tbody>
          {volumes.map((volume) => (
            <tr key={volume.name} onDoubleClick={() => onOpen(volume)} title={volumeTitle(volume)}>
              <td>
                <button type="button" className="link" onClick={() => onOpen(volume)}>
                  {volume.name}
                </button>
              </td>
              <td>{volume.fileSystem?.type ?? volume.type}</td>
              <td>{volume.fileSystem?.label ?? volume.label ?? ''}</td>
              <td className="number">{size(volume.size)}</td>
              <td>
                {volumeCondition(volume) ?? 'clean'}
                {volume.fileSystem !== undefined && volume.fileSystem.evidence.length > 0 && (
                  <span className="quiet">: {volume.fileSystem.evidence.join(', ')}</span>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface RootProps {
  readonly volumes: readonly VolumeInfo[] | undefined;
  readonly onNavigate: (path: string) => void;
}

/** What is shown where no volume has been entered. */
export function RootOfVolumes({ volumes, onNavigate }: RootProps) {
  if (volumes === undefined) return <Skeleton lines={4} label="Reading the volumes" />;
  if (volumes.length === 0) {
    return (
      <Empty icon={HardDrive} title="No volumes were found on this point’s disks">
        <p className="quiet">
          The disks may be empty, or hold something that this version does not read. They can be mounted.
        </p>
      </Empty>
    );
  }
  return <VolumeList volumes={volumes} onOpen={(volume) => onNavigate(`/${volume.name}`)} />;
}

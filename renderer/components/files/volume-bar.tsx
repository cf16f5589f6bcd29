import { HardDrive, Lock, TriangleAlert } from 'lucide-react';
import type { VolumeInfo } from '../../../preload/api.ts';
import { exactSize, size } from '../../logic/format.ts';
import { volumeAlarm, volumeCondition } from '../../logic/volumes.ts';
import { wordsFor } from '../../words.ts';

/** Everything known about it, for a tooltip. */
export function volumeTitle(volume: VolumeInfo): string {
  const evidence = volume.fileSystem?.evidence ?? [];
  return [
    `${volume.name}: ${volume.fileSystem?.type ?? volume.type}, ${exactSize(volume.size)}`,
    volume.error === undefined ? undefined : wordsFor(volume.error).text,
    evidence.length === 0 ? undefined : evidence.join(', '),
  ]
    .filter((part) => part !== undefined)
    .join('\n');
}

interface Props {
  readonly volumes: readonly VolumeInfo[];
  readonly active: string | undefined;
  readonly onOpen: (volume: VolumeInfo) => void;
}

/** The volumes of the moment, side by side. */
export function VolumeBar({ volumes, active, onOpen }: Props) {
  return (
    <fieldset className="volume-bar" aria-label="Volumes">
      {volumes.map((volume) => {
        const condition = volumeCondition(volume);
        const label = volume.fileSystem?.label ?? volume.label;
        const alarm = volumeAlarm(volume);
        const readable = volume.error === undefined || alarm === 'quiet';
        const Icon = readable ? HardDrive : volume.error?.kind === 'needs-key' ? Lock : TriangleAlert;
        return (
          <button
            key={volume.name}
            type="button"
            className={volume.name === active ? 'volume active' : 'volume'}
            aria-pressed={volume.name === active}
            title={volumeTitle(volume)}
            onClick={() => onOpen(volume)}
          >
            <Icon size={14} strokeWidth={1.75} aria-hidden="true" />
            <b>{volume.name}</b>
            <span>{volume.fileSystem?.type ?? volume.type}</span>
            {label !== undefined && label !== '' && <span className="volume-label">{label}</span>}
            <span className="figure">{size(volume.size)}</span>
            {condition !== undefined && <span className={alarm}>{condition}</span>}
          </button>
        );
      })}
    </fieldset>
  );
}

import { HardDrive, Lock, TriangleAlert } from 'lucide-react';
import type { VolumeInfo } from '../../../preload/api.ts';
import { exactSize, size } from '../../logic/format.ts';
import { wordsFor } from '../../words.ts';

const CONDITIONS: Record<NonNullable<VolumeInfo['fileSystem']>['condition'], string | undefined> = {
  clean: undefined,
  'needs-replay': 'journal needs replay',
  dirty: 'not unmounted cleanly',
  errors: 'has recorded errors',
};

/** What is noteworthy about a volume, in a few words; undefined when nothing is. */
export function volumeCondition(volume: VolumeInfo): string | undefined {
  if (volume.error !== undefined) return wordsFor(volume.error).title.toLowerCase();
  return volume.fileSystem === undefined ? 'no file system' : CONDITIONS[volume.fileSystem.condition];
}

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
        const Icon = volume.error === undefined ? HardDrive : volume.error.kind === 'needs-key' ? Lock : TriangleAlert;
        const strong = volume.error !== undefined && volume.error.kind !== 'unsupported';
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
            {condition !== undefined && <span className={strong ? 'bad' : 'warn'}>{condition}</span>}
          </button>
        );
      })}
    </fieldset>
  );
}

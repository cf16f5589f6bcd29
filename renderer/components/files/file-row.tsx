// biome-ignore-all lint/a11y/useSemanticElements: a table's elements can't be virtualised.
// biome-ignore-all lint/a11y/useFocusableInteractive: the grid has the focus and names the active row.
// biome-ignore-all lint/a11y/useKeyWithClickEvents: the grid handles the keys.
import { CircleHelp, Cpu, File, Folder, Link2, type LucideIcon, TriangleAlert } from 'lucide-react';
import { type DragEvent, type MouseEvent, memo } from 'react';
import type { EntryKind, LayerShare } from '../../../preload/api.ts';
import { exactSize, plural, size, stamp, stampExact } from '../../logic/format.ts';
import { imageName } from '../../logic/paths.ts';
import type { Mark, Row } from '../../logic/rows.ts';
import { wordsFor } from '../../words.ts';

const ICONS: Record<EntryKind, LucideIcon> = {
  file: File,
  directory: Folder,
  symlink: Link2,
  fifo: Cpu,
  socket: Cpu,
  'block-device': Cpu,
  'character-device': Cpu,
  unknown: CircleHelp,
};

export const MARK_WORDS: Record<Mark, string> = {
  added: 'added',
  changed: 'changed',
  gone: 'gone',
  'gone-later': 'gone later',
};

/** `web01-000003` of the VM `web01` reads `-000003`, as it does in a list that is about one VM. */
export function layerName(name: string, vm: string): string {
  const bare = imageName(name);
  if (!bare.startsWith(`${vm}-`)) return bare;
  return bare.slice(vm.length).replace(/\.[A-Za-z0-9]+$/, '');
}

export function layerText(shares: readonly LayerShare[] | null | undefined, vm: string): string {
  if (shares === undefined) return '';
  const layers = shares?.filter((share) => share.layer !== undefined) ?? [];
  if (layers.length > 1) return plural(layers.length, 'layer');
  const only = layers[0] ?? shares?.[0];
  return only === undefined ? '–' : layerName(only.name, vm);
}

interface Props {
  readonly id: string;
  readonly row: Row;
  readonly index: number;
  readonly top: number;
  readonly selected: boolean;
  readonly focused: boolean;
  readonly mark: Mark | undefined;
  readonly markTitle: string | undefined;
  readonly shares: readonly LayerShare[] | null | undefined;
  readonly vm: string;
  readonly onMouse: (event: MouseEvent, index: number) => void;
  readonly onDragStart: (event: DragEvent, index: number) => void;
}

export const FileRow = memo(function FileRow(props: Props) {
  const { row, index, mark, shares, selected } = props;
  const { entry } = row;
  const damaged = entry.error !== undefined;
  const Icon = damaged ? TriangleAlert : ICONS[entry.kind];
  const classes = [
    'file-row',
    selected && 'selected',
    props.focused && 'focused',
    row.gone && 'gone',
    damaged && 'damaged',
  ];
  return (
    <div
      id={props.id}
      role="row"
      aria-rowindex={index + 2}
      aria-selected={selected}
      className={classes.filter(Boolean).join(' ')}
      style={{ transform: `translateY(${props.top}px)` }}
      draggable={!row.gone && !damaged}
      onMouseDown={(event) => props.onMouse(event, index)}
      onClick={(event) => props.onMouse(event, index)}
      onDoubleClick={(event) => props.onMouse(event, index)}
      onContextMenu={(event) => props.onMouse(event, index)}
      onDragStart={(event) => props.onDragStart(event, index)}
    >
      <span role="gridcell" className="name">
        <Icon size={15} strokeWidth={1.5} aria-hidden="true" />
        <span title={entry.name}>{entry.name}</span>
        {entry.linkTarget !== undefined && <span className="link-target">→ {entry.linkTarget}</span>}
        {entry.error !== undefined && (
          <span className="row-problem" title={wordsFor(entry.error).text}>
            {wordsFor(entry.error).title}
          </span>
        )}
      </span>
      <span role="gridcell" className="number" title={entry.size === undefined ? undefined : exactSize(entry.size)}>
        {entry.kind === 'directory' || entry.size === undefined ? '' : size(entry.size)}
      </span>
      <span
        role="gridcell"
        className="figure"
        title={entry.modified === undefined ? undefined : stampExact(entry.modified)}
      >
        {entry.modified === undefined ? '' : stamp(entry.modified)}
      </span>
      <span role="gridcell" className={mark === undefined ? 'mark' : `mark ${mark}`} title={props.markTitle}>
        {mark === undefined ? '' : MARK_WORDS[mark]}
      </span>
      <span
        role="gridcell"
        className={shares === undefined && !row.gone ? 'layer waiting' : 'layer'}
        title={shares?.map((share) => `${imageName(share.name)}: ${size(share.bytes)}`).join('\n')}
      >
        {row.gone || (row.folder && shares === null) ? '' : layerText(shares, props.vm)}
      </span>
    </div>
  );
});

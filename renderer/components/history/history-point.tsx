import type { RestorePoint } from '../../../preload/api.ts';
import { day, isoTime, plural, size } from '../../logic/format.ts';
import { findingCounts, pointHealth } from '../../logic/health.ts';
import type { HistoryNode } from '../../logic/history-layout.ts';

interface Props {
  readonly id: string;
  readonly node: HistoryNode;
  readonly point: RestorePoint;
  readonly selected: boolean;
  readonly onSelect: () => void;
}

/** `before-upgrade, 14 Nov 2026, 412 MB changed, 1 damaged`. */
export function pointTitle(point: RestorePoint): string {
  const created = isoTime(point.created);
  const bytes = point.changedBytes;
  const unopened = point.disks.filter((disk) => disk.error !== undefined).length;
  return [
    point.name,
    created === undefined ? undefined : day(created),
    bytes === undefined ? undefined : `${size(bytes)} ${point.parent === undefined ? 'held' : 'changed'}`,
    point.current ? 'present state' : undefined,
    unopened === 0 ? undefined : `${plural(unopened, 'disk')} cannot be opened`,
    findingCounts(point.findings),
  ]
    .filter((part) => part !== undefined)
    .join(', ');
}

/** A point: its size is what it changed, a dot in it says that it is the present state, a triangle above that it has findings. */
export function HistoryPoint({ id, node, point, selected, onSelect }: Props) {
  const health = pointHealth(point);
  const flagged = health === 'damaged' || health === 'suspicious';
  const { x, y, radius, label } = node;
  // In branches the name stands above the point; a mark then stands beside it.
  const mark = node.lane === 0 ? { x, y: y - radius - 5 } : { x: x + radius + 9, y: y + 4 };
  const title = pointTitle(point);
  return (
    // The listbox has the focus, handles the keys and names the active option.
    <g
      id={id}
      role="option"
      aria-selected={selected}
      aria-label={title}
      className={`history-point${selected ? ' selected' : ''}${point.current ? ' current' : ''}${flagged ? ` ${health}` : ''}`}
      onClick={onSelect}
    >
      <title>{title}</title>
      <circle className="hit" cx={x} cy={y} r={15} />
      {selected && <circle className="halo" cx={x} cy={y} r={radius + 5} />}
      <circle className="body" cx={x} cy={y} r={radius} />
      {point.current && <circle className="core" cx={x} cy={y} r={Math.max(2, radius - 4.5)} />}
      {flagged && <path className="flag" d={`M${mark.x - 6} ${mark.y}l6-9 6 9z`} />}
      {label !== undefined && (
        <text x={label.x} y={label.y} textAnchor="middle">
          {label.text}
        </text>
      )}
    </g>
  );
}

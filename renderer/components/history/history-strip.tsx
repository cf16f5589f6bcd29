import { Minus, Plus } from 'lucide-react';
import {
  type KeyboardEvent,
  type PointerEvent,
  type ReactNode,
  useEffect,
  useId,
  useMemo,
  useRef,
  useState,
} from 'react';
import { ToggleButton, ToggleButtonGroup } from 'react-aria-components';
import type { RestorePoint, VirtualMachine } from '../../../preload/api.ts';
import { useWidth } from '../../hooks/use-size.ts';
import { day, isoTime, plural } from '../../logic/format.ts';
import { type Direction, layoutHistory, nearest, neighbour } from '../../logic/history-layout.ts';
import { IconButton } from '../ui/button.tsx';
import { HistoryPoint } from './history-point.tsx';

interface Props {
  readonly vm: VirtualMachine;
  readonly selected: string | undefined;
  readonly onSelect: (id: string) => void;
  /** Beside the period: what there is to say about the VM as a whole. */
  readonly children?: ReactNode;
}

const KEYS: Readonly<Record<string, Direction>> = {
  ArrowLeft: 'left',
  ArrowRight: 'right',
  ArrowUp: 'up',
  ArrowDown: 'down',
  Home: 'first',
  End: 'last',
};
const MAX_ZOOM = 8;

/** The chain over time. One listbox of points: arrows and scrubbing move through time. */
export function HistoryStrip({ vm, selected, onSelect, children }: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const width = useWidth(frame);
  const [scale, setScale] = useState<'time' | 'steps'>('time');
  const [zoom, setZoom] = useState(1);
  const id = useId();
  const layout = useMemo(
    () => layoutHistory(vm.points, { width: Math.max(320, width), scale, zoom, selected }),
    [vm.points, width, scale, zoom, selected],
  );
  const points = useMemo(() => new Map(vm.points.map((point) => [point.id, point])), [vm.points]);
  const selectedNode = layout.nodes.find((node) => node.id === selected);
  const dated = vm.points.some((point) => isoTime(point.created) !== undefined);

  // The selected point is kept in sight, with some room to what is beside it.
  useEffect(() => {
    const element = frame.current;
    if (element === null || selectedNode === undefined) return;
    const { x, y } = selectedNode;
    const room = 80;
    if (x - room < element.scrollLeft) element.scrollLeft = x - room;
    else if (x + room > element.scrollLeft + element.clientWidth) element.scrollLeft = x + room - element.clientWidth;
    if (y + 40 > element.scrollTop + element.clientHeight) element.scrollTop = y + 40 - element.clientHeight;
    else if (y - 30 < element.scrollTop) element.scrollTop = y - 30;
  }, [selectedNode]);

  const onKeyDown = (event: KeyboardEvent) => {
    const direction = KEYS[event.key];
    if (direction === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = neighbour(layout, selected, direction);
    if (next !== undefined) onSelect(next);
  };

  const scrub = (event: PointerEvent<SVGSVGElement>) => {
    if ((event.buttons & 1) === 0) return;
    const box = event.currentTarget.getBoundingClientRect();
    const next = nearest(layout, event.clientX - box.left, event.clientY - box.top);
    if (next !== undefined && next !== selected) onSelect(next);
  };

  return (
    <section className="history" aria-label="History">
      <div className="history-head">
        <h2>History</h2>
        <span className="quiet">{periodOf(vm.points)}</span>
        {children}
        <div className="history-tools">
          {dated && vm.points.length > 1 && (
            <ToggleButtonGroup
              aria-label="Distance between points"
              className="segments"
              selectionMode="single"
              disallowEmptySelection
              selectedKeys={[scale]}
              onSelectionChange={(keys) => setScale(keys.has('steps') ? 'steps' : 'time')}
            >
              <ToggleButton id="time" className="segment">
                By time
              </ToggleButton>
              <ToggleButton id="steps" className="segment">
                Evenly
              </ToggleButton>
            </ToggleButtonGroup>
          )}
          {vm.points.length > 1 && (
            <>
              <IconButton label="Zoom out" icon={Minus} isDisabled={zoom <= 1} onPress={() => setZoom(zoom / 2)} />
              <IconButton label="Zoom in" icon={Plus} isDisabled={zoom >= MAX_ZOOM} onPress={() => setZoom(zoom * 2)} />
            </>
          )}
        </div>
      </div>
      <div
        ref={frame}
        className="history-frame"
        role="listbox"
        tabIndex={0}
        aria-label="Points in time"
        aria-orientation="horizontal"
        aria-activedescendant={selectedNode === undefined ? undefined : `${id}${selectedNode.id}`}
        onKeyDown={onKeyDown}
      >
        <svg
          width={layout.width}
          height={layout.height}
          role="presentation"
          onPointerDown={scrub}
          onPointerMove={scrub}
        >
          {layout.ticks.length > 0 && (
            <g className="history-axis">
              <path d={`M24 ${layout.axis}H${layout.width - 24}`} />
              {layout.ticks.map((tick) => (
                <text key={tick.x} x={tick.x} y={layout.axis + 16} textAnchor="middle">
                  {tick.text}
                </text>
              ))}
            </g>
          )}
          <g className="history-edges">
            {layout.edges.map((edge) => (
              <path key={`${edge.from}>${edge.to}`} d={edge.path} />
            ))}
          </g>
          {layout.nodes.map((node) => {
            const point = points.get(node.id);
            if (point === undefined) return null;
            return (
              <HistoryPoint
                key={node.id}
                id={`${id}${node.id}`}
                node={node}
                point={point}
                selected={node.id === selected}
                onSelect={() => onSelect(node.id)}
              />
            );
          })}
        </svg>
      </div>
    </section>
  );
}

/** `9 points, 2 Nov 2026 to 20 Nov 2026`. */
function periodOf(points: readonly RestorePoint[]): string {
  const times = points.map((point) => isoTime(point.created)).filter((time) => time !== undefined);
  const number = plural(points.length, 'point');
  if (times.length === 0) return points.length > 1 ? `${number}, in the order of the chain` : number;
  const first = day(times.reduce((a, b) => Math.min(a, b)));
  const last = day(times.reduce((a, b) => Math.max(a, b)));
  return first === last ? `${number}, ${first}` : `${number}, ${first} to ${last}`;
}

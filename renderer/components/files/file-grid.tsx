// biome-ignore-all lint/a11y/useSemanticElements: a table's elements can't be virtualised.
// biome-ignore-all lint/a11y/useFocusableInteractive: the grid has the focus and names the active row.
import { useVirtualizer } from '@tanstack/react-virtual';
import { ArrowDown, ArrowUp } from 'lucide-react';
import {
  type DragEvent,
  type KeyboardEvent,
  type MouseEvent,
  type ReactNode,
  type Ref,
  useEffect,
  useId,
  useImperativeHandle,
  useMemo,
  useRef,
} from 'react';
import type { Target } from '../../../preload/api.ts';
import { useLayers } from '../../hooks/use-layers.ts';
import type { Mark, Row, Sort, SortColumn } from '../../logic/rows.ts';
import type { Selection } from '../../logic/selection.ts';
import { FileRow } from './file-row.tsx';

export const ROW_HEIGHT = 28;
const HEAD_HEIGHT = 30;

export interface GridHandle {
  focus(): void;
  /** Rows that fit on the screen, for the page keys. */
  page(): number;
  /** Where a row is on the screen, for a menu opened by the keyboard. */
  rectOf(index: number): DOMRect | undefined;
}

interface Props {
  readonly target: Target;
  readonly vm: string;
  readonly place: string;
  readonly label: string;
  readonly rows: readonly Row[];
  readonly loading: boolean;
  readonly selection: Selection;
  readonly sort: Sort;
  readonly markOf: (row: Row) => Mark | undefined;
  readonly markTitle: (row: Row) => string | undefined;
  readonly onSort: (sort: Sort) => void;
  readonly onKeyDown: (event: KeyboardEvent) => void;
  readonly onMouse: (event: MouseEvent, index: number) => void;
  readonly onDragStart: (event: DragEvent, index: number) => void;
  /** Shown below the head where there are no rows. */
  readonly children?: ReactNode;
  readonly ref?: Ref<GridHandle>;
}

const COLUMNS: readonly { id: SortColumn | 'layer'; title: string; number?: boolean; sortable: boolean }[] = [
  { id: 'name', title: 'Name', sortable: true },
  { id: 'size', title: 'Size', number: true, sortable: true },
  { id: 'modified', title: 'Modified', sortable: true },
  { id: 'since', title: 'Since before', sortable: true },
  { id: 'layer', title: 'From layer', sortable: false },
];

/** The rows, of which only those on screen exist in the page. The grid itself has the focus; `aria-activedescendant` names the row. */
export function FileGrid(props: Props) {
  const { rows, selection, sort } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const id = useId();
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_HEIGHT,
    overscan: 12,
    scrollMargin: HEAD_HEIGHT,
    scrollPaddingStart: HEAD_HEIGHT,
  });
  const items = virtual.getVirtualItems();
  const first = items[0]?.index ?? 0;
  const last = items.at(-1)?.index ?? -1;
  const visible = useMemo(
    () =>
      rows.slice(first, last + 1).flatMap((row) => (row.gone || row.entry.error !== undefined ? [] : [row.entry.path])),
    [rows, first, last],
  );
  const layersOf = useLayers(props.target, props.place, visible);

  const focusIndex = useMemo(
    () => (selection.focus === undefined ? -1 : rows.findIndex((row) => row.key === selection.focus)),
    [rows, selection.focus],
  );
  // Only a move of the focus by key scrolls: not rows that come in around it, and not a click, whose second one would then
  // land on another row.
  const pointed = useRef(false);
  const seen = useRef(selection.focus);
  useEffect(() => {
    if (seen.current === selection.focus) return;
    seen.current = selection.focus;
    if (focusIndex >= 0 && !pointed.current) virtual.scrollToIndex(focusIndex, { align: 'auto' });
  }, [focusIndex, selection.focus, virtual]);

  useImperativeHandle(props.ref, () => ({
    focus: () => scroller.current?.focus({ preventScroll: true }),
    page: () => Math.max(1, Math.floor(((scroller.current?.clientHeight ?? 0) - HEAD_HEIGHT) / ROW_HEIGHT) - 1),
    rectOf: (index) => document.getElementById(`${id}${index}`)?.getBoundingClientRect(),
  }));

  const sortBy = (column: SortColumn) =>
    props.onSort({ column, descending: sort.column === column ? !sort.descending : false });

  return (
    <div
      ref={scroller}
      className="file-grid"
      role="grid"
      aria-label={props.label}
      aria-rowcount={props.loading ? -1 : rows.length + 1}
      aria-colcount={COLUMNS.length}
      aria-multiselectable="true"
      aria-busy={props.loading}
      aria-activedescendant={focusIndex >= 0 ? `${id}${focusIndex}` : undefined}
      tabIndex={0}
      onMouseDownCapture={() => {
        pointed.current = true;
      }}
      onKeyDown={(event) => {
        pointed.current = false;
        props.onKeyDown(event);
      }}
    >
      <div role="row" aria-rowindex={1} className="file-head">
        {COLUMNS.map((column) => {
          const sorted = sort.column === column.id;
          const Arrow = sort.descending ? ArrowDown : ArrowUp;
          return (
            <span
              key={column.id}
              role="columnheader"
              className={column.number === true ? 'number' : undefined}
              aria-sort={sorted ? (sort.descending ? 'descending' : 'ascending') : undefined}
            >
              {column.sortable ? (
                <button type="button" tabIndex={-1} onClick={() => sortBy(column.id as SortColumn)}>
                  {column.title}
                  {sorted && <Arrow size={12} aria-hidden="true" />}
                </button>
              ) : (
                column.title
              )}
            </span>
          );
        })}
      </div>
      {rows.length > 0 && (
        <div role="rowgroup" className="file-rows" style={{ height: virtual.getTotalSize() }}>
          {items.map((item) => {
            const row = rows[item.index];
            if (row === undefined) return null;
            return (
              <FileRow
                key={row.key}
                id={`${id}${item.index}`}
                row={row}
                index={item.index}
                top={item.start - HEAD_HEIGHT}
                selected={selection.keys.has(row.key)}
                focused={selection.focus === row.key}
                mark={props.markOf(row)}
                markTitle={props.markTitle(row)}
                shares={layersOf(row.entry.path)}
                vm={props.vm}
                onMouse={props.onMouse}
                onDragStart={props.onDragStart}
              />
            );
          })}
        </div>
      )}
      {props.children}
    </div>
  );
}

import { FileQuestion, FolderOpen } from 'lucide-react';
import {
  type DragEvent,
  type KeyboardEvent,
  type MouseEvent,
  useCallback,
  useEffect,
  useMemo,
  useRef,
  useState,
} from 'react';
import type { RestorePoint, Target, VolumeInfo } from '../../../preload/api.ts';
import { useServices } from '../../context.ts';
import { placeOf, useListing } from '../../hooks/use-listing.ts';
import { linkDestination, nameOf, parentOf, ROOT, volumeOf } from '../../logic/paths.ts';
import { extendView, type Mark, type Row, type Sort, type View } from '../../logic/rows.ts';
import {
  clear,
  click,
  move,
  NOTHING,
  retain,
  type Selection,
  type Step,
  selectAll,
  toggle,
  typeAhead,
} from '../../logic/selection.ts';
import { useChanges } from '../../queries.ts';
import { Button } from '../ui/button.tsx';
import { ErrorNote } from '../ui/error-note.tsx';
import { Empty, Skeleton } from '../ui/small.tsx';
import { beginDrag, download } from './drag.ts';
import { FileGrid, type GridHandle } from './file-grid.tsx';
import { FileMenu, type MenuAction } from './file-menu.tsx';
import { PathBar } from './path-bar.tsx';
import { useNearest } from './use-nearest.ts';
import { RootOfVolumes } from './volume-list.tsx';

export interface FilePaneProps {
  readonly target: Target;
  readonly vm: string;
  readonly point: RestorePoint;
  readonly path: string;
  readonly volumes: readonly VolumeInfo[] | undefined;
  readonly generation: number;
  readonly onNavigate: (path: string) => void;
  readonly onPoint: (id: string) => void;
  /** Only what is there can be copied; gone entries are not in it. */
  readonly onCopy: (paths: readonly string[]) => void;
  readonly onSelected: (rows: readonly Row[]) => void;
  /** The VM has no other point to compare with. */
  readonly alone: boolean;
  readonly onMount: () => void;
  readonly onPreview: () => void;
  readonly onDetails: () => void;
  readonly onProblem: (error: unknown) => void;
  readonly onRetry: () => void;
}

const STEPS: Readonly<Record<string, Step>> = {
  ArrowUp: 'previous',
  ArrowDown: 'next',
  PageUp: 'page-up',
  PageDown: 'page-down',
  Home: 'first',
  End: 'last',
};
const TYPING_MS = 800;
const NOTHING_GONE: readonly never[] = [];
const BY_NAME: Sort = { column: 'name', descending: false };

export function FilePane(props: FilePaneProps) {
  const { target, path, onNavigate, onSelected } = props;
  const { shell } = useServices();
  const grid = useRef<GridHandle>(null);
  const [sort, setSort] = useState<Sort>(BY_NAME);
  const [showHidden, setShowHidden] = useState(true);
  const [selection, setSelection] = useState<Selection>(NOTHING);
  // The files of a drag were staged after the gesture had ended; they wait to be dragged again.
  const [staged, setStaged] = useState(false);
  const [menu, setMenu] = useState<{ x: number; y: number }>();
  const volume = props.volumes?.find((one) => one.name === volumeOf(path));
  const place = placeOf(target, path, props.generation);
  const listing = useListing(target, path, props.generation);
  const current = listing.place === place;
  // What differs is asked for after the rows have come: both are read by the same engine, and rows come first.
  const changes = useChanges(target, path, props.generation, !props.alone && current && listing.state === 'done').data;

  const markOf = useCallback(
    (row: Row): Mark | undefined => {
      if (row.gone) return 'gone';
      const { name } = row.entry;
      if (changes === undefined) return undefined;
      if (Object.hasOwn(changes.goneLater, name)) return 'gone-later';
      return Object.hasOwn(changes.marks, name) ? changes.marks[name] : undefined;
    },
    [changes],
  );
  const markTitle = useCallback(
    (row: Row): string | undefined => {
      const { name } = row.entry;
      const since = changes?.before === undefined ? 'the point before' : changes.before.name;
      if (row.gone) return `There at ${since}, not any more`;
      const later =
        changes !== undefined && Object.hasOwn(changes.goneLater, name) ? changes.goneLater[name] : undefined;
      const own = changes !== undefined && Object.hasOwn(changes.marks, name) ? changes.marks[name] : undefined;
      const parts = [own && `${own} since ${since}`, later && `not there any more at ${later.name}`].filter(Boolean);
      return parts.length === 0 ? undefined : parts.join('; ');
    },
    [changes],
  );

  const view = useRef<View>(undefined);
  const gone = current && listing.state === 'done' ? (changes?.gone ?? NOTHING_GONE) : NOTHING_GONE;
  view.current = extendView(view.current, {
    entries: listing.entries,
    length: listing.length,
    gone,
    sort,
    showHidden,
    markOf,
  });
  const { rows } = view.current;
  const order = useMemo(() => rows.map((row) => row.key), [rows]);
  const items = useMemo(() => rows.reduce((sum, row) => sum + Number(!row.gone), 0), [rows]);
  const selected = useMemo(() => rows.filter((row) => selection.keys.has(row.key)), [rows, selection.keys]);

  // Along the history the selection stays on the same names; in another folder it begins anew, on the folder one came from.
  const shownPath = useRef(path);
  const wantedFocus = useRef<string>(undefined);
  useEffect(() => {
    if (shownPath.current === path) return;
    const from = shownPath.current;
    shownPath.current = path;
    const name = wantedFocus.current ?? (parentOf(from) === path ? nameOf(from) : undefined);
    wantedFocus.current = undefined;
    setSelection(name === undefined ? NOTHING : { keys: new Set([name]), anchor: name, focus: name });
  }, [path]);
  useEffect(() => {
    if (current && listing.state === 'done') setSelection((before) => retain(before, new Set(order)));
  }, [current, listing.state, order]);
  useEffect(() => {
    onSelected(selected);
    setStaged(false);
  }, [selected, onSelected]);

  /** To the point that still had an entry, with that entry selected. */
  const goBefore = (row: Row, point: string) => {
    const { name } = row.entry;
    setSelection({ keys: new Set([name]), anchor: name, focus: name });
    props.onPoint(point);
  };
  const openRow = async (row: Row) => {
    if (row.gone) {
      if (changes?.before !== undefined) goBefore(row, changes.before.id);
      return;
    }
    if (row.entry.kind === 'directory') return onNavigate(row.entry.path);
    if (row.entry.kind === 'symlink' && row.entry.linkTarget !== undefined) {
      const destination = linkDestination(row.entry.path, row.entry.linkTarget);
      if (destination !== undefined) await followLink(destination);
      return;
    }
    props.onPreview();
  };
  const { api } = useServices();
  const followLink = async (destination: string) => {
    try {
      const { kind } = await api.stat({ target, path: destination });
      if (kind === 'directory') onNavigate(destination);
      else {
        const name = nameOf(destination);
        if (parentOf(destination) === path) return setSelection({ keys: new Set([name]), anchor: name, focus: name });
        wantedFocus.current = name;
        onNavigate(parentOf(destination));
      }
    } catch (error) {
      props.onProblem(error);
    }
  };

  const copyPaths = () => selected.filter((row) => !row.gone).map((row) => row.entry.path);
  const focusRow = () => rows.find((row) => row.key === selection.focus);
  const goUp = () => path !== ROOT && onNavigate(parentOf(path));

  const typed = useRef({ text: '', at: 0 });
  const typeLetter = (letter: string) => {
    const now = performance.now();
    typed.current = { text: now - typed.current.at < TYPING_MS ? typed.current.text + letter : letter, at: now };
    const from = selection.focus === undefined ? -1 : order.indexOf(selection.focus);
    const found =
      rows[
        typeAhead(
          rows.map((row) => row.entry.name),
          from,
          typed.current.text,
        )
      ];
    if (found !== undefined) setSelection(click(selection, order, found.key));
  };

  const onKeyDown = (event: KeyboardEvent) => {
    const control = event.ctrlKey || event.metaKey;
    const step = STEPS[event.key];
    const typing = typed.current.text !== '' && performance.now() - typed.current.at < TYPING_MS;
    if (event.altKey && event.key !== 'ArrowUp') return;
    if (event.key === 'Backspace' || (event.altKey && event.key === 'ArrowUp')) goUp();
    else if (step !== undefined) {
      setSelection(
        move(selection, order, step, grid.current?.page() ?? 10, { range: event.shiftKey, toggle: control }),
      );
    } else if (event.key === 'Enter') {
      const row = focusRow() ?? selected[0];
      if (row !== undefined) void openRow(row);
    } else if (event.key === ' ' && control) {
      if (selection.focus !== undefined) setSelection(toggle(selection, selection.focus));
    } else if (event.key === ' ' && !typing) {
      if (selected.length === 0 && selection.focus !== undefined)
        setSelection(click(selection, order, selection.focus));
      props.onPreview();
    } else if (event.key === 'Escape') setSelection(clear(selection));
    else if (control && event.key.toLowerCase() === 'a') setSelection(selectAll(selection, order));
    else if (event.key === 'ContextMenu' || (event.shiftKey && event.key === 'F10')) openMenuByKey();
    else if (!control && [...event.key].length === 1) typeLetter(event.key);
    else return;
    event.preventDefault();
  };

  const openMenuByKey = () => {
    const rect = grid.current?.rectOf(order.indexOf(selection.focus ?? ''));
    if (rect !== undefined) setMenu({ x: rect.left + 40, y: rect.bottom });
  };

  // A press on a selected row may begin a drag of the whole selection: it selects that row alone only when released.
  const latest = useRef({ rows, order, selection, selected, openRow });
  latest.current = { rows, order, selection, selected, openRow };
  const onMouse = useCallback((event: MouseEvent, index: number) => {
    const now = latest.current;
    const row = now.rows[index];
    if (row === undefined) return;
    const how = { range: event.shiftKey, toggle: event.ctrlKey || event.metaKey };
    const among = now.selection.keys.has(row.key);
    if (event.type === 'dblclick') void now.openRow(row);
    else if (event.type === 'contextmenu') {
      event.preventDefault();
      if (!among) setSelection(click(now.selection, now.order, row.key));
      setMenu({ x: event.clientX, y: event.clientY });
    } else if (event.button === 0) {
      const plain = !how.range && !how.toggle;
      const whenPressed = !plain || !among;
      if (event.type === 'mousedown' && whenPressed) setSelection(click(now.selection, now.order, row.key, how));
      if (event.type === 'click' && plain) setSelection(click(now.selection, now.order, row.key));
    }
  }, []);

  const { onProblem } = props;
  const onDragStart = useCallback(
    (event: DragEvent, index: number) => {
      const now = latest.current;
      const row = now.rows[index];
      if (row === undefined) return;
      const dragged = now.selection.keys.has(row.key) ? now.selected : [row];
      beginDrag(event, shell, target, dragged, row)?.then((outcome) => setStaged(outcome === 'ready'), onProblem);
    },
    [shell, target, onProblem],
  );

  const missing = current && listing.error?.kind === 'not-found';
  const nearest = useNearest(target, path, missing);
  const volumeError = volume?.error;

  const groups = (): MenuAction[][] => {
    const one = selected.length === 1 ? selected[0] : undefined;
    const there = copyPaths();
    if (one?.gone === true) {
      const before = changes?.before;
      return before === undefined
        ? []
        : [[{ id: 'before', title: `Go to ${before.name}, which has it`, run: () => goBefore(one, before.id) }]];
    }
    const files = selected.length > 0 && selected.every((row) => row.entry.kind === 'file');
    return [
      one === undefined
        ? []
        : [
            { id: 'open', title: 'Open', keys: 'Enter', run: () => void openRow(one) },
            {
              id: 'preview',
              title: 'Preview',
              keys: 'Space',
              run: props.onPreview,
              disabled: one.entry.kind !== 'file',
            },
            { id: 'details', title: 'Details', run: props.onDetails },
          ],
      [
        { id: 'copy', title: 'Copy to…', run: () => props.onCopy(there), disabled: there.length === 0 },
        ...(shell.downloadUrl === undefined
          ? []
          : [{ id: 'download', title: 'Download', run: () => download(shell, target, selected), disabled: !files }]),
        {
          id: 'copy-path',
          title: there.length > 1 ? 'Copy paths' : 'Copy path',
          run: () => void navigator.clipboard.writeText(there.join('\n')).catch(props.onProblem),
          disabled: there.length === 0,
        },
      ],
      [{ id: 'all', title: 'Select all', keys: 'Ctrl A', run: () => setSelection(selectAll(selection, order)) }],
    ];
  };

  const empty = current && listing.state === 'done' && rows.length === 0;
  const hidden = empty && listing.length > 0;
  return (
    <section className="file-pane" aria-label="Files">
      <PathBar
        vm={props.vm}
        path={path}
        fileSystem={volume?.fileSystem?.type}
        items={items}
        readable={path !== ROOT && volumeError === undefined}
        loading={!current || listing.state === 'loading'}
        selected={selected}
        showHidden={showHidden}
        onNavigate={onNavigate}
        onUp={goUp}
        onShowHidden={setShowHidden}
        onCopy={() => props.onCopy(copyPaths())}
        onDownload={shell.downloadUrl === undefined ? undefined : () => download(shell, target, selected)}
      />
      {staged && (
        <p className="notice" role="status">
          The selection is ready now. Drag it once more to where you want it.
        </p>
      )}
      {path === ROOT ? (
        <RootOfVolumes volumes={props.volumes} onNavigate={onNavigate} />
      ) : volumeError !== undefined ? (
        <ErrorNote error={volumeError}>
          <Button small onPress={props.onMount}>
            Mount the disk
          </Button>
        </ErrorNote>
      ) : (
        <FileGrid
          ref={grid}
          target={target}
          vm={props.vm}
          place={place}
          label={`Files in ${path}`}
          rows={rows}
          loading={!current || listing.state === 'loading'}
          selection={selection}
          sort={sort}
          markOf={markOf}
          markTitle={markTitle}
          onSort={setSort}
          onKeyDown={onKeyDown}
          onMouse={onMouse}
          onDragStart={onDragStart}
        >
          {current && listing.state === 'loading' && rows.length === 0 && (
            <Skeleton lines={8} label="Reading the folder" />
          )}
          {empty && (
            <Empty icon={FolderOpen} title={hidden ? 'Only hidden files are here' : 'This folder is empty'}>
              {hidden && (
                <Button small onPress={() => setShowHidden(true)}>
                  Show hidden files
                </Button>
              )}
            </Empty>
          )}
          {missing ? (
            <Empty icon={FileQuestion} title={`“${nameOf(path)}” is not there at ${props.point.name}`}>
              <p className="quiet">{path}</p>
              {nearest !== undefined && (
                <Button small onPress={() => onNavigate(nearest)}>
                  {nearest === ROOT ? 'Go to the volumes' : `Go to ${nearest}`}
                </Button>
              )}
            </Empty>
          ) : (
            current &&
            listing.error !== undefined && (
              <ErrorNote error={listing.error} look={rows.length > 0 ? 'inline' : 'panel'} onRetry={props.onRetry} />
            )
          )}
        </FileGrid>
      )}
      {menu !== undefined && <FileMenu at={menu} groups={groups()} onClose={() => setMenu(undefined)} />}
    </section>
  );
}

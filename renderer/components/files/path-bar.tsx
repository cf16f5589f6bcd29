import { ArrowUp, Download, Eye, EyeOff } from 'lucide-react';
import { Fragment, useLayoutEffect, useRef } from 'react';
import { count, plural, size } from '../../logic/format.ts';
import { crumbs, ROOT } from '../../logic/paths.ts';
import type { Row } from '../../logic/rows.ts';
import { Button, IconButton } from '../ui/button.tsx';

interface Props {
  readonly vm: string;
  readonly path: string;
  readonly fileSystem: string | undefined;
  readonly items: number;
  /** There is a folder to list here, not the volumes nor one that can't be read. */
  readonly readable: boolean;
  readonly loading: boolean;
  readonly selected: readonly Row[];
  readonly showHidden: boolean;
  readonly onNavigate: (path: string) => void;
  readonly onUp: () => void;
  readonly onShowHidden: (show: boolean) => void;
  readonly onCopy: () => void;
  /** Absent where the shell has drag-out and dialogs of its own. */
  readonly onDownload: (() => void) | undefined;
}

function summary({ items, loading, selected }: Pick<Props, 'items' | 'loading' | 'selected'>): string {
  const bytes = selected.reduce((sum, row) => sum + (row.entry.kind === 'file' ? (row.entry.size ?? 0) : 0), 0);
  return [
    `${plural(items, 'item')}${loading ? ' so far' : ''}`,
    selected.length === 0 ? undefined : `${count(selected.length)} selected`,
    selected.length === 0 || bytes === 0 ? undefined : size(bytes),
  ]
    .filter((part) => part !== undefined)
    .join(', ');
}

/** Where the file pane is, what is selected there, and the verbs for the selection. */
export function PathBar(props: Props) {
  const { vm, path, selected, showHidden, onNavigate } = props;
  const steps = crumbs(path);
  const way = useRef<HTMLElement>(null);
  // Where there is no room for the whole way, its end says where one is.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the path is what makes the way longer.
  useLayoutEffect(() => {
    if (way.current !== null) way.current.scrollLeft = way.current.scrollWidth;
  }, [path]);
  const copyable = selected.some((row) => !row.gone);
  const downloadable = copyable && selected.every((row) => row.gone || row.entry.kind === 'file');
  return (
    <div className="path-bar">
      <IconButton label="Up one folder" icon={ArrowUp} isDisabled={path === ROOT} onPress={props.onUp} />
      <nav ref={way} aria-label="Folder">
        <ol className="crumbs">
          <li>
            <button type="button" className="crumb" onClick={() => onNavigate(ROOT)}>
              {vm}
            </button>
          </li>
          {steps.map((step, index) => (
            <Fragment key={step.path}>
              <li className="separator" aria-hidden="true">
                ›
              </li>
              <li>
                {index === steps.length - 1 ? (
                  <b aria-current="location">{step.name}</b>
                ) : (
                  <button type="button" className="crumb" onClick={() => onNavigate(step.path)}>
                    {step.name}
                  </button>
                )}
                {index === 0 && props.fileSystem !== undefined && (
                  <span className="crumb-type">{props.fileSystem}</span>
                )}
              </li>
            </Fragment>
          ))}
        </ol>
      </nav>
      <span className="path-summary" role="status">
        {props.readable ? summary(props) : ''}
      </span>
      {props.readable && (
        <>
          <IconButton
            label={showHidden ? 'Hide hidden files' : 'Show hidden files'}
            icon={showHidden ? Eye : EyeOff}
            onPress={() => props.onShowHidden(!showHidden)}
          />
          {props.onDownload !== undefined && (
            <IconButton label="Download" icon={Download} isDisabled={!downloadable} onPress={props.onDownload} />
          )}
          <Button small isDisabled={!copyable} onPress={props.onCopy}>
            Copy to…
          </Button>
        </>
      )}
    </div>
  );
}

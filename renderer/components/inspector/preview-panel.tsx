import { useVirtualizer } from '@tanstack/react-virtual';
import { Eye, File as FileIcon } from 'lucide-react';
import { useEffect, useMemo, useRef, useState } from 'react';
import type { Target } from '../../../preload/api.ts';
import { fromBase64 } from '../../../preload/rpc/channels.ts';
import { type Content, contentOf, hexLines } from '../../logic/content.ts';
import { size } from '../../logic/format.ts';
import type { Row } from '../../logic/rows.ts';
import { usePreview } from '../../queries.ts';
import { asWire } from '../../words.ts';
import { ErrorNote } from '../ui/error-note.tsx';
import { Empty, Skeleton } from '../ui/small.tsx';

interface Props {
  readonly target: Target;
  readonly row: Row | undefined;
  readonly many: boolean;
}

/** The beginning of a file. Nothing of it is ever markup: text is text, images go through the browser's decoder, the rest is bytes. */
export function PreviewPanel({ target, row, many }: Props) {
  const file = row !== undefined && !row.gone && row.entry.kind === 'file' ? row : undefined;
  const preview = usePreview(target, file?.entry.path);
  const bytes = useMemo(
    () => (preview.data === undefined ? undefined : fromBase64(preview.data.bytes)),
    [preview.data],
  );
  if (file === undefined) {
    const title = many
      ? 'Select one file to preview it'
      : row === undefined
        ? 'Nothing is selected'
        : 'Only files have a preview';
    return (
      <Empty icon={Eye} title={title}>
        <p className="quiet">Select a file and press Space.</p>
      </Empty>
    );
  }
  if (preview.isError) return <ErrorNote error={asWire(preview.error)} onRetry={() => void preview.refetch()} />;
  if (bytes === undefined || preview.data === undefined) return <Skeleton lines={8} label="Reading the file" />;
  const content = contentOf(bytes, preview.data.truncated);
  return (
    <div className="preview">
      <header className="panel-head">
        <h3 title={file.entry.name}>{file.entry.name}</h3>
        <p className="quiet">
          {contentWords(content)}, {size(preview.data.size)}
          {preview.data.truncated ? `, the first ${size(bytes.length)} shown` : ''}
        </p>
      </header>
      {content.kind === 'empty' && <Empty icon={FileIcon} title="The file is empty" />}
      {content.kind === 'text' && <TextLines lines={content.lines} />}
      {content.kind === 'binary' && <HexView bytes={bytes} />}
      {content.kind === 'image' && (
        <ImageView bytes={bytes} type={content.type} name={file.entry.name} truncated={preview.data.truncated} />
      )}
    </div>
  );
}

function contentWords(content: Content): string {
  if (content.kind === 'text') return `Text, ${content.encoding}`;
  if (content.kind === 'image') return `Image, ${content.type.slice('image/'.length).toUpperCase()}`;
  return content.kind === 'empty' ? 'Empty file' : 'Binary';
}

const LINE_HEIGHT = 18;

function TextLines({ lines }: { readonly lines: readonly string[] }) {
  return (
    <Lines
      label="Content"
      count={lines.length}
      render={(index) => (
        <>
          <span className="line-number" aria-hidden="true">
            {index + 1}
          </span>
          <span className="line-text">{lines[index]}</span>
        </>
      )}
    />
  );
}

function HexView({ bytes }: { readonly bytes: Uint8Array }) {
  const lines = useMemo(() => hexLines(bytes, bytes.length), [bytes]);
  return (
    <Lines
      label="Content in hexadecimal"
      count={lines.length}
      render={(index) => (
        <>
          <span className="line-number">{lines[index]?.offset}</span>
          <span className="line-text">
            {lines[index]?.hex} {lines[index]?.text}
          </span>
        </>
      )}
    />
  );
}

interface LinesProps {
  readonly label: string;
  readonly count: number;
  readonly render: (index: number) => React.ReactNode;
}

/** Lines of which only those on screen exist in the page. */
function Lines({ label, count, render }: LinesProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count,
    getScrollElement: () => scroller.current,
    estimateSize: () => LINE_HEIGHT,
    overscan: 20,
  });
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolled text must be reachable by keyboard.
    <div ref={scroller} className="lines" role="document" aria-label={label} tabIndex={0}>
      <div className="lines-inner" style={{ height: virtual.getTotalSize() }}>
        {virtual.getVirtualItems().map((item) => (
          <div key={item.key} className="line" style={{ transform: `translateY(${item.start}px)` }}>
            {render(item.index)}
          </div>
        ))}
      </div>
    </div>
  );
}

interface ImageProps {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly type: string;
  readonly name: string;
  readonly truncated: boolean;
}

function ImageView({ bytes, type, name, truncated }: ImageProps) {
  const [url, setUrl] = useState<string>();
  const [broken, setBroken] = useState(false);
  useEffect(() => {
    const made = URL.createObjectURL(new Blob([bytes], { type }));
    setUrl(made);
    setBroken(false);
    return () => URL.revokeObjectURL(made);
  }, [bytes, type]);
  if (broken) {
    return (
      <>
        <p className="callout">
          {truncated ? 'The image is too large to preview whole.' : 'The image could not be decoded.'} These are its
          bytes.
        </p>
        <HexView bytes={bytes} />
      </>
    );
  }
  return url === undefined ? null : (
    <div className="image-frame">
      <img src={url} alt={name} onError={() => setBroken(true)} />
    </div>
  );
}

import type {
  EntryDetails,
  EntryKind,
  ExtendedAttribute,
  RestorePoint,
  Target,
  Timestamp,
} from '../../../preload/api.ts';
import { fromBase64 } from '../../../preload/rpc/channels.ts';
import { exactSize, modeOctal, modeText, size, stamp, stampExact } from '../../logic/format.ts';
import { parentOf } from '../../logic/paths.ts';
import type { Row } from '../../logic/rows.ts';
import { useStat } from '../../queries.ts';
import { asWire } from '../../words.ts';
import { CopyButton } from '../ui/copy-button.tsx';
import { ErrorNote } from '../ui/error-note.tsx';
import { Skeleton } from '../ui/small.tsx';
import { type Fact, Facts } from './facts.tsx';
import { FileHash } from './file-hash.tsx';
import { LayersBar } from './layers-bar.tsx';

interface Props {
  /** Layers of the chain that the entry's disk is made of. */
  readonly depth: number | undefined;
  readonly target: Target;
  readonly vm: string;
  readonly point: RestorePoint;
  readonly row: Row;
}

export const KIND_WORDS: Record<EntryKind, string> = {
  file: 'File',
  directory: 'Folder',
  symlink: 'Symbolic link',
  fifo: 'Named pipe',
  socket: 'Socket',
  'block-device': 'Block device',
  'character-device': 'Character device',
  unknown: 'Unknown kind',
};

/** Everything that the guest's file system says about one entry, and where its bytes are. */
export function DetailsPanel({ target, vm, point, row, depth }: Props) {
  const { entry } = row;
  const stat = useStat(target, row.gone ? undefined : entry.path);
  const details = stat.data;
  const facts = details ?? entry;
  const problem = entry.error ?? (stat.isError ? asWire(stat.error) : undefined);
  return (
    <>
      <header className="panel-head">
        <h3 title={entry.name}>{entry.name}</h3>
        <p className="quiet path-text">
          <span title={entry.path}>{parentOf(entry.path)}</span>
          <CopyButton text={entry.path} label="Copy path" />
        </p>
      </header>
      {row.gone && <p className="callout">It is not there any more at {point.name}; this is how it was before.</p>}
      {problem !== undefined && <ErrorNote error={problem} look="inline" onRetry={() => void stat.refetch()} />}
      <Facts facts={entryFacts(facts)} />
      {details?.problems.map((problem) => (
        <ErrorNote key={problem.message} error={problem} look="inline" />
      ))}
      {details !== undefined && details.attributes.length > 0 && <Attributes attributes={details.attributes} />}
      {!row.gone && entry.kind === 'file' && details !== undefined && (
        <FileHash target={target} path={entry.path} size={details.size ?? 0} />
      )}
      {!row.gone && (
        <section aria-label="Where its bytes are">
          <h4>Where its bytes are</h4>
          {details !== undefined && <LayersBar shares={details.layers} vm={vm} depth={depth} />}
          {stat.isPending && <Skeleton lines={2} label="Tracing its bytes" />}
        </section>
      )}
    </>
  );
}

function time(label: string, value: Timestamp | undefined): Fact | undefined {
  if (value === undefined) return undefined;
  return {
    label,
    value: (
      <>
        {stamp(value)}
        <small className="figure">{stampExact(value)}</small>
      </>
    ),
  };
}

function entryFacts(entry: EntryDetails | Row['entry']): (Fact | undefined)[] {
  const given = <Value,>(label: string, value: Value | undefined, show: (value: Value) => Fact['value']) =>
    value === undefined ? undefined : { label, value: show(value) };
  return [
    { label: 'Kind', value: KIND_WORDS[entry.kind] },
    given('Leads to', entry.linkTarget, (target) => <code>{target}</code>),
    entry.kind === 'directory'
      ? undefined
      : given('Size', entry.size, (bytes) => (
          <>
            {size(bytes)}
            {bytes >= 1000 && <small className="figure">{exactSize(bytes)}</small>}
          </>
        )),
    given('On disk', entry.allocated, size),
    given('Mode', entry.mode, (mode) => (
      <code>
        {modeText(entry.kind, mode)} {modeOctal(mode)}
      </code>
    )),
    entry.uid === undefined
      ? undefined
      : { label: 'Owner', value: `user ${entry.uid}, group ${entry.gid ?? 'not known'}` },
    time('Modified', entry.modified),
    time('Changed', entry.changed),
    time('Accessed', entry.accessed),
    time('Created', entry.created),
    given('Links', entry.links, String),
    given('Inode', entry.id, String),
    given('Device', entry.device, (device) => `${device.major}:${device.minor}`),
    entry.flags === undefined || entry.flags.length === 0
      ? undefined
      : { label: 'Flags', value: entry.flags.join(', ') },
  ];
}

const MAX_VALUE = 120;

/** An attribute's value as text where it is text, else in hexadecimal. */
function attributeValue(attribute: ExtendedAttribute): string {
  const bytes = fromBase64(attribute.value);
  const end = bytes.at(-1) === 0 ? bytes.length - 1 : bytes.length;
  const content = bytes.subarray(0, end);
  const printable = content.every((byte) => byte >= 0x20 && byte < 0x7f);
  const text = printable
    ? String.fromCharCode(...content.subarray(0, MAX_VALUE))
    : [...bytes.subarray(0, MAX_VALUE / 2)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return bytes.length > (printable ? MAX_VALUE : MAX_VALUE / 2) ? `${text}…` : text;
}

function Attributes({ attributes }: { readonly attributes: readonly ExtendedAttribute[] }) {
  return (
    <section aria-label="Extended attributes">
      <h4>Extended attributes</h4>
      <dl className="facts stacked">
        {attributes.map((attribute) => (
          <div key={attribute.name}>
            <dt>{attribute.name}</dt>
            <dd>
              <code>{attributeValue(attribute)}</code>
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

import { Ellipsis, MemoryStick, TriangleAlert } from 'lucide-react';
import { Menu, MenuItem, MenuTrigger, Popover } from 'react-aria-components';
import type { Finding, RestorePoint, VolumeInfo } from '../../../preload/api.ts';
import { dateTimeLong, isoTime, size } from '../../logic/format.ts';
import { findingCounts, healthOf } from '../../logic/health.ts';
import { consistencyText } from '../../logic/volumes.ts';
import { Button, IconButton } from '../ui/button.tsx';

interface Props {
  readonly point: RestorePoint;
  /** Undefined until they have been read. */
  readonly volumes: readonly VolumeInfo[] | undefined;
  /** Of the point and of its volumes. */
  readonly findings: readonly Finding[];
  readonly busy: boolean;
  readonly onMount: () => void;
  readonly onVerify: () => void;
  /** Absent where this is the only point. */
  readonly onVerifyAll: (() => void) | undefined;
  readonly onHash: (disk: number) => void;
  readonly onRestore: (disk: number) => void;
  readonly onFindings: () => void;
}

function changedText(point: RestorePoint): string | undefined {
  if (point.changedBytes === undefined) return undefined;
  return point.parent === undefined ? `Holds ${size(point.changedBytes)}` : `${size(point.changedBytes)} changed`;
}

export const diskName = (index: number): string => {
  // sda ... sdz, sdaa ... as Linux counts.
  let name = '';
  for (let n = index; n >= 0; n = Math.floor(n / 26) - 1) name = String.fromCharCode(97 + (n % 26)) + name;
  return `sd${name}`;
};

export function PointHeader({ point, volumes, findings, busy, onMount, onVerify, onHash, ...props }: Props) {
  const created = isoTime(point.created);
  const counts = findingCounts(findings);
  const facts = [
    created === undefined ? (point.current ? 'The present state' : 'No date recorded') : dateTimeLong(created),
    changedText(point),
  ].filter((fact) => fact !== undefined);
  return (
    <section className="point" aria-label="Selected point">
      <div className="point-text">
        <h2>
          {point.name}
          {point.current && created !== undefined && <span className="tag">present state</span>}
          {point.memory && (
            <span className="tag" title="A memory state is stored with this point">
              <MemoryStick size={12} aria-hidden="true" /> with memory
            </span>
          )}
          {counts !== undefined && (
            <button type="button" className={`tag ${healthOf(findings)}`} onClick={props.onFindings}>
              <TriangleAlert size={12} aria-hidden="true" /> {counts}
            </button>
          )}
        </h2>
        <p>
          {facts.join('. ')}. {consistencyText(point.consistency, volumes)}
        </p>
        {point.description !== undefined && point.description !== '' && (
          <p className="point-note" title={point.description}>
            {point.description}
          </p>
        )}
      </div>
      <div className="point-verbs">
        <Button onPress={onMount}>Mount</Button>
        <Button onPress={onVerify} isDisabled={busy}>
          Verify
        </Button>
        <MenuTrigger>
          <IconButton label="More for this point" icon={Ellipsis} />
          <Popover className="popover" placement="bottom end">
            <Menu className="menu" aria-label="More for this point">
              {point.disks.map((disk) => (
                <MenuItem
                  key={`restore ${disk.index}`}
                  className="menu-item"
                  isDisabled={disk.error !== undefined}
                  onAction={() => props.onRestore(disk.index)}
                >
                  {point.disks.length === 1 ? 'Restore disk…' : `Restore disk ${diskName(disk.index)}…`}
                </MenuItem>
              ))}
              {point.disks.map((disk) => (
                <MenuItem
                  key={disk.index}
                  className="menu-item"
                  isDisabled={disk.error !== undefined}
                  onAction={() => onHash(disk.index)}
                >
                  {point.disks.length === 1 ? 'Hash disk' : `Hash disk ${diskName(disk.index)}`}
                </MenuItem>
              ))}
              {props.onVerifyAll !== undefined && (
                <MenuItem className="menu-item" isDisabled={busy} onAction={props.onVerifyAll}>
                  Verify all points
                </MenuItem>
              )}
            </Menu>
          </Popover>
        </MenuTrigger>
      </div>
    </section>
  );
}

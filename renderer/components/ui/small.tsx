/** The smallest parts: a health dot, a progress bar, a quiet placeholder, an empty state. */
import type { LucideIcon } from 'lucide-react';
import type { ReactNode } from 'react';
import { HEALTH_WORDS, type Health } from '../../logic/health.ts';

export function HealthDot({ health }: { readonly health: Health }) {
  return <span className={`dot ${health}`} role="img" aria-label={HEALTH_WORDS[health]} title={HEALTH_WORDS[health]} />;
}

interface ProgressProps {
  readonly label: string;
  /** 0 to 1; undefined while the end is not known. */
  readonly value: number | undefined;
}

export function Progress({ label, value }: ProgressProps) {
  const percent = value === undefined ? undefined : Math.round(Math.min(1, Math.max(0, value)) * 100);
  return (
    <span
      className={percent === undefined ? 'progress unknown' : 'progress'}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent}
    >
      <span style={percent === undefined ? undefined : { width: `${percent}%` }} />
    </span>
  );
}

/** Characters at the end of a name that stay where there is no room for all of it. */
const KEPT_END = 16;

/** A name on one line. Where it has no room it loses its middle: beginning and end tell images apart. */
export function MiddleCut({ text }: { readonly text: string }) {
  const characters = [...text];
  const cut = Math.max(Math.ceil(characters.length / 2), characters.length - KEPT_END);
  return (
    <span className="middle-cut">
      <span>{characters.slice(0, cut).join('')}</span>
      <span>{characters.slice(cut).join('')}</span>
    </span>
  );
}

/** Lines where something will stand in a moment. */
export function Skeleton({ lines, label }: { readonly lines: number; readonly label: string }) {
  return (
    <div className="skeleton" role="status" aria-label={label}>
      {Array.from({ length: lines }, (_, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the lines are all alike and never move.
        <span key={index} />
      ))}
    </div>
  );
}

interface EmptyProps {
  readonly icon: LucideIcon;
  readonly title: string;
  readonly children?: ReactNode;
}

export function Empty({ icon: Icon, title, children }: EmptyProps) {
  return (
    <div className="empty">
      <Icon size={24} strokeWidth={1.5} aria-hidden="true" />
      <p className="empty-title">{title}</p>
      {children}
    </div>
  );
}

export function Brand() {
  return (
    <span className="brand">
      <svg width="18" height="18" viewBox="0 0 18 18" fill="none" aria-hidden="true">
        <path d="M2 15h5l4-9h5" stroke="currentColor" strokeWidth="2" />
        <circle cx="4" cy="15" r="2.4" fill="currentColor" />
        <circle cx="9" cy="10.5" r="2.4" fill="currentColor" />
        <circle cx="14" cy="6" r="2.4" fill="currentColor" />
      </svg>
      <span>Chainlift</span>
    </span>
  );
}

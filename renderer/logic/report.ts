/** A task's result as text, to paste into a ticket or to keep as evidence. Pure. */
import type { Finding, TaskSnapshot, WireError } from '../../preload/api.ts';
import { wordsFor } from '../words.ts';
import { count, duration, exactSize, isoTime, plural } from './format.ts';
import { findingCounts } from './health.ts';

/** Seconds that an ended task took; undefined while it runs or when its times are no times. */
export function secondsTaken(task: TaskSnapshot): number | undefined {
  const [from, to] = [isoTime(task.started), isoTime(task.ended)];
  return from === undefined || to === undefined || to < from ? undefined : (to - from) / 1000;
}

/** `4 s`; `under 1 s` for what took less. */
export function timeTaken(task: TaskSnapshot): string | undefined {
  const seconds = secondsTaken(task);
  if (seconds === undefined) return undefined;
  return seconds < 1 ? 'under 1 s' : duration(seconds);
}

/** Where and by what a finding shows itself, fact by fact. */
export function findingFacts(finding: Finding): string[] {
  const fact = (label: string, value: string | number | undefined) => (value === undefined ? [] : [`${label}${value}`]);
  return [
    ...fact('', finding.source),
    ...fact('', finding.structure),
    ...(finding.position === undefined ? [] : [`byte ${count(finding.position)}`]),
    ...fact('expected ', finding.expected),
    ...fact('found ', finding.found),
    finding.code,
  ];
}

const findingLine = (finding: Finding) =>
  [`[${finding.severity}] ${finding.message}`, finding.remedy, findingFacts(finding).join('; ')]
    .filter((part) => part !== undefined)
    .join('\n    ');

const errorLine = (error: WireError) => `${wordsFor(error).title}. ${wordsFor(error).text} (${error.message})`;

function resultLines(task: TaskSnapshot): string[] {
  const { result } = task;
  if (task.error !== undefined) return [errorLine(task.error)];
  if (result === undefined) return [];
  if (result.kind === 'hash') return [`SHA-256: ${result.sha256}`, `Read: ${exactSize(result.bytes)}`];
  if (result.kind === 'verify') {
    return [
      `Checked: ${plural(result.disksChecked, 'disk')}`,
      `Findings: ${findingCounts(result.findings) ?? 'none'}`,
      ...result.findings.map(findingLine),
    ];
  }
  if (result.kind === 'scan') return [`Found: ${plural(result.vms, 'VM')}, ${plural(result.points, 'point')}`];
  if (result.kind === 'convert') {
    return [
      `Written: ${result.files[0] ?? ''} (${result.format}${result.variant === result.format ? '' : ` ${result.variant}`})`,
      ...result.files.slice(1).map((file) => `With: ${file}`),
      `Disk: ${exactSize(result.size)}, data: ${exactSize(result.dataBytes)}`,
      `Read back and equal: ${result.verified ? 'yes' : 'not read back'}`,
      ...(result.sha256 === undefined ? [] : [`SHA-256 of the disk: ${result.sha256}`]),
    ];
  }
  return [
    `Copied: ${plural(result.files, 'file')}, ${exactSize(result.bytes)}`,
    `Read back and equal: ${count(result.verified)}`,
    `Skipped: ${count(result.skipped)}`,
    `Problems: ${count(result.problems.length)}`,
    ...result.problems.map((problem) => `[problem] ${problem.path}: ${errorLine(problem.error)}`),
    ...result.notes.map((note) => `[note] ${note.path}: ${note.note}`),
    ...result.copied.map((file) => `${file.sha256 ?? file.kind}  ${file.destination}`),
    ...(result.files > result.copied.length ? ['(the list of copied files ends here; the counts are of all)'] : []),
  ];
}

/** The whole of it: what was done, when, with what outcome. Times are UTC. */
export function taskReport(task: TaskSnapshot): string {
  const taken = timeTaken(task);
  return [
    task.title,
    `Started: ${task.started}`,
    ...(task.ended === undefined ? [] : [`Ended: ${task.ended}${taken === undefined ? '' : ` (${taken})`}`]),
    `Outcome: ${task.state}`,
    ...resultLines(task),
    '',
  ].join('\n');
}

import { describe, expect, it } from 'vitest';
import type { TaskSnapshot } from '../../../preload/api.ts';
import { findingFacts, secondsTaken, taskReport, timeTaken } from '../../../renderer/logic/report.ts';

const task = (more: Partial<TaskSnapshot>): TaskSnapshot => ({
  id: '1',
  kind: 'verify',
  title: 'Verify web01',
  state: 'done',
  started: '2026-11-20T10:00:00.000Z',
  ended: '2026-11-20T10:01:05.000Z',
  progress: { bytesDone: 0, itemsDone: 1 },
  bytesPerSecond: 0,
  ...more,
});
const finding = {
  severity: 'damaged',
  code: 'link',
  message: 'The link is broken',
  source: 'a.vmdk',
  position: 4096,
  expected: 0,
  found: 7,
} as const;

describe('how long a task took', () => {
  it('is known of ended tasks only', () => {
    expect(secondsTaken(task({}))).toBe(65);
    expect(timeTaken(task({}))).toBe('1 min 5 s');
    expect(timeTaken(task({ ended: '2026-11-20T10:00:00.400Z' }))).toBe('under 1 s');
    const { ended: _, ...running } = task({});
    expect(timeTaken(running)).toBeUndefined();
    expect(secondsTaken(task({ ended: '2026-11-20T09:00:00Z' }))).toBeUndefined();
  });
});

describe('a report', () => {
  it('of a verification says what was checked and lists every finding with its facts', () => {
    expect(findingFacts(finding)).toEqual(['a.vmdk', 'byte 4,096', 'expected 0', 'found 7', 'link']);
    const text = taskReport(task({ result: { kind: 'verify', source: '/srv', disksChecked: 2, findings: [finding] } }));
    expect(text).toContain('Verify web01\nStarted: 2026-11-20T10:00:00.000Z');
    expect(text).toContain('Checked: 2 disks');
    expect(text).toContain('[damaged] The link is broken\n    a.vmdk; byte 4,096; expected 0; found 7; link');
    const clean = taskReport(task({ result: { kind: 'verify', source: '/srv', disksChecked: 1, findings: [] } }));
    expect(clean).toContain('Findings: none');
  });
  it('of a copy lists hashes, problems and notes, and says where its list ends', () => {
    const text = taskReport(
      task({
        kind: 'copy',
        result: {
          kind: 'copy',
          files: 2,
          directories: 0,
          links: 0,
          bytes: 10,
          verified: 1,
          skipped: 0,
          written: ['/out/a'],
          copied: [
            { path: '/sda1/a', destination: '/out/a', kind: 'file', bytes: 10, sha256: 'abc123', verified: true },
          ],
          problems: [{ path: '/sda1/b', error: { kind: 'io', message: 'no', details: { code: 'EIO' } } }],
          notes: [{ path: '/sda1/a', note: 'owner not kept' }],
        },
      }),
    );
    expect(text).toContain('abc123  /out/a');
    expect(text).toContain('[problem] /sda1/b: The drive reports a read error');
    expect(text).toContain('[note] /sda1/a: owner not kept');
    expect(text).toContain('the list of copied files ends here');
  });
  it('of a failure says why', () => {
    const error = { kind: 'io', message: 'gone', details: { code: 'ENOENT', path: '/x/y' } } as const;
    const text = taskReport(task({ state: 'failed', error }));
    expect(text).toContain('Outcome: failed');
    expect(text).toContain('“y” does not exist');
  });
});

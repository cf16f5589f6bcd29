import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { writeDemo } from '../../../main/engine/demo/demo.ts';
import { createEngine } from '../../../main/engine/service/engine.ts';
import type { EntryRow } from '../../../preload/api.ts';
import truth from '../../data/demo-truth.json' with { type: 'json' };
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';

interface TrueEntry {
  kind: string;
  mode: number;
  uid: number;
  gid: number;
  mtime: string;
  size?: number;
  sha256?: string;
  target?: string;
}

const scratch = scratchFolder('demo');

async function demo(): Promise<string> {
  const folder = join(scratch.path, 'demo');
  await writeDemo(folder);
  return folder;
}

describe('the demo repository', () => {
  it('is a VM with a base and three points, one on a branch', async () => {
    const engine = createEngine({ synchronous: true, configFolder: null });
    const report = await engine.api.report({ source: await demo() });
    await engine.close();
    expect(report.findings).toEqual([]);
    expect(report.orphans).toEqual([]);
    const [vm] = report.vms;
    expect(report.vms).toHaveLength(1);
    expect(vm!.findings).toEqual([]);
    expect(vm!.points.map(({ name, parent, current }) => ({ name, parent, current }))).toEqual([
      { name: 'base', parent: undefined, current: false },
      { name: 'before-upgrade', parent: '1', current: false },
      { name: 'try-php83', parent: '2', current: false },
      { name: 'Current state', parent: '2', current: true },
    ]);
    for (const point of vm!.points) expect(point.changedBytes).toBeGreaterThan(0);
  });

  // The truth was read through the kernel's own ext4 when the golden images were made.
  it.each(Object.keys(truth))('reads every file of %s as the kernel did', async (point) => {
    const folder = await demo();
    const entries = (truth as Record<string, Record<string, TrueEntry>>)[point]!;
    await leavesUntouched(folder, async () => {
      const engine = createEngine({ synchronous: true, configFolder: null });
      const target = { source: folder, point };
      const rows = new Map<string, EntryRow>();
      for await (const batch of engine.api.list({ target, path: '/sda2/', long: true, recursive: true })) {
        for (const row of batch) rows.set(row.path.slice('/sda2'.length), row);
      }
      expect([...rows.keys()].sort()).toEqual(Object.keys(entries).sort());
      for (const [path, entry] of Object.entries(entries)) {
        const row = rows.get(path)!;
        const modified = BigInt(row.modified!.seconds) * 1_000_000_000n + BigInt(row.modified!.nanoseconds);
        expect({ path, kind: row.kind, mode: row.mode, uid: row.uid, gid: row.gid, mtime: String(modified) }).toEqual({
          path,
          kind: entry.kind,
          mode: entry.mode,
          uid: entry.uid,
          gid: entry.gid,
          mtime: entry.mtime,
        });
        expect(row.linkTarget).toBe(entry.target);
        if (entry.kind !== 'file') continue;
        expect(row.size).toBe(entry.size);
        const hash = createHash('sha256');
        for await (const chunk of engine.api.read({ target, path: `/sda2${path}` })) hash.update(chunk);
        expect(hash.digest('hex')).toBe(entry.sha256);
      }
      await engine.close();
    });
  });

  it('leaves a folder alone that holds something else', async () => {
    const folder = join(scratch.path, 'taken');
    mkdirSync(folder);
    writeFileSync(join(folder, 'thesis.txt'), 'mine');
    await expect(writeDemo(folder)).rejects.toMatchObject({ kind: 'denied' });
    expect(readdirSync(folder)).toEqual(['thesis.txt']);
  });

  it('is left as it is when it is there already, and completed when an attempt was cut off', async () => {
    const folder = await demo();
    await leavesUntouched(folder, () => writeDemo(folder));
    const cut = join(scratch.path, 'cut');
    mkdirSync(cut);
    writeFileSync(join(cut, 'web01.vmdk'), 'half');
    writeFileSync(join(cut, 'web01-000001.vmdk.part'), 'half');
    await writeDemo(cut);
    const engine = createEngine({ synchronous: true, configFolder: null });
    const report = await engine.api.report({ source: cut });
    await engine.close();
    expect(report.vms[0]!.points.every((point) => point.disks.every((disk) => disk.error === undefined))).toBe(true);
  });
});

import { copyFileSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { writeDemo } from '../../../main/engine/demo/demo.ts';
import { createEngine, type Engine } from '../../../main/engine/service/engine.ts';
import type { TaskSnapshot } from '../../../preload/api.ts';
import { scratchFolder } from '../../support/scratch.ts';

const scratch = scratchFolder('scan');
let demo = '';
beforeAll(async () => {
  demo = join(scratch.path, 'demo');
  await writeDemo(demo);
});

async function withEngine(body: (engine: Engine) => Promise<void>): Promise<void> {
  const engine = createEngine({ configFolder: null });
  try {
    await body(engine);
  } finally {
    await engine.close();
  }
}

async function end({ api }: Engine, { id }: TaskSnapshot): Promise<TaskSnapshot> {
  let last: TaskSnapshot | undefined;
  for await (const snapshot of api.watchTask({ id })) last = snapshot;
  return last!;
}

describe('reading a repository', () => {
  it('is a task that counts its images, and leaves its report', async () => {
    await withEngine(async (engine) => {
      const task = await end(engine, await engine.api.scan({ source: demo }));
      expect(task).toMatchObject({
        kind: 'scan',
        title: 'Read demo',
        state: 'done',
        progress: { itemsDone: 4 },
        result: { kind: 'scan', vms: 1, points: 4 },
      });
      const report = await engine.api.report({ source: demo });
      expect(report.vms.map((vm) => vm.name)).toEqual(['web01']);
    });
  });

  it('can be cancelled, and what was known before stays', async () => {
    const many = join(scratch.path, 'many');
    mkdirSync(many);
    for (let i = 0; i < 300; i++) copyFileSync(join(demo, 'web01.vmdk'), join(many, `copy-${i}.vmdk`));
    await withEngine(async (engine) => {
      const started = await engine.api.scan({ source: many });
      for await (const { progress, state } of engine.api.watchTask({ id: started.id })) {
        if (state === 'running' && progress.itemsDone > 0) await engine.api.cancelTask({ id: started.id });
        if (state !== 'running') {
          expect(state).toBe('cancelled');
          expect(progress.itemsDone).toBeLessThan(300);
        }
      }
      // Asked anew, it is read to its end.
      expect((await engine.api.report({ source: many })).vms).toHaveLength(300);
    });
  });

  it('fails with its reason, and keeps the last report', async () => {
    await withEngine(async (engine) => {
      const moved = join(scratch.path, 'moved');
      await writeDemo(moved);
      await end(engine, await engine.api.scan({ source: moved }));
      renameSync(moved, `${moved}-away`);
      const task = await end(engine, await engine.api.scan({ source: moved }));
      expect(task).toMatchObject({ state: 'failed', error: { kind: expect.stringMatching(/^(io|not-found)$/) } });
      expect((await engine.api.report({ source: moved })).vms).toHaveLength(1);
    });
  });

  it('sees what has changed since', async () => {
    await withEngine(async (engine) => {
      const folder = join(scratch.path, 'changing');
      await writeDemo(folder);
      const broken = async (): Promise<number> => {
        await end(engine, await engine.api.scan({ source: folder }));
        const { vms } = await engine.api.report({ source: folder });
        return vms[0]!.points.filter((point) => point.disks.some((disk) => disk.error !== undefined)).length;
      };
      expect(await broken()).toBe(0);
      renameSync(join(folder, 'web01-000001.vmdk'), join(scratch.path, 'away.vmdk'));
      expect(await broken()).toBe(3);
      renameSync(join(scratch.path, 'away.vmdk'), join(folder, 'web01-000001.vmdk'));
      expect(await broken()).toBe(0);
    });
  });
});

describe('verifying a repository', () => {
  it('says of which point each finding is, and checks a chain that is part of another once', async () => {
    const folder = join(scratch.path, 'verified');
    await writeDemo(folder);
    await withEngine(async (engine) => {
      const whole = await end(engine, await engine.api.verify({ target: { source: folder } }));
      // Four points, two tips: try-php83 and the present state stand on all the others.
      expect(whole.result).toEqual({ kind: 'verify', source: folder, findings: [], disksChecked: 2 });
      renameSync(join(folder, 'web01-000001.vmdk'), join(scratch.path, 'verified-away.vmdk'));
      const broken = await end(engine, await engine.api.verify({ target: { source: folder } }));
      const findings = broken.result?.kind === 'verify' ? broken.result.findings : [];
      const points = findings.filter(({ code }) => code === 'point-broken').map(({ source }) => source);
      expect(points).toEqual(['web01 at before-upgrade', 'web01 at try-php83', 'web01 at Current state']);
    });
  });
});

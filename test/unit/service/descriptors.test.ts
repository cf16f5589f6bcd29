/** A long-running engine reads archives again and again: what it opened for an earlier catalog has to be closed. */
import { mkdirSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { createEngine } from '../../../main/engine/service/engine.ts';
import type { ChainliftApi, Target, TaskSnapshot } from '../../../preload/api.ts';
import { buildOva } from '../../support/ova-builder.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { buildXva } from '../../support/xva-builder.ts';

const scratch = scratchFolder('descriptors');
let root = '';

/** Descriptors of files below the repository. */
function open(): string[] {
  return readdirSync('/proc/self/fd')
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return ''; // The listing's own descriptor, gone by now.
      }
    })
    .filter((path) => path.startsWith(root));
}

async function finished(api: ChainliftApi, started: TaskSnapshot): Promise<TaskSnapshot> {
  let last = started;
  for await (const snapshot of api.watchTask({ id: started.id })) last = snapshot;
  expect(last.error).toBeUndefined();
  return last;
}

beforeAll(() => {
  root = join(scratch.path, 'repository');
  mkdirSync(root);
  const bytes = Buffer.alloc(3 << 20, 'a disk of a guest ');
  const disk = { name: 'disk.raw', bytes, capacity: bytes.length };
  writeFileSync(join(root, 'one.ova'), buildOva('one', [disk]));
  writeFileSync(join(root, 'two.ova.gz'), gzipSync(buildOva('two', [disk])));
  writeFileSync(join(root, 'three.xva'), buildXva([{ id: 'Ref:1', content: bytes }]));
  writeFileSync(join(root, 'four.raw'), bytes);
});

describe.skipIf(process.platform !== 'linux')('the descriptors of an engine', () => {
  it.each([true, false])('stay as many through a hundred scans, synchronous: %s', async (synchronous) => {
    const engine = createEngine({ synchronous, configFolder: null });
    const { api } = engine;
    const sources: Target[] = [
      { source: root, vm: 'one' },
      { source: root, vm: 'two' },
      { source: root, vm: 'four' },
      { source: join(root, 'one.ova') },
      { source: join(root, 'one.ova', 'disk.raw') },
      { source: join(root, 'three.xva', 'Ref:1') },
      { source: join(root, 'four.raw') },
    ];
    const use = async (target: Target): Promise<void> => {
      expect((await api.info({ target })).size).toBe(3 << 20);
      expect((await api.volumes({ target })).volumes).toHaveLength(1);
    };
    const round = async (): Promise<number> => {
      for (const { source } of [{ source: root }, ...sources.slice(3)]) await finished(api, await api.scan({ source }));
      await finished(api, await api.verify({ target: { source: root } }));
      for (const target of sources) await use(target);
      return open().length;
    };
    await round();
    const early = await round();
    for (let times = 0; times < 100; times++) await finished(api, await api.scan({ source: root }));
    expect(await round()).toBe(early);
    await engine.close();
    expect(open()).toEqual([]);
  });

  it('leave a catalog that was replaced with its last reader', async () => {
    const engine = createEngine({ configFolder: null });
    const { api } = engine;
    await finished(api, await api.scan({ source: root }));
    const target = { source: root, vm: 'one' };
    const map = api.map({ target })[Symbol.asyncIterator]();
    expect((await map.next()).done).toBe(false);
    await finished(api, await api.scan({ source: root }));
    expect(open().filter((path) => path.endsWith('one.ova'))).toHaveLength(2);
    // It still reads what it opened.
    for (let step = await map.next(); step.done !== true; step = await map.next());
    await expect.poll(() => open().filter((path) => path.endsWith('one.ova')).length).toBe(1);
    await engine.close();
    expect(open()).toEqual([]);
  });

  it('are closed where a scan is cancelled or fails', async () => {
    const engine = createEngine({ configFolder: null });
    const { api } = engine;
    const cancelled = await api.scan({ source: root });
    await api.cancelTask({ id: cancelled.id });
    for await (const snapshot of api.watchTask({ id: cancelled.id })) expect(snapshot.id).toBe(cancelled.id);
    expect(open()).toEqual([]);
    await expect(api.info({ target: { source: join(root, 'one.ova', 'nothing.vmdk') } })).rejects.toMatchObject({
      kind: 'not-found',
      details: { choices: ['disk.raw', 'one.mf', 'one.ovf'] },
    });
    await engine.close();
    expect(open()).toEqual([]);
  });
});

import { copyFileSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { createEngine, type Engine } from '../../../main/engine/service/engine.ts';
import type { Target } from '../../../preload/api.ts';
import { buildQcow2 } from '../../support/qcow2-builder.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { contentId, writeDiskChain } from '../../support/vmware-folder.ts';

const scratch = scratchFolder('located');
let root = '';
let elsewhere = '';
let config = '';
let count = 0;
beforeEach(() => {
  const place = join(scratch.path, String(count++));
  [root, elsewhere, config] = ['repository', 'elsewhere', 'config'].map((name) => {
    mkdirSync(join(place, name), { recursive: true });
    return join(place, name);
  }) as [string, string, string];
  writeDiskChain(root, 'd', 2);
});

async function using<T>(body: (engine: Engine) => Promise<T>, configFolder: string | null = config): Promise<T> {
  const engine = createEngine({ configFolder });
  try {
    return await body(engine);
  } finally {
    await engine.close();
  }
}

/** Moves the base and its extent out of the repository. */
function moveBase(): string {
  for (const name of ['d.vmdk', 'd-flat.vmdk']) renameSync(join(root, name), join(elsewhere, name));
  return join(elsewhere, 'd.vmdk');
}

const leaf = { source: '', vm: 'd', point: 'd-000002.vmdk' };
const target = () => ({ ...leaf, source: root });

/** Of the leaf, opened by itself. */
const hashLeaf = (engine: Engine): Promise<string> => hashOf(engine, { source: join(root, 'd-000002.vmdk') });

async function hashOf(engine: Engine, wanted: Target = target()): Promise<string> {
  const started = await engine.api.hash({ target: wanted });
  for await (const task of engine.api.watchTask({ id: started.id })) {
    if (task.state === 'failed') throw new Error(task.error?.message);
    if (task.result?.kind === 'hash') return task.result.sha256;
  }
  throw new Error('no hash');
}

describe('a parent that was moved', () => {
  it('is asked for by a finding, checked, used and remembered, and forgotten again', async () => {
    const before = await using((engine) => hashOf(engine));
    const moved = moveBase();
    await leavesUntouched(root, () =>
      leavesUntouched(elsewhere, async () => {
        await using(async ({ api }) => {
          const report = await api.report({ source: root });
          const finding = report.vms[0]!.points[0]!.findings.find(({ code }) => code === 'missing-parent');
          expect(finding?.action).toEqual({
            kind: 'locate-parent',
            child: 'd-000001.vmdk',
            recorded: 'd.vmdk',
            expectedId: contentId(0),
          });
          const { child } = finding!.action!;
          expect(await api.locateParent({ source: root, child, parent: moved })).toEqual({
            child: 'd-000001.vmdk',
            parent: moved,
            proved: true,
            findings: [],
          });
          const again = await api.report({ source: root });
          expect(again.vms[0]!.points.map(({ disks }) => disks[0]!.error)).toEqual([undefined, undefined]);
        });
        // Another start, another day.
        expect(await using((engine) => hashOf(engine))).toBe(before);
        expect(statSync(join(config, 'located.json')).mode & 0o777).toBe(0o600);
        await using(async (engine) => {
          await engine.api.forgetParent({ source: root, child: 'd-000001.vmdk' });
          await expect(hashOf(engine)).rejects.toThrow('missing');
        });
        await expect(using((engine) => hashOf(engine))).rejects.toThrow('missing');
      }),
    );
  });

  it('is served over NBD through what the user said', async () => {
    const moved = moveBase();
    await using(async ({ api }) => {
      await api.locateParent({ source: root, child: 'd-000001.vmdk', parent: moved });
      const served = await api.startExport({ target: target() });
      expect(served.size).toBe(128 * 512);
      await api.stopExport({ id: served.id });
    });
  });

  it('is refused when it is another disk, with both identities', async () => {
    const moved = moveBase();
    writeFileSync(moved, readFileSync(moved, 'utf8').replace(`CID=${contentId(0)}`, 'CID=0badcafe'));
    await using(async ({ api }) => {
      await expect(api.locateParent({ source: root, child: 'd-000001.vmdk', parent: moved })).rejects.toMatchObject({
        kind: 'missing-parent',
        details: { expectedId: contentId(0), foundId: '0badcafe' },
      });
      const report = await api.report({ source: root });
      expect(report.vms[0]!.points[0]!.disks[0]!.error?.kind).toBe('missing-parent');
    });
  });

  it('is offered where the repository has it under another name', async () => {
    for (const name of ['d.vmdk', 'd-flat.vmdk']) {
      mkdirSync(join(root, 'old'), { recursive: true });
      renameSync(join(root, name), join(root, 'old', name));
    }
    renameSync(join(root, 'old', 'd.vmdk'), join(root, 'old', 'renamed.vmdk'));
    await using(async ({ api }) => {
      const report = await api.report({ source: root });
      const findings = report.vms.flatMap((vm) => vm.points.flatMap((point) => point.findings));
      const finding = findings.find(({ code }) => code === 'missing-parent')!;
      expect(finding.action?.candidates).toEqual(['old/renamed.vmdk']);
      expect(finding.remedy).toContain('old/renamed.vmdk has the identity');
      await api.locateParent({
        source: root,
        child: finding.action!.child,
        parent: join(root, finding.action!.candidates![0]!),
      });
      const fixed = await api.report({ source: root });
      expect(fixed.vms.flatMap((vm) => vm.points).filter(({ disks }) => disks[0]!.error !== undefined)).toEqual([]);
    });
  });

  it.each([
    ['a base, which has none', 'd.vmdk', (moved: string) => moved, 'usage'],
    ['an image that is not there', 'gone.vmdk', (moved: string) => moved, 'io'],
    ['a parent that is not there', 'd-000001.vmdk', (moved: string) => `${moved}.gone`, 'io'],
    ['an image that leads out of the repository', '../elsewhere/d.vmdk', (moved: string) => moved, 'denied'],
  ])('is refused for %s', async (_, child, parent, kind) => {
    for (const name of ['d.vmdk', 'd-flat.vmdk']) copyFileSync(join(root, name), join(elsewhere, name));
    await using(async ({ api }) => {
      await expect(
        api.locateParent({ source: root, child, parent: parent(join(elsewhere, 'd.vmdk')) }),
      ).rejects.toMatchObject({ kind });
    });
  });

  it('lives as long as the engine where nothing is remembered, and survives a cut-off list', async () => {
    const moved = moveBase();
    await using(async ({ api }) => {
      await api.locateParent({ source: root, child: 'd-000001.vmdk', parent: moved });
      expect((await api.report({ source: root })).vms[0]!.points[0]!.disks[0]!.error).toBeUndefined();
    }, null);
    writeFileSync(join(config, 'located.json'), '{"/a": {"b":');
    await using(async ({ api }) => {
      expect((await api.report({ source: root })).vms[0]!.points[0]!.disks[0]!.error).toBeDefined();
    });
    writeFileSync(join(config, 'located.json'), JSON.stringify({ [root]: { 'd-000001.vmdk': 5 }, x: null }));
    await using(async ({ api }) => {
      expect((await api.report({ source: root })).name).toBe(basename(root));
    });
  });
});

describe('a parent that was moved alone', () => {
  it('has its own parent where it was before', async () => {
    const before = await using(hashLeaf);
    const moved = join(elsewhere, 'renamed.vmdk');
    renameSync(join(root, 'd-000001.vmdk'), moved);
    renameSync(join(root, 'd-000001-delta.vmdk'), join(elsewhere, 'd-000001-delta.vmdk'));
    await using(async (engine) => {
      await engine.api.locateParent({ source: root, child: 'd-000002.vmdk', parent: moved });
      expect(await hashLeaf(engine)).toBe(before);
    });
  });

  it('whose own parent was moved elsewhere again is asked for it', async () => {
    const before = await using(hashLeaf);
    const base = moveBase();
    const third = join(elsewhere, '..', 'third');
    mkdirSync(third);
    const moved = join(third, 'renamed.vmdk');
    renameSync(join(root, 'd-000001.vmdk'), moved);
    renameSync(join(root, 'd-000001-delta.vmdk'), join(third, 'd-000001-delta.vmdk'));
    await using(async (engine) => {
      await engine.api.locateParent({ source: root, child: 'd-000002.vmdk', parent: moved });
      const report = await engine.api.report({ source: root });
      const findings = report.vms.flatMap((vm) => vm.points.flatMap((point) => point.findings));
      const { action } = findings.find(({ code }) => code === 'missing-parent')!;
      expect(action).toMatchObject({ child: 'renamed.vmdk', recorded: 'd.vmdk' });
      await engine.api.locateParent({ source: root, child: action!.child, parent: base });
      expect(await hashLeaf(engine)).toBe(before);
    });
    expect(await using(hashLeaf)).toBe(before);
  });
});

it('is the parent of an image and of every snapshot inside it, whichever was asked about', async () => {
  const cluster = (byte: number): Buffer => Buffer.alloc(1 << 16, byte);
  const state = { size: 1 << 20, clusters: new Map([[1, cluster(2)]]) };
  const snapshots = [{ id: '1', name: 'first', ...state }];
  const over = { ...state, snapshots, backing: { name: 'base.qcow2', format: 'qcow2' } };
  const base = join(elsewhere, 'moved.qcow2');
  writeFileSync(base, buildQcow2({ size: 1 << 20, clusters: new Map([[0, cluster(1)]]) }).bytes);
  const image = join(root, 'over.qcow2');
  writeFileSync(image, buildQcow2(over).bytes);
  await using(async (engine) => {
    const { api } = engine;
    const inside = { source: root, vm: 'over', point: '1' };
    await expect(api.info({ target: inside })).rejects.toMatchObject({ kind: 'missing-parent' });
    await api.locateParent({ source: root, child: 'over.qcow2/@1', parent: base });
    for (const point of ['1', 'over.qcow2']) {
      expect((await api.info({ target: { ...inside, point } })).layers).toHaveLength(2);
    }
    expect((await api.info({ target: { source: image, point: 'first' } })).layers).toHaveLength(2);
    await api.forgetParent({ source: root, child: 'over.qcow2/@1' });
    await expect(api.info({ target: inside })).rejects.toMatchObject({ kind: 'missing-parent' });
  });
});

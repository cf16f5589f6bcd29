import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Catalog, RestorePoint } from '../../../main/engine/catalog/model.ts';
import { CancelledError } from '../../../main/engine/errors.ts';
import { assessConsistency } from '../../../main/engine/service/consistency.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { golden } from '../ext/golden.ts';

const scratch = scratchFolder('consistency');
let root = '';
let count = 0;
beforeEach(() => {
  root = join(scratch.path, String(count++));
  mkdirSync(root);
});

const SUPERBLOCK = 1024;
/** An ext3 as it is on the disk of a machine that was running: "needs recovery" among the incompatible features. */
function inUse(): Uint8Array {
  const bytes = golden('ext3-4k');
  bytes[SUPERBLOCK + 0x60] = bytes[SUPERBLOCK + 0x60]! | 4;
  return bytes;
}
function swap(): Uint8Array {
  const bytes = new Uint8Array(65_536);
  bytes.set(Buffer.from('SWAPSPACE2', 'latin1'), 4096 - 10);
  return bytes;
}
function named(magic: string): Uint8Array {
  const bytes = new Uint8Array(1 << 20);
  bytes.set(Buffer.from(magic, 'latin1'), 0);
  return bytes;
}

/** A catalog of one point with these disks. */
function catalogOf(disks: readonly Uint8Array[], about: Partial<RestorePoint> = {}): Catalog {
  const paths = disks.map((bytes, index) => {
    const path = join(root, `d${index}.raw`);
    writeFileSync(path, bytes);
    return path;
  });
  const point: RestorePoint = {
    id: 'p',
    name: 'before',
    current: false,
    currentParent: false,
    memory: false,
    quiesced: false,
    consistency: { level: 'unknown', evidence: [] },
    disks: paths.map((path, index) => ({ index, file: `d${index}.raw`, path, chain: [`d${index}.raw`] })),
    findings: [],
    ...about,
  };
  const vm = { name: 'vm', origin: 'images' as const, folder: '.', points: [point], findings: [] };
  const folder = new Confinement(root);
  return { source: root, kind: 'folder', name: 'r', folder, vms: [vm], orphans: [], findings: [] };
}

async function assessed(catalog: Catalog, synchronous = true): Promise<RestorePoint> {
  return (await assessConsistency(catalog, { synchronous })).vms[0]!.points[0]!;
}

describe('the consistency of a point, from its disks', () => {
  it.each([true, false])(
    'clean volumes: file-system-consistent, with what was seen (synchronous: %s)',
    async (sync) => {
      const point = await assessed(catalogOf([golden('ext4-1k'), golden('ext2-1k')]), sync);
      expect(point.consistency.level).toBe('file-system');
      expect(point.consistency.evidence).toHaveLength(2);
      expect(point.consistency.evidence[0]).toMatch(/^sda: ext4 is clean/);
      expect(point.consistency.evidence[1]).toMatch(/^sdb: ext2 is clean/);
      expect(point.findings).toEqual([]);
    },
  );

  it('a journal to replay: crash-consistent, whatever the other disks say', async () => {
    const point = await assessed(catalogOf([golden('ext4-1k'), inUse()]));
    expect(point.consistency.level).toBe('crash');
    expect(point.consistency.evidence[1]).toMatch(/^sdb: ext3 was in use, its journal is to be replayed/);
  });

  it('a file system that is not read: nothing is proved, and what it is is said', async () => {
    const point = await assessed(catalogOf([golden('ext4-1k'), named('XFSB')]));
    expect(point.consistency.level).toBe('unknown');
    expect(point.consistency.evidence[1]).toBe('sdb: XFS is not looked into');
  });

  it('swap and empty disks say nothing', async () => {
    const point = await assessed(catalogOf([golden('ext4-1k'), swap(), new Uint8Array(1 << 20)]));
    expect(point.consistency).toMatchObject({ level: 'file-system' });
    expect(point.consistency.evidence).toHaveLength(1);
    const only = { consistency: { level: 'unknown' as const, evidence: ['the VM was halted'] } };
    expect((await assessed(catalogOf([swap()], only))).consistency).toEqual(only.consistency);
  });

  it('a snapshot that is said to be quiesced, and was not', async () => {
    const about = {
      quiesced: true,
      consistency: { level: 'file-system' as const, evidence: ['the .vmsd says so'] },
    };
    const good = await assessed(catalogOf([golden('ext4-1k')], about));
    expect(good.consistency.evidence[0]).toBe('the .vmsd says so');
    expect(good.findings).toEqual([]);
    const bad = await assessed(catalogOf([inUse()], about));
    expect(bad.consistency.level).toBe('crash');
    expect(bad.findings).toMatchObject([{ severity: 'suspicious', code: 'quiesced-but-in-use', structure: 'sda' }]);
  });

  it('leaves alone what says more, and what cannot be opened', async () => {
    const memory = { level: 'memory' as const, evidence: ['a .vmem'] };
    expect((await assessed(catalogOf([inUse()], { memory: true, consistency: memory }))).consistency).toEqual(memory);
    const catalog = catalogOf([inUse()]);
    const [vm] = catalog.vms;
    const broken = {
      ...vm!.points[0]!,
      disks: [{ index: 0, file: 'gone', chain: [], error: { kind: 'io', message: 'gone', details: {} } as const }],
    };
    const after = await assessed({ ...catalog, vms: [{ ...vm!, points: [broken] }] });
    expect(after.consistency.level).toBe('unknown');
  });

  it('ends when it is cancelled', async () => {
    const signal = AbortSignal.abort();
    await expect(assessConsistency(catalogOf([inUse()]), { synchronous: true, signal })).rejects.toThrow(
      CancelledError,
    );
  });
});

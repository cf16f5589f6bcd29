import { mkdirSync, readdirSync, readlinkSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { followChain, MAX_DEPTH, openChain } from '../../../main/engine/chain/open.ts';
import { type ChainliftError, CorruptError, DeniedError, MissingParentError } from '../../../main/engine/errors.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { descriptorText, type Grain, pattern, SECTOR, writeSparseDisk } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('open-chain');
let root = '';
let folder: Confinement;
let round = 0;

beforeEach(() => {
  root = join(scratch.path, `repository-${round++}`);
  mkdirSync(root);
  folder = new Confinement(root);
});

const GRAIN = 16;
const SECTORS = 160;
const id = (number: number): string => (0x10000000 + number).toString(16);

interface Link {
  cid?: string;
  parentCid?: string;
  parent?: string;
  grains?: ReadonlyMap<number, Grain>;
  folder?: string;
}

/** A sparse VMDK `NAME.vmdk` as one link of a chain. */
function link(name: string, options: Link = {}): void {
  writeSparseDisk(
    options.folder ?? root,
    name,
    { capacitySectors: SECTORS, grainSectors: GRAIN, grains: options.grains ?? new Map() },
    {
      cid: options.cid ?? id(0),
      ...(options.parent === undefined
        ? {}
        : { parentFileNameHint: options.parent, parentCid: options.parentCid ?? id(0) }),
    },
  );
}

const grain = (number: number, seed: number): [number, Grain] => [
  number,
  pattern(number * GRAIN * SECTOR, GRAIN * SECTOR, seed),
];

/** Files of the repository that this process has open. */
function openFiles(): string[] {
  const open: string[] = [];
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      if (path.startsWith(`${scratch.path}/`)) open.push(path);
    } catch {
      // The listing's own descriptor, gone by now.
    }
  }
  return open;
}

async function failureOf(name: string): Promise<ChainliftError> {
  const failure = await leavesUntouched(scratch.path, () =>
    openChain(join(root, `${name}.vmdk`), folder).then(
      () => undefined,
      (error: unknown) => error,
    ),
  );
  expect(failure).toBeInstanceOf(Error);
  expect(openFiles()).toEqual([]);
  return failure as ChainliftError;
}

describe('openChain', () => {
  it('reads a chain of real images, each link hiding what is below it', async () => {
    link('base', { cid: id(1), grains: new Map([grain(0, 1), grain(1, 1), grain(2, 1)]) });
    link('middle', { cid: id(2), parent: 'base.vmdk', parentCid: id(1), grains: new Map([grain(1, 2), grain(5, 2)]) });
    link('leaf', { cid: id(3), parent: 'middle.vmdk', parentCid: id(2), grains: new Map([grain(2, 3), grain(9, 3)]) });
    const expected = Buffer.alloc(SECTORS * SECTOR);
    for (const [at, seed] of [
      [0, 1],
      [1, 2],
      [2, 3],
      [5, 2],
      [9, 3],
    ] as const) {
      pattern(at * GRAIN * SECTOR, GRAIN * SECTOR, seed).copy(expected, at * GRAIN * SECTOR);
    }
    await leavesUntouched(root, async () => {
      for (const synchronous of [true, false]) {
        const disk = await openChain(join(root, 'leaf.vmdk'), new Confinement(root, { synchronous }), { synchronous });
        expect(disk.layers.map((layer) => layer.name)).toEqual(['leaf.vmdk', 'middle.vmdk', 'base.vmdk']);
        expect(Buffer.compare(await disk.read(0, disk.size), expected)).toBe(0);
        await disk.close();
        expect(openFiles()).toEqual([]);
      }
    });
  });

  it('says which parent is missing, and closes what it opened', async () => {
    link('middle', { cid: id(2), parent: 'gone away.vmdk', parentCid: id(7) });
    link('leaf', { cid: id(3), parent: 'middle.vmdk', parentCid: id(2) });
    const failure = await failureOf('leaf');
    expect(failure).toBeInstanceOf(MissingParentError);
    expect(failure.details).toMatchObject({ child: 'middle.vmdk', recorded: 'gone away.vmdk', expectedId: id(7) });
    expect(failure.details.candidate).toBeUndefined();
  });

  it('refuses a parent with another identity, and names both', async () => {
    link('base', { cid: id(99) });
    link('leaf', { cid: id(2), parent: 'base.vmdk', parentCid: id(1) });
    const failure = await failureOf('leaf');
    expect(failure).toBeInstanceOf(MissingParentError);
    expect(failure.details).toMatchObject({
      child: 'leaf.vmdk',
      recorded: 'base.vmdk',
      expectedId: id(1),
      foundId: id(99),
      candidate: 'base.vmdk',
    });
  });

  it('refuses a ring of parents', async () => {
    link('a', { cid: id(1), parent: 'b.vmdk', parentCid: id(2) });
    link('b', { cid: id(2), parent: 'c.vmdk', parentCid: id(3) });
    link('c', { cid: id(3), parent: 'a.vmdk', parentCid: id(1) });
    link('self', { cid: id(4), parent: 'self.vmdk', parentCid: id(4) });
    for (const name of ['a', 'self']) {
      const failure = await failureOf(name);
      expect(failure).toBeInstanceOf(CorruptError);
      expect(failure.message).toContain('loop');
    }
  });

  it('sees through a ring that is closed by a symbolic link', async () => {
    link('a', { cid: id(1), parent: 'alias.vmdk', parentCid: id(1) });
    symlinkSync('a.vmdk', join(root, 'alias.vmdk'));
    expect(await failureOf('a')).toBeInstanceOf(CorruptError);
  });

  it('never leaves the folder: by .., by a link, by an absolute name', async () => {
    const outside = join(scratch.path, `outside-${round}`);
    mkdirSync(outside);
    link('base', { cid: id(1), folder: outside });
    link('dots', { cid: id(2), parent: `../outside-${round}/base.vmdk`, parentCid: id(1) });
    symlinkSync(join(outside, 'base.vmdk'), join(root, 'linked.vmdk'));
    link('through-link', { cid: id(3), parent: 'linked.vmdk', parentCid: id(1) });
    for (const name of ['dots', 'through-link']) {
      const failure = await failureOf(name);
      expect(failure).toBeInstanceOf(DeniedError);
      expect(failure.details).toMatchObject({ child: `${name}.vmdk` });
    }
    link('absolute', { cid: id(4), parent: join(outside, 'base.vmdk'), parentCid: id(1) });
    expect(await failureOf('absolute')).toBeInstanceOf(MissingParentError);
    // The leaf itself may not be outside either.
    await expect(openChain(join(outside, 'base.vmdk'), folder)).rejects.toThrow(DeniedError);
  });

  it('finds a parent that was recorded where the backup came from', async () => {
    link('base', { cid: id(1) });
    link('leaf', { cid: id(2), parent: '/vmfs/volumes/5f3c/web01/base.vmdk', parentCid: id(1) });
    const disk = await openChain(join(root, 'leaf.vmdk'), folder);
    expect(disk.layers).toHaveLength(2);
    await disk.close();
  });

  it('reports a damaged parent with the layers above it', async () => {
    writeFileSync(join(root, 'base.vmdk'), `KDMV${'\xff'.repeat(600)}`, 'latin1');
    link('leaf', { cid: id(2), parent: 'base.vmdk', parentCid: id(1) });
    expect((await failureOf('leaf')).kind).toMatch(/corrupt|unsupported/);
    const report = await followChain(join(root, 'leaf.vmdk'), folder);
    expect(report.layers.map((layer) => layer.name)).toEqual(['leaf.vmdk']);
    expect(report.error).toBeDefined();
    expect(openFiles().every((path) => path.endsWith('/leaf.vmdk'))).toBe(true);
    await Promise.all(report.layers.map((layer) => layer.close()));
    expect(openFiles()).toEqual([]);
  });

  it('a report of a wrong parent does not hold it', async () => {
    link('base', { cid: id(99) });
    link('leaf', { cid: id(2), parent: 'base.vmdk', parentCid: id(1) });
    const report = await followChain(join(root, 'leaf.vmdk'), folder);
    expect(report.layers.map((layer) => layer.name)).toEqual(['leaf.vmdk']);
    expect(openFiles().some((path) => path.endsWith('base.vmdk'))).toBe(false);
    await Promise.all(report.layers.map((layer) => layer.close()));
  });

  it(`follows ${MAX_DEPTH} links, and refuses one more`, { timeout: 120_000 }, async () => {
    writeFileSync(join(root, 'flat.bin'), Buffer.alloc(SECTOR, 0x5a));
    const extents = ['RW 1 FLAT "flat.bin" 0'];
    writeFileSync(join(root, '0.vmdk'), descriptorText({ createType: 'monolithicFlat', cid: id(0), extents }));
    for (let n = 1; n <= MAX_DEPTH; n++) {
      writeSparseDisk(
        root,
        String(n),
        { capacitySectors: 1, grainSectors: 8, entriesPerTable: 512, grains: new Map(), redundant: false },
        { cid: id(n), parentCid: id(n - 1), parentFileNameHint: `${n - 1}.vmdk` },
      );
    }
    const disk = await openChain(join(root, `${MAX_DEPTH - 1}.vmdk`), folder);
    expect(disk.layers).toHaveLength(MAX_DEPTH);
    expect((await disk.read(0, 1))[0]).toBe(0x5a);
    await disk.close();
    const failure = await failureOf(String(MAX_DEPTH));
    expect(failure).toBeInstanceOf(CorruptError);
    expect(failure.message).toContain(String(MAX_DEPTH));
  });

  it('closes a chain while reads are in flight without mixing files up', async () => {
    link('base', { cid: id(1), grains: new Map([grain(0, 1), grain(3, 1)]) });
    link('leaf', { cid: id(2), parent: 'base.vmdk', parentCid: id(1), grains: new Map([grain(1, 2)]) });
    const disk = await openChain(join(root, 'leaf.vmdk'), folder);
    const whole = await disk.read(0, disk.size);
    const reads = Array.from({ length: 20 }, () => disk.read(0, disk.size));
    // The reads have asked for their map, and hold no file yet: they end whole or with an error, never with other bytes.
    const closing = disk.close();
    for (const result of await Promise.allSettled(reads)) {
      if (result.status === 'fulfilled') expect(Buffer.compare(result.value, whole)).toBe(0);
      else expect(result.reason).toMatchObject({ kind: 'io' });
    }
    await closing;
    expect(openFiles()).toEqual([]);
    renameSync(join(root, 'base.vmdk'), join(root, 'moved.vmdk'));
    expect(await failureOf('leaf')).toBeInstanceOf(MissingParentError);
  });
});

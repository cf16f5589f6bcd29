import { mkdirSync, readFileSync, truncateSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { type VerifyProgress, verifyChain } from '../../../main/engine/chain/verify.ts';
import { CancelledError } from '../../../main/engine/errors.ts';
import type { Finding } from '../../../main/engine/image/image.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { buildVhd, MADE, sectorRange, windowsLocator } from '../../support/vhd-builder.ts';
import { pattern, SECTOR, writeSparseDisk } from '../../support/vmdk-builder.ts';
import { contentId, DISK_SECTORS, writeDelta, writeDiskChain } from '../../support/vmware-folder.ts';

const scratch = scratchFolder('verify');
let root = '';
let count = 0;
beforeEach(() => {
  root = join(scratch.path, String(count++));
  mkdirSync(root);
});

const verify = (leaf: string, options = {}): Promise<Finding[]> =>
  leavesUntouched(root, async () => {
    const findings: Finding[] = [];
    for await (const finding of verifyChain(join(root, leaf), new Confinement(root, { synchronous: true }), options)) {
      findings.push(finding);
    }
    return findings;
  });
const codes = (findings: readonly Finding[]) => findings.map((finding) => finding.code);

describe('verifyChain', () => {
  it('finds nothing in a sound chain, and tells of every layer as it goes', async () => {
    writeDiskChain(root, 'd', 3);
    const seen: VerifyProgress[] = [];
    expect(await verify('d-000003.vmdk', { onProgress: (progress: VerifyProgress) => seen.push(progress) })).toEqual(
      [],
    );
    expect(seen.map((progress) => progress.current)).toEqual([
      'd.vmdk',
      'd-000001.vmdk',
      'd-000002.vmdk',
      'd-000003.vmdk',
      undefined,
    ]);
    expect(seen.at(-1)).toEqual({ itemsDone: 4, itemsTotal: 4 });
  });

  it('a parent that is gone: the recorded name, and what to do', async () => {
    writeDiskChain(root, 'd', 3);
    unlinkSync(join(root, 'd-000001.vmdk'));
    const [finding, ...more] = await verify('d-000003.vmdk');
    expect(more).toEqual([]);
    expect(finding).toMatchObject({
      severity: 'damaged',
      code: 'missing-parent',
      source: 'd-000002.vmdk',
      structure: 'parent link',
      expected: contentId(1),
      found: 'no such file',
    });
    expect(finding?.remedy).toContain('Find the file that d-000002.vmdk records as "d-000001.vmdk"');
  });

  it('a parent that was changed: both ids', async () => {
    writeDiskChain(root, 'd', 1);
    const base = join(root, 'd.vmdk');
    writeFileSync(base, readFileSync(base, 'utf8').replace(`CID=${contentId(0)}`, 'CID=0badcafe'));
    const findings = await verify('d-000001.vmdk');
    expect(findings).toMatchObject([{ code: 'cid-mismatch', expected: contentId(0), found: '0badcafe' }]);
    expect(findings[0]?.remedy).toContain('The present d.vmdk can still be opened');
    expect(await verify('d.vmdk')).toEqual([]);
  });

  it('loops, and parents outside the folder', async () => {
    writeDelta(root, 'l1', { hint: 'l2.vmdk', cid: contentId(2) }, contentId(1));
    writeDelta(root, 'l2', { hint: 'l1.vmdk', cid: contentId(1) }, contentId(2));
    expect(codes(await verify('l1.vmdk'))).toContain('chain-shape');
    writeDelta(root, 'out', { hint: '../../etc/passwd', cid: contentId(2) }, contentId(3));
    const findings = await verify('out.vmdk');
    expect(findings).toMatchObject([{ code: 'outside-repository', found: '../../etc/passwd' }]);
  });

  it('disks of different sizes, and maps of changed blocks', async () => {
    writeDiskChain(root, 'd', 0);
    writeDelta(root, 'd-000001', { hint: 'd.vmdk', cid: contentId(0) }, contentId(1), { sectors: DISK_SECTORS * 2 });
    writeFileSync(join(root, 'd-000001-ctk.vmdk'), 'x');
    const findings = await verify('d-000001.vmdk');
    expect(findings).toMatchObject([
      { severity: 'suspicious', code: 'size-mismatch', expected: 65_536, found: 131_072 },
      { severity: 'note', code: 'change-tracking', source: 'd-000001.vmdk' },
    ]);
  });

  it('damage in a middle layer: that layer, and the last intact point below it', async () => {
    const grains = new Map([[1, pattern(65_536, 65_536, 3)]]);
    writeSparseDisk(root, 'd', { capacitySectors: 1024, grains }, { cid: contentId(0) });
    const middle = writeSparseDisk(
      root,
      'd-000001',
      { capacitySectors: 1024, grains },
      { cid: contentId(1), parentCid: contentId(0), parentFileNameHint: 'd.vmdk' },
    );
    writeSparseDisk(
      root,
      'd-000002',
      { capacitySectors: 1024, grains },
      { cid: contentId(2), parentCid: contentId(1), parentFileNameHint: 'd-000001.vmdk' },
    );
    expect(await verify('d-000002.vmdk')).toEqual([]);
    // The entry of grain 1 in both tables points far behind the end of the file.
    for (const table of [middle.at.tables[0]!, middle.at.redundantTables[0]!])
      middle.bytes.writeUInt32LE(0x7000_0000, table + 4);
    writeFileSync(join(root, 'd-000001.vmdk'), middle.bytes);
    const findings = await verify('d-000002.vmdk');
    const damaged = findings.filter((finding) => finding.severity === 'damaged');
    expect(damaged.length).toBeGreaterThan(0);
    expect(damaged.every((finding) => finding.source === 'd-000001.vmdk')).toBe(true);
    expect(damaged[0]?.remedy).toContain('The last intact point below is the one of d.vmdk');
  });

  it('a leaf that is torn is a finding, and no throw', async () => {
    writeDiskChain(root, 'd', 1);
    truncateSync(join(root, 'd-000001-delta.vmdk'), SECTOR);
    const findings = await verify('d-000001.vmdk');
    expect(findings[0]).toMatchObject({ severity: 'damaged' });
    expect(findings[0]?.remedy).toBeDefined();
    expect(codes(await verify('absent.vmdk'))).toEqual(['layer-unreadable']);
  });

  it('a file that two layers share', async () => {
    writeDiskChain(root, 'd', 2);
    const leaf = join(root, 'd-000002.vmdk');
    writeFileSync(leaf, readFileSync(leaf, 'utf8').replace('d-000002-delta.vmdk', 'd-000001-delta.vmdk'));
    expect(await verify('d-000002.vmdk')).toMatchObject([{ code: 'shared-extent', found: 'd-000001-delta.vmdk' }]);
  });

  it('notes a chain deeper than VMware can run, and can be cancelled', async () => {
    writeDiskChain(root, 'd', 33);
    expect(codes(await verify('d-000033.vmdk'))).toEqual(['deep-chain']);
    const controller = new AbortController();
    const running = verify('d-000033.vmdk', {
      signal: controller.signal,
      onProgress: (progress: VerifyProgress) => progress.itemsDone === 3 && controller.abort(),
    });
    await expect(running).rejects.toThrow(CancelledError);
  });
});

describe('a chain of VHDs', () => {
  const chain = (modified: number) => {
    const id = '01234567-89ab-cdef-0123-456789abcdef';
    const base = buildVhd({ size: 1 << 20, id, sectors: new Map(sectorRange(0, 8)) });
    writeFileSync(join(root, 'base.vhd'), base.bytes);
    utimesSync(join(root, 'base.vhd'), MADE, MADE);
    const parent = { id, name: 'base.vhd', modified, locators: [windowsLocator('W2ru', '.\\base.vhd')] };
    writeFileSync(join(root, 'leaf.vhd'), buildVhd({ size: 1 << 20, sectors: new Map(), parent }).bytes);
  };

  it('has nothing to say when the parent has the time that was recorded', async () => {
    chain(MADE);
    expect(await verify('leaf.vhd')).toEqual([]);
  });

  it('notes that the parent has another time, and that this proves nothing', async () => {
    chain(MADE - 3600);
    expect(await verify('leaf.vhd')).toMatchObject([
      {
        severity: 'note',
        code: 'parent-time-differs',
        expected: new Date((MADE - 3600) * 1000).toISOString(),
        found: new Date(MADE * 1000).toISOString(),
      },
    ]);
  });
});

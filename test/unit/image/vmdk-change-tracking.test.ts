import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openLayer } from '../../../main/engine/image/formats.ts';
import type { Finding } from '../../../main/engine/image/image.ts';
import { checkChangeTracking, readChangeTracking } from '../../../main/engine/image/vmdk/change-tracking.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { pattern, SECTOR, writeSparseDisk } from '../../support/vmdk-builder.ts';

const scratch = scratchFolder('vmdk-ctk');
let number = 0;

/** The first bytes as libvmdk's notes describe them, and a body of no known meaning. */
function tracking(version = 1): Buffer {
  const bytes = Buffer.alloc(4096);
  bytes.set([0xa2, 0x72, 0x19, 0xf6]);
  bytes.writeUInt32LE(version, 4);
  bytes.writeUInt32LE(0x200, 12);
  return bytes;
}

function disk(more: string[], files: Record<string, Buffer>): string {
  const folder = join(scratch.path, `case-${number++}`);
  mkdirSync(folder);
  const grains = new Map([[0, pattern(0, 16 * SECTOR)]]);
  writeSparseDisk(folder, 'web01', { capacitySectors: 160, grainSectors: 16, grains }, { version: 3, more });
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
  return folder;
}

async function check(folder: string): Promise<Finding[]> {
  const confinement = new Confinement(folder);
  const layer = await openLayer('web01.vmdk', confinement);
  const found: Finding[] = [];
  await leavesUntouched(folder, async () => {
    for await (const finding of checkChangeTracking(layer, confinement)) found.push(finding);
  });
  await layer.close();
  return found;
}
const named = 'changeTrackPath="web01-ctk.vmdk"';

describe('change tracking files', () => {
  it('are read as far as they are known', async () => {
    const folder = disk([named], { 'web01-ctk.vmdk': tracking() });
    expect(await readChangeTracking('web01-ctk.vmdk', new Confinement(folder))).toEqual({
      name: 'web01-ctk.vmdk',
      path: join(folder, 'web01-ctk.vmdk'),
      size: 4096,
      version: 1,
    });
  });

  it.each([
    ['another signature', Buffer.alloc(4096), 'Change tracking header signature'],
    ['too few bytes', tracking().subarray(0, 40), 'Change tracking header'],
    ['nothing', Buffer.alloc(0), 'Change tracking header'],
  ])('are refused with %s', async (_what, content, structure) => {
    const folder = disk([named], { 'web01-ctk.vmdk': content });
    await expect(readChangeTracking('web01-ctk.vmdk', new Confinement(folder))).rejects.toMatchObject({
      kind: 'corrupt',
      details: { structure, source: 'web01-ctk.vmdk' },
    });
    expect(await check(folder)).toMatchObject([
      { severity: 'suspicious', code: 'change-tracking-damaged', source: 'web01-ctk.vmdk', structure },
    ]);
  });

  it.each<[string, string[], Record<string, Buffer>, object[]]>([
    ['none', [], {}, []],
    [
      'the one it names',
      [named],
      { 'web01-ctk.vmdk': tracking() },
      [{ severity: 'note', code: 'change-tracking', found: 1 }],
    ],
    [
      'the one it names by its path on the host',
      ['changeTrackPath="/vmfs/volumes/5f/web01/web01-ctk.vmdk"'],
      { 'web01-ctk.vmdk': tracking() },
      [{ severity: 'note', code: 'change-tracking', found: 1 }],
    ],
    [
      'one of an unknown version',
      [named],
      { 'web01-ctk.vmdk': tracking(2) },
      [{ severity: 'note', code: 'change-tracking', message: expect.stringContaining('unknown version 2') }],
    ],
    [
      'one that is gone',
      [named],
      {},
      [{ severity: 'note', code: 'change-tracking-missing', expected: 'web01-ctk.vmdk', remedy: expect.any(String) }],
    ],
    [
      'one it does not name',
      [],
      { 'web01-ctk.vmdk': tracking() },
      [{ severity: 'note', code: 'change-tracking', expected: 'web01-ctk.vmdk', found: 'none' }],
    ],
    [
      'another than it names',
      ['changeTrackPath="old-ctk.vmdk"'],
      { 'web01-ctk.vmdk': tracking() },
      [
        { severity: 'note', code: 'change-tracking-missing', expected: 'old-ctk.vmdk' },
        { severity: 'note', code: 'change-tracking', found: 'old-ctk.vmdk' },
      ],
    ],
  ])('beside a disk: %s', async (_what, more, files, expected) => {
    const found = await check(disk(more, files));
    expect(found).toMatchObject(expected);
    expect(found).toHaveLength(expected.length);
  });

  it('are never looked for outside the opened folder', async () => {
    const outside = disk([], { 'secret-ctk.vmdk': tracking() });
    const folder = disk(['changeTrackPath="../secret-ctk.vmdk"'], {});
    symlinkSync(join(outside, 'secret-ctk.vmdk'), join(folder, 'web01-ctk.vmdk'));
    expect(await check(folder)).toMatchObject([{ code: 'change-tracking-missing' }]);
  });

  it('are refused as disks, by name', async () => {
    const folder = disk([named], { 'web01-ctk.vmdk': tracking() });
    await expect(openLayer('web01-ctk.vmdk', new Confinement(folder))).rejects.toMatchObject({
      kind: 'unsupported',
      details: { feature: 'a change tracking file (-ctk.vmdk), which holds no disk' },
    });
  });
});

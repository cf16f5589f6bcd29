import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../../main/engine/catalog/vmware/config.ts';
import { MAX_SNAPSHOTS, readSnapshotTree } from '../../../main/engine/catalog/vmware/vmsd.ts';
import { corpus } from '../../support/corpus.ts';
import { timeHalves, vmsdText } from '../../support/vmware-folder.ts';

const read = (text: string | Buffer) => readSnapshotTree(parseConfig(Buffer.from(text as string), 'test.vmsd'));
const codes = (tree: ReturnType<typeof read>) => tree.findings.map((finding) => finding.code);

describe('.vmsd', () => {
  it('reads times on both sides of the low half’s sign', () => {
    for (const time of ['2024-03-01T10:00:00.123Z', '2012-04-26T00:10:00.000Z', '1999-12-31T23:59:59.999Z']) {
      const { high, low } = timeHalves(new Date(time));
      const text = `snapshot0.uid = "1"\nsnapshot0.createTimeHigh = "${high}"\nsnapshot0.createTimeLow = "${low}"\n`;
      expect(read(text).snapshots[0]?.created).toBe(time);
    }
  });

  it.each([
    ['-1', '0'],
    ['99999999999', '0'],
    ['1', '99999999999999'],
    ['x', '1'],
  ])('refuses the time %s:%s as none', (high, low) => {
    const tree = read(
      `snapshot0.uid = "1"\nsnapshot0.createTimeHigh = "${high}"\nsnapshot0.createTimeLow = "${low}"\n`,
    );
    expect(tree.snapshots[0]?.created).toBeUndefined();
    expect(codes(tree)).toEqual(['snapshot-time']);
  });

  it('breaks loops of parents, of one and of many', () => {
    const tree = read(
      vmsdText({
        snapshots: [
          { uid: 1, parent: 3, disks: [] },
          { uid: 2, parent: 1, disks: [] },
          { uid: 3, parent: 2, disks: [] },
          { uid: 4, parent: 4, disks: [] },
          { uid: 5, parent: 2, disks: [] },
        ],
      }),
    );
    expect(codes(tree)).toEqual(['snapshot-loop', 'snapshot-loop']);
    const parents = new Map(tree.snapshots.map((snapshot) => [snapshot.id, snapshot.parent]));
    for (const { id } of tree.snapshots) {
      let steps = 0;
      for (let at: string | undefined = id; at !== undefined; at = parents.get(at)) expect(++steps).toBeLessThan(6);
    }
    expect(parents.get('5')).toBe('2');
  });

  it('reports missing parents, repeated and missing uids, a wrong count, an unknown current', () => {
    const tree = read(
      'snapshot.current = "77"\nsnapshot.numSnapshots = "9"\nsnapshot0.uid = "1"\nsnapshot0.parent = "42"\nsnapshot4.uid = "1"\nsnapshot7.displayName = "lost"\n',
    );
    expect(tree.snapshots.map((snapshot) => snapshot.id)).toEqual(['1', '1-snapshot4', 'snapshot7']);
    expect(tree.current).toBeUndefined();
    expect(codes(tree).sort()).toEqual(
      ['current-unknown', 'duplicate-uid', 'parent-unknown', 'snapshot-count', 'snapshot-without-uid'].sort(),
    );
  });

  it('a uid cannot take the id of the present state', () => {
    expect(read('snapshot0.uid = "current"\n').snapshots[0]?.id).toBe('snapshot0');
  });

  it('bounds snapshots, disks and counts', () => {
    const many = Array.from({ length: MAX_SNAPSHOTS + 10 }, (_, n) => `snapshot${n}.uid = "${n + 1}"`).join('\n');
    const tree = read(many);
    expect(tree.snapshots).toHaveLength(MAX_SNAPSHOTS);
    expect(codes(tree)).toContain('too-many-snapshots');
    const huge = read('snapshot0.uid = "1"\nsnapshot0.numDisks = "999999"\nsnapshot0.disk0.fileName = "a.vmdk"\n');
    expect(huge.snapshots[0]?.disks).toHaveLength(1);
    expect(codes(huge)).toEqual(['too-many-disks', 'snapshot-disk-unnamed']);
  });

  it('a chain of parents as long as allowed costs each snapshot once', () => {
    const text = Array.from(
      { length: MAX_SNAPSHOTS },
      (_, n) => `snapshot${n}.uid = "${n + 1}"\nsnapshot${n}.parent = "${n + 2}"`,
    ).join('\n');
    const started = performance.now();
    expect(codes(read(text))).toEqual(['parent-unknown']);
    expect(performance.now() - started).toBeLessThan(5_000);
  });
});

const samples = join(corpus, 'vmware-text');
describe.skipIf(!existsSync(samples))('.vmsd of others (shared/corpus, skipped where absent)', () => {
  const sample = (path: string) => readSnapshotTree(parseConfig(readFileSync(join(samples, path)), path));

  it('ESXi, four in a line: the disk of each is what was current before it', () => {
    const tree = sample('xen-orchestra/esxi-4-snapshots.vmsd');
    expect(tree.findings).toEqual([]);
    expect(tree.current).toBe('4');
    expect(tree.snapshots.map(({ id, parent, name, disks }) => [id, parent, name, disks[0]?.fileName])).toEqual([
      ['1', undefined, 'SNAPSHOT POST INSTALL', 'test flo_0.vmdk'],
      ['2', '1', 'SECOND', 'test flo_0-000001.vmdk'],
      ['3', '2', 'third', 'test flo_0-000002.vmdk'],
      ['4', '3', 'from cli', 'test flo_0-000003.vmdk'],
    ]);
    expect(tree.snapshots[0]?.created).toBe(new Date(Math.floor((388745 * 2 ** 32 + 1991180826) / 1000)).toISOString());
    expect(tree.snapshots[0]?.created?.slice(0, 4)).toBe('2022');
  });

  it('Workstation, without the dot of .encoding', () => {
    const tree = sample('misc/POS-01.vmsd');
    expect(tree.findings).toEqual([]);
    expect(tree.snapshots).toMatchObject([
      { id: '1', name: 'before-firstrun', type: 1, stateFile: 'POS-01-Snapshot1.vmsn' },
    ]);
  });

  it('a fragment with two disks, one by an absolute path', () => {
    const tree = sample('misc/foo-sibling-2disk.vmsd-fragment');
    expect(tree.snapshots).toMatchObject([{ id: '20', name: 'customer_snap2', parent: undefined }]);
    expect(tree.snapshots[0]?.disks.map(({ node }) => node)).toEqual(['scsi0:0', 'scsi0:1']);
    expect(codes(tree)).toEqual(['parent-unknown']);
  });

  it('ESX 4: uid is not the position, lastUID runs on after removals', () => {
    const tree = sample('virtuallyhyper/2012-04-09-vmware-snapshot-troubleshooting/02-vps.vmsd');
    expect(tree).toMatchObject({ current: '2', findings: [] });
    expect(tree.snapshots).toMatchObject([{ id: '2', name: 'test1' }]);
    const sql = sample(
      'virtuallyhyper/2012-04-26-advanced-snapshot-troubleshooting-missing-vmdk-descriptors/02-sql.vmsd',
    );
    expect(sql.snapshots.map(({ id, created, disks }) => [id, created?.slice(0, 10), disks[0]?.fileName])).toEqual([
      ['15', '2012-04-23', 'sql.vmdk'],
      ['16', '2012-04-23', 'sql-000002.vmdk'],
      ['17', '2012-04-23', 'sql-000001.vmdk'],
      ['18', '2012-04-23', 'sql-000003.vmdk'],
    ]);
    expect(sql.findings).toEqual([]);
  });
});

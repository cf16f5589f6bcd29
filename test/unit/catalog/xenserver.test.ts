import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { scanRepository } from '../../../main/engine/catalog/catalog.ts';
import type { Catalog } from '../../../main/engine/catalog/model.ts';
import { openChain } from '../../../main/engine/chain/open.ts';
import { leavesUntouched, scratchFolder } from '../../support/scratch.ts';
import { buildFixed } from '../../support/vhd-builder.ts';
import { buildXva, type RpcValue, vdiRecord, type XenRecordOf } from '../../support/xva-builder.ts';

const scratch = scratchFolder('xenserver');
let root = '';
let count = 0;
beforeEach(() => {
  root = join(scratch.path, String(count++));
  mkdirSync(root);
});

const NONE = 'OpaqueRef:NULL';
type Fields = { readonly [field: string]: RpcValue };

function vmRecord(id: string, name: string, fields: Fields = {}): XenRecordOf {
  return {
    class: 'VM',
    id,
    snapshot: {
      uuid: `uuid-${id}`,
      name_label: name,
      name_description: '',
      is_a_template: false,
      is_a_snapshot: false,
      is_control_domain: false,
      snapshot_of: NONE,
      parent: NONE,
      snapshot_time: new Date(0),
      snapshot_info: {},
      power_state: 'Halted',
      suspend_VDI: NONE,
      VCPUs_max: 4,
      memory_static_max: 2 ** 31,
      HVM_boot_params: { firmware: 'uefi' },
      guest_metrics: 'Ref:70',
      ...fields,
    },
  };
}
const snapshotRecord = (id: string, name: string, day: number, fields: Fields = {}): XenRecordOf =>
  vmRecord(id, name, {
    is_a_snapshot: true,
    is_a_template: true,
    snapshot_of: 'Ref:1',
    snapshot_time: new Date(Date.UTC(2026, 0, day)),
    ...fields,
  });
let vbds = 50;
const vbdRecord = (vm: string, vdi: string, userdevice: number, fields: Fields = {}): XenRecordOf => ({
  class: 'VBD',
  id: `Ref:${vbds++}`,
  snapshot: {
    VM: vm,
    VDI: vdi,
    userdevice: String(userdevice),
    device: `xvd${'abc'[userdevice]}`,
    type: 'Disk',
    empty: false,
    ...fields,
  },
});

const METRICS: XenRecordOf = {
  class: 'VM_guest_metrics',
  id: 'Ref:70',
  snapshot: { os_version: { name: 'Debian 12|C:\\x', distro: 'debian' } },
};
const NETWORK: XenRecordOf = {
  class: 'network',
  id: 'Ref:80',
  snapshot: { name_label: 'Pool network', bridge: 'xenbr0' },
};
const VIF: XenRecordOf = {
  class: 'VIF',
  id: 'Ref:81',
  snapshot: { VM: 'Ref:1', device: '0', MAC: 'AA:BB:CC:00:11:22', network: 'Ref:80' },
};

function disk(seed: number, size = 3 << 20): Buffer {
  const content = Buffer.alloc(size);
  for (let at = 0; at < 5_000; at++) content[at] = (at * seed) & 0xff;
  content[size - 1] = seed;
  return content;
}

/** A VM with two disks, a crash-consistent, a quiesced and a memory snapshot one after the other. */
function wholeExport(): Buffer {
  const snapshots = [
    snapshotRecord('Ref:2', 'plain', 2, {
      snapshot_info: { 'power-state-at-snapshot': 'Running', 'disk-snapshot-type': 'crash_consistent' },
    }),
    snapshotRecord('Ref:3', 'quiesced', 3, {
      parent: 'Ref:2',
      snapshot_info: { 'power-state-at-snapshot': 'Running', 'disk-snapshot-type': 'quiesced' },
      name_description: 'before the update',
    }),
    snapshotRecord('Ref:4', 'with memory', 4, {
      parent: 'Ref:3',
      power_state: 'Suspended',
      suspend_VDI: 'Ref:19',
      snapshot_info: { 'power-state-at-snapshot': 'Running', 'disk-snapshot-type': 'crash_consistent' },
    }),
  ];
  const objects = [
    vmRecord('Ref:1', 'web & mail', { parent: 'Ref:4' }),
    ...snapshots,
    // The second disk comes first in the file, and a CD drive is no disk.
    vbdRecord('Ref:1', 'Ref:11', 1),
    vbdRecord('Ref:1', 'Ref:10', 0),
    vbdRecord('Ref:1', NONE, 2, { type: 'CD', empty: true }),
    vbdRecord('Ref:2', 'Ref:12', 0),
    vbdRecord('Ref:3', 'Ref:13', 0),
    vbdRecord('Ref:4', 'Ref:14', 0),
    METRICS,
    NETWORK,
    VIF,
  ];
  return buildXva(
    ['Ref:10', 'Ref:11', 'Ref:12', 'Ref:13', 'Ref:14', 'Ref:19'].map((id, n) => ({ id, content: disk(n + 3) })),
    objects,
  );
}

async function scanned<T>(body: (catalog: Catalog) => Promise<T> | T, source = root): Promise<T> {
  return leavesUntouched(root, async () => {
    const catalog = await scanRepository(source, { synchronous: true });
    try {
      return await body(catalog);
    } finally {
      await catalog.folder.close();
    }
  });
}

describe('a XenServer export', () => {
  it('is a VM with its snapshots, of every kind, and its metadata', async () => {
    writeFileSync(join(root, 'web.xva'), wholeExport());
    await scanned(({ vms, orphans, findings }) => {
      expect(findings).toEqual([]);
      expect(orphans).toEqual([]);
      expect(vms).toHaveLength(1);
      const [vm] = vms;
      expect(vm).toMatchObject({
        name: 'web & mail',
        origin: 'xenserver',
        guest: 'Debian 12',
        cpus: 4,
        memoryBytes: 2 ** 31,
        firmware: 'uefi',
        networks: [{ device: '0', mac: 'aa:bb:cc:00:11:22', network: 'Pool network' }],
        findings: [],
      });
      expect(
        vm!.points.map(({ id, name, parent, memory, quiesced, consistency }) => [
          id,
          name,
          parent,
          memory,
          quiesced,
          consistency.level,
        ]),
      ).toEqual([
        ['uuid-Ref:2', 'plain', undefined, false, false, 'crash'],
        ['uuid-Ref:3', 'quiesced', 'uuid-Ref:2', false, true, 'application'],
        ['uuid-Ref:4', 'with memory', 'uuid-Ref:3', true, false, 'memory'],
        ['current', 'Exported state', 'uuid-Ref:4', false, false, 'unknown'],
      ]);
      expect(vm!.points[1]).toMatchObject({ created: '2026-01-03T00:00:00.000Z', description: 'before the update' });
      expect(vm!.points[2]!.currentParent).toBe(true);
      expect(vm!.points[2]!.consistency.evidence).toContain('ova.xml: its memory is Ref:19 of the export');
      expect(vm!.points[3]!.disks.map(({ index, node, file, size }) => [index, node, file, size])).toEqual([
        [0, 'xvda', 'web.xva/Ref:10', 3 << 20],
        [1, 'xvdb', 'web.xva/Ref:11', 3 << 20],
      ]);
      expect(vm!.points.flatMap((point) => point.findings)).toEqual([]);
    });
  });

  it('gives each point its own disk, byte for byte', async () => {
    writeFileSync(join(root, 'web.xva'), wholeExport());
    await scanned(async ({ vms, folder }) => {
      const contents = new Map([
        ['plain', disk(5)],
        ['quiesced', disk(6)],
        ['with memory', disk(7)],
        ['Exported state', disk(3)],
      ]);
      for (const point of vms[0]!.points) {
        const opened = await openChain(point.disks[0]!.path!, folder, { synchronous: true });
        const got = createHash('sha256')
          .update(await opened.read(0, opened.size))
          .digest('hex');
        await opened.close();
        expect(got, point.name).toBe(createHash('sha256').update(contents.get(point.name)!).digest('hex'));
      }
    });
  });

  it('is read when the file itself is opened', async () => {
    writeFileSync(join(root, 'web.xva'), wholeExport());
    await scanned(({ vms }) => expect(vms.map(({ name }) => name)).toEqual(['web & mail']), join(root, 'web.xva'));
  });

  it('finds the disks of a metadata export among the VHDs of a storage repository', async () => {
    const uuid = '5b1c8f0a-0000-4000-8000-0123456789ab';
    const vdi = vdiRecord('Ref:10', 1 << 20, { uuid, location: uuid });
    writeFileSync(
      join(root, 'meta.xva'),
      buildXva([], [vmRecord('Ref:1', 'web'), vbdRecord('Ref:1', 'Ref:10', 0), vdi]),
    );
    mkdirSync(join(root, 'sr'));
    writeFileSync(join(root, 'sr', `${uuid}.vhd`), buildFixed(disk(9, 1 << 20)));
    await scanned(({ vms }) => {
      expect(vms.map(({ name }) => name)).toEqual(['web']);
      expect(vms[0]!.points[0]!.disks).toMatchObject([{ file: `sr/${uuid}.vhd`, size: 1 << 20 }]);
    });
  });

  it('names a disk that is nowhere, and a memory that was not exported', async () => {
    const objects = [
      vmRecord('Ref:1', 'web', { power_state: 'Suspended', suspend_VDI: 'Ref:19' }),
      vbdRecord('Ref:1', 'Ref:10', 0),
      vdiRecord('Ref:10', 1 << 20, { uuid: 'abc', name_label: 'root disk' }),
    ];
    writeFileSync(join(root, 'meta.xva'), buildXva([], objects));
    await scanned(({ vms }) => {
      const [point] = vms[0]!.points;
      expect(point).toMatchObject({ memory: false, disks: [{ file: 'abc', error: { kind: 'not-found' } }] });
      expect(point!.findings.map(({ code }) => code).sort()).toEqual([
        'disk-missing',
        'memory-not-exported',
        'point-broken',
      ]);
    });
  });

  it('survives snapshots that descend from each other, and ids that are there twice', async () => {
    const objects = [
      vmRecord('Ref:1', 'web', { parent: 'Ref:2' }),
      snapshotRecord('Ref:2', 'a', 2, { parent: 'Ref:3', uuid: 'same' }),
      snapshotRecord('Ref:3', 'b', 3, { parent: 'Ref:2', uuid: 'same' }),
    ];
    writeFileSync(join(root, 'meta.xva'), buildXva([], objects));
    await scanned(({ vms }) => {
      expect(vms[0]!.findings.map(({ code }) => code)).toEqual(['snapshot-loop']);
      expect(new Set(vms[0]!.points.map(({ id }) => id)).size).toBe(3);
    });
  });

  it('says so when its description is damaged', async () => {
    const bytes = buildXva([], [vmRecord('Ref:1', 'web')]);
    const at = bytes.indexOf('<struct>');
    bytes.write('<strukt>', at, 'latin1');
    writeFileSync(join(root, 'web.xva'), bytes);
    await scanned(({ vms }) => {
      expect(vms).toMatchObject([
        {
          name: 'web',
          origin: 'xenserver',
          points: [],
          findings: [{ code: 'config-unreadable', severity: 'damaged' }],
        },
      ]);
    });
  });
});

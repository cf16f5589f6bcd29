/**
 * An engine made of plain data, for looking at the window and for tests of the protocol. Everything in it is what a real repository
 * could hold; nothing of it is part of the program.
 */
import type {
  ChainliftApi,
  CopyResult,
  DirectoryChanges,
  EntryDetails,
  EntryRow,
  ExportInfo,
  LayerShare,
  RepositoryReport,
  RestorePoint,
  TaskSnapshot,
  VirtualMachine,
  VolumeInfo,
  WireError,
} from '../../../preload/api.ts';

export class FakeError extends Error {
  readonly wire: WireError;
  constructor(wire: WireError) {
    super(wire.message);
    this.wire = wire;
  }
  toWire(): WireError {
    return this.wire;
  }
}

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;
const seconds = (iso: string) => ({ seconds: Date.parse(iso) / 1000, nanoseconds: 123_456_789 });

function point(
  id: string,
  name: string,
  created: string | undefined,
  parent: string | undefined,
  mb: number,
): RestorePoint {
  const changedBytes = mb * MIB;
  return {
    id,
    name,
    ...(created === undefined ? {} : { created }),
    ...(parent === undefined ? {} : { parent }),
    current: name === 'current',
    currentParent: false,
    memory: name === 'try-php83',
    quiesced: true,
    consistency: { level: 'file-system', evidence: ['quiesced flag set', 'ext4 clean'] },
    disks: [
      {
        index: 0,
        node: 'scsi0:0',
        file: `web01-${id}.vmdk`,
        size: 40 * GIB,
        changedBytes,
        chain: [`web01-${id}.vmdk`, 'web01-000002.vmdk', 'web01-000001.vmdk', 'web01.vmdk'],
      },
    ],
    changedBytes,
    findings: [],
  };
}

const damage: WireError = {
  kind: 'missing-parent',
  message: 'The parent "db-000002.vmdk" of db-000003.vmdk is missing: no file of that name',
  details: { child: 'db-000003.vmdk', recorded: 'db-000002.vmdk', reason: 'no file of that name' },
};

const webPoints: RestorePoint[] = [
  point('1', 'base', '2026-11-02T09:00:00Z', undefined, 3100),
  point('2', 'nightly 4', '2026-11-04T02:00:00Z', '1', 120),
  point('3', 'nightly 6', '2026-11-06T02:00:00Z', '2', 180),
  point('4', 'nightly 8', '2026-11-08T02:00:00Z', '3', 60),
  point('5', 'before-php', '2026-11-10T02:00:00Z', '4', 260),
  point('6', 'php-install', '2026-11-12T02:00:00Z', '5', 90),
  point('7', 'try-php83', '2026-11-14T12:00:00Z', '6', 140),
  {
    ...point('8', 'before-upgrade', '2026-11-14T02:00:00Z', '5', 412),
    description: 'Taken by hand before the upgrade to 12.8',
  },
  {
    ...point('9', 'nightly', '2026-11-16T02:00:00Z', '8', 320),
    findings: [
      {
        severity: 'suspicious',
        code: 'size-differs',
        message: 'The image is longer than its header says',
        source: 'web01-9.vmdk',
        structure: 'sparse extent header',
        position: 12,
        expected: 1048576,
        found: 1049600,
        remedy: 'The extra sectors are not read; everything the header describes is there.',
      },
    ],
  },
  point('10', 'nightly 18', '2026-11-18T02:00:00Z', '9', 150),
  point('11', 'current', undefined, '10', 210),
];

const vm = (name: string, points: RestorePoint[], more: Partial<VirtualMachine> = {}): VirtualMachine => ({
  name,
  origin: 'vmware',
  folder: name,
  points,
  findings: [],
  ...more,
});

const many = Array.from({ length: 64 }, (_, index) =>
  point(
    `${index}`,
    index === 63 ? 'current' : `daily ${index + 1}`,
    index === 63 ? undefined : new Date(Date.UTC(2026, 8, 1 + index, 2)).toISOString(),
    index === 0 ? undefined : index % 17 === 5 ? `${index - 3}` : `${index - 1}`,
    20 + ((index * 37) % 300),
  ),
);

export const report: RepositoryReport = {
  source: '/srv/backups/esx-02',
  kind: 'folder',
  name: 'esx-02',
  vms: [
    vm('web01', webPoints, { guest: 'Debian 12' }),
    vm('files01', webPoints.slice(0, 2), {
      guest: 'Windows 2022',
      findings: [
        { severity: 'suspicious', code: 'orphaned-delta', message: 'A delta that no snapshot names was left behind' },
      ],
    }),
    vm('db-prod', many, { guest: 'Oracle Linux' }),
    vm(
      'legacy-erp',
      webPoints
        .slice(0, 5)
        .map((one, index) =>
          index < 3 ? one : { ...one, disks: one.disks.map((disk) => ({ ...disk, error: damage })) },
        ),
    ),
    vm(
      'loose',
      [point('a', 'disk.vmdk', undefined, undefined, 900), point('b', 'disk-000001.vmdk', undefined, 'a', 40)].map(
        (one) => ({
          ...one,
          consistency: { level: 'unknown', evidence: ['no VM file describes this chain'] },
        }),
      ),
      { origin: 'images', folder: '.' },
    ),
  ],
  orphans: [{ file: 'files01/files01-000007.vmdk', bytes: 820 * MIB, reason: 'No snapshot and no .vmx names it' }],
  findings: [],
};

const volumes: VolumeInfo[] = [
  {
    name: 'sda1',
    disk: 0,
    scheme: 'gpt',
    type: 'EFI system',
    typeCode: 'c12a7328',
    start: MIB,
    size: 512 * MIB,
    bootable: true,
    fileSystem: {
      type: 'FAT32',
      label: 'EFI',
      size: 512 * MIB,
      blockSize: 4096,
      condition: 'clean',
      evidence: ['clean shutdown bit set'],
      features: [],
    },
  },
  {
    name: 'sda2',
    disk: 0,
    scheme: 'gpt',
    type: 'Linux filesystem',
    typeCode: '0fc63daf',
    start: 513 * MIB,
    size: 32 * GIB,
    bootable: false,
    fileSystem: {
      type: 'ext4',
      label: 'root',
      size: 32 * GIB,
      blockSize: 4096,
      condition: 'needs-replay',
      evidence: ['needs_recovery is set', 'journal holds 12 transactions'],
      features: [],
    },
  },
  {
    name: 'sda3',
    disk: 0,
    scheme: 'gpt',
    type: 'Linux LUKS',
    typeCode: 'ca7d7ccb',
    start: 33 * GIB,
    size: 4 * GIB,
    bootable: false,
    error: { kind: 'needs-key', message: 'sda3 is encrypted', details: { what: 'The volume sda3' } },
  },
];

function entry(
  folder: string,
  name: string,
  size: number | undefined,
  modified: string,
  more: Partial<EntryRow> = {},
): EntryRow {
  return {
    name,
    path: `${folder}/${name}`,
    kind: size === undefined ? 'directory' : 'file',
    id: 1000 + name.length,
    ...(size === undefined ? {} : { size, allocated: Math.ceil(size / 4096) * 4096 }),
    mode: size === undefined ? 0o40755 : 0o100644,
    uid: 33,
    gid: 33,
    links: 1,
    modified: seconds(modified),
    accessed: seconds(modified),
    changed: seconds(modified),
    ...more,
  };
}

const WWW = '/sda2/srv/www';
const www: EntryRow[] = [
  entry(WWW, 'assets', undefined, '2026-11-14T01:12:00Z'),
  entry(WWW, 'uploads', undefined, '2026-11-13T23:40:00Z'),
  entry(WWW, 'vendor', undefined, '2026-11-02T09:31:00Z'),
  entry(WWW, '.htaccess', 512, '2026-11-02T09:31:00Z'),
  entry(WWW, 'budget.xlsx', 184 * 1024, '2026-11-12T17:05:00Z'),
  entry(WWW, 'config.php', 5902, '2026-11-13T22:18:00Z'),
  entry(WWW, 'cron.php', 1946, '2026-11-02T09:31:00Z'),
  entry(WWW, 'error.log', 40_055_603, '2026-11-14T01:59:00Z'),
  entry(WWW, 'index.php', 9318, '2026-11-06T10:44:00Z'),
  entry(WWW, 'logo.png', 91, '2026-11-06T10:44:00Z'),
  entry(WWW, 'maintenance.html', 2253, '2026-11-02T09:31:00Z'),
  entry(WWW, 'latest', 12, '2026-11-02T09:31:00Z', { kind: 'symlink', linkTarget: '../www/assets', mode: 0o120777 }),
  entry(WWW, 'orders-2025.csv', 13_002_342, '2026-11-10T08:00:00Z'),
  entry(WWW, 'robots.txt', 71, '2026-11-02T09:31:00Z'),
  {
    name: 'sessions.db',
    path: `${WWW}/sessions.db`,
    kind: 'unknown',
    id: 77_012,
    error: {
      kind: 'corrupt',
      message: 'ext4 inode is damaged',
      details: {
        structure: 'ext4 inode 77012',
        source: 'sda2',
        position: 8_221_440,
        expected: '0x1f3a2b10',
        found: '0x00000000',
      },
    },
  },
  entry(WWW, 'sitemap.xml', 45_056, '2026-11-13T04:00:00Z'),
  entry(WWW, 'wp-login.php', 15_053, '2026-11-02T09:31:00Z'),
];

const FOLDERS: Readonly<Record<string, EntryRow[]>> = {
  '/sda1': [entry('/sda1', 'EFI', undefined, '2026-11-02T09:31:00Z')],
  '/sda2': ['bin', 'boot', 'etc', 'home', 'srv', 'usr', 'var'].map((n) =>
    entry('/sda2', n, undefined, '2026-11-02T09:31:00Z'),
  ),
  '/sda2/srv': [entry('/sda2/srv', 'www', undefined, '2026-11-14T01:12:00Z')],
  '/sda2/home': [],
  [WWW]: www,
};

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const notFound = (path: string) =>
  new FakeError({ kind: 'not-found', message: `${path} not found`, details: { what: path } });

const shares: LayerShare[] = [
  { layer: 3, name: 'web01.vmdk', bytes: 3400 },
  { layer: 1, name: 'web01-000002.vmdk', bytes: 720 },
  { layer: 0, name: 'web01-000004.vmdk', bytes: 1782 },
];

const PHP = `<?php
// Where the shop finds its database.
return [
  'db' => [
    'host' => 'db-prod',
    'port' => 3306,
  ],
  'cache' => '/var/cache/shop',
];
`;
/** A PNG of 8 x 8 pixels. */
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGMQKn2EFTEMLQkA90ZYYVUxfrYAAAAASUVORK5CYII=';

/** A list that tells its watchers of every change. */
class Watched<Item> {
  private readonly watchers = new Set<(item: Item) => void>();
  tell(item: Item): void {
    for (const watcher of this.watchers) watcher(item);
  }
  stream(first: readonly Item[]): AsyncIterable<Item> {
    return {
      [Symbol.asyncIterator]: () => {
        const items: Item[] = [...first];
        let wake: (() => void) | undefined;
        let ended = false;
        const watcher = (item: Item) => {
          items.push(item);
          wake?.();
        };
        this.watchers.add(watcher);
        return {
          next: async (): Promise<IteratorResult<Item>> => {
            while (items.length === 0 && !ended) {
              await new Promise<void>((resolve) => {
                wake = resolve;
              });
            }
            const item = items.shift();
            return item === undefined ? { done: true, value: undefined } : { done: false, value: item };
          },
          return: async (): Promise<IteratorResult<Item>> => {
            ended = true;
            this.watchers.delete(watcher);
            wake?.();
            return { done: true, value: undefined };
          },
        };
      },
    };
  }
}

/** `rows` is the number of entries in `/sda2/usr`. */
const SCAN = 'scan ';

function scanTask(source: string, state: TaskSnapshot['state']): TaskSnapshot {
  return {
    id: `${SCAN}${source}`,
    kind: 'scan',
    title: `Read ${source}`,
    state,
    started: '2026-11-20T12:00:00Z',
    progress: { bytesDone: 0, itemsDone: 3, current: `${source}/web01.vmdk` },
    bytesPerSecond: 0,
  };
}

async function* scanEnd(source: string): AsyncGenerator<TaskSnapshot> {
  await wait(60);
  yield source.endsWith('demo')
    ? {
        ...scanTask(source, 'failed'),
        error: { kind: 'io', message: 'ENOENT: no such file', details: { source, code: 'ENOENT' } },
      }
    : scanTask(source, 'done');
}

export function fakeApi(options: { readonly rows?: number; readonly empty?: boolean } = {}): ChainliftApi {
  const tasks = new Map<string, TaskSnapshot>();
  const taskChanges = new Watched<TaskSnapshot>();
  const exportChanges = new Watched<ExportInfo[]>();
  let exports: ExportInfo[] = [];
  let number = 0;

  const setTask = (task: TaskSnapshot) => {
    tasks.set(task.id, task);
    taskChanges.tell(task);
    return task;
  };
  const runTask = (kind: TaskSnapshot['kind'], title: string, result: TaskSnapshot['result']): TaskSnapshot => {
    number += 1;
    const id = `task-${number}`;
    const base = { id, kind, title, started: new Date().toISOString(), bytesPerSecond: 222_298_112 };
    const run = async () => {
      for (let step = 1; step <= 40; step++) {
        await wait(150);
        if (tasks.get(id)?.state !== 'running') return;
        setTask({
          ...base,
          state: 'running',
          progress: {
            bytesDone: step * 25 * MIB,
            bytesTotal: 1000 * MIB,
            itemsDone: step * 47,
            itemsTotal: 1880,
            current: WWW,
          },
          secondsLeft: Math.round((40 - step) * 0.15),
        });
      }
      setTask({
        ...base,
        state: 'done',
        ended: new Date().toISOString(),
        progress: { bytesDone: 1000 * MIB, itemsDone: 1880 },
        ...(result === undefined ? {} : { result }),
      });
    };
    void run();
    return setTask({ ...base, state: 'running', progress: { bytesDone: 0, itemsDone: 0 } });
  };

  const listing = (path: string): EntryRow[] => {
    if (path === '/sda2/usr') {
      const stamp = { seconds: 1_762_000_000, nanoseconds: 0 };
      return Array.from({ length: options.rows ?? 120_000 }, (_, index) => ({
        name: `file-${(index * 7919) % 120_011}.dat`,
        path: `/sda2/usr/file-${(index * 7919) % 120_011}.dat`,
        kind: 'file',
        id: index,
        size: (index * 7919) % 1_000_003,
        modified: stamp,
      }));
    }
    const rows = FOLDERS[path];
    if (rows === undefined) throw notFound(path);
    return rows;
  };
  const find = (path: string): EntryRow => {
    const folder = path.slice(0, path.lastIndexOf('/'));
    if (FOLDERS[path] !== undefined && folder === '')
      return entry('', path.slice(1), undefined, '2026-11-02T09:31:00Z');
    const found = listing(folder).find((row) => row.path === path);
    if (found === undefined) throw notFound(path);
    return found;
  };

  return {
    about: async () => ({
      version: '0.1.0',
      formats: ['vmdk', 'raw'],
      fileSystems: ['ext4', 'fat'],
      home: '/home/anna',
    }),
    recent: async () =>
      options.empty === true
        ? []
        : [
            { path: report.source, name: report.name, opened: '2026-11-20T09:00:00Z' },
            { path: '/home/anna/chainlift-demo', name: 'chainlift-demo', opened: '2026-11-18T09:00:00Z' },
          ],
    forget: async () => undefined,
    browse: async ({ path = '/srv/backups' }) => {
      if (path.includes('nowhere')) {
        throw new FakeError({ kind: 'io', message: 'ENOENT', details: { path, code: 'ENOENT' } });
      }
      const parent = path.slice(0, path.lastIndexOf('/')) || '/';
      return {
        path,
        ...(path === '/' ? {} : { parent }),
        folders: ['esx-01', 'esx-02', 'archive', 'lost+found'],
        images: ['old-server.vmdk'],
      };
    },
    scan: async ({ source }) => scanTask(source, 'running'),
    report: async ({ source }) => ({ ...report, source }),
    info: async () => ({ vm: 'web01', point: '8', disk: 0, size: 40 * GIB, layers: [] }),
    async *map() {
      yield [{ offset: 0, length: 40 * GIB, kind: 'zero' as const }];
    },
    volumes: async ({ target }) =>
      target.vm === 'legacy-erp' && (target.point === '4' || target.point === '5')
        ? Promise.reject(new FakeError(damage))
        : { volumes, findings: [] },
    async *list({ target, path }) {
      if (path === `${WWW}/vendor` && target.point === '11') throw notFound(path);
      const rows = path.startsWith(`${WWW}/`)
        ? [entry(path, 'composer.json', 1200, '2026-11-02T09:31:00Z')]
        : listing(path);
      for (let at = 0; at < rows.length; at += 2000) {
        await wait(2);
        yield rows.slice(at, at + 2000);
      }
    },
    stat: async ({ path }): Promise<EntryDetails> => ({
      ...find(path),
      problems: [],
      attributes:
        path === `${WWW}/config.php`
          ? [
              { name: 'security.selinux', value: btoa('system_u:object_r:httpd_sys_content_t:s0\0') },
              { name: 'user.checksum', value: btoa('\x01\xff\x10\x80') },
            ]
          : [],
      layers: shares,
    }),
    async *read() {
      yield new TextEncoder().encode(PHP);
    },
    preview: async ({ path }) => {
      if (path.endsWith('.png')) return { bytes: PNG, size: 91, truncated: false };
      if (path.endsWith('.xlsx')) {
        const bytes = Array.from({ length: 4096 }, (_, index) => String.fromCharCode((index * 73) % 256)).join('');
        return { bytes: btoa(bytes), size: 184 * 1024, truncated: true };
      }
      return { bytes: btoa(PHP), size: PHP.length, truncated: false };
    },
    changes: async ({ path }): Promise<DirectoryChanges> => ({
      before: { id: '5', name: 'before-php' },
      marks:
        path === WWW
          ? { 'budget.xlsx': 'added', 'config.php': 'changed', 'error.log': 'changed', uploads: 'changed' }
          : {},
      gone: path === WWW ? [entry(WWW, 'old-index.php', 4100, '2026-10-02T09:31:00Z')] : [],
      goneLater: path === WWW ? { 'orders-2025.csv': { id: '9', name: 'nightly' } } : {},
    }),
    layers: async ({ paths }) => paths.map((path) => (path.length % 3 === 0 ? shares : shares.slice(0, 1))),
    copy: async ({ destination, paths }) => {
      const result: CopyResult = {
        files: 1880,
        directories: 62,
        links: 4,
        bytes: 1000 * MIB,
        verified: 1880,
        skipped: 0,
        written: paths.map((path) => `${destination}${path.slice(path.lastIndexOf('/'))}`),
        copied: [],
        problems: [
          {
            path: `${WWW}/sessions.db`,
            error: {
              kind: 'corrupt',
              message: 'ext4 inode is damaged',
              details: { structure: 'ext4 inode 77012', source: 'sda2', position: 8_221_440 },
            },
          },
        ],
        notes: [{ path: `${WWW}/index.php`, note: 'owner 33:33 not kept: not running as root' }],
      };
      return runTask('copy', `Copy ${paths[0]?.split('/').at(-1)} to ${destination}`, { kind: 'copy', ...result });
    },
    hash: async () =>
      runTask('hash', 'Hash disk sda of before-upgrade', { kind: 'hash', sha256: 'ab'.repeat(32), bytes: 40 * GIB }),
    verify: async () =>
      runTask('verify', 'Verify before-upgrade', {
        kind: 'verify',
        source: '/srv/backups',
        findings: [],
        disksChecked: 1,
      }),
    watchTasks: () => taskChanges.stream([...tasks.values()]),
    watchTask: ({ id }) => (id.startsWith(SCAN) ? scanEnd(id.slice(SCAN.length)) : taskChanges.stream([])),
    convert: async () => Promise.reject(new FakeError(damage)),
    locateParent: async ({ child, parent }) => ({ child, parent, proved: true, findings: [] }),
    forgetParent: async () => undefined,
    cancelTask: async ({ id }) => {
      const task = tasks.get(id);
      if (task !== undefined) setTask({ ...task, state: 'cancelled' });
    },
    dismissTask: async ({ id }) => {
      tasks.delete(id);
    },
    startExport: async ({ target, listen }) => {
      number += 1;
      const uri =
        listen === undefined
          ? `nbd+unix:///sda?socket=/run/user/0/chainlift/${number}.sock`
          : 'nbd://127.0.0.1:10809/sda';
      const info: ExportInfo = {
        id: `export-${number}`,
        name: 'sda',
        description: `${target.vm}, point ${target.point}, sda`,
        target,
        uri,
        size: 40 * GIB,
        started: new Date().toISOString(),
        clients: 2,
        requests: 1204,
        bytesRead: 212 * MIB,
        commands: [
          {
            title: 'Mount on Linux',
            command: `nbd-client -unix /run/user/0/chainlift/${number}.sock /dev/nbd0 -N sda`,
          },
          { title: 'Boot in QEMU', command: `qemu-system-x86_64 -m 2G -drive file='${uri}',format=raw,snapshot=on` },
          { title: 'Copy the disk', command: `nbdcopy '${uri}' disk.img` },
        ],
      };
      exports = [...exports, info];
      exportChanges.tell(exports);
      return info;
    },
    stopExport: async ({ id }) => {
      exports = exports.filter((one) => one.id !== id);
      exportChanges.tell(exports);
    },
    watchExports: () => exportChanges.stream([exports]),
  };
}

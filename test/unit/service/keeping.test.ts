/** What the service keeps: open points, recent repositories; and the folders it shows. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { browseFolder } from '../../../main/engine/service/browse.ts';
import type { PointLocation } from '../../../main/engine/service/open-point.ts';
import { PointPool } from '../../../main/engine/service/point-pool.ts';
import { RecentRepositories } from '../../../main/engine/service/recent.ts';
import { Confinement } from '../../../main/engine/storage/confinement.ts';
import { scratchFolder } from '../../support/scratch.ts';

const scratch = scratchFolder('keeping');
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(scratch.path, 'folder-'));
});

describe('PointPool', () => {
  function location(point: string, source = folder): PointLocation {
    const path = join(folder, `${point}.img`);
    writeFileSync(path, Buffer.alloc(512));
    const confinement = new Confinement(folder, { synchronous: true });
    return {
      source,
      vm: 'web01',
      point,
      pointName: point,
      folder: confinement,
      disks: [{ index: 0, file: `${point}.img`, path }],
    };
  }
  const openImages = () =>
    readdirSync('/proc/self/fd')
      .map((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`);
        } catch {
          return ''; // The listing's own descriptor, gone by now.
        }
      })
      .filter((path) => path.startsWith(`${folder}/`));

  it('shares a point between all who look at it', () => {
    const pool = new PointPool(true);
    const a = pool.lease(location('a'));
    const again = pool.lease(location('a'));
    const b = pool.lease(location('b'));
    expect(again.point).toBe(a.point);
    expect(b.point).not.toBe(a.point);
    expect(pool.lease(location('a', '/another')).point).not.toBe(a.point);
  });

  it('keeps eight idle points, and never closes one in use', async () => {
    const pool = new PointPool(true);
    const used = pool.lease(location('used'));
    await used.point.disk(0);
    const closed: string[] = [];
    for (let i = 0; i < 12; i++) {
      const lease = pool.lease(location(`p${i}`));
      await lease.point.disk(0);
      const close = lease.point.close.bind(lease.point);
      lease.point.close = () => {
        closed.push(`p${i}`);
        return close();
      };
      lease.release();
      lease.release();
    }
    expect(closed).toEqual(['p0', 'p1', 'p2', 'p3']);
    await vi.waitFor(() => expect(openImages()).toHaveLength(9));
    expect(openImages()).toContain(join(folder, 'used.img'));
    await pool.close();
    expect(openImages()).toEqual([]);
  });

  it('forgets a source: idle points now, points in use with their last user', async () => {
    const pool = new PointPool(true);
    const idle = pool.lease(location('idle'));
    await idle.point.disk(0);
    idle.release();
    const first = pool.lease(location('used'));
    const second = pool.lease(location('used'));
    await first.point.disk(0);
    const other = pool.lease(location('other', '/another'));
    await other.point.disk(0);
    // Twice, and with a new point of the same name between: each is closed once, and none is lost.
    await pool.forget(folder);
    expect(openImages().sort()).toEqual([join(folder, 'other.img'), join(folder, 'used.img')]);
    const anew = pool.lease(location('used'));
    expect(anew.point).not.toBe(first.point);
    await anew.point.disk(0);
    await pool.forget(folder);
    expect(openImages()).toHaveLength(3);
    first.release();
    expect(openImages()).toHaveLength(3);
    second.release();
    await vi.waitFor(() => expect(openImages()).toHaveLength(2));
    expect((await (await anew.point.disk(0)).read(0, 1))[0]).toBe(0);
    anew.release();
    await vi.waitFor(() => expect(openImages()).toEqual([join(folder, 'other.img')]));
    await pool.close();
    expect(openImages()).toEqual([]);
  });

  it('closes forgotten points that are still in use when it ends', async () => {
    const pool = new PointPool(true);
    const lease = pool.lease(location('used'));
    await lease.point.disk(0);
    await pool.forget(folder);
    await pool.close();
    expect(openImages()).toEqual([]);
    lease.release();
  });
});

describe('RecentRepositories', () => {
  const file = () => join(folder, 'config', 'recent.json');
  const recent = () => new RecentRepositories(join(folder, 'config'));
  const pathsOf = async () => (await recent().list()).map(({ path }) => path);

  it('begins with nothing, and makes its folder', async () => {
    expect(await recent().list()).toEqual([]);
    expect(existsSync(join(folder, 'config'))).toBe(false);
    await recent().add('/backups/web01');
    expect(await recent().list()).toEqual([
      { path: '/backups/web01', name: 'web01', opened: expect.stringMatching(/^\d{4}-.*Z$/) },
    ]);
    expect(statSync(file()).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, 'config')).mode & 0o777).toBe(0o700);
  });

  it('keeps the newest first, each once, twenty of them', async () => {
    const list = recent();
    for (let i = 0; i < 30; i++) await list.add(`/r${i}`);
    await list.add('/r25');
    expect((await pathsOf()).slice(0, 3)).toEqual(['/r25', '/r29', '/r28']);
    expect(await pathsOf()).toHaveLength(20);
    await list.remove('/r29');
    await list.remove('/never there');
    expect(await pathsOf()).toHaveLength(19);
    await list.add('/');
    expect((await list.list())[0]).toMatchObject({ path: '/', name: '/' });
  });

  it('loses none of many added at once', async () => {
    const list = recent();
    await Promise.all(Array.from({ length: 15 }, (_, i) => list.add(`/r${i}`)));
    expect((await pathsOf()).sort()).toEqual(Array.from({ length: 15 }, (_, i) => `/r${i}`).sort());
    expect(readdirSync(join(folder, 'config'))).toEqual(['recent.json']);
  });

  it('starts anew from what it can not understand', async () => {
    mkdirSync(join(folder, 'config'));
    for (const text of [
      '',
      '{',
      'null',
      '5',
      '{"a":1}',
      '\0\0\0',
      '[1, null, "x", {"path": 5}, [], {"path": "/only"}]',
    ]) {
      writeFileSync(file(), text);
      expect(await recent().list(), text).toEqual([]);
    }
    const good = { path: '/good', name: 'good', opened: '2026-01-01T00:00:00Z' };
    writeFileSync(file(), JSON.stringify([null, good, { path: '/bad' }]));
    expect(await recent().list()).toEqual([good]);
    writeFileSync(file(), '{');
    await recent().add('/new');
    expect(await pathsOf()).toEqual(['/new']);
  });

  it('says when it can not be read or written, and goes on afterwards', async () => {
    mkdirSync(file(), { recursive: true });
    await expect(recent().list()).rejects.toMatchObject({ kind: 'io' });
    writeFileSync(join(folder, 'no folder'), '');
    const blocked = new RecentRepositories(join(folder, 'no folder'));
    await expect(blocked.add('/a')).rejects.toMatchObject({ kind: 'io' });
    const list = new RecentRepositories(join(folder, 'later'));
    mkdirSync(join(folder, 'later', 'recent.json'), { recursive: true });
    const failing = list.add('/a');
    await expect(failing).rejects.toMatchObject({ kind: 'io' });
    const { rmdirSync } = await import('node:fs');
    rmdirSync(join(folder, 'later', 'recent.json'));
    await list.add('/b');
    expect(JSON.parse(readFileSync(join(folder, 'later', 'recent.json'), 'utf8'))).toMatchObject([{ path: '/b' }]);
  });
});

describe('browseFolder', () => {
  /** Parts of images, and what describes a VM. */
  const PARTS = ['a-flat.vmdk', 'a-s001.vmdk', 'a-ctk.vmdk', 'parts.002', 'web.ovf', 'web.vbox'];
  const OPENED = ['app.ova', 'app.ova.gz', 'vm.xva', 'disk.raw.gz', 'parts.001', 'old.qcow', 'mac.hdd'];

  it('shows folders, and what can be opened by itself', async () => {
    for (const name of ['web10', 'web2', 'Web1', '.hidden']) mkdirSync(join(folder, name));
    for (const name of [
      'a.vmdk',
      'b.VMX',
      'c.txt',
      'disk10.qcow2',
      'disk2.qcow2',
      'vmdk',
      'x.avhdx',
      'y.img',
      ...PARTS,
      ...OPENED,
    ])
      writeFileSync(join(folder, name), '');
    mkdirSync(join(folder, 'folder.vmdk'));
    symlinkSync('web2', join(folder, 'to-folder'));
    symlinkSync('a.vmdk', join(folder, 'to-image.vmdk'));
    symlinkSync('nowhere', join(folder, 'dangling'));
    const listing = await browseFolder(folder);
    expect(listing).toMatchObject({ path: folder, parent: scratch.path });
    expect([...listing.folders].sort()).toEqual(['.hidden', 'Web1', 'folder.vmdk', 'to-folder', 'web10', 'web2']);
    expect(listing.folders.indexOf('web2')).toBeLessThan(listing.folders.indexOf('web10'));
    const named = ['a.vmdk', 'disk2.qcow2', 'disk10.qcow2', 'to-image.vmdk', 'x.avhdx', 'y.img'];
    expect([...listing.images].sort()).toEqual([...named, ...OPENED].sort());
    expect(listing.images.indexOf('disk2.qcow2')).toBeLessThan(listing.images.indexOf('disk10.qcow2'));
  });

  it('begins at home, ends at the root', async () => {
    expect((await browseFolder(undefined)).path).toBe((await import('node:os')).homedir());
    expect(await browseFolder('/')).not.toHaveProperty('parent');
  });

  it('names a folder that it can not list', async () => {
    await expect(browseFolder(join(folder, 'absent'))).rejects.toMatchObject({
      kind: 'io',
      details: { code: 'ENOENT' },
    });
    writeFileSync(join(folder, 'file'), '');
    await expect(browseFolder(join(folder, 'file'))).rejects.toMatchObject({
      kind: 'io',
      details: { code: 'ENOTDIR' },
    });
    if (process.getuid?.() === 0) {
      mkdirSync(join(folder, 'private'), { mode: 0o700 });
      chmodSync(folder, 0o755);
      chmodSync(scratch.path, 0o755);
      process.seteuid!(65534);
      try {
        await expect(browseFolder(join(folder, 'private'))).rejects.toMatchObject({
          kind: 'io',
          details: { code: 'EACCES' },
        });
      } finally {
        process.seteuid!(0);
      }
    }
  });
});

import { describe, expect, it } from 'vitest';
import type { ChainliftApi } from '../../../preload/api.ts';
import { METHODS } from '../../../preload/rpc/protocol.ts';
import { REQUEST_SCHEMAS } from '../../../preload/schemas.ts';

const target = { source: '/srv/backups' };
const good: { [Name in keyof ChainliftApi]: Parameters<ChainliftApi[Name]>[0] } = {
  about: {},
  recent: {},
  forget: { path: '/srv' },
  browse: { path: 'C:\\Backups' },
  scan: { source: '\\\\nas\\backups' },
  report: { source: '\\\\nas\\backups' },
  info: { target: { ...target, vm: 'web01', point: 'before upgrade', disk: 0 } },
  map: { target },
  volumes: { target },
  list: { target, path: '/', long: true },
  stat: { target, path: '/sda1/etc/passwd' },
  read: { target, path: '/sda1/a\\b' },
  preview: { target, path: '/sda1/a', limit: 262_144 },
  changes: { target, path: '/sda1' },
  layers: { target, paths: ['/sda1/a'] },
  copy: { target, paths: ['/sda1/a'], destination: '/root', recursive: true, verify: true, overwrite: 'refuse' },
  hash: { target },
  verify: { target },
  convert: {
    target,
    destination: '/srv/restored.vmdk',
    format: 'vmdk',
    variant: 'streamOptimized',
    verify: true,
    overwrite: 'refuse',
    resume: true,
  },
  locateParent: { source: '/srv/backups', child: 'web01-000002.vmdk', parent: '/mnt/other/web01.vmdk' },
  forgetParent: { source: '/srv/backups', child: 'web01-000002.vmdk' },
  watchTasks: {},
  watchTask: { id: 't1' },
  cancelTask: { id: 't1' },
  dismissTask: { id: 't1' },
  startExport: { target, listen: '127.0.0.1:0' },
  stopExport: { id: 'e1' },
  watchExports: {},
};

const takes = (method: keyof ChainliftApi, request: unknown) => REQUEST_SCHEMAS[method].safeParse(request).success;

describe('request schemas', () => {
  it('are there for every method of the protocol', () => {
    expect(Object.keys(REQUEST_SCHEMAS).sort()).toEqual(Object.keys(METHODS).sort());
  });

  it.each(Object.entries(good))('%s takes what the contract says', (method, request) => {
    expect(takes(method as keyof ChainliftApi, request)).toBe(true);
  });

  it.each(Object.entries(good))(
    '%s refuses keys that are not in the contract, and what is no object',
    (method, request) => {
      expect(takes(method as keyof ChainliftApi, { ...request, extra: 1 })).toBe(false);
      for (const junk of [null, undefined, 'x', 1, []]) expect(takes(method as keyof ChainliftApi, junk)).toBe(false);
    },
  );

  it.each(['', 'relative', './x', '../x', '/srv\0/x', `/${'x'.repeat(40_000)}`, 7, null])(
    'refuses %j as a path of this computer',
    (source) => {
      expect(takes('scan', { source })).toBe(false);
      expect(takes('info', { target: { source } })).toBe(false);
      expect(takes('copy', { ...good.copy, destination: source })).toBe(false);
    },
  );

  it.each(['', 'sda1', 'C:\\x', '/sda1/\0', `/${'x'.repeat(40_000)}`])('refuses %j as a path inside a VM', (path) => {
    expect(takes('stat', { target, path })).toBe(false);
    expect(takes('layers', { target, paths: [path] })).toBe(false);
  });

  it.each(['0.0.0.0:1', '192.168.1.2:10809', 'example.com:1', '127.0.0.1', ':1', '[::]:1', 'localhost:123456'])(
    'refuses to listen on %s',
    (listen) => expect(takes('startExport', { target, listen })).toBe(false),
  );
  it.each(['127.0.0.1:10809', 'localhost:0', '[::1]:10809'])('lets an export listen on %s', (listen) =>
    expect(takes('startExport', { target, listen })).toBe(true),
  );

  it('bounds lists and numbers', () => {
    expect(takes('layers', { target, paths: Array(1_001).fill('/a') })).toBe(false);
    expect(takes('copy', { ...good.copy, paths: [] })).toBe(false);
    expect(takes('copy', { ...good.copy, overwrite: 'always' })).toBe(false);
    expect(takes('preview', { target, path: '/a', limit: 5e9 })).toBe(false);
    expect(takes('info', { target: { ...target, disk: -1 } })).toBe(false);
    expect(takes('info', { target: { ...target, disk: 1.5 } })).toBe(false);
  });
});

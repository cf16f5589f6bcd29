import { expect, it } from 'vitest';
import * as paths from '../../../renderer/logic/paths.ts';

it('goes up and down', () => {
  expect(paths.joinPath('/', 'sda1')).toBe('/sda1');
  expect(paths.joinPath('/sda1/srv', 'www')).toBe('/sda1/srv/www');
  expect(paths.parentOf('/sda1/srv')).toBe('/sda1');
  expect(paths.parentOf('/sda1')).toBe('/');
  expect(paths.parentOf('/')).toBe('/');
  expect(paths.nameOf('/sda1/a b\\c')).toBe('a b\\c');
  expect(paths.volumeOf('/')).toBeUndefined();
  expect(paths.volumeOf('/sda1/srv')).toBe('sda1');
  expect(paths.ancestors('/sda1/srv/www')).toEqual(['/sda1/srv', '/sda1', '/']);
  expect(paths.crumbs('/sda1/srv')).toEqual([
    { name: 'sda1', path: '/sda1' },
    { name: 'srv', path: '/sda1/srv' },
  ]);
  expect(paths.crumbs('/')).toEqual([]);
});

it.each([
  ['/sda1/a/link', 'b', '/sda1/a/b'],
  ['/sda1/a/link', '../b/./c', '/sda1/b/c'],
  ['/sda1/a/link', '/etc/passwd', '/sda1/etc/passwd'],
  ['/sda1/a/link', '../../../../sdb1/x', '/sda1/sdb1/x'],
  ['/sda1/link', '..', '/sda1'],
])('follows %s -> %s inside its volume', (link, target, destination) => {
  expect(paths.linkDestination(link, target)).toBe(destination);
});

it('knows names of this computer, POSIX and Windows', () => {
  expect(paths.hostName('/srv/backups/')).toBe('backups');
  expect(paths.hostName('C:\\Backups\\web')).toBe('web');
  expect(paths.hostName('/')).toBe('/');
  expect(paths.hostJoin('/', 'srv')).toBe('/srv');
  expect(paths.hostJoin('C:\\Backups', 'web')).toBe('C:\\Backups\\web');
});

it('finds the way up on this computer, also from what cannot be read', () => {
  expect(paths.hostParent('/srv/backups/web')).toBe('/srv/backups');
  expect(paths.hostParent('/srv/')).toBe('/');
  expect(paths.hostParent('/')).toBeUndefined();
  expect(paths.hostParent('C:\\Backups\\web')).toBe('C:\\Backups');
  expect(paths.hostParent('C:\\Backups')).toBe('C:\\');
  expect(paths.hostParent('C:\\')).toBeUndefined();
  expect(paths.hostParent('backups')).toBeUndefined();
  expect(paths.hostParent('')).toBeUndefined();
});

it.each([
  ['web01/web01-000001.vmdk', 'web01-000001.vmdk'],
  ['shop.ova/disk1.vmdk', 'disk1.vmdk'],
  ['vm/kvm01.qcow2/@2', 'kvm01.qcow2 @2'],
  ['kvm01.qcow2/@a%20b', 'kvm01.qcow2 @a b'],
  ['kvm01.qcow2/@50%', 'kvm01.qcow2 @50%'],
  ['@odd.vmdk', '@odd.vmdk'],
  ['Macs/mac.hdd/DiskDescriptor.xml', 'mac.hdd'],
  ['DiskDescriptor.xml', 'DiskDescriptor.xml'],
  ['/', '/'],
])('calls the image %s %s', (path, name) => {
  expect(paths.imageName(path)).toBe(name);
});

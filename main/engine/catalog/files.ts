/** Which files of a backup folder are what, by their names. Their content has the last word where they are opened. */
import { basename, dirname } from 'node:path';
import { isDescriptorName } from '../image/parallels/descriptor.ts';
import { isFirstPartName, isLaterPartName, partName } from '../image/raw/parts.ts';

/** Names of disk images, extents among them. */
export function isImageName(name: string): boolean {
  if (isCompanionName(name)) return false;
  return (
    /\.(vmdk|img|raw|dd|qcow2?|qed|vhd|avhd|vhdx|avhdx|vdi|hdd)$/i.test(name) ||
    /\.vmdk(-delta)?\.REDO_\w+$/i.test(name) ||
    // A Parallels disk is a folder, and this its leading file; its .hds images are none by themselves.
    isDescriptorName(basename(name)) ||
    isFirstPartName(name) ||
    isLaterPartName(name)
  );
}

/** What macOS puts beside each file on a foreign file system: its attributes under the file's own ending. */
export function isCompanionName(name: string): boolean {
  return name.startsWith('._');
}

/** Names of what belongs to an image and is none by itself: VMware's extents, the later parts of a split raw image. */
export function isExtentName(name: string): boolean {
  return (
    /-(flat|f\d{3,}|s\d{3,}|delta|sesparse|rdmp?)\.vmdk$/i.test(name) ||
    /-delta\.REDO_\w+$/i.test(name) ||
    isLaterPartName(basename(name))
  );
}

/** The map of changed blocks beside a disk. */
export function isChangeTrackingName(name: string): boolean {
  return /-ctk\.vmdk$/i.test(name);
}

/** The disk that a change tracking file is about. */
export function trackedDisk(name: string): string {
  return name.replace(/-ctk\.vmdk$/i, '.vmdk');
}

/** Saved states and memories of a VM, and what the guest's VSS writers left. */
export function isStateName(name: string): boolean {
  return /\.(vmsn|vmss|vmem|vmrs|vsv|sav)$/i.test(name) || vssManifestUid(name) !== undefined;
}

/** The uid in the name of what VSS writers left, empty where there is none; undefined for other files. */
export function vssManifestUid(name: string): string | undefined {
  return /vss[_-]manifests?(\d*)\.zip$/i.exec(name)?.[1];
}

/**
 * `web01` for `web01.vmdk`, `web01-000002.vmdk`, `web01.vmdk.REDO_a1b2c3`, `web01_1B2F...-AutoRecovery.avhdx` and the like: the name
 * without what VMware, Hyper-V and libvirt add to it for a snapshot.
 */
export function imageStem(path: string): string {
  // A Parallels disk is called as its folder, a split raw image as what its parts have in common.
  if (isDescriptorName(basename(path))) return imageStem(dirname(path));
  const whole = isFirstPartName(basename(path)) ? partName(basename(path))!.stem : basename(path);
  if (whole !== basename(path) && !/\.(raw|img|dd|bin|splitraw)$/i.test(whole)) return whole;
  const name = whole.replace(/(\.vmdk(-delta)?\.REDO_\w+|\.[^.]+)$/i, '');
  const stem = name
    .replace(/-AutoRecovery$/i, '')
    .replace(/_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i, '')
    .replace(/-\d{6}$/, '');
  return stem || basename(path);
}

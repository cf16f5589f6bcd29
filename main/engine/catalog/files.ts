/** Which files of a backup folder are what, by their names. Their content has the last word where they are opened. */
import { basename } from 'node:path';

/** Names of disk images, extents among them. */
export function isImageName(name: string): boolean {
  if (isCompanionName(name)) return false;
  return (
    /\.(vmdk|img|raw|dd|qcow2?|qed|vhd|avhd|vhdx|avhdx|vdi)$/i.test(name) || /\.vmdk(-delta)?\.REDO_\w+$/i.test(name)
  );
}

/** What macOS puts beside each file on a foreign file system: its attributes under the file's own ending. */
export function isCompanionName(name: string): boolean {
  return name.startsWith('._');
}

/** Names that VMware gives to what belongs to a descriptor and is no image by itself. */
export function isExtentName(name: string): boolean {
  return /-(flat|f\d{3,}|s\d{3,}|delta|sesparse|rdmp?)\.vmdk$/i.test(name) || /-delta\.REDO_\w+$/i.test(name);
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
  return /\.(vmsn|vmss|vmem)$/i.test(name) || vssManifestUid(name) !== undefined;
}

/** The uid in the name of what VSS writers left, empty where there is none; undefined for other files. */
export function vssManifestUid(name: string): string | undefined {
  return /vss[_-]manifests?(\d*)\.zip$/i.exec(name)?.[1];
}

/** `web01` for `web01.vmdk`, `web01-000002.vmdk` and `web01.vmdk.REDO_a1b2c3`. */
export function imageStem(path: string): string {
  const name = basename(path).replace(/(\.vmdk(-delta)?\.REDO_\w+|\.[^.]+)$/i, '');
  return name.replace(/-\d{6}$/, '') || basename(path);
}

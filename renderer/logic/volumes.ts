/** What is noteworthy about volumes, and what their state says about the point that holds them. Pure. */
import type { Consistency, FileSystemInfo, VirtualMachine, VolumeInfo } from '../../preload/api.ts';
import { wordsFor } from '../words.ts';
import { plural } from './format.ts';

const CONDITIONS: Readonly<Record<FileSystemInfo['condition'], string | undefined>> = {
  clean: undefined,
  'needs-replay': 'journal needs replay',
  dirty: 'not unmounted cleanly',
  errors: 'has recorded errors',
};

/** What is noteworthy about a volume, in a few words; undefined when nothing is. */
export function volumeCondition(volume: VolumeInfo): string | undefined {
  if (volume.error !== undefined) return wordsFor(volume.error).title.toLowerCase();
  return volume.fileSystem === undefined ? 'no file system' : CONDITIONS[volume.fileSystem.condition];
}

/** How much a volume's state asks for attention: an empty one for none, one that can't be read for more than one to be replayed. */
export function volumeAlarm({ error, fileSystem }: VolumeInfo): 'quiet' | 'warn' | 'bad' {
  if (error === undefined) return fileSystem?.condition === 'errors' ? 'bad' : 'warn';
  if (error.kind !== 'unsupported') return 'bad';
  return error.details.content === 'empty' ? 'quiet' : 'warn';
}

/** Clean file systems that are named one by one; more of them are counted. */
const NAMED = 3;

/** `sda1 fat16 clean`, `sda2 ext4 journal needs replay`: how each file system was left, in the order of the disks. */
export function volumeEvidence(volumes: readonly VolumeInfo[]): string[] {
  const known = volumes.filter((volume) => volume.fileSystem !== undefined);
  const clean = known.filter((volume) => volume.fileSystem?.condition === 'clean');
  const counted = clean.length > NAMED;
  const named = known
    .filter((volume) => !(counted && volume.fileSystem?.condition === 'clean'))
    .map((volume) => `${volume.name} ${volume.fileSystem?.type} ${volumeCondition(volume) ?? 'clean'}`);
  return counted ? [...named, `${plural(clean.length, 'file system')} clean`] : named;
}

const LEVELS: Readonly<Record<Consistency['level'], string>> = {
  application: 'Application consistent',
  'file-system': 'File-system consistent',
  crash: 'Crash consistent',
  memory: 'Consistent with its memory',
  unknown: 'No consistency recorded',
};

export const levelWords = (level: Consistency['level']): string => LEVELS[level];

const ORIGINS: Readonly<Record<VirtualMachine['origin'], string>> = {
  vmware: 'VMware (.vmx, .vmsd)',
  'hyper-v': 'Hyper-V',
  xenserver: 'XenServer',
  libvirt: 'libvirt',
  virtualbox: 'VirtualBox (.vbox)',
  ovf: 'OVF package',
  images: 'Its images alone',
};

/** Whose files describe a VM. */
export const originWords = (origin: VirtualMachine['origin']): string => ORIGINS[origin];

/**
 * `File-system consistent: quiesced flag set, sda2 ext4 clean.` How the file systems were left is evidence beside what was recorded
 * with the point; it never raises the level by itself.
 */
export function consistencyText(consistency: Consistency, volumes: readonly VolumeInfo[] | undefined): string {
  // What the scan saw of a volume is not said twice.
  const unsaid = (volumes ?? []).filter(
    ({ name }) => !consistency.evidence.some((line) => line.startsWith(`${name}: `)),
  );
  const evidence = [...consistency.evidence, ...volumeEvidence(unsaid)];
  const level = LEVELS[consistency.level];
  return evidence.length === 0 ? `${level}.` : `${level}: ${evidence.join(', ')}.`;
}

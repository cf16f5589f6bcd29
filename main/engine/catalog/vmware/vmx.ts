/**
 * A VM's .vmx: its name, what it is made of, and the disks it writes to now.
 *
 * Disks stand under controllers: `scsi0:1.fileName`, `sata0:0`, `ide1:0`, `nvme0:2`. `present` excludes where it is FALSE; other
 * device types (CD drives, pass-through) are no disks. Facts: libvirt src/vmx/vmx.c, virt-v2v input/parse_domain_from_vmx.ml,
 * and real files.
 */
import { NeedsKeyError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import { oneLine } from '../text.ts';
import { type Config, flagOf, integerOf, parseFlag, textOf } from './config.ts';

export interface VmxDisk {
  /** `scsi0:0`. */
  readonly node: string;
  /** As recorded. */
  readonly fileName: string;
  /** `persistent`, `independent-persistent`, `independent-nonpersistent`...; in lower case. */
  readonly mode: string | undefined;
  /** Recorded name of a redo log that holds what was written since the VM was started. */
  readonly redo: string | undefined;
}

export interface VmxMachine {
  readonly name: string | undefined;
  readonly guest: string | undefined;
  readonly cpus: number | undefined;
  readonly memoryBytes: number | undefined;
  readonly firmware: string | undefined;
  /** The rest of the file is encrypted: disks are not known. */
  readonly encrypted: boolean;
  /** In the order in which the guest counts them. */
  readonly disks: readonly VmxDisk[];
  /** `cleanShutdown`: FALSE while the VM runs and after it lost its host. */
  readonly cleanShutdown: boolean | undefined;
  /** Recorded name of the .vmss of a suspended VM. */
  readonly suspendedTo: string | undefined;
  /** Where snapshots are written when that is not the VM's folder. */
  readonly workingFolder: string | undefined;
  readonly findings: readonly Finding[];
}

/** Reads a VM's configuration. Never throws for what it says. */
export function readMachine(config: Config): VmxMachine {
  const findings: Finding[] = [];
  const encrypted =
    textOf(config, 'encryption.keySafe') !== undefined || textOf(config, 'encryption.data') !== undefined;
  if (encrypted) {
    findings.push({
      severity: 'suspicious',
      code: 'encrypted-vm',
      message: new NeedsKeyError(config.source).message,
      source: config.source,
      structure: 'encryption.keySafe',
      remedy: 'Decrypt the VM where its key is, and back it up again; encrypted configurations are not read here.',
    });
  }
  const disks = disksOf(config, findings);
  for (const disk of disks) findings.push(...modeFindings(disk, config.source));
  return {
    name: oneLine(textOf(config, 'displayName') ?? '') || undefined,
    guest: oneLine(textOf(config, 'guestOS') ?? '') || undefined,
    cpus: integerOf(config, 'numvcpus', 1, 4_096) ?? (encrypted ? undefined : 1),
    memoryBytes: memoryOf(config),
    firmware: firmwareOf(config),
    encrypted,
    disks,
    cleanShutdown: flagOf(config, 'cleanShutdown'),
    suspendedTo: textOf(config, 'checkpoint.vmState'),
    workingFolder: textOf(config, 'workingDir'),
    findings,
  };
}

function memoryOf(config: Config): number | undefined {
  const megabytes = integerOf(config, 'memSize', 1, 1 << 30);
  return megabytes === undefined ? undefined : megabytes * 0x10_0000;
}

function firmwareOf(config: Config): string | undefined {
  const firmware = textOf(config, 'firmware')?.trim().toLowerCase();
  if (firmware === undefined) return undefined;
  return firmware === 'efi' && flagOf(config, 'uefi.secureBoot.enabled') === true
    ? 'efi, secure boot'
    : oneLine(firmware);
}

const NODE = /^((scsi|sata|ide|nvme)\d{1,2}):(\d{1,3})$/;
const BUSES = ['scsi', 'sata', 'ide', 'nvme'];

/** Order of two nodes: SCSI, SATA, IDE, NVMe, each by controller and unit. What is no node comes last. */
export function compareNodes(a: string | undefined, b: string | undefined): number {
  const [x, y] = [nodeKey(a), nodeKey(b)];
  return x[0] - y[0] || x[1] - y[1] || x[2] - y[2];
}

function nodeKey(node: string | undefined): [number, number, number] {
  const match = NODE.exec(node ?? '');
  if (match === null) return [BUSES.length, 0, 0];
  return [BUSES.indexOf(match[2]!), Number(match[1]!.slice(match[2]!.length)), Number(match[3])];
}

function disksOf(config: Config, findings: Finding[]): VmxDisk[] {
  const disks: VmxDisk[] = [];
  for (const [key, fileName] of config.values) {
    if (!key.endsWith('.filename')) continue;
    const node = key.slice(0, -'.filename'.length);
    const match = NODE.exec(node);
    if (match === null || fileName === '') continue;
    const value = (name: string): string | undefined => textOf(config, `${node}.${name}`);
    if (flagOf(config, `${node}.present`) === false || flagOf(config, `${match[1]}.present`) === false) continue;
    const type = value('deviceType')?.trim().toLowerCase();
    if (!isDisk(type, fileName)) {
      if (type?.includes('passthru')) {
        findings.push({
          severity: 'note',
          code: 'pass-through-device',
          message: `${node} is a device of the host (${oneLine(fileName)}); a backup does not hold it`,
          source: config.source,
          structure: node,
        });
      }
      continue;
    }
    disks.push({ node, fileName, mode: value('mode')?.trim().toLowerCase(), redo: value('redo') });
  }
  return disks.sort((a, b) => compareNodes(a.node, b.node));
}

function isDisk(type: string | undefined, fileName: string): boolean {
  if (type !== undefined) return type.includes('disk');
  // Without a type it is a disk, unless the name is that of a CD image or of a host's drive.
  return (
    !/\.iso$/i.test(fileName) && !/^\/dev\//.test(fileName) && !/^(auto detect|emptybackingstring)$/i.test(fileName)
  );
}

function modeFindings(disk: VmxDisk, source: string): Finding[] {
  const found: Finding[] = [];
  const structure = disk.node;
  if (disk.mode?.startsWith('independent')) {
    found.push({
      severity: 'note',
      code: 'independent-disk',
      message: `${disk.node} is ${disk.mode}: snapshots do not hold it, only the present state does`,
      source,
      structure,
    });
  }
  if (disk.mode?.endsWith('nonpersistent')) {
    found.push({
      severity: 'note',
      code: 'nonpersistent-disk',
      message: `${disk.node} is ${disk.mode}: what the guest wrote since it was started is thrown away when it stops`,
      source,
      structure,
    });
  }
  if (disk.redo !== undefined && parseFlag(disk.redo) === undefined) {
    found.push({
      severity: 'suspicious',
      code: 'redo-log',
      message: `${disk.node} writes to the redo log ${oneLine(disk.redo)}: what it holds is not in ${oneLine(disk.fileName)}`,
      source,
      structure,
      found: oneLine(disk.redo),
      remedy: 'Open the redo log itself as an image to see what was written since the VM was started.',
    });
  }
  return found;
}

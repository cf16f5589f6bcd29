/**
 * A VM's .vmsd: the tree of its snapshots. `snapshotN.uid`, `.parent` (a uid), `.displayName`, `.description`, `.filename` (the
 * .vmsn), `.createTimeHigh` and `.createTimeLow` (two 32-bit halves, the low one signed, of microseconds since 1970),
 * `.numDisks`, `.diskM.fileName`, `.diskM.node`; `snapshot.current` is the uid that the VM's present state descends from.
 *
 * The disk names of a snapshot are what was current BEFORE it was taken: that is the state it froze.
 *
 * Facts: VMware KB 337269 (Understanding the relationship between snapshots), vatesfr/xen-orchestra's vmsd test, and real files.
 * N is a position and not the uid; gaps, repeated uids and parents that are gone occur in real files and are reported.
 */
import type { Finding } from '../../image/image.ts';
import { withoutLoops } from '../history.ts';
import { oneLine } from '../text.ts';
import { type Config, flagOf, integerOf, textOf } from './config.ts';

/** Snapshots read at most; VMware itself allows 32 in a chain and warns above 3. */
export const MAX_SNAPSHOTS = 4_096;
/** Disks of one snapshot read at most; a VM can have 4 x 64 SCSI disks and some more. */
export const MAX_DISKS = 512;
const MAX_FINDINGS = 200;

export interface VmsdDisk {
  /** As recorded: relative to the .vmsd, or absolute where it was written. */
  readonly fileName: string;
  /** `scsi0:0`, in lower case. */
  readonly node: string | undefined;
}

export interface VmsdSnapshot {
  /** Unique here: the uid; where it is missing or repeated, one made from the position. */
  readonly id: string;
  readonly name: string;
  readonly description: string | undefined;
  /** Id of the parent; undefined for a root. Free of loops. */
  readonly parent: string | undefined;
  /** ISO 8601 UTC. */
  readonly created: string | undefined;
  /** Recorded name of the .vmsn. */
  readonly stateFile: string | undefined;
  /** `snapshotN.type`; hosted products write 1 for snapshots of a running VM. */
  readonly type: number | undefined;
  readonly quiesced: boolean;
  readonly disks: readonly VmsdDisk[];
  /** .vmx files of linked clones that stand on this snapshot. */
  readonly clones: readonly string[];
}

export interface SnapshotTree {
  readonly snapshots: readonly VmsdSnapshot[];
  /** Id of the snapshot that the present state descends from. */
  readonly current: string | undefined;
  readonly needConsolidate: boolean;
  readonly findings: readonly Finding[];
}

/** Reads the tree. Never throws for what the file says. */
export function readSnapshotTree(config: Config): SnapshotTree {
  const findings: Finding[] = [];
  const find: Find = (severity, code, message, structure, found) => {
    // A file that is wrong throughout has been told about after this many.
    if (findings.length >= MAX_FINDINGS) return;
    findings.push({
      severity,
      code,
      message,
      source: config.source,
      structure,
      ...(found === undefined ? {} : { found }),
    });
  };

  const positions = snapshotPositions(config);
  if (positions.length > MAX_SNAPSHOTS) {
    find(
      'damaged',
      'too-many-snapshots',
      `${config.source} lists ${positions.length} snapshots; the first ${MAX_SNAPSHOTS} are shown`,
      'snapshots',
      String(positions.length),
    );
    positions.length = MAX_SNAPSHOTS;
  }
  const promised = integerOf(config, 'snapshot.numSnapshots', 0, 1_000_000);
  if (promised !== undefined && promised !== positions.length) {
    find(
      'suspicious',
      'snapshot-count',
      `${config.source} says it has ${promised} snapshots, and lists ${positions.length}`,
      'snapshot.numSnapshots',
      String(promised),
    );
  }

  const taken = new Map<string, { position: number; parent: string | undefined }>();
  const read: (Omit<VmsdSnapshot, 'parent'> & { parent: string | undefined })[] = [];
  for (const position of positions) {
    const prefix = `snapshot${position}`;
    const uid = config.values.get(`${prefix}.uid`)?.trim() ?? '';
    let id = uid;
    if (!/^\d{1,20}$/.test(uid)) {
      id = prefix;
      find(
        'suspicious',
        'snapshot-without-uid',
        `${prefix} of ${config.source} has no uid; nothing can refer to it`,
        prefix,
        oneLine(uid),
      );
    } else if (taken.has(uid)) {
      id = `${uid}-${prefix}`;
      find(
        'suspicious',
        'duplicate-uid',
        `${prefix} of ${config.source} has the uid ${uid} of an earlier one; it is shown as ${id}`,
        prefix,
        uid,
      );
    }
    const parent = config.values.get(`${prefix}.parent`)?.trim();
    taken.set(id, { position, parent });
    read.push({
      id,
      name: oneLine(config.values.get(`${prefix}.displayname`) ?? '') || `Snapshot ${uid || position}`,
      description: textOf(config, `${prefix}.description`),
      parent: parent === undefined || parent === '' || parent === '0' ? undefined : parent,
      created: createdOf(config, prefix, find),
      stateFile: textOf(config, `${prefix}.filename`),
      type: integerOf(config, `${prefix}.type`, 0, 1_000),
      quiesced: flagOf(config, `${prefix}.quiesced`) ?? false,
      disks: disksOf(config, prefix, find),
      clones: clonesOf(config, prefix),
    });
  }
  const parents = checkedParents(read, find);
  const snapshots = read.map((snapshot) => ({ ...snapshot, parent: parents.get(snapshot.id) }));

  const current = config.values.get('snapshot.current')?.trim();
  const hasCurrent = current !== undefined && current !== '' && current !== '0';
  if (hasCurrent && !taken.has(current)) {
    find(
      'suspicious',
      'current-unknown',
      `The present state descends from the snapshot ${oneLine(current)}, which ${config.source} does not list`,
      'snapshot.current',
      oneLine(current),
    );
  }
  return {
    snapshots,
    current: hasCurrent && taken.has(current) ? current : undefined,
    needConsolidate: flagOf(config, 'snapshot.needConsolidate') ?? false,
    findings,
  };
}

type Find = (severity: Finding['severity'], code: string, message: string, structure: string, found?: string) => void;

/** The N of every `snapshotN.` key, in order. */
function snapshotPositions(config: Config): number[] {
  const found = new Set<number>();
  for (const key of config.values.keys()) {
    const match = /^snapshot(\d{1,7})\./.exec(key);
    if (match !== null) found.add(Number(match[1]));
  }
  return [...found].sort((a, b) => a - b);
}

/** createTimeHigh:createTimeLow as ISO 8601. */
function createdOf(config: Config, prefix: string, find: Find): string | undefined {
  const high = config.values.get(`${prefix}.createtimehigh`)?.trim();
  const low = config.values.get(`${prefix}.createtimelow`)?.trim();
  if (high === undefined && low === undefined) return undefined;
  // 2^21 - 1 in the high half keeps the sum below 2^53 microseconds, which is the year 2255.
  const highNumber = integerOf(config, `${prefix}.createTimeHigh`, 0, 0x1f_ffff);
  const lowNumber = integerOf(config, `${prefix}.createTimeLow`, -0x8000_0000, 0xffff_ffff);
  if (highNumber === undefined || lowNumber === undefined) {
    find(
      'suspicious',
      'snapshot-time',
      `The time of ${prefix} is none: ${oneLine(`${high}:${low}`).slice(0, 60)}`,
      `${prefix}.createTimeHigh`,
    );
    return undefined;
  }
  const microseconds = highNumber * 0x1_0000_0000 + (lowNumber >>> 0);
  return microseconds === 0 ? undefined : new Date(Math.floor(microseconds / 1_000)).toISOString();
}

function disksOf(config: Config, prefix: string, find: Find): VmsdDisk[] {
  const count = integerOf(config, `${prefix}.numDisks`, 0, 1_000_000);
  const disks: VmsdDisk[] = [];
  const limit = Math.min(count ?? MAX_DISKS, MAX_DISKS);
  if (count !== undefined && count > MAX_DISKS) {
    find(
      'damaged',
      'too-many-disks',
      `${prefix} says it has ${count} disks; ${MAX_DISKS} are read at most`,
      `${prefix}.numDisks`,
      String(count),
    );
  }
  for (let index = 0; index < limit; index++) {
    const fileName = textOf(config, `${prefix}.disk${index}.fileName`);
    if (fileName === undefined) {
      if (count === undefined) break;
      find(
        'damaged',
        'snapshot-disk-unnamed',
        `${prefix} says it has ${count} disks and does not name disk ${index}`,
        `${prefix}.disk${index}.fileName`,
      );
      // A count far beyond what is named is one finding, not hundreds.
      if (textOf(config, `${prefix}.disk${index + 1}.fileName`) === undefined) break;
      continue;
    }
    disks.push({ fileName, node: textOf(config, `${prefix}.disk${index}.node`)?.toLowerCase() });
  }
  return disks;
}

function clonesOf(config: Config, prefix: string): string[] {
  const clones: string[] = [];
  const count = integerOf(config, `${prefix}.numClones`, 0, 1_000) ?? 0;
  for (let index = 0; index < count; index++) {
    const clone = textOf(config, `${prefix}.clone${index}`);
    if (clone !== undefined) clones.push(clone);
  }
  return clones;
}

/** Parent by id, without links to what is not there and without loops. */
function checkedParents(
  snapshots: readonly { id: string; parent: string | undefined; created: string | undefined }[],
  find: Find,
): Map<string, string | undefined> {
  const parents = new Map<string, string | undefined>();
  for (const { id, parent } of snapshots) parents.set(id, parent);
  for (const { id, parent } of snapshots) {
    if (parent !== undefined && !parents.has(parent)) {
      find(
        'suspicious',
        'parent-unknown',
        `The parent ${oneLine(parent).slice(0, 40)} of snapshot ${id} is not listed; it is shown as a first one`,
        `snapshot ${id}`,
        oneLine(parent).slice(0, 40),
      );
      parents.set(id, undefined);
    }
  }
  return withoutLoops(parents, (id, parent) =>
    find(
      'damaged',
      'snapshot-loop',
      `The parents of snapshot ${id} lead back to it; it is shown as a first one`,
      `snapshot ${id}`,
      parent,
    ),
  );
}

/**
 * From what a VM's files say of its points to the points of a catalog: what every reader of VM files does in the same way. A
 * draft is a point whose disks were opened and that was not yet compared with the point before it.
 */
import type { Finding } from '../image/image.ts';
import type { Confinement } from '../storage/confinement.ts';
import { inHistoryOrder, withLastIntact } from './history.ts';
import type { LayerIndex } from './layers.ts';
import type { Consistency, RestorePoint } from './model.ts';
import { changedBytesOf, compareWithParent, type ScannedDisk } from './point-disks.ts';

/** What the files around a point prove about how it was taken. */
export interface Evidence {
  readonly memory: boolean;
  readonly quiesced: boolean;
  readonly consistency: Consistency;
  /** Real paths of the files that belong to this point. */
  readonly used: readonly string[];
  readonly findings: readonly Finding[];
}

export interface Draft {
  readonly point: Omit<RestorePoint, 'findings'>;
  readonly disks: readonly ScannedDisk[];
  readonly findings: Finding[];
}

/** What a VM's files say of a point. */
export type AboutPoint = Omit<
  RestorePoint,
  'memory' | 'quiesced' | 'consistency' | 'disks' | 'changedBytes' | 'findings'
>;

/** A folder relative to the repository, `.` for the repository itself. */
export function folderLabel(path: string, folder: Confinement): string {
  return path === folder.root ? '.' : folder.label(path);
}

/** A draft of a point, all of whose files are added to `used`. */
export async function draftOf(
  about: AboutPoint,
  disks: readonly ScannedDisk[],
  evidence: Evidence,
  index: LayerIndex,
  used: Set<string>,
): Promise<Draft> {
  for (const path of evidence.used) used.add(path);
  for (const { disk } of disks) if (disk.path !== undefined) await index.claim(disk.path, used);
  const described = disks.map(({ disk }) => disk);
  const changedBytes = changedBytesOf(described);
  return {
    point: {
      ...about,
      memory: evidence.memory,
      quiesced: evidence.quiesced,
      consistency: evidence.consistency,
      disks: described,
      ...(changedBytes === undefined ? {} : { changedBytes }),
    },
    disks,
    findings: [...evidence.findings, ...disks.flatMap((disk) => disk.findings)],
  };
}

/**
 * Compares every point with the one before, says which point is the last intact one, and puts them in order. Parents must be free
 * of loops (`withoutLoops`). @param currentParent id of the point that the present state descends from.
 */
export function finishDrafts(drafts: readonly Draft[], currentParent: string | undefined): RestorePoint[] {
  const byId = new Map(drafts.map((draft) => [draft.point.id, draft]));
  const named = ({ point, disks }: Draft) => ({ name: point.name, current: point.current, disks });
  const points = drafts.map((draft): RestorePoint => {
    const parent = draft.point.parent === undefined ? undefined : byId.get(draft.point.parent);
    const findings = [
      ...draft.findings,
      ...compareWithParent(named(draft), parent === undefined ? undefined : named(parent)),
      ...goneDisks(draft, parent),
    ];
    return { ...draft.point, currentParent: draft.point.id === currentParent, findings };
  });
  return withLastIntact(inHistoryOrder(points));
}

/** Disks that the point before has and this one lacks: removed in between, or left out of the snapshot. */
function goneDisks(draft: Draft, parent: Draft | undefined): Finding[] {
  const here = new Set(draft.point.disks.map((disk) => disk.node));
  const gone = (parent?.point.disks ?? []).filter((disk) => disk.node !== undefined && !here.has(disk.node));
  return gone.map((disk) => ({
    severity: 'note',
    code: 'disk-gone',
    message: `${disk.node} (${disk.file}) is in "${parent!.point.name}" before this point, and not in this one`,
    structure: disk.node!,
  }));
}

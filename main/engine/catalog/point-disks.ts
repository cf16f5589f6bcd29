/** The disks of one point, and how they stand on those of the point before. */
import { basename, dirname } from 'node:path';
import { chainFinding, findingFromError } from '../chain/verify.ts';
import { CancelledError, ChainliftError, NotFoundError } from '../errors.ts';
import { type Finding, splitSnapshotPath } from '../image/image.ts';
import type { ChainFacts, LayerIndex } from './layers.ts';
import type { PointDisk } from './model.ts';
import { oneLine } from './text.ts';

/** A disk together with the chain it was made from. */
export interface ScannedDisk {
  readonly disk: PointDisk;
  readonly chain: ChainFacts;
  readonly findings: readonly Finding[];
}

export interface RecordedDisk {
  /** Where the VM has it, in the words of its hypervisor: `scsi0:0`. */
  readonly node: string | undefined;
  readonly fileName: string;
}

/**
 * Opens the disks that a VM's file records, in the order they come. What can't be opened stays in the list, with its error.
 * @param from real path of the file that records them. @param workingFolder a folder it names, looked into second (`workingDir` of
 * a .vmx).
 */
export async function scanDisks(
  recorded: readonly RecordedDisk[],
  from: string,
  workingFolder: string | undefined,
  index: LayerIndex,
): Promise<ScannedDisk[]> {
  const scanned: ScannedDisk[] = [];
  for (const [position, { node, fileName }] of recorded.entries()) {
    const place = { index: position, ...(node === undefined ? {} : { node: oneLine(node) }) };
    scanned.push(await scanDisk(place, fileName, from, workingFolder, index));
  }
  return scanned;
}

async function scanDisk(
  place: { index: number; node?: string },
  fileName: string,
  from: string,
  workingFolder: string | undefined,
  index: LayerIndex,
): Promise<ScannedDisk> {
  let path: string;
  try {
    path = resolveDisk(fileName, from, workingFolder, index);
  } catch (error) {
    if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
    const file = oneLine(fileName);
    const finding = findingFromError(error, {
      ...(error.kind === 'not-found'
        ? { code: 'disk-missing', message: `The disk "${file}" is not in the opened folder` }
        : {}),
      source: index.folder.label(from),
      structure: place.node ?? `disk ${place.index}`,
      remedy:
        error.kind === 'denied'
          ? 'Open the folder that holds both the VM and this disk.'
          : 'Put the file where it is looked for and scan again.',
    });
    return {
      disk: { ...place, file, chain: [], error: error.toWire() },
      chain: { layers: [], names: [], error },
      findings: [finding],
    };
  }
  return describeChain(place, path, index);
}

/** A disk from its leaf image. */
export async function describeChain(
  place: { index: number; node?: string },
  path: string,
  index: LayerIndex,
): Promise<ScannedDisk> {
  const chain = await index.chain(path);
  const findings: Finding[] = [];
  const leaf = chain.layers[0];
  if (chain.error !== undefined) findings.push(chainFinding(chain.error, chain.layers));
  if (leaf?.allocated instanceof ChainliftError) {
    findings.push(
      findingFromError(leaf.allocated, { remedy: 'Run verify on this point to see how far the damage goes.' }),
    );
  }
  const disk: PointDisk = {
    ...place,
    file: index.folder.label(path),
    path,
    ...(leaf === undefined ? {} : { size: leaf.virtualSize }),
    ...(typeof leaf?.allocated === 'number' ? { changedBytes: leaf.allocated } : {}),
    chain: chain.names,
    ...(chain.error === undefined ? {} : { error: chain.error.toWire() }),
  };
  return { disk, chain, findings };
}

function resolveDisk(fileName: string, from: string, workingFolder: string | undefined, index: LayerIndex): string {
  try {
    return index.folder.resolveRecorded(fileName, from);
  } catch (error) {
    if (workingFolder === undefined || !(error instanceof NotFoundError) || /[\\/]/.test(fileName)) throw error;
  }
  return index.folder.resolveRecorded(`${workingFolder.replace(/[\\/]$/, '')}/${fileName}`, from);
}

/** Sum of what the leaves hold; undefined when one is not known. */
export function changedBytesOf(disks: readonly PointDisk[]): number | undefined {
  let sum = 0;
  for (const disk of disks) {
    if (disk.changedBytes === undefined) return undefined;
    sum += disk.changedBytes;
  }
  return sum;
}

/** How a disk stands on the same disk of the point before. */
type Step =
  | { readonly kind: 'direct' | 'same' | 'unrelated' | 'unknown' }
  | { readonly kind: 'extra'; readonly between: readonly string[] };

function stepOf(chain: ChainFacts, before: string | undefined): Step {
  if (before === undefined) return { kind: 'unknown' };
  const leaf = chain.layers[0]?.path;
  if (leaf === before) return { kind: 'same' };
  // A snapshot inside an image is a state that the image had: what the image holds now, or what stands on it, came after.
  const inside = splitSnapshotPath(before)?.image;
  if (inside !== undefined && imageOf(leaf) === inside) return { kind: 'direct' };
  const at = chain.layers.findIndex((layer) => layer.path === (inside ?? before));
  if (at === 1) return { kind: 'direct' };
  if (at > 1) return { kind: 'extra', between: chain.layers.slice(1, at).map((layer) => layer.name) };
  return { kind: chain.error === undefined ? 'unrelated' : 'unknown' };
}

function imageOf(path: string | undefined): string | undefined {
  return path === undefined ? undefined : (splitSnapshotPath(path)?.image ?? path);
}

export interface NamedPoint {
  readonly name: string;
  readonly current: boolean;
  readonly disks: readonly ScannedDisk[];
}

/** What is odd about a point's disks, seen from the point before (undefined for a first one). */
export function compareWithParent(point: NamedPoint, parent: NamedPoint | undefined): Finding[] {
  if (parent === undefined) return point.disks.flatMap((disk) => firstPointFindings(point, disk));
  const findings: Finding[] = [];
  const advanced: string[] = [];
  const left: string[] = [];
  for (const scanned of point.disks) {
    const before = parent.disks.find(({ disk }) => disk.node === scanned.disk.node && disk.node !== undefined)?.disk;
    const step = stepOf(scanned.chain, before?.path);
    const what = scanned.disk.node ?? scanned.disk.file;
    if (step.kind === 'direct' || step.kind === 'extra') advanced.push(what);
    if (step.kind === 'same' || step.kind === 'unrelated') left.push(what);
    if (step.kind === 'extra') findings.push(leftoverFinding(point, scanned.disk.file, step.between));
    if (step.kind === 'unrelated') {
      findings.push({
        severity: 'suspicious',
        code: 'disk-off-the-tree',
        message: `${scanned.disk.file} does not stand on ${before?.file}, the disk of "${parent.name}" before it`,
        source: scanned.disk.file,
        structure: what,
        ...(before === undefined ? {} : { expected: before.file }),
        found: scanned.disk.chain.slice(1, 3).join(', ') || 'a base',
        remedy: 'The disk can be opened; that it is of this moment is not proved.',
      });
    }
    if (step.kind === 'same') {
      findings.push({
        severity: 'suspicious',
        code: point.current ? 'writes-to-frozen-disk' : 'same-disk-as-parent',
        message: point.current
          ? `The VM's present disk is ${scanned.disk.file}, the one that "${parent.name}" froze: what the VM wrote since then changed that point`
          : `${scanned.disk.file} is the disk of "${parent.name}" as well; the two points do not differ here`,
        source: scanned.disk.file,
        structure: what,
      });
    }
  }
  if (advanced.length > 0 && left.length > 0) {
    findings.push({
      severity: 'suspicious',
      code: 'disks-of-different-moments',
      message: `The disks of this point are not of one moment: ${advanced.join(', ')} went on since "${parent.name}", ${left.join(', ')} did not`,
      structure: left.join(', '),
    });
  }
  return findings;
}

function firstPointFindings(point: NamedPoint, { disk, chain }: ScannedDisk): Finding[] {
  const [leaf, ...below] = chain.layers;
  if (leaf === undefined || below.length === 0) return [];
  const home = dirname(leaf.path);
  const near = below.filter((layer) => dirname(layer.path) === home).map((layer) => layer.name);
  const far = below.filter((layer) => dirname(layer.path) !== home).map((layer) => layer.name);
  const findings: Finding[] = [];
  if (near.length > 0) findings.push(leftoverFinding(point, disk.file, near));
  if (far.length > 0) {
    findings.push({
      severity: 'note',
      code: 'linked-clone',
      message: `${disk.file} stands on ${far.length === 1 ? 'a layer' : `${far.length} layers`} of another folder (${list(far)}), as disks of linked clones do`,
      source: disk.file,
    });
  }
  return findings;
}

function leftoverFinding(point: NamedPoint, file: string, layers: readonly string[]): Finding {
  return {
    severity: 'suspicious',
    code: 'needs-consolidation',
    message: `${file} stands on ${layers.length === 1 ? 'a layer that no snapshot names' : `${layers.length} layers that no snapshot names`} (${list(layers)}): a snapshot was removed, as backup jobs do, and its disk was not merged`,
    source: file,
    structure: point.current ? 'present state' : `snapshot "${point.name}"`,
    remedy: 'The point can be opened as it is. The VM itself needs its disks consolidated.',
  };
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, 4).map((name) => basename(name));
  return names.length > 4 ? `${shown.join(', ')} and ${names.length - 4} more` : shown.join(', ');
}

/** The disks of libvirt's points: the images that a domain names, snapshots inside them, and what lies under an overlay. */
import { basename, dirname } from 'node:path';
import { ChainliftError, NotFoundError } from '../../errors.ts';
import { type Finding, snapshotPath } from '../../image/image.ts';
import type { LayerIndex } from '../layers.ts';
import { type FileIndex, locateRecorded } from '../locate.ts';
import { describeChain, type ScannedDisk, scanDisks } from '../point-disks.ts';
import { oneLine } from '../text.ts';
import type { DomainDisk } from './domain.ts';
import type { FoundInside } from './evidence.ts';
import type { LibvirtSnapshot, SnapshotDisk } from './snapshot.ts';

/** From where recorded names are looked up. */
export interface Place {
  /** Real path of the file that records them. */
  readonly from: string;
  readonly home: string;
  readonly files: FileIndex;
  readonly index: LayerIndex;
  /** Names of the files beside `from`, for what is told of disks that are missing. */
  readonly beside: readonly string[];
}

/** The disks of a domain, as they are now. */
export async function domainDisks(disks: readonly DomainDisk[], place: Place): Promise<ScannedDisk[]> {
  const scanned: ScannedDisk[] = [];
  for (const disk of disks) scanned.push(await domainDisk(disk, scanned.length, place));
  return scanned;
}

export interface SnapshotDisks {
  readonly disks: readonly ScannedDisk[];
  readonly inside: readonly FoundInside[];
  /** What is to be said of the point besides what its disks say. */
  readonly findings: readonly Finding[];
}

/** The disks of a snapshot, each in the state that it froze. @param disks of the VM when it was taken. */
export async function snapshotDisks(
  snapshot: LibvirtSnapshot,
  disks: readonly DomainDisk[],
  place: Place,
): Promise<SnapshotDisks> {
  const scanned: ScannedDisk[] = [];
  const inside: FoundInside[] = [];
  const findings: Finding[] = [];
  for (const disk of disks) {
    const about = snapshot.disks.find(({ name }) => name !== '' && (name === disk.node || name === disk.file));
    // Old versions list no disks: then all of them are inside their images.
    const kept = about?.kept ?? (snapshot.disks.length === 0 ? 'internal' : 'no');
    const at = scanned.length;
    if (kept === 'internal') {
      const found = await internalDisk(snapshot, disk, at, place);
      scanned.push(found.scanned);
      if (found.inside !== undefined) inside.push(found.inside);
    } else if (kept === 'external') {
      scanned.push(await externalDisk(about!, disk, at, place));
    } else {
      const what = nameOf(disk);
      findings.push({
        severity: 'note',
        code: 'disk-not-in-snapshot',
        message:
          kept === 'manual'
            ? `${what} was snapshotted by other means than libvirt's (snapshot='manual'); its state is not known here`
            : `${what} was left out of this snapshot (snapshot='no')`,
        source: place.index.folder.label(place.from),
        structure: what,
      });
    }
  }
  return { disks: scanned, inside, findings };
}

async function domainDisk(disk: DomainDisk, position: number, place: Place): Promise<ScannedDisk> {
  const { index } = place;
  if (disk.file === undefined) return elsewhere(disk, position, place);
  const fileName = located(disk.file, place);
  const [only] = await scanDisks([{ node: disk.node, fileName }], place.from, undefined, index);
  const scanned = { ...only!, disk: { ...only!.disk, index: position } };
  return {
    ...scanned,
    findings: [...scanned.findings, ...formatFindings(disk, scanned), ...streams(disk, scanned, place)],
  };
}

async function internalDisk(
  snapshot: LibvirtSnapshot,
  disk: DomainDisk,
  position: number,
  place: Place,
): Promise<{ readonly scanned: ScannedDisk; readonly inside?: FoundInside }> {
  const { index } = place;
  const image = await domainDisk(disk, position, place);
  const path = image.disk.path;
  const facts = path === undefined ? undefined : await index.facts(path);
  if (path === undefined || facts === undefined || facts instanceof ChainliftError) return { scanned: image };
  const named = (facts.snapshots ?? []).filter(({ name }) => name === snapshot.name);
  // libvirt allows a name once; a copy of an image may hold more. The one of the recorded second is meant.
  const found = named.find(({ created }) => created?.slice(0, 19) === snapshot.created?.slice(0, 19)) ?? named.at(-1);
  const node = disk.node === undefined ? {} : { node: disk.node };
  if (found !== undefined) {
    const inner = snapshotPath(path, found.id);
    const scanned = await describeChain({ index: position, ...node }, inner, index);
    return { scanned, inside: { image: path, snapshot: found } };
  }
  const error = new NotFoundError(`Snapshot "${oneLine(snapshot.name)}" in ${facts.name}`, {
    source: facts.name,
    snapshot: snapshot.name,
    choices: (facts.snapshots ?? []).slice(0, 20).map(({ name }) => oneLine(name)),
  });
  const finding: Finding = {
    severity: 'damaged',
    code: 'internal-snapshot-missing',
    message: `${facts.name} holds no snapshot "${oneLine(snapshot.name)}"${facts.format === 'qcow2' ? '' : `; images of format ${facts.format} hold none`}`,
    source: facts.name,
    structure: 'snapshot table',
    expected: oneLine(snapshot.name),
    found:
      (facts.snapshots ?? [])
        .map(({ name }) => oneLine(name))
        .join(', ')
        .slice(0, 200) || 'no snapshots',
    remedy: 'The other disks of this point can be opened. Take this image from another copy of the backup.',
  };
  return {
    scanned: {
      disk: { index: position, ...node, file: facts.name, chain: [], error: error.toWire() },
      chain: { layers: [], names: [], error },
      findings: [finding],
    },
  };
}

/** The state that an external snapshot froze: what the file that is written to since stands on. */
async function externalDisk(
  about: SnapshotDisk,
  disk: DomainDisk,
  position: number,
  place: Place,
): Promise<ScannedDisk> {
  const { index } = place;
  const under = about.overlay === undefined ? undefined : await parentOf(about.overlay, place);
  const then = await domainDisk(disk, position, place);
  if (under === undefined || under === then.disk.path) return then;
  const node = disk.node === undefined ? {} : { node: disk.node };
  const scanned = await describeChain({ index: position, ...node }, under, index);
  if (then.disk.path === undefined) return scanned;
  const finding: Finding = {
    severity: 'suspicious',
    code: 'overlay-on-other-base',
    message: `${basename(about.overlay!)} stands on ${scanned.disk.file}, and the snapshot says that ${nameOf(disk)} was ${then.disk.file} when it was taken`,
    source: index.folder.label(place.from),
    structure: nameOf(disk),
    expected: then.disk.file,
    found: scanned.disk.file,
    remedy: 'The file under the overlay is shown: it is what was written to until then. It may have been merged since.',
  };
  return { ...scanned, findings: [...scanned.findings, finding] };
}

/** The real path of the parent of an overlay; undefined where either is not there. */
async function parentOf(overlay: string, place: Place): Promise<string | undefined> {
  const path = pathOf(overlay, place);
  const facts = path === undefined ? undefined : await place.index.facts(path);
  return facts === undefined || facts instanceof ChainliftError ? undefined : place.index.namedParent(facts);
}

/** The real path of a recorded file; undefined where there is none in the folder. */
export function pathOf(recorded: string, place: Place): string | undefined {
  try {
    return place.index.folder.resolveRecorded(located(recorded, place), place.from);
  } catch (error) {
    // That it is missing is told by the disks that need it.
    if (error instanceof ChainliftError) return undefined;
    throw error;
  }
}

function located(recorded: string, { from, home, files, index }: Place): string {
  return locateRecorded(recorded, from, home, files, index.folder);
}

/** A disk that is no file: nothing of it can be in a folder of files. */
function elsewhere(disk: DomainDisk, position: number, place: Place): ScannedDisk {
  const what = disk.elsewhere ?? 'a disk without a source';
  const error = new NotFoundError(`The content of ${what}`, { recorded: what });
  return {
    disk: {
      index: position,
      ...(disk.node === undefined ? {} : { node: disk.node }),
      file: what,
      chain: [],
      error: error.toWire(),
    },
    chain: { layers: [], names: [], error },
    findings: [
      {
        severity: 'suspicious',
        code: 'disk-is-no-file',
        message: `${nameOf(disk)} is no file but ${what}; a backup of files does not hold it`,
        source: place.index.folder.label(place.from),
        structure: nameOf(disk),
        remedy: 'Where its content was copied to an image, open that image by itself.',
      },
    ],
  };
}

/**
 * What was opened is not what the XML says it is. It matters most where the XML says raw: then the guest itself may have written
 * what looks like an image.
 */
function formatFindings(disk: DomainDisk, { chain, disk: { file } }: ScannedDisk): Finding[] {
  const leaf = chain.layers[0];
  if (leaf === undefined || disk.format === undefined || disk.format === leaf.format) return [];
  return [
    {
      severity: 'suspicious',
      code: 'format-differs',
      message: `${file} is ${leaf.format} by its content, and the domain says ${disk.format}; it is read as ${leaf.format}`,
      source: file,
      structure: nameOf(disk),
      expected: oneLine(disk.format),
      found: leaf.format,
      ...(disk.format === 'raw'
        ? { remedy: 'If the VM itself wrote that header, copy the file to a name that ends in .raw and open that.' }
        : {}),
    },
  ];
}

/** virtnbdbackup keeps each disk as a stream of its own beside the domain: `vda.full.data`, `vda.inc.virtnbdbackup.1.data`. */
function streams(disk: DomainDisk, scanned: ScannedDisk, place: Place): Finding[] {
  if (scanned.disk.path !== undefined || disk.node === undefined) return [];
  const mine = place.beside.filter((name) => {
    const match = /^(.+?)\.(full|copy|inc|diff)\.(.*\.)?data$/i.exec(name);
    return match?.[1] === disk.node;
  });
  if (mine.length === 0) return [];
  return [
    {
      severity: 'note',
      code: 'backup-stream',
      message: `${mine.slice(0, 3).join(', ')}${mine.length > 3 ? '...' : ''} ${mine.length === 1 ? 'is a stream' : 'are streams'} of virtnbdbackup with ${disk.node} in it, which is not read here`,
      source: place.index.folder.label(dirname(place.from)),
      structure: disk.node,
      remedy: 'Write it out as an image with virtnbdrestore, then scan again.',
    },
  ];
}

function nameOf(disk: DomainDisk): string {
  return disk.node ?? oneLine(disk.file ?? disk.elsewhere ?? 'disk');
}

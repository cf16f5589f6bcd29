/**
 * Everything that can be checked of a chain without knowing what its disk should hold: that each link is there and the right
 * one, that sizes agree, that no file serves two layers, and each layer's own tables and checksums. Damage is reported, never
 * thrown; each finding says what can still be done.
 */
import { statSync } from 'node:fs';
import { CancelledError, ChainliftError, CorruptError, MissingParentError, throwIfCancelled } from '../errors.ts';
import type { Finding, ImageLayer } from '../image/image.ts';
import { checkChangeTracking } from '../image/vmdk/change-tracking.ts';
import type { Confinement } from '../storage/confinement.ts';
import { followChain } from './open.ts';

/** VMware's own limit of links; longer chains of VMDKs can't have been made by it, and can't be run by it. */
const VMWARE_DEPTH = 32;

export interface VerifyProgress {
  /** Layers checked. */
  readonly itemsDone: number;
  readonly itemsTotal: number;
  /** The layer that is being checked. */
  readonly current?: string;
}

export interface VerifyOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: VerifyProgress) => void;
}

/**
 * Checks the chain under the image at `path`, from the base up, so that a finding can say which points it leaves alone. Yields
 * nothing for a chain without fault. Never throws for damage. @throws CancelledError.
 */
export async function* verifyChain(
  path: string,
  folder: Confinement,
  options: VerifyOptions = {},
): AsyncIterable<Finding> {
  throwIfCancelled(options.signal);
  const { layers, error } = await followChain(path, folder);
  try {
    if (error !== undefined) yield chainFinding(error, layers);
    yield* linkFindings(layers);
    yield* sharedFiles(layers);
    // Lowest layer (highest index) first.
    let lowestDamaged: number | undefined;
    for (let index = layers.length - 1; index >= 0; index--) {
      const layer = layers[index]!;
      throwIfCancelled(options.signal);
      options.onProgress?.({ itemsDone: layers.length - 1 - index, itemsTotal: layers.length, current: layer.name });
      for await (const finding of checkLayer(layer, options.signal)) {
        if (finding.severity === 'damaged') lowestDamaged ??= index;
        yield finding.severity === 'damaged' && finding.remedy === undefined
          ? { ...finding, remedy: remedyForDamage(layers, lowestDamaged ?? index, error !== undefined) }
          : finding;
      }
      if (layer.format === 'vmdk') yield* checkedTracking(layer, folder);
    }
    options.onProgress?.({ itemsDone: layers.length, itemsTotal: layers.length });
  } finally {
    await Promise.all(layers.map((layer) => layer.close()));
  }
}

/** An error as a finding, with what it names. `code` is made from the kind unless given. */
export function findingFromError(error: ChainliftError, extra: Partial<Finding> = {}): Finding {
  const { structure, position, expected, found, source, child } = error.details;
  return {
    // What this version can't read is not damaged for that.
    severity: error.kind === 'unsupported' || error.kind === 'needs-key' ? 'suspicious' : 'damaged',
    code: codeOf(error),
    message: error.message,
    ...optional('source', text(source) ?? text(child)),
    ...optional('structure', text(structure)),
    ...optional('position', typeof position === 'number' ? position : undefined),
    ...optional('expected', textOrNumber(expected)),
    ...optional('found', textOrNumber(found)),
    ...extra,
  };
}

/** The name of the check that an error of opening a chain answers. */
function codeOf(error: ChainliftError): string {
  if (error instanceof MissingParentError)
    return error.details.candidate === undefined ? 'missing-parent' : 'cid-mismatch';
  if (error instanceof CorruptError) return error.details.structure === 'Chain' ? 'chain-shape' : 'layer-damaged';
  switch (error.kind) {
    case 'denied':
      return 'outside-repository';
    case 'unsupported':
      return 'layer-unsupported';
    case 'needs-key':
      return 'layer-encrypted';
    case 'not-found':
      return 'file-missing';
    default:
      return 'layer-unreadable';
  }
}

/** The finding for a chain that ends before its base. `layers` are those above the break. */
export function chainFinding(error: ChainliftError, layers: readonly { readonly name: string }[]): Finding {
  const { recorded, expectedId, foundId, candidate } = error.details;
  const lowest = layers.at(-1)?.name;
  if (error instanceof MissingParentError) {
    return findingFromError(error, {
      structure: 'parent link',
      ...optional('expected', text(expectedId) ?? text(recorded)),
      found: candidate === undefined ? 'no such file' : (text(foundId) ?? 'no content id'),
      remedy:
        candidate === undefined
          ? `Find the file that ${lowest} records as "${recorded}" and put it where it is looked for, or say where it is. Points further down that do not need ${lowest} can still be opened.`
          : `Find the ${candidate} that has the content id ${expectedId}, in another copy of this backup, and put it in its place or say where it is. The present ${candidate} can still be opened as a point of its own.`,
      ...locate(error),
    });
  }
  if (error.kind === 'denied') {
    return findingFromError(error, {
      structure: 'parent link',
      ...optional('found', text(recorded)),
      remedy: 'Open the folder that holds both, copy the parent into this one, or say where it is.',
      ...locate(error),
    });
  }
  if (error.kind === 'unsupported' || error.kind === 'needs-key') {
    return findingFromError(error, {
      remedy:
        error.kind === 'needs-key'
          ? 'Decrypt it where its key is, and back it up again; encrypted images are not read here.'
          : 'Convert it, with a program that reads it, to a format that is read here.',
    });
  }
  if (lowest === undefined)
    return findingFromError(error, { remedy: 'Take this file from another copy of the backup.' });
  return findingFromError(error, {
    remedy: `Take the file below ${lowest} from another copy of the backup; nothing above it can be read without it.`,
  });
}

/** Offers to point at the parent, where the error says whose. */
function locate({ details }: ChainliftError): Pick<Finding, 'action'> {
  const child = text(details.child);
  const recorded = text(details.recorded);
  if (child === undefined || recorded === undefined) return {};
  return { action: { kind: 'locate-parent', child, recorded, ...optional('expectedId', text(details.expectedId)) } };
}

function* linkFindings(layers: readonly ImageLayer[]): Generator<Finding> {
  if (layers.length > VMWARE_DEPTH && layers.every(({ format }) => format === 'vmdk')) {
    yield {
      severity: 'note',
      code: 'deep-chain',
      message: `The chain has ${layers.length} layers; VMware itself runs at most ${VMWARE_DEPTH}`,
      expected: VMWARE_DEPTH,
      found: layers.length,
    };
  }
  for (const [index, child] of layers.entries()) {
    const parent = layers[index + 1];
    if (parent === undefined) continue;
    if (child.virtualSize !== parent.virtualSize) {
      yield {
        severity: 'suspicious',
        code: 'size-mismatch',
        message: `${child.name} is a disk of ${child.virtualSize} bytes, and its parent ${parent.name} one of ${parent.virtualSize}`,
        source: child.name,
        structure: 'virtual size',
        expected: parent.virtualSize,
        found: child.virtualSize,
        remedy:
          child.virtualSize > parent.virtualSize
            ? 'The disk was made larger after its snapshot; what lies behind the parent reads as zeros where this layer has nothing.'
            : 'The end of the parent is cut off at this point. If that is not wanted, open the parent.',
      };
    }
    const { id, stateId } = child.parent ?? {};
    if (stateId !== undefined && parent.stateId !== undefined && stateId !== parent.stateId) {
      yield {
        severity: 'suspicious',
        code: 'parent-modified',
        message: `${parent.name} was written to after ${child.name} was made on it: what ${child.name} does not hold itself may be of another moment`,
        source: parent.name,
        structure: 'modification id',
        expected: stateId,
        found: parent.stateId,
        remedy: `Take ${parent.name} from a copy of the backup in which it has the expected id; the point of ${parent.name} itself is not affected.`,
      };
    }
    yield* timeFindings(child, parent);
    if (id === undefined) {
      yield {
        severity: 'note',
        code: 'unidentified-parent',
        message: `${child.name} records no identity of its parent; that ${parent.name} is the right one can't be proved`,
        source: child.name,
        structure: 'parent link',
      };
    }
  }
}

/** FAT keeps times to two seconds, and so do some copies. */
const TIME_TOLERANCE = 2;

/** A parent whose file has another time than its child recorded. Copying changes times, so it is evidence and no more. */
function* timeFindings(child: ImageLayer, parent: ImageLayer): Generator<Finding> {
  const recorded = child.parent?.modified;
  const modified = recorded === undefined ? undefined : modifiedTime(parent.path);
  if (recorded === undefined || modified === undefined) return;
  if (Math.abs(modified / 1000 - recorded) <= TIME_TOLERANCE) return;
  yield {
    severity: 'note',
    code: 'parent-time-differs',
    message: `${child.name} was made when ${parent.name} had last been changed at ${isoTime(recorded)}; its file now says ${isoTime(modified / 1000)}. Copying it changes that, and so does writing to it`,
    source: parent.name,
    structure: 'modification time',
    expected: isoTime(recorded),
    found: isoTime(modified / 1000),
  };
}

/** Milliseconds; undefined where there is none: for members of archives, and for a file that went away while it was looked at. */
function modifiedTime(path: string): number | undefined {
  try {
    return statSync(path).mtimeMs;
  } catch {
    return undefined;
  }
}

/** Seconds since 1970 as ISO 8601 UTC; the number where it is no time. */
function isoTime(seconds: number): string {
  const time = new Date(seconds * 1000);
  return Number.isNaN(time.getTime()) ? String(seconds) : time.toISOString();
}

/** A file that two layers of one chain consist of: one of them is not what it says. */
function* sharedFiles(layers: readonly ImageLayer[]): Generator<Finding> {
  const owners = new Map<string, ImageLayer>();
  for (const layer of layers) {
    for (const file of layer.files) {
      const owner = owners.get(file.path);
      if (owner !== undefined && owner !== layer) {
        yield {
          severity: 'damaged',
          code: 'shared-extent',
          message: `${file.name} belongs to two layers of this chain, ${owner.name} and ${layer.name}`,
          source: layer.name,
          structure: 'extent list',
          found: file.name,
          remedy: 'One of the two descriptors is wrong; take both from another copy of the backup.',
        };
      }
      owners.set(file.path, layer);
    }
  }
}

async function* checkLayer(layer: ImageLayer, signal: AbortSignal | undefined): AsyncIterable<Finding> {
  try {
    yield* layer.check(signal);
  } catch (error) {
    // A check that can't go on (the disk under it fails) ends with what it has.
    if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
    yield findingFromError(error);
  }
}

async function* checkedTracking(layer: ImageLayer, folder: Confinement): AsyncIterable<Finding> {
  try {
    yield* checkChangeTracking(layer, folder);
  } catch (error) {
    if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
    yield findingFromError(error, { severity: 'note' });
  }
}

function remedyForDamage(layers: readonly ImageLayer[], lowestDamaged: number, broken: boolean): string {
  const damaged = layers[lowestDamaged]!.name;
  const below = layers[lowestDamaged + 1];
  if (below === undefined || broken) {
    return `Every point that stands on ${damaged} has this damage. Take the file from another copy of the backup; what lies outside the damage can still be read.`;
  }
  return `The last intact point below is the one of ${below.name}: neither it nor what it stands on is damaged. What lies outside the damage can still be read.`;
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
function textOrNumber(value: unknown): string | number | undefined {
  return typeof value === 'string' || typeof value === 'number' ? value : undefined;
}
function optional<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]: V });
}

/**
 * What the disks of a point themselves say of how it was taken: file systems that were frozen or unmounted are clean, those of a
 * machine that was running are marked as in use, or have journals to replay. Asked where the files around the point prove nothing,
 * and where they claim that the file systems were quiesced, which their disks may contradict.
 */
import { basename } from 'node:path';
import type { Catalog, Consistency, Finding, RestorePoint, VirtualMachine } from '../catalog/model.ts';
import { isIntact } from '../catalog/model.ts';
import { CancelledError, ChainliftError, throwIfCancelled, UnsupportedError } from '../errors.ts';
import type { FileSystem } from '../filesystem/file-system.ts';
import { Breather } from '../task/breather.ts';
import { OpenPoint } from './open-point.ts';

/** Points of one repository that are looked into; a scan must end. */
const MAX_POINTS = 2_000;
/** Volumes told of one by one. */
const MAX_EVIDENCE = 12;

export interface AssessOptions {
  readonly synchronous: boolean;
  readonly signal?: AbortSignal;
  /** Called with each point before it is looked into. */
  readonly onPoint?: (vm: string, point: string) => void;
}

/** The catalog with every point's consistency as its volumes show it. Damage is no error here. @throws CancelledError. */
export async function assessConsistency(catalog: Catalog, options: AssessOptions): Promise<Catalog> {
  const breather = new Breather();
  const vms: VirtualMachine[] = [];
  let looked = 0;
  for (const vm of catalog.vms) {
    const points: RestorePoint[] = [];
    for (const point of vm.points) {
      throwIfCancelled(options.signal, 'The scan');
      if (!worthALook(point) || looked >= MAX_POINTS) {
        points.push(point);
        continue;
      }
      looked++;
      options.onPoint?.(vm.name, point.name);
      points.push(withVolumes(point, await lookAt(catalog, vm, point, options.synchronous)));
      if (breather.due) await breather.breathe();
    }
    vms.push({ ...vm, points });
  }
  return { ...catalog, vms };
}

/** Memory and applications say more than file systems can; a point that can't be opened says nothing. */
function worthALook(point: RestorePoint): boolean {
  return isIntact(point) && (point.consistency.level === 'unknown' || point.consistency.level === 'file-system');
}

interface Seen {
  readonly name: string;
  readonly text: string;
  /** `unsure`: something is there that can't be judged. */
  readonly verdict: 'clean' | 'in-use' | 'unsure';
}

async function lookAt(
  catalog: Catalog,
  vm: VirtualMachine,
  point: RestorePoint,
  synchronous: boolean,
): Promise<readonly Seen[]> {
  const open = new OpenPoint(
    {
      source: catalog.source,
      vm: vm.name,
      point: point.id,
      pointName: point.name,
      folder: catalog.folder,
      disks: point.disks.map(({ index, file, path }) => ({ index, file, path })),
    },
    synchronous,
  );
  const seen: Seen[] = [];
  try {
    const { volumes, errors } = await open.volumes();
    for (const { disk, error } of errors) seen.push(unsure(`disk ${disk}`, error.message));
    for (const { name } of volumes) {
      try {
        seen.push(judged(name, await open.fileSystem(name)));
      } catch (error) {
        const one = unjudged(name, ours(error));
        if (one !== undefined) seen.push(one);
      }
    }
  } catch (error) {
    seen.push(unsure(basename(point.disks[0]?.file ?? ''), ours(error).message));
  } finally {
    await open.close();
  }
  return seen;
}

function unsure(name: string, text: string): Seen {
  return { name, text, verdict: 'unsure' };
}

function judged(name: string, { type, state }: FileSystem): Seen {
  const what = state.evidence.length === 0 ? '' : `: ${state.evidence.join('; ')}`;
  switch (state.condition) {
    case 'clean':
      return { name, verdict: 'clean', text: `${type} is clean${what}` };
    case 'needs-replay':
      return { name, verdict: 'in-use', text: `${type} was in use, its journal is to be replayed${what}` };
    default:
      return { name, verdict: 'in-use', text: `${type} was in use or has errors${what}` };
  }
}

/** What holds no file system (swap, an empty or a boot loader's partition) proves nothing and hides nothing. */
function unjudged(name: string, error: ChainliftError): Seen | undefined {
  if (!(error instanceof UnsupportedError)) return unsure(name, error.message);
  if (error.details.content !== 'recognised' || /^Linux swap$/.test(String(error.details.feature))) return undefined;
  return unsure(name, `${String(error.details.feature)} is not looked into`);
}

/** Adds what was seen to what was known. */
function withVolumes(point: RestorePoint, seen: readonly Seen[]): RestorePoint {
  const claimed = point.consistency.level;
  const used = seen.filter(({ verdict }) => verdict === 'in-use');
  const ofVolumes = [
    ...seen.slice(0, MAX_EVIDENCE).map(({ name, text }) => `${name}: ${text}`),
    ...(seen.length > MAX_EVIDENCE ? [`and ${seen.length - MAX_EVIDENCE} volumes more`] : []),
  ];
  // What decided comes first.
  const evidence =
    claimed === 'unknown'
      ? [...ofVolumes, ...point.consistency.evidence]
      : [...point.consistency.evidence, ...ofVolumes];
  const consistency: Consistency = { level: levelOf(claimed, seen), evidence };
  if (claimed !== 'file-system' || used.length === 0) return { ...point, consistency };
  const finding: Finding = {
    severity: 'suspicious',
    code: 'quiesced-but-in-use',
    message: `The snapshot is said to be quiesced, and ${used.map(({ name }) => name).join(', ')} ${used.length === 1 ? 'was' : 'were'} in use`,
    structure: used.map(({ name }) => name).join(', '),
    remedy: 'Take this point as one of a crash: what the guest had not written yet is not in it.',
  };
  return { ...point, consistency, findings: [...point.findings, finding] };
}

function levelOf(claimed: Consistency['level'], seen: readonly Seen[]): Consistency['level'] {
  if (seen.some(({ verdict }) => verdict === 'in-use')) return 'crash';
  if (claimed === 'file-system') return claimed;
  const clean = seen.some(({ verdict }) => verdict === 'clean');
  return clean && seen.every(({ verdict }) => verdict === 'clean') ? 'file-system' : 'unknown';
}

function ours(error: unknown): ChainliftError {
  if (error instanceof ChainliftError && !(error instanceof CancelledError)) return error;
  throw error;
}

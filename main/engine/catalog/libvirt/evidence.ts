/**
 * What libvirt's files prove about how a point was taken. Only what is found counts.
 *
 * - Memory: the image holds VM state under the snapshot's name, or the external memory file is there.
 * - File system: the VM was off (`shutoff`), so that no guest had anything open.
 * - Crash: the VM ran and its memory was left out. Whether its file systems were frozen (`--quiesce`) is recorded nowhere.
 */
import { basename } from 'node:path';
import { findingFromError } from '../../chain/verify.ts';
import { CancelledError, ChainliftError } from '../../errors.ts';
import type { Finding, InternalSnapshot } from '../../image/image.ts';
import type { Confinement } from '../../storage/confinement.ts';
import type { Evidence } from '../drafts.ts';
import { memoryEvidence } from '../images.ts';
import type { Consistency } from '../model.ts';
import { oneLine } from '../text.ts';
import type { DomainFile } from './files.ts';
import type { LibvirtSnapshot } from './snapshot.ts';

/** What a saved memory begins with: libvirt's src/qemu/qemu_saveimage.h. The second is of one whose writing was not finished. */
const SAVE_MAGIC = 'LibvirtQemudSave';
const PARTIAL_MAGIC = 'LibvirtQemudPart';

/** A snapshot that was found inside an image. */
export interface FoundInside {
  readonly image: string;
  readonly snapshot: InternalSnapshot;
}

/** @param memoryFile real path of external memory, where there is such a file. */
export async function snapshotEvidence(
  snapshot: LibvirtSnapshot,
  file: string,
  inside: readonly FoundInside[],
  memoryFile: string | undefined,
  folder: Confinement,
): Promise<Evidence> {
  const evidence: string[] = [];
  const findings: Finding[] = [];
  const used: string[] = [];
  let memory = false;
  for (const { image, snapshot: kept } of inside) {
    if (kept.stateBytes === 0) continue;
    memory = true;
    evidence.push(memoryEvidence(image, kept));
  }
  if (snapshot.memory === 'external') {
    if (memoryFile !== undefined) used.push(memoryFile);
    const external = await externalMemory(snapshot, memoryFile, file, folder);
    if (external.finding !== undefined) findings.push(external.finding);
    if (external.evidence !== undefined) {
      memory = true;
      evidence.push(external.evidence);
    }
  } else if (!memory && snapshot.memory === 'internal' && inside.length > 0) {
    findings.push({
      severity: 'suspicious',
      code: 'memory-state-missing',
      message: `${basename(file)} says that the memory is kept inside an image, and no image of this point holds any`,
      source: folder.label(file),
      structure: 'memory',
      remedy: 'The disks can be opened as they are.',
    });
  }
  evidence.push(...stateEvidence(snapshot, file));
  if (!memory) evidence.push('no memory file');
  return {
    memory,
    quiesced: false,
    consistency: { level: levelOf(snapshot.state, memory), evidence },
    used,
    findings,
  };
}

/** What is known of how the VM's present state was left. */
export function currentEvidence(domain: DomainFile): Evidence {
  const consistency: Consistency =
    domain.state === undefined
      ? { level: 'unknown', evidence: [`${basename(domain.path)} does not say whether the VM ran`] }
      : {
          level: domain.state === 'running' || domain.state === 'paused' ? 'crash' : 'unknown',
          evidence: [
            `${basename(domain.path)} is the state of a live VM (${oneLine(domain.state)}): it ran when this was copied`,
          ],
        };
  return { memory: false, quiesced: false, consistency, used: [], findings: [] };
}

function levelOf(state: string | undefined, memory: boolean): Consistency['level'] {
  if (memory) return 'memory';
  if (state === 'shutoff') return 'file-system';
  return RAN.includes(state ?? '') ? 'crash' : 'unknown';
}

const RAN = ['running', 'paused', 'blocked', 'pmsuspended', 'disk-snapshot', 'crashed'];

function stateEvidence({ state, memory }: LibvirtSnapshot, file: string): string[] {
  const name = basename(file);
  if (state === undefined) return [`${name} records no state of the VM`];
  if (state === 'shutoff') return [`${name} says the VM was off (state shutoff)`];
  if (state === 'disk-snapshot') {
    return [
      `${name} says that only the disks were taken (state disk-snapshot); whether the file systems were frozen is not recorded`,
    ];
  }
  const left = memory === 'no' && RAN.includes(state) ? ' and that its memory was left out' : '';
  return [`${name} says the VM was in the state ${oneLine(state)}${left}`];
}

async function externalMemory(
  snapshot: LibvirtSnapshot,
  path: string | undefined,
  file: string,
  folder: Confinement,
): Promise<{ readonly evidence?: string; readonly finding?: Finding }> {
  const recorded = oneLine(snapshot.memoryFile ?? '');
  if (path === undefined) {
    return {
      finding: {
        severity: 'note',
        code: 'state-file-missing',
        message: `The memory file ${recorded} is missing; the disks do not need it`,
        source: folder.label(file),
        structure: 'memory',
        found: recorded,
      },
    };
  }
  try {
    const opened = folder.open(path);
    try {
      const head = await opened.read(0, Math.min(SAVE_MAGIC.length, opened.size));
      const magic = Buffer.from(head).toString('latin1');
      if (magic === SAVE_MAGIC) return { evidence: `${basename(path)} is there with ${opened.size} bytes of VM state` };
      return {
        finding: {
          severity: 'suspicious',
          code: 'state-file-damaged',
          message:
            magic === PARTIAL_MAGIC
              ? `The memory file ${folder.label(path)} was not written to its end`
              : `${folder.label(path)} is not a memory file of libvirt`,
          source: folder.label(path),
          structure: 'save image header',
          position: 0,
          expected: SAVE_MAGIC,
          found: oneLine(magic),
          remedy: 'The disks do not need it.',
        },
      };
    } finally {
      await opened.close();
    }
  } catch (error) {
    if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
    return { finding: findingFromError(error, { severity: 'suspicious', code: 'state-file-damaged' }) };
  }
}

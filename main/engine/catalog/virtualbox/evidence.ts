/**
 * What is known of how a VM's disks were when a snapshot was taken, or when VirtualBox wrote its settings last. A snapshot of a
 * running VM has a saved state (.sav), which holds its memory; nothing here ever asks the guest to quiesce.
 */
import { basename } from 'node:path';
import { findingFromError } from '../../chain/verify.ts';
import { CancelledError, ChainliftError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import type { Confinement } from '../../storage/confinement.ts';
import type { Evidence } from '../drafts.ts';
import { oneLine } from '../text.ts';
import type { VboxMachine, VboxSnapshot } from './settings.ts';

/** What a saved state begins with: SSM of src/VBox/VMM/VMMR3/SSM.cpp, versions 1 and 2. */
const SAVED_STATE = /^\x7fVirtualBox SavedState V\d\.\d/;

export async function snapshotEvidence(
  snapshot: VboxSnapshot,
  config: string,
  locate: (recorded: string) => string,
  folder: Confinement,
): Promise<Evidence> {
  const state = await savedState(snapshot.stateFile, config, locate, folder);
  const evidence = [...state.evidence];
  if (snapshot.stateFile === undefined)
    evidence.push('no saved state is recorded, as VirtualBox keeps of a VM that runs');
  evidence.push('no quiesce mark: VirtualBox has none');
  const level = state.memory ? 'memory' : 'unknown';
  return { ...state, quiesced: false, consistency: { level, evidence } };
}

export async function currentEvidence(
  machine: VboxMachine,
  config: string,
  locate: (recorded: string) => string,
  folder: Confinement,
): Promise<Evidence> {
  const state = await savedState(machine.stateFile, config, locate, folder);
  const evidence = [...state.evidence];
  if (state.memory) evidence.push('the VM was saved');
  if (machine.aborted) evidence.push('aborted is true: VirtualBox lost the VM while it ran');
  else if (!state.memory) evidence.push('aborted is not set; whether the VM ran when this was copied is not recorded');
  const level = state.memory ? 'memory' : machine.aborted ? 'crash' : 'unknown';
  return { ...state, quiesced: false, consistency: { level, evidence } };
}

interface State {
  readonly memory: boolean;
  readonly evidence: readonly string[];
  readonly used: readonly string[];
  readonly findings: readonly Finding[];
}

async function savedState(
  recorded: string | undefined,
  config: string,
  locate: (recorded: string) => string,
  folder: Confinement,
): Promise<State> {
  if (recorded === undefined) return { memory: false, evidence: [], used: [], findings: [] };
  const used: string[] = [];
  try {
    const path = folder.resolveRecorded(locate(recorded), config);
    used.push(path);
    const file = folder.open(path);
    try {
      const head = Buffer.from(await file.read(0, Math.min(32, file.size))).toString('latin1');
      if (SAVED_STATE.test(head)) {
        const evidence = [`${basename(path)} is a saved state of ${file.size} bytes, which holds the guest's memory`];
        return { memory: true, evidence, used, findings: [] };
      }
      return { memory: false, evidence: [], used, findings: [notSaved(file.name, head)] };
    } finally {
      await file.close();
    }
  } catch (error) {
    if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
    const absent = error.kind === 'not-found';
    const finding = findingFromError(error, {
      severity: absent ? 'note' : 'suspicious',
      code: absent ? 'state-file-missing' : 'state-file-damaged',
      ...(absent ? { message: `The saved state ${oneLine(recorded)} is missing; the disks do not need it` } : {}),
    });
    return { memory: false, evidence: [], used, findings: [finding] };
  }
}

function notSaved(source: string, head: string): Finding {
  return {
    severity: 'suspicious',
    code: 'state-file-damaged',
    message: `${source} is no saved state of VirtualBox; the disks do not need it`,
    source,
    structure: 'VirtualBox saved state',
    position: 0,
    expected: '"VirtualBox SavedState"',
    found: head === '' ? 'an empty file' : Buffer.from(head.slice(0, 16), 'latin1').toString('hex'),
  };
}

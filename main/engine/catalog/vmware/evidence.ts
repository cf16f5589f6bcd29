/**
 * What the files around a snapshot prove about how it was taken. Only what is found counts: a level is never inferred from
 * the lack of something else.
 *
 * - Memory: the .vmsn (or .vmss) holds a memory block, or a .vmem lies beside it.
 * - Application: VMware Tools wrote `NAME-vss_manifestsUID.zip` when the writers of Windows had been told (VDDK guide, "Windows
 *   VSS quiescing"); UID is the snapshot's.
 * - File system: the .vmsd says so (`quiesced`).
 * - Crash: the .vmx says that the VM was not shut down.
 */
import { basename, dirname, join } from 'node:path';
import { findingFromError } from '../../chain/verify.ts';
import { CancelledError, ChainliftError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import type { Confinement } from '../../storage/confinement.ts';
import type { Evidence } from '../drafts.ts';
import { vssManifestUid } from '../files.ts';
import { oneLine } from '../text.ts';
import type { VmsdSnapshot } from './vmsd.ts';
import { readSavedState } from './vmsn.ts';
import type { VmxMachine } from './vmx.ts';

/** What the guest's VSS writers left in a folder, by the uid in the name; empty for a name without one. */
export function vssManifests(files: readonly string[]): ReadonlyMap<string, string> {
  const manifests = new Map<string, string>();
  for (const name of files) {
    const uid = vssManifestUid(name);
    if (uid !== undefined) manifests.set(uid, name);
  }
  return manifests;
}

/** @param manifests those in the .vmsd's folder. @param only this is the VM's only snapshot. */
export async function snapshotEvidence(
  snapshot: VmsdSnapshot,
  vmsd: string,
  manifests: ReadonlyMap<string, string>,
  only: boolean,
  folder: Confinement,
): Promise<Evidence> {
  const state = await savedState(snapshot.stateFile, vmsd, folder);
  const used = [...state.used];
  const evidence = [...state.evidence];

  // One without a uid is this snapshot's only when there is no other that it could be of.
  const manifest = manifests.get(snapshot.id) ?? (only ? manifests.get('') : undefined);
  if (manifest !== undefined) {
    used.push(join(dirname(vmsd), manifest));
    evidence.push(`${manifest} was written by the guest's VSS writers`);
  }
  if (snapshot.quiesced) evidence.push(`${basename(vmsd)} says that the file systems were quiesced`);

  const quiesced = manifest !== undefined || snapshot.quiesced;
  const level =
    manifest !== undefined ? 'application' : state.memory ? 'memory' : snapshot.quiesced ? 'file-system' : 'unknown';
  if (!quiesced) evidence.push('no quiesce mark');
  if (!state.memory) evidence.push('no memory file');
  if (!state.memory && snapshot.type === 1) {
    evidence.push(`${basename(vmsd)} gives it type 1, as for snapshots of a running VM`);
  }
  return { memory: state.memory, quiesced, consistency: { level, evidence }, used, findings: state.findings };
}

/** What is known of how the VM's present state was left. */
export async function currentEvidence(machine: VmxMachine, vmx: string, folder: Confinement): Promise<Evidence> {
  const state = await savedState(machine.suspendedTo, vmx, folder);
  const evidence = [...state.evidence];
  if (state.memory) evidence.push('the VM was suspended');
  else if (machine.cleanShutdown === true) evidence.push('cleanShutdown is TRUE (the VM was off)');
  else if (machine.cleanShutdown === false) {
    evidence.push('cleanShutdown is FALSE: the VM ran when this was copied, or lost its host');
  } else evidence.push('no cleanShutdown mark');
  const level = state.memory ? 'memory' : machine.cleanShutdown === false ? 'crash' : 'unknown';
  return {
    memory: state.memory,
    quiesced: false,
    consistency: { level, evidence },
    used: state.used,
    findings: state.findings,
  };
}

interface State {
  readonly memory: boolean;
  readonly evidence: readonly string[];
  readonly used: readonly string[];
  readonly findings: readonly Finding[];
}

async function savedState(recorded: string | undefined, from: string, folder: Confinement): Promise<State> {
  if (recorded === undefined) return { memory: false, evidence: [], used: [], findings: [] };
  const evidence: string[] = [];
  const used: string[] = [];
  const findings: Finding[] = [];
  let memory = false;
  const attempt = async (
    name: string,
    action: (path: string) => Promise<void>,
  ): Promise<ChainliftError | undefined> => {
    try {
      const path = folder.resolveRecorded(name, from);
      used.push(path);
      await action(path);
      return undefined;
    } catch (error) {
      if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
      return error;
    }
  };

  const failure = await attempt(recorded, async (path) => {
    const file = folder.open(path);
    try {
      const { memoryBytes } = await readSavedState(file);
      if (memoryBytes === 0) return;
      memory = true;
      evidence.push(`${basename(path)} holds ${memoryBytes} bytes of guest memory`);
    } finally {
      await file.close();
    }
  });
  if (failure !== undefined) {
    const absent = failure.kind === 'not-found';
    findings.push(
      findingFromError(failure, {
        severity: absent ? 'note' : 'suspicious',
        code: absent ? 'state-file-missing' : 'state-file-damaged',
        ...(absent ? { message: `The state file ${oneLine(recorded)} is missing; the disks do not need it` } : {}),
      }),
    );
  }
  const memoryName = `${recorded.replace(/\.(vmsn|vmss)$/i, '')}.vmem`;
  // Most snapshots have none, and so its absence is no finding.
  await attempt(memoryName, async (path) => {
    const file = folder.open(path);
    try {
      if (file.size === 0) return;
      memory = true;
      evidence.push(`${basename(path)} is there with ${file.size} bytes of guest memory`);
    } finally {
      await file.close();
    }
  });
  return { memory, evidence, used, findings };
}

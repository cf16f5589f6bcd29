/**
 * What Hyper-V's files prove about how a point was taken. Only what is found counts.
 *
 * - Memory: the .vmrs of the point holds saved state in file objects, or a .bin and .vsv of it are there (before 2016).
 * - Application: a production checkpoint of a VM that ran. Its own configuration says that production checkpoints are made
 *   (`user_type` 3 or 4) and that the VM was on, and there is no saved state, which a standard checkpoint of a running VM has.
 *   Windows guests are then prepared by VSS; Linux guests, told by their secure boot template, freeze their file systems.
 * - File system: only production checkpoints are allowed (4), and whether the VM ran is not recorded: with VSS, frozen, or off.
 *
 * What `user_type` means: Microsoft's reference of Msvm_VirtualSystemSettingData, UserSnapshotType.
 */
import { basename } from 'node:path';
import { findingFromError } from '../../chain/verify.ts';
import { CancelledError, ChainliftError } from '../../errors.ts';
import type { Finding } from '../../image/image.ts';
import type { Confinement } from '../../storage/confinement.ts';
import type { Evidence } from '../drafts.ts';
import { type FileIndex, isBelow } from '../locate.ts';
import type { Consistency } from '../model.ts';
import { CHECKPOINTS, type HyperVConfig } from './config.ts';
import type { ConfigFile } from './files.ts';
import { savedBytes } from './keys.ts';

/** Less than this is no memory of a VM: a .vmrs keeps other long values in file objects, too. */
const LEAST_MEMORY = 1 << 20;

/** @param root folder of the VM. */
export async function checkpointEvidence(
  checkpoint: ConfigFile,
  root: string,
  files: FileIndex,
  folder: Confinement,
): Promise<Evidence> {
  const state = await savedState(checkpoint, root, files, folder, true);
  const { config } = checkpoint;
  const name = basename(checkpoint.path);
  const evidence = [...state.evidence, ...kindEvidence(config, name)];
  if (!state.memory) evidence.push('no saved state with memory');
  const level = state.memory ? 'memory' : state.missing ? 'unknown' : levelOf(config);
  return {
    memory: state.memory,
    quiesced: level === 'application',
    consistency: { level, evidence },
    used: state.used,
    findings: state.findings,
  };
}

/** What is known of how the VM's present state was left. */
export async function currentEvidence(
  machine: ConfigFile,
  root: string,
  files: FileIndex,
  folder: Confinement,
): Promise<Evidence> {
  // The .bin of a running VM is a place kept for its memory, and holds none.
  const state = await savedState(machine, root, files, folder, machine.config.saved);
  const evidence = [...state.evidence];
  const name = basename(machine.path);
  if (state.memory) evidence.push('the VM was saved');
  else if (machine.config.running === true) {
    evidence.push(
      `${name} says that the VM was last switched on, not off: it ran when this was copied, or lost its host`,
    );
  } else if (machine.config.running === false) evidence.push(`${name} says that the VM was last switched off`);
  else evidence.push(`${name} does not say whether the VM ran`);
  const level = state.memory ? 'memory' : machine.config.running === true ? 'crash' : 'unknown';
  return {
    memory: state.memory,
    quiesced: false,
    consistency: { level, evidence },
    used: state.used,
    findings: state.findings,
  };
}

function levelOf({ checkpoints, running, linux }: HyperVConfig): Consistency['level'] {
  const production = checkpoints === CHECKPOINTS.productionOnly || checkpoints === CHECKPOINTS.productionOrStandard;
  if (production && running === true) return linux ? 'file-system' : 'application';
  if (checkpoints === CHECKPOINTS.productionOnly) return 'file-system';
  return 'unknown';
}

function kindEvidence(config: HyperVConfig, name: string): string[] {
  const evidence: string[] = [];
  const { checkpoints, running } = config;
  if (checkpoints === CHECKPOINTS.productionOnly) {
    evidence.push(
      `${name} allows production checkpoints only (user_type 4): by VSS in Windows guests, by frozen file systems in Linux guests`,
    );
  } else if (checkpoints === CHECKPOINTS.productionOrStandard) {
    evidence.push(
      `${name} asks for production checkpoints, or standard ones with memory where that fails (user_type 3)`,
    );
  } else if (checkpoints === CHECKPOINTS.standard) {
    evidence.push(`${name} asks for standard checkpoints, which do not prepare the guest (user_type 5)`);
  }
  if (running !== undefined) evidence.push(`${name} says that the VM was ${running ? 'on' : 'off'}`);
  if (config.linux) evidence.push(`${name} has the secure boot template for Linux`);
  return evidence;
}

interface State {
  readonly memory: boolean;
  /** The configuration has a saved state, and its file is not there. */
  readonly missing: boolean;
  readonly evidence: readonly string[];
  readonly used: readonly string[];
  readonly findings: readonly Finding[];
}

async function savedState(
  { id, config, path }: ConfigFile,
  root: string,
  files: FileIndex,
  folder: Confinement,
  withBin: boolean,
): Promise<State> {
  const evidence: string[] = [];
  const used: string[] = [];
  const findings: Finding[] = [];
  const one = (ending: string): string | undefined =>
    files.get(`${id.toLowerCase()}.${ending}`)?.find((candidate) => isBelow(candidate, root));
  let memory = false;
  const vmrs = one('vmrs');
  if (vmrs !== undefined) {
    used.push(vmrs);
    const bytes = await attempt(vmrs, folder, findings, savedBytes);
    if (bytes !== undefined && bytes >= LEAST_MEMORY) {
      memory = true;
      evidence.push(`${basename(vmrs)} holds ${bytes} bytes of saved state`);
    }
  }
  const [bin, vsv] = [one('bin'), one('vsv')];
  for (const file of [bin, vsv]) if (file !== undefined) used.push(file);
  if (withBin && bin !== undefined && vsv !== undefined) {
    const size = async (file: { readonly size: number }): Promise<number> => file.size;
    const bytes = (await attempt(bin, folder, findings, size)) ?? 0;
    const devices = (await attempt(vsv, folder, findings, size)) ?? 0;
    if (bytes > 0 && devices > 0) {
      memory = true;
      evidence.push(`${basename(bin)} holds ${bytes} bytes of guest memory, and ${basename(vsv)} lies beside it`);
    }
  }
  const missing = config.saved && !memory;
  if (missing) {
    findings.push({
      severity: 'note',
      code: 'state-file-missing',
      message: `${folder.label(path)} has a saved state, and no file with it is here; the disks do not need it`,
      source: folder.label(path),
      structure: 'savedstate',
    });
  }
  return { memory, missing, evidence, used, findings };
}

/** What `look` finds in a file; undefined, with a finding, where it can't be read. */
async function attempt(
  path: string,
  folder: Confinement,
  findings: Finding[],
  look: (file: ReturnType<Confinement['open']>) => Promise<number>,
): Promise<number | undefined> {
  try {
    const file = folder.open(path);
    try {
      return await look(file);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (!(error instanceof ChainliftError) || error instanceof CancelledError) throw error;
    findings.push(findingFromError(error, { severity: 'suspicious', code: 'state-file-damaged' }));
    return undefined;
  }
}

/**
 * Programs of other people that tests compare us with. A missing one skips its tests and says which Debian package brings it;
 * under CHAINLIFT_REQUIRE_PEERS=1 (CI) a missing one fails them.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe, it } from 'vitest';
import peerPackages from './peers.json' with { type: 'json' };

/** Program name -> the Debian package that has it. */
export { peerPackages };

export type Peer = keyof typeof peerPackages;

export const peersRequired = process.env.CHAINLIFT_REQUIRE_PEERS === '1';

function onPath(program: string): boolean {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Why a peer can't be used here, or undefined when it can. */
export function missingPeer(peer: Peer): string | undefined {
  return onPath(peer) ? undefined : `${peer} is not installed (Debian package ${peerPackages[peer]})`;
}

let loop: string | undefined | null = null;
/** Why loop mounts can't be made here (needs root and loop devices), or undefined when they can. */
export function missingLoopMounts(): string | undefined {
  if (loop === null) {
    loop =
      process.getuid?.() !== 0
        ? 'loop mounts need root'
        : !existsSync('/dev/loop-control')
          ? 'no loop devices here'
          : undefined;
  }
  return loop;
}

/**
 * `describe` for tests that need peers. Extra reasons (results of `missingLoopMounts` and the like) may be given too.
 */
export function describePeers(
  title: string,
  needs: { peers?: readonly Peer[]; reasons?: readonly (string | undefined)[] },
  body: () => void,
): void {
  const reasons = [...(needs.peers ?? []).map(missingPeer), ...(needs.reasons ?? [])].filter((r) => r !== undefined);
  if (reasons.length === 0) {
    describe(title, body);
  } else if (peersRequired) {
    it(`${title}: every peer is here`, () => {
      throw new Error(`CHAINLIFT_REQUIRE_PEERS is set and ${reasons.join('; ')}`);
    });
  } else {
    describe.skip(`${title} (skipped: ${reasons.join('; ')})`, body);
  }
}

/** Runs a program to its end and returns its standard output. Throws with its standard error when it fails. */
export function run(
  program: string,
  args: readonly string[],
  options: { input?: string | Buffer; cwd?: string } = {},
): string {
  return execFileSync(program, [...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C.UTF-8' },
    ...options,
  });
}

/** Runs a program that may fail. */
export function tryRun(
  program: string,
  args: readonly string[],
  options: { cwd?: string } = {},
): { code: number; stdout: string; stderr: string } {
  const result = spawnSync(program, [...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C.UTF-8' },
    ...options,
  });
  if (result.error) throw result.error;
  return { code: result.status ?? 1, stdout: result.stdout, stderr: result.stderr };
}

/** The built command line, as a user runs it. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';

const program = join(resolve(import.meta.dirname, '..', '..'), 'out', 'main', 'cli.cjs');

export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `chainlift` with the arguments. Needs a build: `npm test` makes it, `npm run build` does. */
export function chainlift(...args: string[]): CliResult {
  return chainliftWith({}, ...args);
}

/** As `chainlift`, with these variables of the environment besides. */
export function chainliftWith(variables: Readonly<Record<string, string>>, ...args: string[]): CliResult {
  if (!existsSync(program)) throw new Error('there is no build; npm run build makes it');
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: 120_000,
    // Names and messages must not depend on who runs the tests.
    env: { ...process.env, CHAINLIFT_CONFIG: '/nonexistent', CHAINLIFT_CACHE: '', LC_ALL: 'C.UTF-8', ...variables },
  });
  return { code: status ?? -1, stdout, stderr };
}
